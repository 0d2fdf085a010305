//! Reads chunked bodies (RFC 9112 section 7.1): sizes, data, extensions thrown away, trailers.
//!
//! Never: keeps data; it says how many of the bytes at hand are data and how many are framing.

use super::{
    HeadError, fields,
    scan::{Scan, Scanned, Section},
};
use crate::http::fields::Fields;

/// Longest size line without its extensions: 16 digits.
const DIGIT_LIMIT: usize = 16;
/// Most bytes of extensions in one body.
const EXTENSION_LIMIT: usize = 1024;

/// What the next bytes are.
#[derive(Debug)]
pub(crate) enum Step {
    /// This many bytes are framing: skip them and ask again.
    Skip(usize),
    /// This many bytes are data.
    Data(usize),
    /// More bytes are needed.
    Partial,
    /// The body has ended after this many bytes; with its trailers, if any.
    End(usize, Option<Box<Fields>>),
}

#[derive(Debug, Clone, Copy)]
enum State {
    Size,
    Data(u64),
    DataEnd,
    Trailers(Scan),
}

/// The state between two reads of the same body.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Decoder {
    state: State,
    extensions: usize,
}

impl Default for Decoder {
    fn default() -> Self {
        Self {
            state: State::Size,
            extensions: 0,
        }
    }
}

impl Decoder {
    /// Says what the bytes at hand are; data is taken as consumed.
    pub(crate) fn step(&mut self, bytes: &[u8]) -> Result<Step, HeadError> {
        match self.state {
            State::Size => self.size(bytes),
            State::Data(left) => Ok(Self::available(left, bytes.len())),
            State::DataEnd => match bytes {
                [b'\r', b'\n', ..] => {
                    self.state = State::Size;
                    Ok(Step::Skip(2))
                }
                [] | [b'\r'] => Ok(Step::Partial),
                _ => Err(HeadError::Chunk),
            },
            State::Trailers(_) => self.trailers(bytes),
        }
    }

    /// Takes `count` bytes of data as consumed.
    pub(crate) fn consumed(&mut self, count: usize) {
        if let State::Data(left) = &mut self.state {
            *left = left.saturating_sub(count as u64);
            if *left == 0 {
                self.state = State::DataEnd;
            }
        }
    }

    fn available(left: u64, length: usize) -> Step {
        if length == 0 {
            return Step::Partial;
        }
        Step::Data(usize::try_from(left).unwrap_or(usize::MAX).min(length))
    }

    fn size(&mut self, bytes: &[u8]) -> Result<Step, HeadError> {
        let digits = bytes
            .iter()
            .take_while(|byte| byte.is_ascii_hexdigit())
            .count();
        if digits > DIGIT_LIMIT {
            return Err(HeadError::Chunk);
        }
        match (digits, bytes.get(digits)) {
            (_, None) => return Ok(Step::Partial),
            (0, _) => return Err(HeadError::Chunk),
            (_, Some(b'\r' | b';')) => {}
            _ => return Err(HeadError::Chunk),
        }
        let rest = bytes.get(digits..).unwrap_or_default();
        let Some(end) = self.extension(rest)? else {
            return Ok(Step::Partial);
        };
        let text = bytes
            .get(..digits)
            .and_then(|text| std::str::from_utf8(text).ok());
        let size = text.and_then(|text| u64::from_str_radix(text, 16).ok());
        self.state = match size.ok_or(HeadError::Chunk)? {
            0 => State::Trailers(Scan::new(Section::Trailers)),
            size => State::Data(size),
        };
        self.extensions += end;
        Ok(Step::Skip(digits + end + 2))
    }

    /// The length of the extensions before CRLF; every byte before it must be one of a field value.
    fn extension(&self, rest: &[u8]) -> Result<Option<usize>, HeadError> {
        let end = rest
            .iter()
            .position(|byte| *byte == b'\r' || (*byte < 0x20 && *byte != b'\t') || *byte == 0x7f);
        let length = end.unwrap_or(rest.len());
        if self.extensions + length > EXTENSION_LIMIT {
            return Err(HeadError::Chunk);
        }
        let Some(end) = end else { return Ok(None) };
        match rest.get(end..) {
            Some([b'\r', b'\n', ..]) => Ok(Some(end)),
            Some([b'\r']) => Ok(None),
            _ => Err(HeadError::Chunk),
        }
    }

    fn trailers(&mut self, bytes: &[u8]) -> Result<Step, HeadError> {
        let State::Trailers(scan) = &mut self.state else {
            return Ok(Step::Partial);
        };
        match scan.advance(bytes)? {
            Scanned::Partial => Ok(Step::Partial),
            Scanned::Whole { end, .. } if end <= 2 => Ok(Step::End(end, None)),
            Scanned::Whole { end, .. } => {
                let trailers = fields::read_trailers(bytes.get(..end).unwrap_or_default())?;
                Ok(Step::End(
                    end,
                    (!trailers.is_empty()).then(|| Box::new(trailers)),
                ))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Feeds a body in pieces of `piece` bytes; the data, the trailers and what is left.
    pub(super) fn decode(
        body: &[u8],
        piece: usize,
    ) -> Result<(Vec<u8>, usize, Vec<u8>), HeadError> {
        let (mut decoder, mut buffer, mut data) = (Decoder::default(), Vec::new(), Vec::new());
        let mut rest = body;
        loop {
            match decoder.step(&buffer)? {
                Step::Skip(count) => {
                    buffer.drain(..count);
                }
                Step::Data(count) => {
                    data.extend(buffer.drain(..count));
                    decoder.consumed(count);
                }
                Step::End(count, trailers) => {
                    buffer.drain(..count);
                    buffer.extend_from_slice(rest);
                    return Ok((data, trailers.map_or(0, |trailers| trailers.len()), buffer));
                }
                Step::Partial if rest.is_empty() => return Err(HeadError::Truncated),
                Step::Partial => {
                    let (next, tail) = rest.split_at(piece.min(rest.len()));
                    buffer.extend_from_slice(next);
                    rest = tail;
                }
            }
        }
    }

    #[test]
    fn good_bodies() {
        for (body, data, trailers, rest) in [
            ("0\r\n\r\n", "", 0, ""),
            ("5\r\nhello\r\n0\r\n\r\nGET", "hello", 0, "GET"),
            ("5;a=b\r\nhello\r\n000;x\r\n\r\n", "hello", 0, ""),
            (
                "A\r\n0123456789\r\na\r\n0123456789\r\n0\r\n\r\n",
                "01234567890123456789",
                0,
                "",
            ),
            ("0\r\nx-sum: 1\r\ny: 2\r\n\r\n", "", 2, ""),
            ("0\r\nmesh-peer: me\r\n\r\n", "", 0, ""),
            ("0000000000000001\r\nx\r\n0\r\n\r\n", "x", 0, ""),
        ] {
            for piece in [1, 2, 3, 7, 1000] {
                let (found, count, left) = decode(body.as_bytes(), piece).unwrap();
                assert_eq!(found, data.as_bytes(), "{body:?}");
                assert_eq!(
                    (count, &*left),
                    (trailers, rest.as_bytes()),
                    "{body:?} by {piece}"
                );
            }
        }
    }

    #[test]
    fn bad_bodies() {
        let long = format!("1;{}\r\nx\r\n0\r\n\r\n", "e".repeat(1100));
        let sum = "1;".to_owned() + &"e".repeat(600) + "\r\nx\r\n";
        let sum = sum.repeat(2) + "0\r\n\r\n";
        let many = "0\r\n".to_owned() + &"a: b\r\n".repeat(101) + "\r\n";
        let large = format!("0\r\na: {}\r\n\r\n", "b".repeat(9000));
        for body in [
            "\r\n",
            "g\r\n",
            "-1\r\nx\r\n",
            "+1\r\nx\r\n",
            "0x1\r\nx\r\n",
            " 1\r\nx\r\n",
            "1 \r\nx\r\n",
            "1 ;a\r\nx\r\n",
            "1\nx\r\n0\r\n\r\n",
            "1\rx\r\n",
            "1\r\nx\n0\r\n\r\n",
            "1\r\nxy\r\n0\r\n\r\n",
            "1;a\nb\r\nx\r\n0\r\n\r\n",
            "1;a\0b\r\nx\r\n0\r\n\r\n",
            "1;a\rb\r\nx\r\n0\r\n\r\n",
            "00000000000000001\r\nx\r\n",
            "FFFFFFFFFFFFFFFFF\r\nx",
            "0\r\n\n",
            "0\r\na: b\n\r\n",
            "0\r\na : b\r\n\r\n",
            "0\r\n a: b\r\n\r\n",
            "0\r\ncontent-length: 1\r\n\r\n",
            "0\r\ntransfer-encoding: chunked\r\n\r\n",
            "0\r\nhost: x\r\n\r\n",
            "0\r\nconnection: x\r\n\r\n",
            "0\r\nauthorization: x\r\n\r\n",
            "0\r\na: b\0\r\n\r\n",
            "0\r\n: b\r\n\r\n",
            "0\r\nab\r\n\r\n",
            &long,
            &sum,
            &many,
            &large,
        ] {
            for piece in [1, 3, 100_000] {
                let shown: String = body.chars().take(40).collect();
                let fault = decode(body.as_bytes(), piece).expect_err(&shown);
                assert_ne!(fault, HeadError::Truncated, "{shown:?} by {piece}");
            }
        }
        for cut in [
            "",
            "5",
            "5\r",
            "5\r\nhel",
            "5\r\nhello",
            "5\r\nhello\r\n0\r\n",
            "0\r\na: b\r\n",
        ] {
            assert_eq!(
                decode(cut.as_bytes(), 1).unwrap_err(),
                HeadError::Truncated,
                "{cut:?}"
            );
        }
    }
}
