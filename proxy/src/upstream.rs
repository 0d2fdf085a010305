//! Live state by endpoint: connections, loads, health, retry budgets, circuit breakers.
//!
//! The snapshot says what should be, this room knows what is. Everything is keyed by endpoint or
//! backend, so it survives a new snapshot; what the snapshot no longer names is let go.

use std::{
    cell::{Cell, RefCell},
    net::{IpAddr, SocketAddr},
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

use mesh_model::{
    endpoint::TunnelKind,
    service::AppProtocol,
    snapshot::{
        Backend, BackendEndpoint, BackendKey, Caller, Direct, EndpointKey, InboundPort, Map,
        Snapshot,
    },
};
use tokio_util::task::TaskTracker;

use self::{
    group::{Group, Live},
    health::Health,
    multiplex::{Multiplexed, Road},
    place::Place,
    pool::{Idle, Terms},
    roster::{Slot, lots::Now},
    shared::Known,
};
use crate::{clock, config::Config, io::Io, observe::Transport, tls::Tls};

/// Circuit breaking.
mod breaker;
/// Retry budgets.
mod budget;
/// Health checks by this host.
mod check;
/// CONNECT streams to other hosts.
mod connect;
/// Opens connections.
pub(crate) mod dial;
/// Counts.
mod figures;
/// A backend as one worker uses it.
mod group;
/// Who is out, why, and for how long.
mod health;
/// HTTP/2 connections, shared.
mod multiplex;
/// One request, apart from all others.
mod once;
/// Who is put out for what it answers.
mod outlier;
/// An endpoint that was picked.
mod picked;
/// Where connections lead.
mod place;
/// HTTP/1 connections, kept for the next exchange.
mod pool;
/// Connections that are open already.
mod ready;
/// Connections within the limits of a policy.
mod room;
/// A backend's endpoints in order.
mod roster;
/// What the workers share.
mod shared;
/// What opens streams.
mod speaker;
/// Why something could not be reached.
mod unreached;

pub(crate) use breaker::{Admitted, Full, RetryPermit};
pub(crate) use connect::Call;
pub(crate) use group::Wish;
pub(crate) use multiplex::H2Handle;
pub(crate) use picked::{Failed, Picked};
pub(crate) use pool::H1Connection;
pub use shared::Ejection;
pub(crate) use shared::Shared;
pub(crate) use speaker::Speaker;
pub(crate) use unreached::DialError;

/// A connection over which HTTP is spoken to an endpoint or a local program.
#[derive(Debug)]
pub(crate) enum HttpUpstream {
    /// HTTP/1.1, exclusively ours until given back.
    H1(Box<H1Connection>),
    /// HTTP/2, shared; ask `send.ready()` before use.
    H2(H2Handle),
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
    /// This worker's number.
    worker: usize,
    /// True once idle connections are given up for those who wait elsewhere.
    relieving: Cell<bool>,
    lives: RefCell<Map<EndpointKey, Rc<Live>>>,
    groups: RefCell<Map<BackendKey, Rc<Group>>>,
    checks: check::Checks,
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
        let worker = shared.worker();
        let limits = &config.limits;
        Self(Rc::new(Inner {
            idle: Idle::new(worker, limits.idle_per_endpoint, limits.keep_alive),
            multiplexed: Multiplexed::default(),
            tasks: TaskTracker::new(),
            worker,
            relieving: Cell::new(false),
            lives: RefCell::default(),
            groups: RefCell::default(),
            checks: check::Checks::default(),
            config,
            tls,
            shared,
            transport,
            started,
        }))
    }

    /// Picks an endpoint by the backend's policy. `None`: the backend is empty.
    pub(crate) fn pick(&self, backend: &Arc<Backend>, wish: &Wish<'_>) -> Option<Picked> {
        let inner = &self.0;
        let group = inner.group(backend);
        let since = Instant::now();
        let now = inner.shared.now(inner.us_at(since));
        let make = |slot: &Slot| inner.live_with(slot.endpoint.key, || Arc::clone(&slot.health));
        let slot = group.pick(wish, &now, make)?;
        let live = group.live(slot, make)?;
        let endpoint = Arc::clone(&group.roster().slot(slot)?.endpoint);
        let group = (group, Some(slot));
        Some(Picked::new(endpoint, group, live, Rc::clone(inner), since))
    }

    /// The endpoint that was dialled by its own address: nothing to choose.
    pub(crate) fn direct(&self, direct: &Direct) -> Picked {
        let inner = &self.0;
        let (key, now_us) = (direct.endpoint.key, inner.now_us());
        let live = inner.live_with(key, || inner.shared.health(key, now_us));
        let group = (inner.group(&direct.backend), None);
        let endpoint = Arc::clone(&direct.endpoint);
        Picked::new(endpoint, group, live, Rc::clone(inner), Instant::now())
    }

    /// True when the backend has an endpoint that is not ejected.
    pub(crate) fn usable(&self, backend: &Backend) -> bool {
        let now_us = self.0.now_us();
        let groups = self.0.groups.borrow();
        let group = groups.get(&backend.key);
        if let Some(group) = group.filter(|group| group.roster().is_of(backend)) {
            return group.is_usable(&self.0.shared.now(now_us));
        }
        let is_in = |key| !self.0.shared.health(key, now_us).is_out();
        backend.endpoints.iter().any(|one| is_in(one.key))
    }

    /// A connection to the picked endpoint for one exchange. Reports no failure: the caller does, by
    /// [`Picked::failed`] with [`DialError::blame`].
    pub(crate) async fn http(
        &self,
        picked: &Picked,
        caller: &Caller,
        protocol: AppProtocol,
    ) -> Result<HttpUpstream, DialError> {
        let inner = &self.0;
        let endpoint = &picked.endpoint;
        let place = match &endpoint.tunnel {
            Some(tunnel) if tunnel.kind == TunnelKind::Mesh => {
                if !is_h2(protocol) {
                    inner.take_place(picked).await?;
                }
                let road = Road::requests(&caller.principal, tunnel);
                let shared = inner.mesh(road, caller, tunnel);
                return inner.queued(picked, shared).await.map(HttpUpstream::H2);
            }
            Some(_) => Place::Behind(endpoint.key, caller.principal.clone()),
            None => Place::Endpoint(endpoint.key),
        };
        let policy = picked.group.policy();
        if is_h2(protocol) || policy.upgrade_to_http2 {
            let open = || inner.open_http2(endpoint, caller, policy);
            let shared = inner.shared_h2(Road::Plain(place), open);
            return inner.queued(picked, shared).await.map(HttpUpstream::H2);
        }
        inner
            .http1(picked, caller, place)
            .await
            .map(HttpUpstream::H1)
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
        let terms = port.connections;
        if is_h2(protocol) {
            let open = || {
                let inner = Rc::clone(&self.0);
                async move {
                    let io = Io::Tcp(dial::connect(&inner.config, target, source).await?);
                    let connection = inner.http2(io, target).await?;
                    Ok(connection.within(terms.idle_timeout, terms.max_requests))
                }
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
        let retire_at = self.0.retire_at(None);
        let terms = Terms {
            idle: terms.idle_timeout,
            requests: terms.max_requests,
            permit: None,
        };
        let opened = H1Connection::new(io, place, retire_at, terms);
        Ok(HttpUpstream::H1(Box::new(opened)))
    }

    /// Opaque bytes to the picked endpoint: straight, or as a CONNECT stream through its tunnel. Counts among the
    /// backend's connections while `picked` lives.
    pub(crate) async fn stream(
        &self,
        picked: &Picked,
        caller: &Caller,
        call: &Call<'_>,
    ) -> Result<Io, DialError> {
        self.0.make_room(picked).await?;
        let limit = picked.group.policy().connect_timeout;
        self.0
            .stream(&picked.endpoint, caller, Some(call), limit)
            .await
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
    pub(crate) fn give_back(&self, connection: Box<H1Connection>) {
        self.0.idle.keep(connection);
    }

    /// Adds a request to the backend's retry budget: call once per request, not per try.
    pub(crate) fn deposit(&self, backend: &Arc<Backend>) {
        self.0.group(backend).budget.deposit();
    }

    /// A place among the backend's `max_requests`; refused when all are taken. Once per request, not per try.
    pub(crate) fn admit(&self, backend: &Arc<Backend>) -> Result<Admitted, Full> {
        let limits = &backend.policy.limits;
        if limits.max_requests == u32::MAX {
            return Ok(Admitted::free());
        }
        let group = self.0.group(backend);
        let admitted = group.state.breaker().admit(limits);
        admitted.inspect_err(|full| self.0.shared.figures.full(*full))
    }

    /// The right to one retry: from the backend's budget, and a place among its `max_retries`. `None`: refused.
    pub(crate) fn retry(&self, backend: &Arc<Backend>) -> Option<RetryPermit> {
        let group = self.0.group(backend);
        let permit = group.state.breaker().retry(&group.policy().limits);
        if permit.is_none() {
            self.0.shared.figures.retries_full();
        }
        let permit = permit.filter(|_| group.budget.withdraw(self.0.now_us() / 1000));
        let counter = if permit.is_some() {
            &self.0.transport.retries
        } else {
            &self.0.transport.retries_refused
        };
        counter.add(1);
        permit
    }

    /// Lets go of connections that are too old, idle too long, or dead.
    pub(crate) fn tidy(&self) {
        let known = self.0.shared.settle();
        self.0.settle(&known);
        self.0.idle.tidy();
        self.0.multiplexed.tidy(self.0.config.limits.keep_alive);
    }

    /// A snapshot is in force: lets go of the state of what it no longer names, and checks what it says to check.
    pub(crate) fn retire(&self, snapshot: &Snapshot) {
        let known = self.0.shared.retire(snapshot);
        self.0.settle(&known);
        let endpoints = &known.endpoints;
        let in_use = |live: &Rc<Live>| live.load() > 0;
        self.0
            .lives
            .borrow_mut()
            .retain(|key, live| endpoints.contains(key) || in_use(live));
        self.0.idle.retire(endpoints);
        self.0.multiplexed.retire(endpoints);
        self.0.check(snapshot);
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
    /// Microseconds of the workers' clock.
    fn now_us(&self) -> u64 {
        self.us_at(Instant::now())
    }

    fn us_at(&self, at: Instant) -> u64 {
        let since = at.saturating_duration_since(self.started);
        u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
    }

    fn live_with(&self, key: EndpointKey, health: impl FnOnce() -> Arc<Health>) -> Rc<Live> {
        let mut lives = self.lives.borrow_mut();
        let live = lives
            .entry(key)
            .or_insert_with(|| Rc::new(Live::new(health())));
        Rc::clone(live)
    }

    /// What this worker uses of a backend: made when the backend is new or has changed.
    fn group(&self, backend: &Arc<Backend>) -> Rc<Group> {
        let found = self.groups.borrow().get(&backend.key).cloned();
        if let Some(group) = &found
            && group.roster().serves(backend)
        {
            return Rc::clone(group);
        }
        let now_us = self.now_us();
        let state = self.shared.backend(backend, now_us);
        let roster = self.shared.roster(&state, backend, now_us);
        if !roster.make_tables()
            && let Some(before) = &found
        {
            // Until its table is made, the one before serves.
            return Rc::clone(before);
        }
        let now: Now = self.shared.now(now_us);
        let group = Rc::new(Group::new(roster, state, found.as_deref(), &now));
        self.groups
            .borrow_mut()
            .insert(backend.key, Rc::clone(&group));
        group
    }

    /// Nothing made from another backend than the one in force is used any longer.
    fn settle(&self, known: &Known) {
        self.groups.borrow_mut().retain(|key, group| {
            let backend = known.backends.get(key);
            backend.is_some_and(|backend| group.roster().is_of(backend))
        });
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

    /// `limit` bounds opening the connection; the daemon's own unless given.
    async fn stream(
        self: &Rc<Self>,
        endpoint: &BackendEndpoint,
        caller: &Caller,
        call: Option<&Call<'_>>,
        limit: Option<Duration>,
    ) -> Result<Io, DialError> {
        let usual = self.config.limits.connect;
        let Some(tunnel) = &endpoint.tunnel else {
            let limit = limit.unwrap_or(usual);
            return dial::connect_within(&self.config, endpoint.address, None, limit)
                .await
                .map(Io::Tcp);
        };
        let opened = async {
            let road = Road::streams(&caller.principal, tunnel);
            let handle = self.mesh(road, caller, tunnel).await?;
            let stream = connect::connect(handle, endpoint, tunnel, call);
            let stream = tokio::time::timeout(usual * 2, stream).await;
            stream.map_err(|_elapsed| DialError::Timeout(endpoint.address))?
        };
        let stream = match limit {
            None => opened.await?,
            Some(limit) => tokio::time::timeout(limit, opened)
                .await
                .map_err(|_elapsed| DialError::Timeout(endpoint.address))??,
        };
        Ok(Io::Stream(Box::new(stream)))
    }
}
