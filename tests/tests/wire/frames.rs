//! A raw client of HTTP/2: frames as they are written, header blocks of literals, and what comes back.

use std::{
    io::{ErrorKind, Read as _, Write as _},
    net::TcpStream,
    time::{Duration, Instant},
};

/// The client's preface (RFC 9113 section 3.4).
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PING: u8 = 6;
pub const GOAWAY: u8 = 7;
pub const WINDOW_UPDATE: u8 = 8;
pub const CONTINUATION: u8 = 9;
pub const END_STREAM: u8 = 1;
pub const ACK: u8 = 1;
pub const END_HEADERS: u8 = 4;

/// What one stream came to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stream {
    /// Interim statuses.
    pub interims: Vec<u16>,
    /// The status of the answer.
    pub status: Option<u16>,
    /// Its body.
    pub body: Vec<u8>,
    /// It ended.
    pub ended: bool,
    /// It was reset with this code.
    pub reset: Option<u32>,
}

/// A connection.
#[derive(Debug)]
pub struct Http2 {
    stream: TcpStream,
    buffer: Vec<u8>,
    streams: std::collections::BTreeMap<u32, Stream>,
    /// The code of the first GOAWAY with an error.
    pub goaway: Option<u32>,
    /// The connection is over.
    pub ended: bool,
    pongs: u32,
}

/// One frame.
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut out = u32::try_from(payload.len()).unwrap().to_be_bytes()[1..].to_vec();
    out.extend_from_slice(&[kind, flags]);
    out.extend_from_slice(&stream.to_be_bytes());
    out.extend_from_slice(payload);
    out
}

/// A header block of literals without indexing (RFC 7541 section 6.2.2), whatever the names and values are.
pub fn block(fields: &[(Vec<u8>, Vec<u8>)]) -> Vec<u8> {
    let mut out = Vec::new();
    for (name, value) in fields {
        out.push(0);
        for text in [name, value] {
            number(&mut out, text.len());
            out.extend_from_slice(text);
        }
    }
    out
}

/// An integer with a prefix of seven bits (RFC 7541 section 5.1).
fn number(out: &mut Vec<u8>, value: usize) {
    if value < 127 {
        return out.push(u8::try_from(value).unwrap());
    }
    out.push(127);
    let mut left = value - 127;
    while left >= 128 {
        out.push(u8::try_from(left % 128 + 128).unwrap());
        left /= 128;
    }
    out.push(u8::try_from(left).unwrap());
}

/// The fields of an ordinary request.
pub fn request(method: &str, path: &str) -> Vec<(Vec<u8>, Vec<u8>)> {
    [
        (":method", method),
        (":scheme", "http"),
        (":authority", "raw"),
        (":path", path),
    ]
    .into_iter()
    .map(|(name, value)| (name.as_bytes().to_vec(), value.as_bytes().to_vec()))
    .collect()
}

impl Http2 {
    /// Sends the preface and SETTINGS that forbid a dynamic table, so that answers need no memory to be read.
    pub fn new(stream: TcpStream) -> Self {
        stream
            .set_read_timeout(Some(Duration::from_millis(200)))
            .unwrap();
        let mut own = Self::bare(stream);
        let mut first = PREFACE.to_vec();
        first.extend(frame(SETTINGS, 0, 0, &[0, 1, 0, 0, 0, 0]));
        own.send(&first);
        own
    }

    /// Sends nothing.
    pub fn bare(stream: TcpStream) -> Self {
        Self {
            stream,
            buffer: Vec::new(),
            streams: std::collections::BTreeMap::new(),
            goaway: None,
            ended: false,
            pongs: 0,
        }
    }

    /// Sends; false when the other end is gone.
    pub fn send(&mut self, bytes: &[u8]) -> bool {
        self.stream.write_all(bytes).is_ok()
    }

    /// What a stream came to so far.
    pub fn of(&self, stream: u32) -> Stream {
        self.streams.get(&stream).cloned().unwrap_or_default()
    }

    /// Reads until `done` says so, the connection ends, or the time is over.
    pub fn read(&mut self, within: Duration, done: impl Fn(&Self) -> bool) -> bool {
        let end = Instant::now() + within;
        loop {
            if done(self) {
                return true;
            }
            if self.ended || Instant::now() > end {
                return false;
            }
            let mut piece = [0; 16 * 1024];
            match self.stream.read(&mut piece) {
                Ok(0) => self.ended = true,
                Ok(count) => {
                    self.buffer.extend_from_slice(&piece[..count]);
                    self.frames();
                }
                Err(error)
                    if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
                Err(_reset) => self.ended = true,
            }
        }
    }

    /// True when the connection answers a PING.
    pub fn is_alive(&mut self) -> bool {
        let before = self.pongs;
        self.send(&frame(PING, 0, 0, &[7; 8]));
        self.read(Duration::from_secs(10), |own| own.pongs > before)
    }

    /// True once a stream has come to an end of some sort.
    pub fn is_over(&self, stream: u32) -> bool {
        self.goaway.is_some()
            || self
                .streams
                .get(&stream)
                .is_some_and(|stream| stream.ended || stream.reset.is_some())
    }

    fn frames(&mut self) {
        while let Some(head) = self.buffer.get(..9) {
            let length =
                usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
            if self.buffer.len() < 9 + length {
                return;
            }
            let (kind, flags) = (head[3], head[4]);
            let stream = u32::from_be_bytes([head[5] & 0x7f, head[6], head[7], head[8]]);
            let payload = self.buffer[9..9 + length].to_vec();
            self.buffer.drain(..9 + length);
            self.frame(kind, flags, stream, &payload);
        }
    }

    fn frame(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        let word = |at: usize| {
            payload
                .get(at..at + 4)
                .map_or(0, |four| u32::from_be_bytes(four.try_into().unwrap()))
        };
        match kind {
            DATA => {
                let own = self.streams.entry(stream).or_default();
                own.body.extend_from_slice(payload);
                own.ended |= flags & END_STREAM != 0;
                // Credit for what came, on the stream and on the connection.
                if !payload.is_empty() {
                    let credit = u32::try_from(payload.len()).unwrap().to_be_bytes();
                    let mut both = frame(WINDOW_UPDATE, 0, 0, &credit);
                    both.extend(frame(WINDOW_UPDATE, 0, stream, &credit));
                    self.send(&both);
                }
            }
            HEADERS => {
                let own = self.streams.entry(stream).or_default();
                own.ended |= flags & END_STREAM != 0;
                match status(payload) {
                    Some(status @ 100..=199) => own.interims.push(status),
                    Some(status) if own.status.is_none() => own.status = Some(status),
                    _ => {}
                }
            }
            RST_STREAM => {
                let own = self.streams.entry(stream).or_default();
                own.reset.get_or_insert_with(|| word(0));
            }
            SETTINGS if flags & ACK == 0 => {
                self.send(&frame(SETTINGS, ACK, 0, &[]));
            }
            PING if flags & ACK != 0 => self.pongs += 1,
            PING => {
                self.send(&frame(PING, ACK, 0, payload));
            }
            GOAWAY => {
                let code = word(4);
                if code != 0 {
                    self.goaway.get_or_insert(code);
                }
            }
            _ => {}
        }
    }
}

/// `:status`, which comes first: indexed, or a literal whose value may be in Huffman code (RFC 7541).
fn status(block: &[u8]) -> Option<u16> {
    // Changes of the table's size may come before.
    let skipped = block
        .iter()
        .take_while(|byte| **byte & 0xe0 == 0x20)
        .count();
    let block = &block[skipped..];
    match block.first()? {
        0x88 => return Some(200),
        0x89 => return Some(204),
        0x8a => return Some(206),
        0x8b => return Some(304),
        0x8c => return Some(400),
        0x8d => return Some(404),
        0x8e => return Some(500),
        _ => {}
    }
    let index = match block[0] {
        byte if byte & 0xc0 == 0x40 => byte & 0x3f,
        byte if byte & 0xf0 <= 0x10 => byte & 0x0f,
        _ => return None,
    };
    if !(8..=14).contains(&index) {
        return None;
    }
    let length = usize::from(block.get(1)? & 0x7f);
    let text = block.get(2..2 + length)?;
    if block[1] & 0x80 == 0 {
        return std::str::from_utf8(text).ok()?.parse().ok();
    }
    let mut bits = text
        .iter()
        .flat_map(|byte| (0..8).rev().map(move |at| byte >> at & 1));
    let mut value = 0;
    for _ in 0..3 {
        let five = (0..5).try_fold(0, |sum, _| Some(sum << 1 | bits.next()?))?;
        let digit = if five <= 2 {
            five
        } else {
            (five << 1 | bits.next()?) - 0x19 + 3
        };
        value = value * 10 + u16::from(digit);
    }
    Some(value)
}

#[test]
fn statuses() {
    assert_eq!(status(&[0x88]), Some(200));
    assert_eq!(status(&[0x20, 0x8d]), Some(404));
    assert_eq!(status(&[0x08, 3, b'4', b'3', b'1']), Some(431));
    // 5 0 2 in Huffman code: 011011 00000 00010.
    assert_eq!(status(&[0x08, 0x82, 0b0110_1100, 0b0000_0010]), Some(502));
    // 4 3 1: 011010 011001 00001, padded.
    assert_eq!(
        status(&[0x48, 0x83, 0b0110_1001, 0b1001_0000, 0b1111_1111]),
        Some(431)
    );
}
