//! `meshctl check`: what is healthy, what is not, what expires first and when.

use std::{collections::BTreeMap, sync::Arc};

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
    let (root, now_ms) = (running.identity.is_root(), clock::now_ms());
    let living = living(&catalog);
    rows.push(authorities(&living, root));
    rows.extend(rights(&catalog, &living, now_ms));
    rows.extend(running.authority_failure().map(|why| {
        row(
            "authorities",
            "warning",
            format!("this host's right as an authority was not renewed: {why}"),
            ROOT_REMEDY,
        )
    }));
    rows.extend(certificates(&running));
    rows.extend(operators::rows(&catalog, now_ms));
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

/// A right that ends within this was not renewed for months: half of its year was over long ago.
const RIGHT_ENDS_SOON_MS: u64 = 90 * 86_400_000;
const ROOT_REMEDY: &str =
    "start the host where `meshctl init` ran: it holds the root; or `meshctl restore` its backup";

/// Authorities that live, with their names.
fn living(catalog: &Catalog) -> BTreeMap<HostId, String> {
    catalog
        .authorities
        .iter()
        .filter_map(|grant| HostId::from_slice(&grant.host_id))
        .filter_map(|id| {
            let host = catalog.hosts.get(&id)?;
            host.is_living().then(|| (id, state::host_name(host, id)))
        })
        .collect()
}

/// How many authorities live; `root`: this host can make more.
fn authorities(living: &BTreeMap<HostId, String>, root: bool) -> CheckRow {
    let names: Vec<&str> = living.values().map(String::as_str).collect();
    let remedy = if root {
        "let another host join with `meshctl token create --authority`"
    } else {
        "`meshctl token create --authority` on the host where `meshctl init` ran, or where its backup was restored; then let another host join with it"
    };
    match names.as_slice() {
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
    }
}

/// Living authorities whose right ends soon, or has ended: only the root renews it.
fn rights(catalog: &Catalog, living: &BTreeMap<HostId, String>, now_ms: u64) -> Vec<CheckRow> {
    let end_of = |id: &HostId| {
        let grants = catalog.authorities.iter();
        let own = grants.filter(|grant| grant.host_id == id.0);
        own.map(|grant| grant.not_after_ms).max().unwrap_or(0)
    };
    let ends = living.iter().map(|(id, name)| (name, end_of(id)));
    ends.filter(|(_, end)| *end <= now_ms.saturating_add(RIGHT_ENDS_SOON_MS))
        .map(|(name, end)| {
            let (state, verb) = if end <= now_ms {
                ("error", "ended")
            } else {
                ("warning", "ends")
            };
            let what = format!(
                "the right of {name} as an authority {verb} at {}",
                rfc3339(end)
            );
            row("authorities", state, what, ROOT_REMEDY)
        })
        .collect()
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use mesh_model::{catalog::HostFacts, grant::AuthorityGrant};

    use super::*;

    const NOW_MS: u64 = 1_800_000_000_000;

    fn grant(host: u8, end_ms: u64) -> Arc<AuthorityGrant> {
        Arc::new(AuthorityGrant {
            host_id: vec![host; 16],
            not_after_ms: end_ms,
            ..AuthorityGrant::default()
        })
    }

    /// Authorities with the ends of their rights, and how they are.
    fn mesh_of(authorities: &[(u8, u64, Liveness)]) -> Catalog {
        let mut catalog = Catalog::default();
        for &(host, end_ms, liveness) in authorities {
            catalog.authorities.push(grant(host, end_ms));
            let facts = HostFacts {
                liveness,
                ..HostFacts::default()
            };
            catalog.hosts.insert(HostId([host; 16]), Arc::new(facts));
        }
        catalog
    }

    #[test]
    fn one_authority_is_told_where_another_can_be_made() {
        let end = NOW_MS + 4 * RIGHT_ENDS_SOON_MS;
        let both = mesh_of(&[(1, end, Liveness::Alive), (2, end, Liveness::Alive)]);
        assert_eq!(authorities(&living(&both), false).state, "ok");
        let one = living(&mesh_of(&[
            (1, end, Liveness::Down),
            (2, end, Liveness::Alive),
        ]));
        let (here, there) = (authorities(&one, true), authorities(&one, false));
        assert_eq!((&*here.state, &*there.state), ("warning", "warning"));
        assert!(!here.remedy.contains("meshctl init"), "{here:?}");
        assert!(
            there.remedy.contains("where `meshctl init` ran"),
            "{there:?}"
        );
        let none = living(&mesh_of(&[(1, end, Liveness::Left)]));
        assert_eq!(authorities(&none, false).state, "error");
    }

    #[test]
    fn rights_that_end_soon_are_told_and_only_those_of_the_living() {
        let soon = NOW_MS + RIGHT_ENDS_SOON_MS;
        let mut catalog = mesh_of(&[
            (1, soon + 1, Liveness::Alive),
            (2, soon, Liveness::Alive),
            (3, NOW_MS, Liveness::Alive),
            (4, NOW_MS, Liveness::Down),
            (5, soon, Liveness::Alive),
        ]);
        // The newest of a host's rights counts.
        catalog.authorities.push(grant(5, 2 * soon));
        let rows = rights(&catalog, &living(&catalog), NOW_MS);
        let said: Vec<_> = rows.iter().map(|row| (&*row.state, &*row.what)).collect();
        let name = |host| HostId([host; 16]).short();
        assert_eq!(said.len(), 2, "{said:?}");
        assert!(
            said[0].0 == "warning" && said[0].1.contains(&name(2)),
            "{said:?}"
        );
        assert!(
            said[1].0 == "error" && said[1].1.contains(&name(3)),
            "{said:?}"
        );
    }
}
