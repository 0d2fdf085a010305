//! Opens a connection or stream, or takes one from the pool, and writes the head of the request.

use std::{
    future::{Future as _, poll_fn},
    pin::pin,
    task::{Context, Poll},
    time::Instant,
};

use mesh_model::{cause::chain, service::AppProtocol};

use super::{Missed, Up, poll_gone};
use crate::{
    connection::Origin,
    failure::{Code, Failure, Retry},
    http::{
        alarm,
        carrier::Carrier,
        convert::{self, Hop, Towards},
        exchange::{Exchange, SOON, Stop},
        grpc,
        h1::{
            self,
            write::{self, RequestExtras},
        },
        headers,
        message::{Framing, Version},
        relay::Flow,
        route::{self, To, Way},
        stream::{Stream, heads},
        upgrade,
        wire::Wire,
    },
    link::Link,
    upstream::{DialError, Failed, H1Connection, H2Handle, HttpUpstream, Picked, Speaker},
};

/// Opens, or takes from the pool, and writes the head.
pub(super) async fn connect(
    exchange: &mut Exchange<'_>,
    way: &Way<'_>,
    picked: Option<Picked>,
    by: Option<Instant>,
) -> Result<Result<Box<Up>, (Missed, Option<Picked>)>, Stop> {
    let protocol = route::spoken(way.protocol, &exchange.messages.request, &exchange.words);
    let dialled = match dial(exchange, way, picked.as_ref(), protocol, by).await {
        Ok(dialled) => dialled,
        Err(stop) => return overdue(exchange, stop, picked).map(Err),
    };
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
    let session = exchange.session;
    let upstream = &session.worker.upstream;
    let source = match &*exchange.session.origin {
        Origin::Inbound(origin) if origin.server_name.is_none() => Some(origin.peer.ip()),
        _ => None,
    };
    let ready = match (way.to, picked, way.caller) {
        (To::Local(port), ..) => upstream.ready_local(port, protocol, source),
        (_, Some(picked), Some(caller)) => upstream.ready(picked, caller, protocol),
        _ => None,
    };
    if let Some(ready) = ready {
        return Ok(Ok(ready));
    }
    // Most requests find a connection: the others make room for it.
    let mut dial = Box::pin(async {
        match (way.to, picked, way.caller) {
            (To::Local(port), ..) => upstream.local(port, protocol, source).await,
            (_, Some(picked), Some(caller)) => upstream.http(picked, caller, protocol).await,
            _ => Err(DialError::NoIdentity),
        }
    });
    poll_fn(|cx| {
        if let Poll::Ready(dialled) = dial.as_mut().poll(cx) {
            return Poll::Ready(Ok(dialled));
        }
        poll_patience(exchange, cx, by).map(Err)
    })
    .await
}

/// While a connection or a stream is waited for: why it is not waited for any longer.
fn poll_patience(
    exchange: &mut Exchange<'_>,
    cx: &mut Context<'_>,
    by: Option<Instant>,
) -> Poll<Stop> {
    if let Err(stop) = poll_gone(exchange, cx) {
        return Poll::Ready(stop);
    }
    let by = exchange.bound(by);
    exchange.alarm.poll(cx, by).map(|()| exchange.late())
}

/// A bound passed while a connection was waited for: nothing was sent, and its endpoint has not answered.
fn overdue(
    exchange: &Exchange<'_>,
    stop: Stop,
    picked: Option<Picked>,
) -> Result<(Missed, Option<Picked>), Stop> {
    let Stop::Failed(failure) = stop else {
        return Err(stop);
    };
    // Who may have waited for a place among the backend's connections has not asked the endpoint.
    let asked = picked.as_ref().filter(|picked| !picked.may_queue());
    match failure.code {
        Code::UpstreamTimeout => {
            let blame = asked.map(|_| Failed::Timeout);
            let missed = Missed {
                failure: failure.with_retry(Retry::Safe),
                blame,
                stale: false,
            };
            Ok((missed, picked))
        }
        Code::RequestTimeout => {
            // How short a caller's own time is says nothing about the endpoint.
            if let Some(picked) = asked
                && grpc::deadline(&exchange.messages.request).is_none()
            {
                picked.failed(Failed::Timeout);
            }
            Err(failure.into())
        }
        _ => Err(failure.into()),
    }
}

fn not_reached(error: &DialError) -> Missed {
    let code = Code::parse(error.code()).unwrap_or(Code::ConnectFailed);
    let again = if error.may_retry() {
        Retry::Safe
    } else {
        Retry::Never
    };
    let mut failure = Failure::new(code, chain(error)).with_retry(again);
    if code == Code::Overloaded {
        failure = failure.with_after(SOON);
    }
    Missed {
        failure,
        blame: error.blame(),
        stale: false,
    }
}

fn open_h1(
    exchange: &mut Exchange<'_>,
    way: &Way<'_>,
    mut lent: Box<H1Connection>,
    reused: bool,
) -> Box<Up> {
    let input = std::mem::take(&mut lent.buffer);
    let mut wire = h1::Connection::new(Carrier::Lent(lent), input);
    wire.expect_response();
    forward(exchange, way);
    upgrade::add_key(&mut exchange.messages.request);
    let request = &exchange.messages.request;
    let extras = RequestExtras {
        default_host: way.service.name.as_str(),
        expect: request.wishes.expects_continue,
    };
    wire.begin(framing(exchange), |out| {
        write::request(out, request, &extras);
    });
    Box::new(Up {
        wire: Wire::H1(wire),
        upload: upload(exchange),
        refused: None,
        daemon: false,
        picked: None,
        permit: None,
        answered: None,
        reused,
        handle: None,
        interims: 0,
    })
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
        Flow::default().at(exchange.rate())
    }
}

async fn open_h2(
    exchange: &mut Exchange<'_>,
    way: &Way<'_>,
    picked: Option<&Picked>,
    handle: H2Handle,
    by: Option<Instant>,
) -> Result<Result<Box<Up>, Missed>, Stop> {
    if let (Speaker::Link(link), Some(picked)) = (&handle.send, picked) {
        exchange.story.peer.clone_from(&handle.peer);
        let stream = open_link(exchange, way, picked, link);
        return Ok(stream
            .map(|stream| over(exchange, stream, handle))
            .ok_or_else(|| closed("the connection takes no further streams".to_owned())));
    }
    // Few requests go on in HTTP/2 of their own: the others need no room for it.
    Box::pin(open_other(exchange, way, picked, handle, by)).await
}

/// A connection that was let go of meanwhile: another one will do.
fn closed(what: String) -> Missed {
    Missed {
        failure: Failure::new(Code::ConnectFailed, what),
        blame: None,
        stale: true,
    }
}

fn over(exchange: &Exchange<'_>, stream: Stream, handle: H2Handle) -> Box<Up> {
    Box::new(Up {
        wire: Wire::H2(stream),
        upload: upload(exchange),
        refused: None,
        daemon: handle.mesh,
        picked: None,
        permit: None,
        answered: None,
        reused: false,
        handle: Some(handle),
        interims: 0,
    })
}

/// The request is whole with its head.
fn is_bare(exchange: &Exchange<'_>) -> bool {
    framing(exchange) == Framing::None && exchange.messages.request.upgrade.is_none()
}

/// What another daemon is told beside the request.
fn hop<'h>(exchange: &Exchange<'_>, picked: &Picked, id: &'h str) -> Hop<'h> {
    Hop {
        target: picked.endpoint.address.port(),
        id,
        http1: exchange.messages.request.version != Version::Http2 || exchange.words.http1,
    }
}

/// Opens a stream to another daemon; none while it takes no further one.
fn open_link(
    exchange: &mut Exchange<'_>,
    way: &Way<'_>,
    picked: &Picked,
    link: &Link,
) -> Option<Stream> {
    let ended = is_bare(exchange);
    let id = exchange.story.id;
    let hop = hop(exchange, picked, id.as_str());
    let request = &exchange.messages.request;
    let host = way.service.name.as_str();
    let expect = request.wishes.expects_continue;
    let opened = link.open(ended, |fields| {
        heads::request_to(request, host, expect, &hop, fields);
    });
    opened.map(|stream| Stream::asking(stream, ended))
}

async fn open_other(
    exchange: &mut Exchange<'_>,
    way: &Way<'_>,
    picked: Option<&Picked>,
    mut handle: H2Handle,
    by: Option<Instant>,
) -> Result<Result<Box<Up>, Missed>, Stop> {
    let ready = poll_fn(|cx| {
        let Speaker::Other(send) = &mut handle.send else {
            return Poll::Ready(Ok(Err(h2::Reason::REFUSED_STREAM.into())));
        };
        if let Poll::Ready(ready) = send.poll_ready(cx) {
            return Poll::Ready(Ok(ready));
        }
        poll_patience(exchange, cx, by).map(Err)
    })
    .await;
    if let Err(error) = ready? {
        // After a GOAWAY it lives on for the streams that run, and takes no other.
        handle.refuses();
        return Ok(Err(closed(chain(&error))));
    }
    if !handle.mesh {
        forward(exchange, way);
    }
    exchange.story.peer.clone_from(&handle.peer);
    if !handle.mesh && exchange.messages.request.upgrade.is_some() {
        let by = exchange.bound(by);
        ask_for_change(exchange, &handle, by).await?;
    }
    let request = &exchange.messages.request;
    let id = exchange.story.id;
    let towards = picked
        .filter(|_| handle.mesh)
        .map_or(Towards::Program, |picked| {
            Towards::Daemon(hop(exchange, picked, id.as_str()))
        });
    let host = way.service.name.as_str();
    let expect = request.wishes.expects_continue;
    let Some(head) = convert::request_to(request, host, expect, &towards) else {
        let failure = Failure::new(Code::BadRequest, "the request cannot be one of HTTP/2");
        return Err(failure.into());
    };
    let ended = is_bare(exchange);
    let Speaker::Other(send) = &mut handle.send else {
        return Ok(Err(closed("no stream".to_owned())));
    };
    Ok(match send.send_request(head, ended) {
        Ok((answer, send)) => {
            let stream = Stream::opened(answer, send, ended);
            Ok(over(exchange, stream, handle))
        }
        Err(error) => {
            if error.is_go_away() || error.is_io() {
                handle.refuses();
            }
            Err(closed(chain(&error)))
        }
    })
}

/// Whether a program of HTTP/2 can be asked to change the protocol: known once its settings are.
async fn ask_for_change(
    exchange: &mut Exchange<'_>,
    handle: &H2Handle,
    by: Option<Instant>,
) -> Result<(), Stop> {
    let limit = Instant::now().checked_add(exchange.session.worker.config.limits.handshake);
    let by = alarm::earlier(by, limit);
    let mut settled = pin!(handle.settled());
    poll_fn(|cx| match settled.as_mut().poll(cx) {
        Poll::Ready(()) => Poll::Ready(()),
        Poll::Pending => exchange.alarm.poll(cx, by),
    })
    .await;
    if let Speaker::Other(send) = &handle.send
        && send.is_extended_connect_protocol_enabled()
    {
        return Ok(());
    }
    upgrade::withdraw(&mut exchange.messages.request).map_err(Stop::Failed)
}
