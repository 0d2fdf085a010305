//! A problem told to people: the same object in the log, in `meshctl status` and in `/metrics`.

use std::fmt;

/// How bad a finding is.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Worth knowing.
    Note,
    /// Degraded, and we cope.
    Warning,
    /// A person must act.
    Error,
}

/// A problem, where it is, and what to do about it.
#[derive(
    Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize,
)]
pub struct Finding {
    /// Stable word for machines, such as `route-unknown-backend`.
    pub code: String,
    /// How bad.
    pub severity: Severity,
    /// What it is about: a file and key, a resource, a source, a host.
    pub subject: String,
    /// What is wrong, one sentence.
    pub what: String,
    /// What to do, one sentence; a command where there is one.
    pub remedy: String,
    /// Since when, in milliseconds since the epoch; 0 when it is not tracked.
    #[serde(default)]
    pub since_ms: u64,
}

impl Finding {
    /// A finding that began now.
    pub fn new(
        code: &str,
        severity: Severity,
        subject: impl Into<String>,
        what: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self {
            code: code.to_owned(),
            severity,
            subject: subject.into(),
            what: what.into(),
            remedy: remedy.into(),
            since_ms: 0,
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}: {}; {} ({})",
            self.subject, self.what, self.remedy, self.code
        )
    }
}
