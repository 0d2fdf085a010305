//! What is kept of commits: how much, and that what is known of values is what all commits say.

use mesh_model::commit::CommitId;
use proptest::prelude::*;

use super::{
    graph::{evaluate, worked_out},
    *,
};
use crate::{
    rights::Grant,
    sim::{
        EPOCH_MS, World,
        keys::Keys,
        operator::{Draft, parse, shop},
    },
};

#[test]
fn documents_that_nobody_holds_are_forgotten() {
    let document = || Arc::new(parse("service default words a").unwrap());
    let mut documents = Documents::default();
    let kept: Vec<_> = (0..40)
        .map(|number| {
            let document = document();
            documents.insert(CommitId([number; 32]), 0, &document);
            document
        })
        .collect();
    for number in 0..10_000_u32 {
        let id = CommitId(*blake3::hash(&number.to_le_bytes()).as_bytes());
        documents.insert(id, 0, &document());
        assert!(
            documents.held.len() <= 2 * 41 + 17,
            "{}",
            documents.held.len()
        );
    }
    for (number, document) in (0..).zip(&kept) {
        let held = documents.get(CommitId([number; 32]), 0).unwrap();
        assert!(Arc::ptr_eq(&held, document));
    }
}

/// Commits that a mesh with the keys of `world` takes, and the rights by which it does.
fn empty(keys: &Keys) -> (Commits, Rights) {
    let mut rights = Rights::new(keys.mesh, 16);
    let mut grants = keys.bootstrap(0);
    grants.sort_by_key(Grant::kind);
    for grant in grants {
        rights.accept(&grant, &*keys.oracle()).unwrap();
    }
    (Commits::new(keys.mesh, parse), rights)
}

/// One random edit: which resource, what it does, on what, when, and how.
#[derive(Debug, Clone)]
struct Move {
    name: u8,
    /// 0 to 5: replaces what is in force; 6: what was before; 7: what an older commit gave; 8: two commits;
    /// 9: nothing.
    on: u8,
    /// 0 to 9: put; 10: delete; 11: confirm; 12: put, tentative; 13: the same edit once more; 14: revokes the second
    /// operator, or takes that back.
    what: u8,
    operator: bool,
    /// Commits that came before and are passed by this one on its way.
    late: bool,
    /// Its author's clock was turned back.
    back: bool,
    pick: usize,
    /// By how much the clock goes on, and of whoever looks, seconds.
    after: u64,
    look: u64,
}

fn moves() -> impl Strategy<Value = Vec<Move>> {
    let one = (
        (0u8..2, 0u8..10, 0u8..15),
        (
            any::<bool>(),
            prop::bool::weighted(0.1),
            prop::bool::weighted(0.15),
        ),
        (any::<usize>(), 0u64..4, 0u64..30),
    );
    let one = one.prop_map(
        |((name, on, what), (operator, late, back), (pick, after, look))| Move {
            name,
            on,
            what,
            operator,
            late,
            back,
            pick,
            after,
            look,
        },
    );
    prop::collection::vec(one, 10..60)
}

/// The commits of the moves, each with the time at which it is looked at.
fn signed(keys: &Keys, moves: &[Move]) -> Vec<(Signed, u64)> {
    let mut out: Vec<(Signed, u64)> = Vec::new();
    let mut drafts: Vec<(Draft, CommitId, u8, usize)> = Vec::new();
    let (mut now, mut revoked) = (EPOCH_MS, None);
    for (number, step) in (1u64..).zip(moves) {
        now += step.after * 1_000;
        let of_name: Vec<CommitId> = drafts
            .iter()
            .filter(|(_, _, name, _)| *name == step.name)
            .map(|(_, id, _, _)| *id)
            .collect();
        let nth = |back: usize| of_name.len().checked_sub(back + 1).map(|at| of_name[at]);
        let bases: Vec<CommitId> = match step.on {
            0..=5 => nth(0).into_iter().collect(),
            6 => nth(1).into_iter().collect(),
            7 => nth(step.pick % 12).into_iter().collect(),
            8 => nth(0).into_iter().chain(nth(1)).collect(),
            _ => Vec::new(),
        };
        let mut operator = usize::from(step.operator && step.what != 14);
        let key = shop(if step.name == 0 { "a" } else { "b" });
        let clock = if step.back {
            (now - 5_000) << 16
        } else {
            (now << 16) + number
        };
        let fresh = || {
            let mut draft = Draft::new(keys, operator, now, number);
            draft.commit.hlc = clock;
            draft
        };
        let draft = match step.what {
            10 => fresh().change(&key, &bases, Op::Delete, ""),
            11 if bases.len() == 1 => fresh().change(&key, &bases, Op::Confirm, ""),
            12 => fresh()
                .put(&key, &bases, "x")
                .confirm_by(now + 1_000 + step.look * 300),
            13 if !drafts.is_empty() => {
                let (draft, _, _, author) = &drafts[step.pick % drafts.len()];
                operator = *author;
                let mut draft = draft.clone();
                draft.commit.hlc = clock;
                draft
            }
            14 if step.pick % 2 == 0 => {
                // A key is written as an id is.
                let hex = CommitId(keys.operators[1].public);
                let key = ResourceKey {
                    kind: REVOCATION.to_owned(),
                    namespace: String::new(),
                    name: "second".to_owned(),
                };
                let text = format!("revoke-operator second {hex}");
                match revoked.take() {
                    Some(id) => fresh().change(&key, &[id], Op::Delete, ""),
                    None => fresh().change(&key, &[], Op::Put, &text),
                }
            }
            _ => fresh().put(&key, &bases, "y"),
        };
        let commit = draft.sign(keys, operator);
        let id = CommitId(*blake3::hash(&commit.payload).as_bytes());
        if draft
            .commit
            .changes
            .iter()
            .any(|change| change.kind == REVOCATION && change.op() == Op::Put)
        {
            revoked = Some(id);
        }
        drafts.push((draft, id, step.name, operator));
        out.push((commit, (now + step.look * 1_000).saturating_sub(10_000)));
        if step.late && out.len() > 1 {
            let at = out.len() - 1;
            let to = at.saturating_sub(1 + step.pick % 6);
            out.swap(at, to);
        }
    }
    out
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]
    /// Whatever comes, in whatever order and at whatever time it is looked at: a value that was remembered or
    /// stepped on is the one that all commits of the resource give.
    #[test]
    fn a_known_value_is_what_all_commits_say(moves in moves()) {
        let world = World::new(1, 1);
        let (mut commits, rights) = empty(&world.keys);
        let oracle = world.keys.oracle();
        for (commit, look_ms) in signed(&world.keys, &moves) {
            commits.accept(&commit, &rights, &*oracle).unwrap();
            for key in [shop("a"), shop("b")] {
                for now in [look_ms, look_ms + 700, look_ms + 20_000, look_ms] {
                    let known = evaluate(&commits, &key, now);
                    prop_assert_eq!(known, worked_out(&commits, &key, now), "{} at {}", key, now);
                }
            }
        }
    }
}

/// `count` commits that each replace the one before, as programs that push routes make them.
fn pushed(count: u64, look: bool) -> (World, Commits) {
    let world = World::new(1, 1);
    let (mut commits, rights) = empty(&world.keys);
    let (key, oracle) = (shop("a"), world.keys.oracle());
    let mut bases = Vec::new();
    for number in 1..=count {
        let now = EPOCH_MS + number * 1_000;
        let value = "v".repeat(320);
        let draft = Draft::new(&world.keys, 0, now, number).put(&key, &bases, &value);
        let commit = draft.sign(&world.keys, 0);
        let taken = commits.accept(&commit, &rights, &*oracle).unwrap();
        bases = vec![taken.unwrap().0];
        if look {
            let value = evaluate(&commits, &key, now);
            assert_eq!(value.heads, bases);
        }
    }
    (world, commits)
}

#[test]
fn a_push_to_a_long_history_does_not_look_at_all_of_it() {
    let (_world, commits) = pushed(40, true);
    // Known before anybody asks: the last edit stepped it on.
    let known = commits.known_value(&shop("a"), EPOCH_MS + 41_000);
    let known = known.expect("stepped on");
    assert_eq!(known, worked_out(&commits, &shop("a"), EPOCH_MS + 41_000));
}

/// What the allocator takes for so many bytes.
fn block(bytes: usize) -> usize {
    if bytes == 0 {
        return 0;
    }
    (bytes + 8).next_multiple_of(16).max(32)
}

/// Bytes that commits hold for each commit. Every part is named: a new one is to be counted here.
fn bytes_each(commits: &Commits) -> usize {
    let Commits {
        mesh: _,
        parse: _,
        all,
        by_resource,
        by_place,
        confirms,
        authors,
        sum: _,
        revoked: _,
        documents,
        values,
    } = commits;
    assert!(confirms.is_empty(), "nothing was confirmed");
    assert_eq!((authors.len(), by_resource.len()), (1, 1));
    assert!(held(documents).held.len() < 40 && held(values).len() <= 1);
    // A tree's nodes are at least half full.
    let member = |size: usize| 2 * size + 4;
    let of_resource: usize = by_resource.values().map(BTreeSet::len).sum();
    let sets = all.len() * member(size_of::<ById>())
        + of_resource * member(size_of::<ById>())
        + by_place.len() * member(size_of::<ByPlace>());
    let entries: usize = all.iter().map(|member| member.0.bytes_held(block)).sum();
    (sets + entries) / all.len()
}

/// History is kept for ever: a daemon that is given a route every two seconds must not grow by more.
#[test]
fn a_replaced_commit_is_kept_in_little_more_than_what_was_signed() {
    let (world, commits) = pushed(1_000, false);
    let grant = world.keys.operator_grant(0).encoded_len();
    let id = *commits.ids().next().unwrap();
    let signed = commits.signed(&id).unwrap();
    let said = signed.payload.len() + signed.signature.len() - grant;
    let each = bytes_each(&commits);
    assert!(
        each <= said + 370,
        "{each} bytes for each commit that says {said}"
    );
    // Those very bytes are the signed ones.
    for id in commits.ids() {
        let signed = commits.signed(id).unwrap();
        assert_eq!(CommitId(*blake3::hash(&signed.payload).as_bytes()), *id);
        assert!(world.keys.oracle().verify(domain::COMMIT, &signed));
    }
}
