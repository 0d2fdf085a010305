//! Who asks how much of the mesh-wide rate limits that this host counts, and what share each gets.
//!
//! Pure: the time is passed in. In: reports of demand. Out: a share from 0 to 1; over all hosts the shares that
//! follow from the same reports add up to 1. Never: grows with what was reported long ago.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use mesh_model::{name::HostId, snapshot::limit::LimitKey};

/// How long a report counts; hosts report each second.
pub(crate) const REPORT_COUNTS: Duration = Duration::from_secs(3);
/// The part that is shared evenly, so that a host that was idle has something to begin with.
const EVEN: f64 = 0.1;
/// Limits that are counted; more than a mesh has. Reports of further ones get an even share of nothing known.
const MOST_LIMITS: usize = 16_384;

/// One host's last report.
#[derive(Debug, Clone, Copy)]
struct Report {
    /// Requests per second that were asked for.
    demand: f64,
    at: Instant,
}

/// The reports of all hosts.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    limits: BTreeMap<LimitKey, BTreeMap<HostId, Report>>,
}

impl Ledger {
    /// Takes a report and tells the host's share. `known` is the number of hosts that are known to run the
    /// limited service, at least 1: a host that nobody has heard of yet has its even share left for it.
    pub(crate) fn report(
        &mut self,
        limit: LimitKey,
        host: HostId,
        demand: f64,
        known: usize,
        now: Instant,
    ) -> f32 {
        if self.limits.len() >= MOST_LIMITS && !self.limits.contains_key(&limit) {
            self.forget(now);
            if self.limits.len() >= MOST_LIMITS {
                return 0.0;
            }
        }
        let demand = if demand.is_finite() {
            demand.max(0.0)
        } else {
            0.0
        };
        let hosts = self.limits.entry(limit).or_default();
        hosts.retain(|_, report| now.saturating_duration_since(report.at) <= REPORT_COUNTS);
        hosts.insert(host, Report { demand, at: now });
        share(hosts, host, known)
    }

    /// Lets go of limits that nobody reports any more.
    pub(crate) fn forget(&mut self, now: Instant) {
        self.limits.retain(|_, hosts| {
            hosts.retain(|_, report| now.saturating_duration_since(report.at) <= REPORT_COUNTS);
            !hosts.is_empty()
        });
    }
}

#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    reason = "a share of small numbers, rounded"
)]
fn share(hosts: &BTreeMap<HostId, Report>, host: HostId, known: usize) -> f32 {
    let count = hosts.len().max(known).max(1) as f64;
    let total: f64 = hosts.values().map(|report| report.demand).sum();
    let own = hosts.get(&host).map_or(0.0, |report| report.demand);
    let by_demand = if total > 0.0 {
        own / total
    } else {
        1.0 / count
    };
    (EVEN / count + (1.0 - EVEN) * by_demand) as f32
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LIMIT: LimitKey = LimitKey(7);

    fn host(number: u8) -> HostId {
        HostId([number; 16])
    }

    #[test]
    fn demand_decides_and_the_idle_have_something() {
        let (mut ledger, now) = (Ledger::default(), Instant::now());
        let first = ledger.report(LIMIT, host(1), 90.0, 2, now);
        assert!((first - 0.95).abs() < 1e-6, "{first}");
        let idle = ledger.report(LIMIT, host(2), 0.0, 2, now);
        assert!((idle - 0.05).abs() < 1e-6, "{idle}");
        let grown = ledger.report(LIMIT, host(2), 270.0, 2, now);
        assert!((grown - (0.05 + 0.9 * 0.75)).abs() < 1e-6, "{grown}");
        // Who is silent for a while gets nothing more, and the others get it.
        let later = now + REPORT_COUNTS + Duration::from_millis(1);
        let alone = ledger.report(LIMIT, host(2), 1.0, 1, later);
        assert!((alone - 1.0).abs() < 1e-6, "{alone}");
        ledger.forget(later + REPORT_COUNTS * 2);
        assert!(ledger.limits.is_empty());
    }

    #[test]
    fn nobody_asks_so_all_have_the_same() {
        let (mut ledger, now) = (Ledger::default(), Instant::now());
        for number in 1..=4 {
            let share = ledger.report(LIMIT, host(number), 0.0, 4, now);
            assert!((share - 0.25).abs() < 1e-6, "{share}");
        }
        let nonsense = ledger.report(LIMIT, host(1), f64::NAN, 4, now);
        assert!((nonsense - 0.25).abs() < 1e-6, "{nonsense}");
    }

    proptest! {
        /// While nothing changes, the hosts of a limit together get no more than all of it, and all of it when
        /// all of them report.
        #[test]
        fn shares_add_up(demands in prop::collection::vec(0.0f64..1e6, 1..40), more in 0usize..5) {
            let (mut ledger, now) = (Ledger::default(), Instant::now());
            let known = demands.len() + more;
            let report = |ledger: &mut Ledger, number: usize, demand: f64| {
                let host = host(u8::try_from(number).unwrap());
                f64::from(ledger.report(LIMIT, host, demand, known, now))
            };
            for (number, demand) in demands.iter().enumerate() {
                report(&mut ledger, number, *demand);
            }
            let sum: f64 = demands
                .iter()
                .enumerate()
                .map(|(number, demand)| report(&mut ledger, number, *demand))
                .sum();
            prop_assert!(sum <= 1.0 + 1e-4, "{sum}");
            prop_assert!(more > 0 || sum >= 1.0 - 1e-4, "{sum}");
        }
    }
}
