//! The keys of each service: packed while nothing happens to them, open while something does. Pure.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use mesh_model::endpoint::{Locality, ServiceKey};

use crate::{
    packed::{Packed, Writer},
    sink::ServiceSet,
};

/// Most services that are open at a time.
const MAX_OPEN: usize = if cfg!(test) { 2 } else { 64 };
/// Most different metadata, and places, that endpoints share.
const MAX_SHARED: usize = 4_096;

/// What is known of one key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Known {
    pub(super) revision: i64,
    /// What the last value said that could be understood.
    pub(super) good: Option<ServiceSet>,
    /// The newest value could not.
    pub(super) faulty: bool,
}

impl Known {
    /// True when the last good value stands in for a newer one.
    pub(super) fn is_aged(&self) -> bool {
        self.faulty && self.good.is_some()
    }
}

/// The keys of a service, by their ids.
pub(super) type Keys = BTreeMap<Box<str>, Known>;

/// A service.
#[derive(Debug)]
struct Group {
    /// As etcd writes it.
    written: Box<str>,
    /// Its keys; while it is open, as they were before.
    keys: Packed,
}

/// The keys of all services. None is without keys.
#[derive(Debug, Default)]
pub(super) struct Groups {
    all: BTreeMap<ServiceKey, Group>,
    open: BTreeMap<ServiceKey, Keys>,
}

impl Groups {
    /// Their names, in order.
    pub(super) fn names(&self) -> impl Iterator<Item = &ServiceKey> {
        self.all.keys()
    }

    /// As etcd writes the service; `None` when it has no key.
    pub(super) fn written(&self, service: &ServiceKey) -> Option<&str> {
        self.all.get(service).map(|group| &*group.written)
    }

    /// The keys of a service, for a look; `None` when it has none.
    pub(super) fn keys(&self, service: &ServiceKey) -> Option<Keys> {
        let open = self.open.get(service).cloned();
        open.or_else(|| self.all.get(service).map(|group| unpacked(&group.keys)))
    }

    /// The keys of a service, to be changed; made when it has none. They are packed by [`Groups::close`].
    pub(super) fn opened(&mut self, service: &ServiceKey, written: &str) -> &mut Keys {
        if !self.open.contains_key(service) && self.open.len() >= MAX_OPEN {
            self.close();
        }
        let group = self.all.entry(service.clone()).or_insert_with(|| Group {
            written: Box::from(written),
            keys: Packed::default(),
        });
        let open = self.open.entry(service.clone());
        open.or_insert_with(|| unpacked(&group.keys))
    }

    /// True when both have the same keys, each of the same revision.
    pub(super) fn has_revisions_of(&self, other: &Self) -> bool {
        let same = |service: &ServiceKey| {
            let (Some(mine), Some(theirs)) = (self.keys(service), other.keys(service)) else {
                return false;
            };
            let mine = mine.iter().map(|(id, known)| (id, known.revision));
            mine.eq(theirs.iter().map(|(id, known)| (id, known.revision)))
        };
        self.all.len() == other.all.len() && self.names().all(same)
    }

    /// A service has no key any more.
    pub(super) fn forget(&mut self, service: &ServiceKey) {
        self.open.remove(service);
        self.all.remove(service);
    }

    /// Packs what is open.
    pub(super) fn close(&mut self) {
        for (service, keys) in std::mem::take(&mut self.open) {
            if let Some(group) = self.all.get_mut(&service) {
                group.keys = packed(&keys);
            }
        }
    }

    /// Packed, and without room for more: a map into which many came in order is half empty.
    pub(super) fn shrink(&mut self) {
        self.close();
        self.all = std::mem::take(&mut self.all).into_iter().collect();
    }
}

/// The set of a service, by all its keys; `None` when none of them was ever understood.
pub(super) fn joined(keys: Keys) -> Option<ServiceSet> {
    let mut set: Option<ServiceSet> = None;
    for good in keys.into_values().filter_map(|known| known.good) {
        match &mut set {
            None => set = Some(good),
            Some(set) => join(set, good),
        }
    }
    set
}

fn packed(keys: &Keys) -> Packed {
    let mut writer = Writer::default();
    for (id, known) in keys {
        let flags = u64::from(known.faulty) | u64::from(known.good.is_some()) << 1;
        writer.text(id);
        writer.number(known.revision.cast_unsigned());
        writer.number(flags);
        if let Some(good) = &known.good {
            writer.set(good, id);
        }
    }
    writer.end()
}

fn unpacked(packed: &Packed) -> Keys {
    let mut reader = packed.reader();
    let mut next = || {
        let id = reader.text()?;
        let revision = reader.number()?.cast_signed();
        let flags = reader.number()?;
        let good = match flags & 2 {
            0 => None,
            _ => Some(reader.set(id)?),
        };
        let known = Known {
            revision,
            good,
            faulty: flags & 1 != 0,
        };
        Some((Box::from(id), known))
    };
    std::iter::from_fn(&mut next).collect()
}

/// Endpoints add up; the first that names port and protocol of the service decides them.
pub(super) fn join(set: &mut ServiceSet, more: ServiceSet) {
    if set.port == 0 {
        set.port = more.port;
    }
    if set.protocol == mesh_model::service::AppProtocol::default() {
        set.protocol = more.protocol;
    }
    set.endpoints.extend(more.endpoints);
}

/// What many endpoints have alike, kept once.
#[derive(Debug, Default)]
pub(super) struct Shared {
    metadata: BTreeSet<Arc<BTreeMap<String, String>>>,
    places: BTreeSet<Arc<Locality>>,
}

impl Shared {
    /// Gives the endpoints what was met before, and remembers what was not.
    pub(super) fn apply(&mut self, set: &mut ServiceSet) {
        for endpoint in &mut set.endpoints {
            if let Some(known) = self.metadata.get(&*endpoint.metadata) {
                endpoint.metadata = Arc::clone(known);
            } else if self.metadata.len() < MAX_SHARED {
                self.metadata.insert(Arc::clone(&endpoint.metadata));
            }
            let Some(place) = &mut endpoint.locality else {
                continue;
            };
            if let Some(known) = self.places.get(&**place) {
                *place = Arc::clone(known);
            } else if self.places.len() < MAX_SHARED {
                self.places.insert(Arc::clone(place));
            }
        }
    }
}
