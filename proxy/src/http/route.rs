//! Finds out where a request goes and what acts on it: the phases match and authorize.
//!
//! In: the snapshot, where the connection comes from, the request. Out: a `Way`, or why there is none.
//! Never: waits, or looks at live state beyond the question whether a backend is usable.

use std::{
    net::SocketAddr,
    rc::Rc,
    sync::{Arc, LazyLock},
    time::Duration,
};

use mesh_model::{
    address,
    name::ServiceId,
    principal::SpiffeId,
    service::AppProtocol,
    snapshot::{
        Authorization, Backend, Caller, Direct, EndpointKey, Fault, Filter, Frontend, InboundPort,
        Retry, RouteReference, Rule, Snapshot, Target, Timeouts,
        decide::{self, Choice, Matched, RequestView as _, Verdict},
        rule::Persistence,
    },
};
use smallvec::SmallVec;

use super::{
    asked::Asked,
    authority, dtab,
    headers::HopWords,
    message::{Request, Version},
    path, persistence,
};
use crate::{
    connection::{Destination, InboundOrigin, OutboundOrigin},
    failure::{Code, Failure},
    worker::Worker,
};

/// Where a request goes.
#[derive(Debug, Clone, Copy)]
pub(crate) enum To<'s> {
    /// One of a backend's endpoints.
    Backend(&'s Arc<Backend>),
    /// The endpoint that was dialled itself.
    Direct(&'s Direct),
    /// A program of this host.
    Local(&'s Arc<InboundPort>),
    /// Nowhere: unless a filter answers, the mesh refuses with a status, a code and a reason.
    Nowhere(u16, &'static str, &'s str),
}

/// Where a request goes and what acts on it.
#[derive(Debug)]
pub(crate) struct Way<'s> {
    /// Where.
    pub to: To<'s>,
    /// As whom.
    pub caller: Option<&'s Arc<Caller>>,
    /// What was called, for labels.
    pub service: &'s ServiceId,
    /// The port that was called.
    pub port: u16,
    /// What is spoken there, as configured.
    pub protocol: AppProtocol,
    /// What changes heads: of the rule, then of its shares.
    pub filters: SmallVec<[&'s [Filter]; 2]>,
    /// Bounds on time.
    pub timeouts: Timeouts,
    /// Further tries.
    pub retry: &'s Retry,
    /// The route that acts.
    pub route: Option<&'s Arc<RouteReference>>,
    /// Faults that may be injected: of the service, then of the rule.
    pub faults: [&'s [Fault]; 2],
    /// Whose requests stay with one endpoint, and the endpoint that the request's token names.
    pub session: Option<(&'s Persistence, Option<EndpointKey>)>,
}

impl Way<'_> {
    /// When a second try runs beside the first.
    pub(crate) fn hedge_after(&self) -> Option<Duration> {
        match self.to {
            To::Backend(backend) => backend.policy.hedge_after,
            _ => None,
        }
    }
}

/// What holds on to a target that the snapshot does not own.
#[derive(Debug, Default)]
pub(crate) struct Held {
    /// What the request's own delegation table leads to.
    pub delegated: Option<Rc<Target>>,
}

static DEFAULT_RETRY: LazyLock<Retry> = LazyLock::new(Retry::default);
static NO_RETRY: LazyLock<Retry> = LazyLock::new(|| Retry {
    attempts: 0,
    codes: Vec::new(),
    ..Retry::default()
});

/// What a local program called.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Called<'s> {
    /// A service.
    Frontend(&'s Arc<Frontend>),
    /// One endpoint.
    Direct(&'s Direct),
}

/// What a local program's request calls.
pub(crate) fn goal<'s>(
    snapshot: &'s Snapshot,
    origin: &OutboundOrigin,
    request: &Request,
) -> Result<Called<'s>, Failure> {
    if snapshot.mesh.is_none() {
        return Err(Failure::new(Code::NotReady, "this host has joined no mesh"));
    }
    match origin.destination {
        Destination::Address(address) => by_address(snapshot, address).ok_or_else(|| {
            Failure::new(
                Code::NoRoute,
                format!("nothing is known of {address} any longer"),
            )
            .with_status(503)
        }),
        Destination::Explicit => by_host(snapshot, request),
    }
}

fn by_address(snapshot: &Snapshot, address: SocketAddr) -> Option<Called<'_>> {
    let address = address::canonical(address);
    let outbound = &snapshot.outbound;
    let frontend = outbound.by_address.get(&address).map(Called::Frontend);
    frontend.or_else(|| outbound.direct.get(&address).map(Called::Direct))
}

fn by_host<'s>(snapshot: &'s Snapshot, request: &Request) -> Result<Called<'s>, Failure> {
    let text = request.authority().unwrap_or_default();
    let Some(place) = authority::parse(text.as_bytes()) else {
        return Err(Failure::new(Code::BadRequest, "the request names no host"));
    };
    let port = place.port.unwrap_or(80);
    if let Ok(ip) = place.host.parse::<std::net::IpAddr>() {
        let found = by_address(snapshot, SocketAddr::new(ip, port));
        return found.ok_or_else(|| unknown_host(text));
    }
    let frontend = snapshot.outbound.named(text, None);
    frontend
        .map(Called::Frontend)
        .ok_or_else(|| unknown_host(text))
}

fn unknown_host(text: &str) -> Failure {
    Failure::new(Code::UnknownHost, format!("no service is called {text:?}"))
}

/// The way of a local program's request.
pub(crate) fn outbound<'s>(
    worker: &Worker,
    goal: Called<'s>,
    caller: &'s Arc<Caller>,
    asked: &Asked<'_>,
    held: &'s Held,
) -> Result<Way<'s>, Failure> {
    let frontend = match goal {
        Called::Direct(direct) => return Ok(straight(direct, caller)),
        Called::Frontend(frontend) => frontend,
    };
    let mut way = Way {
        to: To::Backend(&frontend.backend),
        caller: Some(caller),
        service: &frontend.service,
        port: frontend.port,
        protocol: frontend.protocol,
        filters: SmallVec::new(),
        timeouts: Timeouts::default(),
        retry: &DEFAULT_RETRY,
        route: None,
        faults: [&frontend.faults, &[]],
        session: None,
    };
    if let Some(delegated) = &held.delegated {
        toward(worker, delegated, &mut way);
        return Ok(way);
    }
    match decide::matched(frontend, &caller.namespace, asked) {
        Matched::Default(_) => {}
        Matched::NoRule => {
            let what = "routes are attached and none fits";
            return Err(Failure::new(Code::NoRoute, what));
        }
        Matched::Rule(rule) => by_rule(worker, rule, asked.request(), &mut way),
    }
    Ok(way)
}

/// What a rule says of a request; a session that it holds goes before the draw among shares.
fn by_rule<'s>(worker: &Worker, rule: &'s Rule, request: &Request, way: &mut Way<'s>) {
    if !rule.filters.is_empty() {
        way.filters.push(&rule.filters);
    }
    way.timeouts = rule.timeouts;
    way.retry = &rule.retry;
    way.route = Some(&rule.route);
    way.faults = [way.faults[0], &rule.faults];
    if let Some(session) = &rule.persistence {
        let endpoint = persistence::held(session, request);
        way.session = Some((session, endpoint));
        if let Some((backend, filters)) =
            endpoint.and_then(|endpoint| persistence::holding(&rule.target, endpoint))
            && worker.upstream.usable(backend)
        {
            way.to = To::Backend(backend);
            way.protocol = backend.protocol;
            way.filters.extend(filters);
            return;
        }
    }
    toward(worker, &rule.target, way);
}

/// Chooses from a target.
fn toward<'s>(worker: &Worker, target: &'s Target, way: &mut Way<'s>) {
    let usable = |backend: &Backend| worker.upstream.usable(backend);
    match decide::choose(target, &mut |below| fastrand::u64(..below), &usable) {
        Choice::Backend { backend, filters } => {
            way.to = To::Backend(backend);
            way.protocol = backend.protocol;
            way.filters.extend(filters);
        }
        Choice::Fail {
            status,
            code,
            reason,
        } => way.to = To::Nowhere(status, code, reason),
    }
}

/// The failure of a request that has nowhere to go.
pub(crate) fn nowhere(status: u16, code: &str, reason: &str) -> Failure {
    let code = Code::parse(code).unwrap_or(Code::NoBackend);
    Failure::new(code, reason.to_owned()).with_status(status)
}

fn straight<'s>(direct: &'s Direct, caller: &'s Arc<Caller>) -> Way<'s> {
    Way {
        to: To::Direct(direct),
        caller: Some(caller),
        service: &direct.backend.service,
        port: direct.backend.port,
        protocol: direct.backend.protocol,
        filters: SmallVec::new(),
        timeouts: Timeouts::default(),
        retry: &DEFAULT_RETRY,
        route: None,
        faults: [&[]; 2],
        session: None,
    }
}

/// The way of a copy: straight to a backend, once.
pub(crate) fn aside<'s>(backend: &'s Arc<Backend>, caller: &'s Arc<Caller>) -> Way<'s> {
    Way {
        to: To::Backend(backend),
        caller: Some(caller),
        service: &backend.service,
        port: backend.port,
        protocol: backend.protocol,
        filters: SmallVec::new(),
        timeouts: Timeouts::default(),
        retry: &NO_RETRY,
        route: None,
        faults: [&[]; 2],
        session: None,
    }
}

/// The target of the request's own delegation table, when its caller may bring one.
pub(crate) fn delegated(
    snapshot: &Snapshot,
    goal: Called<'_>,
    caller: &Caller,
    request: &Request,
) -> Result<Option<Rc<Target>>, Failure> {
    let Called::Frontend(frontend) = goal else {
        return Ok(None);
    };
    if !caller.trusted {
        return Ok(None);
    }
    let mut lines = request.fields.named(dtab::HEADER.as_bytes());
    let Some(first) = lines.next() else {
        return Ok(None);
    };
    match lines.next() {
        None => dtab::target(snapshot, frontend, first),
        Some(second) => {
            let all: Vec<&[u8]> = [first, second].into_iter().chain(lines).collect();
            dtab::target(snapshot, frontend, &all.join(&b';'))
        }
    }
}

/// The port of a program of this host that a caller on this host reaches without a tunnel: its policies act
/// as for any other caller.
pub(crate) fn local_port(snapshot: &Snapshot, address: SocketAddr) -> Option<&Arc<InboundPort>> {
    let inbound = &snapshot.inbound.by_address;
    let found = inbound.get(&address);
    found.or_else(|| inbound.values().find(|port| port.target == address))
}

/// The way of a request to a local program.
pub(crate) fn inbound<'s>(
    snapshot: &'s Snapshot,
    port: Option<&'s Arc<InboundPort>>,
    origin: &InboundOrigin,
    request: &Request,
) -> Result<Way<'s>, Failure> {
    if snapshot.mesh.is_none() {
        return Err(Failure::new(Code::NotReady, "this host has joined no mesh"));
    }
    let Some(port) = port else {
        return Err(Failure::new(
            Code::UnknownService,
            "no program of this host is offered there",
        ));
    };
    if port.strict && origin.principal.is_none() {
        return Err(Failure::new(
            Code::PlaintextRefused,
            "the port takes mutual TLS only",
        ));
    }
    authorized(
        &port.authorization,
        origin.principal.as_ref(),
        port,
        request,
    )?;
    Ok(Way {
        to: To::Local(port),
        caller: None,
        service: &port.service,
        port: port.target.port(),
        protocol: port.protocol,
        filters: SmallVec::new(),
        timeouts: Timeouts::default(),
        retry: &NO_RETRY,
        route: None,
        faults: [&[]; 2],
        session: None,
    })
}

/// A refusal counts for every way in which a program may read the path.
pub(crate) fn authorized(
    authorization: &Authorization,
    caller: Option<&SpiffeId>,
    port: &InboundPort,
    request: &Request,
) -> Result<(), Failure> {
    if authorization.deny.is_empty() && !authorization.allow_only {
        return Ok(());
    }
    let generous = path::generous(request.raw_path());
    for path in [Some(request.path()), generous.as_deref()]
        .into_iter()
        .flatten()
    {
        let asked = Some((request.method(), path));
        if let Verdict::Deny(policy) =
            decide::authorize(authorization, caller, port.target.port(), asked)
        {
            let what = policy.map_or_else(
                || "no ALLOW policy fits the caller".to_owned(),
                |policy| format!("policy {policy} refuses the caller"),
            );
            return Err(Failure::new(Code::Denied, what));
        }
    }
    Ok(())
}

/// The version of HTTP in which an endpoint or program is spoken to.
pub(crate) fn spoken(protocol: AppProtocol, request: &Request, words: &HopWords) -> AppProtocol {
    match protocol {
        AppProtocol::Http | AppProtocol::Http2 | AppProtocol::Grpc => protocol,
        AppProtocol::Detect | AppProtocol::Tcp => {
            if request.version == Version::Http2 && !words.http1 {
                AppProtocol::Http2
            } else {
                AppProtocol::Http
            }
        }
    }
}
