//! Reads whole requests with their bodies off a run of bytes, however they come: for tests and the fuzzer.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, Waker},
};

use bytes::BytesMut;
use mesh_model::snapshot::decide::RequestView as _;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{Connection, HeadError, ReadError};
use crate::http::{
    body::{BodyError, BodyEvent},
    message::{Form, Framing, Request, Version},
};

/// A request that was read to its end, as it is sent on.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "each is one fact of its own")]
pub struct Whole {
    /// The method.
    pub method: String,
    /// Path and query, or `*`; the authority of CONNECT.
    pub target: String,
    /// For whom it is; `None` in HTTP/1.0 only.
    pub authority: Option<String>,
    /// The target was in absolute form.
    pub absolute: bool,
    /// It came as HTTP/1.0.
    pub http10: bool,
    /// Its body came in chunks.
    pub chunked: bool,
    /// The length that it announced, when not 0.
    pub length: Option<u64>,
    /// The body.
    pub body: Vec<u8>,
    /// Number of trailers.
    pub trailers: usize,
    /// Another may follow.
    pub persistent: bool,
}

/// How the run of bytes ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// Between two requests, or behind one after which none may follow.
    Between,
    /// Within one.
    Within,
    /// What came next was refused with this status.
    Refused(u16),
}

/// The requests in `bytes`, read in pieces of `piece` bytes.
pub(crate) fn requests(bytes: &[u8], piece: usize) -> (Vec<Whole>, End) {
    let pieces = Pieces {
        left: bytes,
        piece: piece.max(1),
    };
    let mut connection = Connection::new(pieces, BytesMut::new());
    let mut all = Vec::new();
    loop {
        match next(&mut connection) {
            Ok(whole) => {
                let persistent = whole.persistent;
                all.push(whole);
                if !persistent {
                    return (all, End::Between);
                }
            }
            Err(end) => return (all, end),
        }
    }
}

fn refused(fault: HeadError) -> End {
    match fault {
        HeadError::Truncated => End::Within,
        fault => End::Refused(fault.status()),
    }
}

fn next(connection: &mut Connection<Pieces<'_>>) -> Result<Whole, End> {
    let mut cx = Context::from_waker(Waker::noop());
    match connection.poll_whole(&mut cx) {
        Poll::Ready(Ok(())) => {}
        Poll::Ready(Err(ReadError::Head(fault))) => return Err(refused(fault)),
        Poll::Ready(Err(ReadError::Closed | ReadError::Io(_))) | Poll::Pending => {
            return Err(End::Between);
        }
    }
    let mut request = Request::default();
    connection.read_request(&mut request).map_err(refused)?;
    let mut body = Vec::new();
    loop {
        match connection.poll_body(&mut cx) {
            Poll::Ready(Ok(BodyEvent::Data { length, .. })) => {
                body.extend_from_slice(connection.front(length));
                connection.consume(length);
            }
            Poll::Ready(Ok(BodyEvent::End)) => break,
            Poll::Ready(Err(BodyError::Malformed(fault))) => return Err(refused(fault)),
            Poll::Ready(Err(BodyError::Io(_) | BodyError::Stream(_))) | Poll::Pending => {
                return Err(End::Within);
            }
        }
    }
    let trailers = connection.take_trailers().map_or(0, |all| all.len());
    Ok(told(&request, body, trailers))
}

fn told(request: &Request, body: Vec<u8>, trailers: usize) -> Whole {
    let authority = request.authority().map(str::to_owned);
    let target = match (request.form, request.raw_query()) {
        (Form::Authority, _) => authority.clone().unwrap_or_default(),
        (_, Some(query)) => [request.raw_path(), "?", query].concat(),
        (_, None) => request.raw_path().to_owned(),
    };
    Whole {
        method: request.method().to_owned(),
        target,
        authority,
        absolute: request.form == Form::Absolute,
        http10: request.version == Version::Http10,
        chunked: request.framing == Framing::Streamed,
        length: match request.framing {
            Framing::Length(length) => Some(length),
            _ => None,
        },
        body,
        trailers,
        persistent: request.wishes.persistent && request.form != Form::Authority,
    }
}

/// Bytes that come in pieces, and then the end.
#[derive(Debug)]
struct Pieces<'b> {
    left: &'b [u8],
    piece: usize,
}

impl AsyncRead for Pieces<'_> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let count = self.piece.min(self.left.len()).min(buf.remaining());
        let (now, later) = self.left.split_at_checked(count).unwrap_or_default();
        buf.put_slice(now);
        self.left = later;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Pieces<'_> {
    fn poll_write(
        self: Pin<&mut Self>,
        _cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(bytes.len()))
    }
    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
    fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
