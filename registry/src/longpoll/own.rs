//! A service with a question of its own.

use std::{sync::Arc, time::Duration};

use mesh_model::endpoint::ServiceKey;

use super::{
    cursor::{Ask, Bucket, Cursor, Step},
    engine::{Engine, label, pause, spread},
};
use crate::{backoff::Backoff, source::SourceError, version::Version};

/// One wake of a service.
const WAKE: Duration = Duration::from_millis(100);

impl Engine {
    /// Follows one service until it is aborted.
    pub(super) async fn watch(self: Arc<Self>, key: ServiceKey, delay: Duration) {
        let label = label(&key);
        tokio::time::sleep(delay).await;
        let (mut cursor, mut bucket) = (Cursor::default(), Bucket::default());
        let mut waits = Backoff::new(Duration::from_millis(250), Duration::from_secs(30));
        let mut again = self.again.subscribe();
        loop {
            let asked = cursor.ask(fastrand::f64(), self.patience());
            let result = tokio::select! {
                result = Box::pin(self.step(&key, asked, &mut cursor)) => Some(result),
                _ = again.changed() => None,
            };
            let pause = match result {
                None => {
                    cursor.lost();
                    // Not all at once.
                    spread(self.watched()).mul_f64(fastrand::f64())
                }
                Some(Ok(())) => {
                    waits.reset();
                    self.board.good(&label);
                    bucket.take(self.now_ms(), WAKE)
                }
                Some(Err(error)) => {
                    cursor.lost();
                    self.board.bad(&label, &error);
                    pause(&error, waits.next(fastrand::f64()))
                }
            };
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                _ = again.changed() => cursor.lost(),
            }
        }
    }

    async fn step(
        &self,
        key: &ServiceKey,
        ask: Ask,
        cursor: &mut Cursor,
    ) -> Result<(), SourceError> {
        let (answer, index) = self.ask(self.dialect.service(key, ask), ask).await?;
        match cursor.took(index) {
            Step::Backwards => Ok(()),
            // The first of a row counts in the order of reading: the index may be of a new history.
            Step::First => self.publish(key, &answer, index, Version::Hash(0)).await,
            // What comes after a wait is read too: rights can go while an index stays.
            step @ (Step::Same(index) | Step::Grown(index)) => {
                if step == Step::Grown(index) {
                    self.queue().warm(key);
                }
                self.publish(key, &answer, index, Version::Index(index))
                    .await
            }
        }
    }
}
