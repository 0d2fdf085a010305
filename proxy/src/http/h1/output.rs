//! What an HTTP/1 connection writes: heads, bodies in the framing that the head announced, trailers.
//!
//! Nothing is sent before it must be: a head and a short body go out in one write.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::BytesMut;
use tokio::io::AsyncWrite;

use super::{COALESCE, write};
use crate::http::{buffers, fields::Fields, message::Framing};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Writing {
    Done,
    Length(u64),
    /// Bytes left in the chunk that was begun.
    Chunked(usize),
    Close,
}

/// Whether the connection carries plain bytes, and its own direction has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Raw {
    No,
    Open,
    Ending,
    Ended,
}

/// The writing half.
#[derive(Debug)]
pub(super) struct Output {
    buffer: BytesMut,
    writing: Writing,
    raw: Raw,
}

impl Output {
    /// Nothing to say.
    pub(super) fn new() -> Self {
        Self {
            buffer: BytesMut::new(),
            writing: Writing::Done,
            raw: Raw::No,
        }
    }

    /// What was not sent yet.
    pub(super) fn into_buffer(self) -> BytesMut {
        self.buffer
    }

    /// Writes a head with `write` and begins a body; nothing is sent before data, an end or a flush.
    pub(super) fn begin(&mut self, framing: Framing, write: impl FnOnce(&mut BytesMut)) {
        self.interject(write);
        self.writing = match framing {
            Framing::None => Writing::Done,
            Framing::Length(length) => Writing::Length(length),
            Framing::Streamed => Writing::Chunked(0),
            Framing::Close => Writing::Close,
        };
    }

    /// Writes an interim head, which changes nothing about the body that is to come.
    pub(super) fn interject(&mut self, write: impl FnOnce(&mut BytesMut)) {
        if self.buffer.capacity() == 0 {
            self.buffer = buffers::take();
        }
        write(&mut self.buffer);
    }

    /// From here on plain bytes.
    pub(super) fn become_raw(&mut self) {
        self.writing = Writing::Close;
        self.raw = Raw::Open;
    }

    /// Sends data, or keeps a short piece for the next flush; how much of it was taken, never 0.
    pub(super) fn poll_write(
        &mut self,
        io: &mut (impl AsyncWrite + Unpin),
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let allowed = match &mut self.writing {
            Writing::Length(left) => usize::try_from(*left)
                .unwrap_or(usize::MAX)
                .min(bytes.len()),
            Writing::Chunked(left) => {
                if *left == 0 {
                    write::chunk(&mut self.buffer, bytes.len());
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
        let taken = if allowed <= COALESCE && self.buffer.len() + allowed <= buffers::BUFFER {
            self.buffer.extend_from_slice(piece);
            allowed
        } else {
            ready!(self.poll_through(io, cx, piece))?
        };
        self.wrote(taken);
        Poll::Ready(Ok(taken))
    }

    /// Sends what waits and then `piece` in one write.
    fn poll_through(
        &mut self,
        io: &mut (impl AsyncWrite + Unpin),
        cx: &mut Context<'_>,
        piece: &[u8],
    ) -> Poll<io::Result<usize>> {
        loop {
            let io = Pin::new(&mut *io);
            let sent = if self.buffer.is_empty() {
                ready!(io.poll_write(cx, piece))?
            } else {
                let both = [io::IoSlice::new(&self.buffer), io::IoSlice::new(piece)];
                ready!(io.poll_write_vectored(cx, &both))?
            };
            if sent == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            let waited = self.buffer.len().min(sent);
            buffers::forget(&mut self.buffer, waited);
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
                    self.buffer.extend_from_slice(b"\r\n");
                }
            }
            Writing::Done | Writing::Close => {}
        }
    }

    /// Ends the body that is being written; false when it is shorter than announced.
    pub(super) fn finish(&mut self, trailers: Option<&Fields>) -> bool {
        let whole = match self.writing {
            Writing::Length(left) => left == 0,
            Writing::Chunked(left) => {
                if left == 0 {
                    write::last_chunk(&mut self.buffer, trailers);
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

    /// True once everything was written to its end and sent.
    pub(super) fn is_sent(&self) -> bool {
        self.writing == Writing::Done && self.buffer.is_empty()
    }

    /// Sends everything that waits.
    pub(super) fn poll_flush(
        &mut self,
        io: &mut (impl AsyncWrite + Unpin),
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        while !self.buffer.is_empty() {
            let sent = ready!(Pin::new(&mut *io).poll_write(cx, &self.buffer))?;
            if sent == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            buffers::forget(&mut self.buffer, sent);
        }
        buffers::release(&mut self.buffer);
        if self.raw == Raw::Ending {
            ready!(Pin::new(&mut *io).poll_shutdown(cx))?;
            self.raw = Raw::Ended;
        }
        if self.raw == Raw::Ended {
            return Poll::Ready(Ok(()));
        }
        Pin::new(io).poll_flush(cx)
    }
}
