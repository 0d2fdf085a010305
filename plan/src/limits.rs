//! Rate limits of this host's programs: which act on which port.
//!
//! A limit is aimed at services; it acts where a program of this host serves one of them, be it by its own name
//! or by its labels. Several limits of one port all act.

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc};

use mesh_model::{
    document::{
        Spec,
        limit::{LimitBySpec, LimitScopeSpec, RateLimitSpec},
    },
    name::ServiceId,
    snapshot::{
        RateLimit,
        limit::{LimitBy, LimitKey, LimitScope},
    },
};

use crate::{
    findings::Findings, key::Stable, outcome::Outcome, services::Services, sources, targets,
    world::World,
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
            let limit = compiled(spec, &aimed, id);
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

fn compiled(spec: &RateLimitSpec, aimed: &targets::Aimed<'_>, id: &ServiceId) -> RateLimit {
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
    RateLimit {
        key: LimitKey(key.finish()),
        name: Arc::clone(&aimed.name),
        matches: sources::calls(&spec.matches, &aimed.namespace),
        by: spec.by.iter().map(by).collect(),
        requests: spec.limit.requests,
        per: spec.limit.per.0,
        burst: spec.limit.burst.unwrap_or(spec.limit.requests).max(1),
        scope: match spec.scope {
            LimitScopeSpec::Host => LimitScope::Host,
            LimitScopeSpec::Mesh => LimitScope::Mesh,
        },
    }
}
