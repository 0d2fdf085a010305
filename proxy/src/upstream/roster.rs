//! A backend's endpoints in order of preference, with what is computed from them once and shared by all workers.

use std::{
    ops::Range,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
};

use mesh_model::{
    endpoint::Locality,
    snapshot::{
        Backend, BackendEndpoint, EndpointKey, Map, TrafficPolicy,
        traffic::{Balance, LocalityPolicy},
    },
};

use super::{
    health::Health,
    outlier::{self, Tally},
};
use crate::balance::{
    maglev::Maglev,
    ring::{Ring, Seed},
};

/// Who of a backend may be picked now.
pub(crate) mod lots;

use lots::{Lots, Now};

/// One endpoint.
#[derive(Debug)]
pub(crate) struct Slot {
    /// The endpoint.
    pub(crate) endpoint: Arc<BackendEndpoint>,
    /// Its health.
    pub(crate) health: Arc<Health>,
}

/// Slots of equal preference.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Area {
    /// The slots; preferred ones first.
    pub(crate) slots: Range<u32>,
    /// Areas of the same level share what the level gets.
    pub(crate) level: usize,
    /// Relative share inside its level.
    pub(crate) share: u32,
}

/// The endpoints of one backend.
#[derive(Debug)]
pub(crate) struct Roster {
    backend: Arc<Backend>,
    /// Backends that this one replaced: who still holds one uses this.
    before: Vec<Weak<Backend>>,
    slots: Box<[Slot]>,
    areas: Box<[Area]>,
    /// By slot; empty unless the policy looks at all endpoints together.
    tallies: Box<[Arc<Tally>]>,
    by_key: OnceLock<Map<EndpointKey, u32>>,
    tables: OnceLock<Box<[Table]>>,
    tables_begun: AtomicBool,
    lots: Mutex<Arc<Lots>>,
}

/// The table of one area.
#[derive(Debug)]
pub(crate) enum Table {
    Ring(Ring),
    Maglev(Maglev),
}

impl Table {
    /// Slots for a key: its own first, then those that take over.
    pub(crate) fn walk(&self, hash: u64) -> impl Iterator<Item = u32> + '_ {
        let (ring, maglev) = match self {
            Self::Ring(ring) => (Some(ring.walk(hash)), None),
            Self::Maglev(maglev) => (None, Some(maglev.walk(hash))),
        };
        let ring = ring.into_iter().flatten();
        ring.chain(maglev.into_iter().flatten())
    }
}

/// Replaced backends that are remembered.
const REMEMBERED: usize = 4;
/// Points of a ring, entries and endpoints of Maglev's table beyond which they are made off the workers' threads.
const MANY_POINTS: u64 = 32_768;
const MANY_ENTRIES: u64 = 131_072;
const MANY: u64 = 1000;

impl Roster {
    /// Sorts a backend's endpoints. `health` finds an endpoint's; `before` is what this replaces.
    pub(crate) fn new(
        backend: Arc<Backend>,
        before: Option<&Self>,
        mut health: impl FnMut(EndpointKey) -> Arc<Health>,
    ) -> Self {
        let policy = &backend.policy;
        let (endpoints, areas) = sorted(&backend.endpoints, &policy.locality);
        let slots: Box<[Slot]> = endpoints
            .into_iter()
            .map(|endpoint| Slot {
                health: health(endpoint.key),
                endpoint,
            })
            .collect();
        let tallies = tallies(policy, &slots, before);
        let mut remembered = Vec::new();
        if let Some(before) = before {
            let other = |weak: &&Weak<Backend>| !std::ptr::eq(weak.as_ptr(), Arc::as_ptr(&backend));
            remembered.push(Arc::downgrade(&before.backend));
            remembered.extend(
                before
                    .before
                    .iter()
                    .filter(other)
                    .take(REMEMBERED - 1)
                    .cloned(),
            );
        }
        Self {
            before: remembered,
            slots,
            areas,
            tallies,
            by_key: OnceLock::new(),
            tables: OnceLock::new(),
            tables_begun: AtomicBool::new(false),
            lots: Mutex::default(),
            backend,
        }
    }

    /// What it was made from.
    pub(crate) fn backend(&self) -> &Arc<Backend> {
        &self.backend
    }

    /// How it is used.
    pub(crate) fn policy(&self) -> &TrafficPolicy {
        &self.backend.policy
    }

    /// True when it was made from this very backend, or replaced it of late.
    pub(crate) fn serves(&self, backend: &Arc<Backend>) -> bool {
        let same = |weak: &Weak<Backend>| std::ptr::eq(weak.as_ptr(), Arc::as_ptr(backend));
        self.is_of(backend) || self.before.iter().any(same)
    }

    /// True when it was made from this very backend.
    pub(crate) fn is_of(&self, backend: &Backend) -> bool {
        std::ptr::eq(Arc::as_ptr(&self.backend), backend)
    }

    /// The endpoints, best first.
    pub(crate) fn slots(&self) -> &[Slot] {
        &self.slots
    }

    /// The slot at an index.
    pub(crate) fn slot(&self, slot: u32) -> Option<&Slot> {
        self.slots.get(slot as usize)
    }

    /// Relative weight of a slot, at least 1.
    pub(crate) fn weight(&self, slot: u32) -> u32 {
        self.slot(slot)
            .map_or(1, |slot| slot.endpoint.weight.max(1))
    }

    /// Areas, best first.
    pub(crate) fn areas(&self) -> &[Area] {
        &self.areas
    }

    /// Tallies by slot; none unless the policy looks at all endpoints together.
    pub(crate) fn tallies(&self) -> &[Arc<Tally>] {
        &self.tallies
    }

    /// The slot of an endpoint.
    pub(crate) fn find(&self, key: EndpointKey) -> Option<u32> {
        let index = || {
            (0..)
                .zip(&self.slots)
                .map(|(slot, one)| (one.endpoint.key, slot))
        };
        self.by_key
            .get_or_init(|| index().collect())
            .get(&key)
            .copied()
    }

    /// Who may be picked now; computed at most once for each change of anybody's health.
    pub(crate) fn lots(&self, now: &Now) -> Arc<Lots> {
        let mut lots = lock(&self.lots);
        if lots.is_stale(self, now) {
            *lots = Arc::new(Lots::new(self, now));
        }
        Arc::clone(&lots)
    }

    /// The table of an area; `None` without consistent hashing, and while the table is being made.
    pub(crate) fn table(&self, area: usize) -> Option<&Table> {
        self.tables.get()?.get(area)
    }

    /// Makes the tables that the policy needs: at once when that is little work, else on another thread.
    /// False: they are not there yet.
    pub(crate) fn make_tables(self: &Arc<Self>) -> bool {
        let count = self.slots.len() as u64;
        let little = match self.policy().balance {
            Balance::RingHash {
                minimum_ring_size, ..
            } => Ring::points(count, minimum_ring_size) <= MANY_POINTS,
            Balance::Maglev { table_size, .. } => {
                count <= MANY && u64::from(table_size) <= MANY_ENTRIES
            }
            _ => return true,
        };
        if self.tables.get().is_some() {
            return true;
        }
        if little {
            self.fill_tables();
        } else if !self.tables_begun.swap(true, Relaxed) {
            let roster = Arc::clone(self);
            tokio::task::spawn_blocking(move || roster.fill_tables());
        }
        little
    }

    /// Makes the tables on this thread, whatever the work.
    #[cfg(test)]
    pub(crate) fn make_tables_here(&self) -> bool {
        self.fill_tables();
        self.tables.get().is_some_and(|tables| !tables.is_empty())
    }

    fn fill_tables(&self) {
        self.tables.get_or_init(|| {
            let tables = self.areas.iter().filter_map(|area| self.table_of(area));
            tables.collect()
        });
    }

    fn table_of(&self, area: &Area) -> Option<Table> {
        let slots = area.slots.start as usize..area.slots.end as usize;
        let seeds = self.seeds(slots);
        Some(match self.policy().balance {
            Balance::RingHash {
                minimum_ring_size, ..
            } => Table::Ring(Ring::new(&seeds, minimum_ring_size)),
            Balance::Maglev { table_size, .. } => Table::Maglev(Maglev::new(&seeds, table_size)),
            _ => return None,
        })
    }

    fn seeds(&self, slots: Range<usize>) -> Vec<Seed> {
        let seed = |(slot, one): (u32, &Slot)| Seed {
            key: one.endpoint.key.0,
            weight: one.endpoint.weight,
            slot,
        };
        let first = u32::try_from(slots.start).unwrap_or(u32::MAX);
        let inside = self.slots.get(slots).unwrap_or_default();
        // In an order that does not depend on health or distance: Maglev's table depends on it.
        let mut seeds: Vec<_> = (first..).zip(inside).map(seed).collect();
        seeds.sort_by_key(|seed| seed.key);
        seeds
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Endpoints, best first, and the areas of equal preference among them.
fn sorted(
    endpoints: &[Arc<BackendEndpoint>],
    locality: &LocalityPolicy,
) -> (Vec<Arc<BackendEndpoint>>, Box<[Area]>) {
    let shares: &[(Locality, u32)] = match locality {
        LocalityPolicy::Distribute(shares) => shares,
        LocalityPolicy::Prefer | LocalityPolicy::Off => &[],
    };
    // Level, then area inside the level, then the last resort; `None`: gets nothing.
    let rank = |endpoint: &BackendEndpoint| -> Option<(u16, u8, usize, bool)> {
        let (distance, area) = match locality {
            LocalityPolicy::Prefer => (endpoint.distance, 0),
            LocalityPolicy::Off => (0, 0),
            LocalityPolicy::Distribute(shares) => (0, fitting(shares, endpoint)?),
        };
        Some((endpoint.priority, distance, area, !endpoint.preferred))
    };
    let mut ranked: Vec<_> = endpoints
        .iter()
        .filter_map(|endpoint| Some((rank(endpoint)?, Arc::clone(endpoint))))
        .collect();
    ranked.sort_by_key(|(rank, _)| *rank);
    let mut areas: Vec<Area> = Vec::new();
    let mut last = None;
    for (slot, ((priority, distance, area, _), _)) in (0u32..).zip(&ranked) {
        let place = ((*priority, *distance), *area);
        if last != Some(place) {
            let level = match (last, areas.last()) {
                (Some((level, _)), Some(area)) => area.level + usize::from(level != place.0),
                _ => 0,
            };
            areas.push(Area {
                slots: slot..slot,
                level,
                share: shares.get(place.1).map_or(1, |(_, share)| *share),
            });
            last = Some(place);
        }
        if let Some(area) = areas.last_mut() {
            area.slots.end = slot + 1;
        }
    }
    let endpoints = ranked.into_iter().map(|(_, endpoint)| endpoint).collect();
    (endpoints, areas.into_boxed_slice())
}

/// The share that an endpoint belongs to: the most exact locality that it is in.
fn fitting(shares: &[(Locality, u32)], endpoint: &BackendEndpoint) -> Option<usize> {
    let own = endpoint.locality.as_deref();
    let parts = |locality: &Locality| {
        let Locality {
            region,
            zone,
            sub_zone,
        } = locality;
        [region.clone(), zone.clone(), sub_zone.clone()]
    };
    let own = own.map(parts).unwrap_or_default();
    let exactness = |locality: &Locality| {
        let wanted = parts(locality);
        let fits = wanted
            .iter()
            .zip(&own)
            .all(|(wanted, own)| wanted.is_none() || wanted == own);
        fits.then(|| wanted.iter().flatten().count())
    };
    let found = shares
        .iter()
        .enumerate()
        .filter_map(|(index, (locality, share))| {
            (*share > 0)
                .then(|| exactness(locality))
                .flatten()
                .map(|exactness| (exactness, std::cmp::Reverse(index)))
        });
    found.max().map(|(_, std::cmp::Reverse(index))| index)
}

/// Tallies go on where the endpoint was there before.
fn tallies(policy: &TrafficPolicy, slots: &[Slot], before: Option<&Roster>) -> Box<[Arc<Tally>]> {
    if !outlier::looks(&policy.outlier) {
        return Box::default();
    }
    let before = before.filter(|before| !before.tallies.is_empty());
    let kept = |slot: &Slot| {
        let before = before?;
        let slot = before.find(slot.endpoint.key)?;
        before.tallies.get(slot as usize).cloned()
    };
    slots
        .iter()
        .map(|slot| kept(slot).unwrap_or_default())
        .collect()
}
