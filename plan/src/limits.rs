//! Rate limits of this host's programs: which act on which port.
//!
//! A limit is aimed at services; it acts where a program of this host serves one of them, be it by its own name
//! or by its labels. Several limits of one port all act.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::Arc,
};

use mesh_model::{
    document::{
        Spec,
        limit::{LimitBySpec, LimitHeadersSpec, LimitScopeSpec, RateLimitSpec},
    },
    name::{ServiceId, ServiceName},
    snapshot::{
        RateLimit, RequestMatch, SourceMatch,
        limit::{LimitBy, LimitFields, LimitKey, LimitScope},
    },
};

use crate::{
    findings::Findings,
    key::Stable,
    outcome::Outcome,
    services::Services,
    sources, targets,
    world::{World, selects},
};

/// All limits.
#[derive(Debug, Default)]
pub(crate) struct Limits<'a> {
    /// By where a program of this host listens, oldest first.
    by_address: BTreeMap<SocketAddr, Vec<RateLimit>>,
    pub(crate) outcomes: Vec<Outcome<'a>>,
}

pub(crate) fn gather<'a>(
    world: &World<'a>,
    services: &Services,
    findings: &Findings,
) -> Limits<'a> {
    let mut limits = Limits::default();
    for (key, resource) in world.by_age("RateLimit") {
        let Spec::RateLimit(spec) = &resource.document.spec else {
            continue;
        };
        let found = targets::aim(key, resource, &spec.target_refs, services, findings);
        let Some(aimed) = found else { continue };
        for (id, ports) in &aimed.at {
            let Some(limit) = compiled(world, spec, &aimed, id) else {
                continue;
            };
            for address in own_addresses(services, id, ports) {
                let all = limits.by_address.entry(address).or_default();
                // Named twice by one resource it counts once.
                if !all.iter().any(|other| other.key == limit.key) {
                    all.push(limit.clone());
                }
            }
        }
        limits.outcomes.push(aimed.outcome);
    }
    limits
}

impl Limits<'_> {
    /// The limits of a program that listens there.
    pub(crate) fn of(&self, address: SocketAddr) -> Arc<[RateLimit]> {
        self.by_address
            .get(&address)
            .map_or_else(|| Arc::from([]), |all| Arc::from(all.as_slice()))
    }
}

/// Where programs of this host serve some ports of a service.
fn own_addresses(services: &Services, id: &ServiceId, ports: &[u16]) -> Vec<SocketAddr> {
    let Some(service) = services.by_id.get(id) else {
        return Vec::new();
    };
    ports
        .iter()
        .filter_map(|number| service.ports.get(number))
        .flat_map(|port| &port.candidates)
        .filter(|one| one.endpoint.local)
        .map(|one| one.endpoint.address)
        .collect()
}

/// The limit; `None` when nobody's requests count.
fn compiled(
    world: &World<'_>,
    spec: &RateLimitSpec,
    aimed: &targets::Aimed<'_>,
    id: &ServiceId,
) -> Option<RateLimit> {
    let stated = sources::calls(&spec.matches, &aimed.namespace);
    let all = stated.is_empty();
    let matches: Vec<RequestMatch> = stated
        .into_iter()
        .filter_map(|one| seen_from_afar(world, one))
        .collect();
    if matches.is_empty() && !all {
        return None;
    }
    let mut key = Stable::new();
    key.text("limit").text(&aimed.name).text(&id.to_string());
    let by = |one: &LimitBySpec| match one {
        LimitBySpec::Source => LimitBy::Source,
        LimitBySpec::SourceNamespace => LimitBy::SourceNamespace,
        LimitBySpec::SourceAddress => LimitBy::SourceAddress,
        LimitBySpec::Method => LimitBy::Method,
        LimitBySpec::Path => LimitBy::Path,
        LimitBySpec::Header(name) => LimitBy::Header(name.to_ascii_lowercase().into()),
    };
    Some(RateLimit {
        key: LimitKey(key.finish()),
        name: Arc::clone(&aimed.name),
        matches,
        by: spec.by.iter().map(by).collect(),
        requests: spec.limit.requests,
        per: spec.limit.per.0,
        burst: spec.limit.burst.unwrap_or(spec.limit.requests).max(1),
        scope: match spec.scope {
            LimitScopeSpec::Host => LimitScope::Host,
            LimitScopeSpec::Mesh => LimitScope::Mesh,
        },
        fields: match spec.response_headers {
            None => LimitFields::None,
            Some(LimitHeadersSpec::RateLimit) => LimitFields::RateLimit,
            Some(LimitHeadersSpec::XRateLimit) => LimitFields::XRateLimit,
        },
    })
}

/// A match as the called host can tell it: there a caller's identity is known, not its service or its labels. So
/// both become the accounts of the workloads that they mean; `None` when no workload is meant.
fn seen_from_afar(world: &World<'_>, mut one: RequestMatch) -> Option<RequestMatch> {
    let Some(stated) = one.source.as_deref() else {
        return Some(one);
    };
    if stated.services.is_empty() && stated.labels.is_empty() {
        return Some(one);
    }
    let meant = world.instances.iter().filter(|instance| {
        let named = stated.services.is_empty() || stated.services.contains(&instance.service);
        named && selects(&stated.labels, &instance.labels)
    });
    let mut services: BTreeSet<ServiceId> = BTreeSet::new();
    if stated.labels.is_empty() {
        services.extend(stated.services.iter().cloned());
    }
    for instance in meant {
        let account = ServiceName::new(instance.account.as_str()).ok();
        let namespace = instance.service.namespace.clone();
        services.insert(instance.service.clone());
        services.extend(account.map(|account| ServiceId::new(namespace, account)));
    }
    if services.is_empty() {
        return None;
    }
    one.source = Some(Arc::new(SourceMatch {
        services: services.into_iter().collect(),
        labels: BTreeMap::new(),
        ..SourceMatch::clone(stated)
    }));
    Some(one)
}
