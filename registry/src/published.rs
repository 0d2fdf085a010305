//! What readers see: all views at one moment, and how each source is doing.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use mesh_model::{
    config::SourceConfig,
    fact::RegistryView,
    finding::{Finding, Severity},
};

use crate::{status::SourceStatus, view::View};

/// The whole set of one service as one source has it.
#[derive(Debug, Clone, PartialEq)]
pub struct PublishedView {
    /// The fact.
    pub view: Arc<RegistryView>,
    /// True: share it with the mesh; false: for this host only.
    pub publish: bool,
}

/// How a source is doing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceRow {
    /// Its id.
    pub id: String,
    /// The word of its kind.
    pub kind: &'static str,
    /// True: what it says is shared with the mesh.
    pub publish: bool,
    /// The shortest time after which a change may be expected here.
    pub latency: Duration,
    /// Its status.
    pub status: SourceStatus,
    /// When the status began, milliseconds since the epoch.
    pub since_ms: u64,
    /// Last complete success, milliseconds since the epoch; 0: never since the daemon started.
    pub last_success_ms: u64,
    /// Services in its view.
    pub services: usize,
    /// Endpoints in its view, the held ones among them.
    pub endpoints: usize,
    /// Endpoints that the source removed and that are kept for now.
    pub held: usize,
    /// Why the newest set of some service was refused.
    pub refusal: Option<String>,
    /// Services that could not be read the last time, while the source as a whole could: each with the reason,
    /// at most 16 of them.
    pub unread: Vec<String>,
}

impl SourceRow {
    /// What a person should know about it.
    pub fn findings(&self) -> Vec<Finding> {
        let mut all = Vec::new();
        let mut say = |code: &str, what: String, remedy: &str| {
            let subject = format!("source {}", self.id);
            let finding = Finding::new(code, Severity::Warning, subject, what, remedy);
            all.push(Finding {
                since_ms: self.since_ms,
                ..finding
            });
        };
        if let Some(error) = self.status.error() {
            say(
                "registry-degraded",
                format!("{error}; its last good content is used"),
                "repair the source; nothing is removed meanwhile",
            );
        }
        if let Some(refusal) = &self.refusal {
            say(
                "registry-refused",
                format!("a set was refused: {refusal}"),
                "make it smaller; the last good set is used",
            );
        }
        if let Some(first) = self.unread.first() {
            let more = match self.unread.len() - 1 {
                0 => String::new(),
                more => format!("; and {more} more"),
            };
            say(
                "registry-service-unread",
                format!("{first}{more}; the last good content is used"),
                "repair what is registered there; other services are not touched by it",
            );
        }
        if self.held > 0 {
            say(
                "registry-removal-held",
                format!(
                    "{} endpoints were removed at once and are kept as degraded for now",
                    self.held
                ),
                "nothing, if the removal was meant: it takes effect by itself",
            );
        }
        all
    }
}

/// All views at one moment.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Published {
    /// Grows with each publication.
    pub version: u64,
    /// By record key, `view/<source>/<namespace>/<service>`.
    pub views: BTreeMap<String, PublishedView>,
    /// By id.
    pub sources: Vec<SourceRow>,
}

/// Equal, by pointer where possible.
pub(crate) fn same(
    one: &BTreeMap<String, PublishedView>,
    other: &BTreeMap<String, PublishedView>,
) -> bool {
    one.len() == other.len()
        && one.iter().zip(other).all(|((left, a), (right, b))| {
            left == right
                && a.publish == b.publish
                && (Arc::ptr_eq(&a.view, &b.view) || a.view == b.view)
        })
}

/// The row of a source.
pub(crate) fn row(id: &str, config: &SourceConfig, latency: Duration, view: &View) -> SourceRow {
    let (status, since_ms) = view.status();
    SourceRow {
        id: id.to_owned(),
        kind: config.kind.word(),
        publish: config.publish,
        latency,
        status: status.clone(),
        since_ms,
        last_success_ms: view.last_success_ms(),
        services: view.service_count(),
        endpoints: view.facts().map(|(_, fact)| fact.endpoints.len()).sum(),
        held: view.held_count(),
        refusal: view.refusal().map(str::to_owned),
        unread: view
            .troubles()
            .iter()
            .take(16)
            .map(|(key, error)| format!("{}: {error}", key.name))
            .collect(),
    }
}
