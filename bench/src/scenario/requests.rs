//! HTTP at saturation (CPU for each request), then at half of the slowest peer's peak, the hop also at 4,000
//! requests a second (latency).

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
/// Bytes of a gRPC message.
const MESSAGE: u8 = 100;
/// Messages in a stream.
const MESSAGES: usize = 32;

type Named = (&'static str, Way);

/// HTTP/1.1 keep-alive.
pub(super) fn http1(order: &Order, stage: &Stage, results: &mut Results, (name, way): Named) {
    saturate(order, stage, results, (name, way), &|contender, seconds| {
        wrk::run(contender, seconds, CONNECTIONS)
    });
    let tail = order.rounds_of_a_tail();
    let fixed = (way == Way::Hop).then(|| (format!("{name}_{RATE}"), RATE, tail));
    // Without rules only the cost is another one.
    let half = half(results, name).filter(|_| !order.quick && way != Way::Bare);
    let half = half.map(|rate| (format!("{name}_half"), rate, order.rounds));
    for (scenario, rate, rounds) in half.into_iter().chain(fixed) {
        let named = (scenario.as_str(), way, rounds);
        at_rate(order, stage, results, named, &|contender| {
            own::rate(contender, rate, CONNECTIONS, order.seconds)
        });
    }
}

/// HTTP/2 without TLS from the client; the latency of one of the two ways is looked at.
pub(super) fn http2(order: &Order, stage: &Stage, results: &mut Results, (name, way): Named) {
    let call = Call {
        path: "/",
        grpc: None,
        clients: H2.0,
        streams: H2.1,
    };
    saturate(order, stage, results, (name, way), &|contender, seconds| {
        h2load::run(contender, &call, seconds)
    });
    if way == Way::H2ToH1 {
        h2_at_half(order, stage, results, (name, way), ("/", 0));
    }
}

/// gRPC: one message there and back; a stream of messages, each sent back as it comes.
pub(super) fn grpc(order: &Order, stage: &Stage, results: &mut Results) -> anyhow::Result<()> {
    let scratch = stage.scratch()?;
    let message = |length: u8| {
        let mut message = vec![0, 0, 0, 0, length];
        message.resize(5 + usize::from(length), b'x');
        String::from_utf8(message)
    };
    let (unary, stream) = ("/bench/Unary", "/bench/Stream");
    let one = write(&scratch, "unary", &message(MESSAGE)?)?;
    let many = write(&scratch, "stream", &message(MESSAGE)?.repeat(MESSAGES))?;
    for (name, path, body) in [
        ("grpc_unary", unary, one.as_path()),
        ("grpc_stream", stream, &many),
    ] {
        let call = Call {
            path,
            grpc: Some(body),
            clients: H2.0,
            streams: H2.1,
        };
        saturate(
            order,
            stage,
            results,
            (name, Way::Grpc),
            &|contender, seconds| h2load::run(contender, &call, seconds),
        );
    }
    let named = ("grpc_unary", Way::Grpc);
    h2_at_half(order, stage, results, named, (unary, MESSAGE));
    Ok(())
}

fn h2_at_half(
    order: &Order,
    stage: &Stage,
    results: &mut Results,
    (name, way): Named,
    call: (&str, u8),
) {
    if let Some(rate) = half(results, name).filter(|_| !order.quick) {
        let scenario = format!("{name}_half");
        let named = (scenario.as_str(), way, order.rounds);
        at_rate(order, stage, results, named, &|contender| {
            own::calls(contender, call, rate, H2.0, order.seconds)
        });
    }
}

/// A constant rate: latency, and how many failed.
fn at_rate(
    order: &Order,
    stage: &Stage,
    results: &mut Results,
    (scenario, way, rounds): (&str, Way, u32),
    load: &dyn Fn(&Contender<'_>) -> anyhow::Result<(Load, f64)>,
) {
    let contenders = contenders(order, stage, way);
    interleave(rounds, scenario, contenders, results, &|contender| {
        let mut failed = 0.0;
        let mut figures = costs(contender, || {
            let (load, count) = load(contender)?;
            failed = count;
            Ok(load)
        })?;
        figures.push((Column::Failed, failed));
        Ok(figures)
    });
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
    interleave(order.rounds, name, contenders, results, &|contender| {
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
