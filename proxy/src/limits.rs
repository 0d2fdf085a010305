//! Rate limits: whether a request, or a connection, may reach a program of this host now.
//!
//! In: the limits of its port, and who asks for what. Out: nothing, or which limit refuses and for how long.
//! A limit's state is one for all workers and survives a new snapshot. Never: waits.

use std::{
    cell::RefCell,
    collections::HashSet,
    hash::{BuildHasher as _, Hash as _, Hasher as _, RandomState},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use mesh_model::snapshot::{
    Map, RateLimit, Snapshot,
    decide::{RequestView, Source},
    limit::{LimitBy, LimitFields, LimitKey, LimitScope},
};
use smallvec::SmallVec;

use self::{
    gcra::{Cell, Rate, nanos},
    table::Table,
};

/// The algorithm.
mod gcra;
/// What answers tell.
mod standing;
/// Cells by key.
mod table;

pub(crate) use standing::{Standing, lines};

/// A limit that refuses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refused {
    /// `namespace/name` and what it allows, in words.
    pub(crate) what: String,
    /// How long until the next one may come.
    pub(crate) after: Duration,
    /// What its answer tells of the limit.
    pub(crate) standing: Option<Standing>,
}

/// The state of one limit.
#[derive(Debug)]
struct Live {
    cell: Cell,
    /// Requests that wanted in, let in or not.
    asked: AtomicU64,
    /// Bits of the own share of a mesh-wide limit.
    share: AtomicU32,
    mesh: bool,
}

/// The state of all limits, for all workers.
#[derive(Debug)]
pub(crate) struct Shared {
    started: Instant,
    lives: Mutex<Map<LimitKey, Arc<Live>>>,
    /// Shares that were told before their limit was met.
    shares: Mutex<Map<LimitKey, f32>>,
    table: Table,
    /// Secret, so that nobody can choose keys that meet.
    secret: RandomState,
}

impl Default for Shared {
    fn default() -> Self {
        Self {
            started: Instant::now(),
            lives: Mutex::default(),
            shares: Mutex::default(),
            table: Table::default(),
            secret: RandomState::new(),
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    /// What was asked of each mesh-wide limit since the start, let through or not, by key.
    pub(crate) fn usage(&self) -> Vec<(LimitKey, u64)> {
        let lives = lock(&self.lives);
        let all = lives.iter().filter(|(_, live)| live.mesh);
        let mut usage: Vec<_> = all
            .map(|(key, live)| (*key, live.asked.load(Ordering::Relaxed)))
            .collect();
        usage.sort_unstable_by_key(|(key, _)| key.0);
        usage
    }

    /// Sets the own share of a mesh-wide limit, 0 to 1; what is no number counts as 0.
    pub(crate) fn set_share(&self, key: LimitKey, share: f32) {
        let share = if share.is_nan() {
            0.0
        } else {
            share.clamp(0.0, 1.0)
        };
        lock(&self.shares).insert(key, share);
        if let Some(live) = lock(&self.lives).get(&key) {
            live.share.store(share.to_bits(), Ordering::Relaxed);
        }
    }

    /// Forgets the share of a limit that no snapshot names any longer.
    pub(crate) fn forget_share(&self, key: LimitKey) {
        lock(&self.shares).remove(&key);
    }

    fn live(&self, limit: &RateLimit) -> Arc<Live> {
        let share = lock(&self.shares).get(&limit.key).copied().unwrap_or(1.0);
        let mut lives = lock(&self.lives);
        let live = lives.entry(limit.key).or_insert_with(|| {
            Arc::new(Live {
                cell: Cell::default(),
                asked: AtomicU64::new(0),
                share: AtomicU32::new(share.to_bits()),
                mesh: limit.scope == LimitScope::Mesh,
            })
        });
        Arc::clone(live)
    }
}

/// One worker's hand on the limits.
#[derive(Debug)]
pub(crate) struct Limits {
    shared: Arc<Shared>,
    known: RefCell<Map<LimitKey, Arc<Live>>>,
}

/// What was taken of one limit.
struct Taken {
    live: Arc<Live>,
    rate: Rate,
    key: Option<u64>,
    /// What its cell is now.
    paid: u64,
}

/// Too early for a limit.
struct Early {
    /// Until the next one may come.
    after: Duration,
    /// Until as many may come at once as ever.
    whole: Duration,
}

impl Limits {
    /// Knows no limit yet.
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self {
            shared,
            known: RefCell::default(),
        }
    }

    /// Counts a request against every limit that it fits, or against none when one of them refuses it. What its
    /// answer tells of them; for most limits nothing.
    pub(crate) fn request(
        &self,
        limits: &[RateLimit],
        request: &impl RequestView,
    ) -> Result<Vec<Standing>, Refused> {
        let fits = |limit: &RateLimit| {
            limit.matches.is_empty() || limit.matches.iter().any(|one| one.fits(request))
        };
        self.count(limits, fits, |limit| self.key(limit, request))
    }

    /// Counts an opaque connection against every limit that asks nothing of requests.
    pub(crate) fn connection(
        &self,
        limits: &[RateLimit],
        source: Source<'_>,
    ) -> Result<(), Refused> {
        let of_caller = |by: &LimitBy| {
            matches!(
                by,
                LimitBy::Source | LimitBy::SourceNamespace | LimitBy::SourceAddress
            )
        };
        let fits = |limit: &RateLimit| limit.matches.is_empty() && limit.by.iter().all(of_caller);
        let view = Connection(source);
        let counted = self.count(limits, fits, |limit| self.key(limit, &view));
        counted.map(drop)
    }

    fn count(
        &self,
        limits: &[RateLimit],
        fits: impl Fn(&RateLimit) -> bool,
        key: impl Fn(&RateLimit) -> Option<u64>,
    ) -> Result<Vec<Standing>, Refused> {
        let now = nanos(self.shared.started.elapsed());
        let mut taken = SmallVec::<[Taken; 2]>::new();
        let mut standings = Vec::new();
        for limit in limits.iter().filter(|limit| fits(limit)) {
            match self.take(limit, key(limit), now) {
                Ok(one) => {
                    if limit.fields != LimitFields::None {
                        let (left, whole) = one.rate.left(one.paid, now);
                        standings.push(Standing::new(limit, left, whole));
                    }
                    taken.push(one);
                }
                Err(early) => {
                    self.give_back(&taken);
                    let tells = limit.fields != LimitFields::None;
                    return Err(Refused {
                        what: told(limit),
                        after: early.after,
                        standing: tells.then(|| Standing::new(limit, 0, early.whole)),
                    });
                }
            }
        }
        Ok(standings)
    }

    fn take(&self, limit: &RateLimit, key: Option<u64>, now: u64) -> Result<Taken, Early> {
        let live = self.live(limit);
        if live.mesh {
            live.asked.fetch_add(1, Ordering::Relaxed);
        }
        let share = match limit.scope {
            LimitScope::Host => 1.0,
            LimitScope::Mesh => f32::from_bits(live.share.load(Ordering::Relaxed)),
        };
        let rate = Rate::new(limit.requests, limit.per, limit.burst, share).ok_or(Early {
            after: limit.per,
            whole: limit.per,
        })?;
        let paid = match key {
            Some(key) => self.shared.table.take(key, rate, now),
            None => live.cell.take(rate, now),
        };
        let paid = paid.map_err(|after| Early {
            after,
            whole: rate.whole_after(after),
        })?;
        Ok(Taken {
            live,
            rate,
            key,
            paid,
        })
    }

    fn give_back(&self, taken: &[Taken]) {
        for one in taken {
            match one.key {
                Some(key) => self.shared.table.give_back(key, one.rate),
                None => one.live.cell.give_back(one.rate),
            }
        }
    }

    fn live(&self, limit: &RateLimit) -> Arc<Live> {
        if let Some(live) = self.known.borrow().get(&limit.key) {
            return Arc::clone(live);
        }
        let live = self.shared.live(limit);
        self.known.borrow_mut().insert(limit.key, Arc::clone(&live));
        live
    }

    /// What tells this request from others of the limit; none when all count together. What is missing
    /// counts as a value of its own.
    fn key(&self, limit: &RateLimit, request: &impl RequestView) -> Option<u64> {
        if limit.by.is_empty() {
            return None;
        }
        let mut hasher = self.shared.secret.build_hasher();
        limit.key.hash(&mut hasher);
        let source = request.source();
        for by in &*limit.by {
            match by {
                LimitBy::Source => source.identity.hash(&mut hasher),
                LimitBy::SourceNamespace => {
                    source.identity.map(|id| &id.namespace).hash(&mut hasher);
                }
                LimitBy::SourceAddress => source
                    .address
                    .map(|address| address.to_canonical())
                    .hash(&mut hasher),
                LimitBy::Header(name) => request.header(name).hash(&mut hasher),
                LimitBy::Method => request.method().hash(&mut hasher),
                LimitBy::Path => request.path().hash(&mut hasher),
            }
        }
        Some(hasher.finish())
    }

    /// Lets go of the state of what the snapshot no longer names.
    pub(crate) fn retire(&self, snapshot: &Snapshot) {
        let mut known = self.known.borrow_mut();
        if known.is_empty() {
            return;
        }
        let inbound = &snapshot.inbound;
        let named = inbound
            .by_server_name
            .values()
            .flat_map(|ports| ports.values());
        let named: HashSet<LimitKey> = inbound
            .by_address
            .values()
            .chain(named)
            .flat_map(|port| port.limits.iter().map(|limit| limit.key))
            .collect();
        known.retain(|key, _| named.contains(key));
        // Another worker that has not looked yet may still hold it.
        lock(&self.shared.lives)
            .retain(|key, live| named.contains(key) || Arc::strong_count(live) > 1);
    }
}

/// A limit in words.
fn told(limit: &RateLimit) -> String {
    let share = match limit.scope {
        LimitScope::Host => "",
        LimitScope::Mesh => " in the whole mesh",
    };
    format!(
        "the rate limit {} allows {} in {:?}{share}",
        limit.name, limit.requests, limit.per
    )
}

/// An opaque connection, seen as a request about which only the caller is known.
struct Connection<'a>(Source<'a>);

impl RequestView for Connection<'_> {
    fn method(&self) -> &'static str {
        ""
    }
    fn path(&self) -> &'static str {
        ""
    }
    fn query(&self) -> &'static str {
        ""
    }
    fn header(&self, _name: &str) -> Option<std::borrow::Cow<'_, [u8]>> {
        None
    }
    fn source(&self) -> Source<'_> {
        self.0
    }
}

#[cfg(test)]
mod tests;
