//! What the workers share of live state: written on failure, and when an endpoint or backend is first met.

use std::{
    collections::HashSet,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use foldhash::fast::FixedState;
use mesh_model::snapshot::{Backend, BackendKey, EndpointKey, Map, Snapshot};
use tokio::sync::watch;

use super::{
    breaker::Breaker,
    budget::Bucket,
    figures::Figures,
    health::{Health, Hold, Reason},
    roster::{Roster, lots::Now},
};

/// What all workers know.
#[derive(Debug, Default)]
pub(crate) struct Shared {
    healths: Mutex<Map<EndpointKey, Arc<Health>>>,
    backends: Mutex<Map<BackendKey, Arc<BackendState>>>,
    known: Mutex<Arc<Known>>,
    /// Changes of anybody's health.
    changes: AtomicU64,
    /// How many are out.
    out: AtomicU32,
    workers: AtomicUsize,
    /// Somebody waits for a connection that another worker may hold idle.
    pub(crate) relief: watch::Sender<()>,
    /// Which worker runs the health checks.
    pub(crate) prober: AtomicBool,
    /// Counts.
    pub(crate) figures: Figures,
}

/// An endpoint that is out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ejection {
    /// The endpoint.
    pub endpoint: EndpointKey,
    /// Why: `failed dial`, `errors in a row`, `failed health check` and the like.
    pub reason: &'static str,
    /// When it comes back, in milliseconds since the epoch; `None`: when it is found well.
    pub until_ms: Option<u64>,
}

impl Shared {
    /// A number for a worker.
    pub(crate) fn worker(&self) -> usize {
        self.workers.fetch_add(1, Relaxed)
    }

    /// The moment of a pick.
    pub(crate) fn now(&self, us: u64) -> Now {
        Now {
            us,
            changes: self.changes.load(Relaxed),
            all_in: self.out.load(Relaxed) == 0,
        }
    }

    /// The health of an endpoint.
    pub(crate) fn health(&self, key: EndpointKey, now_us: u64) -> Arc<Health> {
        known(&mut lock(&self.healths), key, now_us)
    }

    /// The shared state of a backend.
    pub(crate) fn backend(&self, backend: &Backend, now_us: u64) -> Arc<BackendState> {
        let mut backends = lock(&self.backends);
        let state = backends
            .entry(backend.key)
            .or_insert_with(|| Arc::new(BackendState::new(backend, now_us)));
        Arc::clone(state)
    }

    /// The endpoints of a backend in order, made once for all workers.
    pub(crate) fn roster(
        &self,
        state: &BackendState,
        backend: &Arc<Backend>,
        now_us: u64,
    ) -> Arc<Roster> {
        let mut roster = lock(&state.roster);
        if let Some(roster) = roster.as_ref().filter(|roster| roster.serves(backend)) {
            return Arc::clone(roster);
        }
        let mut healths = lock(&self.healths);
        let health = |key| known(&mut healths, key, now_us);
        let made = Arc::new(Roster::new(Arc::clone(backend), roster.as_deref(), health));
        drop(healths);
        roster.replace(Arc::clone(&made));
        made
    }

    /// Puts an endpoint out; true when the caller must see to its return.
    pub(crate) fn put_out(&self, health: &Health, reason: Reason) -> bool {
        let (first, was_in) = health.put_out(reason);
        if was_in {
            self.out.fetch_add(1, Relaxed);
        }
        if first {
            self.figures.ejected(reason);
            self.changed();
        }
        first
    }

    /// Ends a hold on an endpoint; true when it is in again.
    pub(crate) fn release(&self, health: &Health, hold: Hold, now_us: u64) -> bool {
        let back = health.release(hold, now_us);
        if back {
            self.out.fetch_sub(1, Relaxed);
        }
        self.changed();
        back
    }

    fn changed(&self) {
        self.changes.fetch_add(1, Relaxed);
    }

    /// Endpoints that are out now, in order.
    pub(crate) fn ejected(&self) -> Vec<EndpointKey> {
        let ejections = self.ejections();
        ejections.iter().map(|one| one.endpoint).collect()
    }

    /// Endpoints that are out now with the reason, in order.
    pub(crate) fn ejections(&self) -> Vec<Ejection> {
        let healths = lock(&self.healths);
        let out = healths.iter().filter_map(|(key, health)| {
            Some(Ejection {
                endpoint: *key,
                reason: health.reason()?.as_str(),
                until_ms: health.until_ms(),
            })
        });
        let mut all: Vec<_> = out.collect();
        all.sort_unstable_by_key(|one| one.endpoint);
        all
    }

    /// A snapshot is in force: lets go of what it no longer names and nobody uses. What it names; found out by the
    /// first worker that asks.
    pub(crate) fn retire(&self, snapshot: &Snapshot) -> Arc<Known> {
        let mut known = lock(&self.known);
        let place = (snapshot.generation, std::ptr::from_ref(snapshot).addr());
        // A worker may be late with an older one.
        let late = known
            .of
            .is_some_and(|(newer, _)| newer > snapshot.generation);
        if known.of != Some(place) && !late {
            *known = Arc::new(Known::of(snapshot, place));
            self.forget(&known);
        }
        Arc::clone(&known)
    }

    /// What the snapshot in force names. Sees to it that nothing is made of backends that it replaced: an exchange
    /// that is older may have brought such a one back.
    pub(crate) fn settle(&self) -> Arc<Known> {
        let known = Arc::clone(&lock(&self.known));
        let states = lock(&self.backends).clone();
        for (key, state) in states {
            if let Some(backend) = known.backends.get(&key) {
                state.settle(backend);
            }
        }
        known
    }

    /// The backend that has taken this one's place in the snapshot in force; `None`: it is still the one.
    pub(crate) fn newer(&self, backend: &Arc<Backend>) -> Option<Arc<Backend>> {
        let known = lock(&self.known);
        let found = known.backends.get(&backend.key)?;
        (!Arc::ptr_eq(found, backend)).then(|| Arc::clone(found))
    }

    fn forget(&self, known: &Known) {
        lock(&self.backends).retain(|key, state| {
            if let Some(backend) = known.backends.get(key) {
                state.settle(backend);
                return true;
            }
            Arc::strong_count(state) > 1
        });
        lock(&self.healths).retain(|key, health| {
            let named = known.endpoints.contains(key);
            health.set_gone(!named);
            named || Arc::strong_count(health) > 1
        });
    }
}

/// Keys of endpoints.
pub(crate) type Keys = HashSet<EndpointKey, FixedState>;

/// What the snapshot in force names.
#[derive(Debug, Default)]
pub(crate) struct Known {
    /// Generation and address of the snapshot.
    of: Option<(u64, usize)>,
    /// Its endpoints.
    pub(crate) endpoints: Keys,
    /// Its backends.
    pub(crate) backends: Map<BackendKey, Arc<Backend>>,
}

impl Known {
    fn of(snapshot: &Snapshot, place: (u64, usize)) -> Self {
        let mut known = Self {
            of: Some(place),
            ..Self::default()
        };
        // Room for all at once: it is a worker that does this, between requests.
        let outbound = &snapshot.outbound;
        let most = outbound.backends.values().map(|one| one.endpoints.len());
        known.endpoints.reserve(most.sum());
        for backend in all_backends(snapshot) {
            if known.backends.contains_key(&backend.key) {
                continue;
            }
            let endpoints = backend.endpoints.iter().map(|endpoint| endpoint.key);
            known.endpoints.extend(endpoints);
            known.backends.insert(backend.key, Arc::clone(backend));
        }
        known
    }
}

/// The backends of a snapshot; some more than once.
pub(crate) fn all_backends(snapshot: &Snapshot) -> impl Iterator<Item = &Arc<Backend>> {
    let outbound = &snapshot.outbound;
    let frontends = outbound.frontends.iter().map(|frontend| &frontend.backend);
    let subsets = outbound.subsets.values();
    outbound.backends.values().chain(frontends).chain(subsets)
}

fn known(
    healths: &mut Map<EndpointKey, Arc<Health>>,
    key: EndpointKey,
    now_us: u64,
) -> Arc<Health> {
    let health = healths
        .entry(key)
        .or_insert_with(|| Arc::new(Health::new(now_us)));
    Arc::clone(health)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What the workers share of one backend; survives new snapshots.
#[derive(Debug)]
pub(crate) struct BackendState {
    roster: Mutex<Option<Arc<Roster>>>,
    bucket: Arc<Bucket>,
    breaker: Arc<Breaker>,
    /// Endpoints that are out for their answers, put out through this backend.
    ejected: AtomicU32,
    /// When all endpoints are looked at next, microseconds of the workers' clock; 0: not known yet.
    look_us: AtomicU64,
}

impl BackendState {
    fn new(backend: &Backend, now_us: u64) -> Self {
        Self {
            roster: Mutex::default(),
            bucket: Arc::new(Bucket::new(backend.policy.retry_budget, now_us / 1000)),
            breaker: Arc::default(),
            ejected: AtomicU32::new(0),
            look_us: AtomicU64::new(0),
        }
    }

    /// Says which backend is in force: of those that were replaced none is used any longer.
    fn settle(&self, backend: &Arc<Backend>) {
        let mut roster = lock(&self.roster);
        if roster.as_deref().is_some_and(|made| !made.is_of(backend)) {
            *roster = None;
        }
    }

    /// The retry budget.
    pub(crate) fn bucket(&self) -> &Arc<Bucket> {
        &self.bucket
    }

    /// Circuit breaking.
    pub(crate) fn breaker(&self) -> &Arc<Breaker> {
        &self.breaker
    }

    /// A place among those that may be out for their answers; false: there are enough.
    pub(crate) fn may_eject(&self, allowance: u32) -> bool {
        let more = |count: u32| (count < allowance).then(|| count + 1);
        self.ejected.fetch_update(Relaxed, Relaxed, more).is_ok()
    }

    /// Gives a place back.
    pub(crate) fn ejection_ended(&self) {
        self.ejected.fetch_sub(1, Relaxed);
    }

    /// True for the one caller whose turn it is to look at all endpoints together.
    pub(crate) fn is_look_due(&self, now_us: u64, interval: Duration) -> bool {
        let due = self.look_us.load(Relaxed);
        if now_us < due {
            return false;
        }
        let interval = u64::try_from(interval.as_micros()).unwrap_or(u64::MAX);
        let next = now_us.saturating_add(interval.max(1000));
        let won = self
            .look_us
            .compare_exchange(due, next, Relaxed, Relaxed)
            .is_ok();
        // The first interval only begins.
        won && due > 0
    }
}
