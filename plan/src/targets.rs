//! What limits and faults are aimed at: services of their own namespace.

use std::sync::Arc;

use mesh_model::{
    catalog::{Resource, ResourceKey},
    document::{route::ParentReference, source::TargetReference},
    name::{Namespace, ServiceId},
};

use crate::{
    attach,
    findings::Findings,
    outcome::{Outcome, ParentState},
    services::Services,
};

/// Where a resource acts, and what becomes of it.
#[derive(Debug)]
pub(crate) struct Aimed<'a> {
    /// `namespace/name`.
    pub(crate) name: Arc<str>,
    pub(crate) namespace: Namespace,
    /// Services with their ports.
    pub(crate) at: Vec<(ServiceId, Vec<u16>)>,
    pub(crate) outcome: Outcome<'a>,
}

/// Finds the targets of a resource, and tells of those that are not there.
pub(crate) fn aim<'a>(
    key: &'a ResourceKey,
    resource: &Resource,
    references: &[TargetReference],
    services: &Services,
    findings: &Findings,
) -> Option<Aimed<'a>> {
    let namespace = Namespace::new(&key.namespace).ok()?;
    let mut at = Vec::new();
    let mut parents = Vec::new();
    for (number, target) in references.iter().enumerate() {
        let reference = ParentReference {
            group: Some(String::new()),
            kind: Some("Service".to_owned()),
            namespace: None,
            name: target.name.clone(),
            section_name: target.section_name.clone(),
            port: target.port,
        };
        let refused = match attach::find(&namespace, &reference, services) {
            Ok((id, _, ports)) => {
                at.push((id, ports));
                None
            }
            Err((_, why)) => {
                findings.warning(
                    "policy-unknown-target",
                    &key.to_string(),
                    format!("spec.targetRefs[{number}]: {why}"),
                    "correct the targetRef, or start the service",
                );
                Some(("TargetNotFound", why))
            }
        };
        parents.push(ParentState {
            reference,
            refused,
            partly: String::new(),
        });
    }
    Some(Aimed {
        name: Arc::from(format!("{}/{}", key.namespace, key.name)),
        namespace,
        at,
        outcome: Outcome {
            key,
            revision: resource.revision,
            changed_ms: resource.changed_ms,
            parents,
            unresolved: None,
        },
    })
}
