//! What happened to one request: gathered on the way, told once at the end.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use mesh_model::{
    name::HostId,
    snapshot::{BackendEndpoint, Caller, RouteReference, decide::RequestView as _},
};

use super::{
    headers::{self, RequestId},
    message::{Request, Version},
    session::Session,
};
use crate::{connection::Origin, failure::Failure, observe::RequestRecord};

/// Bytes of both bodies up to which the time between head and end is this daemon's.
const SMALL: u64 = 32 << 10;
/// Most tries that are told in words.
const TRIES: usize = 16;

/// The story so far.
#[derive(Debug)]
pub(crate) struct Story {
    /// The request's id.
    pub id: RequestId,
    /// When the first byte of the head had come.
    pub started: Instant,
    /// As whom the daemon itself calls; `None`: as its connection.
    pub named: Option<Arc<Caller>>,
    /// Label of the service that was called.
    pub destination: Option<Arc<str>>,
    /// The route that acts.
    pub route: Option<Arc<RouteReference>>,
    /// Status sent to the caller; 0: none.
    pub status: u16,
    /// gRPC status, from head or trailers.
    pub grpc_status: Option<u8>,
    /// What failed, if the mesh had to end the request.
    pub failure: Option<Failure>,
    /// True when the caller went away before its answer was whole.
    pub left: bool,
    /// A `mesh-error` that another daemon made: its code, word for word.
    pub far_code: Option<crate::failure::Code>,
    /// The endpoint of the last try.
    pub endpoint: Option<Arc<BackendEndpoint>>,
    /// The local program of the last try.
    pub program: Option<std::net::SocketAddr>,
    /// Identity that the other end proved.
    pub peer: Option<Arc<str>>,
    /// Tries beyond the first.
    pub retries: u32,
    /// Each failed try in words, and what policies did.
    pub tries: Vec<String>,
    /// Bytes of the request's body.
    pub received: u64,
    /// Bytes of the answer's body.
    pub sent: u64,
    /// Time spent waiting for the other end.
    pub waited: Duration,
}

impl Story {
    /// Begins.
    pub(crate) fn new(started: Instant) -> Self {
        Self {
            id: RequestId::fresh(),
            started,
            named: None,
            destination: None,
            route: None,
            status: 0,
            grpc_status: None,
            failure: None,
            left: false,
            far_code: None,
            endpoint: None,
            program: None,
            peer: None,
            retries: 0,
            tries: Vec::new(),
            received: 0,
            sent: 0,
            waited: Duration::ZERO,
        }
    }

    /// Tells a try that did not succeed.
    pub(crate) fn tried(&mut self, what: &str, since: Instant) {
        if self.tries.len() >= TRIES {
            return;
        }
        let elapsed = since.elapsed();
        let place = match (&self.endpoint, &self.program) {
            (Some(endpoint), _) => {
                format!(
                    "{} ({}, {})",
                    endpoint.id, endpoint.address, endpoint.host_name
                )
            }
            (None, Some(program)) => program.to_string(),
            (None, None) => "nowhere".to_owned(),
        };
        self.tries.push(format!("{place}: {what}, {elapsed:.1?}"));
    }

    /// True when nobody between the hosts could read it: mTLS, or no way between hosts at all.
    fn secured(&self, session: &Session) -> bool {
        match &*session.origin {
            Origin::Inbound(origin) => origin.principal.is_some(),
            Origin::Outbound(_) => {
                let local = self
                    .endpoint
                    .as_ref()
                    .is_some_and(|endpoint| endpoint.local);
                self.peer.is_some() || local
            }
        }
    }

    /// Tells what a policy did.
    pub(crate) fn note(&mut self, what: String) {
        if self.tries.len() < TRIES {
            self.tries.push(what);
        }
    }

    /// Goes on with what a copy of the request has found.
    pub(crate) fn join(&mut self, copy: Self) {
        self.endpoint = copy.endpoint;
        self.program = copy.program;
        self.peer = copy.peer;
        self.received += copy.received;
        self.waited += copy.waited;
        for what in copy.tries {
            self.note(what);
        }
    }

    /// Ends: records the request. Reached on every path.
    pub(crate) fn settle(&self, session: &Session, request: &Request) {
        let duration = self.started.elapsed();
        let observe = &session.worker.observe;
        let failure = self.failure.as_ref();
        let program;
        let endpoint = match (&self.endpoint, self.program) {
            (Some(endpoint), _) => &*endpoint.id,
            (None, Some(address)) => {
                program = address.to_string();
                &program
            }
            (None, None) => "",
        };
        let named = self.named.as_deref();
        let principal = named.map(|caller| caller.principal.to_string());
        let code = failure.map(|failure| failure.code).or(self.far_code);
        observe.request(&RequestRecord {
            direction: session.direction,
            id: self.id.as_str(),
            source: named.map_or(&session.source, |caller| &caller.label),
            destination: self
                .destination
                .as_ref()
                .unwrap_or_else(|| observe.unknown()),
            route: self
                .route
                .as_ref()
                .map_or_else(|| observe.no_route(), |route| &route.name),
            protocol: protocol(request),
            method: request.method(),
            path: request.raw_path(),
            authority: request.authority().unwrap_or_default(),
            status: self.status,
            grpc_status: self.grpc_status.map(u32::from),
            code: code.map_or("", crate::failure::Code::as_str),
            what: match failure {
                Some(failure) => &failure.what,
                None if self.left => "the caller went away",
                None => "",
            },
            remedy: code.map_or("", |code| code.documented().remedy),
            caller: principal.as_deref().unwrap_or(&session.caller),
            endpoint,
            endpoint_host: self
                .endpoint
                .as_ref()
                .map_or("", |endpoint| &endpoint.host_name),
            peer: self.peer.as_deref().unwrap_or_default(),
            retries: self.retries,
            attempts: &self.tries,
            received: self.received,
            sent: self.sent,
            duration,
            own: (self.sent + self.received <= SMALL).then(|| duration.saturating_sub(self.waited)),
            secured: self.secured(session),
            trace: headers::trace(&request.fields),
        });
    }
}

fn protocol(request: &Request) -> &'static str {
    match request.version {
        _ if request.wishes.grpc => "grpc",
        Version::Http10 => "http/1.0",
        Version::Http11 => "http/1.1",
        Version::Http2 => "http/2",
    }
}

/// A route for people: kind, name, rule, revision.
pub(crate) fn route_text(route: &RouteReference) -> String {
    let revision = route
        .revision
        .as_ref()
        .map_or_else(String::new, |id| format!("@{id}"));
    format!("{}/{}#{}{revision}", route.kind, route.name, route.rule)
}

/// Name of a host for people, its id when it has none.
pub(crate) fn host_text(name: &str, id: Option<HostId>) -> String {
    match (name, id) {
        ("", Some(id)) => id.short(),
        (name, _) => name.to_owned(),
    }
}
