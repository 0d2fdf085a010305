//! What waits to be sent: small things side by side in one run of bytes, large pieces as they are.

use std::collections::VecDeque;

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

    /// Takes bytes off the front.
    pub(super) fn advance(&mut self, count: usize) {
        let Some(piece) = self.front.front_mut() else {
            self.tail.advance(count.min(self.tail.len()));
            if self.tail.is_empty() {
                self.tail.clear();
            }
            return;
        };
        let count = count.min(piece.len());
        piece.advance(count);
        self.length -= count;
        if piece.is_empty() {
            self.front.pop_front();
        }
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
}
