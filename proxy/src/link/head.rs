//! A list of fields as it came over a link: one run of text, lent by the thread.

use std::cell::RefCell;

/// What a list may count: the text of names and values, and 32 bytes for each field (RFC 9113 section 6.5.2).
pub(crate) const LIMIT: usize = 64 << 10;
const OVERHEAD: usize = 32;
/// Lists kept for the next users, and the text that one of them may hold.
const KEPT: usize = 256;
const TEXT: usize = 8 << 10;
const FIELDS: usize = 256;

/// Fields in order; those of HTTP/2's own begin with a colon.
#[derive(Debug, Default)]
pub(crate) struct Head {
    text: Vec<u8>,
    list: Vec<Places>,
    counted: usize,
}

/// Where a name begins, where it ends and its value begins, and where that ends.
#[derive(Debug, Clone, Copy)]
struct Places(u32, u32, u32);

thread_local! {
    #[expect(clippy::vec_box, reason = "heads move in and out whole, without being copied")]
    static POOL: RefCell<Vec<Box<Head>>> = const { RefCell::new(Vec::new()) };
}

/// An empty one.
#[expect(
    clippy::unnecessary_box_returns,
    reason = "they go from hand to hand and into the pool as they are"
)]
pub(crate) fn take() -> Box<Head> {
    POOL.with_borrow_mut(Vec::pop).unwrap_or_default()
}

/// Gives one back.
pub(crate) fn put(mut head: Box<Head>) {
    if head.text.capacity() > TEXT || head.list.capacity() > FIELDS {
        return;
    }
    head.clear();
    POOL.with_borrow_mut(|pool| {
        if pool.len() < KEPT {
            pool.push(head);
        }
    });
}

impl Head {
    /// Forgets everything and keeps the memory.
    pub(crate) fn clear(&mut self) {
        self.text.clear();
        self.list.clear();
        self.counted = 0;
    }

    /// Adds a field; one beyond the limit is only counted.
    pub(crate) fn push(&mut self, name: &[u8], value: &[u8]) {
        self.counted = self
            .counted
            .saturating_add(name.len() + value.len() + OVERHEAD);
        if self.is_too_large() {
            return;
        }
        let place = |at: usize| u32::try_from(at).unwrap_or(u32::MAX);
        let begin = place(self.text.len());
        self.text.extend_from_slice(name);
        let middle = place(self.text.len());
        self.text.extend_from_slice(value);
        self.list
            .push(Places(begin, middle, place(self.text.len())));
    }

    /// True when the fields are more than [`LIMIT`]: then some are missing.
    pub(crate) fn is_too_large(&self) -> bool {
        self.counted > LIMIT
    }

    /// Name and value of each field.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.list.iter().map(|&Places(begin, middle, end)| {
            let at = |from: u32, to: u32| self.text.get(from as usize..to as usize);
            (
                at(begin, middle).unwrap_or_default(),
                at(middle, end).unwrap_or_default(),
            )
        })
    }

    /// True when a name begins as one of HTTP/2's own.
    pub(crate) fn has_pseudo(&self) -> bool {
        self.iter().any(|(name, _)| name.starts_with(b":"))
    }

    /// The value of the first field with this name, in lower case.
    pub(crate) fn value(&self, name: &[u8]) -> Option<&[u8]> {
        self.iter()
            .find(|(found, _)| *found == name)
            .map(|(_, value)| value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists() {
        let mut head = take();
        head.push(b":status", b"200");
        head.push(b"x", b"");
        assert_eq!(
            head.iter().collect::<Vec<_>>(),
            [(&b":status"[..], &b"200"[..]), (b"x", b"")]
        );
        assert_eq!((head.value(b"x"), head.value(b"y")), (Some(&b""[..]), None));
        put(head);
        assert_eq!(take().iter().count(), 0);
    }

    #[test]
    fn more_than_the_limit_is_not_kept() {
        let mut head = Head::default();
        let value = vec![b'a'; 1000];
        for _ in 0..70 {
            head.push(b"x", &value);
        }
        assert!(head.is_too_large());
        assert!(head.text.len() <= LIMIT);
        head.clear();
        assert!(!head.is_too_large());
    }
}
