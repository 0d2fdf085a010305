//! Why a command failed: one line for people, a stable word for machines, an exit code for scripts.

use std::fmt;

use mesh_model::{admin::Refusal, finding::Finding};

/// Exit codes; the same for every command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    /// Done.
    Done = 0,
    /// A finding, or a request that makes no sense now.
    Finding = 1,
    /// Wrong usage.
    Usage = 2,
    /// The daemon does not answer.
    Unreachable = 3,
    /// The edit was made on a revision that is not the current one.
    Conflict = 4,
    /// Accepted, but not everywhere in time.
    WaitTimedOut = 5,
    /// Not permitted.
    NotPermitted = 6,
}

/// What went wrong, where, what to do about it, and the stable word.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failure {
    /// The exit code.
    pub(crate) exit: Exit,
    /// Stable word.
    pub(crate) code: String,
    /// Where: a file, a resource, the daemon.
    pub(crate) place: String,
    /// What is wrong.
    pub(crate) what: String,
    /// What to do.
    pub(crate) remedy: String,
    /// More for people, before the line: findings, a diff. Empty most of the time.
    pub(crate) details: Box<str>,
}

impl Failure {
    /// A failure with its four parts.
    pub(crate) fn new(
        exit: Exit,
        code: &str,
        place: impl Into<String>,
        what: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self {
            exit,
            code: code.to_owned(),
            place: place.into(),
            what: what.into(),
            remedy: remedy.into(),
            details: Box::default(),
        }
    }

    /// Wrong usage.
    pub(crate) fn usage(
        place: impl Into<String>,
        what: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self::new(Exit::Usage, "usage", place, what, remedy)
    }

    /// The machine says no: a file, a process.
    pub(crate) fn local(place: impl Into<String>, error: &std::io::Error) -> Self {
        let denied = error.kind() == std::io::ErrorKind::PermissionDenied;
        let exit = if denied {
            Exit::NotPermitted
        } else {
            Exit::Finding
        };
        let code = if denied { "not-permitted" } else { "local-io" };
        let remedy = if denied { "run it with sudo" } else { "" };
        Self::new(exit, code, place, error.to_string(), remedy)
    }

    /// What the daemon answered, with its HTTP status.
    pub(crate) fn refused(status: u16, place: &str, refusal: Refusal) -> Self {
        let exit = match status {
            401 | 403 => Exit::NotPermitted,
            400 => Exit::Usage,
            _ => Exit::Finding,
        };
        Self {
            exit,
            code: refusal.code,
            place: place.to_owned(),
            what: refusal.what,
            remedy: refusal.remedy,
            details: Box::default(),
        }
    }

    /// Findings that stop a change: the first is the line, all are in the details.
    pub(crate) fn findings(place: &str, findings: &[Finding]) -> Self {
        let errors: Vec<String> = findings.iter().map(ToString::to_string).collect();
        let mut failure = match findings.first() {
            Some(first) if findings.len() == 1 => Self::new(
                Exit::Finding,
                &first.code,
                &first.subject,
                &first.what,
                &first.remedy,
            ),
            _ => Self::new(
                Exit::Finding,
                "invalid",
                place,
                format!("{} findings; nothing was changed", findings.len()),
                "mend them and try again",
            ),
        };
        if findings.len() > 1 {
            failure.details = errors.join("\n").into();
        }
        failure
    }

    /// The same failure with more for people.
    pub(crate) fn with_details(mut self, details: impl Into<Box<str>>) -> Self {
        self.details = details.into();
        self
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let one_line = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
        let (what, remedy) = (one_line(&self.what), one_line(&self.remedy));
        write!(f, "{}: {what}", self.place)?;
        if !remedy.is_empty() {
            write!(f, "; {remedy}")?;
        }
        write!(f, " ({})", self.code)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_whatever_the_parts_hold() {
        let failure = Failure::new(Exit::Finding, "x", "a/b", "bad\nthing", "do\n  this");
        assert_eq!(failure.to_string(), "a/b: bad thing; do this (x)");
        let bare = Failure::new(Exit::Finding, "x", "a/b", "bad", "");
        assert_eq!(bare.to_string(), "a/b: bad (x)");
    }

    #[test]
    fn exit_codes_by_status() {
        let refusal = || Refusal {
            code: "c".into(),
            what: "w".into(),
            remedy: "r".into(),
        };
        for (status, exit) in [
            (400, Exit::Usage),
            (401, Exit::NotPermitted),
            (403, Exit::NotPermitted),
            (404, Exit::Finding),
            // A refusal of this host's state; a stale edit says more and is told apart there.
            (409, Exit::Finding),
            (422, Exit::Finding),
            (503, Exit::Finding),
        ] {
            assert_eq!(
                Failure::refused(status, "p", refusal()).exit,
                exit,
                "{status}"
            );
        }
        assert_eq!(Exit::NotPermitted as u8, 6);
    }
}
