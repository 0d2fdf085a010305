//! Memory of idle connections: how much resident memory grows for each, in a process that has just started
//! and done some work; of a pair the side that grows more.

use crate::{
    contender::{Contender, Proxy, Way},
    load::own::{self, Running},
    load::wrk,
    measure::settled,
    order::Order,
    place::backend,
    report,
    results::{Column, Figures, Results},
    stage::Stage,
};

/// Name, way, and how many connections: first few, then many. A TCP connection needs two descriptors of a
/// proxy, and 20,000 are allowed on many machines.
const KINDS: [(&str, Way, [u32; 2]); 5] = [
    ("h1", Way::Http1, [1000, 10_000]),
    ("hop", Way::Hop, [1000, 10_000]),
    ("tcp", Way::Tcp, [1000, 9000]),
    ("tcpmtls", Way::TcpMtls, [1000, 9000]),
    ("mtls", Way::Inbound, [1000, 10_000]),
];

/// Every kind with every proxy.
pub(super) fn run(order: &Order, stage: &mut Stage, results: &mut Results) {
    for (kind, way, counts) in KINDS {
        for proxy in Proxy::ALL.into_iter().skip(1) {
            if !order.wants(proxy.name()) || stage.contender(proxy, way).is_none() {
                continue;
            }
            let counts = counts.get(..if order.quick { 1 } else { 2 });
            let outcome = stage
                .restart(proxy)
                .and_then(|()| one(stage, (proxy, way), counts.unwrap_or_default()));
            match outcome {
                Ok(steps) => {
                    for (count, figures) in steps {
                        let name = format!("idle_{kind}_{count}");
                        report::progress(&name, proxy, &figures);
                        results.add(&name, proxy, figures);
                    }
                }
                Err(error) => {
                    let (name, why) = (format!("idle_{kind}"), format!("{error:#}"));
                    report::fault(&name, proxy, &why);
                    results.faults.push((name, proxy, why));
                }
            }
        }
    }
}

/// The growth at each count; the later connections come on top of the earlier ones.
fn one(
    stage: &Stage,
    (proxy, way): (Proxy, Way),
    counts: &[u32],
) -> anyhow::Result<Vec<(u32, Figures)>> {
    let contender = stage
        .contender(proxy, way)
        .ok_or_else(|| anyhow::anyhow!("it does not run"))?;
    // Some work first: what is made once shall not count.
    let _warm = match way {
        Way::Inbound => Some(hold(&contender, 50, way)?),
        Way::Http1 | Way::Hop => {
            wrk::run(&contender, 1, 16)?;
            None
        }
        _ => {
            own::connect(&contender, 1)?;
            None
        }
    };
    let before = settled(&contender.pids)?;
    let mut held = Vec::new();
    let mut open = 0;
    let mut steps = Vec::new();
    for count in counts {
        held.push(hold(&contender, count - open, way)?);
        open = *count;
        let after = settled(&contender.pids)?;
        anyhow::ensure!(held.iter_mut().all(Running::runs), "a client ended");
        let growth = before
            .iter()
            .zip(&after)
            .map(|(before, after)| (after - before) / f64::from(*count))
            .fold(0.0, f64::max);
        steps.push((
            *count,
            vec![
                (Column::KbPerConnection, growth),
                (Column::RssKb, after.iter().sum()),
            ],
        ));
    }
    Ok(steps)
}

fn hold(contender: &Contender<'_>, count: u32, way: Way) -> anyhow::Result<Running> {
    let count = count.to_string();
    let common = ["host", contender.authority, "count", &count];
    let Some(client) = &contender.client else {
        let http = matches!(way, Way::Http1 | Way::Hop);
        let kind = ["kind", if http { "http" } else { "tcp" }];
        return Running::start(contender, "hold", &[&common[..], &kind].concat());
    };
    let (pem, target) = (client.pem.display().to_string(), backend::HTTP1.to_string());
    let own = [
        "name",
        &client.name,
        "alpn",
        client.alpn,
        "pem",
        &pem,
        "target",
        &target,
    ];
    Running::start(contender, "tls", &[&common[..], &own].concat())
}
