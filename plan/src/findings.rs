//! Problems met on the way, each once.

use std::{cell::RefCell, collections::BTreeSet};

use mesh_model::finding::{Finding, Severity};

/// Problems, each once, at most [`Findings::LIMIT`].
#[derive(Debug, Default)]
pub(crate) struct Findings(RefCell<BTreeSet<Finding>>);

impl Findings {
    const LIMIT: usize = 1000;

    pub(crate) fn add(
        &self,
        code: &str,
        severity: Severity,
        subject: impl Into<String>,
        what: impl Into<String>,
        remedy: impl Into<String>,
    ) {
        let mut all = self.0.borrow_mut();
        if all.len() < Self::LIMIT {
            all.insert(Finding::new(code, severity, subject, what, remedy));
        }
    }
    pub(crate) fn error(&self, code: &str, subject: &str, what: impl Into<String>, remedy: &str) {
        self.add(code, Severity::Error, subject, what, remedy);
    }
    pub(crate) fn warning(&self, code: &str, subject: &str, what: impl Into<String>, remedy: &str) {
        self.add(code, Severity::Warning, subject, what, remedy);
    }
    pub(crate) fn note(&self, code: &str, subject: &str, what: impl Into<String>, remedy: &str) {
        self.add(code, Severity::Note, subject, what, remedy);
    }
    /// Worst first, then by code and subject.
    pub(crate) fn into_sorted(self) -> Vec<Finding> {
        let mut all: Vec<Finding> = self.0.into_inner().into_iter().collect();
        all.sort_by(|a, b| b.severity.cmp(&a.severity).then_with(|| a.cmp(b)));
        all
    }
}
