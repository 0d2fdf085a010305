//! What a plan yields beside the snapshot: orders for the kernel and the names process, and explanations.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use mesh_model::{
    endpoint::{Health, TunnelKind},
    fact::ResourceStatus,
    finding::Finding,
    name::ServiceId,
    snapshot::{BackendEndpoint, Snapshot},
};

use crate::Allocations;

/// A plan.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Compiled {
    /// What the proxy obeys; `generation` is set when it is published.
    pub snapshot: Snapshot,
    /// Problems, worst first.
    pub findings: Vec<Finding>,
    /// Virtual addresses, to be kept for the next plan.
    pub allocations: Allocations,
    /// Names of the mesh (lower case, no dot at the end) with their addresses; empty without interception.
    pub names: Vec<(String, Vec<IpAddr>)>,
    /// Virtual addresses and ports, ordered.
    pub virtuals: Vec<VirtualPort>,
    /// Other hosts' endpoints with mTLS, by their own addresses, ordered: dials to them are captured.
    pub direct: Vec<SocketAddr>,
    /// Own ports that other hosts dial, ordered: calls to them are captured.
    pub inbound: Vec<SocketAddr>,
    /// How this host sees the routes, to be published.
    pub statuses: Vec<ResourceStatus>,
    /// Every endpoint that was looked at, by service and port: used or left out, and why.
    pub candidates: BTreeMap<(ServiceId, u16), Vec<Candidate>>,
}

/// A virtual address and port, and where calls go when no daemon runs.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct VirtualPort {
    /// The virtual address.
    pub address: IpAddr,
    /// The service's port.
    pub port: u16,
    /// Healthy endpoints that take plaintext from this host, same family, ordered; empty: refused at once.
    pub fallback: Vec<SocketAddr>,
    /// True: refused, never sent on directly, while no daemon runs.
    pub fail_closed: bool,
}

/// An endpoint that was looked at for a backend.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// The endpoint, as the backend has it.
    pub endpoint: Arc<BackendEndpoint>,
    /// Its health by its host or source.
    pub health: Health,
    /// Why it gets no requests; `None`: it may.
    pub left_out: Option<Arc<str>>,
    /// Why it is only used when nothing better is left; empty: it is as good as any.
    pub reluctant: &'static str,
    /// Subsets of the service that it belongs to.
    pub subsets: Box<[Arc<str>]>,
}

impl Candidate {
    /// `mtls`, `hbone`, `plain` or `local`.
    pub fn security(&self) -> &'static str {
        match &self.endpoint.tunnel {
            _ if self.endpoint.local => "local",
            Some(tunnel) if tunnel.kind == TunnelKind::Hbone => "hbone",
            Some(_) => "mtls",
            None => "plain",
        }
    }
}

impl std::ops::Deref for Candidate {
    type Target = BackendEndpoint;

    fn deref(&self) -> &BackendEndpoint {
        &self.endpoint
    }
}
