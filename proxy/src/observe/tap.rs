//! Live requests for whoever looks: told when they end, never waited for.
//!
//! In: one `RequestRecord` per request. Out: copies to the readers whose filter fits. Never: costs more than
//! one relaxed load per request while nobody looks; a slow reader misses records and is told how many.

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicU64, AtomicUsize, Ordering},
};

use mesh_model::admin::live::{TapFilter, TapRecord};
use tokio::sync::mpsc;

use super::{RequestRecord, micros};
use crate::clock::now_ms;

/// Records that wait for one reader; more are missed.
const WAITING: usize = 1024;

/// Everybody who looks; shared by the workers.
#[derive(Debug, Default)]
pub(crate) struct Taps {
    open: AtomicUsize,
    readers: Mutex<Vec<Reader>>,
}

#[derive(Debug)]
struct Reader {
    filter: TapFilter,
    records: mpsc::Sender<TapRecord>,
    missed: Arc<AtomicU64>,
}

/// One who looks; ends when dropped.
#[derive(Debug)]
pub struct Tap {
    records: mpsc::Receiver<TapRecord>,
    missed: Arc<AtomicU64>,
}

impl Tap {
    /// The next request that ends and fits; `None` when the data plane has ended.
    pub async fn next(&mut self) -> Option<TapRecord> {
        let mut record = self.records.recv().await?;
        record.missed = self.missed.swap(0, Ordering::Relaxed);
        Some(record)
    }
}

impl Taps {
    /// Begins to look.
    pub(crate) fn open(&self, filter: TapFilter) -> Tap {
        let (records, receiver) = mpsc::channel(WAITING);
        let missed = Arc::new(AtomicU64::new(0));
        let mut readers = self.readers.lock().unwrap_or_else(PoisonError::into_inner);
        readers.push(Reader {
            filter,
            records,
            missed: Arc::clone(&missed),
        });
        self.open.store(readers.len(), Ordering::Relaxed);
        Tap {
            records: receiver,
            missed,
        }
    }

    /// Tells a request that has ended.
    pub(crate) fn tell(&self, record: &RequestRecord<'_>) {
        if self.open.load(Ordering::Relaxed) != 0 {
            self.tell_readers(record);
        }
    }

    #[cold]
    fn tell_readers(&self, record: &RequestRecord<'_>) {
        let mut readers = self.readers.lock().unwrap_or_else(PoisonError::into_inner);
        readers.retain(|reader| !reader.records.is_closed());
        self.open.store(readers.len(), Ordering::Relaxed);
        for reader in readers.iter().filter(|one| fits(&one.filter, record)) {
            if reader.records.try_send(told(record)).is_err() {
                reader.missed.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

fn fits(filter: &TapFilter, record: &RequestRecord<'_>) -> bool {
    let is = |wanted: &str, found: &str| wanted.is_empty() || wanted == found;
    is(&filter.direction, record.direction.as_str())
        && is(&filter.source, record.source)
        && is(&filter.destination, record.destination)
        && is(&filter.route, record.route)
        && is(&filter.method, record.method)
        && record.path.starts_with(&filter.path)
        && is_status(&filter.status, record.status)
        && (!filter.failed || record.failed())
}

/// `503`, or `5xx`.
fn is_status(wanted: &str, status: u16) -> bool {
    match wanted.strip_suffix("xx") {
        _ if wanted.is_empty() => true,
        Some(class) => class.parse() == Ok(status / 100),
        None => wanted.parse() == Ok(status),
    }
}

fn told(record: &RequestRecord<'_>) -> TapRecord {
    TapRecord {
        time_ms: now_ms(),
        direction: record.direction.as_str().to_owned(),
        id: record.id.to_owned(),
        source: record.source.to_string(),
        destination: record.destination.to_string(),
        route: record.route.to_string(),
        protocol: record.protocol.to_owned(),
        method: record.method.to_owned(),
        path: record.path.to_owned(),
        authority: record.authority.to_owned(),
        status: record.status,
        grpc_status: record.grpc_status,
        code: record.code.to_owned(),
        endpoint: record.endpoint.to_owned(),
        peer: record.peer.to_owned(),
        retries: record.retries,
        received: record.received,
        sent: record.sent,
        duration_us: micros(record.duration),
        missed: 0,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::observe::Direction;

    fn record(labels: &[Arc<str>; 3], status: u16) -> RequestRecord<'_> {
        let [source, destination, route] = labels;
        RequestRecord {
            direction: Direction::Outbound,
            id: "00000000000000000000000000000001",
            source,
            destination,
            route,
            protocol: "http/1.1",
            method: "GET",
            path: "/a/b",
            authority: "words",
            status,
            grpc_status: None,
            code: "",
            what: "",
            remedy: "",
            caller: "",
            endpoint: "e1",
            endpoint_host: "",
            peer: "",
            retries: 0,
            attempts: &[],
            received: 0,
            sent: 5,
            duration: Duration::from_micros(7),
            own: None,
            secured: true,
            trace: "",
        }
    }

    fn labels() -> [Arc<str>; 3] {
        ["shop/web".into(), "default/words".into(), "".into()]
    }

    #[tokio::test]
    async fn readers_get_what_fits() {
        let taps = Taps::default();
        let labels = labels();
        let mut all = taps.open(TapFilter::default());
        let mut failures = taps.open(TapFilter {
            status: "5xx".into(),
            path: "/a".into(),
            source: "shop/web".into(),
            ..TapFilter::default()
        });
        taps.tell(&record(&labels, 200));
        taps.tell(&record(&labels, 503));
        assert_eq!(all.next().await.unwrap().status, 200);
        assert_eq!(all.next().await.unwrap().status, 503);
        assert_eq!(failures.next().await.unwrap().status, 503);
        drop((all, failures));
        taps.tell(&record(&labels, 200));
        assert_eq!(taps.open.load(Ordering::Relaxed), 0, "nobody looks");
    }

    #[tokio::test]
    async fn who_is_slow_is_told_what_was_missed() {
        let taps = Taps::default();
        let labels = labels();
        let mut slow = taps.open(TapFilter::default());
        for _ in 0..WAITING + 3 {
            taps.tell(&record(&labels, 200));
        }
        assert_eq!(slow.next().await.unwrap().missed, 3);
        assert_eq!(slow.next().await.unwrap().missed, 0);
    }

    #[test]
    fn other_filters_fit_nothing() {
        let labels = labels();
        let record = record(&labels, 200);
        let with = |change: fn(&mut TapFilter)| {
            let mut filter = TapFilter::default();
            change(&mut filter);
            fits(&filter, &record)
        };
        assert!(with(|_| {}));
        assert!(with(|filter| filter.status = "200".into()));
        assert!(!with(|filter| filter.status = "4xx".into()));
        assert!(!with(|filter| filter.status = "x".into()));
        assert!(!with(|filter| filter.failed = true));
        assert!(!with(|filter| filter.direction = "inbound".into()));
        assert!(!with(|filter| filter.method = "POST".into()));
        assert!(!with(|filter| filter.path = "/b".into()));
        assert!(!with(|filter| filter.route = "default/r".into()));
        assert!(!with(|filter| filter.destination = "default/other".into()));
    }
}
