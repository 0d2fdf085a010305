//! Whether two hosts reach each other's ports: 7947 by UDP and TCP, and 15008.
//!
//! A probe is the byte 0xFE and the 16-byte session of a join. It is echoed only while that session is
//! registered, byte for byte, so nobody can use a host as an amplifier or find out that it listens.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream, UdpSocket},
    time::timeout,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// First byte of a probe; boxes begin with a version, which is never this.
pub(crate) const PROBE: u8 = 0xfe;
/// Length of a probe.
pub(crate) const LENGTH: usize = 17;
/// How long a port gets to answer.
pub(super) const PATIENCE: Duration = Duration::from_secs(2);
/// How long a session is registered.
const SESSION: Duration = Duration::from_mins(1);
/// Most sessions at a time.
const SESSIONS: usize = 256;

/// The sessions whose probes are answered. Clones share them.
#[derive(Debug, Clone, Default)]
pub(crate) struct Probes(Arc<Mutex<HashMap<[u8; 16], Instant>>>);

impl Probes {
    /// Answers probes of this session for a minute.
    pub(super) fn register(&self, session: [u8; 16]) {
        let mut sessions = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        sessions.retain(|_, until| *until > now);
        if sessions.len() < SESSIONS {
            sessions.insert(session, now + SESSION);
        }
    }
    /// What to send back for a datagram that begins with [`PROBE`]: the datagram itself, or nothing.
    pub(crate) fn echo<'a>(&self, datagram: &'a [u8]) -> Option<&'a [u8]> {
        let (&PROBE, session) = datagram.split_first()? else {
            return None;
        };
        let session: [u8; 16] = session.try_into().ok()?;
        let sessions = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        sessions
            .get(&session)
            .filter(|until| **until > Instant::now())
            .map(|_| datagram)
    }
}

/// The probe of a session.
fn probe(session: [u8; 16]) -> [u8; LENGTH] {
    let mut out = [PROBE; LENGTH];
    for (slot, byte) in out.iter_mut().skip(1).zip(session) {
        *slot = byte;
    }
    out
}

/// True when a datagram to `to` comes back; asks three times.
pub(super) async fn udp(from: Option<&UdpSocket>, to: SocketAddr, session: [u8; 16]) -> bool {
    let own;
    let socket = if let Some(socket) = from {
        socket
    } else {
        let any = if to.is_ipv4() {
            IpAddr::V4(Ipv4Addr::UNSPECIFIED)
        } else {
            IpAddr::V6(Ipv6Addr::UNSPECIFIED)
        };
        match UdpSocket::bind(SocketAddr::new(any, 0)).await {
            Ok(socket) => {
                own = socket;
                &own
            }
            Err(_) => return false,
        }
    };
    let probe = probe(session);
    let to = mapped(socket, to);
    for _attempt in 0..3 {
        // A refusal by ICMP arrives as an error of the next call; the next attempt tells.
        let _refused = socket.send_to(&probe, to).await.is_err();
        if timeout(PATIENCE / 3, echoed(socket, to, &probe))
            .await
            .is_ok()
        {
            return true;
        }
    }
    false
}

/// The address in the form that the socket takes: IPv4 inside IPv6 on a socket for both.
fn mapped(socket: &UdpSocket, to: SocketAddr) -> SocketAddr {
    match (socket.local_addr(), to) {
        (Ok(SocketAddr::V6(_)), SocketAddr::V4(v4)) => {
            SocketAddr::new(IpAddr::V6(v4.ip().to_ipv6_mapped()), v4.port())
        }
        _ => to,
    }
}

async fn echoed(socket: &UdpSocket, to: SocketAddr, probe: &[u8; LENGTH]) {
    let mut buffer = [0; 64];
    loop {
        match socket.recv_from(&mut buffer).await {
            Ok((length, from))
                if from.ip().to_canonical() == to.ip().to_canonical()
                    && buffer.get(..length) == Some(&probe[..]) =>
            {
                return;
            }
            Ok(_) => {}
            Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
}

/// True when a connection to `to` opens.
pub(super) async fn opens(to: SocketAddr) -> bool {
    timeout(PATIENCE, TcpStream::connect(to))
        .await
        .is_ok_and(|opened| opened.is_ok())
}

/// True when a connection to `to` opens and answers the probe: the joiner itself, not something in between.
pub(super) async fn tcp(to: SocketAddr, session: [u8; 16]) -> bool {
    let asked = async {
        let mut stream = TcpStream::connect(to).await?;
        let probe = probe(session);
        stream.write_all(&probe).await?;
        let mut back = [0; LENGTH];
        stream.read_exact(&mut back).await?;
        std::io::Result::Ok(back == probe)
    };
    timeout(PATIENCE, asked)
        .await
        .is_ok_and(|answered| answered.unwrap_or(false))
}

/// The ports of an idle daemon, held open and answering while it joins.
#[derive(Debug)]
pub(super) struct Answering {
    tasks: TaskTracker,
    stop: CancellationToken,
    /// The UDP socket, from which the joiner's own probes go too.
    pub(super) udp: Option<Arc<UdpSocket>>,
}

/// A port that cannot be opened.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address} ({kind})")]
pub(crate) struct PortError {
    /// The address.
    pub(crate) address: SocketAddr,
    /// `TCP` or `UDP`.
    pub(crate) kind: &'static str,
    /// Why.
    #[source]
    pub(crate) source: std::io::Error,
}

impl Answering {
    /// Opens the control state's ports and the tunnel's; what cannot be opened is an error.
    pub(super) async fn open(
        cluster: SocketAddr,
        tunnel: SocketAddr,
        with_udp: bool,
        session: [u8; 16],
    ) -> Result<Self, PortError> {
        let listen = |address| async move {
            TcpListener::bind(address)
                .await
                .map_err(|source| PortError {
                    address,
                    kind: "TCP",
                    source,
                })
        };
        let (first, second) = (listen(cluster).await?, listen(tunnel).await?);
        let udp = if with_udp {
            let socket = UdpSocket::bind(cluster).await.map_err(|source| PortError {
                address: cluster,
                kind: "UDP",
                source,
            })?;
            Some(Arc::new(socket))
        } else {
            None
        };
        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        for listener in [first, second] {
            tasks.spawn(
                stop.clone()
                    .run_until_cancelled_owned(answer_tcp(listener, session)),
            );
        }
        Ok(Self { tasks, stop, udp })
    }
    /// Answers datagrams for as long as it is polled: beside the far side's probe.
    pub(super) async fn answer_udp(&self, session: [u8; 16]) {
        let Some(socket) = &self.udp else {
            return std::future::pending().await;
        };
        let (mut buffer, probe) = ([0; 64], probe(session));
        loop {
            if let Ok((length, from)) = socket.recv_from(&mut buffer).await
                && buffer.get(..length) == Some(&probe[..])
            {
                let _lost = socket.send_to(&probe, from).await.is_err();
            }
        }
    }
    /// Closes every port, so that the daemon can open them.
    pub(super) async fn close(self) {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }
}

async fn answer_tcp(listener: TcpListener, session: [u8; 16]) {
    let probe = probe(session);
    loop {
        let Ok((mut stream, _)) = listener.accept().await else {
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        let answer = async {
            let mut asked = [0; LENGTH];
            stream.read_exact(&mut asked).await?;
            if asked == probe {
                stream.write_all(&asked).await
            } else {
                Ok(())
            }
        };
        drop(timeout(PATIENCE, answer).await);
    }
}
