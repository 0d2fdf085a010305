//! How a backend's endpoints are used, in words.

use mesh_model::{
    duration,
    snapshot::{
        Backend, TrafficPolicy,
        traffic::{Balance, CircuitLimits, HashKey, LocalityPolicy, OutlierDetection, Probe},
    },
};

use super::{State, Story, choice::name};

impl Story<'_> {
    /// Tells the traffic policy of a backend, when a DestinationRule says something of it.
    pub(super) fn tell_policy(&mut self, backend: &Backend) {
        let policy = &*backend.policy;
        if policy.name.is_empty() {
            return;
        }
        self.steps.add(
            "policy",
            State::Ok,
            format!("{}: {}", name(backend), words(policy)),
            format!("DestinationRule {}", policy.name),
        );
    }
}

/// How the next endpoint is found.
pub(super) fn algorithm(balance: &Balance) -> String {
    match balance {
        Balance::PeakEwma { .. } => "the less loaded of two random ones is taken".to_owned(),
        Balance::LeastRequest { choices } => {
            format!("the one of {choices} random ones with the fewest requests is taken")
        }
        Balance::RoundRobin => "each is taken in turn".to_owned(),
        Balance::Random => "a random one is taken".to_owned(),
        Balance::RingHash { keys, .. } => format!("a hash of {} decides (ring)", hashed(keys)),
        Balance::Maglev { keys, .. } => format!("a hash of {} decides (Maglev)", hashed(keys)),
    }
}

fn hashed(keys: &[HashKey]) -> String {
    let one = |key: &HashKey| match key {
        HashKey::Header(name) => format!("the header {name}"),
        HashKey::Cookie { name, .. } => format!("the cookie {name}"),
        HashKey::SourceAddress => "the caller's address".to_owned(),
        HashKey::Query(name) => format!("the parameter {name}"),
    };
    let all: Vec<String> = keys.iter().map(one).collect();
    all.join(" or ")
}

fn words(policy: &TrafficPolicy) -> String {
    let mut parts = vec![algorithm(&policy.balance)];
    match &policy.locality {
        LocalityPolicy::Prefer => {}
        LocalityPolicy::Off => parts.push("nearness counts for nothing".to_owned()),
        LocalityPolicy::Distribute(shares) => {
            parts.push(format!("fixed shares by locality ({})", shares.len()));
        }
    }
    if let Some(start) = &policy.slow_start {
        parts.push(format!("slow start of {}", duration::print(start.window)));
    }
    parts.extend(limits(&policy.limits));
    if policy.outlier != OutlierDetection::default() {
        parts.push(outlier(&policy.outlier));
    }
    if let Some(check) = &policy.health_check {
        let probe = match &check.probe {
            Probe::Tcp => "connection".to_owned(),
            Probe::Http { path, .. } => format!("GET {path}"),
            Probe::Grpc { .. } => "gRPC health".to_owned(),
        };
        parts.push(format!(
            "checked every {} ({probe})",
            duration::print(check.interval)
        ));
    }
    if let Some(after) = policy.hedge_after {
        parts.push(format!("a second try after {}", duration::print(after)));
    }
    if policy.panic_threshold > 0 {
        parts.push(format!(
            "below {} % usable all are used",
            policy.panic_threshold
        ));
    }
    parts.join("; ")
}

fn limits(limits: &CircuitLimits) -> Option<String> {
    let all = [
        (limits.max_connections, "connections"),
        (limits.max_pending, "waiting"),
        (limits.max_requests, "requests"),
        (limits.max_retries, "retries"),
    ];
    let stated: Vec<String> = all
        .iter()
        .filter(|(number, _)| *number != u32::MAX)
        .map(|(number, what)| format!("{number} {what}"))
        .collect();
    (!stated.is_empty()).then(|| format!("at most {}", stated.join(", ")))
}

fn outlier(outlier: &OutlierDetection) -> String {
    let all = [
        (outlier.consecutive_errors, "errors"),
        (outlier.consecutive_gateway_errors, "gateway errors"),
        (outlier.consecutive_local_failures, "failures to reach it"),
    ];
    let mut causes: Vec<String> = all
        .iter()
        .filter(|(number, _)| *number > 0)
        .map(|(number, what)| format!("{number} {what} in a row"))
        .collect();
    causes.extend(outlier.success_rate.map(|_| "success rate".to_owned()));
    causes.extend(outlier.latency.map(|_| "latency".to_owned()));
    let span = duration::print(outlier.base_ejection);
    format!(
        "put out for {span} after {} (at most {} % at once)",
        causes.join(" or "),
        outlier.max_ejection_percent
    )
}
