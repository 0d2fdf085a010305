//! CONNECT streams in mTLS, ours and a foreign mesh's (HBONE).
//!
//! In: only `:method` and `:authority`. Out: bytes both ways; success is exactly 200, half-close is
//! END_STREAM. Refusals: 400 (malformed, or not ours), 401 (policy), 503 (the program is not there).
//! Never: takes an identity from a header.

use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Instant,
};

use bytes::{Buf, Bytes, BytesMut};
use h2::{RecvStream, SendStream, server::SendResponse};
use mesh_model::{
    address::canonical,
    endpoint::{AuthorityForm, Tunnel, TunnelKind},
    snapshot::{BackendEndpoint, InboundPort, Snapshot},
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::{
    connection::{InboundOrigin, Io, Origin, Worker},
    inbound, observe, tcp,
    upstream::{DialError, H2Handle},
};

/// What a CONNECT tells beside its target; telemetry only.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Call<'a> {
    /// 32 hexadecimal digits.
    pub(crate) id: &'a str,
    /// The program that calls.
    pub(crate) peer: SocketAddr,
    /// `host:port` of the service, for peers that want it in `:authority`.
    pub(crate) authority: &'a str,
}

/// Most bytes handed to HTTP/2 in one piece.
const PIECE: usize = 64 << 10;

/// A CONNECT stream as a byte stream.
#[derive(Debug)]
pub(crate) struct Stream {
    send: SendStream<Bytes>,
    receive: RecvStream,
    pending: Bytes,
    ended: bool,
    shut: bool,
    /// The identity at the other end of the tunnel, on the calling side.
    pub(crate) peer: Option<Arc<str>>,
    in_use: Option<crate::upstream::InUse>,
}

impl Stream {
    fn new(send: SendStream<Bytes>, receive: RecvStream) -> Self {
        Self {
            send,
            receive,
            pending: Bytes::new(),
            ended: false,
            shut: false,
            peer: None,
            in_use: None,
        }
    }

    /// Ends the stream with an error.
    pub(crate) fn reset(mut self) {
        self.send.send_reset(h2::Reason::CONNECT_ERROR);
    }

    /// True when nothing came and the other end has neither closed nor broken it.
    pub(crate) fn is_silent(&mut self) -> bool {
        let mut cx = Context::from_waker(std::task::Waker::noop());
        !self.ended && self.pending.is_empty() && self.poll_fill(&mut cx).is_pending()
    }

    /// The next piece, without a copy; empty at the end.
    pub(crate) fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Bytes>> {
        ready!(self.poll_fill(cx))?;
        let piece = std::mem::take(&mut self.pending);
        self.release(piece.len())?;
        Poll::Ready(Ok(piece))
    }

    /// Ready when `pending` has something, or the end came.
    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.pending.is_empty() && !self.ended {
            match ready!(self.receive.poll_data(cx)) {
                Some(Ok(piece)) => self.pending = piece,
                Some(Err(error)) => return Poll::Ready(Err(broken(error))),
                None => self.ended = true,
            }
        }
        Poll::Ready(Ok(()))
    }

    fn release(&mut self, length: usize) -> io::Result<()> {
        if length == 0 {
            return Ok(());
        }
        self.receive
            .flow_control()
            .release_capacity(length)
            .map_err(broken)
    }

    fn poll_room(&mut self, cx: &mut Context<'_>, wanted: usize) -> Poll<io::Result<usize>> {
        loop {
            let room = self.send.capacity();
            if room > 0 {
                return Poll::Ready(Ok(room.min(wanted)));
            }
            self.send.reserve_capacity(wanted);
            match ready!(self.send.poll_capacity(cx)) {
                Some(Ok(_)) => {}
                Some(Err(error)) => return Poll::Ready(Err(broken(error))),
                None => return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
            }
        }
    }
}

fn broken(error: h2::Error) -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionReset, error)
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        ready!(self.poll_fill(cx))?;
        let length = self.pending.len().min(buf.remaining());
        if let Some(piece) = self.pending.get(..length) {
            buf.put_slice(piece);
        }
        self.pending.advance(length);
        Poll::Ready(self.release(length))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        if buf.is_empty() {
            return Poll::Ready(Ok(0));
        }
        let room = ready!(self.poll_room(cx, buf.len().min(PIECE)))?;
        let piece = Bytes::copy_from_slice(buf.get(..room).unwrap_or(buf));
        let length = piece.len();
        self.send.send_data(piece, false).map_err(broken)?;
        Poll::Ready(Ok(length))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        // The connection's driver flushes.
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.shut {
            return Poll::Ready(Ok(()));
        }
        self.shut = true;
        Poll::Ready(self.send.send_data(Bytes::new(), true).map_err(broken))
    }
}

/// Opens a stream to an endpoint through its tunnel; waits for the 200.
pub(crate) async fn connect(
    mut handle: H2Handle,
    endpoint: &BackendEndpoint,
    tunnel: &Tunnel,
    call: Option<&Call<'_>>,
) -> Result<Stream, DialError> {
    let failed = |source| DialError::Http2 {
        address: tunnel.address,
        source: Arc::new(source),
    };
    let authority = match (tunnel.authority, call) {
        (AuthorityForm::Host, Some(call)) => call.authority.to_owned(),
        _ => endpoint.address.to_string(),
    };
    let mut request = http::Request::builder()
        .method(http::Method::CONNECT)
        .uri(authority);
    if let Some(call) = call {
        request = request.header("forwarded", format!("for=\"{}\"", call.peer));
        if tunnel.kind == TunnelKind::Mesh {
            request = request.header("mesh-request-id", call.id);
        }
    }
    let Ok(request) = request.body(()) else {
        return Err(DialError::Tunnel {
            status: 400,
            mesh_error: None,
        });
    };
    let mut send = handle.send.clone().ready().await.map_err(failed)?;
    let (answer, stream) = send.send_request(request, false).map_err(failed)?;
    let answer = answer.await.map_err(failed)?;
    let status = answer.status().as_u16();
    if status != 200 {
        let mesh_error = answer
            .headers()
            .get("mesh-error")
            .and_then(|value| value.to_str().ok());
        return Err(DialError::Tunnel {
            status,
            mesh_error: mesh_error.map(Arc::from),
        });
    }
    let mut stream = Stream::new(stream, answer.into_body());
    stream.peer = handle.peer.take();
    stream.in_use = Some(handle.in_use);
    Ok(stream)
}

/// Why a CONNECT is refused.
struct Refusal {
    status: http::StatusCode,
    code: &'static str,
    what: String,
}

impl Refusal {
    fn new(status: http::StatusCode, code: &'static str, what: impl Into<String>) -> Self {
        Self {
            status,
            code,
            what: what.into(),
        }
    }
}

/// Serves one CONNECT stream of a tunnel. `local` is the tunnel connection's own address.
pub(crate) async fn serve(
    worker: Rc<Worker>,
    request: http::Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
    origin: Rc<Origin>,
    local: SocketAddr,
) {
    let Origin::Inbound(origin) = &*origin else {
        return;
    };
    let begun = Instant::now();
    let id = request
        .headers()
        .get("mesh-request-id")
        .and_then(|value| value.to_str().ok())
        .filter(|id| observe::is_id(id))
        .map_or_else(observe::fresh_id, str::to_owned);
    let snapshot = worker.snapshot();
    let found = admit(&snapshot, &request, origin, local);
    drop(snapshot);
    let (port, origin) = match found {
        Ok(found) => found,
        Err((refusal, port)) => {
            let port = port.as_ref();
            refuse(
                &worker,
                &mut respond,
                &refusal,
                &tcp::Told::inbound(&worker, origin, port, &id, begun),
            );
            return;
        }
    };
    if inbound::reads_requests(&port, &origin) {
        // Each request in it is judged by itself.
        if let Some(stream) = accept(&mut respond, request.into_body()) {
            inbound::serve(
                worker,
                Io::Stream(Box::new(stream)),
                BytesMut::new(),
                origin,
                port,
            )
            .await;
        }
        return;
    }
    let told = tcp::Told::inbound(&worker, &origin, Some(&port), &id, begun);
    if let Err(what) = tcp::authorized(&port, &origin) {
        let refusal = Refusal::new(http::StatusCode::UNAUTHORIZED, "denied", what);
        return refuse(&worker, &mut respond, &refusal, &told);
    }
    let program = worker
        .upstream
        .local_stream(port.target, Some(origin.peer.ip()))
        .await;
    match program {
        Ok(program) => {
            if let Some(stream) = accept(&mut respond, request.into_body()) {
                let stream = Io::Stream(Box::new(stream));
                tcp::relay(
                    &worker,
                    stream,
                    BytesMut::new(),
                    program,
                    BytesMut::new(),
                    told,
                )
                .await;
            }
        }
        Err(error) => {
            let what = format!("the program at {} does not answer", port.target);
            tracing::debug!(%error, "{what}");
            let refusal = Refusal::new(http::StatusCode::SERVICE_UNAVAILABLE, error.code(), what);
            refuse(&worker, &mut respond, &refusal, &told);
        }
    }
}

fn accept(respond: &mut SendResponse<Bytes>, receive: RecvStream) -> Option<Stream> {
    let send = respond.send_response(http::Response::new(()), false);
    send.inspect_err(|error| tracing::debug!(%error, "a CONNECT went away"))
        .ok()
        .map(|send| Stream::new(send, receive))
}

fn refuse(worker: &Worker, respond: &mut SendResponse<Bytes>, refusal: &Refusal, told: &tcp::Told) {
    let host = worker
        .snapshot()
        .mesh
        .as_ref()
        .map(|mesh| Arc::clone(&mesh.host_name));
    let host = host.as_deref().unwrap_or("unknown");
    let answer = http::Response::builder()
        .status(refusal.status)
        .header(
            "mesh-error",
            format!("{}; host={host}; id={}", refusal.code, told.id),
        )
        .body(());
    if let Ok(answer) = answer
        && let Err(error) = respond.send_response(answer, true)
    {
        tracing::debug!(%error, "a refusal could not be sent");
    }
    told.refused(worker, refusal.status.as_u16(), refusal.code, &refusal.what);
}

type Found = (Arc<InboundPort>, InboundOrigin);

/// Which local port a CONNECT names.
fn admit(
    snapshot: &Snapshot,
    request: &http::Request<RecvStream>,
    origin: &InboundOrigin,
    local: SocketAddr,
) -> Result<Found, (Refusal, Option<Arc<InboundPort>>)> {
    let bad = |what: &str| {
        (
            Refusal::new(http::StatusCode::BAD_REQUEST, "bad-request", what),
            None,
        )
    };
    let uri = request.uri();
    if uri.scheme().is_some() || uri.path_and_query().is_some() {
        return Err(bad("a CONNECT has only :method and :authority"));
    }
    let authority = uri
        .authority()
        .ok_or_else(|| bad("a CONNECT without :authority"))?
        .as_str();
    let port = match authority.parse::<SocketAddr>() {
        Ok(address) => by_address(snapshot, origin, canonical(address), local),
        Err(_host_name) => by_host(snapshot, authority),
    };
    let port = port.ok_or_else(|| bad("no such address or port here"))?;
    if let Some(name) = &origin.server_name
        && snapshot.inbound.identities.get(&**name) != Some(&port.principal)
    {
        return Err(bad(
            "the port belongs to another service than the server name",
        ));
    }
    let mut origin = origin.clone();
    // Found again by it when the bytes turn out to be HTTP.
    origin.address = Some(match authority.parse::<SocketAddr>() {
        Ok(address) => canonical(address),
        Err(_host_name) => port.target,
    });
    Ok((port, origin))
}

fn by_address(
    snapshot: &Snapshot,
    origin: &InboundOrigin,
    address: SocketAddr,
    local: SocketAddr,
) -> Option<Arc<InboundPort>> {
    let inbound = &snapshot.inbound;
    let known = inbound.by_address.get(&address);
    let Some(name) = &origin.server_name else {
        return known.cloned();
    };
    let named = inbound.by_server_name.get(&**name)?.get(&address.port())?;
    let ours = address.ip() == local.ip().to_canonical() || known.is_some();
    ours.then(|| Arc::clone(named))
}

/// `host:port` of a service that has an endpoint here.
fn by_host(snapshot: &Snapshot, authority: &str) -> Option<Arc<InboundPort>> {
    let (host, port) = authority.rsplit_once(':')?;
    let frontends = snapshot.outbound.by_host.get(&*host.to_ascii_lowercase())?;
    let frontend = frontends.get(&port.parse().ok()?)?;
    let own = frontend
        .backend
        .endpoints
        .iter()
        .find(|endpoint| endpoint.local)?;
    let inbound = &snapshot.inbound.by_address;
    let found = inbound.get(&own.address);
    found
        .or_else(|| inbound.values().find(|port| port.target == own.address))
        .cloned()
}
