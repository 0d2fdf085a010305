//! Memory under thousands of slow clients, while others are served: heads that never end, and large answers
//! that are hardly read.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use crate::{
    contender::{Proxy, Way},
    load::own::{self, Running},
    measure::{memory_of, settled},
    order::Order,
    place::USUAL_BUFFERS,
    report,
    results::{Column, Figures, Results},
    stage::Stage,
};

/// Kind and how many; a client that is answered costs the proxy two descriptors.
const KINDS: [(&str, u32); 2] = [("head", 10_000), ("read", 9000)];
/// How long the others are served while the slow clients are there, seconds.
const WATCH: u32 = 4;
/// What the others ask meanwhile, requests a second.
const OTHERS: u32 = 500;

/// Both kinds with every proxy.
pub(super) fn run(order: &Order, stage: &mut Stage, results: &mut Results) -> anyhow::Result<()> {
    // The kernel's own buffers stay small, or it would hold every answer whole and no proxy had to wait.
    stage.socket_buffers("4096 16384 65536")?;
    kinds(order, stage, results);
    stage.socket_buffers(USUAL_BUFFERS)
}

fn kinds(order: &Order, stage: &mut Stage, results: &mut Results) {
    for (kind, count) in KINDS {
        for proxy in Proxy::ALL.into_iter().skip(1) {
            if !order.wants(proxy.name()) || stage.contender(proxy, Way::Http1).is_none() {
                continue;
            }
            let name = format!("slow_{kind}");
            let outcome = stage
                .restart(proxy)
                .and_then(|()| one(stage, proxy, (kind, count)));
            match outcome {
                Ok(figures) => {
                    report::progress(&name, proxy, &figures);
                    results.add(&name, proxy, figures);
                }
                Err(error) => {
                    let why = format!("{error:#}");
                    report::fault(&name, proxy, &why);
                    results.faults.push((name, proxy, why));
                }
            }
        }
    }
}

fn one(stage: &Stage, proxy: Proxy, (kind, count): (&str, u32)) -> anyhow::Result<Figures> {
    let contender = stage
        .contender(proxy, Way::Http1)
        .ok_or_else(|| anyhow::anyhow!("it does not run"))?;
    own::rate(&contender, OTHERS, 16, 1)?;
    let before: f64 = settled(&contender.pids)?.iter().sum();
    let seconds = WATCH + 20;
    let clients = Running::start(
        &contender,
        "slow",
        &[
            "host",
            contender.authority,
            "kind",
            kind,
            "count",
            &count.to_string(),
            "seconds",
            &seconds.to_string(),
        ],
    )?;
    let ended = AtomicBool::new(false);
    let (peak, others) = thread::scope(|scope| {
        let watcher = scope.spawn(|| {
            let mut peak = before;
            while !ended.load(Ordering::Relaxed) {
                peak = memory_of(&contender.pids).map_or(peak, |now| now.max(peak));
                thread::sleep(Duration::from_millis(100));
            }
            peak
        });
        // The others come when the slow ones are in place.
        let others =
            settled(&contender.pids).and_then(|_| own::rate(&contender, OTHERS, 16, WATCH));
        ended.store(true, Ordering::Relaxed);
        (watcher.join(), others)
    });
    drop(clients);
    let (load, failed) = others?;
    let peak = peak.map_err(|_panic| anyhow::anyhow!("the watcher broke"))?;
    Ok(vec![
        (Column::RssKb, peak),
        (Column::KbPerConnection, (peak - before) / f64::from(count)),
        (Column::P99Us, load.p99_us.unwrap_or_default()),
        (Column::Failed, failed),
    ])
}
