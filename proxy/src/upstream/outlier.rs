//! Who is put out for what it answers: errors in a row, and looks at success rate and latency of a whole
//! backend. Pure; as Envoy's outlier detection where the names are the same.

use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use mesh_model::snapshot::traffic::{LatencyOutlier, OutlierDetection, SuccessRate};

use super::health::{Reason, Rows};

/// What an answer says of the endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It works.
    Well,
    /// The program's own failure.
    Error,
    /// It cannot do its work: 502, 503, 504 and what gRPC has for them.
    Gateway,
}

impl Verdict {
    /// Of a status; `grpc` is the gRPC status in a head that ends the answer, and counts more.
    pub(crate) fn of(status: u16, grpc: Option<u8>) -> Self {
        // Deadline exceeded, unavailable; unknown, internal, data loss.
        let gateway = matches!(grpc, Some(4 | 14)) || (502..=504).contains(&status);
        let error = matches!(grpc, Some(2 | 13 | 15)) || status >= 500;
        match (gateway, error) {
            (true, _) => Self::Gateway,
            (_, true) => Self::Error,
            _ => Self::Well,
        }
    }
}

/// Whether an answer was one too many.
pub(crate) fn after_answer(
    policy: &OutlierDetection,
    rows: &Rows,
    verdict: Verdict,
) -> Option<Reason> {
    let (errors, gateway) = rows.error(verdict == Verdict::Gateway);
    if reached(gateway, policy.consecutive_gateway_errors) {
        Some(Reason::Gateway)
    } else {
        reached(errors, policy.consecutive_errors).then_some(Reason::Errors)
    }
}

/// Whether a reset or time-out was one too many.
pub(crate) fn after_silence(policy: &OutlierDetection, rows: &Rows) -> Option<Reason> {
    let (errors, gateway, unanswered) = rows.unanswered();
    if reached(unanswered, policy.consecutive_local_failures) {
        Some(Reason::Unanswered)
    } else if reached(gateway, policy.consecutive_gateway_errors) {
        Some(Reason::Gateway)
    } else {
        reached(errors, policy.consecutive_errors).then_some(Reason::Errors)
    }
}

fn reached(row: u32, limit: u32) -> bool {
    limit > 0 && row >= limit
}

/// Endpoints of `count` that may be out at once for their answers.
pub(crate) fn allowance(policy: &OutlierDetection, count: usize) -> u32 {
    let part = count as u64 * u64::from(policy.max_ejection_percent.min(100)) / 100;
    u32::try_from(part).unwrap_or(u32::MAX).max(1)
}

/// How long the `ejections`th ejection lasts.
pub(crate) fn duration(policy: &OutlierDetection, ejections: u32) -> Duration {
    let longest = policy.max_ejection.max(policy.base_ejection);
    policy
        .base_ejection
        .saturating_mul(ejections.max(1))
        .min(longest)
}

/// True when answers must be tallied for looks at the whole backend.
pub(crate) fn looks(policy: &OutlierDetection) -> bool {
    policy.success_rate.is_some() || policy.latency.is_some()
}

/// What an endpoint did since the last look; shared by the workers.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    requests: AtomicU64,
    failures: AtomicU64,
    answers: AtomicU64,
    latency_us: AtomicU64,
}

impl Tally {
    /// Counts a try; its latency unless there was no answer.
    pub(crate) fn count(&self, well: bool, latency: Option<Duration>) {
        self.requests.fetch_add(1, Relaxed);
        if !well {
            self.failures.fetch_add(1, Relaxed);
        }
        if let Some(latency) = latency {
            let latency = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX >> 20);
            self.answers.fetch_add(1, Relaxed);
            self.latency_us.fetch_add(latency, Relaxed);
        }
    }

    /// Takes what was counted.
    pub(crate) fn take(&self) -> Sample {
        Sample {
            requests: self.requests.swap(0, Relaxed),
            failures: self.failures.swap(0, Relaxed),
            answers: self.answers.swap(0, Relaxed),
            latency_us: self.latency_us.swap(0, Relaxed),
        }
    }
}

/// What an endpoint did in an interval.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Sample {
    /// Tries.
    pub(crate) requests: u64,
    /// Of them failed.
    pub(crate) failures: u64,
    /// Of them answered.
    pub(crate) answers: u64,
    /// Sum of the latencies of the answered ones.
    pub(crate) latency_us: u64,
}

/// Looks at all endpoints of a backend together: who does worse than the others, by index, the worst first.
pub(crate) fn look(policy: &OutlierDetection, samples: &[Sample]) -> Vec<(usize, Reason)> {
    let mut found = Vec::new();
    if let Some(rule) = &policy.success_rate {
        found.extend(unsuccessful(rule, samples));
    }
    if let Some(rule) = &policy.latency {
        let slow = slow(rule, samples);
        let fresh: Vec<_> = slow
            .into_iter()
            .filter(|(index, _)| found.iter().all(|(other, _)| other != index))
            .collect();
        found.extend(fresh);
    }
    found
}

#[expect(clippy::cast_precision_loss, reason = "rates")]
fn unsuccessful(rule: &SuccessRate, samples: &[Sample]) -> Vec<(usize, Reason)> {
    let rates: Vec<(usize, f64)> = samples
        .iter()
        .enumerate()
        .filter(|(_, sample)| sample.requests >= u64::from(rule.request_volume.max(1)))
        .map(|(index, sample)| {
            let rate = 1.0 - sample.failures as f64 / sample.requests as f64;
            (index, rate)
        })
        .collect();
    if rates.is_empty() || (rates.len() as u64) < u64::from(rule.minimum_hosts) {
        return Vec::new();
    }
    let count = rates.len() as f64;
    let mean = rates.iter().map(|(_, rate)| rate).sum::<f64>() / count;
    let variance = rates
        .iter()
        .map(|(_, rate)| (rate - mean).powi(2))
        .sum::<f64>()
        / count;
    let least = mean - variance.sqrt() * f64::from(rule.stdev_factor);
    let below = rates.into_iter().filter(|(_, rate)| *rate < least);
    worst_first(
        below.map(|(index, rate)| (index, -rate)),
        Reason::SuccessRate,
    )
}

#[expect(clippy::cast_precision_loss, reason = "means")]
fn slow(rule: &LatencyOutlier, samples: &[Sample]) -> Vec<(usize, Reason)> {
    let means: Vec<(usize, f64)> = samples
        .iter()
        .enumerate()
        .filter(|(_, sample)| sample.answers >= u64::from(rule.request_volume.max(1)))
        .map(|(index, sample)| (index, sample.latency_us as f64 / sample.answers as f64))
        .collect();
    // Nobody is slower than himself.
    if means.len() < 2 {
        return Vec::new();
    }
    let mut sorted: Vec<f64> = means.iter().map(|(_, mean)| *mean).collect();
    sorted.sort_by(f64::total_cmp);
    let median = sorted.get((sorted.len() - 1) / 2).copied().unwrap_or(0.0);
    let most = (median * f64::from(rule.factor)).max(rule.floor.as_secs_f64() * 1e6);
    let above = means.into_iter().filter(|(_, mean)| *mean > most);
    worst_first(above, Reason::Latency)
}

fn worst_first(found: impl Iterator<Item = (usize, f64)>, reason: Reason) -> Vec<(usize, Reason)> {
    let mut found: Vec<_> = found.collect();
    found.sort_by(|(_, a), (_, b)| b.total_cmp(a));
    found
        .into_iter()
        .map(|(index, _)| (index, reason))
        .collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn policy() -> OutlierDetection {
        OutlierDetection {
            consecutive_errors: 3,
            consecutive_gateway_errors: 2,
            consecutive_local_failures: 2,
            success_rate: Some(SuccessRate {
                minimum_hosts: 5,
                request_volume: 100,
                stdev_factor: 1.9,
            }),
            latency: Some(LatencyOutlier {
                factor: 3.0,
                floor: Duration::from_millis(20),
                request_volume: 10,
            }),
            ..OutlierDetection::default()
        }
    }

    #[test]
    fn verdicts() {
        for (status, grpc, wanted) in [
            (200, None, Verdict::Well),
            (404, None, Verdict::Well),
            (500, None, Verdict::Error),
            (501, None, Verdict::Error),
            (503, None, Verdict::Gateway),
            (200, Some(0), Verdict::Well),
            (200, Some(5), Verdict::Well),
            (200, Some(12), Verdict::Well),
            (200, Some(13), Verdict::Error),
            (200, Some(14), Verdict::Gateway),
            (503, Some(8), Verdict::Gateway),
        ] {
            assert_eq!(Verdict::of(status, grpc), wanted, "{status} {grpc:?}");
        }
    }

    #[test]
    fn rows() {
        let (policy, rows) = (policy(), Rows::default());
        let answer = |verdict| after_answer(&policy, &rows, verdict);
        assert_eq!(answer(Verdict::Gateway), None);
        assert_eq!(answer(Verdict::Error), None);
        assert_eq!(answer(Verdict::Error), Some(Reason::Errors));
        let rows = Rows::default();
        assert_eq!(after_answer(&policy, &rows, Verdict::Gateway), None);
        assert_eq!(
            after_answer(&policy, &rows, Verdict::Gateway),
            Some(Reason::Gateway)
        );
        let rows = Rows::default();
        assert_eq!(after_silence(&policy, &rows), None);
        assert_eq!(after_silence(&policy, &rows), Some(Reason::Unanswered));
        // What is 0 never counts.
        let (off, rows) = (
            OutlierDetection {
                consecutive_local_failures: 0,
                ..OutlierDetection::default()
            },
            Rows::default(),
        );
        for _ in 0..99 {
            assert_eq!(after_silence(&off, &rows), None);
            assert_eq!(after_answer(&off, &rows, Verdict::Gateway), None);
        }
    }

    #[test]
    fn bounds() {
        let mut policy = policy();
        assert_eq!(allowance(&policy, 1), 1);
        assert_eq!(allowance(&policy, 10), 5);
        policy.max_ejection_percent = 0;
        assert_eq!(allowance(&policy, 10), 1, "one always may");
        policy.max_ejection_percent = 255;
        assert_eq!(allowance(&policy, 10), 10);
        assert_eq!(duration(&policy, 1), Duration::from_secs(10));
        assert_eq!(duration(&policy, 3), Duration::from_secs(30));
        assert_eq!(duration(&policy, 99), Duration::from_mins(5));
        policy.max_ejection = Duration::ZERO;
        assert_eq!(duration(&policy, 9), Duration::from_secs(10));
    }

    fn sample(requests: u64, failures: u64, mean_us: u64) -> Sample {
        Sample {
            requests,
            failures,
            answers: requests,
            latency_us: requests * mean_us,
        }
    }

    #[test]
    fn success_rates() {
        let mut samples = vec![sample(1000, 5, 1000); 9];
        samples.push(sample(1000, 400, 1000));
        assert_eq!(look(&policy(), &samples), [(9, Reason::SuccessRate)]);
        // Too few requests to judge it, too few others to compare it with.
        samples[9] = sample(99, 99, 1000);
        assert_eq!(look(&policy(), &samples), []);
        assert_eq!(
            look(&policy(), &[sample(1000, 0, 9), sample(1000, 999, 9)]),
            []
        );
        // All alike are no outliers, however bad.
        assert_eq!(look(&policy(), &[sample(1000, 900, 1000); 9]), []);
    }

    #[test]
    fn latencies() {
        let mut samples = vec![sample(50, 0, 10_000); 4];
        samples[2] = sample(50, 0, 31_000);
        samples[3] = sample(50, 0, 90_000);
        assert_eq!(
            look(&policy(), &samples),
            [(3, Reason::Latency), (2, Reason::Latency)],
            "the slowest first"
        );
        samples[3] = sample(9, 0, 90_000);
        samples[2] = sample(50, 0, 29_000);
        assert_eq!(look(&policy(), &samples), []);
        // Below the floor nobody is slow.
        assert_eq!(
            look(&policy(), &[sample(50, 0, 100), sample(50, 0, 19_000)]),
            []
        );
    }

    proptest! {
        /// With a factor of 1 or more somebody is always left, and nobody is named twice.
        #[test]
        fn never_all(samples in prop::collection::vec((0u64..2000, 0u64..2000, 0u64..1_000_000), 0..40)) {
            let samples: Vec<_> = samples
                .into_iter()
                .map(|(requests, failures, mean)| sample(requests, failures.min(requests), mean))
                .collect();
            let found = look(&policy(), &samples);
            let mut indexes: Vec<_> = found.iter().map(|(index, _)| *index).collect();
            indexes.sort_unstable();
            indexes.dedup();
            prop_assert_eq!(indexes.len(), found.len());
            prop_assert!(found.is_empty() || found.len() < samples.len());
        }
    }

    /// An endpoint that fails half of its requests is found in one interval, healthy ones hardly ever.
    #[test]
    fn a_run_of_intervals() {
        let mut random = fastrand::Rng::with_seed(11);
        let tallies: Vec<Tally> = (0..20).map(|_| Tally::default()).collect();
        let (mut right, mut wrong) = (0, 0);
        for _interval in 0..50 {
            for _ in 0..20 * 200 {
                let index = random.usize(0..20);
                let fails = random.f64() < if index == 4 { 0.5 } else { 0.01 };
                tallies[index].count(!fails, Some(Duration::from_millis(5)));
            }
            let samples: Vec<_> = tallies.iter().map(Tally::take).collect();
            for (index, _) in look(&policy(), &samples) {
                if index == 4 {
                    right += 1;
                } else {
                    wrong += 1;
                }
            }
        }
        assert_eq!((right, wrong), (50, 0));
    }
}
