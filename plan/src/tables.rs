//! Delegation tables of the mesh: by namespace, later resources before earlier ones.

use std::{collections::BTreeMap, sync::Arc};

use mesh_model::{
    document::Spec,
    dtab::{Dtab, delegate::service_path},
    name::{Namespace, ServiceId},
    snapshot::{
        RequestMatch, Retry, RouteReference, Rule, RuleTable, Timeouts,
        decide::{self, Backends},
    },
};

use crate::world::World;

/// All tables.
#[derive(Debug, Default)]
pub(crate) struct Tables {
    /// The table of each namespace, its resources joined in the order of their creation.
    pub(crate) by_namespace: BTreeMap<Namespace, Arc<Dtab>>,
    /// Of each namespace the resources in the same order.
    resources: BTreeMap<Namespace, Vec<(Dtab, Arc<RouteReference>)>>,
}

pub(crate) fn gather(world: &World<'_>) -> Tables {
    let mut found: Vec<_> = world
        .input
        .catalog
        .of_kind("DelegationTable")
        .filter_map(|(key, resource)| {
            let Spec::DelegationTable(spec) = &resource.document.spec else {
                return None;
            };
            let namespace = Namespace::new(&key.namespace).ok()?;
            let reference = RouteReference {
                kind: "DelegationTable",
                name: Arc::from(format!("{}/{}", key.namespace, key.name)),
                rule: 0,
                revision: Some(resource.revision),
                author: Arc::clone(&resource.author),
            };
            Some((
                resource.created_ms,
                namespace,
                Dtab::parse(&spec.dtab).ok()?,
                Arc::new(reference),
            ))
        })
        .collect();
    found.sort_by(|a, b| (a.0, &a.3.name).cmp(&(b.0, &b.3.name)));
    let mut tables = Tables::default();
    for (_, namespace, table, reference) in found {
        let joined = tables.by_namespace.entry(namespace.clone()).or_default();
        *joined = Arc::new(joined.concat(&table));
        tables
            .resources
            .entry(namespace)
            .or_default()
            .push((table, reference));
    }
    tables
}

impl Tables {
    /// The one rule that the tables of the service's namespace make for it; `None` when none touches it.
    pub(crate) fn rules(
        &self,
        service: &ServiceId,
        port: u16,
        backends: &Backends,
    ) -> Option<RuleTable> {
        let table = self.by_namespace.get(&service.namespace)?;
        let target = decide::follow(backends, &[table], service, port)?;
        let path = service_path(&service.name);
        let resources = self.resources.get(&service.namespace)?;
        let touching = resources
            .iter()
            .rev()
            .find(|(table, _)| !table.lookup(&path).is_empty());
        let (_, reference) = touching.or_else(|| resources.last())?;
        let rule = Rule {
            route: Arc::clone(reference),
            matches: RequestMatch::default(),
            filters: Arc::from([]),
            target,
            timeouts: Timeouts::default(),
            retry: Retry::default(),
            faults: Arc::from([]),
            persistence: None,
        };
        Some(RuleTable::new(true, vec![Arc::new(rule)]))
    }
}
