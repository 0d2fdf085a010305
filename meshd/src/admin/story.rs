//! Stories of requests: what would happen, what did happen, and one that is made to happen.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::future::join_all;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_util::rt::TokioIo;
use mesh_model::{
    admin::{Curl, CurlAnswer, Explain, Explanation, FailureRecord, Why},
    name::{HostId, ServiceId},
};
use tokio::net::TcpStream;

use super::{
    answer::{Outcome, refuse},
    state::{host_name, is_alive, joined},
};
use crate::{
    daemon::Daemon,
    questions::{EXPLAIN_KIND, WHY_KIND},
    running::Running,
};

const FAR_DEADLINE: Duration = Duration::from_secs(3);
const CURL_DEADLINE: Duration = Duration::from_mins(1);
const CURL_BODY: usize = 1 << 20;
/// Headers that the internal listener adds for us; they are told apart from the answer's own.
const OURS: [&str; 4] = ["mesh-endpoint", "mesh-peer", "mesh-route", "mesh-time-us"];

/// `POST /v1/explain`: this host's part, then the far host's own word on its part.
pub(super) async fn explain(daemon: &Daemon, request: &Explain) -> Outcome<Explanation> {
    let running = joined(daemon)?;
    let told = running
        .explain_outbound(daemon.capture(), request)
        .map_err(|error| {
            refuse(
                400,
                "bad-request",
                error,
                "write `meshctl explain --from SERVICE GET http://name/path`",
            )
        })?;
    let mut explanation = told.explanation;
    if let Some(far) = told.far {
        let body = serde_json::to_vec(&far.question).unwrap_or_default();
        let answer = running
            .cluster
            .call(far.host, EXPLAIN_KIND, Bytes::from(body), FAR_DEADLINE)
            .await;
        match answer
            .ok()
            .and_then(|body| serde_json::from_slice::<Explanation>(&body).ok())
        {
            Some(theirs) => explanation.steps.extend(theirs.steps),
            None => explanation.steps.push(mesh_model::admin::ExplainStep {
                step: "far-policy".to_owned(),
                host: far.host_name,
                what: "the far host did not answer, so its part is not known".to_owned(),
                because: "control connection".to_owned(),
                state: "warning".to_owned(),
            }),
        }
    }
    Ok(explanation)
}

/// `GET /v1/why/{id}`: every host is asked; the failing request's own hosts have the records.
pub(super) async fn why(daemon: &Daemon, id: &str) -> Outcome<Why> {
    let running = joined(daemon)?;
    let id = id.rsplit_once("id=").map_or(id, |(_, id)| id).trim();
    if id.len() != 32 || !id.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(refuse(
            400,
            "bad-id",
            format!("{id:?} is not the id of a request"),
            "copy the 32 digits behind id= in the mesh-error header",
        ));
    }
    let mut records = running.failures(id);
    let mut silent = Vec::new();
    for (host, answer) in ask_all(&running, id).await {
        match answer {
            Some(found) => records.extend(found),
            None => silent.push(host),
        }
    }
    records.sort_by_key(|record| record.time_ms);
    if records.is_empty() && silent.is_empty() {
        return Err(refuse(
            404,
            "unknown-id",
            format!("no host remembers a request {id}"),
            "records are kept for the last 10,000 failures of each host, and not over a restart",
        ));
    }
    Ok(Why {
        id: id.to_owned(),
        records,
        silent,
    })
}

async fn ask_all(running: &Arc<Running>, id: &str) -> Vec<(String, Option<Vec<FailureRecord>>)> {
    let catalog = running.cluster.catalog();
    let own = catalog.mesh.as_ref().map(|mesh| mesh.host);
    let others = catalog
        .hosts
        .iter()
        .filter(|(host, facts)| Some(**host) != own && is_alive(facts))
        .map(|(host, facts)| (*host, host_name(facts, *host)));
    join_all(others.map(|(host, name)| async move { (name, ask(running, host, id).await) })).await
}

async fn ask(running: &Running, host: HostId, id: &str) -> Option<Vec<FailureRecord>> {
    let body = Bytes::copy_from_slice(id.as_bytes());
    let answer = running
        .cluster
        .call(host, WHY_KIND, body, FAR_DEADLINE)
        .await
        .ok()?;
    serde_json::from_slice(&answer).ok()
}

/// `POST /v1/curl`: one call as a local service, through the data plane's internal listener.
pub(super) async fn curl(daemon: &Daemon, request: &Curl) -> Outcome<CurlAnswer> {
    let running = joined(daemon)?;
    let bad = |what: String| {
        refuse(
            400,
            "bad-request",
            what,
            "write `meshctl curl --as SERVICE http://name/path`",
        )
    };
    let from = if request.from.is_empty() {
        None
    } else {
        let service = ServiceId::parse(&request.from).map_err(|error| bad(error.to_string()))?;
        if !running
            .reader
            .load()
            .callers
            .by_service
            .contains_key(&service)
        {
            return Err(refuse(
                404,
                "unknown-caller",
                format!("{service} is no service of this host"),
                "see `meshctl services`, and ask the host that runs it",
            ));
        }
        Some(service)
    };
    let call = make_request(request, from.as_ref()).map_err(bad)?;
    let address = running.internal_address();
    let started = std::time::Instant::now();
    let exchange = async {
        let stream = TcpStream::connect(address)
            .await
            .map_err(|error| error.to_string())?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|error| error.to_string())?;
        let driven = daemon.ground.tasks.spawn(async move {
            drop(connection.await);
        });
        let answer = sender
            .send_request(call)
            .await
            .map_err(|error| error.to_string())?;
        let (parts, body) = answer.into_parts();
        let body = Limited::new(body, CURL_BODY)
            .collect()
            .await
            .map(http_body_util::Collected::to_bytes);
        driven.abort();
        Ok::<_, String>((parts, body.unwrap_or_default()))
    };
    let (parts, body) = tokio::time::timeout(CURL_DEADLINE, exchange)
        .await
        .map_err(|_late| {
            refuse(
                504,
                "curl-timeout",
                "no answer within 60 s",
                "see `meshctl explain` for the same call",
            )
        })?
        .map_err(|error| refuse(502, "curl-failed", error, "see `meshctl status`"))?;
    let total = u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX);
    Ok(curl_answer(&parts, &body, total))
}

fn make_request(
    request: &Curl,
    from: Option<&ServiceId>,
) -> Result<hyper::Request<Full<Bytes>>, String> {
    let uri: hyper::Uri = request
        .url
        .parse()
        .map_err(|error| format!("{}: {error}", request.url))?;
    if uri.scheme_str() != Some("http") {
        return Err(format!(
            "{}: only http:// can be called; the mesh adds the encryption",
            request.url
        ));
    }
    let host = uri
        .authority()
        .ok_or_else(|| format!("{} names no host", request.url))?
        .to_string();
    let method = if request.method.is_empty() {
        "GET"
    } else {
        &request.method
    };
    let mut call = hyper::Request::builder()
        .method(method)
        .uri(uri.clone())
        .header("host", host);
    if let Some(from) = from {
        call = call.header("mesh-as", from.to_string());
    }
    for (name, value) in &request.headers {
        call = call.header(name, value);
    }
    call.body(Full::new(Bytes::from(request.body.clone())))
        .map_err(|error| error.to_string())
}

fn curl_answer(parts: &http::response::Parts, body: &Bytes, total_us: u64) -> CurlAnswer {
    let text = |name: &str| {
        parts
            .headers
            .get(name)
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default()
            .to_owned()
    };
    CurlAnswer {
        status: parts.status.as_u16(),
        headers: parts
            .headers
            .iter()
            .filter(|(name, _)| !OURS.contains(&name.as_str()))
            .map(|(name, value)| {
                (
                    name.to_string(),
                    String::from_utf8_lossy(value.as_bytes()).into_owned(),
                )
            })
            .collect(),
        body: String::from_utf8_lossy(body).into_owned(),
        endpoint: text("mesh-endpoint"),
        peer: text("mesh-peer"),
        route: text("mesh-route"),
        mesh_us: text("mesh-time-us").parse().unwrap_or_default(),
        total_us,
    }
}
