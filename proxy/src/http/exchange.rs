//! The life of one request: admit, match, authorize, pick, send, settle.
//!
//! In: a request head and the side that it came from. Out: an answer, and what becomes of the connection.
//! Every path ends in settle, a dropped task too.

use std::{
    future::Future,
    pin::Pin,
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

use mesh_model::{
    name::ServiceId,
    snapshot::{Backend, Caller, Snapshot},
};

use smallvec::SmallVec;

use super::{
    alarm::Alarm,
    asked::Asked,
    buffers::Messages,
    filters, grpc,
    headers::{self, HopWords},
    message::Form,
    replay::Replay,
    reply,
    route::{self, Called, Held, To, Way},
    session::Session,
    story::Story,
    wire::Wire,
};
use crate::{
    connection::{Destination, InboundOrigin, Origin, OutboundOrigin},
    failure::{Code, Failure},
    observe::Open,
    upstream::Admitted,
};
use acting::Acting;

/// What policies ask of the rest.
mod acting;
/// How long an exchange may take.
mod bounds;
/// What rate limits say.
mod counted;
/// The answer goes to the caller.
mod deliver;
/// One try after another.
mod send;
/// What policies do before a request is sent.
mod shape;
/// Changes of protocol.
mod switch;

/// When those who are refused for want of room may come again.
const SOON: Duration = Duration::from_secs(1);

/// Header by which this daemon's own requests say as whom they call.
const AS: &str = "mesh-as";

/// What becomes of the caller's connection.
#[derive(Debug)]
pub(crate) enum Ended {
    /// It may serve another request.
    Keep,
    /// It ends after what was sent.
    Close,
    /// It ends at once, and the caller must see that the answer is cut.
    Broken,
    /// It carries a connection to this address from here on.
    Connect(std::net::SocketAddr),
}

/// Why a request ends without the answer that was asked for.
#[derive(Debug)]
pub(crate) enum Stop {
    /// It failed: the caller is told.
    Failed(Failure),
    /// The caller is gone.
    Gone,
}

impl From<Failure> for Stop {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

/// One request on its way.
#[derive(Debug)]
pub(crate) struct Exchange<'x> {
    /// The caller's connection.
    pub session: &'x Session,
    /// Both heads.
    pub messages: &'x mut Messages,
    /// The caller's side.
    pub down: &'x mut Wire,
    /// The connection's timer.
    pub alarm: &'x mut Alarm,
    /// What happened.
    pub story: Story,
    /// The body that has gone by.
    pub replay: Replay,
    /// Bound on the whole request.
    pub deadline: Option<Instant>,
    /// Bound since the caller ended its direction.
    pub gone_by: Option<Instant>,
    /// Bound on the caller's silence within a body whose length it has announced.
    pub body_by: Option<Instant>,
    /// True once the client's address was added.
    pub forwarded: bool,
    /// What the calling daemon says.
    pub words: HopWords,
    /// What policies ask of the rest; none for most requests.
    pub acting: Option<Box<Acting>>,
    /// True when the answer tells how it came about.
    pub telling: bool,
    /// Longest time in which nothing moves, either way.
    pub idle: Option<Duration>,
    /// Bytes that had moved when it was looked last, and the end of the silence since.
    quiet: Option<(u64, Instant)>,
    settled: bool,
    /// A place among its backend's requests.
    admitted: Option<Admitted>,
    /// Counts it as running.
    running: Option<Open>,
}

impl<'x> Exchange<'x> {
    /// Begins with a head that was read into `messages.request`.
    pub(crate) fn new(
        session: &'x Session,
        messages: &'x mut Messages,
        down: &'x mut Wire,
        alarm: &'x mut Alarm,
        started: Instant,
    ) -> Self {
        let mut exchange = Self::aside(session, messages, down, alarm, Story::new(started));
        exchange.settled = false;
        exchange.running = Some(session.worker.observe.in_flight(session.direction));
        exchange
    }

    /// Of a copy: nobody is told of it.
    fn aside(
        session: &'x Session,
        messages: &'x mut Messages,
        down: &'x mut Wire,
        alarm: &'x mut Alarm,
        story: Story,
    ) -> Self {
        Self {
            session,
            messages,
            down,
            alarm,
            story,
            replay: Replay::off(),
            deadline: None,
            gone_by: None,
            body_by: None,
            forwarded: false,
            words: HopWords::default(),
            acting: None,
            telling: false,
            idle: None,
            quiet: None,
            settled: true,
            admitted: None,
            running: None,
        }
    }

    /// Runs it to its end. In a box of its own, so that a connection without a request is small.
    pub(crate) fn run(self) -> Pin<Box<impl Future<Output = Ended>>> {
        Box::pin(self.live())
    }

    /// The same in the caller's own future.
    pub(crate) async fn live(mut self) -> Ended {
        let ended = match self.served().await {
            Ok(ended) => ended,
            Err(Stop::Failed(failure)) => deliver::failure(&mut self, failure).await,
            Err(Stop::Gone) => {
                self.story.left = true;
                Ended::Broken
            }
        };
        self.settle();
        ended
    }

    /// Answers what is no request at all.
    pub(crate) fn refuse(self, failure: Failure) -> Pin<Box<impl Future<Output = Ended>>> {
        Box::pin(self.refused(failure))
    }

    async fn refused(mut self, failure: Failure) -> Ended {
        let ended = deliver::failure(&mut self, failure).await;
        self.settle();
        ended
    }

    async fn served(&mut self) -> Result<Ended, Stop> {
        let session = self.session;
        self.shed()?;
        let snapshot = session.worker.snapshot();
        match &*session.origin {
            Origin::Outbound(origin) => self.outbound(&snapshot, origin).await,
            Origin::Inbound(origin) => self.inbound(&snapshot, origin).await,
        }
    }

    async fn outbound(
        &mut self,
        snapshot: &Snapshot,
        origin: &OutboundOrigin,
    ) -> Result<Ended, Stop> {
        let caller = self.caller(snapshot, origin)?;
        let request = &mut self.messages.request;
        headers::clean_request(request, caller.trusted);
        if origin.destination == Destination::Explicit {
            request.fields.drop_named(b"proxy-authorization");
        }
        let goal = route::goal(snapshot, origin, request)?;
        self.label(match goal {
            Called::Frontend(frontend) => &frontend.service,
            Called::Direct(direct) => &direct.backend.service,
        });
        if self.messages.request.form == Form::Authority {
            return self.connect(goal, origin).await.map_err(Stop::Failed);
        }
        let request = &self.messages.request;
        let held = Held {
            delegated: route::delegated(snapshot, goal, &caller, request)?,
        };
        let source = acting::source(&self.session.origin, Some(&caller));
        let asked = Asked::new(request, source);
        let way = route::outbound(&self.session.worker, goal, &caller, &asked, &held)?;
        self.go(snapshot, &way).await
    }

    async fn inbound(
        &mut self,
        snapshot: &Snapshot,
        origin: &InboundOrigin,
    ) -> Result<Ended, Stop> {
        let request = &mut self.messages.request;
        // Inside a CONNECT it is the calling program that speaks, not its daemon.
        let from_daemon = origin.server_name.is_some() && origin.address.is_none();
        if origin.principal.is_some() && from_daemon {
            self.words = headers::take_hop_words(request);
            self.story.id = self.words.id.unwrap_or(self.story.id);
        } else {
            headers::clean_request(request, origin.principal.is_some());
        }
        let port = origin.port(snapshot, self.words.target);
        if let Some(port) = &port {
            self.label(&port.service);
        }
        let request = &mut self.messages.request;
        if request.form == Form::Authority {
            return Err(no_connect().into());
        }
        let way = route::inbound(snapshot, port.as_ref(), origin, request)?;
        if let Some(port) = &port
            && !port.limits.is_empty()
        {
            let asked = Asked::new(request, acting::source(&self.session.origin, None));
            let counted = self.session.worker.limits.request(&port.limits, &asked);
            self.counted(counted)?;
        }
        let request = &mut self.messages.request;
        headers::forwarded(request, origin.peer.ip());
        self.go(snapshot, &way).await
    }

    /// Refuses what is too much for this worker: better told at once than served too late.
    fn shed(&self) -> Result<(), Failure> {
        let worker = &self.session.worker;
        let (running, most) = (worker.observe.running(), worker.config.limits.requests);
        if running <= most {
            return Ok(());
        }
        worker.observe.policies().shed.add(1);
        let what = format!("{most} requests run on this thread already");
        Err(Failure::new(Code::Overloaded, what).with_after(SOON))
    }

    /// A place among the backend's requests, kept to the end of the exchange.
    fn admit(&mut self, backend: &Arc<Backend>) -> Result<(), Failure> {
        let worker = &self.session.worker;
        let admitted = worker.upstream.admit(backend).map_err(|full| {
            worker.observe.policies().shed.add(1);
            Failure::new(Code::Overloaded, full.to_string()).with_after(SOON)
        })?;
        self.admitted = Some(admitted);
        worker.upstream.deposit(backend);
        Ok(())
    }

    /// Who calls: on the daemon's own listener, whom it says.
    fn caller(
        &mut self,
        snapshot: &Snapshot,
        origin: &OutboundOrigin,
    ) -> Result<Arc<Caller>, Failure> {
        if !origin.internal {
            return Ok(Arc::clone(&origin.caller));
        }
        self.telling = true;
        let named = self.messages.request.fields.named(AS.as_bytes()).next();
        let Some(name) = named.and_then(|name| std::str::from_utf8(name).ok()) else {
            return Ok(Arc::clone(&origin.caller));
        };
        let service = ServiceId::parse(name).ok();
        let found = service.and_then(|service| snapshot.callers.by_service.get(&service).cloned());
        self.story.named.clone_from(&found);
        found.ok_or_else(|| {
            Failure::new(
                Code::NoIdentity,
                format!("{name:?} is no service of this host"),
            )
        })
    }

    fn label(&mut self, service: &ServiceId) {
        self.story.destination = Some(self.session.label(service));
    }

    /// The request's way is known: filters, bounds, and the tries.
    async fn go(&mut self, snapshot: &Snapshot, way: &Way<'_>) -> Result<Ended, Stop> {
        self.story.route = way.route.map(Arc::clone);
        let bound = match (way.timeouts.request, grpc::deadline(&self.messages.request)) {
            (Some(route), Some(own)) => Some(route.min(own)),
            (route, own) => route.or(own),
        };
        self.deadline = bound.and_then(|bound| self.story.started.checked_add(bound));
        self.idle = way.timeouts.idle;
        if headers::is_last_hop(&mut self.messages.request) {
            return Ok(deliver::last_hop(self).await);
        }
        let mut mirrors = SmallVec::new();
        if !way.filters.is_empty() || way.faults.iter().any(|faults| !faults.is_empty()) {
            match Box::pin(shape::shape(self, way)).await? {
                Ok(due) => mirrors = due,
                Err(ended) => return Ok(ended),
            }
        }
        if let To::Nowhere(status, code, reason) = way.to {
            return Err(route::nowhere(status, code, reason).into());
        }
        let request = &self.messages.request;
        let repeatable = way.retry.attempts > 0 || request.is_idempotent();
        if request.has_body() && repeatable && request.upgrade.is_none() {
            self.replay = Replay::on();
        }
        if !mirrors.is_empty() {
            send::copy(self, way, &mirrors);
        }
        if let To::Backend(backend) = way.to {
            self.admit(backend)?;
        }
        let up = send::tries(self, snapshot, way).await?;
        deliver::answer(self, way, up).await
    }

    /// What policies change in the answer.
    pub(crate) fn filter_answer(&mut self, way: &Way<'_>) {
        if !way.filters.is_empty() {
            let filters = &mut way.filters.iter().copied().flatten();
            filters::on_response(filters, &mut self.messages.response.fields);
        }
        self.mark_answer();
    }

    /// What policies add to every answer, the mesh's own failures too.
    pub(crate) fn mark_answer(&mut self) {
        if let Some(acting) = &self.acting {
            let fields = &mut self.messages.response.fields;
            if let Some(marks) = &acting.cors {
                marks.mark(fields);
            }
            for cookie in &acting.cookies {
                fields.push(b"set-cookie", cookie.as_bytes());
            }
            counted::tell(&acting.standings, fields);
        }
    }

    /// Bytes per second that a fault leaves for each body.
    pub(crate) fn rate(&self) -> Option<u64> {
        self.acting.as_ref().and_then(|acting| acting.rate)
    }

    /// Sets a cookie in the answer.
    pub(crate) fn acting_on(&mut self, cookie: Option<String>) {
        if let Some(cookie) = cookie {
            self.acting().cookies.push(cookie);
        }
    }

    /// What policies ask of the rest, made when the first does.
    pub(crate) fn acting(&mut self) -> &mut Acting {
        self.acting.get_or_insert_with(Box::default)
    }

    /// CONNECT: the connection becomes one to the address of the service that was named.
    async fn connect(
        &mut self,
        goal: Called<'_>,
        origin: &OutboundOrigin,
    ) -> Result<Ended, Failure> {
        if origin.destination != Destination::Explicit {
            return Err(no_connect());
        }
        let address = match goal {
            Called::Direct(direct) => direct.endpoint.address,
            Called::Frontend(frontend) => {
                let ip = frontend.virtual_addresses.first().copied();
                let ip = ip.ok_or_else(|| {
                    Failure::new(Code::UnknownHost, "the service has no address of its own")
                })?;
                std::net::SocketAddr::new(ip, frontend.port)
            }
        };
        if deliver::connected(self).await {
            Ok(Ended::Connect(address))
        } else {
            Ok(Ended::Broken)
        }
    }

    /// Name of this host in what the mesh says.
    pub(crate) fn host(&self) -> Rc<str> {
        let snapshot = self.session.worker.snapshot();
        Rc::from(
            snapshot
                .mesh
                .as_ref()
                .map_or("unknown", |mesh| &mesh.host_name),
        )
    }

    /// Makes the answer to a failure; its body.
    pub(crate) fn compose(&mut self, failure: &Failure) -> String {
        let host = self.host();
        let Messages { request, response } = &mut *self.messages;
        reply::compose(failure, request, &host, &self.story.id, response)
    }

    fn settle(&mut self) {
        if !self.settled {
            self.settled = true;
            if self.acting.is_some() {
                send::give_up(self);
            }
            self.story.settle(self.session, &self.messages.request);
        }
    }
}

impl Drop for Exchange<'_> {
    fn drop(&mut self) {
        self.settle();
    }
}

fn no_connect() -> Failure {
    Failure::new(Code::BadRequest, "CONNECT is for the explicit listener").with_status(405)
}
