//! Why an HTTP/2 stream failed, whatever carried it.

use h2::Reason;

use crate::link::Broken;

/// Why a stream failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Fault {
    /// With the `h2` crate.
    #[error(transparent)]
    Other(#[from] h2::Error),
    /// On a link.
    #[error(transparent)]
    Linked(#[from] Broken),
}

impl Fault {
    /// True when the other end has certainly not acted on the request.
    pub(crate) fn is_unprocessed(&self) -> bool {
        match self {
            Self::Other(error) => {
                error.is_remote()
                    && (error.reason() == Some(Reason::REFUSED_STREAM)
                        || (error.is_go_away() && error.reason() == Some(Reason::NO_ERROR)))
            }
            Self::Linked(broken) => broken.is_unprocessed(),
        }
    }

    /// The same, because the other end takes no more requests on this connection.
    pub(crate) fn is_left_out(&self) -> bool {
        self.is_unprocessed()
            && match self {
                Self::Other(error) => error.is_go_away(),
                Self::Linked(broken) => matches!(broken, Broken::Unprocessed),
            }
    }

    /// Why the stream was reset, if it was.
    pub(crate) fn reset(&self) -> Option<Reason> {
        match self {
            Self::Other(error) => error.reason().filter(|_| error.is_reset()),
            Self::Linked(Broken::Reset(reason) | Broken::Refused(reason)) => {
                Some(Reason::from(reason.0))
            }
            Self::Linked(Broken::Unprocessed | Broken::Lost(_)) => None,
        }
    }
}
