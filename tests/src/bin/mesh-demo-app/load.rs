//! A bounded load client that counts answers by status and by the first letter of their last word.

use std::{
    cell::RefCell,
    collections::BTreeMap,
    rc::Rc,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use clap::Args;
use hyper::{
    HeaderMap,
    header::{HeaderName, HeaderValue},
};
use tokio::task::LocalSet;

use crate::client::Client;

/// Calls URLs in turn until the count or the time is used up.
#[derive(Debug, Args)]
pub(crate) struct Load {
    /// URLs, called in turn
    #[arg(long, required = true)]
    url: Vec<String>,
    /// Requests in all
    #[arg(long, default_value_t = 1000)]
    count: u64,
    /// Requests at a time
    #[arg(long, default_value_t = 16)]
    concurrency: u64,
    /// Requests a second at most; 0: as fast as they are answered
    #[arg(long, default_value_t = 0)]
    rate: u64,
    /// Seconds at most
    #[arg(long, default_value_t = 600)]
    seconds: u64,
    /// `name=value` or `name: value`
    #[arg(long)]
    header: Vec<String>,
}

#[derive(Debug, Default, serde::Serialize)]
struct Counts {
    requests: u64,
    ok: u64,
    failed: u64,
    first_letter: BTreeMap<String, u64>,
    status: BTreeMap<String, u64>,
    errors: BTreeMap<String, u64>,
    mesh_errors: Vec<String>,
    /// Milliseconds since the start of each failure, at most 10,000.
    failed_at_ms: Vec<u64>,
    seconds: f64,
    p50_ms: f64,
    p99_ms: f64,
    #[serde(skip)]
    latencies: Vec<Duration>,
}

impl Load {
    /// Runs and prints the counts.
    pub(crate) async fn run(self) -> anyhow::Result<()> {
        let headers = parse_headers(&self.header)?;
        let counts = Rc::new(RefCell::new(Counts::default()));
        let started = Instant::now();
        let next = Rc::new(RefCell::new(0_u64));
        let load = Rc::new(self);
        LocalSet::new()
            .run_until(async {
                let workers: Vec<_> = (0..load.concurrency)
                    .map(|_| {
                        let (load, counts, next, headers) = (
                            Rc::clone(&load),
                            Rc::clone(&counts),
                            Rc::clone(&next),
                            headers.clone(),
                        );
                        tokio::task::spawn_local(async move {
                            load.work(&headers, &counts, &next, started).await;
                        })
                    })
                    .collect();
                for worker in workers {
                    drop(worker.await);
                }
            })
            .await;
        let mut counts = counts.take();
        counts.seconds = started.elapsed().as_secs_f64();
        counts.latencies.sort();
        let at = |share: usize| {
            let place = counts.latencies.len().saturating_sub(1) * share / 100;
            counts
                .latencies
                .get(place)
                .map_or(0.0, |latency| latency.as_secs_f64() * 1000.0)
        };
        (counts.p50_ms, counts.p99_ms) = (at(50), at(99));
        print(&serde_json::to_string(&counts)?);
        Ok(())
    }

    async fn work(
        &self,
        headers: &HeaderMap,
        counts: &RefCell<Counts>,
        next: &RefCell<u64>,
        started: Instant,
    ) {
        let client = Client::default();
        let end = started + Duration::from_secs(self.seconds);
        loop {
            let number = {
                let mut next = next.borrow_mut();
                if *next >= self.count || Instant::now() >= end {
                    return;
                }
                *next += 1;
                *next - 1
            };
            if let Some(wait) = (number * 1_000_000).checked_div(self.rate) {
                let due = started + Duration::from_micros(wait);
                tokio::time::sleep_until(due.into()).await;
            }
            let place = usize::try_from(number).unwrap_or_default() % self.url.len().max(1);
            let Some(url) = self.url.get(place) else {
                return;
            };
            let begun = Instant::now();
            let outcome = client.get(url, headers).await;
            record(&mut counts.borrow_mut(), outcome, begun, started);
        }
    }
}

fn record(
    counts: &mut Counts,
    outcome: anyhow::Result<crate::client::Answer>,
    begun: Instant,
    started: Instant,
) {
    counts.requests += 1;
    counts.latencies.push(begun.elapsed());
    let failed = match outcome {
        Ok(answer) => {
            let status = answer.status.as_u16();
            *counts.status.entry(status.to_string()).or_default() += 1;
            if status == 200 {
                counts.ok += 1;
                let text = String::from_utf8_lossy(&answer.body).into_owned();
                let letter = text
                    .split_whitespace()
                    .last()
                    .and_then(|word| word.chars().next());
                let letter = letter
                    .map(|letter| letter.to_lowercase().to_string())
                    .unwrap_or_default();
                *counts.first_letter.entry(letter).or_default() += 1;
                false
            } else {
                let named = answer
                    .headers
                    .get("mesh-error")
                    .and_then(|value| value.to_str().ok());
                if let Some(named) = named
                    && counts.mesh_errors.len() < 20
                {
                    counts.mesh_errors.push(named.to_owned());
                }
                true
            }
        }
        Err(error) => {
            *counts.errors.entry(format!("{error:#}")).or_default() += 1;
            true
        }
    };
    if failed {
        counts.failed += 1;
        if counts.failed_at_ms.len() < 10_000 {
            counts
                .failed_at_ms
                .push(u64::try_from(started.elapsed().as_millis()).unwrap_or_default());
        }
    }
}

fn parse_headers(lines: &[String]) -> anyhow::Result<HeaderMap> {
    lines
        .iter()
        .map(|line| {
            let (name, value) = line
                .split_once([':', '='])
                .with_context(|| format!("{line:?} is no header"))?;
            Ok((
                name.trim().parse::<HeaderName>()?,
                HeaderValue::from_str(value.trim())?,
            ))
        })
        .collect()
}

/// Fetches once.
pub(crate) async fn get(url: &str, headers: &[String]) -> anyhow::Result<()> {
    let headers = parse_headers(headers)?;
    let answer = LocalSet::new()
        .run_until(async { Client::default().get(url, &headers).await })
        .await?;
    let named = answer
        .headers
        .get("mesh-error")
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    print(&format!(
        "{} {named}\n{}",
        answer.status.as_u16(),
        String::from_utf8_lossy(&answer.body)
    ));
    Ok(())
}

#[expect(clippy::print_stdout, reason = "the result of a command-line program")]
fn print(text: &str) {
    println!("{text}");
}
