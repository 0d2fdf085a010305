//! HTTP, request by request: `admit → match → authorize → pick → send → settle`.
//!
//! In: callers' connections and streams, snapshots. Out: answers, and one record per request.
//! HTTP/1 and callers' HTTP/2 are spoken by our own codecs, HTTP/2 to programs by the `h2` crate; the types of `http` stay
//! at its boundary.
//! Never: decides anything that [`mesh_model::snapshot::decide`] does not.

use std::rc::Rc;

use bytes::BytesMut;

use crate::{
    alarm,
    connection::{Origin, OutboundOrigin},
    io::Io,
    worker::Worker,
};

/// A request with its caller, as rules see it.
mod asked;
/// Hosts and ports in requests.
mod authority;
/// Pieces of bodies.
mod body;
/// Why streams fail.
mod broken;
/// Buffers and messages lent by a thread.
mod buffers;
/// The bytes below an HTTP/1 side.
mod carrier;
/// Between our heads and those of the `http` crate.
mod convert;
/// Cookies.
mod cookie;
/// Cross-origin resource sharing.
mod cors;
/// When an answer was made.
mod date;
/// What is left of a request's time.
mod deadline;
/// Delegation tables that requests bring.
mod dtab;
/// The life of one request.
mod exchange;
/// Injected faults.
mod fault;
/// Header fields.
mod fields;
/// What a rule changes.
mod filters;
/// What is particular to gRPC.
mod grpc;
/// HTTP/1 on one connection.
mod h1;
/// Keys of consistent hashing.
mod hash;
/// What the mesh takes out of heads and adds to them.
mod headers;
/// Which rule of HTTP a message breaks.
mod malformed;
/// Heads of requests and answers.
mod message;
/// Which bytes may stand where.
mod octet;
/// Slow bodies.
mod pace;
/// Paths for matching and for policies.
mod path;
/// Sessions that stay with an endpoint.
mod persistence;
/// A connection from which something was read.
mod prefixed;
/// Moves bodies.
mod relay;
/// Bodies that can be sent again.
mod replay;
/// Answers that the mesh makes itself.
mod reply;
/// May a request be sent again?
mod retry;
/// Where a request goes.
mod route;
/// Callers' connections.
mod serve;
/// What all requests of a connection share.
mod session;
/// What happened to a request.
mod story;
/// One HTTP/2 stream.
mod stream;
/// Changes of protocol in both spellings.
mod upgrade;
/// Floods of HTTP/2 frames.
mod watched;
/// One side of an exchange.
mod wire;

#[cfg(feature = "fuzz")]
pub(crate) use h1::{verdict::judge as judge_head, whole};
#[cfg(feature = "fuzz")]
pub(crate) use path::judge as judge_path;
pub(crate) use serve::{Connected, Onward, linked::stream as serve_linked};
pub(crate) use session::Session;
pub(crate) use watched::{Tally, Watched};

/// Serves an HTTP/1 connection; `first` was read already. CONNECT is refused.
pub(crate) async fn serve_http1(worker: Rc<Worker>, io: Io, first: BytesMut, origin: Origin) {
    let connected = serve::h1::serve(worker, io, first, origin).await;
    debug_assert!(
        connected.is_none(),
        "only an explicit connection can be a CONNECT"
    );
}

/// Serves an HTTP/1 connection that says where it goes; what it becomes after a CONNECT.
pub(crate) async fn serve_explicit(
    worker: Rc<Worker>,
    io: Io,
    first: BytesMut,
    origin: OutboundOrigin,
) -> Option<Connected> {
    serve::h1::serve(worker, io, first, Origin::Outbound(origin)).await
}

/// Serves an HTTP/2 connection with prior knowledge; `first` was read already. CONNECT is refused.
pub(crate) async fn serve_http2(worker: Rc<Worker>, io: Io, first: BytesMut, origin: Origin) {
    serve::h2::serve(worker, io, first, origin, None).await;
}

/// Serves an HTTP/2 connection that says where it goes; `onward` carries what a CONNECT opens.
pub(crate) async fn serve_http2_explicit(
    worker: Rc<Worker>,
    io: Io,
    first: BytesMut,
    origin: OutboundOrigin,
    onward: Onward,
) {
    serve::h2::serve(worker, io, first, Origin::Outbound(origin), Some(onward)).await;
}

/// What the requests of a link have in common.
pub(crate) fn session(worker: Rc<Worker>, origin: Rc<Origin>) -> Rc<Session> {
    Rc::new(Session::new(worker, origin))
}

/// Whole requests through one and two daemons.
#[cfg(test)]
mod tests;
