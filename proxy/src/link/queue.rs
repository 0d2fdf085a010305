//! A queue that needs no memory of its own while it holds one thing: most streams have one head and one piece.

use std::collections::VecDeque;

/// First in, first out.
#[derive(Debug)]
pub(super) struct Queue<T> {
    first: Option<T>,
    rest: VecDeque<T>,
}

impl<T> Queue<T> {
    /// Empty.
    pub(super) const fn new() -> Self {
        Self {
            first: None,
            rest: VecDeque::new(),
        }
    }

    /// How many wait.
    pub(super) fn len(&self) -> usize {
        usize::from(self.first.is_some()) + self.rest.len()
    }

    /// True when none waits.
    pub(super) fn is_empty(&self) -> bool {
        self.first.is_none()
    }

    /// Adds one.
    pub(super) fn push(&mut self, one: T) {
        if self.first.is_none() {
            self.first = Some(one);
        } else {
            self.rest.push_back(one);
        }
    }

    /// Takes the oldest.
    pub(super) fn pop(&mut self) -> Option<T> {
        let one = self.first.take()?;
        self.first = self.rest.pop_front();
        Some(one)
    }

    /// The newest.
    pub(super) fn last_mut(&mut self) -> Option<&mut T> {
        self.rest.back_mut().or(self.first.as_mut())
    }

    /// Each, the oldest first.
    pub(super) fn iter(&self) -> impl Iterator<Item = &T> {
        self.first.iter().chain(&self.rest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_is_kept() {
        let mut queue = Queue::new();
        assert!(queue.is_empty() && queue.pop().is_none() && queue.last_mut().is_none());
        for number in 0..4 {
            queue.push(number);
            assert_eq!(queue.last_mut(), Some(&mut { number }));
        }
        assert_eq!(queue.iter().copied().collect::<Vec<_>>(), [0, 1, 2, 3]);
        assert_eq!((queue.pop(), queue.len()), (Some(0), 3));
        queue.push(4);
        let rest: Vec<_> = std::iter::from_fn(|| queue.pop()).collect();
        assert_eq!(rest, [1, 2, 3, 4]);
        assert!(queue.is_empty());
    }
}
