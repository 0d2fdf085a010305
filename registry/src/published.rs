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
    /// Services that could not be read the last time, while the source as a whole could.
    pub unread_services: usize,
    /// Each of them with the reason, at most 16.
    pub unread: Vec<String>,
}

impl SourceRow {
    /// Why it is not as it should be, in one line; `None` while it is.
    pub fn why(&self) -> Option<String> {
        let error = self.status.error().map(str::to_owned);
        error
            .or_else(|| self.refusal.clone())
            .or_else(|| self.unread())
    }

    /// The first service that could not be read, and how many more there are.
    fn unread(&self) -> Option<String> {
        let first = self.unread.first()?;
        Some(match self.unread_services.saturating_sub(1) {
            0 => first.clone(),
            more => format!("{first}; and {more} more"),
        })
    }

    /// What is used while it cannot be read, and what to do.
    fn meanwhile(&self) -> (&'static str, &'static str) {
        match (self.last_success_ms, self.services) {
            (0, 0) => (
                "nothing of it was ever read",
                "repair the source or its settings; its services are not known until then",
            ),
            (0, _) => (
                "it has not been read whole since the daemon started: what is known of it is used",
                "repair the source; nothing is removed meanwhile",
            ),
            _ => (
                "its last good content is used",
                "repair the source; nothing is removed meanwhile",
            ),
        }
    }

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
            let (meanwhile, remedy) = self.meanwhile();
            say("registry-degraded", format!("{error}; {meanwhile}"), remedy);
        }
        if let Some(refusal) = &self.refusal {
            say(
                "registry-refused",
                format!("a set was refused: {refusal}"),
                "make it smaller; the last good set is used",
            );
        }
        if let Some(unread) = self.unread() {
            say(
                "registry-service-unread",
                format!("{unread}; what is known of it is used"),
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
        unread_services: view.troubles().len(),
        unread: view
            .troubles()
            .iter()
            .take(16)
            .map(|(key, error)| format!("{}: {error}", key.name))
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        fake::endpoint,
        sink::{ServiceSet, Sink},
        source::SourceError,
        version::Version,
    };
    use mesh_model::{
        config::SourceKind,
        endpoint::ServiceKey,
        name::{Namespace, ServiceName},
    };

    fn key(name: &str) -> ServiceKey {
        ServiceKey {
            namespace: Some(Namespace::default()),
            name: ServiceName::new(name).unwrap(),
            port_name: None,
        }
    }

    fn shown(view: &View) -> SourceRow {
        let config = SourceConfig {
            id: "consul/1".into(),
            publish: true,
            services: None,
            kind: SourceKind::File {
                directory: "/d".into(),
            },
        };
        row("consul/1", &config, Duration::ZERO, view)
    }

    /// What is told of a source that cannot be read.
    fn told(view: &mut View, now_ms: u64) -> String {
        let gone = SourceError::Auth("consul".into());
        view.set_status(SourceStatus::from(&gone), now_ms);
        let [one] = shown(view).findings().try_into().unwrap();
        format!("{} {}", one.what, one.remedy)
    }

    #[test]
    fn what_is_used_of_a_source_that_cannot_be_read_is_what_was_read() {
        let mut view = View::new("consul/1", 30_000, 0);
        let never = told(&mut view, 1);
        assert!(never.contains("nothing of it was ever read"), "{never}");
        assert!(!never.contains("is used"), "{never}");
        let set = ServiceSet::from(vec![endpoint(80)]);
        view.restore(key("web"), set);
        let saved = told(&mut view, 2);
        assert!(saved.contains("what is known of it is used"), "{saved}");
        assert!(!saved.contains("last good"), "{saved}");
        view.set_status(SourceStatus::Synced, 3);
        let read = told(&mut view, 4);
        assert!(read.contains("its last good content is used"), "{read}");
    }

    #[test]
    fn the_reason_of_one_service_is_the_sources_when_it_has_no_other() {
        let (sink, outlet) = Sink::new();
        let mut view = View::new("consul/1", 30_000, 0);
        sink.status(SourceStatus::Synced);
        for number in 10..30 {
            let error = Some("SERVFAIL".to_owned());
            sink.trouble(&key(&format!("s{number}")), error);
        }
        view.apply(outlet.take().unwrap(), 1);
        let now = shown(&view);
        assert_eq!(now.unread.len(), 16, "the first ones with their reasons");
        let why = now.why().unwrap();
        assert_eq!(why, "s10: SERVFAIL; and 19 more");
        let many: Vec<_> = (1..=10_001).map(endpoint).collect();
        assert!(many.len() > crate::sink::MAX_ENDPOINTS);
        sink.replace(key("big"), many, Version::Hash(0));
        view.apply(outlet.take().unwrap(), 2);
        let why = shown(&view).why().unwrap();
        assert!(why.starts_with("big: "), "{why}");
        view.set_status(SourceStatus::Connecting, 3);
        sink.begin_sync().commit();
        for number in 10..30 {
            sink.trouble(&key(&format!("s{number}")), None);
        }
        view.apply(outlet.take().unwrap(), 4);
        assert_eq!(shown(&view).why(), None);
    }
}
