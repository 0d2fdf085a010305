//! `h2load` on one CPU, and what it says.

use std::path::Path;

use anyhow::{Context, bail};

use super::Load;
use crate::contender::Contender;

/// What is sent.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Call<'s> {
    /// Path of the requests.
    pub(crate) path: &'s str,
    /// A gRPC call with the file as body; none: GET.
    pub(crate) grpc: Option<&'s Path>,
    /// Connections.
    pub(crate) clients: u32,
    /// Requests at a time on each.
    pub(crate) streams: u32,
}

/// Loads the contender as fast as it answers; fails when a request did.
pub(crate) fn run(
    contender: &Contender<'_>,
    call: &Call<'_>,
    seconds: u32,
) -> anyhow::Result<Load> {
    read(&output(contender, call, seconds)?)
}

fn output(contender: &Contender<'_>, call: &Call<'_>, seconds: u32) -> anyhow::Result<String> {
    let mut command = contender.command("h2load");
    command
        .arg(format!("-c{}", call.clients))
        .arg(format!("-m{}", call.streams))
        .arg(format!("-D{seconds}"))
        .arg(format!("--connect-to={}", contender.address));
    if let Some(body) = call.grpc {
        command.args(["-H", "content-type: application/grpc", "-H", "te: trailers"]);
        command.arg("-d").arg(body);
    }
    let output = command
        .arg(format!("http://{}{}", contender.authority, call.path))
        .output()
        .context("h2load cannot be started")?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    if !output.status.success() {
        bail!("h2load: {text}{}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(text)
}

fn read(text: &str) -> anyhow::Result<Load> {
    let line = |mark: &str| text.lines().find_map(|line| line.strip_prefix(mark));
    let count = |line: &str, what: &str| -> Option<f64> {
        line.split(',')
            .find_map(|part| part.trim().strip_suffix(what)?.trim().parse().ok())
    };
    let requests = line("requests: ").with_context(|| text.to_owned())?;
    let of = |what| count(requests, what).with_context(|| text.to_owned());
    let good = count(line("status codes: ").unwrap_or_default(), "2xx").unwrap_or_default();
    let done = of("done")?;
    if done < 1.0 || good < done || of("failed")? > 0.0 || of("errored")? > 0.0 {
        bail!(
            "not every request was answered: {requests}; {}",
            line("status codes: ").unwrap_or_default()
        );
    }
    let finished = line("finished in ").with_context(|| text.to_owned())?;
    Ok(Load {
        requests: done,
        rate: count(finished, "req/s").context("no rate")?,
        p50_us: None,
        p99_us: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "starting benchmark...\n\nfinished in 3.00s, 61400.33 req/s, 7.25MB/s\n\
        requests: 184201 total, 184712 started, 184201 done, 184201 succeeded, 0 failed, 0 errored, 0 timeout\n\
        status codes: 184201 2xx, 0 3xx, 0 4xx, 0 5xx\ntraffic: 21.08MB (22105200) total\n";

    #[test]
    fn h2load_is_read() {
        let load = read(TEXT).unwrap();
        assert_eq!((load.requests, load.rate), (184_201.0, 61_400.33));
    }

    #[test]
    fn failures_are_seen() {
        assert!(read(&TEXT.replace("0 failed", "3 failed")).is_err());
        assert!(read(&TEXT.replace("184201 2xx, 0 3xx", "184200 2xx, 1 3xx")).is_err());
        assert!(read("nothing").is_err());
    }
}
