//! What our own policies act on: targets, matches, sources.

use std::net::IpAddr;

use super::{at_most, own, port, reference, route};
use crate::{
    document::source::{CallMatch, SourceSpec, TargetReference},
    name::is_label,
    written::At,
};

pub(super) fn targets(given: &[TargetReference], at: &At<'_>) {
    at_most(given.len(), 32, at);
    if given.is_empty() {
        at.fault("are missing", "name at least one Service");
    }
    for (index, one) in given.iter().enumerate() {
        let at = at.index(index);
        if one.group.as_deref().is_some_and(|group| !group.is_empty()) {
            at.key("group").fault(
                format!(
                    "{:?} has no Service",
                    one.group.as_deref().unwrap_or_default()
                ),
                "write `group: \"\"`, or leave it out",
            );
        }
        super::one_of(one.kind.as_deref(), &["Service"], &at.key("kind"));
        reference::named(&one.name, None, true, &at);
        port(one.port, &at.key("port"));
        if one.section_name.is_some() && one.port.is_some() {
            at.key("port")
                .fault("`sectionName` names a port already", "leave one of them");
        }
        if given.iter().take(index).any(|other| other == one) {
            at.fault("is written twice", "leave one of them");
        }
    }
}

pub(super) fn matches(given: &[CallMatch], at: &At<'_>) {
    at_most(given.len(), 64, at);
    for (index, one) in given.iter().enumerate() {
        let at = at.index(index);
        route::http_match(&one.http(), &at);
        if let Some(wanted) = &one.source {
            source(wanted, &at.key("source"));
        }
    }
}

fn source(wanted: &SourceSpec, at: &At<'_>) {
    if *wanted == SourceSpec::default() {
        at.fault(
            "names nobody",
            "write `services`, `namespaces`, `labels` or `addresses`",
        );
    }
    services(&wanted.services, &at.key("services"));
    at_most(wanted.namespaces.len(), 64, &at.key("namespaces"));
    for (index, name) in wanted.namespaces.iter().enumerate() {
        namespace(name, &at.key("namespaces").index(index));
    }
    own::labels(&wanted.labels, &at.key("labels"));
    subnets(&wanted.addresses, &at.key("addresses"));
}

pub(super) fn namespace(name: &str, at: &At<'_>) {
    if !is_label(name) {
        at.fault(
            format!("{name:?} is no namespace"),
            "use 1 to 63 of a-z 0-9 -",
        );
    }
}

/// Services as `name` or `namespace/name`.
pub(super) fn services(given: &[String], at: &At<'_>) {
    at_most(given.len(), 64, at);
    for (index, text) in given.iter().enumerate() {
        let name = text
            .split_once('/')
            .map_or(Some(text.as_str()), |(namespace, name)| {
                is_label(namespace).then_some(name)
            });
        if !name.is_some_and(is_label) {
            at.index(index).fault(
                format!("{text:?} is no service"),
                "write `name` or `namespace/name`",
            );
        }
    }
}

/// Addresses, or ranges of them.
pub(super) fn subnets(given: &[String], at: &At<'_>) {
    at_most(given.len(), 256, at);
    for (index, text) in given.iter().enumerate() {
        subnet(text, &at.index(index));
    }
}

pub(super) fn subnet(text: &str, at: &At<'_>) {
    let (address, bits) = text
        .split_once('/')
        .map_or((text, None), |(address, bits)| (address, Some(bits)));
    let Ok(address) = address.parse::<IpAddr>() else {
        at.fault(
            format!("{text:?} is no range of addresses"),
            "write it like 10.0.0.0/8, fd00::/8 or 10.1.2.3",
        );
        return;
    };
    let most = if address.is_ipv4() { 32 } else { 128 };
    let Some(bits) = bits else { return };
    let plain = bits.bytes().all(|digit| digit.is_ascii_digit());
    if !plain || bits.parse::<u8>().is_ok_and(|bits| bits > most) || bits.parse::<u8>().is_err() {
        at.fault(
            format!("/{bits} is no length of a prefix"),
            format!("write /0 to /{most}"),
        );
    }
}
