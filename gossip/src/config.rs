//! Intervals, fan-out and byte budgets of the protocol.

use std::time::Duration;

use mesh_model::document::{Document, parse_documents};

/// Settings of a [`crate::Node`]. Every host of a mesh should use the same; a difference costs speed, never agreement.
#[derive(Debug, Clone)]
pub struct Config {
    /// How often one member is probed; 100 ms to 10 s. Higher: slower detection. Lower: more datagrams.
    pub probe_period: Duration,
    /// How long a probe may stay unanswered before others are asked to probe; below half of the period.
    pub probe_rtt: Duration,
    /// How long a suspect may refute at up to ten members; grows with the logarithm of their number.
    pub suspicion: Duration,
    /// False: membership runs over frames alone.
    pub udp: bool,
    /// Neighbours to which news is pushed; 3 to 16.
    pub active_links: usize,
    /// Links above this number are given up again, those first that this host opened.
    pub max_links: usize,
    /// Mean time between comparisons with a random host, ±50 %.
    pub sync_interval: Duration,
    /// Mean time between attempts to reach one random host that is down, ±50 %, for ever.
    pub redial_interval: Duration,
    /// Least time between two heads of this host: changes in between are sent together.
    pub head_interval: Duration,
    /// Mean time after which an unchanged head is signed again, ±25 %.
    pub head_refresh: Duration,
    /// For how long after signing a head's facts are fresh.
    pub lease: Duration,
    /// For how long after signing a head is kept at all; older ones are refused, so nothing resurrects.
    pub retention: Duration,
    /// Most records that are taken from one host.
    pub max_records: usize,
    /// Most bytes of records that are taken from one host.
    pub max_record_bytes: usize,
    /// Most hosts that are admitted.
    pub max_hosts: usize,
    /// Most commits; an edit above it is refused, commits of peers are still kept.
    pub max_commits: usize,
    /// Heads of one host taken at once; refilled at two a second. Above it they wait for the next comparison.
    pub head_burst: u32,
    /// How far ahead of this host's clock an edit may be.
    pub future_tolerance: Duration,
    /// How long a starting host waits for its peers' word on its own newest head before it publishes.
    pub open_wait: Duration,
    /// Payload bytes aimed at in one frame.
    pub chunk: usize,
    /// Bytes handed to one link and not yet reported as sent; more wait as ids, not as bytes.
    pub link_budget: usize,
    /// Reads the document of a change. A function so that the simulator may use simpler documents.
    pub parse: fn(&str) -> Option<Document>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            probe_period: Duration::from_millis(500),
            probe_rtt: Duration::from_millis(200),
            suspicion: Duration::from_secs(2),
            udp: true,
            active_links: 8,
            max_links: 12,
            sync_interval: Duration::from_secs(10),
            redial_interval: Duration::from_secs(5),
            head_interval: Duration::from_millis(200),
            head_refresh: Duration::from_mins(45),
            lease: Duration::from_hours(3),
            retention: Duration::from_hours(72),
            max_records: 1024,
            max_record_bytes: 256 * 1024,
            max_hosts: 16_384,
            max_commits: 50_000,
            head_burst: 120,
            future_tolerance: Duration::from_mins(5),
            open_wait: Duration::from_secs(2),
            chunk: 256 * 1024,
            link_budget: 1024 * 1024,
            parse: read_document,
        }
    }
}

/// Reads exactly one document.
fn read_document(text: &str) -> Option<Document> {
    let mut documents = parse_documents(text, "commit").ok()?;
    let first = documents.pop()?;
    documents.is_empty().then_some(first)
}

/// Milliseconds of a duration, saturating.
pub(crate) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_are_found_under_the_names_that_edits_give() {
        let parse = Config::default().parse;
        let revocation = r#"{"apiVersion":"meshd.io/v1alpha1","kind":"Revocation","metadata":{"name":"ada"},"spec":{"operatorKey":"0000000000000000000000000000000000000000000000000000000000000000"}}"#;
        let key = parse(revocation).unwrap().key();
        assert_eq!(
            (key.kind.as_str(), key.namespace.as_str()),
            ("Revocation", "")
        );
        let service = r#"{"apiVersion":"v1","kind":"Service","metadata":{"name":"web"},"spec":{"ports":[{"port":80}]}}"#;
        assert_eq!(parse(service).unwrap().key().namespace, "default");
        assert!(parse("nonsense").is_none());
        assert!(parse("").is_none());
    }
}
