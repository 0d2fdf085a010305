//! Tells systemd where we are: READY, RELOADING, STOPPING, STATUS, and the watchdog.
//!
//! Without a notify socket every call does nothing.

use std::time::Duration;

use sd_notify::NotifyState;
use tokio_util::sync::CancellationToken;

/// Time for what comes after the drain: goodbyes, tables, files.
const AFTER_DRAIN: Duration = Duration::from_secs(20);

/// The daemon answers its admin socket.
pub(crate) fn ready(status: &str) {
    send(&[NotifyState::Ready, NotifyState::Status(status)]);
}

/// A reload begins; `ready` ends it.
pub(crate) fn reloading() {
    let now = NotifyState::monotonic_usec_now();
    match now {
        Ok(now) => send(&[NotifyState::Reloading, now]),
        Err(_unreadable) => send(&[NotifyState::Reloading]),
    }
}

/// What people see in `systemctl status` has changed.
pub(crate) fn status(status: &str) {
    send(&[NotifyState::Status(status)]);
}

/// The daemon drains for up to `drain`, then ends: systemd kills nobody who is still within that.
pub(crate) fn stopping(drain: Duration) {
    send(&[
        NotifyState::Stopping,
        NotifyState::ExtendTimeoutUsec(needed(drain)),
    ]);
}

/// Microseconds that an end takes with this drain: what comes after it has its own, short limits.
fn needed(drain: Duration) -> u32 {
    let whole = drain.saturating_add(AFTER_DRAIN);
    u32::try_from(whole.as_micros()).unwrap_or(u32::MAX)
}

/// Feeds the watchdog at half its interval until stopped: it starves when the control runtime hangs.
pub(crate) async fn watchdog(stop: CancellationToken) {
    let Some(interval) = sd_notify::watchdog_enabled() else {
        return;
    };
    let half = (interval / 2).max(Duration::from_millis(50));
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(half) => send(&[NotifyState::Watchdog]),
        }
    }
}

fn send(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::debug!(%error, "cannot tell systemd");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_drain_is_asked_for_whole() {
        assert_eq!(needed(Duration::from_secs(30)), 50_000_000);
        assert_eq!(needed(Duration::from_hours(1)), 3_620_000_000);
        assert_eq!(needed(Duration::MAX), u32::MAX);
    }
}
