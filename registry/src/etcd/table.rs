//! What stands under a prefix of etcd: every key's last value that could be understood. Pure.
//!
//! In: whole reads and single events, in the order of revisions. Out: which services changed, and their
//! whole sets. Never: drops a key because its newest value cannot be understood; takes an older revision
//! for a newer one; makes one service of two that etcd tells apart.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use mesh_model::{
    endpoint::{Locality, ServiceKey},
    name::ServiceName,
};

use super::layout::{Fault, Layout, Place};
use crate::sink::ServiceSet;

/// Most keys that are read.
pub(crate) const MAX_KEYS: usize = 1_000_000;
/// Most keys without a service that are told apart, so that each is counted once.
const MAX_FOREIGN: usize = 10_000;

/// Most different metadata, and places, that endpoints share.
const MAX_SHARED: usize = 4_096;

/// One key, as etcd answers it.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) key: Vec<u8>,
    pub(crate) value: Vec<u8>,
    /// Of its last change.
    pub(crate) revision: i64,
}

#[derive(Debug)]
struct Known {
    revision: i64,
    /// The last value that could be understood.
    good: Option<Box<[u8]>>,
    /// The newest value could not.
    faulty: bool,
}

#[derive(Debug, Default)]
struct Group {
    /// The service as etcd writes it.
    written: Box<str>,
    keys: BTreeMap<Box<str>, Known>,
}

/// What is known of a service.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Content {
    /// Its set.
    Set(ServiceSet),
    /// It has keys, and none of them was ever understood.
    Unreadable,
    /// It has no key.
    Gone,
}

/// What an event did.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Effect {
    /// The service that is another one now.
    pub(crate) changed: Option<ServiceKey>,
    /// The value or the key could not be understood.
    pub(crate) unreadable: bool,
}

/// What a whole read did.
#[derive(Debug, Default)]
pub(crate) struct Swept {
    /// Every service that has keys.
    pub(crate) services: Vec<(ServiceKey, Content)>,
    /// Keys and values that could not be understood and were not counted before.
    pub(crate) unreadable: usize,
    /// It differs from what the events had told.
    pub(crate) differs: bool,
}

/// The keys of one prefix.
#[derive(Debug)]
pub(crate) struct Table {
    layout: Layout,
    only: Option<Arc<BTreeSet<ServiceName>>>,
    services: BTreeMap<ServiceKey, Group>,
    foreign: BTreeMap<Box<[u8]>, i64>,
    shared: Shared,
    /// Keys that live on an older value, and what is wrong with one of them.
    aged: usize,
    complaint: Option<String>,
}

impl Table {
    /// Without keys. `only` names the services that count.
    pub(crate) fn new(layout: Layout, only: Option<Arc<BTreeSet<ServiceName>>>) -> Self {
        Self {
            layout,
            only,
            services: BTreeMap::new(),
            foreign: BTreeMap::new(),
            shared: Shared::default(),
            aged: 0,
            complaint: None,
        }
    }

    /// How the keys are written.
    pub(crate) fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Why part of it is older than etcd has it; `None` when nothing is.
    pub(crate) fn aged(&self) -> Option<String> {
        let example = self.complaint.as_deref().unwrap_or_default();
        (self.aged > 0).then(|| {
            format!(
                "{} values cannot be understood, such as {example}",
                self.aged
            )
        })
    }

    /// A key has this value now.
    pub(crate) fn put(&mut self, entry: &Entry) -> Effect {
        let Some(place) = self.layout.place(&entry.key) else {
            return self.strange(entry);
        };
        if !self.counts(&place) {
            return Effect::default();
        }
        let group = self.services.entry(place.service.clone()).or_default();
        if group.keys.is_empty() {
            group.written.clone_from(&place.written);
        } else if group.written != place.written {
            return self.strange(entry);
        }
        let (layout, old) = (&self.layout, group.keys.get(&place.id));
        if old.is_some_and(|known| known.revision >= entry.revision) {
            return Effect::default();
        }
        let was_aged = old.is_some_and(Known::is_aged);
        let fault = layout.read(&place.id, &entry.value).err();
        let good = match fault {
            None => Some(Box::from(&*entry.value)),
            Some(_) => group.keys.remove(&place.id).and_then(|known| known.good),
        };
        let known = Known {
            revision: entry.revision,
            good,
            faulty: fault.is_some(),
        };
        let is_aged = known.is_aged();
        group.keys.insert(place.id, known);
        self.aged = self.aged + usize::from(is_aged) - usize::from(was_aged);
        let unreadable = fault.is_some();
        if let Some(fault) = fault {
            self.complain(&entry.key, &fault);
        }
        Effect {
            changed: (!unreadable).then_some(place.service),
            unreadable,
        }
    }

    /// A key is gone since this revision.
    pub(crate) fn delete(&mut self, key: &[u8], revision: i64) -> Effect {
        let Some(place) = self.layout.place(key) else {
            self.foreign.remove(key);
            return Effect::default();
        };
        let Some(group) = self.services.get_mut(&place.service) else {
            return Effect::default();
        };
        let known = group.keys.get(&place.id);
        if group.written != place.written || known.is_none_or(|known| known.revision >= revision) {
            return Effect::default();
        }
        if group
            .keys
            .remove(&place.id)
            .is_some_and(|known| known.is_aged())
        {
            self.aged -= 1;
        }
        if group.keys.is_empty() {
            self.services.remove(&place.service);
        }
        Effect {
            changed: Some(place.service),
            unreadable: false,
        }
    }

    /// What is known of a service.
    pub(crate) fn content(&self, service: &ServiceKey) -> Content {
        let Some(group) = self.services.get(service) else {
            return Content::Gone;
        };
        let mut set = None;
        for (id, known) in &group.keys {
            let read = known
                .good
                .as_deref()
                .and_then(|value| self.layout.read(id, value).ok());
            if let Some(mut read) = read {
                self.shared.apply(&mut read);
                join(set.get_or_insert_default(), read);
            }
        }
        set.map_or(Content::Unreadable, Content::Set)
    }

    /// Everything is as these entries say. A value that cannot be understood leaves the last good one.
    pub(crate) fn replace(&mut self, entries: Vec<Entry>) -> Swept {
        let mut old = std::mem::take(&mut self.services);
        let old_foreign = std::mem::take(&mut self.foreign);
        (self.aged, self.complaint) = (0, None);
        self.shared = Shared::default();
        let mut swept = Swept::default();
        let mut sets: BTreeMap<ServiceKey, Option<ServiceSet>> = BTreeMap::new();
        for entry in entries {
            let place = self.layout.place(&entry.key).filter(|place| {
                let group = self.services.get(&place.service);
                group.is_none_or(|group| group.written == place.written)
            });
            let Some(place) = place else {
                let news = old_foreign.get(&*entry.key) != Some(&entry.revision);
                swept.unreadable += usize::from(news);
                self.remember(entry.key, entry.revision);
                continue;
            };
            if !self.counts(&place) {
                continue;
            }
            let before = old
                .get_mut(&place.service)
                .and_then(|group| group.keys.remove(&place.id));
            let news = before
                .as_ref()
                .is_none_or(|known| known.revision != entry.revision);
            swept.differs |= news;
            let set = sets.entry(place.service.clone()).or_default();
            let (good, faulty) = match self.layout.read(&place.id, &entry.value) {
                Ok(mut read) => {
                    self.shared.learn(&read);
                    self.shared.apply(&mut read);
                    join(set.get_or_insert_default(), read);
                    (Some(entry.value.into_boxed_slice()), false)
                }
                Err(fault) => {
                    swept.unreadable += usize::from(news);
                    let good = before.and_then(|known| known.good);
                    if let Some(read) = good
                        .as_deref()
                        .and_then(|value| self.layout.read(&place.id, value).ok())
                    {
                        join(set.get_or_insert_default(), read);
                        self.aged += 1;
                    }
                    self.complain(&entry.key, &fault);
                    (good, true)
                }
            };
            let known = Known {
                revision: entry.revision,
                good,
                faulty,
            };
            let group = self.services.entry(place.service).or_default();
            group.written = place.written;
            group.keys.insert(place.id, known);
        }
        swept.differs |= old.values().any(|group| !group.keys.is_empty());
        swept.services = sets
            .into_iter()
            .map(|(service, set)| (service, set.map_or(Content::Unreadable, Content::Set)))
            .collect();
        swept
    }

    fn counts(&self, place: &Place) -> bool {
        self.only
            .as_deref()
            .is_none_or(|only| only.contains(&place.service.name))
    }

    /// A key that names no service: counted once per change.
    fn strange(&mut self, entry: &Entry) -> Effect {
        let news = self.foreign.get(&*entry.key) != Some(&entry.revision);
        self.remember(entry.key.clone(), entry.revision);
        Effect {
            changed: None,
            unreadable: news,
        }
    }

    fn remember(&mut self, key: Vec<u8>, revision: i64) {
        if self.foreign.len() < MAX_FOREIGN || self.foreign.contains_key(&*key) {
            self.foreign.insert(key.into_boxed_slice(), revision);
        }
    }

    fn complain(&mut self, key: &[u8], fault: &Fault) {
        let name: String = String::from_utf8_lossy(key).chars().take(120).collect();
        self.complaint = Some(format!("{name}: {fault}"));
    }
}

impl Known {
    /// True when the last good value stands in for a newer one.
    fn is_aged(&self) -> bool {
        self.faulty && self.good.is_some()
    }
}

/// What many endpoints have alike, kept once.
#[derive(Debug, Default)]
struct Shared {
    metadata: BTreeSet<Arc<BTreeMap<String, String>>>,
    places: BTreeSet<Arc<Locality>>,
}

impl Shared {
    fn learn(&mut self, set: &ServiceSet) {
        for endpoint in &set.endpoints {
            if self.metadata.len() < MAX_SHARED && !self.metadata.contains(&*endpoint.metadata) {
                self.metadata.insert(Arc::clone(&endpoint.metadata));
            }
            let place = endpoint.locality.as_ref();
            if let Some(place) = place.filter(|place| !self.places.contains(&***place))
                && self.places.len() < MAX_SHARED
            {
                self.places.insert(Arc::clone(place));
            }
        }
    }

    fn apply(&self, set: &mut ServiceSet) {
        for endpoint in &mut set.endpoints {
            if let Some(known) = self.metadata.get(&*endpoint.metadata) {
                endpoint.metadata = Arc::clone(known);
            }
            let place = endpoint.locality.as_deref();
            if let Some(known) = place.and_then(|place| self.places.get(place)) {
                endpoint.locality = Some(Arc::clone(known));
            }
        }
    }
}

/// Endpoints add up; the first that names port and protocol of the service decides them.
fn join(set: &mut ServiceSet, more: ServiceSet) {
    if set.port == 0 {
        set.port = more.port;
    }
    if set.protocol == mesh_model::service::AppProtocol::default() {
        set.protocol = more.protocol;
    }
    set.endpoints.extend(more.endpoints);
}

#[cfg(test)]
mod tests;
