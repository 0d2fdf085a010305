//! The daemon's configuration as meant: every value parsed, every range proven.
//!
//! Three shapes: as written (`file`), as checked (`check`), as meant (here). `Boot` needs a restart
//! to change; `Live` is taken by a reload. After `check` no code validates again.

use std::{collections::BTreeMap, net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use crate::{
    endpoint::Locality,
    name::{Namespace, ServiceAccount, ServiceId, ServiceName},
    service::ServicePort,
};

/// As written becomes as meant; every problem with file, line and key.
pub mod check;
/// The configuration as meant, printed as TOML.
mod effective;
/// As written: TOML, unknown keys refused, close names suggested.
pub(crate) mod file;
/// How the facts of several sources meet.
pub mod merge;
/// The reference of every key.
mod reference;
/// Registries that services are announced to.
pub mod registration;
/// Discovery sources as meant.
pub mod source;

pub use check::{ConfigError, Sources, read};
pub use effective::effective;
pub use merge::{Merge, MergePolicy, MergeRule, SourceTerm};
pub use reference::reference;
pub use registration::RegistrationConfig;
pub use source::{Access, DnsRecord, EtcdLayout, SourceConfig, SourceKind, SourceTls};

/// Where a daemon keeps and finds things, which ports it opens. Changing it needs a restart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Boot {
    /// State directory; `/var/lib/meshd`. Owned by one daemon at a time (locked).
    pub state_dir: PathBuf,
    /// Runtime directory; `/run/meshd`: the admin socket `meshd.sock`, the names file.
    pub runtime_dir: PathBuf,
    /// Name of this host for people; the kernel's host name unless set.
    pub host_name: Option<String>,
    /// Addresses at which other hosts reach this one, preferred first; found from the routes when empty.
    pub addresses: Vec<std::net::IpAddr>,
    /// Where it runs.
    pub locality: Locality,
    /// Labels of the host.
    pub labels: BTreeMap<String, String>,
    /// Worker threads of the data plane; `clamp(cores / 8, 2, 8)` unless set; 1 to 256.
    pub workers: Option<usize>,
    /// Listening sockets.
    pub listeners: Listeners,
    /// How local traffic is captured.
    pub capture: Capture,
    /// Virtual addresses, IPv4; `240.240.0.0/16`; a prefix of 8 to 24.
    pub virtual_v4: (std::net::Ipv4Addr, u8),
    /// Virtual addresses, IPv6; `fd6d:6573:6864::/64`; a prefix of 32 to 112.
    pub virtual_v6: (std::net::Ipv6Addr, u8),
    /// Value and mask of the socket mark that keeps the daemon's own traffic out; value inside mask.
    pub mark: Mark,
    /// The control state.
    pub cluster: Cluster,
    /// The names process.
    pub names: Names,
}

/// Listening sockets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listeners {
    /// Port for captured calls of local programs; 15001. Bound on loopback (IPv4 and IPv6).
    pub outbound_port: u16,
    /// Port for captured calls to local programs; 15006. Bound on all addresses, reached by tproxy only.
    pub inbound_port: u16,
    /// mTLS between daemons and HBONE; 15008 on all addresses unless set.
    pub tunnel: SocketAddr,
    /// Explicit outbound listener (proxy by `Host`, absolute form, CONNECT); off unless set.
    pub explicit: Option<SocketAddr>,
    /// Prometheus and health; 127.0.0.1:15020.
    pub metrics: SocketAddr,
}

/// How local traffic is captured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Capture {
    /// Calls to virtual addresses and to known endpoints of the mesh; inbound to registered ports.
    #[default]
    Mesh,
    /// Nothing; the explicit listener only.
    Off,
}

/// A socket mark and the bits that it uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark {
    /// The value of the daemon's own sockets; `value + step` marks inbound connections and replies.
    pub value: u32,
    /// The bits that are ours.
    pub mask: u32,
}

impl Default for Mark {
    /// `0x1010` of `0x1070`: away from kube-proxy (0x4000, 0x8000), Cilium (0x0f00, upper 16 bits), Calico (upper
    /// 16), Tailscale (0xff0000), CNI's port mapping (0x2000), AWS's CNI (0x80) and from small plain numbers.
    fn default() -> Self {
        Self {
            value: 0x1010,
            mask: 0x1070,
        }
    }
}

impl Mark {
    /// The mark of inbound connections and of the replies to them: the value plus the mask's lowest bit.
    pub(crate) fn inbound(self) -> u32 {
        self.value
            .wrapping_add(self.mask & self.mask.wrapping_neg())
    }
}

/// The control state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cluster {
    /// UDP and TCP; 7947 on all addresses unless set.
    pub listen: SocketAddr,
    /// Off: membership runs over TCP alone.
    pub udp: bool,
    /// Further places to find members: `host:port`; beside those that were learned.
    pub seeds: Vec<String>,
}

/// The names process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Names {
    /// Where it answers, UDP and TCP; 127.0.0.1:15053.
    pub listen: Vec<SocketAddr>,
    /// Where other names are sent on to; empty: they are refused, so that a resolver asks elsewhere.
    pub upstream: Vec<SocketAddr>,
}

/// What a reload may change.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Live {
    /// Programs of this host.
    pub services: Vec<Arc<LocalService>>,
    /// Discovery sources.
    pub sources: Vec<SourceConfig>,
    /// How they meet where several know a service.
    pub merge: Merge,
    /// Registries that this host's services are announced to.
    pub registrations: Vec<RegistrationConfig>,
    /// Access log.
    pub access_log: AccessLog,
    /// Longest time that running requests get at shutdown; 30 s; 0 to 3600 s.
    pub drain_timeout: Duration,
}

/// A program of this host: offers ports, or only calls.
#[derive(Debug, Clone, PartialEq)]
pub struct LocalService {
    /// Name of the instance, unique on the host; the service's name unless set.
    pub instance: String,
    /// The service.
    pub service: ServiceId,
    /// Account of its identity; the service's name unless set.
    pub service_account: ServiceAccount,
    /// Labels, `version` among them.
    pub labels: BTreeMap<String, String>,
    /// Ports; empty for a program that only calls.
    pub ports: Vec<ServicePort>,
    /// Address that the program listens on; the host's own unless set. Loopback: reached through the mesh only.
    pub address: Option<std::net::IpAddr>,
    /// How its processes are recognised; none: by nothing, so it can be called but not recognised as a caller.
    pub recognise: Recognise,
    /// Health check; none: offered without being asked.
    pub health: Option<HealthCheck>,
    /// Relative share, 1 to 1000.
    pub weight: u32,
    /// True: callers are refused while their daemon is down.
    pub fail_closed: bool,
    /// File and line that it was read from.
    pub origin: String,
}

impl LocalService {
    /// A program that offers and checks nothing: the smallest one.
    pub fn named(namespace: Namespace, name: ServiceName) -> Self {
        let service_account = ServiceAccount::new(name.as_str())
            .unwrap_or_else(|_never| unreachable!("a service name is a label"));
        Self {
            instance: name.as_str().to_owned(),
            service: ServiceId::new(namespace, name),
            service_account,
            labels: BTreeMap::new(),
            ports: Vec::new(),
            address: None,
            recognise: Recognise::default(),
            health: None,
            weight: 1,
            fail_closed: false,
            origin: String::new(),
        }
    }
}

/// How processes of a service are recognised; both may be given, the unit wins.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Recognise {
    /// systemd unit, such as `web.service`.
    pub unit: Option<String>,
    /// User ids (names are resolved by the reader).
    pub uids: Vec<u32>,
}

/// A health check of a local service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HealthCheck {
    /// What is asked.
    pub kind: HealthKind,
    /// Time between checks; 2 s; 100 ms to 5 min.
    pub interval: Duration,
    /// Time for one check; 1 s; 10 ms to 1 min, at most the interval.
    pub timeout: Duration,
    /// Failures in a row that make it unhealthy; 2; 1 to 100.
    pub unhealthy_after: u32,
    /// Successes in a row that make it healthy again; 1; 1 to 100.
    pub healthy_after: u32,
}

/// What a health check asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HealthKind {
    /// A TCP connection to the target port can be opened.
    Tcp {
        /// Target port.
        port: u16,
    },
    /// GET answers 200 to 399.
    Http {
        /// Target port.
        port: u16,
        /// Path, such as `/health`.
        path: String,
    },
}

/// Access log: JSON lines.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AccessLog {
    /// Where lines go; none: switched off.
    pub destination: Option<AccessLogDestination>,
    /// True: only failures.
    pub failures_only: bool,
}

/// Where access log lines go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AccessLogDestination {
    /// Standard output: the journal.
    Stdout,
    /// A file, appended to; opened anew by each reload.
    File(PathBuf),
}
