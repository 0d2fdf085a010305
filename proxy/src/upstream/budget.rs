//! How many retries a backend may get: 20 % of its requests, and 10 per second.
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

/// Thousandths of a retry that a request pays in: 20 %.
const PER_REQUEST: i64 = 200;
/// Thousandths of a retry that a millisecond pays in: 10 per second.
const PER_MILLISECOND: u64 = 10;
/// Thousandths of a retry.
const RETRY: i64 = 1000;
/// Most that is saved up: 100 retries, ten seconds of the least rate.
const MOST: i64 = 100 * RETRY;
/// Requests that a worker counts before it pays in.
const TOGETHER: u32 = 32;

/// The bucket.
#[derive(Debug)]
pub(crate) struct Bucket {
    saved: AtomicI64,
    filled_ms: AtomicU64,
}

impl Bucket {
    /// A full one.
    pub(crate) fn new(now_ms: u64) -> Self {
        Self {
            saved: AtomicI64::new(MOST),
            filled_ms: AtomicU64::new(now_ms),
        }
    }

    fn pay_in(&self, amount: i64) {
        let add = |saved: i64| Some(saved.saturating_add(amount).min(MOST));
        // Never fails: the function always gives a value.
        let _before = self
            .saved
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, add);
    }

    fn fill(&self, now_ms: u64) {
        let before = self.filled_ms.fetch_max(now_ms, Ordering::Relaxed);
        let earned = now_ms
            .saturating_sub(before)
            .saturating_mul(PER_MILLISECOND);
        if earned > 0 {
            self.pay_in(i64::try_from(earned).unwrap_or(MOST));
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
    counted: Cell<u32>,
}

impl Budget {
    /// A hand on a bucket.
    pub(crate) fn new(bucket: Arc<Bucket>) -> Self {
        Self {
            bucket,
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
        self.bucket.fill(now_ms);
        self.bucket.take()
    }
    fn settle(&self) {
        let counted = self.counted.replace(0);
        if counted > 0 {
            self.bucket.pay_in(i64::from(counted) * PER_REQUEST);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Whatever the order of requests, retries and time: never more than 100 + 20 % + 10 per second.
        #[test]
        fn bound(steps in prop::collection::vec((0u64..200, 0u32..50, 0u32..50), 1..200)) {
            let bucket = Arc::new(Bucket::new(0));
            let hands = [Budget::new(Arc::clone(&bucket)), Budget::new(bucket)];
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
        let budget = Budget::new(Arc::new(Bucket::new(0)));
        let mut retries = 0;
        for _ in 0..10_000 {
            budget.deposit();
            retries += u64::from(budget.withdraw(0));
        }
        assert!((2_000..=2_100).contains(&retries), "{retries}");
    }

    #[test]
    fn the_least_rate_comes_with_time() {
        let budget = Budget::new(Arc::new(Bucket::new(0)));
        let spend = |now| (0..1000).filter(|_| budget.withdraw(now)).count();
        assert_eq!(spend(0), 100);
        assert_eq!(spend(999), 9);
        assert_eq!(spend(1000), 1);
        assert_eq!(spend(60_000), 100);
        assert_eq!(spend(1), 0);
    }
}
