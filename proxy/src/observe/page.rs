//! The text of metrics (Prometheus exposition format 0.0.4), and rows of `meshctl stat`.
//!
//! Read by the control side; workers are not disturbed.

use std::{
    collections::BTreeMap,
    fmt::Write,
    sync::{Arc, PoisonError},
};

use mesh_model::admin::StatRow;

use super::{
    Direction,
    cells::{BUCKETS, CLASSES, Cells, Series, SeriesKey, Transport, end_of, quantile},
};
use crate::listen::Kind;

/// What a metric shows of the requests of one kind.
type Value = fn(&Summed) -> u64;

/// One kind of requests, summed over the workers.
struct Summed {
    classes: [u64; CLASSES.len()],
    retries: u64,
    received: u64,
    sent: u64,
    sum_us: u64,
    buckets: [u64; BUCKETS],
    successes: u64,
    requests: u64,
}

impl Default for Summed {
    fn default() -> Self {
        Self {
            classes: [0; CLASSES.len()],
            retries: 0,
            received: 0,
            sent: 0,
            sum_us: 0,
            buckets: [0; BUCKETS],
            successes: 0,
            requests: 0,
        }
    }
}

impl Summed {
    fn add(&mut self, series: &Series) {
        for (sum, class) in self.classes.iter_mut().zip(&series.classes) {
            *sum += class.get();
        }
        self.retries += series.retries.get();
        self.received += series.received.get();
        self.sent += series.sent.get();
        self.sum_us += series.durations.sum_us.get();
        self.successes += series.successes();
        self.requests += series.requests();
        series.durations.add_to(&mut self.buckets);
    }
}

fn summed(workers: &[Arc<Cells>]) -> BTreeMap<SeriesKey, Summed> {
    let mut all: BTreeMap<SeriesKey, Summed> = BTreeMap::new();
    for cells in workers {
        let series = cells
            .series
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        for one in series {
            all.entry(one.key.clone()).or_default().add(&one);
        }
    }
    all
}

/// Rows of `meshctl stat`: calls of local programs, and calls to them marked by their route.
pub(crate) fn stats(workers: &[Arc<Cells>]) -> Vec<StatRow> {
    summed(workers)
        .into_iter()
        .map(|(key, sums)| StatRow {
            source: key.source.to_string(),
            destination: key.destination.to_string(),
            route: match key.direction {
                Direction::Outbound => key.route.to_string(),
                Direction::Inbound => "(inbound)".to_owned(),
            },
            requests: sums.requests,
            successes: sums.successes,
            retries: sums.retries,
            p50_us: quantile(&sums.buckets, 0.5),
            p99_us: quantile(&sums.buckets, 0.99),
        })
        .collect()
}

/// Appends the page. `ejected` is the number of endpoints that are out now.
pub(crate) fn render(workers: &[Arc<Cells>], ejected: usize, out: &mut String) {
    // Writing to a string cannot fail.
    let _infallible = write_page(workers, ejected, out);
}

fn write_page(workers: &[Arc<Cells>], ejected: usize, out: &mut String) -> std::fmt::Result {
    let all: Vec<_> = summed(workers)
        .into_iter()
        .map(|(key, sums)| (labels(&key), sums))
        .collect();
    head(
        out,
        "mesh_proxy_requests_total",
        "counter",
        "requests and opaque connections that ended",
    )?;
    for (labels, sums) in &all {
        for (class, count) in CLASSES
            .iter()
            .zip(sums.classes)
            .filter(|(_, count)| *count > 0)
        {
            writeln!(
                out,
                "mesh_proxy_requests_total{{{labels},class=\"{class}\"}} {count}"
            )?;
        }
    }
    head(
        out,
        "mesh_proxy_request_duration_seconds",
        "histogram",
        "from first byte to end of answer",
    )?;
    for (labels, sums) in &all {
        durations(out, labels, sums)?;
    }
    let of_requests: [(&str, &str, Value); 3] = [
        (
            "mesh_proxy_retries_total",
            "tries beyond the first",
            |sums| sums.retries,
        ),
        (
            "mesh_proxy_received_bytes_total",
            "bytes of bodies from callers",
            |sums| sums.received,
        ),
        (
            "mesh_proxy_sent_bytes_total",
            "bytes of bodies to callers",
            |sums| sums.sent,
        ),
    ];
    for (name, help, value) in of_requests {
        head(out, name, "counter", help)?;
        for (labels, sums) in &all {
            writeln!(out, "{name}{{{labels}}} {}", value(sums))?;
        }
    }
    errors(workers, out)?;
    connections(workers, out)?;
    transport(workers, out)?;
    policies(workers, out)?;
    head(
        out,
        "mesh_proxy_ejected_endpoints",
        "gauge",
        "endpoints that are out now",
    )?;
    writeln!(out, "mesh_proxy_ejected_endpoints {ejected}")
}

fn head(out: &mut String, name: &str, kind: &str, help: &str) -> std::fmt::Result {
    writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}")
}

fn labels(key: &SeriesKey) -> String {
    format!(
        "direction=\"{}\",source=\"{}\",destination=\"{}\",route=\"{}\"",
        key.direction.as_str(),
        quoted(&key.source),
        quoted(&key.destination),
        quoted(&key.route)
    )
}

fn quoted(text: &str) -> String {
    text.replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('\n', "\\n")
}

/// Bounds are powers of two of a microsecond: from 128 us to 67 s.
fn durations(out: &mut String, labels: &str, sums: &Summed) -> std::fmt::Result {
    let name = "mesh_proxy_request_duration_seconds";
    for power in 7..=26 {
        let bound = 1u64 << power;
        let inside = sums
            .buckets
            .iter()
            .enumerate()
            .filter(|(bucket, _)| end_of(*bucket) <= bound);
        let count: u64 = inside.map(|(_, count)| count).sum();
        writeln!(
            out,
            "{name}_bucket{{{labels},le=\"{}\"}} {count}",
            Seconds(bound)
        )?;
    }
    let count: u64 = sums.buckets.iter().sum();
    writeln!(out, "{name}_bucket{{{labels},le=\"+Inf\"}} {count}")?;
    writeln!(out, "{name}_sum{{{labels}}} {}", Seconds(sums.sum_us))?;
    writeln!(out, "{name}_count{{{labels}}} {count}")
}

/// Microseconds written as seconds.
struct Seconds(u64);

impl std::fmt::Display for Seconds {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{:06}", self.0 / 1_000_000, self.0 % 1_000_000)
    }
}

fn errors(workers: &[Arc<Cells>], out: &mut String) -> std::fmt::Result {
    let mut all: BTreeMap<(Direction, &str), u64> = BTreeMap::new();
    for (direction, word, count) in workers.iter().flat_map(|cells| cells.errors.each()) {
        *all.entry((direction, word)).or_default() += count;
    }
    head(
        out,
        "mesh_proxy_errors_total",
        "counter",
        "requests that the mesh failed, by its code",
    )?;
    for ((direction, word), count) in all {
        let direction = direction.as_str();
        writeln!(
            out,
            "mesh_proxy_errors_total{{direction=\"{direction}\",code=\"{word}\"}} {count}"
        )?;
    }
    Ok(())
}

fn connections(workers: &[Arc<Cells>], out: &mut String) -> std::fmt::Result {
    let sum = |index: usize, begun: bool| -> u64 {
        let gauges = workers.iter().filter_map(|cells| cells.gauges.get(index));
        gauges
            .map(|gauge| {
                if begun {
                    gauge.begun.get()
                } else {
                    gauge.running()
                }
            })
            .sum()
    };
    head(
        out,
        "mesh_proxy_connections",
        "gauge",
        "open connections by listener",
    )?;
    for kind in Kind::ALL {
        let count = sum(kind as usize, false);
        writeln!(
            out,
            "mesh_proxy_connections{{listener=\"{}\"}} {count}",
            kind.as_str()
        )?;
    }
    head(
        out,
        "mesh_proxy_connections_total",
        "counter",
        "accepted connections by listener",
    )?;
    for kind in Kind::ALL {
        let count = sum(kind as usize, true);
        writeln!(
            out,
            "mesh_proxy_connections_total{{listener=\"{}\"}} {count}",
            kind.as_str()
        )?;
    }
    head(
        out,
        "mesh_proxy_requests_in_flight",
        "gauge",
        "running requests",
    )?;
    for direction in [Direction::Outbound, Direction::Inbound] {
        let count = sum(Kind::ALL.len() + direction as usize, false);
        let direction = direction.as_str();
        writeln!(
            out,
            "mesh_proxy_requests_in_flight{{direction=\"{direction}\"}} {count}"
        )?;
    }
    Ok(())
}

fn policies(workers: &[Arc<Cells>], out: &mut String) -> std::fmt::Result {
    let name = "mesh_proxy_policy_total";
    head(out, name, "counter", "what policies did to requests")?;
    let mut sums: BTreeMap<&str, u64> = BTreeMap::new();
    for (what, count) in workers.iter().flat_map(|cells| cells.policies.each()) {
        *sums.entry(what).or_default() += count;
    }
    for (what, count) in sums {
        writeln!(out, "{name}{{what=\"{what}\"}} {count}")?;
    }
    Ok(())
}

fn transport(workers: &[Arc<Cells>], out: &mut String) -> std::fmt::Result {
    let sum = |value: fn(&Transport) -> u64| -> u64 {
        workers.iter().map(|cells| value(&cells.transport)).sum()
    };
    let open = sum(|t| t.tunnels_opened.get()).saturating_sub(sum(|t| t.tunnels_closed.get()));
    head(
        out,
        "mesh_proxy_http2_connections",
        "gauge",
        "open HTTP/2 connections to endpoints",
    )?;
    writeln!(out, "mesh_proxy_http2_connections {open}")?;
    let (sides, name) = (
        [
            ("client", "ok", sum(|t| t.handshakes.get())),
            ("client", "failed", sum(|t| t.handshakes_failed.get())),
            ("server", "ok", sum(|t| t.accepts.get())),
            ("server", "failed", sum(|t| t.accepts_failed.get())),
        ],
        "mesh_proxy_handshakes_total",
    );
    head(out, name, "counter", "mTLS handshakes")?;
    for (side, result, count) in sides {
        writeln!(out, "{name}{{side=\"{side}\",result=\"{result}\"}} {count}")?;
    }
    let plain = [
        (
            "mesh_proxy_ejections_total",
            "endpoints put out",
            sum(|t| t.ejections.get()),
        ),
        (
            "mesh_proxy_retries_refused_total",
            "tries that the retry budget refused",
            sum(|t| t.retries_refused.get()),
        ),
        (
            "mesh_proxy_access_log_dropped_total",
            "chunks of log lines dropped because the writer was too slow",
            workers.iter().map(|cells| cells.log_dropped.get()).sum(),
        ),
        (
            "mesh_proxy_panics_total",
            "connections closed by a fault of the proxy",
            workers.iter().map(|cells| cells.panics.get()).sum(),
        ),
    ];
    for (name, help, count) in plain {
        head(out, name, "counter", help)?;
        writeln!(out, "{name} {count}")?;
    }
    Ok(())
}
