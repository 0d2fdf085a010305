//! Who is out, and how they come back.
//!
//! A refused or failed dial puts an endpoint out at once; it is asked again in the background, ever less
//! often, and comes back when it takes a connection. Resets and time-outs put it out after five in a row,
//! for a while. Callers never serve as the probe.

use std::{
    sync::atomic::{AtomicBool, AtomicU32, Ordering},
    time::Duration,
};

/// One endpoint's health as this host sees it; shared by all workers, written on failure only.
#[derive(Debug, Default)]
pub(crate) struct Health {
    out: AtomicBool,
    /// Times it was put out since it last did well.
    times: AtomicU32,
    /// Failures in a row that are no failed dials.
    row: AtomicU32,
}

/// Failures in a row that put an endpoint out.
const ROW: u32 = 5;
/// First time until an endpoint is asked again, and the longest.
const FIRST: Duration = Duration::from_millis(250);
const LONGEST: Duration = Duration::from_secs(4);
/// First time that an endpoint stays out after failures in a row, and the longest.
const PAUSE: Duration = Duration::from_secs(2);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

impl Health {
    /// True while it must not be picked if another can.
    pub(crate) fn is_out(&self) -> bool {
        self.out.load(Ordering::Relaxed)
    }

    /// Puts it out; true for the caller that must see to its return.
    pub(crate) fn put_out(&self) -> bool {
        let first = !self.out.swap(true, Ordering::Relaxed);
        if first {
            self.times.fetch_add(1, Ordering::Relaxed);
        }
        first
    }

    /// Counts a failure in a row; true when there are too many.
    pub(crate) fn too_many(&self) -> bool {
        self.row.fetch_add(1, Ordering::Relaxed) + 1 >= ROW
    }

    /// A request or connection did well.
    pub(crate) fn did_well(&self) {
        // Reading first keeps the line shared between workers in the common case.
        if self.row.load(Ordering::Relaxed) != 0 {
            self.row.store(0, Ordering::Relaxed);
        }
        if self.times.load(Ordering::Relaxed) != 0 && !self.is_out() {
            self.times.store(0, Ordering::Relaxed);
        }
    }

    /// Puts it back in.
    pub(crate) fn put_in(&self) {
        self.row.store(0, Ordering::Relaxed);
        self.out.store(false, Ordering::Relaxed);
    }

    /// Time until it is asked for the `probe`th time (from 0) since it was put out.
    pub(crate) fn ask_after(&self, probe: u32) -> Duration {
        let times = self.times.load(Ordering::Relaxed).saturating_sub(1);
        doubled(FIRST, times.saturating_add(probe), LONGEST)
    }

    /// Time that it stays out after failures in a row.
    pub(crate) fn pause(&self) -> Duration {
        doubled(
            PAUSE,
            self.times.load(Ordering::Relaxed).saturating_sub(1),
            LONGEST_PAUSE,
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
        let health = Health::default();
        assert!(health.put_out());
        assert!(!health.put_out(), "only one sees to its return");
        assert!(health.is_out());
        let waits: Vec<_> = (0..6)
            .map(|probe| health.ask_after(probe).as_millis())
            .collect();
        assert_eq!(waits, [250, 500, 1000, 2000, 4000, 4000]);
        health.put_in();
        assert!(!health.is_out());
        assert!(health.put_out());
        assert_eq!(
            health.ask_after(0).as_millis(),
            500,
            "again before it did well: waits longer"
        );
        health.put_in();
        health.did_well();
        assert!(health.put_out());
        assert_eq!(health.ask_after(0).as_millis(), 250);
    }

    #[test]
    fn failures_in_a_row() {
        let health = Health::default();
        assert!((0..4).all(|_| !health.too_many()));
        health.did_well();
        assert!((0..4).all(|_| !health.too_many()));
        assert!(health.too_many());
        assert_eq!(doubled(PAUSE, 99, LONGEST_PAUSE), LONGEST_PAUSE);
    }
}
