//! What one source did: requests by answer, and how long its changes took to be published.
//!
//! Clients find the tally of the source that makes them in the task that runs it, so no source passes it on.

use std::{
    collections::BTreeMap,
    future::Future,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

tokio::task_local! {
    static CURRENT: Arc<Tally>;
}

/// Upper ends of the buckets of the time to publication, microseconds.
pub(crate) const BUCKETS_US: [u64; 8] = [
    1_000, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 1_000_000,
];

/// Counts of one source; they survive its restarts.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    requests: Mutex<BTreeMap<u16, u64>>,
    buckets: [AtomicU64; BUCKETS_US.len()],
    published: AtomicU64,
    published_us: AtomicU64,
    connections: AtomicUsize,
    watched: AtomicUsize,
    in_turn: AtomicUsize,
}

/// How a registry is read at this moment, where it is read over HTTP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Reading {
    /// Open connections.
    pub connections: usize,
    /// Services that are followed by a question of their own.
    pub watched: usize,
    /// Services that are read when the registry says that something changed.
    pub in_turn: usize,
}

/// An open connection; it counts until this is dropped.
#[derive(Debug)]
pub(crate) struct Open(Arc<Tally>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.connections.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Times to publication: how many lie under each of [`BUCKETS_US`], how many there are, their sum.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Times {
    pub(crate) buckets: [u64; BUCKETS_US.len()],
    pub(crate) count: u64,
    pub(crate) sum_us: u64,
}

impl Tally {
    /// The tally of the source whose task this is; a lost one elsewhere.
    pub(crate) fn current() -> Arc<Self> {
        CURRENT.try_with(Arc::clone).unwrap_or_default()
    }

    /// Runs `work` as the source of this tally.
    pub(crate) fn of<T>(self: Arc<Self>, work: impl Future<Output = T>) -> impl Future<Output = T> {
        CURRENT.scope(self, work)
    }

    /// Counts a request by the status of its answer; 0: there was none.
    pub(crate) fn request(&self, status: u16) {
        let mut all = self.requests.lock().unwrap_or_else(PoisonError::into_inner);
        *all.entry(status).or_default() += 1;
    }

    /// Counts a connection until what is returned is dropped.
    pub(crate) fn connected(this: &Arc<Self>) -> Open {
        this.connections.fetch_add(1, Ordering::Relaxed);
        Open(Arc::clone(this))
    }

    /// So many services are followed, so many are read in turn.
    pub(crate) fn follows(&self, watched: usize, in_turn: usize) {
        self.watched.store(watched, Ordering::Relaxed);
        self.in_turn.store(in_turn, Ordering::Relaxed);
    }

    /// How the registry is read now.
    pub(crate) fn reading(&self) -> Reading {
        Reading {
            connections: self.connections.load(Ordering::Relaxed),
            watched: self.watched.load(Ordering::Relaxed),
            in_turn: self.in_turn.load(Ordering::Relaxed),
        }
    }

    /// Requests by status.
    pub(crate) fn requests(&self) -> BTreeMap<u16, u64> {
        let all = self.requests.lock();
        all.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Counts a change that was published so long after the source had reported it.
    pub(crate) fn published(&self, after: Duration) {
        let us = u64::try_from(after.as_micros()).unwrap_or(u64::MAX);
        for (bucket, end) in self.buckets.iter().zip(BUCKETS_US) {
            if us <= end {
                bucket.fetch_add(1, Ordering::Relaxed);
            }
        }
        self.published.fetch_add(1, Ordering::Relaxed);
        self.published_us.fetch_add(us, Ordering::Relaxed);
    }

    /// Times to publication so far.
    pub(crate) fn times(&self) -> Times {
        Times {
            buckets: std::array::from_fn(|at| {
                self.buckets
                    .get(at)
                    .map_or(0, |bucket| bucket.load(Ordering::Relaxed))
            }),
            count: self.published.load(Ordering::Relaxed),
            sum_us: self.published_us.load(Ordering::Relaxed),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_client_counts_for_its_source() {
        let tally = Arc::new(Tally::default());
        Arc::clone(&tally)
            .of(async { Tally::current().request(200) })
            .await;
        Tally::current().request(500);
        assert_eq!(tally.requests(), BTreeMap::from([(200, 1)]));
        tally.published(Duration::from_millis(7));
        let times = tally.times();
        assert_eq!((times.count, times.sum_us), (1, 7_000));
        assert_eq!(times.buckets, [0, 0, 1, 1, 1, 1, 1, 1]);
    }
}
