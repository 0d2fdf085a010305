//! What a source reports: the whole set of one service, absence, a complete sync, its status.
//!
//! In: calls of one source, in the order of truth. Out: one `Batch` for the view, latest wins per service.
//! Never: blocks a source, grows beyond the limits, or applies a sync that was not committed.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, PoisonError},
};

use mesh_model::{endpoint::ServiceKey, name::Namespace};
use tokio::sync::Notify;

pub use crate::set::{MAX_ENDPOINTS, MAX_METADATA, ServiceSet};
use crate::{packed::Packed, status::SourceStatus, version::Version};

/// Most services of one source.
pub const MAX_SERVICES: usize = 100_000;
/// This many sets at a time are no burst.
const FEW: usize = 16;
/// A key that names its namespace, so that `web` and `default/web` are one service.
fn with_namespace(mut key: ServiceKey) -> ServiceKey {
    key.namespace.get_or_insert_with(Namespace::default);
    key
}

/// What is said of one service.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Update {
    /// This is its whole set.
    Replace(ServiceSet, Version),
    /// So it is by a complete list, which may be long.
    Listed(Packed, Version),
    /// The source says with authority that there is no such service.
    Absent(Version),
}

impl Update {
    fn version(&self) -> Version {
        match self {
            Self::Replace(_, version) | Self::Listed(_, version) | Self::Absent(version) => {
                *version
            }
        }
    }
}

/// Everything reported since the last look. Applied in this order: sweep, updates, status.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    /// After a committed sync: everything that is not named here is absent.
    pub(crate) seen: Option<BTreeSet<ServiceKey>>,
    /// Per service, the latest.
    pub(crate) updates: BTreeMap<ServiceKey, Update>,
    /// The latest status.
    pub(crate) status: Option<SourceStatus>,
    /// Services that could not be read, with the reason; `None` once they could.
    pub(crate) troubles: BTreeMap<ServiceKey, Option<String>>,
    /// Updates that were refused, with the reason.
    pub(crate) refused: Vec<String>,
    /// Changes that a sweep found although a watch should have told of them.
    pub(crate) drift: u64,
    /// Answers, files or entries that could not be understood.
    pub(crate) unreadable: u64,
}

impl Batch {
    fn is_empty(&self) -> bool {
        self.seen.is_none()
            && self.updates.is_empty()
            && self.status.is_none()
            && self.troubles.is_empty()
            && self.refused.is_empty()
            && self.drift == 0
            && self.unreadable == 0
    }

    fn put(&mut self, key: ServiceKey, update: Update) {
        let key = with_namespace(key);
        let older = self
            .updates
            .get(&key)
            .is_some_and(|known| update.version().is_older_than(known.version()));
        if older {
            return;
        }
        if self.updates.len() >= MAX_SERVICES && !self.updates.contains_key(&key) {
            self.refuse(format!("more than {MAX_SERVICES} services"));
            return;
        }
        self.updates.insert(key, update);
    }

    fn refuse(&mut self, reason: String) {
        if self.refused.len() < 16 {
            self.refused.push(reason);
        }
    }
}

#[derive(Debug, Default)]
struct Mailbox {
    batch: Mutex<Batch>,
    filled: Notify,
    recheck: Notify,
}

/// The reporting side, held by a source. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Sink(Arc<Mailbox>);

/// The reading side, held by the view's task.
#[derive(Debug)]
pub(crate) struct Outlet(Arc<Mailbox>);

impl Sink {
    /// A sink and its outlet.
    pub(crate) fn new() -> (Self, Outlet) {
        let mailbox = Arc::new(Mailbox::default());
        (Self(Arc::clone(&mailbox)), Outlet(mailbox))
    }

    /// The whole set of one service. A set beyond the limits is refused and the last good one stays.
    pub fn replace(&self, key: ServiceKey, set: impl Into<ServiceSet>, version: Version) {
        match set.into().normalised() {
            Ok(set) => self.with(|batch| batch.put(key, Update::Replace(set, version))),
            Err(reason) => self.with(|batch| batch.refuse(format!("{}: {reason}", key.name))),
        }
    }

    /// There is no such service, says the registry with authority. Removal is held as `hold.rs` says.
    pub fn absent(&self, key: &ServiceKey, version: Version) {
        self.with(|batch| batch.put(key.clone(), Update::Absent(version)));
    }

    /// Begins a complete list. Nothing of it counts before [`SyncGuard::commit`].
    pub fn begin_sync(&self) -> SyncGuard {
        SyncGuard {
            sink: self.clone(),
            sets: BTreeMap::new(),
            kept: BTreeSet::new(),
            refused: Vec::new(),
        }
    }

    /// Says how the source is doing.
    pub fn status(&self, status: SourceStatus) {
        self.with(|batch| batch.status = Some(status));
    }

    /// This service alone could not be read, or can be again: what is known of it stays, holds of its endpoints
    /// among it, and the source as a whole is as its status says.
    pub fn trouble(&self, key: &ServiceKey, error: Option<String>) {
        let key = with_namespace(key.clone());
        self.with(|batch| {
            batch.troubles.insert(key, error);
        });
    }

    /// A sweep found a change of which no watch had told.
    pub fn drifted(&self) {
        self.with(|batch| batch.drift = batch.drift.saturating_add(1));
    }

    /// Something could not be understood; the last good content of it stays.
    pub fn unreadable(&self) {
        self.with(|batch| batch.unreadable = batch.unreadable.saturating_add(1));
    }

    /// Resolves when the view doubts a removal and wants an authoritative read now.
    pub async fn recheck(&self) {
        self.0.recheck.notified().await;
    }

    fn with(&self, change: impl FnOnce(&mut Batch)) {
        change(&mut self.0.batch.lock().unwrap_or_else(PoisonError::into_inner));
        self.0.filled.notify_one();
    }
}

impl Outlet {
    /// Resolves when something was reported.
    pub(crate) async fn filled(&self) {
        self.0.filled.notified().await;
    }
    /// True when what was reported are single sets, a few, and all of them are such.
    pub(crate) fn all_few(&self, such: impl Fn(&ServiceKey, &ServiceSet) -> bool) -> bool {
        let batch = self.0.batch.lock().unwrap_or_else(PoisonError::into_inner);
        let is_such = |(key, update): (&ServiceKey, &Update)| match update {
            Update::Replace(set, _) => such(key, set),
            Update::Listed(..) | Update::Absent(_) => false,
        };
        batch.seen.is_none() && batch.updates.len() <= FEW && batch.updates.iter().all(is_such)
    }
    /// Takes what was reported; `None` when there is nothing.
    pub(crate) fn take(&self) -> Option<Batch> {
        let mut batch = self.0.batch.lock().unwrap_or_else(PoisonError::into_inner);
        (!batch.is_empty()).then(|| std::mem::take(&mut *batch))
    }
    /// Asks the source for an authoritative read.
    pub(crate) fn ask_again(&self) {
        self.0.recheck.notify_one();
    }
}

/// A complete list in the making. Dropped without commit, nothing has happened.
#[derive(Debug)]
#[must_use = "a sync that is not committed changes nothing"]
pub struct SyncGuard {
    sink: Sink,
    /// Each one [`Update::Listed`].
    sets: BTreeMap<ServiceKey, Update>,
    kept: BTreeSet<ServiceKey>,
    refused: Vec<String>,
}

impl SyncGuard {
    /// The whole set of one service.
    pub fn replace(&mut self, key: ServiceKey, set: impl Into<ServiceSet>, version: Version) {
        if self.sets.len() >= MAX_SERVICES {
            self.keep(key);
            return;
        }
        match set.into().normalised() {
            Ok(set) => {
                let set = Update::Listed(Packed::of(&set), version);
                self.sets.insert(with_namespace(key), set);
            }
            Err(reason) => {
                if self.refused.len() < 16 {
                    self.refused.push(format!("{}: {reason}", key.name));
                }
                self.keep(key);
            }
        }
    }

    /// The service exists and its content could not be read: what is known of it stays.
    pub fn keep(&mut self, key: ServiceKey) {
        self.kept.insert(with_namespace(key));
    }

    /// The list is complete: what it does not name is absent.
    pub fn commit(self) {
        let Self {
            sink,
            sets,
            mut kept,
            refused,
        } = self;
        sink.with(|batch| {
            batch.updates.retain(|key, _| kept.contains(key));
            kept.extend(sets.keys().cloned());
            batch.seen = Some(kept);
            if batch.updates.is_empty() {
                // There may be very many.
                batch.updates = sets;
            } else {
                for (key, set) in sets {
                    batch.put(key, set);
                }
            }
            for reason in refused {
                batch.refuse(reason);
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mesh_model::name::ServiceName;

    fn key(name: &str) -> ServiceKey {
        with_namespace(ServiceKey {
            namespace: None,
            name: ServiceName::new(name).unwrap(),
            port_name: None,
        })
    }

    #[test]
    fn the_latest_wins_and_older_is_dropped() {
        let (sink, outlet) = Sink::new();
        sink.replace(key("a"), Vec::new(), Version::Index(5));
        sink.absent(&key("a"), Version::Index(4));
        let batch = outlet.take().unwrap();
        assert!(matches!(
            batch.updates.get(&key("a")),
            Some(Update::Replace(_, Version::Index(5)))
        ));
        assert!(outlet.take().is_none());
    }

    #[test]
    fn a_sync_counts_only_when_committed() {
        let (sink, outlet) = Sink::new();
        let mut half = sink.begin_sync();
        half.replace(key("a"), Vec::new(), Version::Hash(1));
        drop(half);
        assert!(outlet.take().is_none());
        let mut whole = sink.begin_sync();
        whole.replace(key("b"), Vec::new(), Version::Hash(1));
        whole.keep(key("c"));
        whole.commit();
        let seen = outlet.take().unwrap().seen.unwrap();
        assert_eq!(seen, BTreeSet::from([key("b"), key("c")]));
    }

    #[test]
    fn a_sync_undoes_what_was_reported_before_it() {
        let (sink, outlet) = Sink::new();
        sink.replace(key("old"), Vec::new(), Version::Hash(1));
        sink.begin_sync().commit();
        sink.replace(key("new"), Vec::new(), Version::Hash(1));
        let batch = outlet.take().unwrap();
        assert_eq!(batch.updates.keys().collect::<Vec<_>>(), [&key("new")]);
    }
}
