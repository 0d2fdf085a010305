//! Finds the end of a head as its bytes arrive, and stops at the first line that breaks the rules.
//!
//! The verdict does not depend on how the bytes were cut into reads.

use super::HeadError;
use crate::http::octet::{self, WORD};

/// Longest request or status line, in bytes.
pub(crate) const LINE_LIMIT: usize = 16 * 1024;
/// Longest head, in bytes.
pub(crate) const HEAD_LIMIT: usize = 64 * 1024;
/// Most fields in a head.
pub(crate) const FIELD_LIMIT: usize = 100;
/// Longest trailer section, in bytes.
pub(crate) const TRAILER_LIMIT: usize = 8 * 1024;
/// Empty lines that may stand before a request line (RFC 9112 section 2.2).
const BLANK_LIMIT: usize = 2;

/// How far the scan is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scanned {
    /// More bytes are needed.
    Partial,
    /// The head stands in `start..end`, its last empty line included.
    Whole {
        /// After empty lines that are skipped.
        start: usize,
        /// One past the last byte.
        end: usize,
    },
}

/// What is being scanned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Section {
    /// A request's head: empty lines before it are skipped.
    Request,
    /// An answer's head.
    Response,
    /// Trailers: no first line of its own.
    Trailers,
}

/// The state between two reads of the same head.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Scan {
    section: Section,
    start: usize,
    line: usize,
    lines: usize,
    searched: usize,
}

impl Scan {
    /// Begins at the first byte of the buffer.
    pub(crate) fn new(section: Section) -> Self {
        Self {
            section,
            start: 0,
            line: 0,
            lines: 0,
            searched: 0,
        }
    }

    /// True before the first byte of a line was seen: the connection is idle.
    pub(crate) fn is_fresh(&self, bytes: &[u8]) -> bool {
        self.lines == 0 && bytes.len() <= self.start
    }

    /// Looks at all bytes that have come so far, the ones seen before included.
    pub(crate) fn advance(&mut self, bytes: &[u8]) -> Result<Scanned, HeadError> {
        if let Some(end) = self.at_once(bytes) {
            self.searched = end;
            return Ok(Scanned::Whole { start: 0, end });
        }
        while let Some(found) =
            memchr::memchr(b'\n', bytes.get(self.searched..).unwrap_or_default())
        {
            let feed = self.searched + found;
            self.searched = feed + 1;
            let ends_well = feed > self.line && bytes.get(feed - 1) == Some(&b'\r');
            self.check(feed + 1)?;
            if !ends_well {
                return Err(HeadError::LineEnd);
            }
            let empty = feed - 1 == self.line;
            if empty && self.lines == 0 && self.section == Section::Request {
                self.skip(feed + 1)?;
                continue;
            }
            if empty {
                return Ok(Scanned::Whole {
                    start: self.start,
                    end: feed + 1,
                });
            }
            self.lines += 1;
            self.line = feed + 1;
            if self.lines > FIELD_LIMIT + usize::from(self.section != Section::Trailers) {
                return Err(HeadError::TooManyFields);
            }
        }
        self.searched = bytes.len();
        // A line feed can come no earlier than behind the bytes that are here.
        if bytes.len() > self.line {
            self.check(bytes.len() + 1)?;
        }
        Ok(Scanned::Partial)
    }

    /// The end of a head that came in one piece, as most do, and has nothing special about it: found in steps of
    /// many bytes. `None`: look line by line.
    fn at_once(&self, bytes: &[u8]) -> Option<usize> {
        let plain = self.searched == 0
            && self.section != Section::Trailers
            && !matches!(bytes, [] | [b'\r' | b'\n', ..]);
        if !plain {
            return None;
        }
        let (before, rest) = bytes
            .get(odd_feed(bytes)?.checked_sub(1)?..)?
            .split_at_checked(4)?;
        let end = bytes.len() - rest.len();
        // A line has a byte and its end at least; the empty one is none.
        let few = end <= 3 * FIELD_LIMIT || {
            let feeds = memchr::memchr_iter(b'\n', bytes.get(..end)?).count();
            feeds <= FIELD_LIMIT + 2
        };
        (before == b"\r\n\r\n" && end <= LINE_LIMIT && few).then_some(end)
    }

    fn skip(&mut self, next: usize) -> Result<(), HeadError> {
        if next > BLANK_LIMIT * 2 {
            return Err(HeadError::StartLine);
        }
        self.start = next;
        self.line = next;
        Ok(())
    }

    /// Whether a line that ends before `end` keeps within the bounds.
    fn check(&self, end: usize) -> Result<(), HeadError> {
        let (line, all) = (end - self.line, end - self.start);
        let trailers = self.section == Section::Trailers;
        if !trailers && self.lines == 0 && line > LINE_LIMIT {
            return Err(HeadError::LineTooLong);
        }
        if all > if trailers { TRAILER_LIMIT } else { HEAD_LIMIT } {
            return Err(HeadError::HeadTooLarge);
        }
        Ok(())
    }
}

/// Where the first line feed is that has no carriage return before it or has one behind it.
fn odd_feed(bytes: &[u8]) -> Option<usize> {
    let is_odd = |at: usize| {
        let before = at.checked_sub(1).and_then(|at| bytes.get(at));
        before != Some(&b'\r') || bytes.get(at + 1) == Some(&b'\r')
    };
    let (words, rest) = bytes.as_chunks::<WORD>();
    for (number, word) in words.iter().enumerate() {
        let mut feeds = octet::equal(u64::from_le_bytes(*word), b'\n');
        while feeds != 0 {
            let at = number * WORD + (feeds.trailing_zeros() / u8::BITS) as usize;
            if is_odd(at) {
                return Some(at);
            }
            feeds &= feeds - 1;
        }
    }
    let first = bytes.len() - rest.len();
    let mut left = (first..).zip(rest);
    left.find_map(|(at, byte)| (*byte == b'\n' && is_odd(at)).then_some(at))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn scan(bytes: &[u8]) -> Result<Scanned, HeadError> {
        Scan::new(Section::Request).advance(bytes)
    }

    #[test]
    fn ends() {
        assert_eq!(
            scan(b"GET / HTTP/1.1\r\n\r\nx"),
            Ok(Scanned::Whole { start: 0, end: 18 })
        );
        assert_eq!(
            scan(b"\r\n\r\nG\r\n\r\n"),
            Ok(Scanned::Whole { start: 4, end: 9 })
        );
        assert_eq!(scan(b"\r\n\r\n\r\nG\r\n\r\n"), Err(HeadError::StartLine));
        assert_eq!(scan(b"GET / HTTP/1.1\r\nA: b\r\n"), Ok(Scanned::Partial));
        assert_eq!(scan(b"GET / HTTP/1.1\n"), Err(HeadError::LineEnd));
        assert_eq!(scan(b"\n"), Err(HeadError::LineEnd));
        assert_eq!(scan(b"GET\r\nA: b\n"), Err(HeadError::LineEnd));
    }

    #[test]
    fn bounds() {
        let long = vec![b'a'; LINE_LIMIT];
        assert_eq!(scan(&long), Err(HeadError::LineTooLong));
        assert_eq!(scan(long.get(1..).unwrap()), Ok(Scanned::Partial));
        let mut head = b"GET / HTTP/1.1\r\n".to_vec();
        head.extend(std::iter::repeat_n(b'a', HEAD_LIMIT));
        assert_eq!(scan(&head), Err(HeadError::HeadTooLarge));
        let mut many = b"GET / HTTP/1.1\r\n".to_vec();
        for _ in 0..=FIELD_LIMIT {
            many.extend_from_slice(b"a: b\r\n");
        }
        assert_eq!(scan(&many), Err(HeadError::TooManyFields));
    }

    /// Line by line only, by never having the whole at hand.
    fn slowly(bytes: &[u8], section: Section) -> Result<Scanned, HeadError> {
        let mut scan = Scan::new(section);
        let (first, _) = bytes.split_at_checked(1).unwrap_or_default();
        match scan.advance(first) {
            Ok(Scanned::Partial) => scan.advance(bytes),
            other => other,
        }
    }

    proptest! {
        /// What is found in steps is what is found line by line.
        #[test]
        fn whole_heads_and_lines_agree(
            bytes in proptest::collection::vec(prop_oneof![
                4 => Just(b"\r\n".to_vec()),
                1 => Just(b"\r\n\r\n".to_vec()),
                1 => Just(b"\n".to_vec()),
                1 => Just(b"\r".to_vec()),
                6 => proptest::collection::vec(b'a'..=b'z', 1..40),
            ], 0..16),
            response in any::<bool>(),
        ) {
            let bytes = bytes.concat();
            let section = if response { Section::Response } else { Section::Request };
            prop_assert_eq!(Scan::new(section).advance(&bytes), slowly(&bytes, section));
        }
    }

    #[test]
    fn many_fields_at_once() {
        for (count, fits) in [(FIELD_LIMIT, true), (FIELD_LIMIT + 1, false)] {
            let head = [b"GET / HTTP/1.1\r\n", &*b"a: b\r\n".repeat(count), b"\r\n"].concat();
            assert_eq!(scan(&head).is_ok(), fits);
            assert_eq!(scan(&head), slowly(&head, Section::Request));
        }
    }
}
