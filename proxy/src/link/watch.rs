//! Peers who send more frames than their exchanges need.

use std::time::Instant;

/// Frames that carry nothing which a peer may send ahead.
const BURST: u32 = 1000;
/// How many more it may send each second, and for each frame of a head or body in either direction.
const PER_SECOND: f64 = 200.0;
const PER_FRAME: u32 = 8;
/// Most that can be saved up.
const SAVED: u32 = 10_000;
/// Requests after which a peer that takes most of them back is cut off.
const TAKEN_BACK: u32 = 500;

/// What one peer has done.
#[derive(Debug)]
pub(super) struct Watch {
    left: u32,
    refilled: Instant,
    requests: u32,
    taken_back: u32,
}

impl Watch {
    /// Nothing yet.
    pub(super) fn new() -> Self {
        Self {
            left: BURST,
            refilled: Instant::now(),
            requests: 0,
            taken_back: 0,
        }
    }

    /// A frame of a head or body went either way.
    pub(super) fn useful(&mut self) {
        self.left = self.left.saturating_add(PER_FRAME).min(SAVED);
    }

    /// A frame came that carries nothing; false when it is one too many.
    pub(super) fn idle(&mut self) -> bool {
        if self.left == 0 {
            self.refill(Instant::now());
        }
        let within = self.left > 0;
        self.left = self.left.saturating_sub(1);
        within
    }

    /// A request came; false when most before it were taken back.
    pub(super) fn request(&mut self) -> bool {
        self.requests += 1;
        if self.requests < TAKEN_BACK {
            return true;
        }
        let most = self.taken_back > self.requests / 2;
        (self.requests, self.taken_back) = (0, 0);
        !most
    }

    /// A request was taken back before it was looked at.
    pub(super) fn taken_back(&mut self) {
        self.taken_back += 1;
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
        let mut watch = Watch::new();
        let allowed = (0..2 * BURST).take_while(|_| watch.idle()).count();
        assert!(
            (BURST as usize..BURST as usize + 100).contains(&allowed),
            "{allowed}"
        );
        watch.useful();
        assert_eq!(
            (0..100).take_while(|_| watch.idle()).count(),
            PER_FRAME as usize
        );
    }

    #[test]
    fn time_earns_frames() {
        let mut watch = Watch::new();
        while watch.idle() {}
        watch.refill(watch.refilled + std::time::Duration::from_secs(1));
        assert_eq!(watch.left, 200);
    }

    #[test]
    fn requests_that_are_taken_back() {
        let mut watch = Watch::new();
        let allowed = (0..10_000)
            .take_while(|_| {
                watch.taken_back();
                watch.request()
            })
            .count();
        assert!(allowed < TAKEN_BACK as usize);
        let mut calm = Watch::new();
        assert!((0..10_000).all(|number| {
            if number % 3 == 0 {
                calm.taken_back();
            }
            calm.request()
        }));
    }
}
