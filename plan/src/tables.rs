//! Delegation tables of the mesh: by namespace, later resources before earlier ones.

use std::{collections::BTreeMap, sync::Arc};

use mesh_model::{
    document::Spec,
    dtab::{
        Dtab,
        delegate::service_path,
        namer::{self, NAMERS},
    },
    name::{Namespace, ServiceId},
    snapshot::{
        NamedSource, RequestMatch, Retry, RouteReference, Rule, RuleTable, Timeouts,
        decide::{self, Known},
    },
};

use crate::{findings::Findings, world::World};

/// All tables.
#[derive(Debug, Default)]
pub(crate) struct Tables {
    /// The table of each namespace, its resources joined in the order of their creation.
    pub(crate) by_namespace: BTreeMap<Namespace, Arc<Dtab>>,
    /// Of each namespace the resources in the same order.
    resources: BTreeMap<Namespace, Vec<(Dtab, Arc<RouteReference>)>>,
}

pub(crate) fn gather(
    world: &World<'_>,
    sources: &[Arc<NamedSource>],
    findings: &Findings,
) -> Tables {
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
    for (_, _, table, reference) in &found {
        tell_namers(table, &reference.name, sources, findings);
    }
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

/// Tells namers that do not exist, and those whose kind of source nobody reads.
fn tell_namers(table: &Dtab, name: &str, sources: &[Arc<NamedSource>], findings: &Findings) {
    let subject = format!("DelegationTable/{name}");
    for path in table.namers() {
        let Some(namer) = path.0.get(1).map(|namer| &**namer) else {
            continue;
        };
        let of_id = |source: &Arc<NamedSource>| source.id.split('/').next() == Some(namer);
        if namer == "mesh" || sources.iter().any(of_id) {
            continue;
        }
        match namer::kind(namer) {
            None => {
                let known: Vec<&str> = NAMERS.iter().map(|(_, _, form)| *form).collect();
                findings.warning(
                    "dtab-unknown-namer",
                    &subject,
                    format!("{path}: {namer} is no namer, so the path leads nowhere"),
                    &format!(
                        "write /#/mesh/<namespace>/<service>, or one of {}",
                        known.join(", ")
                    ),
                );
            }
            Some(kind) if !sources.iter().any(|source| *source.kind == *kind) => {
                findings.warning(
                    "dtab-no-source",
                    &subject,
                    format!(
                        "{path}: no host reads a source of kind {kind}, so the path leads nowhere"
                    ),
                    &format!("write a [[source]] with kind = \"{kind}\""),
                );
            }
            Some(_) => {}
        }
    }
}

impl Tables {
    /// The one rule that the tables of the service's namespace make for it; `None` when none touches it.
    pub(crate) fn rules(
        &self,
        service: &ServiceId,
        port: u16,
        known: Known<'_>,
    ) -> Option<RuleTable> {
        let table = self.by_namespace.get(&service.namespace)?;
        let target = decide::follow(known, &[table], service, port)?;
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
