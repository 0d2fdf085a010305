//! Backends: of each service and port the endpoints that may be used, shared with the last plan.

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc};

use mesh_model::{
    endpoint::{Tunnel, TunnelKind},
    name::ServiceId,
    snapshot::{Backend, BackendKey, Direct, Map, Snapshot},
};

use crate::{Candidate, endpoints::Considered, key::Stable, services::Services, share};

/// All backends.
#[derive(Debug, Default)]
pub(crate) struct Backends {
    pub(crate) by_service: BTreeMap<(ServiceId, u16), Arc<Backend>>,
    /// Other hosts' endpoints with a tunnel, healthy or not, by their own addresses.
    pub(crate) direct: Map<SocketAddr, Direct>,
    /// Where calls go while no daemon runs, ordered.
    pub(crate) fallback: BTreeMap<(ServiceId, u16), Vec<SocketAddr>>,
    pub(crate) candidates: BTreeMap<(ServiceId, u16), Vec<Candidate>>,
}

pub(crate) fn build(services: &Services, previous: Option<&Snapshot>) -> Backends {
    let mut backends = Backends::default();
    for (id, service) in &services.by_id {
        for (number, port) in &service.ports {
            let key = (id.clone(), *number);
            let used = port.candidates.iter().filter(|one| one.left_out.is_none());
            let fresh = Backend {
                key: backend_key(id, *number),
                service: id.clone(),
                port: *number,
                protocol: port.protocol,
                subset: Arc::from(""),
                endpoints: used.map(|one| Arc::new(one.endpoint.clone())).collect(),
                policy: Arc::default(),
            };
            let before = previous.and_then(|previous| previous.outbound.backends.get(&key));
            let backend = share::backend(fresh, before);
            backends
                .fallback
                .insert(key.clone(), fallback(&port.candidates));
            backends
                .candidates
                .insert(key.clone(), port.candidates.iter().map(told).collect());
            backends.by_service.insert(key, backend);
        }
    }
    // The address of a workload belongs to the service of its name; to another only when that has none.
    for home in [true, false] {
        for (id, service) in &services.by_id {
            for (number, port) in &service.ports {
                for one in port
                    .candidates
                    .iter()
                    .filter(|one| (one.home.as_ref() == Some(id)) == home)
                {
                    backends.add_direct(id, *number, one);
                }
            }
        }
    }
    backends
}

impl Backends {
    fn add_direct(&mut self, id: &ServiceId, port: u16, one: &Considered) {
        // A host says itself where its programs are. Only what lies where its tunnel has to answer is
        // believed, or a stolen host key could have calls of any address sent to itself.
        let at_home = |tunnel: &Tunnel| tunnel.address.ip() == one.endpoint.address.ip();
        if one.refused || !one.endpoint.tunnel.as_ref().is_some_and(at_home) {
            return;
        }
        let Some(backend) = self.by_service.get(&(id.clone(), port)) else {
            return;
        };
        let found = backend
            .endpoints
            .iter()
            .find(|endpoint| endpoint.key == one.endpoint.key);
        let endpoint = found.map_or_else(|| Arc::new(one.endpoint.clone()), Arc::clone);
        let backend = Arc::clone(backend);
        self.direct
            .entry(one.endpoint.address)
            .or_insert(Direct { backend, endpoint });
    }
}

fn backend_key(id: &ServiceId, port: u16) -> BackendKey {
    let mut hash = Stable::new();
    hash.text("backend")
        .text(id.namespace.as_str())
        .text(id.name.as_str())
        .number(port.into());
    BackendKey(hash.finish())
}

/// Healthy endpoints that take plaintext; when all are reluctant, those.
fn fallback(candidates: &[Considered]) -> Vec<SocketAddr> {
    let open: Vec<&Considered> = candidates
        .iter()
        .filter(|one| one.left_out.is_none() && one.fallback)
        .collect();
    let good = open.iter().any(|one| one.endpoint.preferred);
    let mut found: Vec<SocketAddr> = open
        .iter()
        .filter(|one| one.endpoint.preferred || !good)
        .map(|one| one.endpoint.address)
        .collect();
    found.sort();
    found.dedup();
    found
}

fn told(one: &Considered) -> Candidate {
    let security = match &one.endpoint.tunnel {
        _ if one.endpoint.local => "local",
        Some(tunnel) if tunnel.kind == TunnelKind::Hbone => "hbone",
        Some(_) => "mtls",
        None => "plain",
    };
    Candidate {
        id: one.endpoint.id.to_string(),
        address: one.endpoint.address,
        host: one.endpoint.host_name.to_string(),
        security,
        health: one.health,
        left_out: one.left_out.clone(),
        reluctant: one.reluctant.unwrap_or_default().to_owned(),
    }
}
