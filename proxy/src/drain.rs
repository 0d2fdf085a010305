//! Stop accepting, finish, then force.

use tokio_util::sync::CancellationToken;

/// The two steps of stopping; clones share them.
#[derive(Debug, Clone, Default)]
pub(crate) struct Drain {
    soft: CancellationToken,
    hard: CancellationToken,
}

impl Drain {
    /// Forced by `stop`, which is also the end of inviting.
    pub(crate) fn below(stop: &CancellationToken) -> Self {
        let hard = stop.child_token();
        Self {
            soft: hard.child_token(),
            hard,
        }
    }
    /// Begins to drain.
    pub(crate) fn begin(&self) {
        self.soft.cancel();
    }
    /// Ends what still runs.
    pub(crate) fn force(&self) {
        self.hard.cancel();
    }
    /// True once no new requests should be invited: answer `connection: close`, send GOAWAY.
    pub(crate) fn is_draining(&self) -> bool {
        self.soft.is_cancelled()
    }
    /// Resolves when draining begins.
    pub(crate) async fn draining(&self) {
        self.soft.cancelled().await;
    }
    /// Resolves when what still runs must end at once.
    pub(crate) async fn forced(&self) {
        self.hard.cancelled().await;
    }
}
