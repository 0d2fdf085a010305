//! Programs that make load, and what they say.

/// HTTP/2 load.
pub(crate) mod h2load;
/// The bench's own programs.
pub(crate) mod own;
/// HTTP/1.1 load.
pub(crate) mod wrk;

/// What a saturating run counted.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(crate) struct Load {
    /// Requests answered with success.
    pub(crate) requests: f64,
    /// Requests a second.
    pub(crate) rate: f64,
    /// Median latency, microseconds; where the program says.
    pub(crate) p50_us: Option<f64>,
    /// 99th percentile, microseconds; where the program says.
    pub(crate) p99_us: Option<f64>,
}
