//! Bytes both ways: by splice where both ends are plain TCP, by pooled buffers elsewhere.
//!
//! In: two connections and what was read of them already. Out: what was moved, and how it ended.
//! Half-close goes through per direction, a reset of one end resets the other. Never: holds a buffer
//! while nothing is on its way.

use std::{
    cell::Cell,
    future::poll_fn,
    io,
    net::Shutdown,
    pin::Pin,
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use bytes::{Buf, Bytes, BytesMut};
use nix::fcntl::{SpliceFFlags, splice};
use tokio::{
    io::{AsyncRead, AsyncWrite, Interest, ReadBuf},
    net::TcpStream,
};

use crate::{
    buffers::{Buffers, PIPE},
    io::Io,
};

/// How a connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// Both ends closed.
    Finished,
    /// One end broke; the other was reset.
    Broken,
    /// Nothing moved for too long; both were reset.
    Idle,
}

/// What was moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Moved {
    /// Bytes from the caller.
    pub(crate) received: u64,
    /// Bytes to the caller.
    pub(crate) sent: u64,
    /// How it ended.
    pub(crate) end: End,
}

/// Patience with connections on which nothing moves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Patience {
    /// While both directions are open.
    pub(crate) idle: Duration,
    /// Once one direction is closed.
    pub(crate) half_closed: Duration,
}

/// Bytes after which a direction is worth a pipe.
const SPLICE_AFTER: u64 = 64 << 10;
/// Pieces moved before other connections get their turn.
const TURN: usize = 16;

/// What is known of a connection while it runs.
#[derive(Debug)]
struct Account {
    received: Cell<u64>,
    sent: Cell<u64>,
    touched: Cell<Instant>,
    half_closed: Cell<bool>,
}

impl Account {
    fn moved(&self, which: &Cell<u64>, length: usize) {
        which.set(which.get() + length as u64);
        self.touched.set(Instant::now());
    }
}

/// Copies both ways until both ends closed, one broke, or patience ended.
pub(crate) async fn both(
    buffers: &Buffers,
    patience: Patience,
    (mut down, down_first): (Io, BytesMut),
    (mut up, up_first): (Io, BytesMut),
) -> Moved {
    let account = Account {
        received: Cell::new(0),
        sent: Cell::new(0),
        touched: Cell::new(Instant::now()),
        half_closed: Cell::new(false),
    };
    let end = {
        let copy = async {
            match (&mut down, &mut up) {
                (Io::Tcp(down), Io::Tcp(up)) => {
                    plain(buffers, &account, (down, down_first), (up, up_first)).await
                }
                (down, up) => any(buffers, &account, (down, down_first), (up, up_first)).await,
            }
        };
        tokio::select! {
            done = copy => match done {
                Ok(()) => End::Finished,
                Err(error) => {
                    tracing::trace!(%error, "an opaque connection broke");
                    End::Broken
                }
            },
            () = idle(&account, patience) => End::Idle,
        }
    };
    if end != End::Finished {
        down.reset();
        up.reset();
    }
    Moved {
        received: account.received.get(),
        sent: account.sent.get(),
        end,
    }
}

/// Resolves when nothing moved for too long.
async fn idle(account: &Account, patience: Patience) {
    loop {
        let limit = if account.half_closed.get() {
            patience.half_closed
        } else {
            patience.idle
        };
        let idle = account.touched.get().elapsed();
        let Some(left) = limit.checked_sub(idle).filter(|left| !left.is_zero()) else {
            return;
        };
        // A half-close in the meantime shortens the patience.
        tokio::time::sleep(left.min(patience.half_closed.max(Duration::from_millis(1)))).await;
    }
}

async fn plain(
    buffers: &Buffers,
    account: &Account,
    (down, down_first): (&TcpStream, BytesMut),
    (up, up_first): (&TcpStream, BytesMut),
) -> io::Result<()> {
    let there = flow(buffers, account, &account.received, down, up, down_first);
    let back = flow(buffers, account, &account.sent, up, down, up_first);
    futures_util::future::try_join(there, back)
        .await
        .map(|((), ())| ())
}

/// One direction between plain connections.
async fn flow(
    buffers: &Buffers,
    account: &Account,
    moved: &Cell<u64>,
    from: &TcpStream,
    to: &TcpStream,
    first: BytesMut,
) -> io::Result<()> {
    if !first.is_empty() {
        write_all(to, &first).await?;
        account.moved(moved, first.len());
    }
    drop(first);
    let mut may_splice = true;
    loop {
        from.readable().await?;
        let ended = if may_splice && moved.get() >= SPLICE_AFTER {
            match spliced(buffers, account, moved, from, to).await {
                Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
                    may_splice = false;
                    false
                }
                done => done?,
            }
        } else {
            copied(buffers, account, moved, from, to).await?
        };
        if ended {
            break;
        }
    }
    account.half_closed.set(true);
    account.touched.set(Instant::now());
    socket2::SockRef::from(to).shutdown(Shutdown::Write)
}

/// Moves what can be read now through a buffer; true at the end.
async fn copied(
    buffers: &Buffers,
    account: &Account,
    moved: &Cell<u64>,
    from: &TcpStream,
    to: &TcpStream,
) -> io::Result<bool> {
    let mut block = buffers.block();
    let mut ended = false;
    for _ in 0..TURN {
        match from.try_read(&mut block) {
            Ok(0) => {
                ended = true;
                break;
            }
            Ok(length) => {
                write_all(to, block.get(..length).unwrap_or_default()).await?;
                account.moved(moved, length);
                if length < block.len() || moved.get() >= SPLICE_AFTER {
                    break;
                }
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
            Err(error) => return Err(error),
        }
    }
    buffers.keep_block(block);
    Ok(ended)
}

async fn write_all(to: &TcpStream, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match to.try_write(bytes) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(length) => bytes = bytes.get(length..).unwrap_or_default(),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => to.writable().await?,
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Moves what can be read now through a pipe, without a copy; true at the end.
async fn spliced(
    buffers: &Buffers,
    account: &Account,
    moved: &Cell<u64>,
    from: &TcpStream,
    to: &TcpStream,
) -> io::Result<bool> {
    let flags = SpliceFFlags::SPLICE_F_MOVE | SpliceFFlags::SPLICE_F_NONBLOCK;
    let pipe = buffers.pipe()?;
    let mut ended = false;
    for _ in 0..TURN {
        let filled = from.try_io(Interest::READABLE, || {
            Ok(splice(from, None, &pipe.write, None, PIPE, flags)?)
        });
        let mut left = match filled {
            Ok(0) => {
                ended = true;
                break;
            }
            Ok(length) => length,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
            Err(error) => return Err(error),
        };
        while left > 0 {
            let drained = to
                .async_io(Interest::WRITABLE, || {
                    Ok(splice(&pipe.read, None, to, None, left, flags)?)
                })
                .await?;
            left = left.saturating_sub(drained);
            account.moved(moved, drained);
        }
    }
    buffers.keep_pipe(pipe);
    Ok(ended)
}

async fn any(
    buffers: &Buffers,
    account: &Account,
    (down, down_first): (&mut Io, BytesMut),
    (up, up_first): (&mut Io, BytesMut),
) -> io::Result<()> {
    let mut there = Transfer::new(down_first);
    let mut back = Transfer::new(up_first);
    poll_fn(|cx| {
        let there = there.poll(cx, buffers, account, &account.received, down, up)?;
        let back = back.poll(cx, buffers, account, &account.sent, up, down)?;
        if there.is_ready() && back.is_ready() {
            Poll::Ready(Ok(()))
        } else {
            Poll::Pending
        }
    })
    .await
}

/// Bytes that were read and are not yet written.
#[derive(Debug)]
enum Held {
    Nothing,
    Block {
        block: Box<[u8]>,
        start: usize,
        end: usize,
    },
    Piece(Bytes),
}

impl Held {
    fn bytes(&self) -> &[u8] {
        match self {
            Self::Nothing => &[],
            Self::Block { block, start, end } => block.get(*start..*end).unwrap_or_default(),
            Self::Piece(piece) => piece,
        }
    }
    fn advance(&mut self, length: usize) {
        match self {
            Self::Nothing => {}
            Self::Block { start, .. } => *start += length,
            Self::Piece(piece) => piece.advance(length),
        }
    }
    fn release(&mut self, buffers: &Buffers) {
        if let Self::Block { block, .. } = std::mem::replace(self, Self::Nothing) {
            buffers.keep_block(block);
        }
    }
}

/// One direction between any connections.
#[derive(Debug)]
struct Transfer {
    held: Held,
    ended: bool,
    done: bool,
}

impl Transfer {
    fn new(first: BytesMut) -> Self {
        Self {
            held: Held::Piece(first.freeze()),
            ended: false,
            done: false,
        }
    }

    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        buffers: &Buffers,
        account: &Account,
        moved: &Cell<u64>,
        from: &mut Io,
        to: &mut Io,
    ) -> Poll<io::Result<()>> {
        if self.done {
            return Poll::Ready(Ok(()));
        }
        for _ in 0..TURN {
            while !self.held.bytes().is_empty() {
                let length = ready!(Pin::new(&mut *to).poll_write(cx, self.held.bytes()))?;
                if length == 0 {
                    return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
                }
                self.held.advance(length);
                account.moved(moved, length);
            }
            self.held.release(buffers);
            if self.ended {
                ready!(Pin::new(&mut *to).poll_shutdown(cx))?;
                self.done = true;
                account.half_closed.set(true);
                account.touched.set(Instant::now());
                return Poll::Ready(Ok(()));
            }
            if self.poll_fill(cx, buffers, from)?.is_pending() {
                // What was written may still lie in the TLS session.
                ready!(Pin::new(&mut *to).poll_flush(cx))?;
                return Poll::Pending;
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    fn poll_fill(
        &mut self,
        cx: &mut Context<'_>,
        buffers: &Buffers,
        from: &mut Io,
    ) -> Poll<io::Result<()>> {
        if let Io::Stream(stream) = from {
            let piece = ready!(stream.poll_piece(cx))?;
            self.ended = piece.is_empty();
            self.held = Held::Piece(piece);
            return Poll::Ready(Ok(()));
        }
        let mut block = buffers.block();
        let mut space = ReadBuf::new(&mut block);
        let read = Pin::new(from).poll_read(cx, &mut space);
        let end = space.filled().len();
        match read {
            Poll::Ready(Ok(())) => {
                self.ended = end == 0;
                self.held = Held::Block {
                    block,
                    start: 0,
                    end,
                };
                Poll::Ready(Ok(()))
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Pending => {
                buffers.keep_block(block);
                Poll::Pending
            }
        }
    }
}
