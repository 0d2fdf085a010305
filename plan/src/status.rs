//! How this host sees each route: `status.parents` as Gateway API writes it.

use mesh_model::{document::route::ParentReference, fact::ResourceStatus};
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

/// Milliseconds since the epoch as `2026-11-21T09:00:00Z` (RFC 3339, UTC, whole seconds).
pub fn rfc3339(ms: u64) -> String {
    let seconds = ms / 1000;
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    let (hour, minute, second) = (rest / 3600, rest % 3600 / 60, rest % 60);
    // Days to a civil date, counted from 0000-03-01 in eras of 400 years.
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 {
        from_march + 3
    } else {
        from_march - 9
    };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

#[cfg(test)]
mod tests {
    use super::rfc3339;

    #[test]
    fn times() {
        for (ms, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_399_999, "2000-02-28T23:59:59Z"),
            (951_782_400_000, "2000-02-29T00:00:00Z"),
            (1_795_338_000_000, "2026-11-22T09:00:00Z"),
        ] {
            assert_eq!(rfc3339(ms), text);
        }
    }
}
