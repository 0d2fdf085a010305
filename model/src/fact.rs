//! What a host states about itself: records, and the one signed head above them.
//!
//! Host-owned facts have a single writer. The head carries a root over all records of the host, so one
//! signature covers everything; a record that is absent under the newest root is gone (no tombstones).
//! A record's key includes its source, and a registry view is one record per source and service.

use prost::Message;

use crate::labels::Labels;

/// The signed statement of a host: "these are my records". Ordered by `(incarnation, seq)` alone.
#[derive(Clone, PartialEq, Eq, Hash, Message)]
pub struct HostHead {
    /// The mesh, 16 bytes.
    #[prost(bytes = "vec", tag = "1")]
    pub mesh_id: Vec<u8>,
    /// The host, 16 bytes.
    #[prost(bytes = "vec", tag = "2")]
    pub host_id: Vec<u8>,
    /// Grows at each start of the daemon.
    #[prost(uint32, tag = "3")]
    pub incarnation: u32,
    /// Grows at each change.
    #[prost(uint64, tag = "4")]
    pub seq: u64,
    /// BLAKE3 over all records in key order, 32 bytes.
    #[prost(bytes = "vec", tag = "5")]
    pub root: Vec<u8>,
    /// Number of records.
    #[prost(uint32, tag = "6")]
    pub records: u32,
    /// Routing freshness ends here, milliseconds since the epoch.
    #[prost(uint64, tag = "7")]
    pub lease_until_ms: u64,
    /// Order-independent fingerprint of the commits that this host has, 16 bytes.
    #[prost(bytes = "vec", tag = "8")]
    pub commits: Vec<u8>,
    /// Number of commits that this host has.
    #[prost(uint64, tag = "9")]
    pub commit_count: u64,
    /// Lowest and highest wire version understood.
    #[prost(uint32, tag = "10")]
    pub proto_min: u32,
    /// Highest wire version understood.
    #[prost(uint32, tag = "11")]
    pub proto_max: u32,
    /// When it was signed, milliseconds since the epoch.
    #[prost(uint64, tag = "12")]
    pub signed_ms: u64,
    /// True when the host has said goodbye: its endpoints get nothing new.
    #[prost(bool, tag = "13")]
    pub leaving: bool,
}

/// What a record is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum RecordKind {
    /// Not set; stored and relayed, not understood.
    Unspecified = 0,
    /// [`HostInfo`]; key `host`.
    Host = 1,
    /// [`Workload`]; key `workload/<namespace>/<service>`.
    Workload = 2,
    /// [`RegistryView`]; key `view/<source>/<namespace>/<service>`.
    RegistryView = 3,
    /// [`ResourceStatus`]; key `status/<kind>/<namespace>/<name>`.
    ResourceStatus = 4,
}

/// One record of a host.
#[derive(Clone, PartialEq, Eq, Hash, Message)]
pub struct Record {
    /// Unique among the host's records.
    #[prost(string, tag = "1")]
    pub key: String,
    /// What the body is.
    #[prost(enumeration = "RecordKind", tag = "2")]
    pub kind: i32,
    /// The encoded body, kept verbatim.
    #[prost(bytes = "vec", tag = "3")]
    pub body: Vec<u8>,
}

/// What a host says of itself.
#[derive(Clone, PartialEq, Eq, Hash, Message)]
pub struct HostInfo {
    /// Host name for people.
    #[prost(string, tag = "1")]
    pub name: String,
    /// Addresses at which other hosts reach it, the preferred one first.
    #[prost(string, repeated, tag = "2")]
    pub addresses: Vec<String>,
    /// Port of the mTLS listener, 15008 unless set.
    #[prost(uint32, tag = "3")]
    pub tunnel_port: u32,
    /// Port of the control state, 7947 unless set.
    #[prost(uint32, tag = "4")]
    pub cluster_port: u32,
    /// Region, may be empty.
    #[prost(string, tag = "5")]
    pub region: String,
    /// Zone, may be empty.
    #[prost(string, tag = "6")]
    pub zone: String,
    /// Version of the daemon.
    #[prost(string, tag = "7")]
    pub version: String,
    /// When the daemon started, milliseconds since the epoch.
    #[prost(uint64, tag = "8")]
    pub started_ms: u64,
    /// True when it holds an authority.
    #[prost(bool, tag = "9")]
    pub authority: bool,
    /// How traffic is captured there: `mesh`, `off`.
    #[prost(string, tag = "10")]
    pub capture: String,
    /// Labels of the host.
    #[prost(btree_map = "string, string", tag = "11")]
    pub labels: std::collections::BTreeMap<String, String>,
    /// Fingerprint of the commits that the published snapshot was made from, 16 bytes.
    #[prost(bytes = "vec", tag = "12")]
    pub applied: Vec<u8>,
    /// Number of those commits.
    #[prost(uint64, tag = "13")]
    pub applied_count: u64,
    /// Sub-zone, such as a rack; may be empty.
    #[prost(string, tag = "14")]
    pub sub_zone: String,
    /// The sources that it shares, in the order of its files.
    #[prost(message, repeated, tag = "15")]
    pub sources: Vec<SourceTerms>,
}

/// What others must know of a source to merge and to name what it says.
#[derive(Clone, PartialEq, Eq, Hash, Message)]
pub struct SourceTerms {
    /// Its id, such as `consul/dc1`.
    #[prost(string, tag = "1")]
    pub id: String,
    /// The word of its kind, such as `consul`.
    #[prost(string, tag = "2")]
    pub kind: String,
    /// Which part of the registry it reads: Consul's datacenter, Nomad's region; may be empty.
    #[prost(string, tag = "3")]
    pub scope: String,
    /// Lower comes first.
    #[prost(uint32, tag = "4")]
    pub precedence: u32,
    /// Its share of the requests plus one; 0: not stated.
    #[prost(uint32, tag = "5")]
    pub weight: u32,
    /// Tags that its instances carry.
    #[prost(string, repeated, tag = "6")]
    pub tags: Vec<String>,
    /// True when everything that the registry has was read here.
    #[prost(bool, tag = "7")]
    pub synced: bool,
}

/// Health on the wire; the meaning is [`crate::endpoint::Health`]'s.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum WireHealth {
    /// Nobody checks it.
    Unknown = 0,
    /// Its check passes.
    Healthy = 1,
    /// It answers, badly.
    Degraded = 2,
    /// Nothing new, please.
    Draining = 3,
    /// Its check fails.
    Unhealthy = 4,
}

impl From<crate::endpoint::Health> for WireHealth {
    fn from(health: crate::endpoint::Health) -> Self {
        use crate::endpoint::Health as H;
        match health {
            H::Unknown => Self::Unknown,
            H::Healthy => Self::Healthy,
            H::Degraded => Self::Degraded,
            H::Draining => Self::Draining,
            H::Unhealthy => Self::Unhealthy,
        }
    }
}

impl From<WireHealth> for crate::endpoint::Health {
    fn from(health: WireHealth) -> Self {
        match health {
            WireHealth::Unknown => Self::Unknown,
            WireHealth::Healthy => Self::Healthy,
            WireHealth::Degraded => Self::Degraded,
            WireHealth::Draining => Self::Draining,
            WireHealth::Unhealthy => Self::Unhealthy,
        }
    }
}

/// A port of a workload.
#[derive(Clone, PartialEq, Eq, Hash, Message)]
pub struct WorkloadPort {
    /// The port's name, may be empty.
    #[prost(string, tag = "1")]
    pub name: String,
    /// The port that callers dial.
    #[prost(uint32, tag = "2")]
    pub port: u32,
    /// The port on which the program listens.
    #[prost(uint32, tag = "3")]
    pub target: u32,
    /// The word of [`crate::service::AppProtocol`].
    #[prost(string, tag = "4")]
    pub protocol: String,
}

/// A program that a host runs: offers ports, or only calls.
#[derive(Clone, PartialEq, Eq, Hash, Message)]
pub struct Workload {
    /// Namespace of the service.
    #[prost(string, tag = "1")]
    pub namespace: String,
    /// Name of the service.
    #[prost(string, tag = "2")]
    pub service: String,
    /// Account of its identity; the service's name unless set.
    #[prost(string, tag = "3")]
    pub service_account: String,
    /// Labels, `version` among them.
    #[prost(btree_map = "string, string", tag = "4")]
    pub labels: std::collections::BTreeMap<String, String>,
    /// Ports; empty for a program that only calls.
    #[prost(message, repeated, tag = "5")]
    pub ports: Vec<WorkloadPort>,
    /// Address of the program as peers would dial it in plaintext; empty when only its own host can reach it.
    #[prost(string, tag = "6")]
    pub address: String,
    /// Its health by its own host's check.
    #[prost(enumeration = "WireHealth", tag = "7")]
    pub health: i32,
    /// Relative share of requests, at least 1.
    #[prost(uint32, tag = "8")]
    pub weight: u32,
    /// True when plaintext is refused there (STRICT).
    #[prost(bool, tag = "9")]
    pub strict: bool,
    /// True when callers must be refused, not sent on directly, while no daemon runs.
    #[prost(bool, tag = "10")]
    pub fail_closed: bool,
    /// Name of this instance, unique on the host; two instances of a service may run on one host.
    #[prost(string, tag = "11")]
    pub instance: String,
}

/// One endpoint of a registry view.
#[derive(Clone, PartialEq, Eq, Hash, Message)]
pub struct ViewEndpoint {
    /// Unique inside the service.
    #[prost(string, tag = "1")]
    pub id: String,
    /// `ip:port`.
    #[prost(string, tag = "2")]
    pub address: String,
    /// Its health by the registry.
    #[prost(enumeration = "WireHealth", tag = "3")]
    pub health: i32,
    /// Relative share, at least 1.
    #[prost(uint32, tag = "4")]
    pub weight: u32,
    /// 0 first.
    #[prost(uint32, tag = "5")]
    pub priority: u32,
    /// Labels.
    #[prost(btree_map = "string, string", tag = "6")]
    pub labels: Labels,
}

/// The whole endpoint set of one service as one source has it.
#[derive(Clone, PartialEq, Eq, Hash, Message)]
pub struct RegistryView {
    /// The source's id, such as `file/etc`.
    #[prost(string, tag = "1")]
    pub source: String,
    /// Namespace of the service.
    #[prost(string, tag = "2")]
    pub namespace: String,
    /// Name of the service.
    #[prost(string, tag = "3")]
    pub service: String,
    /// The endpoints, sorted by id.
    #[prost(message, repeated, tag = "4")]
    pub endpoints: Vec<ViewEndpoint>,
    /// The word of [`crate::service::AppProtocol`].
    #[prost(string, tag = "5")]
    pub protocol: String,
    /// The port that callers dial; 0 means the endpoints' common port.
    #[prost(uint32, tag = "6")]
    pub port: u32,
}

/// How a host sees a resource: `status.parents` and the like, as JSON.
#[derive(Clone, PartialEq, Eq, Hash, Message)]
pub struct ResourceStatus {
    /// Kind of the resource.
    #[prost(string, tag = "1")]
    pub kind: String,
    /// Namespace of the resource.
    #[prost(string, tag = "2")]
    pub namespace: String,
    /// Name of the resource.
    #[prost(string, tag = "3")]
    pub name: String,
    /// Revision that the status speaks of, 32 bytes.
    #[prost(bytes = "vec", tag = "4")]
    pub revision: Vec<u8>,
    /// The status object as JSON.
    #[prost(bytes = "vec", tag = "5")]
    pub status: Vec<u8>,
}
