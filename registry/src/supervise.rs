//! Keeps one source running: starts it, waits with jitter after a failure, survives its panics.
//!
//! In: a way to open the source, its sink. Out: its status after each failure. Never: gives up, spins, or
//! touches what was published.

use std::{future::Future, sync::Arc, time::Duration};

use tokio::time::Instant;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    backoff::Backoff,
    demand::Demand,
    sink::Sink,
    source::{Source, SourceError},
    status::SourceStatus,
    tally::Tally,
};

/// Opens a fresh instance of a source; called once per attempt.
pub(crate) type Opener = Arc<dyn Fn() -> Box<dyn Source> + Send + Sync>;

/// A source that ran this long was good: the next wait starts small again.
const GOOD_RUN: Duration = Duration::from_mins(1);
/// The least wait after settings that cannot work.
const CONFIG_WAIT: Duration = Duration::from_secs(10);

/// What a supervised source needs.
pub(crate) struct Supervised {
    pub(crate) open: Opener,
    pub(crate) sink: Sink,
    pub(crate) demand: Demand,
    pub(crate) tally: Arc<Tally>,
    pub(crate) first_wait: Duration,
    pub(crate) longest_wait: Duration,
}

/// Runs the source until `stop`. `restarted` is called before each attempt but the first.
pub(crate) async fn supervise(
    supervised: Supervised,
    tracker: TaskTracker,
    stop: CancellationToken,
    restarted: impl Fn(),
) {
    let mut waits = Backoff::new(supervised.first_wait, supervised.longest_wait);
    loop {
        let began = Instant::now();
        let Some(error) = until(&stop, attempt(&supervised, &tracker, &stop)).await else {
            return;
        };
        tracing::warn!(error = %SourceStatus::from(&error).error().unwrap_or_default(), "registry source failed");
        supervised.sink.status(SourceStatus::from(&error));
        if began.elapsed() >= GOOD_RUN {
            waits.reset();
        }
        let wait = pause(&error, waits.next(fastrand::f64()));
        if until(&stop, tokio::time::sleep(wait)).await.is_none() {
            return;
        }
        restarted();
    }
}

/// One run of a fresh instance, in a task of its own so that a panic ends this attempt only.
async fn attempt(
    supervised: &Supervised,
    tracker: &TaskTracker,
    stop: &CancellationToken,
) -> SourceError {
    let mut source = (supervised.open)();
    let (sink, demand, inner) = (
        supervised.sink.clone(),
        supervised.demand.clone(),
        stop.child_token(),
    );
    let guard = inner.clone().drop_guard();
    let tally = Arc::clone(&supervised.tally);
    let task = tracker.spawn(tally.of(async move {
        let ended = inner.clone();
        until(&ended, source.run(sink, demand, inner)).await
    }));
    let result = task.await;
    drop(guard);
    match result {
        Ok(Some(Err(error))) => error,
        Ok(Some(Ok(never))) => match never {},
        Ok(None) => SourceError::Protocol {
            subject: "source".into(),
            what: "it was stopped".into(),
        },
        Err(_panic) => SourceError::Protocol {
            subject: "source".into(),
            what: "it panicked".into(),
        },
    }
}

/// The result, or `None` when `stop` came first.
async fn until<T>(stop: &CancellationToken, work: impl Future<Output = T>) -> Option<T> {
    tokio::select! {
        biased;
        () = stop.cancelled() => None,
        done = work => Some(done),
    }
}

fn pause(error: &SourceError, wait: Duration) -> Duration {
    match error {
        SourceError::Throttled { retry_after } => (*retry_after).max(wait),
        SourceError::Config(_) => wait.max(CONFIG_WAIT),
        SourceError::Transport { .. } | SourceError::Auth(_) | SourceError::Protocol { .. } => wait,
    }
}
