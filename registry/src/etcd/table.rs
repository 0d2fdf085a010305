//! What stands under a prefix of etcd: what every key's last good value said. Pure.
//!
//! In: whole reads, page by page, and single events, in the order of revisions. Out: which services changed,
//! and their whole sets. Never: drops a key because its newest value cannot be understood; takes an older
//! revision for a newer one; makes one service of two that etcd tells apart; keeps values.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use mesh_model::{endpoint::ServiceKey, name::ServiceName};

use super::layout::{Fault, Layout, Place};
use crate::sink::ServiceSet;

/// The keys of each service.
mod groups;

use groups::{Groups, Known, Shared, joined};

/// Most keys that are read.
pub(crate) const MAX_KEYS: i64 = 1_000_000;
/// Most keys without a service that are told apart, so that each is counted once.
const MAX_FOREIGN: usize = 10_000;

/// One key, as etcd answers it.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) key: Vec<u8>,
    pub(crate) value: Vec<u8>,
    /// Of its last change.
    pub(crate) revision: i64,
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

/// A whole read in the making. Nothing of it counts before [`Table::replace`].
#[derive(Debug, Default)]
pub(crate) struct Reading {
    groups: Groups,
    /// Services with values that cannot be understood.
    faulty: BTreeSet<ServiceKey>,
    foreign: BTreeMap<Box<[u8]>, i64>,
    shared: Shared,
    complaint: Option<String>,
    unreadable: usize,
}

/// What a whole read did.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Swept {
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
    groups: Groups,
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
            groups: Groups::default(),
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
        let written = self.groups.written(&place.service);
        if written.is_some_and(|written| *written != *place.written) {
            return self.strange(entry);
        }
        let keys = self.groups.opened(&place.service, &place.written);
        let old = keys.get(&place.id);
        if old.is_some_and(|known| known.revision >= entry.revision) {
            return Effect::default();
        }
        let was_aged = old.is_some_and(Known::is_aged);
        let (good, fault) = match self.layout.read(&place.id, &entry.value) {
            Ok(mut read) => {
                self.shared.apply(&mut read);
                (Some(read), None)
            }
            Err(fault) => {
                let good = keys.remove(&place.id).and_then(|known| known.good);
                (good, Some(fault))
            }
        };
        let known = Known {
            revision: entry.revision,
            good,
            faulty: fault.is_some(),
        };
        self.aged = self.aged + usize::from(known.is_aged()) - usize::from(was_aged);
        keys.insert(place.id, known);
        let unreadable = fault.is_some();
        if let Some(fault) = fault {
            self.complaint = Some(complaint(&entry.key, &fault));
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
        if self.groups.written(&place.service) != Some(&*place.written) {
            return Effect::default();
        }
        let keys = self.groups.opened(&place.service, &place.written);
        let known = keys.get(&place.id);
        if known.is_none_or(|known| known.revision >= revision) {
            return Effect::default();
        }
        let removed = keys.remove(&place.id);
        if keys.is_empty() {
            self.groups.forget(&place.service);
        }
        self.aged -= usize::from(removed.is_some_and(|known| known.is_aged()));
        Effect {
            changed: Some(place.service),
            unreadable: false,
        }
    }

    /// What is known of a service.
    pub(crate) fn content(&self, service: &ServiceKey) -> Content {
        match self.groups.keys(service) {
            None => Content::Gone,
            Some(keys) => joined(keys).map_or(Content::Unreadable, Content::Set),
        }
    }

    /// Every service that has keys, in order.
    pub(crate) fn services(&self) -> impl Iterator<Item = &ServiceKey> {
        self.groups.names()
    }

    /// No event is expected for a while: what is known takes as little as it can.
    pub(crate) fn rest(&mut self) {
        self.groups.close();
    }

    /// Takes an entry of a whole read.
    pub(crate) fn read(&self, entry: Entry, into: &mut Reading) {
        let place = self.layout.place(&entry.key).filter(|place| {
            let written = into.groups.written(&place.service);
            written.is_none_or(|written| *written == *place.written)
        });
        let Some(place) = place else {
            let news = self.foreign.get(&*entry.key) != Some(&entry.revision);
            into.unreadable += usize::from(news);
            remember(&mut into.foreign, entry.key, entry.revision);
            return;
        };
        if !self.counts(&place) {
            return;
        }
        let good = match self.layout.read(&place.id, &entry.value) {
            Ok(mut read) => {
                into.shared.apply(&mut read);
                Some(read)
            }
            Err(fault) => {
                into.faulty.insert(place.service.clone());
                into.complaint = Some(complaint(&entry.key, &fault));
                None
            }
        };
        let known = Known {
            revision: entry.revision,
            faulty: good.is_none(),
            good,
        };
        let keys = into.groups.opened(&place.service, &place.written);
        keys.insert(place.id, known);
    }

    /// Everything is as the whole read says. A value that cannot be understood leaves the last good one.
    pub(crate) fn replace(&mut self, mut new: Reading) -> Swept {
        new.groups.shrink();
        let mut swept = Swept {
            unreadable: new.unreadable,
            differs: !new.groups.has_revisions_of(&self.groups),
        };
        self.aged = 0;
        for service in new.faulty {
            let before = self.groups.keys(&service).unwrap_or_default();
            let keys = new.groups.opened(&service, "");
            for (id, known) in keys.iter_mut().filter(|(_, known)| known.faulty) {
                let old = before.get(id);
                let is_news = old.is_none_or(|old| old.revision != known.revision);
                swept.unreadable += usize::from(is_news);
                known.good = old.and_then(|old| old.good.clone());
                self.aged += usize::from(known.is_aged());
            }
        }
        new.groups.close();
        self.groups = new.groups;
        self.foreign = new.foreign;
        self.shared = new.shared;
        self.complaint = new.complaint;
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
        remember(&mut self.foreign, entry.key.clone(), entry.revision);
        Effect {
            changed: None,
            unreadable: news,
        }
    }
}

fn remember(foreign: &mut BTreeMap<Box<[u8]>, i64>, key: Vec<u8>, revision: i64) {
    if foreign.len() < MAX_FOREIGN || foreign.contains_key(&*key) {
        foreign.insert(key.into_boxed_slice(), revision);
    }
}

fn complaint(key: &[u8], fault: &Fault) -> String {
    let name: String = String::from_utf8_lossy(key).chars().take(120).collect();
    format!("{name}: {fault}")
}

#[cfg(test)]
mod tests;
