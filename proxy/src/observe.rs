//! Every metric, access-log field and failure record of the data plane.
//!
//! In: one `RequestRecord` per request or opaque connection, and counts of events. Out: cells that only
//! this worker writes and anybody may read, log lines, and a ring of what failed. Never: waits.

use std::{
    cell::RefCell,
    collections::HashMap,
    sync::{Arc, PoisonError},
    time::Duration,
};

use mesh_model::{
    name::{ServiceId, ServiceName},
    principal::SpiffeId,
};

use self::cells::{Cells, Series, SeriesKey};
use crate::listen::Kind;

/// Counters and histograms with one writer.
pub(crate) mod cells;
/// Counts by source and destination.
pub(crate) mod edges;
/// What failed lately.
pub(crate) mod failures;
/// The access log.
pub(crate) mod log;
/// The text of metrics, and rows of `stat`.
pub(crate) mod page;
/// What policies did.
mod policies;
/// Live requests for whoever looks.
pub(crate) mod tap;

pub(crate) use cells::{Counter, Transport};
pub(crate) use policies::Policies;

/// Which way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Direction {
    /// From a local program.
    Outbound,
    /// To a local program.
    Inbound,
}

impl Direction {
    /// The metric label.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Outbound => "outbound",
            Self::Inbound => "inbound",
        }
    }
}

/// One request, once it is over; for opaque connections, one connection.
#[derive(Debug)]
pub(crate) struct RequestRecord<'a> {
    /// Which way.
    pub(crate) direction: Direction,
    /// 32 hexadecimal digits.
    pub(crate) id: &'a str,
    /// Label of the caller: `Caller::label`, or [`Observe::principal`] of a peer, or [`Observe::unknown`].
    pub(crate) source: &'a Arc<str>,
    /// Label of the service that was called ([`Observe::label`]), or [`Observe::unknown`].
    pub(crate) destination: &'a Arc<str>,
    /// Name of the route, empty for none ([`Observe::no_route`]).
    pub(crate) route: &'a Arc<str>,
    /// `http/1.0`, `http/1.1`, `http/2`, `grpc`, `tcp`.
    pub(crate) protocol: &'static str,
    /// Method; empty for opaque connections.
    pub(crate) method: &'a str,
    /// Path without the query; empty for opaque connections.
    pub(crate) path: &'a str,
    /// Host or authority that was asked for; may be empty.
    pub(crate) authority: &'a str,
    /// Status sent to the caller; 0: none was sent.
    pub(crate) status: u16,
    /// gRPC status, when there was one.
    pub(crate) grpc_status: Option<u32>,
    /// Documented error code when the mesh failed the request; empty otherwise.
    pub(crate) code: &'static str,
    /// The cause in words, for `why`; may be empty.
    pub(crate) what: &'a str,
    /// What to do; the code's own advice when empty.
    pub(crate) remedy: &'a str,
    /// Caller's identity or address.
    pub(crate) caller: &'a str,
    /// Endpoint or program that answered last; empty when none was reached.
    pub(crate) endpoint: &'a str,
    /// Host of that endpoint, may be empty.
    pub(crate) endpoint_host: &'a str,
    /// Identity that it presented; empty for plaintext.
    pub(crate) peer: &'a str,
    /// Tries beyond the first.
    pub(crate) retries: u32,
    /// Each try in words: endpoint, host, what happened, duration.
    pub(crate) attempts: &'a [String],
    /// Bytes of the request's body (from the caller).
    pub(crate) received: u64,
    /// Bytes of the answer's body (to the caller).
    pub(crate) sent: u64,
    /// From the first byte of the head to the end of the answer.
    pub(crate) duration: Duration,
    /// Of it spent in this daemon; `None` where long bodies leave that open.
    pub(crate) own: Option<Duration>,
    /// True over mTLS, or within this host.
    pub(crate) secured: bool,
    /// W3C trace id, when the request carried one; empty otherwise.
    pub(crate) trace: &'a str,
}

impl RequestRecord<'_> {
    /// True when somebody may ask why: the mesh failed it, or the program did.
    fn failed(&self) -> bool {
        // Deadline exceeded, internal, unavailable, data loss.
        let grpc = matches!(self.grpc_status, Some(4 | 13 | 14 | 15));
        !self.code.is_empty() || self.status >= 500 || grpc
    }
}

/// Labels kept; more services than a mesh has.
const LABELS: usize = 16_384;
/// Series that one worker writes; beyond it everything counts as `other`.
const SERIES: usize = 8192;

/// One worker's counters.
#[derive(Debug)]
pub(crate) struct Observe {
    cells: Arc<Cells>,
    series: RefCell<HashMap<SeriesKey, Arc<Series>>>,
    /// The series used last: most connections use one.
    last: RefCell<Option<Arc<Series>>>,
    labels: RefCell<HashMap<ServiceId, Arc<str>>>,
    principals: RefCell<HashMap<SpiffeId, Arc<str>>>,
    log: log::Lines,
    no_route: Arc<str>,
    unknown: Arc<str>,
    other: Arc<str>,
}

impl Observe {
    /// Writes into `cells` and, unless the log is off, into `log`.
    pub(crate) fn new(cells: Arc<Cells>, log: log::Lines) -> Self {
        Self {
            cells,
            series: RefCell::default(),
            last: RefCell::default(),
            labels: RefCell::default(),
            principals: RefCell::default(),
            log,
            no_route: Arc::from(""),
            unknown: Arc::from("unknown"),
            other: Arc::from("other"),
        }
    }

    /// Records a request: counters, histogram, access log, and the failure ring when it failed. Once per request.
    pub(crate) fn request(&self, record: &RequestRecord<'_>) {
        self.series(record).record(record);
        self.cells.taps.tell(record);
        if !record.code.is_empty() {
            self.cells.errors.add(record.direction, record.code);
        }
        let failed = record.failed();
        if !self.log.write(record, failed) {
            self.cells.log_dropped.add(1);
        }
        if failed {
            let mut failures = self
                .cells
                .failures
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            failures.keep(record);
        }
    }

    /// The label of a service, `namespace/name`; the same allocation each time.
    pub(crate) fn label(&self, service: &ServiceId) -> Arc<str> {
        kept(&self.labels, service, || Arc::from(service.to_string()))
    }

    /// The label of a peer: its service, or `host` for a host itself; the same allocation each time.
    pub(crate) fn principal(&self, id: &SpiffeId) -> Arc<str> {
        kept(&self.principals, id, || {
            match ServiceName::new(id.service_account.as_str()) {
                Ok(name) if id.as_host().is_none() => {
                    self.label(&ServiceId::new(id.namespace.clone(), name))
                }
                Ok(_) | Err(_) => Arc::from("host"),
            }
        })
    }

    /// The label of no route.
    pub(crate) fn no_route(&self) -> &Arc<str> {
        &self.no_route
    }

    /// The label of what is not known.
    pub(crate) fn unknown(&self) -> &Arc<str> {
        &self.unknown
    }

    /// Counts a connection as open until the guard is dropped.
    pub(crate) fn connection(&self, kind: Kind) -> Open {
        Open::new(Arc::clone(&self.cells), kind as usize)
    }

    /// Counts a request as running until the guard is dropped.
    pub(crate) fn in_flight(&self, direction: Direction) -> Open {
        Open::new(
            Arc::clone(&self.cells),
            Kind::ALL.len() + direction as usize,
        )
    }

    /// Counters of connections and handshakes.
    pub(crate) fn transport(&self) -> &Transport {
        &self.cells.transport
    }

    /// Counters of what policies did.
    pub(crate) fn policies(&self) -> &Policies {
        &self.cells.policies
    }

    /// Requests that this worker serves now, both ways.
    pub(crate) fn running(&self) -> u64 {
        let requests = self.cells.gauges.iter().skip(Kind::ALL.len());
        requests.map(cells::Gauge::running).sum()
    }

    /// The counter of panics.
    pub(crate) fn panics(&self) -> Arc<Counter> {
        Arc::clone(&self.cells.panics)
    }

    /// Hands what was logged to the writer.
    pub(crate) fn flush(&self) {
        if !self.log.flush() {
            self.cells.log_dropped.add(1);
        }
    }

    fn series(&self, record: &RequestRecord<'_>) -> Arc<Series> {
        if let Some(last) = &*self.last.borrow()
            && last.key.is_of(record)
        {
            return Arc::clone(last);
        }
        let mut series = self.series.borrow_mut();
        let mut key = SeriesKey::of(record);
        if series.len() >= SERIES && !series.contains_key(&key) {
            let other = || Arc::clone(&self.other);
            key = SeriesKey {
                direction: record.direction,
                source: other(),
                destination: other(),
                route: other(),
            };
        }
        let found = series.entry(key).or_insert_with_key(|key| {
            let made = Arc::new(Series::new(key.clone()));
            let mut all = self
                .cells
                .series
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            all.push(Arc::clone(&made));
            made
        });
        self.last.replace(Some(Arc::clone(found)));
        Arc::clone(found)
    }
}

/// The value of a key, made once; forgets everything when there is too much.
fn kept<K: Clone + Eq + std::hash::Hash>(
    map: &RefCell<HashMap<K, Arc<str>>>,
    key: &K,
    make: impl FnOnce() -> Arc<str>,
) -> Arc<str> {
    if let Some(label) = map.borrow().get(key) {
        return Arc::clone(label);
    }
    let label = make();
    let mut map = map.borrow_mut();
    if map.len() >= LABELS {
        map.clear();
    }
    map.insert(key.clone(), Arc::clone(&label));
    label
}

/// Counts as open while alive.
#[derive(Debug)]
pub(crate) struct Open {
    cells: Arc<Cells>,
    index: usize,
}

impl Open {
    fn new(cells: Arc<Cells>, index: usize) -> Self {
        if let Some(gauge) = cells.gauges.get(index) {
            gauge.begin();
        }
        Self { cells, index }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        if let Some(gauge) = self.cells.gauges.get(self.index) {
            gauge.end();
        }
    }
}

/// A new id: 32 hexadecimal digits.
pub(crate) fn fresh_id() -> String {
    format!("{:032x}", fastrand::u128(..))
}

/// True for 32 hexadecimal digits.
pub(crate) fn is_id(text: &str) -> bool {
    text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
