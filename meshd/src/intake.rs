//! What this host states about itself: its information, workloads, registry views and resource states,
//! as the records that gossip signs and spreads.
//!
//! In: configuration, health, views, what `plan` found of resources. Out: records, whole set each time.

use std::{collections::BTreeSet, net::IpAddr};

use crate::local::HealthMap;
use mesh_model::{
    address::is_loopback,
    config::{Boot, Capture, Live, LocalService, SourceConfig, merge::PRECEDENCE},
    endpoint::Health,
    fact::{
        HostInfo, Record, RecordKind, RegistryView, ResourceStatus, SourceTerms, WireHealth,
        Workload, WorkloadPort,
    },
    name::ServiceId,
};
use mesh_registry::{SourceRow, SourceStatus};

/// What does not change while the daemon runs.
#[derive(Debug, Clone)]
pub(crate) struct Host {
    /// Name for people.
    pub(crate) name: String,
    /// Addresses at which others reach it, preferred first.
    pub(crate) addresses: Vec<IpAddr>,
    /// Milliseconds since the epoch.
    pub(crate) started_ms: u64,
}

/// Everything that this host states.
pub(crate) struct Statement<'a> {
    /// Settings.
    pub(crate) boot: &'a Boot,
    /// The host.
    pub(crate) host: &'a Host,
    /// True when it holds an authority.
    pub(crate) authority: bool,
    /// Fingerprint and number of the commits that the proxy obeys.
    pub(crate) applied: ([u8; 16], u64),
    /// Its services and sources.
    pub(crate) live: &'a Live,
    /// Sources of the whole mesh that this host reads.
    pub(crate) elected: &'a [SourceConfig],
    /// How its sources are.
    pub(crate) rows: &'a [SourceRow],
    /// Of the services the ones that are offered to nobody any more.
    pub(crate) released: &'a BTreeSet<ServiceId>,
    /// Their health.
    pub(crate) health: &'a HealthMap,
    /// Services that are asked to finish: offered as draining.
    pub(crate) draining: bool,
    /// Instances whose plaintext is refused.
    pub(crate) strict: &'a dyn Fn(&LocalService) -> bool,
    /// Views of the sources that are shared, with their record keys.
    pub(crate) views: &'a [(String, std::sync::Arc<RegistryView>)],
    /// How this host sees resources.
    pub(crate) statuses: &'a [ResourceStatus],
}

/// The records, sorted by key.
pub(crate) fn records(statement: &Statement<'_>) -> Vec<Record> {
    let mut records = vec![record(
        "host".to_owned(),
        RecordKind::Host,
        &host_info(statement),
    )];
    let offered =
        |service: &&std::sync::Arc<LocalService>| !statement.released.contains(&service.service);
    for service in statement.live.services.iter().filter(offered) {
        let key = format!("workload/{}/{}", service.service, service.instance);
        records.push(record(
            key,
            RecordKind::Workload,
            &workload(statement, service),
        ));
    }
    for (key, view) in statement.views {
        records.push(record(key.clone(), RecordKind::RegistryView, view.as_ref()));
    }
    for status in statement.statuses {
        let key = format!(
            "status/{}/{}/{}",
            status.kind, status.namespace, status.name
        );
        records.push(record(key, RecordKind::ResourceStatus, status));
    }
    records.sort_by(|a, b| a.key.cmp(&b.key));
    records.dedup_by(|a, b| a.key == b.key);
    records
}

fn record(key: String, kind: RecordKind, body: &impl prost::Message) -> Record {
    Record {
        key,
        kind: kind.into(),
        body: body.encode_to_vec(),
    }
}

fn host_info(statement: &Statement<'_>) -> HostInfo {
    let boot = statement.boot;
    let text = |part: &Option<std::sync::Arc<str>>| part.as_deref().unwrap_or_default().to_owned();
    HostInfo {
        name: statement.host.name.clone(),
        addresses: statement
            .host
            .addresses
            .iter()
            .map(ToString::to_string)
            .collect(),
        tunnel_port: boot.listeners.tunnel.port().into(),
        cluster_port: boot.cluster.listen.port().into(),
        region: text(&boot.locality.region),
        zone: text(&boot.locality.zone),
        sub_zone: text(&boot.locality.sub_zone),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        started_ms: statement.host.started_ms,
        authority: statement.authority,
        capture: match boot.capture {
            Capture::Mesh => "mesh".to_owned(),
            Capture::Off => "off".to_owned(),
        },
        labels: boot.labels.clone(),
        applied: statement.applied.0.to_vec(),
        applied_count: statement.applied.1,
        sources: source_terms(statement),
    }
}

/// What others must know of the sources whose views are shared.
fn source_terms(statement: &Statement<'_>) -> Vec<SourceTerms> {
    let own = statement
        .live
        .sources
        .iter()
        .filter(|source| source.publish);
    own.chain(statement.elected)
        .map(|source| {
            let term = statement.live.merge.terms.get(&source.id).copied();
            let term = term.unwrap_or_default();
            let mut rows = statement.rows.iter();
            SourceTerms {
                id: source.id.clone(),
                kind: source.kind.word().to_owned(),
                scope: source.kind.scope().to_owned(),
                precedence: term.precedence.unwrap_or(PRECEDENCE).into(),
                weight: term.weight.map_or(0, |weight| weight.saturating_add(1)),
                tags: source.kind.tags().to_vec(),
                synced: rows.any(|row| row.id == source.id && row.status == SourceStatus::Synced),
            }
        })
        .collect()
}

fn workload(statement: &Statement<'_>, service: &LocalService) -> Workload {
    let health = if statement.draining {
        Health::Draining
    } else {
        statement
            .health
            .get(&service.instance)
            .copied()
            .unwrap_or(Health::Unhealthy)
    };
    let address = match service.address {
        Some(address) if is_loopback(address) && !statement.host.addresses.contains(&address) => {
            String::new()
        }
        Some(address) if address.is_unspecified() => own_address(statement.host),
        Some(address) => address.to_string(),
        None => own_address(statement.host),
    };
    Workload {
        namespace: service.service.namespace.to_string(),
        service: service.service.name.to_string(),
        service_account: service.service_account.to_string(),
        labels: service.labels.clone(),
        ports: service
            .ports
            .iter()
            .map(|port| WorkloadPort {
                name: port.name.to_string(),
                port: port.port.into(),
                target: port.target.into(),
                protocol: port.protocol.as_str().to_owned(),
            })
            .collect(),
        address,
        health: WireHealth::from(health).into(),
        weight: service.weight,
        strict: (statement.strict)(service),
        fail_closed: service.fail_closed,
        instance: service.instance.clone(),
    }
}

fn own_address(host: &Host) -> String {
    host.addresses
        .first()
        .map(ToString::to_string)
        .unwrap_or_default()
}
