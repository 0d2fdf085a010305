//! One stream of a link.

use std::task::{Context, Poll, ready};

use bytes::{Buf as _, Bytes};
use h2::Reason;

use super::{AnswerError, PIECE, heads};
use crate::{
    http::{
        body::{BodyError, BodyEvent},
        fields::Fields,
        malformed::HeadError,
        message::{Framing, Response},
    },
    io,
    link::{self, Broken, Peer},
};

/// Bytes from which a piece is handed over instead of copied.
pub(super) const LARGE: usize = 8 << 10;

/// A stream.
#[derive(Debug)]
pub(in crate::http) struct Stream {
    link: link::Stream,
    peer: Peer,
    chunk: Bytes,
    is_read: bool,
    /// What the head announced of the body and has not come yet.
    left: Option<u64>,
    trailers: Option<Box<Fields>>,
    is_written: bool,
}

impl Stream {
    /// The server's side of a stream of `peer`; `length` is what the head announces of the body, which has come when
    /// `ended`.
    pub(super) fn asked(
        stream: link::Stream,
        peer: Peer,
        ended: bool,
        length: Option<u64>,
    ) -> Self {
        Self {
            peer,
            left: length,
            is_read: ended,
            ..Self::asking(stream, false)
        }
    }

    /// The client's side; `ended` when the request has no body.
    pub(super) fn asking(stream: link::Stream, ended: bool) -> Self {
        Self {
            link: stream,
            peer: Peer::Daemon,
            chunk: Bytes::new(),
            is_read: false,
            left: None,
            trailers: None,
            is_written: ended,
        }
    }

    pub(super) fn poll_response(
        &mut self,
        cx: &mut Context<'_>,
        head_request: bool,
        response: &mut Response,
    ) -> Poll<Result<(), AnswerError>> {
        let head = ready!(self.link.poll_head(cx)).map_err(AnswerError::of)?;
        let ended = self.link.is_read();
        let read = heads::response_from(&head, ended, head_request, response);
        link::head::put(head);
        read?;
        if response.status >= 200 {
            self.is_read = ended;
            self.left = match response.framing {
                Framing::Length(length) => Some(length),
                Framing::None | Framing::Streamed | Framing::Close => None,
            };
        }
        Poll::Ready(Ok(()))
    }

    pub(super) fn send_response(&mut self, response: &Response, ended: bool) {
        self.link
            .send_head(ended, |fields| heads::response_to(response, fields));
        if response.status >= 200 {
            self.is_written = ended;
        }
    }

    pub(super) fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<Result<BodyEvent, BodyError>> {
        if self.chunk.is_empty() {
            if self.is_read {
                return Poll::Ready(Ok(BodyEvent::End));
            }
            let piece = ready!(self.link.poll_piece(cx));
            if let Some(piece) = piece.map_err(|broken| BodyError::Stream(broken.into()))? {
                self.chunk = piece;
            } else {
                if let Some(head) = self.link.take_trailers() {
                    let fields = heads::fields_from(&head, self.peer);
                    link::head::put(head);
                    if fields.is_err() && self.peer == Peer::Program {
                        self.link.refuse(link::Reason::PROTOCOL_ERROR);
                    }
                    self.trailers = Some(Box::new(fields?));
                }
                self.is_read = true;
            }
            if !self.counts() {
                return Poll::Ready(Err(HeadError::ContentLength.into()));
            }
            if self.is_read {
                return Poll::Ready(Ok(BodyEvent::End));
            }
        }
        Poll::Ready(Ok(BodyEvent::Data {
            length: self.chunk.len(),
            last: self.link.is_read(),
        }))
    }

    /// Counts a new piece, or the end, against what the head announced (RFC 9113 section 8.1.1); false when it is
    /// something else.
    fn counts(&mut self) -> bool {
        let Some(left) = &mut self.left else {
            return true;
        };
        match left.checked_sub(self.chunk.len() as u64) {
            Some(rest) => *left = rest,
            None => return false,
        }
        *left == 0 || !(self.is_read || self.link.is_read())
    }

    pub(super) fn front(&self, length: usize) -> &[u8] {
        self.chunk.get(..length).unwrap_or_default()
    }

    pub(super) fn consume(&mut self, length: usize) {
        self.chunk.advance(length.min(self.chunk.len()));
        self.release(length);
    }

    pub(super) fn take(&mut self, length: usize) -> Bytes {
        let bytes = self.chunk.split_to(length.min(self.chunk.len()));
        self.release(length);
        bytes
    }

    fn release(&mut self, length: usize) {
        self.link.release(length);
        if self.chunk.is_empty() && self.link.is_read() {
            self.is_read = true;
        }
    }

    pub(super) fn trailers(&self) -> Option<&Fields> {
        self.trailers.as_deref()
    }

    pub(super) fn take_trailers(&mut self) -> Option<Box<Fields>> {
        self.trailers.take()
    }

    pub(super) fn poll_room(
        &mut self,
        cx: &mut Context<'_>,
        wanted: usize,
    ) -> Poll<Result<usize, Broken>> {
        self.link.poll_room(cx, wanted.min(PIECE))
    }

    pub(super) fn send(&mut self, bytes: Bytes, last: bool) {
        self.link.send(bytes, last);
        self.is_written |= last;
    }

    pub(super) fn send_copy(&mut self, bytes: &[u8], last: bool) {
        self.link.send_copy(bytes, last);
        self.is_written |= last;
    }

    pub(super) fn finish(&mut self, trailers: Option<&Fields>) {
        if self.is_written {
            return;
        }
        self.is_written = true;
        match trailers {
            Some(trailers) => self
                .link
                .send_trailers(|fields| heads::fields_to(trailers, fields)),
            None => self.link.send_copy(&[], true),
        }
    }

    pub(super) fn reset(&mut self, reason: Reason) {
        self.link.reset(link::Reason(reason.into()));
        self.is_written = true;
    }

    /// Gives it up because its head is malformed.
    pub(super) fn refuse(&mut self) {
        self.link.refuse(link::Reason::PROTOCOL_ERROR);
        self.is_written = true;
    }

    /// Grants a CONNECT.
    pub(super) fn grant(&mut self) {
        self.link
            .send_head(false, |fields| fields.field(b":status", b"200"));
    }

    /// What bytes go out and come in by, once it was granted.
    pub(super) fn into_bytes(self) -> io::Stream {
        io::Stream::linked(self.link)
    }

    pub(super) fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.link.poll_gone(cx)
    }
}
