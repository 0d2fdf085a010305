//! Moves the bytes of a link: reads what is there, lets streams have it, and sends what they wrote, together.

use std::{
    future::Future as _,
    io,
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite};

use super::{
    Broken, Link, frame,
    state::{FRAME, Leaving, State},
};
use crate::alarm::Alarm;

/// Room for a read, and for one while much comes in.
const ROOM: usize = 16 << 10;
const LARGE: usize = FRAME + frame::HEAD;
/// Runs of bytes that leave in one write.
const PIECES: usize = 32;
/// Reads before streams get their turn.
const TURNS: usize = 4;
/// Bytes that wait for a calling end before it is listened to no longer: it asks for more than it takes. A serving
/// end is always listened to, so that never both wait for each other.
const FULL: usize = 1 << 20;
/// How long the other end may take no byte of what waits for it, and how long the last frames, and its end after
/// ours, may take.
const BLOCKED: Duration = Duration::from_mins(1);
const LAST: Duration = Duration::from_secs(1);

/// Moves the bytes of one link; to be polled by its task until it is ready.
#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is one fact of its own")]
pub(crate) struct Driver<I> {
    link: Link,
    io: I,
    input: BytesMut,
    /// The last read filled its buffer.
    hungry: bool,
    /// The other end has ended its direction.
    ended: bool,
    /// Bytes were handed over that may not have been sent.
    unflushed: bool,
    alarm: Alarm,
    /// Since when nothing could be sent.
    blocked: Option<Instant>,
    /// Since when everything that is left are last frames.
    last: Option<Instant>,
    /// Our direction was ended.
    shut: bool,
}

impl<I: AsyncRead + AsyncWrite + Unpin> Driver<I> {
    /// For a new link.
    pub(crate) fn new(link: Link, io: I) -> Self {
        Self {
            link,
            io,
            input: BytesMut::new(),
            hungry: false,
            ended: false,
            unflushed: false,
            alarm: Alarm::default(),
            blocked: None,
            last: None,
            shut: false,
        }
    }

    /// Moves what can be moved; ready, with the reason, once the link has ended and nothing more can be said.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Arc<str>> {
        let link = self.link.clone();
        let mut state = link.0.borrow_mut();
        state.turn(cx);
        let moved = self.poll_move(cx, &mut state);
        state.rest();
        moved
    }

    fn poll_move(&mut self, cx: &mut Context<'_>, state: &mut State) -> Poll<Arc<str>> {
        let mut more = false;
        for turn in 0..TURNS {
            match self.poll_read(cx, state) {
                Poll::Ready(()) if state.ended.is_none() => more = turn + 1 == TURNS,
                Poll::Ready(()) | Poll::Pending => break,
            }
        }
        // What was read may have filled it: then nothing was left to wake this when there is more to read.
        let full = is_full(state);
        if let Poll::Ready(Err(error)) = self.poll_write(cx, state) {
            state.end(&Arc::from(error.to_string()));
            return Poll::Ready(why(state));
        }
        if more || (full && !is_full(state)) {
            cx.waker().wake_by_ref();
        }
        let sent = state.out.is_empty() && !self.unflushed;
        let leaves = state.leaving == Leaving::Final || state.refused;
        let left = leaves && sent && state.active() == 0 && state.opened.is_empty();
        if left || state.ended.is_some() {
            // Nothing is left but to say it.
            let last = *self.last.get_or_insert(state.now);
            state.end(&Arc::from("it was left"));
            if self.poll_close(cx, sent) || self.alarm.poll(cx, last.checked_add(LAST)).is_ready() {
                return Poll::Ready(why(state));
            }
            return Poll::Pending;
        }
        if sent {
            self.blocked = None;
        } else {
            let since = *self.blocked.get_or_insert(state.now);
            if self.alarm.poll(cx, since.checked_add(BLOCKED)).is_ready() {
                state.end(&Arc::from("the other end takes nothing"));
                return Poll::Ready(why(state));
            }
        }
        Poll::Pending
    }

    /// Ends our direction once everything is `sent`, and waits for the end of the other: a socket that is closed
    /// with unread bytes takes back what the other end has not read yet. True when nothing is left to do.
    fn poll_close(&mut self, cx: &mut Context<'_>, sent: bool) -> bool {
        if self.ended {
            return true;
        }
        if sent && !self.shut {
            match Pin::new(&mut self.io).poll_shutdown(cx) {
                Poll::Ready(Ok(())) => self.shut = true,
                Poll::Ready(Err(_gone)) => return true,
                Poll::Pending => {}
            }
        }
        if !self.shut {
            return false;
        }
        for _ in 0..TURNS {
            self.input.clear();
            self.input.reserve(ROOM);
            match pin!(self.io.read_buf(&mut self.input)).poll(cx) {
                Poll::Ready(Ok(0) | Err(_)) => return true,
                Poll::Ready(Ok(_)) => {}
                Poll::Pending => return false,
            }
        }
        cx.waker().wake_by_ref();
        false
    }

    /// Reads once; ready when something came, the end too.
    fn poll_read(&mut self, cx: &mut Context<'_>, state: &mut State) -> Poll<()> {
        if self.ended || state.ended.is_some() || is_full(state) {
            return Poll::Pending;
        }
        let wanted = if self.hungry { LARGE } else { ROOM };
        let missing = frame::Head::read(&self.input).map_or(0, |head| {
            (head.length.min(FRAME) + frame::HEAD).saturating_sub(self.input.len())
        });
        if self.input.capacity() - self.input.len() < missing.max(wanted / 2) {
            self.input.reserve(missing.max(wanted));
        }
        let room = self.input.capacity() - self.input.len();
        let read = pin!(self.io.read_buf(&mut self.input)).poll(cx);
        match ready!(self.idle_on_pending(read, state)) {
            Ok(0) => {
                self.ended = true;
                state.end(&Arc::from("the other end closed it"));
            }
            Ok(count) => {
                self.hungry = count == room;
                if let Err(reason) = state.receive(&mut self.input) {
                    tracing::debug!(%reason, "the other end of a link breaks a rule");
                    state.fail(reason);
                }
            }
            Err(error) => {
                self.ended = true;
                state.end(&Arc::from(error.to_string()));
            }
        }
        Poll::Ready(())
    }

    /// A link on which nothing runs holds no buffer.
    fn idle_on_pending<T>(&mut self, read: Poll<T>, state: &State) -> Poll<T> {
        if read.is_pending() {
            self.hungry = false;
            if self.input.is_empty() && state.active() == 0 {
                self.input = BytesMut::new();
            }
        }
        read
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, state: &mut State) -> Poll<io::Result<()>> {
        while !state.out.is_empty() {
            let io = Pin::new(&mut self.io);
            let count = if state.out.is_one() || !io.is_write_vectored() {
                ready!(io.poll_write(cx, state.out.front()))?
            } else {
                let mut pieces = [io::IoSlice::new(&[]); PIECES];
                let count = state.out.fronts(&mut pieces);
                let pieces = pieces.get(..count).unwrap_or_default();
                ready!(io.poll_write_vectored(cx, pieces))?
            };
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            state.out.advance(count);
            self.unflushed = true;
            self.blocked = None;
        }
        if self.unflushed {
            ready!(Pin::new(&mut self.io).poll_flush(cx))?;
            self.unflushed = false;
        }
        Poll::Ready(Ok(()))
    }
}

impl<I> Drop for Driver<I> {
    fn drop(&mut self) {
        // Whoever still holds a stream must learn of it.
        self.link.0.borrow_mut().end(&Arc::from("it was closed"));
    }
}

/// True while so much waits for a calling end that it has to take some of it first.
fn is_full(state: &State) -> bool {
    !state.terms.client && state.out.len() >= FULL
}

fn why(state: &State) -> Arc<str> {
    match &state.ended {
        Some(Broken::Lost(why)) => Arc::clone(why),
        Some(_) | None => Arc::from("it ended"),
    }
}
