//! Peers who send more frames than their exchanges need.

use super::allowance::Allowance;

/// Requests after which a peer that takes most of them back is cut off.
const TAKEN_BACK: u32 = 500;
/// Streams among as many requests that may be given up because of what a program sent.
const FAULTS: u32 = 100;

/// What one peer has done.
#[derive(Debug)]
pub(super) struct Watch {
    idle: Allowance,
    requests: u32,
    taken_back: u32,
    faults: u32,
}

impl Watch {
    /// Nothing yet.
    pub(super) fn new() -> Self {
        Self {
            idle: Allowance::new(),
            requests: 0,
            taken_back: 0,
            faults: 0,
        }
    }

    /// A frame of a head or body went either way.
    pub(super) fn useful(&mut self) {
        self.idle.earn(1);
    }

    /// A frame came that carries nothing; false when it is one too many.
    pub(super) fn idle(&mut self) -> bool {
        self.idle.spend(1)
    }

    /// A request came; false when most before it were taken back.
    pub(super) fn request(&mut self) -> bool {
        self.requests += 1;
        if self.requests < TAKEN_BACK {
            return true;
        }
        let most = self.taken_back > self.requests / 2;
        (self.requests, self.taken_back, self.faults) = (0, 0, 0);
        !most
    }

    /// A stream had to be given up because of what the peer sent.
    pub(super) fn fault(&mut self) {
        self.faults += 1;
    }

    /// True when that was so too often.
    pub(super) fn is_faulty(&self) -> bool {
        self.faults > FAULTS
    }

    /// A request was taken back at once.
    pub(super) fn taken_back(&mut self) {
        self.taken_back += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
