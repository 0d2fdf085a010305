//! `DestinationRule`: subsets and traffic policies.

use std::time::Duration;

use super::{
    at_most, exactly_one, export_to, final_status, one_only, own, percent, port, positive,
    service_host, virtual_service::subset_name,
};
use crate::{
    document::{
        destination_rule::{
            ConnectionPoolSpec, DestinationRuleSpec, HealthCheckSpec, LoadBalancerSpec,
            OutlierDetectionSpec, PortPolicySpec, RetryBudgetSpec, TlsMode, TlsSpec,
            TrafficPolicySpec,
        },
        span::Span,
    },
    written::At,
};

mod balancer;
mod outlier;

pub(super) fn check(rule: &DestinationRuleSpec, at: &At<'_>) {
    service_host(&rule.host, &at.key("host"));
    export_to(&rule.export_to, &at.key("exportTo"));
    if rule.workload_selector.is_some() {
        at.key("workloadSelector")
            .note("the rule acts for every caller, not for selected workloads only");
    }
    if let Some(given) = &rule.traffic_policy {
        policy(given, &at.key("trafficPolicy"));
    }
    let here = at.key("subsets");
    at_most(rule.subsets.len(), 64, &here);
    for (index, subset) in rule.subsets.iter().enumerate() {
        let at = here.index(index);
        if !subset_name(&subset.name) {
            at.key("name").fault(
                format!("{:?} is no name of a subset", subset.name),
                "use 1 to 63 letters, digits, - and .",
            );
        }
        let before = rule.subsets.get(..index).unwrap_or_default();
        if before.iter().any(|other| other.name == subset.name) {
            at.key("name").fault(
                format!("{:?} names another subset already", subset.name),
                "write each name once",
            );
        }
        own::labels(&subset.labels, &at.key("labels"));
        if let Some(given) = &subset.traffic_policy {
            policy(given, &at.key("trafficPolicy"));
        }
    }
}

/// Time between two checks when nothing else is said.
const CHECK_INTERVAL: Duration = Duration::from_secs(10);

/// What a policy and the part of it for one port have in common.
struct Parts<'p> {
    load_balancer: Option<&'p LoadBalancerSpec>,
    connection_pool: Option<&'p ConnectionPoolSpec>,
    outlier: Option<&'p OutlierDetectionSpec>,
    tls: Option<&'p TlsSpec>,
    budget: Option<&'p RetryBudgetSpec>,
    panic: Option<u8>,
    health_check: Option<&'p HealthCheckSpec>,
    hedge_after: Option<Span>,
}

fn policy(given: &TrafficPolicySpec, at: &At<'_>) {
    parts(
        &Parts {
            load_balancer: given.load_balancer.as_ref(),
            connection_pool: given.connection_pool.as_ref(),
            outlier: given.outlier_detection.as_ref(),
            tls: given.tls.as_ref(),
            budget: given.retry_budget.as_ref(),
            panic: given.panic_threshold,
            health_check: given.health_check.as_ref(),
            hedge_after: given.hedge_after,
        },
        at,
    );
    if given.tunnel.is_some() {
        at.key("tunnel")
            .note("connections between hosts take the mesh's own tunnel");
    }
    if given.proxy_protocol.is_some() {
        at.key("proxyProtocol")
            .note("no PROXY header is sent; the caller's address is kept by the mesh");
    }
    let here = at.key("portLevelSettings");
    at_most(given.port_level_settings.len(), 64, &here);
    for (index, one) in given.port_level_settings.iter().enumerate() {
        let before = given.port_level_settings.get(..index).unwrap_or_default();
        port_policy(one, before, &here.index(index));
    }
}

fn port_policy(one: &PortPolicySpec, before: &[PortPolicySpec], at: &At<'_>) {
    let number = at.key("port").key("number");
    port(Some(one.port.number), &number);
    if before.iter().any(|other| other.port == one.port) {
        number.fault(
            format!("{} has settings already", one.port.number),
            "write each port once",
        );
    }
    parts(
        &Parts {
            load_balancer: one.load_balancer.as_ref(),
            connection_pool: one.connection_pool.as_ref(),
            outlier: one.outlier_detection.as_ref(),
            tls: one.tls.as_ref(),
            budget: one.retry_budget.as_ref(),
            panic: one.panic_threshold,
            health_check: one.health_check.as_ref(),
            hedge_after: one.hedge_after,
        },
        at,
    );
}

fn parts(given: &Parts<'_>, at: &At<'_>) {
    if let Some(balancer) = given.load_balancer {
        balancer::check(balancer, &at.key("loadBalancer"));
    }
    if let Some(wanted) = given.connection_pool {
        pool(wanted, &at.key("connectionPool"));
    }
    if let Some(wanted) = given.outlier {
        outlier::check(wanted, &at.key("outlierDetection"));
    }
    if let Some(wanted) = given.tls {
        tls(wanted, &at.key("tls"));
    }
    if let Some(wanted) = given.budget {
        budget(wanted, &at.key("retryBudget"));
    }
    if let Some(wanted) = given.panic {
        percent(f64::from(wanted), &at.key("panicThreshold"));
        if given
            .outlier
            .is_some_and(|outlier| outlier.min_health_percent.is_some())
        {
            at.key("panicThreshold").fault(
                "`outlierDetection.minHealthPercent` says the same",
                "leave one of them",
            );
        }
    }
    if let Some(wanted) = given.health_check {
        health_check(wanted, &at.key("healthCheck"));
    }
    if given.hedge_after.is_some_and(|after| after.0.is_zero()) {
        at.key("hedgeAfter").fault(
            "a second try beside each first one doubles the load",
            "write a time that few requests need, such as 50ms, or leave it out",
        );
    }
    let nothing = |budget: &RetryBudgetSpec| {
        let least = budget
            .min_retries_per_second
            .or(budget.min_retry_concurrency);
        budget.percent == Some(0.0) && least == Some(0)
    };
    if given.hedge_after.is_some() && given.budget.is_some_and(nothing) {
        at.key("hedgeAfter")
            .note("never acts: the retry budget allows nothing");
    }
}

fn pool(given: &ConnectionPoolSpec, at: &At<'_>) {
    let something = |count: Option<u32>, at: &At<'_>| {
        if count == Some(0) {
            at.note("0 sets no limit, as in Istio");
        }
    };
    if let Some(tcp) = &given.tcp {
        let at = at.key("tcp");
        something(tcp.max_connections, &at.key("maxConnections"));
        positive(tcp.connect_timeout, &at.key("connectTimeout"));
        if tcp.tcp_keepalive.is_some() {
            at.key("tcpKeepalive")
                .note("the daemon keeps its connections alive by its own settings");
        }
        if tcp.max_connection_duration.is_some() {
            at.key("maxConnectionDuration")
                .note("a connection is not closed for its age");
        }
    }
    let Some(http) = &given.http else { return };
    let at = at.key("http");
    something(
        http.http1_max_pending_requests,
        &at.key("http1MaxPendingRequests"),
    );
    something(http.http2_max_requests, &at.key("http2MaxRequests"));
    something(http.max_retries, &at.key("maxRetries"));
    if http.use_client_protocol == Some(true) {
        at.key("useClientProtocol")
            .note("the service's own protocol decides");
    }
    if http.max_concurrent_streams.is_some() {
        at.key("maxConcurrentStreams")
            .note("the service says how many streams a connection bears; `http2MaxRequests` bounds requests");
    }
}

fn tls(given: &TlsSpec, at: &At<'_>) {
    match given.mode {
        TlsMode::Disable | TlsMode::IstioMutual => {}
        TlsMode::Simple | TlsMode::Mutual => at.key("mode").note(
            "the mesh secures calls between its services by itself, and begins no TLS of another kind",
        ),
    }
    let keys = [
        ("clientCertificate", given.client_certificate.is_some()),
        ("privateKey", given.private_key.is_some()),
        ("caCertificates", given.ca_certificates.is_some()),
        ("caCrl", given.ca_crl.is_some()),
        ("credentialName", given.credential_name.is_some()),
        ("subjectAltNames", !given.subject_alt_names.is_empty()),
        ("sni", given.sni.is_some()),
        (
            "insecureSkipVerify",
            given.insecure_skip_verify == Some(true),
        ),
    ];
    for (key, _) in keys.into_iter().filter(|(_, given)| *given) {
        let at = at.key(key);
        if matches!(given.mode, TlsMode::IstioMutual | TlsMode::Disable) {
            at.fault(
                "does not belong to this mode",
                "remove it: identities and certificates are the mesh's own",
            );
        } else {
            at.note("identities and certificates are the mesh's own");
        }
    }
}

fn budget(given: &RetryBudgetSpec, at: &At<'_>) {
    if let Some(wanted) = given.percent {
        percent(wanted, &at.key("percent"));
    }
    one_only(
        &[
            ("minRetryConcurrency", given.min_retry_concurrency.is_some()),
            (
                "minRetriesPerSecond",
                given.min_retries_per_second.is_some(),
            ),
        ],
        at,
    );
    if given.min_retry_concurrency.is_some() {
        at.key("minRetryConcurrency").note(
            "is read as retries per second that are always allowed; `minRetriesPerSecond` says so",
        );
    }
}

fn health_check(given: &HealthCheckSpec, at: &At<'_>) {
    exactly_one(
        &[
            ("http", given.http.is_some()),
            ("grpc", given.grpc.is_some()),
            ("tcp", given.tcp.is_some()),
        ],
        at,
    );
    if let Some(http) = &given.http {
        let at = at.key("http");
        let clean = http.path.bytes().all(|byte| byte.is_ascii_graphic());
        if !http.path.starts_with('/') || !clean {
            at.key("path").fault(
                format!("{:?} is no path", http.path),
                "begin it with /, without blanks",
            );
        }
        if let Some(name) = &http.host {
            super::host(name, &at.key("host"));
        }
        for (index, status) in http.statuses.iter().enumerate() {
            final_status(*status, &at.key("statuses").index(index));
        }
    }
    positive(given.interval, &at.key("interval"));
    positive(given.timeout, &at.key("timeout"));
    let interval = given.interval.map_or(CHECK_INTERVAL, |interval| interval.0);
    if given.timeout.is_some_and(|timeout| timeout.0 > interval) {
        let unless = if given.interval.is_none() {
            ", which is 10s unless given"
        } else {
            ""
        };
        at.key("timeout").fault(
            format!("is longer than the time between two checks{unless}"),
            "make it at most `interval`",
        );
    }
    for (key, count) in [
        ("healthyThreshold", given.healthy_threshold),
        ("unhealthyThreshold", given.unhealthy_threshold),
    ] {
        if count.is_some_and(|count| !(1..=100).contains(&count)) {
            at.key(key).fault("is out of range", "write 1 to 100");
        }
    }
}
