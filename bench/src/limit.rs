//! The limits that hold for meshd, and whether they do.

use serde_json::{Value, json};

use crate::{
    contender::Proxy,
    results::{Column, Results},
};

/// What meshd's figure is compared with.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Against {
    /// A peer's figure of the same scenario, times a factor.
    Peer(Proxy),
    /// meshd's own figure of another scenario, times a factor.
    Own(&'static str),
    /// A number.
    Number,
}

/// A limit: scenario, column, with what it is compared, and the most that is allowed.
struct Limit(&'static str, Column, Against, f64);

const LIMITS: [Limit; 46] = [
    Limit(
        "h1",
        Column::CpuUsPerRequest,
        Against::Peer(Proxy::Haproxy),
        1.1,
    ),
    Limit(
        "h1",
        Column::CpuUsPerRequest,
        Against::Peer(Proxy::Envoy),
        0.45,
    ),
    Limit(
        "h1_bare",
        Column::CpuUsPerRequest,
        Against::Peer(Proxy::Haproxy),
        1.1,
    ),
    Limit(
        "h1_bare",
        Column::CpuUsPerRequest,
        Against::Peer(Proxy::Envoy),
        0.45,
    ),
    Limit(
        "redir",
        Column::CpuUsPerRequest,
        Against::Peer(Proxy::Envoy),
        0.40,
    ),
    Limit(
        "hop",
        Column::CpuUsPerRequest,
        Against::Peer(Proxy::Envoy),
        0.40,
    ),
    Limit(
        "hop",
        Column::CpuUsPerRequest,
        Against::Peer(Proxy::Haproxy),
        1.2,
    ),
    Limit(
        "h2h1",
        Column::CpuUsPerRequest,
        Against::Peer(Proxy::Envoy),
        0.35,
    ),
    Limit("tcp", Column::CpuSPerGb, Against::Peer(Proxy::Envoy), 0.8),
    Limit(
        "tcpmtls",
        Column::CpuSPerGb,
        Against::Peer(Proxy::Envoy),
        0.9,
    ),
    Limit("hop_4000", Column::P99Us, Against::Peer(Proxy::Envoy), 1.0),
    Limit(
        "hop_4000",
        Column::P99Us,
        Against::Peer(Proxy::Haproxy),
        1.0,
    ),
    Limit(
        "idle_h1_1000",
        Column::KbPerConnection,
        Against::Number,
        4.0,
    ),
    Limit(
        "idle_h1_10000",
        Column::KbPerConnection,
        Against::Number,
        4.0,
    ),
    Limit(
        "idle_hop_1000",
        Column::KbPerConnection,
        Against::Number,
        12.0,
    ),
    Limit(
        "idle_hop_10000",
        Column::KbPerConnection,
        Against::Number,
        12.0,
    ),
    Limit(
        "idle_tcpmtls_1000",
        Column::KbPerConnection,
        Against::Number,
        12.0,
    ),
    Limit(
        "idle_tcpmtls_9000",
        Column::KbPerConnection,
        Against::Number,
        12.0,
    ),
    Limit(
        "idle_mtls_1000",
        Column::KbPerConnection,
        Against::Number,
        12.0,
    ),
    Limit(
        "idle_mtls_10000",
        Column::KbPerConnection,
        Against::Number,
        12.0,
    ),
    Limit("swap", Column::Failed, Against::Number, 0.0),
    Limit("swap", Column::P99Us, Against::Own("swap_none"), 1.1),
    Limit("slow_head", Column::RssKb, Against::Peer(Proxy::Envoy), 1.0),
    Limit("slow_read", Column::RssKb, Against::Peer(Proxy::Envoy), 1.0),
    Limit("slow_head", Column::Failed, Against::Number, 0.0),
    Limit("registry_consul", Column::P50Us, Against::Number, 20_000.0),
    Limit("registry_consul", Column::P99Us, Against::Number, 100_000.0),
    Limit("registry_etcd", Column::P50Us, Against::Number, 20_000.0),
    Limit("registry_etcd", Column::P99Us, Against::Number, 100_000.0),
    Limit(
        "registry_serverset",
        Column::P50Us,
        Against::Number,
        20_000.0,
    ),
    Limit(
        "registry_serverset",
        Column::P99Us,
        Against::Number,
        100_000.0,
    ),
    Limit("registry_leader", Column::P50Us, Against::Number, 20_000.0),
    Limit("registry_leader", Column::P99Us, Against::Number, 100_000.0),
    Limit("registry_curator", Column::P50Us, Against::Number, 20_000.0),
    Limit(
        "registry_curator",
        Column::P99Us,
        Against::Number,
        100_000.0,
    ),
    Limit(
        "registry_kubernetes",
        Column::P50Us,
        Against::Number,
        20_000.0,
    ),
    Limit(
        "registry_kubernetes",
        Column::P99Us,
        Against::Number,
        100_000.0,
    ),
    Limit("registry_nomad", Column::P99Us, Against::Number, 500_000.0),
    Limit(
        "registry_marathon",
        Column::P99Us,
        Against::Number,
        500_000.0,
    ),
    // The records live for a second, and a second more.
    Limit("registry_dns", Column::P99Us, Against::Number, 2_000_000.0),
    // Asked every five seconds, a tenth of it more at random, and what the server keeps answers for.
    Limit(
        "registry_eureka",
        Column::P99Us,
        Against::Number,
        6_000_000.0,
    ),
    Limit("registry_file", Column::P99Us, Against::Number, 150_000.0),
    Limit("registry_ingest", Column::CpuS, Against::Number, 2.0),
    Limit(
        "registry_ingest",
        Column::BytesPerEndpoint,
        Against::Number,
        400.0,
    ),
    Limit("registry_burst", Column::Ms, Against::Number, 500.0),
    Limit("registry_idle", Column::IdleRps, Against::Number, 0.5),
];

/// A limit and what was measured.
#[derive(Debug, Clone)]
pub(crate) struct Verdict {
    /// The scenario.
    pub(crate) scenario: &'static str,
    /// What is limited.
    pub(crate) column: Column,
    /// What it is compared with, in words.
    pub(crate) against: String,
    /// The ratio, or the number itself; none when one side of it could not be measured.
    pub(crate) value: Option<f64>,
    /// The most that is allowed.
    pub(crate) limit: f64,
}

impl Verdict {
    /// True when the limit holds.
    pub(crate) fn holds(&self) -> bool {
        self.value.is_some_and(|value| value <= self.limit)
    }

    /// The ratio or number as text.
    pub(crate) fn shown(&self) -> String {
        self.value
            .map_or_else(|| "not measured".to_owned(), |value| format!("{value:.2}"))
    }

    /// `ok`, or `NOT`.
    pub(crate) fn word(&self) -> &'static str {
        if self.holds() { "ok" } else { "NOT" }
    }

    /// As it stands in the file.
    pub(crate) fn json(&self) -> Value {
        json!({
            "scenario": self.scenario, "column": self.column.name(), "against": self.against,
            "value": self.value.map(|value| (value * 1000.0).round() / 1000.0), "limit": self.limit, "holds": self.holds(),
        })
    }
}

/// Every limit of the scenarios that were run, where both sides take part.
pub(crate) fn judge(results: &Results, takes_part: &dyn Fn(Proxy) -> bool) -> Vec<Verdict> {
    let ran = |scenario| results.scenarios().contains(&scenario);
    LIMITS
        .iter()
        .filter(|Limit(scenario, _, against, _)| {
            let other = match against {
                Against::Peer(peer) => takes_part(*peer),
                Against::Own(_) | Against::Number => true,
            };
            ran(scenario) && takes_part(Proxy::Meshd) && other
        })
        .map(|Limit(scenario, column, against, limit)| {
            let own = results.figure(scenario, Proxy::Meshd, *column);
            let (against, other) = match against {
                Against::Peer(peer) => (
                    peer.title().to_owned(),
                    results.figure(scenario, *peer, *column),
                ),
                Against::Own(other) => (
                    (*other).to_owned(),
                    results.figure(other, Proxy::Meshd, *column),
                ),
                Against::Number => (String::new(), Some(1.0)),
            };
            Verdict {
                scenario,
                column: *column,
                against,
                value: own.zip(other).map(|(own, other)| own / other),
                limit: *limit,
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn results() -> Results {
        let mut results = Results::default();
        for (proxy, cpu) in [
            (Proxy::Meshd, 15.0),
            (Proxy::Envoy, 40.0),
            (Proxy::Haproxy, 10.0),
        ] {
            results.add("h1", proxy, vec![(Column::CpuUsPerRequest, cpu)]);
        }
        results.add("swap", Proxy::Meshd, vec![(Column::Failed, 1.0)]);
        results
    }

    #[test]
    fn ratios_are_judged_by_their_limits() {
        let verdicts = judge(&results(), &|_| true);
        let words: Vec<_> = verdicts
            .iter()
            .map(|verdict| (verdict.scenario, verdict.against.as_str(), verdict.word()))
            .collect();
        assert_eq!(
            words,
            [
                ("h1", "HAProxy", "NOT"),
                ("h1", "Envoy", "ok"),
                ("swap", "", "NOT"),
                ("swap", "swap_none", "NOT")
            ]
        );
        assert!((verdicts[0].value.unwrap() - 1.5).abs() < 1e-9);
    }

    #[test]
    fn what_was_run_but_not_measured_does_not_hold() {
        let mut results = results();
        results.rows.retain(|row| row.proxy != Proxy::Envoy);
        let verdicts = judge(&results, &|_| true);
        let envoy = verdicts.iter().find(|verdict| verdict.against == "Envoy");
        assert_eq!(envoy.unwrap().shown(), "not measured");
        assert_eq!(envoy.unwrap().word(), "NOT");
        assert!(judge(&results, &|proxy| proxy != Proxy::Meshd).is_empty());
        assert!(verdicts.iter().all(|verdict| verdict.scenario != "hop"));
    }
}
