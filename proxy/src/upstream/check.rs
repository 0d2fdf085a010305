//! Health checks by this host.

use std::rc::Rc;

use mesh_model::snapshot::Snapshot;

use super::Inner;

/// What is checked.
#[derive(Debug, Default)]
pub(crate) struct Checks {}

impl Inner {
    /// Checks what the snapshot says to check, on one worker of the host.
    #[expect(clippy::unused_self, reason = "follows")]
    pub(super) fn check(self: &Rc<Self>, _snapshot: &Snapshot) {}
}
