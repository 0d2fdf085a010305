//! Which function answers which path.

use std::sync::Arc;

use bytes::Bytes;
use hyper::{Method, Request, body::Incoming};

use super::{
    Caller, adopt,
    answer::{Answer, from_outcome, refuse, unknown},
    check, enrol, lifecycle, live, registry,
    request::{self, Query, parse},
    resources, state, story,
};
use crate::daemon::Daemon;

/// Answers one request.
pub(crate) async fn dispatch(
    daemon: &Arc<Daemon>,
    caller: Caller,
    asked: Request<Incoming>,
) -> Answer {
    let method = asked.method().clone();
    let path = asked.uri().path().to_owned();
    let query = request::query(asked.uri().query().unwrap_or_default());
    let body = match request::body(asked.into_body()).await {
        Ok(body) => body,
        Err(refused) => return from_outcome::<()>(Err(refused)),
    };
    let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
    match (&method, parts.as_slice()) {
        (&Method::GET, _) => read(daemon, &parts, &query).await,
        (&Method::POST, _) => write(daemon, caller, &parts, &query, &body).await,
        _ => unknown(&path),
    }
}

async fn read(daemon: &Arc<Daemon>, parts: &[&str], query: &Query) -> Answer {
    match parts {
        ["v1", "status"] => from_outcome(Ok(state::status(daemon))),
        ["v1", "members"] => from_outcome(state::members(daemon)),
        ["v1", "services"] => from_outcome(state::services(daemon).await),
        ["v1", "endpoints"] => from_outcome(state::endpoints(daemon, query).await),
        ["v1", "stat"] => from_outcome(state::stat(daemon)),
        ["v1", "edges"] => from_outcome(live::edges(daemon, query).await),
        ["v1", "cost"] => from_outcome(live::cost(daemon, query).await),
        ["v1", "operators"] => from_outcome(lifecycle::operators(daemon).await),
        ["v1", "resources"] => from_outcome(resources::list(daemon, query)),
        ["v1", "history"] => from_outcome(resources::history(daemon, query).await),
        ["v1", "commits", id] => from_outcome(resources::commit(daemon, id).await),
        ["v1", "converged"] => from_outcome(resources::converged(daemon, query)),
        ["v1", "check"] => from_outcome(Ok(check::rows(daemon).await)),
        ["v1", "adopt"] => from_outcome(adopt::list(daemon).await),
        ["v1", "enrol"] => from_outcome(Ok(enrol::enrolled(daemon, query))),
        ["v1", "registry"] => from_outcome(registry::sources(daemon)),
        ["v1", "registry", "views"] => from_outcome(registry::views(daemon, query)),
        ["v1", "why", id] => from_outcome(story::why(daemon, id).await),
        _ => unknown(&parts.join("/")),
    }
}

async fn write(
    daemon: &Arc<Daemon>,
    caller: Caller,
    parts: &[&str],
    query: &Query,
    body: &Bytes,
) -> Answer {
    match parts {
        ["v1", "validate"] => match parse(body) {
            Ok(request) => from_outcome(Ok(resources::validate(daemon, &request))),
            Err(refused) => from_outcome::<()>(Err(refused)),
        },
        ["v1", "commits"] => match parse(body) {
            Ok(request) => from_outcome(resources::submit(daemon, query, &request).await),
            Err(refused) => from_outcome::<()>(Err(refused)),
        },
        ["v1", "explain"] => match parse(body) {
            Ok(request) => from_outcome(story::explain(daemon, &request).await),
            Err(refused) => from_outcome::<()>(Err(refused)),
        },
        ["v1", "tap"] => live::tap(daemon, body),
        _ if !caller.owner => from_outcome::<()>(Err(refuse(
            403,
            "not-permitted",
            "only root and the daemon's own user may change this host",
            "run it with sudo",
        ))),
        ["v1", "curl"] => match parse(body) {
            Ok(request) => from_outcome(story::curl(daemon, &request).await),
            Err(refused) => from_outcome::<()>(Err(refused)),
        },
        ["v1", "adopt", what] => adopt::write(daemon, what, body).await,
        ["v1", "reload"] => from_outcome(adopt::reload(daemon).await),
        _ => lifecycle::write(daemon, parts, body).await,
    }
}
