//! How many frames that carry nothing a peer may send.
//!
//! Some at first, some more with time, and some for each frame that carries something.

use std::time::Instant;

/// Frames that carry nothing which a peer may send ahead.
pub(crate) const BURST: u32 = 1000;
/// How many more it may send each second, and for each frame of a head or body in either direction: receivers of
/// many small messages answer each with two window updates and a ping.
const PER_SECOND: f64 = 200.0;
const PER_FRAME: u32 = 8;
/// Most that can be saved up.
const SAVED: u32 = 10_000;

/// What one peer has left.
#[derive(Debug)]
pub(crate) struct Allowance {
    left: u32,
    refilled: Instant,
}

impl Allowance {
    /// Of a peer that has just come.
    pub(crate) fn new() -> Self {
        Self {
            left: BURST,
            refilled: Instant::now(),
        }
    }

    /// So many frames of heads or bodies went either way.
    pub(crate) fn earn(&mut self, useful: u32) {
        let more = useful.saturating_mul(PER_FRAME);
        self.left = self.left.saturating_add(more).min(SAVED);
    }

    /// So many frames came that carry nothing; false when they are too many.
    pub(crate) fn spend(&mut self, idle: u32) -> bool {
        if idle > self.left {
            self.refill(Instant::now());
        }
        let within = idle <= self.left;
        self.left = self.left.saturating_sub(idle);
        within
    }

    fn refill(&mut self, now: Instant) {
        let earned = now.duration_since(self.refilled).as_secs_f64() * PER_SECOND;
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "between 0 and SAVED"
        )]
        let earned = earned.min(f64::from(SAVED)) as u32;
        if earned > 0 {
            self.left = self.left.saturating_add(earned).min(SAVED);
            self.refilled = now;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn idle_frames_are_counted_against_useful_ones() {
        let mut allowance = Allowance::new();
        let allowed = (0..2 * BURST).take_while(|_| allowance.spend(1)).count();
        assert!(
            (BURST as usize..BURST as usize + 100).contains(&allowed),
            "{allowed}"
        );
        allowance.earn(1);
        assert_eq!(
            (0..100).take_while(|_| allowance.spend(1)).count(),
            PER_FRAME as usize
        );
    }

    #[test]
    fn time_earns_frames() {
        let mut allowance = Allowance::new();
        while allowance.spend(1) {}
        allowance.refill(allowance.refilled + std::time::Duration::from_secs(1));
        assert_eq!(allowance.left, 200);
    }
}
