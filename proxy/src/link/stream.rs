//! One exchange on a link, for whoever looks after it. Dropped before its end, it is given up.

use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};

use super::{
    Broken, Link,
    frame::{self, Reason},
    head::Head,
    hpack::Encoder,
};

/// A stream.
#[derive(Debug)]
pub(crate) struct Stream {
    link: Link,
    key: u32,
    id: u32,
}

impl Stream {
    pub(super) fn new(link: Link, key: u32, id: u32) -> Self {
        Self { link, key, id }
    }

    /// The calling end: the next head of the answer, interim ones included. Give it back with [`super::head::put`].
    pub(crate) fn poll_head(&self, cx: &Context<'_>) -> Poll<Result<Box<Head>, Broken>> {
        self.link.0.borrow_mut().poll_head(cx, self.key)
    }

    /// The serving end: sends a head of the answer; `ended` when no body follows.
    pub(crate) fn send_head(&self, ended: bool, write: impl FnOnce(&mut Fields<'_>)) {
        let mut state = self.link.0.borrow_mut();
        let serves = !state.terms.client;
        let Some(entry) = state.entry(self.key) else {
            return;
        };
        if entry.broken.is_some() || entry.written {
            return;
        }
        entry.written = ended;
        entry.answered |= serves;
        state.send_head(self.id, ended, write);
        if ended {
            state.settle(self.key);
        }
    }

    /// Ends the body with trailers.
    pub(crate) fn send_trailers(&self, write: impl FnOnce(&mut Fields<'_>)) {
        self.send_head(true, write);
    }

    /// The next piece of the body; nothing at its end. What is passed on is given back with [`Stream::release`].
    pub(crate) fn poll_piece(&self, cx: &Context<'_>) -> Poll<Result<Option<Bytes>, Broken>> {
        self.link.0.borrow_mut().poll_piece(cx, self.key)
    }

    /// Bytes of the body were passed on.
    pub(crate) fn release(&self, count: usize) {
        self.link.0.borrow_mut().release(self.key, count);
    }

    /// True when everything that the other end sends was read.
    pub(crate) fn is_read(&self) -> bool {
        let mut state = self.link.0.borrow_mut();
        let entry = state.entry(self.key);
        entry.is_none_or(|entry| entry.read && entry.inbox.is_empty() && entry.trailers.is_none())
    }

    /// The trailers, once the body has been read.
    pub(crate) fn take_trailers(&self) -> Option<Box<Head>> {
        let mut state = self.link.0.borrow_mut();
        state.entry(self.key)?.trailers.take()
    }

    /// How much of `wanted` bytes may be sent now, never 0.
    pub(crate) fn poll_room(&self, cx: &Context<'_>, wanted: usize) -> Poll<Result<usize, Broken>> {
        self.link.0.borrow_mut().poll_room(cx, self.key, wanted)
    }

    /// Sends bytes for which there is room.
    pub(crate) fn send(&self, piece: Bytes, last: bool) {
        self.link.0.borrow_mut().send(self.key, piece, last);
    }

    /// The same with bytes that are copied.
    pub(crate) fn send_copy(&self, piece: &[u8], last: bool) {
        self.link.0.borrow_mut().send_copy(self.key, piece, last);
    }

    /// Gives the stream up.
    pub(crate) fn reset(&self, reason: Reason) {
        let mut state = self.link.0.borrow_mut();
        state.reset(self.key, reason, Broken::Refused(reason));
    }

    /// Gives the stream up because of what the other end sent.
    pub(crate) fn refuse(&self, reason: Reason) {
        self.link.0.borrow_mut().refuse(self.key, reason);
    }

    /// Ready when the other end has given the stream up, or the link is gone.
    pub(crate) fn poll_gone(&self, cx: &Context<'_>) -> Poll<()> {
        self.link.0.borrow_mut().poll_gone(cx, self.key)
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.link.0.borrow_mut().forget(self.key);
    }
}

/// Where the fields of a head are written, pseudo-headers first; names are in lower case.
#[derive(Debug)]
pub(crate) struct Fields<'w> {
    encoder: &'w mut Encoder,
    out: &'w mut BytesMut,
    begin: usize,
}

impl<'w> Fields<'w> {
    pub(super) fn begin(encoder: &'w mut Encoder, out: &'w mut BytesMut) -> Self {
        let begin = out.len();
        // The place of the frame's head.
        out.extend_from_slice(&[0; frame::HEAD]);
        encoder.begin(out);
        Self {
            encoder,
            out,
            begin,
        }
    }

    /// A field; one that comes again and again costs a byte or two.
    pub(crate) fn field(&mut self, name: &[u8], value: &[u8]) {
        self.encoder.field(name, value, self.out);
    }

    /// A field whose value differs each time.
    pub(crate) fn once(&mut self, name: &[u8], value: &[u8]) {
        Encoder::once(name, value, self.out);
    }

    /// A field whose value is secret.
    pub(crate) fn secret(&mut self, name: &[u8], value: &[u8]) {
        Encoder::secret(name, value, self.out);
    }

    /// Makes frames of what was written, none longer than `most`.
    pub(super) fn end(self, stream: u32, ended: bool, most: usize) {
        let length = self.out.len() - self.begin - frame::HEAD;
        let ends = if ended { frame::END_STREAM } else { 0 };
        let head = |length, kind, flags| frame::Head {
            length,
            kind,
            flags,
            stream,
        };
        if length <= most {
            let head = head(length, frame::HEADERS, ends | frame::END_HEADERS);
            if let Some(place) = self.out.get_mut(self.begin..self.begin + frame::HEAD) {
                place.copy_from_slice(&head.bytes());
            }
            return;
        }
        let block = self.out.split_off(self.begin).split_off(frame::HEAD);
        let mut parts = block.chunks(most).peekable();
        let (mut kind, mut flags) = (frame::HEADERS, ends);
        while let Some(part) = parts.next() {
            if parts.peek().is_none() {
                flags |= frame::END_HEADERS;
            }
            self.out
                .extend_from_slice(&head(part.len(), kind, flags).bytes());
            self.out.extend_from_slice(part);
            (kind, flags) = (frame::CONTINUATION, 0);
        }
    }
}
