//! A commit that was checked, in as few bytes as it can be kept: history is kept for ever.
//!
//! In: what was signed, and what it decoded to. Out: the very bytes that were signed, and by decoding them
//! again whatever is asked for seldom. Held ready is only what working out a value needs.

use std::{borrow::Borrow, cmp::Ordering, sync::Arc};

use mesh_model::{
    catalog::ResourceKey,
    commit::{Commit, CommitId, Op},
    document::Document,
    grant::{OperatorGrant, Signed},
    name::HostId,
};

/// An operator's grant as it stands in commits, checked: most commits share one.
#[derive(Debug)]
pub(crate) struct Author {
    /// As it is written in commits.
    pub(super) written: Box<[u8]>,
    pub(crate) grant: OperatorGrant,
    /// Host of the authority that gave it.
    pub(crate) by: HostId,
}

/// What a commit does to one resource.
#[derive(Debug)]
pub(crate) struct Step {
    /// The resource; commits of one share it.
    pub(crate) key: Arc<ResourceKey>,
    /// Revisions on which it is based.
    pub(crate) bases: Box<[CommitId]>,
    pub(crate) op: Op,
}

/// Where commits that claim to be one edit stand together, in order of their ids.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    /// The beginning of a hash over the operator and the edit's id: others may share it.
    pub(super) slot: u64,
    pub(super) id: CommitId,
}

/// A commit that was checked.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(super) place: Place,
    /// Equal for commits that are one edit sent twice.
    pub(crate) edit: [u8; 32],
    /// The author's clock.
    pub(crate) hlc: u64,
    /// When not 0: the commit undoes itself then unless it is confirmed before.
    pub(crate) confirm_by_ms: u64,
    pub(crate) author: Arc<Author>,
    /// One for each change, in order.
    pub(crate) steps: Box<[Step]>,
    bytes: Bytes,
}

/// A commit's payload without the author's grant, then its signature.
#[derive(Debug)]
pub(super) struct Bytes {
    all: Box<[u8]>,
    /// Where the grant belongs.
    grant: u32,
    /// Where the signature begins.
    signature: u32,
}

impl Bytes {
    /// `None` when the grant is not in the payload.
    pub(super) fn of(signed: &Signed, grant: &[u8]) -> Option<Self> {
        // From the end: only a reason and numbers stand behind it.
        let at = match grant.len() {
            0 => 0,
            length => signed
                .payload
                .windows(length)
                .rposition(|part| part == grant)?,
        };
        let before = signed.payload.get(..at)?;
        let after = signed.payload.get(at + grant.len()..)?;
        Some(Self {
            all: [before, after, &signed.signature].concat().into(),
            grant: u32::try_from(at).ok()?,
            signature: u32::try_from(before.len() + after.len()).ok()?,
        })
    }

    /// Before the grant, after the grant, the signature.
    fn parts(&self) -> (&[u8], &[u8], &[u8]) {
        let at = |place: u32| usize::try_from(place).unwrap_or(usize::MAX);
        let signature = at(self.signature).min(self.all.len());
        let (payload, signature) = self.all.split_at(signature);
        let (before, after) = payload.split_at(at(self.grant).min(payload.len()));
        (before, after, signature)
    }

    pub(super) fn payload(&self, grant: &[u8]) -> Vec<u8> {
        let (before, after, _) = self.parts();
        [before, grant, after].concat()
    }
}

impl Entry {
    /// From a commit that was checked. `None` when the author's grant is not in the payload.
    pub(super) fn new(
        signed: &Signed,
        commit: &Commit,
        author: Arc<Author>,
        key: impl Fn(ResourceKey) -> Arc<ResourceKey>,
    ) -> Option<Self> {
        let steps = commit.changes.iter().map(|change| Step {
            key: key(super::key_of(change)),
            bases: change
                .bases
                .iter()
                .filter_map(|base| CommitId::from_slice(base))
                .collect(),
            op: change.op(),
        });
        Some(Self {
            place: Place {
                slot: slot_of(&signed.signer, &commit.edit_id),
                id: CommitId(*blake3::hash(&signed.payload).as_bytes()),
            },
            edit: super::edit_of(commit, &signed.signer),
            hlc: commit.hlc,
            confirm_by_ms: commit.confirm_by_ms,
            steps: steps.collect(),
            bytes: Bytes::of(signed, &author.written)?,
            author,
        })
    }

    pub(crate) fn id(&self) -> CommitId {
        self.place.id
    }
    /// Order of commits: the author's clock, then the hash.
    pub(crate) fn rank(&self) -> (u64, CommitId) {
        (self.hlc, self.id())
    }
    /// The author's clock in milliseconds since the epoch.
    pub(crate) fn time_ms(&self) -> u64 {
        self.hlc >> 16
    }
    /// As it was signed.
    pub(crate) fn signed(&self) -> Signed {
        Signed {
            payload: self.bytes.payload(&self.author.written),
            signature: self.bytes.parts().2.to_vec(),
            signer: self.author.grant.key.clone(),
        }
    }
    /// All that it says. It did decode: absent only if that were forgotten.
    pub(crate) fn whole(&self) -> Option<Commit> {
        crate::wire::decode(&self.bytes.payload(&self.author.written)).ok()
    }
    /// What it does to a resource, with the index of the change.
    pub(crate) fn step(&self, key: &ResourceKey) -> Option<(usize, &Step)> {
        let mut steps = self.steps.iter().enumerate();
        steps.find(|(_, step)| *step.key == *key)
    }
    /// The document of a change, when it reads as one.
    pub(crate) fn document(
        &self,
        index: usize,
        parse: fn(&str) -> Option<Document>,
    ) -> Option<Document> {
        self.document_in(&self.whole()?, index, parse)
    }
    /// The same of a commit that was decoded already.
    pub(crate) fn document_in(
        &self,
        whole: &Commit,
        index: usize,
        parse: fn(&str) -> Option<Document>,
    ) -> Option<Document> {
        let text = &whole.changes.get(index)?.document;
        let document = parse(std::str::from_utf8(text).ok()?)?;
        // A document that calls itself something else would be found under a false name.
        (document.key() == *self.steps.get(index)?.key).then_some(document)
    }
    /// Bytes that it holds beside its author and its resources, by what the allocator takes for a block.
    #[cfg(test)]
    pub(super) fn bytes_held(&self, block: fn(usize) -> usize) -> usize {
        let bases = |step: &Step| block(size_of_val(&*step.bases));
        // Shared: two counters stand before it.
        block(size_of::<Self>() + 16)
            + block(self.bytes.all.len())
            + block(size_of_val(&*self.steps))
            + self.steps.iter().map(bases).sum::<usize>()
    }
    /// True when both are of one operator, who gave them one edit id.
    pub(super) fn shares_edit_id(&self, other: &Self) -> bool {
        let edit_id = |entry: &Self| entry.whole().map(|commit| commit.edit_id);
        self.place.slot == other.place.slot
            && self.author.grant.key == other.author.grant.key
            && edit_id(self) == edit_id(other)
    }
}

/// The operator and the id that it gave to an edit.
fn slot_of(signer: &[u8], edit_id: &[u8]) -> u64 {
    let mut hasher = blake3::Hasher::new();
    hasher.update(signer);
    hasher.update(edit_id);
    let mut slot = [0; 8];
    hasher.finalize_xof().fill(&mut slot);
    u64::from_be_bytes(slot)
}

/// A commit in a set that is ordered by ids.
#[derive(Debug, Clone)]
pub(super) struct ById(pub(super) Arc<Entry>);

/// A commit in a set that is ordered by places.
#[derive(Debug, Clone)]
pub(super) struct ByPlace(pub(super) Arc<Entry>);

/// An author in a set that is ordered by what is written.
#[derive(Debug)]
pub(super) struct ByWritten(pub(super) Arc<Author>);

/// A set's member that is found by a part of itself.
macro_rules! ordered_by {
    ($member:ty, $key:ty, $of:expr) => {
        impl Borrow<$key> for $member {
            fn borrow(&self) -> &$key {
                let of: fn(&Self) -> &$key = $of;
                of(self)
            }
        }
        impl Ord for $member {
            fn cmp(&self, other: &Self) -> Ordering {
                Borrow::<$key>::borrow(self).cmp(Borrow::<$key>::borrow(other))
            }
        }
        impl PartialOrd for $member {
            fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
                Some(self.cmp(other))
            }
        }
        impl PartialEq for $member {
            fn eq(&self, other: &Self) -> bool {
                self.cmp(other).is_eq()
            }
        }
        impl Eq for $member {}
    };
}

ordered_by!(ById, CommitId, |member| &member.0.place.id);
ordered_by!(ByPlace, Place, |member| &member.0.place);
ordered_by!(ByWritten, [u8], |member| &member.0.written);

#[cfg(test)]
mod tests {
    use super::*;

    fn rebuilt(payload: &[u8], grant: &[u8]) -> Option<(Vec<u8>, Vec<u8>)> {
        let signed = Signed {
            payload: payload.to_vec(),
            signature: b"sign".to_vec(),
            ..Signed::default()
        };
        let bytes = Bytes::of(&signed, grant)?;
        Some((bytes.payload(grant), bytes.parts().2.to_vec()))
    }

    #[test]
    fn a_payload_is_what_it_was_wherever_its_grant_stands() {
        let whole = |payload: &[u8]| Some((payload.to_vec(), b"sign".to_vec()));
        for payload in ["grantab", "agrantb", "abgrant", "grant", "grantgrantb"] {
            let payload = payload.as_bytes();
            assert_eq!(rebuilt(payload, b"grant"), whole(payload));
        }
        assert_eq!(rebuilt(b"ab", b""), whole(b"ab"));
        assert_eq!(rebuilt(b"gran", b"grant"), None);
        assert_eq!(rebuilt(b"grunt", b"grant"), None);
    }
}
