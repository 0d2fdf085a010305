//! Ten thousand endpoints replaced again and again under load: no request may fail, and the latency hardly
//! moves.

use std::{
    fmt::Write as _,
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::Context;
use mesh_tests::{Host, wait::within};

use crate::{
    contender::{Contender, Proxy, Way},
    load::own,
    measure,
    order::Order,
    peer::meshd,
    place::backend,
    report,
    results::{Column, Figures, Results},
    stage::Stage,
};

/// Endpoints that are replaced each time.
const ENDPOINTS: u32 = 10_000;
/// Endpoints of the service under load; half of them are replaced each time.
const LOADED: u32 = 16;
/// Requests a second.
const RATE: u32 = 2000;
/// Time from one replacement to the next.
const PERIOD: Duration = Duration::from_secs(1);
/// The service under load.
const NAME: &str = "moving.mesh.internal";

/// With and without replacements, in turn.
pub(super) fn run(order: &Order, stage: &mut Stage, results: &mut Results) -> anyhow::Result<()> {
    if !order.wants(Proxy::Meshd.name()) {
        return Ok(());
    }
    let directory = meshd::source(&stage.mesh);
    let turns = Turns::new()?;
    turns.replace(&directory, 0)?;
    stage.restart(Proxy::Meshd)?;
    let Some(mut contender) = stage.contender(Proxy::Meshd, Way::Http1) else {
        return Ok(());
    };
    contender.authority = NAME;
    let outcome = within(Duration::from_mins(1), || {
        let (_, failed) = own::rate(&contender, 50, 4, 1)?;
        anyhow::ensure!(failed == 0.0, "{failed} requests failed");
        Ok(())
    });
    let outcome = outcome.and_then(|()| {
        for _ in 0..order.rounds_of_a_tail() {
            for (name, moving) in [("swap_none", false), ("swap", true)] {
                let (figures, generation) = one(&contender, (&directory, &turns), moving, order)?;
                arrived(contender.host, generation)?;
                report::progress(name, Proxy::Meshd, &figures);
                results.add(name, Proxy::Meshd, figures);
            }
        }
        Ok(())
    });
    if let Err(error) = outcome {
        let why = format!("{error:#}");
        report::fault("swap", Proxy::Meshd, &why);
        results.faults.push(("swap".to_owned(), Proxy::Meshd, why));
    }
    Ok(())
}

fn one(
    contender: &Contender<'_>,
    (directory, turns): (&Path, &Turns),
    moving: bool,
    order: &Order,
) -> anyhow::Result<(Figures, u32)> {
    let ended = AtomicBool::new(false);
    let before = measure::cpu(&contender.pids)?;
    let (load, generation) = thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let mut generation = 0;
            let mut next = Instant::now() + PERIOD;
            while moving && !ended.load(Ordering::Relaxed) {
                thread::sleep(Duration::from_millis(20));
                if Instant::now() >= next {
                    generation += 1;
                    next += PERIOD;
                    turns.replace(directory, generation)?;
                }
            }
            Ok::<u32, anyhow::Error>(generation)
        });
        let load = own::rate(contender, RATE, 64, order.seconds * 2);
        ended.store(true, Ordering::Relaxed);
        let generation = writer
            .join()
            .map_err(|_panic| anyhow::anyhow!("the writer broke"))??;
        anyhow::Ok((load, generation))
    })?;
    let (load, failed) = load?;
    let used = measure::cpu(&contender.pids)?.since(before).total();
    let figures = vec![
        (Column::CpuUsPerRequest, used * 1e6 / load.requests.max(1.0)),
        (Column::Rps, load.rate),
        (Column::P50Us, load.p50_us.context("no median")?),
        (Column::P99Us, load.p99_us.context("no percentile")?),
        (Column::RssKb, measure::memory_of(&contender.pids)?),
        (Column::Failed, failed),
    ];
    Ok((figures, generation))
}

/// Waits until the daemon balances over the last generation: what was measured has happened.
fn arrived(host: &Host, generation: u32) -> anyhow::Result<()> {
    let wanted = format!("127.9.{}.1:", generation % 2);
    within(Duration::from_secs(20), || {
        let rows = host.ctl_json(&["endpoints", "moving"])?.to_string();
        anyhow::ensure!(rows.contains(&wanted), "no {wanted} in {rows}");
        Ok(())
    })
}

/// What the source's file says in generations of even and of odd number: every endpoint has another address in the one
/// than in the other. Made once, so that whoever writes is not what is measured.
struct Turns([String; 2]);

impl Turns {
    fn new() -> anyhow::Result<Self> {
        Ok(Self([text(0)?, text(1)?]))
    }

    /// Writes the file anew, whole.
    fn replace(&self, directory: &Path, generation: u32) -> anyhow::Result<()> {
        let [even, odd] = &self.0;
        let text = if generation.is_multiple_of(2) {
            even
        } else {
            odd
        };
        // A new file takes the old one's place in one step.
        let path = directory.join(".many");
        std::fs::write(&path, text)?;
        Ok(std::fs::rename(path, directory.join("many.toml"))?)
    }
}

/// Addresses of the loopback range all lead to the one backend.
fn text(turn: u32) -> anyhow::Result<String> {
    let mut text = String::with_capacity(1 << 20);
    let port = backend::HTTP1;
    text.push_str("[[service]]\nname = \"moving\"\nport = 80\nprotocol = \"http\"\nendpoint = [\n");
    for number in 0..LOADED {
        let third = if number % 2 == 0 { turn } else { 2 };
        writeln!(
            text,
            "{{ address = \"127.9.{third}.{}:{port}\" }},",
            number + 1
        )?;
    }
    text.push_str(
        "]\n[[service]]\nname = \"many\"\nport = 80\nprotocol = \"http\"\nendpoint = [\n",
    );
    for number in 0..ENDPOINTS {
        let (third, fourth) = (number / 250, number % 250 + 1);
        writeln!(
            text,
            "{{ address = \"127.{}.{third}.{fourth}:{port}\" }},",
            10 + turn
        )?;
    }
    text.push_str("]\n");
    Ok(text)
}
