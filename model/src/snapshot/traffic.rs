//! How a backend's endpoints are used: balancing, limits, outlier detection, health checks, retry budget.
//!
//! The compiled form of `DestinationRule.spec.trafficPolicy`; its default is what acts without one.

use std::{sync::Arc, time::Duration};

use crate::endpoint::Locality;

/// Everything that a backend's owner may say of its use.
#[derive(Debug, Clone, PartialEq)]
pub struct TrafficPolicy {
    /// `namespace/name` of the `DestinationRule`; empty for the default.
    pub name: Arc<str>,
    /// Which endpoint is next.
    pub balance: Balance,
    /// What nearness counts.
    pub locality: LocalityPolicy,
    /// New and returning endpoints begin with a small share.
    pub slow_start: Option<SlowStart>,
    /// Percent of endpoints that must be usable; below it all are used, ejected or not. 0 switches it off.
    pub panic_threshold: u8,
    /// Circuit breaking.
    pub limits: CircuitLimits,
    /// Passive health: ejection.
    pub outlier: OutlierDetection,
    /// Active health checks by this proxy; for endpoints whose host does not check them itself.
    pub health_check: Option<HealthCheck>,
    /// Retries beside what routes ask.
    pub retry_budget: RetryBudget,
    /// A second try runs beside the first when that has not answered by then; `None`: never.
    pub hedge_after: Option<Duration>,
    /// Bound on opening a connection; `None`: the daemon's.
    pub connect_timeout: Option<Duration>,
    /// How long an unused connection is kept; `None`: the daemon's.
    pub idle_timeout: Option<Duration>,
    /// How long nothing may move on an opaque connection; `None`: the daemon's.
    pub stream_idle: Option<Duration>,
    /// Requests after which a connection is closed; 0: no limit.
    pub max_requests_per_connection: u32,
    /// True: an HTTP/1 request goes on as HTTP/2 (`h2UpgradePolicy: UPGRADE`).
    pub upgrade_to_http2: bool,
}

/// How long connections to a program are used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ConnectionTerms {
    /// How long an unused one is kept; `None`: as the daemon's settings say.
    pub idle_timeout: Option<Duration>,
    /// Requests after which one is closed; 0: no limit.
    pub max_requests: u32,
}

impl TrafficPolicy {
    /// How long its connections are used.
    #[must_use]
    pub fn terms(&self) -> ConnectionTerms {
        ConnectionTerms {
            idle_timeout: self.idle_timeout,
            max_requests: self.max_requests_per_connection,
        }
    }
}

impl Default for TrafficPolicy {
    fn default() -> Self {
        Self {
            name: Arc::from(""),
            balance: Balance::default(),
            locality: LocalityPolicy::default(),
            slow_start: None,
            panic_threshold: 0,
            limits: CircuitLimits::default(),
            outlier: OutlierDetection::default(),
            health_check: None,
            retry_budget: RetryBudget::default(),
            hedge_after: None,
            connect_timeout: None,
            idle_timeout: None,
            stream_idle: None,
            max_requests_per_connection: 0,
            upgrade_to_http2: false,
        }
    }
}

/// The algorithm that chooses among equally good endpoints.
#[derive(Debug, Clone, PartialEq)]
pub enum Balance {
    /// The better of two random ones by latency (peak-sensitive moving average) times outstanding requests.
    PeakEwma {
        /// Time after which a measured latency counts for 1/e.
        decay: Duration,
    },
    /// The least loaded of `choices` random ones.
    LeastRequest {
        /// 2 or more.
        choices: u8,
    },
    /// One after another, by weight.
    RoundRobin,
    /// By weight alone.
    Random,
    /// Ketama-style ring: the same key goes to the same endpoint while it is there.
    RingHash {
        /// What is hashed: the first key that the request has.
        keys: Arc<[HashKey]>,
        /// Least number of points on the ring.
        minimum_ring_size: u32,
    },
    /// Maglev table (Eisenbud et al., NSDI 2016).
    Maglev {
        /// What is hashed: the first key that the request has.
        keys: Arc<[HashKey]>,
        /// Size of the table, a prime.
        table_size: u32,
    },
}

impl Default for Balance {
    fn default() -> Self {
        Self::PeakEwma {
            decay: Duration::from_secs(10),
        }
    }
}

/// A part of a request that decides its endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HashKey {
    /// A header, name in lower case.
    Header(Box<str>),
    /// A cookie; made when the request has none and a lifetime is given.
    Cookie {
        /// Its name.
        name: Box<str>,
        /// Its path, `/` unless given.
        path: Box<str>,
        /// How long a made one lives; zero: for the session. `None`: none is made.
        ttl: Option<Duration>,
    },
    /// The address of the caller.
    SourceAddress,
    /// A query parameter.
    Query(Box<str>),
}

/// What nearness counts.
#[derive(Debug, Clone, PartialEq, Default)]
pub enum LocalityPolicy {
    /// Near endpoints first; what their healthy capacity cannot take spills to the next nearest.
    #[default]
    Prefer,
    /// Nothing.
    Off,
    /// Fixed shares by locality, relative weights; endpoints that fit none get nothing.
    Distribute(Arc<[(Locality, u32)]>),
}

/// A growing share for endpoints that are new or back.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SlowStart {
    /// Until the full share.
    pub window: Duration,
    /// Exponent of the growth is 1/aggression; 1 is linear.
    pub aggression: f32,
    /// Percent of the full share at the start.
    pub minimum_percent: u8,
}

/// Circuit breaking: what may be open or waiting towards one backend from this host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CircuitLimits {
    /// Connections (HTTP/1 and TCP; HTTP/2 streams count as requests).
    pub max_connections: u32,
    /// Requests that wait for a connection or a place.
    pub max_pending: u32,
    /// Requests under way.
    pub max_requests: u32,
    /// Retries under way.
    pub max_retries: u32,
}

impl Default for CircuitLimits {
    /// No limits worth mentioning.
    fn default() -> Self {
        Self {
            max_connections: u32::MAX,
            max_pending: u32::MAX,
            max_requests: u32::MAX,
            max_retries: u32::MAX,
        }
    }
}

/// When an endpoint is put out for what it answers. A failed dial always puts it out at once.
#[derive(Debug, Clone, PartialEq)]
pub struct OutlierDetection {
    /// Answers with 5xx, resets and time-outs in a row; 0: not counted.
    pub consecutive_errors: u32,
    /// Gateway errors (502, 503, 504), resets and time-outs in a row; 0: not counted.
    pub consecutive_gateway_errors: u32,
    /// Failures to reach it or to get an answer in a row; 0: not counted.
    pub consecutive_local_failures: u32,
    /// Time between two looks at success rate and latency.
    pub interval: Duration,
    /// First time out; grows with each further one.
    pub base_ejection: Duration,
    /// Longest time out.
    pub max_ejection: Duration,
    /// Percent of a backend's endpoints that may be out at once for their answers; one always may.
    pub max_ejection_percent: u8,
    /// Success rate against the backend's.
    pub success_rate: Option<SuccessRate>,
    /// Latency against the backend's.
    pub latency: Option<LatencyOutlier>,
}

impl Default for OutlierDetection {
    /// Five failures without an answer in a row: out for 10 s, growing to 5 min; at most half of a backend.
    fn default() -> Self {
        Self {
            consecutive_errors: 0,
            consecutive_gateway_errors: 0,
            consecutive_local_failures: 5,
            interval: Duration::from_secs(10),
            base_ejection: Duration::from_secs(10),
            max_ejection: Duration::from_mins(5),
            max_ejection_percent: 50,
            success_rate: None,
            latency: None,
        }
    }
}

/// Ejects whose success rate is below mean minus factor times the standard deviation.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SuccessRate {
    /// Endpoints with enough requests that there must be.
    pub minimum_hosts: u32,
    /// Requests in an interval that are enough.
    pub request_volume: u32,
    /// The factor, 1.9 where Envoy writes 1900.
    pub stdev_factor: f32,
}

/// Ejects whose mean latency is above `factor` times the backend's median.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LatencyOutlier {
    /// Above 1.
    pub factor: f32,
    /// Latencies below it never eject.
    pub floor: Duration,
    /// Requests in an interval that are enough.
    pub request_volume: u32,
}

/// Active checks of each endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HealthCheck {
    /// What is asked.
    pub probe: Probe,
    /// Time between two checks of one endpoint.
    pub interval: Duration,
    /// Bound on one check.
    pub timeout: Duration,
    /// Passes in a row that bring it back.
    pub healthy_threshold: u32,
    /// Failures in a row that put it out.
    pub unhealthy_threshold: u32,
}

/// What a health check asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Probe {
    /// A connection is taken.
    Tcp,
    /// `GET path` is answered with one of the statuses.
    Http {
        /// The path.
        path: Box<str>,
        /// `Host`; the service's name unless given.
        host: Option<Box<str>>,
        /// Statuses that pass; empty: 200 to 299.
        statuses: Arc<[u16]>,
    },
    /// `grpc.health.v1.Health/Check` says SERVING.
    Grpc {
        /// The service that is asked for; empty: the server.
        service: Box<str>,
    },
}

/// How many retries a backend bears.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RetryBudget {
    /// Percent of requests.
    pub percent: f32,
    /// Retries per second that are always allowed.
    pub minimum_per_second: u32,
}

impl Default for RetryBudget {
    fn default() -> Self {
        Self {
            percent: 20.0,
            minimum_per_second: 10,
        }
    }
}
