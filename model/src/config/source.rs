//! Discovery sources as meant: what each kind needs to be read.

use std::{collections::BTreeSet, path::PathBuf, time::Duration};

use crate::name::ServiceName;

/// A discovery source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceConfig {
    /// Unique id, such as `file/etc`.
    pub id: String,
    /// Whether the view is shared with the mesh, or only used here.
    pub publish: bool,
    /// What kind, and its settings.
    pub kind: SourceKind,
    /// Services that are read; `None`: all of them, or those that somebody needs where the registry is large.
    pub services: Option<BTreeSet<ServiceName>>,
}

/// How a registry is reached.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Access {
    /// Servers, tried in order: URLs (`http`, `https`, `unix`), or `[tls://]host:port[/path]` for `ZooKeeper`.
    pub addresses: Vec<String>,
    /// File with a token; read again when it changes and when the registry refuses.
    pub token_file: Option<PathBuf>,
    /// User name.
    pub username: Option<String>,
    /// File with the password, as `token_file`.
    pub password_file: Option<PathBuf>,
    /// Certificates; read again when the files change.
    pub tls: SourceTls,
}

/// Certificates for a registry.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SourceTls {
    /// Roots that its certificate must lead to; `None`: the system's.
    pub ca: Option<PathBuf>,
    /// Own certificate chain.
    pub certificate: Option<PathBuf>,
    /// Own key.
    pub key: Option<PathBuf>,
    /// The name that its certificate must have; `None`: the address's host.
    pub server_name: Option<String>,
}

/// Settings by kind of source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SourceKind {
    /// A directory of TOML, YAML, JSON or plain lines, watched.
    File {
        /// The directory.
        directory: PathBuf,
    },
    /// Consul's catalog and health.
    Consul {
        /// Agents or servers.
        access: Access,
        /// Datacenter; `None`: the agent's.
        datacenter: Option<String>,
        /// Consul namespace (Enterprise).
        namespace: Option<String>,
        /// Admin partition (Enterprise).
        partition: Option<String>,
        /// Tags that an instance must carry, all of them.
        tags: Vec<String>,
        /// True: instances whose checks warn are left out too.
        passing: bool,
        /// Most services that are followed by a question of their own.
        max_watches: u16,
    },
    /// etcd, API v3.
    Etcd {
        /// Members.
        access: Access,
        /// How services are written there.
        layout: EtcdLayout,
        /// Where they begin.
        prefix: String,
    },
    /// Netflix Eureka.
    Eureka {
        /// Base URLs, such as `http://eureka:8761/eureka`.
        access: Access,
        /// Zone whose servers and instances are near.
        zone: Option<String>,
        /// Time between two deltas.
        poll: Duration,
        /// True: the secure port of an instance is used when it is enabled.
        secure_port: bool,
    },
    /// Nomad's own service registry.
    Nomad {
        /// Agents.
        access: Access,
        /// Region; `None`: the agent's.
        region: Option<String>,
        /// Nomad namespace; `*` reads all.
        namespace: String,
        /// Most services that are followed by a question of their own.
        max_watches: u16,
    },
    /// Marathon.
    Marathon {
        /// Masters.
        access: Access,
        /// Group below which apps are services, such as `/prod`.
        prefix: String,
        /// Index of the port that is called where it has several without names.
        port_index: u16,
    },
    /// `ZooKeeper` server sets (Twitter commons).
    Serverset {
        /// Ensemble.
        access: Access,
        /// Path below which services are.
        path: String,
    },
    /// The leader of a `ZooKeeper` election.
    Leader {
        /// Ensemble.
        access: Access,
        /// Path below which elections are.
        path: String,
    },
    /// Apache Curator's service discovery.
    Curator {
        /// Ensemble.
        access: Access,
        /// Base path.
        path: String,
    },
    /// DNS names.
    Dns {
        /// Servers; none: the system's.
        servers: Vec<std::net::SocketAddr>,
        /// What is asked.
        records: Vec<DnsRecord>,
        /// True: SRV over UDP first (answers may silently lack records).
        udp: bool,
    },
    /// Kubernetes Services and `EndpointSlices`.
    Kubernetes {
        /// Settings of the client; `None`: the pod's own account.
        kubeconfig: Option<PathBuf>,
        /// Context of the kubeconfig; `None`: its current one.
        context: Option<String>,
        /// Namespaces; empty: all.
        namespaces: Vec<String>,
        /// Label selector of Services; empty: all.
        selector: String,
        /// True: labels of pods are labels of endpoints.
        pod_labels: bool,
    },
}

impl SourceKind {
    /// `max_watches` of Consul: an agent takes 200 connections from one address, others on the host want some too.
    pub const CONSUL_WATCHES: u16 = 160;
    /// `max_watches` of Nomad: an agent takes 100 connections from one address.
    pub const NOMAD_WATCHES: u16 = 64;

    /// The word of `kind`.
    pub fn word(&self) -> &'static str {
        match self {
            Self::File { .. } => "file",
            Self::Consul { .. } => "consul",
            Self::Etcd { .. } => "etcd",
            Self::Eureka { .. } => "eureka",
            Self::Nomad { .. } => "nomad",
            Self::Marathon { .. } => "marathon",
            Self::Serverset { .. } => "serverset",
            Self::Leader { .. } => "zk-leader",
            Self::Curator { .. } => "curator",
            Self::Dns { .. } => "dns",
            Self::Kubernetes { .. } => "kubernetes",
        }
    }
}

impl SourceKind {
    /// Tags that instances must carry.
    pub fn tags(&self) -> &[String] {
        match self {
            Self::Consul { tags, .. } => tags,
            _ => &[],
        }
    }

    /// Which part of the registry is read, where it has parts with names: Consul's datacenter, Nomad's region,
    /// the path or prefix below which services are.
    pub fn scope(&self) -> &str {
        match self {
            Self::Serverset { path, .. }
            | Self::Leader { path, .. }
            | Self::Curator { path, .. } => path,
            Self::Marathon { prefix, .. } => prefix,
            Self::Consul { datacenter, .. } => datacenter.as_deref().unwrap_or_default(),
            Self::Nomad { region, .. } => region.as_deref().unwrap_or_default(),
            _ => "",
        }
    }
}

/// How services are written in etcd.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum EtcdLayout {
    /// `<prefix>/<namespace>/<service>/<id>` with an endpoint as JSON.
    #[default]
    Meshd,
    /// `SkyDNS`: reversed domain, `{"host","port",…}`.
    Skydns,
    /// Registrator: `<prefix>/<service>/<id>` = `ip:port`.
    Registrator,
    /// gRPC naming: `<target>/<id>` = `{"Op":0,"Addr":…}`.
    Grpc,
    /// go-micro: `<prefix>/<service>/<node>` with `nodes`.
    GoMicro,
}

impl EtcdLayout {
    /// Every layout with its word.
    pub const ALL: [(&'static str, Self); 5] = [
        ("meshd", Self::Meshd),
        ("skydns", Self::Skydns),
        ("registrator", Self::Registrator),
        ("grpc", Self::Grpc),
        ("go-micro", Self::GoMicro),
    ];

    /// The word of `layout`.
    pub fn word(self) -> &'static str {
        Self::ALL
            .iter()
            .find(|(_, layout)| *layout == self)
            .map_or("meshd", |(word, _)| word)
    }

    /// Where services begin unless `prefix` says so.
    pub fn prefix(self) -> &'static str {
        match self {
            Self::Meshd => "/meshd/v1/services",
            Self::Skydns => "/skydns",
            Self::Registrator => "/services",
            Self::Grpc => "",
            Self::GoMicro => "/micro/registry",
        }
    }
}

/// A name that is asked of DNS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DnsRecord {
    /// The service that it becomes.
    pub service: ServiceName,
    /// The name.
    pub name: String,
    /// The port of A and AAAA answers; `None`: SRV is asked.
    pub port: Option<u16>,
}
