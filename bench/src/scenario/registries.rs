//! Real registries: the time from a write to its publication, and what many endpoints cost.
//!
//! In: the servers that `scripts/registries.sh` fetched, on loopback. Out: a row for each, one for reading
//! much, one for a burst, one for rest. A server that is not there is named among what was not measured.

use std::{sync::Arc, time::Duration};

use anyhow::Context;
use mesh_registry::{Published, start};
use tokio::{
    sync::watch,
    time::{Instant, timeout},
};
use tokio_util::sync::CancellationToken;

use crate::{
    contender::Proxy,
    order::Order,
    report,
    results::{Column, Figures, Results},
    statistic::quantile,
};

/// Reading much, a burst, rest.
mod scale;
/// The servers, and how something is written there.
mod servers;

use servers::{KINDS, Kind, Standing};

/// Nothing takes longer than this.
const PATIENCE: Duration = Duration::from_mins(2);

/// Every registry that is there.
pub(super) fn run(order: &Order, results: &mut Results) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    if order.wants(Proxy::Meshd.name()) {
        // First, while this process is small.
        match runtime.block_on(scale::run(order.quick)) {
            Ok(rows) => {
                for (name, figures) in rows {
                    add(results, name, figures);
                }
            }
            Err(error) => fault(results, "registry_ingest", &error),
        }
        for kind in KINDS {
            let name = format!("registry_{}", kind.word());
            match runtime.block_on(one(kind, order.quick)) {
                Ok(figures) => add(results, &name, figures),
                Err(error) => fault(results, &name, &error),
            }
        }
    }
    runtime.shutdown_timeout(Duration::from_secs(1));
    Ok(())
}

fn add(results: &mut Results, name: &str, figures: Figures) {
    report::progress(name, Proxy::Meshd, &figures);
    results.add(name, Proxy::Meshd, figures);
}

fn fault(results: &mut Results, name: &str, error: &anyhow::Error) {
    let why = format!("{error:#}");
    report::fault(name, Proxy::Meshd, &why);
    results.faults.push((name.to_owned(), Proxy::Meshd, why));
}

/// The times of one registry: each write begins some time after the one before has been seen, at no fixed
/// distance, and seldom enough that no source takes them for a burst.
async fn one(kind: Kind, quick: bool) -> anyhow::Result<Figures> {
    let standing = Standing::start(kind)?;
    let stop = CancellationToken::new();
    let registry = start(std::slice::from_ref(&standing.config), stop.clone());
    anyhow::ensure!(
        registry.settled(PATIENCE).await,
        "the source does not settle"
    );
    let mut views = registry.views();
    let count = kind.writes() / if quick { 4 } else { 1 };
    let mut times = Vec::new();
    for turn in 0..kind.services() + count {
        let text = standing.address(turn).to_string();
        let began = Instant::now();
        let seen = async {
            until(&mut views, |now| has(now, &text)).await?;
            anyhow::Ok(began.elapsed())
        };
        let (written, seen) = tokio::join!(standing.write(turn), seen);
        written?;
        // The first ones make the services.
        if turn >= kind.services() {
            times.push(u32::try_from(seen?.as_micros())?);
        }
        tokio::time::sleep(Duration::from_millis(fastrand::u64(120..180))).await;
    }
    stop.cancel();
    registry.ended().await;
    let figure = |times: &mut [u32], per_thousand| quantile(times, per_thousand).map(f64::from);
    Ok(vec![
        (Column::P50Us, figure(&mut times, 500).context("no times")?),
        (Column::P99Us, figure(&mut times, 990).context("no times")?),
    ])
}

fn has(now: &Published, address: &str) -> bool {
    now.views.values().any(|one| {
        one.view
            .endpoints
            .iter()
            .any(|endpoint| endpoint.address == address)
    })
}

async fn until(
    views: &mut watch::Receiver<Arc<Published>>,
    holds: impl Fn(&Published) -> bool,
) -> anyhow::Result<()> {
    let found = timeout(PATIENCE, views.wait_for(|now| holds(now))).await;
    found
        .context("it was never published")?
        .context("the sources ended")?;
    Ok(())
}
