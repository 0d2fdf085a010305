//! Who is out, why, and for how long.
//!
//! A failed dial puts an endpoint out at once; it is asked again in the background, ever less often, and comes
//! back when it takes a connection. What it answers puts it out by the backend's policy, for a while. Active
//! checks put it out until they pass again. It is in when nothing keeps it out. Callers never serve as the probe.

use std::{
    sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering::Relaxed},
    time::Duration,
};

/// What keeps an endpoint out. Several may at once; each ends by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Hold {
    /// It takes no connections.
    Dial = 1,
    /// Its host was reached and refused for it.
    Refused = 2,
    /// What it answered.
    Outlier = 4,
    /// A health check by this host.
    Check = 8,
}

/// Why an endpoint was put out, in words that do not change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Reason {
    /// A dial failed.
    Dial,
    /// Its host refused for it.
    Refused,
    /// Errors in a row.
    Errors,
    /// Gateway errors in a row.
    Gateway,
    /// No answer, several times in a row.
    Unanswered,
    /// Its success rate is far below the others'.
    SuccessRate,
    /// Its latency is far above the others'.
    Latency,
    /// A health check failed.
    Check,
}

impl Reason {
    /// All of them, in order.
    pub(crate) const ALL: [Self; 8] = [
        Self::Dial,
        Self::Refused,
        Self::Errors,
        Self::Gateway,
        Self::Unanswered,
        Self::SuccessRate,
        Self::Latency,
        Self::Check,
    ];

    /// The metric label and the word in `meshctl endpoints`.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Dial => "failed dial",
            Self::Refused => "refused by its host",
            Self::Errors => "errors in a row",
            Self::Gateway => "gateway errors in a row",
            Self::Unanswered => "no answer in a row",
            Self::SuccessRate => "success rate",
            Self::Latency => "latency",
            Self::Check => "failed health check",
        }
    }

    /// What keeps it out then.
    pub(crate) fn hold(self) -> Hold {
        match self {
            Self::Dial => Hold::Dial,
            Self::Refused => Hold::Refused,
            Self::Errors | Self::Gateway | Self::Unanswered | Self::SuccessRate | Self::Latency => {
                Hold::Outlier
            }
            Self::Check => Hold::Check,
        }
    }
}

/// One endpoint's health as this host sees it; shared by all workers, written on failure only.
#[derive(Debug)]
pub(crate) struct Health {
    holds: AtomicU8,
    /// The last reason.
    reason: AtomicU8,
    /// When the last pause ends, milliseconds since the epoch; 0: when it is found well.
    until_ms: AtomicU64,
    /// Since when it is in, microseconds of the workers' clock.
    since_us: AtomicU64,
    /// Times it was put out for failed dials and refusals since it last did well.
    times: AtomicU32,
    /// Times it was put out for its answers, less one for each interval that it has been in since.
    ejections: AtomicU32,
    /// True once the snapshot no longer names it.
    gone: AtomicBool,
    /// Failures in a row.
    pub(crate) rows: Rows,
}

/// Failures in a row, by kind; all are over with the first success.
#[derive(Debug, Default)]
pub(crate) struct Rows {
    errors: AtomicU32,
    gateway: AtomicU32,
    unanswered: AtomicU32,
}

/// First time until an endpoint is asked again, and the longest.
const FIRST: Duration = Duration::from_millis(250);
const LONGEST: Duration = Duration::from_secs(4);
/// First time that a refused endpoint stays out, and the longest.
const PAUSE: Duration = Duration::from_secs(2);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

impl Health {
    /// In since `now_us`.
    pub(crate) fn new(now_us: u64) -> Self {
        Self {
            holds: AtomicU8::new(0),
            reason: AtomicU8::new(0),
            until_ms: AtomicU64::new(0),
            since_us: AtomicU64::new(now_us),
            times: AtomicU32::new(0),
            ejections: AtomicU32::new(0),
            gone: AtomicBool::new(false),
            rows: Rows::default(),
        }
    }

    /// True while it must not be picked if another can.
    pub(crate) fn is_out(&self) -> bool {
        self.holds.load(Relaxed) != 0
    }

    /// True while this keeps it out.
    pub(crate) fn is_held(&self, hold: Hold) -> bool {
        self.holds.load(Relaxed) & hold as u8 != 0
    }

    /// Why it is out.
    pub(crate) fn reason(&self) -> Option<Reason> {
        let last = Reason::ALL.get(usize::from(self.reason.load(Relaxed)));
        last.copied().filter(|_| self.is_out())
    }

    /// When it will be in again, in milliseconds since the epoch; `None`: when it is found well.
    pub(crate) fn until_ms(&self) -> Option<u64> {
        Some(self.until_ms.load(Relaxed)).filter(|until| *until > 0)
    }

    /// Since when it is in, microseconds of the workers' clock.
    pub(crate) fn since_us(&self) -> u64 {
        self.since_us.load(Relaxed)
    }

    /// True once the snapshot no longer names it.
    pub(crate) fn is_gone(&self) -> bool {
        self.gone.load(Relaxed)
    }

    /// Says whether the snapshot names it.
    pub(crate) fn set_gone(&self, gone: bool) {
        if self.is_gone() != gone {
            self.gone.store(gone, Relaxed);
        }
    }

    /// Puts it out for a reason. The first value is true for the one who must see to its return, the second when
    /// it was in.
    pub(crate) fn put_out(&self, reason: Reason) -> (bool, bool) {
        let bit = reason.hold() as u8;
        let before = self.holds.fetch_or(bit, Relaxed);
        let first = before & bit == 0;
        if first {
            self.reason.store(reason as u8, Relaxed);
            self.until_ms.store(0, Relaxed);
            if matches!(reason.hold(), Hold::Dial | Hold::Refused) {
                self.times.fetch_add(1, Relaxed);
            }
        }
        (first, before == 0)
    }

    /// Says until when it will be out.
    pub(crate) fn set_until_ms(&self, until_ms: u64) {
        self.until_ms.store(until_ms, Relaxed);
    }

    /// Ends a hold; true when it is in again by that.
    pub(crate) fn release(&self, hold: Hold, now_us: u64) -> bool {
        if hold != Hold::Check {
            self.rows.clear();
        }
        let before = self.holds.fetch_and(!(hold as u8), Relaxed);
        let back = before == hold as u8;
        if back {
            self.since_us.store(now_us, Relaxed);
        }
        back
    }

    /// A request or connection did well.
    pub(crate) fn did_well(&self) {
        self.rows.clear();
        if self.times.load(Relaxed) != 0 && !self.is_out() {
            self.times.store(0, Relaxed);
        }
    }

    /// Counts an ejection for its answers; how many there were lately, this one included.
    pub(crate) fn count_ejection(&self, now_us: u64, interval: Duration) -> u32 {
        let interval = u64::try_from(interval.as_micros()).unwrap_or(u64::MAX);
        let well = now_us
            .saturating_sub(self.since_us())
            .checked_div(interval)
            .unwrap_or(0);
        let forgiven = u32::try_from(well).unwrap_or(u32::MAX);
        let before = self.ejections.load(Relaxed);
        let ejections = before.saturating_sub(forgiven).saturating_add(1);
        self.ejections.store(ejections, Relaxed);
        ejections
    }

    /// Time until it is asked for the `probe`th time (from 0) since it was put out.
    pub(crate) fn ask_after(&self, probe: u32) -> Duration {
        let times = self.times.load(Relaxed).saturating_sub(1);
        doubled(FIRST, times.saturating_add(probe), LONGEST)
    }

    /// Time that it stays out after a refusal.
    pub(crate) fn pause(&self) -> Duration {
        let times = self.times.load(Relaxed).saturating_sub(1);
        doubled(PAUSE, times, LONGEST_PAUSE)
    }
}

impl Rows {
    fn clear(&self) {
        // Reading first keeps the line shared between workers in the common case.
        for row in [&self.errors, &self.gateway, &self.unanswered] {
            if row.load(Relaxed) != 0 {
                row.store(0, Relaxed);
            }
        }
    }

    /// An answer that is an error; the rows of errors and of gateway errors with it.
    pub(crate) fn error(&self, gateway: bool) -> (u32, u32) {
        if self.unanswered.load(Relaxed) != 0 {
            self.unanswered.store(0, Relaxed);
        }
        let errors = self.errors.fetch_add(1, Relaxed).saturating_add(1);
        let gateways = if gateway {
            self.gateway.fetch_add(1, Relaxed).saturating_add(1)
        } else {
            self.gateway.store(0, Relaxed);
            0
        };
        (errors, gateways)
    }

    /// No answer; the rows of errors, gateway errors and missing answers with it.
    pub(crate) fn unanswered(&self) -> (u32, u32, u32) {
        let count = |row: &AtomicU32| row.fetch_add(1, Relaxed).saturating_add(1);
        (
            count(&self.errors),
            count(&self.gateway),
            count(&self.unanswered),
        )
    }
}

fn doubled(first: Duration, times: u32, longest: Duration) -> Duration {
    first
        .saturating_mul(1u32.checked_shl(times).unwrap_or(u32::MAX))
        .min(longest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn out_and_in() {
        let health = Health::new(0);
        assert_eq!(health.put_out(Reason::Dial), (true, true));
        assert_eq!(
            health.put_out(Reason::Dial),
            (false, false),
            "only one sees to its return"
        );
        assert!(health.is_out());
        assert_eq!(health.reason(), Some(Reason::Dial));
        let waits: Vec<_> = (0..6)
            .map(|probe| health.ask_after(probe).as_millis())
            .collect();
        assert_eq!(waits, [250, 500, 1000, 2000, 4000, 4000]);
        assert!(health.release(Hold::Dial, 7));
        assert!(!health.is_out());
        assert_eq!((health.reason(), health.since_us()), (None, 7));
        assert!(health.put_out(Reason::Dial).0);
        assert_eq!(
            health.ask_after(0).as_millis(),
            500,
            "again before it did well: waits longer"
        );
        health.release(Hold::Dial, 0);
        health.did_well();
        assert!(health.put_out(Reason::Dial).0);
        assert_eq!(health.ask_after(0).as_millis(), 250);
        assert_eq!(doubled(PAUSE, 99, LONGEST_PAUSE), LONGEST_PAUSE);
    }

    #[test]
    fn several_holds() {
        let health = Health::new(0);
        health.put_out(Reason::Check);
        assert_eq!(health.put_out(Reason::Latency), (true, false));
        assert!(!health.release(Hold::Check, 1), "the other still holds");
        assert!(health.is_out() && health.is_held(Hold::Outlier));
        assert!(health.release(Hold::Outlier, 2));
        assert!(!health.release(Hold::Outlier, 3), "only once");
    }

    #[test]
    fn rows() {
        let health = Health::new(0);
        assert_eq!(health.rows.error(true), (1, 1));
        assert_eq!(health.rows.unanswered(), (2, 2, 1));
        assert_eq!(health.rows.error(false), (3, 0));
        assert_eq!(
            health.rows.unanswered(),
            (4, 1, 1),
            "an answer ends the row without"
        );
        health.did_well();
        assert_eq!(health.rows.unanswered(), (1, 1, 1));
    }

    #[test]
    fn ejections_are_forgiven_with_time() {
        let health = Health::new(0);
        let second = Duration::from_secs(1);
        assert_eq!(health.count_ejection(0, second), 1);
        assert_eq!(health.count_ejection(500_000, second), 2);
        assert_eq!(health.count_ejection(900_000, second), 3);
        assert_eq!(health.count_ejection(2_000_000, second), 2);
        assert_eq!(health.count_ejection(99_000_000, second), 1);
    }
}
