//! Taking an edit from an operator: compare-and-set on the revisions that it names.

use std::time::Duration;

use mesh_model::{
    catalog::ResourceKey,
    commit::{CommitId, Op},
};

use super::{
    CommitError, Commits, Entry,
    graph::{Fate, evaluate, fate},
};
use crate::config::millis;

/// A resource that has moved on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Current {
    /// The resource.
    pub key: ResourceKey,
    /// Revisions that the edit named.
    pub named: Vec<CommitId>,
    /// Revisions that it has, the one in force first; empty: it does not exist.
    pub revisions: Vec<CommitId>,
}

/// Why an edit is refused. Nothing was changed, except after [`SubmitError::NotStored`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SubmitError {
    /// Nobody would take it.
    #[error("the commit is not acceptable")]
    Invalid(#[from] CommitError),
    /// Resources have moved on since the revisions that it names.
    #[error("{} changed in between: {}", plural(.0), names(.0))]
    Stale(Vec<Current>),
    /// The edit id belongs to another edit.
    #[error("the edit id was used for another edit, {}", .0.short())]
    EditReused(CommitId),
    /// The operator's grant is over.
    #[error("the operator's grant has expired")]
    Expired,
    /// The operator was revoked.
    #[error("the operator was revoked")]
    Revoked,
    /// Its clock is ahead of this host's.
    #[error("the commit's clock is {0} s ahead of this host's")]
    ClockAhead(u64),
    /// Its clock is not above that of a revision on which it is based.
    #[error("the commit's clock is not above that of revision {}", .0.short())]
    ClockBehind(CommitId),
    /// The time by which it must be confirmed is over already.
    #[error("the time by which the commit must be confirmed is already over")]
    DeadlineOver,
    /// What it confirms is not waiting for a confirmation.
    #[error("revision {} does not wait for a confirmation", .0.short())]
    NotTentative(CommitId),
    /// It confirms some changes of an edit and not all.
    #[error("the confirmation leaves out {missing} of revision {}", .revision.short())]
    ConfirmsPart {
        /// The edit.
        revision: CommitId,
        /// A resource that it changed.
        missing: ResourceKey,
    },
    /// A document does not read as what the change says.
    #[error("the document of {0} cannot be read")]
    Unreadable(ResourceKey),
    /// There is no room for further commits.
    #[error("the mesh has {0} commits, which is the limit")]
    Full(u64),
    /// It could not be written to disk.
    #[error("the commit could not be stored")]
    NotStored,
}

fn plural(current: &[Current]) -> &'static str {
    if current.len() == 1 {
        "the resource"
    } else {
        "resources"
    }
}

fn names(current: &[Current]) -> String {
    current
        .iter()
        .map(|current| current.key.to_string())
        .collect::<Vec<_>>()
        .join(", ")
}

impl SubmitError {
    /// Stable word for machines.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Invalid(CommitError::Namespace(_)) => "not-permitted",
            Self::Invalid(CommitError::Grant(_) | CommitError::OutsideGrant) => "operator-unknown",
            Self::Invalid(_) => "commit-invalid",
            Self::Stale(_) => "conflict",
            Self::EditReused(_) => "edit-id-reused",
            Self::Expired => "operator-expired",
            Self::Revoked => "operator-revoked",
            Self::ClockAhead(_) => "clock-ahead",
            Self::ClockBehind(_) => "clock-behind",
            Self::DeadlineOver => "deadline-over",
            Self::NotTentative(_) => "not-tentative",
            Self::ConfirmsPart { .. } => "confirms-part",
            Self::Unreadable(_) => "document-unreadable",
            Self::Full(_) => "too-many-commits",
            Self::NotStored => "not-stored",
        }
    }
    /// What to do about it.
    pub fn remedy(&self) -> &'static str {
        match self {
            Self::Invalid(CommitError::Namespace(_)) => {
                "ask an operator who may write there, or for a grant that covers it"
            }
            Self::Invalid(CommitError::Grant(_) | CommitError::OutsideGrant) | Self::Expired => {
                "have the key certified again with meshctl operator add"
            }
            Self::Stale(_) => "look at the difference with meshctl diff, then apply again",
            Self::Revoked => "use another operator's key",
            Self::ClockAhead(_) | Self::ClockBehind(_) => {
                "set the clock of the machine where meshctl runs, then apply again"
            }
            Self::DeadlineOver => "give more time to confirm",
            Self::NotTentative(_) => "look at meshctl history: it is confirmed, undone or replaced",
            Self::ConfirmsPart { .. } => "confirm the whole edit with meshctl confirm",
            Self::Unreadable(_) => {
                "check it with meshctl validate; upgrade meshd if the kind is new"
            }
            Self::Full(_) => "this limit is fixed: report it, and remove what makes so many edits",
            Self::NotStored => "look at the disk of this host, then apply again",
            Self::Invalid(_) | Self::EditReused(_) => "apply again with this version of meshctl",
        }
    }
}

/// What a good edit turned out to be.
#[derive(Debug)]
pub(crate) enum Edit {
    /// A new commit.
    New(Box<Entry>),
    /// It was taken before as this commit.
    Again(CommitId),
}

impl Commits {
    /// Checks an edit against what is in force at `now_ms`.
    pub(crate) fn admit(
        &self,
        entry: Entry,
        now_ms: u64,
        tolerance: Duration,
        max: usize,
    ) -> Result<Edit, SubmitError> {
        if let Some(known) = self.same_edit(&entry)? {
            return Ok(Edit::Again(known));
        }
        if now_ms > entry.author.grant.not_after_ms {
            return Err(SubmitError::Expired);
        }
        if self.revoked.operator(&entry.author.grant.key) || self.is_void(&entry) {
            return Err(SubmitError::Revoked);
        }
        let ahead = entry.time_ms().saturating_sub(now_ms);
        if ahead > millis(tolerance) {
            return Err(SubmitError::ClockAhead(ahead / 1000));
        }
        if entry.confirm_by_ms != 0 && entry.confirm_by_ms <= now_ms {
            return Err(SubmitError::DeadlineOver);
        }
        if self.all.len() >= max {
            return Err(SubmitError::Full(self.count()));
        }
        self.compare(&entry, now_ms)?;
        let whole = entry.whole().unwrap_or_default();
        for (index, step) in entry.steps.iter().enumerate() {
            let document = || entry.document_in(&whole, index, self.parse);
            if step.op == Op::Put && document().is_none() {
                return Err(SubmitError::Unreadable(ResourceKey::clone(&step.key)));
            }
        }
        Ok(Edit::New(Box::new(entry)))
    }

    fn same_edit(&self, entry: &Entry) -> Result<Option<CommitId>, SubmitError> {
        if let Some(same) = self.claiming(entry).find(|one| one.edit == entry.edit) {
            return Ok(Some(same.id()));
        }
        match self.claiming(entry).find(|one| one.shares_edit_id(entry)) {
            Some(other) => Err(SubmitError::EditReused(other.id())),
            None => Ok(None),
        }
    }

    fn compare(&self, entry: &Entry, now_ms: u64) -> Result<(), SubmitError> {
        let mut stale = Vec::new();
        for step in &entry.steps {
            let (key, named) = (&*step.key, &*step.bases);
            if step.op == Op::Confirm {
                self.compare_confirm(entry, key, named, now_ms)?;
                continue;
            }
            let value = evaluate(self, key, now_ms);
            if let Some(late) = named
                .iter()
                .filter_map(|base| self.get(base))
                .find(|base| base.hlc >= entry.hlc)
            {
                return Err(SubmitError::ClockBehind(late.id()));
            }
            let current = |id: &CommitId| {
                let edit = self.get(id).map(|entry| entry.edit);
                edit.is_some()
                    && value
                        .heads
                        .iter()
                        .any(|head| self.get(head).map(|head| head.edit) == edit)
            };
            let names_winner = match &value.winner {
                Some((winner, _)) => {
                    let edit = self.get(winner).map(|entry| entry.edit);
                    named
                        .iter()
                        .any(|id| self.get(id).map(|entry| entry.edit) == edit)
                }
                None => step.op == Op::Put,
            };
            if !names_winner || !named.iter().all(current) {
                let exists = value.winner.is_some();
                let revisions = if exists { value.heads } else { Vec::new() };
                stale.push(Current {
                    key: key.clone(),
                    named: named.to_vec(),
                    revisions,
                });
            }
        }
        if stale.is_empty() {
            Ok(())
        } else {
            Err(SubmitError::Stale(stale))
        }
    }

    fn compare_confirm(
        &self,
        entry: &Entry,
        key: &ResourceKey,
        named: &[CommitId],
        now_ms: u64,
    ) -> Result<(), SubmitError> {
        let target = named.first().and_then(|id| self.get(id));
        let Some(target) = target else {
            return Err(SubmitError::Stale(vec![Current {
                revisions: evaluate(self, key, now_ms).heads,
                named: named.to_vec(),
                key: key.clone(),
            }]));
        };
        let tentative = matches!(fate(self, target, key, now_ms), Fate::Tentative(_));
        if !tentative || target.step(key).is_none() {
            return Err(SubmitError::NotTentative(target.id()));
        }
        if entry.time_ms() > target.confirm_by_ms {
            return Err(SubmitError::NotTentative(target.id()));
        }
        if entry.hlc <= target.hlc {
            return Err(SubmitError::ClockBehind(target.id()));
        }
        for other in &target.steps {
            let confirmed = entry
                .step(&other.key)
                .is_some_and(|(_, step)| step.op == Op::Confirm);
            if !confirmed {
                return Err(SubmitError::ConfirmsPart {
                    revision: target.id(),
                    missing: ResourceKey::clone(&other.key),
                });
            }
        }
        Ok(())
    }
}
