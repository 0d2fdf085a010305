//! What is seen of traffic while it runs: edges of the mesh, what the mesh costs, live requests.
//!
//! In: two looks at the counters of every host, at the same time. Out: sums of what came in between.
//! Never: asks a worker; counters are read, not stopped.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use futures_util::{future::join_all, stream};
use http_body_util::{BodyExt as _, StreamBody};
use hyper::{Response, body::Frame};
use mesh_model::admin::live::{Cost, CostSide, EdgeRow, EdgeSample, Edges, HostSample, TapFilter};
use mesh_proxy::{is_bucket, quantile_of};

use super::{
    answer::{Answer, Outcome, from_outcome, refuse},
    request::{Query, parse},
    state::{host_name, is_alive, joined},
};
use crate::{
    counts::{LONGEST, sample},
    daemon::Daemon,
    questions::EDGES_KIND,
    running::Running,
};

/// Time between two looks unless the caller says so.
const USUAL: Duration = Duration::from_secs(2);
/// What another host gets beyond the time between its looks.
const GRACE: Duration = Duration::from_secs(3);

/// `GET /v1/edges?over=MS`.
pub(super) async fn edges(daemon: &Daemon, query: &Query) -> Outcome<Edges> {
    let running = joined(daemon)?;
    let over = over(query)?;
    let (samples, silent) = everywhere(&running, over).await;
    let mut rows: BTreeMap<(String, String), Row> = BTreeMap::new();
    for sample in &samples {
        for edge in sample.edges.iter().filter(|edge| edge.requests > 0) {
            let key = (edge.source.clone(), edge.destination.clone());
            // The caller's side sees every try's end; the called side alone sees callers without a daemon.
            let row = rows.entry(key).or_default();
            match &*edge.direction {
                "outbound" => row.outbound.add(edge, sample),
                _ => row.inbound.add(edge, sample),
            }
        }
    }
    let mut edges: Vec<EdgeRow> = rows
        .into_iter()
        .map(|((source, destination), row)| row.told(source, destination))
        .collect();
    edges.sort_by(|a, b| {
        (b.requests, &a.source, &a.destination).cmp(&(a.requests, &b.source, &b.destination))
    });
    Ok(Edges { edges, silent })
}

/// `GET /v1/cost?source=&destination=&over=MS`.
pub(super) async fn cost(daemon: &Daemon, query: &Query) -> Outcome<Cost> {
    let running = joined(daemon)?;
    let word = |key: &str| query.get(key).cloned().unwrap_or_default();
    let (source, destination) = (word("source"), word("destination"));
    if source.is_empty() || destination.is_empty() {
        return Err(refuse(
            400,
            "bad-request",
            "source and destination are needed",
            "write `meshctl cost CALLER SERVICE`",
        ));
    }
    let (samples, silent) = everywhere(&running, over(query)?).await;
    let side = |direction: &str| {
        let mut sums = Sums::default();
        for sample in &samples {
            let of_edge = |edge: &&EdgeSample| {
                edge.direction == direction
                    && edge.source == source
                    && edge.destination == destination
            };
            for edge in sample.edges.iter().filter(of_edge) {
                sums.add(edge, sample);
            }
        }
        sums
    };
    let (outbound, inbound) = (side("outbound"), side("inbound"));
    let whole = if outbound.requests > 0 {
        &outbound
    } else {
        &inbound
    };
    Ok(Cost {
        total_p50_us: quantile_of(&whole.durations, 0.5),
        total_p99_us: quantile_of(&whole.durations, 0.99),
        sides: [("outbound", &outbound), ("inbound", &inbound)]
            .into_iter()
            .filter(|(_, sums)| sums.requests > 0)
            .map(|(word, sums)| sums.cost(word))
            .collect(),
        source,
        destination,
        silent,
    })
}

/// `POST /v1/tap`: lines until the reader goes, or its limit is reached.
pub(super) fn tap(daemon: &Daemon, body: &Bytes) -> Answer {
    let begun = joined(daemon).and_then(|running| Ok((running, parse::<TapFilter>(body)?)));
    let (running, filter) = match begun {
        Ok(begun) => begun,
        Err(refused) => return from_outcome::<()>(Err(refused)),
    };
    let left = if filter.limit == 0 {
        u64::MAX
    } else {
        filter.limit
    };
    let Some(tap) = running.tap(filter) else {
        return from_outcome::<()>(Err(refuse(
            503,
            "closing",
            "the data plane is closing",
            "try again when the daemon runs",
        )));
    };
    let stop = daemon.ground.stop.clone();
    let lines = stream::unfold((tap, left, stop), |(mut tap, left, stop)| async move {
        let left = left.checked_sub(1)?;
        let record = tokio::select! {
            () = stop.cancelled() => None,
            record = tap.next() => record,
        }?;
        let mut line = serde_json::to_vec(&record).unwrap_or_default();
        line.push(b'\n');
        Some((Ok(Frame::data(Bytes::from(line))), (tap, left, stop)))
    });
    let mut answer = Response::new(StreamBody::new(lines).boxed());
    answer.headers_mut().insert(
        hyper::header::CONTENT_TYPE,
        hyper::header::HeaderValue::from_static("application/jsonl"),
    );
    answer
}

async fn everywhere(running: &Arc<Running>, over: Duration) -> (Vec<HostSample>, Vec<String>) {
    let catalog = running.cluster.catalog();
    let own = catalog.mesh.as_ref().map(|mesh| mesh.host);
    let question = u64::try_from(over.as_millis())
        .unwrap_or(u64::MAX)
        .to_string();
    let others = catalog
        .hosts
        .iter()
        .filter(|(host, facts)| Some(**host) != own && is_alive(facts))
        .map(|(host, facts)| {
            let (name, body) = (host_name(facts, *host), Bytes::from(question.clone()));
            async move {
                let asked = running.cluster.call(*host, EDGES_KIND, body, over + GRACE);
                let sample = asked
                    .await
                    .ok()
                    .and_then(|answer| understood(&answer, &name));
                (name, sample)
            }
        });
    let (mine, theirs) = tokio::join!(sample(running, over), join_all(others));
    let mut samples = vec![mine];
    let mut silent = Vec::new();
    for (name, sample) in theirs {
        match sample {
            Some(sample) => samples.push(sample),
            None => silent.push(name),
        }
    }
    (samples, silent)
}

/// Another host's sample under the name that it is known by.
fn understood(answer: &[u8], name: &str) -> Option<HostSample> {
    let mut sample: HostSample = serde_json::from_slice(answer).ok()?;
    name.clone_into(&mut sample.host);
    for edge in &mut sample.edges {
        edge.durations.retain(|bucket, _| is_bucket(*bucket));
        edge.own.retain(|bucket, _| is_bucket(*bucket));
    }
    Some(sample)
}

fn over(query: &Query) -> Outcome<Duration> {
    let Some(text) = query.get("over") else {
        return Ok(USUAL);
    };
    let over = text.parse().ok().map(Duration::from_millis);
    over.filter(|over| *over <= LONGEST).ok_or_else(|| {
        refuse(
            400,
            "bad-request",
            format!("over={text} is no time up to a minute"),
            "use a time from 0s to 1m",
        )
    })
}

/// One edge, seen from both sides.
#[derive(Debug, Default)]
struct Row {
    outbound: Sums,
    inbound: Sums,
}

impl Row {
    fn told(self, source: String, destination: String) -> EdgeRow {
        let sums = if self.outbound.requests > 0 {
            self.outbound
        } else {
            self.inbound
        };
        EdgeRow {
            source,
            destination,
            rate: (sums.rate * 10.0).round() / 10.0,
            requests: sums.requests,
            successes: sums.successes,
            secured: sums.secured,
            p50_us: quantile_of(&sums.durations, 0.5),
            p99_us: quantile_of(&sums.durations, 0.99),
            hosts: sums.hosts.into_iter().collect(),
        }
    }
}

/// One side of an edge, over all hosts.
#[derive(Debug, Default)]
struct Sums {
    requests: u64,
    successes: u64,
    secured: u64,
    rate: f64,
    durations: BTreeMap<u16, u64>,
    own: BTreeMap<u16, u64>,
    hosts: BTreeSet<String>,
    /// CPU time and requests of these daemons, whatever the edge.
    cpu: BTreeMap<String, (u64, u64)>,
}

impl Sums {
    #[expect(clippy::cast_precision_loss, reason = "a rate for people")]
    fn add(&mut self, edge: &EdgeSample, sample: &HostSample) {
        if edge.requests == 0 {
            return;
        }
        self.requests += edge.requests;
        self.successes += edge.successes;
        self.secured += edge.secured;
        if sample.span_ms > 0 {
            self.rate += edge.requests as f64 * 1_000.0 / sample.span_ms as f64;
        }
        for (sums, counts) in [
            (&mut self.durations, &edge.durations),
            (&mut self.own, &edge.own),
        ] {
            for (bucket, count) in counts {
                *sums.entry(*bucket).or_default() += count;
            }
        }
        self.hosts.insert(sample.host.clone());
        let all = sample.edges.iter().map(|edge| edge.requests).sum();
        self.cpu.insert(sample.host.clone(), (sample.cpu_us, all));
    }

    #[expect(clippy::cast_precision_loss, reason = "a mean for people")]
    fn cost(&self, side: &str) -> CostSide {
        let (cpu, all) = self
            .cpu
            .values()
            .fold((0, 0), |(cpu, all), (c, a)| (cpu + c, all + a));
        CostSide {
            side: side.to_owned(),
            hosts: self.hosts.iter().cloned().collect(),
            requests: self.own.values().sum(),
            p50_us: quantile_of(&self.own, 0.5),
            p99_us: quantile_of(&self.own, 0.99),
            cpu_us: if all == 0 {
                0.0
            } else {
                (cpu as f64 / all as f64 * 10.0).round() / 10.0
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn edge(direction: &str, requests: u64, own: &[(u16, u64)]) -> EdgeSample {
        EdgeSample {
            direction: direction.into(),
            source: "shop/web".into(),
            destination: "shop/cart".into(),
            requests,
            successes: requests,
            secured: requests,
            durations: own.iter().copied().collect(),
            own: own.iter().copied().collect(),
        }
    }

    #[test]
    fn a_daemon_counts_once_per_side() {
        let sample = |host: &str, cpu_us| HostSample {
            host: host.into(),
            edges: vec![edge("outbound", 100, &[(7, 100)])],
            span_ms: 2_000,
            cpu_us,
        };
        let mut sums = Sums::default();
        for one in [sample("h1", 3_000), sample("h2", 5_000)] {
            sums.add(&one.edges[0], &one);
        }
        let cost = sums.cost("outbound");
        assert_eq!((cost.requests, cost.p50_us), (200, 8));
        assert!((cost.cpu_us - 40.0).abs() < 0.01, "{cost:?}");
        assert!((sums.rate - 100.0).abs() < 0.01);
        assert_eq!(cost.hosts, ["h1", "h2"]);
    }

    #[test]
    fn what_another_host_says_is_looked_at() {
        let mut theirs = HostSample {
            host: "pretended".into(),
            edges: vec![edge("outbound", 1, &[(3, 1), (60_000, 1)])],
            ..HostSample::default()
        };
        let bytes = serde_json::to_vec(&theirs).unwrap();
        let read = understood(&bytes, "h2").unwrap();
        theirs.host = "h2".into();
        theirs.edges[0] = edge("outbound", 1, &[(3, 1)]);
        assert_eq!(read, theirs);
        assert!(understood(b"{", "h2").is_none());
    }
}
