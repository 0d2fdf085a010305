//! HTTP at saturation (CPU for each request), then at half of the slowest peer's peak, the hop also at 4,000
//! requests a second (latency).

use std::path::Path;

use super::{contenders, interleave};
use crate::{
    contender::{Contender, Proxy, Way},
    load::{
        Load,
        h2load::{self, Call},
        own, wrk,
    },
    measure,
    order::Order,
    place::write,
    results::{Column, Figures, Results},
    stage::Stage,
    statistic::least,
};

/// Connections of HTTP/1.1 loads.
const CONNECTIONS: u32 = 64;
/// Connections and requests at a time of HTTP/2 loads.
const H2: (u32, u32) = (16, 32);
/// The rate at which the hop's latency is compared.
const RATE: u32 = 4000;
/// Messages in a stream, and bytes of each.
const MESSAGES: (usize, usize) = (32, 100);

type Named = (&'static str, Way);

/// HTTP/1.1 keep-alive.
pub(super) fn http1(order: &Order, stage: &Stage, results: &mut Results, (name, way): Named) {
    saturate(order, stage, results, (name, way), &|contender, seconds| {
        wrk::run(contender, seconds, CONNECTIONS)
    });
    let at_rate = |results: &mut Results, scenario: &str, rate: u32| {
        let contenders = contenders(order, stage, way);
        interleave(order, scenario, contenders, results, &|contender| {
            let mut failed = 0.0;
            let mut figures = costs(contender, || {
                let (load, count) = own::rate(contender, rate, CONNECTIONS, order.seconds)?;
                failed = count;
                Ok(load)
            })?;
            figures.push((Column::Failed, failed));
            Ok(figures)
        });
    };
    if !order.quick
        && let Some(rate) = half(results, name)
    {
        at_rate(results, &format!("{name}_half"), rate);
    }
    if way == Way::Hop {
        at_rate(results, &format!("{name}_{RATE}"), RATE);
    }
}

/// HTTP/2 without TLS from the client.
pub(super) fn http2(
    order: &Order,
    stage: &Stage,
    results: &mut Results,
    named: Named,
) -> anyhow::Result<()> {
    let call = Call {
        path: "/",
        grpc: None,
        clients: H2.0,
        streams: H2.1,
    };
    h2(order, stage, results, named, &call)
}

/// gRPC: one message there and back; a stream of messages, each sent back as it comes.
pub(super) fn grpc(order: &Order, stage: &Stage, results: &mut Results) -> anyhow::Result<()> {
    let scratch = stage.scratch()?;
    let message = |length: usize| {
        let mut message = vec![0, 0, 0, 0, u8::try_from(length).unwrap_or_default()];
        message.resize(5 + length, b'x');
        String::from_utf8(message).unwrap_or_default()
    };
    let one = write(&scratch, "unary", &message(64))?;
    let many = write(&scratch, "stream", &message(MESSAGES.1).repeat(MESSAGES.0))?;
    let run = |results: &mut Results, name, path, body: &Path| {
        let call = Call {
            path,
            grpc: Some(body),
            clients: H2.0,
            streams: H2.1,
        };
        h2(order, stage, results, (name, Way::Grpc), &call)
    };
    run(results, "grpc_unary", "/bench/Unary", &one)?;
    run(results, "grpc_stream", "/bench/Stream", &many)
}

fn h2(
    order: &Order,
    stage: &Stage,
    results: &mut Results,
    (name, way): Named,
    call: &Call<'_>,
) -> anyhow::Result<()> {
    saturate(order, stage, results, (name, way), &|contender, seconds| {
        h2load::run(contender, call, seconds)
    });
    let latency = matches!(name, "h2h1" | "grpc_unary") && !order.quick;
    let Some(rate) = half(results, name).filter(|_| latency) else {
        return Ok(());
    };
    let scratch = stage.scratch()?;
    let scenario = format!("{name}_half");
    let contenders = contenders(order, stage, way);
    interleave(order, &scenario, contenders, results, &|contender| {
        costs(contender, || {
            h2load::at_rate(contender, call, order.seconds, rate, &scratch)
        })
    });
    Ok(())
}

/// As many requests as are answered; a second of it first, so that everything is warm.
fn saturate(
    order: &Order,
    stage: &Stage,
    results: &mut Results,
    (name, way): Named,
    load: &dyn Fn(&Contender<'_>, u32) -> anyhow::Result<Load>,
) {
    let contenders = contenders(order, stage, way);
    let mut warm: Vec<Proxy> = Vec::new();
    let warm = std::cell::RefCell::new(&mut warm);
    interleave(order, name, contenders, results, &|contender| {
        if !warm.borrow().contains(&contender.proxy) {
            warm.borrow_mut().push(contender.proxy);
            load(contender, 1)?;
        }
        costs(contender, || load(contender, order.seconds))
    });
}

/// Runs a load and reads the proxies' CPU and memory around it.
fn costs(
    contender: &Contender<'_>,
    load: impl FnOnce() -> anyhow::Result<Load>,
) -> anyhow::Result<Figures> {
    let before = measure::cpu(&contender.pids)?;
    let load = load()?;
    let used = measure::cpu(&contender.pids)?.since(before);
    let mut figures = vec![(Column::Rps, load.rate)];
    if !contender.pids.is_empty() {
        let each = 1e6 / load.requests.max(1.0);
        figures.insert(0, (Column::CpuUsPerRequest, used.total() * each));
        figures.insert(1, (Column::CpuUserUsPerRequest, used.user * each));
        figures.push((Column::RssKb, measure::memory_of(&contender.pids)?));
    }
    figures.extend(load.p50_us.map(|value| (Column::P50Us, value)));
    figures.extend(load.p99_us.map(|value| (Column::P99Us, value)));
    Ok(figures)
}

/// Half of the slowest peer's peak, in hundreds.
fn half(results: &Results, scenario: &str) -> Option<u32> {
    let peaks: Vec<f64> = results
        .rows
        .iter()
        .filter(|row| row.scenario == scenario)
        .filter(|row| !matches!(row.proxy, Proxy::Direct | Proxy::Meshd))
        .filter_map(|row| row.figure(Column::Rps))
        .collect();
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a rate of requests is positive and far below 2^32"
    )]
    least(&peaks).map(|peak| ((peak / 200.0) as u32).max(1) * 100)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_is_of_the_slowest_peer() {
        let mut results = Results::default();
        for (proxy, rate) in [
            (Proxy::Direct, 90.0),
            (Proxy::Meshd, 1000.0),
            (Proxy::Envoy, 24_390.0),
            (Proxy::Haproxy, 60_000.0),
        ] {
            results.add("h1", proxy, vec![(Column::Rps, rate)]);
        }
        assert_eq!(half(&results, "h1"), Some(12_100));
        assert_eq!(half(&results, "hop"), None);
    }
}
