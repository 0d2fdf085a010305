//! mTLS connections from other daemons and foreign meshes: accepted, checked, closed when rights end.
//!
//! In: TCP connections on the tunnel's port. Out: CONNECT streams to `hbone`, requests under our own
//! protocol to `http`. Never: keeps a connection whose peer lost its grant.

use std::{
    future::{Future as _, poll_fn},
    net::SocketAddr,
    pin::pin,
    rc::Rc,
    task::Poll,
    time::Duration,
};

use bytes::Bytes;
use h2::{RecvStream, server::SendResponse};
use mesh_identity::verify::Usage;
use mesh_model::address::canonical;
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

use crate::{
    clock,
    connection::{InboundOrigin, Origin},
    hbone, http,
    io::Io,
    link::{Driver, Link, Peer as End, Terms},
    tls::{self, TlsStream, Verified},
    worker::Worker,
};

/// Streams that a peer may have open.
const STREAMS: u32 = 250;
/// What one stream may have in flight towards us.
const STREAM_WINDOW: u32 = 4 << 20;
/// What a connection may have in flight towards us: sixteen stalled streams do not stop the others.
const CONNECTION_WINDOW: u32 = 64 << 20;
/// Largest frame that we take.
const FRAME: u32 = 1 << 20;
/// Largest header list that we take.
const HEADERS: u32 = 64 << 10;
/// Bytes queued for sending on one stream before it is asked to wait.
const SEND_BUFFER: usize = 256 << 10;
/// Streams that a peer may open and reset before they were looked at.
const RESETS: usize = 20;
/// Time for the last frame to a peer that is cut off.
const LAST: Duration = Duration::from_secs(1);
/// Streams that we reset for a peer's errors.
const ERRORS: usize = 100;

/// Serves one TCP connection on the tunnel's port.
pub(crate) async fn serve(worker: Rc<Worker>, stream: TcpStream, peer: SocketAddr) {
    let Ok(local) = stream.local_addr().map(canonical) else {
        return;
    };
    if worker.snapshot().mesh.is_none() {
        return Io::Tcp(stream).reset();
    }
    let transport = worker.observe.transport();
    let handshake = Box::pin(worker.tls.accept(stream));
    let limit = worker.config.limits.handshake;
    let (stream, verified) = match tokio::time::timeout(limit, handshake).await {
        Ok(Ok(done)) => done,
        Ok(Err(error)) => {
            transport.accepts_failed.add(1);
            tracing::debug!(%error, %peer, "a handshake failed");
            return;
        }
        Err(_elapsed) => return transport.accepts_failed.add(1),
    };
    transport.accepts.add(1);
    if let Err(error) = tls::still_believed(&worker.snapshot(), &verified, Usage::Client) {
        tracing::debug!(%error, %peer, "a peer is not believed");
        return;
    }
    let verified = Rc::new(verified);
    let (key, close) = worker.peers.add(Rc::clone(&verified));
    let peer = Peer {
        verified: &verified,
        close: &close,
        address: peer,
        local,
    };
    if verified.mesh {
        Box::pin(linked(&worker, stream, &peer)).await;
    } else {
        Box::pin(foreign(&worker, stream, &peer)).await;
    }
    worker.peers.remove(key);
}

/// Who is at the other end, and where.
struct Peer<'p> {
    verified: &'p Verified,
    /// Ends the connection at once.
    close: &'p CancellationToken,
    address: SocketAddr,
    local: SocketAddr,
}

impl Peer<'_> {
    fn origin(&self) -> Rc<Origin> {
        let verified = self.verified;
        Rc::new(Origin::Inbound(InboundOrigin {
            peer: self.address,
            principal: Some(verified.peer.id.clone()),
            // A foreign peer may send any name; it says by address what it wants.
            server_name: verified.server_name.clone().filter(|_| verified.mesh),
            address: None,
        }))
    }

    /// Until its certificate ends.
    fn left(&self) -> Duration {
        let end = self.verified.peer.not_after_ms;
        Duration::from_millis(end.saturating_sub(clock::now_ms()))
    }
}

/// Serves another daemon.
async fn linked(worker: &Rc<Worker>, stream: TlsStream<TcpStream>, peer: &Peer<'_>) {
    let link = Link::new(Terms {
        client: false,
        streams: STREAMS,
        window: STREAM_WINDOW,
        peer: End::Daemon,
    });
    let mut driver = Driver::new(link.clone(), stream);
    let origin = peer.origin();
    let session = http::session(Rc::clone(worker), Rc::clone(&origin));
    let left = peer.left();
    // It says something at once; from then on it may stay until its certificate ends.
    let greeted = worker.config.limits.handshake.min(left);
    let mut expired = pin!(tokio::time::sleep(greeted));
    let mut draining = pin!(worker.drain.draining());
    let mut close = pin!(peer.close.cancelled());
    let (mut leaving, mut met) = (false, false);
    let why = poll_fn(|cx| {
        let moved = driver.poll(cx);
        while let Some(asked) = link.accept() {
            if asked.head.value(b":method") == Some(b"CONNECT") {
                let (task, origin) = (Rc::clone(worker), Rc::clone(&origin));
                let asked = hbone::Asked::linked(asked);
                worker.spawn(hbone::serve(task, asked, origin, peer.local));
            } else {
                worker.spawn(http::serve_linked(Rc::clone(&session), asked));
            }
        }
        if moved.is_ready() {
            return moved.map(Some);
        }
        if close.as_mut().poll(cx).is_ready() {
            return Poll::Ready(None);
        }
        if !met && link.is_settled() {
            met = true;
            expired
                .as_mut()
                .reset(tokio::time::Instant::now() + left.saturating_sub(greeted));
        }
        if !met && expired.as_mut().poll(cx).is_ready() {
            return Poll::Ready(None);
        }
        if !leaving {
            leaving = draining.as_mut().poll(cx).is_ready() || expired.as_mut().poll(cx).is_ready();
            if leaving {
                link.leave();
            }
        }
        Poll::Pending
    })
    .await;
    tracing::debug!(?why, peer = %peer.address, "a tunnel has ended");
}

/// Serves another mesh.
async fn foreign(worker: &Rc<Worker>, stream: TlsStream<TcpStream>, peer: &Peer<'_>) {
    let (watched, tally) = http::Watched::new(stream);
    let handshake = h2::server::Builder::new()
        .max_concurrent_streams(STREAMS)
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_frame_size(FRAME)
        .max_header_list_size(HEADERS)
        .max_send_buffer_size(SEND_BUFFER)
        .max_pending_accept_reset_streams(RESETS)
        .max_local_error_reset_streams(Some(ERRORS))
        .handshake::<_, Bytes>(watched);
    let limit = worker.config.limits.handshake;
    match tokio::time::timeout(limit, Box::pin(handshake)).await {
        Ok(Ok(connection)) => Box::pin(streams(worker, connection, &tally, peer)).await,
        Ok(Err(error)) => tracing::debug!(%error, peer = %peer.address, "no http/2 in a tunnel"),
        Err(_elapsed) => tracing::debug!(peer = %peer.address, "no http/2 in a tunnel in time"),
    }
}

type Connection = h2::server::Connection<http::Watched<TlsStream<TcpStream>>, Bytes>;

async fn streams(
    worker: &Rc<Worker>,
    mut connection: Connection,
    tally: &http::Tally,
    peer: &Peer<'_>,
) {
    let origin = peer.origin();
    let mut expired = pin!(tokio::time::sleep(peer.left()));
    let mut leaving = false;
    loop {
        let stream = tokio::select! {
            stream = next(&mut connection, tally) => stream,
            () = peer.close.cancelled() => return,
            () = worker.drain.draining(), if !leaving => {
                leaving = true;
                connection.graceful_shutdown();
                continue;
            }
            () = &mut expired, if !leaving => {
                leaving = true;
                connection.graceful_shutdown();
                continue;
            }
        };
        match stream {
            Some(Ok((request, respond))) => {
                dispatch(worker, request, respond, Rc::clone(&origin), peer.local);
            }
            Some(Err(error)) => {
                tracing::debug!(%error, peer = %peer.address, "a tunnel broke");
                return;
            }
            None => return,
        }
    }
}

type Accepted = Option<Result<(::http::Request<RecvStream>, SendResponse<Bytes>), h2::Error>>;

/// The next stream; a peer that floods is told so, and has none.
async fn next(connection: &mut Connection, tally: &http::Tally) -> Accepted {
    let accepted = poll_fn(|cx| match connection.poll_accept(cx) {
        Poll::Pending if tally.is_flooded() => Poll::Ready(None),
        Poll::Pending => Poll::Pending,
        Poll::Ready(accepted) => Poll::Ready(Some(accepted)),
    });
    if let Some(accepted) = accepted.await {
        return accepted;
    }
    tracing::info!("a tunnel is closed: the peer sends more http/2 frames than its streams need");
    connection.abrupt_shutdown(h2::Reason::ENHANCE_YOUR_CALM);
    let last = tokio::time::timeout(LAST, poll_fn(|cx| connection.poll_closed(cx)));
    if let Ok(Err(error)) = last.await {
        tracing::debug!(%error, "the last frame of a tunnel");
    }
    None
}

fn dispatch(
    worker: &Rc<Worker>,
    request: ::http::Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
    origin: Rc<Origin>,
    local: SocketAddr,
) {
    let plain_connect = request.method() == ::http::Method::CONNECT
        && request.extensions().get::<h2::ext::Protocol>().is_none();
    if plain_connect {
        let asked = hbone::Asked::other(request, respond);
        return worker.spawn(hbone::serve(Rc::clone(worker), asked, origin, local));
    }
    let mut answer = ::http::Response::new(());
    *answer.status_mut() = ::http::StatusCode::BAD_REQUEST;
    if let Err(error) = respond.send_response(answer, true) {
        tracing::debug!(%error, "a refusal could not be sent");
    }
}
