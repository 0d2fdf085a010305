//! The phases pick and send: one try after another until an answer's head is there.

use std::{
    future::poll_fn,
    sync::Arc,
    task::Poll,
    time::{Duration, Instant},
};

use mesh_model::{
    address,
    snapshot::{Caller, EndpointKey, InboundPort, Snapshot, traffic::Balance},
};
use smallvec::SmallVec;

use super::{Exchange, Stop, acting};
use crate::{
    failure::{Blame, Code, Failure, Retry},
    http::{
        alarm,
        asked::Asked,
        body::BodyEvent,
        buffers::{self, Messages},
        carrier::Carrier,
        deadline, hash, message,
        relay::Flow,
        retry::{self, Again},
        route::{self, To, Way},
        wire::{Wire, WriteError},
    },
    upstream::{Failed, H2Handle, Picked, RetryPermit, Wish},
};
use connect::connect;
pub(super) use copies::{copy, give_up};
use wait::Wrong;
pub(super) use wait::{poll_gone, poll_upload};

/// A copy of a request, sent beside it.
mod aside;
/// Opens connections and streams.
mod connect;
/// Which requests are copied, and when.
mod copies;
/// A second try beside a slow one.
mod hedge;
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
    /// The right to this try, when it is a further one.
    permit: Option<RetryPermit>,
    reused: bool,
    /// When its answer's head was there.
    answered: Option<Instant>,
    /// The right on a shared connection, kept to the end of the exchange.
    handle: Option<H2Handle>,
    interims: u32,
}

/// A try that failed.
struct Missed {
    failure: Failure,
    blame: Option<Failed>,
    /// The kept connection was dead: nothing was processed, or nothing that may not be done twice.
    stale: bool,
}

/// How a try went that did not end the exchange.
type Tried = Result<Box<Up>, Missed>;

/// The way from one try to the next.
struct Course {
    /// Endpoints that had their try.
    tried: SmallVec<[EndpointKey; 4]>,
    /// Tries that are left.
    left: u32,
    /// Dead kept connections that may still be met.
    stale: u32,
    /// Number of the request's hash key.
    hash: Option<u64>,
    /// Held by the try that it allows.
    permit: Option<RetryPermit>,
}

/// Tries until there is an answer's head in `messages.response`.
pub(crate) async fn tries(
    exchange: &mut Exchange<'_>,
    snapshot: &Snapshot,
    way: &Way<'_>,
) -> Result<Box<Up>, Stop> {
    let mut course = begin(exchange, way);
    loop {
        let picked = pick(exchange, snapshot, way, &course)?;
        let since = picked.as_ref().map_or_else(Instant::now, Picked::since);
        let before = course.tried.len();
        course
            .tried
            .extend(picked.as_ref().map(|picked| picked.endpoint.key));
        let by = announce(exchange, way, since);
        let tried = match way.hedge_after() {
            Some(after) if course.left > 0 => {
                let tries = hedge::attempt(exchange, snapshot, way, &mut course, picked, by, after);
                // Few requests are hedged: the others need no room for it.
                Box::pin(tries).await?
            }
            _ => attempt(exchange, way, picked, by, since).await?,
        };
        let pause = match tried {
            Ok(up) => match judge(exchange, way, up, &mut course, since).await {
                Ok(up) => return Ok(up),
                Err(pause) => pause,
            },
            Err(missed) if missed.stale && course.stale > 0 => {
                course.stale -= 1;
                course.tried.truncate(before);
                exchange.replay.rewind();
                continue;
            }
            Err(missed) => again(exchange, way, missed, &mut course)?,
        };
        course.left = course.left.saturating_sub(1);
        exchange.story.retries += 1;
        exchange.replay.rewind();
        self::pause(exchange, pause).await?;
    }
}

/// What a request's tries have in common.
fn begin(exchange: &mut Exchange<'_>, way: &Way<'_>) -> Course {
    let mut course = Course {
        tried: SmallVec::new(),
        left: 0,
        stale: STALE_LIMIT,
        hash: None,
        permit: None,
    };
    if let To::Backend(backend) = way.to {
        course.left = way.retry.attempts;
        if let Balance::RingHash { .. } | Balance::Maglev { .. } = &backend.policy.balance {
            let source = acting::source(&exchange.session.origin, None).address;
            let request = &exchange.messages.request;
            let found = hash::of(&backend.policy.balance, request, source, || {
                fastrand::u64(..)
            });
            course.hash = found.number;
            exchange.acting_on(found.cookie);
        }
    }
    course
}

/// Tells the next hop how many tries came before and how much time is left; the bound on this try.
fn announce(exchange: &mut Exchange<'_>, way: &Way<'_>, since: Instant) -> Option<Instant> {
    let by = way
        .timeouts
        .backend_request
        .and_then(|bound| since.checked_add(bound));
    let (deadline, before) = (exchange.deadline, exchange.story.retries);
    let request = &mut exchange.messages.request;
    if request.wishes.grpc {
        if let Some(until) = alarm::earlier(deadline, by).filter(|_| deadline.is_some()) {
            deadline::tell(request, until.saturating_duration_since(since));
        }
        retry::tell_tries(request, before);
    }
    by
}

/// A try failed: how long to wait before the next one, or that there is none.
fn again(
    exchange: &Exchange<'_>,
    way: &Way<'_>,
    missed: Missed,
    course: &mut Course,
) -> Result<Duration, Failure> {
    let request = &exchange.messages.request;
    let again = course.left > 0
        && retry::after_failure(&missed.failure, way.retry, request)
        && may_repeat(exchange);
    let pause = again
        .then(|| pause_for(exchange, way, Again::Usual))
        .flatten();
    let Some(pause) = pause else {
        return Err(missed.failure);
    };
    // The try before is over: its place may be the last that there is.
    course.permit = None;
    course.permit = budgeted(exchange, way);
    if course.permit.is_none() {
        let what = format!("the retry budget is spent, after: {}", missed.failure.what);
        return Err(Failure::new(Code::RetryBudget, what));
    }
    Ok(pause)
}

/// An answer's head is there: is it the one, or is it thrown away and tried again after a pause?
async fn judge(
    exchange: &mut Exchange<'_>,
    way: &Way<'_>,
    mut up: Box<Up>,
    course: &mut Course,
    since: Instant,
) -> Result<Box<Up>, Duration> {
    let looks = course.left > 0 && retry::looks_at_trailers(way.retry, &exchange.messages.response);
    if looks {
        poll_fn(|cx| {
            up.wire.peek_trailers(cx);
            Poll::Ready(())
        })
        .await;
    }
    let Messages { request, response } = &*exchange.messages;
    let trailers = up.wire.trailers().filter(|_| looks);
    let far = up.daemon.then(|| retry::far_code(response)).flatten();
    let grpc = response.grpc.then(|| response.grpc_status()).flatten();
    let grpc = grpc.or_else(|| trailers.and_then(message::grpc_status));
    // A request that the program has not looked at says nothing about it.
    if !(far.is_some() && retry::left_out(response)) {
        report(&up, far, response.status, grpc, since);
    }
    let pause = (course.left > 0)
        .then(|| retry::after_answer(response, trailers, up.daemon, way.retry, request))
        .flatten()
        .filter(|_| may_repeat(exchange))
        .and_then(|again| pause_for(exchange, way, again));
    // A permit is taken last: one that is not used would count against the budget.
    let permit = pause.and_then(|_| {
        // The try before is over: its place may be the last that there is.
        course.permit = None;
        budgeted(exchange, way)
    });
    let (Some(pause), Some(permit)) = (pause, permit) else {
        exchange.story.far_code = far;
        up.permit = course.permit.take();
        return Ok(up);
    };
    course.permit = Some(permit);
    let what = match (far, grpc) {
        (Some(code), _) => format!("its host answered {}", code.as_str()),
        (None, Some(status)) => format!("answered grpc-status {status}"),
        (None, None) => format!("answered {}", response.status),
    };
    exchange.story.tried(&what, since);
    Box::pin(discard(exchange, up)).await;
    Err(pause)
}

/// What an answer means for its endpoint.
fn report(up: &Up, far: Option<Code>, status: u16, grpc: Option<u8>, since: Instant) {
    let Some(picked) = &up.picked else { return };
    if let Some(Code::ConnectFailed | Code::UnknownService | Code::Draining | Code::NotReady) = far
    {
        return picked.failed(Failed::Program);
    }
    let at = up.answered.unwrap_or_else(Instant::now);
    picked.answered(status, grpc, at, at.saturating_duration_since(since));
}

/// The pause before the next try; none when it does not fit into the request's time.
fn pause_for(exchange: &Exchange<'_>, way: &Way<'_>, again: Again) -> Option<Duration> {
    let left = exchange.deadline;
    let left = left.map(|until| until.saturating_duration_since(Instant::now()));
    retry::pause(way.retry, exchange.story.retries + 1, again, left)
}

/// Takes a retry from the budget.
fn budgeted(exchange: &Exchange<'_>, way: &Way<'_>) -> Option<RetryPermit> {
    match way.to {
        To::Backend(backend) => exchange.session.worker.upstream.retry(backend),
        To::Direct(_) | To::Local(_) | To::Nowhere(..) => None,
    }
}

fn may_repeat(exchange: &Exchange<'_>) -> bool {
    !exchange.messages.request.has_body() || exchange.replay.is_whole()
}

/// Waits between two tries, while the caller does.
async fn pause(exchange: &mut Exchange<'_>, pause: Duration) -> Result<(), Stop> {
    let until = Instant::now().checked_add(pause);
    poll_fn(|cx| {
        if let Err(stop) = poll_gone(exchange, cx) {
            return Poll::Ready(Err(stop));
        }
        let by = exchange.bound(until);
        exchange.alarm.poll(cx, by).map(|()| {
            if by < until {
                Err(exchange.late())
            } else {
                Ok(())
            }
        })
    })
    .await
}

/// Picks an endpoint; none for a local program.
fn pick(
    exchange: &mut Exchange<'_>,
    snapshot: &Snapshot,
    way: &Way<'_>,
    course: &Course,
) -> Result<Option<Picked>, Failure> {
    let upstream = &exchange.session.worker.upstream;
    exchange.story.peer = None;
    let picked = match way.to {
        To::Local(port) => {
            exchange.story.program = Some(port.target);
            return Ok(None);
        }
        To::Nowhere(status, code, reason) => return Err(route::nowhere(status, code, reason)),
        To::Direct(direct) => upstream.direct(direct),
        To::Backend(backend) => {
            let wish = Wish {
                tried: &course.tried,
                hash: course.hash,
                held: way.session.and_then(|(_, endpoint)| endpoint),
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
        if let Some(port) = route::local_port(snapshot, address) {
            local_call(exchange, caller, port)?;
        }
    }
    Ok(Some(picked))
}

/// Whether a caller on this host may call a program of this host, now: as any other caller.
fn local_call(
    exchange: &mut Exchange<'_>,
    caller: &Caller,
    port: &InboundPort,
) -> Result<(), Failure> {
    let request = &exchange.messages.request;
    let principal = Some(&caller.principal);
    route::authorized(&port.authorization, principal, port, request)?;
    if port.limits.is_empty() {
        return Ok(());
    }
    let session = exchange.session;
    let asked = Asked::new(request, acting::source(&session.origin, Some(caller)));
    let counted = session.worker.limits.request(&port.limits, &asked);
    exchange.counted(counted)
}

/// One try, which begins at `since`: connects, sends, waits for the head of the answer.
async fn attempt(
    exchange: &mut Exchange<'_>,
    way: &Way<'_>,
    picked: Option<Picked>,
    by: Option<Instant>,
    since: Instant,
) -> Result<Tried, Stop> {
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
    let now = Instant::now();
    up.answered = Some(now);
    exchange.story.waited += now.saturating_duration_since(sent);
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
        Err(Wrong::LeftOut(what)) => {
            // The connection is over and nobody's fault: another one will do, whatever the method.
            if let Some(handle) = &up.handle {
                handle.refuses();
            }
            exchange.story.tried(&what, since);
            Ok(Err(Missed {
                failure: Failure::new(Code::UpstreamReset, what).with_retry(Retry::Safe),
                blame: None,
                stale: may_repeat(exchange),
            }))
        }
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
async fn discard(exchange: &Exchange<'_>, mut up: Box<Up>) {
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
pub(crate) fn give_back(exchange: &Exchange<'_>, up: Box<Up>) {
    let up = *up;
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
