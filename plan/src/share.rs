//! Parts that did not change keep their `Arc` from the previous snapshot, so that comparing them is
//! pointer equality and the change of one service does not touch the pools of another.

use std::sync::Arc;

use mesh_model::snapshot::{Backend, Frontend, Inbound, RuleTable, Snapshot};

use crate::Breath;

/// The value, or the equal one of before.
pub(crate) fn kept<T: PartialEq>(fresh: T, before: Option<&Arc<T>>) -> Arc<T> {
    match before {
        Some(before) if **before == fresh => Arc::clone(before),
        _ => Arc::new(fresh),
    }
}

/// A backend whose equal endpoints, and which itself, are those of before.
pub(crate) fn backend(
    mut fresh: Backend,
    before: Option<&Arc<Backend>>,
    breath: Breath<'_>,
) -> Arc<Backend> {
    if let Some(before) = before {
        // Both are sorted by id.
        let mut known = before.endpoints.iter().peekable();
        for endpoint in &mut fresh.endpoints {
            breath.take();
            while known.next_if(|old| old.id < endpoint.id).is_some() {}
            if let Some(old) = known.peek()
                && **old == *endpoint
            {
                *endpoint = Arc::clone(old);
            }
        }
    }
    kept(fresh, before)
}

/// A frontend whose equal rules, and which itself, are those of before.
pub(crate) fn frontend(mut fresh: Frontend, before: Option<&Arc<Frontend>>) -> Arc<Frontend> {
    if let Some(before) = before {
        table(&mut fresh.rules, &before.rules);
        table(&mut fresh.tcp_rules, &before.tcp_rules);
        for (namespace, rules) in &mut fresh.consumer_rules {
            if let Some(old) = before.consumer_rules.get(namespace) {
                table(rules, old);
            }
        }
    }
    kept(fresh, before)
}

fn table(fresh: &mut RuleTable, before: &RuleTable) {
    for (index, rule) in fresh.rules.iter_mut().enumerate() {
        // Most rules are where they were, so a long table is not searched for each.
        let there = before.rules.get(index).filter(|old| ***old == **rule);
        if let Some(old) = there.or_else(|| before.rules.iter().find(|old| ***old == **rule)) {
            *rule = Arc::clone(old);
        }
    }
}

/// What is not shared while it is built: inbound ports, callers, rights, tables.
pub(crate) fn share(snapshot: &mut Snapshot, previous: Option<&Snapshot>) {
    let Some(previous) = previous else { return };
    inbound(&mut snapshot.inbound, &previous.inbound);
    each(snapshot.callers.by_uid.iter_mut(), |key| {
        previous.callers.by_uid.get(key)
    });
    each(snapshot.callers.by_unit.iter_mut(), |key| {
        previous.callers.by_unit.get(key)
    });
    each(snapshot.callers.by_service.iter_mut(), |key| {
        previous.callers.by_service.get(key)
    });
    if snapshot.callers.host == previous.callers.host {
        snapshot.callers.host.clone_from(&previous.callers.host);
    }
    each(snapshot.trust.grants.iter_mut(), |key| {
        previous.trust.grants.get(key)
    });
    each(snapshot.outbound.delegations.iter_mut(), |key| {
        previous.outbound.delegations.get(key)
    });
}

fn inbound(fresh: &mut Inbound, before: &Inbound) {
    each(fresh.by_address.iter_mut(), |key| {
        before.by_address.get(key)
    });
    for (name, ports) in &mut fresh.by_server_name {
        if let Some(old) = before.by_server_name.get(name) {
            each(ports.iter_mut(), |key| old.get(key));
        }
    }
}

fn each<'a, K: 'a, T: PartialEq + 'a>(
    fresh: impl Iterator<Item = (&'a K, &'a mut Arc<T>)>,
    before: impl Fn(&K) -> Option<&'a Arc<T>>,
) {
    for (key, value) in fresh {
        if let Some(old) = before(key)
            && **old == **value
        {
            *value = Arc::clone(old);
        }
    }
}
