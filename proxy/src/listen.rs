//! Accept loops: bind, accept, survive, hand on.
//!
//! Each worker has its own socket of every listener (`SO_REUSEPORT`), so the kernel spreads connections.

use std::{io, net::SocketAddr, rc::Rc, sync::Arc, time::Duration};

use socket2::{Domain, Protocol, Socket, TcpKeepalive, Type};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
};

use crate::{connection::Worker, inbound, outbound, tunnel};

/// What arrives at a listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Redirected calls of local programs.
    Outbound,
    /// Calls to local programs, delivered by tproxy.
    Inbound,
    /// mTLS from other daemons and foreign meshes.
    Tunnel,
    /// Calls that say in HTTP where they go.
    Explicit,
    /// The same from this daemon itself.
    Internal,
}

impl Kind {
    /// All kinds, in the order of their numbers.
    pub(crate) const ALL: [Self; 5] = [
        Self::Outbound,
        Self::Inbound,
        Self::Tunnel,
        Self::Explicit,
        Self::Internal,
    ];

    /// The metric label.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Outbound => "outbound",
            Self::Inbound => "inbound",
            Self::Tunnel => "tunnel",
            Self::Explicit => "explicit",
            Self::Internal => "internal",
        }
    }
}

/// A bound socket that listens.
#[derive(Debug)]
pub(crate) struct Bound {
    /// What arrives there.
    pub(crate) kind: Kind,
    /// The socket.
    pub(crate) socket: std::net::TcpListener,
}

/// Connections that wait to be accepted.
const BACKLOG: i32 = 4096;
/// Silence after which a peer is asked whether it lives.
const KEEP_ALIVE: Duration = Duration::from_mins(1);
/// Time between such questions; after three the connection is broken.
const KEEP_ALIVE_AGAIN: Duration = Duration::from_secs(10);

/// Binds one socket. What is set here, accepted connections inherit.
pub(crate) fn bind(kind: Kind, address: SocketAddr) -> io::Result<Bound> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    socket.set_nonblocking(true)?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    if kind == Kind::Inbound {
        if address.is_ipv6() {
            socket.set_ip_transparent_v6(true)?;
        } else {
            socket.set_ip_transparent_v4(true)?;
        }
    }
    socket.set_tcp_nodelay(true)?;
    socket.set_tcp_keepalive(&keep_alive())?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(Bound {
        kind,
        socket: socket.into(),
    })
}

/// Keep-alive of every connection, accepted or dialled.
pub(crate) fn keep_alive() -> TcpKeepalive {
    TcpKeepalive::new()
        .with_time(KEEP_ALIVE)
        .with_interval(KEEP_ALIVE_AGAIN)
        .with_retries(3)
}

/// Accepts until draining begins.
pub(crate) async fn accept(worker: Rc<Worker>, bound: Bound) {
    let kind = bound.kind;
    let listener = match TcpListener::from_std(bound.socket) {
        Ok(listener) => listener,
        Err(error) => {
            tracing::error!(%error, kind = kind.as_str(), "a listener could not be used");
            return;
        }
    };
    let permits = Arc::new(Semaphore::new(worker.config.limits.connections));
    loop {
        let next = async {
            // The semaphore is never closed, so there is always a permit in the end.
            let permit = Arc::clone(&permits).acquire_owned().await.ok();
            (permit, listener.accept().await)
        };
        let (permit, accepted) = tokio::select! {
            next = next => next,
            () = worker.drain.draining() => return,
        };
        match accepted {
            Ok((stream, peer)) => {
                let connection = serve(Rc::clone(&worker), kind, stream, peer);
                worker.spawn(async move {
                    connection.await;
                    drop(permit);
                });
            }
            Err(error) => survive(&error, kind).await,
        }
    }
}

/// A failed accept is the connection's own fault, or the process is out of something and waits.
async fn survive(error: &io::Error, kind: Kind) {
    if matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::Interrupted
    ) {
        return;
    }
    tracing::warn!(%error, kind = kind.as_str(), "connections cannot be accepted at the moment");
    tokio::time::sleep(Duration::from_millis(100)).await;
}

async fn serve(worker: Rc<Worker>, kind: Kind, stream: TcpStream, peer: SocketAddr) {
    let _open = worker.observe.connection(kind);
    let peer = mesh_model::address::canonical(peer);
    match kind {
        Kind::Outbound => outbound::captured(worker, stream, peer).await,
        Kind::Inbound => inbound::captured(worker, stream, peer).await,
        Kind::Tunnel => tunnel::serve(worker, stream, peer).await,
        Kind::Explicit => outbound::explicit(worker, stream, peer).await,
        Kind::Internal => outbound::internal(worker, stream, peer).await,
    }
}
