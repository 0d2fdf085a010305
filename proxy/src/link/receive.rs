//! What comes in: whole frames, each checked before it changes anything.

use std::{sync::Arc, time::Duration};

use bytes::{Buf as _, Bytes, BytesMut};

use super::{
    Broken, Peer,
    frame::{self, Head, Reason},
    head,
    queue::Queue,
    state::{LARGEST, Leaving, Partial, State},
};

/// Bytes from which a piece of a body is not copied out of what was read: it holds the whole of that, which a daemon
/// fills with such pieces; of a program it must be half.
const LARGE: usize = 8 << 10;
/// Bytes of a piece below which it is a crumb, and how many of them may wait one by one.
const CRUMB: usize = 512;
const CRUMBS: usize = 16;
/// Bytes of a compressed head, and the most parts of one.
const BLOCK: usize = 128 << 10;
const PARTS: u32 = 64;
/// Settings in one frame: there are not ten of them.
const SETTINGS: usize = 64;
/// Bytes that may wait for a peer that asks for answers and takes none.
const ANSWERS: usize = 4 << 20;
/// A program's requests that it took back before they were looked at and that wait for that.
const STILLBORN: u32 = 20;
/// A request that is taken back later than this is one that its caller has waited for.
const AT_ONCE: Duration = Duration::from_secs(1);

impl State {
    /// Takes the whole frames that `input` begins with.
    pub(super) fn receive(&mut self, input: &mut BytesMut) -> Result<(), Reason> {
        if !self.take_preface(input)? {
            return Ok(());
        }
        while let Some(head) = Head::read(input) {
            if head.length > self.most_in_frame() {
                return Err(Reason::FRAME_SIZE_ERROR);
            }
            if input.len() < frame::HEAD + head.length {
                break;
            }
            input.advance(frame::HEAD);
            // Only a head's own next part may follow a part of one.
            if self.partial.is_some() && head.kind != frame::CONTINUATION {
                return Err(Reason::PROTOCOL_ERROR);
            }
            if !self.settled && head.kind != frame::SETTINGS {
                return Err(Reason::PROTOCOL_ERROR);
            }
            if self.watch.is_faulty() {
                return Err(Reason::ENHANCE_YOUR_CALM);
            }
            if head.kind == frame::DATA {
                self.on_data(head, input)?;
                continue;
            }
            let payload = input.get(..head.length).unwrap_or_default();
            self.on_frame(head, payload)?;
            input.advance(head.length);
            if self.ended.is_some() {
                break;
            }
        }
        Ok(())
    }

    /// False while the preface is not whole.
    fn take_preface(&mut self, input: &mut BytesMut) -> Result<bool, Reason> {
        let length = self.preface.len().min(input.len());
        let (wanted, rest) = self.preface.split_at_checked(length).unwrap_or_default();
        if input.get(..length) != Some(wanted) {
            return Err(Reason::PROTOCOL_ERROR);
        }
        input.advance(length);
        self.preface = rest;
        Ok(rest.is_empty())
    }

    fn on_frame(&mut self, head: Head, payload: &[u8]) -> Result<(), Reason> {
        if head.kind != frame::HEADERS && head.kind != frame::CONTINUATION && !self.watch.idle() {
            return Err(Reason::ENHANCE_YOUR_CALM);
        }
        match head.kind {
            frame::HEADERS => self.on_headers(head, payload),
            frame::CONTINUATION => self.on_continuation(head, payload),
            frame::RST_STREAM => self.on_reset(head, payload),
            frame::SETTINGS => self.on_settings(head, payload),
            frame::PING => self.on_ping(head, payload),
            frame::GOAWAY => self.on_goaway(head, payload),
            frame::WINDOW_UPDATE => self.on_window(head, payload),
            frame::PRIORITY if head.stream == 0 => Err(Reason::PROTOCOL_ERROR),
            frame::PRIORITY if head.length != 5 => Err(Reason::FRAME_SIZE_ERROR),
            frame::PRIORITY => self.on_priority(head.stream, payload),
            frame::PUSH_PROMISE => Err(Reason::PROTOCOL_ERROR),
            // Also kinds that nobody knows (RFC 9113 section 5.5).
            _ => Ok(()),
        }
    }

    fn on_data(&mut self, head: Head, input: &mut BytesMut) -> Result<(), Reason> {
        let length = i64::try_from(head.length).unwrap_or(i64::MAX);
        if head.stream == 0 || self.is_idle(head.stream) {
            return Err(Reason::PROTOCOL_ERROR);
        }
        if length > self.window {
            return Err(Reason::FLOW_CONTROL_ERROR);
        }
        self.window -= length;
        self.owed += u32::try_from(head.length).unwrap_or(u32::MAX);
        let last = head.has(frame::END_STREAM);
        let pad = if head.has(frame::PADDED) {
            let pad = input.first().copied().filter(|_| head.length > 0);
            usize::from(pad.ok_or(Reason::PROTOCOL_ERROR)?) + 1
        } else {
            0
        };
        if pad > head.length {
            return Err(Reason::PROTOCOL_ERROR);
        }
        if pad == head.length && !last && !self.watch.idle() {
            return Err(Reason::ENHANCE_YOUR_CALM);
        }
        let piece = if pad > 0 {
            let whole = cut(self.terms.peer, input, head.length);
            whole.slice(1..=head.length - pad)
        } else {
            cut(self.terms.peer, input, head.length)
        };
        let key = self.key_of(head.stream);
        if let Some(key) = key.filter(|key| !self.is_behind_end(*key)) {
            self.on_piece(key, piece, length, last);
        } else if !self.may_be_late(head.stream) {
            return Err(Reason::STREAM_CLOSED);
        }
        // What belongs to no stream is given back at once.
        self.credit(0);
        Ok(())
    }

    /// True when a frame of a stream that is over may have been on its way: ours was the end of it. No program sends
    /// anything behind its own end (RFC 9113 section 5.1).
    fn may_be_late(&self, id: u32) -> bool {
        self.terms.peer == Peer::Daemon || id > self.last || self.was_given_up(id)
    }

    /// True for a stream that a program has ended.
    fn is_behind_end(&mut self, key: u32) -> bool {
        let program = self.terms.peer == Peer::Program;
        program && self.entry(key).is_some_and(|entry| entry.read)
    }

    /// No stream can depend on itself (RFC 7540 section 5.3.1); what else priorities say means nothing.
    fn on_priority(&self, id: u32, payload: &[u8]) -> Result<(), Reason> {
        let on = number(payload.get(..4).unwrap_or_default());
        let itself = on.is_some_and(|on| on & 0x7fff_ffff == id);
        if itself && self.terms.peer == Peer::Program {
            return Err(Reason::PROTOCOL_ERROR);
        }
        Ok(())
    }

    fn on_piece(&mut self, key: u32, piece: Bytes, counted: i64, last: bool) {
        let client = self.terms.client;
        let Some(entry) = self.entry(key) else { return };
        if entry.read {
            return self.refuse(key, Reason::STREAM_CLOSED);
        }
        if client && !entry.answered {
            // A body before its head.
            return self.refuse(key, Reason::PROTOCOL_ERROR);
        }
        if counted > entry.window {
            return self.refuse(key, Reason::FLOW_CONTROL_ERROR);
        }
        let length = piece.len();
        if let Some(left) = entry.left {
            // RFC 9113 section 8.1.1.
            let rest = left.checked_sub(length as u64);
            let Some(rest) = rest.filter(|rest| *rest == 0 || !last) else {
                return self.refuse(key, Reason::PROTOCOL_ERROR);
            };
            entry.left = Some(rest);
        }
        entry.window -= counted;
        let padding = usize::try_from(counted).unwrap_or(0).saturating_sub(length);
        entry.read = last;
        if length > 0 {
            keep(&mut entry.inbox, piece);
        }
        if let Some(reader) = entry.reader.take() {
            reader.wake();
        }
        self.held += length;
        if length > 0 || last {
            self.watch.useful();
        }
        // Padding is read by nobody.
        if padding > 0 {
            self.release(key, padding);
        }
        if last {
            self.settle(key);
        }
    }

    fn on_headers(&mut self, head: Head, payload: &[u8]) -> Result<(), Reason> {
        let mut rest = payload;
        let mut pad = 0;
        if head.has(frame::PADDED) {
            let (length, tail) = rest.split_first().ok_or(Reason::FRAME_SIZE_ERROR)?;
            (pad, rest) = (usize::from(*length), tail);
        }
        if head.has(frame::WITH_PRIORITY) {
            let priority = rest.get(..5).ok_or(Reason::FRAME_SIZE_ERROR)?;
            self.on_priority(head.stream, priority)?;
            rest = rest.get(5..).unwrap_or_default();
        }
        let length = rest.len().checked_sub(pad).ok_or(Reason::PROTOCOL_ERROR)?;
        let block = rest.get(..length).unwrap_or_default();
        if head.stream == 0 {
            return Err(Reason::PROTOCOL_ERROR);
        }
        let last = head.has(frame::END_STREAM);
        if head.has(frame::END_HEADERS) {
            return self.on_block(head.stream, last, block);
        }
        self.partial = Some(Partial {
            stream: head.stream,
            last,
            block: block.to_vec(),
            parts: 1,
        });
        Ok(())
    }

    fn on_continuation(&mut self, head: Head, payload: &[u8]) -> Result<(), Reason> {
        let mut partial = self.partial.take().ok_or(Reason::PROTOCOL_ERROR)?;
        if partial.stream != head.stream {
            return Err(Reason::PROTOCOL_ERROR);
        }
        partial.parts += 1;
        if partial.block.len() + payload.len() > BLOCK || partial.parts > PARTS {
            return Err(Reason::ENHANCE_YOUR_CALM);
        }
        partial.block.extend_from_slice(payload);
        if head.has(frame::END_HEADERS) {
            return self.on_block(partial.stream, partial.last, &partial.block);
        }
        self.partial = Some(partial);
        Ok(())
    }

    /// A whole head, or trailers.
    fn on_block(&mut self, id: u32, last: bool, block: &[u8]) -> Result<(), Reason> {
        let mut fields = head::take();
        // It is read whatever becomes of it: both ends must remember the same.
        if self.decoder.read(block, &mut fields).is_err() {
            return Err(Reason::COMPRESSION_ERROR);
        }
        if let Some(key) = self.key_of(id) {
            self.watch.useful();
            if self.terms.client {
                self.on_answer(key, fields, last);
            } else {
                self.on_trailers(key, fields, last);
            }
            return Ok(());
        }
        if !self.is_idle(id) {
            // Of a stream that has ended, or that nobody was to open any more.
            head::put(fields);
            if !self.watch.idle() {
                return Err(Reason::ENHANCE_YOUR_CALM);
            }
            let late = self.may_be_late(id);
            return late.then_some(()).ok_or(Reason::STREAM_CLOSED);
        }
        if self.terms.client || id.is_multiple_of(2) {
            return Err(Reason::PROTOCOL_ERROR);
        }
        self.watch.useful();
        self.on_opened(id, fields, last)
    }

    fn on_opened(&mut self, id: u32, fields: Box<head::Head>, last: bool) -> Result<(), Reason> {
        self.last = id;
        if !self.watch.request() {
            return Err(Reason::ENHANCE_YOUR_CALM);
        }
        if self.active() >= self.terms.streams {
            head::put(fields);
            self.gives_up(id, Reason::REFUSED_STREAM);
            return Ok(());
        }
        let key = self.add(id, last, false, true);
        if self.terms.peer == Peer::Program
            && let Some(entry) = self.entry(key)
        {
            entry.left = fields.value(b"content-length").and_then(length);
        }
        self.opened.push_back((key, fields, last));
        Ok(())
    }

    fn on_answer(&mut self, key: u32, fields: Box<head::Head>, last: bool) {
        let Some(entry) = self.entry(key) else { return };
        if entry.read {
            head::put(fields);
            return self.refuse(key, Reason::STREAM_CLOSED);
        }
        if entry.answered {
            return self.on_trailers(key, fields, last);
        }
        let interim = fields
            .value(b":status")
            .is_some_and(|status| status.starts_with(b"1"));
        // An interim head ends nothing; and nobody sends more of them than anybody reads.
        if interim && (last || entry.heads.len() >= 32) {
            head::put(fields);
            return self.refuse(key, Reason::PROTOCOL_ERROR);
        }
        entry.answered = !interim;
        entry.read = last;
        entry.heads.push(fields);
        if let Some(reader) = entry.reader.take() {
            reader.wake();
        }
        if last {
            self.settle(key);
        }
    }

    fn on_trailers(&mut self, key: u32, fields: Box<head::Head>, last: bool) {
        let Some(entry) = self.entry(key) else { return };
        let fault = match (entry.read, last) {
            (true, _) => Some(Reason::STREAM_CLOSED),
            // A second head that is no end.
            (false, false) => Some(Reason::PROTOCOL_ERROR),
            (false, true) if fields.is_too_large() => Some(Reason::ENHANCE_YOUR_CALM),
            (false, true) if fields.has_pseudo() => Some(Reason::PROTOCOL_ERROR),
            (false, true) if entry.left.is_some_and(|left| left > 0) => {
                Some(Reason::PROTOCOL_ERROR)
            }
            (false, true) => None,
        };
        if let Some(fault) = fault {
            head::put(fields);
            return self.refuse(key, fault);
        }
        entry.trailers = Some(fields);
        entry.read = true;
        if let Some(reader) = entry.reader.take() {
            reader.wake();
        }
        self.settle(key);
    }

    fn on_reset(&mut self, head: Head, payload: &[u8]) -> Result<(), Reason> {
        let reason = Reason(number(payload).ok_or(Reason::FRAME_SIZE_ERROR)?);
        if head.stream == 0 || self.is_idle(head.stream) {
            return Err(Reason::PROTOCOL_ERROR);
        }
        let (client, now) = (self.terms.client, self.now);
        let program = self.terms.peer == Peer::Program;
        let Some(key) = self.key_of(head.stream) else {
            return Ok(());
        };
        let Some(entry) = self.entry(key) else {
            return Ok(());
        };
        let unseen = !client && !entry.looked_at;
        let at_once = program && !entry.answered && now.duration_since(entry.begun) < AT_ONCE;
        // A whole answer stays one when the other end needs no more of the request.
        if reason == Reason::NO_ERROR && client && entry.read {
            entry.written = true;
        } else {
            entry.broken = Some(Broken::Reset(reason));
        }
        entry.wake();
        self.settle(key);
        if unseen || at_once {
            self.watch.taken_back();
        }
        self.stillborn += u32::from(unseen && program);
        let many = self.stillborn > STILLBORN;
        (!many).then_some(()).ok_or(Reason::ENHANCE_YOUR_CALM)
    }

    fn on_settings(&mut self, head: Head, payload: &[u8]) -> Result<(), Reason> {
        if head.stream != 0 {
            return Err(Reason::PROTOCOL_ERROR);
        }
        if head.has(frame::ACK) {
            let fault = !payload.is_empty();
            return if fault {
                Err(Reason::FRAME_SIZE_ERROR)
            } else {
                Ok(())
            };
        }
        let (settings, rest) = payload.as_chunks::<6>();
        if !rest.is_empty() {
            return Err(Reason::FRAME_SIZE_ERROR);
        }
        if settings.len() > SETTINGS {
            return Err(Reason::ENHANCE_YOUR_CALM);
        }
        for [name_high, name_low, a, b, c, d] in settings {
            let name = u16::from_be_bytes([*name_high, *name_low]);
            self.on_setting(name, u32::from_be_bytes([*a, *b, *c, *d]))?;
        }
        self.answer(frame::SETTINGS, frame::ACK, &[])?;
        self.has_settled();
        Ok(())
    }

    /// Answers a frame; one that asks for ever more and takes nothing is cut off.
    fn answer(&mut self, kind: u8, flags: u8, payload: &[u8]) -> Result<(), Reason> {
        if self.out.len() > ANSWERS {
            return Err(Reason::ENHANCE_YOUR_CALM);
        }
        self.put(kind, flags, 0, payload);
        Ok(())
    }

    fn on_setting(&mut self, name: u16, value: u32) -> Result<(), Reason> {
        let size = value as usize;
        match name {
            frame::HEADER_TABLE_SIZE => self.encoder.set_limit(size),
            frame::ENABLE_PUSH if value > 1 => return Err(Reason::PROTOCOL_ERROR),
            frame::MAX_CONCURRENT_STREAMS if self.terms.client => self.peer_streams = value,
            frame::INITIAL_WINDOW_SIZE if i64::from(value) > LARGEST => {
                return Err(Reason::FLOW_CONTROL_ERROR);
            }
            frame::INITIAL_WINDOW_SIZE => self.set_peer_window(value)?,
            frame::MAX_FRAME_SIZE if !(1 << 14..1 << 24).contains(&size) => {
                return Err(Reason::PROTOCOL_ERROR);
            }
            frame::MAX_FRAME_SIZE => self.peer_frame = size,
            _ => {}
        }
        Ok(())
    }

    fn on_ping(&mut self, head: Head, payload: &[u8]) -> Result<(), Reason> {
        if head.stream != 0 {
            return Err(Reason::PROTOCOL_ERROR);
        }
        let content: [u8; 8] = payload
            .try_into()
            .map_err(|_other| Reason::FRAME_SIZE_ERROR)?;
        if !head.has(frame::ACK) {
            self.answer(frame::PING, frame::ACK, &content)?;
        } else if self.question == Some(content) {
            self.answered();
            self.leave_for_good();
            self.stir();
        }
        Ok(())
    }

    fn on_goaway(&mut self, head: Head, payload: &[u8]) -> Result<(), Reason> {
        if head.stream != 0 {
            return Err(Reason::PROTOCOL_ERROR);
        }
        let last = number(payload.get(..4).unwrap_or_default());
        let reason = number(payload.get(4..8).unwrap_or_default());
        let (Some(last), Some(reason)) = (last, reason) else {
            return Err(Reason::FRAME_SIZE_ERROR);
        };
        if self.terms.client {
            self.unprocessed_above(last & 0x7fff_ffff);
        } else {
            self.refused = true;
        }
        if Reason(reason) != Reason::NO_ERROR {
            let why = format!("the other end left: {}", Reason(reason));
            self.end(&Arc::from(why));
        }
        self.stir();
        Ok(())
    }

    fn on_window(&mut self, head: Head, payload: &[u8]) -> Result<(), Reason> {
        let more = number(payload).ok_or(Reason::FRAME_SIZE_ERROR)? & 0x7fff_ffff;
        if head.stream == 0 {
            if more == 0 {
                return Err(Reason::PROTOCOL_ERROR);
            }
            return self.widen(more);
        }
        if self.is_idle(head.stream) {
            return Err(Reason::PROTOCOL_ERROR);
        }
        let Some(key) = self.key_of(head.stream) else {
            return Ok(());
        };
        if let Some(entry) = self.entry(key) {
            entry.room += i64::from(more);
            let fault = if more == 0 {
                Some(Reason::PROTOCOL_ERROR)
            } else {
                (entry.room > LARGEST).then_some(Reason::FLOW_CONTROL_ERROR)
            };
            if let Some(fault) = fault {
                self.refuse(key, fault);
            } else if let Some(writer) = entry.writer.take() {
                writer.wake();
            }
        }
        Ok(())
    }

    /// True for a stream that was never opened.
    fn is_idle(&self, id: u32) -> bool {
        if self.terms.client {
            id.is_multiple_of(2) || id >= self.next
        } else {
            // Streams that were opened too late are not looked at, nor is what belongs to them.
            id.is_multiple_of(2) || (id > self.last && self.leaving != Leaving::Final)
        }
    }

    /// A fault of the other end in one stream.
    pub(super) fn refuse(&mut self, key: u32, reason: Reason) {
        if self.terms.peer == Peer::Program {
            self.watch.fault();
        }
        self.reset(key, reason, Broken::Refused(reason));
    }
}

/// Takes `length` bytes off; large ones are not copied.
fn cut(peer: Peer, input: &mut BytesMut, length: usize) -> Bytes {
    let large = match peer {
        Peer::Daemon => LARGE,
        Peer::Program => LARGE.max(input.len() / 2),
    };
    if length >= large {
        return input.split_to(length).freeze();
    }
    let piece = Bytes::copy_from_slice(input.get(..length).unwrap_or_default());
    input.advance(length);
    piece
}

/// Queues a piece; crumbs are put together, so that they never cost much more than their bytes.
fn keep(inbox: &mut Queue<Bytes>, piece: Bytes) {
    let many = inbox.len() >= CRUMBS;
    match inbox.last_mut() {
        Some(last) if many && last.len() < CRUMB && piece.len() < CRUMB => {
            *last = Bytes::from([&last[..], &piece].concat());
        }
        Some(_) | None => inbox.push(piece),
    }
}

/// The length that a head announces; whoever reads the head refuses what is none.
fn length(text: &[u8]) -> Option<u64> {
    let digits = !text.is_empty() && text.iter().all(u8::is_ascii_digit);
    std::str::from_utf8(text)
        .ok()
        .filter(|_| digits)?
        .parse()
        .ok()
}

fn number(payload: &[u8]) -> Option<u32> {
    payload.try_into().ok().map(u32::from_be_bytes)
}
