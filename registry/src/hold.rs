//! Which removals wait before they count: a registry that loses its memory must not empty a mesh.
//!
//! In: what one update would remove, the time. Out: at once, or held. A removal is held when it takes a
//! whole service, more than half of one that had four endpoints or more, or, with what went in the last
//! 30 seconds, more than a fifth of the source. Single removals pass at once.

use std::collections::VecDeque;

/// Within this time removals of a source are added up.
const WINDOW_MS: u64 = 30_000;
/// A source smaller than this is not judged as a whole.
const SMALL_SOURCE: usize = 10;
/// Fewer removals than this are never a mass.
const FEW: usize = 3;

/// What one update would remove from a service.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Removal {
    /// Endpoints before.
    pub(crate) before: usize,
    /// Endpoints that would go.
    pub(crate) removed: usize,
    /// Endpoints after.
    pub(crate) after: usize,
    /// Endpoints of the whole source before.
    pub(crate) source: usize,
}

/// The recent removals of one source.
#[derive(Debug, Default)]
pub(crate) struct RecentRemovals(VecDeque<(u64, usize)>);

impl RecentRemovals {
    /// True when the removal must be held. Remembers it either way.
    pub(crate) fn judge(&mut self, removal: Removal, now_ms: u64) -> bool {
        if removal.removed == 0 {
            return false;
        }
        while self
            .0
            .front()
            .is_some_and(|(at, _)| now_ms.saturating_sub(*at) > WINDOW_MS)
        {
            self.0.pop_front();
        }
        let earlier: usize = self.0.iter().map(|(_, count)| count).sum();
        self.0.push_back((now_ms, removal.removed));
        if self.0.len() > 4_096 {
            self.0.pop_front();
        }
        let total = earlier + removal.removed;
        let whole = removal.after == 0;
        let most = removal.before >= 4 && removal.removed * 2 > removal.before;
        let source_before = removal.source + earlier;
        let fifth = source_before >= SMALL_SOURCE && total >= FEW && total * 5 > source_before;
        whole || most || fifth
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn removal(before: usize, removed: usize, source: usize) -> Removal {
        Removal {
            before,
            removed,
            after: before - removed,
            source,
        }
    }

    #[test]
    fn what_is_held() {
        let cases = [
            (removal(10, 1, 100), false, "one of ten"),
            (removal(3, 2, 3), false, "two of a small service"),
            (removal(4, 3, 4), true, "most of a service"),
            (removal(4, 2, 4), false, "exactly half passes"),
            (removal(1, 1, 100), true, "a whole service"),
            (removal(20, 8, 30), true, "more than a fifth of the source"),
        ];
        for (case, held, why) in cases {
            assert_eq!(RecentRemovals::default().judge(case, 0), held, "{why}");
        }
    }

    #[test]
    fn single_removals_add_up_and_are_forgotten() {
        let mut recent = RecentRemovals::default();
        assert!(!recent.judge(removal(10, 1, 10), 0));
        assert!(!recent.judge(removal(9, 1, 9), 1_000));
        assert!(
            recent.judge(removal(8, 1, 8), 2_000),
            "three of ten within the window"
        );
        assert!(
            !recent.judge(removal(7, 1, 7), 60_000),
            "a minute later it is one again"
        );
    }
}
