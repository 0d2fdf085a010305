//! `edges`: who calls whom in the whole mesh, as every host counted it.

use std::time::Duration;

use mesh_model::admin::live::{EdgeRow, Edges};

use super::Session;
use crate::{
    args::EdgesArgs,
    failure::{Exit, Failure},
    print::{Paint, Printer, Put as _, Table},
    time,
};

/// What a host gets to answer beyond the time that is counted over.
const GRACE: Duration = Duration::from_secs(10);

/// Shows the edges. Exit 1 when a host did not answer.
pub(crate) async fn run(session: &Session, args: &EdgesArgs) -> Result<Exit, Failure> {
    let path = format!("/v1/edges?over={}", args.over.as_millis());
    let client = session.client.within(args.over + GRACE);
    let mut edges: Edges = client.get(&path).await?;
    if let Some(service) = &args.service {
        let full = super::full_name(service);
        let is = |name: &str| name == service || name == full;
        edges
            .edges
            .retain(|edge| is(&edge.source) || is(&edge.destination));
    }
    session
        .printer
        .show(&edges, |printer| text(printer, &edges))?;
    Ok(if edges.silent.is_empty() {
        Exit::Done
    } else {
        Exit::Finding
    })
}

fn text(printer: Printer, edges: &Edges) -> String {
    let mut table = Table::new(&[
        "SOURCE",
        "DESTINATION",
        "RATE",
        "REQUESTS",
        "SUCCESS",
        "P50",
        "P99",
        "SECURITY",
    ]);
    for edge in &edges.edges {
        table.row(vec![
            edge.source.clone(),
            edge.destination.clone(),
            if edge.rate > 0.0 {
                format!("{:.1}/s", edge.rate)
            } else {
                String::new()
            },
            edge.requests.to_string(),
            super::stat::share(edge.successes, edge.requests),
            time::millis(edge.p50_us),
            time::millis(edge.p99_us),
            security(edge),
        ]);
    }
    let mut out = table.render("no requests in this time");
    if !edges.silent.is_empty() {
        let silent = format!("could not be asked: {}", edges.silent.join(", "));
        writeln!(out, "\n{}", printer.paint(Paint::Warn, &silent));
    }
    out
}

/// `mTLS`, `plain`, or how much of it was plain.
fn security(edge: &EdgeRow) -> String {
    match edge.requests.saturating_sub(edge.secured) {
        0 => "mTLS".to_owned(),
        plain if plain == edge.requests => "plain".to_owned(),
        plain => format!("{} plain", super::stat::share(plain, edge.requests)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::print::Format;

    #[test]
    fn an_edge_is_a_line() {
        let edge = |secured| EdgeRow {
            source: "shop/web".into(),
            destination: "shop/cart".into(),
            rate: 12.5,
            requests: 25,
            successes: 24,
            secured,
            p50_us: 1_000,
            p99_us: 2_500,
            hosts: vec!["h1".into()],
        };
        let edges = Edges {
            edges: vec![edge(25), edge(0), edge(20)],
            silent: vec!["h3".into()],
        };
        let text = text(Printer::plain(Format::Table), &edges);
        let lines: Vec<&str> = text.lines().collect();
        assert!(
            lines[1].contains("12.5/s") && lines[1].contains("96.00%"),
            "{text}"
        );
        assert!(lines[1].trim_end().ends_with("mTLS"), "{text}");
        assert!(
            lines[2].trim_end().ends_with("plain") && !lines[2].contains('%')
                || lines[2].contains("96.00%"),
            "{text}"
        );
        assert!(lines[3].contains("20.00% plain"), "{text}");
        assert!(text.contains("could not be asked: h3"), "{text}");
    }
}
