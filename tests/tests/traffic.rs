//! Every row of routing, balancing, resilience, limits and faults against the real daemons, through interception:
//! curl calls, nginx serves.
//!
//! In: three hosts with nginx servers, documents of each group. Out: one line for each row with what was measured.
//! Never: a fixed time to wait, or a statistical bound nearer than 5 standard deviations.

#![allow(
    clippy::tests_outside_test_module,
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::string_slice,
    clippy::cast_precision_loss,
    clippy::redundant_pub_crate,
    unreachable_pub,
    missing_docs,
    reason = "a file of tests"
)]

/// Which endpoint gets a request.
#[path = "traffic/balancing.rs"]
mod balancing;
/// Endpoints that no host of the mesh has.
#[path = "traffic/beside.rs"]
mod beside;
/// A daemon that stops.
#[path = "traffic/draining.rs"]
mod draining;
/// What happens to requests on their way.
#[path = "traffic/filters.rs"]
mod filters;
/// Rate limits and faults.
#[path = "traffic/limits.rs"]
mod limits;
/// Who is put out.
#[path = "traffic/outliers.rs"]
mod outliers;
/// Protocols beside HTTP/1.1.
#[path = "traffic/protocols.rs"]
mod protocols;
/// Tries, time-outs, circuit limits.
#[path = "traffic/resilience.rs"]
mod resilience;
/// Which rule acts.
#[path = "traffic/routing.rs"]
mod routing;
/// What operators see.
#[path = "traffic/seen.rs"]
mod seen;
/// The servers.
#[path = "traffic/servers.rs"]
mod servers;
/// The hosts, and how they are called.
#[path = "traffic/stage.rs"]
mod stage;
/// Documents of Istio.
#[path = "traffic/virtual_service.rs"]
mod virtual_service;

use mesh_tests::{need, process::say};
use stage::{Group, Stage};

/// The groups of the table, in the order in which they run.
const TABLE: [&[Group]; 11] = [
    routing::GROUPS,
    filters::GROUPS,
    virtual_service::GROUPS,
    balancing::GROUPS,
    resilience::GROUPS,
    outliers::GROUPS,
    limits::GROUPS,
    protocols::GROUPS,
    beside::GROUPS,
    seen::GROUPS,
    draining::GROUPS,
];

#[test]
fn every_row_holds() {
    need!(namespaces);
    need!(root);
    let mut stage = Stage::set().unwrap();
    // One row of many: `TRAFFIC=word` while working on it.
    let only = std::env::var("TRAFFIC").ok();
    let mut rows = 0;
    let mut failed = Vec::new();
    for group in TABLE.iter().copied().flatten() {
        let wanted: Vec<_> = group
            .rows
            .iter()
            .filter(|(name, _)| only.as_deref().is_none_or(|word| name.contains(word)))
            .collect();
        if wanted.is_empty() {
            continue;
        }
        if let Err(error) = stage.apply(group.documents) {
            failed.push(format!("{}: {error:#}", wanted[0].0));
            say(&format!("traffic: {}: FAILED: {error:#}", wanted[0].0));
            continue;
        }
        for (name, row) in wanted {
            rows += 1;
            match row(&mut stage) {
                Ok(measured) => say(&format!("traffic: {name}: ok ({measured})")),
                Err(error) => {
                    say(&format!("traffic: {name}: FAILED: {error:#}"));
                    failed.push(format!("{name}: {error:#}"));
                }
            }
        }
        stage.take_back(group.documents).unwrap();
    }
    say(&format!("traffic: {rows} rows, {} failed", failed.len()));
    assert!(rows > 0, "no row has this name");
    assert!(
        failed.is_empty(),
        "{} rows failed:\n{}",
        failed.len(),
        failed.join("\n")
    );
}
