//! The benchmark: CPU per request of meshd's explicit listener beside HAProxy's, in interleaved runs on the
//! same machine, and memory at rest.
//!
//! Plaintext HTTP/1.1 with keep-alive, one worker each. The proxies share CPU 0 (one at a time has work),
//! the load and the backend CPU 1. In: built programs and `wrk`, `haproxy`. Out: a table, and
//! `bench/results/latest.json`. A benchmark, not a test: it fails only when it cannot measure.

use std::{path::PathBuf, process::ExitCode};

/// A backend that costs as little as it can.
mod backend;
/// `wrk`, and what it says.
mod load;
/// What the kernel says of a process.
mod measure;
/// The programs under test, started and ended.
mod peer;
/// The table and the file.
mod report;

use peer::Peer;

/// What is run.
struct Plan {
    rounds: u32,
    seconds: u32,
    connections: u32,
    programs: PathBuf,
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let result = match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["backend", port] => port
            .parse()
            .map_err(anyhow::Error::from)
            .and_then(backend::serve),
        _ => plan(&arguments).and_then(|plan| run(&plan)),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            report::say(&format!("the benchmark could not measure: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn plan(arguments: &[String]) -> anyhow::Result<Plan> {
    let own = std::env::current_exe()?;
    let programs = own
        .parent()
        .map_or_else(PathBuf::new, std::path::Path::to_owned);
    let mut plan = Plan {
        rounds: 5,
        seconds: 5,
        connections: 32,
        programs,
    };
    for pair in arguments.chunks(2) {
        match pair {
            [flag, value] if flag == "--rounds" => plan.rounds = value.parse()?,
            [flag, value] if flag == "--seconds" => plan.seconds = value.parse()?,
            [flag, value] if flag == "--connections" => plan.connections = value.parse()?,
            _ => anyhow::bail!("usage: mesh-bench [--rounds N] [--seconds N] [--connections N]"),
        }
    }
    Ok(plan)
}

fn run(plan: &Plan) -> anyhow::Result<()> {
    let place = tempfile::tempdir()?;
    let backend = peer::backend()?;
    let direct = Peer::direct(&backend);
    report::say("starting HAProxy and meshd");
    let haproxy = Peer::haproxy(place.path(), &backend)?;
    let meshd = Peer::meshd(place.path(), &plan.programs, &backend)?;
    let idle = measure::settled_memory(&meshd)?;
    let mut peers = [direct, haproxy, meshd];
    for peer in &peers {
        load::run(peer, 1, plan.connections)?;
    }
    let mut runs = Vec::new();
    for round in 0..plan.rounds {
        for peer in &peers {
            let run = measure::one(peer, plan.seconds, plan.connections)?;
            report::progress(round + 1, &run);
            runs.push(run);
        }
        // Another order each round, so that no peer always follows the same one.
        peers.rotate_left(1);
    }
    let meshd = peers.iter().find(|peer| peer.name == "meshd");
    let busy = meshd
        .map(measure::memory)
        .transpose()?
        .flatten()
        .unwrap_or_default();
    report::finish(plan.seconds, plan.connections, &runs, idle, busy)
}
