//! Stop accepting, finish, then force.

use tokio_util::sync::CancellationToken;

/// The two steps of stopping.
#[derive(Debug, Clone, Default)]
pub(crate) struct Drain {
    soft: CancellationToken,
    hard: CancellationToken,
}

impl Drain {
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
