//! What the kernel says of a process: CPU time and memory.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::Context;

use crate::{
    load::{self, Load},
    peer::Peer,
};

/// Clock ticks a second in `/proc` (`USER_HZ`, 100 on every Linux of today).
const TICKS: f64 = 100.0;

/// One measured run.
#[derive(Debug, Clone)]
pub(crate) struct Run {
    /// The peer's name.
    pub(crate) peer: &'static str,
    /// What the load said.
    pub(crate) load: Load,
    /// CPU microseconds per request of the peer's whole process; none for direct runs.
    pub(crate) cpu_us: Option<f64>,
}

/// Loads the peer and reads its CPU time before and after.
pub(crate) fn one(peer: &Peer, seconds: u32, connections: u32) -> anyhow::Result<Run> {
    let before = cpu_seconds(peer)?;
    let load = load::run(peer, seconds, connections)?;
    let after = cpu_seconds(peer)?;
    let cpu_us = before.zip(after).map(|(before, after)| {
        #[expect(
            clippy::cast_precision_loss,
            reason = "a count of requests is far below 2^52"
        )]
        let requests = load.requests.max(1) as f64;
        (after - before) * 1e6 / requests
    });
    Ok(Run {
        peer: peer.name,
        load,
        cpu_us,
    })
}

/// CPU time of the process so far, user and system.
fn cpu_seconds(peer: &Peer) -> anyhow::Result<Option<f64>> {
    let Some(pid) = peer.pid() else {
        return Ok(None);
    };
    let text =
        std::fs::read_to_string(format!("/proc/{pid}/stat")).context("the process has ended")?;
    // The name is in parentheses and may hold anything; the 12th and 13th fields behind it are the times.
    let behind = text.rsplit_once(')').map_or("", |(_, behind)| behind);
    let times: Vec<f64> = behind
        .split_whitespace()
        .skip(11)
        .take(2)
        .filter_map(|word| word.parse().ok())
        .collect();
    Ok(Some(times.iter().sum::<f64>() / TICKS))
}

/// Resident memory in kilobytes.
pub(crate) fn memory(peer: &Peer) -> anyhow::Result<Option<u64>> {
    let Some(pid) = peer.pid() else {
        return Ok(None);
    };
    let text =
        std::fs::read_to_string(format!("/proc/{pid}/status")).context("the process has ended")?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    Ok(line.and_then(|line| line.split_whitespace().next()?.parse().ok()))
}

/// Resident memory once it has not grown for two seconds, at most ten seconds from now.
pub(crate) fn settled_memory(peer: &Peer) -> anyhow::Result<u64> {
    let end = Instant::now() + Duration::from_secs(10);
    let mut last = (memory(peer)?.unwrap_or_default(), Instant::now());
    while Instant::now() < end && last.1.elapsed() < Duration::from_secs(2) {
        thread::sleep(Duration::from_millis(200));
        let now = memory(peer)?.unwrap_or_default();
        if now > last.0 {
            last = (now, Instant::now());
        }
    }
    Ok(last.0)
}
