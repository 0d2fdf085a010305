//! Serves an HTTP/2 connection with prior knowledge: each stream is a task of its own.

use std::{
    future::{Future as _, poll_fn},
    pin::pin,
    rc::Rc,
    task::Poll,
    time::Instant,
};

use bytes::{Bytes, BytesMut};
use h2::{
    RecvStream,
    server::{self, SendResponse},
};

use crate::{
    connection::Origin,
    failure::{Code, Failure},
    http::{
        alarm::Alarm,
        buffers, convert,
        exchange::{Ended, Exchange},
        prefixed::Prefixed,
        session::Session,
        stream::Stream,
        wire::Wire,
    },
    io::Io,
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
/// Largest frame.
const FRAME: u32 = 64 * 1024;
/// Streams that a peer may reset before they were looked at, and that we had to reset.
const RESETS: usize = 20;
const OWN_RESETS: usize = 100;

/// Serves a connection to its end.
pub(crate) async fn serve(worker: Rc<Worker>, io: Io, first: BytesMut, origin: Origin) {
    let limits = worker.config.limits.clone();
    let handshake = server::Builder::new()
        .max_concurrent_streams(STREAMS)
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buffer_size(SEND_BUFFER)
        .max_header_list_size(HEAD)
        .max_frame_size(FRAME)
        .max_pending_accept_reset_streams(RESETS)
        .max_local_error_reset_streams(Some(OWN_RESETS))
        .handshake::<_, Bytes>(Prefixed::new(first, io));
    let Ok(Ok(mut connection)) = tokio::time::timeout(limits.handshake, handshake).await else {
        return;
    };
    let session = Rc::new(Session::new(worker, Rc::new(origin)));
    let mut draining = pin!(session.worker.drain.draining());
    let mut forced = pin!(session.worker.drain.forced());
    let mut alarm = Alarm::default();
    let mut leaving = false;
    let mut idle = Instant::now();
    loop {
        let accepted = poll_fn(|cx| {
            if let Poll::Ready(accepted) = connection.poll_accept(cx) {
                return Poll::Ready(accepted);
            }
            if !leaving && draining.as_mut().poll(cx).is_ready() {
                leaving = true;
                connection.graceful_shutdown();
                cx.waker().wake_by_ref();
            }
            if forced.as_mut().poll(cx).is_ready() {
                return Poll::Ready(None);
            }
            if connection.has_streams() {
                idle = Instant::now();
            }
            if !leaving
                && alarm
                    .poll(cx, idle.checked_add(limits.keep_alive))
                    .is_ready()
            {
                leaving = true;
                connection.graceful_shutdown();
                cx.waker().wake_by_ref();
            }
            Poll::Pending
        })
        .await;
        match accepted {
            Some(Ok((request, respond))) => {
                let session = Rc::clone(&session);
                let worker = Rc::clone(&session.worker);
                worker.spawn(async move { stream(&session, request, respond).await });
            }
            Some(Err(error)) => {
                tracing::debug!(%error, "an http/2 connection broke");
                return;
            }
            None => return,
        }
    }
}

/// Serves one stream.
pub(crate) async fn stream(
    session: &Session,
    request: http::Request<RecvStream>,
    respond: SendResponse<Bytes>,
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
                .refuse(Failure::new(Code::BadRequest, fault.to_string()))
                .await
        }
    };
    tracing::trace!(?ended, "a stream has ended");
    buffers::put_messages(messages);
}
