//! Merging is commutative, associative and idempotent: any order, any grouping, any repetition.

use proptest::prelude::*;

use super::*;
use crate::{
    Commits, Config, Hosts, Rights, evaluate,
    sim::{keys::Keys, operator::parse},
    wire::HostUpdate,
};
use mesh_model::{
    commit::CommitId,
    fact::HostHead,
    grant::{HostGrant, Signed, domain},
};
use rand::{SeedableRng, rngs::Xoshiro256PlusPlus};

fn keys() -> Keys {
    Keys::new(&mut Xoshiro256PlusPlus::seed_from_u64(1), 3)
}

fn rights(keys: &Keys) -> Rights {
    let mut rights = Rights::new(keys.mesh, 100);
    for index in 0..3 {
        for grant in keys.bootstrap(index) {
            rights.accept(&grant, &*keys.oracle()).unwrap();
        }
    }
    rights
}

fn head(keys: &Keys, host: usize, incarnation: u32, seq: u64, content: u8) -> HostUpdate {
    let records = vec![workload("web", &content.to_string())];
    let head = HostHead {
        mesh_id: keys.mesh.0.to_vec(),
        host_id: keys.host_id(host).0.to_vec(),
        incarnation,
        seq,
        root: crate::root_of(&records).to_vec(),
        commits: vec![0; 16],
        signed_ms: crate::sim::EPOCH_MS,
        ..HostHead::default()
    };
    let head = Some(keys.host(host).sign(domain::HEAD, head.encode_to_vec()));
    HostUpdate {
        head,
        full: true,
        upserts: records,
        ..HostUpdate::default()
    }
}

/// Commits that edit one resource on top of one another in every possible way.
fn history(keys: &Keys, plan: &[(usize, u8, u64)]) -> Vec<Signed> {
    let key = shop("web");
    let mut out: Vec<(Signed, CommitId)> = Vec::new();
    for (edit, (base, op, clock)) in (0u64..).zip(plan) {
        let base: Vec<CommitId> = out
            .get(*base % (out.len() + 1))
            .map(|(_, id)| *id)
            .into_iter()
            .collect();
        let time = crate::sim::EPOCH_MS + clock * 10;
        let draft = Draft::new(keys, 0, time, edit);
        let draft = match (op % 5, base.first()) {
            (0, Some(_)) => draft.change(&key, &base, Op::Delete, ""),
            (1, Some(_)) => draft.change(&key, &base, Op::Confirm, ""),
            (2, _) => draft
                .put(&key, &base, &edit.to_string())
                .confirm_by(time + 100),
            _ => draft.put(&key, &base, &edit.to_string()),
        };
        let signed = draft.sign(keys, 0);
        let id = CommitId(*blake3::hash(&signed.payload).as_bytes());
        out.push((signed, id));
    }
    out.into_iter().map(|(signed, _)| signed).collect()
}

/// A confirmation counts by its own time, whenever it arrives.
#[test]
fn confirmations_count_when_they_were_made_in_time() {
    let keys = keys();
    let rights = rights(&keys);
    let key = shop("web");
    let start = crate::sim::EPOCH_MS;
    for (made_after, counts) in [(50, true), (100, true), (101, false)] {
        let mut commits = Commits::new(keys.mesh, parse);
        let mut take = |draft: Draft| {
            let taken = commits.accept(&draft.sign(&keys, 0), &rights, &*keys.oracle());
            taken.unwrap().unwrap().0
        };
        let base = take(Draft::new(&keys, 0, start - 10, 1).put(&key, &[], "old"));
        let tentative = Draft::new(&keys, 0, start, 2)
            .put(&key, &[base], "new")
            .confirm_by(start + 100);
        let tentative = take(tentative);
        let confirm =
            Draft::new(&keys, 0, start + made_after, 3).change(&key, &[tentative], Op::Confirm, "");
        take(confirm);
        let value = evaluate(&commits, &key, start + 1000);
        let wanted = if counts { tentative } else { base };
        assert_eq!(
            value.winner.unwrap().0,
            wanted,
            "made after {made_after} ms"
        );
        assert_eq!(value.heads.len(), 1);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn hosts_merge_in_any_order(
        heads in prop::collection::vec((0usize..3, 1u32..3, 1u64..4, 0u8..3), 1..12),
        order in prop::collection::vec(any::<prop::sample::Index>(), 0..24),
    ) {
        let keys = keys();
        let rights = rights(&keys);
        let updates: Vec<HostUpdate> =
            heads.iter().map(|(host, inc, seq, content)| head(&keys, *host, *inc, *seq, *content)).collect();
        let merge = |order: &[usize]| {
            let mut hosts = Hosts::new(keys.mesh, &Config::default());
            for index in order {
                let (host, _) = crate::store::host_of(&updates[*index]).unwrap();
                let grant: HostGrant = (**rights.host(host).unwrap()).clone();
                hosts.accept(&updates[*index], Some(&grant), &*keys.oracle(), crate::sim::EPOCH_MS).unwrap();
            }
            hosts.versions()
        };
        let forward: Vec<usize> = (0..updates.len()).collect();
        let backward: Vec<usize> = (0..updates.len()).rev().collect();
        let mut any: Vec<usize> = order.iter().map(|index| index.index(updates.len())).collect();
        any.extend(&backward);
        any.extend(&forward);
        prop_assert_eq!(merge(&forward), merge(&backward));
        prop_assert_eq!(merge(&forward), merge(&any));
    }

    #[test]
    fn commits_merge_in_any_order_and_give_one_value(
        plan in prop::collection::vec((any::<usize>(), any::<u8>(), 0u64..20), 1..14),
        order in prop::collection::vec(any::<prop::sample::Index>(), 0..24),
        now in 0u64..400,
    ) {
        let keys = keys();
        let rights = rights(&keys);
        let all = history(&keys, &plan);
        let now = crate::sim::EPOCH_MS + now;
        let merge = |order: &[usize]| {
            let mut commits = Commits::new(keys.mesh, parse);
            for index in order {
                commits.accept(&all[*index], &rights, &*keys.oracle()).unwrap();
            }
            let rows = commits.history(&crate::HistoryFilter::default(), now);
            (commits.fingerprint(), commits.count(), evaluate(&commits, &shop("web"), now), rows)
        };
        let forward: Vec<usize> = (0..all.len()).collect();
        let backward: Vec<usize> = (0..all.len()).rev().collect();
        let mut any: Vec<usize> = order.iter().map(|index| index.index(all.len())).collect();
        any.extend(&backward);
        let (fingerprint, count, value, rows) = merge(&forward);
        prop_assert_eq!(&(fingerprint, count, value.clone(), rows.clone()), &merge(&backward));
        prop_assert_eq!(&(fingerprint, count, value.clone(), rows.clone()), &merge(&any));
        // What is in force is a head, and no head is based on by anything that counts.
        if let Some((winner, _)) = value.winner {
            prop_assert_eq!(value.heads[0], winner);
        }
        let mut unique = value.heads.clone();
        unique.dedup();
        prop_assert_eq!(unique.len(), value.heads.len());
    }

    #[test]
    fn grants_merge_in_any_order(
        seqs in prop::collection::vec((0usize..3, 1u64..5, any::<bool>()), 1..10),
        order in prop::collection::vec(any::<prop::sample::Index>(), 0..20),
    ) {
        let keys = keys();
        let grants: Vec<crate::Grant> = seqs
            .iter()
            .map(|(host, seq, all)| keys.host_grant(*host, if *all { &["*"] } else { &["a/b"] }, *seq))
            .collect();
        let merge = |order: &[usize]| {
            let mut rights = rights(&keys);
            for index in order {
                rights.accept(&grants[*index], &*keys.oracle()).unwrap();
            }
            rights.all()
        };
        let forward: Vec<usize> = (0..grants.len()).collect();
        let backward: Vec<usize> = (0..grants.len()).rev().collect();
        let mut any: Vec<usize> = order.iter().map(|index| index.index(grants.len())).collect();
        any.extend(&forward);
        prop_assert_eq!(merge(&forward), merge(&backward));
        prop_assert_eq!(merge(&forward), merge(&any));
    }
}
