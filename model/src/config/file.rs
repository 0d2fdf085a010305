//! The configuration as written: TOML, unknown keys refused; the reference of every key stands beside it.
//!
//! Each section is declared once by `written!`: key, type, default, range and meaning. The same
//! declaration gives the type that is read and the rows of `docs/config.md`.

use std::{collections::BTreeMap, fmt};

use serde::de::{Deserialize, Deserializer, SeqAccess, Visitor};

/// A key of the reference.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Field {
    pub(crate) key: &'static str,
    pub(crate) default: &'static str,
    pub(crate) range: &'static str,
    pub(crate) meaning: &'static str,
}

/// A section of the reference.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Section {
    /// How it is written, such as `[listeners]`; empty at the top level.
    pub(crate) header: &'static str,
    pub(crate) about: &'static str,
    pub(crate) fields: &'static [Field],
}

macro_rules! written {
    (
        $(#[doc = $about:literal])+
        $name:ident as $header:literal {
            $(
                $(#[doc = $doc:literal])+
                $field:ident : $type:ty, $default:literal, $range:literal;
            )*
        }
    ) => {
        $(#[doc = $about])+
        #[derive(Debug, Default, serde::Deserialize)]
        #[serde(deny_unknown_fields)]
        pub(crate) struct $name {
            $(
                $(#[doc = $doc])+
                #[serde(default)]
                pub(crate) $field: $type,
            )*
        }
        impl $name {
            /// Its part of the reference.
            pub(crate) const SECTION: Section = Section {
                header: $header,
                about: concat!($($about),+),
                fields: &[$(Field {
                    key: stringify!($field),
                    default: $default,
                    range: $range,
                    meaning: concat!($($doc),+),
                }),*],
            };
        }
    };
}

written! {
    /// Keys that stand before the first section.
    FileRoot as "" {
        /// Directory of the daemon's state, owned by one daemon at a time. Needs a restart.
        state_dir: Option<String>, "\"/var/lib/meshd\"", "an absolute path";
        /// Directory of the admin socket `meshd.sock` and of the names file. Needs a restart.
        runtime_dir: Option<String>, "\"/run/meshd\"", "an absolute path";
        /// Worker threads of the data plane. More than the host has cores only cost memory. Needs a restart.
        workers: Option<u32>, "an eighth of the cores, 2 to 8", "1 to 256";
        /// Longest time that running requests get at shutdown. Too short cuts them off; too long delays a restart.
        drain_timeout: Option<String>, "\"30s\"", "0s to 1h";
        /// This host.
        host: Option<FileHost>, "", "";
        /// Listening sockets.
        listeners: Option<FileListeners>, "", "";
        /// How local traffic is captured.
        capture: Option<FileCapture>, "", "";
        /// The control state.
        cluster: Option<FileCluster>, "", "";
        /// The names process.
        names: Option<FileNames>, "", "";
        /// Access log.
        access_log: Option<FileAccessLog>, "", "";
        /// Programs of this host.
        service: Vec<FileService>, "", "";
        /// Discovery sources.
        source: Vec<FileSource>, "", "";
        /// How sources meet.
        merge: Vec<FileMerge>, "", "";
        /// Registries that this host's services are announced to.
        registration: Vec<FileRegistration>, "", "";
    }
}

written! {
    /// This host, as the others see it. Needs a restart.
    FileHost as "[host]" {
        /// Name of this host for people.
        name: Option<String>, "the kernel's host name", "1 to 253 characters";
        /// Addresses at which other hosts reach this one, preferred first.
        addresses: Option<Vec<String>>, "found from the routes", "IP addresses, not 0.0.0.0 or ::";
        /// Where it runs.
        locality: Option<FileLocality>, "", "";
        /// Labels of the host.
        labels: Option<BTreeMap<String, String>>, "{}", "at most 64";
    }
}

written! {
    /// Where the host runs, coarse to fine.
    FileLocality as "[host.locality]" {
        /// Such as `eu-west`.
        region: Option<String>, "none", "1 to 63 characters";
        /// Such as `eu-west-1a`.
        zone: Option<String>, "none", "1 to 63 characters";
        /// Such as a rack.
        sub_zone: Option<String>, "none", "1 to 63 characters";
    }
}

written! {
    /// Listening sockets; every port differs from the others. Needs a restart.
    FileListeners as "[listeners]" {
        /// Port for captured calls of local programs, on loopback.
        outbound_port: Option<u16>, "15001", "1 to 65535";
        /// Port for captured calls to local programs; reached by tproxy only.
        inbound_port: Option<u16>, "15006", "1 to 65535";
        /// mTLS between daemons, and HBONE.
        tunnel: Option<String>, "\"[::]:15008\"", "address:port";
        /// Explicit outbound listener: routes by `Host`, by absolute form and by CONNECT.
        explicit: Option<String>, "off", "address:port, such as \"127.0.0.1:4140\"";
        /// Prometheus metrics and health of the daemon.
        metrics: Option<String>, "\"127.0.0.1:15020\"", "address:port";
    }
}

written! {
    /// How local traffic is captured. Needs a restart.
    FileCapture as "[capture]" {
        /// `mesh`: calls to virtual addresses and to known endpoints, and calls to registered ports. `off`: nothing; the explicit listener only.
        mode: Option<String>, "\"mesh\"", "mesh, off";
        /// Virtual addresses of services, IPv4. Must be used for nothing else on this host.
        virtual_v4: Option<String>, "\"240.240.0.0/16\"", "a prefix of 8 to 24 bits";
        /// Virtual addresses of services, IPv6. Must be used for nothing else on this host.
        virtual_v6: Option<String>, "\"fd6d:6573:6864::/64\"", "a prefix of 32 to 112 bits";
        /// Value of the socket mark that keeps the daemon's own traffic out of the capture. The default and its mask avoid the bits of kube-proxy (0x4000, 0x8000), Cilium (0x0f00 and the upper 16), Calico (the upper 16), Tailscale (0xff0000), CNI's port mapping (0x2000) and AWS's CNI (0x80). Inbound connections get this value plus the lowest bit of the mask.
        mark: Option<u32>, "0x1010", "inside the mask, not 0";
        /// Bits of the mark that are meshd's.
        mask: Option<u32>, "0x1070", "without 0x4000 and 0x8000; room for two values";
    }
}

written! {
    /// The control state. Needs a restart.
    FileCluster as "[cluster]" {
        /// Where members reach this host, UDP and TCP.
        listen: Option<String>, "\"[::]:7947\"", "address:port";
        /// False: membership runs over TCP alone.
        udp: Option<bool>, "true", "true, false";
        /// Further places to find members, beside those that were learned.
        seeds: Option<Vec<String>>, "[]", "host:port";
    }
}

written! {
    /// The names process. Needs a restart.
    FileNames as "[names]" {
        /// Where it answers, UDP and TCP.
        listen: Option<Vec<String>>, "[\"127.0.0.1:15053\"]", "address:port";
        /// Where names outside the mesh are sent on to; none: they are refused, so that a resolver asks elsewhere.
        upstream: Option<Vec<String>>, "[]", "address:port";
    }
}

written! {
    /// Access log: one JSON object a line.
    FileAccessLog as "[access_log]" {
        /// `stdout` (the journal), `off`, or a file, which a reload opens anew: rotate it by `mv` and `systemctl reload meshd`.
        destination: Option<String>, "\"off\"", "stdout, off, an absolute path";
        /// True: only failed requests.
        failures_only: Option<bool>, "false", "true, false";
    }
}

written! {
    /// A program of this host: offers ports, or only calls. A file in `services.d` may hold such tables, or the keys of one.
    FileService as "[[service]]" {
        /// The service.
        name: Option<String>, "must be given", "1 to 63 of a-z 0-9 -";
        /// Its namespace.
        namespace: Option<String>, "\"default\"", "1 to 63 of a-z 0-9 -";
        /// Account that its identity names.
        service_account: Option<String>, "the service's name", "1 to 63 of a-z 0-9 -";
        /// Name of this instance, unique on the host; needed when a service runs twice here.
        instance: Option<String>, "the service's name", "1 to 63 of a-z 0-9 -";
        /// Short for the label `version`.
        version: Option<String>, "none", "1 to 63 characters";
        /// Labels, for the selectors of `Service` documents and policies. `app` is the service's name unless given.
        labels: Option<BTreeMap<String, String>>, "{}", "at most 64";
        /// What it offers; none for a program that only calls.
        ports: Vec<FilePort>, "[]", "at most 64";
        /// Address that the program listens on. Loopback: reached through the mesh only.
        address: Option<String>, "the host's own addresses", "an IP address";
        /// systemd unit whose processes are this service; wins over `user`.
        unit: Option<String>, "none", "such as \"web.service\"; of one service only";
        /// User whose processes are this service: a name, a number, or a list of them.
        user: Option<Users>, "none", "of one service only; not root (0)";
        /// Health check; none: offered without being asked.
        health: Option<FileHealth>, "none", "";
        /// Relative share of requests.
        weight: Option<u32>, "1", "1 to 1000";
        /// True: callers are refused, not sent on directly, while their daemon is down.
        fail_closed: Option<bool>, "false", "true, false";
    }
}

written! {
    /// A port of a service.
    FilePort as "[[service.ports]]" {
        /// Name of the port, unique in the service; may be left out of a single port.
        name: Option<String>, "none", "1 to 63 of a-z 0-9 -";
        /// What callers dial.
        port: Option<u16>, "must be given", "1 to 65535";
        /// Where the program listens.
        target: Option<u16>, "the same as `port`", "1 to 65535";
        /// What is spoken; `detect` decides by the first bytes of each connection.
        protocol: Option<String>, "\"detect\"", "detect, http, http2, grpc, tcp";
    }
}

written! {
    /// Health check of a service. What fails is offered to nobody.
    FileHealth as "[service.health]" {
        /// `tcp`: a connection can be opened. `http`: GET answers 200 to 399.
        kind: Option<String>, "\"http\" when `path` is given, else \"tcp\"", "tcp, http";
        /// Port that is asked, as the program listens on it.
        port: Option<u16>, "target of the first port", "1 to 65535";
        /// Path of an HTTP check.
        path: Option<String>, "\"/\"", "begins with /";
        /// Time between checks. Short ones find failures soon and cost requests.
        interval: Option<String>, "\"2s\"", "100ms to 5m";
        /// Time for one check.
        timeout: Option<String>, "\"1s\", at most the interval", "10ms to 1m";
        /// Failures in a row that make it unhealthy.
        unhealthy_after: Option<u32>, "2", "1 to 100";
        /// Successes in a row that make it healthy again.
        healthy_after: Option<u32>, "1", "1 to 100";
    }
}

written! {
    /// A discovery source. Which keys it takes depends on its kind; `docs/registries.md` has a page for each.
    FileSource as "[[source]]" {
        /// Unique id of the source.
        id: Option<String>, "`kind/` and a number", "1 to 63 of a-z 0-9 - /";
        /// What is read.
        kind: Option<String>, "must be given", "file, consul, etcd, eureka, nomad, marathon, serverset, zk-leader, curator, dns, kubernetes";
        /// True: what it says is told to the mesh; false: used on this host only.
        publish: Option<bool>, "true", "true, false";
        /// Place among the sources of a service: lower comes first, equal ones in the order of the files.
        precedence: Option<u16>, "100", "0 to 1000";
        /// Share of the requests of its services; 0: it gets none, which ends a migration.
        weight: Option<u32>, "none; 100 where another source of the service has one", "0 to 1000";
        /// Services that are read.
        services: Option<Vec<String>>, "all, or those that somebody needs", "names";
        /// `file`: the directory.
        directory: Option<String>, "must be given", "an absolute path";
        /// Servers, tried in order. With `ZooKeeper` `tls://` stands for TLS, and the path, behind any of them, is
        /// the one below which everything is (chroot).
        addresses: Option<Vec<String>>, "must be given", "URLs; `[tls://]host:port[/path]` for `ZooKeeper`";
        /// File with a token. Read again when it changes and when the registry refuses.
        token_file: Option<String>, "none", "an absolute path";
        /// User name.
        username: Option<String>, "none", "";
        /// File with the password. Read again as the token.
        password_file: Option<String>, "none", "an absolute path";
        /// Certificates.
        tls: Option<FileSourceTls>, "", "";
        /// `consul`: the datacenter.
        datacenter: Option<String>, "the agent's", "";
        /// `consul` (Enterprise), `nomad`: the registry's namespace.
        namespace: Option<String>, "none; `*` for nomad", "";
        /// `consul` (Enterprise): the admin partition.
        partition: Option<String>, "none", "";
        /// `consul`: tags that an instance must carry, all of them.
        tags: Option<Vec<String>>, "[]", "";
        /// `consul`: true leaves out instances whose checks warn.
        passing: Option<bool>, "false", "true, false";
        /// `consul`, `nomad`: most services that are followed by a question of their own, a connection each unless HTTP/2 is spoken. The others are read when the catalog says that something changed.
        max_watches: Option<u16>, "160; 64 for nomad", "1 to 10000";
        /// `etcd`: how services are written there.
        layout: Option<String>, "\"meshd\"", "meshd, skydns, registrator, grpc, go-micro";
        /// `etcd`, `marathon`: where services begin.
        prefix: Option<String>, "by layout; all groups", "";
        /// `eureka`: zone whose servers and instances are near.
        zone: Option<String>, "none", "";
        /// `eureka`: time between two deltas.
        poll: Option<String>, "\"30s\"", "5s to 5m";
        /// `eureka`: true uses the secure port of an instance when it is enabled.
        secure_port: Option<bool>, "false", "true, false";
        /// `nomad`: the region.
        region: Option<String>, "the agent's", "";
        /// `marathon`: index of the port of apps whose ports have no names.
        port_index: Option<u16>, "0", "";
        /// `serverset`, `zk-leader`, `curator`: path below which services are.
        path: Option<String>, "/discovery, /leaders, /services", "begins with /";
        /// `dns`: servers.
        servers: Option<Vec<String>>, "the system's", "IP addresses";
        /// `dns`: what is asked.
        record: Vec<FileDnsRecord>, "", "";
        /// `dns`: true asks SRV over UDP first; such answers may silently lack records.
        udp: Option<bool>, "false", "true, false";
        /// `kubernetes`: settings of the client.
        kubeconfig: Option<String>, "the pod's account", "an absolute path";
        /// `kubernetes`: context of the kubeconfig.
        context: Option<String>, "its current one", "";
        /// `kubernetes`: namespaces that are read.
        namespaces: Option<Vec<String>>, "all", "";
        /// `kubernetes`: label selector of Services.
        selector: Option<String>, "\"\"", "";
        /// `kubernetes`: true makes labels of pods labels of endpoints; needs the right to list and watch pods.
        pod_labels: Option<bool>, "false", "true, false";
    }
}

written! {
    /// What becomes of a service that several sources know. A rule here wins over `spec.merge` of a `Service` document; the rule for `*` stands behind both.
    FileMerge as "[[merge]]" {
        /// The service: `name`, `namespace/name`, or `*` for every service without a rule of its own.
        service: Option<String>, "\"*\"", "a service, *";
        /// `union`: all sources; an address that several name counts once. `first`: the first that knows the service; the next only when that one never knew it or says that it is gone. `failover`: what the next source says is used when too little of the one before is left.
        policy: Option<String>, "\"union\"", "union, first, failover";
        /// Sources that come first, in this order; the others follow by their precedence.
        sources: Option<Vec<String>>, "[]", "ids of sources";
        /// Shares of the requests, by source; they replace `weight` of the sources.
        weights: Option<BTreeMap<String, u32>>, "{}", "0 to 1000 each";
    }
}

written! {
    /// A registry that this host's services are announced to: with their health, out of use while the daemon drains, gone when it ends; after a crash they expire.
    FileRegistration as "[[registration]]" {
        /// Id of the source whose registry, servers and credentials are used; its token needs the right to write.
        source: Option<String>, "must be given", "a source of kind consul, etcd, eureka, serverset, curator";
        /// Services that are announced.
        services: Option<Vec<String>>, "all of this host's that offer a port", "names";
        /// After a crash they are gone from the registry this much later, and about as much again where it needs that.
        ttl: Option<String>, "\"30s\"", "5s to 10m";
        /// The address that is announced.
        address: Option<String>, "the service's, or the host's first", "an IP address";
        /// `consul`: tags of the instances.
        tags: Option<Vec<String>>, "[]", "";
    }
}

written! {
    /// Certificates for a registry. Read again when the files change.
    FileSourceTls as "[source.tls]" {
        /// Roots that the registry's certificate must lead to (PEM).
        ca: Option<String>, "the system's", "an absolute path";
        /// Own certificate chain (PEM); with `key`.
        certificate: Option<String>, "none", "an absolute path";
        /// Own key (PEM), readable for meshd only.
        key: Option<String>, "none", "an absolute path";
        /// The name that the registry's certificate must have.
        server_name: Option<String>, "the address's host", "";
    }
}

written! {
    /// A name that is asked of DNS.
    FileDnsRecord as "[[source.record]]" {
        /// The service that it becomes.
        service: Option<String>, "must be given", "a service name";
        /// The name that is asked for.
        name: Option<String>, "must be given", "a DNS name";
        /// Port of A and AAAA answers; SRV is asked without one.
        port: Option<u16>, "none", "1 to 65535";
    }
}

/// Every section in the order of the reference.
pub(crate) const SECTIONS: [Section; 16] = [
    FileRoot::SECTION,
    FileHost::SECTION,
    FileLocality::SECTION,
    FileListeners::SECTION,
    FileCapture::SECTION,
    FileCluster::SECTION,
    FileNames::SECTION,
    FileAccessLog::SECTION,
    FileService::SECTION,
    FilePort::SECTION,
    FileHealth::SECTION,
    FileSource::SECTION,
    FileSourceTls::SECTION,
    FileDnsRecord::SECTION,
    FileMerge::SECTION,
    FileRegistration::SECTION,
];

/// `user`: a name, a number, or a list of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Users(pub(crate) Vec<User>);

/// A user by name or number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum User {
    Name(String),
    Id(i64),
}

impl<'de> Deserialize<'de> for User {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(UserVisitor)
    }
}

struct UserVisitor;

impl Visitor<'_> for UserVisitor {
    type Value = User;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the name or number of a user")
    }
    fn visit_i64<E>(self, id: i64) -> Result<User, E> {
        Ok(User::Id(id))
    }
    fn visit_str<E>(self, name: &str) -> Result<User, E> {
        Ok(User::Name(name.to_owned()))
    }
}

impl<'de> Deserialize<'de> for Users {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(UsersVisitor)
    }
}

struct UsersVisitor;

impl<'de> Visitor<'de> for UsersVisitor {
    type Value = Users;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the name or number of a user, or a list of them")
    }
    fn visit_i64<E>(self, id: i64) -> Result<Users, E> {
        Ok(Users(vec![User::Id(id)]))
    }
    fn visit_str<E>(self, name: &str) -> Result<Users, E> {
        Ok(Users(vec![User::Name(name.to_owned())]))
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Users, A::Error> {
        let mut users = Vec::new();
        while let Some(user) = access.next_element()? {
            users.push(user);
        }
        Ok(Users(users))
    }
}
