//! Waiting for a condition with a deadline: never for a fixed time.
//!
//! A deadline counts the time in which this machine ran: a virtual machine that its host holds still for seconds, or
//! a process that was frozen with all others, finds its deadlines as far away as before.

use std::{
    sync::{
        Once,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

const STEP: Duration = Duration::from_millis(20);
/// How often the time is looked at.
const LOOK: Duration = Duration::from_millis(10);
/// What a look may be late by on a machine that is merely busy.
const BUSY: Duration = Duration::from_millis(150);

/// Time in which everything stood still since the first question, in milliseconds.
static STOOD_MS: AtomicU64 = AtomicU64::new(0);

/// A clock that stands still when the machine does.
#[derive(Debug, Clone, Copy)]
pub struct Running {
    began: Instant,
    stood_ms: u64,
}

impl Running {
    /// Begins now.
    pub fn now() -> Self {
        static WATCH: Once = Once::new();
        WATCH.call_once(|| {
            std::thread::spawn(watch);
        });
        Self {
            began: Instant::now(),
            stood_ms: STOOD_MS.load(Ordering::Relaxed),
        }
    }

    /// How long the machine has stood still since.
    pub fn stood(self) -> Duration {
        let stood = STOOD_MS.load(Ordering::Relaxed);
        Duration::from_millis(stood.saturating_sub(self.stood_ms))
    }

    /// How long the machine has run since.
    pub fn elapsed(self) -> Duration {
        self.began.elapsed().saturating_sub(self.stood())
    }
}

/// Sleeps for moments, and adds up what they take too long.
fn watch() {
    loop {
        let before = Instant::now();
        std::thread::sleep(LOOK);
        let late = before.elapsed().saturating_sub(LOOK);
        if late > BUSY {
            let late = u64::try_from(late.as_millis()).unwrap_or_default();
            STOOD_MS.fetch_add(late, Ordering::Relaxed);
        }
    }
}

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
    let clock = Running::now();
    loop {
        match condition() {
            Ok(value) => return value,
            Err(last) if clock.elapsed() >= deadline => {
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
    let clock = Running::now();
    loop {
        match condition() {
            Ok(value) => return Ok(value),
            Err(last) if clock.elapsed() >= deadline => return Err(last),
            Err(_) => std::thread::sleep(STEP),
        }
    }
}
