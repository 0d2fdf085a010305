//! `wrk` on one CPU, and what it says.

use anyhow::{Context, bail};

use super::Load;
use crate::contender::Contender;

/// Loads the contender; fails when an answer was not 2xx or a connection broke.
pub(crate) fn run(
    contender: &Contender<'_>,
    seconds: u32,
    connections: u32,
) -> anyhow::Result<Load> {
    let output = contender
        .command("wrk")
        .args(["-t1", "--latency"])
        .arg(format!("-c{connections}"))
        .arg(format!("-d{seconds}s"))
        .args(["-H", &format!("Host: {}", contender.authority)])
        .arg(format!("http://{}/", contender.address))
        .output()
        .context("wrk cannot be started")?;
    let text = String::from_utf8_lossy(&output.stdout);
    if !output.status.success() {
        bail!("wrk: {}", String::from_utf8_lossy(&output.stderr));
    }
    read(&text).with_context(|| text.into_owned())
}

fn read(text: &str) -> anyhow::Result<Load> {
    if text.contains("Non-2xx") || text.contains("Socket errors") {
        bail!("not every request was answered");
    }
    let word_before = |mark: &str| {
        text.lines()
            .find_map(|line| line.split_once(mark)?.0.split_whitespace().next_back())
    };
    let word_after = |mark: &str| {
        text.lines()
            .find_map(|line| line.trim().strip_prefix(mark)?.split_whitespace().next())
    };
    let requests: f64 = word_before(" requests in").context("no count")?.parse()?;
    if requests < 1.0 {
        bail!("no request was answered");
    }
    Ok(Load {
        requests,
        rate: word_after("Requests/sec:").context("no rate")?.parse()?,
        p50_us: word_after("50%").and_then(microseconds),
        p99_us: word_after("99%").and_then(microseconds),
    })
}

/// `850.00us`, `1.02ms`, `2.10s`.
fn microseconds(text: &str) -> Option<f64> {
    let units = [("us", 1.0), ("ms", 1e3), ("s", 1e6), ("m", 6e7)];
    let (number, factor) = units
        .iter()
        .find_map(|(unit, factor)| Some((text.strip_suffix(unit)?, factor)))?;
    Some(number.parse::<f64>().ok()? * factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrk_is_read() {
        let text = "Running 1s test @ http://127.0.0.1/\n  1 threads and 32 connections\n  Latency Distribution\n\
                    \x20    50%  200.00us\n     75%  300.00us\n     99%    1.02ms\n  51234 requests in 1.00s, 10.00MB read\n\
                    Requests/sec:  51100.50\nTransfer/sec:  9.9MB\n";
        let load = read(text).unwrap();
        assert_eq!((load.requests, load.rate), (51_234.0, 51_100.5));
        assert_eq!((load.p50_us, load.p99_us), (Some(200.0), Some(1020.0)));
        assert!(read("  Non-2xx or 3xx responses: 5\n").is_err());
        assert!(
            read(&text.replace("Requests/sec:", "Socket errors: connect 0, read 5\n")).is_err()
        );
    }

    #[test]
    fn units() {
        assert_eq!(microseconds("2.10s"), Some(2_100_000.0));
        assert_eq!(microseconds("1.50m"), Some(90_000_000.0));
        assert_eq!(microseconds("fast"), None);
    }
}
