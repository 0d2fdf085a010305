//! Rows of results, one for each proxy and scenario, and the file that keeps them.

use std::{collections::BTreeMap, fs, path::PathBuf};

use anyhow::Context;
use serde_json::{Map, Value, json};

use crate::{
    contender::Proxy,
    machine::Machine,
    order::Order,
    statistic::{least, median, most},
};

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Column {
    /// CPU of the proxies for one request.
    CpuUsPerRequest,
    /// The part of it that is not the kernel's.
    CpuUserUsPerRequest,
    /// Requests a second.
    Rps,
    /// Median latency.
    P50Us,
    /// 99th percentile of the latency.
    P99Us,
    /// CPU of the proxies for 10^9 bytes.
    CpuSPerGb,
    /// 10^9 bits a second.
    GbitS,
    /// CPU of the proxies for one connection.
    CpuUsPerConnection,
    /// New connections a second.
    ConnectionsS,
    /// Growth of resident memory for one connection; of a pair the larger side.
    KbPerConnection,
    /// Resident memory of all processes.
    RssKb,
    /// Requests or connections without a right answer.
    Failed,
    /// CPU time, seconds.
    CpuS,
    /// Time on the clock, milliseconds.
    Ms,
    /// Growth of resident memory for one endpoint.
    BytesPerEndpoint,
    /// Requests a second while nothing changes.
    IdleRps,
}

/// Which of several rounds stands for all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stands {
    Least,
    Median,
    Most,
    Sum,
}

impl Column {
    /// As it stands in the file.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::CpuUsPerRequest => "cpu_us_per_request",
            Self::CpuUserUsPerRequest => "cpu_user_us_per_request",
            Self::Rps => "rps",
            Self::P50Us => "p50_us",
            Self::P99Us => "p99_us",
            Self::CpuSPerGb => "cpu_s_per_gb",
            Self::GbitS => "gbit_s",
            Self::CpuUsPerConnection => "cpu_us_per_connection",
            Self::ConnectionsS => "connections_s",
            Self::KbPerConnection => "kb_per_connection",
            Self::RssKb => "rss_kb",
            Self::Failed => "failed",
            Self::CpuS => "cpu_s",
            Self::Ms => "ms",
            Self::BytesPerEndpoint => "bytes_per_endpoint",
            Self::IdleRps => "idle_requests_s",
        }
    }

    /// As people read it.
    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::CpuUsPerRequest => "CPU µs/request",
            Self::CpuUserUsPerRequest => "of it in the program",
            Self::Rps => "requests/s",
            Self::P50Us => "p50 µs",
            Self::P99Us => "p99 µs",
            Self::CpuSPerGb => "CPU s/GB",
            Self::GbitS => "Gbit/s",
            Self::CpuUsPerConnection => "CPU µs/connection",
            Self::ConnectionsS => "connections/s",
            Self::KbPerConnection => "KB/connection",
            Self::RssKb => "RSS MB",
            Self::Failed => "failed",
            Self::CpuS => "CPU s",
            Self::Ms => "ms",
            Self::BytesPerEndpoint => "bytes/endpoint",
            Self::IdleRps => "idle requests/s",
        }
    }

    /// A figure of this column as text.
    pub(crate) fn show(self, value: f64) -> String {
        match self {
            Self::CpuSPerGb => format!("{value:.3}"),
            Self::CpuS | Self::IdleRps => format!("{value:.2}"),
            Self::CpuUsPerRequest
            | Self::CpuUserUsPerRequest
            | Self::GbitS
            | Self::CpuUsPerConnection
            | Self::KbPerConnection => format!("{value:.1}"),
            Self::RssKb => format!("{:.1}", value / 1024.0),
            Self::Rps
            | Self::P50Us
            | Self::P99Us
            | Self::ConnectionsS
            | Self::Failed
            | Self::Ms
            | Self::BytesPerEndpoint => format!("{value:.0}"),
        }
    }

    /// CPU is disturbed upwards only, so its smallest value is the least disturbed one; how it is split is
    /// sampled by the kernel, so there, and of latencies, the middle is meant; failures add up.
    fn stands(self) -> Stands {
        match self {
            Self::CpuUsPerRequest | Self::CpuSPerGb | Self::CpuUsPerConnection | Self::CpuS => {
                Stands::Least
            }
            Self::Rps | Self::GbitS | Self::ConnectionsS | Self::RssKb => Stands::Most,
            Self::CpuUserUsPerRequest
            | Self::P50Us
            | Self::P99Us
            | Self::KbPerConnection
            | Self::Ms
            | Self::BytesPerEndpoint
            | Self::IdleRps => Stands::Median,
            Self::Failed => Stands::Sum,
        }
    }
}

/// The figures of one run.
pub(crate) type Figures = Vec<(Column, f64)>;

/// What one proxy did in one scenario.
#[derive(Debug, Clone)]
pub(crate) struct Row {
    /// The scenario, such as `h1` or `hop_4000`.
    pub(crate) scenario: String,
    /// Who.
    pub(crate) proxy: Proxy,
    /// The figures of all rounds.
    pub(crate) rounds: BTreeMap<Column, Vec<f64>>,
}

impl Row {
    /// The figure that stands for all rounds.
    pub(crate) fn figure(&self, column: Column) -> Option<f64> {
        let values = self.rounds.get(&column)?;
        match column.stands() {
            Stands::Least => least(values),
            Stands::Most => most(values),
            Stands::Median => median(values),
            Stands::Sum => Some(values.iter().sum()),
        }
    }

    fn json(&self) -> Value {
        let mut map = Map::new();
        map.insert("scenario".to_owned(), self.scenario.clone().into());
        map.insert("proxy".to_owned(), self.proxy.name().into());
        for (column, values) in &self.rounds {
            map.insert(column.name().to_owned(), short(self.figure(*column)));
            if values.len() > 1 {
                for (suffix, value) in [
                    ("min", least(values)),
                    ("median", median(values)),
                    ("max", most(values)),
                ] {
                    map.insert(format!("{}_{suffix}", column.name()), short(value));
                }
            }
        }
        Value::Object(map)
    }
}

const WHAT: &str = "CPU of the proxies' processes, one worker each, on CPU 0; load and backends on CPU 1; \
    interleaved rounds; CPU figures are the smallest of the rounds, rates the largest, latencies the median";

/// A list with one entry a line.
fn lines(values: &[Value]) -> String {
    let lines: Vec<String> = values.iter().map(Value::to_string).collect();
    if lines.is_empty() {
        return "[]".to_owned();
    }
    format!("[\n  {}\n]", lines.join(",\n  "))
}

/// Three digits behind the point.
fn short(value: Option<f64>) -> Value {
    value.map_or(Value::Null, |value| {
        ((value * 1000.0).round() / 1000.0).into()
    })
}

/// Everything that was measured.
#[derive(Debug, Default)]
pub(crate) struct Results {
    /// One row for each proxy and scenario, in the order of running.
    pub(crate) rows: Vec<Row>,
    /// What could not be measured: scenario, proxy, why.
    pub(crate) faults: Vec<(String, Proxy, String)>,
}

impl Results {
    /// Adds one round's figures.
    pub(crate) fn add(&mut self, scenario: &str, proxy: Proxy, figures: Figures) {
        let known = |row: &Row| row.scenario == scenario && row.proxy == proxy;
        if !self.rows.iter().any(known) {
            self.rows.push(Row {
                scenario: scenario.to_owned(),
                proxy,
                rounds: BTreeMap::new(),
            });
        }
        if let Some(row) = self.rows.iter_mut().find(|row| known(row)) {
            for (column, value) in figures {
                row.rounds.entry(column).or_default().push(value);
            }
        }
    }

    /// A row.
    pub(crate) fn row(&self, scenario: &str, proxy: Proxy) -> Option<&Row> {
        self.rows
            .iter()
            .find(|row| row.scenario == scenario && row.proxy == proxy)
    }

    /// A row's figure.
    pub(crate) fn figure(&self, scenario: &str, proxy: Proxy, column: Column) -> Option<f64> {
        self.row(scenario, proxy)?.figure(column)
    }

    /// The scenarios, each once, in the order of running.
    pub(crate) fn scenarios(&self) -> Vec<&str> {
        let mut names: Vec<&str> = Vec::new();
        for row in &self.rows {
            if !names.contains(&row.scenario.as_str()) {
                names.push(&row.scenario);
            }
        }
        names
    }

    /// Writes `bench/results/latest.json`; of a part of the scenarios `bench/results/part.json`, which is
    /// not kept in the repository.
    pub(crate) fn write(
        &self,
        order: &Order,
        machine: &Machine,
        limits: &[Value],
    ) -> anyhow::Result<PathBuf> {
        let faults: Vec<Value> = self
            .faults
            .iter()
            .map(|(scenario, proxy, why)| {
                json!({ "scenario": scenario, "proxy": proxy.name(), "why": why })
            })
            .collect();
        let rows: Vec<Value> = self.rows.iter().map(Row::json).collect();
        let machine = serde_json::to_string_pretty(machine)?;
        let text = format!(
            "{{\n\"what\": {},\n\"rounds\": {},\n\"seconds_per_run\": {},\n\"machine\": {machine},\n\
             \"rows\": {},\n\"limits\": {},\n\"not_measured\": {}\n}}\n",
            Value::from(WHAT),
            order.rounds,
            order.seconds,
            lines(&rows),
            lines(limits),
            lines(&faults)
        );
        let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("results");
        fs::create_dir_all(&folder)?;
        let name = if order.whole() {
            "latest.json"
        } else {
            "part.json"
        };
        let path = folder.join(name);
        fs::write(&path, text).with_context(|| path.display().to_string())?;
        Ok(path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_is_the_least_and_failures_add_up() {
        let mut results = Results::default();
        for (cpu, p99) in [(20.0, 100.0), (15.0, 900.0), (16.0, 120.0)] {
            results.add(
                "h1",
                Proxy::Meshd,
                vec![
                    (Column::CpuUsPerRequest, cpu),
                    (Column::P99Us, p99),
                    (Column::Failed, 1.0),
                ],
            );
        }
        let figure = |column| results.figure("h1", Proxy::Meshd, column);
        assert_eq!(figure(Column::CpuUsPerRequest), Some(15.0));
        assert_eq!(figure(Column::P99Us), Some(120.0));
        assert_eq!(figure(Column::Failed), Some(3.0));
        assert_eq!(figure(Column::Rps), None);
        let json = results.row("h1", Proxy::Meshd).unwrap().json();
        assert_eq!(json["cpu_us_per_request_median"], 16.0);
        assert_eq!(json["proxy"], "meshd");
        let text = lines(&[json.clone(), json]);
        assert_eq!(text.lines().count(), 4);
        assert!(serde_json::from_str::<Value>(&text).is_ok());
    }
}
