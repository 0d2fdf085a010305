//! Why tests failed: what they said when they panicked, kept to be said again where it is found.
//!
//! In: the lines of test runners. Out: each panic's place and message, without the logs around it and without the
//! panics of tests that passed.

use std::collections::HashSet;

/// Most lines of one message.
const LINES: usize = 30;
/// Most characters of a line.
const WIDTH: usize = 1_200;

/// What was said in panics.
#[derive(Debug, Default)]
pub(super) struct Reasons {
    panics: Vec<Panic>,
    /// Lines that the message being read may still have.
    left: usize,
    /// Panics of test programs that have ended.
    ended: usize,
    /// Panics of suites that have ended.
    told: usize,
    /// The tests of the program that runs.
    tests: HashSet<String>,
    /// The names below `failures:`, while they are read.
    failed: Option<HashSet<String>>,
}

#[derive(Debug)]
struct Panic {
    /// Name of the thread; of a test's own thread, the test's.
    thread: String,
    lines: Vec<String>,
}

impl Reasons {
    /// Reads one line of a test runner.
    pub(super) fn take(&mut self, line: &str) {
        if let Some(thread) = thread_of(line) {
            self.left = LINES;
            self.panics.push(Panic {
                thread: thread.to_owned(),
                lines: Vec::new(),
            });
        } else if is_behind(line) {
            self.left = 0;
        }
        if self.left > 0 {
            self.left -= 1;
            let cut = line.chars().take(WIDTH).collect();
            if let Some(panic) = self.panics.last_mut() {
                panic.lines.push(cut);
            }
        }
        if let Some((name, _)) = line
            .strip_prefix("test ")
            .and_then(|line| line.split_once(" ... "))
        {
            self.tests.insert(name.to_owned());
        }
        if line == "failures:" {
            self.failed = Some(HashSet::new());
        } else if let Some(failed) = &mut self.failed {
            failed.extend(line.strip_prefix("    ").map(str::to_owned));
        }
        if line.starts_with("test result: ") {
            self.end_of_program(line.starts_with("test result: ok"));
        }
    }

    /// Of a program that passed nothing is kept: its panics were wanted. Of one that failed, all but what tests that
    /// passed said: a thread that a failed test started may have the reason.
    fn end_of_program(&mut self, passed: bool) {
        self.left = 0;
        let failed = self.failed.take().unwrap_or_default();
        let tests = std::mem::take(&mut self.tests);
        let mut new = self.panics.split_off(self.ended.min(self.panics.len()));
        new.retain(|panic| failed.contains(&panic.thread) || !tests.contains(&panic.thread));
        if !passed {
            self.panics.extend(new);
        }
        self.ended = self.panics.len();
    }

    /// What the suite that has just ended said. Of one that passed nothing is kept.
    pub(super) fn end_of_suite(&mut self, passed: bool) -> Vec<&str> {
        if passed {
            self.panics.truncate(self.told);
        }
        let told = self.told;
        self.told = self.panics.len();
        self.ended = self.told;
        self.left = 0;
        self.failed = None;
        self.tests.clear();
        lines(self.panics.get(told..).unwrap_or_default())
    }

    /// What all of them said.
    pub(super) fn lines(&self) -> Vec<&str> {
        lines(&self.panics)
    }
}

fn lines(panics: &[Panic]) -> Vec<&str> {
    let all = panics.iter().flat_map(|panic| &panic.lines);
    all.map(String::as_str).collect()
}

/// The thread that a line says has panicked.
fn thread_of(line: &str) -> Option<&str> {
    let (before, rest) = line.split_once("thread '")?;
    // A test's name may stand before it: `test a ... thread 'a'`.
    let begins = before.is_empty() || before.ends_with("... ") || before.ends_with('\n');
    let (thread, rest) = rest.split_once('\'')?;
    (begins && rest.contains(" panicked at ")).then_some(thread)
}

/// True for the first line behind a message.
fn is_behind(line: &str) -> bool {
    let begins = ["note: ", "--- ", "test result: "];
    begins.iter().any(|begin| line.starts_with(begin))
        || line.trim().eq_ignore_ascii_case("stack backtrace:")
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

    #[test]
    fn backtraces_are_left_out_and_so_are_tests_that_passed() {
        let mut reasons = Reasons::default();
        for line in [
            "test wanted ... thread 'wanted' (1) panicked at a.rs:1:1:",
            "as it should",
            "test result: ok. 1 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out",
            "test also_wanted ... thread 'also_wanted' (2) panicked at a.rs:1:1:",
            "this too",
            "ok",
            "thread '<unnamed>' (4) panicked at b.rs:3:1:",
            "the keeper's",
            "--- log of it ---",
            "test x::fails ... thread 'x::fails' (3) panicked at a.rs:2:1:",
            "called `Result::unwrap()` on an `Err` value: h2: {\"x\":1}",
            "",
            "Stack backtrace:",
            "   0: anyhow::error",
            "stack backtrace:",
            "   0: __rustc::rust_begin_unwind",
            "failures:",
            "",
            "failures:",
            "    x::fails",
            "",
            "test result: FAILED. 1 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out",
        ] {
            reasons.take(line);
        }
        let said = reasons.end_of_suite(false).join("\n");
        assert_eq!(
            said.trim_end(),
            "thread '<unnamed>' (4) panicked at b.rs:3:1:\nthe keeper's\n\
             test x::fails ... thread 'x::fails' (3) panicked at a.rs:2:1:\n\
             called `Result::unwrap()` on an `Err` value: h2: {\"x\":1}"
        );
    }

    #[test]
    fn a_program_that_never_ended_is_told() {
        let mut reasons = Reasons::default();
        reasons.take("thread 'tokio-rt-worker' (3) panicked at a.rs:2:1:");
        reasons.take("gone");
        assert_eq!(reasons.end_of_suite(false).len(), 2);
    }
}
