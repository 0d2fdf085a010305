//! `cost`: what the mesh adds to calls from one service to another, by its daemons' own time stamps.

use std::time::Duration;

use mesh_model::admin::live::Cost;

use super::Session;
use crate::{
    args::CostArgs,
    failure::{Exit, Failure},
    print::{Printer, Put as _, Table},
    time,
};

/// What a host gets to answer beyond the time that is counted over.
const GRACE: Duration = Duration::from_secs(10);

/// Requests of a side below which its figures are chance: the p99 is then the slowest one.
const ENOUGH: u64 = 100;

/// Shows the cost. Exit 1 when no such call was seen.
pub(crate) async fn run(session: &Session, args: &CostArgs) -> Result<Exit, Failure> {
    let name = |given: &str| match given {
        "host" | "unknown" => given.to_owned(),
        given => super::full_name(given),
    };
    let (source, destination) = (name(&args.source), name(&args.destination));
    let path = format!(
        "/v1/cost?source={source}&destination={destination}&over={}",
        args.over.as_millis()
    );
    let client = session.client.within(args.over + GRACE);
    let cost: Cost = client.get(&path).await?;
    if cost.sides.is_empty() {
        return Err(Failure::new(
            Exit::Finding,
            "no-such-calls",
            format!("{source} {destination}"),
            "no host has seen such calls in this time",
            "see `meshctl edges` for who calls whom",
        ));
    }
    session
        .printer
        .show(&cost, |printer| text(printer, &cost))?;
    Ok(Exit::Done)
}

fn text(_printer: Printer, cost: &Cost) -> String {
    let mut table = Table::new(&["SIDE", "HOSTS", "REQUESTS", "P50", "P99", "CPU/REQUEST"]);
    for side in &cost.sides {
        table.row(vec![
            side.side.clone(),
            side.hosts.join(","),
            side.requests.to_string(),
            time::millis(side.p50_us),
            time::millis(side.p99_us),
            format!("{:.1} µs", side.cpu_us),
        ]);
    }
    let mut out = format!(
        "What the mesh adds from {} to {}\n\n{}",
        cost.source,
        cost.destination,
        table.render("")
    );
    writeln!(
        out,
        "\nA call takes {} (p50) and {} (p99) in all. CPU is the mean over all requests of these daemons.",
        time::millis(cost.total_p50_us),
        time::millis(cost.total_p99_us)
    );
    let fewest = cost.sides.iter().map(|side| side.requests).min();
    if let Some(fewest) = fewest.filter(|fewest| *fewest < ENOUGH) {
        writeln!(
            out,
            "\nOnly {fewest} requests: below {ENOUGH} these figures are chance, and CPU is mostly what the daemons do \
             anyway. Ask again with more of them."
        );
    }
    if !cost.silent.is_empty() {
        writeln!(out, "could not be asked: {}", cost.silent.join(", "));
    }
    out
}

#[cfg(test)]
mod tests {
    use mesh_model::admin::live::CostSide;

    use super::*;
    use crate::print::Format;

    /// The cost of an edge that both of its sides have counted.
    fn counted(outbound: u64, inbound: u64) -> String {
        let side = |side: &str, requests| CostSide {
            side: side.into(),
            hosts: vec!["h1".into()],
            requests,
            p50_us: 40,
            p99_us: 90,
            cpu_us: 21.5,
        };
        let cost = Cost {
            source: "a/b".into(),
            destination: "c/d".into(),
            sides: vec![side("outbound", outbound), side("inbound", inbound)],
            total_p50_us: 500,
            total_p99_us: 1_500,
            silent: Vec::new(),
        };
        text(Printer::plain(Format::Table), &cost)
    }

    #[test]
    fn few_requests_say_little() {
        assert!(counted(99, 200).contains("Only 99 requests: below 100"));
        assert!(counted(100, 3).contains("Only 3 requests"));
        assert!(!counted(100, 100).contains("Only"));
    }

    #[test]
    fn both_sides_are_told() {
        let text = counted(100, 100);
        assert!(
            text.contains("outbound") && text.contains("inbound"),
            "{text}"
        );
        assert!(
            text.contains("21.5 µs") && text.contains("1.5 ms"),
            "{text}"
        );
    }
}
