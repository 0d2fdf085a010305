//! Registries that services are announced to: an existing source, once, of a kind that takes announcements.

use std::time::Duration;

use super::{ip, source::service_names, span};
use crate::{
    config::{RegistrationConfig, SourceConfig, SourceKind, file::FileRegistration},
    written::{At, suggestion},
};

pub(super) fn registrations(
    given: &[FileRegistration],
    sources: &[SourceConfig],
    at: &At<'_>,
) -> Vec<RegistrationConfig> {
    let mut found: Vec<RegistrationConfig> = Vec::new();
    for (index, one) in given.iter().enumerate() {
        let at = at.index(index);
        let Some(registration) = registration(one, sources, &at) else {
            continue;
        };
        let id = &registration.source.id;
        if found.iter().any(|other| other.source.id == *id) {
            at.key("source").fault(
                format!("{id:?} has a registration already"),
                "write one for each source, with all services",
            );
        }
        found.push(registration);
    }
    found
}

fn registration(
    one: &FileRegistration,
    sources: &[SourceConfig],
    at: &At<'_>,
) -> Option<RegistrationConfig> {
    let source = source(one.source.as_deref(), sources, &at.key("source"))?;
    let tags = one.tags.clone().unwrap_or_default();
    if !tags.is_empty() && !matches!(source.kind, SourceKind::Consul { .. }) {
        at.key("tags").fault("only Consul has tags", "remove them");
    }
    Some(RegistrationConfig {
        services: one
            .services
            .as_ref()
            .map(|names| service_names(names, &at.key("services"))),
        ttl: span(
            one.ttl.as_deref().unwrap_or("30s"),
            &at.key("ttl"),
            Duration::from_secs(5),
            Duration::from_mins(10),
        ),
        address: address(one.address.as_deref(), &at.key("address")),
        source: source.clone(),
        tags,
    })
}

fn source<'s>(
    id: Option<&str>,
    sources: &'s [SourceConfig],
    at: &At<'_>,
) -> Option<&'s SourceConfig> {
    let Some(id) = id else {
        at.fault("is missing", "write the id of a source");
        return None;
    };
    let Some(source) = sources.iter().find(|source| source.id == id) else {
        let ids: Vec<&str> = sources.iter().map(|source| source.id.as_str()).collect();
        at.fault(format!("there is no source {id:?}"), suggestion(id, &ids));
        return None;
    };
    if !source.kind.takes_registrations() {
        at.fault(
            format!(
                "a source of kind {} takes no registrations",
                source.kind.word()
            ),
            "use one of kind consul, etcd, eureka, serverset or curator",
        );
        return None;
    }
    Some(source)
}

fn address(text: Option<&str>, at: &At<'_>) -> Option<std::net::IpAddr> {
    let address = ip(text?, at)?;
    if address.is_unspecified() || address.is_loopback() {
        at.fault(
            format!("{address} leads nowhere from another host"),
            "write an address at which others reach this host",
        );
    }
    Some(address)
}
