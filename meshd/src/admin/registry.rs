//! Discovery sources: how each is, and what it says.

use mesh_model::{
    admin::registry::{SourceRow, ViewEndpointRow, ViewRow},
    config::merge::PRECEDENCE,
    endpoint::Health,
    fact::{RegistryView, WireHealth},
    name::HostId,
};

use super::{
    answer::{Outcome, refuse},
    request::{self, Query},
    state::{host_name, joined},
};
use crate::{clock, daemon::Daemon};

/// `GET /v1/registry`.
pub(super) fn sources(daemon: &Daemon) -> Outcome<Vec<SourceRow>> {
    let running = joined(daemon)?;
    let live = daemon.ground.live.borrow().clone();
    let views = running.registry.views();
    let published = views.borrow().clone();
    let row = |row: &mesh_registry::SourceRow| {
        let term = live.merge.terms.get(&row.id).copied().unwrap_or_default();
        let reading = running.registry.reading(&row.id);
        SourceRow {
            source: row.id.clone(),
            kind: row.kind.to_owned(),
            state: row.status.as_str().to_owned(),
            since_ms: row.since_ms,
            why: row.why().unwrap_or_default(),
            services: row.services,
            endpoints: row.endpoints,
            held: row.held,
            last_success_ms: row.last_success_ms,
            latency_ms: u64::try_from(row.latency.as_millis()).unwrap_or(u64::MAX),
            precedence: term.precedence.unwrap_or(PRECEDENCE),
            weight: term.weight,
            shared: row.publish,
            connections: reading.connections,
            watched: reading.watched,
            in_turn: reading.in_turn,
        }
    };
    let mut rows: Vec<SourceRow> = published.sources.iter().map(row).collect();
    let catalog = running.cluster.catalog();
    for one in mesh_plan::readers::readers(&catalog, clock::now_ms()) {
        if rows.iter().any(|row| row.source == one.source.id) {
            continue;
        }
        let name = |id: &HostId| {
            let host = catalog.hosts.get(id);
            host.map_or_else(|| id.to_string(), |host| host_name(host, *id))
        };
        let readers: Vec<String> = one.readers.iter().map(name).collect();
        rows.push(SourceRow {
            kind: one.source.kind.word().to_owned(),
            state: "elsewhere".to_owned(),
            why: format!("read by {}", readers.join(", ")),
            precedence: PRECEDENCE,
            shared: true,
            source: one.source.id,
            ..SourceRow::default()
        });
    }
    Ok(rows)
}

/// `GET /v1/registry/views?source=&service=`: what this host's sources say, and what other hosts say of sources
/// that this one does not read.
pub(super) fn views(daemon: &Daemon, query: &Query) -> Outcome<Vec<ViewRow>> {
    let running = joined(daemon)?;
    let text = |key: &str| query.get(key).map(String::as_str).filter(|t| !t.is_empty());
    let service = request::service(query)?;
    let published = running.registry.views().borrow().clone();
    let own = |id: &str| published.sources.iter().any(|row| row.id == id);
    let catalog = running.cluster.catalog();
    let of_others = catalog.hosts.iter().flat_map(|(id, host)| {
        let name = host_name(host, *id);
        let foreign = host.views.values().filter(|view| !own(&view.source));
        foreign.map(move |view| (name.clone(), view))
    });
    let mut rows: Vec<ViewRow> = published
        .views
        .values()
        .map(|view| (String::new(), &view.view))
        .chain(of_others)
        .filter(|(_, view)| text("source").is_none_or(|source| source == view.source))
        .map(|(host, view)| view_row(host, view))
        .filter(|row| {
            let named = service.as_ref().map(ToString::to_string);
            named.is_none_or(|service| service == row.service)
        })
        .collect();
    rows.sort_by(|a, b| (&a.source, &a.service, &a.host).cmp(&(&b.source, &b.service, &b.host)));
    let known = |id: &str| {
        own(id)
            || catalog.hosts.values().any(|host| {
                let told = host.info.iter().flat_map(|info| &info.sources);
                told.into_iter().any(|terms| terms.id == id)
                    || host.views.values().any(|view| view.source == id)
            })
    };
    match text("source") {
        Some(source) if !known(source) => Err(refuse(
            404,
            "unknown-source",
            format!("{source:?} is no source of the mesh"),
            "see `meshctl registry status`",
        )),
        _ => Ok(rows),
    }
}

fn view_row(host: String, view: &RegistryView) -> ViewRow {
    let endpoints = view.endpoints.iter().map(|one| ViewEndpointRow {
        id: one.id.clone(),
        address: one.address.clone(),
        health: WireHealth::try_from(one.health).map_or(Health::Unknown, Health::from),
        weight: one.weight,
        priority: one.priority,
        labels: (*one.labels).clone(),
    });
    ViewRow {
        source: view.source.clone(),
        host,
        service: format!("{}/{}", view.namespace, view.service),
        port: u16::try_from(view.port).unwrap_or_default(),
        protocol: view.protocol.clone(),
        endpoints: endpoints.collect(),
    }
}
