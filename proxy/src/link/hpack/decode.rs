//! From bytes to fields (RFC 7541 section 3).

use std::collections::VecDeque;

use super::{OVERHEAD, TABLE, fixed, huffman, number};
use crate::link::head::Head;

/// Room for a decoded text that is kept for the next one.
const TEXT: usize = 1 << 10;

/// A block that cannot be read: both ends no longer remember the same, the connection is lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::link) struct Malformed;

/// A field that was sent before.
#[derive(Debug)]
struct Entry {
    text: Box<[u8]>,
    name: usize,
}

/// What the other end's encoder made us remember.
#[derive(Debug)]
pub(in crate::link) struct Decoder {
    /// The newest in front.
    entries: VecDeque<Entry>,
    size: usize,
    limit: usize,
    /// For texts in Huffman's code.
    name: Vec<u8>,
    value: Vec<u8>,
}

/// A text in the block, or decoded into a place of its own.
enum Text<'b> {
    Raw(&'b [u8]),
    Decoded,
}

/// The name of a literal field.
enum Name<'b> {
    Known(usize),
    Text(Text<'b>),
}

impl Decoder {
    /// Remembers nothing.
    pub(in crate::link) fn new() -> Self {
        Self {
            entries: VecDeque::new(),
            size: 0,
            limit: TABLE,
            name: Vec::new(),
            value: Vec::new(),
        }
    }

    /// Reads a whole block and adds its fields to `head`.
    pub(in crate::link) fn read(&mut self, block: &[u8], head: &mut Head) -> Result<(), Malformed> {
        let mut rest = block;
        let mut begun = false;
        while let Some(first) = rest.first().copied() {
            if first & 0xe0 == 0x20 {
                let size = number::take(&mut rest, 5).ok_or(Malformed)?;
                // Only before the first field, and never above what we allow.
                if begun || size > TABLE {
                    return Err(Malformed);
                }
                self.limit = size;
                self.shrink(size);
                continue;
            }
            begun = true;
            if first & 0x80 != 0 {
                let index = number::take(&mut rest, 7).ok_or(Malformed)?;
                let (name, value) = self.field(index).ok_or(Malformed)?;
                head.push(name, value);
            } else if first & 0x40 != 0 {
                self.literal(&mut rest, 6, head, true)?;
            } else {
                self.literal(&mut rest, 4, head, false)?;
            }
        }
        for text in [&mut self.name, &mut self.value] {
            if text.capacity() > TEXT {
                *text = Vec::new();
            }
        }
        Ok(())
    }

    fn field(&self, index: usize) -> Option<(&[u8], &[u8])> {
        let Some(dynamic) = index.checked_sub(fixed::FIELDS.len() + 1) else {
            return fixed::field(index);
        };
        let entry = self.entries.get(dynamic)?;
        entry.text.split_at_checked(entry.name)
    }

    fn literal(
        &mut self,
        rest: &mut &[u8],
        bits: u8,
        head: &mut Head,
        kept: bool,
    ) -> Result<(), Malformed> {
        let index = number::take(rest, bits).ok_or(Malformed)?;
        let name = if index > 0 {
            Name::Known(index)
        } else {
            Name::Text(text(rest, &mut self.name).ok_or(Malformed)?)
        };
        let value = text(rest, &mut self.value).ok_or(Malformed)?;
        let value = match value {
            Text::Raw(value) => value,
            Text::Decoded => &self.value,
        };
        let name = match name {
            Name::Known(index) => self.field(index).ok_or(Malformed)?.0,
            Name::Text(Text::Raw(name)) => name,
            Name::Text(Text::Decoded) => &self.name,
        };
        head.push(name, value);
        if kept {
            let entry = Entry {
                text: [name, value].concat().into_boxed_slice(),
                name: name.len(),
            };
            self.keep(entry);
        }
        Ok(())
    }

    fn keep(&mut self, entry: Entry) {
        let size = entry.text.len() + OVERHEAD;
        self.shrink(self.limit.saturating_sub(size));
        // One that is larger than the whole table empties it and is not kept (RFC 7541 section 4.4).
        if size <= self.limit {
            self.size += size;
            self.entries.push_front(entry);
        }
    }

    fn shrink(&mut self, to: usize) {
        while self.size > to {
            let Some(old) = self.entries.pop_back() else {
                return;
            };
            self.size = self.size.saturating_sub(old.text.len() + OVERHEAD);
        }
    }
}

/// The text that begins `rest`; takes it off.
fn text<'b>(rest: &mut &'b [u8], decoded: &mut Vec<u8>) -> Option<Text<'b>> {
    let coded = rest.first()? & 0x80 != 0;
    let length = number::take(rest, 7)?;
    let (bytes, tail) = rest.split_at_checked(length)?;
    *rest = tail;
    if !coded {
        return Some(Text::Raw(bytes));
    }
    decoded.clear();
    huffman::read(bytes, decoded).then_some(Text::Decoded)
}
