//! What this host counted between two looks at its counters.

use std::{collections::BTreeMap, time::Duration};

use mesh_model::admin::live::{EdgeSample, HostSample};

use crate::running::Running;

/// The longest time between two looks.
pub(crate) const LONGEST: Duration = Duration::from_mins(1);

/// Two looks at this host's counters.
pub(crate) async fn sample(running: &Running, over: Duration) -> HostSample {
    let over = over.min(LONGEST);
    let before = if over.is_zero() {
        (Vec::new(), 0)
    } else {
        let before = running.edges();
        tokio::time::sleep(over).await;
        before
    };
    let after = running.edges();
    let view = running.reader.load();
    HostSample {
        host: view
            .mesh
            .as_ref()
            .map_or_else(String::new, |mesh| mesh.host_name.to_string()),
        edges: between(&before.0, after.0),
        span_ms: u64::try_from(over.as_millis()).unwrap_or(u64::MAX),
        cpu_us: after.1.saturating_sub(before.1),
    }
}

/// What was added between two looks.
fn between(before: &[EdgeSample], after: Vec<EdgeSample>) -> Vec<EdgeSample> {
    fn key(edge: &EdgeSample) -> (&str, &str, &str) {
        (&edge.direction, &edge.source, &edge.destination)
    }
    let old: BTreeMap<_, _> = before.iter().map(|edge| (key(edge), edge)).collect();
    after
        .into_iter()
        .map(|edge| match old.get(&key(&edge)) {
            Some(old) => EdgeSample {
                requests: edge.requests.saturating_sub(old.requests),
                successes: edge.successes.saturating_sub(old.successes),
                secured: edge.secured.saturating_sub(old.secured),
                durations: less(&edge.durations, &old.durations),
                own: less(&edge.own, &old.own),
                ..edge
            },
            None => edge,
        })
        .collect()
}

fn less(after: &BTreeMap<u16, u64>, before: &BTreeMap<u16, u64>) -> BTreeMap<u16, u64> {
    after
        .iter()
        .map(|(bucket, count)| {
            let old = before.get(bucket).copied().unwrap_or_default();
            (*bucket, count.saturating_sub(old))
        })
        .filter(|(_, count)| *count > 0)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn edge(direction: &str, requests: u64, own: &[(u16, u64)]) -> EdgeSample {
        EdgeSample {
            direction: direction.into(),
            source: "shop/web".into(),
            destination: "shop/cart".into(),
            requests,
            successes: requests,
            secured: requests,
            durations: own.iter().copied().collect(),
            own: own.iter().copied().collect(),
        }
    }

    #[test]
    fn only_what_came_between_counts() {
        let before = [edge("outbound", 10, &[(3, 4), (5, 6)])];
        let now = between(
            &before,
            vec![
                edge("outbound", 12, &[(3, 5), (5, 6), (9, 1)]),
                edge("inbound", 2, &[(1, 2)]),
            ],
        );
        assert_eq!(now[0], edge("outbound", 2, &[(3, 1), (9, 1)]));
        assert_eq!(now[1], edge("inbound", 2, &[(1, 2)]));
    }
}
