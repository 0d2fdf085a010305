//! Which function answers which path.

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Limited};
use hyper::{Method, Request, body::Incoming};
use serde::de::DeserializeOwned;

use super::{
    Caller,
    answer::{Answer, Outcome, from_outcome, refuse},
    check, lifecycle, resources, state, story,
};
use crate::daemon::Daemon;

const MAX_BODY: usize = 8 << 20;

/// The query of a request, decoded.
pub(crate) type Query = BTreeMap<String, String>;

/// Answers one request.
pub(crate) async fn dispatch(
    daemon: &Arc<Daemon>,
    caller: Caller,
    request: Request<Incoming>,
) -> Answer {
    let method = request.method().clone();
    let path = request.uri().path().to_owned();
    let query = query_of(request.uri().query().unwrap_or_default());
    let body = match Limited::new(request.into_body(), MAX_BODY).collect().await {
        Ok(body) => body.to_bytes(),
        Err(error) => {
            let refused = refuse(
                413,
                "body-too-large",
                error.to_string(),
                "send at most 8 MiB",
            );
            return from_outcome::<()>(Err(refused));
        }
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
        ["v1", "services"] => from_outcome(state::services(daemon)),
        ["v1", "endpoints"] => from_outcome(state::endpoints(daemon, query)),
        ["v1", "stat"] => from_outcome(state::stat(daemon)),
        ["v1", "operators"] => from_outcome(lifecycle::operators(daemon).await),
        ["v1", "resources"] => from_outcome(resources::list(daemon, query)),
        ["v1", "history"] => from_outcome(resources::history(daemon, query).await),
        ["v1", "commits", id] => from_outcome(resources::commit(daemon, id).await),
        ["v1", "converged"] => from_outcome(resources::converged(daemon, query)),
        ["v1", "check"] => from_outcome(Ok(check::rows(daemon).await)),
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
            Ok(request) => from_outcome(resources::validate(daemon, &request)),
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
        _ => lifecycle::write(daemon, parts, body).await,
    }
}

/// The request's JSON, or a refusal that says where it is wrong.
pub(crate) fn parse<T: DeserializeOwned>(body: &Bytes) -> Outcome<T> {
    let body: &[u8] = if body.is_empty() { b"{}" } else { body };
    serde_json::from_slice(body).map_err(|error| {
        refuse(
            400,
            "bad-request",
            format!("the body is not the expected JSON: {error}"),
            "use a meshctl of the daemon's version",
        )
    })
}

/// 404.
pub(crate) fn unknown(path: &str) -> Answer {
    from_outcome::<()>(Err(refuse(
        404,
        "unknown-path",
        format!("{path} is no path of the admin API"),
        "use a meshctl of the daemon's version",
    )))
}

fn query_of(query: &str) -> Query {
    query
        .split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            (decoded(key), decoded(value))
        })
        .collect()
}

fn decoded(text: &str) -> String {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        rest = tail;
        match (first, tail) {
            (b'+', _) => out.push(b' '),
            (b'%', [high, low, after @ ..]) => {
                let digits = [*high, *low];
                let value = std::str::from_utf8(&digits)
                    .ok()
                    .and_then(|digits| u8::from_str_radix(digits, 16).ok());
                match value {
                    Some(value) => {
                        out.push(value);
                        rest = after;
                    }
                    None => out.push(b'%'),
                }
            }
            (other, _) => out.push(*other),
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}
