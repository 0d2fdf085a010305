//! Reads in turn what has no question of its own.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use mesh_model::endpoint::ServiceKey;
use tokio::{task::JoinSet, time::Instant};

use super::{
    cursor::Ask,
    engine::{Engine, label},
    queue::Next,
};
use crate::{backoff::Backoff, source::SourceError, version::Version};

/// So many are read at once.
const AT_ONCE: usize = 16;
/// The pause after such a group while a round is slow: 50 a second.
const GROUP_PAUSE: Duration = Duration::from_millis(320);
/// After a round so many times as long as it was quick the next one is slow.
const REST: u32 = 10;
/// One service is read this often without a reason.
const LOOK: Duration = Duration::from_secs(30);
/// The first round waits so long for what tells of changes, so that nothing is missed in between.
const BEFORE: Duration = Duration::from_secs(1);

/// What could not be read, and when it is tried again.
struct Failed {
    keys: BTreeSet<ServiceKey>,
    at: Instant,
    waits: Backoff,
}

impl Failed {
    fn add(&mut self, keys: Vec<ServiceKey>) {
        if keys.is_empty() {
            return;
        }
        if self.keys.is_empty() {
            self.at = Instant::now() + self.waits.next(fastrand::f64());
        }
        self.keys.extend(keys);
    }
    /// Those whose time has come.
    fn due(&mut self) -> BTreeSet<ServiceKey> {
        if self.keys.is_empty() {
            self.waits.reset();
        }
        if self.keys.is_empty() || Instant::now() < self.at {
            return BTreeSet::new();
        }
        std::mem::take(&mut self.keys)
    }
}

impl Engine {
    /// Reads what the queue says, for ever.
    pub(super) async fn sweep(self: Arc<Self>) {
        self.woken.notified().await;
        let tellers = 1 + usize::from(self.dialect.unwell(Ask::NOW).is_some());
        let mut told = self.told.subscribe();
        let all_told = told.wait_for(|answers| *answers >= tellers);
        drop(tokio::time::timeout(BEFORE, all_told).await);
        let mut failed = Failed {
            keys: BTreeSet::new(),
            at: Instant::now(),
            waits: Backoff::new(Duration::from_millis(250), Duration::from_secs(30)),
        };
        let (mut rest, mut quickly) = (Instant::now(), Duration::ZERO);
        loop {
            let (keys, is_round, is_last) = {
                let mut queue = self.queue();
                for key in failed.due() {
                    queue.name(key);
                }
                match queue.next(AT_ONCE) {
                    Next::Nothing => (Vec::new(), false, false),
                    Next::Named(keys) => (keys, false, false),
                    Next::Round { keys, first, last } => {
                        if first {
                            quickly = Duration::ZERO;
                        }
                        (keys, true, last)
                    }
                }
            };
            if keys.is_empty() {
                self.rest(failed.at, !failed.keys.is_empty()).await;
                continue;
            }
            let (all, began) = (keys.len(), Instant::now());
            let is_slow = is_round && began < rest;
            let ill = self.read_all(keys).await;
            let pause = match (ill.len() == all, is_slow) {
                (true, _) => Duration::from_secs(1),
                (false, true) => GROUP_PAUSE,
                (false, false) => Duration::ZERO,
            };
            failed.add(ill);
            if is_round && !is_slow {
                quickly += began.elapsed();
            }
            if is_last {
                rest = rest.max(Instant::now() + quickly * REST);
            }
            tokio::time::sleep(pause).await;
        }
    }

    /// Until there is something to read.
    async fn rest(&self, retry: Instant, has_failed: bool) {
        tokio::select! {
            () = self.woken.notified() => {}
            () = tokio::time::sleep_until(retry), if has_failed => {}
            () = tokio::time::sleep(LOOK) => self.queue().look(),
        }
    }

    /// Reads them at once; those that could not be read.
    async fn read_all(self: &Arc<Self>, keys: Vec<ServiceKey>) -> Vec<ServiceKey> {
        let mut reads = JoinSet::new();
        for key in keys {
            let engine = Arc::clone(self);
            reads.spawn(async move {
                let read = engine.once(&key).await;
                let label = label(&key);
                match read {
                    Ok(()) => engine.board.good(&label),
                    Err(error) => {
                        engine.board.bad(&label, &error);
                        return Some(key);
                    }
                }
                None
            });
        }
        let mut failed = Vec::new();
        while let Some(read) = reads.join_next().await {
            failed.extend(read.ok().flatten());
        }
        failed
    }

    async fn once(&self, key: &ServiceKey) -> Result<(), SourceError> {
        let path = self.dialect.service(key, Ask::NOW);
        let (answer, index) = self.ask(path, Ask::NOW).await?;
        // What has a question of its own by now is read by that one.
        if !self.queue().has(key) {
            return Ok(());
        }
        self.publish(key, &answer, index, Version::Hash(0)).await?;
        if self.queue().read(key, index) {
            self.rising.notify_one();
        }
        Ok(())
    }
}
