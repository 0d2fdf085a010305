//! The bench's own load programs, started where the client is, and what they say.

use std::{
    io::{BufRead, BufReader},
    process::{Child, Stdio},
};

use anyhow::{Context, bail};
use serde_json::Value;

use super::Load;
use crate::contender::Contender;

/// Runs one of them to its end and reads its line.
fn run(contender: &Contender<'_>, name: &str, words: &[&str]) -> anyhow::Result<Value> {
    let output = contender.tool(name)?.args(words).output()?;
    if !output.status.success() {
        bail!("{name}: {}", String::from_utf8_lossy(&output.stdout));
    }
    let text = String::from_utf8_lossy(&output.stdout);
    let line = text.lines().next_back().unwrap_or_default();
    serde_json::from_str(line).with_context(|| format!("{name}: {text}"))
}

fn number(value: &Value, name: &str) -> anyhow::Result<f64> {
    value
        .get(name)
        .and_then(Value::as_f64)
        .with_context(|| format!("no {name} in {value}"))
}

/// HTTP/1.1 at a constant rate: the load, and how many requests failed.
pub(crate) fn rate(
    contender: &Contender<'_>,
    rate: u32,
    connections: u32,
    seconds: u32,
) -> anyhow::Result<(Load, f64)> {
    at_rate(contender, ("rate", &[]), rate, connections, seconds)
}

/// HTTP/2 at a constant rate, GET or with a gRPC message of so many bytes; the same answer.
pub(crate) fn calls(
    contender: &Contender<'_>,
    (path, message): (&str, u8),
    rate: u32,
    connections: u32,
    seconds: u32,
) -> anyhow::Result<(Load, f64)> {
    let message = message.to_string();
    let words = ["path", path, "grpc", &message];
    at_rate(contender, ("calls", &words), rate, connections, seconds)
}

fn at_rate(
    contender: &Contender<'_>,
    (tool, more): (&str, &[&str]),
    rate: u32,
    connections: u32,
    seconds: u32,
) -> anyhow::Result<(Load, f64)> {
    let (rate, count, time) = (
        rate.to_string(),
        connections.to_string(),
        seconds.to_string(),
    );
    let words = [
        "host",
        contender.authority,
        "rate",
        &rate,
        "connections",
        &count,
        "seconds",
        &time,
    ];
    let value = run(contender, tool, &[&words[..], more].concat())?;
    let requests = number(&value, "requests")?;
    let load = Load {
        requests: number(&value, "sent")?,
        rate: requests / f64::from(seconds),
        p50_us: Some(number(&value, "p50_us")?),
        p99_us: Some(number(&value, "p99_us")?),
    };
    Ok((load, number(&value, "failed")?))
}

/// Bytes moved.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bulk {
    /// Both ways together, in 10^9 bytes.
    pub(crate) gigabytes: f64,
    /// Mean of both ways, 10^9 bits a second.
    pub(crate) gigabits: f64,
}

/// Bytes up, then down.
pub(crate) fn bulk(contender: &Contender<'_>, seconds: u32) -> anyhow::Result<Bulk> {
    let value = run(
        contender,
        "bulk",
        &["milliseconds", &(seconds * 1000).to_string()],
    )?;
    let bytes = number(&value, "up")? + number(&value, "down")?;
    let time = number(&value, "up_seconds")? + number(&value, "down_seconds")?;
    Ok(Bulk {
        gigabytes: bytes / 1e9,
        gigabits: bytes * 8.0 / 1e9 / time,
    })
}

/// New connections: how many, how many a second, how many failed.
pub(crate) fn connect(contender: &Contender<'_>, seconds: u32) -> anyhow::Result<(f64, f64, f64)> {
    let value = run(
        contender,
        "connect",
        &["threads", "8", "seconds", &seconds.to_string()],
    )?;
    let count = number(&value, "connections")?;
    Ok((
        count,
        count / number(&value, "seconds")?,
        number(&value, "failed")?,
    ))
}

/// A program that goes on, ended by its pid when dropped.
pub(crate) struct Running(Child);

impl Running {
    /// Starts it and waits for its first line, which says that everything is in place.
    pub(crate) fn start(
        contender: &Contender<'_>,
        name: &str,
        words: &[&str],
    ) -> anyhow::Result<Self> {
        let mut child = contender
            .tool(name)?
            .args(words)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?;
        let out = child.stdout.take();
        let running = Self(child);
        let mut line = String::new();
        BufReader::new(out.context("no output")?).read_line(&mut line)?;
        let value: Value =
            serde_json::from_str(&line).with_context(|| format!("{name}: {line}"))?;
        anyhow::ensure!(value.is_object(), "{name}: {line}");
        Ok(running)
    }

    /// True while it runs.
    pub(crate) fn runs(&mut self) -> bool {
        matches!(self.0.try_wait(), Ok(None))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}
