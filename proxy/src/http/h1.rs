//! HTTP/1 on one connection, either side: strict in, normalised out.
//!
//! In: bytes. Out: heads, pieces of bodies, trailers; and the same the other way. Nothing that came in as
//! framing goes out: every head, chunk line and trailer is written anew.
//! Never: decides what a message means for the mesh.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite};

use super::{
    body::{BodyError, BodyEvent},
    fields::Fields,
    malformed::HeadError,
    message::{Framing, Request, Response},
};
use input::Input;
use output::Output;
pub(crate) use scan::{FIELD_LIMIT, LINE_LIMIT};

/// Chunked bodies.
mod chunked;
/// Field lines.
mod fields;
/// What fields say about the body and the connection.
pub(crate) mod framing;
/// The reading half.
mod input;
/// The writing half.
mod output;
/// Request heads.
mod request;
/// Answers' heads.
mod response;
/// Where a head ends.
mod scan;
/// Whole heads, however their bytes come.
#[cfg(any(test, feature = "fuzz"))]
pub(crate) mod verdict;
/// Whole requests, however their bytes come.
#[cfg(any(test, feature = "fuzz"))]
pub(crate) mod whole;
/// Heads, chunk lines and trailers, written anew.
pub(crate) mod write;

/// Data up to this length is copied: behind what waits to be sent, so that both go in one write.
const COALESCE: usize = 4 * 1024;

/// Why no head could be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReadError {
    /// The connection ended before the first byte.
    #[error("the connection ended")]
    Closed,
    /// The message breaks a rule.
    #[error(transparent)]
    Head(#[from] HeadError),
    /// The connection failed.
    #[error("the connection failed")]
    Io(#[from] io::Error),
}

/// A connection that speaks HTTP/1.
#[derive(Debug)]
pub(crate) struct Connection<I> {
    io: I,
    input: Input,
    output: Output,
}

impl<I: AsyncRead + AsyncWrite + Unpin> Connection<I> {
    /// Speaks HTTP/1 on a connection from which `first` was read already.
    pub(crate) fn new(io: I, first: BytesMut) -> Self {
        Self {
            io,
            input: Input::new(first),
            output: Output::new(),
        }
    }

    /// The connection, what was read and not used, and what was not sent yet.
    pub(crate) fn into_parts(self) -> (I, BytesMut, BytesMut) {
        (self.io, self.input.into_buffer(), self.output.into_buffer())
    }

    /// Ready once the whole head of the next request is at hand.
    pub(crate) fn poll_whole(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), ReadError>> {
        self.input.poll_whole(&mut self.io, cx)
    }

    /// Reads the request head that is at hand.
    pub(crate) fn read_request(&mut self, request: &mut Request) -> Result<(), HeadError> {
        self.input.read_request(request)
    }

    /// Expects an answer's head next.
    pub(crate) fn expect_response(&mut self) {
        self.input.expect_response();
    }

    /// Reads the next head of an answer, interim ones included; `head_request` when HEAD was asked.
    pub(crate) fn poll_response(
        &mut self,
        cx: &mut Context<'_>,
        head_request: bool,
        response: &mut Response,
    ) -> Poll<Result<(), ReadError>> {
        ready!(self.input.poll_whole(&mut self.io, cx))?;
        Poll::Ready(
            self.input
                .read_response(head_request, response)
                .map_err(Into::into),
        )
    }

    /// True while nothing of the next message has come.
    pub(crate) fn is_idle(&self) -> bool {
        self.input.is_idle()
    }

    /// True once the other end has ended its direction.
    pub(crate) fn has_ended(&self) -> bool {
        self.input.ended
    }

    /// Watches the other end while nothing is expected of it; ready when it has reset the connection,
    /// or has ended it. Bytes of further requests are taken in up to a bound.
    pub(crate) fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.input.poll_gone(&mut self.io, cx)
    }

    /// The next piece of the body that is being read.
    pub(crate) fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<Result<BodyEvent, BodyError>> {
        self.input.poll_body(&mut self.io, cx)
    }

    /// The bytes that a [`BodyEvent::Data`] announced.
    pub(crate) fn front(&self, length: usize) -> &[u8] {
        self.input.front(length)
    }

    /// Takes announced bytes as passed on.
    pub(crate) fn consume(&mut self, length: usize) {
        self.input.consume(length);
    }

    /// Takes announced bytes out, without copying large ones.
    pub(crate) fn take(&mut self, length: usize) -> Bytes {
        self.input.take(length)
    }

    /// The trailers of the body that has ended.
    pub(crate) fn take_trailers(&mut self) -> Option<Box<Fields>> {
        self.input.take_trailers()
    }

    /// True once the body has been read to its end.
    pub(crate) fn is_read(&self) -> bool {
        self.input.is_read()
    }

    /// Writes a head with `write` and begins a body; nothing is sent before data, an end or a flush.
    pub(crate) fn begin(&mut self, framing: Framing, write: impl FnOnce(&mut BytesMut)) {
        self.output.begin(framing, write);
    }

    /// Writes an interim head, which changes nothing about the body that is to come.
    pub(crate) fn interject(&mut self, write: impl FnOnce(&mut BytesMut)) {
        self.output.interject(write);
    }

    /// From here on both directions carry plain bytes.
    pub(crate) fn become_raw(&mut self) {
        self.input.become_raw();
        self.output.become_raw();
    }

    /// Sends data, or keeps a short piece for the next flush; how much of it was taken, never 0.
    pub(crate) fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.output.poll_write(&mut self.io, cx, bytes)
    }

    /// Ends the body that is being written; false when it is shorter than announced.
    pub(crate) fn finish(&mut self, trailers: Option<&Fields>) -> bool {
        self.output.finish(trailers)
    }

    /// Sends everything that waits.
    pub(crate) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.output.poll_flush(&mut self.io, cx)
    }

    /// Ends the own direction.
    pub(crate) fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }

    /// Reads and forgets what comes, after the last answer, so that it is not lost to a reset.
    pub(crate) fn poll_discard(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        self.input.poll_discard(&mut self.io, cx)
    }

    /// True when everything that came was read: ending the connection loses nothing.
    pub(crate) fn is_quiet(&self) -> bool {
        self.input.is_read() && self.input.is_empty()
    }

    /// True when both directions ended cleanly and nothing is left over: another exchange may follow.
    pub(crate) fn is_reusable(&self) -> bool {
        self.is_quiet() && self.output.is_sent() && !self.input.ended
    }
}

#[cfg(test)]
mod tests;
