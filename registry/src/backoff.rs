//! Waits between attempts: exponential with full jitter, so that many hosts never return together.

use std::time::Duration;

/// The longest wait for a server that is away, so that its return is noticed within five seconds.
pub const AWAY: Duration = Duration::from_secs(3);

/// The waits of one source.
#[derive(Debug, Clone)]
pub struct Backoff {
    first: Duration,
    longest: Duration,
    failures: u32,
}

impl Backoff {
    /// Waits between nothing and `first`, doubling up to `longest`.
    pub fn new(first: Duration, longest: Duration) -> Self {
        Self {
            first,
            longest,
            failures: 0,
        }
    }
    /// The next wait; `dice` is uniform in 0.0 to 1.0. Never under a tenth of the step, so that no loop spins.
    pub fn next(&mut self, dice: f64) -> Duration {
        let step = self
            .first
            .saturating_mul(1_u32 << self.failures.min(16))
            .min(self.longest);
        self.failures = self.failures.saturating_add(1);
        step.mul_f64(dice.clamp(0.1, 1.0))
    }
    /// Starts again from `first`: after a minute of good running.
    pub fn reset(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grows_to_the_longest_and_starts_again() {
        let mut waits = Backoff::new(Duration::from_millis(250), Duration::from_secs(30));
        assert_eq!(waits.next(1.0), Duration::from_millis(250));
        assert_eq!(waits.next(1.0), Duration::from_millis(500));
        for _ in 0..40 {
            let wait = waits.next(1.0);
            assert!(wait <= Duration::from_secs(30));
        }
        assert_eq!(waits.next(0.0), Duration::from_secs(3), "never spins");
        waits.reset();
        assert!(waits.next(0.5) <= Duration::from_millis(125));
    }
}
