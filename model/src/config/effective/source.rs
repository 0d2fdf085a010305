//! A discovery source as TOML.

use std::path::Path;

use super::Out;
use crate::{
    config::{Access, MergeRule, RegistrationConfig, SourceConfig, SourceKind, SourceTerm},
    duration,
};

/// Writes one `[[source]]`. What has a default and was not given is left out.
pub(super) fn write(out: &mut Out, source: &SourceConfig, term: Option<&SourceTerm>) {
    out.section("[[source]]");
    out.text("id", &source.id);
    out.text("kind", source.kind.word());
    out.raw("publish", source.publish);
    if let Some(precedence) = term.and_then(|term| term.precedence) {
        out.raw("precedence", precedence);
    }
    if let Some(weight) = term.and_then(|term| term.weight) {
        out.raw("weight", weight);
    }
    if let Some(services) = &source.services {
        out.list("services", &services.iter().collect::<Vec<_>>());
    }
    keys(out, &source.kind);
    if let Some(access) = access(&source.kind) {
        certificates(out, access);
    }
    if let SourceKind::Dns { records, .. } = &source.kind {
        for record in records {
            out.section("[[source.record]]");
            out.text("service", record.service.as_str());
            out.text("name", &record.name);
            if let Some(port) = record.port {
                out.raw("port", port);
            }
        }
    }
}

/// Writes one `[[merge]]`.
pub(super) fn write_rule(out: &mut Out, rule: &MergeRule) {
    out.section("[[merge]]");
    let service = rule.service.as_ref().map(ToString::to_string);
    out.text("service", service.as_deref().unwrap_or("*"));
    out.text("policy", rule.policy.word());
    if !rule.sources.is_empty() {
        out.list("sources", &rule.sources);
    }
    if !rule.weights.is_empty() {
        let all: Vec<String> = rule
            .weights
            .iter()
            .map(|(source, weight)| format!("{} = {weight}", super::quoted(source)))
            .collect();
        out.line(&format!("weights = {{ {} }}", all.join(", ")));
    }
}

/// Writes one `[[registration]]`.
pub(super) fn write_registration(out: &mut Out, one: &RegistrationConfig) {
    out.section("[[registration]]");
    out.text("source", &one.source.id);
    if let Some(services) = &one.services {
        out.list("services", &services.iter().collect::<Vec<_>>());
    }
    out.text("ttl", &duration::print(one.ttl));
    if let Some(address) = one.address {
        out.text("address", &address.to_string());
    }
    if !one.tags.is_empty() {
        out.list("tags", &one.tags);
    }
}

fn keys(out: &mut Out, kind: &SourceKind) {
    if let Some(access) = access(kind) {
        out.list("addresses", &access.addresses);
        path(out, "token_file", access.token_file.as_deref());
        text(out, "username", access.username.as_deref());
        path(out, "password_file", access.password_file.as_deref());
    }
    match kind {
        SourceKind::File { directory } => path(out, "directory", Some(directory)),
        SourceKind::Consul {
            datacenter,
            namespace,
            partition,
            tags,
            passing,
            max_watches,
            ..
        } => {
            text(out, "datacenter", datacenter.as_deref());
            text(out, "namespace", namespace.as_deref());
            text(out, "partition", partition.as_deref());
            out.list("tags", tags);
            out.raw("passing", passing);
            out.raw("max_watches", max_watches);
        }
        SourceKind::Etcd { layout, prefix, .. } => {
            out.text("layout", layout.word());
            out.text("prefix", prefix);
        }
        SourceKind::Eureka {
            zone,
            poll,
            secure_port,
            ..
        } => {
            text(out, "zone", zone.as_deref());
            out.text("poll", &duration::print(*poll));
            out.raw("secure_port", secure_port);
        }
        SourceKind::Nomad {
            region,
            namespace,
            max_watches,
            ..
        } => {
            text(out, "region", region.as_deref());
            out.text("namespace", namespace);
            out.raw("max_watches", max_watches);
        }
        SourceKind::Marathon {
            prefix, port_index, ..
        } => {
            out.text("prefix", prefix);
            out.raw("port_index", port_index);
        }
        SourceKind::Serverset { path, .. }
        | SourceKind::Leader { path, .. }
        | SourceKind::Curator { path, .. } => out.text("path", path),
        SourceKind::Dns { servers, udp, .. } => {
            out.list("servers", servers);
            out.raw("udp", udp);
        }
        SourceKind::Kubernetes {
            kubeconfig,
            context,
            namespaces,
            selector,
            pod_labels,
        } => {
            path(out, "kubeconfig", kubeconfig.as_deref());
            text(out, "context", context.as_deref());
            out.list("namespaces", namespaces);
            out.text("selector", selector);
            out.raw("pod_labels", pod_labels);
        }
    }
}

fn access(kind: &SourceKind) -> Option<&Access> {
    match kind {
        SourceKind::Consul { access, .. }
        | SourceKind::Etcd { access, .. }
        | SourceKind::Eureka { access, .. }
        | SourceKind::Nomad { access, .. }
        | SourceKind::Marathon { access, .. }
        | SourceKind::Serverset { access, .. }
        | SourceKind::Leader { access, .. }
        | SourceKind::Curator { access, .. } => Some(access),
        SourceKind::File { .. } | SourceKind::Dns { .. } | SourceKind::Kubernetes { .. } => None,
    }
}

fn certificates(out: &mut Out, access: &Access) {
    let tls = &access.tls;
    if *tls == crate::config::SourceTls::default() {
        return;
    }
    out.section("[source.tls]");
    path(out, "ca", tls.ca.as_deref());
    path(out, "certificate", tls.certificate.as_deref());
    path(out, "key", tls.key.as_deref());
    text(out, "server_name", tls.server_name.as_deref());
}

fn text(out: &mut Out, key: &str, value: Option<&str>) {
    if let Some(value) = value {
        out.text(key, value);
    }
}

fn path(out: &mut Out, key: &str, value: Option<&Path>) {
    text(out, key, value.map(Path::to_string_lossy).as_deref());
}
