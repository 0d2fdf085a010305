//! HTTP, request by request.

use std::rc::Rc;

use bytes::{Bytes, BytesMut};

use crate::connection::{Io, Origin, Worker};

/// Serves an HTTP/1 connection; `first` was read already.
pub(crate) async fn serve_http1(worker: Rc<Worker>, io: Io, first: BytesMut, origin: Origin) {
    drop((worker, io, first, origin));
}

/// Serves an HTTP/2 connection with prior knowledge; `first` was read already.
pub(crate) async fn serve_http2(worker: Rc<Worker>, io: Io, first: BytesMut, origin: Origin) {
    drop((worker, io, first, origin));
}

/// Serves one HTTP stream of a tunnel connection.
pub(crate) async fn serve_stream(
    worker: Rc<Worker>,
    request: ::http::Request<h2::RecvStream>,
    respond: h2::server::SendResponse<Bytes>,
    origin: Rc<Origin>,
) {
    drop((worker, request, respond, origin));
}
