//! Everything at once: partitions, crashes, loss, skewed clocks, edits everywhere. Then it must all agree.

use std::collections::{BTreeMap, BTreeSet};

use mesh_model::commit::{CommitId, Op};

use super::*;
use crate::sim::Net;

fn wreck(world: &mut World, edits: &mut u64) {
    let count = world.machines.len();
    let at = world.draw(count);
    let name = ["web", "api", "db"][world.draw(3)];
    match world.draw(12) {
        0..=4 if world.machines[at].node.is_some() => {
            *edits += 1;
            let value = format!("v{edits}");
            edit(world, at, name, &value, *edits);
        }
        5 if world.machines[at].node.is_some() => {
            *edits += 1;
            delete(world, at, name, *edits);
        }
        6 => {
            let left: Vec<usize> = (0..count).filter(|_| world.chance(50)).collect();
            world.partition(&left);
        }
        7 => world.heal(),
        8 if world.machines[at].node.is_some() => world.crash(at),
        9 if world.machines[at].node.is_none() => world.boot(at),
        10 => {
            let version = format!("{}", world.draw(100));
            world.publish(at, vec![host_record("m"), workload(name, &version)]);
        }
        _ => {
            let minutes = i64::try_from(world.draw(9)).unwrap() - 4;
            world.machines[at].skew_ms = minutes * 60_000 / 2;
        }
    }
}

/// Independently of the code under test: a put that no other commit names is a head, so it must be shown.
fn unnamed_puts(world: &World) -> BTreeMap<String, BTreeSet<CommitId>> {
    let node = world.machines[0].node.as_ref().unwrap();
    let rows = node.history(&crate::HistoryFilter::default());
    let named: BTreeSet<CommitId> = rows
        .iter()
        .flat_map(|row| &row.changes)
        .flat_map(|change| change.bases.clone())
        .collect();
    let mut out: BTreeMap<String, BTreeSet<CommitId>> = BTreeMap::new();
    for row in rows.iter().filter(|row| !named.contains(&row.id)) {
        for change in row.changes.iter().filter(|change| change.op == "put") {
            out.entry(change.name.clone()).or_default().insert(row.id);
        }
    }
    out
}

#[test]
fn nothing_acknowledged_is_lost_and_all_agree() {
    for_seeds(256, |seed| {
        let count = 3 + usize::try_from(seed % 3).unwrap();
        let mut world = mesh(seed, count);
        let loss = u32::try_from(world.draw(20)).unwrap();
        world.net = Net {
            loss,
            duplicates: 5,
            delay: (1, 40),
        };
        let mut edits = 0;
        for _action in 0..30 {
            wreck(&mut world, &mut edits);
            let pause = 100 + u64::try_from(world.draw(700)).unwrap();
            world.run(Duration::from_millis(pause));
        }
        world.net = Net::default();
        world.heal();
        world.boot_all();
        let agreed = world.run_until(secs(60), |world| world.disagreement().is_none());
        assert!(agreed.is_some(), "no agreement: {:?}", world.disagreement());
        for at in 0..count {
            let node = world.machines[at].node.as_ref().unwrap();
            for id in &world.acknowledged {
                assert!(
                    node.commits().signed(id).is_some(),
                    "machine {at} lost {id:?}"
                );
            }
        }
        let heads = unnamed_puts(&world);
        for at in 0..count {
            let node = world.machines[at].node.as_mut().unwrap();
            let catalog = node.catalog();
            let conflicts = node
                .findings()
                .iter()
                .filter(|finding| finding.code == "resource-conflict")
                .count();
            let mut expected = 0;
            for name in ["web", "api", "db"] {
                let Some(resource) = catalog.resources.get(&shop(name)) else {
                    assert!(
                        heads.get(name).is_none_or(BTreeSet::is_empty),
                        "{name} is missing"
                    );
                    continue;
                };
                let mut shown: BTreeSet<CommitId> =
                    resource.conflicts.iter().map(|(id, _)| *id).collect();
                shown.insert(resource.revision);
                for id in heads.get(name).into_iter().flatten() {
                    assert!(shown.contains(id), "{name}: {id:?} is not shown");
                }
                expected += usize::from(shown.len() > 1);
            }
            assert_eq!(conflicts, expected);
        }
    });
}

#[test]
fn a_stale_peer_brings_nothing_back() {
    let mut world = mesh(7, 3);
    world.publish(1, vec![host_record("m1"), workload("web", "1")]);
    let ticket = edit(&mut world, 0, "web", "one", 1);
    world.run(secs(2));
    assert!(world.answers[&ticket].is_ok());
    // Machine 2 sleeps; meanwhile the workload goes, and with it machine 1, for four days.
    world.crash(2);
    world.publish(1, vec![host_record("m1")]);
    world.run(secs(2));
    world.crash(1);
    world.run(secs(60));
    for machine in &mut world.machines {
        machine.skew_ms += 4 * 24 * 3_600_000;
    }
    world.run(secs(5));
    let gone = world.machines[1].host;
    let versions = world.machines[0].node.as_ref().unwrap().hosts().versions();
    assert!(
        versions.iter().all(|(host, ..)| *host != gone),
        "kept beyond its retention"
    );
    world.boot(2);
    world.run(secs(40));
    for at in [0, 2] {
        let catalog = world.machines[at].node.as_mut().unwrap().catalog();
        assert!(
            catalog.hosts[&gone].workloads.is_empty(),
            "a ghost on machine {at}"
        );
        assert_eq!(catalog.commit_count, 1);
    }
}

#[test]
fn a_disk_that_was_set_back_never_reuses_a_number() {
    let mut world = mesh(8, 3);
    let old = world.machines[1].disk.clone();
    for round in 0..5 {
        world.crash(1);
        world.boot(1);
        world.publish(
            1,
            vec![host_record("m1"), workload("web", &round.to_string())],
        );
        world.run(secs(4));
    }
    world.crash(1);
    world.machines[1].disk = old;
    world.boot(1);
    world.publish(1, vec![host_record("m1"), workload("web", "restored")]);
    let agreed = world.run_until(secs(20), |world| {
        let host = world.machines[1].host;
        let catalog = world.machines[2].node.as_mut().unwrap().catalog();
        let workload = catalog.hosts[&host].workloads.values().next().cloned();
        workload.is_some_and(|workload| workload.labels["version"] == "restored")
            && world.disagreement().is_none()
    });
    assert!(agreed.is_some());
    let findings = world.machines[1].node.as_mut().unwrap().findings();
    assert!(
        findings
            .iter()
            .any(|finding| finding.code == "state-rolled-back")
    );
}

#[test]
fn the_same_seed_gives_the_same_run() {
    let run = |seed| {
        let mut world = mesh(seed, 3);
        let mut edits = 0;
        for _action in 0..10 {
            wreck(&mut world, &mut edits);
            world.run(Duration::from_millis(500));
        }
        (world.steps, world.acknowledged.clone(), world.answers.len())
    };
    assert_eq!(run(11), run(11));
}

#[test]
fn a_commit_that_could_not_be_stored_is_not_acknowledged() {
    let mut world = mesh(9, 3);
    let key = shop("web");
    let now = world.wall_ms(0);
    let draft = Draft::new(&world.keys, 0, now, 1)
        .put(&key, &[], "x")
        .change(&shop("y"), &[], Op::Put, "service shop y 1");
    let commit = draft.sign(&world.keys, 0);
    let ticket = world.submit(0, commit);
    assert!(!world.answers.contains_key(&ticket));
    world.crash(0);
    world.run(secs(1));
    assert!(!world.answers.contains_key(&ticket));
    assert!(world.acknowledged.is_empty());
}

#[test]
fn what_came_from_peers_survives_their_loss() {
    for_seeds(8, |seed| {
        let mut world = mesh(seed, 3);
        world.publish(0, vec![host_record("m0"), workload("web", "1")]);
        let ticket = edit(&mut world, 0, "web", "one", 1);
        world.run(secs(3));
        assert!(world.answers[&ticket].is_ok());
        // The host that took the edit is gone for good, the others lose power and come back.
        let gone = world.machines[0].host;
        for index in 0..3 {
            world.crash(index);
        }
        world.run(secs(5));
        world.boot(1);
        let catalog = world.machines[1].node.as_mut().unwrap().catalog();
        assert_eq!(
            catalog.commit_count, 1,
            "the commit is not on the disk of a peer"
        );
        assert!(catalog.resources.contains_key(&shop("web")));
        assert_eq!(
            catalog.hosts[&gone].workloads.len(),
            1,
            "the facts of a peer are not on disk"
        );
        assert!(catalog.mesh.is_some());
        world.boot(2);
        assert!(
            world
                .run_until(secs(10), |world| world.disagreement().is_none())
                .is_some()
        );
    });
}
