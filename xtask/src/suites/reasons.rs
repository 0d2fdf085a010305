//! Why tests failed: what they said when they panicked, kept to be said again where it is found.
//!
//! In: the lines of test runners. Out: each panic's place and message, without the logs around it.

/// Most lines of one message.
const LINES: usize = 30;
/// Most characters of a line.
const WIDTH: usize = 600;

/// What was said in panics.
#[derive(Debug, Default)]
pub(super) struct Reasons {
    lines: Vec<String>,
    /// Lines that the message being read may still have.
    left: usize,
    /// Lines of suites that have ended.
    ended: usize,
}

impl Reasons {
    /// Reads one line of a test runner.
    pub(super) fn take(&mut self, line: &str) {
        if line.contains("thread '") && line.contains(" panicked at ") {
            self.left = LINES;
        } else if line.starts_with("note: ") || line.starts_with("--- ") {
            self.left = 0;
        }
        if self.left > 0 {
            self.left -= 1;
            self.lines.push(line.chars().take(WIDTH).collect());
        }
    }

    /// What the suite that has just ended said. Of one that passed nothing is kept: its panics were wanted.
    pub(super) fn end_of_suite(&mut self, passed: bool) -> &[String] {
        if passed {
            self.lines.truncate(self.ended);
        }
        let new = self.lines.get(self.ended..).unwrap_or_default();
        self.ended = self.lines.len();
        self.left = 0;
        new
    }

    /// What all of them said.
    pub(super) fn lines(&self) -> &[String] {
        &self.lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_kept_and_logs_are_not() {
        let mut reasons = Reasons::default();
        for line in [
            "test a ... ok",
            "thread 'walks' (712) panicked at tests/tests/soak.rs:314:9:",
            "h1 grows",
            "note: run with `RUST_BACKTRACE=1` environment variable to display a backtrace",
            "--- log of meshd on h1 ---",
            "INFO serving",
        ] {
            reasons.take(line);
        }
        let said = [
            "thread 'walks' (712) panicked at tests/tests/soak.rs:314:9:",
            "h1 grows",
        ];
        assert_eq!(reasons.end_of_suite(false), said);
        assert_eq!(reasons.end_of_suite(false), [""; 0]);
        reasons.take("thread 'b' panicked at b.rs:1:1:");
        assert_eq!(reasons.end_of_suite(true), [""; 0], "as it was told to");
        reasons.take("thread 'c' panicked at c.rs:1:1:");
        assert_eq!(reasons.end_of_suite(false).len(), 1);
        assert_eq!(reasons.lines().len(), 3);
    }
}
