//! Serves an HTTP/2 connection with prior knowledge: each stream is a task of its own.

use std::{
    future::{Future as _, poll_fn},
    pin::pin,
    rc::Rc,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use bytes::{Bytes, BytesMut};
use h2::{
    Reason, RecvStream,
    server::{self, SendResponse},
};

use super::{Connected, Onward};
use crate::{
    connection::{Destination, Origin, OutboundOrigin},
    failure::{Code, Failure},
    http::{
        alarm::Alarm,
        buffers, convert,
        exchange::{Ended, Exchange},
        prefixed::Prefixed,
        session::Session,
        stream::Stream,
        watched::{self, Tally, Watched},
        wire::Wire,
    },
    io::{self, Io},
    worker::Worker,
};

/// Streams at once on one connection.
const STREAMS: u32 = 250;
/// Bytes that a peer may send ahead on one stream, and on all together.
const STREAM_WINDOW: u32 = 256 * 1024;
const CONNECTION_WINDOW: u32 = 2 * 1024 * 1024;
/// Bytes of answers that may wait inside the connection for one stream.
const SEND_BUFFER: usize = 256 * 1024;
/// Bytes of a decoded head.
const HEAD: u32 = 64 * 1024;
/// Largest frame: what every client sends without being asked for more (RFC 9113 section 4.2).
const FRAME: u32 = 16 * 1024;
/// Streams that a peer may reset before they were looked at, and that we had to reset.
const RESETS: usize = 20;
const OWN_RESETS: usize = 100;
/// How long a peer may take no byte of what waits for it, and how long one that is cut off has for the last frames.
const BLOCKED: Duration = Duration::from_mins(1);
const LAST: Duration = Duration::from_secs(1);

/// One connection, and how it comes to its end.
struct Serving {
    connection: server::Connection<Watched<Prefixed>, Bytes>,
    tally: Rc<Tally>,
    keep_alive: Duration,
    alarm: Alarm,
    idle: Instant,
    /// No further streams are taken.
    leaving: bool,
    /// It ends at this time, whatever is still under way.
    cut: Option<Instant>,
}

/// Serves a connection to its end; `onward` carries what a CONNECT opens, where that is allowed.
pub(crate) async fn serve(
    worker: Rc<Worker>,
    io: Io,
    first: BytesMut,
    origin: Origin,
    onward: Option<Onward>,
) {
    let limits = worker.config.limits.clone();
    let (io, tally) = Watched::new(Prefixed::new(first, io));
    let handshake = server::Builder::new()
        .max_concurrent_streams(STREAMS)
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buffer_size(SEND_BUFFER)
        .max_header_list_size(HEAD)
        .max_frame_size(FRAME)
        .max_pending_accept_reset_streams(RESETS)
        .max_local_error_reset_streams(Some(OWN_RESETS))
        .enable_connect_protocol()
        .handshake::<_, Bytes>(io);
    let Ok(Ok(connection)) = tokio::time::timeout(limits.handshake, handshake).await else {
        return;
    };
    let mut serving = Serving {
        connection,
        tally,
        keep_alive: limits.keep_alive,
        alarm: Alarm::default(),
        idle: Instant::now(),
        leaving: false,
        cut: None,
    };
    let session = Rc::new(Session::new(worker, Rc::new(origin)));
    let mut draining = pin!(session.worker.drain.draining());
    let mut forced = pin!(session.worker.drain.forced());
    loop {
        let accepted = poll_fn(|cx| {
            let accepted = serving.poll(cx);
            if accepted.is_ready() {
                return accepted;
            }
            if !serving.leaving && draining.as_mut().poll(cx).is_ready() {
                serving.leave(cx);
            }
            if forced.as_mut().poll(cx).is_ready() {
                return Poll::Ready(None);
            }
            Poll::Pending
        })
        .await;
        match accepted {
            Some(Ok((request, respond))) => {
                let (session, tally) = (Rc::clone(&session), Rc::clone(&serving.tally));
                let worker = Rc::clone(&session.worker);
                worker.spawn(async move {
                    let asked = Asked {
                        tally: Some(&tally),
                        onward,
                    };
                    stream(&session, request, respond, asked).await;
                });
            }
            Some(Err(error)) => {
                tracing::debug!(%error, "an http/2 connection broke");
                return;
            }
            None => return,
        }
    }
}

type Accepted = Option<Result<(http::Request<RecvStream>, SendResponse<Bytes>), h2::Error>>;

impl Serving {
    /// The next stream; `None` when the connection has ended, or has to.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Accepted> {
        if let Poll::Ready(accepted) = self.connection.poll_accept(cx) {
            return Poll::Ready(accepted);
        }
        if self.tally.is_flooded() && self.cut.is_none() {
            tracing::debug!("a peer sends more http/2 frames than its requests need");
            self.connection.abrupt_shutdown(Reason::ENHANCE_YOUR_CALM);
            self.leaving = true;
            self.cut = Instant::now().checked_add(LAST);
            cx.waker().wake_by_ref();
        }
        if self.connection.has_streams() {
            self.idle = Instant::now();
        }
        let blocked = self.tally.blocked_since();
        let by = [
            self.cut,
            blocked.and_then(|since| since.checked_add(BLOCKED)),
        ];
        if let Some(by) = by.into_iter().flatten().min()
            && self.alarm.poll(cx, Some(by)).is_ready()
        {
            return Poll::Ready(None);
        }
        let by = self.idle.checked_add(self.keep_alive);
        if !self.leaving && self.alarm.poll(cx, by).is_ready() {
            self.leave(cx);
        }
        Poll::Pending
    }

    /// Says that no further streams are taken.
    fn leave(&mut self, cx: &Context<'_>) {
        self.leaving = true;
        self.connection.graceful_shutdown();
        cx.waker().wake_by_ref();
    }
}

/// What a stream has of its connection.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Asked<'a> {
    /// Where its end is counted.
    pub tally: Option<&'a Tally>,
    /// Carries what a CONNECT opens.
    pub onward: Option<Onward>,
}

/// Serves one stream.
pub(crate) async fn stream(
    session: &Session,
    request: http::Request<RecvStream>,
    respond: SendResponse<Bytes>,
    asked: Asked<'_>,
) {
    let started = Instant::now();
    let (parts, recv) = request.into_parts();
    let mut messages = buffers::messages();
    let read = convert::request_from(&parts, recv.is_end_stream(), &mut messages.request);
    drop(parts);
    let mut alarm = Alarm::default();
    let mut down = Stream::accepted(recv, respond);
    // A burst of requests that were taken back at once reaches nobody.
    let gone = poll_fn(|cx| Poll::Ready(down.poll_gone(cx).is_ready())).await;
    let mut down = Wire::H2(down);
    let mut exchange = Exchange::new(session, &mut messages, &mut down, &mut alarm, started);
    let ended = match read {
        _ if gone => {
            exchange.story.left = true;
            drop(exchange);
            Ended::Broken
        }
        Ok(()) => exchange.run().await,
        Err(fault) => {
            exchange
                .refuse(
                    Failure::new(Code::BadRequest, fault.to_string()).with_status(fault.status()),
                )
                .await
        }
    };
    tracing::trace!(?ended, "a stream has ended");
    buffers::put_messages(messages);
    if let Some(tally) = asked.tally {
        let unanswered = matches!(&down, Wire::H2(down) if down.is_unanswered());
        tally.ended(unanswered && started.elapsed() < watched::AT_ONCE);
    }
    if let (Ended::Connect(address), Some(onward)) = (ended, asked.onward) {
        connected(session, down, address, onward);
    }
}

/// A CONNECT was answered: the stream is a connection to `address` from here on.
fn connected(session: &Session, down: Wire, address: std::net::SocketAddr, onward: Onward) {
    let (Wire::H2(down), Origin::Outbound(origin)) = (down, &*session.origin) else {
        return;
    };
    let Some((send, recv)) = down.into_parts() else {
        return;
    };
    let connected = Connected {
        io: Io::Stream(Box::new(io::Stream::new(send, recv))),
        first: BytesMut::new(),
        origin: OutboundOrigin {
            destination: Destination::Address(address),
            ..origin.clone()
        },
    };
    onward(&session.worker, connected);
}
