//! What the tests of both dialects share.

/// A scripted server as the world of the contract.
pub(crate) mod far;
