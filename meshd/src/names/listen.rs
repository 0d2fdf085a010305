//! Sockets, and the limits on what they may cost.

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use hickory_proto::op::ResponseCode;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream, UdpSocket},
    sync::Semaphore,
    time::timeout,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    Settings,
    answer::{Transport, Verdict, decide, failure},
    forward::{self, framed},
    zone::Source,
};

/// Questions that are with upstreams at the same time; more are answered with a failure.
const MAX_FORWARDS: usize = 256;
/// Connections at the same time; more wait to be accepted.
const MAX_CONNECTIONS: usize = 64;
/// How many free ports are looked at before the last one's error is told.
const FREE_PORT_SEEKS: u32 = 16;
/// How long a connection may be silent.
const IDLE: Duration = Duration::from_secs(10);
/// The longest query: nobody needs more.
const MAX_QUERY: usize = 4096;

/// The names process cannot go on.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RunError {
    /// A configured address cannot be listened on.
    #[error("cannot answer names on {address}")]
    Bind {
        /// Which.
        address: SocketAddr,
        /// Why.
        #[source]
        source: io::Error,
    },
}

#[derive(Debug)]
struct Room {
    source: Source,
    upstream: Vec<SocketAddr>,
    forwards: Arc<Semaphore>,
    connections: Arc<Semaphore>,
    turn: AtomicUsize,
    tasks: TaskTracker,
}

/// Binds every address, UDP and TCP, and answers until `stop`.
pub(super) async fn run(settings: Settings, stop: CancellationToken) -> Result<(), RunError> {
    let mut sockets = Vec::new();
    for &address in &settings.listen {
        let (udp, tcp, bound) = bind(address)
            .await
            .map_err(|source| RunError::Bind { address, source })?;
        tracing::info!(address = %bound, "answering names");
        sockets.push((udp, tcp));
    }
    serve(settings, sockets, stop).await;
    Ok(())
}

/// Binds one address for both transports. Port 0 means the same free port for both: what is free for UDP may be
/// taken for TCP, then another one is sought.
async fn bind(address: SocketAddr) -> io::Result<(UdpSocket, TcpListener, SocketAddr)> {
    let mut seeks = if address.port() == 0 {
        FREE_PORT_SEEKS
    } else {
        1
    };
    loop {
        seeks -= 1;
        let udp = UdpSocket::bind(address).await?;
        let bound = udp.local_addr()?;
        match TcpListener::bind(bound).await {
            Ok(tcp) => return Ok((udp, tcp, bound)),
            Err(taken) if taken.kind() == io::ErrorKind::AddrInUse && seeks > 0 => {}
            Err(error) => return Err(error),
        }
    }
}

async fn serve(
    settings: Settings,
    sockets: Vec<(UdpSocket, TcpListener)>,
    stop: CancellationToken,
) {
    let tasks = TaskTracker::new();
    let room = Arc::new(Room {
        upstream: settings.upstream.clone(),
        source: Source::new(settings),
        forwards: Arc::new(Semaphore::new(MAX_FORWARDS)),
        connections: Arc::new(Semaphore::new(MAX_CONNECTIONS)),
        turn: AtomicUsize::new(0),
        tasks: tasks.clone(),
    });
    for (udp, tcp) in sockets {
        let (datagrams, streams) = (Arc::clone(&room), Arc::clone(&room));
        tasks.spawn(
            stop.clone()
                .run_until_cancelled_owned(datagrams.datagrams(Arc::new(udp))),
        );
        tasks.spawn(
            stop.clone()
                .run_until_cancelled_owned(streams.streams(tcp, stop.clone())),
        );
    }
    stop.cancelled().await;
    tasks.close();
    // What is under way may end; its client would ask again.
    drop(timeout(Duration::from_secs(1), tasks.wait()).await);
}

impl Room {
    async fn datagrams(self: Arc<Self>, socket: Arc<UdpSocket>) {
        let mut buffer = vec![0_u8; MAX_QUERY];
        loop {
            let (length, client) = match socket.recv_from(&mut buffer).await {
                Ok(received) => received,
                Err(error) => {
                    // A client that went away is reported here; a broken socket would spin.
                    tracing::debug!(%error, "a datagram cannot be received");
                    tokio::time::sleep(Duration::from_millis(1)).await;
                    continue;
                }
            };
            let Some(query) = buffer.get(..length) else {
                continue;
            };
            match self.decide(query, Transport::Udp) {
                Verdict::Answer(answer) => send(&socket, &answer, client).await,
                Verdict::Forward => self.forward(query.to_vec(), &socket, client),
                Verdict::Drop => {}
            }
        }
    }

    fn forward(self: &Arc<Self>, query: Vec<u8>, socket: &Arc<UdpSocket>, client: SocketAddr) {
        let (room, socket) = (Arc::clone(self), Arc::clone(socket));
        let permit = Arc::clone(&self.forwards).try_acquire_owned().ok();
        if permit.is_none() {
            tracing::debug!("too many names are being asked for");
        }
        self.tasks.spawn(async move {
            let answer = match permit {
                Some(_held) => room.elsewhere(&query, Transport::Udp).await,
                None => failure(&query, ResponseCode::ServFail),
            };
            if let Some(answer) = answer {
                send(&socket, &answer, client).await;
            }
        });
    }

    async fn streams(self: Arc<Self>, listener: TcpListener, stop: CancellationToken) {
        loop {
            let Ok(permit) = Arc::clone(&self.connections).acquire_owned().await else {
                return;
            };
            match listener.accept().await {
                Ok((stream, _client)) => {
                    let room = Arc::clone(&self);
                    let answering = async move {
                        if let Err(error) = room.stream(stream).await {
                            tracing::debug!(%error, "a connection ended");
                        }
                        drop(permit);
                    };
                    self.tasks
                        .spawn(stop.clone().run_until_cancelled_owned(answering));
                }
                Err(error) => {
                    tracing::warn!(%error, "a connection cannot be accepted");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }

    /// Queries of one connection, one after the other.
    async fn stream(&self, mut stream: TcpStream) -> io::Result<()> {
        loop {
            let Some(query) = timeout(IDLE, read(&mut stream)).await?? else {
                return Ok(());
            };
            let answer = match self.decide(&query, Transport::Tcp) {
                Verdict::Answer(answer) => Some(answer),
                Verdict::Forward => match self.forwards.try_acquire() {
                    Ok(_held) => self.elsewhere(&query, Transport::Tcp).await,
                    Err(_) => failure(&query, ResponseCode::ServFail),
                },
                Verdict::Drop => None,
            };
            let Some(answer) = answer else { return Ok(()) };
            timeout(IDLE, stream.write_all(&framed(&answer)?)).await??;
        }
    }

    fn decide(&self, query: &[u8], transport: Transport) -> Verdict {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        decide(query, transport, &self.source.current(), turn)
    }

    async fn elsewhere(&self, query: &[u8], transport: Transport) -> Option<Vec<u8>> {
        if self.upstream.is_empty() {
            return failure(query, ResponseCode::Refused);
        }
        match forward::ask(query, transport, &self.upstream).await {
            Some(answer) => Some(answer),
            None => failure(query, ResponseCode::ServFail),
        }
    }
}

/// One query; none at the end of the connection.
async fn read(stream: &mut TcpStream) -> io::Result<Option<Vec<u8>>> {
    let length = match stream.read_u16().await {
        Ok(length) => usize::from(length),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(error) => return Err(error),
    };
    if length > MAX_QUERY {
        return Ok(None);
    }
    let mut query = vec![0_u8; length];
    stream.read_exact(&mut query).await?;
    Ok(Some(query))
}

async fn send(socket: &UdpSocket, answer: &[u8], client: SocketAddr) {
    if let Err(error) = socket.send_to(answer, client).await {
        tracing::debug!(%client, %error, "an answer cannot be sent");
    }
}

#[cfg(test)]
mod tests;
