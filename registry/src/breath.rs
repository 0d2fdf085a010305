//! Pauses inside long work of the control side, so that who waits for this CPU runs: requests above all.
//!
//! Work on very many endpoints takes tens of milliseconds, and a kernel may let it go on for milliseconds while a
//! worker of the data plane waits for the same CPU. Who gives way after every stretch holds no request up longer.
//! In: calls from inside loops. Never: waits more than four times as long as it works, so a busy host slows the work
//! and does not stop it.

use std::{
    cell::Cell,
    thread,
    time::{Duration, Instant},
};

/// Work between two pauses: less than a request takes, more than a pause costs.
const STRETCH: Duration = Duration::from_micros(100);
/// Of the time that a pause took, this part is worked before the next one.
const PART: u32 = 4;
/// Calls from one look at the clock to the next.
const CALLS: u32 = 8;

thread_local! {
    static TURN: Turn = const { Turn::new() };
}

/// To be called once for each endpoint or so: gives way to other threads when this one has worked long enough.
pub fn take() {
    TURN.with(|turn| turn.take(Instant::now, thread::yield_now));
}

/// Frees very many values with pauses in between.
pub fn free<T>(values: impl IntoIterator<Item = T>) {
    values.into_iter().for_each(|value| {
        drop(value);
        take();
    });
}

/// Whose turn it is.
#[derive(Debug)]
struct Turn {
    calls: Cell<u32>,
    /// When this thread came back from its last pause.
    since: Cell<Option<Instant>>,
    /// How long that pause was.
    waited: Cell<Duration>,
}

impl Turn {
    const fn new() -> Self {
        Self {
            calls: Cell::new(0),
            since: Cell::new(None),
            waited: Cell::new(Duration::ZERO),
        }
    }

    fn take(&self, now: impl Fn() -> Instant, pause: impl FnOnce()) {
        self.calls.set(self.calls.get() + 1);
        if self.calls.get() < CALLS {
            return;
        }
        self.calls.set(0);
        let before = now();
        let since = self.since.get();
        let worked = since.map_or(Duration::MAX, |since| {
            before.saturating_duration_since(since)
        });
        if worked < STRETCH.max(self.waited.get() / PART) {
            return;
        }
        pause();
        let after = now();
        self.since.set(Some(after));
        self.waited.set(after.saturating_duration_since(before));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Works for so long in steps of a microsecond; each pause lasts `pause`. The number of pauses.
    fn pauses(work: Duration, pause: Duration) -> u32 {
        let clock = Cell::new(Instant::now());
        let (turn, count) = (Turn::new(), Cell::new(0));
        let step = Duration::from_micros(1);
        let mut worked = Duration::ZERO;
        while worked < work {
            worked += step;
            clock.set(clock.get() + step);
            turn.take(
                || clock.get(),
                || {
                    clock.set(clock.get() + pause);
                    count.set(count.get() + 1);
                },
            );
        }
        count.get()
    }

    #[test]
    fn long_work_pauses_after_every_stretch() {
        let count = pauses(Duration::from_millis(10), Duration::from_micros(1));
        assert!((90..=101).contains(&count), "{count} pauses");
    }

    #[test]
    fn long_pauses_are_rare() {
        let (work, pause) = (Duration::from_millis(100), Duration::from_millis(8));
        let count = pauses(work, pause);
        assert!((40..=51).contains(&count), "{count} pauses");
    }

    #[test]
    fn everything_is_freed() {
        let values: Vec<_> = (0..100).map(std::sync::Arc::new).collect();
        let kept = values.clone();
        free(values);
        assert!(
            kept.iter()
                .all(|one| std::sync::Arc::strong_count(one) == 1)
        );
    }
}
