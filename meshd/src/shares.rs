//! Mesh-wide rate limits: each second hosts tell one of them what was asked of them, and hear their share.
//!
//! Which host counts a limit follows from the members alone (rendezvous hashing), so nobody elects anybody; when
//! it is gone the next one counts. In: what the proxy was asked for. Out: shares that the proxy obeys.
//! Never: lets a request wait, or lets more than the whole limit through on one host.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use mesh_model::{
    catalog::{Catalog, Liveness},
    name::{HostId, ServiceId},
    snapshot::{
        Snapshot,
        limit::{LimitKey, LimitScope},
    },
};
use tokio_util::sync::CancellationToken;

use crate::{
    clock::Rounds,
    quota::{MOST, QUOTA_KIND, REPORT_COUNTS, Report, Shares},
    running::Running,
};

/// Time between two reports.
const PACE: Duration = Duration::from_secs(1);
/// How long an answer may take.
const PATIENCE: Duration = Duration::from_millis(800);
/// Part of a new measurement in the smoothed demand.
const NEW: f64 = 0.5;

/// Reports and obeys, until stopped. Costs nothing while no limit is mesh-wide.
pub(crate) async fn run(running: Arc<Running>, stop: CancellationToken) {
    let mut reporter = Reporter::default();
    let mut rounds = Rounds::every(PACE, stop);
    while rounds.next().await {
        let snapshot = running.reader.load();
        let limits = limits(&snapshot);
        running.quotas.forget();
        if !limits.is_empty() || !reporter.limits.is_empty() {
            reporter.round(&running, &snapshot, limits).await;
        }
    }
}

/// Mesh-wide limits of this host's ports, with the service that each is of.
fn limits(snapshot: &Snapshot) -> BTreeMap<LimitKey, ServiceId> {
    let ports = snapshot.inbound.by_address.values();
    let mut found = BTreeMap::new();
    for port in ports {
        let mesh = port
            .limits
            .iter()
            .filter(|limit| limit.scope == LimitScope::Mesh);
        for limit in mesh {
            found.insert(limit.key, port.service.clone());
        }
    }
    found
}

/// Hosts that are known to run a service, this one among them.
fn known(snapshot: &Snapshot, service: &ServiceId) -> usize {
    let backends = &snapshot.outbound.backends;
    let (low, high) = ((service.clone(), 0), (service.clone(), u16::MAX));
    let endpoints = backends
        .range(low..=high)
        .flat_map(|(_, backend)| &backend.endpoints);
    let hosts: BTreeSet<HostId> = endpoints.filter_map(|endpoint| endpoint.host).collect();
    hosts.len().max(1)
}

/// The living members that count a limit, in order: the first that answers does.
fn counters(members: &[HostId], limit: LimitKey) -> Option<HostId> {
    let weight = |host: &HostId| {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&limit.0.to_be_bytes()).update(&host.0);
        *hasher.finalize().as_bytes()
    };
    members.iter().copied().max_by_key(weight)
}

/// One limit as this host sees it.
#[derive(Debug)]
struct Seen {
    asked: u64,
    at: Instant,
    demand: f64,
    /// When the share was told last.
    told: Option<Instant>,
}

/// What is remembered from round to round.
#[derive(Debug, Default)]
struct Reporter {
    limits: HashMap<LimitKey, Seen>,
}

impl Reporter {
    async fn round(
        &mut self,
        running: &Arc<Running>,
        snapshot: &Snapshot,
        limits: BTreeMap<LimitKey, ServiceId>,
    ) {
        self.limits.retain(|key, _| {
            let stays = limits.contains_key(key);
            if !stays {
                running.forget_quota_share(*key);
            }
            stays
        });
        self.measure(running, snapshot, &limits);
        let members = members(&running.cluster.catalog());
        let own = snapshot.mesh.as_ref().map(|mesh| mesh.host);
        let mut by_counter: BTreeMap<HostId, Vec<(u64, f64, u32)>> = BTreeMap::new();
        for (key, service) in limits.iter().take(MOST) {
            let demand = self.limits.get(key).map_or(0.0, |seen| seen.demand);
            let known = u32::try_from(known(snapshot, service)).unwrap_or(u32::MAX);
            if let Some(counter) = counters(&members, *key) {
                by_counter
                    .entry(counter)
                    .or_default()
                    .push((key.0, demand, known));
            }
        }
        let calls = by_counter.into_iter().map(|(counter, report)| async move {
            ask(running, own, counter, Report(report)).await
        });
        for shares in futures_util::future::join_all(calls)
            .await
            .into_iter()
            .flatten()
        {
            for (key, share) in shares.0 {
                self.obey(running, LimitKey(key), share);
            }
        }
        self.distrust(running, snapshot, &limits);
    }

    /// What was asked since the last round, smoothed; a limit that is new begins with its even share.
    fn measure(
        &mut self,
        running: &Running,
        snapshot: &Snapshot,
        limits: &BTreeMap<LimitKey, ServiceId>,
    ) {
        let now = Instant::now();
        let usage: HashMap<LimitKey, u64> = running.quota_usage().into_iter().collect();
        for (key, service) in limits {
            let asked = usage.get(key).copied().unwrap_or_default();
            let seen = self.limits.entry(*key).or_insert_with(|| {
                running.set_quota_share(*key, even(known(snapshot, service)));
                Seen {
                    asked,
                    at: now,
                    demand: 0.0,
                    told: None,
                }
            });
            let elapsed = now.saturating_duration_since(seen.at).as_secs_f64();
            if elapsed > 0.0 {
                let rate = rate(asked.saturating_sub(seen.asked), elapsed);
                seen.demand += NEW * (rate - seen.demand);
            }
            (seen.asked, seen.at) = (asked, now);
        }
    }

    fn obey(&mut self, running: &Running, key: LimitKey, share: f32) {
        if let Some(seen) = self.limits.get_mut(&key) {
            seen.told = Some(Instant::now());
            running.set_quota_share(key, share);
        }
    }

    /// Who has not heard its share for a while takes no more than an even one.
    fn distrust(
        &self,
        running: &Running,
        snapshot: &Snapshot,
        limits: &BTreeMap<LimitKey, ServiceId>,
    ) {
        for (key, seen) in &self.limits {
            let old = seen.told.is_some_and(|told| told.elapsed() > REPORT_COUNTS);
            if let Some(service) = limits.get(key).filter(|_| old) {
                running.set_quota_share(*key, even(known(snapshot, service)));
            }
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "a rate of requests")]
fn rate(count: u64, seconds: f64) -> f64 {
    count as f64 / seconds
}

#[expect(clippy::cast_precision_loss, reason = "a number of hosts")]
fn even(hosts: usize) -> f32 {
    1.0 / hosts.max(1) as f32
}

fn members(catalog: &Catalog) -> Vec<HostId> {
    let own = catalog.mesh.as_ref().map(|mesh| mesh.host);
    let alive = catalog.hosts.iter().filter(|(host, facts)| {
        let heard = matches!(facts.liveness, Liveness::Alive | Liveness::Suspect);
        facts.grant.is_some() && !facts.leaving && (heard || Some(**host) == own)
    });
    alive.map(|(host, _)| *host).collect()
}

async fn ask(
    running: &Running,
    own: Option<HostId>,
    counter: HostId,
    report: Report,
) -> Option<Shares> {
    if Some(counter) == own {
        return Some(running.quotas.take(counter, &report));
    }
    let body = Bytes::from(serde_json::to_vec(&report).ok()?);
    let asked = running.cluster.call(counter, QUOTA_KIND, body, PATIENCE);
    let answer = asked.await.ok()?;
    serde_json::from_slice(&answer).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_member_counts_each_limit_and_another_takes_over() {
        let members: Vec<HostId> = (1..=8).map(|number| HostId([number; 16])).collect();
        let counted: BTreeSet<HostId> = (0..200)
            .filter_map(|limit| counters(&members, LimitKey(limit)))
            .collect();
        assert!(
            counted.len() >= 6,
            "limits are spread over the members: {counted:?}"
        );
        let first = counters(&members, LimitKey(5)).unwrap();
        let others: Vec<HostId> = members
            .iter()
            .copied()
            .filter(|host| *host != first)
            .collect();
        assert_ne!(counters(&others, LimitKey(5)), Some(first));
        // Only the limits of the member that is gone move.
        for limit in (0..200).map(LimitKey) {
            let before = counters(&members, limit).unwrap();
            assert!(before == first || counters(&others, limit) == Some(before));
        }
        assert_eq!(counters(&[], LimitKey(5)), None);
    }
}
