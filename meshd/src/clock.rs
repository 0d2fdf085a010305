//! The wall clock.

use std::time::{SystemTime, UNIX_EPOCH};

/// Milliseconds since the epoch; 0 when the clock is set before it.
pub(crate) fn now_ms() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .ok()
        .and_then(|since| u64::try_from(since.as_millis()).ok())
        .unwrap_or_default()
}
