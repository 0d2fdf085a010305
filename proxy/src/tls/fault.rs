//! What another end of TLS may do wrong once the handshake is over, and what it is told.

use std::io;

/// Why a stream of TLS is broken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Fault {
    /// A record that is not protected, although the handshake is over.
    #[error("a record after the handshake is not protected")]
    Unprotected,
    /// A record of another version.
    #[error("a record is of no version that was agreed on")]
    Version,
    /// A record that is longer than any may be.
    #[error("a record is too long")]
    Oversized,
    /// A record that was changed on its way, or sealed with other keys.
    #[error("a record is not genuine")]
    NotGenuine,
    /// A record or message that has no place here.
    #[error("a record or message came that has no place there")]
    Unexpected,
    /// A message that cannot be read.
    #[error("a message cannot be read")]
    Unreadable,
    /// More records without any bytes than anybody needs.
    #[error("the other end sends records without bytes")]
    Idle,
    /// The other end gave up; the alert's number.
    #[error("the other end gave up with alert {0}")]
    Alert(u8),
    /// Keys could not be used, or made.
    #[error("a key could not be used")]
    Keys,
    /// More bytes than any handshake needs.
    #[error("the handshake is longer than {0} bytes")]
    Endless(usize),
}

impl Fault {
    /// The alert that the other end is sent (RFC 8446 section 6.2); none in answer to its own.
    pub(super) fn alert(&self) -> Option<u8> {
        match self {
            Self::Unprotected | Self::Unexpected | Self::Idle => Some(10),
            Self::NotGenuine => Some(20),
            Self::Oversized => Some(22),
            Self::Version | Self::Unreadable => Some(50),
            Self::Keys | Self::Endless(_) => Some(80),
            Self::Alert(_) => None,
        }
    }
}

impl From<Fault> for io::Error {
    fn from(fault: Fault) -> Self {
        Self::new(io::ErrorKind::InvalidData, fault)
    }
}
