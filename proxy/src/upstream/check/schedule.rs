//! When which endpoint is checked, and what the results mean. Pure: time and chance come in.

use std::{
    cmp::Reverse,
    collections::{BTreeSet, BinaryHeap},
    time::Duration,
};

use mesh_model::snapshot::EndpointKey;

/// Checks in the order in which they are due.
#[derive(Debug, Default)]
pub(super) struct Schedule {
    due: BinaryHeap<Reverse<(u64, EndpointKey)>>,
    /// Those in the heap.
    waiting: BTreeSet<EndpointKey>,
}

impl Schedule {
    /// A check of an endpoint that was not checked before, soon: not all at once, and each within its interval.
    pub(super) fn begin(
        &mut self,
        key: EndpointKey,
        now_us: u64,
        interval: Duration,
        count: usize,
        chance: f64,
    ) {
        let spread = Duration::from_millis(2).saturating_mul(u32::try_from(count).unwrap_or(1));
        let within = interval.min(spread.max(Duration::from_millis(500)));
        self.push(key, now_us.saturating_add(micros(within.mul_f64(chance))));
    }

    /// The next check after one that ended now: an interval later, less or more by a tenth.
    pub(super) fn again(&mut self, key: EndpointKey, now_us: u64, interval: Duration, chance: f64) {
        let pause = micros(interval.mul_f64(0.9 + 0.2 * chance));
        self.push(key, now_us.saturating_add(pause));
    }

    fn push(&mut self, key: EndpointKey, due: u64) {
        if self.waiting.insert(key) {
            self.due.push(Reverse((due, key)));
        }
    }

    /// The check that is due, when one is.
    pub(super) fn take(&mut self, now_us: u64) -> Option<EndpointKey> {
        let Reverse((due, _)) = *self.due.peek()?;
        if due > now_us {
            return None;
        }
        let Reverse((_, key)) = self.due.pop()?;
        self.waiting.remove(&key);
        Some(key)
    }

    /// When the next one is due.
    pub(super) fn next(&self) -> Option<u64> {
        self.due.peek().map(|Reverse((due, _))| *due)
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

/// Results in a row.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Record {
    passes: u32,
    failures: u32,
}

impl Record {
    /// Counts a result; whether the endpoint is in by it. `None`: nothing changes.
    pub(super) fn count(
        &mut self,
        passed: bool,
        is_out: bool,
        (healthy, unhealthy): (u32, u32),
    ) -> Option<bool> {
        if passed {
            self.passes = self.passes.saturating_add(1);
            self.failures = 0;
            (is_out && self.passes >= healthy.max(1)).then_some(true)
        } else {
            self.failures = self.failures.saturating_add(1);
            self.passes = 0;
            (!is_out && self.failures >= unhealthy.max(1)).then_some(false)
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn thresholds() {
        let mut record = Record::default();
        let bounds = (2, 3);
        assert_eq!(record.count(false, false, bounds), None);
        assert_eq!(record.count(false, false, bounds), None);
        assert_eq!(record.count(true, false, bounds), None);
        assert_eq!(record.count(false, false, bounds), None);
        assert_eq!(record.count(false, false, bounds), None);
        assert_eq!(record.count(false, false, bounds), Some(false));
        assert_eq!(record.count(false, true, bounds), None);
        assert_eq!(record.count(true, true, bounds), None);
        assert_eq!(record.count(true, true, bounds), Some(true));
        assert_eq!(Record::default().count(false, false, (0, 0)), Some(false));
    }

    proptest! {
        /// Each is checked once per interval, give or take a tenth, and no two crowd together for long.
        #[test]
        fn each_in_its_interval(count in 1usize..200, seed: u64, secs in 1u64..20) {
            let interval = Duration::from_secs(secs);
            let mut random = fastrand::Rng::with_seed(seed);
            let mut schedule = Schedule::default();
            for key in 0..count as u64 {
                schedule.begin(EndpointKey(key), 0, interval, count, random.f64());
            }
            let mut last = vec![None; count];
            while let Some(now) = schedule.next().filter(|now| *now < 5 * secs * 1_000_000) {
                let key = schedule.take(now).unwrap();
                if let Some(before) = last[usize::try_from(key.0).unwrap()].replace(now) {
                    let pause = now - before;
                    prop_assert!(pause >= secs * 900_000 && pause <= secs * 1_100_000);
                }
                schedule.again(key, now, interval, random.f64());
            }
            prop_assert!(last.iter().all(Option::is_some));
            prop_assert_eq!(schedule.take(0), None);
        }
    }

    #[test]
    fn one_is_never_there_twice() {
        let mut schedule = Schedule::default();
        for _ in 0..3 {
            schedule.begin(EndpointKey(1), 0, Duration::from_secs(1), 1, 0.5);
        }
        assert_eq!(schedule.take(u64::MAX), Some(EndpointKey(1)));
        assert_eq!(schedule.take(u64::MAX), None);
    }
}
