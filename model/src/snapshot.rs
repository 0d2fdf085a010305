//! The immutable compiled view that the proxy obeys: what should be, with indexes for the hot path.
//!
//! `plan` makes it, the proxy only reads it. Live state (pools, loads, ejections, retry budgets) lives in
//! the proxy, keyed by `EndpointKey` and `BackendKey`, and survives a new snapshot. Parts that did
//! not change keep their `Arc` from the previous snapshot, so comparing is pointer equality.

use std::{
    collections::{BTreeMap, HashMap},
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use crate::{
    commit::CommitId,
    endpoint::Tunnel,
    name::{HostId, Namespace, ServiceId},
    principal::{SpiffeId, TrustDomain},
    service::AppProtocol,
};

/// The one publication point: a publisher, many readers, a generation.
pub mod cell;
/// Match, authorize, choose: pure functions that the proxy and `explain` both run.
pub mod decide;
/// Long tables of rules by path.
mod index;
/// Rate limits and faults.
pub mod limit;
/// What one discovery source says.
pub mod namers;
/// What a rule asks of a request, and what it changes.
pub mod rule;
/// How a backend's endpoints are used.
pub mod traffic;

pub use index::PathIndex;
pub use limit::{Fault, RateLimit};
pub use namers::NamedSource;
pub use rule::{Filter, RequestMatch, RouteReference, Rule, SourceMatch};
pub use traffic::{ConnectionTerms, TrafficPolicy};

/// Maps of the snapshot: fast, and never iterated where order matters.
pub type Map<K, V> = HashMap<K, V, foldhash::fast::FixedState>;

/// Stable key of one endpoint's live state: service, port and address, not its health or labels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EndpointKey(pub u64);

/// Stable key of one backend's live state (retry budget, breaker).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BackendKey(pub u64);

/// What the proxy obeys. See the module's text.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Snapshot {
    /// Grows with each publication; 0 is the empty snapshot of an idle daemon.
    pub generation: u64,
    /// Hash of the inputs: equal on hosts that compiled the same facts for the same place.
    pub version: u64,
    /// The mesh; `None` while idle: then everything inbound that is meshed is refused.
    pub mesh: Option<MeshView>,
    /// Where local callers' connections and requests go.
    pub outbound: Outbound,
    /// What reaches local programs.
    pub inbound: Inbound,
    /// Who local callers are.
    pub callers: Callers,
    /// Whom we believe.
    pub trust: Trust,
}

/// Which mesh, and who we are in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MeshView {
    /// Trust domain of the own identities.
    pub trust_domain: TrustDomain,
    /// DNS domain of service names.
    pub domain: Arc<str>,
    /// This host.
    pub host: HostId,
    /// This host's name for people.
    pub host_name: Arc<str>,
}

/// Where calls go.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Outbound {
    /// All frontends, ordered by service and port: for listings, names, rules and explain.
    pub frontends: Vec<Arc<Frontend>>,
    /// By virtual address and port.
    pub by_address: Map<SocketAddr, Arc<Frontend>>,
    /// By host name (every accepted spelling, lower case), then port: for the explicit listener.
    pub by_host: Map<Box<str>, BTreeMap<u16, Arc<Frontend>>>,
    /// By an endpoint's own address: the call goes to that endpoint, through its tunnel. One that has lost its
    /// tunnel stays for connections that were captured before; new ones are not.
    pub direct: Map<SocketAddr, Direct>,
    /// Backends by service and port: what dtabs and routes name.
    pub backends: BTreeMap<(ServiceId, u16), Arc<Backend>>,
    /// Subsets of backends, by service, port and name: what only rules lead to.
    pub subsets: BTreeMap<(ServiceId, u16, Arc<str>), Arc<Backend>>,
    /// Base delegation of the mesh: tables of all namespaces in force, for per-request dtabs.
    pub delegations: BTreeMap<Namespace, Arc<crate::dtab::Dtab>>,
    /// What each discovery source alone says, best first: for namers of dtabs.
    pub sources: Vec<Arc<NamedSource>>,
}

/// A service's port as callers see it.
#[derive(Debug, Clone, PartialEq)]
pub struct Frontend {
    /// The service.
    pub service: ServiceId,
    /// The port that callers dial.
    pub port: u16,
    /// The port's name, may be empty.
    pub port_name: Arc<str>,
    /// What is spoken.
    pub protocol: AppProtocol,
    /// Its virtual addresses (IPv4 and IPv6).
    pub virtual_addresses: Vec<IpAddr>,
    /// True: refused, not sent on directly, while no daemon runs.
    pub fail_closed: bool,
    /// Routes of the service's own namespace (producer routes), or a dtab's; empty: none attached.
    pub rules: RuleTable,
    /// Consumer routes, by the caller's namespace; they replace the producer's.
    pub consumer_rules: BTreeMap<Namespace, RuleTable>,
    /// Where opaque connections go when a TCPRoute is attached; of a rule's matches only the source counts.
    /// Read by [`decide::connected`].
    pub tcp_rules: RuleTable,
    /// Where TLS connections go that are passed on unopened (TLSRoute), best first; one that fits none is an
    /// opaque connection like any other. Read by [`decide::connected`].
    pub tls_rules: Vec<TlsRule>,
    /// Faults for requests to this service.
    pub faults: Arc<[Fault]>,
    /// Where calls go when no route is attached.
    pub backend: Arc<Backend>,
}

/// Rules in order of precedence: the first that matches acts. `attached` without a match answers 404.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct RuleTable {
    /// True when at least one route is attached.
    pub attached: bool,
    /// The rules, one entry per match, best first.
    pub rules: Vec<Arc<Rule>>,
    /// An index over them, for [`decide::matched`]; without one the rules are read in order.
    pub index: PathIndex,
}

impl RuleTable {
    /// A table with its index.
    pub fn new(attached: bool, rules: Vec<Arc<Rule>>) -> Self {
        Self {
            attached,
            index: PathIndex::of(&rules),
            rules,
        }
    }
}

/// One server name (or any) of a TLSRoute, with where its connections go.
#[derive(Debug, Clone, PartialEq)]
pub struct TlsRule {
    /// Exact, or `*.` and what must follow, lower case; `None`: any connection, with a server name or without.
    pub server_name: Option<Box<str>>,
    /// What it asks of the caller.
    pub source: Option<Arc<SourceMatch>>,
    /// Where it comes from.
    pub route: Arc<RouteReference>,
    /// Where connections go.
    pub target: Target,
}

/// Where a rule sends requests. Chosen once per request.
#[derive(Debug, Clone, PartialEq)]
pub enum Target {
    /// A backend.
    Backend(Arc<Backend>),
    /// A share of each; weights are relative, a weight of 0 is never chosen.
    Weighted(Vec<WeightedTarget>),
    /// The first that has a usable endpoint; when none has, the first.
    Failover(Vec<Self>),
    /// No backend: the mesh answers itself.
    Fail {
        /// HTTP status, such as 500.
        status: u16,
        /// Why, for `mesh-error`, log and explain: one of the documented codes.
        code: &'static str,
        /// What is wrong, for explain.
        reason: Arc<str>,
    },
}

/// One share.
#[derive(Debug, Clone, PartialEq)]
pub struct WeightedTarget {
    /// Relative weight.
    pub weight: u32,
    /// Where.
    pub target: Target,
    /// Filters that act when this share is chosen.
    pub filters: Arc<[Filter]>,
}

/// A group of endpoints.
#[derive(Debug, Clone, PartialEq)]
pub struct Backend {
    /// Key of its live state.
    pub key: BackendKey,
    /// The service.
    pub service: ServiceId,
    /// The service's port.
    pub port: u16,
    /// What is spoken.
    pub protocol: AppProtocol,
    /// The subset's name (`DestinationRule.spec.subsets`); empty: the whole service.
    pub subset: Arc<str>,
    /// The endpoints, sorted by id; unroutable ones are left out.
    pub endpoints: Vec<Arc<BackendEndpoint>>,
    /// How they are used.
    pub policy: Arc<TrafficPolicy>,
}

/// One endpoint, ready to be dialled. `Eq`, so that shared ones are compared by their `Arc`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackendEndpoint {
    /// Key of its live state.
    pub key: EndpointKey,
    /// Unique inside the backend.
    pub id: Arc<str>,
    /// Where the program listens (for a local one: as dialled on this host).
    pub address: SocketAddr,
    /// How to reach it through mTLS; `None`: plaintext, straight.
    pub tunnel: Option<Tunnel>,
    /// True when it runs on this host.
    pub local: bool,
    /// Relative share, at least 1.
    pub weight: u32,
    /// 0 is used first.
    pub priority: u16,
    /// How far it is from this host: 0 same zone, 1 same region, 2 anywhere else or unknown to either, 3
    /// behind the region that a policy's `failover` names.
    pub distance: u8,
    /// Where it runs, when it says so.
    pub locality: Option<Arc<crate::endpoint::Locality>>,
    /// False while its host is down or its lease has ended: used when nothing better is left.
    pub preferred: bool,
    /// The host that it runs on.
    pub host: Option<HostId>,
    /// Name of that host, for people.
    pub host_name: Arc<str>,
    /// Labels.
    pub labels: Arc<BTreeMap<String, String>>,
}

/// A call to an endpoint's own address.
#[derive(Debug, Clone, PartialEq)]
pub struct Direct {
    /// The backend that it belongs to.
    pub backend: Arc<Backend>,
    /// The endpoint.
    pub endpoint: Arc<BackendEndpoint>,
}

/// What reaches local programs.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Inbound {
    /// By the address that callers dial (this host's own address and target port).
    pub by_address: Map<SocketAddr, Arc<InboundPort>>,
    /// By server name (`<service>.<namespace>.<trust-domain>`), then target port.
    pub by_server_name: Map<Box<str>, BTreeMap<u16, Arc<InboundPort>>>,
    /// Which identity answers for a server name.
    pub identities: Map<Box<str>, SpiffeId>,
}

/// A port of a local program.
#[derive(Debug, Clone, PartialEq)]
pub struct InboundPort {
    /// The service.
    pub service: ServiceId,
    /// Identity of the program.
    pub principal: SpiffeId,
    /// Where the program is dialled on this host.
    pub target: SocketAddr,
    /// What is spoken.
    pub protocol: AppProtocol,
    /// True: plaintext from other hosts is refused.
    pub strict: bool,
    /// Labels.
    pub labels: Arc<BTreeMap<String, String>>,
    /// Who may call.
    pub authorization: Authorization,
    /// How often.
    pub limits: Arc<[RateLimit]>,
    /// How long connections to the program are used.
    pub connections: ConnectionTerms,
}

/// Compiled policies of one port: first `deny`, then `allow`.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Authorization {
    /// Any match refuses.
    pub deny: Vec<AuthorizationRule>,
    /// With `allow_only`, one must match.
    pub allow: Vec<AuthorizationRule>,
    /// True when an ALLOW policy selects the port, or the mesh denies by default.
    pub allow_only: bool,
}

/// One compiled rule of a policy; all given lists must match, one entry of each is enough.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct AuthorizationRule {
    /// `namespace/name` of the policy, for explain and the access log.
    pub policy: Arc<str>,
    /// Patterns over the caller's id without `spiffe://`; `*` at one end.
    pub principals: Vec<Box<str>>,
    /// Namespaces of the caller.
    pub namespaces: Vec<Namespace>,
    /// Methods; a connection that is not HTTP never matches a rule with methods or paths.
    pub methods: Vec<Box<str>>,
    /// Path patterns; `*` at one end.
    pub paths: Vec<Box<str>>,
    /// Target ports.
    pub ports: Vec<u16>,
}

/// Who local callers are, by what the kernel says of their sockets.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Callers {
    /// By user id.
    pub by_uid: Map<u32, Arc<Caller>>,
    /// By systemd unit name; wins over the user id.
    pub by_unit: Map<Box<str>, Arc<Caller>>,
    /// By service: for `meshctl curl --as` and `explain --from`.
    pub by_service: BTreeMap<ServiceId, Arc<Caller>>,
    /// Everybody else on this host.
    pub host: Option<Arc<Caller>>,
}

/// A local caller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// Its service; `None` for the host itself.
    pub service: Option<ServiceId>,
    /// Its identity.
    pub principal: SpiffeId,
    /// Its namespace: decides which consumer routes act.
    pub namespace: Namespace,
    /// Label of metrics and logs: the service, or `host`.
    pub label: Arc<str>,
    /// True when its `l5d-dtab` headers count (workloads of the mesh).
    pub trusted: bool,
    /// Its labels; none for the host itself.
    pub labels: Arc<BTreeMap<String, String>>,
}

/// Whom we believe.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Trust {
    /// Roots (DER) by trust domain; a peer is verified against the roots of the domain in its SAN.
    pub bundles: BTreeMap<TrustDomain, Vec<Arc<[u8]>>>,
    /// What each admitted, unrevoked host of the own trust domain may present.
    pub grants: Map<HostId, Arc<HostRights>>,
}

/// The rights of a host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostRights {
    /// Patterns of [`crate::grant::covers`].
    pub may_register: Vec<String>,
    /// Milliseconds since the epoch.
    pub not_after_ms: u64,
}

/// Time-outs of a rule; `None` means none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    /// The whole request, all tries together.
    pub request: Option<Duration>,
    /// Each try.
    pub backend_request: Option<Duration>,
    /// No byte of request or answer in either direction for so long.
    pub idle: Option<Duration>,
}

impl Default for Timeouts {
    /// None at all: streams are not cut by a default.
    fn default() -> Self {
        Self {
            request: None,
            backend_request: None,
            idle: None,
        }
    }
}

/// Retries of a rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Retry {
    /// Tries beside the first.
    pub attempts: u32,
    /// Status codes that are tried again; with `idempotent_only`, only for idempotent methods.
    pub codes: Vec<u16>,
    /// True for the default: codes count for idempotent methods (RFC 9110 section 9.2.2) only. A route's own `retry` clears it.
    pub idempotent_only: bool,
    /// Conditions beside the codes.
    pub on: RetryOn,
    /// gRPC statuses of an answer without messages that are tried again, whatever the method.
    pub grpc_codes: Vec<u8>,
    /// Least time between tries; doubled each time, with jitter.
    pub backoff: Duration,
    /// Most time between two tries.
    pub max_backoff: Duration,
}

/// What is tried again beside answers with a listed code. A failed connection and a refused stream always are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RetryOn {
    /// The connection broke before an answer's head, for every method; idempotent ones are always tried again.
    pub reset: bool,
    /// The try's own time was over, for every method; idempotent ones always are.
    pub timeout: bool,
    /// 409 (`retriable-4xx`).
    pub conflict: bool,
}

impl Default for Retry {
    /// Two further attempts: on connect failure and refused stream for every method, on 502, 503 and 504 for idempotent ones.
    fn default() -> Self {
        Self {
            attempts: 2,
            codes: vec![502, 503, 504],
            idempotent_only: true,
            on: RetryOn::default(),
            grpc_codes: Vec::new(),
            backoff: Duration::from_millis(5),
            max_backoff: Duration::from_secs(10),
        }
    }
}

/// Who made the rule and in which revision, for logs, metrics and explain.
pub type Revision = Option<CommitId>;
