//! Watches the frames of an HTTP/2 connection as they pass, for peers who send more of them than their requests need.
//!
//! In: the bytes of a server's side. Out: the same bytes, and whether the peer floods. The `h2` crate bounds what
//! it keeps; what it answers or takes without an end (SETTINGS, PING, PRIORITY, WINDOW_UPDATE, resets, empty
//! frames) is counted here.
//! Never: changes a byte.

use std::{
    cell::{Cell, RefCell},
    io,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::link::Allowance;

/// The client's connection preface (RFC 9113 section 3.4) comes before the first frame.
const PREFACE: usize = 24;
const HEAD: usize = 9;
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;

/// What one connection's peer has done.
#[derive(Debug)]
pub(crate) struct Tally {
    frames: RefCell<Frames>,
    flooded: Cell<bool>,
    /// The first frame was not SETTINGS.
    no_preface: Cell<bool>,
}

#[derive(Debug)]
struct Frames {
    received: Places,
    sent: Places,
    idle: Allowance,
    begun: bool,
}

/// Where the next frame's head begins in one direction.
#[derive(Debug)]
struct Places {
    skip: usize,
    head: [u8; HEAD],
    have: usize,
}

impl Places {
    fn after(skip: usize) -> Self {
        Self {
            skip,
            head: [0; HEAD],
            have: 0,
        }
    }

    /// Tells type and length of each frame that begins in `bytes`.
    fn pass(&mut self, mut bytes: &[u8], mut frame: impl FnMut(u8, usize)) {
        loop {
            let skipped = self.skip.min(bytes.len());
            self.skip -= skipped;
            bytes = bytes.get(skipped..).unwrap_or_default();
            if bytes.is_empty() {
                return;
            }
            let taken = (HEAD - self.have).min(bytes.len());
            if let (Some(to), Some(from)) = (
                self.head.get_mut(self.have..self.have + taken),
                bytes.get(..taken),
            ) {
                to.copy_from_slice(from);
            }
            self.have += taken;
            bytes = bytes.get(taken..).unwrap_or_default();
            if self.have == HEAD {
                let [high, middle, low, kind, ..] = self.head;
                let length = u32::from_be_bytes([0, high, middle, low]) as usize;
                frame(kind, length);
                (self.skip, self.have) = (length, 0);
            }
        }
    }
}

impl Tally {
    fn new() -> Self {
        Self {
            frames: RefCell::new(Frames {
                received: Places::after(PREFACE),
                sent: Places::after(0),
                idle: Allowance::new(),
                begun: false,
            }),
            flooded: Cell::new(false),
            no_preface: Cell::new(false),
        }
    }

    fn received(&self, bytes: &[u8]) {
        let frames = &mut *self.frames.borrow_mut();
        let (mut idle, mut useful) = (0u32, 0u32);
        let begun = &mut frames.begun;
        frames.received.pass(bytes, |kind, length| {
            if !std::mem::replace(begun, true) && kind != SETTINGS {
                self.no_preface.set(true);
            }
            if matches!(kind, DATA | HEADERS) && length > 0 {
                useful = useful.saturating_add(1);
            } else {
                idle = idle.saturating_add(1);
            }
        });
        frames.idle.earn(useful);
        if !frames.idle.spend(idle) {
            self.flooded.set(true);
        }
    }

    fn sent(&self, bytes: &[u8]) {
        let frames = &mut *self.frames.borrow_mut();
        let mut useful = 0u32;
        frames.sent.pass(bytes, |kind, length| {
            useful = useful.saturating_add(u32::from(matches!(kind, DATA | HEADERS) && length > 0));
        });
        frames.idle.earn(useful);
    }

    /// True once the peer has sent more than it may.
    pub(crate) fn is_flooded(&self) -> bool {
        self.flooded.get()
    }
}

/// A connection whose frames are counted.
#[derive(Debug)]
pub(crate) struct Watched<I> {
    io: I,
    tally: Rc<Tally>,
}

impl<I> Watched<I> {
    /// Watches a connection from its preface on.
    pub(crate) fn new(io: I) -> (Self, Rc<Tally>) {
        let tally = Rc::new(Tally::new());
        let io = Self {
            io,
            tally: Rc::clone(&tally),
        };
        (io, tally)
    }
}

impl<I: AsyncRead + Unpin> AsyncRead for Watched<I> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.tally.is_flooded() {
            // Whoever drives the connection looks at the tally before it reads on.
            return Poll::Pending;
        }
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.io).poll_read(cx, buf))?;
        self.tally
            .received(buf.filled().get(before..).unwrap_or_default());
        if self.tally.no_preface.get() {
            // RFC 9113 section 3.4: a connection error, and whoever does that may not speak HTTP/2 at all.
            buf.set_filled(before);
            return Poll::Ready(Err(io::ErrorKind::InvalidData.into()));
        }
        Poll::Ready(Ok(()))
    }
}

impl<I: AsyncWrite + Unpin> AsyncWrite for Watched<I> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.io).poll_write(cx, buf);
        let taken = ready!(result)?;
        self.tally.sent(buf.get(..taken).unwrap_or_default());
        Poll::Ready(Ok(taken))
    }
    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.io).poll_write_vectored(cx, bufs);
        let taken = ready!(result)?;
        let mut left = taken;
        for buf in bufs {
            let here = left.min(buf.len());
            self.tally.sent(buf.get(..here).unwrap_or_default());
            left -= here;
        }
        Poll::Ready(Ok(taken))
    }
    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::link::BURST;

    fn frame(kind: u8, length: usize) -> Vec<u8> {
        let [_, a, b, c] = u32::try_from(length).unwrap().to_be_bytes();
        let mut frame = vec![a, b, c, kind, 0, 0, 0, 0, 0];
        frame.resize(HEAD + length, 7);
        frame
    }

    /// However the bytes are cut, the same frames are seen.
    #[test]
    fn cuts_do_not_matter() {
        let frames = [(DATA, 300), (HEADERS, 0), (6, 8), (4, 6), (DATA, 1)];
        let mut bytes = vec![0; PREFACE];
        bytes.extend(
            frames
                .iter()
                .flat_map(|(kind, length)| frame(*kind, *length)),
        );
        for piece in 1..bytes.len() {
            let (mut places, mut seen) = (Places::after(PREFACE), Vec::new());
            for bytes in bytes.chunks(piece) {
                places.pass(bytes, |kind, length| seen.push((kind, length)));
            }
            assert_eq!(seen, frames, "{piece}");
        }
    }

    #[test]
    fn floods_are_seen_and_work_is_not_one() {
        let start = |tally: &Tally| tally.received(&[0; PREFACE]);
        for kind in [2, 3, 4, 6, 8, 9, 42] {
            let tally = Tally::new();
            start(&tally);
            for _ in 0..BURST - 1 {
                tally.received(&frame(kind, 4));
            }
            assert!(!tally.is_flooded(), "{kind}");
            for _ in 0..BURST {
                tally.received(&frame(kind, 4));
            }
            assert!(tally.is_flooded(), "{kind}");
        }
        let tally = Tally::new();
        start(&tally);
        for _ in 0..5 * BURST {
            // A receiver of small messages: two window updates and a ping for each.
            tally.sent(&frame(DATA, 10));
            for kind in [8, 8, 6] {
                tally.received(&frame(kind, 8));
            }
        }
        assert!(!tally.is_flooded());
    }
}
