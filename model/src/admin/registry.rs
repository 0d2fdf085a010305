//! What discovery sources say, and how they are.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::endpoint::Health;

/// A source of this host.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct SourceRow {
    /// Its id.
    pub source: String,
    /// The word of its kind.
    pub kind: String,
    /// `connecting`, `synced`, `degraded`, `auth-failed`, or `elsewhere`: other hosts read it for this one.
    pub state: String,
    /// When the state began, milliseconds since the epoch.
    pub since_ms: u64,
    /// Why it is not synced, or what was refused, or which service could not be read, or who reads it; empty otherwise.
    pub why: String,
    /// Services in its view.
    pub services: usize,
    /// Endpoints in its view, the held ones among them.
    pub endpoints: usize,
    /// Endpoints that the source removed and that are kept for now.
    pub held: usize,
    /// Last complete success, milliseconds since the epoch; 0: never since the daemon started.
    pub last_success_ms: u64,
    /// The shortest time after which a change may be expected, milliseconds.
    pub latency_ms: u64,
    /// Lower comes first.
    pub precedence: u16,
    /// Its share of the requests, where one is stated.
    pub weight: Option<u32>,
    /// True: what it says is shared with the mesh.
    pub shared: bool,
    /// Open connections to the registry, where it is read over HTTP.
    #[serde(default)]
    pub connections: usize,
    /// Services that are followed by a question of their own (Consul, Nomad).
    #[serde(default)]
    pub watched: usize,
    /// Services that are read when the registry says that something changed (Consul, Nomad).
    #[serde(default)]
    pub in_turn: usize,
}

/// The whole set of one service as one source has it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ViewRow {
    /// The source.
    pub source: String,
    /// The host that reads it; empty for this one.
    pub host: String,
    /// `namespace/name`.
    pub service: String,
    /// The port that callers dial; 0: not stated.
    pub port: u16,
    /// What is spoken.
    pub protocol: String,
    /// By id.
    pub endpoints: Vec<ViewEndpointRow>,
}

/// An endpoint as a source has it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ViewEndpointRow {
    /// Unique inside the service.
    pub id: String,
    /// `ip:port`.
    pub address: String,
    /// Its health by the source; what is held is `degraded`.
    pub health: Health,
    /// Relative share.
    pub weight: u32,
    /// 0 first.
    pub priority: u32,
    /// Labels.
    pub labels: BTreeMap<String, String>,
}
