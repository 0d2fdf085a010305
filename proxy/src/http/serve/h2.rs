//! Serves a program's HTTP/2 connection with prior knowledge: each stream is a task of its own.

use std::{
    future::{Future as _, poll_fn},
    net::SocketAddr,
    pin::pin,
    rc::Rc,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use bytes::BytesMut;

use super::{Connected, Onward};
use crate::{
    connection::{Destination, Origin, OutboundOrigin},
    failure::{Code, Failure},
    http::{
        alarm::Alarm,
        buffers,
        exchange::{Ended, Exchange},
        malformed::HeadError,
        message::Framing,
        prefixed::Prefixed,
        session::Session,
        stream::{Stream, heads},
        wire::Wire,
    },
    io::Io,
    link::{self, Driver, Link, Peer, Terms},
    worker::Worker,
};

/// Streams at once on one connection.
const STREAMS: u32 = 250;
/// Bytes that a peer may send ahead on one stream.
const STREAM_WINDOW: u32 = 256 * 1024;
/// How long a peer has to take the end of a connection on which nothing runs.
const PARTING: Duration = Duration::from_secs(10);

/// Serves a connection to its end; `onward` carries what a CONNECT opens, where that is allowed.
pub(crate) async fn serve(
    worker: Rc<Worker>,
    io: Io,
    first: BytesMut,
    origin: Origin,
    onward: Option<Onward>,
) {
    let link = Link::new(Terms {
        client: false,
        streams: STREAMS,
        window: STREAM_WINDOW,
        peer: Peer::Program,
    });
    let mut driver = Driver::new(link.clone(), Prefixed::new(first, io));
    let session = Rc::new(Session::new(worker, Rc::new(origin)));
    let mut life = Life::of(&session.worker);
    let mut draining = pin!(session.worker.drain.draining());
    let mut forced = pin!(session.worker.drain.forced());
    let why = poll_fn(|cx| {
        let moved = driver.poll(cx);
        while let Some(asked) = link.accept() {
            let session = Rc::clone(&session);
            let worker = Rc::clone(&session.worker);
            worker.spawn(stream(session, asked, onward));
        }
        if moved.is_ready() {
            return moved.map(Some);
        }
        if forced.as_mut().poll(cx).is_ready() || life.poll(cx, &link).is_ready() {
            return Poll::Ready(None);
        }
        if life.parting.is_none() && draining.as_mut().poll(cx).is_ready() {
            life.part(cx, &link);
        }
        Poll::Pending
    })
    .await;
    tracing::debug!(?why, "an http/2 connection has ended");
}

/// How long a connection may be there.
struct Life {
    alarm: Alarm,
    keep_alive: Duration,
    /// When it must have said who it is.
    greeted_by: Option<Instant>,
    /// Since when nothing runs on it; something did when it was looked at last.
    idle: Instant,
    busy: bool,
    /// Since when no further streams are taken.
    parting: Option<Instant>,
}

impl Life {
    fn of(worker: &Worker) -> Self {
        let (limits, now) = (&worker.config.limits, Instant::now());
        Self {
            alarm: Alarm::default(),
            keep_alive: limits.keep_alive,
            greeted_by: now.checked_add(limits.handshake),
            idle: now,
            busy: false,
            parting: None,
        }
    }

    /// Ready when it is over.
    fn poll(&mut self, cx: &mut Context<'_>, link: &Link) -> Poll<()> {
        if !link.is_settled() {
            return self.alarm.poll(cx, self.greeted_by);
        }
        let busy = link.active() > 0 || link.is_sending();
        if std::mem::replace(&mut self.busy, busy) || busy {
            self.idle = Instant::now();
        }
        if let Some(since) = self.parting {
            // Its last stream is followed by nothing but the end.
            let by = since.max(self.idle).checked_add(PARTING);
            let over = self.alarm.poll(cx, by);
            return if busy { Poll::Pending } else { over };
        }
        let by = self.idle.checked_add(self.keep_alive);
        if self.alarm.poll(cx, by).is_ready() {
            self.part(cx, link);
        }
        Poll::Pending
    }

    /// Says that no further streams are taken.
    fn part(&mut self, cx: &Context<'_>, link: &Link) {
        self.parting = Some(Instant::now());
        link.leave();
        cx.waker().wake_by_ref();
    }
}

/// Serves one stream.
async fn stream(session: Rc<Session>, asked: link::Asked, onward: Option<Onward>) {
    let link::Asked {
        head,
        stream,
        ended,
        begun,
    } = asked;
    let mut messages = buffers::messages();
    let read = heads::request_from(&head, ended, Peer::Program, &mut messages.request);
    link::head::put(head);
    let length = match messages.request.framing {
        Framing::Length(length) => Some(length),
        Framing::None | Framing::Streamed | Framing::Close => None,
    };
    let mut down = Stream::asked(stream, Peer::Program, ended, length);
    // A burst of requests that were taken back at once reaches nobody.
    let gone = poll_fn(|cx| Poll::Ready(down.poll_gone(cx).is_ready())).await;
    let mut down = Wire::H2(down);
    let mut alarm = Alarm::default();
    let mut exchange = Exchange::new(&session, &mut messages, &mut down, &mut alarm, begun);
    let ended = match read {
        _ if gone => {
            exchange.story.left = true;
            drop(exchange);
            Ended::Broken
        }
        Ok(()) => exchange.run().await,
        Err(fault) if is_malformed(fault) => {
            exchange.story.failure = Some(Failure::new(Code::BadRequest, fault.to_string()));
            drop(exchange);
            if let Wire::H2(down) = &mut down {
                down.refuse();
            }
            Ended::Broken
        }
        Err(fault) => {
            let failure = Failure::new(Code::BadRequest, fault.to_string());
            exchange.refuse(failure.with_status(fault.status())).await
        }
    };
    tracing::trace!(?ended, "a stream has ended");
    buffers::put_messages(messages);
    if let (Ended::Connect(address), Some(onward)) = (ended, onward) {
        connected(&session, down, address, onward);
    }
}

/// True for what no program that speaks HTTP/2 sends: its stream is reset (RFC 9113 section 8.1.1). What a person may
/// have got wrong is answered in words.
fn is_malformed(fault: HeadError) -> bool {
    fault.status() == 400 && !matches!(fault, HeadError::Target | HeadError::Host)
}

/// A CONNECT was answered: the stream is a connection to `address` from here on.
fn connected(session: &Session, down: Wire, address: SocketAddr, onward: Onward) {
    let (Wire::H2(down), Origin::Outbound(origin)) = (down, &*session.origin) else {
        return;
    };
    let Some(stream) = down.into_bytes() else {
        return;
    };
    let connected = Connected {
        io: Io::Stream(Box::new(stream)),
        first: BytesMut::new(),
        origin: OutboundOrigin {
            destination: Destination::Address(address),
            ..origin.clone()
        },
    };
    onward(&session.worker, connected);
}
