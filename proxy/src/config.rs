//! What the proxy takes at start: addresses, limits, time-outs.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use mesh_model::config::AccessLog;

/// Settings of the data plane; a change needs a restart.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// Worker threads; `clamp(cores / 8, 2, 8)` when `None`; 1 to 256.
    pub workers: Option<usize>,
    /// Port for redirected calls of local programs, on 127.0.0.1 and `[::1]`; `None`: not opened.
    pub outbound_port: Option<u16>,
    /// Port for calls to local programs that tproxy delivers, on all addresses; opened with `transparent` only.
    pub inbound_port: Option<u16>,
    /// True when the process may use `IP_TRANSPARENT`: tproxy works and clients' addresses are kept.
    pub transparent: bool,
    /// Where mTLS tunnels arrive; `None`: not opened.
    pub tunnel: Option<SocketAddr>,
    /// Explicit outbound listener; `None`: not opened.
    pub explicit: Option<SocketAddr>,
    /// Value of `SO_MARK` on every socket that is dialled; `None`: no mark is set.
    pub mark: Option<u32>,
    /// Root of the cgroup v2 tree, by which units are recognised; `None`: found from `/sys/fs/cgroup`.
    pub cgroup_root: Option<PathBuf>,
    /// Access log.
    pub access_log: AccessLog,
    /// Bounds.
    pub limits: Limits,
}

/// Bounds on connections and time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Connections of one listener that one worker holds at once; more wait in the kernel's queue. 32768.
    pub connections: usize,
    /// Time to open a TCP connection to an endpoint. 3 s.
    pub connect: Duration,
    /// Time for a TLS handshake and the HTTP/2 preface. 5 s.
    pub handshake: Duration,
    /// Silence after which a connection of unknown protocol is dialled on. 50 ms.
    pub silence: Duration,
    /// Time for the first bytes of a connection whose protocol is HTTP. 60 s.
    pub first_bytes: Duration,
    /// Time for a request head once its first byte has come. 10 s.
    pub head: Duration,
    /// Time that a kept HTTP connection may lie idle. 90 s.
    pub keep_alive: Duration,
    /// Time that an opaque connection may lie idle. 1 h.
    pub tcp_idle: Duration,
    /// Time that a half-closed opaque connection may lie idle. 5 min.
    pub tcp_half_closed: Duration,
    /// Time in which neither the request's body nor the answer's moves, once the answer has begun. 1 h.
    pub answer_idle: Duration,
    /// Requests that one worker serves at once; further ones are refused. 20,000.
    pub requests: u64,
    /// Idle HTTP/1 connections kept for one endpoint by one worker; fewer mean a new connection for each request of a
    /// large burst. 1024.
    pub idle_per_endpoint: usize,
    /// Age at which an upstream connection takes no new requests. 30 min, less or more by 20 %.
    pub connection_age: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 32_768,
            connect: Duration::from_secs(3),
            handshake: Duration::from_secs(5),
            silence: Duration::from_millis(50),
            first_bytes: Duration::from_mins(1),
            head: Duration::from_secs(10),
            keep_alive: Duration::from_secs(90),
            tcp_idle: Duration::from_hours(1),
            tcp_half_closed: Duration::from_mins(5),
            answer_idle: Duration::from_hours(1),
            requests: 20_000,
            idle_per_endpoint: 1024,
            connection_age: Duration::from_mins(30),
        }
    }
}

impl Default for Config {
    /// Opens nothing but the internal listener.
    fn default() -> Self {
        Self {
            workers: None,
            outbound_port: None,
            inbound_port: None,
            transparent: false,
            tunnel: None,
            explicit: None,
            mark: None,
            cgroup_root: None,
            access_log: AccessLog::default(),
            limits: Limits::default(),
        }
    }
}

impl Config {
    /// The number of worker threads.
    pub fn worker_count(&self) -> usize {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        self.workers
            .map_or_else(|| (cores / 8).clamp(2, 8), |wanted| wanted.clamp(1, 256))
    }
}
