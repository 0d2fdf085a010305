//! `stat`: requests by source, destination and route, since the daemon's start or over a while.

use std::time::Duration;

use mesh_model::admin::StatRow;
use serde::Serialize;

use super::Session;
use crate::{
    args::StatArgs,
    failure::{Exit, Failure},
    print::Table,
    time,
};

/// A row with what follows from two samples.
#[derive(Debug, PartialEq, Serialize)]
struct Row {
    #[serde(flatten)]
    row: StatRow,
    /// Requests per second; absent without `--over`.
    rate: Option<f64>,
}

/// Shows the counts.
pub(crate) async fn run(session: &Session, args: &StatArgs) -> Result<Exit, Failure> {
    let mut rows: Vec<StatRow> = session.client.get("/v1/stat").await?;
    let mut over = None;
    if let Some(span) = args.over {
        tokio::time::sleep(span).await;
        let later: Vec<StatRow> = session.client.get("/v1/stat").await?;
        rows = between(&rows, later);
        over = Some(span);
    }
    if let Some(service) = &args.service {
        rows.retain(|row| {
            row.destination == *service || row.destination == super::full_name(service)
        });
    }
    let rows: Vec<Row> = rows
        .into_iter()
        .map(|row| Row {
            rate: over.map(|span| rate(&row, span)),
            row,
        })
        .collect();
    session.printer.show(&rows, |_| text(&rows))?;
    Ok(Exit::Done)
}

/// What was added between two samples; percentiles are those of the later one.
fn between(before: &[StatRow], after: Vec<StatRow>) -> Vec<StatRow> {
    let key = |row: &StatRow| {
        (
            row.source.clone(),
            row.destination.clone(),
            row.route.clone(),
        )
    };
    after
        .into_iter()
        .map(
            |row| match before.iter().find(|old| key(old) == key(&row)) {
                Some(old) if old.requests <= row.requests => StatRow {
                    requests: row.requests - old.requests,
                    successes: row.successes.saturating_sub(old.successes),
                    retries: row.retries.saturating_sub(old.retries),
                    ..row
                },
                _ => row,
            },
        )
        .filter(|row| row.requests > 0)
        .collect()
}

#[expect(
    clippy::cast_precision_loss,
    reason = "a rate for people; counts stay far below 2^53"
)]
fn rate(row: &StatRow, span: Duration) -> f64 {
    let rate = row.requests as f64 / span.as_secs_f64().max(0.001);
    (rate * 10.0).round() / 10.0
}

fn text(rows: &[Row]) -> String {
    let mut table = Table::new(&[
        "SOURCE",
        "DESTINATION",
        "ROUTE",
        "REQUESTS",
        "RATE",
        "SUCCESS",
        "RETRIES",
        "P50",
        "P99",
    ]);
    for Row { row, rate } in rows {
        table.row(vec![
            row.source.clone(),
            row.destination.clone(),
            row.route.clone(),
            row.requests.to_string(),
            rate.map(|rate| format!("{rate:.1}/s")).unwrap_or_default(),
            share(row.successes, row.requests),
            row.retries.to_string(),
            time::millis(row.p50_us),
            time::millis(row.p99_us),
        ]);
    }
    table.render("no requests yet")
}

/// A share in per cent with two places; rounded down, so that 100 % means all.
pub(super) fn share(part: u64, whole: u64) -> String {
    if whole == 0 {
        return String::new();
    }
    let hundredths = u128::from(part) * 10_000 / u128::from(whole);
    format!("{}.{:02}%", hundredths / 100, hundredths % 100)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(destination: &str, requests: u64, successes: u64) -> StatRow {
        StatRow {
            source: "a".into(),
            destination: destination.into(),
            route: String::new(),
            requests,
            successes,
            retries: 0,
            p50_us: 1_000,
            p99_us: 2_500,
        }
    }

    #[test]
    fn shares_never_round_up() {
        assert_eq!(share(1_999_999, 2_000_000), "99.99%");
        assert_eq!(share(3, 3), "100.00%");
        assert_eq!(share(0, 0), "");
    }

    #[test]
    fn only_what_came_between() {
        let rows = between(
            &[row("x", 10, 9), row("y", 5, 5)],
            vec![row("x", 30, 19), row("y", 5, 5), row("z", 1, 1)],
        );
        assert_eq!(rows, [row("x", 20, 10), row("z", 1, 1)]);
        assert!((rate(&rows[0], Duration::from_secs(2)) - 10.0).abs() < 0.01);
        let restarted = between(&[row("x", 10, 9)], vec![row("x", 3, 3)]);
        assert_eq!(restarted, [row("x", 3, 3)]);
        let text = text(&[Row {
            row: row("x", 4, 3),
            rate: Some(2.0),
        }]);
        assert!(
            text.contains("75.00%") && text.contains("2.0/s") && text.contains("2.5 ms"),
            "{text}"
        );
    }
}
