//! From the commits of one resource to its value.
//!
//! Commits name the revisions on which they are based: a graph. Its heads are the current revisions; more
//! than one is a conflict, and until a commit names all of them the head with the highest clock, then
//! hash, is in force. A tentative commit that was not confirmed in time does not count, from that time on.
//! A pure function of the set of commits and the time.

use std::collections::{BTreeMap, BTreeSet, btree_map::Entry as MapEntry};

use mesh_model::{
    catalog::ResourceKey,
    commit::{CommitId, Op},
};

use super::{Commits, Entry};

/// What a resource is now.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Value {
    /// The commit in force and the index of its change; none: the resource does not exist.
    pub winner: Option<(CommitId, usize)>,
    /// All current revisions, the one in force first. More than one: a conflict.
    /// Of a resource that does not exist: the commits that deleted it.
    pub heads: Vec<CommitId>,
    /// Time of the first commit of the resource's present life, milliseconds since the epoch.
    pub created_ms: u64,
    /// When not 0, the commit in force undoes itself then.
    pub confirm_by_ms: u64,
    /// The next time at which the value may change by itself.
    pub next_change_ms: Option<u64>,
}

impl Value {
    /// True when revisions compete.
    pub fn in_conflict(&self) -> bool {
        self.winner.is_some() && self.heads.len() > 1
    }
}

/// One edit; commits that are the same edit share a node.
struct Node {
    rank: (u64, CommitId),
    index: usize,
    op: Op,
    /// In order, each once; nearly always one.
    bases: Vec<[u8; 32]>,
    live: bool,
    tentative_until: Option<u64>,
    time_ms: u64,
}

type Edit = [u8; 32];

/// What a resource is at `now_ms`.
pub fn evaluate(commits: &Commits, key: &ResourceKey, now_ms: u64) -> Value {
    if let Some(value) = commits.known_value(key, now_ms) {
        // Every value that a test or a simulation looks at is worked out beside.
        #[cfg(test)]
        assert_eq!(value, worked_out(commits, key, now_ms), "{key} at {now_ms}");
        return value;
    }
    let value = worked_out(commits, key, now_ms);
    commits.remember(key, now_ms, &value);
    value
}

/// The same from all commits of the resource.
pub(super) fn worked_out(commits: &Commits, key: &ResourceKey, now_ms: u64) -> Value {
    let nodes = nodes(commits, key, now_ms);
    let covered = covered(&nodes);
    let heads: Vec<(&Edit, &Node)> = nodes
        .iter()
        .filter(|(edit, node)| node.live && !covered.contains(*edit))
        .collect();
    let mut puts: Vec<&(&Edit, &Node)> = heads
        .iter()
        .filter(|(_, node)| node.op == Op::Put)
        .collect();
    puts.sort_by_key(|(_, node)| std::cmp::Reverse(node.rank));
    let mut deletes: Vec<&(&Edit, &Node)> = heads
        .iter()
        .filter(|(_, node)| node.op == Op::Delete)
        .collect();
    deletes.sort_by_key(|(_, node)| std::cmp::Reverse(node.rank));
    // A deletion competes with an edit of what it deleted, not with something created beside it.
    if !puts.is_empty() && !deletes.is_empty() {
        let lives: Vec<BTreeSet<Edit>> = puts
            .iter()
            .map(|(edit, _)| ancestors(&nodes, edit))
            .collect();
        deletes.retain(|(edit, _)| {
            let gone = ancestors(&nodes, edit);
            lives.iter().any(|life| !life.is_disjoint(&gone))
        });
    }
    let winner = puts.first().map(|(edit, node)| (**edit, *node));
    Value {
        winner: winner.map(|(_, node)| (node.rank.1, node.index)),
        heads: puts
            .iter()
            .chain(&deletes)
            .map(|(_, node)| node.rank.1)
            .collect(),
        created_ms: winner.map_or(0, |(edit, _)| created(&nodes, edit)),
        confirm_by_ms: winner
            .and_then(|(_, node)| node.tentative_until)
            .unwrap_or(0),
        next_change_ms: nodes.values().filter_map(|node| node.tentative_until).min(),
    }
}

fn nodes(commits: &Commits, key: &ResourceKey, now_ms: u64) -> BTreeMap<Edit, Node> {
    let mut nodes: BTreeMap<Edit, Node> = BTreeMap::new();
    for entry in commits.of_resource(key) {
        let Some((index, step)) = entry.step(key) else {
            continue;
        };
        if !matches!(step.op, Op::Put | Op::Delete) {
            continue;
        }
        let fate = fate(commits, entry, key, now_ms);
        let bases = step.bases.iter().filter_map(|base| {
            let base = commits.get(base)?;
            // Nobody can have seen what came later: who says so has turned the clock back, perhaps to a time
            // at which a key was not revoked yet.
            (base.hlc < entry.hlc).then_some(base.edit)
        });
        let mut bases: Vec<Edit> = bases.collect();
        bases.sort_unstable();
        bases.dedup();
        let fresh = Node {
            rank: entry.rank(),
            index,
            op: step.op,
            bases,
            live: matches!(fate, Fate::Firm | Fate::Tentative(_)),
            tentative_until: if let Fate::Tentative(until) = fate {
                Some(until)
            } else {
                None
            },
            time_ms: entry.time_ms(),
        };
        match nodes.entry(entry.edit) {
            MapEntry::Vacant(place) => {
                place.insert(fresh);
            }
            MapEntry::Occupied(mut node) => node.get_mut().join(&fresh),
        }
    }
    nodes
}

impl Node {
    /// The same edit came in another commit.
    fn join(&mut self, other: &Self) {
        let (live, firm) = (self.live, self.live && self.tentative_until.is_none());
        if other.live && !live {
            self.rank = other.rank;
            self.tentative_until = other.tentative_until;
            self.live = true;
        } else if other.live == live {
            self.rank = self.rank.max(other.rank);
            if live && !firm && other.tentative_until.is_none() {
                self.tentative_until = None;
            }
        }
        self.time_ms = self.time_ms.min(other.time_ms);
        for base in &other.bases {
            if let Err(place) = self.bases.binary_search(base) {
                self.bases.insert(place, *base);
            }
        }
    }
}

/// Whether a commit counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    /// It counts.
    Firm,
    /// It counts until then.
    Tentative(u64),
    /// It has undone itself.
    Reverted,
    /// Its author had no right any more.
    Void,
}

pub(super) fn fate(commits: &Commits, entry: &Entry, key: &ResourceKey, now_ms: u64) -> Fate {
    let until = entry.confirm_by_ms;
    if commits.is_void(entry) {
        Fate::Void
    } else if until == 0 || commits.is_confirmed(&entry.id(), key, until) {
        Fate::Firm
    } else if now_ms < until {
        Fate::Tentative(until)
    } else {
        Fate::Reverted
    }
}

/// All that a counting edit is based on, however far back.
fn covered(nodes: &BTreeMap<Edit, Node>) -> BTreeSet<Edit> {
    let mut covered = BTreeSet::new();
    let mut open: Vec<Edit> = nodes
        .values()
        .filter(|node| node.live)
        .flat_map(|node| node.bases.iter().copied())
        .collect();
    while let Some(edit) = open.pop() {
        if covered.insert(edit)
            && let Some(node) = nodes.get(&edit)
        {
            open.extend(&node.bases);
        }
    }
    covered
}

/// What an edit is based on, within the present life: not beyond a deletion.
fn ancestors(nodes: &BTreeMap<Edit, Node>, edit: &Edit) -> BTreeSet<Edit> {
    let mut seen = BTreeSet::new();
    let mut open: Vec<Edit> = nodes
        .get(edit)
        .into_iter()
        .flat_map(|node| node.bases.iter().copied())
        .collect();
    while let Some(edit) = open.pop() {
        let Some(node) = nodes.get(&edit) else {
            continue;
        };
        if node.op != Op::Delete && seen.insert(edit) {
            open.extend(&node.bases);
        }
    }
    seen
}

fn created(nodes: &BTreeMap<Edit, Node>, edit: Edit) -> u64 {
    let life = ancestors(nodes, &edit);
    let times = life
        .iter()
        .chain([&edit])
        .filter_map(|edit| nodes.get(edit));
    times
        .filter(|node| node.live)
        .map(|node| node.time_ms)
        .min()
        .unwrap_or(0)
}
