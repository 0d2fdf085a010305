//! One connection: where it comes from, where it wants to go, and its bytes.

use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use mesh_model::{
    principal::SpiffeId,
    snapshot::{Caller, InboundPort, Snapshot},
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};
use tokio_rustls::TlsStream;

pub(crate) use crate::worker::Worker;

/// Where a connection or stream comes from.
#[derive(Debug)]
pub(crate) enum Origin {
    /// From a local program to the mesh.
    Outbound(OutboundOrigin),
    /// From the mesh, or from outside it, to a local program.
    Inbound(InboundOrigin),
}

/// A local program's call.
#[derive(Debug, Clone)]
pub(crate) struct OutboundOrigin {
    /// Who calls.
    pub(crate) caller: Arc<Caller>,
    /// The caller's address.
    pub(crate) peer: SocketAddr,
    /// Where it wants to go.
    pub(crate) destination: Destination,
    /// True on the daemon's own listener: `mesh-as` counts and debug headers are answered.
    pub(crate) internal: bool,
}

/// Where a local program wants to go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Destination {
    /// Captured: a virtual address or an endpoint's own; looked up in the snapshot per request.
    Address(SocketAddr),
    /// By `Host`, absolute form or CONNECT.
    Explicit,
}

/// A call to a local program.
#[derive(Debug, Clone)]
pub(crate) struct InboundOrigin {
    /// The address at the other end of the TCP connection.
    pub(crate) peer: SocketAddr,
    /// Who calls, proven by mTLS; `None` for plaintext.
    pub(crate) principal: Option<SpiffeId>,
    /// The tunnel's server name; `None` for plaintext and for foreign peers.
    pub(crate) server_name: Option<Arc<str>>,
    /// The address that was dialled (plaintext), or that a CONNECT names.
    pub(crate) address: Option<SocketAddr>,
}

impl InboundOrigin {
    /// The local port that is called: by server name and `target` (header `mesh-target`), or else by address.
    pub(crate) fn port(
        &self,
        snapshot: &Snapshot,
        target: Option<u16>,
    ) -> Option<Arc<InboundPort>> {
        if let Some(name) = &self.server_name {
            let ports = snapshot.inbound.by_server_name.get(&**name)?;
            let target = target.or_else(|| self.address.map(|address| address.port()));
            return ports.get(&target?).cloned();
        }
        snapshot.inbound.by_address.get(&self.address?).cloned()
    }
}

/// The bytes of one connection.
#[derive(Debug)]
pub(crate) enum Io {
    /// Plain TCP.
    Tcp(TcpStream),
    /// TLS, either side.
    Tls(Box<TlsStream<TcpStream>>),
    /// A CONNECT stream inside a tunnel, either side.
    Stream(Box<crate::hbone::Stream>),
}

impl AsyncRead for Io {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(io) => Pin::new(io).poll_read(cx, buf),
            Self::Tls(io) => Pin::new(io).poll_read(cx, buf),
            Self::Stream(io) => Pin::new(io).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Io {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(io) => Pin::new(io).poll_write(cx, buf),
            Self::Tls(io) => Pin::new(io).poll_write(cx, buf),
            Self::Stream(io) => Pin::new(io).poll_write(cx, buf),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(io) => Pin::new(io).poll_write_vectored(cx, bufs),
            Self::Tls(io) => Pin::new(io).poll_write_vectored(cx, bufs),
            Self::Stream(io) => Pin::new(io).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Tcp(io) => io.is_write_vectored(),
            Self::Tls(io) => io.is_write_vectored(),
            Self::Stream(io) => io.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(io) => Pin::new(io).poll_flush(cx),
            Self::Tls(io) => Pin::new(io).poll_flush(cx),
            Self::Stream(io) => Pin::new(io).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(io) => Pin::new(io).poll_shutdown(cx),
            Self::Tls(io) => Pin::new(io).poll_shutdown(cx),
            Self::Stream(io) => Pin::new(io).poll_shutdown(cx),
        }
    }
}

impl Io {
    /// Ends the connection so that the other end sees a reset, not a clean end.
    pub(crate) fn reset(self) {
        match self {
            Self::Tcp(io) => abort(&io),
            Self::Tls(io) => abort(io.get_ref().0),
            Self::Stream(io) => io.reset(),
        }
    }
}

/// Makes the close of a TCP connection a reset.
fn abort(io: &TcpStream) {
    if let Err(error) = socket2::SockRef::from(io).set_linger(Some(std::time::Duration::ZERO)) {
        tracing::debug!(%error, "a connection could not be reset and is closed");
    }
}
