//! Operators' edits: compare-and-set, conflicts, confirm-or-revert, revocation.

use mesh_model::{
    catalog::ResourceKey,
    commit::{CommitId, Op},
};

use super::*;
use crate::{
    CommitError, HistoryFilter, SubmitError,
    sim::operator::{Draft, value_of},
};

fn taken(world: &mut World, ticket: u64) -> CommitId {
    world.run(Duration::from_millis(30));
    match world.answers.get(&ticket) {
        Some(Ok(accepted)) => accepted.id,
        other => panic!("{other:?}"),
    }
}

fn refused(world: &mut World, ticket: u64) -> SubmitError {
    world.run(Duration::from_millis(30));
    match world.answers.get(&ticket) {
        Some(Err(error)) => error.clone(),
        other => panic!("{other:?}"),
    }
}

fn value(world: &mut World, at: usize, name: &str) -> Option<String> {
    let catalog = world.machines[at].node.as_mut().unwrap().catalog();
    catalog
        .resources
        .get(&shop(name))
        .map(|resource| value_of(&resource.document).to_owned())
}

fn state(world: &World, at: usize, id: CommitId) -> String {
    let node = world.machines[at].node.as_ref().unwrap();
    let filter = HistoryFilter {
        id_prefix: Some(id.to_string()),
        ..HistoryFilter::default()
    };
    node.history(&filter)[0].state.clone()
}

#[test]
fn an_edit_is_everywhere_within_a_second_and_history_tells_it() {
    for_seeds(16, |seed| {
        let mut world = mesh(seed, 3);
        let ticket = edit(&mut world, 1, "web", "one", 1);
        let first = taken(&mut world, ticket);
        let took = world.run_until(secs(2), |world| {
            (0..3).all(|at| value(world, at, "web").as_deref() == Some("one"))
                && world.disagreement().is_none()
        });
        assert!(took.is_some_and(|took| took < secs(1)), "{took:?}");
        let ticket = edit(&mut world, 2, "web", "two", 2);
        let second = taken(&mut world, ticket);
        world.run(secs(1));
        assert_eq!(value(&mut world, 0, "web").as_deref(), Some("two"));
        assert_eq!(
            (state(&world, 0, first), state(&world, 0, second)),
            ("superseded".to_owned(), "effective".to_owned())
        );
        // Every head says which commits its host has.
        let catalog = world.machines[0].node.as_mut().unwrap().catalog();
        assert!(
            catalog
                .hosts
                .values()
                .all(|facts| facts.commits == catalog.commits)
        );
        assert!(catalog.hosts.values().all(|facts| facts.commit_count == 2));
        assert!(
            catalog.resources[&shop("web")].created_ms < catalog.resources[&shop("web")].changed_ms
        );
    });
}

#[test]
fn compare_and_set() {
    let mut world = mesh(1, 3);
    let key = shop("web");
    let now = world.wall_ms(0);
    let ticket = edit(&mut world, 0, "web", "one", 1);
    let first = taken(&mut world, ticket);
    // Created twice, edited on a stale base, deleted on a base that never was: all told what is there.
    let again = Draft::new(&world.keys, 0, now, 2).put(&key, &[], "other");
    let commit = again.sign(&world.keys, 0);
    let ticket = world.submit(0, commit);
    let SubmitError::Stale(current) = refused(&mut world, ticket) else {
        panic!()
    };
    assert_eq!(
        (current[0].key.clone(), current[0].revisions.clone()),
        (key.clone(), vec![first])
    );
    let gone =
        Draft::new(&world.keys, 0, now, 3).change(&key, &[CommitId([9; 32])], Op::Delete, "");
    let commit = gone.sign(&world.keys, 0);
    let ticket = world.submit(0, commit);
    assert!(matches!(refused(&mut world, ticket), SubmitError::Stale(_)));
    // An edit of two resources is refused whole.
    let both = Draft::new(&world.keys, 0, now + 9, 4)
        .put(&shop("new"), &[], "x")
        .put(&key, &[], "y");
    let commit = both.sign(&world.keys, 0);
    let ticket = world.submit(0, commit);
    assert!(matches!(refused(&mut world, ticket), SubmitError::Stale(_)));
    assert_eq!(value(&mut world, 0, "new"), None);
    // Deleting, then creating anew, starts a new life.
    let ticket = delete(&mut world, 0, "web", 5).unwrap();
    let deleted = taken(&mut world, ticket);
    assert_eq!(value(&mut world, 0, "web"), None);
    assert_eq!(state(&world, 0, deleted), "effective");
    world.run(secs(1));
    let ticket = edit(&mut world, 0, "web", "three", 6);
    taken(&mut world, ticket);
    let catalog = world.machines[0].node.as_mut().unwrap().catalog();
    assert!(catalog.resources[&key].conflicts.is_empty());
    assert!(catalog.resources[&key].created_ms > now + 500);
}

#[test]
fn the_same_edit_sent_twice_is_one_edit() {
    let mut world = mesh(2, 3);
    let key = shop("web");
    let now = world.wall_ms(0);
    let draft = Draft::new(&world.keys, 0, now, 7).put(&key, &[], "one");
    let commit = draft.sign(&world.keys, 0);
    let (a, b) = (world.submit(0, commit.clone()), world.submit(0, commit));
    let first = taken(&mut world, a);
    assert_eq!(taken(&mut world, b), first);
    // Signed again with a later clock, after a timeout: still the same edit.
    let later = draft.clone().above((now + 5) << 16);
    let commit = later.sign(&world.keys, 0);
    let ticket = world.submit(0, commit.clone());
    assert_eq!(taken(&mut world, ticket), first);
    let other = Draft::new(&world.keys, 0, now, 7)
        .put(&key, &[], "two")
        .sign(&world.keys, 0);
    let ticket = world.submit(0, other);
    assert_eq!(refused(&mut world, ticket), SubmitError::EditReused(first));
    // Taken on both sides of a partition it is no conflict.
    world.partition(&[0]);
    let now = world.wall_ms(0);
    let draft = Draft::new(&world.keys, 0, now, 8).put(&shop("api"), &[], "one");
    let (left, right) = (
        draft.sign(&world.keys, 0),
        draft.above((now + 5) << 16).sign(&world.keys, 0),
    );
    let (a, b) = (world.submit(0, left), world.submit(1, right));
    assert_ne!(taken(&mut world, a), taken(&mut world, b));
    world.heal();
    world
        .run_until(secs(40), |world| world.disagreement().is_none())
        .unwrap();
    let catalog = world.machines[2].node.as_mut().unwrap().catalog();
    assert!(catalog.resources[&shop("api")].conflicts.is_empty());
}

#[test]
fn edits_on_both_sides_of_a_partition_are_a_conflict_until_merged() {
    for_seeds(16, |seed| {
        let mut world = mesh(seed, 4);
        let ticket = edit(&mut world, 0, "web", "base", 1);
        taken(&mut world, ticket);
        world.run(secs(2));
        world.partition(&[0, 1]);
        let (a, b) = (
            edit(&mut world, 0, "web", "left", 2),
            edit(&mut world, 2, "web", "right", 3),
        );
        let sides = [taken(&mut world, a), taken(&mut world, b)];
        world.heal();
        world
            .run_until(secs(40), |world| world.disagreement().is_none())
            .expect("no agreement");
        for at in 0..4 {
            let node = world.machines[at].node.as_mut().unwrap();
            let catalog = node.catalog();
            let resource = &catalog.resources[&shop("web")];
            assert_eq!(resource.conflicts.len(), 1);
            assert!(sides.contains(&resource.revision) && sides.contains(&resource.conflicts[0].0));
            assert!(
                node.findings()
                    .iter()
                    .any(|finding| finding.code == "resource-conflict")
            );
            assert_eq!(state(&world, at, sides[0]), "conflict");
            assert_eq!(state(&world, at, sides[1]), "conflict");
        }
        // An edit that names both resolves it, everywhere.
        let ticket = edit(&mut world, 3, "web", "merged", 4);
        taken(&mut world, ticket);
        world.run(secs(1));
        for at in 0..4 {
            assert_eq!(value(&mut world, at, "web").as_deref(), Some("merged"));
            let node = world.machines[at].node.as_mut().unwrap();
            assert!(node.catalog().resources[&shop("web")].conflicts.is_empty());
            assert!(node.findings().is_empty());
        }
    });
}

#[test]
fn a_tentative_edit_undoes_itself_everywhere_unless_confirmed() {
    for_seeds(8, |seed| {
        for confirm in [false, true] {
            let mut world = mesh(seed, 3);
            let key = shop("web");
            let ticket = edit(&mut world, 0, "web", "old", 1);
            let base = taken(&mut world, ticket);
            world.run(secs(1));
            let now = world.wall_ms(0);
            let draft = Draft::new(&world.keys, 0, now, 2)
                .put(&key, &[base], "new")
                .confirm_by(now + 5000);
            let commit = draft.sign(&world.keys, 0);
            let ticket = world.submit(0, commit);
            let tentative = taken(&mut world, ticket);
            world.run(secs(1));
            assert_eq!(value(&mut world, 2, "web").as_deref(), Some("new"));
            assert_eq!(state(&world, 2, tentative), "tentative");
            if confirm {
                let now = world.wall_ms(1);
                let yes =
                    Draft::new(&world.keys, 0, now, 3).change(&key, &[tentative], Op::Confirm, "");
                let commit = yes.sign(&world.keys, 0);
                let ticket = world.submit(1, commit);
                taken(&mut world, ticket);
            }
            world.run(secs(5));
            let wanted = if confirm {
                ("new", "effective")
            } else {
                ("old", "reverted")
            };
            for at in 0..3 {
                assert_eq!(value(&mut world, at, "web").as_deref(), Some(wanted.0));
                assert_eq!(state(&world, at, tentative), wanted.1);
                assert!(
                    world.machines[at]
                        .node
                        .as_mut()
                        .unwrap()
                        .findings()
                        .is_empty()
                );
            }
            let now = world.wall_ms(0);
            let late =
                Draft::new(&world.keys, 0, now, 4).change(&key, &[tentative], Op::Confirm, "");
            let commit = late.sign(&world.keys, 0);
            let ticket = world.submit(0, commit);
            assert_eq!(
                refused(&mut world, ticket),
                SubmitError::NotTentative(tentative)
            );
            // What is in force is the base of the next edit, and the undone one is no conflict.
            let ticket = edit(&mut world, 0, "web", "next", 5);
            taken(&mut world, ticket);
            assert_eq!(value(&mut world, 0, "web").as_deref(), Some("next"));
        }
    });
}

#[test]
fn clocks_and_rights() {
    let mut world = mesh(3, 3);
    let key = shop("web");
    let now = world.wall_ms(0);
    let far = Draft::new(&world.keys, 0, now + 6 * 60_000, 1)
        .put(&key, &[], "x")
        .sign(&world.keys, 0);
    let ticket = world.submit(0, far);
    assert_eq!(refused(&mut world, ticket), SubmitError::ClockAhead(360));
    let ticket = edit(&mut world, 0, "web", "one", 2);
    let first = taken(&mut world, ticket);
    let behind = Draft::new(&world.keys, 0, now - 1000, 3)
        .put(&key, &[first], "x")
        .sign(&world.keys, 0);
    let ticket = world.submit(0, behind);
    assert_eq!(refused(&mut world, ticket), SubmitError::ClockBehind(first));
    // The second operator may write the namespace `shop` and nothing else.
    let other = ResourceKey {
        namespace: "bank".to_owned(),
        ..key.clone()
    };
    let now = world.wall_ms(0);
    let foreign = Draft::new(&world.keys, 1, now, 4)
        .put(&other, &[], "x")
        .sign(&world.keys, 1);
    let ticket = world.submit(0, foreign);
    assert_eq!(
        refused(&mut world, ticket),
        SubmitError::Invalid(CommitError::Namespace("bank".to_owned()))
    );
    let own = Draft::new(&world.keys, 1, now, 5)
        .put(&key, &[first], "two")
        .sign(&world.keys, 1);
    let ticket = world.submit(0, own);
    taken(&mut world, ticket);
    // Another operator's grant with the own signature.
    let stolen = Draft::new(&world.keys, 0, now, 6)
        .put(&shop("x"), &[], "x")
        .sign(&world.keys, 1);
    let ticket = world.submit(0, stolen);
    assert_eq!(
        refused(&mut world, ticket),
        SubmitError::Invalid(CommitError::Signature)
    );
    let deadline = Draft::new(&world.keys, 0, now, 7)
        .put(&shop("x"), &[], "x")
        .confirm_by(now - 1);
    let commit = deadline.sign(&world.keys, 0);
    let ticket = world.submit(0, commit);
    assert_eq!(refused(&mut world, ticket), SubmitError::DeadlineOver);
    let unreadable =
        Draft::new(&world.keys, 0, now, 8).change(&shop("x"), &[], Op::Put, "nonsense");
    let commit = unreadable.sign(&world.keys, 0);
    let ticket = world.submit(0, commit);
    assert_eq!(
        refused(&mut world, ticket),
        SubmitError::Unreadable(shop("x"))
    );
}

#[test]
fn a_revoked_operator_writes_no_more_and_history_stays() {
    let mut world = mesh(4, 3);
    let grants = (0..2)
        .map(|op| crate::Grant::Operator(world.keys.operator_grant(op)))
        .collect();
    world.grant(0, grants);
    let key = shop("web");
    let now = world.wall_ms(0);
    let good = Draft::new(&world.keys, 1, now, 1)
        .put(&key, &[], "good")
        .sign(&world.keys, 1);
    let ticket = world.submit(0, good);
    let before = taken(&mut world, ticket);
    world.run(secs(1));
    assert_eq!(
        world.machines[2]
            .node
            .as_mut()
            .unwrap()
            .catalog()
            .operators
            .len(),
        2
    );
    let hex = CommitId(world.keys.operators[1].public).to_string();
    let revocation = ResourceKey {
        kind: "Revocation".to_owned(),
        namespace: String::new(),
        name: "op1".to_owned(),
    };
    let now = world.wall_ms(0);
    let document = format!("revoke-operator op1 {hex}");
    let revoke = Draft::new(&world.keys, 0, now, 2)
        .change(&revocation, &[], Op::Put, &document)
        .sign(&world.keys, 0);
    // Meanwhile, cut off, the revoked operator still finds somebody who takes its edit.
    world.partition(&[2]);
    let ticket = world.submit(0, revoke);
    taken(&mut world, ticket);
    let now = world.wall_ms(2);
    let bad = Draft::new(&world.keys, 1, now, 3)
        .put(&key, &[before], "bad")
        .sign(&world.keys, 1);
    let ticket = world.submit(2, bad);
    let after = taken(&mut world, ticket);
    world.heal();
    world
        .run_until(secs(40), |world| world.disagreement().is_none())
        .expect("no agreement");
    for at in 0..3 {
        assert_eq!(value(&mut world, at, "web").as_deref(), Some("good"));
        assert_eq!(state(&world, at, after), "void");
        assert_eq!(state(&world, at, before), "effective");
        let node = world.machines[at].node.as_mut().unwrap();
        assert_eq!(node.catalog().operators.len(), 1);
        assert_eq!(
            node.operators()
                .iter()
                .filter(|(_, _, revoked)| *revoked)
                .count(),
            1
        );
    }
    let now = world.wall_ms(0);
    let more = Draft::new(&world.keys, 1, now, 4)
        .put(&shop("x"), &[], "x")
        .sign(&world.keys, 1);
    let ticket = world.submit(1, more);
    assert_eq!(refused(&mut world, ticket), SubmitError::Revoked);
    // Taking the revocation back restores the right, from then on.
    let catalog = world.machines[0].node.as_mut().unwrap().catalog();
    let (bases, hlc) = seen(&catalog, &revocation);
    let undo = Draft::new(&world.keys, 0, now, 5)
        .change(&revocation, &bases, Op::Delete, "")
        .above(hlc);
    let commit = undo.sign(&world.keys, 0);
    let ticket = world.submit(0, commit);
    taken(&mut world, ticket);
    world.run(secs(1));
    let now = world.wall_ms(1);
    let again = Draft::new(&world.keys, 1, now, 6)
        .put(&shop("x"), &[], "x")
        .sign(&world.keys, 1);
    let ticket = world.submit(1, again);
    taken(&mut world, ticket);
    assert_eq!(state(&world, 0, after), "void");
}

#[test]
fn a_revoked_host_is_cut_off() {
    let mut world = mesh(5, 3);
    let host = world.machines[2].host;
    let revocation = ResourceKey {
        kind: "Revocation".to_owned(),
        namespace: String::new(),
        name: "m2".to_owned(),
    };
    let now = world.wall_ms(0);
    let document = format!("revoke-host m2 {host}");
    let revoke = Draft::new(&world.keys, 0, now, 1)
        .change(&revocation, &[], Op::Put, &document)
        .sign(&world.keys, 0);
    let ticket = world.submit(0, revoke);
    taken(&mut world, ticket);
    world.run(secs(2));
    for at in 0..2 {
        let node = world.machines[at].node.as_mut().unwrap();
        assert!(node.is_revoked(host));
        assert!(node.catalog().hosts[&host].grant.is_none());
        assert!(node.catalog().hosts[&host].workloads.is_empty());
        assert!(node.links().iter().all(|link| link.host != host));
    }
    // What it says from now on reaches nobody.
    world.publish(2, vec![workload("web", "evil")]);
    world.run(secs(30));
    let facts = world.machines[0].node.as_mut().unwrap().catalog().hosts[&host].clone();
    assert!(facts.workloads.is_empty());
    let entry = world.machines[0].node.as_ref().unwrap().hosts().versions();
    let seen = entry.iter().find(|(of, ..)| *of == host).unwrap();
    let own = world.machines[2].node.as_ref().unwrap().hosts().versions();
    let said = own.iter().find(|(of, ..)| *of == host).unwrap();
    assert!(said.2 > seen.2, "the revoked host's newest head was taken");
}
