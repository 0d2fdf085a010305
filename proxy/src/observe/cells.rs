//! Counters and histograms with one writer: a load and a store, never a locked instruction.

use std::{
    array,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use super::{Direction, RequestRecord, failures::Failures, micros, policies::Policies, tap::Taps};
use crate::{failure, listen::Kind};

/// A number that one thread writes and all may read.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    /// Adds; only from the thread that owns the counter.
    pub(crate) fn add(&self, count: u64) {
        self.0
            .store(self.get().wrapping_add(count), Ordering::Relaxed);
    }
    /// The number now.
    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// How many began, and how many ended.
#[derive(Debug, Default)]
pub(crate) struct Gauge {
    /// Begun in all.
    pub(crate) begun: Counter,
    ended: Counter,
}

impl Gauge {
    /// One more.
    pub(crate) fn begin(&self) {
        self.begun.add(1);
    }
    /// One less.
    pub(crate) fn end(&self) {
        self.ended.add(1);
    }
    /// Running now.
    pub(crate) fn running(&self) -> u64 {
        self.begun.get().saturating_sub(self.ended.get())
    }
}

/// Counters of connections and handshakes.
#[derive(Debug, Default)]
pub(crate) struct Transport {
    /// Retries that the budget allowed.
    pub(crate) retries: Counter,
    /// Retries that it refused.
    pub(crate) retries_refused: Counter,
    /// Endpoints put out.
    pub(crate) ejections: Counter,
    /// mTLS handshakes as the client.
    pub(crate) handshakes: Counter,
    /// Of them failed.
    pub(crate) handshakes_failed: Counter,
    /// mTLS handshakes as the server.
    pub(crate) accepts: Counter,
    /// Of them failed.
    pub(crate) accepts_failed: Counter,
    /// HTTP/2 connections opened.
    pub(crate) tunnels_opened: Counter,
    /// Of them closed.
    pub(crate) tunnels_closed: Counter,
}

/// Failed requests by direction and code.
#[derive(Debug)]
pub(crate) struct Errors([Vec<Counter>; 2]);

impl Default for Errors {
    fn default() -> Self {
        Self(array::from_fn(|_| {
            failure::documented()
                .iter()
                .map(|_| Counter::default())
                .collect()
        }))
    }
}

impl Errors {
    /// Counts one.
    pub(crate) fn add(&self, direction: Direction, word: &str) {
        let index = failure::documented()
            .iter()
            .position(|entry| entry.word == word);
        let row = self.0.get(direction as usize);
        if let Some(counter) = row.zip(index).and_then(|(row, index)| row.get(index)) {
            counter.add(1);
        }
    }
    /// All that are not 0.
    pub(crate) fn each(&self) -> impl Iterator<Item = (Direction, &'static str, u64)> {
        let rows = [Direction::Outbound, Direction::Inbound]
            .into_iter()
            .zip(&self.0);
        rows.flat_map(|(direction, row)| {
            let words = failure::documented().iter().map(|entry| entry.word);
            words
                .zip(row)
                .map(move |(word, counter)| (direction, word, counter.get()))
        })
        .filter(|(.., count)| *count > 0)
    }
}

/// Everything that one worker counts.
#[derive(Debug, Default)]
pub(crate) struct Cells {
    /// Open connections by [`Kind`], then running requests by [`Direction`].
    pub(crate) gauges: [Gauge; Kind::ALL.len() + 2],
    /// Connections and handshakes.
    pub(crate) transport: Arc<Transport>,
    /// What policies did.
    pub(crate) policies: Policies,
    /// Failed requests by code.
    pub(crate) errors: Errors,
    /// Requests; locked when a series is new, and by readers.
    pub(crate) series: Mutex<Vec<Arc<Series>>>,
    /// What failed lately; locked on failure, and by readers.
    pub(crate) failures: Mutex<Failures>,
    /// Log lines that were dropped, in chunks.
    pub(crate) log_dropped: Counter,
    /// Tasks that panicked.
    pub(crate) panics: Arc<Counter>,
    /// Who looks at live requests; the same for all workers.
    pub(crate) taps: Arc<Taps>,
}

/// What requests are counted by.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct SeriesKey {
    /// Which way.
    pub(crate) direction: Direction,
    /// Label of the caller.
    pub(crate) source: Arc<str>,
    /// Label of the service.
    pub(crate) destination: Arc<str>,
    /// Name of the route.
    pub(crate) route: Arc<str>,
}

impl SeriesKey {
    /// The key of a request.
    pub(crate) fn of(record: &RequestRecord<'_>) -> Self {
        Self {
            direction: record.direction,
            source: Arc::clone(record.source),
            destination: Arc::clone(record.destination),
            route: Arc::clone(record.route),
        }
    }
    /// True when it is this request's, and the labels are the very same allocations.
    pub(crate) fn is_of(&self, record: &RequestRecord<'_>) -> bool {
        self.direction == record.direction
            && Arc::ptr_eq(&self.source, record.source)
            && Arc::ptr_eq(&self.destination, record.destination)
            && Arc::ptr_eq(&self.route, record.route)
    }
}

/// Classes of answers, the metric label `class`.
pub(crate) const CLASSES: [&str; 7] = ["none", "1xx", "2xx", "3xx", "4xx", "5xx", "grpc-error"];
/// The class of gRPC failures in answers with status 200.
const GRPC: usize = 6;
/// Opaque connections that ended well count as `2xx`.
const WELL: usize = 2;

/// Counters of one kind of requests.
#[derive(Debug)]
pub(crate) struct Series {
    /// What they have in common.
    pub(crate) key: SeriesKey,
    /// By class.
    pub(crate) classes: [Counter; CLASSES.len()],
    /// Of them over mTLS, or within this host.
    pub(crate) secured: Counter,
    /// Tries beyond the first.
    pub(crate) retries: Counter,
    /// Bytes of requests.
    pub(crate) received: Counter,
    /// Bytes of answers.
    pub(crate) sent: Counter,
    /// Durations.
    pub(crate) durations: Histogram,
    /// Of them spent in this daemon.
    pub(crate) own: Histogram,
}

impl Series {
    /// Nothing counted.
    pub(crate) fn new(key: SeriesKey) -> Self {
        Self {
            key,
            classes: array::from_fn(|_| Counter::default()),
            secured: Counter::default(),
            retries: Counter::default(),
            received: Counter::default(),
            sent: Counter::default(),
            durations: Histogram::default(),
            own: Histogram::default(),
        }
    }
    /// Counts a request.
    pub(crate) fn record(&self, record: &RequestRecord<'_>) {
        if let Some(class) = self.classes.get(class(record)) {
            class.add(1);
        }
        if record.retries > 0 {
            self.retries.add(u64::from(record.retries));
        }
        self.received.add(record.received);
        self.sent.add(record.sent);
        self.durations.record(record.duration);
        if record.secured {
            self.secured.add(1);
        }
        if let Some(own) = record.own {
            self.own.record(own);
        }
    }
    /// Requests of all classes.
    pub(crate) fn requests(&self) -> u64 {
        self.classes.iter().map(Counter::get).sum()
    }
    /// Requests that did not fail: no 5xx, no gRPC error, some answer.
    pub(crate) fn successes(&self) -> u64 {
        self.classes.iter().skip(1).take(4).map(Counter::get).sum()
    }
}

fn class(record: &RequestRecord<'_>) -> usize {
    match record.status {
        _ if record.grpc_status.is_some_and(|status| status != 0) && record.status == 200 => GRPC,
        0 if record.protocol == "tcp" && record.code.is_empty() => WELL,
        status @ 100..600 => usize::from(status / 100),
        _ => 0,
    }
}

/// Exact buckets below this many microseconds.
const EXACT: usize = 8;
/// Steps of each doubling.
const STEPS: usize = 4;
/// Doublings from [`EXACT`] on: to 134 seconds.
const DOUBLINGS: usize = 24;
/// Number of buckets.
pub(crate) const BUCKETS: usize = EXACT + STEPS * DOUBLINGS;

/// Durations in buckets no wider than a quarter of their value.
#[derive(Debug)]
pub(crate) struct Histogram {
    buckets: [Counter; BUCKETS],
    /// Sum in microseconds.
    pub(crate) sum_us: Counter,
}

impl Default for Histogram {
    fn default() -> Self {
        Self {
            buckets: array::from_fn(|_| Counter::default()),
            sum_us: Counter::default(),
        }
    }
}

impl Histogram {
    /// Adds one.
    pub(crate) fn record(&self, duration: Duration) {
        let us = micros(duration);
        self.sum_us.add(us);
        if let Some(bucket) = self.buckets.get(index(us)) {
            bucket.add(1);
        }
    }
    /// Adds the buckets to `sums`.
    pub(crate) fn add_to(&self, sums: &mut [u64; BUCKETS]) {
        for (sum, bucket) in sums.iter_mut().zip(&self.buckets) {
            *sum += bucket.get();
        }
    }
}

/// The bucket of a number of microseconds.
fn index(us: u64) -> usize {
    let exact = usize::try_from(us).unwrap_or(usize::MAX);
    if exact < EXACT {
        return exact;
    }
    let doubling = 63 - us.leading_zeros() as usize;
    let step = usize::try_from((us >> (doubling - 2)) & 3).unwrap_or_default();
    (EXACT + (doubling - 3) * STEPS + step).min(BUCKETS - 1)
}

/// The first number of microseconds above a bucket.
pub(crate) fn end_of(bucket: usize) -> u64 {
    let Some(above) = bucket.checked_sub(EXACT) else {
        return bucket as u64 + 1;
    };
    let (doubling, step) = (above / STEPS + 3, above % STEPS);
    (1u64 << doubling) + ((step as u64 + 1) << (doubling - 2))
}

/// The value below which `share` of all lies.
pub(crate) fn quantile(sums: &[u64; BUCKETS], share: f64) -> u64 {
    let total: u64 = sums.iter().sum();
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a count of requests, rounded"
    )]
    let wanted = ((total as f64 * share).ceil() as u64).max(1);
    let mut seen = 0;
    let hit = sums.iter().position(|count| {
        seen += count;
        seen >= wanted
    });
    hit.map_or(0, end_of)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_hold_their_values() {
        for us in (0..200_000).chain((0..40).map(|shift| 1u64 << shift)) {
            let bucket = index(us);
            assert!(
                us < end_of(bucket) || bucket == BUCKETS - 1,
                "{us} in {bucket}"
            );
            assert!(bucket == 0 || us >= end_of(bucket - 1), "{us} in {bucket}");
        }
    }

    #[test]
    fn quantiles() {
        let histogram = Histogram::default();
        for us in 1..=1000 {
            histogram.record(Duration::from_micros(us));
        }
        let mut sums = [0; BUCKETS];
        histogram.add_to(&mut sums);
        assert!(
            (500..=640).contains(&quantile(&sums, 0.5)),
            "{}",
            quantile(&sums, 0.5)
        );
        assert!((990..=1280).contains(&quantile(&sums, 0.99)));
        assert_eq!(quantile(&[0; BUCKETS], 0.99), 0);
    }
}
