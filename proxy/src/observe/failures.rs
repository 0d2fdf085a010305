//! A ring of the requests that failed last, kept small: it is full on every busy daemon.
//!
//! In: records of failed requests. Out: what is known of one of them, by its id. Never: more than
//! `MOST` records, or longer ones than the heads of requests allow.

use std::{collections::VecDeque, sync::Arc};

use mesh_model::admin::FailureRecord;

use super::{Direction, RequestRecord, micros};
use crate::{clock::now_ms, failure::Code};

/// Records that one worker keeps.
const MOST: usize = 4096;

/// What failed lately.
#[derive(Debug, Default)]
pub(crate) struct Failures {
    ring: VecDeque<Failed>,
}

/// One of them. What is the same in many records is shared, all else is one text.
#[derive(Debug)]
struct Failed {
    direction: Direction,
    time_ms: u64,
    code: &'static str,
    status: u16,
    destination: Arc<str>,
    route: Arc<str>,
    duration_us: u64,
    text: Box<str>,
    /// Where the parts of the text end: id, caller, method, path, what, remedy, then each attempt.
    ends: Box<[u32]>,
}

impl Failures {
    /// Keeps a record; the oldest is forgotten.
    pub(super) fn keep(&mut self, record: &RequestRecord<'_>) {
        if self.ring.len() >= MOST {
            self.ring.pop_front();
        }
        self.ring.push_back(Failed::new(record));
    }

    /// All that is known, the oldest first.
    #[cfg(test)]
    pub(crate) fn all(&self) -> impl DoubleEndedIterator<Item = FailureRecord> {
        self.ring.iter().map(Failed::told)
    }

    /// All that is known under an id, the oldest first.
    pub(crate) fn of(&self, id: &str) -> impl Iterator<Item = FailureRecord> {
        self.ring
            .iter()
            .filter(move |failed| failed.part(0).eq_ignore_ascii_case(id))
            .map(Failed::told)
    }
}

impl Failed {
    fn new(record: &RequestRecord<'_>) -> Self {
        let first = [
            record.id,
            record.caller,
            record.method,
            record.path,
            record.what,
            record.remedy,
        ];
        let parts = || {
            let attempts = record.attempts.iter().map(String::as_str);
            first.into_iter().chain(attempts)
        };
        let mut text = String::with_capacity(parts().map(str::len).sum());
        let mut ends = Vec::with_capacity(first.len() + record.attempts.len());
        for part in parts() {
            text.push_str(part);
            ends.push(u32::try_from(text.len()).unwrap_or(u32::MAX));
        }
        Self {
            direction: record.direction,
            time_ms: now_ms(),
            code: record.code,
            status: record.status,
            destination: Arc::clone(record.destination),
            route: Arc::clone(record.route),
            duration_us: micros(record.duration),
            text: text.into_boxed_str(),
            ends: ends.into_boxed_slice(),
        }
    }

    fn part(&self, index: usize) -> &str {
        let end = |index: usize| self.ends.get(index).copied().unwrap_or_default() as usize;
        let start = index.checked_sub(1).map_or(0, end);
        self.text.get(start..end(index)).unwrap_or_default()
    }

    fn told(&self) -> FailureRecord {
        let part = |index: usize| self.part(index).to_owned();
        let request = match (self.part(2), self.part(3)) {
            ("", _) => String::new(),
            (method, path) => format!("{method} {path}"),
        };
        let remedy = match self.part(5) {
            "" => Code::parse(self.code).map_or("", |code| code.documented().remedy),
            own => own,
        };
        FailureRecord {
            id: part(0),
            host: String::new(),
            side: self.direction.as_str().to_owned(),
            time_ms: self.time_ms,
            code: self.code.to_owned(),
            status: self.status,
            source: part(1),
            destination: self.destination.to_string(),
            request,
            route: self.route.to_string(),
            attempts: (6..self.ends.len()).map(part).collect(),
            what: part(4),
            remedy: remedy.to_owned(),
            duration_us: self.duration_us,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn keep(failures: &mut Failures, id: &str, path: &str, attempts: &[String]) {
        let label: Arc<str> = Arc::from("default/words");
        failures.keep(&RequestRecord {
            direction: Direction::Outbound,
            id,
            source: &label,
            destination: &label,
            route: &Arc::from("words@1"),
            protocol: "http/1.1",
            method: "GET",
            path,
            authority: "words",
            status: 504,
            grpc_status: None,
            code: "request-timeout",
            what: "no answer within 1 s — «slow»",
            remedy: "",
            caller: "simon",
            endpoint: "",
            endpoint_host: "",
            peer: "",
            retries: 1,
            attempts,
            received: 0,
            sent: 0,
            duration: Duration::from_millis(1_001),
            own: None,
            secured: true,
            trace: "",
        });
    }

    #[test]
    fn what_is_kept_is_told_whole() {
        let mut failures = Failures::default();
        let attempts = ["a on h1: reset".to_owned(), String::new(), "ü".to_owned()];
        keep(&mut failures, "AB12", "/a", &attempts);
        keep(&mut failures, "cd34", "", &[]);
        let told: Vec<_> = failures.of("ab12").collect();
        let [told] = told.as_slice() else {
            panic!("{told:?}")
        };
        assert_eq!((told.id.as_str(), told.source.as_str()), ("AB12", "simon"));
        assert_eq!(told.request, "GET /a");
        assert_eq!(told.destination, "default/words");
        assert_eq!(told.route, "words@1");
        assert_eq!(told.what, "no answer within 1 s — «slow»");
        assert_eq!(told.attempts, attempts);
        assert_eq!((told.status, told.duration_us), (504, 1_001_000));
        assert_eq!(failures.of("cd34").next().map(|t| t.attempts), Some(vec![]));
        assert_eq!(failures.of("ef56").count(), 0);
    }

    #[test]
    fn the_oldest_are_forgotten() {
        let mut failures = Failures::default();
        for number in 0..=MOST {
            keep(&mut failures, &number.to_string(), "/", &[]);
        }
        assert_eq!(failures.of("0").count(), 0);
        assert_eq!(failures.of("1").count(), 1);
        assert_eq!(failures.of(&MOST.to_string()).count(), 1);
    }
}
