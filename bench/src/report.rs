//! What a terminal shows: runs as they end, then the table, the ratios, and the limits.

use std::io::Write;

use crate::{
    contender::Proxy,
    limit::Verdict,
    results::{Column, Figures, Results},
};

/// A line on standard output; a reader that went away is no error.
pub(crate) fn say(line: &str) {
    drop(writeln!(std::io::stdout(), "{line}"));
}

/// A line on standard error.
pub(crate) fn complain(line: &str) {
    drop(writeln!(std::io::stderr(), "{line}"));
}

/// One run, as it ends.
pub(crate) fn progress(scenario: &str, proxy: Proxy, figures: &Figures) {
    let figures: Vec<String> = figures
        .iter()
        .map(|(column, value)| format!("{} {}", column.title(), column.show(*value)))
        .collect();
    say(&format!(
        "  {scenario:18} {:8} {}",
        proxy.name(),
        figures.join(", ")
    ));
}

/// One that could not be measured.
pub(crate) fn fault(scenario: &str, proxy: Proxy, why: &str) {
    let lines: Vec<&str> = why.lines().collect();
    let short: String = lines.join(" | ").chars().take(600).collect();
    complain(&format!(
        "  {scenario:18} {:8} NOT MEASURED: {short}",
        proxy.name()
    ));
}

/// The table by scenario, with the ratio to each peer behind meshd's figures.
pub(crate) fn table(results: &Results) {
    for scenario in results.scenarios() {
        say("");
        let columns = columns(results, scenario);
        let mut head = format!("{scenario:18}");
        for column in &columns {
            head = format!("{head} {:>20}", column.title());
        }
        say(&format!("{head}   meshd is × of it"));
        for proxy in Proxy::ALL {
            let Some(row) = results.row(scenario, proxy) else {
                continue;
            };
            let mut line = format!("  {:16}", proxy.title());
            for column in &columns {
                let text = row
                    .figure(*column)
                    .map_or_else(|| "-".to_owned(), |value| column.show(value));
                line = format!("{line} {text:>20}");
            }
            if let Some((column, ratio)) = ratio(results, scenario, proxy) {
                line = format!("{line}   {ratio:.2} {}", column.title());
            }
            say(&line);
        }
    }
    say("");
}

/// The columns that a scenario has, in their order.
pub(crate) fn columns(results: &Results, scenario: &str) -> Vec<Column> {
    let mut columns: Vec<Column> = results
        .rows
        .iter()
        .filter(|row| row.scenario == scenario)
        .flat_map(|row| row.rounds.keys().copied())
        .collect();
    columns.sort();
    columns.dedup();
    columns
}

/// The figure by which the proxies of a scenario are compared: its cost.
pub(crate) fn subject(scenario: &str, columns: &[Column]) -> Option<Column> {
    let at_rate = scenario.contains("_half") || scenario.ends_with("_4000");
    if at_rate {
        return Some(Column::P99Us);
    }
    if scenario.starts_with("slow") {
        return Some(Column::RssKb);
    }
    [
        Column::CpuUsPerRequest,
        Column::CpuSPerGb,
        Column::CpuUsPerConnection,
        Column::KbPerConnection,
    ]
    .into_iter()
    .find(|column| columns.contains(column))
}

/// How many times a peer's cost meshd's is.
pub(crate) fn ratio(results: &Results, scenario: &str, proxy: Proxy) -> Option<(Column, f64)> {
    if matches!(proxy, Proxy::Direct | Proxy::Meshd) {
        return None;
    }
    let column = subject(scenario, &columns(results, scenario))?;
    let own = results.figure(scenario, Proxy::Meshd, column)?;
    let other = results.figure(scenario, proxy, column)?;
    (other > 0.0).then_some((column, own / other))
}

/// The limits, each with `ok` or `NOT`.
pub(crate) fn limits(verdicts: &[Verdict]) {
    if verdicts.is_empty() {
        return;
    }
    say("limit                                                       measured     limit");
    for verdict in verdicts {
        let what = if verdict.against.is_empty() {
            format!("{} {}", verdict.scenario, verdict.column.title())
        } else {
            format!(
                "{} {} × of {}",
                verdict.scenario,
                verdict.column.title(),
                verdict.against
            )
        };
        say(&format!(
            "{what:54} {:>13} {:>9.2}  {}",
            verdict.shown(),
            verdict.limit,
            verdict.word()
        ));
    }
    let not = verdicts.iter().filter(|verdict| !verdict.holds()).count();
    say(&format!("{} limits, {not} not held", verdicts.len()));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ratio_is_of_the_scenarios_cost() {
        let mut results = Results::default();
        results.add(
            "hop",
            Proxy::Meshd,
            vec![(Column::CpuUsPerRequest, 20.0), (Column::Rps, 1.0)],
        );
        results.add(
            "hop",
            Proxy::Envoy,
            vec![(Column::CpuUsPerRequest, 80.0), (Column::Rps, 2.0)],
        );
        results.add(
            "hop_4000",
            Proxy::Meshd,
            vec![(Column::CpuUsPerRequest, 9.0), (Column::P99Us, 300.0)],
        );
        results.add(
            "hop_4000",
            Proxy::Envoy,
            vec![(Column::CpuUsPerRequest, 9.0), (Column::P99Us, 600.0)],
        );
        assert_eq!(
            ratio(&results, "hop", Proxy::Envoy),
            Some((Column::CpuUsPerRequest, 0.25))
        );
        assert_eq!(
            ratio(&results, "hop_4000", Proxy::Envoy),
            Some((Column::P99Us, 0.5))
        );
        assert_eq!(ratio(&results, "hop", Proxy::Direct), None);
        assert_eq!(ratio(&results, "hop", Proxy::Nginx), None);
    }
}
