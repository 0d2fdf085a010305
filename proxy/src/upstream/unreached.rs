//! Why an endpoint, or a local program, could not be reached, and what follows from it.

use std::{net::SocketAddr, sync::Arc};

use super::{breaker::Full, picked::Failed};

/// Why an endpoint, or a local program, could not be reached.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum DialError {
    /// Refused, unreachable, or out of local ports.
    #[error("connecting to {address} failed")]
    Connect {
        /// Where.
        address: SocketAddr,
        /// Why.
        #[source]
        source: Arc<std::io::Error>,
    },
    /// No answer in time.
    #[error("connecting to {0} took too long")]
    Timeout(SocketAddr),
    /// This host has no certificate for the caller (yet).
    #[error("no certificate for the caller")]
    NoIdentity,
    /// The other end is not who it should be, or refuses who we are.
    #[error("mTLS with {address} failed")]
    Tls {
        /// Where.
        address: SocketAddr,
        /// Why.
        #[source]
        source: Arc<std::io::Error>,
    },
    /// HTTP/2 could not be set up, or the connection ended.
    #[error("http/2 with {address} failed")]
    Http2 {
        /// Where.
        address: SocketAddr,
        /// Why.
        #[source]
        source: Arc<dyn std::error::Error + Send + Sync>,
    },
    /// The tunnel's other end refused the CONNECT.
    #[error("the tunnel answered {status}")]
    Tunnel {
        /// HTTP status: 400, 401, 429 or 503.
        status: u16,
        /// Its `mesh-error` header, if any.
        mesh_error: Option<Arc<str>>,
    },
    /// A limit of the backend's policy is reached.
    #[error(transparent)]
    Full(#[from] Full),
    /// A way that this daemon cannot go.
    #[error("an endpoint behind a gateway cannot be reached by this version")]
    Gateway,
}

impl DialError {
    /// The documented error code.
    pub(crate) fn code(&self) -> &'static str {
        match self {
            Self::NoIdentity => "no-identity",
            Self::Tls { .. } => "peer-identity",
            Self::Tunnel { status: 401, .. } => "denied",
            Self::Tunnel { status: 429, .. } => "rate-limited",
            Self::Full(_) => "overloaded",
            Self::Connect { .. }
            | Self::Timeout(_)
            | Self::Http2 { .. }
            | Self::Tunnel { .. }
            | Self::Gateway => "connect-failed",
        }
    }
    /// How it counts against the endpoint; `None`: not at all, because the fault is not there.
    pub(crate) fn blame(&self) -> Option<Failed> {
        match self {
            Self::NoIdentity
            | Self::Gateway
            | Self::Full(_)
            | Self::Tunnel {
                status: 400 | 401 | 429,
                ..
            } => None,
            Self::Tunnel { .. } => Some(Failed::Program),
            Self::Connect { .. } | Self::Timeout(_) | Self::Tls { .. } | Self::Http2 { .. } => {
                Some(Failed::Dial)
            }
        }
    }
    /// True when another endpoint may do better; false for a refusal that all would give.
    pub(crate) fn may_retry(&self) -> bool {
        !matches!(
            self,
            Self::NoIdentity
                | Self::Full(_)
                | Self::Tunnel {
                    status: 401 | 429,
                    ..
                }
        )
    }
}
