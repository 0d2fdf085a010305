//! What is seen of traffic while it runs: edges of the mesh, live requests, what the mesh costs.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Counts of one source and destination on one side, as cells hold them: for sums and differences.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct EdgeSample {
    /// `outbound` (counted where the caller runs) or `inbound` (where the called program runs).
    pub direction: String,
    /// The caller's label.
    pub source: String,
    /// The called service.
    pub destination: String,
    /// Requests and opaque connections that ended.
    pub requests: u64,
    /// Of them well: some answer, no 5xx, no gRPC error.
    pub successes: u64,
    /// Of them over mTLS, or within one host.
    pub secured: u64,
    /// Durations: count by bucket.
    pub durations: BTreeMap<u16, u64>,
    /// Time spent in this daemon, of requests with bodies up to 32 KiB: count by bucket.
    pub own: BTreeMap<u16, u64>,
}

/// What one host counted, for the host that asked.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct HostSample {
    /// The host's name.
    pub host: String,
    /// Its edges.
    pub edges: Vec<EdgeSample>,
    /// Milliseconds between the two looks that these counts lie between; 0: since the daemon's start.
    pub span_ms: u64,
    /// CPU time of the data plane's threads in between, microseconds.
    pub cpu_us: u64,
}

/// One edge of the mesh.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct EdgeRow {
    /// The caller's label.
    pub source: String,
    /// The called service.
    pub destination: String,
    /// Requests per second.
    pub rate: f64,
    /// Requests in the time looked at.
    pub requests: u64,
    /// Of them well.
    pub successes: u64,
    /// Of them over mTLS, or within one host.
    pub secured: u64,
    /// Median duration in microseconds.
    pub p50_us: u64,
    /// Duration that 1 % exceed, in microseconds.
    pub p99_us: u64,
    /// Hosts that called.
    pub hosts: Vec<String>,
}

/// The edges of the whole mesh.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Edges {
    /// The edges, busiest first.
    pub edges: Vec<EdgeRow>,
    /// Hosts that did not answer.
    pub silent: Vec<String>,
}

/// What the mesh adds on one side of an edge.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct CostSide {
    /// `outbound` or `inbound`.
    pub side: String,
    /// Hosts that were asked and had seen such requests.
    pub hosts: Vec<String>,
    /// Requests that were measured.
    pub requests: u64,
    /// Median of the time spent in the daemon, in microseconds.
    pub p50_us: u64,
    /// Time in the daemon that 1 % exceed, in microseconds.
    pub p99_us: u64,
    /// CPU per request of these daemons, over all their requests, in microseconds.
    pub cpu_us: f64,
}

/// What the mesh adds to calls from one service to another.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Cost {
    /// The caller's label.
    pub source: String,
    /// The called service.
    pub destination: String,
    /// The caller's side, then the called program's; a side without requests is left out.
    pub sides: Vec<CostSide>,
    /// Median of the whole duration as the caller's daemon sees it, in microseconds.
    pub total_p50_us: u64,
    /// Whole duration that 1 % exceed, in microseconds.
    pub total_p99_us: u64,
    /// Hosts that did not answer.
    pub silent: Vec<String>,
}

/// Which live requests are shown; what is empty or absent fits every request.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TapFilter {
    /// `outbound` or `inbound`.
    pub direction: String,
    /// The caller's label.
    pub source: String,
    /// The called service.
    pub destination: String,
    /// Name of the route.
    pub route: String,
    /// Method.
    pub method: String,
    /// What the path begins with.
    pub path: String,
    /// Statuses: one (`503`), or a class (`5xx`).
    pub status: String,
    /// Only what failed.
    pub failed: bool,
    /// Requests after which it ends; 0: never by itself.
    pub limit: u64,
}

/// A request that ended.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct TapRecord {
    /// Milliseconds since the epoch.
    pub time_ms: u64,
    /// `outbound` or `inbound`.
    pub direction: String,
    /// 32 hexadecimal digits, the same on both hosts.
    pub id: String,
    /// The caller's label.
    pub source: String,
    /// The called service.
    pub destination: String,
    /// Name of the route; empty for none.
    pub route: String,
    /// `http/1.1`, `http/2`, `grpc`, `tcp` …
    pub protocol: String,
    /// Method; empty for opaque connections.
    pub method: String,
    /// Path without the query.
    pub path: String,
    /// Host that was asked for.
    pub authority: String,
    /// Status; 0: none was sent.
    pub status: u16,
    /// gRPC status.
    pub grpc_status: Option<u32>,
    /// The mesh's own code when it failed the request.
    pub code: String,
    /// Endpoint that answered.
    pub endpoint: String,
    /// Identity that it proved; empty for plaintext.
    pub peer: String,
    /// Tries beyond the first.
    pub retries: u32,
    /// Bytes of the request's body.
    pub received: u64,
    /// Bytes of the answer's body.
    pub sent: u64,
    /// Duration in microseconds.
    pub duration_us: u64,
    /// Records that this reader missed before this one because it was too slow.
    pub missed: u64,
}
