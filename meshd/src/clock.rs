//! The wall clock, and work that comes round again.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::{Interval, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

/// Milliseconds since the epoch; 0 when the clock is set before it.
pub(crate) fn now_ms() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .ok()
        .and_then(|since| u64::try_from(since.as_millis()).ok())
        .unwrap_or_default()
}

/// Moments at which work comes round: now and after every pace, until stopped. Work that takes longer than the pace
/// puts the next moment off.
pub(crate) struct Rounds {
    pace: Interval,
    stop: CancellationToken,
}

impl Rounds {
    /// The first round is at once.
    pub(crate) fn every(pace: Duration, stop: CancellationToken) -> Self {
        let mut pace = tokio::time::interval(pace);
        pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self { pace, stop }
    }

    /// Waits for the next round; false once stopped.
    pub(crate) async fn next(&mut self) -> bool {
        tokio::select! {
            biased;
            () = self.stop.cancelled() => false,
            _ = self.pace.tick() => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::timeout;

    #[tokio::test]
    async fn rounds_begin_at_once_and_end_when_stopped() {
        const LONG: Duration = Duration::from_hours(1);
        let stop = CancellationToken::new();
        let mut rounds = Rounds::every(LONG, stop.clone());
        assert!(rounds.next().await, "the first does not wait");
        let second = timeout(Duration::from_millis(20), rounds.next()).await;
        assert!(second.is_err(), "the second does");
        stop.cancel();
        assert!(!rounds.next().await);
        let mut due = Rounds::every(LONG, stop);
        assert!(!due.next().await, "though one is due");
    }
}
