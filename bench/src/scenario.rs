//! What is measured: every scenario of the order, one after the other, its rounds interleaved.

use std::time::Instant;

use crate::{
    contender::{Contender, Proxy, Way},
    limit,
    machine::Machine,
    order::{Order, Scenario},
    page, report,
    results::{Figures, Results},
    stage::Stage,
};

/// Memory of idle connections.
mod idle;
/// Real registries.
mod registries;
/// HTTP at saturation, and at constant rates.
mod requests;
/// Memory under slow clients.
mod slow;
/// Ten thousand endpoints replaced under load.
mod swap;
/// TCP bytes and connections.
mod tcp;

/// Runs the order and writes what came of it.
pub(crate) fn run(order: &Order) -> anyhow::Result<()> {
    let (machine, begun) = (Machine::read(), Instant::now());
    anyhow::ensure!(machine.cpus >= 2, "it needs two CPUs");
    let mut results = Results::default();
    let mut stage = None;
    if order
        .scenarios
        .iter()
        .any(|one| *one != Scenario::Registries)
    {
        report::say("starting hosts, backends and proxies");
        let set = Stage::set(order)?;
        for (proxy, why) in &set.absent {
            report::fault("all", *proxy, why);
            results.faults.push(("all".to_owned(), *proxy, why.clone()));
        }
        stage = Some(set);
    }
    for scenario in &order.scenarios {
        report::say(&format!(
            "{}: ({} s so far)",
            scenario.name(),
            begun.elapsed().as_secs()
        ));
        match (&mut stage, scenario) {
            (_, Scenario::Registries) => registries::run(order, &mut results)?,
            (Some(stage), scenario) => one(*scenario, order, stage, &mut results)?,
            (None, _) => {}
        }
    }
    let verdicts = limit::judge(&results, &|proxy| order.wants(proxy.name()));
    report::table(&results);
    report::limits(&verdicts);
    let limits: Vec<_> = verdicts.iter().map(limit::Verdict::json).collect();
    let path = results.write(order, &machine, &limits)?;
    report::say(&format!("written: {}", path.display()));
    if order.whole() {
        let facts = page::Facts {
            order,
            machine: &machine,
            results: &results,
            verdicts: &verdicts,
        };
        for path in page::write(&facts)? {
            report::say(&format!("written: {}", path.display()));
        }
    }
    Ok(())
}

fn one(
    scenario: Scenario,
    order: &Order,
    stage: &mut Stage,
    results: &mut Results,
) -> anyhow::Result<()> {
    match scenario {
        Scenario::H1 => {
            requests::http1(order, stage, results, ("h1", Way::Http1));
            requests::http1(order, stage, results, ("h1_bare", Way::Bare));
        }
        Scenario::Redir => requests::http1(order, stage, results, ("redir", Way::Redirect)),
        Scenario::Hop => requests::http1(order, stage, results, ("hop", Way::Hop)),
        Scenario::H2h1 => requests::http2(order, stage, results, ("h2h1", Way::H2ToH1)),
        Scenario::H2h2 => requests::http2(order, stage, results, ("h2h2", Way::H2ToH2)),
        Scenario::Grpc => requests::grpc(order, stage, results)?,
        Scenario::Tcp => tcp::bytes(order, stage, results, ("tcp", Way::Tcp)),
        Scenario::TcpMtls => tcp::bytes(order, stage, results, ("tcpmtls", Way::TcpMtls)),
        Scenario::Connections => tcp::connections(order, stage, results),
        Scenario::Idle => idle::run(order, stage, results),
        Scenario::Slow => slow::run(order, stage, results)?,
        Scenario::Swap => swap::run(order, stage, results)?,
        Scenario::Registries => registries::run(order, results)?,
    }
    Ok(())
}

/// Everybody whom the order wants on this way.
fn contenders<'s>(order: &Order, stage: &'s Stage, way: Way) -> Vec<Contender<'s>> {
    Proxy::ALL
        .into_iter()
        .filter(|proxy| order.wants(proxy.name()))
        .filter_map(|proxy| stage.contender(proxy, way))
        .collect()
}

/// Measures everybody once a round, each round beginning with another one, so that nobody always follows the
/// same one. Who fails twice is left out of the rest.
fn interleave(
    rounds: u32,
    scenario: &str,
    mut contenders: Vec<Contender<'_>>,
    results: &mut Results,
    measure: &dyn Fn(&Contender<'_>) -> anyhow::Result<Figures>,
) {
    let mut failed: Vec<Proxy> = Vec::new();
    for _ in 0..rounds {
        contenders.retain(|contender| match measure(contender) {
            Ok(figures) => {
                report::progress(scenario, contender.proxy, &figures);
                results.add(scenario, contender.proxy, figures);
                true
            }
            Err(error) => {
                let why = format!("{error:#}");
                report::fault(scenario, contender.proxy, &why);
                results
                    .faults
                    .push((scenario.to_owned(), contender.proxy, why));
                let again = failed.contains(&contender.proxy);
                failed.push(contender.proxy);
                !again
            }
        });
        if !contenders.is_empty() {
            contenders.rotate_left(1);
        }
    }
}
