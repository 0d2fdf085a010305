//! Which operators and hosts were revoked, and when.
//!
//! Commits of the kind `Revocation` are read in the order of their authors' clocks, then hashes. One whose
//! author is revoked at that point has no effect. A revocation stands as long as any undisputed or
//! disputed head of its resource says so: of two concurrent edits the more restrictive one counts.

use std::collections::{BTreeMap, BTreeSet};

use mesh_model::{
    commit::{CommitId, Op},
    document::Spec,
    name::HostId,
};

use super::{Commits, Entry, REVOCATION};

/// From this clock on, until that one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Span {
    from: u64,
    to: Option<u64>,
}

/// Who may be revoked.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Who {
    Operator(Vec<u8>),
    Host(HostId),
}

/// The spans in which rights are revoked.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Revoked {
    spans: BTreeMap<Who, Vec<Span>>,
}

impl Revoked {
    pub(super) fn from_commits(commits: &Commits) -> Self {
        let keys = commits.resources().filter(|key| key.kind == REVOCATION);
        let mut ordered: Vec<&Entry> = keys
            .flat_map(|key| commits.of_resource(key))
            .map(|entry| &**entry)
            .collect();
        ordered.sort_by_key(|entry| entry.rank());
        ordered.dedup_by_key(|entry| entry.id());
        let mut revoked = Self::default();
        let mut heads: BTreeMap<String, BTreeMap<CommitId, Who>> = BTreeMap::new();
        for entry in ordered {
            if revoked.voids(entry) {
                continue;
            }
            for (index, step) in entry.steps.iter().enumerate() {
                if step.key.kind != REVOCATION || step.op == Op::Confirm {
                    continue;
                }
                let of_name = heads.entry(step.key.name.clone()).or_default();
                of_name.retain(|id, _| !step.bases.contains(id));
                let who = entry
                    .document(index, commits.parse)
                    .and_then(|doc| who(&doc.spec));
                // Only what comes later can replace it: who names it with an earlier clock has not seen it.
                if let Some(who) = who
                    && step.op == Op::Put
                {
                    of_name.insert(entry.id(), who);
                }
            }
            let now: BTreeSet<&Who> = heads.values().flat_map(BTreeMap::values).collect();
            revoked.step(entry.hlc, &now);
        }
        revoked
    }

    fn step(&mut self, hlc: u64, now: &BTreeSet<&Who>) {
        for (who, spans) in &mut self.spans {
            if let Some(last) = spans.last_mut()
                && last.to.is_none()
                && !now.contains(who)
            {
                last.to = Some(hlc);
            }
        }
        for who in now {
            let spans = self.spans.entry((*who).clone()).or_default();
            if spans.last().is_none_or(|last| last.to.is_some()) {
                spans.push(Span {
                    from: hlc,
                    to: None,
                });
            }
        }
    }

    fn at(&self, who: &Who, hlc: u64) -> bool {
        let spans = self.spans.get(who);
        spans
            .into_iter()
            .flatten()
            .any(|span| span.from < hlc && span.to.is_none_or(|to| hlc <= to))
    }

    fn open_since(&self, who: &Who) -> Option<u64> {
        let last = self.spans.get(who)?.last()?;
        last.to.is_none().then_some(last.from)
    }

    /// True when the commit's author was revoked at its time, or got its grant from a revoked authority.
    pub(super) fn voids(&self, entry: &Entry) -> bool {
        let operator = Who::Operator(entry.author.grant.key.clone());
        self.at(&operator, entry.hlc)
            || self.authority_at(entry.author.by, entry.author.grant.not_before_ms)
    }
    /// True when this operator's key is revoked now.
    pub(crate) fn operator(&self, key: &[u8]) -> bool {
        self.open_since(&Who::Operator(key.to_vec())).is_some()
    }
    /// True when this host is revoked now.
    pub(crate) fn host(&self, host: HostId) -> bool {
        self.open_since(&Who::Host(host)).is_some()
    }
    /// True when an authority on `host` was revoked before it gave a grant that begins at `begins_ms`.
    pub(crate) fn authority_at(&self, host: HostId, begins_ms: u64) -> bool {
        self.at(&Who::Host(host), begins_ms << 16)
    }
}

fn who(spec: &Spec) -> Option<Who> {
    let Spec::Revocation(spec) = spec else {
        return None;
    };
    if let Some(host) = &spec.host {
        return host.parse().ok().map(Who::Host);
    }
    let key = spec.operator_key.as_ref()?;
    let digits = key.as_bytes().chunks_exact(2);
    let bytes: Option<Vec<u8>> = digits
        .map(|pair| {
            std::str::from_utf8(pair)
                .ok()
                .and_then(|pair| u8::from_str_radix(pair, 16).ok())
        })
        .collect();
    bytes.filter(|bytes| bytes.len() == 32).map(Who::Operator)
}
