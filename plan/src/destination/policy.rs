//! A traffic policy as the proxy obeys it, from its parts as written.

use std::{sync::Arc, time::Duration};

use mesh_model::{
    document::{
        destination_rule::{
            ConsistentHashSpec, H2UpgradePolicy, HealthCheckSpec, LatencySpec, LoadBalancerSpec,
            LocalitySpec, OutlierDetectionSpec, SimpleBalancer, SuccessRateSpec,
        },
        span::Span,
    },
    endpoint::Locality,
    snapshot::{
        TrafficPolicy,
        traffic::{
            Balance, CircuitLimits, HashKey, HealthCheck, LatencyOutlier, LocalityPolicy,
            OutlierDetection, Probe, RetryBudget, SlowStart, SuccessRate,
        },
    },
};

use super::part::Parts;
use crate::percent::single;

/// The policy; the default one when nothing is said.
pub(super) fn compiled(parts: &Parts<'_>, name: &Arc<str>, own: &Locality) -> TrafficPolicy {
    if *parts == Parts::default() {
        return TrafficPolicy::default();
    }
    let default = TrafficPolicy::default();
    let pool = parts.connection_pool;
    let tcp = pool.and_then(|pool| pool.tcp.as_ref());
    let http = pool.and_then(|pool| pool.http.as_ref());
    let idle = http.and_then(|http| http.idle_timeout);
    let outlier = parts.outlier_detection;
    TrafficPolicy {
        name: Arc::clone(name),
        balance: parts.load_balancer.map(balance).unwrap_or_default(),
        locality: setting(parts)
            .map(|setting| locality(setting, own))
            .unwrap_or_default(),
        slow_start: parts.load_balancer.and_then(slow_start),
        panic_threshold: parts
            .panic_threshold
            .or_else(|| outlier.and_then(|outlier| outlier.min_health_percent))
            .unwrap_or(default.panic_threshold),
        limits: limits(parts),
        outlier: outlier.map_or(default.outlier, outliers),
        health_check: parts.health_check.and_then(health_check),
        retry_budget: parts
            .retry_budget
            .map_or(default.retry_budget, |budget| RetryBudget {
                percent: budget.percent.map_or(default.retry_budget.percent, single),
                minimum_per_second: budget
                    .min_retries_per_second
                    .or(budget.min_retry_concurrency)
                    .unwrap_or(default.retry_budget.minimum_per_second),
            }),
        hedge_after: above_zero(parts.hedge_after),
        connect_timeout: tcp.and_then(|tcp| above_zero(tcp.connect_timeout)),
        idle_timeout: above_zero(idle.or_else(|| tcp.and_then(|tcp| tcp.idle_timeout))),
        stream_idle: above_zero(tcp.and_then(|tcp| tcp.idle_timeout)),
        max_requests_per_connection: http
            .and_then(|http| http.max_requests_per_connection)
            .unwrap_or(0),
        upgrade_to_http2: http.and_then(|http| http.h2_upgrade_policy)
            == Some(H2UpgradePolicy::Upgrade),
    }
}

fn above_zero(span: Option<Span>) -> Option<Duration> {
    span.map(|span| span.0).filter(|span| !span.is_zero())
}

fn setting<'a>(parts: &Parts<'a>) -> Option<&'a LocalitySpec> {
    parts.load_balancer?.locality_lb_setting.as_ref()
}

fn balance(given: &LoadBalancerSpec) -> Balance {
    if let Some(hash) = &given.consistent_hash {
        return hashed(hash);
    }
    match given.simple.unwrap_or_default() {
        SimpleBalancer::Random => Balance::Random,
        SimpleBalancer::RoundRobin => Balance::RoundRobin,
        SimpleBalancer::LeastRequest | SimpleBalancer::LeastConn => Balance::LeastRequest {
            choices: given.choices.unwrap_or(2).max(2),
        },
        SimpleBalancer::PeakEwma => match given.decay {
            Some(decay) => Balance::PeakEwma { decay: decay.0 },
            None => Balance::default(),
        },
        SimpleBalancer::Unspecified | SimpleBalancer::Passthrough => Balance::default(),
    }
}

fn hashed(given: &ConsistentHashSpec) -> Balance {
    let mut keys = Vec::new();
    if let Some(name) = &given.http_header_name {
        keys.push(HashKey::Header(name.to_ascii_lowercase().into()));
    }
    if let Some(cookie) = &given.http_cookie {
        keys.push(HashKey::Cookie {
            name: cookie.name.as_str().into(),
            path: cookie.path.as_deref().unwrap_or("/").into(),
            ttl: cookie.ttl.map(|ttl| ttl.0),
        });
    }
    if let Some(name) = &given.http_query_parameter_name {
        keys.push(HashKey::Query(name.as_str().into()));
    }
    if given.use_source_ip == Some(true) {
        keys.push(HashKey::SourceAddress);
    }
    let keys = Arc::from(keys);
    let number = |stated: Option<u64>, default: u32| {
        stated.map_or(default, |stated| u32::try_from(stated).unwrap_or(u32::MAX))
    };
    if let Some(maglev) = &given.maglev {
        return Balance::Maglev {
            keys,
            table_size: number(maglev.table_size, 65_537),
        };
    }
    let ring = given.ring_hash.and_then(|ring| ring.minimum_ring_size);
    Balance::RingHash {
        keys,
        minimum_ring_size: number(ring.or(given.minimum_ring_size), 1024),
    }
}

/// `region`, `region/zone` or `region/zone/sub-zone`; `*` as a part is any.
fn place(text: &str) -> Locality {
    let mut parts = text.split('/').map(|part| {
        let stated = !part.is_empty() && part != "*";
        stated.then(|| Arc::from(part))
    });
    let mut next = || parts.next().flatten();
    Locality {
        region: next(),
        zone: next(),
        sub_zone: next(),
    }
}

/// Number of stated parts when all of them are this host's.
fn fits(stated: &Locality, own: &Locality) -> Option<usize> {
    let pairs = [
        (&stated.region, &own.region),
        (&stated.zone, &own.zone),
        (&stated.sub_zone, &own.sub_zone),
    ];
    let mut stated = pairs.into_iter().filter(|(stated, _)| stated.is_some());
    let count = stated.clone().count();
    stated.all(|(stated, own)| stated == own).then_some(count)
}

fn locality(setting: &LocalitySpec, own: &Locality) -> LocalityPolicy {
    if setting.enabled == Some(false) {
        return LocalityPolicy::Off;
    }
    let nearest = setting
        .distribute
        .iter()
        .filter_map(|one| Some((fits(&place(&one.from), own)?, one)))
        .max_by_key(|(count, _)| *count);
    match nearest {
        Some((_, one)) => {
            let shares = one.to.iter().filter(|(_, weight)| **weight > 0);
            LocalityPolicy::Distribute(
                shares
                    .map(|(text, weight)| (place(text), *weight))
                    .collect(),
            )
        }
        None => LocalityPolicy::Prefer,
    }
}

/// The region that takes over when this host's has no usable endpoint.
pub(super) fn failover<'a>(parts: &Parts<'a>, own: &Locality) -> Option<&'a str> {
    let setting = setting(parts).filter(|setting| setting.enabled != Some(false))?;
    let own = own.region.as_deref()?;
    let found = setting.failover.iter().find(|one| one.from == own)?;
    Some(&found.to)
}

fn slow_start(given: &LoadBalancerSpec) -> Option<SlowStart> {
    let short = given.warmup_duration_secs.map(|window| SlowStart {
        window: window.0,
        aggression: 1.0,
        minimum_percent: 10,
    });
    let full = given.warmup.map(|warmup| SlowStart {
        window: warmup.duration.0,
        aggression: single(warmup.aggression.unwrap_or(1.0)).max(1.0),
        minimum_percent: whole(warmup.minimum_percent.unwrap_or(10.0)),
    });
    full.or(short).filter(|start| !start.window.is_zero())
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "clamped to 0 to 100"
)]
fn whole(percent: f64) -> u8 {
    percent.round().clamp(0.0, 100.0) as u8
}

/// 0 is what Istio writes for a limit that is not set.
fn limits(parts: &Parts<'_>) -> CircuitLimits {
    let pool = parts.connection_pool;
    let tcp = pool.and_then(|pool| pool.tcp.as_ref());
    let http = pool.and_then(|pool| pool.http.as_ref());
    let limit = |stated: Option<u32>| stated.filter(|number| *number > 0).unwrap_or(u32::MAX);
    CircuitLimits {
        max_connections: limit(tcp.and_then(|tcp| tcp.max_connections)),
        max_pending: limit(http.and_then(|http| http.http1_max_pending_requests)),
        max_requests: limit(http.and_then(|http| http.http2_max_requests)),
        max_retries: limit(http.and_then(|http| http.max_retries)),
    }
}

/// What is left out is what Istio documents: five 5xx in a row, looks every 10 s, out for 30 s, a tenth at once.
fn outliers(given: &OutlierDetectionSpec) -> OutlierDetection {
    let default = OutlierDetection::default();
    let span = |stated: Option<Span>, otherwise: Duration| stated.map_or(otherwise, |span| span.0);
    let base = span(given.base_ejection_time, Duration::from_secs(30));
    OutlierDetection {
        consecutive_errors: given.consecutive_5xx_errors.unwrap_or(5),
        consecutive_gateway_errors: given
            .consecutive_gateway_errors
            .or(given.consecutive_errors)
            .unwrap_or(0),
        consecutive_local_failures: given
            .consecutive_local_origin_failures
            .unwrap_or(default.consecutive_local_failures),
        interval: span(given.interval, Duration::from_secs(10)),
        base_ejection: base,
        max_ejection: span(given.max_ejection_time, default.max_ejection).max(base),
        max_ejection_percent: given.max_ejection_percent.unwrap_or(10),
        success_rate: given.success_rate.as_ref().map(success_rate),
        latency: given.latency.as_ref().map(latency),
    }
}

fn success_rate(given: &SuccessRateSpec) -> SuccessRate {
    SuccessRate {
        minimum_hosts: given.minimum_hosts.unwrap_or(3),
        request_volume: given.request_volume.unwrap_or(100),
        stdev_factor: single(given.stdev_factor.unwrap_or(1.9)),
    }
}

fn latency(given: &LatencySpec) -> LatencyOutlier {
    LatencyOutlier {
        factor: single(given.factor.unwrap_or(3.0)),
        floor: given
            .floor
            .map_or(Duration::from_millis(10), |floor| floor.0),
        request_volume: given.request_volume.unwrap_or(100),
    }
}

fn health_check(given: &HealthCheckSpec) -> Option<HealthCheck> {
    let probe = if let Some(http) = &given.http {
        Probe::Http {
            path: http.path.as_str().into(),
            host: http.host.as_deref().map(Into::into),
            statuses: http.statuses.iter().copied().collect(),
        }
    } else if let Some(grpc) = &given.grpc {
        Probe::Grpc {
            service: grpc.service.as_deref().unwrap_or_default().into(),
        }
    } else {
        given.tcp.map(|_| Probe::Tcp)?
    };
    let span = |stated: Option<Span>, seconds| {
        above_zero(stated).unwrap_or_else(|| Duration::from_secs(seconds))
    };
    Some(HealthCheck {
        probe,
        interval: span(given.interval, 10),
        timeout: span(given.timeout, 1),
        healthy_threshold: given.healthy_threshold.unwrap_or(2).max(1),
        unhealthy_threshold: given.unhealthy_threshold.unwrap_or(3).max(1),
    })
}
