//! The time, as it is told to a node.

use std::time::Duration;

/// The time, twice: one that never jumps for the protocol, one that people agree on for leases and edits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Time {
    /// Since an arbitrary point; never goes back.
    pub elapsed: Duration,
    /// Milliseconds since the epoch; may jump.
    pub wall_ms: u64,
}
