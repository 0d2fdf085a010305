//! Listeners: what arrives at each, and how they are bound.
//!
//! Each worker has its own socket of every listener (`SO_REUSEPORT`), so the kernel spreads connections.

use std::{io, net::SocketAddr, time::Duration};

use socket2::{Domain, Protocol, Socket, TcpKeepalive, Type};

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
