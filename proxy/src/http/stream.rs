//! One HTTP/2 stream, either side, in the form of a wire: heads, pieces of bodies, trailers.
//!
//! Flow-control credit goes back only as bytes are passed on, so memory is bounded by the window.

use std::task::{Context, Poll};

use bytes::Bytes;
use h2::{Reason, SendStream, client::ResponseFuture};

use super::{
    body::{BodyError, BodyEvent},
    broken::Fault,
    fields::Fields,
    malformed::HeadError,
    message::Response,
};
use crate::{io, link};

/// Heads on a link.
pub(super) mod heads;
/// Streams of a link.
mod linked;
/// Streams of the `h2` crate.
mod other;

/// Most data handed to the connection at once.
const PIECE: usize = 64 * 1024;

/// Why an answer's head could not be had.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AnswerError {
    /// The stream or its connection failed.
    #[error("the stream failed")]
    Stream(#[source] Fault),
    /// The head breaks a rule.
    #[error(transparent)]
    Head(#[from] HeadError),
}

impl AnswerError {
    fn of(fault: impl Into<Fault>) -> Self {
        Self::Stream(fault.into())
    }
}

/// A stream.
#[derive(Debug)]
pub(crate) enum Stream {
    /// Of a program that is called, or of another mesh.
    Other(other::Stream),
    /// Of a caller, and between our own daemons.
    Linked(linked::Stream),
}

impl Stream {
    /// The client's side of a stream; `ended` when the request has no body.
    pub(crate) fn opened(answer: ResponseFuture, send: SendStream<Bytes>, ended: bool) -> Self {
        Self::Other(other::Stream::opened(answer, send, ended))
    }

    /// The server's side of a stream of `peer`; `length` is what the head announces of the body, which has come when
    /// `ended`.
    pub(crate) fn asked(
        stream: link::Stream,
        peer: link::Peer,
        ended: bool,
        length: Option<u64>,
    ) -> Self {
        Self::Linked(linked::Stream::asked(stream, peer, ended, length))
    }

    /// The client's side of a stream between daemons; `ended` when the request has no body.
    pub(crate) fn asking(stream: link::Stream, ended: bool) -> Self {
        Self::Linked(linked::Stream::asking(stream, ended))
    }

    /// No stream at all: nothing comes from it, and what goes to it is refused.
    pub(crate) fn nobody() -> Self {
        Self::Other(other::Stream::nobody())
    }

    /// The client's side: the next head, interim ones included.
    pub(crate) fn poll_response(
        &mut self,
        cx: &mut Context<'_>,
        head_request: bool,
        response: &mut Response,
    ) -> Poll<Result<(), AnswerError>> {
        match self {
            Self::Other(stream) => stream.poll_response(cx, head_request, response),
            Self::Linked(stream) => stream.poll_response(cx, head_request, response),
        }
    }

    /// The server's side: sends an interim answer.
    pub(crate) fn send_interim(&mut self, response: &Response) {
        if let Self::Linked(stream) = self {
            stream.send_response(response, false);
        }
    }

    /// The server's side: sends the head; `ended` when there is no body.
    pub(crate) fn send_response(&mut self, response: &Response, ended: bool) {
        if let Self::Linked(stream) = self {
            stream.send_response(response, ended);
        }
    }

    /// The server's side: grants a CONNECT.
    pub(crate) fn grant(&mut self) {
        if let Self::Linked(stream) = self {
            stream.grant();
        }
    }

    /// The server's side: gives up a stream whose head is malformed (RFC 9113 section 8.1.1).
    pub(crate) fn refuse(&mut self) {
        if let Self::Linked(stream) = self {
            stream.refuse();
        }
    }

    /// The next piece of the body.
    pub(crate) fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<Result<BodyEvent, BodyError>> {
        match self {
            Self::Other(stream) => stream.poll_body(cx),
            Self::Linked(stream) => stream.poll_body(cx),
        }
    }

    /// The bytes that a [`BodyEvent::Data`] announced.
    pub(crate) fn front(&self, length: usize) -> &[u8] {
        match self {
            Self::Other(stream) => stream.front(length),
            Self::Linked(stream) => stream.front(length),
        }
    }

    /// Takes announced bytes as passed on.
    pub(crate) fn consume(&mut self, length: usize) {
        match self {
            Self::Other(stream) => stream.consume(length),
            Self::Linked(stream) => stream.consume(length),
        }
    }

    /// Takes announced bytes out.
    pub(crate) fn take(&mut self, length: usize) -> Bytes {
        match self {
            Self::Other(stream) => stream.take(length),
            Self::Linked(stream) => stream.take(length),
        }
    }

    /// The same, without taking them.
    pub(crate) fn trailers(&self) -> Option<&Fields> {
        match self {
            Self::Other(stream) => stream.trailers(),
            Self::Linked(stream) => stream.trailers(),
        }
    }

    /// The trailers of the body that has ended.
    pub(crate) fn take_trailers(&mut self) -> Option<Box<Fields>> {
        match self {
            Self::Other(stream) => stream.take_trailers(),
            Self::Linked(stream) => stream.take_trailers(),
        }
    }

    /// How much of `wanted` bytes may be sent now; never 0.
    pub(crate) fn poll_room(
        &mut self,
        cx: &mut Context<'_>,
        wanted: usize,
    ) -> Poll<Result<usize, Option<Fault>>> {
        match self {
            Self::Other(stream) => stream
                .poll_room(cx, wanted)
                .map_err(|error| error.map(Fault::Other)),
            Self::Linked(stream) => stream
                .poll_room(cx, wanted)
                .map_err(|broken| Some(Fault::Linked(broken))),
        }
    }

    /// True when bytes that are copied cost less than bytes that are handed over.
    pub(crate) fn copies(&self, length: usize) -> bool {
        match self {
            Self::Other(_) => false,
            Self::Linked(_) => length < linked::LARGE,
        }
    }

    /// Sends bytes for which there was room.
    pub(crate) fn send(&mut self, bytes: Bytes, last: bool) -> Result<(), Fault> {
        match self {
            Self::Other(stream) => stream.send(bytes, last)?,
            Self::Linked(stream) => stream.send(bytes, last),
        }
        Ok(())
    }

    /// The same with bytes that are copied.
    pub(crate) fn send_copy(&mut self, bytes: &[u8], last: bool) -> Result<(), Fault> {
        match self {
            Self::Other(stream) => stream.send(Bytes::copy_from_slice(bytes), last)?,
            Self::Linked(stream) => stream.send_copy(bytes, last),
        }
        Ok(())
    }

    /// Ends the body.
    pub(crate) fn finish(&mut self, trailers: Option<&Fields>) -> Result<(), Fault> {
        match self {
            Self::Other(stream) => stream.finish(trailers)?,
            Self::Linked(stream) => stream.finish(trailers),
        }
        Ok(())
    }

    /// Ends the stream with an error.
    pub(crate) fn reset(&mut self, reason: Reason) {
        match self {
            Self::Other(stream) => stream.reset(reason),
            Self::Linked(stream) => stream.reset(reason),
        }
    }

    /// The server's side after it was granted: what bytes go out and come in by.
    pub(crate) fn into_bytes(self) -> Option<io::Stream> {
        match self {
            Self::Other(_) => None,
            Self::Linked(stream) => Some(stream.into_bytes()),
        }
    }

    /// Resolves when the other end has reset the stream or its connection has ended.
    pub(crate) fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match self {
            Self::Other(stream) => stream.poll_gone(cx),
            Self::Linked(stream) => stream.poll_gone(cx),
        }
    }
}
