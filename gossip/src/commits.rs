//! Operators' commits: checked, kept for ever, never silently replaced.
//!
//! In: signed commits, from an operator (compare-and-set) or from peers (always kept). Out: the set, its
//! fingerprint, and by [`graph`] the value of every resource.
//! Everything that is derived is a function of the set of commits and the time, so hosts that have the
//! same set agree.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, PoisonError, Weak},
};

use mesh_model::{
    catalog::ResourceKey,
    commit::{Change, Commit, CommitId, Op},
    document::Document,
    grant::{OperatorGrant, Signed, domain},
    name::{HostId, MeshId},
};
use prost::Message;

use crate::{
    fingerprint::SetSum,
    rights::{GrantError, Rights},
    signing::Verifier,
};

/// From the commits of one resource to its value.
pub(crate) mod graph;
mod history;
mod revoked;
pub(crate) mod submit;

pub use history::HistoryFilter;
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

/// A commit that was checked. History is kept for ever, so what it takes is kept small: long parts are held
/// once, in `bytes`.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) id: CommitId,
    bytes: Bytes,
    /// Without its grant and its documents; see [`Entry::document`].
    pub(crate) commit: Commit,
    pub(crate) author: Arc<OperatorGrant>,
    /// The author's grant as it is written in the commit.
    written: Arc<[u8]>,
    /// Host of the authority that gave the author its grant.
    pub(crate) by: HostId,
    /// Equal for commits that are one edit sent twice.
    pub(crate) edit: [u8; 32],
}

/// A commit's payload without the author's grant, which most commits share, and its signature.
#[derive(Debug)]
struct Bytes {
    before: Box<[u8]>,
    after: Box<[u8]>,
    signature: Box<[u8]>,
}

impl Bytes {
    /// `None` when the grant is not in the payload.
    fn of(signed: &Signed, grant: &[u8]) -> Option<Self> {
        // From the end: only a reason and numbers stand behind it.
        let at = match grant.len() {
            0 => 0,
            length => signed
                .payload
                .windows(length)
                .rposition(|part| part == grant)?,
        };
        Some(Self {
            before: signed.payload.get(..at)?.into(),
            after: signed.payload.get(at + grant.len()..)?.into(),
            signature: signed.signature.as_slice().into(),
        })
    }
}

/// An operator's grant as it stands in commits, checked, with the host of the authority that gave it.
type Author = (Arc<[u8]>, Arc<OperatorGrant>, HostId);

/// All commits.
#[derive(Debug)]
pub struct Commits {
    mesh: MeshId,
    parse: fn(&str) -> Option<Document>,
    all: BTreeMap<CommitId, Arc<Entry>>,
    by_resource: BTreeMap<ResourceKey, BTreeSet<CommitId>>,
    /// By [`slot_of`]: nearly always one.
    by_edit: BTreeMap<[u8; 32], Vec<CommitId>>,
    confirms: BTreeMap<CommitId, BTreeSet<CommitId>>,
    /// Grants of operators, as they stand in commits, that were checked: most commits repeat one.
    grants: BTreeMap<Arc<[u8]>, (Arc<OperatorGrant>, HostId)>,
    sum: SetSum,
    revoked: Revoked,
    documents: Mutex<Documents>,
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

impl Entry {
    /// Order of commits: the author's clock, then the hash.
    pub(crate) fn rank(&self) -> (u64, CommitId) {
        (self.commit.hlc, self.id)
    }
    /// As it was signed.
    pub(crate) fn signed(&self) -> Signed {
        Signed {
            payload: [&*self.bytes.before, &*self.written, &*self.bytes.after].concat(),
            signature: self.bytes.signature.to_vec(),
            signer: self.author.key.clone(),
        }
    }
    /// The change of a resource.
    pub(crate) fn change(&self, key: &ResourceKey) -> Option<(usize, &Change)> {
        self.commit.changes.iter().enumerate().find(|(_, change)| {
            change.kind == key.kind && change.namespace == key.namespace && change.name == key.name
        })
    }
}

impl Commits {
    /// No commits yet. `parse` reads the documents of changes.
    pub fn new(mesh: MeshId, parse: fn(&str) -> Option<Document>) -> Self {
        Self {
            mesh,
            parse,
            all: BTreeMap::new(),
            by_resource: BTreeMap::new(),
            by_edit: BTreeMap::new(),
            confirms: BTreeMap::new(),
            grants: BTreeMap::new(),
            sum: SetSum::default(),
            revoked: Revoked::default(),
            documents: Mutex::default(),
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
        self.all.keys()
    }
    /// A commit as it was signed.
    pub fn signed(&self, id: &CommitId) -> Option<Signed> {
        self.all.get(id).map(|entry| entry.signed())
    }
    pub(crate) fn get(&self, id: &CommitId) -> Option<&Arc<Entry>> {
        self.all.get(id)
    }
    pub(crate) fn resources(&self) -> impl Iterator<Item = &ResourceKey> {
        self.by_resource.keys()
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
        if self.all.contains_key(&id) {
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
        let mut commit: Commit = crate::wire::decode(&signed.payload)
            .map_err(|_bad| CommitError::Malformed("it does not decode"))?;
        if commit.mesh_id != self.mesh.0 {
            return Err(CommitError::OtherMesh);
        }
        check_shape(&commit)?;
        let (written, author, by) = self.author_of(&commit, rights, verifier)?;
        if signed.signer != author.key || !verifier.verify(domain::COMMIT, signed) {
            return Err(CommitError::Signature);
        }
        if !Rights::in_force(author.not_before_ms, author.not_after_ms, commit.time_ms()) {
            return Err(CommitError::OutsideGrant);
        }
        let everywhere = author.namespaces.iter().any(|pattern| pattern == "*");
        for change in &commit.changes {
            let named =
                !change.namespace.is_empty() && author.namespaces.contains(&change.namespace);
            if !everywhere && !named {
                return Err(CommitError::Namespace(change.namespace.clone()));
            }
        }
        let edit = edit_of(&commit, &signed.signer);
        commit.mesh_id = Vec::new();
        commit.author_grant = Vec::new();
        // Decoding leaves room for more of everything.
        commit.changes.shrink_to_fit();
        for change in &mut commit.changes {
            change.document = Vec::new();
            change.bases.shrink_to_fit();
        }
        let bytes =
            Bytes::of(signed, &written).ok_or(CommitError::Malformed("its grant is not in it"))?;
        Ok(Entry {
            id: CommitId(*blake3::hash(&signed.payload).as_bytes()),
            bytes,
            author,
            written,
            by,
            edit,
            commit,
        })
    }

    fn author_of(
        &self,
        commit: &Commit,
        rights: &Rights,
        verifier: &dyn Verifier,
    ) -> Result<Author, CommitError> {
        let known = self.grants.get_key_value(&*commit.author_grant);
        if let Some((written, (grant, by))) = known {
            return Ok((Arc::clone(written), Arc::clone(grant), *by));
        }
        let signed = Signed::decode(&*commit.author_grant)
            .map_err(|_bad| CommitError::Malformed("its grant does not decode"))?;
        let (grant, by) = rights
            .check_operator(&signed, verifier)
            .map_err(CommitError::Grant)?;
        Ok((Arc::from(&*commit.author_grant), Arc::new(grant), by))
    }

    pub(crate) fn insert(&mut self, entry: Entry) -> Touched {
        let mut touched = Touched::default();
        let id = entry.id;
        self.grants
            .entry(Arc::clone(&entry.written))
            .or_insert_with(|| (Arc::clone(&entry.author), entry.by));
        let same = self.by_edit.entry(slot_of(&entry)).or_default();
        if let Err(place) = same.binary_search(&id) {
            same.reserve_exact(1);
            same.insert(place, id);
        }
        let mut revoking = false;
        for change in &entry.commit.changes {
            let key = key_of(change);
            revoking |= key.kind == REVOCATION;
            self.by_resource.entry(key.clone()).or_default().insert(id);
            touched.resources.insert(key);
            if change.op() == Op::Confirm {
                for base in change
                    .bases
                    .iter()
                    .filter_map(|base| CommitId::from_slice(base))
                {
                    self.confirms.entry(base).or_default().insert(id);
                }
            }
        }
        self.sum.add(&id.0);
        self.all.insert(id, Arc::new(entry));
        if revoking {
            let revoked = Revoked::from_commits(self);
            touched.revocations = revoked != self.revoked;
            self.revoked = revoked;
        }
        touched
    }

    /// The document that a commit gives to a resource, when it reads as one.
    pub(crate) fn document(&self, id: &CommitId, index: usize) -> Option<Arc<Document>> {
        let documents = || {
            self.documents
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
        };
        let known = documents().get(*id, index);
        known.or_else(|| {
            let document = Arc::new(self.all.get(id)?.document(index, self.parse)?);
            documents().insert(*id, index, &document);
            Some(document)
        })
    }

    pub(crate) fn of_resource(&self, key: &ResourceKey) -> impl Iterator<Item = &Arc<Entry>> {
        self.by_resource
            .get(key)
            .into_iter()
            .flatten()
            .filter_map(|id| self.all.get(id))
    }

    /// True when a commit that is not void confirmed `id` for the resource in time.
    pub(crate) fn is_confirmed(&self, id: &CommitId, key: &ResourceKey, by_ms: u64) -> bool {
        self.confirms
            .get(id)
            .into_iter()
            .flatten()
            .filter_map(|id| self.all.get(id))
            .any(|confirm| {
                let named = confirm.commit.changes.iter().any(|change| {
                    change.op() == Op::Confirm
                        && key_of(change) == *key
                        && change.bases.iter().any(|base| *base == id.0)
                });
                named && confirm.commit.time_ms() <= by_ms && !self.is_void(confirm)
            })
    }
}

impl Entry {
    /// The document of a change, when it reads as one.
    pub(crate) fn document(
        &self,
        index: usize,
        parse: fn(&str) -> Option<Document>,
    ) -> Option<Document> {
        let change = self.commit.changes.get(index)?;
        let whole: Commit = crate::wire::decode(&self.signed().payload).ok()?;
        let text = &whole.changes.get(index)?.document;
        let document = parse(std::str::from_utf8(text).ok()?)?;
        // A document that calls itself something else would be found under a false name.
        (document.key() == key_of(change)).then_some(document)
    }
}

/// The operator and the id that it gave to an edit.
fn slot_of(entry: &Entry) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&entry.author.key);
    hasher.update(&entry.commit.edit_id);
    *hasher.finalize().as_bytes()
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
mod tests {
    use super::*;

    fn rebuilt(payload: &[u8], grant: &[u8]) -> Option<Vec<u8>> {
        let signed = Signed {
            payload: payload.to_vec(),
            ..Signed::default()
        };
        let bytes = Bytes::of(&signed, grant)?;
        Some([&*bytes.before, grant, &*bytes.after].concat())
    }

    #[test]
    fn a_payload_is_what_it_was_wherever_its_grant_stands() {
        for payload in ["grantab", "agrantb", "abgrant", "grant", "grantgrantb"] {
            let payload = payload.as_bytes();
            assert_eq!(rebuilt(payload, b"grant").as_deref(), Some(payload));
        }
        assert_eq!(rebuilt(b"ab", b"").as_deref(), Some(&b"ab"[..]));
        assert_eq!(rebuilt(b"gran", b"grant"), None);
        assert_eq!(rebuilt(b"grunt", b"grant"), None);
    }

    #[test]
    fn documents_that_nobody_holds_are_forgotten() {
        let document = || Arc::new(crate::sim::operator::parse("service default words a").unwrap());
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
}
