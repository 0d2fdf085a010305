//! What waits to be sent: small things side by side in one run of bytes, large pieces as they are.

use std::{collections::VecDeque, io::IoSlice};

use bytes::{Buf as _, Bytes, BytesMut};

/// Bytes from which a piece is not copied.
const LARGE: usize = 8 << 10;
/// Memory that is kept while nothing waits.
const KEPT: usize = 1 << 10;

/// Bytes in the order of sending.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    /// What was there before `tail`.
    front: VecDeque<Bytes>,
    tail: BytesMut,
    length: usize,
}

impl Outbox {
    /// Bytes that wait.
    pub(super) fn len(&self) -> usize {
        self.length + self.tail.len()
    }

    /// True when nothing waits.
    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Where small things are written.
    pub(super) fn tail(&mut self) -> &mut BytesMut {
        &mut self.tail
    }

    /// Adds a piece; a large one without copying it.
    pub(super) fn push(&mut self, piece: Bytes) {
        if piece.len() < LARGE {
            self.tail.extend_from_slice(&piece);
            return;
        }
        self.cut();
        self.length += piece.len();
        self.front.push_back(piece);
    }

    /// What is to be sent first.
    pub(super) fn front(&self) -> &[u8] {
        self.front.front().map_or(&self.tail, |piece| piece)
    }

    /// What is to be sent first, in several pieces; how many.
    pub(super) fn fronts<'o>(&'o self, pieces: &mut [IoSlice<'o>]) -> usize {
        let tail = (!self.tail.is_empty()).then_some(&self.tail[..]);
        let all = self.front.iter().map(|piece| &piece[..]).chain(tail);
        let mut count = 0;
        for (place, piece) in pieces.iter_mut().zip(all) {
            *place = IoSlice::new(piece);
            count += 1;
        }
        count
    }

    /// True when all that waits is one run of bytes.
    pub(super) fn is_one(&self) -> bool {
        self.front.is_empty() || (self.front.len() == 1 && self.tail.is_empty())
    }

    /// Takes bytes off the front.
    pub(super) fn advance(&mut self, mut count: usize) {
        while count > 0 && !self.is_empty() {
            count -= self.advance_one(count);
        }
    }

    fn advance_one(&mut self, count: usize) -> usize {
        let Some(piece) = self.front.front_mut() else {
            let count = count.min(self.tail.len());
            self.tail.advance(count);
            if self.tail.is_empty() {
                self.tail.clear();
            }
            return count;
        };
        let count = count.min(piece.len());
        piece.advance(count);
        self.length -= count;
        if piece.is_empty() {
            self.front.pop_front();
        }
        count
    }

    /// Gives back memory that an idle link needs not.
    pub(super) fn shrink(&mut self) {
        if self.is_empty() {
            self.front = VecDeque::new();
            if self.tail.capacity() > KEPT {
                self.tail = BytesMut::new();
            }
        }
    }

    fn cut(&mut self) {
        if !self.tail.is_empty() {
            let small = self.tail.split().freeze();
            self.length += small.len();
            self.front.push_back(small);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_is_kept() {
        let mut outbox = Outbox::default();
        let large = Bytes::from(vec![b'x'; LARGE]);
        outbox.tail().extend_from_slice(b"one");
        outbox.push(Bytes::from_static(b"two"));
        outbox.push(large.clone());
        outbox.tail().extend_from_slice(b"three");
        outbox.push(large.clone());
        let wanted = [&b"onetwo"[..], &large, b"three", &large].concat();
        assert_eq!(outbox.len(), wanted.len());
        let mut found = Vec::new();
        while !outbox.is_empty() {
            let piece = outbox.front();
            let piece = &piece[..piece.len().min(1000)];
            found.extend_from_slice(piece);
            let count = piece.len();
            outbox.advance(count);
        }
        assert!(found == wanted && outbox.front().is_empty());
        outbox.shrink();
    }

    #[test]
    fn several_pieces_at_once() {
        let mut outbox = Outbox::default();
        outbox.tail().extend_from_slice(b"one");
        assert!(outbox.is_one());
        outbox.push(Bytes::from(vec![b'x'; LARGE]));
        outbox.tail().extend_from_slice(b"two");
        assert!(!outbox.is_one());
        let mut pieces = [IoSlice::new(&[]); 4];
        let count = outbox.fronts(&mut pieces);
        let lengths: Vec<usize> = pieces.iter().map(|piece| piece.len()).collect();
        assert_eq!((count, lengths), (3, vec![3, LARGE, 3, 0]));
        outbox.advance(3 + LARGE + 1);
        assert_eq!((outbox.front(), outbox.len()), (&b"wo"[..], 2));
        outbox.advance(2);
        assert!(outbox.is_empty() && outbox.is_one());
    }
}
