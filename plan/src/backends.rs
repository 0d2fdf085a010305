//! Backends: of each service, port and subset the endpoints that may be used, shared with the last plan.

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc};

use mesh_model::{
    endpoint::Tunnel,
    name::ServiceId,
    snapshot::{Backend, BackendEndpoint, BackendKey, Direct, Map, Snapshot, TrafficPolicy},
};

use crate::{
    Candidate, Input,
    destination::{Destinations, Subset},
    endpoints::Considered,
    findings::Findings,
    key::Stable,
    services::{Port, Services},
    share,
    world::selects,
};

/// Subsets by service, port and name.
pub(crate) type Subsets = BTreeMap<(ServiceId, u16, Arc<str>), Arc<Backend>>;

/// All backends.
#[derive(Debug, Default)]
pub(crate) struct Backends {
    pub(crate) by_service: BTreeMap<(ServiceId, u16), Arc<Backend>>,
    pub(crate) subsets: Subsets,
    /// Other hosts' endpoints by their own addresses: with a tunnel, healthy or not; without one, where there was
    /// one before.
    pub(crate) direct: Map<SocketAddr, Direct>,
    /// Where calls go while no daemon runs, ordered; empty where none are captured.
    pub(crate) fallback: BTreeMap<(ServiceId, u16), Vec<SocketAddr>>,
    pub(crate) candidates: BTreeMap<(ServiceId, u16), Vec<Candidate>>,
}

pub(crate) fn build(
    services: &Services,
    rules: &Destinations<'_>,
    input: &Input<'_>,
    findings: &Findings,
) -> Backends {
    let mut backends = Backends::default();
    let previous = input.previous;
    for (id, service) in &services.by_id {
        for (number, port) in &service.ports {
            backends.add(id, *number, port, rules, input);
            if input.captures() {
                let found = fallback(&port.candidates);
                backends.fallback.insert((id.clone(), *number), found);
            }
        }
    }
    tell_empty(&backends, findings);
    // The address of a workload belongs to the service of its name; to another only when that has none.
    for home in [true, false] {
        for (id, service) in &services.by_id {
            for (number, port) in &service.ports {
                let candidates: Vec<&Considered> = port
                    .candidates
                    .iter()
                    .filter(|one| (one.home.as_ref() == Some(id)) == home)
                    .filter(|one| lies_apart(one, previous))
                    .collect();
                if !candidates.is_empty() {
                    backends.add_direct(&(id.clone(), *number), &candidates);
                }
            }
        }
    }
    backends
}

impl Backends {
    fn add(
        &mut self,
        id: &ServiceId,
        number: u16,
        port: &Port,
        rules: &Destinations<'_>,
        input: &Input<'_>,
    ) {
        let (previous, breath) = (input.previous, input.breath);
        let key = (id.clone(), number);
        let before = previous.and_then(|previous| previous.outbound.backends.get(&key));
        let used = port.candidates.iter().filter(|one| one.left_out.is_none());
        let fresh = Backend {
            key: backend_key(id, number, ""),
            service: id.clone(),
            port: number,
            protocol: port.protocol,
            subset: Arc::from(""),
            endpoints: placed(
                used.map(|one| Arc::clone(&one.endpoint)),
                rules.failover(id, number),
            ),
            policy: kept_policy(rules.policy(id, number), before),
        };
        let whole = share::backend(fresh, before, breath);
        let subsets = rules.subsets(id, number);
        for subset in &subsets {
            let key = (id.clone(), number, Arc::clone(&subset.name));
            let before = previous.and_then(|previous| previous.outbound.subsets.get(&key));
            let fresh = part(&whole, subset, before);
            self.subsets
                .insert(key, share::backend(fresh, before, breath));
        }
        let mut endpoints = whole.endpoints.iter();
        let told = port.candidates.iter().map(|one| {
            breath.take();
            let used = one.left_out.is_none().then(|| endpoints.next()).flatten();
            told(one, used.unwrap_or(&one.endpoint), &subsets)
        });
        let told = told.collect();
        self.candidates.insert(key.clone(), told);
        self.by_service.insert(key, whole);
    }

    /// Those of one port. In the backend and among the candidates endpoints are sorted by id.
    fn add_direct(&mut self, key: &(ServiceId, u16), candidates: &[&Considered]) {
        let Some(backend) = self.by_service.get(key) else {
            return;
        };
        for one in candidates {
            let known = &backend.endpoints;
            let place = known.binary_search_by(|other| other.id.cmp(&one.endpoint.id));
            let used = place.ok().and_then(|place| known.get(place));
            let direct = || Direct {
                backend: Arc::clone(backend),
                endpoint: Arc::clone(used.unwrap_or(&one.endpoint)),
            };
            self.direct
                .entry(one.endpoint.address)
                .or_insert_with(direct);
        }
    }
}

/// True when calls to the endpoint's own address are this mesh's.
fn lies_apart(one: &Considered, previous: Option<&Snapshot>) -> bool {
    let endpoint = &one.endpoint;
    if one.refused || endpoint.local {
        return false;
    }
    // A host says itself where its programs are. Only what lies where its tunnel has to answer is
    // believed, or a stolen host key could have calls of any address sent to itself.
    let at_home = |tunnel: &Tunnel| tunnel.address.ip() == endpoint.address.ip();
    // Connections that were captured outlive a tunnel: they go on to the same address as it is now.
    let lingers = || {
        let before = previous.map(|previous| &previous.outbound.direct);
        one.left_out.is_none()
            && before.is_some_and(|before| before.contains_key(&endpoint.address))
    };
    endpoint.tunnel.as_ref().map_or_else(lingers, at_home)
}

/// The endpoints of a subset. They keep their keys, so that what is known of each is known in every subset.
fn part(whole: &Backend, subset: &Subset<'_>, before: Option<&Arc<Backend>>) -> Backend {
    let fit = whole.endpoints.iter();
    let fit = fit.filter(|one| selects(subset.labels, &one.labels));
    Backend {
        key: backend_key(&whole.service, whole.port, &subset.name),
        service: whole.service.clone(),
        port: whole.port,
        protocol: whole.protocol,
        subset: Arc::clone(&subset.name),
        endpoints: placed(fit.cloned(), subset.failover),
        policy: kept_policy(subset.policy.clone(), before),
    }
}

/// Puts other regions than the one that takes over behind it.
fn placed(
    endpoints: impl Iterator<Item = Arc<BackendEndpoint>>,
    failover: Option<&str>,
) -> Vec<Arc<BackendEndpoint>> {
    let Some(heir) = failover else {
        return endpoints.collect();
    };
    endpoints
        .map(|one| {
            let locality = one.locality.as_ref();
            let region = locality.and_then(|locality| locality.region.as_deref());
            if one.distance != 2 || region == Some(heir) {
                return one;
            }
            Arc::new(BackendEndpoint {
                distance: 3,
                ..(*one).clone()
            })
        })
        .collect()
}

fn kept_policy(fresh: TrafficPolicy, before: Option<&Arc<Backend>>) -> Arc<TrafficPolicy> {
    share::kept(fresh, before.map(|before| &before.policy))
}

/// Tells subsets that select nothing on any port while their service has endpoints.
fn tell_empty(backends: &Backends, findings: &Findings) {
    let mut full: BTreeMap<(&ServiceId, &str), bool> = BTreeMap::new();
    for ((service, port, name), backend) in &backends.subsets {
        let whole = backends.by_service.get(&(service.clone(), *port));
        if whole.is_some_and(|whole| !whole.endpoints.is_empty()) {
            *full.entry((service, name)).or_default() |= !backend.endpoints.is_empty();
        }
    }
    for ((service, name), _) in full.into_iter().filter(|(_, full)| !full) {
        findings.warning(
            "subset-empty",
            &service.to_string(),
            format!("no usable endpoint carries the labels of the subset {name}"),
            "correct the labels in the DestinationRule, or start an instance with them",
        );
    }
}

pub(crate) fn backend_key(id: &ServiceId, port: u16, subset: &str) -> BackendKey {
    let mut hash = Stable::new();
    hash.text("backend")
        .text(id.namespace.as_str())
        .text(id.name.as_str())
        .number(port.into());
    if !subset.is_empty() {
        hash.text(subset);
    }
    BackendKey(hash.finish())
}

/// Healthy endpoints that take plaintext; when all are reluctant, those. Of these the ones that are used first:
/// the kernel cannot fall over to others.
fn fallback(candidates: &[Considered]) -> Vec<SocketAddr> {
    let open: Vec<&Considered> = candidates
        .iter()
        .filter(|one| one.left_out.is_none() && one.fallback)
        .collect();
    let good = open.iter().any(|one| one.endpoint.preferred);
    let used = || {
        open.iter()
            .filter(|one| one.endpoint.preferred || !good)
            .map(|one| &one.endpoint)
    };
    let first = used().map(|one| one.priority).min();
    let mut found: Vec<SocketAddr> = used()
        .filter(|one| Some(one.priority) == first)
        .map(|one| one.address)
        .collect();
    found.sort();
    found.dedup();
    found
}

fn told(one: &Considered, endpoint: &Arc<BackendEndpoint>, subsets: &[Subset<'_>]) -> Candidate {
    let belongs = |subset: &&Subset<'_>| selects(subset.labels, &endpoint.labels);
    Candidate {
        endpoint: Arc::clone(endpoint),
        health: one.health,
        left_out: one.left_out.clone(),
        reluctant: one.reluctant.unwrap_or_default(),
        subsets: subsets
            .iter()
            .filter(belongs)
            .map(|subset| Arc::clone(&subset.name))
            .collect(),
    }
}
