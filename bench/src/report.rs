//! The table for people and the file for machines.

use std::{fs, io::Write, path::Path, process::Command};

use anyhow::Context;
use serde::Serialize;

use crate::measure::Run;

/// CPU per request may be this many times HAProxy's.
const LIMIT_RATIO: f64 = 1.5;
/// Memory at rest, kilobytes.
const LIMIT_IDLE_KB: u64 = 40 * 1024;

/// A line on standard output; a reader that went away is no error.
pub(crate) fn say(line: &str) {
    drop(writeln!(std::io::stdout(), "{line}"));
}

/// One run, while it goes on.
pub(crate) fn progress(round: u32, run: &Run) {
    let cpu = run
        .cpu_us
        .map_or_else(|| "-".to_owned(), |cpu| format!("{cpu:.2} µs"));
    say(&format!(
        "round {round}: {:8} {:>9.0} requests/s, CPU per request {cpu}, p99 {}",
        run.peer, run.load.rate, run.load.p99
    ));
}

#[derive(Serialize)]
struct Summary {
    peer: &'static str,
    rate_median: f64,
    cpu_us_median: Option<f64>,
    cpu_us_all: Vec<f64>,
    requests: u64,
}

#[derive(Serialize)]
struct Results {
    what: &'static str,
    seconds_per_run: u32,
    connections: u32,
    cpu: String,
    kernel: String,
    haproxy: String,
    peers: Vec<Summary>,
    cpu_ratio_to_haproxy: Option<f64>,
    idle_rss_kb: u64,
    busy_rss_kb: u64,
}

/// Prints the table, writes the file.
pub(crate) fn finish(
    seconds: u32,
    connections: u32,
    runs: &[Run],
    idle_kb: u64,
    busy_kb: u64,
) -> anyhow::Result<()> {
    let peers: Vec<Summary> = ["direct", "haproxy", "meshd"]
        .iter()
        .map(|name| summary(name, runs))
        .collect();
    let cpu = |name: &str| {
        peers
            .iter()
            .find(|peer| peer.peer == name)
            .and_then(|peer| peer.cpu_us_median)
    };
    let ratio = cpu("meshd")
        .zip(cpu("haproxy"))
        .map(|(own, other)| own / other);
    say("");
    say("peer       requests/s   CPU per request   of HAProxy's");
    for peer in &peers {
        let own = peer
            .cpu_us_median
            .map_or_else(|| "-".to_owned(), |cpu| format!("{cpu:.2} µs"));
        let part = peer.cpu_us_median.zip(cpu("haproxy")).map_or_else(
            || "-".to_owned(),
            |(own, other)| format!("{:.2}", own / other),
        );
        say(&format!(
            "{:9} {:>11.0} {:>17} {:>14}",
            peer.peer, peer.rate_median, own, part
        ));
    }
    say("");
    if let Some(ratio) = ratio {
        let word = if ratio <= LIMIT_RATIO {
            "holds"
        } else {
            "DOES NOT HOLD"
        };
        say(&format!(
            "CPU per request {ratio:.2} × HAProxy's; the limit {LIMIT_RATIO} {word}"
        ));
    }
    let word = if idle_kb <= LIMIT_IDLE_KB {
        "holds"
    } else {
        "DOES NOT HOLD"
    };
    say(&format!(
        "memory at rest {} MB, after load {} MB; the limit {} MB {word}",
        idle_kb / 1024,
        busy_kb / 1024,
        LIMIT_IDLE_KB / 1024
    ));
    let results = Results {
        what: "explicit listener, plaintext HTTP/1.1 keep-alive, one worker; medians of interleaved runs",
        seconds_per_run: seconds,
        connections,
        cpu: cpu_model(),
        kernel: first_line("uname", &["-sr"]),
        haproxy: first_line("haproxy", &["-v"]),
        peers,
        cpu_ratio_to_haproxy: ratio,
        idle_rss_kb: idle_kb,
        busy_rss_kb: busy_kb,
    };
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("results");
    fs::create_dir_all(&folder)?;
    let text = serde_json::to_string_pretty(&results)? + "\n";
    fs::write(folder.join("latest.json"), text).context("bench/results/latest.json")
}

fn summary(name: &'static str, runs: &[Run]) -> Summary {
    let own: Vec<&Run> = runs.iter().filter(|run| run.peer == name).collect();
    let cpu_us_all: Vec<f64> = own.iter().filter_map(|run| run.cpu_us).collect();
    Summary {
        peer: name,
        rate_median: median(own.iter().map(|run| run.load.rate).collect()).unwrap_or_default(),
        cpu_us_median: median(cpu_us_all.clone()),
        cpu_us_all,
        requests: own.iter().map(|run| run.load.requests).sum(),
    }
}

fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied()
}

fn cpu_model() -> String {
    let text = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let line = text.lines().find(|line| line.starts_with("model name"));
    line.and_then(|line| line.split_once(": "))
        .map_or_else(String::new, |(_, name)| name.to_owned())
}

fn first_line(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output();
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
    text.unwrap_or_default()
        .lines()
        .next()
        .unwrap_or_default()
        .to_owned()
}
