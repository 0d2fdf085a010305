//! What registries say changes, and the plan that is made on top of the last one is the plan made anew.

use std::{cell::Cell, collections::BTreeMap, sync::Arc};

use mesh_model::snapshot::Snapshot;
use mesh_plan::{Allocations, Breath, Compiled, Input, compile};
use proptest::{collection::vec, prelude::*};

use crate::world::World;

const HEALTH: [&str; 4] = ["healthy", "degraded", "unhealthy", "unknown"];
const LABELS: [&str; 4] = [
    "",
    "version=v1",
    "version=v2 zone=eu-1",
    "region=eu zone=eu-1",
];
const DOCUMENTS: &str = "{apiVersion: v1, kind: Service, metadata: {name: picked}, spec: {selector: {version: v2}, ports: [{port: 80}]}}
---
{apiVersion: networking.istio.io/v1, kind: DestinationRule, metadata: {name: x}, spec: {host: x, subsets: [{name: v1, labels: {version: v1}}, {name: v2, labels: {version: v2}}]}}";

/// What one source says of one service: its endpoints by the last byte of their address, each with its health.
type Said = (usize, BTreeMap<u8, usize>);

fn said() -> impl Strategy<Value = Said> {
    let endpoints = prop::collection::btree_map(1..12u8, 0..HEALTH.len(), 0..8);
    (0..LABELS.len(), endpoints)
}

/// Of two services by three sources: of this host, and of two others that use the same ids.
fn views() -> impl Strategy<Value = Vec<Said>> {
    vec(said(), 6)
}

fn world(views: &[Said], rule: &str) -> World {
    let mut lines = vec![
        "mesh m.internal mesh.internal".to_owned(),
        "host h1 10.0.0.1 own at=eu/eu-1".to_owned(),
        "host h2 10.0.0.2".to_owned(),
        "host h3 10.0.0.3".to_owned(),
        "work h2 x http:80>8080/http version=v1".to_owned(),
        "source file/a weight=3".to_owned(),
        rule.to_owned(),
    ];
    for (number, (labels, endpoints)) in views.iter().enumerate() {
        let [host, source] = [["local", "file/a"], ["h2", "file/b"], ["h3", "file/b"]][number % 3];
        let service = ["x", "y"][number / 3];
        let mut line = format!("view {host} {source} {service} port=80 {}", LABELS[*labels]);
        for (last, health) in endpoints {
            // One of them is a workload of the mesh.
            let address = if *last == 2 {
                "10.0.0.2:8080".to_owned()
            } else {
                format!("10.0.9.{last}:80")
            };
            line.extend([" ", &address, "!", HEALTH[*health]]);
        }
        lines.push(line);
    }
    World::parse(&format!("{}\n===\n{DOCUMENTS}", lines.join("\n")))
}

fn planned(world: &World, previous: Option<&Snapshot>, allocations: &Allocations) -> Compiled {
    let input = Input {
        previous,
        allocations,
        ..world.input()
    };
    compile(&input).unwrap()
}

/// With a pause after each breath; how many there were.
fn in_pieces(world: &World, before: &Compiled) -> (Compiled, usize) {
    let count = Cell::new(0);
    let pause = || count.set(count.get() + 1);
    let input = Input {
        previous: Some(&before.snapshot),
        allocations: &before.allocations,
        breath: Breath::new(&pause),
        ..world.input()
    };
    (compile(&input).unwrap(), count.get())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 192, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn in_pieces_or_at_once(before in views(), after in views()) {
        let (before, after) = (world(&before, ""), world(&after, ""));
        let first = planned(&before, None, &Allocations::default());
        let whole = planned(&after, Some(&first.snapshot), &first.allocations);
        let (pieces, pauses) = in_pieces(&after, &first);
        prop_assert_eq!(&pieces, &whole);
        // Each endpoint is made, compared, told, hashed and freed.
        let endpoints: usize = whole.candidates.values().map(Vec::len).sum();
        prop_assert!(pauses >= 4 * endpoints, "{} pauses for {} endpoints", pauses, endpoints);
    }

    #[test]
    fn on_top_of_the_last_plan_or_anew(
        before in views(),
        after in views(),
        changed in vec(any::<bool>(), 6),
        rule in prop::sample::select(vec!["merge * union", "merge * first", "merge * failover", "merge x union file/b=2"]),
    ) {
        let next: Vec<Said> = before.iter().zip(&after).zip(&changed)
            .map(|((before, after), changed)| if *changed { after.clone() } else { before.clone() })
            .collect();
        let first = planned(&world(&before, rule), None, &Allocations::default());
        let world = world(&next, rule);
        let second = planned(&world, Some(&first.snapshot), &first.allocations);
        let fresh = planned(&world, None, &first.allocations);
        let mut anew = fresh.clone();
        // Calls to an address that had a tunnel before go on being this host's.
        for (address, direct) in &second.snapshot.outbound.direct {
            if direct.endpoint.tunnel.is_none() {
                anew.snapshot.outbound.direct.insert(*address, direct.clone());
            }
        }
        anew.snapshot.version = second.snapshot.version;
        prop_assert_eq!(&second, &anew);
        let same = second.snapshot.outbound.direct.len() == fresh.snapshot.outbound.direct.len();
        prop_assert_eq!(second.snapshot.version == fresh.snapshot.version, same);
        // An endpoint that is as it was is the very one of before, and ids are in order, each once.
        for (key, backend) in &second.snapshot.outbound.backends {
            prop_assert!(backend.endpoints.is_sorted_by(|one, other| one.id < other.id), "{:?}", key);
            let Some(old) = first.snapshot.outbound.backends.get(key) else { continue };
            for one in &backend.endpoints {
                let known = old.endpoints.iter().find(|other| other.key == one.key);
                let equal = known.filter(|known| known == &one);
                prop_assert!(equal.is_none_or(|known| Arc::ptr_eq(known, one)), "{} of {:?}", one.id, key);
            }
        }
    }
}
