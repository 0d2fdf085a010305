//! What became of one resource: where it acts, and why it does not.

use mesh_model::{catalog::ResourceKey, commit::CommitId, document::route::ParentReference};

/// Reason (or code of the finding) and message.
pub(crate) type Refusal = (&'static str, String);

/// What became of one resource.
#[derive(Debug)]
pub(crate) struct Outcome<'a> {
    pub(crate) key: &'a ResourceKey,
    pub(crate) revision: CommitId,
    pub(crate) changed_ms: u64,
    /// The state of each reference to a service.
    pub(crate) parents: Vec<ParentState>,
    /// The first reference that leads nowhere.
    pub(crate) unresolved: Option<Refusal>,
}

/// What became of one parent reference.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ParentState {
    pub(crate) reference: ParentReference,
    /// Reason and message when it is not accepted: it acts on no port that the reference means.
    pub(crate) refused: Option<Refusal>,
    /// Why it does not act on some of the ports; empty: it acts on all.
    pub(crate) partly: String,
}
