//! `docs/performance.md`, its plots, and the README's part: what the bench itself writes, between markers.

use std::{
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
};

use anyhow::Context;
use mesh_tests::binary::workspace;

use crate::{
    contender::Proxy,
    limit::Verdict,
    machine::Machine,
    order::Order,
    plot::{Group, bars},
    report::{columns, ratio},
    results::{Column, Results},
    title::{short, title},
};

/// Everything that the page tells.
pub(crate) struct Facts<'s> {
    /// What was asked for.
    pub(crate) order: &'s Order,
    /// Where it ran.
    pub(crate) machine: &'s Machine,
    /// What was measured.
    pub(crate) results: &'s Results,
    /// What that means.
    pub(crate) verdicts: &'s [Verdict],
}

/// A plot: file, title, column, scenarios.
struct Plot(&'static str, &'static str, Column, &'static [&'static str]);

const PLOTS: [Plot; 4] = [
    Plot(
        "performance-requests.svg",
        "CPU µs per request at saturation, one worker (less is better; each group has its own scale)",
        Column::CpuUsPerRequest,
        &[
            "h1",
            "redir",
            "hop",
            "h2h1",
            "h2h2",
            "grpc_unary",
            "grpc_stream",
        ],
    ),
    Plot(
        "performance-latency.svg",
        "p99 µs at a constant rate (less is better; each group has its own scale)",
        Column::P99Us,
        &["h1_half", "redir_half", "hop_half", "hop_4000"],
    ),
    Plot(
        "performance-bytes.svg",
        "CPU seconds per 10⁹ TCP bytes (less is better; each group has its own scale)",
        Column::CpuSPerGb,
        &["tcp", "tcpmtls"],
    ),
    Plot(
        "performance-memory.svg",
        "KB of resident memory per idle connection (less is better; each group has its own scale)",
        Column::KbPerConnection,
        &[
            "idle_h1_10000",
            "idle_hop_10000",
            "idle_tcp_9000",
            "idle_tcpmtls_9000",
            "idle_mtls_10000",
        ],
    ),
];

/// Writes page, plots and the README's part; returns what was written.
pub(crate) fn write(facts: &Facts<'_>) -> anyhow::Result<Vec<PathBuf>> {
    let root = workspace();
    let mut written = Vec::new();
    for Plot(file, title, column, scenarios) in &PLOTS {
        let path = root.join("docs").join(file);
        fs::write(&path, plot(facts.results, title, *column, scenarios))?;
        written.push(path);
    }
    for (file, part) in [
        ("docs/performance.md", page(facts)),
        ("README.md", summary(facts)),
    ] {
        let path = root.join(file);
        put(&path, &part)?;
        written.push(path);
    }
    Ok(written)
}

const BEGIN: &str = "<!-- bench: written by make bench -->\n";
const END: &str = "<!-- /bench -->\n";

/// Replaces what stands between the markers of a file.
fn put(path: &Path, part: &str) -> anyhow::Result<()> {
    let text = fs::read_to_string(path).with_context(|| path.display().to_string())?;
    let text = between(&text, part).with_context(|| format!("no markers in {}", path.display()))?;
    Ok(fs::write(path, text)?)
}

fn between(text: &str, part: &str) -> Option<String> {
    let (before, rest) = text.split_once(BEGIN)?;
    let (_, after) = rest.split_once(END)?;
    Some(format!("{before}{BEGIN}{part}{END}{after}"))
}

fn plot(results: &Results, title: &str, column: Column, scenarios: &[&str]) -> String {
    let groups: Vec<Group> = scenarios
        .iter()
        .filter_map(|scenario| {
            let bars: Vec<(Proxy, f64)> = Proxy::ALL
                .into_iter()
                .filter_map(|proxy| Some((proxy, results.figure(scenario, proxy, column)?)))
                .collect();
            (!bars.is_empty()).then(|| Group {
                title: short(scenario).to_owned(),
                shown: bars.iter().map(|(_, value)| column.show(*value)).collect(),
                bars,
            })
        })
        .collect();
    bars(title, &groups)
}

fn page(facts: &Facts<'_>) -> String {
    let mut text = String::new();
    machine(&mut text, facts);
    limits(&mut text, facts.verdicts);
    for Plot(file, title, ..) in &PLOTS {
        line(&mut text, &format!("![{title}]({file})\n"));
    }
    line(&mut text, "### Every figure\n");
    for scenario in facts.results.scenarios() {
        table(&mut text, facts.results, scenario);
    }
    if !facts.results.faults.is_empty() {
        line(&mut text, "Not measured:\n");
        for (scenario, proxy, why) in &facts.results.faults {
            let why = why.lines().next().unwrap_or_default();
            line(
                &mut text,
                &format!("* {scenario}, {}: {why}", proxy.title()),
            );
        }
        line(&mut text, "");
    }
    text
}

fn line(text: &mut String, line: &str) {
    text.push_str(line);
    text.push('\n');
}

fn machine(text: &mut String, facts: &Facts<'_>) {
    let Machine {
        cpu,
        cpus,
        kernel,
        system,
        date,
        load_before,
        versions,
    } = facts.machine;
    let quiet = if disturbed(facts.machine) {
        "**The machine had other work as well**, so rates and latencies are worse than they would be alone, \
         for everybody; of CPU figures the smallest of the rounds is the least disturbed one"
    } else {
        "the machine had nothing else to do when it began"
    };
    line(
        text,
        &format!(
            "Measured on {date}: {cpus} × {cpu}, {kernel}, {system}; {} rounds of {} s, interleaved; load {load_before:.2} \
             before: {quiet}.\n",
            facts.order.rounds, facts.order.seconds
        ),
    );
    line(text, "| program | version |\n|---|---|");
    for (name, version) in versions {
        line(text, &format!("| {name} | {version} |"));
    }
    line(text, "");
}

fn limits(text: &mut String, verdicts: &[Verdict]) {
    line(
        text,
        "| what | of | measured | limit | |\n|---|---|---|---|---|",
    );
    for verdict in verdicts {
        let of = if verdict.against.is_empty() {
            ""
        } else {
            "× "
        };
        line(
            text,
            &format!(
                "| {}: {} | {of}{} | {} | {:.2} | {} |",
                title(verdict.scenario),
                verdict.column.title(),
                if verdict.against == "swap_none" {
                    "without"
                } else {
                    &verdict.against
                },
                verdict.shown(),
                verdict.limit,
                verdict.word()
            ),
        );
    }
    line(text, "");
}

fn table(text: &mut String, results: &Results, scenario: &str) {
    let columns = columns(results, scenario);
    let heads: Vec<&str> = columns.iter().map(|column| column.title()).collect();
    line(text, &format!("**{}** (`{scenario}`)\n", title(scenario)));
    line(text, &format!("| | {} | meshd's is |", heads.join(" | ")));
    line(text, &format!("|---|{}---|", "---|".repeat(columns.len())));
    for proxy in Proxy::ALL {
        let Some(row) = results.row(scenario, proxy) else {
            continue;
        };
        let _infallible = write!(text, "| {} |", proxy.title());
        for column in &columns {
            let shown = row.figure(*column).map(|value| column.show(value));
            let _infallible = write!(text, " {} |", shown.unwrap_or_default());
        }
        match ratio(results, scenario, proxy) {
            Some((column, ratio)) => line(text, &format!(" {ratio:.2} × {} |", column.title())),
            None => line(text, " |"),
        }
    }
    line(text, "");
}

/// True when somebody else was at work on the machine as well.
fn disturbed(machine: &Machine) -> bool {
    machine.load_before > 0.5
}

/// CPU for each request of the scenarios that people ask for first.
fn summary(facts: &Facts<'_>) -> String {
    let mut text = String::new();
    line(
        &mut text,
        "![CPU per request](docs/performance-requests.svg)\n",
    );
    line(
        &mut text,
        "| CPU µs per request, one worker | meshd | Envoy | HAProxy | nginx |\n|---|---|---|---|---|",
    );
    for scenario in ["h1", "redir", "hop", "h2h1", "h2h2", "grpc_unary"] {
        let shown = |proxy| {
            let figure = facts
                .results
                .figure(scenario, proxy, Column::CpuUsPerRequest);
            figure.map_or_else(|| "–".to_owned(), |value| format!("{value:.1}"))
        };
        line(
            &mut text,
            &format!(
                "| {} | {} | {} | {} | {} |",
                title(scenario),
                shown(Proxy::Meshd),
                shown(Proxy::Envoy),
                shown(Proxy::Haproxy),
                shown(Proxy::Nginx)
            ),
        );
    }
    if disturbed(facts.machine) {
        line(
            &mut text,
            "\nMeasured while the machine had other work as well: everybody's figures are higher than alone.",
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limit::judge;

    fn results() -> Results {
        let mut results = Results::default();
        for (proxy, cpu) in [
            (Proxy::Meshd, 15.04),
            (Proxy::Envoy, 40.0),
            (Proxy::Haproxy, 16.0),
        ] {
            results.add(
                "h1",
                proxy,
                vec![(Column::CpuUsPerRequest, cpu), (Column::Rps, 6e4)],
            );
        }
        results
    }

    #[test]
    fn the_page_tells_figures_ratios_and_limits() {
        let order = Order::read(&[], &|_| None).unwrap();
        let (results, machine) = (results(), Machine::read());
        let verdicts = judge(&results, &|_| true);
        let facts = Facts {
            order: &order,
            machine: &machine,
            results: &results,
            verdicts: &verdicts,
        };
        let page = page(&facts);
        assert!(page.contains("| meshd | 15.0 | 60000 | |"), "{page}");
        assert!(
            page.contains("| Envoy | 40.0 | 60000 | 0.38 × CPU µs/request |"),
            "{page}"
        );
        assert!(page.contains("× HAProxy | 0.94 | 1.10 | ok |"), "{page}");
        assert!(summary(&facts).contains("| 15.0 | 40.0 | 16.0 | – |"));
        assert!(plot(&results, "t", Column::CpuUsPerRequest, &["h1", "hop"]).contains("15.0"));
    }

    #[test]
    fn only_what_is_between_the_markers_changes() {
        let text = format!("a\n{BEGIN}old\n{END}b\n");
        assert_eq!(
            between(&text, "new\n").unwrap(),
            format!("a\n{BEGIN}new\n{END}b\n")
        );
        assert!(between("a", "b").is_none());
    }
}
