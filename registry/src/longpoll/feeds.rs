//! Questions about everything: the list of services, and what tells that some service changed.
//!
//! Never: believed as more than a hint, but for the names.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use mesh_model::endpoint::ServiceKey;
use tokio::sync::watch;

use super::{
    cursor::{Bucket, Cursor, Step},
    dialect::Unwell,
    engine::{Engine, pause},
};
use crate::{
    backoff::Backoff,
    http::{Answer, Request},
    source::SourceError,
};

/// The list of services, on the board.
pub(super) const NAMES: &str = "the list of services";
/// A stream of events says something at least this often.
const SILENCE: Duration = Duration::from_secs(30);

/// What tells that something changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Feed {
    /// The index of the list of services: some service has another instance.
    Catalog,
    /// The checks that do not pass.
    Unwell,
}

impl Feed {
    /// Its name on the board.
    pub(super) fn label(self) -> &'static str {
        match self {
            Self::Catalog => "the catalog",
            Self::Unwell => "the checks",
        }
    }
}

/// Such questions wake with every change of any service: large answers are asked for seldom.
fn seldom(size: usize) -> Duration {
    let each = Duration::from_millis(u64::try_from(size / 32).unwrap_or(u64::MAX));
    each.clamp(Duration::from_millis(500), Duration::from_secs(10))
}

impl Engine {
    /// Follows the list of services.
    pub(super) async fn list(
        self: Arc<Self>,
        names: watch::Sender<Option<Arc<BTreeSet<ServiceKey>>>>,
    ) {
        let (mut cursor, mut bucket) = (Cursor::default(), Bucket::default());
        let mut waits = Backoff::new(Duration::from_millis(250), Duration::from_secs(30));
        let mut again = self.again.subscribe();
        let mut skipped = BTreeSet::new();
        loop {
            let ask = cursor.ask(fastrand::f64(), self.patience());
            let result = tokio::select! {
                result = Box::pin(self.ask(self.dialect.names(ask), ask)) => result,
                _ = again.changed() => { cursor.lost(); continue }
                () = self.hint.notified() => { cursor.lost(); continue }
            };
            let read = result.and_then(|(answer, index)| {
                let step = cursor.took(index);
                if step == Step::Backwards {
                    return Ok(None);
                }
                Ok(Some((
                    step,
                    self.names_of(&answer, index)?,
                    answer.body.len(),
                )))
            });
            let pause = match read {
                Ok(None) => Duration::ZERO,
                Ok(Some((step, found, size))) => {
                    self.tell_of(step);
                    for name in found.skipped.difference(&skipped) {
                        tracing::warn!(service = %name.escape_debug(), "no name that the mesh can have, or another one has it; it is left out");
                        self.out.unreadable();
                    }
                    skipped = found.skipped;
                    names.send_if_modified(|now| {
                        let new = now.as_deref() != Some(&found.keys);
                        if new {
                            *now = Some(Arc::new(found.keys));
                        }
                        new
                    });
                    self.board.good(NAMES);
                    waits.reset();
                    bucket.take(self.now_ms(), seldom(size))
                }
                Err(error) => {
                    cursor.lost();
                    self.board.bad(NAMES, &error);
                    pause(&error, waits.next(fastrand::f64()))
                }
            };
            tokio::time::sleep(pause).await;
        }
    }

    /// Follows what tells of changes.
    pub(super) async fn feed(self: Arc<Self>, feed: Feed) {
        let (mut cursor, mut bucket) = (Cursor::default(), Bucket::default());
        let mut waits = Backoff::new(Duration::from_millis(250), Duration::from_secs(30));
        let mut again = self.again.subscribe();
        let mut before = Unwell::default();
        loop {
            let ask = cursor.ask(fastrand::f64(), self.patience());
            let path = match feed {
                Feed::Catalog => self.dialect.names(ask),
                Feed::Unwell => self.dialect.unwell(ask).unwrap_or_default(),
            };
            let result = tokio::select! {
                result = Box::pin(self.hint(path, ask)) => result,
                _ = again.changed() => { cursor.lost(); continue }
            };
            let read = result.and_then(|(answer, index)| {
                let step = cursor.took(index);
                if feed == Feed::Unwell && step != Step::Backwards {
                    self.tell_health(&answer, &mut before)?;
                }
                // Every change of a check wakes it: only a new beginning says that all may be different.
                if feed == Feed::Catalog || step == Step::First {
                    self.tell_of(step);
                }
                Ok(answer.body.len())
            });
            let pause = match read {
                Ok(size) => {
                    self.board.good(feed.label());
                    waits.reset();
                    bucket.take(self.now_ms(), seldom(size + 8 * self.queue().len()))
                }
                Err(error) => {
                    cursor.lost();
                    self.board.bad(feed.label(), &error);
                    pause(&error, waits.next(fastrand::f64()))
                }
            };
            tokio::time::sleep(pause).await;
        }
    }

    /// An answer about everything came.
    fn tell_of(&self, step: Step) {
        if matches!(step, Step::First | Step::Grown(_)) {
            self.everything();
        }
        self.told.send_modify(|answers| *answers += 1);
    }

    fn tell_health(&self, answer: &Answer, before: &mut Unwell) -> Result<(), SourceError> {
        let now = self.parsed(answer, self.dialect.read_unwell(&answer.body))?;
        let (services, nodes) = now.since(before);
        *before = now;
        if nodes {
            self.everything();
        }
        self.name(services);
        Ok(())
    }

    /// These changed.
    fn name(&self, services: impl IntoIterator<Item = ServiceKey>) {
        let mut any = false;
        {
            let mut queue = self.queue();
            for key in services {
                any |= queue.name(key);
            }
        }
        if any {
            self.woken.notify_one();
        }
    }

    /// Events are a hint and nothing more: gaps are silent, and so is a stream without rights.
    pub(super) async fn events(self: Arc<Self>) {
        let mut waits = Backoff::new(Duration::from_secs(1), Duration::from_secs(30));
        loop {
            let path = self.dialect.events().unwrap_or_default();
            if let Ok(mut lines) = self.client.lines(&Request::get(path), SILENCE).await {
                while let Ok(Some(line)) = lines.next().await {
                    waits.reset();
                    // Heartbeats are `{}`.
                    if line.len() > 2 {
                        self.name(self.dialect.changed(&line));
                        self.hint.notify_one();
                    }
                }
            }
            tokio::time::sleep(waits.next(fastrand::f64())).await;
        }
    }
}
