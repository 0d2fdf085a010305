//! Operators' commits: checked, kept for ever, never silently replaced.
//!
//! In: signed commits, from an operator (compare-and-set) or from peers (always kept). Out: the set, its
//! fingerprint, and by [`graph`] the value of every resource.
//! Everything that is derived is a function of the set of commits and the time, so hosts that have the
//! same set agree.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
};

use mesh_model::{
    catalog::ResourceKey,
    commit::{Change, Commit, CommitId, Op},
    document::Document,
    grant::{Signed, domain},
    name::MeshId,
};
use prost::Message;

use crate::{
    fingerprint::SetSum,
    rights::{GrantError, Rights},
    signing::Verifier,
};

mod entry;
/// From the commits of one resource to its value.
pub(crate) mod graph;
mod history;
mod known;
mod revoked;
pub(crate) mod submit;

pub(crate) use entry::Entry;
use entry::{Author, ById, ByPlace, ByWritten, Place};
use graph::Value;
pub use history::HistoryFilter;
use known::Values;
pub(crate) use revoked::Revoked;
pub use submit::{Current, SubmitError};

/// The kind of the documents that revoke operators and hosts.
const REVOCATION: &str = "Revocation";
/// Most changes of one commit.
const MAX_CHANGES: usize = 256;
/// Most bytes of one commit.
const MAX_COMMIT: usize = 1024 * 1024;
/// Most revisions that one change may name.
const MAX_BASES: usize = 64;

/// Why a commit is not taken from anybody.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CommitError {
    /// It does not decode, or breaks a bound of its shape.
    #[error("the commit is malformed: {0}")]
    Malformed(&'static str),
    /// It is of another mesh.
    #[error("the commit is of another mesh")]
    OtherMesh,
    /// The signature does not fit the operator's key.
    #[error("the commit is not signed by the operator whose grant it carries")]
    Signature,
    /// The operator's grant is not valid.
    #[error("the operator's grant is not valid")]
    Grant(#[source] GrantError),
    /// The grant was not in force at the commit's time.
    #[error("the operator's grant was not in force when the commit was made")]
    OutsideGrant,
    /// The grant does not cover this namespace.
    #[error("the operator may not write to {}", namespace_words(.0))]
    Namespace(String),
}

fn namespace_words(namespace: &str) -> String {
    if namespace.is_empty() {
        "resources of the mesh".to_owned()
    } else {
        format!("namespace {namespace}")
    }
}

/// All commits.
#[derive(Debug)]
pub struct Commits {
    mesh: MeshId,
    parse: fn(&str) -> Option<Document>,
    all: BTreeSet<ById>,
    by_resource: BTreeMap<Arc<ResourceKey>, BTreeSet<ById>>,
    by_place: BTreeSet<ByPlace>,
    confirms: BTreeMap<CommitId, BTreeSet<CommitId>>,
    /// Grants of operators, as they stand in commits, that were checked: most commits repeat one.
    authors: BTreeSet<ByWritten>,
    sum: SetSum,
    revoked: Revoked,
    documents: Mutex<Documents>,
    values: Mutex<Values>,
}

/// Documents that somebody holds, by commit and change: only those in force are asked for again and again.
#[derive(Debug, Default)]
struct Documents {
    held: BTreeMap<(CommitId, usize), Weak<Document>>,
    /// How many were left when those that nobody holds any longer went.
    left: usize,
}

impl Documents {
    fn get(&self, id: CommitId, index: usize) -> Option<Arc<Document>> {
        self.held.get(&(id, index)).and_then(Weak::upgrade)
    }

    fn insert(&mut self, id: CommitId, index: usize, document: &Arc<Document>) {
        self.held.insert((id, index), Arc::downgrade(document));
        if self.held.len() > 2 * self.left + 16 {
            self.held.retain(|_, document| document.strong_count() > 0);
            self.left = self.held.len();
        }
    }
}

/// What a commit touched.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Touched {
    /// Resources whose value may have changed.
    pub(crate) resources: BTreeSet<ResourceKey>,
    /// True when rights were revoked or restored: every resource and host may have changed.
    pub(crate) revocations: bool,
}

/// The resource that a change is about.
pub(crate) fn key_of(change: &Change) -> ResourceKey {
    ResourceKey {
        kind: change.kind.clone(),
        namespace: change.namespace.clone(),
        name: change.name.clone(),
    }
}

impl Commits {
    /// No commits yet. `parse` reads the documents of changes.
    pub fn new(mesh: MeshId, parse: fn(&str) -> Option<Document>) -> Self {
        Self {
            mesh,
            parse,
            all: BTreeSet::new(),
            by_resource: BTreeMap::new(),
            by_place: BTreeSet::new(),
            confirms: BTreeMap::new(),
            authors: BTreeSet::new(),
            sum: SetSum::default(),
            revoked: Revoked::default(),
            documents: Mutex::default(),
            values: Mutex::default(),
        }
    }

    /// Number of commits.
    pub fn count(&self) -> u64 {
        self.sum.count()
    }
    /// Order-independent fingerprint of the set.
    pub fn fingerprint(&self) -> [u8; 16] {
        self.sum.short()
    }
    /// The ids, in order.
    pub fn ids(&self) -> impl Iterator<Item = &CommitId> {
        self.all.iter().map(|member| &member.0.place.id)
    }
    /// A commit as it was signed.
    pub fn signed(&self, id: &CommitId) -> Option<Signed> {
        self.get(id).map(|entry| entry.signed())
    }
    pub(crate) fn get(&self, id: &CommitId) -> Option<&Arc<Entry>> {
        self.all.get(id).map(|member| &member.0)
    }
    pub(crate) fn resources(&self) -> impl Iterator<Item = &ResourceKey> {
        self.by_resource.keys().map(|key| &**key)
    }
    pub(crate) fn revoked(&self) -> &Revoked {
        &self.revoked
    }
    /// True when the author had no right any more when the commit was made.
    pub(crate) fn is_void(&self, entry: &Entry) -> bool {
        self.revoked.voids(entry)
    }

    /// Takes a commit from a peer or from disk: kept whatever it is based on.
    pub(crate) fn accept(
        &mut self,
        signed: &Signed,
        rights: &Rights,
        verifier: &dyn Verifier,
    ) -> Result<Option<(CommitId, Touched)>, CommitError> {
        let id = CommitId(*blake3::hash(&signed.payload).as_bytes());
        if self.all.contains(&id) {
            return Ok(None);
        }
        let entry = self.check(signed, rights, verifier)?;
        Ok(Some((id, self.insert(entry))))
    }

    /// Everything about a commit that does not depend on other commits or on the time.
    pub(crate) fn check(
        &self,
        signed: &Signed,
        rights: &Rights,
        verifier: &dyn Verifier,
    ) -> Result<Entry, CommitError> {
        if signed.payload.len() > MAX_COMMIT {
            return Err(CommitError::Malformed("it is longer than 1 MiB"));
        }
        let commit: Commit = crate::wire::decode(&signed.payload)
            .map_err(|_bad| CommitError::Malformed("it does not decode"))?;
        if commit.mesh_id != self.mesh.0 {
            return Err(CommitError::OtherMesh);
        }
        check_shape(&commit)?;
        let author = self.author_of(&commit, rights, verifier)?;
        let grant = &author.grant;
        if signed.signer != grant.key || !verifier.verify(domain::COMMIT, signed) {
            return Err(CommitError::Signature);
        }
        if !Rights::in_force(grant.not_before_ms, grant.not_after_ms, commit.time_ms()) {
            return Err(CommitError::OutsideGrant);
        }
        let everywhere = grant.namespaces.iter().any(|pattern| pattern == "*");
        for change in &commit.changes {
            let named =
                !change.namespace.is_empty() && grant.namespaces.contains(&change.namespace);
            if !everywhere && !named {
                return Err(CommitError::Namespace(change.namespace.clone()));
            }
        }
        let known = |key| match self.by_resource.get_key_value(&key) {
            Some((known, _)) => Arc::clone(known),
            None => Arc::new(key),
        };
        Entry::new(signed, &commit, author, known)
            .ok_or(CommitError::Malformed("its grant is not in it"))
    }

    fn author_of(
        &self,
        commit: &Commit,
        rights: &Rights,
        verifier: &dyn Verifier,
    ) -> Result<Arc<Author>, CommitError> {
        if let Some(known) = self.authors.get(&*commit.author_grant) {
            return Ok(Arc::clone(&known.0));
        }
        let signed = Signed::decode(&*commit.author_grant)
            .map_err(|_bad| CommitError::Malformed("its grant does not decode"))?;
        let (grant, by) = rights
            .check_operator(&signed, verifier)
            .map_err(CommitError::Grant)?;
        Ok(Arc::new(Author {
            written: commit.author_grant.as_slice().into(),
            grant,
            by,
        }))
    }

    pub(crate) fn insert(&mut self, entry: Entry) -> Touched {
        let mut touched = Touched::default();
        let (id, entry) = (entry.id(), Arc::new(entry));
        self.authors.insert(ByWritten(Arc::clone(&entry.author)));
        let alone = self.claiming(&entry).all(|twin| twin.edit != entry.edit);
        let mut revoking = false;
        for step in &entry.steps {
            revoking |= step.key.kind == REVOCATION;
            let of_resource = self.by_resource.entry(Arc::clone(&step.key)).or_default();
            of_resource.insert(ById(Arc::clone(&entry)));
            touched.resources.insert(ResourceKey::clone(&step.key));
            if step.op == Op::Confirm {
                for base in &step.bases {
                    self.confirms.entry(*base).or_default().insert(id);
                }
            }
        }
        self.sum.add(&id.0);
        self.by_place.insert(ByPlace(Arc::clone(&entry)));
        self.all.insert(ById(Arc::clone(&entry)));
        if revoking {
            let revoked = Revoked::from_commits(self);
            touched.revocations = revoked != self.revoked;
            self.revoked = revoked;
        }
        let mut values = std::mem::take(&mut *held(&self.values));
        if touched.revocations {
            values.clear();
        } else {
            values.step(self, &entry, alone);
        }
        *held(&self.values) = values;
        touched
    }

    /// Commits whose operator and edit id may be those of this one, in order of their ids.
    fn claiming(&self, entry: &Entry) -> impl Iterator<Item = &Arc<Entry>> {
        let at = |id| Place {
            slot: entry.place.slot,
            id: CommitId(id),
        };
        let claiming = self.by_place.range(at([0; 32])..=at([255; 32]));
        claiming.map(|member| &member.0)
    }

    /// The document that a commit gives to a resource, when it reads as one.
    pub(crate) fn document(&self, id: &CommitId, index: usize) -> Option<Arc<Document>> {
        let known = held(&self.documents).get(*id, index);
        known.or_else(|| {
            let document = Arc::new(self.get(id)?.document(index, self.parse)?);
            held(&self.documents).insert(*id, index, &document);
            Some(document)
        })
    }

    fn known_value(&self, key: &ResourceKey, now_ms: u64) -> Option<Value> {
        held(&self.values).get(key, now_ms)
    }
    fn remember(&self, key: &ResourceKey, now_ms: u64, value: &Value) {
        held(&self.values).put(self, key, now_ms, value);
    }

    pub(crate) fn of_resource(&self, key: &ResourceKey) -> impl Iterator<Item = &Arc<Entry>> {
        self.by_resource
            .get(key)
            .into_iter()
            .flatten()
            .map(|member| &member.0)
    }

    /// True when a commit that is not void confirmed `id` for the resource in time.
    pub(crate) fn is_confirmed(&self, id: &CommitId, key: &ResourceKey, by_ms: u64) -> bool {
        self.confirms
            .get(id)
            .into_iter()
            .flatten()
            .filter_map(|id| self.get(id))
            .any(|confirm| {
                let named = confirm.steps.iter().any(|step| {
                    step.op == Op::Confirm && *step.key == *key && step.bases.contains(id)
                });
                named && confirm.time_ms() <= by_ms && !self.is_void(confirm)
            })
    }
}

/// What a lock holds; whoever panicked under it left nothing half done.
fn held<T>(lock: &Mutex<T>) -> MutexGuard<'_, T> {
    lock.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The same operator, edit id and content: one edit, however often it was signed and sent.
fn edit_of(commit: &Commit, signer: &[u8]) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(signer);
    hasher.update(&commit.edit_id);
    hasher.update(&commit.confirm_by_ms.to_le_bytes());
    for change in &commit.changes {
        let bytes = change.encode_to_vec();
        hasher.update(&u64::try_from(bytes.len()).unwrap_or(0).to_le_bytes());
        hasher.update(&bytes);
    }
    *hasher.finalize().as_bytes()
}

fn check_shape(commit: &Commit) -> Result<(), CommitError> {
    let bad = |what| Err(CommitError::Malformed(what));
    if commit.changes.is_empty() || commit.changes.len() > MAX_CHANGES {
        return bad("it must have 1 to 256 changes");
    }
    if commit.edit_id.len() != 16 {
        return bad("its edit id must have 16 bytes");
    }
    if commit.reason.len() > 1024 {
        return bad("its reason is longer than 1 KiB");
    }
    let mut keys = BTreeSet::new();
    for change in &commit.changes {
        if change.kind.is_empty() || change.name.is_empty() {
            return bad("a change names no resource");
        }
        if change.kind.len() + change.namespace.len() + change.name.len() > 1024 {
            return bad("the name of a resource is too long");
        }
        if !keys.insert(key_of(change)) {
            return bad("it changes one resource twice");
        }
        if change.bases.len() > MAX_BASES || change.bases.iter().any(|base| base.len() != 32) {
            return bad("a change names too many revisions, or one that is none");
        }
        match change.op() {
            Op::Unspecified => return bad("a change says not what it does"),
            Op::Put if change.document.is_empty() => return bad("a change has no document"),
            Op::Delete | Op::Confirm if !change.document.is_empty() => {
                return bad("a change has a document and does not need one");
            }
            Op::Confirm if change.bases.len() != 1 => {
                return bad("a confirmation must name exactly one revision");
            }
            Op::Put | Op::Delete | Op::Confirm => {}
        }
        if change.kind == REVOCATION && (!change.namespace.is_empty() || commit.confirm_by_ms != 0)
        {
            return bad("a revocation belongs to the mesh and cannot be tentative");
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
