//! The sockets of the control state: both address families on one port, marked as the daemon's own.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};
use tokio::net::{TcpListener, TcpSocket, TcpStream, UdpSocket};

/// Connections that may wait to be accepted.
const BACKLOG: i32 = 1024;

/// The TCP listener. On all addresses of both families, or of IPv4 where a host has no IPv6.
pub(super) fn listener(address: SocketAddr, mark: Option<u32>) -> io::Result<TcpListener> {
    let socket = bound(address, Type::STREAM, Protocol::TCP, mark)?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

/// The UDP socket, likewise.
pub(super) fn datagrams(address: SocketAddr, mark: Option<u32>) -> io::Result<UdpSocket> {
    UdpSocket::from_std(bound(address, Type::DGRAM, Protocol::UDP, mark)?.into())
}

fn bound(
    address: SocketAddr,
    kind: Type,
    protocol: Protocol,
    mark: Option<u32>,
) -> io::Result<Socket> {
    match bind(address, kind, protocol, mark) {
        Err(error) if address.ip() == IpAddr::V6(Ipv6Addr::UNSPECIFIED) && no_ipv6(&error) => {
            let address = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), address.port());
            bind(address, kind, protocol, mark)
        }
        other => other,
    }
}

fn no_ipv6(error: &io::Error) -> bool {
    let codes = [libc::EAFNOSUPPORT, libc::EADDRNOTAVAIL];
    error
        .raw_os_error()
        .is_some_and(|code| codes.contains(&code))
}

fn bind(
    address: SocketAddr,
    kind: Type,
    protocol: Protocol,
    mark: Option<u32>,
) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), kind, Some(protocol))?;
    if address.is_ipv6() {
        // Whatever the host's default says.
        socket.set_only_v6(false)?;
    }
    if kind == Type::STREAM {
        socket.set_reuse_address(true)?;
    }
    socket.set_nonblocking(true)?;
    set_mark(&SockRef::from(&socket), mark);
    socket.bind(&address.into())?;
    Ok(socket)
}

/// The mark keeps the daemon's own traffic out of its interception; without the capability nothing is
/// intercepted either.
fn set_mark(socket: &SockRef<'_>, mark: Option<u32>) {
    if let Some(mark) = mark
        && let Err(error) = socket.set_mark(mark)
    {
        tracing::debug!(%error, "a socket of the control state carries no mark");
    }
}

/// Dials another host.
pub(super) async fn dial(to: SocketAddr, mark: Option<u32>) -> io::Result<TcpStream> {
    let socket = if to.is_ipv4() {
        TcpSocket::new_v4()?
    } else {
        TcpSocket::new_v6()?
    };
    set_mark(&SockRef::from(&socket), mark);
    socket.connect(to).await
}

/// Small messages go at once, and a dead peer is noticed.
pub(super) fn tune(stream: &TcpStream) {
    let socket = SockRef::from(stream);
    let alive = TcpKeepalive::new()
        .with_time(Duration::from_secs(10))
        .with_interval(Duration::from_secs(5))
        .with_retries(3);
    let tuned = socket
        .set_tcp_nodelay(true)
        .and_then(|()| socket.set_tcp_keepalive(&alive))
        .and_then(|()| socket.set_tcp_user_timeout(Some(Duration::from_secs(20))));
    if let Err(error) = tuned {
        tracing::debug!(%error, "a link's socket cannot be tuned");
    }
}

/// Sends a datagram; one that the kernel does not take now is a lost one. A socket of both families takes
/// IPv4 addresses only in their mapped form.
pub(super) fn send(socket: &UdpSocket, bytes: &[u8], to: SocketAddr) {
    let both = socket.local_addr().is_ok_and(|own| own.is_ipv6());
    let to = match to.ip() {
        IpAddr::V4(ip) if both => SocketAddr::new(IpAddr::V6(ip.to_ipv6_mapped()), to.port()),
        IpAddr::V4(_) | IpAddr::V6(_) => to,
    };
    if let Err(error) = socket.try_send_to(bytes, to) {
        tracing::trace!(%to, %error, "datagram");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn one_socket_serves_both_families() {
        let any = SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), 0);
        let (one, two) = (datagrams(any, None).unwrap(), datagrams(any, None).unwrap());
        let port = two.local_addr().unwrap().port();
        let mut buffer = [0; 16];
        let mut places = vec![IpAddr::V4(Ipv4Addr::LOCALHOST)];
        if two.local_addr().unwrap().is_ipv6() {
            places.push(IpAddr::V6(Ipv6Addr::LOCALHOST));
        }
        for ip in places {
            one.writable().await.unwrap();
            send(&one, b"x", SocketAddr::new(ip, port));
            let wait = tokio::time::timeout(Duration::from_secs(5), two.recv_from(&mut buffer));
            let (length, from) = wait.await.unwrap().unwrap();
            assert_eq!((length, from.ip().to_canonical()), (1, ip));
        }
        let listener = listener(any, None).unwrap();
        let port = listener.local_addr().unwrap().port();
        let place = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port);
        let (dialled, accepted) = tokio::join!(dial(place, None), listener.accept());
        tune(&dialled.unwrap());
        drop(accepted.unwrap());
    }
}
