//! Commits as people read them, with what became of each.

use std::collections::BTreeMap;

use mesh_model::{
    admin::{HistoryChange, HistoryRow},
    catalog::ResourceKey,
    commit::Op,
};

use super::{
    Commits, Entry,
    graph::{Fate, Value, evaluate, fate},
};

/// Which commits are wanted; absent fields match everything.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HistoryFilter {
    /// The kind of a resource that was changed; of names, the case of ASCII letters does not matter.
    pub kind: Option<String>,
    /// Its namespace.
    pub namespace: Option<String>,
    /// Its name.
    pub name: Option<String>,
    /// The beginning of the commit's id, lower-case hexadecimal.
    pub id_prefix: Option<String>,
    /// At most so many; 0: all.
    pub limit: usize,
}

impl HistoryFilter {
    fn matches(&self, entry: &Entry) -> bool {
        let fits = |wanted: &Option<String>, is: &str| {
            wanted.as_ref().is_none_or(|w| w.eq_ignore_ascii_case(is))
        };
        let id = || entry.id().to_string();
        self.id_prefix
            .as_ref()
            .is_none_or(|prefix| id().starts_with(prefix.as_str()))
            && entry.steps.iter().any(|step| {
                fits(&self.kind, &step.key.kind)
                    && fits(&self.namespace, &step.key.namespace)
                    && fits(&self.name, &step.key.name)
            })
    }
}

/// How much a state says, so that a commit with several changes gets the most important one.
fn weight(state: &str) -> u8 {
    match state {
        "conflict" => 5,
        "tentative" => 4,
        "effective" => 3,
        "reverted" => 2,
        "void" => 1,
        _ => 0,
    }
}

impl Commits {
    /// The commits that `filter` wants, newest first.
    pub fn history(&self, filter: &HistoryFilter, now_ms: u64) -> Vec<HistoryRow> {
        let mut wanted: Vec<&Entry> = self
            .all
            .iter()
            .map(|member| &*member.0)
            .filter(|entry| filter.matches(entry))
            .collect();
        wanted.sort_by_key(|entry| std::cmp::Reverse(entry.rank()));
        let limit = if filter.limit == 0 {
            usize::MAX
        } else {
            filter.limit
        };
        // Many commits are of one resource, whose value is worked out from all of them.
        let mut values = BTreeMap::new();
        wanted
            .into_iter()
            .take(limit)
            .map(|entry| self.row(entry, now_ms, &mut values))
            .collect()
    }

    fn row(
        &self,
        entry: &Entry,
        now_ms: u64,
        values: &mut BTreeMap<ResourceKey, Value>,
    ) -> HistoryRow {
        let whole = entry.whole().unwrap_or_default();
        let states = entry.steps.iter().map(|step| {
            let key = &*step.key;
            if step.op == Op::Confirm {
                return self.confirm_state(entry, key);
            }
            let value = values
                .entry(key.clone())
                .or_insert_with(|| evaluate(self, key, now_ms));
            self.state(entry, key, now_ms, value)
        });
        let changes = entry
            .steps
            .iter()
            .enumerate()
            .map(|(index, step)| HistoryChange {
                kind: step.key.kind.clone(),
                namespace: step.key.namespace.clone(),
                name: step.key.name.clone(),
                op: match step.op {
                    Op::Put => "put",
                    Op::Delete => "delete",
                    Op::Confirm => "confirm",
                    Op::Unspecified => "unknown",
                }
                .to_owned(),
                bases: step.bases.to_vec(),
                document: entry
                    .document_in(&whole, index, self.parse)
                    .map(|document| document.json),
            });
        HistoryRow {
            id: entry.id(),
            author: entry.author.grant.name.clone(),
            time_ms: entry.time_ms(),
            state: states
                .max_by_key(|state| weight(state))
                .unwrap_or("superseded")
                .to_owned(),
            confirm_by_ms: entry.confirm_by_ms,
            changes: changes.collect(),
            reason: whole.reason,
        }
    }

    fn state(&self, entry: &Entry, key: &ResourceKey, now_ms: u64, value: &Value) -> &'static str {
        let fate = fate(self, entry, key, now_ms);
        match fate {
            Fate::Void => return "void",
            Fate::Reverted => return "reverted",
            Fate::Firm | Fate::Tentative(_) => {}
        }
        let is_head = value
            .heads
            .iter()
            .any(|head| self.get(head).is_some_and(|head| head.edit == entry.edit));
        match (is_head, value.in_conflict(), fate) {
            (false, _, _) => "superseded",
            (true, true, _) => "conflict",
            (true, false, Fate::Tentative(_)) => "tentative",
            (true, false, _) => "effective",
        }
    }

    fn confirm_state(&self, entry: &Entry, key: &ResourceKey) -> &'static str {
        if self.is_void(entry) {
            return "void";
        }
        let target = entry
            .step(key)
            .and_then(|(_, step)| self.get(step.bases.first()?));
        let in_time = target.is_some_and(|target| entry.time_ms() <= target.confirm_by_ms);
        if in_time { "effective" } else { "superseded" }
    }
}
