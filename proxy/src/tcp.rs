//! Opaque streams: pick, open, copy, tell.
//!
//! The life of a connection is that of a request without `match`: admit, authorize, pick, copy, settle.
//! `Told` is filled on the way and recorded once, on every path.

use std::{
    net::SocketAddr,
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::BytesMut;
use mesh_model::{
    address::canonical,
    cause::chain,
    principal::SpiffeId,
    snapshot::{
        Backend, BackendEndpoint, Caller, Direct, EndpointKey, Frontend, InboundPort, Snapshot,
        decide::{self, Choice, Connected, Opening, Source, Verdict},
    },
};

use crate::{
    balance::source_hash,
    connection::{InboundOrigin, OutboundOrigin},
    detect::Spoken,
    first::{self, First},
    hello::Hello,
    io::Io,
    observe::{self, Direction, RequestRecord},
    upstream::{Call, DialError, Picked, RetryPermit, Wish},
    worker::Worker,
};

/// Bytes both ways.
pub(crate) mod copy;

/// Whom a local program calls.
#[derive(Debug, Clone)]
pub(crate) enum Callee {
    /// A service's port.
    Frontend(Arc<Frontend>),
    /// One endpoint, by its own address.
    Direct(Direct),
}

impl Callee {
    /// The service's own backend.
    pub(crate) fn backend(&self) -> &Arc<Backend> {
        match self {
            Self::Frontend(frontend) => &frontend.backend,
            Self::Direct(direct) => &direct.backend,
        }
    }

    /// True when the way of a TLS connection depends on its ClientHello.
    pub(crate) fn reads_hello(&self) -> bool {
        matches!(self, Self::Frontend(frontend) if !frontend.tls_rules.is_empty())
    }

    /// True when the rules have no way at all for what is no TLS.
    pub(crate) fn wants_hello(&self) -> bool {
        match self {
            Self::Frontend(frontend) => {
                let table = &frontend.tcp_rules;
                self.reads_hello() && table.attached && table.rules.is_empty()
            }
            Self::Direct(_) => false,
        }
    }
}

/// The account of one opaque connection.
#[derive(Debug)]
pub(crate) struct Told {
    /// 32 hexadecimal digits.
    pub(crate) id: String,
    begun: Instant,
    direction: Direction,
    source: Arc<str>,
    destination: Arc<str>,
    route: Arc<str>,
    caller: String,
    endpoint: String,
    host: Arc<str>,
    peer: Arc<str>,
    attempts: Vec<String>,
    /// How long nothing may move on it, where the backend's policy says so.
    idle: Option<Duration>,
}

impl Told {
    /// Of a local program's call.
    pub(crate) fn outbound(
        worker: &Worker,
        origin: &OutboundOrigin,
        backend: Option<&Backend>,
    ) -> Self {
        let observe = &worker.observe;
        let unknown = || Arc::clone(observe.unknown());
        Self {
            id: observe::fresh_id(),
            begun: Instant::now(),
            direction: Direction::Outbound,
            source: Arc::clone(&origin.caller.label),
            destination: backend.map_or_else(unknown, |backend| observe.label(&backend.service)),
            route: Arc::clone(observe.no_route()),
            caller: origin.caller.principal.to_string(),
            endpoint: String::new(),
            host: Arc::from(""),
            peer: Arc::from(""),
            attempts: Vec::new(),
            idle: None,
        }
    }

    /// Of a call to a local program.
    pub(crate) fn inbound(
        worker: &Worker,
        origin: &InboundOrigin,
        port: Option<&Arc<InboundPort>>,
        id: &str,
        begun: Instant,
    ) -> Self {
        let observe = &worker.observe;
        let unknown = || Arc::clone(observe.unknown());
        let principal = origin.principal.as_ref();
        Self {
            id: id.to_owned(),
            begun,
            direction: Direction::Inbound,
            source: principal.map_or_else(unknown, |id| observe.principal(id)),
            destination: port.map_or_else(unknown, |port| observe.label(&port.service)),
            route: Arc::clone(observe.no_route()),
            caller: principal.map_or_else(|| origin.peer.to_string(), ToString::to_string),
            endpoint: port.map_or_else(String::new, |port| port.target.to_string()),
            host: Arc::from(""),
            peer: Arc::from(""),
            attempts: Vec::new(),
            idle: None,
        }
    }

    /// Records that it was refused.
    pub(crate) fn refused(&self, worker: &Worker, status: u16, code: &'static str, what: &str) {
        let moved = copy::Moved {
            received: 0,
            sent: 0,
            end: copy::End::Broken,
        };
        self.settle(worker, status, code, what, moved);
    }

    /// How long nothing may move on it: what the backend's policy says, or the usual.
    pub(crate) fn idle(&self, worker: &Worker) -> Duration {
        self.idle.unwrap_or(worker.config.limits.tcp_idle)
    }

    /// Records that neither end said anything for too long.
    pub(crate) fn too_long(&self, worker: &Worker) {
        let moved = copy::Moved {
            received: 0,
            sent: 0,
            end: copy::End::Idle,
        };
        self.done(worker, moved);
    }

    /// Records how it went.
    fn done(&self, worker: &Worker, moved: copy::Moved) {
        let (code, what) = match moved.end {
            copy::End::Finished => ("", ""),
            // Who broke it is seen by neither end; the bytes moved are its own business.
            copy::End::Broken if moved.sent > 0 || moved.received > 0 => ("", ""),
            copy::End::Broken => (
                "upstream-reset",
                "the connection broke before any byte was moved",
            ),
            copy::End::Idle => ("upstream-timeout", "nothing was moved for too long"),
        };
        self.settle(worker, 0, code, what, moved);
    }

    fn settle(
        &self,
        worker: &Worker,
        status: u16,
        code: &'static str,
        what: &str,
        moved: copy::Moved,
    ) {
        worker.observe.request(&RequestRecord {
            direction: self.direction,
            id: &self.id,
            source: &self.source,
            destination: &self.destination,
            route: &self.route,
            protocol: "tcp",
            method: "",
            path: "",
            authority: "",
            status,
            grpc_status: None,
            code,
            what,
            remedy: "",
            caller: &self.caller,
            endpoint: &self.endpoint,
            endpoint_host: &self.host,
            peer: &self.peer,
            retries: u32::try_from(self.attempts.len().saturating_sub(1)).unwrap_or(u32::MAX),
            attempts: &self.attempts,
            received: moved.received,
            sent: moved.sent,
            duration: self.begun.elapsed(),
            own: None,
            secured: match self.direction {
                Direction::Outbound => !self.peer.is_empty(),
                Direction::Inbound => self.caller.starts_with("spiffe://"),
            },
            trace: "",
        });
    }
}

/// An opened way to the callee. Counts as load on the endpoint while alive.
#[derive(Debug)]
pub(crate) struct Opened {
    /// The bytes.
    pub(crate) io: Io,
    /// The account.
    pub(crate) told: Told,
    /// The endpoint.
    pub(crate) picked: Picked,
}

/// No way could be opened; recorded already.
#[derive(Debug)]
pub(crate) struct Refused;

/// Tries beside the first.
const ATTEMPTS: usize = 2;

/// Opens a way to a callee: route, backend, endpoint, and another endpoint when one cannot be reached.
pub(crate) async fn open(
    worker: &Rc<Worker>,
    origin: &OutboundOrigin,
    callee: &Callee,
    opening: Opening<'_>,
) -> Result<Opened, Refused> {
    let mut told = Told::outbound(worker, origin, Some(callee.backend()));
    let refuse = |told: &Told, code: &'static str, what: &str| {
        told.refused(worker, 0, code, what);
        Refused
    };
    let backend = match choose(worker, callee, origin, opening, &mut told) {
        Ok(backend) => backend,
        Err((code, what)) => return Err(refuse(&told, code, &what)),
    };
    told.idle = backend.policy.stream_idle;
    worker.upstream.deposit(&backend);
    let authority = format!("{}:{}", backend.service, backend.port);
    let mut tried: Vec<EndpointKey> = Vec::new();
    // Held by the try that it allows.
    let mut permit: Option<RetryPermit> = None;
    loop {
        let picked = match callee {
            Callee::Direct(direct) => Some(worker.upstream.direct(direct)),
            Callee::Frontend(_) => {
                let balance = &backend.policy.balance;
                let wish = Wish {
                    tried: &tried,
                    hash: source_hash(balance, origin.peer.ip()),
                    held: None,
                };
                worker.upstream.pick(&backend, &wish)
            }
        };
        let Some(picked) = picked else {
            let what = format!("{} has no endpoint", backend.service);
            return Err(refuse(&told, "no-endpoint", &what));
        };
        if let Err(what) = local_call(&worker.snapshot(), &picked.endpoint, &origin.caller) {
            return Err(refuse(&told, "denied", &what));
        }
        let begun = Instant::now();
        let id = told.id.clone();
        let call = Call {
            id: &id,
            peer: origin.peer,
            authority: &authority,
        };
        match worker.upstream.stream(&picked, &origin.caller, &call).await {
            Ok(io) => {
                picked.succeeded(begun.elapsed());
                told.reached(&picked, &io, begun.elapsed());
                return Ok(Opened { io, told, picked });
            }
            Err(error) => {
                if let Some(blame) = error.blame() {
                    picked.failed(blame);
                }
                told.missed(&picked, &error, begun.elapsed());
                tried.push(picked.endpoint.key);
                let again = tried.len() <= ATTEMPTS && error.may_retry();
                let again = again && matches!(callee, Callee::Frontend(_));
                // The try before is over: its place may be the last that there is.
                drop(permit.take());
                permit = again.then(|| worker.upstream.retry(&backend)).flatten();
                if permit.is_none() {
                    return Err(refuse(&told, error.code(), &chain(&error)));
                }
            }
        }
    }
}

/// The backend of a connection: that of the TCP route, or the service's own.
fn choose(
    worker: &Worker,
    callee: &Callee,
    origin: &OutboundOrigin,
    opening: Opening<'_>,
    told: &mut Told,
) -> Result<Arc<Backend>, (&'static str, String)> {
    let Callee::Frontend(frontend) = callee else {
        return Ok(Arc::clone(callee.backend()));
    };
    let source = Source::local(&origin.caller, Some(origin.peer.ip()));
    let (route, target) = match decide::connected(frontend, opening, &source) {
        Connected::Rule { route, target } => (route, target),
        Connected::Default(backend) => return Ok(Arc::clone(backend)),
        Connected::NoRule => {
            return Err((
                "no-route",
                "routes are attached and none takes this connection".to_owned(),
            ));
        }
    };
    told.route = Arc::clone(&route.name);
    let mut draw = |below: u64| fastrand::u64(0..below.max(1));
    match decide::choose(target, &mut draw, &|backend| {
        worker.upstream.usable(backend)
    }) {
        Choice::Backend { backend, .. } => {
            told.destination = worker.observe.label(&backend.service);
            Ok(Arc::clone(backend))
        }
        Choice::Fail { code, reason, .. } => Err((code, reason.to_owned())),
    }
}

impl Told {
    fn reached(&mut self, picked: &Picked, io: &Io, took: Duration) {
        let endpoint = &picked.endpoint;
        self.endpoint = endpoint.id.to_string();
        self.host = Arc::clone(&endpoint.host_name);
        if let Io::Stream(stream) = io {
            self.peer = stream.peer.clone().unwrap_or_else(|| Arc::from(""));
        }
        self.attempts.push(attempt(picked, "connected", took));
    }

    fn missed(&mut self, picked: &Picked, error: &DialError, took: Duration) {
        self.attempts.push(attempt(picked, &chain(error), took));
    }
}

fn attempt(picked: &Picked, what: &str, took: Duration) -> String {
    let endpoint = &picked.endpoint;
    let micros = took.as_micros();
    format!(
        "{} ({}) on {}: {what}, {micros} us",
        endpoint.id, endpoint.address, endpoint.host_name
    )
}

/// Carries a local program's opaque connection to a callee, from opening to settling.
pub(crate) async fn outbound(
    worker: &Rc<Worker>,
    mut io: Io,
    mut first: BytesMut,
    origin: &OutboundOrigin,
    callee: &Callee,
) {
    // Boxed, because opening is over soon and the connection may live for days.
    let opened = Box::pin(async {
        let hello = hello_of(worker, &mut io, &mut first, callee).await;
        let opening = match &hello {
            Hello::Named(name) => Opening::Tls(name.as_deref()),
            Hello::More(_) | Hello::Other => Opening::Other,
        };
        open(worker, origin, callee, opening).await
    });
    match opened.await {
        Ok(opened) => {
            if local_unseen(worker, &opened, origin).is_err() {
                return io.reset();
            }
            let Opened {
                io: up,
                told,
                picked,
            } = opened;
            relay(worker, io, first, up, BytesMut::new(), told).await;
            drop(picked);
        }
        Err(_recorded) => io.reset(),
    }
}

/// Reads the ClientHello of a connection whose way depends on it; [`Hello::Other`] for all others. A caller that
/// stays silent is waited for only as long as the rules have no other way for it.
async fn hello_of(worker: &Worker, io: &mut Io, first: &mut BytesMut, callee: &Callee) -> Hello {
    if !callee.reads_hello() {
        return Hello::Other;
    }
    let limits = &worker.config.limits;
    let silence = if callee.wants_hello() {
        limits.head
    } else {
        limits.silence
    };
    match first::bytes(io, first, silence, limits.handshake).await {
        First::Spoken(Spoken::Tls) => first::hello(io, first, limits.handshake).await,
        First::Spoken(_) | First::Silent | First::Broken => Hello::Other,
    }
}

/// Copies both ways and records the connection.
pub(crate) async fn relay(
    worker: &Rc<Worker>,
    down: Io,
    down_first: BytesMut,
    up: Io,
    up_first: BytesMut,
    told: Told,
) {
    let limits = &worker.config.limits;
    let half_closed = limits.tcp_half_closed;
    let patience = copy::Patience {
        idle: told.idle(worker),
        half_closed: told.idle.map_or(half_closed, |idle| half_closed.min(idle)),
    };
    let moved = copy::both(
        &worker.buffers,
        patience,
        (down, down_first),
        (up, up_first),
    )
    .await;
    told.done(worker, moved);
}

/// Whether a caller may open an opaque connection; the reason when it may not.
pub(crate) fn authorized(port: &InboundPort, origin: &InboundOrigin) -> Result<(), String> {
    allows(port, origin.principal.as_ref())
}

/// The same once it is known that no request in it will be seen: a policy that refuses some requests of the caller
/// refuses all that cannot be told apart.
pub(crate) fn authorized_unseen(port: &InboundPort, origin: &InboundOrigin) -> Result<(), String> {
    allows_unseen(port, origin.principal.as_ref())
}

/// As [`authorized_unseen`], for the way that was opened for a caller on this host; its limits count it too.
pub(crate) fn local_unseen(
    worker: &Worker,
    opened: &Opened,
    origin: &OutboundOrigin,
) -> Result<(), Refused> {
    let snapshot = worker.snapshot();
    let Some(port) = local_port(&snapshot, &opened.picked.endpoint) else {
        return Ok(());
    };
    if let Err(what) = allows_unseen(port, Some(&origin.caller.principal)) {
        opened.told.refused(worker, 0, "denied", &what);
        return Err(Refused);
    }
    let source = Source::local(&origin.caller, Some(origin.peer.ip()));
    counted(worker, port, source, &opened.told)
}

/// Counts a connection in which no request will be seen; recorded when a limit refuses it.
pub(crate) fn counted(
    worker: &Worker,
    port: &InboundPort,
    source: Source<'_>,
    told: &Told,
) -> Result<(), Refused> {
    worker
        .limits
        .connection(&port.limits, source)
        .map_err(|refused| {
            worker.observe.policies().limited.add(1);
            told.refused(worker, 0, "rate-limited", &refused.what);
            Refused
        })
}

/// Whether a caller on this host may call a program of this host: the port's policies, as for any other.
fn local_call(
    snapshot: &Snapshot,
    endpoint: &BackendEndpoint,
    caller: &Caller,
) -> Result<(), String> {
    local_port(snapshot, endpoint).map_or(Ok(()), |port| allows(port, Some(&caller.principal)))
}

fn local_port<'s>(
    snapshot: &'s Snapshot,
    endpoint: &BackendEndpoint,
) -> Option<&'s Arc<InboundPort>> {
    if !endpoint.local {
        return None;
    }
    let inbound = &snapshot.inbound.by_address;
    let address = canonical(endpoint.address);
    let found = inbound.get(&address);
    found.or_else(|| inbound.values().find(|port| port.target == address))
}

fn allows_unseen(port: &InboundPort, caller: Option<&SpiffeId>) -> Result<(), String> {
    allows(port, caller)?;
    let mut deny = port.authorization.deny.iter();
    deny.find(|rule| rule.fits_some_request(caller, port.target.port()))
        .map_or(Ok(()), |rule| {
            Err(format!(
                "policy {} denies requests, and these bytes are none that can be read",
                rule.policy
            ))
        })
}

fn allows(port: &InboundPort, caller: Option<&SpiffeId>) -> Result<(), String> {
    match decide::authorize(&port.authorization, caller, port.target.port(), None) {
        Verdict::Allow(_) => Ok(()),
        Verdict::Deny(Some(policy)) => Err(format!("policy {policy} denies the caller")),
        Verdict::Deny(None) => Err("no policy allows the caller".to_owned()),
    }
}

/// Opens a way to a local program, from the client's own address where that is possible; records a failure.
pub(crate) async fn open_local(
    worker: &Worker,
    origin: &InboundOrigin,
    target: SocketAddr,
    told: &Told,
) -> Option<Io> {
    match worker
        .upstream
        .local_stream(target, Some(origin.peer.ip()))
        .await
    {
        Ok(io) => Some(io),
        Err(error) => {
            told.refused(worker, 0, error.code(), &chain(&error));
            None
        }
    }
}
