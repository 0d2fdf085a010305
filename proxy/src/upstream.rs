//! Live state by endpoint: connections, loads, ejections, retry budgets.
//!
//! The snapshot says what should be, this room knows what is. Everything is keyed by endpoint or
//! backend, so it survives a new snapshot; what the snapshot no longer names is let go.

use std::{
    cell::RefCell,
    collections::{HashMap, HashSet},
    net::{IpAddr, SocketAddr},
    rc::Rc,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use mesh_model::{
    endpoint::TunnelKind,
    service::AppProtocol,
    snapshot::{
        Backend, BackendEndpoint, BackendKey, Caller, Direct, EndpointKey, InboundPort, Snapshot,
    },
};
use tokio_util::task::TaskTracker;

use self::{
    budget::Bucket,
    group::{Group, Live},
    health::Health,
    multiplex::{Multiplexed, Road},
    pool::{Idle, Place},
};
use crate::{clock, config::Config, io::Io, observe::Transport, tls::Tls};

/// Retry budgets.
mod budget;
/// CONNECT streams to other hosts.
mod connect;
/// Opens connections.
pub(crate) mod dial;
/// A backend with the live state of its endpoints.
mod group;
/// Who is out, and how they come back.
mod health;
/// HTTP/2 connections, shared.
mod multiplex;
/// HTTP/1 connections, kept for the next exchange.
mod pool;

pub(crate) use connect::Call;
pub(crate) use multiplex::H2Handle;
pub(crate) use pool::H1Connection;

/// Why an endpoint, or a local program, could not be reached.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum DialError {
    /// Refused, unreachable, or out of local ports.
    #[error("connecting to {address} failed")]
    Connect {
        /// Where.
        address: SocketAddr,
        /// Why.
        #[source]
        source: Arc<std::io::Error>,
    },
    /// No answer in time.
    #[error("connecting to {0} took too long")]
    Timeout(SocketAddr),
    /// This host has no certificate for the caller (yet).
    #[error("no certificate for the caller")]
    NoIdentity,
    /// The other end is not who it should be, or refuses who we are.
    #[error("mTLS with {address} failed")]
    Tls {
        /// Where.
        address: SocketAddr,
        /// Why.
        #[source]
        source: Arc<std::io::Error>,
    },
    /// HTTP/2 could not be set up, or the connection ended.
    #[error("http/2 with {address} failed")]
    Http2 {
        /// Where.
        address: SocketAddr,
        /// Why.
        #[source]
        source: Arc<h2::Error>,
    },
    /// The tunnel's other end refused the CONNECT.
    #[error("the tunnel answered {status}")]
    Tunnel {
        /// HTTP status: 400, 401 or 503.
        status: u16,
        /// Its `mesh-error` header, if any.
        mesh_error: Option<Arc<str>>,
    },
    /// A limit of the backend's policy is reached.
    #[error(transparent)]
    Full(#[from] Full),
    /// A way that this daemon cannot go.
    #[error("an endpoint behind a gateway cannot be reached by this version")]
    Gateway,
}

impl DialError {
    /// The documented error code.
    pub(crate) fn code(&self) -> &'static str {
        match self {
            Self::NoIdentity => "no-identity",
            Self::Tls { .. } => "peer-identity",
            Self::Tunnel { status: 401, .. } => "denied",
            Self::Full(_) => "overloaded",
            Self::Connect { .. }
            | Self::Timeout(_)
            | Self::Http2 { .. }
            | Self::Tunnel { .. }
            | Self::Gateway => "connect-failed",
        }
    }
    /// How it counts against the endpoint; `None`: not at all, because the fault is not there.
    pub(crate) fn blame(&self) -> Option<Failed> {
        match self {
            Self::NoIdentity
            | Self::Gateway
            | Self::Full(_)
            | Self::Tunnel {
                status: 400 | 401, ..
            } => None,
            Self::Tunnel { .. } => Some(Failed::Program),
            Self::Connect { .. } | Self::Timeout(_) | Self::Tls { .. } | Self::Http2 { .. } => {
                Some(Failed::Dial)
            }
        }
    }
    /// True when another endpoint may do better; false for a refusal that all would give.
    pub(crate) fn may_retry(&self) -> bool {
        !matches!(
            self,
            Self::NoIdentity | Self::Full(_) | Self::Tunnel { status: 401, .. }
        )
    }
}

/// What a request asks of the pick.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Wish<'w> {
    /// Endpoints that were tried: none of them while another is left.
    pub(crate) tried: &'w [EndpointKey],
    /// Number of the request's hash key, for consistent hashing.
    pub(crate) hash: Option<u64>,
    /// The endpoint that holds the caller's session: it wins while it is usable and was not tried.
    pub(crate) held: Option<EndpointKey>,
}

/// A place among a backend's requests under way; given back on drop. Keep it until the exchange has ended.
#[derive(Debug)]
pub(crate) struct Admitted(());

/// The right to one retry; given back on drop. Keep it until the retry's answer has ended.
#[derive(Debug)]
pub(crate) struct RetryPermit(());

/// Which limit of a backend's policy is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Full {
    /// All connections are in use, and nobody may wait.
    #[error("the backend's limit of {0} connections is reached")]
    Connections(u32),
    /// Too many wait already.
    #[error("the backend's limit of {0} waiting requests is reached")]
    Pending(u32),
    /// Too many run already.
    #[error("the backend's limit of {0} requests under way is reached")]
    Requests(u32),
}

/// How a try ended, when it did not succeed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Failed {
    /// Not reached: ejects at once, until it takes connections again.
    Dial,
    /// Its host was reached, its program refused: ejects at once, for a while.
    Program,
    /// Reset or broken before an answer: ejects after five in a row.
    Reset,
    /// No answer in time: ejects after five in a row.
    Timeout,
}

/// An endpoint that was picked; counts as load on it while alive.
#[derive(Debug)]
pub(crate) struct Picked {
    /// The endpoint.
    pub(crate) endpoint: Arc<BackendEndpoint>,
    live: Rc<Live>,
    upstream: Rc<Inner>,
}

impl Picked {
    fn new(endpoint: Arc<BackendEndpoint>, live: Rc<Live>, upstream: Rc<Inner>) -> Self {
        live.begin();
        Self {
            endpoint,
            live,
            upstream,
        }
    }

    /// The try ended well after `latency` (to the response head, or the connection's set-up).
    pub(crate) fn succeeded(&self, latency: Duration) {
        self.live.measured(latency);
        self.live.health.did_well();
    }

    /// It answered after `latency` (to the response head); `grpc` is the status in a head that ends the answer.
    /// Decides by the backend's policy what that means for the endpoint.
    pub(crate) fn answered(&self, status: u16, _grpc: Option<u8>, latency: Duration) {
        if status >= 500 {
            self.live.health.did_well();
        } else {
            self.succeeded(latency);
        }
    }

    /// The try failed.
    pub(crate) fn failed(&self, how: Failed) {
        let health = &self.live.health;
        let probe = match how {
            Failed::Reset | Failed::Timeout if !health.too_many() => return,
            Failed::Reset | Failed::Timeout | Failed::Program => false,
            Failed::Dial => true,
        };
        if health.put_out() {
            self.upstream.transport.ejections.add(1);
            let upstream = Rc::clone(&self.upstream);
            let (endpoint, health) = (Arc::clone(&self.endpoint), Arc::clone(health));
            tracing::info!(endpoint = %endpoint.id, address = %endpoint.address, ?how, "ejected");
            self.upstream.tasks.spawn_local(async move {
                upstream.bring_back(&endpoint, &health, probe).await;
            });
        }
    }
}

impl Drop for Picked {
    fn drop(&mut self) {
        self.live.end();
    }
}

/// A connection over which HTTP is spoken to an endpoint or a local program.
#[derive(Debug)]
pub(crate) enum HttpUpstream {
    /// HTTP/1.1, exclusively ours until given back.
    H1(H1Connection),
    /// HTTP/2, shared; ask `send.ready()` before use.
    H2(H2Handle),
}

/// What the workers share: written on failure, and when an endpoint or backend is first met.
#[derive(Debug, Default)]
pub(crate) struct Shared {
    healths: Mutex<HashMap<EndpointKey, Arc<Health>>>,
    buckets: Mutex<HashMap<BackendKey, Arc<Bucket>>>,
}

impl Shared {
    fn health(&self, key: EndpointKey) -> Arc<Health> {
        Arc::clone(lock(&self.healths).entry(key).or_default())
    }

    fn bucket(&self, key: BackendKey, now_ms: u64) -> Arc<Bucket> {
        let mut buckets = lock(&self.buckets);
        Arc::clone(
            buckets
                .entry(key)
                .or_insert_with(|| Arc::new(Bucket::new(now_ms))),
        )
    }

    /// Endpoints that are out now, in order.
    pub(crate) fn ejected(&self) -> Vec<EndpointKey> {
        let healths = lock(&self.healths);
        let out = healths.iter().filter(|(_, health)| health.is_out());
        let mut keys: Vec<_> = out.map(|(key, _)| *key).collect();
        keys.sort_unstable();
        keys
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Live state of one worker.
#[derive(Debug)]
pub(crate) struct Upstream(Rc<Inner>);

#[derive(Debug)]
pub(crate) struct Inner {
    config: Arc<Config>,
    tls: Rc<Tls>,
    shared: Arc<Shared>,
    transport: Arc<Transport>,
    tasks: TaskTracker,
    started: Instant,
    lives: RefCell<HashMap<EndpointKey, Rc<Live>>>,
    groups: RefCell<HashMap<BackendKey, Rc<Group>>>,
    idle: Idle,
    multiplexed: Multiplexed,
}

impl Upstream {
    /// Nothing connected yet. `started` is the same for all workers that share `shared`.
    pub(crate) fn new(
        config: Arc<Config>,
        tls: Rc<Tls>,
        shared: Arc<Shared>,
        transport: Arc<Transport>,
        started: Instant,
    ) -> Self {
        Self(Rc::new(Inner {
            idle: Idle::new(config.limits.idle_per_endpoint, config.limits.keep_alive),
            multiplexed: Multiplexed::default(),
            tasks: TaskTracker::new(),
            lives: RefCell::default(),
            groups: RefCell::default(),
            config,
            tls,
            shared,
            transport,
            started,
        }))
    }

    /// Picks an endpoint by the backend's policy. `None`: the backend is empty.
    pub(crate) fn pick(&self, backend: &Arc<Backend>, wish: &Wish<'_>) -> Option<Picked> {
        let (endpoint, live) = self.0.group(backend).pick(wish.tried)?;
        Some(Picked::new(endpoint, live, Rc::clone(&self.0)))
    }

    /// A place among the backend's `max_requests`; refused when all are taken. Once per request, not per try.
    #[expect(
        clippy::unused_self,
        clippy::unnecessary_wraps,
        reason = "limits come with the circuit breaker"
    )]
    pub(crate) fn admit(&self, _backend: &Arc<Backend>) -> Result<Admitted, Full> {
        Ok(Admitted(()))
    }

    /// The endpoint that was dialled by its own address: nothing to choose.
    pub(crate) fn direct(&self, direct: &Direct) -> Picked {
        let live = self.0.live(direct.endpoint.key);
        Picked::new(Arc::clone(&direct.endpoint), live, Rc::clone(&self.0))
    }

    /// True when the backend has an endpoint that is not ejected.
    pub(crate) fn usable(&self, backend: &Backend) -> bool {
        backend
            .endpoints
            .iter()
            .any(|endpoint| !self.0.live(endpoint.key).health.is_out())
    }

    /// A connection to the picked endpoint for one exchange. Reports no failure: the caller does, by
    /// [`Picked::failed`] with [`DialError::blame`].
    pub(crate) async fn http(
        &self,
        picked: &Picked,
        caller: &Caller,
        protocol: AppProtocol,
    ) -> Result<HttpUpstream, DialError> {
        let endpoint = &picked.endpoint;
        let place = match &endpoint.tunnel {
            Some(tunnel) if tunnel.kind == TunnelKind::Mesh => {
                let road = Road::requests(&caller.principal, tunnel);
                return self
                    .0
                    .mesh(road, caller, tunnel)
                    .await
                    .map(HttpUpstream::H2);
            }
            Some(_) => Place::Behind(endpoint.key, caller.principal.clone()),
            None => Place::Endpoint(endpoint.key),
        };
        if is_h2(protocol) {
            let (inner, endpoint) = (Rc::clone(&self.0), Arc::clone(endpoint));
            let caller = caller.clone();
            let open = async move {
                let io = inner.stream(&endpoint, &caller, None).await?;
                inner.http2(io, endpoint.address).await
            };
            return self
                .0
                .shared_h2(Road::Plain(place), open)
                .await
                .map(HttpUpstream::H2);
        }
        if let Some(kept) = self.0.idle.take(&place) {
            return Ok(HttpUpstream::H1(kept));
        }
        let io = self.0.stream(endpoint, caller, None).await?;
        Ok(HttpUpstream::H1(H1Connection::new(
            io,
            place,
            self.0.retire_at(None),
        )))
    }

    /// A connection to a local program for one exchange; `source` keeps the client's address where that is possible.
    pub(crate) async fn local(
        &self,
        port: &Arc<InboundPort>,
        protocol: AppProtocol,
        source: Option<IpAddr>,
    ) -> Result<HttpUpstream, DialError> {
        let target = port.target;
        let source = self.0.kept_source(target, source);
        let place = Place::Local(target, source);
        if is_h2(protocol) {
            let inner = Rc::clone(&self.0);
            let open = async move {
                let io = Io::Tcp(dial::connect(&inner.config, target, source).await?);
                inner.http2(io, target).await
            };
            return self
                .0
                .shared_h2(Road::Plain(place), open)
                .await
                .map(HttpUpstream::H2);
        }
        if let Some(kept) = self.0.idle.take(&place) {
            return Ok(HttpUpstream::H1(kept));
        }
        let io = Io::Tcp(dial::connect(&self.0.config, target, source).await?);
        Ok(HttpUpstream::H1(H1Connection::new(
            io,
            place,
            self.0.retire_at(None),
        )))
    }

    /// Opaque bytes to the picked endpoint: straight, or as a CONNECT stream through its tunnel.
    pub(crate) async fn stream(
        &self,
        picked: &Picked,
        caller: &Caller,
        call: &Call<'_>,
    ) -> Result<Io, DialError> {
        self.0.stream(&picked.endpoint, caller, Some(call)).await
    }

    /// Opaque bytes to a local program; `source` as in [`Self::local`].
    pub(crate) async fn local_stream(
        &self,
        target: SocketAddr,
        source: Option<IpAddr>,
    ) -> Result<Io, DialError> {
        let source = self.0.kept_source(target, source);
        dial::connect(&self.0.config, target, source)
            .await
            .map(Io::Tcp)
    }

    /// Keeps an idle connection for the next exchange.
    pub(crate) fn give_back(&self, connection: H1Connection) {
        self.0.idle.keep(connection);
    }

    /// Adds a request to the backend's retry budget: call once per request, not per try.
    pub(crate) fn deposit(&self, backend: &Arc<Backend>) {
        self.0.group(backend).budget.deposit();
    }

    /// The right to one retry: from the backend's budget, and a place among its `max_retries`. `None`: refused.
    pub(crate) fn retry(&self, backend: &Arc<Backend>) -> Option<RetryPermit> {
        let taken = self.0.group(backend).budget.withdraw(self.0.elapsed_ms());
        let counter = if taken {
            &self.0.transport.retries
        } else {
            &self.0.transport.retries_refused
        };
        counter.add(1);
        taken.then_some(RetryPermit(()))
    }

    /// Lets go of connections that are too old, idle too long, or dead.
    pub(crate) fn tidy(&self) {
        self.0.idle.tidy();
        self.0.multiplexed.tidy(self.0.config.limits.keep_alive);
    }

    /// Lets go of the state of what the snapshot no longer names.
    pub(crate) fn retire(&self, snapshot: &Snapshot) {
        let outbound = &snapshot.outbound;
        let frontends = outbound.frontends.iter().map(|frontend| &frontend.backend);
        let subsets = outbound.subsets.values();
        let all = outbound.backends.values().chain(frontends).chain(subsets);
        let mut endpoints = HashSet::new();
        let mut backends = HashSet::new();
        for backend in all {
            backends.insert(backend.key);
            endpoints.extend(backend.endpoints.iter().map(|endpoint| endpoint.key));
        }
        self.0
            .groups
            .borrow_mut()
            .retain(|key, _| backends.contains(key));
        let in_use = |live: &Rc<Live>| live.load() > 0;
        self.0
            .lives
            .borrow_mut()
            .retain(|key, live| endpoints.contains(key) || in_use(live));
        self.0.idle.retire(&endpoints);
        self.0.multiplexed.retire(&endpoints);
        let shared = &self.0.shared;
        lock(&shared.healths)
            .retain(|key, health| endpoints.contains(key) || Arc::strong_count(health) > 1);
        lock(&shared.buckets)
            .retain(|key, bucket| backends.contains(key) || Arc::strong_count(bucket) > 1);
    }

    /// Breaks tunnels to peers that lost their rights.
    pub(crate) fn enforce(&self, snapshot: &Snapshot) {
        self.0.multiplexed.enforce(snapshot);
    }
}

fn is_h2(protocol: AppProtocol) -> bool {
    matches!(protocol, AppProtocol::Http2 | AppProtocol::Grpc)
}

impl Inner {
    fn elapsed_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn live(&self, key: EndpointKey) -> Rc<Live> {
        let mut lives = self.lives.borrow_mut();
        let live = lives
            .entry(key)
            .or_insert_with(|| Rc::new(Live::new(self.shared.health(key))));
        Rc::clone(live)
    }

    fn group(&self, backend: &Arc<Backend>) -> Rc<Group> {
        if let Some(group) = self.groups.borrow().get(&backend.key)
            && group.is_of(backend)
        {
            return Rc::clone(group);
        }
        let bucket = self.shared.bucket(backend.key, self.elapsed_ms());
        let group = Rc::new(Group::new(
            Arc::clone(backend),
            |key| self.live(key),
            bucket,
        ));
        self.groups
            .borrow_mut()
            .insert(backend.key, Rc::clone(&group));
        group
    }

    /// The source address to dial from, when that is allowed and the program would see it.
    fn kept_source(&self, target: SocketAddr, source: Option<IpAddr>) -> Option<IpAddr> {
        source.filter(|source| {
            self.config.transparent
                && !target.ip().to_canonical().is_loopback()
                && !source.is_loopback()
                && !source.is_unspecified()
                && source.is_ipv4() == target.is_ipv4()
        })
    }

    /// When a new connection stops taking requests: by age, and before a certificate ends.
    fn retire_at(&self, ends_ms: Option<u64>) -> Instant {
        let age = self
            .config
            .limits
            .connection_age
            .mul_f64(0.8 + 0.4 * fastrand::f64());
        let left = ends_ms.map(|ends| {
            let left = Duration::from_millis(ends.saturating_sub(clock::now_ms()));
            left.saturating_sub((left / 10).min(Duration::from_mins(1)))
        });
        Instant::now() + left.map_or(age, |left| left.min(age))
    }

    async fn stream(
        self: &Rc<Self>,
        endpoint: &BackendEndpoint,
        caller: &Caller,
        call: Option<&Call<'_>>,
    ) -> Result<Io, DialError> {
        let Some(tunnel) = &endpoint.tunnel else {
            return dial::connect(&self.config, endpoint.address, None)
                .await
                .map(Io::Tcp);
        };
        let road = Road::streams(&caller.principal, tunnel);
        let handle = self.mesh(road, caller, tunnel).await?;
        let stream = connect::connect(handle, endpoint, tunnel, call);
        let stream = tokio::time::timeout(self.config.limits.connect * 2, stream).await;
        let stream = stream.map_err(|_elapsed| DialError::Timeout(endpoint.address))??;
        Ok(Io::Stream(Box::new(stream)))
    }

    /// Asks an ejected endpoint until it takes a connection, or only lets time pass.
    async fn bring_back(&self, endpoint: &BackendEndpoint, health: &Health, probe: bool) {
        if !probe {
            tokio::time::sleep(health.pause()).await;
            health.put_in();
            return;
        }
        let address = endpoint
            .tunnel
            .as_ref()
            .map_or(endpoint.address, |tunnel| tunnel.address);
        for asked in 0.. {
            tokio::time::sleep(health.ask_after(asked).mul_f64(0.8 + 0.4 * fastrand::f64())).await;
            if dial::connect(&self.config, address, None).await.is_ok() {
                break;
            }
            // Nobody else holds it: the endpoint is gone from the snapshot.
            if !lock(&self.shared.healths).contains_key(&endpoint.key) {
                break;
            }
        }
        tracing::info!(endpoint = %endpoint.id, address = %endpoint.address, "back after ejection");
        health.put_in();
    }
}
