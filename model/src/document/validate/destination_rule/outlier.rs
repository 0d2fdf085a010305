//! When endpoints are put out.

use std::time::Duration;

use super::super::{one_only, percent, positive};
use crate::{document::destination_rule::OutlierDetectionSpec, written::At};

/// How long an endpoint is out for the first time when nothing else is said.
const FIRST_OUT: Duration = Duration::from_secs(30);

pub(super) fn check(given: &OutlierDetectionSpec, at: &At<'_>) {
    one_only(
        &[
            ("consecutiveErrors", given.consecutive_errors.is_some()),
            (
                "consecutiveGatewayErrors",
                given.consecutive_gateway_errors.is_some(),
            ),
        ],
        at,
    );
    if given.split_external_local_origin_errors == Some(false)
        && given.consecutive_local_origin_failures.is_some()
    {
        at.key("splitExternalLocalOriginErrors")
            .note("failures to reach an endpoint always count by themselves");
    }
    positive(given.interval, &at.key("interval"));
    positive(given.base_ejection_time, &at.key("baseEjectionTime"));
    positive(given.max_ejection_time, &at.key("maxEjectionTime"));
    let base = given.base_ejection_time.map_or(FIRST_OUT, |base| base.0);
    if given.max_ejection_time.is_some_and(|most| most.0 < base) {
        let unless = if given.base_ejection_time.is_none() {
            ", which is 30s unless given"
        } else {
            ""
        };
        at.key("maxEjectionTime").fault(
            format!("is shorter than the first time out{unless}"),
            "make it at least `baseEjectionTime`",
        );
    }
    for (key, value) in [
        ("maxEjectionPercent", given.max_ejection_percent),
        ("minHealthPercent", given.min_health_percent),
    ] {
        if let Some(value) = value {
            percent(f64::from(value), &at.key(key));
        }
    }
    let counted = |count: Option<u32>, at: &At<'_>| {
        if count == Some(0) {
            at.fault("0 measures nothing", "write at least 1");
        }
    };
    if let Some(rate) = &given.success_rate {
        let at = at.key("successRate");
        counted(rate.minimum_hosts, &at.key("minimumHosts"));
        counted(rate.request_volume, &at.key("requestVolume"));
        within(rate.stdev_factor, 0.1, &at.key("stdevFactor"));
    }
    if let Some(latency) = &given.latency {
        let at = at.key("latency");
        counted(latency.request_volume, &at.key("requestVolume"));
        within(latency.factor, 1.1, &at.key("factor"));
    }
}

fn within(factor: Option<f64>, least: f64, at: &At<'_>) {
    if factor.is_some_and(|factor| !(least..=100.0).contains(&factor)) {
        at.fault("is out of range", format!("write {least} to 100"));
    }
}
