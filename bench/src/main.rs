//! The benchmark: meshd beside Envoy, HAProxy and nginx, in interleaved runs on the same machine.
//!
//! One worker each, every proxy on CPU 0 (one at a time has work), load and backends on CPU 1, all of it in
//! private namespaces. In: built programs, `wrk`, `h2load` and the peers. Out: a table with the required
//! ratios, `bench/results/latest.json`, and `docs/performance.md` with its plots.
//! A benchmark, not a test: it fails only when it cannot measure.

use std::process::ExitCode;

/// Who is measured, and where its load goes.
mod contender;
/// The limits that hold for meshd, and whether they do.
mod limit;
/// Programs that make load, and what they say.
mod load;
/// The machine and the versions of what was measured.
mod machine;
/// What the kernel says of processes.
mod measure;
/// What to run: scenarios, rounds, seconds.
mod order;
/// `docs/performance.md`, its plots, and the README's part.
mod page;
/// The programs under test, configured and started.
mod peer;
/// What every room needs of a host.
mod place;
/// Bars as SVG.
mod plot;
/// What a terminal shows.
mod report;
/// Rows of results, and the file.
mod results;
/// What is measured, one room for each kind.
mod scenario;
/// The hosts, their backends and the rules between them.
mod stage;
/// Order statistics.
mod statistic;
/// The words for each scenario.
mod title;
/// The bench's own small programs.
mod tool;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let result = tool::run(&arguments).unwrap_or_else(|| {
        order::Order::read(&arguments, &|name| std::env::var(name).ok())
            .map_err(anyhow::Error::from)
            .and_then(|order| scenario::run(&order))
    });
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            report::complain(&format!("the benchmark could not measure: {error:#}"));
            ExitCode::FAILURE
        }
    }
}
