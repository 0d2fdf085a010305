//! The last part of a request's life: the answer goes to the caller, whoever made it.

use std::{
    future::poll_fn,
    task::{Context, Poll, ready},
    time::Instant,
};

use mesh_model::snapshot::{decide::RequestView as _, rule::DirectResponse};

use super::{
    Ended, Exchange, Stop,
    send::{self, Up},
    switch,
};
use crate::failure::{Code, Failure};
use crate::http::{
    alarm,
    body::BodyEvent,
    buffers::Messages,
    date,
    h1::write::{self, ResponseExtras},
    headers,
    message::{Framing, Response, Version},
    persistence,
    relay::{Flow, RelayError},
    replay::Replay,
    reply,
    route::Way,
    story, upgrade,
    wire::{Wire, WriteError},
};

/// Most bytes of a body that are read in vain.
const FORGOTTEN: usize = 256 * 1024;

/// Passes an answer on, and what is left of the request.
pub(crate) async fn answer(
    exchange: &mut Exchange<'_>,
    way: &Way<'_>,
    mut up: Box<Up>,
) -> Result<Ended, Stop> {
    if switch::is_agreed(exchange, &up) {
        // Few requests do it: the others need no room for it.
        return Box::pin(switch::switch(exchange, up)).await;
    }
    let Messages { request, response } = &*exchange.messages;
    upgrade::check_ordinary(request, response)?;
    headers::clean_response(&mut exchange.messages.response, up.daemon);
    exchange.filter_answer(way);
    keep_session(exchange, way, &up);
    tell(exchange);
    let response = &exchange.messages.response;
    exchange.story.grpc_status = response.grpc_status();
    let framing = framing_for(response, exchange.messages.request.version);
    let persistent = begin(exchange, framing);
    let received = up.upload.bytes;
    let mut download = if framing == Framing::None {
        let flow = Flow::without_body();
        if let Err(error) = exchange.down.finish(None) {
            tracing::trace!(%error, "an answer without a body was not ended");
        }
        flow
    } else {
        Flow {
            trusted: up.daemon,
            ..Flow::default().at(exchange.rate())
        }
    };
    let mut kept = Replay::off();
    exchange.replay.stop();
    exchange.idle = exchange
        .idle
        .or(Some(exchange.session.worker.config.limits.answer_idle));
    let passed = poll_fn(|cx| poll_pass(exchange, &mut up, &mut download, &mut kept, cx)).await;
    exchange.story.sent = download.bytes;
    exchange.story.received += up.upload.bytes - received;
    exchange.story.grpc_status = download.grpc_status.or(exchange.story.grpc_status);
    match passed {
        Ok(()) => {
            send::give_back(exchange, up);
            Ok(if persistent {
                Ended::Keep
            } else {
                Ended::Close
            })
        }
        Err(Stop::Failed(failure)) => Ok(cut(exchange, failure, framing)),
        Err(Stop::Gone) => Err(Stop::Gone),
    }
}

/// Tells the caller which endpoint has its session, when it does not know or the session has moved.
fn keep_session(exchange: &mut Exchange<'_>, way: &Way<'_>, up: &Up) {
    if let Some((session, held)) = way.session
        && let Some(picked) = &up.picked
        && held != Some(picked.endpoint.key)
    {
        let fields = &mut exchange.messages.response.fields;
        persistence::issue(session, picked.endpoint.key, fields);
    }
}

/// Moves both bodies on until the answer is whole.
fn poll_pass(
    exchange: &mut Exchange<'_>,
    up: &mut Up,
    download: &mut Flow,
    kept: &mut Replay,
    cx: &mut Context<'_>,
) -> Poll<Result<(), Stop>> {
    if let Err(stop) = send::poll_upload(exchange, up, cx) {
        return Poll::Ready(Err(match stop {
            // The answer has begun; a second one cannot be given.
            Stop::Failed(_) | Stop::Gone => Stop::Gone,
        }));
    }
    match download.poll(cx, &mut up.wire, exchange.down, kept) {
        Poll::Ready(Ok(())) => return Poll::Ready(Ok(())),
        Poll::Ready(Err(RelayError::Write(WriteError::Short))) => {
            let failure = Failure::new(Code::BadResponse, "the body is shorter than announced");
            return Poll::Ready(Err(failure.into()));
        }
        Poll::Ready(Err(RelayError::Write(_))) => return Poll::Ready(Err(Stop::Gone)),
        Poll::Ready(Err(RelayError::Read(fault))) => {
            if let (Wire::H2(down), Some(reason)) = (&mut *exchange.down, fault.reason()) {
                down.reset(reason);
            }
            let failure = Failure::new(Code::UpstreamReset, format!("in the body: {fault}"));
            return Poll::Ready(Err(failure.into()));
        }
        Poll::Pending => {}
    }
    send::poll_gone(exchange, cx)?;
    let quiet = exchange.quiet_by(download.bytes + up.upload.bytes);
    let by = alarm::earlier(exchange.deadline, quiet);
    ready!(exchange.alarm.poll(cx, by));
    Poll::Ready(Err(exchange.late()))
}

/// The answer broke in its middle: the caller must see that.
fn cut(exchange: &mut Exchange<'_>, failure: Failure, framing: Framing) -> Ended {
    exchange.story.failure = Some(failure);
    match &mut *exchange.down {
        Wire::H1(_) if framing == Framing::Close => Ended::Broken,
        Wire::H1(_) => Ended::Close,
        Wire::H2(down) => {
            down.reset(h2::Reason::INTERNAL_ERROR);
            Ended::Broken
        }
    }
}

/// How the body of an answer is delimited towards a caller of the given version.
fn framing_for(response: &Response, version: Version) -> Framing {
    match (response.framing, version) {
        (Framing::Streamed | Framing::Close, Version::Http10) => Framing::Close,
        (Framing::Close, Version::Http11 | Version::Http2) => Framing::Streamed,
        (framing, _) => framing,
    }
}

/// Writes the head in `messages.response`; whether the connection stays open. Sends nothing by itself on HTTP/1.
fn begin(exchange: &mut Exchange<'_>, framing: Framing) -> bool {
    let Messages { request, response } = &mut *exchange.messages;
    exchange.story.status = response.status;
    date::add(&mut response.fields);
    match &mut *exchange.down {
        Wire::H1(down) => {
            let persistent = request.wishes.persistent
                && framing != Framing::Close
                && down.is_read()
                && !exchange.session.worker.drain.is_draining();
            let extras = ResponseExtras {
                framing,
                version: request.version,
                persistent,
            };
            down.begin(framing, |out| write::response(out, response, &extras));
            persistent
        }
        Wire::H2(down) => {
            down.send_response(response, framing == Framing::None);
            true
        }
    }
}

/// Answers a request that failed.
pub(crate) async fn failure(exchange: &mut Exchange<'_>, failure: Failure) -> Ended {
    let body = exchange.compose(&failure);
    exchange.mark_answer();
    tell(exchange);
    exchange.story.grpc_status = exchange.messages.response.grpc_status();
    if failure.code == Code::BadRequest {
        exchange.messages.request.wishes.persistent = false;
    }
    forget_body(exchange).await;
    exchange.story.failure = Some(failure);
    own(exchange, body.as_bytes()).await
}

/// Reads and forgets what is at hand of the request's body, so that its connection may be kept.
async fn forget_body(exchange: &mut Exchange<'_>) {
    poll_fn(|cx| {
        let mut left = FORGOTTEN;
        while let (Wire::H1(down), true) = (&mut *exchange.down, left > 0) {
            match down.poll_body(cx) {
                Poll::Ready(Ok(BodyEvent::Data { length, .. })) => {
                    down.consume(length);
                    left = left.saturating_sub(length);
                }
                Poll::Ready(_) | Poll::Pending => break,
            }
        }
        Poll::Ready(())
    })
    .await;
}

/// Answers with a redirect.
pub(crate) async fn redirect(
    exchange: &mut Exchange<'_>,
    way: &Way<'_>,
    status: u16,
    location: &str,
) -> Ended {
    let Messages { request, response } = &mut *exchange.messages;
    let body = reply::redirect(status, location, request, response);
    exchange.filter_answer(way);
    asked_for(exchange, body.as_bytes()).await
}

/// Answers as a rule says.
pub(crate) async fn direct(
    exchange: &mut Exchange<'_>,
    way: &Way<'_>,
    answer: &DirectResponse,
) -> Ended {
    let Messages { request, response } = &mut *exchange.messages;
    let body = reply::direct(answer, request, response);
    exchange.filter_answer(way);
    asked_for(exchange, body).await
}

/// Answers a cross-origin question.
pub(crate) async fn preflight(exchange: &mut Exchange<'_>) -> Ended {
    let response = &mut exchange.messages.response;
    if let Some(marks) = exchange
        .acting
        .as_ref()
        .and_then(|acting| acting.cors.as_ref())
    {
        marks.preflight(response);
    }
    asked_for(exchange, b"").await
}

/// Answers what may go no further: OPTIONS is told that all is well, TRACE that nothing is shown here.
pub(crate) async fn last_hop(exchange: &mut Exchange<'_>) -> Ended {
    let Messages { request, response } = &mut *exchange.messages;
    response.clear();
    response.status = 200;
    if request.method() == "TRACE" {
        response.status = 405;
        response.fields.push(b"allow", b"OPTIONS");
    }
    forget_body(exchange).await;
    own(exchange, b"").await
}

/// Sends an answer that a rule asked for.
async fn asked_for(exchange: &mut Exchange<'_>, body: &[u8]) -> Ended {
    exchange.session.worker.observe.policies().answered.add(1);
    forget_body(exchange).await;
    tell(exchange);
    own(exchange, body).await
}

/// Sends an answer of the mesh's own.
async fn own(exchange: &mut Exchange<'_>, body: &[u8]) -> Ended {
    let framing = exchange.messages.response.framing;
    let persistent = begin(exchange, framing);
    let mut rest = body;
    exchange.story.sent = rest.len() as u64;
    let by = limit(exchange);
    let sent = poll_fn(|cx| {
        while !rest.is_empty() {
            match exchange.down.poll_write(cx, rest) {
                Poll::Ready(Ok(count)) => rest = rest.get(count..).unwrap_or_default(),
                Poll::Ready(Err(_)) => return Poll::Ready(false),
                Poll::Pending => return exchange.alarm.poll(cx, by).map(|()| false),
            }
        }
        if exchange.down.finish(None).is_err() {
            return Poll::Ready(false);
        }
        match exchange.down.poll_flush(cx) {
            Poll::Ready(flushed) => Poll::Ready(flushed.is_ok()),
            Poll::Pending => exchange.alarm.poll(cx, by).map(|()| false),
        }
    })
    .await;
    match (sent, persistent) {
        (true, true) => Ended::Keep,
        (true, false) => Ended::Close,
        (false, _) => Ended::Broken,
    }
}

fn limit(exchange: &Exchange<'_>) -> Option<Instant> {
    Instant::now().checked_add(exchange.session.worker.config.limits.head)
}

/// Answers a CONNECT; false when the caller did not take it.
pub(crate) async fn connected(exchange: &mut Exchange<'_>) -> bool {
    exchange.story.status = 200;
    let by = limit(exchange);
    match &mut *exchange.down {
        Wire::H1(down) => {
            down.interject(|out| out.extend_from_slice(b"HTTP/1.1 200 OK\r\n\r\n"));
        }
        Wire::H2(down) => down.grant(),
    }
    poll_fn(|cx| match exchange.down.poll_flush(cx) {
        Poll::Ready(flushed) => Poll::Ready(flushed.is_ok()),
        Poll::Pending => exchange.alarm.poll(cx, by).map(|()| false),
    })
    .await
}

/// On the daemon's own listener the answer tells how it came about.
fn tell(exchange: &mut Exchange<'_>) {
    if !exchange.telling {
        return;
    }
    let story = &exchange.story;
    let fields = &mut exchange.messages.response.fields;
    if let Some(endpoint) = &story.endpoint {
        let host = story::host_text(&endpoint.host_name, endpoint.host);
        let text = format!("{} {} {host}", endpoint.id, endpoint.address);
        fields.push(b"mesh-endpoint", text.trim_end().as_bytes());
    }
    if let Some(peer) = &story.peer {
        fields.push(b"mesh-peer", peer.as_bytes());
    }
    if let Some(route) = &story.route {
        fields.push(b"mesh-route", story::route_text(route).as_bytes());
    }
    let inside = story.started.elapsed().saturating_sub(story.waited);
    fields.push(b"mesh-time-us", inside.as_micros().to_string().as_bytes());
}
