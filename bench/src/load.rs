//! `wrk` on one CPU, and what it says.

use std::process::Command;

use anyhow::{Context, bail};

use crate::peer::Peer;

/// What a run of `wrk` counted.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Load {
    /// Requests answered.
    pub(crate) requests: u64,
    /// Requests a second.
    pub(crate) rate: f64,
    /// 99th percentile of the latency, as `wrk` writes it.
    pub(crate) p99: String,
}

/// Loads the peer; fails when an answer was not 2xx or a connection broke.
pub(crate) fn run(peer: &Peer, seconds: u32, connections: u32) -> anyhow::Result<Load> {
    let output = Command::new("taskset")
        .args(["-c", "1", "wrk", "-t1", "--latency"])
        .arg(format!("-c{connections}"))
        .arg(format!("-d{seconds}s"))
        .args(["-H", &format!("Host: {}", peer.host)])
        .arg(format!("http://{}/", peer.address))
        .output()
        .context("wrk cannot be started")?;
    let text = String::from_utf8_lossy(&output.stdout);
    if !output.status.success() {
        bail!("wrk failed: {}", String::from_utf8_lossy(&output.stderr));
    }
    read(&text).with_context(|| format!("{}: {text}", peer.name))
}

fn read(text: &str) -> anyhow::Result<Load> {
    if text.contains("Non-2xx") || text.contains("Socket errors") {
        bail!("not every request was answered");
    }
    let word_before = |mark: &str| {
        text.lines().find_map(|line| {
            line.split_once(mark)?
                .0
                .split_whitespace()
                .next_back()
                .map(str::to_owned)
        })
    };
    let word_after = |mark: &str| {
        text.lines().find_map(|line| {
            line.trim()
                .strip_prefix(mark)?
                .split_whitespace()
                .next()
                .map(str::to_owned)
        })
    };
    Ok(Load {
        requests: word_before(" requests in").context("no count")?.parse()?,
        rate: word_after("Requests/sec:").context("no rate")?.parse()?,
        p99: word_after("99%").unwrap_or_default(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrk_is_read() {
        let text = "Running 1s test @ http://127.0.0.1/\n  1 threads and 32 connections\n  Latency Distribution\n\
                    \x20    50%  200.00us\n     99%    1.02ms\n  51234 requests in 1.00s, 10.00MB read\n\
                    Requests/sec:  51100.50\nTransfer/sec:  9.9MB\n";
        let load = read(text).unwrap();
        assert_eq!((load.requests, load.p99.as_str()), (51_234, "1.02ms"));
        assert!(read("  Non-2xx or 3xx responses: 5\n").is_err());
    }
}
