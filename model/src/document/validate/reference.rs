//! References from routes: to what they act on, and to backends with their shares.

use super::{at_most, one_of, port};
use crate::{
    document::{
        Metadata,
        route::{BackendReference, ParentReference},
    },
    name::is_label,
    written::At,
};

pub(super) fn parents(given: &[ParentReference], at: &At<'_>, metadata: &Metadata) {
    at_most(given.len(), 32, at);
    for (index, parent) in given.iter().enumerate() {
        let at = at.index(index);
        let kind = parent.kind.as_deref().unwrap_or("Gateway");
        let group = parent
            .group
            .as_deref()
            .unwrap_or("gateway.networking.k8s.io");
        if kind == "Service" && !group.is_empty() {
            let at = at.key("group");
            if parent.group.is_none() {
                at.fault(
                    "is missing: left out it means gateway.networking.k8s.io, which has no Service",
                    "write `group: \"\"`",
                );
            } else {
                at.fault(format!("{group} has no Service"), "write `group: \"\"`");
            }
        }
        named(
            &parent.name,
            parent.namespace.as_deref(),
            kind == "Service",
            &at,
        );
        port(parent.port, &at.key("port"));
        let same = |other: &ParentReference| other == parent;
        if given.iter().take(index).any(same) {
            at.fault("is written twice", "leave one of them");
        }
        if parent.section_name.as_deref() == Some("") {
            at.key("sectionName").fault(
                "is empty",
                format!("write a port's name of {}, or leave it out", metadata.name),
            );
        }
    }
}

/// `useDefaultGateways:` of any route.
pub(super) fn default_gateways(word: Option<&str>, at: &At<'_>) {
    let at = at.key("useDefaultGateways");
    one_of(word, &["All", "None"], &at);
    if word == Some("All") {
        at.note("there are no default gateways here: the route acts for its parents");
    }
}

pub(super) fn named(name: &str, namespace: Option<&str>, label: bool, at: &At<'_>) {
    let fits = if label {
        is_label(name)
    } else {
        !name.is_empty() && name.len() <= 253
    };
    if !fits {
        at.key("name").fault(
            format!("{name:?} is no name of a service"),
            "use 1 to 63 of a-z 0-9 -",
        );
    }
    if let Some(namespace) = namespace
        && !is_label(namespace)
    {
        at.key("namespace").fault(
            format!("{namespace:?} is no namespace"),
            "use 1 to 63 of a-z 0-9 -",
        );
    }
}

pub(super) fn backends(given: &[BackendReference], at: &At<'_>) {
    at_most(given.len(), 64, at);
    for (index, backend) in given.iter().enumerate() {
        let at = at.index(index);
        let service = backend.kind.as_deref().is_none_or(|kind| kind == "Service");
        named(&backend.name, backend.namespace.as_deref(), service, &at);
        port(backend.port, &at.key("port"));
        if backend.weight.is_some_and(|weight| weight > 1_000_000) {
            at.key("weight")
                .fault("is out of range", "write 0 to 1000000");
        }
    }
    let sum: u64 = given
        .iter()
        .map(|backend| u64::from(backend.weight.unwrap_or(1)))
        .sum();
    if !given.is_empty() && sum == 0 {
        at.fault(
            "the weights add up to 0, so no backend would get anything",
            "give one a weight of at least 1",
        );
    }
}
