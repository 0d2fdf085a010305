//! What is: status, members, services, endpoints, request counts.

use std::{collections::BTreeMap, sync::Arc};

use mesh_model::{
    admin::{EndpointRow, Member, MeshStatus, ServiceRow, StatRow, Status},
    catalog::{Catalog, HostFacts, Liveness},
    config::Capture,
    endpoint::{Health, TunnelKind},
    fact::{WireHealth, Workload},
    finding::Finding,
    name::{HostId, ServiceId},
    snapshot::{Backend, BackendEndpoint, Snapshot},
};

use super::{
    answer::{Outcome, refuse},
    request::{self, Query},
};
use crate::{clock, daemon::Daemon, running::Running};

/// The rooms of the mesh, or the refusal that says how to get one.
pub(super) fn joined(daemon: &Daemon) -> Outcome<Arc<Running>> {
    daemon.running.load_full().ok_or_else(|| {
        refuse(
            409,
            "not-joined",
            "this host is in no mesh",
            "make one with `meshctl init`, or join one with `meshctl join --token-file FILE`",
        )
    })
}

/// `GET /v1/status`.
pub(super) fn status(daemon: &Daemon) -> Status {
    let running = daemon.running.load_full();
    let mesh = running
        .as_ref()
        .and_then(|running| mesh_status(daemon, running));
    let findings = findings(daemon, running.as_deref());
    Status {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        phase: daemon.phase().to_owned(),
        started_ms: daemon.ground.host.started_ms,
        generation: running
            .as_ref()
            .map_or(0, |running| running.reader.generation()),
        capture: match daemon.ground.boot.capture {
            Capture::Mesh => "mesh".to_owned(),
            Capture::Off => "off".to_owned(),
        },
        next: next_steps(daemon, mesh.as_ref(), &findings),
        mesh,
        findings,
    }
}

/// Every problem known, worst first.
pub(super) fn findings(daemon: &Daemon, running: Option<&Running>) -> Vec<Finding> {
    let mut all: Vec<Finding> = daemon.ground.findings.load().iter().cloned().collect();
    if let Some(running) = running {
        if let Some(compiled) = running.compiled.borrow().as_ref() {
            all.extend(compiled.findings.iter().cloned());
        }
        let published = running.registry.views();
        all.extend(
            published
                .borrow()
                .sources
                .iter()
                .flat_map(mesh_registry::SourceRow::findings),
        );
        all.extend(running.announcements.findings());
        all.extend(running.cluster.findings().iter().cloned());
        all.extend(certificate_findings(running));
    }
    all.sort_by(|a, b| b.severity.cmp(&a.severity).then_with(|| a.cmp(b)));
    all
}

fn certificate_findings(running: &Running) -> Vec<Finding> {
    let why: BTreeMap<_, _> = running.certificates.failures().into_iter().collect();
    running
        .certificates
        .missing()
        .into_iter()
        .map(|id| {
            let cause = why
                .get(&id)
                .cloned()
                .unwrap_or_else(|| "it is being asked for".to_owned());
            Finding::new(
                "certificate-missing",
                mesh_model::finding::Severity::Warning,
                id.to_string(),
                format!("this host has no certificate for it: {cause}"),
                "check that an authority lives and that this host's token allowed the service",
            )
        })
        .collect()
}

fn mesh_status(daemon: &Daemon, running: &Running) -> Option<MeshStatus> {
    let catalog = running.cluster.catalog();
    let mesh = catalog.mesh.as_ref()?;
    let alive = catalog.hosts.values().filter(|host| is_alive(host)).count();
    let converged = catalog
        .hosts
        .values()
        .filter(|host| is_alive(host) && host.commits == catalog.commits)
        .count();
    let snapshot = running.reader.load();
    let services: std::collections::BTreeSet<&ServiceId> = snapshot
        .outbound
        .frontends
        .iter()
        .map(|frontend| &frontend.service)
        .collect();
    Some(MeshStatus {
        id: mesh.id.to_string(),
        name: mesh.name.to_string(),
        trust_domain: mesh.trust_domain.to_string(),
        domain: mesh.domain.to_string(),
        host: mesh.host.to_string(),
        host_name: daemon.ground.host.name.clone(),
        authority: running.identity.is_authority(),
        strict: mesh.strict,
        hosts: (catalog.hosts.len(), alive),
        services: services.len(),
        commits: catalog.commit_count,
        fingerprint: hex(&catalog.commits),
        converged,
    })
}

pub(super) fn hex(bytes: &[u8]) -> String {
    data_encoding::HEXLOWER.encode(bytes)
}

/// True for a host that counts: alive, or not probed yet.
pub(super) fn is_alive(host: &HostFacts) -> bool {
    !host.leaving
        && matches!(
            host.liveness,
            Liveness::Alive | Liveness::Unknown | Liveness::Suspect
        )
}

fn next_steps(
    daemon: &Daemon,
    mesh: Option<&MeshStatus>,
    findings: &[Finding],
) -> Vec<(String, String)> {
    let step = |command: &str, what: &str| (command.to_owned(), what.to_owned());
    let Some(mesh) = mesh else {
        return vec![
            step(
                "meshctl init",
                "make a mesh with this host as its first authority",
            ),
            step(
                "meshctl join --token-file FILE",
                "join a mesh with a token from `meshctl token create`",
            ),
        ];
    };
    let mut next = Vec::new();
    if daemon.phase() == "bypassed" {
        next.push(step(
            "meshctl unbypass",
            "put meshd back into this host's path",
        ));
    }
    let tried = crate::adopt::trial::until_ms(&daemon.ground.boot.state_dir) != 0;
    if tried || findings.iter().any(|one| one.code == "tentative-edit") {
        next.push(step(
            "meshctl confirm",
            "keep what would undo itself, as it is good",
        ));
    }
    if mesh.hosts.0 < 2 {
        next.push(step(
            "meshctl token create --authority",
            "let a second authority join: one alone cannot be lost",
        ));
    }
    let live = daemon.ground.live.borrow().clone();
    if live.services.is_empty() && !live.sources.is_empty() {
        next.push(step(
            "meshctl adopt --dry-run",
            "what registries know on this host already, and what adopting it would capture",
        ));
    }
    if live.services.is_empty() {
        next.push(step(
            "$EDITOR /etc/meshd/services.d/NAME.toml",
            "name a program of this host, then `systemctl reload meshd`",
        ));
    }
    next.push(step(
        "meshctl check",
        "what is healthy, what is not, what expires first",
    ));
    next.push(step(
        "meshctl services",
        "what can be called, and where it runs",
    ));
    next
}

/// `GET /v1/members`.
pub(super) fn members(daemon: &Daemon) -> Outcome<Vec<Member>> {
    let running = joined(daemon)?;
    let catalog = running.cluster.catalog();
    let own = catalog.mesh.as_ref().map(|mesh| mesh.host);
    Ok(catalog
        .hosts
        .iter()
        .map(|(id, host)| member(&catalog, *id, host, own))
        .collect())
}

fn member(catalog: &Catalog, id: HostId, host: &HostFacts, own: Option<HostId>) -> Member {
    let info = host.info.as_deref();
    let authority = catalog
        .authorities
        .iter()
        .any(|grant| HostId::from_slice(&grant.host_id) == Some(id));
    Member {
        id: id.to_string(),
        name: host_name(host, id),
        liveness: if host.leaving {
            Liveness::Left
        } else {
            host.liveness
        },
        own: own == Some(id),
        authority,
        addresses: info.map(|info| info.addresses.clone()).unwrap_or_default(),
        zone: info.map(|info| info.zone.clone()).unwrap_or_default(),
        version: info.map(|info| info.version.clone()).unwrap_or_default(),
        services: host
            .workloads
            .values()
            .filter(|workload| !workload.ports.is_empty())
            .count(),
        commits: host.commit_count,
        lease_until_ms: host.lease_until_ms,
    }
}

/// The host's name, or its id while it has not introduced itself.
pub(super) fn host_name(host: &HostFacts, id: HostId) -> String {
    match (&host.info, &host.grant) {
        (Some(info), _) if !info.name.is_empty() => info.name.clone(),
        (_, Some(grant)) if !grant.name.is_empty() => grant.name.clone(),
        _ => id.short(),
    }
}

/// `GET /v1/services`.
pub(super) async fn services(daemon: &Daemon) -> Outcome<Vec<ServiceRow>> {
    let running = joined(daemon)?;
    let catalog = running.cluster.catalog();
    let snapshot = running.reader.load();
    running.settled().await;
    let mut rows: BTreeMap<&ServiceId, ServiceRow> = BTreeMap::new();
    for frontend in &snapshot.outbound.frontends {
        let row = rows
            .entry(&frontend.service)
            .or_insert_with(|| service_row(&catalog, &frontend.service));
        row.ports.push(format!(
            "{}{}/{}",
            if frontend.port_name.is_empty() {
                String::new()
            } else {
                format!("{}:", frontend.port_name)
            },
            frontend.port,
            frontend.protocol
        ));
        if row.virtual_addresses.is_empty() {
            row.virtual_addresses = frontend
                .virtual_addresses
                .iter()
                .map(ToString::to_string)
                .collect();
        }
        let usable = frontend
            .backend
            .endpoints
            .iter()
            .filter(|endpoint| endpoint.preferred)
            .count();
        row.endpoints.0 = row.endpoints.0.max(usable);
        row.endpoints.1 = row.endpoints.1.max(frontend.backend.endpoints.len());
        row.local |= frontend
            .backend
            .endpoints
            .iter()
            .any(|endpoint| endpoint.local);
        let rules = frontend.rules.rules.iter().chain(&frontend.tcp_rules.rules);
        let tls = frontend.tls_rules.iter().map(|rule| &rule.route);
        for route in rules.map(|rule| &rule.route).chain(tls) {
            let name = format!("{}/{}", route.kind, route.name);
            if !row.routes.contains(&name) {
                row.routes.push(name);
            }
        }
    }
    Ok(rows.into_values().collect())
}

fn service_row(catalog: &Catalog, service: &ServiceId) -> ServiceRow {
    let mut origins = Vec::new();
    let named = |key: &mesh_model::catalog::ResourceKey| {
        key.namespace == service.namespace.as_str() && key.name == service.name.as_str()
    };
    if catalog.of_kind("Service").any(|(key, _)| named(key)) {
        origins.push("document".to_owned());
    }
    let offered = |workload: &Workload| {
        workload.namespace == service.namespace.as_str()
            && workload.service == service.name.as_str()
    };
    let hosts = || catalog.hosts.values();
    if hosts()
        .flat_map(|host| host.workloads.values())
        .any(|workload| offered(workload))
    {
        origins.push("workload".to_owned());
    }
    let views = hosts()
        .flat_map(|host| host.views.values())
        .chain(catalog.local_views.values());
    if views.into_iter().any(|view| {
        view.namespace == service.namespace.as_str() && view.service == service.name.as_str()
    }) {
        origins.push("registry".to_owned());
    }
    ServiceRow {
        service: service.to_string(),
        ports: Vec::new(),
        virtual_addresses: Vec::new(),
        endpoints: (0, 0),
        routes: Vec::new(),
        origins,
        local: false,
    }
}

/// `GET /v1/endpoints?service=`.
pub(super) async fn endpoints(daemon: &Daemon, query: &Query) -> Outcome<Vec<EndpointRow>> {
    let running = joined(daemon)?;
    let wanted = request::service(query)?;
    let snapshot = running.reader.load();
    // Whoever reads that an endpoint is usable may call it at once.
    running.settled().await;
    let ejected = running.ejections();
    let rows = snapshot
        .outbound
        .backends
        .values()
        .filter(|backend| {
            wanted
                .as_ref()
                .is_none_or(|wanted| *wanted == backend.service)
        })
        .flat_map(|backend| {
            backend
                .endpoints
                .iter()
                .map(move |endpoint| (backend, endpoint))
        })
        .map(|(backend, endpoint)| endpoint_row(backend, endpoint, &ejected))
        .collect::<Vec<_>>();
    let mut rows = rows;
    rows.extend(left_out(&running, &snapshot, wanted.as_ref()));
    rows.sort_by(|a, b| (&a.service, a.port, &a.id).cmp(&(&b.service, b.port, &b.id)));
    Ok(rows)
}

fn endpoint_row(
    backend: &Backend,
    endpoint: &BackendEndpoint,
    ejected: &[mesh_proxy::Ejection],
) -> EndpointRow {
    let out = ejected.iter().find(|one| one.endpoint == endpoint.key);
    let reason = if let Some(ejection) = out {
        ejected_because(ejection)
    } else if endpoint.preferred {
        String::new()
    } else {
        "its host does not answer; used when nothing better is left".to_owned()
    };
    EndpointRow {
        service: backend.service.to_string(),
        port: backend.port,
        id: endpoint.id.to_string(),
        address: endpoint.address.to_string(),
        security: security(endpoint).to_owned(),
        health: Health::Healthy,
        usable: endpoint.preferred && out.is_none(),
        reason,
        host: endpoint.host_name.to_string(),
        labels: endpoint.labels.as_ref().clone(),
    }
}

/// Why an endpoint is out, and until when.
fn ejected_because(ejection: &mesh_proxy::Ejection) -> String {
    let reason = ejection.reason;
    match ejection.until_ms {
        Some(until) => {
            let left = until.saturating_sub(clock::now_ms()).div_ceil(1000);
            format!("ejected: {reason}; back in {left} s")
        }
        None => format!("ejected: {reason}; back when it is found well"),
    }
}

/// `mtls`, `hbone`, `plain` or `local`.
pub(super) fn security(endpoint: &BackendEndpoint) -> &'static str {
    match (&endpoint.tunnel, endpoint.local) {
        (_, true) => "local",
        (Some(tunnel), _) if tunnel.kind == TunnelKind::Mesh => "mtls",
        (Some(_), _) => "hbone",
        (None, _) => "plain",
    }
}

/// Instances that their own host's check keeps out, so that people see why they get nothing.
fn left_out(
    running: &Running,
    snapshot: &Snapshot,
    wanted: Option<&ServiceId>,
) -> Vec<EndpointRow> {
    let catalog = running.cluster.catalog();
    let mut rows = Vec::new();
    for (id, host) in &catalog.hosts {
        for workload in host.workloads.values() {
            let health =
                Health::from(WireHealth::try_from(workload.health).unwrap_or(WireHealth::Unknown));
            let Ok(service) =
                ServiceId::parse(&format!("{}/{}", workload.namespace, workload.service))
            else {
                continue;
            };
            if health.is_routable() || wanted.is_some_and(|wanted| *wanted != service) {
                continue;
            }
            for port in &workload.ports {
                let Ok(number) = u16::try_from(port.port) else {
                    continue;
                };
                rows.push(EndpointRow {
                    service: service.to_string(),
                    port: number,
                    id: workload.instance.clone(),
                    address: format!("{}:{}", workload.address, port.target),
                    security: if Some(*id) == snapshot.mesh.as_ref().map(|mesh| mesh.host) {
                        "local".to_owned()
                    } else {
                        "mtls".to_owned()
                    },
                    health,
                    usable: false,
                    reason: match health {
                        Health::Draining => "draining".to_owned(),
                        _ => "its own host's health check fails".to_owned(),
                    },
                    host: host_name(host, *id),
                    labels: workload.labels.clone(),
                });
            }
        }
    }
    rows
}

/// `GET /v1/stat`.
pub(super) fn stat(daemon: &Daemon) -> Outcome<Vec<StatRow>> {
    Ok(joined(daemon)?.stats())
}
