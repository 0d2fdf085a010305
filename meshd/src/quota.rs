//! Mesh-wide rate limits that this host counts for others: reports of demand in, shares out.

use std::{
    sync::{Mutex, PoisonError},
    time::Instant,
};

use bytes::Bytes;
use mesh_model::{name::HostId, snapshot::limit::LimitKey};
use serde::{Deserialize, Serialize};

use self::ledger::Ledger;

/// Reports and shares.
mod ledger;

pub(crate) use ledger::REPORT_COUNTS;

/// The kind of call by which demand is reported.
pub(crate) const QUOTA_KIND: &str = "quota";
/// Most limits in one report.
pub(crate) const MOST: usize = 4_096;

/// A report: limit, requests per second that were asked for, hosts known to run the service.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Report(pub(crate) Vec<(u64, f64, u32)>);

/// The answer: limit and share.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Shares(pub(crate) Vec<(u64, f32)>);

/// What this host counts for others.
#[derive(Debug, Default)]
pub(crate) struct Quotas(Mutex<Ledger>);

impl Quotas {
    /// Answers another host's report.
    pub(crate) fn answer(&self, host: HostId, body: &[u8]) -> Result<Bytes, String> {
        let report: Report = serde_json::from_slice(body).map_err(|error| error.to_string())?;
        if report.0.len() > MOST {
            return Err(format!(
                "{} limits, at most {MOST} are taken",
                report.0.len()
            ));
        }
        let shares = self.take(host, &report);
        serde_json::to_vec(&shares)
            .map(Bytes::from)
            .map_err(|error| error.to_string())
    }

    /// Takes a report, and tells the shares.
    pub(crate) fn take(&self, host: HostId, report: &Report) -> Shares {
        let mut ledger = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let share = |(limit, demand, known): &(u64, f64, u32)| {
            let known = usize::try_from(*known).unwrap_or(usize::MAX);
            (
                *limit,
                ledger.report(LimitKey(*limit), host, *demand, known, now),
            )
        };
        Shares(report.0.iter().map(share).collect())
    }

    /// Lets go of what nobody reports any more.
    pub(crate) fn forget(&self) {
        let mut ledger = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        ledger.forget(Instant::now());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_are_bounded_and_understood() {
        let quotas = Quotas::default();
        let host = HostId([1; 16]);
        let body = serde_json::to_vec(&Report(vec![(7, 10.0, 2)])).unwrap();
        let answer = quotas.answer(host, &body).unwrap();
        let shares: Shares = serde_json::from_slice(&answer).unwrap();
        assert_eq!(shares.0[0].0, 7);
        assert!((shares.0[0].1 - 0.95).abs() < 1e-6, "{shares:?}");
        assert!(quotas.answer(host, b"[").is_err());
        let many = Report((0..=MOST as u64).map(|limit| (limit, 1.0, 1)).collect());
        assert!(
            quotas
                .answer(host, &serde_json::to_vec(&many).unwrap())
                .is_err()
        );
    }
}
