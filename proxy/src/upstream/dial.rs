//! Opens connections: marked, timed, from the client's own address where that is wanted.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use socket2::SockRef;
use tokio::net::{TcpSocket, TcpStream};

use super::DialError;
use crate::{config::Config, listen::keep_alive};

/// Time without an acknowledgement after which a tunnel is broken.
const UNACKNOWLEDGED: Duration = Duration::from_secs(20);

/// Opens a TCP connection to a tunnel. The other daemon always reads, so one that acknowledges nothing is gone;
/// a program may stop reading for as long as it likes.
pub(crate) async fn tunnel(config: &Config, address: SocketAddr) -> Result<TcpStream, DialError> {
    let stream = connect(config, address, None).await?;
    SockRef::from(&stream)
        .set_tcp_user_timeout(Some(UNACKNOWLEDGED))
        .map_err(|source| DialError::Connect {
            address,
            source: Arc::new(source),
        })?;
    Ok(stream)
}

/// Opens a TCP connection; `source` is an address to come from although it is not ours.
pub(crate) async fn connect(
    config: &Config,
    address: SocketAddr,
    source: Option<IpAddr>,
) -> Result<TcpStream, DialError> {
    connect_within(config, address, source, config.limits.connect).await
}

/// The same within another bound on the time.
pub(crate) async fn connect_within(
    config: &Config,
    address: SocketAddr,
    source: Option<IpAddr>,
    limit: Duration,
) -> Result<TcpStream, DialError> {
    let failed = |source| DialError::Connect {
        address,
        source: Arc::new(source),
    };
    let socket = open(config, address, source).map_err(failed)?;
    tokio::time::timeout(limit, socket.connect(address))
        .await
        .map_err(|_elapsed| DialError::Timeout(address))?
        .map_err(failed)
}

fn open(config: &Config, address: SocketAddr, source: Option<IpAddr>) -> io::Result<TcpSocket> {
    let socket = if address.is_ipv4() {
        TcpSocket::new_v4()
    } else {
        TcpSocket::new_v6()
    }?;
    let options = SockRef::from(&socket);
    mark(&options, config.mark)?;
    options.set_tcp_nodelay(true)?;
    options.set_tcp_keepalive(&keep_alive())?;
    if let Some(source) = source.filter(|source| source.is_ipv4() == address.is_ipv4()) {
        if source.is_ipv4() {
            options.set_ip_transparent_v4(true)?;
        } else {
            options.set_ip_transparent_v6(true)?;
        }
        bind(&socket, source)?;
    }
    Ok(socket)
}

/// Binds to an address that is a caller's own, with a port that the caller does not use towards the same service: the
/// kernel would take its next connection for a part of ours, and the caller would wait for an answer in vain.
fn bind(socket: &TcpSocket, source: IpAddr) -> io::Result<()> {
    let any = SocketAddr::new(source, 0);
    // Linux gives even ports to programs that connect and odd ones to those that bind, while there are both.
    if socket.bind(any).is_ok() {
        return Ok(());
    }
    // They have run out: the kernel chooses at connect, by the whole four-tuple.
    nix::sys::socket::setsockopt(
        socket,
        nix::sys::socket::sockopt::IpBindAddressNoPort,
        &true,
    )?;
    socket.bind(any)
}

/// Marks a socket as the daemon's own, so that it is not captured.
pub(crate) fn mark(socket: &SockRef<'_>, mark: Option<u32>) -> io::Result<()> {
    mark.map_or(Ok(()), |mark| socket.set_mark(mark))
}
