//! One number for a whole snapshot: equal exactly when what is obeyed is equal.
//!
//! Backends are hashed once and named by their key wherever a rule leads to them, so that the cost grows
//! with what there is and not with how often it is named.

use std::{collections::BTreeMap, fmt::Debug, sync::Arc};

use mesh_model::{
    endpoint::{AuthorityForm, Tunnel, TunnelKind},
    name::ServiceId,
    snapshot::{
        Backend, BackendEndpoint, Filter, Frontend, Map, NamedSource, RuleTable, Snapshot, Target,
        TrafficPolicy,
    },
};

use crate::{Breath, key::Stable};

/// The number.
pub(crate) fn of(snapshot: &Snapshot, breath: Breath<'_>) -> u64 {
    let mut hash = Stable::new();
    let mut endpoints = Endpoints {
        shared: Map::default(),
        plain: TrafficPolicy::default(),
        breath,
    };
    hash.debug(&snapshot.mesh);
    for backend in snapshot.outbound.backends.values() {
        endpoints.backend(&mut hash, backend);
    }
    for backend in snapshot.outbound.subsets.values() {
        endpoints.backend(&mut hash, backend);
    }
    for frontend in &snapshot.outbound.frontends {
        frontend_parts(&mut hash, frontend);
    }
    let mut direct: Vec<_> = snapshot.outbound.direct.iter().collect();
    direct.sort_unstable_by_key(|(address, _)| **address);
    for (address, direct) in direct {
        hash.address(*address).number(direct.backend.key.0);
        endpoints.endpoint(&mut hash, &direct.endpoint);
    }
    hash.debug(&snapshot.outbound.delegations);
    sources(&mut hash, &mut endpoints, &snapshot.outbound.sources);
    let inbound = &snapshot.inbound;
    hash.debug(&sorted(&inbound.by_address))
        .debug(&sorted(&inbound.by_server_name));
    hash.debug(&sorted(&inbound.identities));
    let callers = &snapshot.callers;
    hash.debug(&sorted(&callers.by_uid))
        .debug(&sorted(&callers.by_unit));
    hash.debug(&callers.by_service).debug(&callers.host);
    hash.debug(&snapshot.trust.bundles)
        .debug(&sorted(&snapshot.trust.grants));
    hash.finish()
}

/// Hashes backends field by field, since there may be very many endpoints. What they share is hashed once.
#[derive(Debug)]
struct Endpoints<'a> {
    /// By the address of the shared value.
    shared: Map<usize, u64>,
    plain: TrafficPolicy,
    breath: Breath<'a>,
}

impl Endpoints<'_> {
    fn backend(&mut self, hash: &mut Stable, backend: &Backend) {
        let Backend {
            key,
            service,
            port,
            protocol,
            subset,
            endpoints,
            policy,
        } = backend;
        self::service(hash, service);
        hash.word(key.0).word((*port).into());
        hash.words(protocol.as_str()).words(subset);
        if **policy == self.plain {
            hash.word(0);
        } else {
            hash.word(1).debug(policy);
        }
        hash.word(count(endpoints));
        for endpoint in endpoints {
            self.endpoint(hash, endpoint);
        }
    }

    fn endpoint(&mut self, hash: &mut Stable, one: &BackendEndpoint) {
        self.breath.take();
        let BackendEndpoint {
            key,
            id,
            address,
            tunnel,
            local,
            weight,
            priority,
            distance,
            locality,
            preferred,
            host,
            host_name,
            labels,
        } = one;
        hash.word(key.0).words(id).address(*address);
        let small = [
            u64::from(*weight) << 32,
            u64::from(*priority) << 16,
            u64::from(*distance) << 8,
            u64::from(*local) << 2,
            u64::from(*preferred) << 1,
            u64::from(tunnel.is_some()),
        ];
        hash.word(small.into_iter().fold(0, |all, part| all | part));
        if let Some(tunnel) = tunnel {
            self::tunnel(hash, tunnel);
        }
        match host {
            None => hash.word(0),
            Some(host) => hash.word(1).bytes(&host.0),
        };
        hash.words(host_name).word(self.once(labels));
        hash.word(locality.as_ref().map_or(0, |locality| self.once(locality)));
    }

    /// The number of a value that many share.
    fn once<T: Debug>(&mut self, value: &Arc<T>) -> u64 {
        let place = Arc::as_ptr(value).addr();
        *self.shared.entry(place).or_insert_with(|| {
            let mut hash = Stable::new();
            hash.debug(value);
            hash.finish()
        })
    }
}

fn tunnel(hash: &mut Stable, tunnel: &Tunnel) {
    let Tunnel {
        kind,
        address,
        server_name,
        sans,
        next_hop,
        authority,
        network,
    } = tunnel;
    hash.address(*address)
        .word(u64::from(*kind == TunnelKind::Mesh))
        .word(u64::from(*authority == AuthorityForm::Host))
        .word(server_name.is_some().into())
        .words(server_name.as_deref().unwrap_or_default())
        .word(count(sans));
    for san in &**sans {
        hash.words(san.trust_domain.as_str())
            .words(san.namespace.as_str())
            .words(san.service_account.as_str());
    }
    if next_hop.is_some() || network.is_some() {
        hash.word(1).debug(next_hop).debug(network);
    }
}

fn service(hash: &mut Stable, id: &ServiceId) {
    hash.words(id.namespace.as_str()).words(id.name.as_str());
}

/// Backends that stand in the list of all are named by their key.
fn sources(hash: &mut Stable, endpoints: &mut Endpoints<'_>, all: &[Arc<NamedSource>]) {
    for source in all {
        hash.text(&source.id).text(&source.kind).text(&source.scope);
        hash.debug(&source.tags)
            .debug(&source.records)
            .debug(&source.ports);
        for ((service, port), backend) in &source.backends {
            self::service(hash, service);
            hash.word((*port).into());
            if backend.subset.is_empty() {
                hash.word(backend.key.0);
            } else {
                endpoints.backend(hash, backend);
            }
        }
    }
}

fn sorted<K: Ord, V>(map: &Map<K, V>) -> BTreeMap<&K, &V> {
    map.iter().collect()
}

fn frontend_parts(hash: &mut Stable, frontend: &Frontend) {
    service(hash, &frontend.service);
    hash.number(frontend.port.into()).text(&frontend.port_name);
    hash.debug(&frontend.protocol)
        .debug(&frontend.virtual_addresses)
        .debug(&frontend.fail_closed);
    hash.number(frontend.backend.key.0);
    table(hash, &frontend.rules);
    table(hash, &frontend.tcp_rules);
    for (namespace, rules) in &frontend.consumer_rules {
        hash.text(namespace.as_str());
        table(hash, rules);
    }
    hash.number(count(&frontend.tls_rules));
    for rule in &frontend.tls_rules {
        hash.debug(&rule.server_name)
            .debug(&rule.source)
            .debug(&rule.route);
        target(hash, &rule.target);
    }
    hash.debug(&frontend.faults);
}

fn count<T>(list: &[T]) -> u64 {
    u64::try_from(list.len()).unwrap_or_default()
}

fn table(hash: &mut Stable, table: &RuleTable) {
    hash.debug(&table.attached).number(count(&table.rules));
    for rule in &table.rules {
        hash.debug(&rule.route).debug(&rule.matches);
        filters(hash, &rule.filters);
        hash.debug(&rule.timeouts).debug(&rule.retry);
        hash.debug(&rule.faults).debug(&rule.persistence);
        target(hash, &rule.target);
    }
}

fn filters(hash: &mut Stable, all: &[Filter]) {
    hash.number(count(all));
    for filter in all {
        if let Filter::Mirror(mirror) = filter {
            hash.text("mirror")
                .number(mirror.backend.key.0)
                .debug(&mirror.share);
        } else {
            hash.debug(filter);
        }
    }
}

fn target(hash: &mut Stable, one: &Target) {
    match one {
        Target::Backend(backend) => {
            hash.text("backend").number(backend.key.0);
        }
        Target::Weighted(shares) => {
            hash.text("weighted").number(count(shares));
            for share in shares {
                hash.number(share.weight.into());
                filters(hash, &share.filters);
                target(hash, &share.target);
            }
        }
        Target::Failover(targets) => {
            hash.text("failover").number(count(targets));
            for one in targets {
                target(hash, one);
            }
        }
        Target::Fail {
            status,
            code,
            reason,
        } => {
            hash.text("fail")
                .number((*status).into())
                .text(code)
                .text(reason);
        }
    }
}
