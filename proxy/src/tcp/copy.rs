//! Bytes both ways: by splice where both ends are plain TCP, by pooled buffers elsewhere.
//!
//! In: two connections and what was read of them already. Out: what was moved, and how it ended.
//! Half-close goes through per direction, a reset of one end resets the other. Never: holds a buffer
//! while nothing is on its way.

use std::{
    cell::Cell,
    future::poll_fn,
    io,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use bytes::BytesMut;

use crate::{alarm::Alarm, buffers::Buffers, io::Io};
use any::Transfer;
use plain::Lane;

/// One direction between any connections.
mod any;
/// One direction between plain connections.
mod plain;

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
    let mut lanes = Lanes::new(&down, &up, down_first, up_first);
    let mut alarm = Alarm::default();
    let end = poll_fn(
        |cx| match lanes.poll(cx, buffers, &account, &mut down, &mut up) {
            Poll::Ready(Ok(())) => Poll::Ready(End::Finished),
            Poll::Ready(Err(error)) => {
                tracing::trace!(%error, "an opaque connection broke");
                Poll::Ready(End::Broken)
            }
            Poll::Pending => account
                .poll_idle(cx, &mut alarm, patience)
                .map(|()| End::Idle),
        },
    )
    .await;
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

impl Account {
    /// One direction is over.
    fn closed_half(&self) {
        self.half_closed.set(true);
        self.touched.set(Instant::now());
    }

    /// Ready when nothing moved for too long.
    fn poll_idle(&self, cx: &mut Context<'_>, alarm: &mut Alarm, patience: Patience) -> Poll<()> {
        let limit = if self.half_closed.get() {
            patience.half_closed
        } else {
            patience.idle
        };
        alarm.poll(cx, self.touched.get().checked_add(limit))
    }
}

/// Both directions.
#[derive(Debug)]
enum Lanes {
    /// Between plain connections.
    Plain { there: Lane, back: Lane },
    /// Where one end or both are something else.
    Any { there: Transfer, back: Transfer },
}

impl Lanes {
    fn new(down: &Io, up: &Io, down_first: BytesMut, up_first: BytesMut) -> Self {
        match (down, up) {
            (Io::Tcp(_), Io::Tcp(_)) => Self::Plain {
                there: Lane::new(down_first),
                back: Lane::new(up_first),
            },
            _ => Self::Any {
                there: Transfer::new(down_first),
                back: Transfer::new(up_first),
            },
        }
    }

    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        buffers: &Buffers,
        account: &Account,
        down: &mut Io,
        up: &mut Io,
    ) -> Poll<io::Result<()>> {
        let (received, sent) = (&account.received, &account.sent);
        let (there, back) = match self {
            Self::Plain { there, back } => {
                let (Io::Tcp(down), Io::Tcp(up)) = (down, up) else {
                    return Poll::Ready(Err(io::ErrorKind::Unsupported.into()));
                };
                let there = there.poll(cx, buffers, (account, received), down, up)?;
                (there, back.poll(cx, buffers, (account, sent), up, down)?)
            }
            Self::Any { there, back } => {
                let there = there.poll(cx, (account, received), down, up)?;
                (there, back.poll(cx, (account, sent), up, down)?)
            }
        };
        if there.is_ready() && back.is_ready() {
            Poll::Ready(Ok(()))
        } else {
            Poll::Pending
        }
    }
}
