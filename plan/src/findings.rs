//! Problems met on the way, and those that are seen from above: conflicts, tentative edits, empty services.

use std::{cell::RefCell, collections::BTreeSet};

use mesh_model::finding::{Finding, Severity};

use crate::{services::Services, world::World};

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

/// What is seen when everything is compiled.
pub(crate) fn general(world: &World<'_>, services: &Services, findings: &Findings) {
    for (key, resource) in &world.input.catalog.resources {
        let subject = key.to_string();
        if !resource.conflicts.is_empty() {
            let others: Vec<String> = resource
                .conflicts
                .iter()
                .map(|(id, _)| id.short())
                .collect();
            findings.warning(
                "edit-conflict",
                &subject,
                format!(
                    "two edits were made at once: {} acts, {} is kept beside it",
                    resource.revision.short(),
                    others.join(", ")
                ),
                "look at both with `meshctl history`, then apply what you want",
            );
        }
        if resource.confirm_by_ms > world.input.now_ms {
            findings.note(
                "tentative-edit",
                &subject,
                format!(
                    "revision {} undoes itself at {}",
                    resource.revision.short(),
                    crate::rfc3339(resource.confirm_by_ms)
                ),
                "keep it with `meshctl confirm`",
            );
        }
    }
    for (id, service) in &services.by_id {
        for (number, port) in &service.ports {
            if !port
                .candidates
                .iter()
                .any(|candidate| candidate.left_out.is_none())
            {
                let why = port
                    .candidates
                    .first()
                    .and_then(|first| first.left_out.clone());
                findings.warning(
                    "no-endpoint",
                    &format!("{id}:{number}"),
                    why.map_or_else(
                        || "the service has no endpoint".to_owned(),
                        |why| format!("no endpoint can be used; of the first: {why}"),
                    ),
                    "start an instance, or see `meshctl endpoints` for why each is left out",
                );
            }
        }
    }
}
