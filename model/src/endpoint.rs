//! One instance of a service: where it is, how healthy, and how to reach it securely.

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc};

use crate::{
    address::Address,
    name::{HostId, Namespace, ServiceName},
    principal::SpiffeId,
};

/// How a source or a host sees the health of an endpoint.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    Hash,
    PartialOrd,
    Ord,
    Default,
    serde::Serialize,
    serde::Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum Health {
    /// Nobody checks it; it is routable.
    #[default]
    Unknown,
    /// Its check passes.
    Healthy,
    /// It answers, badly; routable when nothing better is left.
    Degraded,
    /// It finishes what it has and gets nothing new.
    Draining,
    /// Its check fails.
    Unhealthy,
}

impl Health {
    /// True when new requests may go there.
    pub fn is_routable(self) -> bool {
        matches!(self, Self::Unknown | Self::Healthy | Self::Degraded)
    }
}

/// Where an endpoint runs, coarse to fine.
#[derive(
    Debug,
    Clone,
    PartialEq,
    Eq,
    Hash,
    PartialOrd,
    Ord,
    Default,
    serde::Serialize,
    serde::Deserialize,
)]
#[serde(default, deny_unknown_fields)]
pub struct Locality {
    /// Such as `eu-west`.
    pub region: Option<Arc<str>>,
    /// Such as `eu-west-1a`.
    pub zone: Option<Arc<str>>,
    /// Such as a rack.
    pub sub_zone: Option<Arc<str>>,
}

/// A service as a registry names it, before it is mapped to a mesh service.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ServiceKey {
    /// The namespace, where the registry has one.
    pub namespace: Option<Namespace>,
    /// The service's name.
    pub name: ServiceName,
    /// The port's name, where the registry names ports.
    pub port_name: Option<Arc<str>>,
}

/// How the bytes to an endpoint are secured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum TunnelKind {
    /// Another meshd: HTTP as HTTP/2 and TCP as CONNECT over mTLS, ALPN `mesh-h2/1`.
    Mesh,
    /// A foreign HBONE peer: CONNECT over mTLS, ALPN `h2`.
    Hbone,
}

/// How the `:authority` of a CONNECT is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub enum AuthorityForm {
    /// `ip:port` of the endpoint.
    #[default]
    Address,
    /// `host:port` of the service.
    Host,
}

/// A stop on the way to the endpoint's own tunnel.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NextHop {
    /// Where the gateway listens.
    pub address: SocketAddr,
    /// Identities that are accepted there.
    pub sans: Arc<[SpiffeId]>,
}

/// How an endpoint is reached through mTLS; apart from its own address and port.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Tunnel {
    /// Whose protocol.
    pub kind: TunnelKind,
    /// Where the tunnel listens.
    pub address: SocketAddr,
    /// Server name (SNI) that selects the local service there, `<service>.<namespace>.<trust-domain>`.
    pub server_name: Option<Arc<str>>,
    /// Identities that the endpoint may present.
    pub sans: Arc<[SpiffeId]>,
    /// A gateway in between.
    pub next_hop: Option<NextHop>,
    /// The form of `:authority`.
    pub authority: AuthorityForm,
    /// The network that the address belongs to, where networks are apart.
    pub network: Option<Arc<str>>,
}

/// One instance of a service.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Endpoint {
    /// Unique and stable inside the service.
    pub id: Arc<str>,
    /// Where the program itself listens.
    pub address: Address,
    /// Its health.
    pub health: Health,
    /// Relative share of requests, at least 1.
    pub weight: u32,
    /// 0 is used first.
    pub priority: u16,
    /// Where it runs.
    pub locality: Option<Arc<Locality>>,
    /// Labels and other attributes.
    pub metadata: Arc<BTreeMap<String, String>>,
    /// The host of the mesh that it runs on.
    pub host: Option<HostId>,
    /// How to reach it through mTLS; `None` means plaintext only.
    pub tunnel: Option<Tunnel>,
}

/// The endpoints of one service, sorted by id, structurally comparable.
pub type EndpointSet = Arc<[Endpoint]>;
