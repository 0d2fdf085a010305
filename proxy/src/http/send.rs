//! The phases pick and send: one try after another until an answer's head is there.

use std::{
    future::{Future as _, poll_fn},
    pin::pin,
    sync::Arc,
    task::{Context, Poll},
    time::Instant,
};

use mesh_model::{
    address,
    service::AppProtocol,
    snapshot::{EndpointKey, Snapshot, decide::RequestView as _},
};
use smallvec::SmallVec;

use super::{
    body::{BodyError, BodyEvent},
    buffers::Messages,
    carrier::Carrier,
    convert::{self, Hop},
    exchange::{Exchange, Stop},
    h1::{
        self, HeadError, ReadError,
        write::{self, RequestExtras, ResponseExtras},
    },
    headers,
    message::{Framing, Version},
    relay::{Flow, RelayError},
    retry,
    route::{self, To, Way},
    stream::{AnswerError, Stream},
    wire::{HeadFault, Wire, WriteError},
};
use crate::{
    connection::Origin,
    failure::{Blame, Code, Failure, Retry},
    upstream::{DialError, Failed, H2Handle, HttpUpstream, Picked},
};

/// Most interim answers to one request.
const INTERIM_LIMIT: u32 = 32;
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
                if let Some(up) = judge(exchange, way, up, left, since).await {
                    return Ok(up);
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
                if !budgeted(exchange, way) {
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

/// An answer's head is there: is it the one, or is it thrown away (`None`) and tried again?
async fn judge(
    exchange: &mut Exchange<'_>,
    way: &Way<'_>,
    up: Up,
    left: u32,
    since: Instant,
) -> Option<Up> {
    let Messages { request, response } = &*exchange.messages;
    let far = up.daemon.then(|| retry::far_code(response)).flatten();
    if let Some(picked) = &up.picked {
        match far {
            Some(Code::ConnectFailed | Code::UnknownService | Code::Draining | Code::NotReady) => {
                picked.failed(Failed::Program);
            }
            _ if response.status >= 500 => picked.failed(Failed::Answer),
            _ => picked.succeeded(since.elapsed()),
        }
    }
    let again = left > 0
        && retry::after_answer(response, up.daemon, way.retry, request)
        && may_repeat(exchange);
    if !again || !budgeted(exchange, way) {
        exchange.story.far_code = far;
        return Some(up);
    }
    let response = &exchange.messages.response;
    let what = match (far, response.grpc_status()) {
        (Some(code), _) => format!("its host answered {}", code.as_str()),
        (None, Some(status)) if response.grpc => format!("answered grpc-status {status}"),
        (None, _) => format!("answered {}", response.status),
    };
    exchange.story.tried(&what, since);
    discard(exchange, up).await;
    None
}

/// Takes a retry from the budget.
fn budgeted(exchange: &Exchange<'_>, way: &Way<'_>) -> bool {
    match way.to {
        To::Backend(backend) => exchange.session.worker.upstream.withdraw(backend),
        To::Direct(_) | To::Local(_) => false,
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
        To::Backend(backend) => upstream.pick(backend, tried).ok_or_else(|| {
            let what = format!("{} has no routable endpoint", backend.service);
            Failure::new(Code::NoEndpoint, what)
        })?,
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
    let answered = poll_fn(|cx| poll_answer(exchange, &mut up, cx, by)).await;
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

/// Opens, or takes from the pool, and writes the head.
async fn connect(
    exchange: &mut Exchange<'_>,
    way: &Way<'_>,
    picked: Option<Picked>,
    by: Option<Instant>,
) -> Result<Result<Up, (Missed, Option<Picked>)>, Stop> {
    let protocol = route::spoken(way.protocol, &exchange.messages.request, &exchange.words);
    let dialled = dial(exchange, way, picked.as_ref(), protocol, by).await?;
    let opened = match dialled {
        Ok(HttpUpstream::H1(lent)) => {
            let reused = lent.reused;
            Ok(open_h1(exchange, way, lent, reused))
        }
        Ok(HttpUpstream::H2(handle)) => open_h2(exchange, way, picked.as_ref(), handle, by).await?,
        Err(error) => Err(not_reached(&error)),
    };
    Ok(match opened {
        Ok(mut up) => {
            up.picked = picked;
            Ok(up)
        }
        Err(missed) => Err((missed, picked)),
    })
}

async fn dial(
    exchange: &mut Exchange<'_>,
    way: &Way<'_>,
    picked: Option<&Picked>,
    protocol: AppProtocol,
    by: Option<Instant>,
) -> Result<Result<HttpUpstream, DialError>, Stop> {
    let upstream = &exchange.session.worker.upstream;
    let by = exchange.bound(by);
    let source = match &*exchange.session.origin {
        Origin::Inbound(origin) if origin.server_name.is_none() => Some(origin.peer.ip()),
        _ => None,
    };
    let mut dial = pin!(async {
        match (way.to, picked, way.caller) {
            (To::Local(port), ..) => upstream.local(port, protocol, source).await,
            (_, Some(picked), Some(caller)) => upstream.http(picked, caller, protocol).await,
            _ => Err(DialError::NoIdentity),
        }
    });
    let dialled = poll_fn(|cx| {
        if let Poll::Ready(dialled) = dial.as_mut().poll(cx) {
            return Poll::Ready(Some(dialled));
        }
        exchange.alarm.poll(cx, by).map(|()| None)
    })
    .await;
    dialled.ok_or_else(|| exchange.late())
}

fn not_reached(error: &DialError) -> Missed {
    let code = Code::parse(error.code()).unwrap_or(Code::ConnectFailed);
    let again = if error.may_retry() {
        Retry::Safe
    } else {
        Retry::Never
    };
    let failure = Failure::new(code, causes(error)).with_retry(again);
    Missed {
        failure,
        blame: error.blame(),
        stale: false,
    }
}

/// An error with its causes, for `why`.
fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        next = cause.source();
    }
    text
}

fn open_h1(
    exchange: &mut Exchange<'_>,
    way: &Way<'_>,
    mut lent: crate::upstream::H1Connection,
    reused: bool,
) -> Up {
    let input = std::mem::take(&mut lent.buffer);
    let mut wire = h1::Connection::new(Carrier::Lent(lent), input);
    wire.expect_response();
    forward(exchange, way);
    let request = &exchange.messages.request;
    let extras = RequestExtras {
        default_host: way.service.name.as_str(),
        expect: request.wishes.expects_continue,
    };
    wire.begin(framing(exchange), |out| {
        write::request(out, request, &extras);
    });
    Up {
        wire: Wire::H1(wire),
        upload: upload(exchange),
        refused: None,
        daemon: false,
        picked: None,
        reused,
        _handle: None,
        interims: 0,
    }
}

/// To a place without a daemon, the client's address is told by this one.
fn forward(exchange: &mut Exchange<'_>, way: &Way<'_>) {
    if let (Origin::Outbound(origin), To::Backend(_) | To::Direct(_)) =
        (&*exchange.session.origin, way.to)
        && !std::mem::replace(&mut exchange.forwarded, true)
    {
        headers::forwarded(&mut exchange.messages.request, origin.peer.ip());
    }
}

fn framing(exchange: &Exchange<'_>) -> Framing {
    let request = &exchange.messages.request;
    if request.upgrade.is_some() {
        Framing::None
    } else {
        request.framing
    }
}

fn upload(exchange: &Exchange<'_>) -> Flow {
    if framing(exchange) == Framing::None {
        Flow::without_body()
    } else {
        Flow::default()
    }
}

async fn open_h2(
    exchange: &mut Exchange<'_>,
    way: &Way<'_>,
    picked: Option<&Picked>,
    mut handle: H2Handle,
    by: Option<Instant>,
) -> Result<Result<Up, Missed>, Stop> {
    let by = exchange.bound(by);
    let ready = poll_fn(|cx| {
        if let Poll::Ready(ready) = handle.send.poll_ready(cx) {
            return Poll::Ready(Some(ready));
        }
        exchange.alarm.poll(cx, by).map(|()| None)
    })
    .await;
    if let Err(error) = ready.ok_or_else(|| exchange.late())? {
        let failure = Failure::new(Code::ConnectFailed, causes(&error));
        return Ok(Err(Missed {
            failure,
            blame: None,
            stale: true,
        }));
    }
    if !handle.mesh {
        forward(exchange, way);
    }
    exchange.story.peer.clone_from(&handle.peer);
    let request = &exchange.messages.request;
    let id = exchange.story.id;
    let hop = picked.filter(|_| handle.mesh).map(|picked| Hop {
        target: picked.endpoint.address.port(),
        id: id.as_str(),
        http1: request.version != Version::Http2 || exchange.words.http1,
    });
    let host = way.service.name.as_str();
    let expect = request.wishes.expects_continue;
    if request.upgrade.is_some() && hop.is_none() {
        let failure = Failure::new(Code::BadRequest, "the program speaks HTTP/2: no upgrade");
        return Err(failure.with_status(501).into());
    }
    let Some(head) = convert::request_to(request, host, expect, hop.as_ref()) else {
        let failure = Failure::new(Code::BadRequest, "the request cannot be one of HTTP/2");
        return Err(failure.into());
    };
    let ended = framing(exchange) == Framing::None && request.upgrade.is_none();
    Ok(match handle.send.send_request(head, ended) {
        Ok((answer, send)) => Ok(Up {
            wire: Wire::H2(Stream::opened(answer, send, ended)),
            upload: upload(exchange),
            refused: None,
            daemon: handle.mesh,
            picked: None,
            reused: false,
            _handle: Some(handle),
            interims: 0,
        }),
        Err(error) => {
            let failure = Failure::new(Code::ConnectFailed, causes(&error));
            Err(Missed {
                failure,
                blame: None,
                stale: true,
            })
        }
    })
}

/// What went wrong while an answer was awaited.
enum Wrong {
    Stop(Stop),
    /// The connection ended before the first byte of an answer.
    Dead(String),
}

impl From<Failure> for Wrong {
    fn from(failure: Failure) -> Self {
        Self::Stop(failure.into())
    }
}

/// Sends what can be sent, passes interim answers on, until the head of the answer is there.
fn poll_answer(
    exchange: &mut Exchange<'_>,
    up: &mut Up,
    cx: &mut Context<'_>,
    by: Option<Instant>,
) -> Poll<Result<(), Wrong>> {
    if let Err(stop) = poll_upload(exchange, up, cx) {
        return Poll::Ready(Err(Wrong::Stop(stop)));
    }
    let head_request = exchange.messages.request.method() == "HEAD";
    loop {
        match up
            .wire
            .poll_response(cx, head_request, &mut exchange.messages.response)
        {
            Poll::Ready(Ok(())) => {}
            Poll::Ready(Err(fault)) => return Poll::Ready(Err(wrong(fault, up))),
            Poll::Pending => break,
        }
        match exchange.messages.response.status {
            101 => return Poll::Ready(switched(exchange, up)),
            100..=199 => {
                up.interims += 1;
                if up.interims > INTERIM_LIMIT {
                    let failure = Failure::new(Code::BadResponse, "too many interim answers");
                    return Poll::Ready(Err(failure.into()));
                }
                interim(exchange, cx);
            }
            _ => return Poll::Ready(Ok(())),
        }
    }
    if let Err(stop) = poll_gone(exchange, cx) {
        return Poll::Ready(Err(Wrong::Stop(stop)));
    }
    let bound = exchange.bound(by);
    exchange
        .alarm
        .poll(cx, bound)
        .map(|()| Err(Wrong::Stop(exchange.late())))
}

/// Moves the request's body on; a fault of the caller ends the exchange, one of the other side waits.
pub(crate) fn poll_upload(
    exchange: &mut Exchange<'_>,
    up: &mut Up,
    cx: &mut Context<'_>,
) -> Result<(), Stop> {
    if up.upload.done || up.refused.is_some() {
        exchange.body_by = None;
        return Ok(());
    }
    let before = up.upload.bytes;
    match up
        .upload
        .poll(cx, exchange.down, &mut up.wire, &mut exchange.replay)
    {
        Poll::Ready(Err(RelayError::Write(error))) => {
            up.refused = Some(error);
            Ok(())
        }
        Poll::Ready(Err(RelayError::Read(fault))) => Err(match fault {
            BodyError::Malformed(HeadError::Truncated)
            | BodyError::Io(_)
            | BodyError::Stream(_) => Stop::Gone,
            BodyError::Malformed(fault) => Failure::new(Code::BadRequest, fault.to_string()).into(),
        }),
        Poll::Ready(Ok(())) => Ok(()),
        Poll::Pending => {
            let announced = matches!(exchange.messages.request.framing, Framing::Length(_));
            if !(announced && up.upload.starved) {
                exchange.body_by = None;
            } else if exchange.body_by.is_none() || up.upload.bytes != before {
                let limit = exchange.session.worker.config.limits.first_bytes;
                exchange.body_by = Instant::now().checked_add(limit);
            }
            Ok(())
        }
    }
}

/// An HTTP/1 caller that has ended its direction may still read; after a while it counts as gone.
pub(crate) fn poll_gone(exchange: &mut Exchange<'_>, cx: &mut Context<'_>) -> Result<(), Stop> {
    let watch = match &*exchange.down {
        Wire::H1(down) => down.is_read() && !down.has_ended(),
        Wire::H2(_) => true,
    };
    if !watch {
        return Ok(());
    }
    match exchange.down.poll_gone(cx) {
        Poll::Ready(Err(_gone)) => Err(Stop::Gone),
        Poll::Ready(Ok(())) => {
            exchange.gone_by = Instant::now().checked_add(super::HALF_CLOSED);
            Ok(())
        }
        Poll::Pending => Ok(()),
    }
}

fn wrong(fault: HeadFault, up: &Up) -> Wrong {
    match fault {
        HeadFault::H1(ReadError::Closed) => Wrong::Dead("closed without an answer".to_owned()),
        HeadFault::H1(ReadError::Io(error)) => {
            let untouched = matches!(&up.wire, Wire::H1(wire) if wire.is_idle());
            let what = causes(&error);
            if untouched {
                Wrong::Dead(what)
            } else {
                Failure::new(Code::UpstreamReset, what).into()
            }
        }
        HeadFault::H1(ReadError::Head(HeadError::Truncated)) => {
            Failure::new(Code::UpstreamReset, "closed in the head of its answer").into()
        }
        HeadFault::H1(ReadError::Head(fault)) | HeadFault::H2(AnswerError::Head(fault)) => {
            Failure::new(Code::BadResponse, fault.to_string()).into()
        }
        HeadFault::H2(AnswerError::Stream(error)) => {
            let unprocessed = error.is_remote()
                && (error.reason() == Some(h2::Reason::REFUSED_STREAM)
                    || (error.is_go_away() && error.reason() == Some(h2::Reason::NO_ERROR)));
            let failure = Failure::new(Code::UpstreamReset, causes(&error));
            if unprocessed {
                failure.with_retry(Retry::Safe).into()
            } else {
                failure.into()
            }
        }
    }
}

/// A 101 that was asked for and names what was asked for; everything else is an error.
fn switched(exchange: &Exchange<'_>, up: &Up) -> Result<(), Wrong> {
    let Messages { request, response } = &*exchange.messages;
    let fits = match (request.upgrade_name(), response.upgrade_name(), &up.wire) {
        (Some(wanted), Some(found), Wire::H1(_)) => wanted.eq_ignore_ascii_case(found),
        _ => false,
    };
    if fits {
        Ok(())
    } else {
        Err(Failure::new(Code::BadResponse, "an upgrade that was not asked for").into())
    }
}

/// Passes an interim answer on; never to an HTTP/1.0 caller.
fn interim(exchange: &mut Exchange<'_>, cx: &mut Context<'_>) {
    let Messages { request, response } = &mut *exchange.messages;
    headers::clean_response(response, false);
    match &mut *exchange.down {
        Wire::H1(_) if request.version == Version::Http10 => {}
        Wire::H1(down) => {
            let extras = ResponseExtras {
                framing: Framing::None,
                version: request.version,
                persistent: true,
            };
            down.interject(|out| write::response(out, response, &extras));
            if let Poll::Ready(Err(error)) = down.poll_flush(cx) {
                tracing::trace!(%error, "an interim answer was not sent");
            }
        }
        Wire::H2(down) => {
            if let Err(error) = down.send_interim(response) {
                tracing::trace!(%error, "an interim answer was not sent");
            }
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
        super::buffers::put(input);
        super::buffers::put(output);
        if let Carrier::Lent(lent) = carrier {
            exchange.session.worker.upstream.give_back(lent);
        }
    }
}
