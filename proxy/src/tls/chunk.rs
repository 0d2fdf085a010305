//! Bytes on their way through a stream of TLS: in a block of the thread while there are many, in just enough memory
//! while few wait, in none while none do.

use std::ops::Range;

use crate::buffers::{BLOCK, Block};

/// Most bytes that are moved out of a block so that others may have it.
const FEW: usize = 20 << 10;

#[derive(Debug)]
enum Place {
    None,
    Block(Block),
    Few(Box<[u8]>),
}

/// Bytes, the oldest first.
#[derive(Debug)]
pub(super) struct Chunk {
    place: Place,
    start: usize,
    end: usize,
}

impl Chunk {
    /// None.
    pub(super) const fn new() -> Self {
        Self {
            place: Place::None,
            start: 0,
            end: 0,
        }
    }

    /// These.
    pub(super) fn of(bytes: Vec<u8>) -> Self {
        let end = bytes.len();
        Self {
            place: Place::Few(bytes.into_boxed_slice()),
            start: 0,
            end,
        }
    }

    /// How many.
    pub(super) fn len(&self) -> usize {
        self.end - self.start
    }

    /// True when there are none.
    pub(super) fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// All of them.
    pub(super) fn filled(&self) -> &[u8] {
        self.memory().get(self.start..self.end).unwrap_or_default()
    }

    /// All of them, to be changed.
    pub(super) fn filled_mut(&mut self) -> &mut [u8] {
        let (start, end) = (self.start, self.end);
        self.memory_mut().get_mut(start..end).unwrap_or_default()
    }

    /// Where the oldest stands in memory.
    pub(super) fn position(&self) -> usize {
        self.start
    }

    /// What stands in memory there; what was taken stays until the bytes are moved.
    pub(super) fn at(&self, place: Range<usize>) -> &[u8] {
        self.memory().get(place).unwrap_or_default()
    }

    /// Takes the oldest.
    pub(super) fn take(&mut self, count: usize) {
        self.start = (self.start + count).min(self.end);
    }

    /// Room behind the newest. [`Chunk::spread`] makes more.
    pub(super) fn room(&mut self) -> &mut [u8] {
        let end = self.end;
        match &mut self.place {
            Place::Block(block) => block.get_mut(end..).unwrap_or_default(),
            Place::None | Place::Few(_) => &mut [],
        }
    }

    /// So many bytes were written to the room.
    pub(super) fn add(&mut self, count: usize) {
        let most = self.memory().len();
        self.end = (self.end + count).min(most);
    }

    /// Gets a whole block, with what there is at its beginning.
    pub(super) fn spread(&mut self) {
        let (start, end) = (self.start, self.end);
        if let Place::Block(block) = &mut self.place {
            if start > 0 {
                block.copy_within(start..end, 0);
            }
        } else {
            let mut block = Block::take();
            let filled = self.filled();
            if let Some(place) = block.get_mut(..filled.len().min(BLOCK)) {
                place.copy_from_slice(filled);
            }
            self.place = Place::Block(block);
        }
        (self.start, self.end) = (0, end - start);
    }

    /// Gives back the block when few bytes or none are in it.
    pub(super) fn rest(&mut self) {
        if self.is_empty() {
            *self = Self::new();
        } else if self.len() <= FEW && matches!(self.place, Place::Block(_)) {
            *self = Self::of(self.filled().to_vec());
        }
    }

    /// Bytes of memory that are held.
    #[cfg(test)]
    pub(super) fn held(&self) -> usize {
        self.memory().len()
    }

    fn memory(&self) -> &[u8] {
        match &self.place {
            Place::None => &[],
            Place::Block(block) => block,
            Place::Few(few) => few,
        }
    }

    fn memory_mut(&mut self) -> &mut [u8] {
        match &mut self.place {
            Place::None => &mut [],
            Place::Block(block) => block,
            Place::Few(few) => few,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_follows_what_is_on_its_way() {
        let mut chunk = Chunk::new();
        assert_eq!((chunk.held(), chunk.room().len()), (0, 0));
        chunk.spread();
        assert_eq!(chunk.room().len(), BLOCK);
        chunk.room()[..5].copy_from_slice(b"bytes");
        chunk.add(5);
        chunk.take(2);
        assert_eq!((chunk.position(), chunk.filled()), (2, &b"tes"[..]));
        assert_eq!(chunk.at(0..2), b"by");
        chunk.rest();
        assert_eq!((chunk.filled(), chunk.held()), (&b"tes"[..], 3));
        chunk.spread();
        assert_eq!(chunk.filled(), b"tes");
        assert_eq!(chunk.room().len(), BLOCK - 3);
        chunk.take(1);
        chunk.spread();
        assert_eq!(chunk.filled(), b"es");
        chunk.filled_mut()[0] = b'E';
        assert_eq!(chunk.filled(), b"Es");
        chunk.take(99);
        assert!(chunk.is_empty());
        chunk.rest();
        assert_eq!(chunk.held(), 0);
    }

    #[test]
    fn many_bytes_stay_where_they_are() {
        let mut chunk = Chunk::new();
        chunk.spread();
        chunk.add(FEW + 1);
        chunk.rest();
        assert_eq!((chunk.len(), chunk.held()), (FEW + 1, BLOCK));
        chunk.add(2 * BLOCK);
        assert_eq!(chunk.len(), BLOCK);
    }
}
