//! One number for a whole snapshot: equal exactly when what is obeyed is equal.
//!
//! Backends are hashed once and named by their key wherever a rule leads to them, so that the cost grows
//! with what there is and not with how often it is named.

use std::{collections::BTreeMap, sync::Arc};

use mesh_model::snapshot::{Filter, Frontend, Map, NamedSource, RuleTable, Snapshot, Target};

use crate::key::Stable;

/// The number.
pub(crate) fn of(snapshot: &Snapshot) -> u64 {
    let mut hash = Stable::new();
    hash.debug(&snapshot.mesh);
    for backend in snapshot.outbound.backends.values() {
        hash.debug(backend);
    }
    for backend in snapshot.outbound.subsets.values() {
        hash.debug(backend);
    }
    for frontend in &snapshot.outbound.frontends {
        frontend_parts(&mut hash, frontend);
    }
    let direct: BTreeMap<_, _> = snapshot.outbound.direct.iter().collect();
    for (address, direct) in direct {
        hash.debug(address)
            .number(direct.backend.key.0)
            .debug(&direct.endpoint);
    }
    hash.debug(&snapshot.outbound.delegations);
    sources(&mut hash, &snapshot.outbound.sources);
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

/// Backends that stand in the list of all are named by their key.
fn sources(hash: &mut Stable, all: &[Arc<NamedSource>]) {
    for source in all {
        hash.text(&source.id).text(&source.kind).text(&source.scope);
        hash.debug(&source.tags)
            .debug(&source.records)
            .debug(&source.ports);
        for ((service, port), backend) in &source.backends {
            hash.debug(service).number((*port).into());
            if backend.subset.is_empty() {
                hash.number(backend.key.0);
            } else {
                hash.debug(backend);
            }
        }
    }
}

fn sorted<K: Ord, V>(map: &Map<K, V>) -> BTreeMap<&K, &V> {
    map.iter().collect()
}

fn frontend_parts(hash: &mut Stable, frontend: &Frontend) {
    hash.debug(&frontend.service)
        .number(frontend.port.into())
        .text(&frontend.port_name);
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
