//! Our own kinds but policies: services, delegation tables, revocations.

use super::{at_most, port};
use crate::{
    config::{MergePolicy, merge::MOST_WEIGHT},
    document::spec::{
        DelegationTableSpec, LabelSelector, MergeSpec, PortOrName, RevocationSpec, ServicePortSpec,
        ServiceSpec,
    },
    dtab::Dtab,
    name::{HostId, is_label},
    service::AppProtocol,
    written::At,
};

pub(super) fn service(service: &ServiceSpec, at: &At<'_>) {
    let at_ports = at.key("ports");
    if service.ports.is_empty() {
        at_ports.fault("are missing", "write at least one port");
    }
    at_most(service.ports.len(), 64, &at_ports);
    for (index, one) in service.ports.iter().enumerate() {
        let before = service.ports.get(..index).unwrap_or_default();
        service_port(one, before, service.ports.len() > 1, &at_ports.index(index));
    }
    labels(&service.selector, &at.key("selector"));
    if let Some(spec) = &service.merge {
        merge(spec, &at.key("merge"));
    }
    if service.type_.as_deref() == Some("ExternalName") {
        at.key("type").fault(
            "ExternalName is not supported by this version",
            "name endpoints by a discovery source",
        );
    }
}

fn merge(spec: &MergeSpec, at: &At<'_>) {
    let words: Vec<&str> = MergePolicy::ALL.iter().map(|(word, _)| *word).collect();
    super::one_of(spec.policy.as_deref(), &words, &at.key("policy"));
    at_most(spec.sources.len(), 64, &at.key("sources"));
    for (index, source) in spec.sources.iter().enumerate() {
        if spec.sources.iter().take(index).any(|one| one == source) {
            at.key("sources")
                .index(index)
                .fault(format!("{source:?} is written twice"), "write it once");
        }
    }
    for (source, weight) in &spec.weights {
        if *weight > MOST_WEIGHT {
            at.key("weights").key(source).fault(
                format!("{weight} is out of range"),
                format!("write 0 to {MOST_WEIGHT}"),
            );
        }
    }
}

fn service_port(one: &ServicePortSpec, before: &[ServicePortSpec], named: bool, at: &At<'_>) {
    port(Some(one.port), &at.key("port"));
    if before.iter().any(|other| other.port == one.port) {
        at.key("port").fault(
            format!("{} is a port of this service already", one.port),
            "write each port once",
        );
    }
    if one.name.is_empty() && named {
        at.key("name")
            .fault("is missing", "name every port of a service with several");
    } else if !one.name.is_empty() && !is_label(&one.name) {
        at.key("name").fault(
            format!("{:?} is no name", one.name),
            "use 1 to 63 of a-z 0-9 -",
        );
    } else if !one.name.is_empty() && before.iter().any(|other| other.name == one.name) {
        at.key("name").fault(
            format!("{:?} names another port already", one.name),
            "write each name once",
        );
    }
    match &one.target_port {
        Some(PortOrName::Port(number)) => port(Some(*number), &at.key("targetPort")),
        Some(PortOrName::Name(name)) if !is_label(name) => {
            at.key("targetPort").fault(
                format!("{name:?} is no name of a port"),
                "write a number or a port's name",
            );
        }
        Some(PortOrName::Name(_)) | None => {}
    }
    if let Some(Err(error)) = one.app_protocol.as_deref().map(str::parse::<AppProtocol>) {
        at.key("appProtocol")
            .fault(error.to_string(), "write one of them");
    }
    if one.protocol.as_deref().is_some_and(|word| word != "TCP") {
        at.key("protocol").fault(
            "only TCP is carried",
            "write TCP, or leave it out; what is spoken goes to appProtocol",
        );
    }
}

pub(super) fn selector(selector: Option<&LabelSelector>, at: &At<'_>) {
    if let Some(selector) = selector {
        labels(&selector.match_labels, &at.key("matchLabels"));
    }
}

pub(super) fn labels(given: &std::collections::BTreeMap<String, String>, at: &At<'_>) {
    at_most(given.len(), 64, at);
    for key in given.keys().filter(|key| key.is_empty() || key.len() > 253) {
        at.key(key).fault("is no label", "use 1 to 253 characters");
    }
}

pub(super) fn delegation_table(table: &DelegationTableSpec, at: &At<'_>) {
    if let Err(error) = Dtab::parse(&table.dtab) {
        // Tables are mostly block texts: line and column inside the text help more than one column.
        let before: String = table
            .dtab
            .chars()
            .take(error.column.saturating_sub(1))
            .collect();
        let line = before.matches('\n').count() + 1;
        let column = before
            .rsplit('\n')
            .next()
            .unwrap_or_default()
            .chars()
            .count()
            + 1;
        at.fault(
            format!("line {line}, column {column} of the table: {}", error.what),
            "write it like `/svc/words => 9 * /svc/words-v1 & 1 * /svc/words-v2 ;`",
        );
    }
}

pub(super) fn revocation(revocation: &RevocationSpec, at: &At<'_>) {
    match (&revocation.operator_key, &revocation.host) {
        (Some(key), None) => {
            if key.len() != 64 || !key.bytes().all(|byte| byte.is_ascii_hexdigit()) {
                at.key("operatorKey").fault(
                    "is no key",
                    "write the 64 digits that `meshctl operator list` prints",
                );
            }
        }
        (None, Some(host)) => {
            if host.parse::<HostId>().is_err() {
                at.key("host").fault(
                    "is no host id",
                    "write the 32 digits that `meshctl members` prints",
                );
            }
        }
        _ => at.fault(
            "must name one thing",
            "write either `operatorKey` or `host`",
        ),
    }
}
