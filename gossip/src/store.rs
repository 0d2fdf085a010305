//! What each host says of itself: its newest signed head and the records under it.
//!
//! A head is kept only together with records that give its root, so a relay can neither alter, drop nor
//! mix. Heads are ordered by `(incarnation, seq)`, then by hash: merging is commutative, associative and
//! idempotent. A record that is absent under the newest root is gone; there are no tombstones.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use mesh_model::{
    fact::{HostHead, Record},
    grant::{HostGrant, Signed, domain},
    name::{HostId, MeshId},
};
use prost::Message;

use crate::{
    config::{Config, millis},
    rights::first16,
    signing::Verifier,
    wire::HostUpdate,
};

/// BLAKE3 over all records in key order: for each the length of the key (4, little endian), the key, the
/// kind (4), the length of the body (4), the body.
#[expect(
    single_use_lifetimes,
    reason = "anonymous lifetimes in impl Trait are not stable"
)]
pub fn root_of<'a>(records: impl IntoIterator<Item = &'a Record>) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    let length = |bytes: usize| u32::try_from(bytes).unwrap_or(u32::MAX).to_le_bytes();
    for record in records {
        hasher.update(&length(record.key.len()));
        hasher.update(record.key.as_bytes());
        hasher.update(&record.kind.to_le_bytes());
        hasher.update(&length(record.body.len()));
        hasher.update(&record.body);
    }
    *hasher.finalize().as_bytes()
}

/// Why a head is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HeadError {
    /// It does not decode, or ids do not fit.
    #[error("the head is malformed")]
    Malformed,
    /// The host has no grant that is in force.
    #[error("the host has no grant that is in force")]
    NoGrant,
    /// The signature does not fit the key of the host's grant.
    #[error("the head is not signed by its host")]
    Signature,
    /// The records do not give the head's root.
    #[error("the records do not give the head's root")]
    Root,
    /// More records or bytes than a host may have.
    #[error("the host has more records than it may")]
    Quota,
    /// Signed too long ago, or absurdly far ahead.
    #[error("the head is outside of its retention")]
    Retention,
}

/// What became of an update.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It is the newest now.
    Applied,
    /// It is the newest now, and proves that two keepers of one key speak differently.
    AppliedEquivocation,
    /// Ours is as new or newer.
    Known,
    /// Ours stays, and the update proves that two keepers of one key speak differently.
    Equivocation,
    /// It is newer, but based on a head that we do not have.
    NeedFull,
}

/// What changed from one head to the next.
#[derive(Debug, Clone)]
struct Diff {
    base: (u32, u64),
    upserts: Vec<Record>,
    deletes: Vec<String>,
}

/// A host's newest head and records.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) signed: Signed,
    pub(crate) head: Arc<HostHead>,
    pub(crate) id: [u8; 16],
    pub(crate) records: BTreeMap<String, Record>,
    pub(crate) received_ms: u64,
    bytes: usize,
    diff: Option<Diff>,
}

/// A host as kept on disk.
#[derive(Clone, PartialEq, Message)]
struct StoredHost {
    #[prost(message, optional, tag = "1")]
    head: Option<Signed>,
    #[prost(message, repeated, tag = "2")]
    records: Vec<Record>,
}

/// Limits that receivers enforce.
#[derive(Debug, Clone, Copy)]
struct Limits {
    records: usize,
    bytes: usize,
    retention: Duration,
}

/// All hosts.
#[derive(Debug)]
pub struct Hosts {
    mesh: MeshId,
    limits: Limits,
    entries: BTreeMap<HostId, Entry>,
    equivocations: BTreeMap<HostId, (Signed, Signed)>,
}

/// Records below this size are always sent whole.
const WHOLE_BELOW: usize = 4096;

fn size(records: &BTreeMap<String, Record>) -> usize {
    records
        .values()
        .map(|record| record.key.len() + record.body.len() + 16)
        .sum()
}

impl Entry {
    pub(crate) fn version(&self) -> (u32, u64) {
        (self.head.incarnation, self.head.seq)
    }
    fn rank(&self) -> (u32, u64, [u8; 16]) {
        (self.head.incarnation, self.head.seq, self.id)
    }
    /// The entry as it travels: whole, or as a step from the head before.
    pub(crate) fn update(&self, whole: bool) -> HostUpdate {
        let head = Some(self.signed.clone());
        match &self.diff {
            Some(diff) if !whole && self.bytes > WHOLE_BELOW => HostUpdate {
                head,
                full: false,
                base_incarnation: diff.base.0,
                base_seq: diff.base.1,
                upserts: diff.upserts.clone(),
                deletes: diff.deletes.clone(),
            },
            _ => HostUpdate {
                head,
                full: true,
                upserts: self.records.values().cloned().collect(),
                ..HostUpdate::default()
            },
        }
    }
    /// The item by which hosts compare: host 16, incarnation 4, seq 8, hash 8.
    pub(crate) fn item(&self, host: HostId) -> Vec<u8> {
        let mut item = host.0.to_vec();
        item.extend(self.head.incarnation.to_be_bytes());
        item.extend(self.head.seq.to_be_bytes());
        item.extend(self.id.iter().take(8));
        item
    }
    /// The row on disk.
    pub(crate) fn row(&self) -> Vec<u8> {
        let records = self.records.values().cloned().collect();
        StoredHost {
            head: Some(self.signed.clone()),
            records,
        }
        .encode_to_vec()
    }
}

/// An update from a row on disk.
pub(crate) fn from_row(bytes: &[u8]) -> Option<HostUpdate> {
    let stored = StoredHost::decode(bytes).ok()?;
    Some(HostUpdate {
        head: stored.head,
        full: true,
        upserts: stored.records,
        ..HostUpdate::default()
    })
}

/// The host that an update speaks of.
pub(crate) fn host_of(update: &HostUpdate) -> Option<(HostId, HostHead)> {
    let head = HostHead::decode(&*update.head.as_ref()?.payload).ok()?;
    Some((HostId::from_slice(&head.host_id)?, head))
}

impl Hosts {
    /// No hosts yet.
    pub fn new(mesh: MeshId, config: &Config) -> Self {
        let limits = Limits {
            records: config.max_records,
            bytes: config.max_record_bytes,
            retention: config.retention,
        };
        Self {
            mesh,
            limits,
            entries: BTreeMap::new(),
            equivocations: BTreeMap::new(),
        }
    }

    /// Takes an update when it is signed by its host, complete, and newer than ours.
    pub fn accept(
        &mut self,
        update: &HostUpdate,
        grant: Option<&HostGrant>,
        verifier: &dyn Verifier,
        now_ms: u64,
    ) -> Result<Outcome, HeadError> {
        let (host, head) = host_of(update).ok_or(HeadError::Malformed)?;
        let signed = update.head.as_ref().ok_or(HeadError::Malformed)?;
        let id = first16(&blake3::hash(&signed.payload));
        let ours = self.entries.get(&host);
        let rank = (head.incarnation, head.seq, id);
        let same_version = ours.is_some_and(|ours| ours.version() == (head.incarnation, head.seq));
        if ours.is_some_and(|ours| ours.rank() >= rank && (ours.id == id || !same_version)) {
            return Ok(Outcome::Known);
        }
        let grant = grant.ok_or(HeadError::NoGrant)?;
        self.check_head(&head, signed, grant, verifier, now_ms)?;
        if same_version {
            let first = ours.map(|ours| ours.signed.clone()).unwrap_or_default();
            self.equivocations.insert(host, (first, signed.clone()));
        }
        let ours = self.entries.get(&host);
        if ours.is_some_and(|ours| ours.rank() >= rank) {
            return Ok(Outcome::Equivocation);
        }
        let Some(records) = assemble(update, ours) else {
            return Ok(Outcome::NeedFull);
        };
        let bytes = size(&records);
        if records.len() > self.limits.records || bytes > self.limits.bytes {
            return Err(HeadError::Quota);
        }
        if root_of(records.values()) != *head.root {
            // A step that does not fit ours may still be right for others: ask for the whole.
            return if update.full {
                Err(HeadError::Root)
            } else {
                Ok(Outcome::NeedFull)
            };
        }
        self.put(host, head, signed.clone(), records, now_ms);
        Ok(if same_version {
            Outcome::AppliedEquivocation
        } else {
            Outcome::Applied
        })
    }

    fn check_head(
        &self,
        head: &HostHead,
        signed: &Signed,
        grant: &HostGrant,
        verifier: &dyn Verifier,
        now_ms: u64,
    ) -> Result<(), HeadError> {
        if head.mesh_id != self.mesh.0 || head.root.len() != 32 || head.commits.len() != 16 {
            return Err(HeadError::Malformed);
        }
        let keep = millis(self.limits.retention);
        if head.signed_ms.saturating_add(keep) < now_ms
            || head.signed_ms > now_ms.saturating_add(keep)
        {
            return Err(HeadError::Retention);
        }
        if signed.signer != grant.ed25519 || !verifier.verify(domain::HEAD, signed) {
            return Err(HeadError::Signature);
        }
        Ok(())
    }

    /// Puts a head that is known to be good.
    pub(crate) fn put(
        &mut self,
        host: HostId,
        head: HostHead,
        signed: Signed,
        records: BTreeMap<String, Record>,
        now_ms: u64,
    ) {
        let old = self.entries.remove(&host);
        let diff = old.map(|old| Diff {
            base: old.version(),
            upserts: records
                .values()
                .filter(|record| old.records.get(&record.key) != Some(record))
                .cloned()
                .collect(),
            deletes: old
                .records
                .keys()
                .filter(|key| !records.contains_key(*key))
                .cloned()
                .collect(),
        });
        let id = first16(&blake3::hash(&signed.payload));
        let bytes = size(&records);
        let entry = Entry {
            signed,
            head: Arc::new(head),
            id,
            records,
            received_ms: now_ms,
            bytes,
            diff,
        };
        self.entries.insert(host, entry);
    }

    /// Forgets heads that are older than the retention, whatever their clocks said; the hosts.
    pub(crate) fn expire(&mut self, own: HostId, now_ms: u64) -> Vec<HostId> {
        let keep = millis(self.limits.retention);
        let old: Vec<HostId> = self
            .entries
            .iter()
            .filter(|(host, entry)| {
                let since = entry.head.signed_ms.min(entry.received_ms);
                **host != own && since.saturating_add(keep) < now_ms
            })
            .map(|(host, _)| *host)
            .collect();
        for host in &old {
            self.entries.remove(host);
            self.equivocations.remove(host);
        }
        old
    }

    pub(crate) fn get(&self, host: HostId) -> Option<&Entry> {
        self.entries.get(&host)
    }
    pub(crate) fn iter(&self) -> impl Iterator<Item = (HostId, &Entry)> {
        self.entries.iter().map(|(host, entry)| (*host, entry))
    }
    /// Hosts whose key was seen to sign two heads under one number, with both heads as proof.
    pub fn equivocations(&self) -> impl Iterator<Item = (HostId, &(Signed, Signed))> {
        self.equivocations
            .iter()
            .map(|(host, proof)| (*host, proof))
    }
    /// Version and hash of every head, in host order: equal on hosts that agree.
    pub fn versions(&self) -> Vec<(HostId, u32, u64, [u8; 16])> {
        self.iter()
            .map(|(host, entry)| (host, entry.head.incarnation, entry.head.seq, entry.id))
            .collect()
    }
}

fn assemble(update: &HostUpdate, ours: Option<&Entry>) -> Option<BTreeMap<String, Record>> {
    let mut records = if update.full {
        BTreeMap::new()
    } else {
        let ours =
            ours.filter(|ours| ours.version() == (update.base_incarnation, update.base_seq))?;
        ours.records.clone()
    };
    for key in &update.deletes {
        records.remove(key);
    }
    for record in &update.upserts {
        records.insert(record.key.clone(), record.clone());
    }
    Some(records)
}
