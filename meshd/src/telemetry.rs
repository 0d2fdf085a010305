//! Logging set-up, and what is told on the terminal.

use std::io::Write as _;

/// Sends events to standard error (the journal); the level comes from `MESHD_LOG`, `info` unless set.
pub(crate) fn start() {
    let filter = tracing_subscriber::EnvFilter::try_from_env("MESHD_LOG")
        .unwrap_or_else(|_unset| tracing_subscriber::EnvFilter::new("info"));
    let journal = std::env::var_os("JOURNAL_STREAM").is_some();
    let layer = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    // The journal stamps lines itself and shows no colours.
    let started = if journal {
        layer.without_time().with_ansi(false).try_init()
    } else {
        layer.with_ansi(false).try_init()
    };
    drop(started);
}

/// Tells a fatal error on standard error.
pub(crate) fn report(error: &anyhow::Error) {
    complain(&format!("meshd: {error:#}\n"));
}

/// Writes to standard error.
pub(crate) fn complain(text: &str) {
    let written = std::io::stderr().write_all(text.as_bytes());
    drop(written);
}

/// Writes to standard output.
pub(crate) fn print(text: &str) {
    let written = std::io::stdout().write_all(text.as_bytes());
    drop(written);
}
