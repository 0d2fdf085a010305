//! `write!` into a `String`, which cannot fail and so returns nothing.

use std::fmt;

/// Makes `write!(text, …)` work on a `String` without a result to handle.
pub(crate) trait Put {
    /// Appends; what `write!` calls.
    fn write_fmt(&mut self, arguments: fmt::Arguments<'_>);
}

impl Put for String {
    fn write_fmt(&mut self, arguments: fmt::Arguments<'_>) {
        let done = fmt::Write::write_fmt(self, arguments);
        debug_assert!(done.is_ok(), "only a Display that lies fails here");
    }
}
