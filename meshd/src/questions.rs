//! Answers the questions of other hosts, which come over links whose ends TLS has proven.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use mesh_model::{catalog::Catalog, name::HostId};

use crate::{
    admission::RELAY_KIND,
    certificates::{self, AUTHORITY_KIND, ISSUE_KIND},
    cluster::Handler,
    counts,
    daemon::Daemon,
    quota::QUOTA_KIND,
};

/// The kind of call that asks for failure records by id.
pub(crate) const WHY_KIND: &str = "why";
/// The kind of call that asks for counts by edge, over so many milliseconds.
pub(crate) const EDGES_KIND: &str = "edges";
/// The kind of call that asks what the receiving side of a request would do.
pub(crate) const EXPLAIN_KIND: &str = "explain";

/// Answers every question of other hosts.
pub(crate) fn handler(daemon: &Arc<Daemon>) -> Handler {
    let daemon = Arc::clone(daemon);
    Arc::new(move |caller: HostId, kind: String, body: Bytes| {
        let daemon = Arc::clone(&daemon);
        Box::pin(async move { answer(&daemon, caller, &kind, body).await })
    })
}

async fn answer(
    daemon: &Arc<Daemon>,
    caller: HostId,
    kind: &str,
    body: Bytes,
) -> Result<Bytes, String> {
    let running = daemon.running.load_full().ok_or("the host is starting")?;
    let catalog = running.cluster.catalog();
    if !is_member(&catalog, caller) {
        return Err(format!("host {caller} has no grant here (yet)"));
    }
    match kind {
        ISSUE_KIND => certificates::issue(&running.identity, &catalog, caller, body),
        AUTHORITY_KIND => certificates::renew_authority(&running.identity, &catalog, caller, body),
        RELAY_KIND => running.joins.relayed(body).await,
        WHY_KIND => {
            let id = std::str::from_utf8(&body).map_err(|error| error.to_string())?;
            json(&running.failures(id))
        }
        QUOTA_KIND => running.quotas.answer(caller, &body),
        EDGES_KIND => {
            let text = std::str::from_utf8(&body).map_err(|error| error.to_string())?;
            let over = text
                .parse()
                .map_err(|_no_number| "no milliseconds".to_owned())?;
            json(&counts::sample(&running, Duration::from_millis(over)).await)
        }
        EXPLAIN_KIND => {
            let question = serde_json::from_slice(&body).map_err(|error| error.to_string())?;
            json(&mesh_plan::explain::inbound(
                &running.reader.load(),
                &question,
            ))
        }
        other => Err(format!("{other:?} is not asked of this version")),
    }
}

/// A certificate alone is not enough: it outlives the grant that it was given for.
fn is_member(catalog: &Catalog, host: HostId) -> bool {
    catalog
        .hosts
        .get(&host)
        .is_some_and(|facts| facts.grant.is_some())
}

fn json(value: &impl serde::Serialize) -> Result<Bytes, String> {
    serde_json::to_vec(value)
        .map(Bytes::from)
        .map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use mesh_model::{catalog::HostFacts, grant::HostGrant};

    use super::*;

    #[test]
    fn only_hosts_with_a_grant_are_answered() {
        let (member, revoked, stranger) = (HostId([1; 16]), HostId([2; 16]), HostId([3; 16]));
        let mut catalog = Catalog::default();
        let facts = |grant| {
            Arc::new(HostFacts {
                grant,
                ..HostFacts::default()
            })
        };
        let grant = Some(Arc::new(HostGrant::default()));
        catalog.hosts.insert(member, facts(grant));
        catalog.hosts.insert(revoked, facts(None));
        assert!(is_member(&catalog, member));
        assert!(!is_member(&catalog, revoked));
        assert!(!is_member(&catalog, stranger));
    }
}
