//! Which counters of a sender were seen: the highest and the 63 below it.

/// A replay window (RFC 4303 section 3.4.3 describes the method).
#[derive(Debug, Default)]
pub(super) struct Window {
    highest: u64,
    /// Bit n: `highest - n` was seen.
    seen: u64,
}

impl Window {
    /// True when `counter` was not seen and is not too old to know.
    pub(super) fn is_new(&self, counter: u64) -> bool {
        match self.highest.checked_sub(counter) {
            None => true,
            Some(age) => age < 64 && self.seen & (1 << age) == 0,
        }
    }
    /// Takes note of a counter that opened.
    pub(super) fn note(&mut self, counter: u64) {
        match counter.checked_sub(self.highest) {
            Some(0) | None => {
                let age = self.highest - counter;
                if age < 64 {
                    self.seen |= 1 << age;
                }
            }
            Some(step) => {
                self.seen = if step < 64 { self.seen << step | 1 } else { 1 };
                self.highest = counter;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::Window;

    proptest! {
        #[test]
        fn nothing_twice_and_everything_recent_once(steps in prop::collection::vec(0_u64..200, 1..300)) {
            let (mut window, mut seen, mut highest) = (Window::default(), HashSet::new(), 0_u64);
            for step in steps {
                let counter = (highest + 100).saturating_sub(step).max(1);
                let expected = !seen.contains(&counter) && (highest < counter || highest - counter < 64);
                prop_assert_eq!(window.is_new(counter), expected, "{} after {}", counter, highest);
                if expected {
                    window.note(counter);
                    seen.insert(counter);
                    highest = highest.max(counter);
                }
            }
        }
    }
}
