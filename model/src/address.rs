//! Where something listens: a socket address, or a host name that must still be resolved.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

/// An address as a source reports it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Address {
    /// An IP address and port; IPv4-mapped IPv6 is written as IPv4.
    Socket(SocketAddr),
    /// A host name and port, resolved by the reader's host.
    Host {
        /// The host name.
        host: Arc<str>,
        /// The port.
        port: u16,
    },
}

impl Address {
    /// The socket address, when it needs no resolving.
    pub fn socket(&self) -> Option<SocketAddr> {
        match self {
            Self::Socket(address) => Some(*address),
            Self::Host { .. } => None,
        }
    }
    /// The port.
    pub fn port(&self) -> u16 {
        match self {
            Self::Socket(address) => address.port(),
            Self::Host { port, .. } => *port,
        }
    }
}

/// The address with an IPv4-mapped IPv6 address written as IPv4, so that equal places compare equal.
pub fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// True for an address that only its own host can reach.
pub fn is_loopback(ip: IpAddr) -> bool {
    ip.to_canonical().is_loopback()
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Socket(address) => write!(f, "{address}"),
            Self::Host { host, port } => write!(f, "{host}:{port}"),
        }
    }
}
