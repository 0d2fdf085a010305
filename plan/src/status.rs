//! How this host sees each route: `status.parents` as Gateway API writes it.

use mesh_model::{document::route::ParentReference, fact::ResourceStatus, time::rfc3339};
use serde_json::{Value, json};

use crate::{
    attach::{Attached, Route},
    routes::Unresolved,
};

/// Who writes the status.
pub(crate) const CONTROLLER: &str = "meshd.io/meshd";

/// The state of every route that names a service, ordered by kind and name.
pub(crate) fn statuses(attached: &Attached<'_>, unresolved: &Unresolved) -> Vec<ResourceStatus> {
    let mut found = Vec::new();
    for (index, (route, parents)) in attached.routes.iter().zip(&attached.parents).enumerate() {
        if parents.is_empty() {
            continue;
        }
        let broken = unresolved.get(&index);
        let parents: Vec<Value> = parents
            .iter()
            .map(|parent| {
                let accepted = condition(route, "Accepted", parent.refused.as_ref(), "Accepted");
                let resolved = condition(route, "ResolvedRefs", broken, "ResolvedRefs");
                json!({
                    "parentRef": reference(&parent.reference),
                    "controllerName": CONTROLLER,
                    "conditions": [accepted, resolved],
                })
            })
            .collect();
        found.push(ResourceStatus {
            kind: route.key.kind.clone(),
            namespace: route.key.namespace.clone(),
            name: route.key.name.clone(),
            revision: route.revision.0.to_vec(),
            status: json!({ "parents": parents }).to_string().into_bytes(),
        });
    }
    found.sort_by(|a, b| (&a.kind, &a.namespace, &a.name).cmp(&(&b.kind, &b.namespace, &b.name)));
    found
}

fn condition(
    route: &Route<'_>,
    kind: &str,
    refused: Option<&(&'static str, String)>,
    good: &str,
) -> Value {
    let (status, reason, message) = match refused {
        None => ("True", good, ""),
        Some((reason, message)) => ("False", *reason, message.as_str()),
    };
    json!({
        "type": kind,
        "status": status,
        "reason": reason,
        "message": message,
        "lastTransitionTime": rfc3339(route.changed_ms),
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
