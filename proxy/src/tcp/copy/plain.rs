//! One direction between plain connections: short messages through a pooled buffer, long streams by splice.
//!
//! Never: holds a buffer or a pipe while nothing is on its way, or asks for more when the last read left none.

use std::{
    cell::Cell,
    io,
    net::Shutdown,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf as _, BytesMut};
use nix::fcntl::{SpliceFFlags, splice};
use tokio::{
    io::{AsyncRead as _, Interest, ReadBuf},
    net::TcpStream,
};

use super::{Account, TURN};
use crate::buffers::{Block, Buffers, PIPE, Pipe};

/// Bytes after which a direction is worth a pipe.
const SPLICE_AFTER: u64 = 64 << 10;

/// What was read and is not yet written.
#[derive(Debug)]
enum Held {
    Nothing,
    First(BytesMut),
    Block {
        block: Block,
        start: usize,
        end: usize,
    },
    Pipe {
        pipe: Pipe,
        left: usize,
    },
}

/// One direction.
#[derive(Debug)]
pub(super) struct Lane {
    held: Held,
    may_splice: bool,
    ended: bool,
    done: bool,
}

impl Lane {
    /// Begins with bytes that were read already.
    pub(super) fn new(first: BytesMut) -> Self {
        let held = if first.is_empty() {
            Held::Nothing
        } else {
            Held::First(first)
        };
        Self {
            held,
            may_splice: true,
            ended: false,
            done: false,
        }
    }

    /// Moves what can be moved now; ready once the end went through.
    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        buffers: &Buffers,
        (account, moved): (&Account, &Cell<u64>),
        from: &mut TcpStream,
        to: &TcpStream,
    ) -> Poll<io::Result<()>> {
        if self.done {
            return Poll::Ready(Ok(()));
        }
        for _ in 0..TURN {
            ready!(self.poll_drain(cx, buffers, (account, moved), to))?;
            if self.ended {
                self.done = true;
                account.closed_half();
                return Poll::Ready(socket2::SockRef::from(to).shutdown(Shutdown::Write));
            }
            ready!(self.poll_fill(cx, buffers, moved.get(), from))?;
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Writes what is held.
    fn poll_drain(
        &mut self,
        cx: &mut Context<'_>,
        buffers: &Buffers,
        (account, moved): (&Account, &Cell<u64>),
        to: &TcpStream,
    ) -> Poll<io::Result<()>> {
        loop {
            let written = match &self.held {
                Held::Nothing => return Poll::Ready(Ok(())),
                Held::First(bytes) => to.try_write(bytes),
                Held::Block { block, start, end } => {
                    to.try_write(block.get(*start..*end).unwrap_or_default())
                }
                Held::Pipe { pipe, left } => to.try_io(Interest::WRITABLE, || {
                    Ok(splice(&pipe.read, None, to, None, *left, flags())?)
                }),
            };
            match written {
                Ok(0) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Ok(length) => {
                    account.moved(moved, length);
                    self.written(buffers, length);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    ready!(to.poll_write_ready(cx))?;
                }
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }

    /// Takes bytes as written, and gives back what held the last of them.
    fn written(&mut self, buffers: &Buffers, length: usize) {
        let left = match &mut self.held {
            Held::Nothing => 0,
            Held::First(bytes) => {
                bytes.advance(length.min(bytes.len()));
                bytes.len()
            }
            Held::Block { start, end, .. } => {
                *start += length;
                end.saturating_sub(*start)
            }
            Held::Pipe { left, .. } => {
                *left = left.saturating_sub(length);
                *left
            }
        };
        if left > 0 {
            return;
        }
        match std::mem::replace(&mut self.held, Held::Nothing) {
            Held::Pipe { pipe, .. } => buffers.keep_pipe(pipe),
            Held::Nothing | Held::First(_) | Held::Block { .. } => {}
        }
    }

    /// Reads what is there.
    fn poll_fill(
        &mut self,
        cx: &mut Context<'_>,
        buffers: &Buffers,
        moved: u64,
        from: &mut TcpStream,
    ) -> Poll<io::Result<()>> {
        while self.may_splice && moved >= SPLICE_AFTER {
            match self.splice_in(buffers, from) {
                Ok(length) => {
                    self.ended = length == 0;
                    return Poll::Ready(Ok(()));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    ready!(from.poll_read_ready(cx))?;
                }
                // Not every kind of socket can be spliced.
                Err(error) if error.raw_os_error() == Some(libc::EINVAL) => self.may_splice = false,
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
        let mut block = Block::take();
        let mut space = ReadBuf::new(&mut block);
        let read = Pin::new(from).poll_read(cx, &mut space);
        let end = space.filled().len();
        if end > 0 {
            let start = 0;
            self.held = Held::Block { block, start, end };
        } else {
            self.ended = matches!(read, Poll::Ready(Ok(())));
        }
        read
    }

    fn splice_in(&mut self, buffers: &Buffers, from: &TcpStream) -> io::Result<usize> {
        let pipe = buffers.pipe()?;
        let filled = from.try_io(Interest::READABLE, || {
            Ok(splice(from, None, &pipe.write, None, PIPE, flags())?)
        });
        match filled {
            Ok(left) if left > 0 => self.held = Held::Pipe { pipe, left },
            Ok(_) | Err(_) => buffers.keep_pipe(pipe),
        }
        filled
    }
}

fn flags() -> SpliceFFlags {
    SpliceFFlags::SPLICE_F_MOVE | SpliceFFlags::SPLICE_F_NONBLOCK
}
