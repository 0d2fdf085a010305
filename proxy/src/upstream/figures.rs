//! Counts of what keeps endpoints out and of what circuit breakers refuse; rare, so shared by the workers.

use std::{
    fmt::Write,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
};

use super::{breaker::Full, health::Reason};

/// The counts since the start.
#[derive(Debug, Default)]
pub(crate) struct Figures {
    ejections: [AtomicU64; Reason::ALL.len()],
    refused: [AtomicU64; LIMITS.len()],
    checks: [AtomicU64; CHECKS.len()],
    spared: AtomicU64,
}

/// Limits of a backend's policy, the metric label `limit`.
const LIMITS: [&str; 4] = ["connections", "pending", "requests", "retries"];
/// Results of health checks, the metric label `result`.
const CHECKS: [&str; 3] = ["passed", "failed", "undecided"];

impl Figures {
    /// An endpoint was put out.
    pub(crate) fn ejected(&self, reason: Reason) {
        count(&self.ejections, reason as usize);
    }

    /// An endpoint stays in because enough of its backend are out.
    pub(crate) fn spared(&self) {
        self.spared.fetch_add(1, Relaxed);
    }

    /// A circuit breaker refused.
    pub(crate) fn full(&self, full: Full) {
        let limit = match full {
            Full::Connections(_) => 0,
            Full::Pending(_) => 1,
            Full::Requests(_) => 2,
        };
        count(&self.refused, limit);
    }

    /// A circuit breaker refused a retry.
    pub(crate) fn retries_full(&self) {
        count(&self.refused, 3);
    }

    /// A health check ended; `None`: nothing can be said.
    pub(crate) fn checked(&self, passed: Option<bool>) {
        let result = match passed {
            Some(true) => 0,
            Some(false) => 1,
            None => 2,
        };
        count(&self.checks, result);
    }

    /// Appends the metrics: Prometheus text.
    pub(crate) fn render(&self, out: &mut String) {
        let reasons = Reason::ALL.map(Reason::as_str);
        for (name, help, label, words, counts) in [
            (
                "mesh_proxy_ejections_by_reason_total",
                "endpoints put out, by reason",
                "reason",
                &reasons[..],
                &self.ejections[..],
            ),
            (
                "mesh_proxy_breaker_refused_total",
                "requests, connections and retries that a backend's limit refused",
                "limit",
                &LIMITS,
                &self.refused,
            ),
            (
                "mesh_proxy_health_checks_total",
                "health checks of endpoints by this host",
                "result",
                &CHECKS,
                &self.checks,
            ),
        ] {
            // Writing to a string cannot fail.
            let _infallible = writeln!(out, "# HELP {name} {help}\n# TYPE {name} counter");
            for (word, count) in words.iter().zip(counts) {
                let count = count.load(Relaxed);
                let _infallible = writeln!(out, "{name}{{{label}=\"{word}\"}} {count}");
            }
        }
        let (name, spared) = (
            "mesh_proxy_ejections_spared_total",
            self.spared.load(Relaxed),
        );
        let help = "ejections that did not happen because enough of the backend are out";
        let _infallible = writeln!(
            out,
            "# HELP {name} {help}\n# TYPE {name} counter\n{name} {spared}"
        );
    }
}

fn count(counts: &[AtomicU64], index: usize) {
    if let Some(count) = counts.get(index) {
        count.fetch_add(1, Relaxed);
    }
}
