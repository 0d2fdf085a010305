//! What people see: an opening, a table that grows while it happens, a closing.

use mesh_tests::host::Kind;

/// One line of the table.
#[derive(Debug)]
pub(crate) struct Row {
    pub(crate) exercise: &'static str,
    pub(crate) by: &'static str,
    pub(crate) requests: u64,
    pub(crate) seen: String,
    pub(crate) failed: u64,
    pub(crate) note: String,
    pub(crate) passed: bool,
}

/// Prints a line at once.
#[expect(clippy::print_stdout, reason = "the output of a command-line program")]
pub(crate) fn say(text: &str) {
    use std::io::Write as _;
    println!("{text}");
    drop(std::io::stdout().flush());
}

/// What this mode shows, and what it does not.
pub(crate) fn opening(kind: Kind) {
    say(
        "meshd demonstration: three hosts, words (v1 twice, v2 once), simon, capitalizer, and a client",
    );
    say(match kind {
        Kind::Users => {
            "mode root: three network namespaces; programs with user ids of their own are captured by nftables"
        }
        Kind::OneUser => {
            "mode user: three network namespaces in a user namespace. Not shown: several user ids on one host \
             (only one is mapped), so each host has one program that is recognised as a caller"
        }
        Kind::Loopback => {
            "mode loopback: three daemons on loopback addresses. Not shown: interception, names, user ids, a \
             network of its own; programs reach the mesh through http_proxy and the explicit listener"
        }
    });
}

/// The head of the table.
pub(crate) fn head() {
    say("");
    say(&format!(
        "  {:<10} {:<6} {:>9}  {:<44} {:>7}  note",
        "exercise", "by", "requests", "answers", "failed"
    ));
    say(&format!("  {}", "-".repeat(118)));
}

/// One line of it.
pub(crate) fn row(row: &Row) {
    let mark = if row.passed { "√" } else { "×" };
    say(&format!(
        "{mark} {:<10} {:<6} {:>9}  {:<44} {:>7}  {}",
        row.exercise, row.by, row.requests, row.seen, row.failed, row.note
    ));
}

/// The end.
pub(crate) fn closing(summary: &str, passed: bool) {
    say("");
    say(summary);
    say(if passed {
        "all exercises passed; nothing is left on this machine"
    } else {
        "an exercise failed"
    });
}
