//! Slows a body down to so many bytes per second.

use std::{
    future::Future as _,
    pin::Pin,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use tokio::time::Sleep;

/// Bytes move in pieces of so much time.
const PIECE: Duration = Duration::from_millis(50);

/// A speed that is kept over the whole body; nothing is saved up while nothing moves.
#[derive(Debug)]
pub(crate) struct Pace {
    /// Bytes per second, at least 1.
    rate: u64,
    /// When everything that has moved so far is paid for.
    paid: Instant,
    sleep: Option<Pin<Box<Sleep>>>,
}

impl Pace {
    /// A speed in bytes per second; 0 counts as 1.
    pub(crate) fn new(rate: u64) -> Self {
        Self {
            rate: rate.max(1),
            paid: Instant::now(),
            sleep: None,
        }
    }

    /// How many bytes may move now, at least one.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<usize> {
        while self.paid > Instant::now() {
            let wanted = tokio::time::Instant::from_std(self.paid);
            let sleep = self
                .sleep
                .get_or_insert_with(|| Box::pin(tokio::time::sleep_until(wanted)));
            if sleep.deadline() != wanted {
                sleep.as_mut().reset(wanted);
            }
            if sleep.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
        }
        let piece = u128::from(self.rate) * PIECE.as_millis() / 1000;
        Poll::Ready(usize::try_from(piece).unwrap_or(usize::MAX).max(1))
    }

    /// So many bytes have moved.
    pub(crate) fn moved(&mut self, bytes: usize) {
        let nanos = bytes as u128 * 1_000_000_000 / u128::from(self.rate);
        let took = Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
        let from = self.paid.max(Instant::now());
        self.paid = from.checked_add(took).unwrap_or(from);
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    #[tokio::test]
    async fn bytes_take_their_time() {
        let begun = Instant::now();
        let mut pace = Pace::new(100_000);
        let mut left = 20_000usize;
        while left > 0 {
            let room = poll_fn(|cx| pace.poll(cx)).await;
            assert!(room <= 5_000);
            pace.moved(room.min(left));
            left = left.saturating_sub(room);
        }
        // Four pieces of 50 ms, of which the first waits for nothing.
        let took = begun.elapsed();
        assert!(took >= Duration::from_millis(150), "{took:?}");
    }
}
