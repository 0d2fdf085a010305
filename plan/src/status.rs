//! How this host sees each route and each policy of ours: `status.parents` as Gateway API writes it.

use mesh_model::{document::route::ParentReference, fact::ResourceStatus, time::rfc3339};
use serde_json::{Value, json};

use crate::outcome::{Outcome, ParentState, Refusal};

/// Who writes the status.
pub(crate) const CONTROLLER: &str = "meshd.io/meshd";

/// The state of every resource that names a service, ordered by kind and name.
pub(crate) fn statuses(outcomes: Vec<Outcome<'_>>) -> Vec<ResourceStatus> {
    let mut found: Vec<ResourceStatus> = outcomes
        .into_iter()
        .filter(|outcome| !outcome.parents.is_empty())
        .map(|outcome| {
            let parents: Vec<Value> = outcome
                .parents
                .iter()
                .map(|one| entry(&outcome, one))
                .collect();
            ResourceStatus {
                kind: outcome.key.kind.clone(),
                namespace: outcome.key.namespace.clone(),
                name: outcome.key.name.clone(),
                revision: outcome.revision.0.to_vec(),
                status: json!({ "parents": parents }).to_string().into_bytes(),
            }
        })
        .collect();
    found.sort_by(|a, b| (&a.kind, &a.namespace, &a.name).cmp(&(&b.kind, &b.namespace, &b.name)));
    found
}

fn entry(outcome: &Outcome<'_>, parent: &ParentState) -> Value {
    let since = outcome.changed_ms;
    let accepted = condition(since, "Accepted", parent.refused.as_ref(), &parent.partly);
    let resolved = condition(since, "ResolvedRefs", outcome.unresolved.as_ref(), "");
    json!({
        "parentRef": reference(&parent.reference),
        "controllerName": CONTROLLER,
        "conditions": [accepted, resolved],
    })
}

fn condition(changed_ms: u64, kind: &str, refused: Option<&Refusal>, otherwise: &str) -> Value {
    let (status, reason, message) = match refused {
        None => ("True", kind, otherwise),
        Some((reason, message)) => ("False", *reason, message.as_str()),
    };
    json!({
        "type": kind,
        "status": status,
        "reason": reason,
        "message": message,
        "lastTransitionTime": rfc3339(changed_ms),
    })
}

fn reference(parent: &ParentReference) -> Value {
    let mut json = json!({ "group": "", "kind": "Service", "name": parent.name });
    if let Some(object) = json.as_object_mut() {
        if let Some(namespace) = &parent.namespace {
            object.insert("namespace".to_owned(), namespace.clone().into());
        }
        if let Some(section) = &parent.section_name {
            object.insert("sectionName".to_owned(), section.clone().into());
        }
        if let Some(port) = parent.port {
            object.insert("port".to_owned(), port.into());
        }
    }
    json
}
