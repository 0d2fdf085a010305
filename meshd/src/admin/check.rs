//! `meshctl check`: what is healthy, what is not, what expires first and when.

use std::sync::Arc;

use mesh_model::{
    admin::CheckRow,
    catalog::{Catalog, Liveness},
    finding::{Finding, Severity},
    name::HostId,
    time::rfc3339,
};

use super::state;
use crate::{clock, daemon::Daemon, running::Running};

/// What the kernel captures.
mod capture;
/// Who may commit, and for how long.
mod operators;

/// Every line of the check.
pub(super) async fn rows(daemon: &Daemon) -> Vec<CheckRow> {
    let mut rows = vec![ok(
        "daemon",
        format!("meshd {} is {}", env!("CARGO_PKG_VERSION"), daemon.phase()),
    )];
    rows.extend(
        mesh_intercept::observe::environment(&daemon.ground.boot)
            .await
            .iter()
            .map(|finding| from_finding("host", finding)),
    );
    let Some(running) = daemon.running.load_full() else {
        rows.push(row(
            "mesh",
            "warning",
            "this host is in no mesh",
            "`meshctl init`, or `meshctl join --token-file FILE`",
        ));
        return rows;
    };
    let catalog = running.cluster.catalog();
    rows.extend(mesh(&catalog));
    rows.extend(hosts(&catalog, &running).await);
    rows.extend(authorities(&catalog));
    rows.extend(certificates(&running));
    rows.extend(operators::rows(&catalog, clock::now_ms()));
    rows.push(capture::line(&daemon.ground.boot, daemon.phase(), &running).await);
    let findings = state::findings(daemon, Some(&running));
    rows.extend(
        findings
            .iter()
            .map(|finding| from_finding("findings", finding)),
    );
    rows
}

fn row(section: &str, state: &str, what: impl Into<String>, remedy: &str) -> CheckRow {
    CheckRow {
        section: section.to_owned(),
        state: state.to_owned(),
        what: what.into(),
        remedy: remedy.to_owned(),
    }
}

fn ok(section: &str, what: impl Into<String>) -> CheckRow {
    row(section, "ok", what, "")
}

fn from_finding(section: &str, finding: &Finding) -> CheckRow {
    let state = match finding.severity {
        Severity::Note => "ok",
        Severity::Warning => "warning",
        Severity::Error => "error",
    };
    row(
        section,
        state,
        format!("{}: {}", finding.subject, finding.what),
        &finding.remedy,
    )
}

fn mesh(catalog: &Catalog) -> Vec<CheckRow> {
    let Some(mesh) = &catalog.mesh else {
        return Vec::new();
    };
    let mode = if mesh.strict {
        "strict: plaintext is refused, and calls are denied unless a policy allows them"
    } else {
        "permissive: mTLS between meshed hosts, plaintext from others accepted, calls allowed unless a policy denies them"
    };
    vec![
        ok(
            "mesh",
            format!(
                "{} ({}), trust domain {}",
                mesh.name, mesh.id, mesh.trust_domain
            ),
        ),
        ok("mesh", mode),
    ]
}

async fn hosts(catalog: &Catalog, running: &Running) -> Vec<CheckRow> {
    let mut rows = Vec::new();
    let own = catalog.mesh.as_ref().map(|mesh| mesh.host);
    for (id, host) in catalog.hosts.iter().filter(|(id, _)| Some(**id) != own) {
        let name = state::host_name(host, *id);
        rows.push(match host.liveness {
            Liveness::Down => row(
                "hosts",
                "warning",
                format!("{name} does not answer"),
                "start meshd there, or `meshctl leave` it there for good",
            ),
            Liveness::Suspect => row(
                "hosts",
                "warning",
                format!("{name} missed a probe"),
                "nothing yet: it is confirmed or cleared within seconds",
            ),
            Liveness::Left => ok("hosts", format!("{name} has left")),
            Liveness::Alive | Liveness::Unknown => ok("hosts", format!("{name} answers")),
        });
    }
    rows.extend(running.cluster.links().await.into_iter().filter(|link| link.tcp && !link.udp).map(|link| {
        row("hosts", "warning", format!("{} answers on TCP 7947 and not on UDP 7947: membership runs over TCP, slower", link.name), "open UDP 7947 in both directions")
    }));
    rows
}

fn authorities(catalog: &Catalog) -> Vec<CheckRow> {
    let living: Vec<String> = catalog
        .authorities
        .iter()
        .filter_map(|grant| HostId::from_slice(&grant.host_id))
        .filter_map(|id| {
            let host = catalog.hosts.get(&id)?;
            (!host.leaving && !matches!(host.liveness, Liveness::Down | Liveness::Left))
                .then(|| state::host_name(host, id))
        })
        .collect();
    let remedy = "let another host join with `meshctl token create --authority`";
    vec![match living.as_slice() {
        [] => row(
            "authorities",
            "error",
            "no authority is left: nobody can join or renew",
            "start a host that is one, or `meshctl restore` a backup",
        ),
        [one] => row(
            "authorities",
            "warning",
            format!("one authority is left: {one}"),
            remedy,
        ),
        several => ok(
            "authorities",
            format!("{} authorities live: {}", several.len(), several.join(", ")),
        ),
    }]
}

fn certificates(running: &Arc<Running>) -> Vec<CheckRow> {
    let now = clock::now_ms();
    let mut rows = Vec::new();
    match running.first_expiry() {
        None => rows.push(row(
            "certificates",
            "error",
            "this host has no certificate",
            "see the daemon's log: no authority could be asked",
        )),
        Some((what, at)) if at <= now => rows.push(row(
            "certificates",
            "error",
            format!("{what} expired at {}", rfc3339(at)),
            "start an authority: renewal then happens by itself",
        )),
        Some((what, at)) => {
            let left = std::time::Duration::from_millis(at - now);
            let text = format!(
                "{what} expires first, at {} (in {})",
                rfc3339(at),
                rough(left)
            );
            rows.push(ok("certificates", text));
        }
    }
    rows
}

/// `3 d`, `5 h`, `12 min`, `40 s`.
fn rough(left: std::time::Duration) -> String {
    let seconds = left.as_secs();
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7_200 => format!("{} min", seconds / 60),
        7_200..172_800 => format!("{} h", seconds / 3_600),
        _ => format!("{} d", seconds / 86_400),
    }
}
