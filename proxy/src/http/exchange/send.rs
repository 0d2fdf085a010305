//! The phases pick and send: one try after another until an answer's head is there.

use std::{future::poll_fn, sync::Arc, task::Poll, time::Instant};

use mesh_model::{
    address,
    snapshot::{EndpointKey, Snapshot},
};
use smallvec::SmallVec;

use super::{Exchange, Stop};
use crate::{
    failure::{Blame, Code, Failure},
    http::{
        body::BodyEvent,
        buffers::{self, Messages},
        carrier::Carrier,
        relay::Flow,
        retry,
        route::{self, To, Way},
        wire::{Wire, WriteError},
    },
    upstream::{Failed, H2Handle, Picked, RetryPermit, Wish},
};
use connect::connect;
use wait::Wrong;
pub(super) use wait::{poll_gone, poll_upload};

/// Opens connections and streams.
mod connect;
/// Waits for the head of an answer.
mod wait;

/// Dead kept connections that may be met before one counts as a try.
const STALE_LIMIT: u32 = 4;

/// The side that answers.
#[derive(Debug)]
pub(crate) struct Up {
    /// Its bytes.
    pub wire: Wire,
    /// The request's body on its way there.
    pub upload: Flow,
    /// Why it takes no more of the body; its answer may still come.
    pub refused: Option<WriteError>,
    /// True when it is another daemon.
    pub daemon: bool,
    /// Counts as load while the exchange lasts.
    pub picked: Option<Picked>,
    reused: bool,
    /// The right on a shared connection, kept to the end of the exchange.
    _handle: Option<H2Handle>,
    interims: u32,
}

/// A try that failed.
struct Missed {
    failure: Failure,
    blame: Option<Failed>,
    /// The kept connection was dead: nothing was processed, or nothing that may not be done twice.
    stale: bool,
}

/// Tries until there is an answer's head in `messages.response`.
pub(crate) async fn tries(
    exchange: &mut Exchange<'_>,
    snapshot: &Snapshot,
    way: &Way<'_>,
) -> Result<Up, Stop> {
    let mut tried = SmallVec::<[EndpointKey; 4]>::new();
    let mut left = if matches!(way.to, To::Backend(_)) {
        way.retry.attempts
    } else {
        0
    };
    let mut stale = STALE_LIMIT;
    // Held by the try that it allows.
    let mut permit: Option<RetryPermit> = None;
    loop {
        let since = Instant::now();
        let picked = pick(exchange, snapshot, way, &tried)?;
        let key = picked.as_ref().map(|picked| picked.endpoint.key);
        let by = way
            .timeouts
            .backend_request
            .and_then(|bound| since.checked_add(bound));
        match attempt(exchange, way, picked, by).await? {
            Ok(up) => {
                match judge(exchange, way, up, left, since).await {
                    Ok(up) => return Ok(up),
                    Err(further) => permit = Some(further),
                }
            }
            Err(missed) if missed.stale && stale > 0 => {
                stale -= 1;
                exchange.replay.rewind();
                continue;
            }
            Err(missed) => {
                let request = &exchange.messages.request;
                let again = retry::after_failure(&missed.failure, way.retry, request);
                if !again || !may_repeat(exchange) || left == 0 {
                    return Err(missed.failure.into());
                }
                permit = budgeted(exchange, way);
                if permit.is_none() {
                    let what = format!("the retry budget is spent, after: {}", missed.failure.what);
                    return Err(Failure::new(Code::RetryBudget, what).into());
                }
            }
        }
        left = left.saturating_sub(1);
        tried.extend(key);
        exchange.story.retries += 1;
        exchange.replay.rewind();
        pause(exchange, way).await?;
    }
}

/// An answer's head is there: is it the one, or is it thrown away and tried again with a permit?
async fn judge(
    exchange: &mut Exchange<'_>,
    way: &Way<'_>,
    up: Up,
    left: u32,
    since: Instant,
) -> Result<Up, RetryPermit> {
    let Messages { request, response } = &*exchange.messages;
    let far = up.daemon.then(|| retry::far_code(response)).flatten();
    if let Some(picked) = &up.picked {
        match far {
            Some(Code::ConnectFailed | Code::UnknownService | Code::Draining | Code::NotReady) => {
                picked.failed(Failed::Program);
            }
            _ => {
                let grpc = response.grpc.then(|| response.grpc_status()).flatten();
                let grpc = grpc.map(|status| u8::try_from(status).unwrap_or(u8::MAX));
                picked.answered(response.status, grpc, since.elapsed());
            }
        }
    }
    let again = left > 0
        && retry::after_answer(response, up.daemon, way.retry, request)
        && may_repeat(exchange);
    let Some(permit) = again.then(|| budgeted(exchange, way)).flatten() else {
        exchange.story.far_code = far;
        return Ok(up);
    };
    let response = &exchange.messages.response;
    let what = match (far, response.grpc_status()) {
        (Some(code), _) => format!("its host answered {}", code.as_str()),
        (None, Some(status)) if response.grpc => format!("answered grpc-status {status}"),
        (None, _) => format!("answered {}", response.status),
    };
    exchange.story.tried(&what, since);
    discard(exchange, up).await;
    Err(permit)
}

/// Takes a retry from the budget.
fn budgeted(exchange: &Exchange<'_>, way: &Way<'_>) -> Option<RetryPermit> {
    match way.to {
        To::Backend(backend) => exchange.session.worker.upstream.retry(backend),
        To::Direct(_) | To::Local(_) => None,
    }
}

fn may_repeat(exchange: &Exchange<'_>) -> bool {
    !exchange.messages.request.has_body() || exchange.replay.is_whole()
}

/// Waits between two tries, no longer than the request may take.
async fn pause(exchange: &mut Exchange<'_>, way: &Way<'_>) -> Result<(), Stop> {
    let until = Instant::now() + retry::pause(way.retry, exchange.story.retries);
    let by = exchange.bound(Some(until));
    poll_fn(|cx| exchange.alarm.poll(cx, by)).await;
    if by < Some(until) {
        Err(exchange.late())
    } else {
        Ok(())
    }
}

/// Picks an endpoint; none for a local program.
fn pick(
    exchange: &mut Exchange<'_>,
    snapshot: &Snapshot,
    way: &Way<'_>,
    tried: &[EndpointKey],
) -> Result<Option<Picked>, Failure> {
    let upstream = &exchange.session.worker.upstream;
    exchange.story.peer = None;
    let picked = match way.to {
        To::Local(port) => {
            exchange.story.program = Some(port.target);
            return Ok(None);
        }
        To::Direct(direct) => upstream.direct(direct),
        To::Backend(backend) => {
            let wish = Wish {
                tried,
                ..Wish::default()
            };
            upstream.pick(backend, &wish).ok_or_else(|| {
                let what = format!("{} has no routable endpoint", backend.service);
                Failure::new(Code::NoEndpoint, what)
            })?
        }
    };
    let endpoint = &picked.endpoint;
    exchange.story.endpoint = Some(Arc::clone(endpoint));
    if endpoint.local
        && let Some(caller) = way.caller
    {
        let address = address::canonical(endpoint.address);
        route::local_call(
            snapshot,
            address,
            &caller.principal,
            &exchange.messages.request,
        )?;
    }
    Ok(Some(picked))
}

/// One try: connects, sends, waits for the head of the answer.
async fn attempt(
    exchange: &mut Exchange<'_>,
    way: &Way<'_>,
    picked: Option<Picked>,
    by: Option<Instant>,
) -> Result<Result<Up, Missed>, Stop> {
    let since = Instant::now();
    let mut up = match connect(exchange, way, picked, by).await? {
        Ok(up) => up,
        Err((missed, picked)) => {
            exchange.story.tried(&missed.failure.what, since);
            if let (Some(picked), Some(blame)) = (picked, missed.blame) {
                picked.failed(blame);
            }
            return Ok(Err(missed));
        }
    };
    let sent = Instant::now();
    let answered = poll_fn(|cx| wait::poll_answer(exchange, &mut up, cx, by)).await;
    exchange.story.received += up.upload.bytes;
    exchange.story.waited += sent.elapsed();
    match answered {
        Ok(()) => Ok(Ok(up)),
        Err(Wrong::Stop(Stop::Failed(failure))) if failure.blame() == Blame::Upstream => {
            let blame = match failure.code {
                Code::UpstreamTimeout | Code::RequestTimeout => Failed::Timeout,
                _ => Failed::Reset,
            };
            if let Some(picked) = &up.picked {
                picked.failed(blame);
            }
            exchange.story.tried(&failure.what, since);
            if failure.code == Code::RequestTimeout {
                return Err(failure.into());
            }
            Ok(Err(Missed {
                failure,
                blame: None,
                stale: false,
            }))
        }
        Err(Wrong::Stop(stop)) => Err(stop),
        Err(Wrong::Dead(what)) => {
            // A kept connection may be replaced when nothing can have been done twice.
            let harmless = exchange.messages.request.is_idempotent();
            let stale = up.reused && harmless && may_repeat(exchange);
            if !stale {
                if let Some(picked) = &up.picked {
                    picked.failed(Failed::Reset);
                }
                exchange.story.tried(&what, since);
            }
            let failure = Failure::new(Code::UpstreamReset, what);
            Ok(Err(Missed {
                failure,
                blame: None,
                stale,
            }))
        }
    }
}

/// Ends a side whose answer is not used: kept when its body is at hand, closed otherwise.
async fn discard(exchange: &Exchange<'_>, mut up: Up) {
    let whole = poll_fn(|cx| {
        Poll::Ready(loop {
            match up.wire.poll_body(cx) {
                Poll::Ready(Ok(BodyEvent::Data { length, .. })) => up.wire.consume(length),
                Poll::Ready(Ok(BodyEvent::End)) => break true,
                Poll::Ready(Err(_)) | Poll::Pending => break false,
            }
        })
    })
    .await;
    if whole {
        give_back(exchange, up);
    }
}

/// Gives a connection back to the pool if another exchange may follow on it.
pub(crate) fn give_back(exchange: &Exchange<'_>, up: Up) {
    let persistent = exchange.messages.response.persistent;
    if let Wire::H1(wire) = up.wire
        && persistent
        && up.refused.is_none()
        && wire.is_reusable()
    {
        let (carrier, input, output) = wire.into_parts();
        buffers::put(input);
        buffers::put(output);
        if let Carrier::Lent(lent) = carrier {
            exchange.session.worker.upstream.give_back(lent);
        }
    }
}
