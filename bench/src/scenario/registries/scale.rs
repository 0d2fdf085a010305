//! Many endpoints of a real etcd: reading them all, a burst of changes, and rest.

use std::time::Duration;

use data_encoding::BASE64;
use mesh_registry::{Published, Registry, contract::server::told, start};
use serde_json::{Value, json};
use tokio::time::Instant;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    PATIENCE,
    servers::{Kind, Standing},
    until,
};
use crate::{
    measure::{cpu, memory, settled},
    results::{Column, Figures},
};

/// Services, and endpoints of each.
const SERVICES: usize = 10_000;
const EACH: usize = 10;
/// Services of a burst.
const BURST: usize = 1_000;

/// The rows by name.
pub(super) async fn run(quick: bool) -> anyhow::Result<Vec<(&'static str, Figures)>> {
    let standing = Standing::start(Kind::Etcd)?;
    let services = if quick { SERVICES / 10 } else { SERVICES };
    let all: Vec<Value> = (0..services * EACH)
        .map(|at| put(at / EACH, at % EACH, 1))
        .collect();
    write(&standing, &all);
    let own = i32::try_from(std::process::id())?;
    let before = (memory(own)?, cpu(&[own])?, Instant::now());
    let stop = CancellationToken::new();
    let registry = start(std::slice::from_ref(&standing.config), stop.clone());
    let mut views = registry.views();
    until(&mut views, |now| endpoints(now) == services * EACH).await?;
    let (took, used) = (before.2.elapsed(), cpu(&[own])?.since(before.1));
    let grown = settled(&[own])?.iter().sum::<f64>() - before.0;
    let many = u32::try_from(services * EACH)?;
    let ingest = vec![
        (Column::CpuS, used.total()),
        (Column::Ms, took.as_secs_f64() * 1e3),
        (Column::BytesPerEndpoint, grown * 1024.0 / f64::from(many)),
    ];
    let burst = BURST.min(services);
    let changes: Vec<Value> = (0..burst).map(|service| put(service, 0, 7)).collect();
    let mut waiting = registry.views();
    let seen = TaskTracker::new().spawn(async move {
        until(&mut waiting, |now| heavy(now) == burst).await?;
        anyhow::Ok(Instant::now())
    });
    write(&standing, &changes);
    // From the last write: the server's own time for a thousand of them is not ours.
    let written = Instant::now();
    let seen = seen.await??;
    let burst = vec![(
        Column::Ms,
        seen.saturating_duration_since(written).as_secs_f64() * 1e3,
    )];
    let rest = Duration::from_secs(if quick { 10 } else { 30 });
    let asked = requests(&registry);
    tokio::time::sleep(rest).await;
    let idle = vec![(
        Column::IdleRps,
        (requests(&registry) - asked) / rest.as_secs_f64(),
    )];
    stop.cancel();
    let _late = tokio::time::timeout(PATIENCE, registry.ended()).await;
    Ok(vec![
        ("registry_ingest", ingest),
        ("registry_burst", burst),
        ("registry_idle", idle),
    ])
}

fn put(service: usize, endpoint: usize, weight: u32) -> Value {
    let key = format!("/meshd/v1/services/default/s{service:05}/h{endpoint}");
    let address = format!("10.{}.{}.{endpoint}:8080", service / 250, service % 250);
    let value = json!({
        "address": address, "weight": weight, "zone": "a",
        "metadata": {"version": "1.4.2", "rack": "r12", "owner": "shop", "canary": "no"},
    });
    json!({"requestPut": {
        "key": BASE64.encode(key.as_bytes()), "value": BASE64.encode(value.to_string().as_bytes())}})
}

fn write(standing: &Standing, all: &[Value]) {
    for group in all.chunks(125) {
        let body = json!({"success": group}).to_string();
        told(standing.admin, "POST", "/v3/kv/txn", &[], &body);
    }
}

fn endpoints(now: &Published) -> usize {
    now.sources.iter().map(|row| row.endpoints).sum()
}

fn heavy(now: &Published) -> usize {
    let heavy =
        |one: &&mesh_registry::PublishedView| one.view.endpoints.iter().any(|one| one.weight == 7);
    now.views.values().filter(heavy).count()
}

/// Requests so far, as the metrics say.
fn requests(registry: &Registry) -> f64 {
    let mut page = String::new();
    registry.metrics(&mut page);
    page.lines()
        .filter(|line| line.starts_with("mesh_registry_requests_total{"))
        .filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok())
        .sum()
}
