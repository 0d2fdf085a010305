//! Tells the registries which services this host calls, so that those are followed closely.
//!
//! In: what the data plane counted. Out: names, every two seconds. Never: looks at the counts while each registry
//! follows all of its services closely.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use mesh_model::{
    admin::live::EdgeSample,
    endpoint::ServiceKey,
    name::{Namespace, ServiceName},
};
use tokio_util::sync::CancellationToken;

use crate::{clock::Rounds, running::Running};

/// Time between two looks.
const PACE: Duration = Duration::from_secs(2);

/// Looks and tells, until stopped.
pub(crate) async fn run(running: Arc<Running>, stop: CancellationToken) {
    let mut before = BTreeMap::new();
    let mut looks = Rounds::every(PACE, stop);
    while looks.next().await {
        let registry = &running.registry;
        let sources = Arc::clone(&registry.views().borrow());
        let in_turn = |id: &str| registry.reading(id).in_turn > 0;
        if sources.sources.iter().any(|row| in_turn(&row.id)) {
            registry.calls(called(&mut before, running.counted()));
        }
    }
}

/// The services whose counts have grown.
fn called(before: &mut BTreeMap<String, u64>, edges: Vec<EdgeSample>) -> Vec<ServiceKey> {
    let mut now: BTreeMap<String, u64> = BTreeMap::new();
    for edge in edges {
        if edge.direction == "outbound" {
            *now.entry(edge.destination).or_default() += edge.requests;
        }
    }
    let grown = now
        .iter()
        .filter(|(name, count)| before.get(*name) != Some(count));
    let keys = grown.filter_map(|(name, _)| key(name)).collect();
    *before = now;
    keys
}

/// The service of a label, `namespace/name`; none for what is no service.
fn key(label: &str) -> Option<ServiceKey> {
    let (namespace, name) = label.split_once('/')?;
    Some(ServiceKey {
        namespace: Some(Namespace::new(namespace).ok()?),
        name: ServiceName::new(name).ok()?,
        port_name: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn edge(direction: &str, source: &str, destination: &str, requests: u64) -> EdgeSample {
        EdgeSample {
            direction: direction.into(),
            source: source.into(),
            destination: destination.into(),
            requests,
            successes: 0,
            secured: 0,
            durations: BTreeMap::new(),
            own: BTreeMap::new(),
        }
    }

    #[test]
    fn what_was_called_since_the_last_look_is_told() {
        let mut before = BTreeMap::new();
        let mut look = |all: &[(&str, &str, &str, u64)]| -> Vec<String> {
            let edges = all.iter();
            let edges =
                edges.map(|(direction, source, to, count)| edge(direction, source, to, *count));
            let keys = called(&mut before, edges.collect());
            keys.iter().map(|key| key.name.to_string()).collect()
        };
        let first = [
            ("outbound", "shop/web", "shop/cart", 1),
            ("outbound", "shop/api", "shop/cart", 1),
            ("outbound", "shop/web", "shop/stock", 1),
            ("outbound", "shop/web", "unknown", 1),
            ("inbound", "shop/web", "shop/web", 1),
        ];
        assert_eq!(look(&first), ["cart", "stock"]);
        assert!(look(&first).is_empty(), "nobody called since");
        let mut later = first;
        later[1].3 = 2;
        later[4].3 = 2;
        assert_eq!(look(&later), ["cart"]);
    }
}
