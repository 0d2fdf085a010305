//! The generic cell rate algorithm: pure, and exact when many threads share one cell.
//!
//! A cell holds one number, the time at which everything admitted so far will have been paid for. Source:
//! ITU-T I.371, appendix I, as a virtual scheduling algorithm.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

/// A rate in nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Rate {
    /// What one request costs.
    interval: u64,
    /// How far ahead of the clock payment may be when one more comes.
    ahead: u64,
}

/// Nanoseconds that the clocks of threads which share a cell may be apart.
const APART: u64 = 1_000_000_000;

impl Rate {
    /// `requests` in `per`, at most `burst` at once, of which a share from 0 to 1 is ours. `None`: nothing is.
    pub(crate) fn new(requests: u32, per: Duration, burst: u32, share: f32) -> Option<Self> {
        let share = f64::from(share).clamp(0.0, 1.0);
        let per_second = f64::from(requests) / per.as_secs_f64().max(1e-9) * share;
        if per_second <= 0.0 {
            return None;
        }
        let interval = Duration::try_from_secs_f64(1.0 / per_second).unwrap_or(Duration::MAX);
        let interval = nanos(interval).max(1);
        let burst = (f64::from(burst) * share).max(1.0);
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "saturates at both ends"
        )]
        let steps = ((burst - 1.0) * 1000.0) as u64;
        let ahead = u128::from(interval) * u128::from(steps) / 1000;
        Some(Self {
            interval,
            ahead: u64::try_from(ahead).unwrap_or(u64::MAX),
        })
    }

    /// What becomes of a cell when a request comes at `now`; or how long the request is too early.
    pub(crate) fn next(self, paid: u64, now: u64) -> Result<u64, Duration> {
        let full = now.saturating_add(self.ahead);
        let most = full.saturating_add(self.interval).saturating_add(APART);
        // No cell of this rate is so far ahead: it was filled at another one.
        let from = if paid > most { full } else { paid.max(now) };
        let early = (from - now).saturating_sub(self.ahead);
        if early == 0 {
            Ok(from.saturating_add(self.interval))
        } else {
            Err(Duration::from_nanos(early))
        }
    }

    /// What is left of a cell at `now`: how many requests may come at once, and how long until it is whole.
    pub(crate) fn left(self, paid: u64, now: u64) -> (u64, Duration) {
        let full = now.saturating_add(self.ahead);
        let room = full.checked_sub(paid.max(now));
        let left = room.map_or(0, |room| (room / self.interval).saturating_add(1));
        (left, Duration::from_nanos(paid.saturating_sub(now)))
    }

    /// How long until a cell is whole that refused a request as so much too early.
    pub(crate) fn whole_after(self, early: Duration) -> Duration {
        early.saturating_add(Duration::from_nanos(self.ahead))
    }

    /// What a cell was before a request that is not counted after all.
    pub(crate) fn before(self, paid: u64) -> u64 {
        paid.saturating_sub(self.interval)
    }
}

/// Whole nanoseconds, saturating.
pub(crate) fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// A cell that threads share.
#[derive(Debug, Default)]
pub(crate) struct Cell(AtomicU64);

impl Cell {
    /// Takes one request in, or says how long it is too early. What it is then.
    pub(crate) fn take(&self, rate: Rate, now: u64) -> Result<u64, Duration> {
        let mut paid = self.0.load(Ordering::Relaxed);
        loop {
            let next = rate.next(paid, now)?;
            match self
                .0
                .compare_exchange_weak(paid, next, Ordering::Relaxed, Ordering::Relaxed)
            {
                Ok(_) => return Ok(next),
                Err(found) => paid = found,
            }
        }
    }

    /// Gives one request back.
    pub(crate) fn give_back(&self, rate: Rate) {
        let less = |paid| Some(rate.before(paid));
        // Never fails: the function always gives a value.
        let _before = self
            .0
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
    }
}

#[cfg(test)]
#[expect(clippy::cast_precision_loss, reason = "small numbers")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn rate(requests: u32, burst: u32) -> Rate {
        Rate::new(requests, Duration::from_secs(1), burst, 1.0).unwrap()
    }

    #[test]
    fn a_burst_and_then_the_rate() {
        let (cell, rate) = (Cell::default(), rate(10, 3));
        let at = |ms: u64| cell.take(rate, SECOND + ms * 1_000_000);
        assert!(at(0).is_ok() && at(0).is_ok() && at(0).is_ok());
        assert_eq!(at(0), Err(Duration::from_millis(100)));
        assert_eq!(at(99), Err(Duration::from_millis(1)));
        assert!(at(100).is_ok() && at(100).is_err());
        cell.give_back(rate);
        assert!(at(100).is_ok() && at(100).is_err());
    }

    #[test]
    fn what_is_left() {
        let (cell, rate) = (Cell::default(), rate(10, 3));
        let left = |paid| rate.left(paid, SECOND);
        let ms = Duration::from_millis;
        for (remain, whole) in [(2, 100), (1, 200), (0, 300)] {
            assert_eq!(left(cell.take(rate, SECOND).unwrap()), (remain, ms(whole)));
        }
        let early = cell.take(rate, SECOND).unwrap_err();
        assert_eq!(rate.whole_after(early), ms(300));
    }

    #[test]
    fn shares() {
        let of = |share| Rate::new(100, Duration::from_secs(1), 10, share);
        assert_eq!(of(0.0), None);
        assert_eq!(of(0.5), Rate::new(50, Duration::from_secs(1), 5, 1.0));
        assert_eq!(Rate::new(0, Duration::from_secs(1), 1, 1.0), None);
        // Less than one at once is still one.
        assert_eq!(of(0.007_812_5).map(|rate| rate.ahead), Some(0));
        assert_eq!(of(0.03125), Rate::new(25, Duration::from_secs(8), 1, 1.0));
    }

    /// A cell that was filled at another rate: what the limit was before is forgotten.
    #[test]
    fn a_limit_that_is_raised_acts_at_once() {
        let cell = Cell::default();
        let before = Rate::new(1, Duration::from_hours(1), 10, 1.0).unwrap();
        while cell.take(before, SECOND).is_ok() {}
        let raised = rate(100, 10);
        assert!(cell.take(raised, 2 * SECOND).is_ok());
        let wait = cell.take(raised, 2 * SECOND).unwrap_err();
        assert!(wait <= Duration::from_millis(10), "{wait:?}");
    }

    /// Threads that race for the same instant get exactly the burst, whoever gets it.
    #[test]
    fn threads_share_exactly() {
        let (cell, rate) = (Cell::default(), rate(1, 1000));
        let admitted: usize = std::thread::scope(|scope| {
            let count = || {
                (0..1000)
                    .filter(|_| cell.take(rate, SECOND).is_ok())
                    .count()
            };
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(count)).collect();
            threads.into_iter().map(|one| one.join().unwrap()).sum()
        });
        assert_eq!(admitted, 1000);
    }

    proptest! {
        /// In no stretch of time is more admitted than the burst and what the rate earns in it; and what is
        /// refused would have been too much.
        #[test]
        fn never_more_never_less(
            requests in 1u32..500,
            burst in 1u32..50,
            gaps in prop::collection::vec(0u64..30_000_000, 1..300),
        ) {
            let (cell, rate) = (Cell::default(), rate(requests, burst));
            let mut now = SECOND;
            let mut admitted = Vec::new();
            let mut level = f64::from(burst);
            let mut last = now;
            for gap in gaps {
                now += gap;
                // A bucket of tokens says the same thing, but for rounding.
                level = (level + (now - last) as f64 * f64::from(requests) / 1e9).min(f64::from(burst));
                last = now;
                match cell.take(rate, now) {
                    Ok(paid) => {
                        prop_assert!(level >= 1.0 - 1e-3, "admitted at {level}");
                        level -= 1.0;
                        let (left, whole) = rate.left(paid, now);
                        prop_assert!((left as f64 - level).abs() < 1.0 + 1e-3, "{left} left at {level}");
                        let missing = (f64::from(burst) - level) / f64::from(requests);
                        prop_assert!((whole.as_secs_f64() - missing).abs() < 1e-3, "{whole:?}");
                        admitted.push(now);
                    }
                    Err(early) => {
                        prop_assert!(level < 1.0 + 1e-3, "refused at {level}");
                        let later = now + nanos(early);
                        prop_assert!(rate.next(cell.0.load(Ordering::Relaxed), later).is_ok());
                    }
                }
            }
            for (index, from) in admitted.iter().enumerate() {
                for (further, to) in admitted.iter().enumerate().skip(index) {
                    let earned = (to - from) as f64 * f64::from(requests) / 1e9;
                    let count = (further - index + 1) as f64;
                    prop_assert!(count <= f64::from(burst) + earned + 1e-3);
                }
            }
        }
    }
}
