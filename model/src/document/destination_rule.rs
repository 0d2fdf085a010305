//! `DestinationRule`, as written (Istio's `networking.istio.io/v1`, with additions of our own).
//!
//! A field that is read and has no equivalent here is kept as written and told by `report`.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

use super::span::Span;

/// `DestinationRule.spec`.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DestinationRuleSpec {
    /// A service by any spelling of its name.
    pub host: String,
    /// How its endpoints are used.
    #[serde(default)]
    pub traffic_policy: Option<TrafficPolicySpec>,
    /// Parts of it, for `VirtualService`s to name.
    #[serde(default)]
    pub subsets: Vec<SubsetSpec>,
    /// Namespaces whose callers it acts for: `.` its own, `*` or none all.
    #[serde(default)]
    pub export_to: Vec<String>,
    /// Reported.
    #[serde(default)]
    pub workload_selector: Option<Value>,
}

/// An entry of `subsets:`.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SubsetSpec {
    /// Unique in the rule.
    pub name: String,
    /// Labels that an endpoint carries, all of them; none: every endpoint.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// What it says replaces the same part of the rule's.
    #[serde(default)]
    pub traffic_policy: Option<TrafficPolicySpec>,
}

/// `trafficPolicy:`.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TrafficPolicySpec {
    /// Which endpoint is next.
    #[serde(default)]
    pub load_balancer: Option<LoadBalancerSpec>,
    /// Circuit breaking and connections.
    #[serde(default)]
    pub connection_pool: Option<ConnectionPoolSpec>,
    /// Ejection.
    #[serde(default)]
    pub outlier_detection: Option<OutlierDetectionSpec>,
    /// `ISTIO_MUTUAL` and `DISABLE` ask for nothing that the mesh does not decide itself; the rest is reported.
    #[serde(default)]
    pub tls: Option<TlsSpec>,
    /// By port; what an entry says replaces the same part of the whole policy.
    #[serde(default)]
    pub port_level_settings: Vec<PortPolicySpec>,
    /// Reported.
    #[serde(default)]
    pub tunnel: Option<Value>,
    /// Reported.
    #[serde(default)]
    pub proxy_protocol: Option<Value>,
    /// How many retries it bears.
    #[serde(default)]
    pub retry_budget: Option<RetryBudgetSpec>,
    /// Ours: percent of endpoints that must be usable, 0 to 100; below it all are used.
    #[serde(default)]
    pub panic_threshold: Option<u8>,
    /// Ours: active checks.
    #[serde(default)]
    pub health_check: Option<HealthCheckSpec>,
    /// Ours: a second try runs beside the first when that has not answered by then.
    #[serde(default)]
    pub hedge_after: Option<Span>,
}

/// An entry of `portLevelSettings:`.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PortPolicySpec {
    /// The service's port.
    pub port: PortNumber,
    /// Which endpoint is next.
    #[serde(default)]
    pub load_balancer: Option<LoadBalancerSpec>,
    /// Circuit breaking and connections.
    #[serde(default)]
    pub connection_pool: Option<ConnectionPoolSpec>,
    /// Ejection.
    #[serde(default)]
    pub outlier_detection: Option<OutlierDetectionSpec>,
    /// As in [`TrafficPolicySpec`].
    #[serde(default)]
    pub tls: Option<TlsSpec>,
    /// Ours: how many retries it bears.
    #[serde(default)]
    pub retry_budget: Option<RetryBudgetSpec>,
    /// Ours: as in [`TrafficPolicySpec`].
    #[serde(default)]
    pub panic_threshold: Option<u8>,
    /// Ours: active checks.
    #[serde(default)]
    pub health_check: Option<HealthCheckSpec>,
    /// Ours: a second try runs beside the first when that has not answered by then.
    #[serde(default)]
    pub hedge_after: Option<Span>,
}

/// A port by number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PortNumber {
    /// 1 to 65535.
    pub number: u16,
}

/// `loadBalancer:`; at most one of `simple` and `consistent_hash` is set.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LoadBalancerSpec {
    /// An algorithm by name.
    #[serde(default)]
    pub simple: Option<SimpleBalancer>,
    /// By a hash of the request.
    #[serde(default)]
    pub consistent_hash: Option<ConsistentHashSpec>,
    /// What nearness counts.
    #[serde(default)]
    pub locality_lb_setting: Option<LocalitySpec>,
    /// Of the old form: `warmup.duration`.
    #[serde(default)]
    pub warmup_duration_secs: Option<Span>,
    /// New endpoints begin with a small share.
    #[serde(default)]
    pub warmup: Option<WarmupSpec>,
    /// Ours, for `LEAST_REQUEST`: of how many random endpoints the least loaded is taken, 2 to 32; 2 unless given.
    #[serde(default)]
    pub choices: Option<u8>,
    /// Ours, for `PEAK_EWMA`: time after which a measured latency counts for 1/e; 10 s unless given.
    #[serde(default)]
    pub decay: Option<Span>,
}

/// `simple:`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum SimpleBalancer {
    /// The mesh's own default.
    #[default]
    Unspecified,
    /// By weight alone.
    Random,
    /// To the address that was called: reported.
    Passthrough,
    /// One after another.
    RoundRobin,
    /// The least loaded of a few random ones.
    LeastRequest,
    /// The old name of `LEAST_REQUEST`.
    LeastConn,
    /// Ours: the better of two by latency and outstanding requests.
    PeakEwma,
}

/// `consistentHash:`; exactly one key is set, and at most one algorithm.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ConsistentHashSpec {
    /// A header.
    #[serde(default)]
    pub http_header_name: Option<String>,
    /// A cookie.
    #[serde(default)]
    pub http_cookie: Option<CookieSpec>,
    /// The caller's address.
    #[serde(default)]
    pub use_source_ip: Option<bool>,
    /// A query parameter.
    #[serde(default)]
    pub http_query_parameter_name: Option<String>,
    /// Of the old form: `ringHash.minimumRingSize`.
    #[serde(default)]
    pub minimum_ring_size: Option<u64>,
    /// A ring; what acts unless `maglev` is given.
    #[serde(default)]
    pub ring_hash: Option<RingHashSpec>,
    /// A Maglev table.
    #[serde(default)]
    pub maglev: Option<MaglevSpec>,
}

/// `httpCookie:`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CookieSpec {
    /// Its name.
    pub name: String,
    /// Its path, `/` unless given.
    #[serde(default)]
    pub path: Option<String>,
    /// How long a made one lives, 0 for the session; without it none is made.
    #[serde(default)]
    pub ttl: Option<Span>,
    /// Reported.
    #[serde(default)]
    pub attributes: Vec<Value>,
}

/// `ringHash:`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RingHashSpec {
    /// Least number of points, 1 to 8388608; 1024 unless given.
    #[serde(default)]
    pub minimum_ring_size: Option<u64>,
}

/// `maglev:`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct MaglevSpec {
    /// A prime up to 5000011; 65537 unless given.
    #[serde(default)]
    pub table_size: Option<u64>,
}

/// `localityLbSetting:`; at most one of `distribute`, `failover` and `failover_priority` is set.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LocalitySpec {
    /// Fixed shares by the caller's locality.
    #[serde(default)]
    pub distribute: Vec<DistributeSpec>,
    /// Where a region's traffic goes when it has no usable endpoint.
    #[serde(default)]
    pub failover: Vec<FailoverSpec>,
    /// Reported.
    #[serde(default)]
    pub failover_priority: Vec<String>,
    /// False switches locality off; true unless given.
    #[serde(default)]
    pub enabled: Option<bool>,
}

/// An entry of `distribute:`. Localities are `region`, `region/zone` or `region/zone/sub-zone`; `*` may be the last part.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DistributeSpec {
    /// The caller's locality.
    pub from: String,
    /// Percent by locality of the endpoints; they add up to 100.
    pub to: BTreeMap<String, u32>,
}

/// An entry of `failover:`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct FailoverSpec {
    /// The caller's region.
    pub from: String,
    /// The region that takes over.
    pub to: String,
}

/// `warmup:`.
#[derive(Debug, Clone, Copy, PartialEq, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct WarmupSpec {
    /// Until the full share.
    pub duration: Span,
    /// Percent of the full share at the start, 0 to 100; 10 unless given.
    #[serde(default)]
    pub minimum_percent: Option<f64>,
    /// Exponent of the growth is 1/aggression; at least 1, 1 unless given.
    #[serde(default)]
    pub aggression: Option<f64>,
}

/// `connectionPool:`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ConnectionPoolSpec {
    /// Connections.
    #[serde(default)]
    pub tcp: Option<TcpPoolSpec>,
    /// Requests.
    #[serde(default)]
    pub http: Option<HttpPoolSpec>,
}

/// `connectionPool.tcp`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TcpPoolSpec {
    /// Connections.
    #[serde(default)]
    pub max_connections: Option<u32>,
    /// Bound on opening one.
    #[serde(default)]
    pub connect_timeout: Option<Span>,
    /// Reported: the daemon's own settings act.
    #[serde(default)]
    pub tcp_keepalive: Option<Value>,
    /// Reported.
    #[serde(default)]
    pub max_connection_duration: Option<Span>,
    /// How long an unused one is kept.
    #[serde(default)]
    pub idle_timeout: Option<Span>,
}

/// `connectionPool.http`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HttpPoolSpec {
    /// Requests that wait for a connection or a place.
    #[serde(default)]
    pub http1_max_pending_requests: Option<u32>,
    /// Requests under way.
    #[serde(default)]
    pub http2_max_requests: Option<u32>,
    /// Requests after which a connection is closed; 0: no limit.
    #[serde(default)]
    pub max_requests_per_connection: Option<u32>,
    /// Retries under way.
    #[serde(default)]
    pub max_retries: Option<u32>,
    /// How long an unused connection is kept.
    #[serde(default)]
    pub idle_timeout: Option<Span>,
    /// Whether HTTP/1 goes on as HTTP/2.
    #[serde(default)]
    pub h2_upgrade_policy: Option<H2UpgradePolicy>,
    /// Reported.
    #[serde(default)]
    pub use_client_protocol: Option<bool>,
    /// Reported.
    #[serde(default)]
    pub max_concurrent_streams: Option<u32>,
}

/// `h2UpgradePolicy:`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum H2UpgradePolicy {
    /// As the service's protocol says.
    #[default]
    Default,
    /// As the service's protocol says.
    DoNotUpgrade,
    /// HTTP/1 goes on as HTTP/2.
    Upgrade,
}

/// `outlierDetection:`.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct OutlierDetectionSpec {
    /// Of the old form: `consecutive_gateway_errors`.
    #[serde(default)]
    pub consecutive_errors: Option<u32>,
    /// Failures to reach an endpoint count by themselves, in `consecutive_local_origin_failures`.
    #[serde(default)]
    pub split_external_local_origin_errors: Option<bool>,
    /// Failures to reach it in a row.
    #[serde(default)]
    pub consecutive_local_origin_failures: Option<u32>,
    /// 502, 503, 504 in a row; 0: not counted.
    #[serde(default)]
    pub consecutive_gateway_errors: Option<u32>,
    /// 5xx in a row; 0: not counted.
    #[serde(default, rename = "consecutive5xxErrors")]
    pub consecutive_5xx_errors: Option<u32>,
    /// Time between two looks.
    #[serde(default)]
    pub interval: Option<Span>,
    /// First time out.
    #[serde(default)]
    pub base_ejection_time: Option<Span>,
    /// Percent that may be out at once, 0 to 100.
    #[serde(default)]
    pub max_ejection_percent: Option<u8>,
    /// Percent that must be healthy, below which all are used: the old form of `panic_threshold`.
    #[serde(default)]
    pub min_health_percent: Option<u8>,
    /// Ours: longest time out.
    #[serde(default)]
    pub max_ejection_time: Option<Span>,
    /// Ours: success rate against the other endpoints'.
    #[serde(default)]
    pub success_rate: Option<SuccessRateSpec>,
    /// Ours: latency against the other endpoints'.
    #[serde(default)]
    pub latency: Option<LatencySpec>,
}

/// `outlierDetection.successRate`.
#[derive(Debug, Clone, Copy, PartialEq, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SuccessRateSpec {
    /// Endpoints with enough requests that there must be; 3 unless given.
    #[serde(default)]
    pub minimum_hosts: Option<u32>,
    /// Requests in an interval that are enough; 100 unless given.
    #[serde(default)]
    pub request_volume: Option<u32>,
    /// Ejected is who is below mean minus this times the standard deviation; 1.9 unless given.
    #[serde(default)]
    pub stdev_factor: Option<f64>,
}

/// `outlierDetection.latency`.
#[derive(Debug, Clone, Copy, PartialEq, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LatencySpec {
    /// Ejected is who is above this times the median; above 1, 3 unless given.
    #[serde(default)]
    pub factor: Option<f64>,
    /// Latencies below it never eject; 10 ms unless given.
    #[serde(default)]
    pub floor: Option<Span>,
    /// Requests in an interval that are enough; 100 unless given.
    #[serde(default)]
    pub request_volume: Option<u32>,
}

/// `tls:`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TlsSpec {
    /// The mode.
    #[serde(default)]
    pub mode: TlsMode,
    /// Reported.
    #[serde(default)]
    pub client_certificate: Option<String>,
    /// Reported.
    #[serde(default)]
    pub private_key: Option<String>,
    /// Reported.
    #[serde(default)]
    pub ca_certificates: Option<String>,
    /// Reported.
    #[serde(default)]
    pub ca_crl: Option<String>,
    /// Reported.
    #[serde(default)]
    pub credential_name: Option<String>,
    /// Reported.
    #[serde(default)]
    pub subject_alt_names: Vec<String>,
    /// Reported.
    #[serde(default)]
    pub sni: Option<String>,
    /// Reported.
    #[serde(default)]
    pub insecure_skip_verify: Option<bool>,
}

/// `tls.mode`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum TlsMode {
    /// None asked for.
    #[default]
    Disable,
    /// TLS begun by the proxy: reported.
    Simple,
    /// TLS begun by the proxy with a certificate of files: reported.
    Mutual,
    /// The mesh's own.
    IstioMutual,
}

/// `retryBudget:`.
#[derive(Debug, Clone, Copy, PartialEq, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RetryBudgetSpec {
    /// Percent of requests, 0 to 100; 20 unless given.
    #[serde(default)]
    pub percent: Option<f64>,
    /// Retries that are always allowed: read as retries per second, and reported so.
    #[serde(default)]
    pub min_retry_concurrency: Option<u32>,
    /// Ours: retries per second that are always allowed; 10 unless given.
    #[serde(default)]
    pub min_retries_per_second: Option<u32>,
}

/// `healthCheck:`; exactly one of `http`, `grpc` and `tcp` is set.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HealthCheckSpec {
    /// A request over HTTP.
    #[serde(default)]
    pub http: Option<HttpProbeSpec>,
    /// The health service of gRPC.
    #[serde(default)]
    pub grpc: Option<GrpcProbeSpec>,
    /// A connection.
    #[serde(default)]
    pub tcp: Option<TcpProbeSpec>,
    /// Time between two checks of one endpoint; 10 s unless given.
    #[serde(default)]
    pub interval: Option<Span>,
    /// Bound on one check; 1 s unless given.
    #[serde(default)]
    pub timeout: Option<Span>,
    /// Passes in a row that bring it back; 2 unless given.
    #[serde(default)]
    pub healthy_threshold: Option<u32>,
    /// Failures in a row that put it out; 3 unless given.
    #[serde(default)]
    pub unhealthy_threshold: Option<u32>,
}

/// `healthCheck.http`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HttpProbeSpec {
    /// The path.
    pub path: String,
    /// `Host`; the service's name unless given.
    #[serde(default)]
    pub host: Option<String>,
    /// Statuses that pass; 200 to 299 unless given.
    #[serde(default)]
    pub statuses: Vec<u16>,
}

/// `healthCheck.grpc`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct GrpcProbeSpec {
    /// The service that is asked for; the server unless given.
    #[serde(default)]
    pub service: Option<String>,
}

/// `healthCheck.tcp`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TcpProbeSpec {}
