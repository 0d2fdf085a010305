//! The gauges and counters of this room, in Prometheus' text format. Names exist only here.

use std::fmt::Write;

use mesh_model::fact::WireHealth;

use crate::{
    tally::{BUCKETS_US, Tally},
    view::View,
};

/// Appends all metrics of all sources.
pub(crate) fn render<'a>(
    sources: impl Iterator<Item = (&'a str, &'a View, &'a Tally)>,
    out: &mut String,
) {
    let sources: Vec<(&str, &View, &Tally)> = sources.collect();
    let views: Vec<(&str, &View)> = sources.iter().map(|(id, view, _)| (*id, *view)).collect();
    for (name, kind, help, read) in FAMILIES {
        head(out, name, kind, help);
        for (source, view) in &views {
            line(out, name, &[("source", source)], read(view));
        }
    }
    head(
        out,
        STATE,
        "gauge",
        "1 for the status that the source is in.",
    );
    for (source, view) in &views {
        let now = view.status().0.as_str();
        for state in ["connecting", "synced", "degraded", "auth-failed"] {
            line(
                out,
                STATE,
                &[("source", source), ("state", state)],
                u64::from(state == now),
            );
        }
    }
    head(
        out,
        ENDPOINTS,
        "gauge",
        "Endpoints in the view, by health as published.",
    );
    for (source, view) in &views {
        for (health, number) in by_health(view) {
            line(
                out,
                ENDPOINTS,
                &[("source", source), ("health", health)],
                number,
            );
        }
    }
    requests(&sources, out);
    times(&sources, out);
}

fn requests(sources: &[(&str, &View, &Tally)], out: &mut String) {
    head(
        out,
        REQUESTS,
        "counter",
        "Requests to registries over HTTP, by the status of the answer; 0: none came.",
    );
    for (source, _, tally) in sources {
        for (code, number) in tally.requests() {
            let code = code.to_string();
            line(
                out,
                REQUESTS,
                &[("source", source), ("code", &code)],
                number,
            );
        }
    }
}

fn times(sources: &[(&str, &View, &Tally)], out: &mut String) {
    head(
        out,
        TIMES,
        "histogram",
        "Time from a source's report of a change to its publication.",
    );
    for (source, _, tally) in sources {
        let times = tally.times();
        let bucket = format!("{TIMES}_bucket");
        for (end, number) in BUCKETS_US.into_iter().zip(times.buckets) {
            let end = seconds(end);
            line(out, &bucket, &[("source", source), ("le", &end)], number);
        }
        line(
            out,
            &bucket,
            &[("source", source), ("le", "+Inf")],
            times.count,
        );
        let sum = seconds(times.sum_us);
        let _infallible = writeln!(out, "{TIMES}_sum{{source=\"{source}\"}} {sum}");
        line(
            out,
            &format!("{TIMES}_count"),
            &[("source", source)],
            times.count,
        );
    }
}

/// Microseconds as seconds, exactly.
fn seconds(us: u64) -> String {
    let text = format!("{}.{:06}", us / 1_000_000, us % 1_000_000);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

const STATE: &str = "mesh_registry_source_state";
const ENDPOINTS: &str = "mesh_registry_endpoints";
const REQUESTS: &str = "mesh_registry_requests_total";
const TIMES: &str = "mesh_registry_propagation_seconds";

type Family = (&'static str, &'static str, &'static str, fn(&View) -> u64);

const FAMILIES: [Family; 10] = [
    (
        "mesh_registry_last_success_seconds",
        "gauge",
        "Time of the last complete success, seconds since the epoch; 0: never.",
        |view| view.last_success_ms() / 1000,
    ),
    (
        "mesh_registry_services",
        "gauge",
        "Services in the view.",
        |view| count(view.service_count()),
    ),
    (
        "mesh_registry_stale_services",
        "gauge",
        "Services whose source is not synced.",
        |view| {
            if view.status().0.as_str() == "synced" {
                0
            } else {
                count(view.service_count())
            }
        },
    ),
    (
        "mesh_registry_unread_services",
        "gauge",
        "Services that could not be read the last time, while their source as a whole could.",
        |view| count(view.troubles().len()),
    ),
    (
        "mesh_registry_held_endpoints",
        "gauge",
        "Endpoints that the source removed and that are kept for now.",
        |view| count(view.held_count()),
    ),
    (
        "mesh_registry_restarts_total",
        "counter",
        "Times that the source was started again.",
        |view| view.counters().restarts,
    ),
    (
        "mesh_registry_refused_updates_total",
        "counter",
        "Sets beyond the limits.",
        |view| view.counters().refused,
    ),
    (
        "mesh_registry_outdated_updates_total",
        "counter",
        "Sets older than the one in use.",
        |view| view.counters().outdated,
    ),
    (
        "mesh_registry_drift_total",
        "counter",
        "Changes that only a sweep found.",
        |view| view.counters().drift,
    ),
    (
        "mesh_registry_parse_errors_total",
        "counter",
        "Answers, files or entries that could not be understood.",
        |view| view.counters().unreadable,
    ),
];

fn by_health(view: &View) -> [(&'static str, u64); 5] {
    let mut all = [
        (WireHealth::Unknown, "unknown", 0),
        (WireHealth::Healthy, "healthy", 0),
        (WireHealth::Degraded, "degraded", 0),
        (WireHealth::Draining, "draining", 0),
        (WireHealth::Unhealthy, "unhealthy", 0),
    ];
    for (_, fact) in view.facts() {
        for endpoint in &fact.endpoints {
            let slot = all
                .iter_mut()
                .find(|(health, ..)| i32::from(*health) == endpoint.health);
            if let Some((_, _, number)) = slot {
                *number += 1;
            }
        }
    }
    all.map(|(_, name, number)| (name, number))
}

fn count(number: usize) -> u64 {
    u64::try_from(number).unwrap_or(u64::MAX)
}

// Writing into a `String` cannot fail.
fn head(out: &mut String, name: &str, kind: &str, help: &str) {
    let _infallible = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}");
}

fn line(out: &mut String, name: &str, labels: &[(&str, &str)], value: u64) {
    let labels: Vec<String> = labels
        .iter()
        .map(|(label, text)| {
            let text = text
                .replace('\\', "\\\\")
                .replace('"', "\\\"")
                .replace('\n', "\\n");
            format!("{label}=\"{text}\"")
        })
        .collect();
    let _infallible = writeln!(out, "{name}{{{}}} {value}", labels.join(","));
}
