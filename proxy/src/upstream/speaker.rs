//! What opens streams on a shared connection: a link to another daemon, or the `h2` crate.

use bytes::Bytes;
use h2::client::SendRequest;

use crate::link::Link;

/// Opens streams.
#[derive(Debug, Clone)]
pub(crate) enum Speaker {
    /// To another daemon.
    Link(Link),
    /// To a program, or another mesh.
    Other(SendRequest<Bytes>),
}

impl Speaker {
    /// True when no further stream can be opened; a connection of the `h2` crate tells it only by failing.
    pub(super) fn is_closed(&self) -> bool {
        match self {
            Self::Link(link) => link.is_closed(),
            Self::Other(_) => false,
        }
    }

    /// How many streams the other end takes at once.
    pub(super) fn most(&self) -> Option<u32> {
        match self {
            Self::Link(link) => Some(link.most()),
            Self::Other(send) => u32::try_from(send.current_max_send_streams()).ok(),
        }
    }

    /// Ends a link at once; other connections end by their own tasks.
    pub(super) fn abort(&self, why: &str) {
        if let Self::Link(link) = self {
            link.abort(why);
        }
    }
}
