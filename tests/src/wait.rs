//! Waiting for a condition with a deadline: never for a fixed time.

use std::time::{Duration, Instant};

const STEP: Duration = Duration::from_millis(20);

/// Asks until the condition yields a value; panics with what it said last when the deadline passes.
#[expect(
    clippy::panic,
    reason = "a condition that never came is the failure of the test"
)]
#[track_caller]
pub fn eventually<T, E: std::fmt::Display>(
    what: &str,
    deadline: Duration,
    mut condition: impl FnMut() -> Result<T, E>,
) -> T {
    let end = Instant::now() + deadline;
    loop {
        match condition() {
            Ok(value) => return value,
            Err(last) if Instant::now() >= end => {
                panic!("{what}: not within {deadline:?}; last seen: {last}")
            }
            Err(_) => std::thread::sleep(STEP),
        }
    }
}

/// The same without a panic: the last refusal is returned.
pub fn within<T>(
    deadline: Duration,
    mut condition: impl FnMut() -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    let end = Instant::now() + deadline;
    loop {
        match condition() {
            Ok(value) => return Ok(value),
            Err(last) if Instant::now() >= end => return Err(last),
            Err(_) => std::thread::sleep(STEP),
        }
    }
}
