//! Values of resources with a long history, worked out once and stepped on with each plain edit.
//!
//! In: the commits that arrive. Out: what [`graph::worked_out`](super::graph::worked_out) would say, without
//! a look at all commits of the resource. Whatever is not the plain case is forgotten and worked out anew.

use std::{collections::BTreeMap, sync::Arc};

use mesh_model::{
    catalog::ResourceKey,
    commit::{CommitId, Op},
};

use super::{Commits, Entry, entry::Step, graph::Value};

/// Resources with fewer commits are not remembered: working them out costs next to nothing.
const LONG: usize = 8;

/// A value and when it holds.
#[derive(Debug)]
struct Known {
    value: Value,
    /// No commit of the resource ends between these times, so at all of them the value is the same.
    from_ms: u64,
    to_ms: u64,
    /// The highest clock of the resource's commits: none can be based on one above it.
    newest: u64,
}

/// The values that are known.
#[derive(Debug, Default)]
pub(super) struct Values(BTreeMap<Arc<ResourceKey>, Known>);

impl Values {
    pub(super) fn get(&self, key: &ResourceKey, now_ms: u64) -> Option<Value> {
        let known = self.0.get(key)?;
        (known.from_ms..known.to_ms)
            .contains(&now_ms)
            .then(|| known.value.clone())
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    /// Remembers what was worked out for `now_ms`.
    pub(super) fn put(&mut self, commits: &Commits, key: &ResourceKey, now_ms: u64, value: &Value) {
        let Some((key, _)) = commits.by_resource.get_key_value(key) else {
            return;
        };
        if commits.of_resource(key).count() < LONG {
            return;
        }
        let ends = || commits.of_resource(key).map(|entry| entry.confirm_by_ms);
        let known = Known {
            value: value.clone(),
            from_ms: ends().filter(|end| *end <= now_ms).max().unwrap_or(0),
            to_ms: ends().filter(|end| *end > now_ms).min().unwrap_or(u64::MAX),
            newest: commits
                .of_resource(key)
                .map(|entry| entry.hlc)
                .max()
                .unwrap_or(0),
        };
        self.0.insert(Arc::clone(key), known);
    }

    /// A commit has come: its resources are stepped on when it simply follows their one revision.
    /// `alone`: it is the only commit of its edit.
    pub(super) fn step(&mut self, commits: &Commits, entry: &Entry, alone: bool) {
        let firm = alone && entry.confirm_by_ms == 0 && !commits.is_void(entry);
        for (index, step) in entry.steps.iter().enumerate() {
            let stepped = self
                .0
                .get_mut(&step.key)
                .is_some_and(|known| firm && known.follow(entry, index, step));
            if !stepped {
                self.0.remove(&step.key);
            }
        }
    }
}

impl Known {
    /// Takes a firm commit of a new edit when it replaces the only revision: nothing can be based on it,
    /// as its clock is above all others', and whatever else it covers was covered before. Deletions that did
    /// not compete with the revision do not compete with its successor either: else they would have covered it.
    fn follow(&mut self, entry: &Entry, index: usize, step: &Step) -> bool {
        let value = &mut self.value;
        let [head] = value.heads.as_slice() else {
            return false;
        };
        let winner: Option<CommitId> = value.winner.map(|(id, _)| id);
        let plain = step.op == Op::Put
            && entry.hlc > self.newest
            && winner == Some(*head)
            && *step.bases == [*head];
        if !plain {
            return false;
        }
        self.newest = entry.hlc;
        value.winner = Some((entry.id(), index));
        value.heads = vec![entry.id()];
        value.created_ms = value.created_ms.min(entry.time_ms());
        value.confirm_by_ms = 0;
        true
    }
}
