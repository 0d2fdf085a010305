//! A stream of TLS 1.3 once the handshake is over, without its socket: records in, bytes out, and the other way.
//!
//! In: what was read of the socket; bytes to send. Out: bytes, in the place where they came; records to write.
//! Keys are renewed before they have sealed too much, and when the other end asks for it. Never: copies what is
//! sealed, keeps memory while nothing is on its way, or lets bytes out that are not genuine.

use std::{io::IoSlice, ops::Range};

use crate::buffers::BLOCK;

use super::{
    chunk::Chunk,
    fault::Fault,
    keys::{Opening, Sealing},
    record::{self, ALERT, DATA, FRAGMENT, HANDSHAKE, HEAD, TAIL},
    side::Schedule,
};

/// Records without bytes that may come one after the other.
const IDLE: u8 = 32;
/// The longest message after a handshake: a ticket of a server that sends some.
const MESSAGE: usize = 64 << 10;
/// Room that is kept for a record of our own: an alert, or an update of keys.
const RESERVE: usize = 2 * (HEAD + TAIL + 5);
/// Bytes of which several pieces are put into one record.
const SMALL: usize = 2 << 10;
/// Records before the last one that a key may seal at which it is renewed.
const MARGIN: u64 = 1 << 10;

const TICKET: u8 = 4;
const KEY_UPDATE: u8 = 24;
const WARNING: u8 = 1;
const FATAL: u8 = 2;
const CLOSE_NOTIFY: u8 = 0;
const USER_CANCELED: u8 = 90;

/// What the records that came say.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// There are bytes.
    Bytes,
    /// More of a record must come.
    More,
    /// The other end has ended its direction.
    End,
}

/// A stream of TLS without its socket.
pub(super) struct Session {
    schedule: Schedule,
    sealing: Sealing,
    opening: Opening,
    /// Records that one key may seal.
    most: u64,
    /// What came and is not opened.
    input: Chunk,
    /// Bytes of the record that was opened last: where they begin before `input`, and how many.
    opened: Range<usize>,
    /// What waits to be written.
    output: Chunk,
    /// A message whose end has not come.
    message: Vec<u8>,
    idle: u8,
    /// The other end wants us to renew our keys.
    owes_update: bool,
    /// We have said that nothing more comes.
    closed: bool,
    /// The other end has said so.
    ended: bool,
    fault: Option<Fault>,
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session")
            .field("closed", &self.closed)
            .field("ended", &self.ended)
            .field("fault", &self.fault)
            .finish_non_exhaustive()
    }
}

/// What a handshake leaves.
pub(super) struct Begun {
    pub(super) schedule: Schedule,
    pub(super) sealing: Sealing,
    pub(super) opening: Opening,
    /// Bytes that came with the end of the handshake.
    pub(super) bytes: Vec<u8>,
    /// What came after them, of a record that is not whole.
    pub(super) rest: Vec<u8>,
    /// The other end has ended its direction already.
    pub(super) ended: bool,
}

impl Session {
    /// Begins after a handshake.
    pub(super) fn new(begun: Begun) -> Self {
        let count = begun.bytes.len();
        let mut input = Chunk::of([begun.bytes, begun.rest].concat());
        input.take(count);
        let most = begun.schedule.most();
        Self {
            most: most.saturating_sub(MARGIN),
            schedule: begun.schedule,
            sealing: begun.sealing,
            opening: begun.opening,
            input,
            opened: 0..count,
            output: Chunk::new(),
            message: Vec::new(),
            idle: 0,
            owes_update: false,
            closed: false,
            ended: begun.ended,
            fault: None,
        }
    }

    /// Memory that is held for what comes, and for what is sent.
    #[cfg(test)]
    pub(super) fn held(&self) -> (usize, usize) {
        (self.input.held(), self.output.held())
    }

    /// Records that were sealed with the newest key.
    #[cfg(test)]
    pub(super) fn sealed(&self) -> u64 {
        self.sealing.sealed()
    }

    /// Keys are renewed after so many records.
    #[cfg(any(test, feature = "fuzz"))]
    pub(super) fn renew_after(&mut self, records: u64) {
        self.most = records;
    }

    /// Bytes of the record that was opened last, as far as nobody took them.
    pub(super) fn bytes(&self) -> &[u8] {
        self.input.at(self.opened.clone())
    }

    /// Somebody took them.
    pub(super) fn took(&mut self, count: usize) {
        self.opened.start += count.min(self.opened.len());
    }

    /// Opens records until there are bytes, or no whole one is left.
    pub(super) fn step(&mut self) -> Result<Step, Fault> {
        loop {
            if !self.opened.is_empty() {
                return Ok(Step::Bytes);
            }
            if let Some(fault) = &self.fault {
                return Err(fault.clone());
            }
            if self.ended {
                return Ok(Step::End);
            }
            match self.open() {
                Ok(true) => {}
                Ok(false) => return Ok(Step::More),
                Err(fault) => {
                    self.fail(fault.clone());
                    return Err(fault);
                }
            }
        }
    }

    /// Opens one record; false when none is whole.
    fn open(&mut self) -> Result<bool, Fault> {
        let Some(length) = record::whole(self.input.filled())? else {
            return Ok(false);
        };
        let begin = self.input.position() + HEAD;
        let bytes = self.input.filled_mut().get_mut(..length);
        let (kind, count) = self.opening.open(bytes.unwrap_or_default())?;
        self.input.take(length);
        let place = begin..begin + count;
        // A message that came in part is followed by the rest of it.
        if kind != HANDSHAKE && !self.message.is_empty() {
            return Err(Fault::Unexpected);
        }
        if kind == DATA && count > 0 {
            self.idle = 0;
            self.opened = place;
            return Ok(true);
        }
        self.idle += 1;
        if self.idle > IDLE {
            return Err(Fault::Idle);
        }
        match kind {
            DATA => {}
            HANDSHAKE if count == 0 => return Err(Fault::Unexpected),
            HANDSHAKE => self.on_messages(place)?,
            ALERT => self.on_alert(place)?,
            _ => return Err(Fault::Unexpected),
        }
        Ok(true)
    }

    fn on_alert(&mut self, place: Range<usize>) -> Result<(), Fault> {
        match *self.input.at(place) {
            [_, CLOSE_NOTIFY] => self.ended = true,
            // The close follows.
            [_, USER_CANCELED] => {}
            [_, other] => return Err(Fault::Alert(other)),
            _ => return Err(Fault::Unreadable),
        }
        Ok(())
    }

    fn on_messages(&mut self, place: Range<usize>) -> Result<(), Fault> {
        let mut message = std::mem::take(&mut self.message);
        message.extend_from_slice(self.input.at(place));
        let mut rest = &*message;
        while let Some((kind, body, more)) = first_message(rest)? {
            rest = more;
            match (kind, body) {
                (TICKET, ticket) => self.schedule.ticket(ticket)?,
                // The first byte under new keys is the first of a record (RFC 8446 section 5.1).
                (KEY_UPDATE, _) if !rest.is_empty() => return Err(Fault::Unexpected),
                (KEY_UPDATE, [asks @ 0..=1]) => {
                    self.opening = self.schedule.next_opening()?;
                    self.owes_update |= *asks == 1;
                }
                (KEY_UPDATE, _) => return Err(Fault::Unreadable),
                _ => return Err(Fault::Unexpected),
            }
        }
        self.message = rest.to_vec();
        Ok(())
    }

    /// Where more may be written of what comes; only while there are no bytes.
    pub(super) fn room(&mut self) -> &mut [u8] {
        self.opened = 0..0;
        self.input.spread();
        self.input.room()
    }

    /// So much came.
    pub(super) fn came(&mut self, count: usize) {
        self.input.add(count);
    }

    /// Nothing more comes for now: memory that is not needed is given back.
    pub(super) fn rest(&mut self) {
        if self.opened.is_empty() {
            self.opened = 0..0;
            self.input.rest();
        }
    }

    /// As much was read as is wanted for now.
    pub(super) fn pause(&mut self) {
        if self.opened.is_empty() && self.input.is_empty() {
            self.rest();
        }
    }

    /// What waits to be written.
    pub(super) fn output(&self) -> &[u8] {
        self.output.filled()
    }

    /// So much of it was written.
    pub(super) fn wrote(&mut self, count: usize) {
        self.output.take(count);
    }

    /// Nothing more can be written for now.
    pub(super) fn wait(&mut self) {
        self.output.rest();
    }

    /// Whether nothing more may be sent: the end was said, or a fault.
    pub(super) fn is_closed(&self) -> bool {
        self.closed
    }

    /// Seals bytes; how many. None while there is no room.
    pub(super) fn seal(&mut self, bytes: &[u8]) -> Result<usize, Fault> {
        let mut count = 0;
        for piece in bytes.chunks(FRAGMENT) {
            if !self.put(DATA, piece)? {
                break;
            }
            count += piece.len();
        }
        Ok(count)
    }

    /// Seals pieces, small ones together; how many bytes.
    pub(super) fn seal_all(&mut self, pieces: &[IoSlice<'_>]) -> Result<usize, Fault> {
        let mut count = 0;
        let mut small = [0; SMALL];
        let mut held = 0;
        for piece in pieces {
            if held + piece.len() > SMALL {
                if held > 0 && !self.put(DATA, small.get(..held).unwrap_or_default())? {
                    return Ok(count);
                }
                count += std::mem::take(&mut held);
            }
            if let Some(place) = small.get_mut(held..held + piece.len()) {
                place.copy_from_slice(piece);
                held += piece.len();
                continue;
            }
            let sealed = self.seal(piece)?;
            count += sealed;
            if sealed < piece.len() {
                return Ok(count);
            }
        }
        if held > 0 && self.put(DATA, small.get(..held).unwrap_or_default())? {
            count += held;
        }
        Ok(count)
    }

    /// Renews our keys when that is due; false when there is no room for saying so.
    pub(super) fn renew(&mut self) -> Result<bool, Fault> {
        if self.closed || !(self.owes_update || self.sealing.sealed() >= self.most) {
            return Ok(true);
        }
        if !self.has_room(5 + RESERVE / 2) {
            return Ok(false);
        }
        self.write(HANDSHAKE, &[KEY_UPDATE, 0, 0, 1, 0])?;
        self.sealing = self.schedule.next_sealing()?;
        self.owes_update = false;
        Ok(true)
    }

    /// Says that nothing more comes.
    pub(super) fn close(&mut self) -> Result<(), Fault> {
        if self.closed {
            return Ok(());
        }
        self.closed = true;
        if self.has_room(2) {
            self.write(ALERT, &[WARNING, CLOSE_NOTIFY])?;
        }
        Ok(())
    }

    /// The end, because of what the other end did, or because of our keys.
    fn fail(&mut self, fault: Fault) {
        if let Some(alert) = fault.alert()
            && !self.closed
            && self.has_room(2)
            && self.write(ALERT, &[FATAL, alert]).is_err()
        {
            tracing::debug!("an alert could not be sealed");
        }
        self.closed = true;
        self.fault = Some(fault);
        self.message = Vec::new();
        (self.input, self.opened) = (Chunk::new(), 0..0);
    }

    /// Seals one record of bytes; false when there is no room.
    fn put(&mut self, kind: u8, content: &[u8]) -> Result<bool, Fault> {
        let done = self.renew().and_then(|renewed| {
            if !renewed || !self.has_room(content.len() + RESERVE) {
                return Ok(false);
            }
            self.write(kind, content).map(|()| true)
        });
        if let Err(fault) = &done {
            self.fail(fault.clone());
        }
        done
    }

    fn write(&mut self, kind: u8, content: &[u8]) -> Result<(), Fault> {
        let length = self.sealing.seal(kind, content, self.output.room())?;
        self.output.add(length);
        Ok(())
    }

    /// Whether a record with so many bytes finds room; makes it where that costs little.
    fn has_room(&mut self, count: usize) -> bool {
        let wanted = HEAD + TAIL + count;
        if self.output.room().len() < wanted && self.output.len() <= BLOCK / 4 {
            self.output.spread();
        }
        self.output.room().len() >= wanted
    }
}

/// Kind and body of a message, and what follows it.
type Message<'b> = (u8, &'b [u8], &'b [u8]);

/// The message that `bytes` begin with; nothing while it is not whole.
fn first_message(bytes: &[u8]) -> Result<Option<Message<'_>>, Fault> {
    let Some((&[kind, high, middle, low], rest)) = bytes.split_first_chunk::<4>() else {
        return Ok(None);
    };
    let length = u32::from_be_bytes([0, high, middle, low]) as usize;
    if length > MESSAGE {
        return Err(Fault::Unreadable);
    }
    let message = rest.split_at_checked(length);
    Ok(message.map(|(body, rest)| (kind, body, rest)))
}
