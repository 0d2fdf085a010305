//! HTTP/2 between our own daemons (`mesh-h2/1`), and the serving end of programs' HTTP/2: many exchanges on one
//! connection, each in step with its reader.
//!
//! In: plaintext bytes of a tunnel, or a program's connection. Out: heads as lists of fields, bodies, ends; and the same the other way. It is
//! HTTP/2 as RFC 9113 has it without priorities, pushes and padding of its own, so that each end may be another
//! implementation. What all streams send in one turn of the event loop goes out together.
//! Never: spawns, allocates for a frame that is passed on, or lets a slow reader hold up another's stream.

#[cfg(test)]
use std::task::{Context, Poll};
use std::{cell::RefCell, future::poll_fn, rc::Rc, sync::Arc, time::Instant};

/// How many frames that carry nothing a peer may send.
mod allowance;
/// Moves the bytes.
mod drive;
/// Frames.
mod frame;
/// Lists of fields.
pub(crate) mod head;
/// Header compression.
mod hpack;
/// Laws over any bytes.
#[cfg(feature = "fuzz")]
mod judge;
/// What waits to be sent.
mod outbox;
/// A queue of mostly one.
mod queue;
/// What comes in.
mod receive;
/// What is known of a link.
mod state;
/// One exchange.
mod stream;
/// Peers who send more frames than their exchanges need.
mod watch;

pub(crate) use allowance::Allowance;
#[cfg(test)]
pub(crate) use allowance::BURST;
pub(crate) use drive::Driver;
pub(crate) use frame::Reason;
pub(crate) use head::Head;
#[cfg(feature = "fuzz")]
pub(crate) use judge::judge;
pub(crate) use stream::{Fields, Stream};

use state::State;

/// Which end this is, and what it allows.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Terms {
    /// True for the end that opens streams.
    pub client: bool,
    /// Streams at once.
    pub streams: u32,
    /// The most that one stream may have in flight towards us. A stream begins with less, and gets more while its
    /// reader keeps up.
    pub window: u32,
    /// Who is at the other end.
    pub peer: Peer,
}

/// Who is at the other end of a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Peer {
    /// Another daemon. It is believed a little more, and given more.
    Daemon,
    /// Any program that calls: it is held to every rule of RFC 9113, and may ask for CONNECT streams (RFC 8441).
    Program,
}

/// Why a stream came to no good end.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Broken {
    /// The other end gave it up.
    #[error("the other end ended the stream: {0}")]
    Reset(Reason),
    /// This end gave it up, because of what the other end sent.
    #[error("the stream was given up: {0}")]
    Refused(Reason),
    /// The other end took no more streams, and has not looked at this one.
    #[error("the other end had closed for new streams")]
    Unprocessed,
    /// The connection is gone.
    #[error("the connection ended: {0}")]
    Lost(Arc<str>),
}

impl Broken {
    /// True when the other end has certainly not acted on the stream.
    pub(crate) fn is_unprocessed(&self) -> bool {
        matches!(
            self,
            Self::Unprocessed | Self::Reset(Reason::REFUSED_STREAM)
        )
    }
}

/// One end of a link, shared by its driver and its streams.
#[derive(Debug, Clone)]
pub(crate) struct Link(Rc<RefCell<State>>);

/// What was asked of the serving end.
#[derive(Debug)]
pub(crate) struct Asked {
    /// The head; give it back with [`head::put`].
    pub head: Box<Head>,
    /// The exchange.
    pub stream: Stream,
    /// True when no body follows.
    pub ended: bool,
    /// When it was read.
    pub begun: Instant,
}

impl Link {
    /// A new end: what it says first waits to be sent.
    pub(crate) fn new(terms: Terms) -> Self {
        Self(Rc::new(RefCell::new(State::new(terms))))
    }

    /// The calling end: opens a stream with the head that `write` writes; `ended` when no body follows. `None` while
    /// the other end takes no further one.
    pub(crate) fn open(&self, ended: bool, write: impl FnOnce(&mut Fields<'_>)) -> Option<Stream> {
        let (key, id) = self.0.borrow_mut().open(ended, write)?;
        Some(Stream::new(self.clone(), key, id))
    }

    /// The calling end: how many streams the other end takes at once.
    pub(crate) fn most(&self) -> u32 {
        self.0.borrow().most()
    }

    /// The serving end: the next stream that was opened.
    pub(crate) fn accept(&self) -> Option<Asked> {
        let mut state = self.0.borrow_mut();
        let (key, id, head, ended) = state.accept()?;
        Some(Asked {
            begun: state.now,
            head,
            stream: Stream::new(self.clone(), key, id),
            ended,
        })
    }

    /// True once the other end's settings are known, or it has ended.
    pub(crate) fn is_settled(&self) -> bool {
        self.0.borrow().settled
    }

    /// Ready once the other end's settings are known, or it has ended.
    #[cfg(test)]
    pub(crate) fn poll_settled(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.0.borrow_mut().poll_settled(cx)
    }

    /// True once no further streams can be opened or come.
    pub(crate) fn is_closed(&self) -> bool {
        self.0.borrow().is_closed()
    }

    /// Streams that are not over.
    pub(crate) fn active(&self) -> u32 {
        self.0.borrow().active()
    }

    /// True while bytes wait for the socket.
    pub(crate) fn is_sending(&self) -> bool {
        !self.0.borrow().out.is_empty()
    }

    /// Asks for a sign of life, and waits for the answer.
    pub(crate) async fn ask(&self) -> Result<(), Broken> {
        self.0.borrow_mut().ask();
        poll_fn(|cx| self.0.borrow_mut().poll_answered(cx)).await
    }

    /// Ends the link at once, whatever runs on it.
    pub(crate) fn abort(&self, why: &str) {
        self.0.borrow_mut().end(&Arc::from(why));
    }

    /// True once the connection is gone, or about to go.
    pub(crate) fn has_ended(&self) -> bool {
        self.0.borrow().ended.is_some()
    }

    /// Takes no further streams; those that run may end.
    pub(crate) fn leave(&self) {
        self.0.borrow_mut().leave();
    }
}

#[cfg(test)]
mod tests;
