//! Live state by endpoint: pools, loads, ejections, retry budgets.
//!
//! The snapshot says what should be, this room knows what is.

use std::{net::IpAddr, sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
use mesh_model::{
    service::AppProtocol,
    snapshot::{Backend, BackendEndpoint, Caller, EndpointKey, InboundPort},
};

use crate::connection::Io;

/// Why an endpoint, or a local program, could not be reached.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DialError {
    /// Refused, unreachable, or out of local ports.
    #[error("connecting to {address} failed")]
    Connect {
        /// Where.
        address: std::net::SocketAddr,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// No answer in time.
    #[error("connecting to {0} took too long")]
    Timeout(std::net::SocketAddr),
    /// This host has no certificate for the caller (yet).
    #[error("no certificate for the caller")]
    NoIdentity,
    /// The other end is not who it should be, or refuses who we are.
    #[error("mTLS with {address} failed")]
    Tls {
        /// Where.
        address: std::net::SocketAddr,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// HTTP/2 could not be set up, or the connection ended.
    #[error("http/2 with {address} failed")]
    Http2 {
        /// Where.
        address: std::net::SocketAddr,
        /// Why.
        #[source]
        source: h2::Error,
    },
    /// The tunnel's other end refused the CONNECT.
    #[error("the tunnel answered {status}")]
    Tunnel {
        /// HTTP status: 400, 401 or 503.
        status: u16,
        /// Its `mesh-error` header, if any.
        mesh_error: Option<Arc<str>>,
    },
}

impl DialError {
    /// The documented error code.
    pub(crate) fn code(&self) -> &'static str {
        match self {
            Self::Connect { .. } | Self::Timeout(_) | Self::Http2 { .. } => "connect-failed",
            Self::NoIdentity => "no-identity",
            Self::Tls { .. } => "peer-identity",
            Self::Tunnel { status: 401, .. } => "denied",
            Self::Tunnel { .. } => "connect-failed",
        }
    }
}

/// How a try ended, when it did not succeed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Failed {
    /// Not reached: ejects at once.
    Dial,
    /// Reset or broken before an answer: ejects after five in a row.
    Reset,
    /// No answer in time: ejects after five in a row.
    Timeout,
    /// An answer that is the program's own failure (5xx): never ejects.
    Answer,
}

/// An endpoint that was picked; counts as load on it while alive.
#[derive(Debug)]
pub(crate) struct Picked {
    /// The endpoint.
    pub(crate) endpoint: Arc<BackendEndpoint>,
}

impl Picked {
    /// The try ended well after `latency` (to the response head, or the connection's set-up).
    pub(crate) fn succeeded(&self, _latency: Duration) {}
    /// The try failed.
    pub(crate) fn failed(&self, _how: Failed) {}
}

/// A connection over which HTTP is spoken to an endpoint or a local program.
#[derive(Debug)]
pub(crate) enum HttpUpstream {
    /// HTTP/1.1, exclusively ours until given back.
    H1(H1Connection),
    /// HTTP/2, shared; ask `send.ready()` before use.
    H2(H2Handle),
}

/// An HTTP/1.1 connection. Give it back only when the exchange ended cleanly and `buffer` is empty.
#[derive(Debug)]
pub(crate) struct H1Connection {
    /// The bytes.
    pub(crate) io: Io,
    /// Read but not used; empty when handed out.
    pub(crate) buffer: BytesMut,
    /// True when it carried requests before: it may have died unnoticed, an unanswered request may be sent anew.
    pub(crate) reused: bool,
}

/// A stream's right on an HTTP/2 connection; keep it until the exchange, bodies included, has ended.
#[derive(Debug)]
pub(crate) struct H2Handle {
    /// Opens streams.
    pub(crate) send: h2::client::SendRequest<Bytes>,
    /// The identity that the other end proved; `None` for plaintext.
    pub(crate) peer: Option<Arc<str>>,
    /// True on a mesh tunnel: requests carry `mesh-target` and `mesh-request-id`.
    pub(crate) mesh: bool,
}

/// Live state of one worker.
#[derive(Debug)]
pub(crate) struct Upstream {}

impl Upstream {
    /// Picks an endpoint: least loaded of two, never one in `tried` while another is left. `None`: the backend is empty.
    pub(crate) fn pick(&self, _backend: &Arc<Backend>, _tried: &[EndpointKey]) -> Option<Picked> {
        None
    }
    /// True when the backend has an endpoint that is not ejected.
    pub(crate) fn usable(&self, _backend: &Backend) -> bool {
        false
    }
    /// A connection to the picked endpoint for one exchange. Reports no failure: the caller does, by [`Picked::failed`].
    pub(crate) async fn http(
        &self,
        picked: &Picked,
        _caller: &Caller,
        _protocol: AppProtocol,
    ) -> Result<HttpUpstream, DialError> {
        Err(DialError::Timeout(picked.endpoint.address))
    }
    /// A connection to a local program for one exchange; `source` keeps the client's address where that is possible.
    pub(crate) async fn local(
        &self,
        port: &Arc<InboundPort>,
        _protocol: AppProtocol,
        _source: Option<IpAddr>,
    ) -> Result<HttpUpstream, DialError> {
        Err(DialError::Timeout(port.target))
    }
    /// Keeps an idle connection for the next exchange.
    pub(crate) fn give_back(&self, _connection: H1Connection) {}
    /// Adds a request to the backend's retry budget: call once per request, not per try.
    pub(crate) fn deposit(&self, _backend: &Backend) {}
    /// Takes one retry from the backend's budget (20 % of requests and 10 per second); false: none left.
    pub(crate) fn withdraw(&self, _backend: &Backend) -> bool {
        false
    }
}
