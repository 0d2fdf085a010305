//! What an endpoint's latency counts: a moving average that rises at once and sinks slowly, and what is
//! usual in a backend.
//!
//! After Finagle's and Linkerd's peak-sensitive EWMA. Times are microseconds of one clock.

use std::cell::Cell;

/// Latencies below it are all the same: what is faster than this is not chosen for it.
pub(crate) const FLOOR_US: f64 = 1000.0;
/// Latencies that differ by no more than this factor are the same; then loads and weights decide.
const ALIKE: f64 = 1.25;

/// One endpoint's latency.
#[derive(Debug)]
pub(crate) struct PeakEwma {
    value: Cell<f64>,
    at: Cell<u64>,
}

impl Default for PeakEwma {
    /// Nothing measured.
    fn default() -> Self {
        Self {
            value: Cell::new(-1.0),
            at: Cell::new(0),
        }
    }
}

impl PeakEwma {
    /// Counts a latency that was measured at `now`.
    pub(crate) fn observe(&self, latency_us: f64, now: u64, decay_us: u64) {
        let before = self.value.get();
        let value = if before < latency_us {
            latency_us
        } else {
            let kept = kept(now.saturating_sub(self.at.get()), decay_us);
            before * kept + latency_us * (1.0 - kept)
        };
        self.value.set(value);
        self.at.set(now);
    }

    /// Counts a failure after `latency_us`: being quick to fail makes nobody attractive.
    pub(crate) fn failed(&self, latency_us: f64, usual_us: f64, now: u64, decay_us: u64) {
        let before = self.read(now, decay_us).unwrap_or(0.0);
        self.observe(latency_us.max(usual_us).max(before), now, decay_us);
    }

    /// The average now: it sinks while nothing is measured, so that a slow one is asked again some day.
    /// `None`: never measured.
    pub(crate) fn read(&self, now: u64, decay_us: u64) -> Option<f64> {
        let value = self.value.get();
        (value >= 0.0).then(|| value * kept(now.saturating_sub(self.at.get()), decay_us))
    }
}

/// The weight of what was measured `age` ago.
#[expect(clippy::cast_precision_loss, reason = "a ratio")]
fn kept(age: u64, decay: u64) -> f64 {
    // Most are read within a fraction of the decay: no exponential for those.
    if age < decay / 512 {
        return 1.0 - age as f64 / decay as f64;
    }
    (-(age as f64) / decay.max(1) as f64).exp()
}

/// About the median latency of a backend, followed one measurement at a time.
#[derive(Debug, Clone, Default)]
pub(crate) struct Usual(Cell<f64>);

impl Usual {
    /// Counts a latency.
    pub(crate) fn observe(&self, latency_us: f64) {
        let usual = self.0.get();
        self.0.set(if usual == 0.0 {
            latency_us.max(1.0)
        } else if latency_us > usual {
            usual * 1.05
        } else {
            (usual / 1.05).max(1.0)
        });
    }

    /// The latency of an endpoint that was never measured.
    pub(crate) fn get(&self) -> f64 {
        self.0.get().max(FLOOR_US)
    }
}

/// What the balancer weighs of one endpoint.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cost {
    /// Its latency; `None`: never measured.
    pub(crate) latency: Option<f64>,
    /// What it has to do now, over its weight relative to the mean.
    pub(crate) load: f64,
}

impl Cost {
    /// True when a request had better go here than to `other`. `usual`: the latency of what was never measured.
    pub(crate) fn is_less_than(self, other: Self, usual: f64) -> bool {
        let latency = |cost: Self| match cost.latency {
            Some(latency) => latency.max(FLOOR_US),
            // One request is sent ahead to find out; the others wait for what it learns.
            None if cost.load == 0.0 => FLOOR_US / 2.0,
            None => usual,
        };
        let (a, b) = (latency(self), latency(other));
        if a < b * ALIKE && b < a * ALIKE {
            return self.load < other.load;
        }
        a * (self.load + 1.0) < b * (other.load + 1.0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const DECAY: u64 = 10_000_000;

    #[test]
    fn rises_at_once_and_sinks_slowly() {
        let ewma = PeakEwma::default();
        assert_eq!(ewma.read(0, DECAY), None);
        ewma.observe(2000.0, 0, DECAY);
        ewma.observe(90_000.0, 1000, DECAY);
        assert_eq!(ewma.read(1000, DECAY), Some(90_000.0));
        // A measurement long after counts nearly alone, one right after hardly at all.
        ewma.observe(2000.0, 2000, DECAY);
        assert!(ewma.read(2000, DECAY).unwrap() > 89_000.0);
        ewma.observe(2000.0, 2000 + DECAY, DECAY);
        let value = ewma.read(2000 + DECAY, DECAY).unwrap();
        let wanted = 2000.0 + 88_000.0 / std::f64::consts::E;
        assert!((value - wanted).abs() < 100.0, "{value} not {wanted}");
        // Unmeasured it sinks to nothing.
        assert!(ewma.read(2000 + 20 * DECAY, DECAY).unwrap() < 1.0);
    }

    #[test]
    fn failing_fast_is_not_fast() {
        let ewma = PeakEwma::default();
        ewma.failed(100.0, 5000.0, 0, DECAY);
        assert_eq!(ewma.read(0, DECAY), Some(5000.0));
        ewma.observe(20_000.0, 1, DECAY);
        ewma.failed(100.0, 5000.0, 2, DECAY);
        assert!(ewma.read(2, DECAY).unwrap() > 19_000.0);
    }

    proptest! {
        /// Always between the least and the greatest measurement, before it sinks.
        #[test]
        fn stays_between(samples in prop::collection::vec((1.0f64..1e7, 0u64..100_000_000), 1..60)) {
            let ewma = PeakEwma::default();
            let (mut now, mut least, mut most) = (0, f64::MAX, 0.0f64);
            for (latency, pause) in samples {
                now += pause;
                ewma.observe(latency, now, DECAY);
                (least, most) = (least.min(latency), most.max(latency));
                let value = ewma.read(now, DECAY).unwrap();
                prop_assert!(value >= least * 0.999 && value <= most * 1.001, "{value}");
            }
        }
    }

    #[test]
    fn usual_is_about_the_median() {
        let usual = Usual::default();
        assert!((usual.get() - FLOOR_US).abs() < 1e-9);
        let mut random = fastrand::Rng::with_seed(5);
        for _ in 0..5000 {
            usual.observe(if random.u8(0..10) == 0 {
                9e6
            } else {
                2000.0 + random.f64() * 4000.0
            });
        }
        assert!((3000.0..6000.0).contains(&usual.get()), "{}", usual.get());
    }

    #[test]
    fn comparisons() {
        let cost = |latency, load| Cost { latency, load };
        let less = |a: Cost, b: Cost| a.is_less_than(b, 5000.0);
        // A slow one is worth it only under load.
        let (fast, slow) = (cost(Some(2000.0), 0.0), cost(Some(20_000.0), 0.0));
        assert!(less(fast, slow) && !less(slow, fast));
        assert!(!less(slow, cost(Some(2000.0), 8.0)));
        assert!(less(slow, cost(Some(2000.0), 10.0)));
        // What is alike is decided by load, and by nobody when that is alike too.
        let (a, b) = (cost(Some(4000.0), 1.0), cost(Some(4500.0), 0.0));
        assert!(less(b, a) && !less(a, b));
        let b = cost(Some(4500.0), 1.0);
        assert!(!less(b, a) && !less(a, b));
        // Below the floor all are alike.
        let (a, b) = (cost(Some(10.0), 0.0), cost(Some(900.0), 0.0));
        assert!(!less(b, a) && !less(a, b));
        // An unknown one is asked once, then it counts as usual.
        assert!(less(cost(None, 0.0), fast));
        assert!(!less(cost(None, 1.0), fast) && less(fast, cost(None, 1.0)));
    }
}
