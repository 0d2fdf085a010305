//! How many retries a backend may get: a part of its requests, and a least rate; 20 % and 10 per second unless
//! its policy says otherwise.
//!
//! One bucket for all workers; requests are counted by each worker alone and paid in together, so that
//! a request that needs no retry touches nothing that others write.

use std::{
    cell::Cell,
    sync::{
        Arc,
        atomic::{AtomicI64, AtomicU64, Ordering},
    },
};

use mesh_model::snapshot::traffic::RetryBudget;

/// Thousandths of a retry.
const RETRY: i64 = 1000;
/// Retries that may be saved up where the least rate is small.
const LEAST_SAVED: i64 = 10;
/// Seconds of the least rate that may be saved up.
const SAVED_SECS: i64 = 10;
/// Requests that a worker counts before it pays in.
const TOGETHER: u32 = 32;

/// What a policy says, in thousandths of a retry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Rates {
    per_request: i64,
    /// A retry per second is a thousandth per millisecond.
    per_millisecond: u64,
    most: i64,
}

impl Rates {
    #[expect(clippy::cast_possible_truncation, reason = "bounded before")]
    fn of(policy: RetryBudget) -> Self {
        let percent = f64::from(policy.percent).clamp(0.0, 10_000.0);
        let per_request = (percent * 10.0).round() as i64;
        let saved = i64::from(policy.minimum_per_second).saturating_mul(SAVED_SECS);
        let saved = if per_request > 0 {
            saved.max(LEAST_SAVED)
        } else {
            saved
        };
        Self {
            per_request,
            per_millisecond: u64::from(policy.minimum_per_second),
            most: saved.saturating_mul(RETRY),
        }
    }
}

/// The bucket.
#[derive(Debug)]
pub(crate) struct Bucket {
    saved: AtomicI64,
    filled_ms: AtomicU64,
}

impl Bucket {
    /// A full one.
    pub(crate) fn new(policy: RetryBudget, now_ms: u64) -> Self {
        Self {
            saved: AtomicI64::new(Rates::of(policy).most),
            filled_ms: AtomicU64::new(now_ms),
        }
    }

    fn pay_in(&self, amount: i64, rates: &Rates) {
        let add = |saved: i64| Some(saved.saturating_add(amount).min(rates.most));
        // Never fails: the function always gives a value.
        let _before = self
            .saved
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, add);
    }

    fn fill(&self, now_ms: u64, rates: &Rates) {
        let before = self.filled_ms.fetch_max(now_ms, Ordering::Relaxed);
        let earned = now_ms
            .saturating_sub(before)
            .saturating_mul(rates.per_millisecond);
        if earned > 0 {
            self.pay_in(i64::try_from(earned).unwrap_or(rates.most), rates);
        }
    }

    fn take(&self) -> bool {
        let less = |saved: i64| (saved >= RETRY).then(|| saved - RETRY);
        self.saved
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, less)
            .is_ok()
    }
}

/// One worker's hand on the bucket.
#[derive(Debug)]
pub(crate) struct Budget {
    bucket: Arc<Bucket>,
    rates: Rates,
    counted: Cell<u32>,
}

impl Budget {
    /// A hand on a bucket.
    pub(crate) fn new(bucket: Arc<Bucket>, policy: RetryBudget) -> Self {
        Self {
            bucket,
            rates: Rates::of(policy),
            counted: Cell::new(0),
        }
    }
    /// Counts a request.
    pub(crate) fn deposit(&self) {
        let counted = self.counted.get() + 1;
        self.counted.set(counted);
        if counted >= TOGETHER {
            self.settle();
        }
    }
    /// Takes one retry; false: none left.
    pub(crate) fn withdraw(&self, now_ms: u64) -> bool {
        self.settle();
        self.bucket.fill(now_ms, &self.rates);
        self.bucket.take()
    }
    fn settle(&self) {
        let counted = self.counted.replace(0);
        if counted > 0 {
            let amount = i64::from(counted) * self.rates.per_request;
            self.bucket.pay_in(amount, &self.rates);
        }
    }
}

impl Drop for Budget {
    fn drop(&mut self) {
        self.settle();
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn budget(percent: f32, minimum_per_second: u32) -> Budget {
        let policy = RetryBudget {
            percent,
            minimum_per_second,
        };
        Budget::new(Arc::new(Bucket::new(policy, 0)), policy)
    }

    proptest! {
        /// Whatever the order of requests, retries and time: never more than what is saved + 20 % + 10 per second.
        #[test]
        fn bound(steps in prop::collection::vec((0u64..200, 0u32..50, 0u32..50), 1..200)) {
            let policy = RetryBudget::default();
            let bucket = Arc::new(Bucket::new(policy, 0));
            let hand = || Budget::new(Arc::clone(&bucket), policy);
            let hands = [hand(), hand()];
            let (mut now, mut requests, mut retries) = (0, 0u64, 0u64);
            for (index, (pause, asked, tried)) in steps.into_iter().enumerate() {
                now += pause;
                let hand = &hands[index % 2];
                for _ in 0..asked {
                    hand.deposit();
                    requests += 1;
                }
                for _ in 0..tried {
                    retries += u64::from(hand.withdraw(now));
                }
                prop_assert!(retries * 1000 <= 100_000 + requests * 200 + now * 10);
            }
        }
    }

    #[test]
    fn a_storm_is_held_to_a_fifth() {
        let budget = budget(20.0, 10);
        let mut retries = 0;
        for _ in 0..10_000 {
            budget.deposit();
            retries += u64::from(budget.withdraw(0));
        }
        assert!((2_000..=2_100).contains(&retries), "{retries}");
    }

    #[test]
    fn the_least_rate_comes_with_time() {
        let budget = budget(20.0, 10);
        let spend = |now| (0..1000).filter(|_| budget.withdraw(now)).count();
        assert_eq!(spend(0), 100);
        assert_eq!(spend(999), 9);
        assert_eq!(spend(1000), 1);
        assert_eq!(spend(60_000), 100);
        assert_eq!(spend(1), 0);
    }

    #[test]
    fn other_rates() {
        let none = budget(0.0, 0);
        none.deposit();
        assert!(!none.withdraw(99_999));
        let some = budget(50.0, 0);
        assert_eq!((0..99).filter(|_| some.withdraw(0)).count(), 10);
        (0..32).for_each(|_| some.deposit());
        assert_eq!((0..99).filter(|_| some.withdraw(99_999)).count(), 10);
        let all = budget(100.0, 1);
        assert_eq!((0..99).filter(|_| all.withdraw(0)).count(), 10);
        all.deposit();
        assert!(all.withdraw(0) && !all.withdraw(0));
    }
}
