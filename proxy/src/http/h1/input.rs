//! What an HTTP/1 connection reads: heads, pieces of bodies, trailers.
//!
//! Holds a buffer only while bytes are in it.

use std::{
    future::Future as _,
    io,
    pin::pin,
    task::{Context, Poll, ready},
};

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt as _};

use super::{
    COALESCE, HeadError, ReadError,
    chunked::{Decoder, Step},
    request, response,
    scan::{Scan, Scanned, Section},
};
use crate::http::{
    body::{BodyError, BodyEvent},
    buffers,
    fields::Fields,
    message::{Framing, Request, Response},
};

/// Least room for a read.
const ROOM: usize = 4 * 1024;
/// Most bytes of further requests that are taken in while an answer is awaited.
const AHEAD: usize = 64 * 1024;

#[derive(Debug)]
enum Reading {
    Done,
    Length(u64),
    Chunked(Decoder),
    Close,
}

/// The reading half.
#[derive(Debug)]
pub(super) struct Input {
    buffer: BytesMut,
    scan: Scan,
    /// Where in the buffer a whole head stands that was not read yet.
    whole: Option<(usize, usize)>,
    reading: Reading,
    trailers: Option<Box<Fields>>,
    /// The last read filled its buffer: the next gets a large one.
    hungry: bool,
    /// The other end has ended its direction.
    pub(super) ended: bool,
}

impl Input {
    /// Begins with bytes that were read already.
    pub(super) fn new(buffer: BytesMut) -> Self {
        Self {
            buffer,
            scan: Scan::new(Section::Request),
            whole: None,
            reading: Reading::Done,
            trailers: None,
            hungry: false,
            ended: false,
        }
    }

    /// What was read and not used.
    pub(super) fn into_buffer(self) -> BytesMut {
        self.buffer
    }

    /// Expects an answer's head next.
    pub(super) fn expect_response(&mut self) {
        self.scan = Scan::new(Section::Response);
    }

    /// From here on plain bytes.
    pub(super) fn become_raw(&mut self) {
        self.reading = Reading::Close;
    }

    /// Ready once a whole head is at hand.
    pub(super) fn poll_whole(
        &mut self,
        io: &mut (impl AsyncRead + Unpin),
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), ReadError>> {
        while self.whole.is_none() {
            if let Scanned::Whole { start, end } = self.scan.advance(&self.buffer)? {
                self.whole = Some((start, end));
            } else if ready!(self.poll_fill(io, cx))? == 0 {
                let idle = self.is_idle();
                let fault = if idle {
                    ReadError::Closed
                } else {
                    HeadError::Truncated.into()
                };
                return Poll::Ready(Err(fault));
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Reads the request head that is at hand, and begins its body.
    pub(super) fn read_request(&mut self, request: &mut Request) -> Result<(), HeadError> {
        let (start, end) = self.whole.take().unwrap_or_default();
        request::read(self.buffer.get(start..end).unwrap_or_default(), request)?;
        buffers::forget(&mut self.buffer, end);
        self.reading = Reading::of(request.framing);
        self.scan = Scan::new(Section::Request);
        Ok(())
    }

    /// Reads the answer's head that is at hand, and begins its body unless it is an interim one.
    pub(super) fn read_response(
        &mut self,
        head_request: bool,
        response: &mut Response,
    ) -> Result<(), HeadError> {
        let (start, end) = self.whole.take().unwrap_or_default();
        let head = self.buffer.get(start..end).unwrap_or_default();
        response::read(head, head_request, response)?;
        buffers::forget(&mut self.buffer, end);
        self.scan = Scan::new(Section::Response);
        if response.status >= 200 {
            self.reading = Reading::of(response.framing);
        }
        Ok(())
    }

    /// True while nothing of the next message has come.
    pub(super) fn is_idle(&self) -> bool {
        self.scan.is_fresh(&self.buffer)
    }

    /// True once the body has been read to its end.
    pub(super) fn is_read(&self) -> bool {
        matches!(self.reading, Reading::Done)
    }

    /// True without bytes that nobody has used.
    pub(super) fn is_empty(&self) -> bool {
        self.buffer.is_empty()
    }

    /// Reads what is there; 0 at the end.
    fn poll_fill(
        &mut self,
        io: &mut (impl AsyncRead + Unpin),
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        if self.ended {
            return Poll::Ready(Ok(0));
        }
        if self.buffer.is_empty() {
            if self.hungry && self.buffer.capacity() < buffers::LARGE {
                buffers::put(std::mem::replace(&mut self.buffer, buffers::take_large()));
            } else if self.buffer.capacity() == 0 {
                self.buffer = buffers::take();
            }
        }
        self.buffer
            .reserve(if self.hungry { buffers::BUFFER } else { ROOM });
        let room = self.buffer.capacity() - self.buffer.len();
        match pin!(io.read_buf(&mut self.buffer)).poll(cx) {
            Poll::Ready(Ok(count)) => {
                self.hungry = count == room;
                self.ended = count == 0;
                Poll::Ready(Ok(count))
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Pending => {
                self.hungry = false;
                buffers::release(&mut self.buffer);
                Poll::Pending
            }
        }
    }

    /// Watches the other end while nothing is expected of it; ready when it has reset the connection, or has
    /// ended it. Bytes of further messages are taken in up to a bound.
    pub(super) fn poll_gone(
        &mut self,
        io: &mut (impl AsyncRead + Unpin),
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        while !self.ended {
            if self.buffer.len() >= AHEAD {
                return Poll::Pending;
            }
            ready!(self.poll_fill(io, cx))?;
        }
        Poll::Ready(Ok(()))
    }

    /// Reads and forgets what comes.
    pub(super) fn poll_discard(
        &mut self,
        io: &mut (impl AsyncRead + Unpin),
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        self.buffer.clear();
        let count = ready!(self.poll_fill(io, cx))?;
        self.buffer.clear();
        Poll::Ready(Ok(count))
    }

    /// The next piece of the body.
    pub(super) fn poll_body(
        &mut self,
        io: &mut (impl AsyncRead + Unpin),
        cx: &mut Context<'_>,
    ) -> Poll<Result<BodyEvent, BodyError>> {
        loop {
            if let Some(event) = self.body_at_hand()? {
                return Poll::Ready(Ok(event));
            }
            if ready!(self.poll_fill(io, cx)).map_err(BodyError::Io)? == 0 {
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
                Reading::Length(_) | Reading::Close if self.buffer.is_empty() => return Ok(None),
                Reading::Close => {
                    return Ok(Some(BodyEvent::Data {
                        length: self.buffer.len(),
                        last: false,
                    }));
                }
                Reading::Length(left) => {
                    let known = usize::try_from(*left).unwrap_or(usize::MAX);
                    let length = known.min(self.buffer.len());
                    return Ok(Some(BodyEvent::Data {
                        length,
                        last: length == known,
                    }));
                }
                Reading::Chunked(decoder) => match decoder.step(&self.buffer)? {
                    Step::Skip(count) => buffers::forget(&mut self.buffer, count),
                    Step::Data(length) => {
                        return Ok(Some(BodyEvent::Data {
                            length,
                            last: false,
                        }));
                    }
                    Step::Partial => return Ok(None),
                    Step::End(count, trailers) => {
                        buffers::forget(&mut self.buffer, count);
                        self.trailers = trailers;
                        self.reading = Reading::Done;
                    }
                },
            }
        }
    }

    /// The bytes that a [`BodyEvent::Data`] announced.
    pub(super) fn front(&self, length: usize) -> &[u8] {
        self.buffer.get(..length).unwrap_or_default()
    }

    /// Takes announced bytes as passed on.
    pub(super) fn consume(&mut self, length: usize) {
        self.count(length);
        buffers::forget(&mut self.buffer, length);
    }

    /// Takes announced bytes out, without copying large ones.
    pub(super) fn take(&mut self, length: usize) -> Bytes {
        if length <= COALESCE {
            let bytes = Bytes::copy_from_slice(self.front(length));
            self.consume(length);
            return bytes;
        }
        self.count(length);
        self.buffer.split_to(length.min(self.buffer.len())).freeze()
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
    pub(super) fn take_trailers(&mut self) -> Option<Box<Fields>> {
        self.trailers.take()
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
