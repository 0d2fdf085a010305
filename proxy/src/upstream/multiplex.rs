//! HTTP/2 connections, shared by as many exchanges as the other end allows.
//!
//! Only one more is opened at a time, and all who need it wait for that one. Requests and CONNECT streams
//! never share a connection.

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    future::{Future, poll_fn},
    net::SocketAddr,
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures_util::{FutureExt, future::Shared};
use mesh_identity::verify::Usage;
use mesh_model::{
    endpoint::Tunnel,
    principal::SpiffeId,
    snapshot::{Caller, EndpointKey, Snapshot},
};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use super::{DialError, Inner, dial, pool::Place, shared::Keys, speaker::Speaker};
use crate::{
    io::Io,
    link::{Driver, Link, Peer, Terms},
    tls::{self, Verified},
    uses::{InUse, Uses},
};

/// What a shared connection is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Purpose {
    /// HTTP requests.
    Requests,
    /// CONNECT streams: apart, so that a stalled stream never holds up requests.
    Streams,
}

/// Where a shared connection leads, and as whom.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Road {
    /// A tunnel.
    Tunnel {
        /// As whom.
        caller: SpiffeId,
        /// Where.
        address: SocketAddr,
        /// To whom.
        server_name: Option<Arc<str>>,
        /// What for.
        purpose: Purpose,
    },
    /// Plaintext.
    Plain(Place),
}

impl Road {
    /// For HTTP requests through a tunnel.
    pub(crate) fn requests(caller: &SpiffeId, tunnel: &Tunnel) -> Self {
        Self::tunnel(caller, tunnel, Purpose::Requests)
    }
    /// For CONNECT streams through a tunnel.
    pub(crate) fn streams(caller: &SpiffeId, tunnel: &Tunnel) -> Self {
        Self::tunnel(caller, tunnel, Purpose::Streams)
    }
    fn tunnel(caller: &SpiffeId, tunnel: &Tunnel, purpose: Purpose) -> Self {
        let server_name = tunnel.server_name.clone();
        Self::Tunnel {
            caller: caller.clone(),
            address: tunnel.address,
            server_name,
            purpose,
        }
    }
    fn purpose(&self) -> Purpose {
        match self {
            Self::Tunnel { purpose, .. } => *purpose,
            Self::Plain(_) => Purpose::Requests,
        }
    }
    /// Exchanges that share one connection.
    fn most(&self) -> u32 {
        match self {
            Self::Tunnel {
                purpose: Purpose::Streams,
                ..
            } => STREAMS,
            Self::Tunnel { .. } | Self::Plain(_) => REQUESTS,
        }
    }
}

/// Requests that share a connection.
const REQUESTS: u32 = 100;
/// CONNECT streams that share one.
const STREAMS: u32 = 64;
/// The same where the other end is another mesh's: no more than the connection's window has room for.
const FOREIGN: u32 = 16;
/// What one stream may have in flight towards us, and one of CONNECT.
const STREAM_WINDOW: u32 = 1 << 20;
const BULK_WINDOW: u32 = 4 << 20;
/// What a connection may have in flight towards us.
const CONNECTION_WINDOW: u32 = 16 << 20;
/// Largest frame that we take.
const FRAME: u32 = 1 << 20;
/// Largest header list that we take.
const HEADERS: u32 = 64 << 10;
/// Bytes queued for sending on one stream before it is asked to wait.
const SEND_BUFFER: usize = 256 << 10;
/// Time between questions whether a busy connection lives, and for each answer.
const PING: Duration = Duration::from_secs(5);
const PONG: Duration = Duration::from_secs(10);

/// One HTTP/2 connection.
#[derive(Debug)]
pub(crate) struct Connection {
    send: Speaker,
    life: Rc<Life>,
    retire_at: Instant,
    peer: Option<Arc<str>>,
    verified: Option<Verified>,
    sans: Option<Arc<[SpiffeId]>>,
    /// Longest time without an exchange; `None`: the daemon's.
    idle: Option<Duration>,
    /// Exchanges that may still begin; the most that there is: no limit.
    left: Cell<u32>,
}

#[derive(Debug)]
struct Life {
    uses: Rc<Uses>,
    closed: Cell<bool>,
    /// Once the other end's settings are known, or it has ended.
    settled: CancellationToken,
    kill: CancellationToken,
}

impl Life {
    fn begun() -> Rc<Self> {
        Rc::new(Self {
            uses: Uses::none(),
            closed: Cell::new(false),
            settled: CancellationToken::new(),
            kill: CancellationToken::new(),
        })
    }

    fn end(&self) {
        self.closed.set(true);
        self.settled.cancel();
    }
}

impl Connection {
    fn is_open(&self) -> bool {
        !self.life.closed.get()
            && !self.send.is_closed()
            && self.left.get() > 0
            && self.retire_at > Instant::now()
    }

    /// The same with the bounds of a policy: on the time without an exchange, and on exchanges (0: none).
    pub(super) fn within(mut self, idle: Option<Duration>, exchanges: u32) -> Self {
        self.idle = idle;
        self.left = Cell::new(match exchanges {
            0 => u32::MAX,
            most => most,
        });
        self
    }

    /// Whether it may still be used for an endpoint that accepts `tunnel.sans`.
    fn suits(&self, tunnel: Option<&Tunnel>) -> bool {
        let (Some(tunnel), Some(sans), Some(verified)) = (tunnel, &self.sans, &self.verified)
        else {
            return tunnel.is_none();
        };
        Arc::ptr_eq(sans, &tunnel.sans) || tunnel.sans.contains(&verified.peer.id)
    }

    fn handle(self: &Rc<Self>, most: u32) -> Option<H2Handle> {
        let allowed = self.send.most().unwrap_or(most);
        let most = match &self.send {
            Speaker::Other(_) if self.verified.is_some() => most.min(FOREIGN),
            Speaker::Other(_) | Speaker::Link(_) => most,
        };
        let uses = &self.life.uses;
        (uses.active() < most.min(allowed.max(1))).then(|| self.begin(uses))
    }

    fn begin(&self, uses: &Rc<Uses>) -> H2Handle {
        if self.left.get() != u32::MAX {
            self.left.set(self.left.get().saturating_sub(1));
        }
        H2Handle {
            send: self.send.clone(),
            peer: self.peer.clone(),
            mesh: self.verified.as_ref().is_some_and(|verified| verified.mesh),
            in_use: uses.begin(),
            life: Rc::clone(&self.life),
        }
    }
}

impl Drop for Connection {
    /// It was let go of: it ends with its last exchange.
    fn drop(&mut self) {
        if let Speaker::Link(link) = &self.send {
            link.leave();
        }
    }
}

/// A stream's right on an HTTP/2 connection; keep it until the exchange, bodies included, has ended.
#[derive(Debug)]
pub(crate) struct H2Handle {
    /// Opens streams.
    pub(crate) send: Speaker,
    /// The identity that the other end proved; `None` for plaintext.
    pub(crate) peer: Option<Arc<str>>,
    /// True on a mesh tunnel: requests carry `mesh-target` and `mesh-request-id`.
    pub(crate) mesh: bool,
    /// The right itself.
    pub(crate) in_use: InUse,
    life: Rc<Life>,
}

impl H2Handle {
    /// Waits until the other end's settings are known, or it has ended.
    pub(crate) async fn settled(&self) {
        self.life.settled.cancelled().await;
    }

    /// The connection takes no further exchanges; those that run go on.
    pub(crate) fn refuses(&self) {
        self.life.closed.set(true);
    }
}

type Opened = Result<Rc<Connection>, DialError>;
type Opening = Shared<futures_util::future::LocalBoxFuture<'static, Opened>>;

#[derive(Debug, Default)]
struct Slot {
    connections: Vec<Rc<Connection>>,
    opening: Option<Opening>,
}

/// HTTP/2 connections.
#[derive(Debug, Default)]
pub(crate) struct Multiplexed(RefCell<HashMap<Road, Slot>>);

impl Multiplexed {
    /// One with room, if it is open already.
    pub(super) fn checkout(&self, road: &Road, tunnel: Option<&Tunnel>) -> Option<H2Handle> {
        let slots = self.0.borrow();
        let slot = slots.get(road)?;
        slot.connections
            .iter()
            .filter(|connection| connection.is_open() && connection.suits(tunnel))
            .find_map(|connection| connection.handle(road.most()))
    }

    /// Lets go of those that are closed, old, or idle too long; they close when their last exchange ends.
    pub(crate) fn tidy(&self, longest: Duration) {
        self.0.borrow_mut().retain(|_, slot| {
            slot.connections.retain(|connection| {
                let life = &connection.life;
                let since = life.uses.idle_since();
                let longest = connection.idle.unwrap_or(longest);
                let idle = since.is_some_and(|since| since.elapsed() > longest);
                connection.is_open() && !idle
            });
            !slot.connections.is_empty() || slot.opening.is_some()
        });
    }

    /// Lets go of connections to endpoints that are no more.
    pub(crate) fn retire(&self, endpoints: &Keys) {
        let known = |key: EndpointKey| endpoints.contains(&key);
        self.0.borrow_mut().retain(|road, _| match road {
            Road::Plain(place) => place.endpoint().is_none_or(known),
            Road::Tunnel { .. } => true,
        });
    }

    /// Breaks tunnels whose peers lost their rights.
    pub(crate) fn enforce(&self, snapshot: &Snapshot) {
        for connection in self.0.borrow().values().flat_map(|slot| &slot.connections) {
            let Some(verified) = &connection.verified else {
                continue;
            };
            if let Err(error) = tls::still_believed(snapshot, verified, Usage::Server) {
                tracing::warn!(peer = %verified.peer.id, %error, "a tunnel is closed: the peer lost its rights");
                connection.life.kill.cancel();
                connection.send.abort("the peer lost its rights");
            }
        }
    }
}

/// Times that a caller waits for a connection which others then fill up.
const WAITS: usize = 8;

impl Inner {
    /// A shared plaintext connection, opened by `open` when none has room.
    pub(crate) async fn shared_h2<F>(
        self: &Rc<Self>,
        road: Road,
        open: impl FnOnce() -> F,
    ) -> Result<H2Handle, DialError>
    where
        F: Future<Output = Result<Connection, DialError>> + 'static,
    {
        let mut open = Some(open);
        let open = || open.take().map(|open| open().boxed_local());
        self.shared(road, None, open).await
    }

    /// A shared connection through a tunnel.
    pub(crate) async fn mesh(
        self: &Rc<Self>,
        road: Road,
        caller: &Caller,
        tunnel: &Tunnel,
    ) -> Result<H2Handle, DialError> {
        let purpose = road.purpose();
        let open = || {
            let (inner, principal) = (Rc::clone(self), caller.principal.clone());
            let tunnel = tunnel.clone();
            let open = async move { inner.open_tunnel(&principal, &tunnel, purpose).await };
            Some(open.boxed_local())
        };
        self.shared(road, Some(tunnel), open).await
    }

    async fn shared(
        self: &Rc<Self>,
        road: Road,
        tunnel: Option<&Tunnel>,
        mut open: impl FnMut() -> Option<
            futures_util::future::LocalBoxFuture<'static, Result<Connection, DialError>>,
        >,
    ) -> Result<H2Handle, DialError> {
        for _ in 0..WAITS {
            if let Some(handle) = self.multiplexed.checkout(&road, tunnel) {
                return Ok(handle);
            }
            let running = self
                .multiplexed
                .0
                .borrow()
                .get(&road)
                .and_then(|slot| slot.opening.clone());
            let opening = match running {
                Some(opening) => opening,
                None => match open() {
                    Some(future) => self.begin(&road, future),
                    None => break,
                },
            };
            let connection = opening.await?;
            if connection.suits(tunnel)
                && let Some(handle) = connection.handle(road.most())
            {
                return Ok(handle);
            }
        }
        let address = tunnel.map_or_else(|| SocketAddr::from(([0, 0, 0, 0], 0)), |t| t.address);
        Err(DialError::Timeout(address))
    }

    /// Opens a connection in a task of its own: who asked first may go away, the others still wait.
    fn begin(
        self: &Rc<Self>,
        road: &Road,
        open: futures_util::future::LocalBoxFuture<'static, Result<Connection, DialError>>,
    ) -> Opening {
        let (done, wait) = oneshot::channel::<Opened>();
        let lost = DialError::Timeout(SocketAddr::from(([0, 0, 0, 0], 0)));
        let opening = wait
            .map(move |opened| opened.unwrap_or(Err(lost)))
            .boxed_local()
            .shared();
        let mut slots = self.multiplexed.0.borrow_mut();
        slots.entry(road.clone()).or_default().opening = Some(opening.clone());
        drop(slots);
        let (inner, road) = (Rc::clone(self), road.clone());
        self.tasks.spawn_local(async move {
            let opened = open.await.map(Rc::new);
            let mut slots = inner.multiplexed.0.borrow_mut();
            let slot = slots.entry(road).or_default();
            slot.opening = None;
            if let Ok(connection) = &opened {
                slot.connections.push(Rc::clone(connection));
            }
            drop(slots);
            // Nobody waits any longer: the connection is in the pool all the same.
            drop(done.send(opened));
        });
        opening
    }

    async fn open_tunnel(
        self: &Rc<Self>,
        caller: &SpiffeId,
        tunnel: &Tunnel,
        purpose: Purpose,
    ) -> Result<Connection, DialError> {
        if tunnel.next_hop.is_some() {
            return Err(DialError::Gateway);
        }
        let own_end = self.tls.own_end_ms(caller).ok_or(DialError::NoIdentity)?;
        let address = tunnel.address;
        let stream = dial::tunnel(&self.config, address).await?;
        let handshake = self.tls.connect(stream, caller, tunnel);
        let handshake = tokio::time::timeout(self.config.limits.handshake, handshake).await;
        let (stream, verified) = handshake
            .map_err(|_elapsed| DialError::Timeout(address))?
            .map_err(|source| {
                self.transport.handshakes_failed.add(1);
                DialError::Tls {
                    address,
                    source: Arc::new(source),
                }
            })?;
        let io = Io::Tls(Box::new(stream));
        let (mut connection, answered) = if verified.mesh {
            let (connection, answered) = self.begin_link(io, purpose);
            (connection, answered.boxed_local())
        } else {
            let (connection, answered) = self.begin_http2(io, address).await?;
            (connection, answered.boxed_local())
        };
        // In TLS 1.3 the server judges our certificate after our side of the handshake is over: only an
        // answer shows that it took us.
        let answered = tokio::time::timeout(self.config.limits.handshake, answered).await;
        match answered.map_err(|_elapsed| DialError::Timeout(address))? {
            Ok(()) => {}
            Err(source) => {
                self.transport.handshakes_failed.add(1);
                return Err(DialError::Tls {
                    address,
                    source: Arc::new(source),
                });
            }
        }
        self.transport.handshakes.add(1);
        connection.retire_at = self.retire_at(Some(own_end.min(verified.peer.not_after_ms)));
        connection.peer = Some(Arc::from(verified.peer.id.to_string()));
        connection.sans = Some(Arc::clone(&tunnel.sans));
        connection.verified = Some(verified);
        Ok(connection)
    }

    /// Speaks HTTP/2 on a connection, as the client.
    pub(crate) async fn http2(
        self: &Rc<Self>,
        io: Io,
        address: SocketAddr,
    ) -> Result<Connection, DialError> {
        self.begin_http2(io, address)
            .await
            .map(|(connection, _answered)| connection)
    }

    /// The same, with a future that resolves when the other end answered for the first time.
    async fn begin_http2(
        self: &Rc<Self>,
        io: Io,
        address: SocketAddr,
    ) -> Result<(Connection, impl Future<Output = std::io::Result<()>>), DialError> {
        let handshake = h2::client::Builder::new()
            .enable_push(false)
            .initial_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_frame_size(FRAME)
            .max_header_list_size(HEADERS)
            .max_send_buffer_size(SEND_BUFFER)
            .max_local_error_reset_streams(Some(100))
            .handshake::<_, Bytes>(io);
        let handshake = tokio::time::timeout(self.config.limits.handshake, handshake).await;
        let (send, driver) = handshake
            .map_err(|_elapsed| DialError::Timeout(address))?
            .map_err(|source| DialError::Http2 {
                address,
                source: Arc::new(source),
            })?;
        let life = Life::begun();
        self.transport.tunnels_opened.add(1);
        let transport = Arc::clone(&self.transport);
        let shared = Rc::clone(&life);
        let (tell, answered) = oneshot::channel();
        self.tasks.spawn_local(async move {
            drive(driver, &shared, tell).await;
            shared.end();
            transport.tunnels_closed.add(1);
        });
        let lost = || std::io::ErrorKind::ConnectionAborted.into();
        Ok((
            self.connection(Speaker::Other(send), life),
            answered.map(move |told| told.unwrap_or_else(|_lost| Err(lost()))),
        ))
    }

    /// Speaks with another daemon, as the client; with a future that resolves when it answered for the first time.
    fn begin_link(
        self: &Rc<Self>,
        io: Io,
        purpose: Purpose,
    ) -> (
        Connection,
        impl Future<Output = std::io::Result<()>> + 'static,
    ) {
        let (streams, window) = match purpose {
            Purpose::Requests => (REQUESTS, STREAM_WINDOW),
            Purpose::Streams => (STREAMS, BULK_WINDOW),
        };
        let link = Link::new(Terms {
            client: true,
            streams,
            window,
            peer: Peer::Daemon,
        });
        let life = Life::begun();
        self.transport.tunnels_opened.add(1);
        let mut driver = Driver::new(link.clone(), io);
        let (transport, shared) = (Arc::clone(&self.transport), Rc::clone(&life));
        self.tasks.spawn_local(async move {
            let why = poll_fn(|cx| driver.poll(cx)).await;
            tracing::debug!(%why, "a link has ended");
            shared.end();
            transport.tunnels_closed.add(1);
        });
        let (asked, shared) = (link.clone(), Rc::clone(&life));
        let (tell, answered) = oneshot::channel();
        self.tasks.spawn_local(async move {
            let first = asked.ask().await.map_err(std::io::Error::other);
            let whole = first.is_ok();
            shared.settled.cancel();
            // Whoever asked may be gone.
            drop(tell.send(first));
            if whole {
                keep_asking(&asked, &shared).await;
            }
        });
        let lost = || std::io::ErrorKind::ConnectionAborted.into();
        (
            self.connection(Speaker::Link(link), life),
            answered.map(move |told| told.unwrap_or_else(|_lost| Err(lost()))),
        )
    }

    fn connection(&self, send: Speaker, life: Rc<Life>) -> Connection {
        Connection {
            send,
            life,
            retire_at: self.retire_at(None),
            peer: None,
            verified: None,
            sans: None,
            idle: None,
            left: Cell::new(u32::MAX),
        }
    }
}

/// Asks for a sign of life whenever exchanges run, and ends the link when there is none.
async fn keep_asking(link: &Link, life: &Life) {
    loop {
        tokio::time::sleep(PING).await;
        if link.has_ended() {
            return;
        }
        if life.uses.active() == 0 {
            continue;
        }
        match tokio::time::timeout(PONG, link.ask()).await {
            Ok(Ok(())) => {}
            Ok(Err(_ended)) => return,
            Err(_elapsed) => {
                tracing::info!("a link gave no sign of life");
                return link.abort("no sign of life");
            }
        }
    }
}

async fn drive(
    mut driver: h2::client::Connection<Io, Bytes>,
    life: &Life,
    tell: oneshot::Sender<std::io::Result<()>>,
) {
    let ping = driver.ping_pong();
    let tell = Cell::new(Some(tell));
    tokio::select! {
        ended = &mut driver => {
            let error = ended.err().map_or_else(
                || std::io::ErrorKind::UnexpectedEof.into(),
                |error| if error.is_io() { error.into_io().unwrap_or_else(|| std::io::ErrorKind::Other.into()) }
                    else { std::io::Error::other(error) },
            );
            tracing::debug!(%error, "an http/2 connection ended");
            if let Some(tell) = tell.take() {
                // Whoever asked may be gone.
                drop(tell.send(Err(error)));
            }
        }
        () = unanswered(ping, life, &tell) => tracing::info!("an http/2 connection gave no sign of life"),
        () = life.kill.cancelled() => {}
    }
}

/// Asks at once, and then whenever exchanges run; resolves when no answer comes.
async fn unanswered(
    ping: Option<h2::PingPong>,
    life: &Life,
    tell: &Cell<Option<oneshot::Sender<std::io::Result<()>>>>,
) {
    let Some(mut ping) = ping else {
        return std::future::pending().await;
    };
    loop {
        match tokio::time::timeout(PONG, ping.ping(h2::Ping::opaque())).await {
            Ok(Ok(_pong)) => {
                // Settings come before everything else (RFC 9113 section 3.4).
                life.settled.cancel();
                if let Some(tell) = tell.take() {
                    // Whoever asked may be gone.
                    drop(tell.send(Ok(())));
                }
            }
            // The driver sees the same error.
            Ok(Err(_)) => return std::future::pending().await,
            Err(_elapsed) => return,
        }
        tokio::time::sleep(PING).await;
        while life.uses.active() == 0 {
            tokio::time::sleep(PING).await;
        }
    }
}
