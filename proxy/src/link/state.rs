//! What is known of a link: its streams, both windows, what waits to be sent.
//!
//! Never: touches a socket.

use std::{
    collections::{HashMap, VecDeque},
    hash::{BuildHasherDefault, Hasher},
    sync::Arc,
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};

use bytes::Bytes;

use super::{
    Broken, Peer, Terms,
    frame::{self, Reason},
    head::{self, Head},
    hpack::{Decoder, Encoder},
    outbox::Outbox,
    queue::Queue,
    stream::Fields,
    watch::Watch,
};

/// What a stream may have in flight at first (RFC 9113 section 6.9.2).
pub(super) const WINDOW: u32 = 65_535;
/// Largest window there can be.
pub(super) const LARGEST: i64 = 0x7fff_ffff;
/// What the whole connection may have in flight towards us. It is given back as bytes come in, so that no stalled
/// stream holds up the others, unless so much is held for slow readers:
pub(super) const CONNECTION_WINDOW: u32 = 8 << 20;
pub(super) const HELD: usize = 64 << 20;
/// The same for any program's connection.
const PROGRAM_WINDOW: u32 = 1 << 20;
const PROGRAM_HELD: usize = 1 << 20;
/// Largest frame that we take, and that we send; and what every program sends without being asked for more (RFC
/// 9113 section 4.2).
pub(super) const FRAME: usize = 64 << 10;
const PROGRAM_FRAME: usize = 16 << 10;
/// Streams that were given up and that a program may not have heard of.
const GIVEN_UP: usize = 256;
/// Bytes that wait for the socket before streams have to wait.
const BACKLOG: usize = 256 << 10;
/// A reader that takes half of its window in this time gets a larger one.
const QUICK: Duration = Duration::from_millis(100);

/// The client's first bytes (RFC 9113 section 3.4).
pub(super) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Numbers of streams as they are: whoever chooses them has a few hundred at once.
#[derive(Debug, Default)]
pub(super) struct Direct(u64);

impl Hasher for Direct {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 << 8) | u64::from(*byte);
        }
    }
    fn write_u32(&mut self, number: u32) {
        // The table looks at the first and the last bits.
        self.0 = u64::from(number).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
}

/// One stream.
#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is one fact of its own")]
pub(super) struct Entry {
    pub(super) id: u32,
    pub(super) begun: Instant,
    /// Heads of the answer that nobody has read yet, interim ones before the last.
    pub(super) heads: Queue<Box<Head>>,
    /// A head of the answer went out, or the last one came in.
    pub(super) answered: bool,
    /// Pieces of the body that nobody has read yet.
    pub(super) inbox: Queue<Bytes>,
    pub(super) trailers: Option<Box<Head>>,
    /// The other end sends nothing more.
    pub(super) read: bool,
    /// What a program has announced of the body and not sent yet.
    pub(super) left: Option<u64>,
    /// What the other end may still send, and the whole of it.
    pub(super) window: i64,
    pub(super) whole: u32,
    /// Bytes that were read and not given back yet, and since when.
    pub(super) owed: u32,
    pub(super) owed_since: Instant,
    pub(super) reader: Option<Waker>,
    /// This end sends nothing more.
    pub(super) written: bool,
    /// The serving end: it was taken to be answered.
    pub(super) looked_at: bool,
    /// What we may still send.
    pub(super) room: i64,
    pub(super) writer: Option<Waker>,
    /// Its writer waits for the connection's window or for the socket.
    pub(super) crowded: bool,
    pub(super) broken: Option<Broken>,
    /// Somebody is to look at it.
    pub(super) handled: bool,
}

impl Entry {
    /// True when both directions are over.
    pub(super) fn is_over(&self) -> bool {
        self.broken.is_some() || (self.read && self.written)
    }

    /// Bytes that wait for their reader.
    pub(super) fn held(&self) -> usize {
        self.inbox.iter().map(Bytes::len).sum()
    }

    /// Wakes everybody who waits for something.
    pub(super) fn wake(&mut self) {
        for waker in [self.reader.take(), self.writer.take()]
            .into_iter()
            .flatten()
        {
            waker.wake();
        }
    }
}

/// A head whose block is not whole.
#[derive(Debug)]
pub(super) struct Partial {
    pub(super) stream: u32,
    /// Whether it ends the stream.
    pub(super) last: bool,
    /// Its bytes so far, and in how many parts they came.
    pub(super) block: Vec<u8>,
    pub(super) parts: u32,
}

/// How far the end of a link has gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Leaving {
    /// Streams may come.
    No,
    /// Our own wish: the other end was told, but may have opened some meanwhile.
    Announced,
    /// No stream above the last one is taken.
    Final,
}

/// One end of a link.
#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is one fact of its own")]
pub(super) struct State {
    pub(super) terms: Terms,
    pub(super) now: Instant,
    pub(super) out: Outbox,
    pub(super) encoder: Encoder,
    pub(super) decoder: Decoder,
    pub(super) watch: Watch,
    entries: Vec<Option<Entry>>,
    free: Vec<u32>,
    by_id: HashMap<u32, u32, BuildHasherDefault<Direct>>,
    /// Streams that are not over.
    active: u32,
    /// The next stream that this end opens.
    pub(super) next: u32,
    /// The last stream that the other end opened.
    pub(super) last: u32,
    /// Streams that were opened and that nobody has taken yet, and how many of them were taken back.
    pub(super) opened: VecDeque<(u32, Box<Head>, bool)>,
    pub(super) stillborn: u32,
    /// A program's streams that were given up last, and the latest of those before them.
    given_up: VecDeque<u32>,
    forgotten: u32,
    /// What the connection may still send, and whether streams wait for more of it, or for the socket.
    pub(super) room: i64,
    crowded: bool,
    /// What the other end may still send on the connection, what is to be given back, and what is held.
    pub(super) window: i64,
    pub(super) owed: u32,
    pub(super) held: usize,
    /// The other end's settings.
    pub(super) peer_window: u32,
    pub(super) peer_frame: usize,
    pub(super) peer_streams: u32,
    pub(super) settled: bool,
    settlers: Vec<Waker>,
    pub(super) partial: Option<Partial>,
    /// Bytes of the preface that have not come.
    pub(super) preface: &'static [u8],
    /// An open question.
    pub(super) question: Option<[u8; 8]>,
    questions: u64,
    asker: Option<Waker>,
    pub(super) leaving: Leaving,
    /// The other end takes no more streams.
    pub(super) refused: bool,
    pub(super) ended: Option<Broken>,
    driver: Option<Waker>,
    woken: bool,
}

impl State {
    pub(super) fn new(terms: Terms) -> Self {
        let now = Instant::now();
        let mut state = Self {
            terms,
            now,
            out: Outbox::default(),
            encoder: Encoder::new(),
            decoder: Decoder::new(),
            watch: Watch::new(),
            entries: Vec::new(),
            free: Vec::new(),
            by_id: HashMap::default(),
            active: 0,
            next: 1,
            last: 0,
            opened: VecDeque::new(),
            stillborn: 0,
            given_up: VecDeque::new(),
            forgotten: 0,
            room: i64::from(WINDOW),
            crowded: false,
            window: i64::from(connection_window(terms.peer)),
            owed: 0,
            held: 0,
            peer_window: WINDOW,
            peer_frame: 16 << 10,
            peer_streams: if terms.client { 100 } else { 0 },
            settled: false,
            settlers: Vec::new(),
            partial: None,
            preface: if terms.client { &[] } else { PREFACE },
            question: None,
            questions: 0,
            asker: None,
            leaving: Leaving::No,
            refused: false,
            ended: None,
            driver: None,
            woken: false,
        };
        state.greet();
        state
    }

    /// What each end says first.
    fn greet(&mut self) {
        let limit = u32::try_from(head::LIMIT).unwrap_or(u32::MAX);
        let frame = u32::try_from(self.most_in_frame()).unwrap_or(u32::MAX);
        let tail = self.out.tail();
        let mut settings = vec![
            (frame::MAX_FRAME_SIZE, frame),
            (frame::MAX_HEADER_LIST_SIZE, limit),
        ];
        if self.terms.client {
            tail.extend_from_slice(PREFACE);
            settings.push((frame::ENABLE_PUSH, 0));
        } else {
            settings.push((frame::MAX_CONCURRENT_STREAMS, self.terms.streams));
        }
        if self.terms.peer == Peer::Program {
            settings.push((frame::ENABLE_CONNECT_PROTOCOL, 1));
        }
        let mut payload = Vec::with_capacity(6 * settings.len());
        for (name, value) in settings {
            payload.extend_from_slice(&name.to_be_bytes());
            payload.extend_from_slice(&value.to_be_bytes());
        }
        frame::put(tail, frame::SETTINGS, 0, 0, &payload);
        let more = connection_window(self.terms.peer) - WINDOW;
        frame::put(tail, frame::WINDOW_UPDATE, 0, 0, &more.to_be_bytes());
    }

    /// Bytes of the largest frame that is taken.
    pub(super) fn most_in_frame(&self) -> usize {
        match self.terms.peer {
            Peer::Daemon => FRAME,
            Peer::Program => PROGRAM_FRAME,
        }
    }

    /// True when this end gave the stream up, or may have, and frames of it may be on their way.
    pub(super) fn was_given_up(&self, id: u32) -> bool {
        id <= self.forgotten || self.given_up.contains(&id)
    }

    /// This end has given a stream up.
    pub(super) fn gives_up(&mut self, id: u32, reason: Reason) {
        if self.terms.peer == Peer::Program {
            if self.given_up.len() >= GIVEN_UP {
                let oldest = self.given_up.pop_front().unwrap_or_default();
                self.forgotten = self.forgotten.max(oldest);
            }
            self.given_up.push_back(id);
        }
        self.put(frame::RST_STREAM, 0, id, &reason.0.to_be_bytes());
    }

    /// What is to be sent is there: the driver gets its turn, once.
    pub(super) fn stir(&mut self) {
        if !self.woken {
            self.woken = true;
            if let Some(driver) = &self.driver {
                driver.wake_by_ref();
            }
        }
    }

    /// The driver begins its turn.
    pub(super) fn turn(&mut self, cx: &Context<'_>) {
        self.now = Instant::now();
        if !self
            .driver
            .as_ref()
            .is_some_and(|own| own.will_wake(cx.waker()))
        {
            self.driver = Some(cx.waker().clone());
        }
        // What is written from here on in this turn is seen by it.
        self.woken = true;
    }

    /// The driver ends its turn: what comes from here on wakes it.
    pub(super) fn rest(&mut self) {
        self.woken = false;
        if self.active == 0 {
            self.out.shrink();
        }
        if self.out.len() <= BACKLOG / 2 && self.room > 0 {
            self.release_crowd();
        }
    }

    /// Wakes who waited for the socket or the connection's window.
    fn release_crowd(&mut self) {
        if !std::mem::take(&mut self.crowded) {
            return;
        }
        for entry in self.entries.iter_mut().flatten() {
            if std::mem::take(&mut entry.crowded)
                && let Some(writer) = entry.writer.take()
            {
                writer.wake();
            }
        }
    }

    pub(super) fn entry(&mut self, key: u32) -> Option<&mut Entry> {
        self.entries.get_mut(key as usize)?.as_mut()
    }

    /// The key of the stream with this number, while it is not over.
    pub(super) fn key_of(&self, id: u32) -> Option<u32> {
        self.by_id.get(&id).copied()
    }

    /// Adds a stream; its key.
    pub(super) fn add(&mut self, id: u32, read: bool, written: bool, handled: bool) -> u32 {
        let entry = Entry {
            id,
            begun: self.now,
            heads: Queue::new(),
            answered: false,
            inbox: Queue::new(),
            trailers: None,
            read,
            left: None,
            window: i64::from(WINDOW),
            whole: WINDOW,
            owed: 0,
            owed_since: self.now,
            reader: None,
            written,
            looked_at: false,
            room: i64::from(self.peer_window),
            writer: None,
            crowded: false,
            broken: None,
            handled,
        };
        let key = self.free.pop().unwrap_or_else(|| {
            self.entries.push(None);
            u32::try_from(self.entries.len() - 1).unwrap_or(u32::MAX)
        });
        if let Some(slot) = self.entries.get_mut(key as usize) {
            *slot = Some(entry);
        }
        self.by_id.insert(id, key);
        self.active += 1;
        key
    }

    /// A stream has changed: one that is over counts no longer, and one that nobody looks at either is forgotten.
    pub(super) fn settle(&mut self, key: u32) {
        let Some(entry) = self.entry(key) else { return };
        if !entry.is_over() {
            return;
        }
        let (id, handled) = (entry.id, entry.handled);
        if self.by_id.remove(&id).is_some() {
            self.active -= 1;
        }
        if !handled && let Some(entry) = self.entries.get_mut(key as usize).and_then(Option::take) {
            self.held = self.held.saturating_sub(entry.held());
            let mut entry = entry;
            while let Some(head) = entry.heads.pop().or_else(|| entry.trailers.take()) {
                head::put(head);
            }
            self.free.push(key);
            self.credit(0);
        }
        if self.active == 0 {
            // A link that is leaving ends with its last stream.
            self.stir();
        }
    }

    pub(super) fn active(&self) -> u32 {
        self.active
    }

    pub(super) fn is_closed(&self) -> bool {
        let used_up = self.terms.client && i64::from(self.next) >= LARGEST;
        self.ended.is_some() || self.refused || self.leaving != Leaving::No || used_up
    }

    pub(super) fn most(&self) -> u32 {
        self.peer_streams.min(self.terms.streams)
    }

    pub(super) fn has_room(&self) -> bool {
        !self.is_closed() && self.active < self.most()
    }

    /// Opens a stream.
    pub(super) fn open(
        &mut self,
        ended: bool,
        write: impl FnOnce(&mut Fields<'_>),
    ) -> Option<(u32, u32)> {
        if !self.has_room() {
            return None;
        }
        let id = self.next;
        self.next += 2;
        let key = self.add(id, false, ended, true);
        self.send_head(id, ended, write);
        Some((key, id))
    }

    /// Writes the frames of a head.
    pub(super) fn send_head(&mut self, id: u32, ended: bool, write: impl FnOnce(&mut Fields<'_>)) {
        let most = self.peer_frame;
        let mut fields = Fields::begin(&mut self.encoder, self.out.tail());
        write(&mut fields);
        fields.end(id, ended, most);
        self.watch.useful();
        self.stir();
    }

    /// The next stream that was opened.
    pub(super) fn accept(&mut self) -> Option<(u32, u32, Box<Head>, bool)> {
        let daemon = self.terms.peer == Peer::Daemon;
        loop {
            let (key, head, ended) = self.opened.pop_front()?;
            let Some(entry) = self.entry(key) else {
                head::put(head);
                continue;
            };
            let taken_back = entry.broken.is_some();
            if taken_back && daemon {
                // Nobody needs to know of it.
                entry.handled = false;
                head::put(head);
                self.settle(key);
                continue;
            }
            entry.looked_at = true;
            let id = entry.id;
            self.stillborn = self.stillborn.saturating_sub(taken_back.into());
            return Some((key, id, head, ended));
        }
    }

    /// How much of `wanted` bytes a stream may send now; waits while it is nothing.
    pub(super) fn poll_room(
        &mut self,
        cx: &Context<'_>,
        key: u32,
        wanted: usize,
    ) -> Poll<Result<usize, Broken>> {
        let most = wanted.min(self.peer_frame.min(FRAME));
        let (room, crowded) = (self.room, self.out.len() >= BACKLOG);
        let Some(entry) = self.entry(key) else {
            return Poll::Ready(Err(Broken::Refused(Reason::STREAM_CLOSED)));
        };
        if let Some(broken) = &entry.broken {
            return Poll::Ready(Err(broken.clone()));
        }
        if entry.written {
            return Poll::Ready(Err(Broken::Refused(Reason::STREAM_CLOSED)));
        }
        if entry.room <= 0 {
            remember(&mut entry.writer, cx);
            return Poll::Pending;
        }
        if room <= 0 || crowded {
            // A break of the stream is told to its writer as well.
            remember(&mut entry.writer, cx);
            entry.crowded = true;
            self.crowded = true;
            return Poll::Pending;
        }
        let room = usize::try_from(entry.room.min(room)).unwrap_or(usize::MAX);
        Poll::Ready(Ok(most.min(room)))
    }

    /// Sends a piece of a body for which there is room.
    pub(super) fn send(&mut self, key: u32, piece: Bytes, last: bool) {
        if let Some(id) = self.spend(key, piece.len(), last) {
            let flags = if last { frame::END_STREAM } else { 0 };
            let head = frame::Head {
                length: piece.len(),
                kind: frame::DATA,
                flags,
                stream: id,
            };
            self.out.tail().extend_from_slice(&head.bytes());
            self.out.push(piece);
            self.settle(key);
        }
    }

    /// The same with bytes that are copied.
    pub(super) fn send_copy(&mut self, key: u32, piece: &[u8], last: bool) {
        if let Some(id) = self.spend(key, piece.len(), last) {
            let flags = if last { frame::END_STREAM } else { 0 };
            frame::put(self.out.tail(), frame::DATA, flags, id, piece);
            self.settle(key);
        }
    }

    fn spend(&mut self, key: u32, length: usize, last: bool) -> Option<u32> {
        let spent = i64::try_from(length).unwrap_or(i64::MAX);
        let entry = self.entry(key)?;
        if entry.broken.is_some() || entry.written {
            return None;
        }
        debug_assert!(spent <= entry.room.max(0), "more than there is room for");
        entry.room -= spent;
        entry.written = last;
        let id = entry.id;
        self.room -= spent;
        self.watch.useful();
        self.stir();
        Some(id)
    }

    /// The next piece of a stream's body; nothing at its end.
    pub(super) fn poll_piece(
        &mut self,
        cx: &Context<'_>,
        key: u32,
    ) -> Poll<Result<Option<Bytes>, Broken>> {
        let Some(entry) = self.entry(key) else {
            return Poll::Ready(Ok(None));
        };
        if let Some(piece) = entry.inbox.pop() {
            self.credit(piece.len());
            return Poll::Ready(Ok(Some(piece)));
        }
        match &entry.broken {
            _ if entry.read => Poll::Ready(Ok(None)),
            Some(broken) => Poll::Ready(Err(broken.clone())),
            None => {
                remember(&mut entry.reader, cx);
                Poll::Pending
            }
        }
    }

    /// The next head of an answer.
    pub(super) fn poll_head(
        &mut self,
        cx: &Context<'_>,
        key: u32,
    ) -> Poll<Result<Box<Head>, Broken>> {
        let Some(entry) = self.entry(key) else {
            return Poll::Ready(Err(Broken::Refused(Reason::STREAM_CLOSED)));
        };
        if let Some(head) = entry.heads.pop() {
            return Poll::Ready(Ok(head));
        }
        if let Some(broken) = &entry.broken {
            return Poll::Ready(Err(broken.clone()));
        }
        remember(&mut entry.reader, cx);
        Poll::Pending
    }

    /// Ready when the other end has given the stream up, or the link is gone.
    pub(super) fn poll_gone(&mut self, cx: &Context<'_>, key: u32) -> Poll<()> {
        match self.entry(key) {
            Some(entry) if entry.broken.is_none() => {
                remember(&mut entry.writer, cx);
                Poll::Pending
            }
            Some(_) | None => Poll::Ready(()),
        }
    }

    /// Bytes of a stream were passed on: the other end may send as many more.
    pub(super) fn release(&mut self, key: u32, count: usize) {
        let count32 = u32::try_from(count).unwrap_or(u32::MAX);
        let (now, most) = (self.now, self.terms.window);
        let Some(entry) = self.entry(key) else { return };
        entry.owed += count32;
        if entry.read || entry.broken.is_some() || entry.owed < entry.whole / 2 {
            return;
        }
        let mut more = entry.owed;
        if entry.whole < most && now.duration_since(entry.owed_since) < QUICK {
            let grown = entry.whole.saturating_mul(2).min(most);
            more += grown - entry.whole;
            entry.whole = grown;
        }
        entry.owed = 0;
        entry.owed_since = now;
        entry.window += i64::from(more);
        let id = entry.id;
        self.put(frame::WINDOW_UPDATE, 0, id, &more.to_be_bytes());
    }

    /// Bytes are held no longer: so many more may come.
    pub(super) fn credit(&mut self, count: usize) {
        self.held = self.held.saturating_sub(count);
        let held = match self.terms.peer {
            Peer::Daemon => HELD,
            Peer::Program => PROGRAM_HELD,
        };
        if self.owed > connection_window(self.terms.peer) / 2 && self.held <= held {
            let more = std::mem::take(&mut self.owed);
            self.window += i64::from(more);
            self.put(frame::WINDOW_UPDATE, 0, 0, &more.to_be_bytes());
        }
    }

    /// Writes a small frame.
    pub(super) fn put(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        frame::put(self.out.tail(), kind, flags, stream, payload);
        self.stir();
    }

    /// Gives a stream up.
    pub(super) fn reset(&mut self, key: u32, reason: Reason, why: Broken) {
        let Some(entry) = self.entry(key) else { return };
        if entry.is_over() {
            return;
        }
        let id = entry.id;
        entry.broken = Some(why);
        entry.wake();
        self.gives_up(id, reason);
        self.settle(key);
    }

    /// A stream's handle is gone.
    pub(super) fn forget(&mut self, key: u32) {
        let client = self.terms.client;
        let Some(entry) = self.entry(key) else { return };
        entry.handled = false;
        // An answer that is whole needs no more of the request (RFC 9113 section 8.1).
        let reason = if entry.written && !client {
            Reason::NO_ERROR
        } else {
            Reason::CANCEL
        };
        if entry.is_over() {
            self.settle(key);
        } else {
            self.reset(key, reason, Broken::Refused(reason));
        }
    }

    #[cfg(test)]
    pub(super) fn poll_settled(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.settled || self.ended.is_some() {
            return Poll::Ready(());
        }
        self.settlers.push(cx.waker().clone());
        Poll::Pending
    }

    /// The other end's settings are known.
    pub(super) fn has_settled(&mut self) {
        self.settled = true;
        for waker in self.settlers.drain(..) {
            waker.wake();
        }
    }

    pub(super) fn ask(&mut self) {
        self.questions += 1;
        let question = self.questions.to_be_bytes();
        self.question = Some(question);
        self.put(frame::PING, 0, 0, &question);
    }

    /// Ready when no question is open, or never will be answered.
    pub(super) fn poll_answered(&mut self, cx: &Context<'_>) -> Poll<Result<(), Broken>> {
        if let Some(ended) = &self.ended {
            return Poll::Ready(Err(ended.clone()));
        }
        if self.question.is_none() {
            return Poll::Ready(Ok(()));
        }
        remember(&mut self.asker, cx);
        Poll::Pending
    }

    /// The open question is answered.
    pub(super) fn answered(&mut self) {
        self.question = None;
        if let Some(asker) = self.asker.take() {
            asker.wake();
        }
    }

    /// Takes no further streams.
    pub(super) fn leave(&mut self) {
        if self.leaving != Leaving::No || self.ended.is_some() {
            return;
        }
        if self.terms.client {
            self.leaving = Leaving::Final;
            self.stir();
            return;
        }
        // Streams that are on their way are still served: the other end is told first, and the last stream is
        // named once it has answered (RFC 9113 section 6.8).
        self.leaving = Leaving::Announced;
        self.goaway(0x7fff_ffff, Reason::NO_ERROR);
        self.ask();
    }

    /// Names the last stream that is served.
    pub(super) fn leave_for_good(&mut self) {
        if self.leaving == Leaving::Announced {
            self.leaving = Leaving::Final;
            self.goaway(self.last, Reason::NO_ERROR);
        }
    }

    fn goaway(&mut self, last: u32, reason: Reason) {
        let payload = (u64::from(last) << 32) | u64::from(reason.0);
        self.put(frame::GOAWAY, 0, 0, &payload.to_be_bytes());
    }

    /// Ends the link because of what the other end sent.
    pub(super) fn fail(&mut self, reason: Reason) {
        if self.ended.is_none() {
            self.goaway(self.last, reason);
            self.end(&Arc::from(reason.to_string()));
        }
    }

    /// The link has ended: so have its streams.
    pub(super) fn end(&mut self, why: &Arc<str>) {
        if self.ended.is_some() {
            return;
        }
        self.ended = Some(Broken::Lost(Arc::clone(why)));
        for entry in self.entries.iter_mut().flatten() {
            // What has come whole may still be read.
            if !entry.is_over() {
                entry.broken = Some(Broken::Lost(Arc::clone(why)));
            }
            entry.wake();
        }
        self.by_id.clear();
        self.active = 0;
        for (key, head, _) in std::mem::take(&mut self.opened) {
            head::put(head);
            if let Some(entry) = self.entry(key) {
                entry.handled = false;
            }
            self.settle(key);
        }
        self.has_settled();
        self.answered();
        self.release_crowd();
        self.stir();
    }

    /// The other end has looked at no stream above `last`.
    pub(super) fn unprocessed_above(&mut self, last: u32) {
        self.refused = true;
        let mut keys: Vec<u32> = self
            .by_id
            .iter()
            .filter(|(id, _)| **id > last)
            .map(|(_, key)| *key)
            .collect();
        keys.sort_unstable();
        for key in keys {
            if let Some(entry) = self.entry(key) {
                entry.broken = Some(Broken::Unprocessed);
                entry.wake();
            }
            self.settle(key);
        }
    }

    /// The other end allows streams another first window.
    pub(super) fn set_peer_window(&mut self, window: u32) -> Result<(), Reason> {
        let more = i64::from(window) - i64::from(self.peer_window);
        self.peer_window = window;
        for entry in self.entries.iter_mut().flatten() {
            entry.room += more;
            if entry.room > LARGEST {
                return Err(Reason::FLOW_CONTROL_ERROR);
            }
            if more > 0
                && let Some(waker) = entry.writer.take()
            {
                waker.wake();
            }
        }
        Ok(())
    }

    /// The connection may send more.
    pub(super) fn widen(&mut self, more: u32) -> Result<(), Reason> {
        self.room += i64::from(more);
        if self.room > LARGEST {
            return Err(Reason::FLOW_CONTROL_ERROR);
        }
        self.release_crowd();
        Ok(())
    }
}

/// What a whole connection may have in flight towards us.
fn connection_window(peer: Peer) -> u32 {
    match peer {
        Peer::Daemon => CONNECTION_WINDOW,
        Peer::Program => PROGRAM_WINDOW,
    }
}

/// Keeps the waker of whoever asked last.
pub(super) fn remember(place: &mut Option<Waker>, cx: &Context<'_>) {
    if !place.as_ref().is_some_and(|own| own.will_wake(cx.waker())) {
        *place = Some(cx.waker().clone());
    }
}
