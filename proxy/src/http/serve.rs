//! Callers' connections: one request after another, or many streams beside each other.

/// HTTP/1.
pub(crate) mod h1;
/// HTTP/2.
pub(crate) mod h2;
