//! HTTP/1 on one connection, either side: strict in, normalised out.
//!
//! In: bytes. Out: heads, pieces of bodies, trailers; and the same the other way. Nothing that came in as
//! framing goes out: every head, chunk line and trailer is written anew.
//! Never: decides what a message means for the mesh.

use std::{
    future::Future as _,
    io,
    pin::{Pin, pin},
    task::{Context, Poll, ready},
};

use bytes::{Buf as _, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite};

use super::{
    body::{BodyError, BodyEvent},
    buffers,
    fields::Fields,
    message::{Framing, Request, Response},
};
use chunked::{Decoder, Step};
use scan::{Scan, Scanned, Section};

/// Chunked bodies.
pub(crate) mod chunked;
/// Field lines.
pub(crate) mod fields;
/// What fields say about the body and the connection.
pub(crate) mod framing;
/// Request heads.
pub(crate) mod request;
/// Answers' heads.
pub(crate) mod response;
/// Where a head ends.
pub(crate) mod scan;
/// Heads, chunk lines and trailers, written anew.
pub(crate) mod write;

/// Data up to this length is copied behind what waits to be sent, so that both go in one write.
const COALESCE: usize = 4 * 1024;
/// Least room for a read.
const ROOM: usize = 4 * 1024;
/// Most bytes of further requests that are taken in while an answer is awaited.
const AHEAD: usize = 64 * 1024;

/// Which rule of HTTP/1 a message breaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum HeadError {
    /// A line that does not end in CRLF.
    #[error("a line does not end in CRLF")]
    LineEnd,
    /// The first line exceeds 16 KiB.
    #[error("the first line is longer than 16 KiB")]
    LineTooLong,
    /// The head exceeds 64 KiB, or trailers 8 KiB.
    #[error("the head is longer than 64 KiB, or the trailers than 8 KiB")]
    HeadTooLarge,
    /// More than 100 fields.
    #[error("more than 100 fields")]
    TooManyFields,
    /// The first line has not the form of one.
    #[error("the first line is malformed")]
    StartLine,
    /// Neither HTTP/1.0 nor HTTP/1.1.
    #[error("the version is neither HTTP/1.0 nor HTTP/1.1")]
    Version,
    /// Not a token, or too long.
    #[error("the method is malformed")]
    Method,
    /// Not one of the four forms.
    #[error("the request target is malformed")]
    Target,
    /// Missing, twice, or not a host.
    #[error("the host is missing, given twice, or malformed")]
    Host,
    /// Not a token directly before the colon.
    #[error("a field name is malformed")]
    FieldName,
    /// A control byte in a value.
    #[error("a field value is malformed")]
    FieldValue,
    /// Not a number, or two different ones, or where none may be.
    #[error("the content length is malformed or contradicts itself")]
    ContentLength,
    /// Anything but one `chunked`, or with a length, or in HTTP/1.0.
    #[error("the transfer encoding is not exactly chunked, or contradicts a length or the version")]
    TransferEncoding,
    /// Too many options, or one that is no token.
    #[error("the connection options are malformed")]
    Connection,
    /// Not 100 to 599.
    #[error("the status is outside 100 to 599")]
    Status,
    /// A malformed chunk, or too many extensions.
    #[error("the chunked body is malformed")]
    Chunk,
    /// A trailer that may not be one.
    #[error("a trailer frames, routes or identifies the message")]
    Trailer,
    /// The bytes ended early.
    #[error("the message is cut short")]
    Truncated,
}

impl HeadError {
    /// The status that tells a client.
    pub(crate) fn status(self) -> u16 {
        match self {
            Self::LineTooLong => 414,
            Self::HeadTooLarge | Self::TooManyFields => 431,
            Self::Version => 505,
            _ => 400,
        }
    }
}

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

#[derive(Debug)]
enum Reading {
    Done,
    Length(u64),
    Chunked(Decoder),
    Close,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Writing {
    Done,
    Length(u64),
    /// Bytes left in the chunk that was begun.
    Chunked(usize),
    Close,
}

/// A connection that speaks HTTP/1.
#[derive(Debug)]
pub(crate) struct Connection<I> {
    io: I,
    input: BytesMut,
    output: BytesMut,
    scan: Scan,
    reading: Reading,
    writing: Writing,
    trailers: Option<Box<Fields>>,
    hungry: bool,
    ended: bool,
    whole: Option<(usize, usize)>,
    raw: Raw,
}

/// Whether the connection carries plain bytes, and its own direction has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Raw {
    No,
    Open,
    Ending,
    Ended,
}

impl<I: AsyncRead + AsyncWrite + Unpin> Connection<I> {
    /// Speaks HTTP/1 on a connection from which `input` was read already.
    pub(crate) fn new(io: I, input: BytesMut) -> Self {
        Self {
            io,
            input,
            output: BytesMut::new(),
            scan: Scan::new(Section::Request),
            reading: Reading::Done,
            writing: Writing::Done,
            trailers: None,
            hungry: false,
            ended: false,
            whole: None,
            raw: Raw::No,
        }
    }

    /// The connection, what was read and not used, and what was not sent yet.
    pub(crate) fn into_parts(self) -> (I, BytesMut, BytesMut) {
        (self.io, self.input, self.output)
    }

    /// Ready once the whole head of the next request is at hand.
    pub(crate) fn poll_whole(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), ReadError>> {
        self.poll_head(cx).map_ok(drop)
    }

    /// Reads the head that is at hand.
    pub(crate) fn read_request(&mut self, request: &mut Request) -> Result<(), HeadError> {
        let (start, end) = self.whole.take().unwrap_or_default();
        request::read(self.input.get(start..end).unwrap_or_default(), request)?;
        self.input.advance(end.min(self.input.len()));
        self.reading = Reading::of(request.framing);
        self.scan = Scan::new(Section::Request);
        Ok(())
    }

    /// Reads the next head of an answer, interim ones included; `head_request` when HEAD was asked.
    pub(crate) fn poll_response(
        &mut self,
        cx: &mut Context<'_>,
        head_request: bool,
        response: &mut Response,
    ) -> Poll<Result<(), ReadError>> {
        let (start, end) = ready!(self.poll_head(cx))?;
        self.whole = None;
        response::read(
            self.input.get(start..end).unwrap_or_default(),
            head_request,
            response,
        )?;
        self.input.advance(end.min(self.input.len()));
        self.scan = Scan::new(Section::Response);
        if response.status >= 200 {
            self.reading = Reading::of(response.framing);
        }
        Poll::Ready(Ok(()))
    }

    /// Expects an answer's head next.
    pub(crate) fn expect_response(&mut self) {
        self.scan = Scan::new(Section::Response);
    }

    /// Where in the input a whole head stands.
    fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<Result<(usize, usize), ReadError>> {
        loop {
            if let Some(whole) = self.whole {
                return Poll::Ready(Ok(whole));
            }
            if let Scanned::Whole { start, end } = self.scan.advance(&self.input)? {
                self.whole = Some((start, end));
                continue;
            }
            if ready!(self.poll_fill(cx))? == 0 {
                let idle = self.scan.is_fresh(&self.input);
                let fault = if idle {
                    ReadError::Closed
                } else {
                    HeadError::Truncated.into()
                };
                return Poll::Ready(Err(fault));
            }
        }
    }

    /// Reads what is there; 0 at the end. Holds no buffer while it waits.
    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if self.ended {
            return Poll::Ready(Ok(0));
        }
        if self.input.is_empty() {
            if self.hungry && self.input.capacity() < buffers::LARGE {
                buffers::put(std::mem::replace(&mut self.input, buffers::take_large()));
            } else if self.input.capacity() == 0 {
                self.input = buffers::take();
            }
        }
        self.input
            .reserve(if self.hungry { buffers::BUFFER } else { ROOM });
        let room = self.input.capacity() - self.input.len();
        match pin!(self.io.read_buf(&mut self.input)).poll(cx) {
            Poll::Ready(Ok(count)) => {
                self.hungry = count == room;
                self.ended = count == 0;
                Poll::Ready(Ok(count))
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Pending => {
                self.hungry = false;
                buffers::release(&mut self.input);
                Poll::Pending
            }
        }
    }

    /// True while nothing of the next message has come.
    pub(crate) fn is_idle(&self) -> bool {
        self.scan.is_fresh(&self.input)
    }

    /// True once the other end has ended its direction.
    pub(crate) fn has_ended(&self) -> bool {
        self.ended
    }

    /// Watches the other end while nothing is expected of it; resolves when it has reset the connection,
    /// or has ended it. Bytes of further requests are taken in up to a bound.
    pub(crate) fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            if self.ended {
                return Poll::Ready(Ok(()));
            }
            if self.input.len() >= AHEAD {
                return Poll::Pending;
            }
            ready!(self.poll_fill(cx))?;
        }
    }

    /// The next piece of the body that is being read.
    pub(crate) fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<Result<BodyEvent, BodyError>> {
        loop {
            if let Some(event) = self.body_at_hand()? {
                return Poll::Ready(Ok(event));
            }
            if ready!(self.poll_fill(cx)).map_err(BodyError::Io)? == 0 {
                return Poll::Ready(match self.reading {
                    Reading::Close => {
                        self.reading = Reading::Done;
                        Ok(BodyEvent::End)
                    }
                    Reading::Done | Reading::Length(_) | Reading::Chunked(_) => {
                        Err(BodyError::Malformed(HeadError::Truncated))
                    }
                });
            }
        }
    }

    fn body_at_hand(&mut self) -> Result<Option<BodyEvent>, BodyError> {
        loop {
            match &mut self.reading {
                Reading::Done => return Ok(Some(BodyEvent::End)),
                Reading::Length(_) | Reading::Close if self.input.is_empty() => return Ok(None),
                Reading::Close => {
                    return Ok(Some(BodyEvent::Data {
                        length: self.input.len(),
                        last: false,
                    }));
                }
                Reading::Length(left) => {
                    let known = usize::try_from(*left).unwrap_or(usize::MAX);
                    let length = known.min(self.input.len());
                    return Ok(Some(BodyEvent::Data {
                        length,
                        last: length == known,
                    }));
                }
                Reading::Chunked(decoder) => match decoder.step(&self.input)? {
                    Step::Skip(count) => self.input.advance(count.min(self.input.len())),
                    Step::Data(length) => {
                        return Ok(Some(BodyEvent::Data {
                            length,
                            last: false,
                        }));
                    }
                    Step::Partial => return Ok(None),
                    Step::End(count, trailers) => {
                        self.input.advance(count.min(self.input.len()));
                        self.trailers = trailers;
                        self.reading = Reading::Done;
                    }
                },
            }
        }
    }

    /// The bytes that a [`BodyEvent::Data`] announced.
    pub(crate) fn front(&self, length: usize) -> &[u8] {
        self.input.get(..length).unwrap_or_default()
    }

    /// Takes announced bytes as read.
    pub(crate) fn consume(&mut self, length: usize) {
        self.count(length);
        self.input.advance(length.min(self.input.len()));
    }

    /// Takes announced bytes out, without copying large ones.
    pub(crate) fn take(&mut self, length: usize) -> Bytes {
        if length <= COALESCE {
            let bytes = Bytes::copy_from_slice(self.front(length));
            self.consume(length);
            return bytes;
        }
        self.count(length);
        self.input.split_to(length.min(self.input.len())).freeze()
    }

    fn count(&mut self, length: usize) {
        match &mut self.reading {
            Reading::Length(left) => {
                *left = left.saturating_sub(length as u64);
                if *left == 0 {
                    self.reading = Reading::Done;
                }
            }
            Reading::Chunked(decoder) => decoder.consumed(length),
            Reading::Done | Reading::Close => {}
        }
    }

    /// The trailers of the body that has ended.
    pub(crate) fn take_trailers(&mut self) -> Option<Box<Fields>> {
        self.trailers.take()
    }

    /// True once the body has been read to its end.
    pub(crate) fn is_read(&self) -> bool {
        matches!(self.reading, Reading::Done)
    }

    /// Writes a head with `write` and begins a body; nothing is sent before data, an end or a flush.
    pub(crate) fn begin(&mut self, framing: Framing, write: impl FnOnce(&mut BytesMut)) {
        if self.output.capacity() == 0 {
            self.output = buffers::take();
        }
        write(&mut self.output);
        self.writing = match framing {
            Framing::None => Writing::Done,
            Framing::Length(length) => Writing::Length(length),
            Framing::Streamed => Writing::Chunked(0),
            Framing::Close => Writing::Close,
        };
    }

    /// Writes an interim head, which changes nothing about the body that is to come.
    pub(crate) fn interject(&mut self, write: impl FnOnce(&mut BytesMut)) {
        if self.output.capacity() == 0 {
            self.output = buffers::take();
        }
        write(&mut self.output);
    }

    /// From here on both directions carry plain bytes.
    pub(crate) fn become_raw(&mut self) {
        self.reading = Reading::Close;
        self.writing = Writing::Close;
        self.raw = Raw::Open;
    }

    /// Sends data, or keeps a short piece for the next flush; how much of it was taken, never 0.
    pub(crate) fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<Result<usize, io::Error>> {
        let allowed = match &mut self.writing {
            Writing::Length(left) => usize::try_from(*left)
                .unwrap_or(usize::MAX)
                .min(bytes.len()),
            Writing::Chunked(left) => {
                if *left == 0 {
                    write::chunk(&mut self.output, bytes.len());
                    *left = bytes.len();
                }
                (*left).min(bytes.len())
            }
            Writing::Close => bytes.len(),
            Writing::Done => 0,
        };
        if allowed == 0 {
            let fault = io::Error::new(io::ErrorKind::InvalidData, "more data than announced");
            return Poll::Ready(Err(fault));
        }
        let piece = bytes.get(..allowed).unwrap_or_default();
        let taken = if allowed <= COALESCE && self.output.len() + allowed <= buffers::BUFFER {
            self.output.extend_from_slice(piece);
            allowed
        } else {
            ready!(self.poll_write_through(cx, piece))?
        };
        self.wrote(taken);
        Poll::Ready(Ok(taken))
    }

    /// Sends what waits and then `piece` in one write.
    fn poll_write_through(
        &mut self,
        cx: &mut Context<'_>,
        piece: &[u8],
    ) -> Poll<Result<usize, io::Error>> {
        loop {
            let io = Pin::new(&mut self.io);
            let sent = if self.output.is_empty() {
                ready!(io.poll_write(cx, piece))?
            } else {
                let both = [io::IoSlice::new(&self.output), io::IoSlice::new(piece)];
                ready!(io.poll_write_vectored(cx, &both))?
            };
            if sent == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            let waited = self.output.len().min(sent);
            self.output.advance(waited);
            if sent > waited {
                return Poll::Ready(Ok(sent - waited));
            }
        }
    }

    fn wrote(&mut self, count: usize) {
        match &mut self.writing {
            Writing::Length(left) => *left = left.saturating_sub(count as u64),
            Writing::Chunked(left) => {
                *left = left.saturating_sub(count);
                if *left == 0 {
                    self.output.extend_from_slice(b"\r\n");
                }
            }
            Writing::Done | Writing::Close => {}
        }
    }

    /// Ends the body that is being written; false when it is shorter than announced.
    pub(crate) fn finish(&mut self, trailers: Option<&Fields>) -> bool {
        let whole = match self.writing {
            Writing::Length(left) => left == 0,
            Writing::Chunked(left) => {
                if left == 0 {
                    write::last_chunk(&mut self.output, trailers);
                }
                left == 0
            }
            Writing::Done | Writing::Close => true,
        };
        if whole {
            self.writing = Writing::Done;
            if self.raw == Raw::Open {
                self.raw = Raw::Ending;
            }
        }
        whole
    }

    /// True once the body has been written to its end; it may still wait for a flush.
    pub(crate) fn is_written(&self) -> bool {
        self.writing == Writing::Done
    }

    /// Sends everything that waits.
    pub(crate) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.output.is_empty() {
            let sent = ready!(Pin::new(&mut self.io).poll_write(cx, &self.output))?;
            if sent == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.output.advance(sent);
        }
        buffers::release(&mut self.output);
        if self.raw == Raw::Ending {
            ready!(Pin::new(&mut self.io).poll_shutdown(cx))?;
            self.raw = Raw::Ended;
        }
        if self.raw == Raw::Ended {
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.io).poll_flush(cx)
    }

    /// Ends the own direction.
    pub(crate) fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }

    /// Reads and forgets what comes, after the last answer, so that it is not lost to a reset.
    pub(crate) fn poll_discard(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        self.input.clear();
        let count = ready!(self.poll_fill(cx))?;
        self.input.clear();
        Poll::Ready(Ok(count))
    }

    /// True when everything that came was read: ending the connection loses nothing.
    pub(crate) fn is_quiet(&self) -> bool {
        self.is_read() && self.input.is_empty()
    }

    /// True when both directions ended cleanly and nothing is left over: another exchange may follow.
    pub(crate) fn is_reusable(&self) -> bool {
        self.is_read()
            && self.is_written()
            && self.input.is_empty()
            && self.output.is_empty()
            && !self.ended
    }
}

impl Reading {
    fn of(framing: Framing) -> Self {
        match framing {
            Framing::None => Self::Done,
            Framing::Length(length) => Self::Length(length),
            Framing::Streamed => Self::Chunked(Decoder::default()),
            Framing::Close => Self::Close,
        }
    }
}

#[cfg(test)]
mod tests;
