//! A raw client of HTTP/1 that reads answers with the strict reader.

use std::{
    io::{ErrorKind, Read as _, Write as _},
    net::{Shutdown, TcpStream},
};

use super::strict::{self, Message, Read};

/// What came back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// A whole answer that reads strictly.
    Whole(Box<Message>),
    /// The connection ended before the first byte of one.
    End,
    /// It was reset, or ended within an answer.
    Cut(Vec<u8>),
    /// Bytes that do not read.
    Malformed(String, Vec<u8>),
    /// Nothing came within the time.
    Nothing,
}

/// A connection.
#[derive(Debug)]
pub struct Client {
    stream: TcpStream,
    buffer: Vec<u8>,
    ended: bool,
    reset: bool,
}

impl Client {
    /// Of a stream.
    pub fn new(stream: TcpStream) -> Self {
        Self {
            stream,
            buffer: Vec::new(),
            ended: false,
            reset: false,
        }
    }

    /// Sends; `apart`: byte by byte. The other end may have gone: what it answered counts.
    pub fn send(&mut self, bytes: &[u8], apart: bool) -> bool {
        let piece = if apart { 1 } else { bytes.len().max(1) };
        bytes
            .chunks(piece)
            .all(|piece| self.stream.write_all(piece).is_ok())
    }

    /// Ends the own direction.
    pub fn end(&self) {
        let _gone = self.stream.shutdown(Shutdown::Write);
    }

    /// The next answer, interim ones included.
    pub fn answer(&mut self, head: bool, http10: bool) -> Answer {
        loop {
            match strict::response(&self.buffer, head, http10, self.ended && !self.reset) {
                Ok(Read::Whole(message, used)) => {
                    self.buffer.drain(..used);
                    return Answer::Whole(message);
                }
                Ok(Read::Partial) if self.ended => {
                    if self.buffer.is_empty() && !self.reset {
                        return Answer::End;
                    }
                    return Answer::Cut(std::mem::take(&mut self.buffer));
                }
                Ok(Read::Partial) => {}
                Err(why) => return Answer::Malformed(why, std::mem::take(&mut self.buffer)),
            }
            if !self.fill() {
                return Answer::Nothing;
            }
        }
    }

    /// Reads more; false when nothing came within the time.
    pub fn fill(&mut self) -> bool {
        let mut piece = [0; 16 * 1024];
        match self.stream.read(&mut piece) {
            Ok(0) => self.ended = true,
            Ok(count) => self.buffer.extend_from_slice(&piece[..count]),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                return false;
            }
            Err(_reset) => {
                self.ended = true;
                self.reset = true;
            }
        }
        true
    }
}
