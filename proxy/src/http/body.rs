//! Pieces of bodies, whatever the version of HTTP, and what can go wrong with one.

use super::{broken::Fault, malformed::HeadError};

/// What comes next in a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BodyEvent {
    /// This many bytes are at hand; they are the last ones when `last` (and then no trailers follow).
    Data {
        /// How many, never 0.
        length: usize,
        /// Whether the body ends with them.
        last: bool,
    },
    /// The body has ended; its trailers, if any, can be taken.
    End,
}

/// Why a body could not be read to its end.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BodyError {
    /// It breaks a rule of HTTP/1, or is cut short.
    #[error("the body is malformed")]
    Malformed(#[from] HeadError),
    /// The connection failed.
    #[error("the connection failed")]
    Io(#[source] std::io::Error),
    /// The stream was reset, or broke a rule of HTTP/2.
    #[error("the stream failed")]
    Stream(#[source] Fault),
}

impl BodyError {
    /// Why the other end has reset its stream, when that means the same to whoever gets the body: gRPC tells
    /// callers by it (`CANCELLED`, `RESOURCE_EXHAUSTED`). Other reasons blame a connection that is not the caller's.
    pub(crate) fn reason(&self) -> Option<h2::Reason> {
        let Self::Stream(error) = self else {
            return None;
        };
        let passed = |reason: &h2::Reason| {
            matches!(*reason, h2::Reason::CANCEL | h2::Reason::ENHANCE_YOUR_CALM)
        };
        error.reset().filter(passed)
    }
}
