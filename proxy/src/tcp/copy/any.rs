//! One direction between connections of which one at least is a stream of a tunnel.
//!
//! What is read of a program in large pieces goes to the tunnel as it is, and what comes of a tunnel goes to the program
//! in as few writes as possible. Never: holds a buffer while nothing is on its way.

use std::{
    cell::Cell,
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf as _, Bytes, BytesMut};
use smallvec::{SmallVec, smallvec};
use tokio::io::{AsyncRead as _, AsyncWrite as _, ReadBuf};

use super::Account;
use crate::{
    buffers::{Block, READ},
    io::Io,
};

/// Reads before other connections get their turn.
const TURN: usize = 4;
/// Bytes from which a read is not copied on its way into a tunnel.
const LARGE: usize = 16 << 10;
/// Pieces of a tunnel that are written together.
const PIECES: usize = 4;

/// Bytes that were read and are not yet written.
#[derive(Debug)]
enum Held {
    Nothing,
    Block {
        block: Block,
        start: usize,
        end: usize,
    },
    /// Mostly one: an idle connection has no room for more.
    Pieces(SmallVec<[Bytes; 1]>),
}

impl Held {
    fn is_empty(&self) -> bool {
        match self {
            Self::Nothing => true,
            Self::Block { start, end, .. } => start >= end,
            Self::Pieces(pieces) => pieces.is_empty(),
        }
    }

    fn piece(piece: Bytes) -> Self {
        if piece.is_empty() {
            return Self::Nothing;
        }
        Self::Pieces(smallvec![piece])
    }

    /// What is written next.
    fn poll_write(&mut self, cx: &mut Context<'_>, to: &mut Io) -> Poll<io::Result<usize>> {
        match (&*self, &mut *to) {
            (Self::Nothing, _) => return Poll::Ready(Ok(0)),
            (Self::Block { block, start, end }, _) => {
                let bytes = block.get(*start..*end).unwrap_or_default();
                return Pin::new(to).poll_write(cx, bytes);
            }
            (Self::Pieces(_), Io::Stream(_)) => {}
            (Self::Pieces(pieces), _) => {
                let mut slices = [IoSlice::new(&[]); PIECES];
                for (slice, piece) in slices.iter_mut().zip(pieces) {
                    *slice = IoSlice::new(piece);
                }
                let slices = slices.get(..pieces.len().min(PIECES)).unwrap_or_default();
                return Pin::new(to).poll_write_vectored(cx, slices);
            }
        }
        let (Self::Pieces(pieces), Io::Stream(stream)) = (self, to) else {
            return Poll::Ready(Ok(0));
        };
        match pieces.first() {
            Some(piece) => stream.poll_send(cx, piece),
            None => Poll::Ready(Ok(0)),
        }
    }

    /// So many bytes were written.
    fn advance(&mut self, mut length: usize) {
        match self {
            Self::Nothing => {}
            Self::Block { start, .. } => *start += length,
            Self::Pieces(pieces) => {
                while let Some(piece) = pieces.first_mut() {
                    let count = length.min(piece.len());
                    piece.advance(count);
                    length -= count;
                    if !piece.is_empty() {
                        return;
                    }
                    drop(pieces.remove(0));
                }
            }
        }
    }
}

/// One direction.
#[derive(Debug)]
pub(super) struct Transfer {
    held: Held,
    /// What is told once everything that came before it is written.
    broken: Option<io::Error>,
    ended: bool,
    done: bool,
}

impl Transfer {
    /// Begins with bytes that were read already.
    pub(super) fn new(first: BytesMut) -> Self {
        Self {
            held: Held::piece(first.freeze()),
            broken: None,
            ended: false,
            done: false,
        }
    }

    /// Moves what can be moved now; ready once the end went through.
    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        (account, moved): (&Account, &Cell<u64>),
        from: &mut Io,
        to: &mut Io,
    ) -> Poll<io::Result<()>> {
        if self.done {
            return Poll::Ready(Ok(()));
        }
        for _ in 0..TURN {
            while !self.held.is_empty() {
                let length = ready!(self.held.poll_write(cx, to))?;
                if length == 0 {
                    return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
                }
                self.held.advance(length);
                account.moved(moved, length);
            }
            self.held = Held::Nothing;
            if self.ended {
                ready!(Pin::new(&mut *to).poll_shutdown(cx))?;
                self.done = true;
                account.closed_half();
                return Poll::Ready(Ok(()));
            }
            if self.poll_fill(cx, from, to)?.is_pending() {
                // What was written may still lie in the TLS session.
                ready!(Pin::new(&mut *to).poll_flush(cx))?;
                return Poll::Pending;
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    fn poll_fill(&mut self, cx: &mut Context<'_>, from: &mut Io, to: &Io) -> Poll<io::Result<()>> {
        if let Some(error) = self.broken.take() {
            return Poll::Ready(Err(error));
        }
        if let Io::Stream(stream) = from {
            let mut pieces = SmallVec::new();
            while pieces.len() < PIECES && !self.ended {
                match stream.poll_piece(cx) {
                    Poll::Ready(Ok(piece)) if piece.is_empty() => self.ended = true,
                    Poll::Ready(Ok(piece)) => pieces.push(piece),
                    // What came before goes on first.
                    Poll::Ready(Err(error)) if !pieces.is_empty() => {
                        self.broken = Some(error);
                        break;
                    }
                    Poll::Pending if !pieces.is_empty() => break,
                    Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                    Poll::Pending => return Poll::Pending,
                }
            }
            self.held = Held::Pieces(pieces);
            return Poll::Ready(Ok(()));
        }
        let mut block = Block::take();
        let mut space = ReadBuf::new(block.get_mut(..READ).unwrap_or_default());
        ready!(Pin::new(from).poll_read(cx, &mut space))?;
        let (start, end) = (0, space.filled().len());
        self.ended = end == 0;
        self.held = if end >= LARGE && matches!(to, Io::Stream(_)) {
            Held::piece(Bytes::from_owner(block).slice(..end))
        } else {
            Held::Block { block, start, end }
        };
        Poll::Ready(Ok(()))
    }
}
