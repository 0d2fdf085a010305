//! Which endpoint gets a request: every algorithm, weights, nearness, failover, panic.

use std::{collections::BTreeMap, time::Duration};

use anyhow::ensure;
use mesh_tests::wait::within;

use crate::stage::{Counts, Group, OTHER, Stage, share};

const POOL: [&str; 4] = ["pool-1", "pool-2", "pool-3", "pool-4"];

pub const GROUPS: &[Group] = &[
    Group {
        documents: "",
        rows: &[
            ("peak-EWMA, the default, avoids a slow endpoint", ewma),
            ("nearness: the own host first", nearest),
        ],
    },
    Group {
        documents: ROBIN,
        rows: &[
            ("round robin", robin),
            ("policy of a subset", subset_policy),
        ],
    },
    Group {
        documents: RANDOM,
        rows: &[("random by weight", random)],
    },
    Group {
        documents: LEAST,
        rows: &[("least request avoids a slow endpoint", least)],
    },
    Group {
        documents: RING,
        rows: &[("ring hash by header", hash_header)],
    },
    Group {
        documents: MAGLEV,
        rows: &[("Maglev by header", hash_header)],
    },
    Group {
        documents: SOURCE,
        rows: &[("consistent hash by source address", hash_source)],
    },
    Group {
        documents: HASH_COOKIE,
        rows: &[("consistent hash by a made cookie", hash_cookie)],
    },
    Group {
        documents: HASH_QUERY,
        rows: &[("Maglev by query parameter", hash_query)],
    },
    Group {
        documents: EVERYWHERE,
        rows: &[("nearness switched off", everywhere)],
    },
    Group {
        documents: DISTRIBUTE,
        rows: &[("fixed shares by locality", distribute)],
    },
    Group {
        documents: FAILOVER,
        rows: &[("spill-over to the region that takes over", failover)],
    },
    Group {
        documents: STRICT_CHECK,
        rows: &[("without panic only healthy endpoints", no_panic)],
    },
    Group {
        documents: PANIC,
        rows: &[("panic threshold", panic)],
    },
];

fn ewma(stage: &mut Stage) -> anyhow::Result<String> {
    let counts = stage.many(&[], "http://pool/race/[1-200]")?;
    ensure!(counts.status(200) == 200, "{} of 200", counts.status(200));
    let slow = counts.from("pool-4");
    // Asked once to find out, and again only as its average sinks.
    ensure!(slow <= 10, "{slow} of 200 at the slow one");
    Ok(format!("{slow} of 200 at the slow one"))
}

fn nearest(stage: &mut Stage) -> anyhow::Result<String> {
    let counts = stage.many(&[], "http://near/[1-100]")?;
    ensure!(counts.from("near-own") == 100, "{}", counts.0);
    Ok("100 of 100".to_owned())
}

const ROBIN: &str = r"
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: pool}
spec:
  host: pool
  trafficPolicy: {loadBalancer: {simple: ROUND_ROBIN}}
  subsets:
  - {name: even, labels: {version: v1}}
  - name: sticky
    labels: {version: v2}
    trafficPolicy: {loadBalancer: {consistentHash: {httpHeaderName: x-a}}}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: pool}
spec:
  hosts: [pool]
  http:
  - match: [{uri: {prefix: /even}}]
    route: [{destination: {host: pool, subset: even}}]
  - match: [{uri: {prefix: /sticky}}]
    route: [{destination: {host: pool, subset: sticky}}]
  - route: [{destination: {host: pool}}]
";

fn spread(counts: &Counts) -> [usize; 4] {
    POOL.map(|name| counts.from(name))
}

fn robin(stage: &mut Stage) -> anyhow::Result<String> {
    let counts = spread(&stage.many(&[], "http://pool/robin/[1-200]")?);
    ensure!(counts == [50; 4], "{counts:?}");
    Ok(format!("{counts:?}"))
}

fn subset_policy(stage: &mut Stage) -> anyhow::Result<String> {
    let even = spread(&stage.many(&[], "http://pool/even/[1-40]")?);
    ensure!(even == [20, 20, 0, 0], "{even:?}");
    let sticky = spread(&stage.many(&["-H", "x-a: key"], "http://pool/sticky/[1-40]")?);
    ensure!(
        sticky == [0, 0, 40, 0] || sticky == [0, 0, 0, 40],
        "{sticky:?}"
    );
    Ok(format!("{even:?} and {sticky:?}"))
}

const RANDOM: &str = r"
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: heavy}
spec: {host: heavy, trafficPolicy: {loadBalancer: {simple: RANDOM}}}
";

fn random(stage: &mut Stage) -> anyhow::Result<String> {
    let counts = stage.many(&[], "http://heavy/random/[1-800]")?;
    ensure!(counts.status(200) == 800, "{} of 800", counts.status(200));
    share("weight 3 of 4:", counts.from("heavy-3"), 800, 0.75)
}

const LEAST: &str = r"
apiVersion: meshd.io/v1alpha1
kind: DestinationRule
metadata: {name: pool}
spec: {host: pool, trafficPolicy: {loadBalancer: {simple: LEAST_REQUEST, choices: 4}}}
";

fn least(stage: &mut Stage) -> anyhow::Result<String> {
    let parallel = ["--parallel", "--parallel-max", "8"];
    let counts = stage.many(&parallel, "http://pool/race/[1-300]")?;
    ensure!(counts.status(200) == 300, "{} of 300", counts.status(200));
    let slow = counts.from("pool-4");
    // Its share without looking at loads would be 75.
    ensure!(slow <= 30, "{slow} of 300 at the slow one");
    Ok(format!("{slow} of 300 at the slow one, 8 at a time"))
}

const RING: &str = r"
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: pool}
spec: {host: pool, trafficPolicy: {loadBalancer: {consistentHash: {httpHeaderName: x-a, ringHash: {minimumRingSize: 1024}}}}}
";

const MAGLEV: &str = r"
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: pool}
spec: {host: pool, trafficPolicy: {loadBalancer: {consistentHash: {httpHeaderName: x-a, maglev: {tableSize: 65537}}}}}
";

/// Keys stay where they are, and are spread over the servers.
fn sticks(keys: usize, ask: impl Fn(usize) -> anyhow::Result<Counts>) -> anyhow::Result<String> {
    let mut used: BTreeMap<&str, usize> = BTreeMap::new();
    for key in 0..keys {
        let counts = spread(&ask(key)?);
        let place = counts.iter().position(|count| *count == 5);
        let Some(place) = place else {
            anyhow::bail!("key {key}: {counts:?}")
        };
        *used.entry(POOL[place]).or_default() += 1;
    }
    ensure!(used.len() == 4, "{used:?}");
    Ok(format!("{keys} keys 5 times each: {used:?}"))
}

fn hash_header(stage: &mut Stage) -> anyhow::Result<String> {
    sticks(40, |key| {
        let header = format!("x-a: key-{key}");
        stage.many(&["-H", &header], "http://pool/hash/[1-5]")
    })
}

const SOURCE: &str = r"
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: pool}
spec: {host: pool, trafficPolicy: {loadBalancer: {consistentHash: {useSourceIp: true}}}}
";

fn hash_source(stage: &mut Stage) -> anyhow::Result<String> {
    let mut seen = Vec::new();
    for _ in 0..5 {
        seen.push(spread(&stage.many(&[], "http://pool/source/[1-10]")?));
    }
    for _ in 0..5 {
        let url = "http://pool/source/other";
        let answer = stage.ask(OTHER, &[], url)?;
        ensure!(answer.status == 200, "{answer:?}");
        seen.push(POOL.map(|name| if answer.from() == name { 10 } else { 0 }));
    }
    ensure!(
        seen.iter().all(|one| *one == seen[0] && one.contains(&10)),
        "{seen:?}"
    );
    Ok(format!("55 requests of one address: {:?}", seen[0]))
}

const HASH_COOKIE: &str = r"
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: pool}
spec: {host: pool, trafficPolicy: {loadBalancer: {consistentHash: {httpCookie: {name: user, ttl: 1h}}}}}
";

fn hash_cookie(stage: &mut Stage) -> anyhow::Result<String> {
    for _ in 0..10 {
        let first = stage.get("http://pool/cookie")?;
        let cookie = first.header("set-cookie").unwrap_or_default();
        let pair = cookie.split(';').next().unwrap_or_default();
        ensure!(pair.starts_with("user="), "{first:?}");
        let header = format!("cookie: {pair}");
        let later = stage.many(&["-H", &header], "http://pool/cookie/[1-5]")?;
        ensure!(
            later.from(first.from()) == 5,
            "{} moved: {}",
            first.from(),
            later.0
        );
    }
    Ok("10 cookies, none moved".to_owned())
}

const HASH_QUERY: &str = r"
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: pool}
spec: {host: pool, trafficPolicy: {loadBalancer: {consistentHash: {httpQueryParameterName: user, maglev: {}}}}}
";

fn hash_query(stage: &mut Stage) -> anyhow::Result<String> {
    sticks(40, |key| {
        stage.many(&[], &format!("http://pool/query/[1-5]?user=u{key}"))
    })
}

const EVERYWHERE: &str = r"
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: near}
spec:
  host: near
  trafficPolicy: {loadBalancer: {simple: ROUND_ROBIN, localityLbSetting: {enabled: false}}}
";

fn near(counts: &Counts) -> [usize; 3] {
    ["near-own", "near-far", "near-other"].map(|name| counts.from(name))
}

fn everywhere(stage: &mut Stage) -> anyhow::Result<String> {
    let counts = near(&stage.many(&[], "http://near/all/[1-90]")?);
    ensure!(counts == [30; 3], "{counts:?}");
    Ok(format!("{counts:?} over three regions"))
}

const DISTRIBUTE: &str = r#"
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: near}
spec:
  host: near
  trafficPolicy:
    loadBalancer: {localityLbSetting: {distribute: [{from: "eu/*", to: {"us/*": 80, "asia/*": 20}}]}}
"#;

fn distribute(stage: &mut Stage) -> anyhow::Result<String> {
    let counts = near(&stage.many(&[], "http://near/shares/[1-400]")?);
    ensure!(
        counts[0] == 0 && counts.iter().sum::<usize>() == 400,
        "{counts:?}"
    );
    share("us", counts[1], 400, 0.8)
}

const FAILOVER: &str = r"
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: near}
spec:
  host: near
  trafficPolicy:
    loadBalancer: {localityLbSetting: {failover: [{from: eu, to: asia}]}}
    outlierDetection: {consecutive5xxErrors: 3, baseEjectionTime: 5s, interval: 1s, maxEjectionPercent: 100}
";

fn failover(stage: &mut Stage) -> anyhow::Result<String> {
    let before = near(&stage.many(&[], "http://near/before/[1-20]")?);
    ensure!(before == [20, 0, 0], "{before:?}");
    // The own one fails three times, and is out.
    let failing = stage.many(&["-X", "POST"], "http://near/weak/[1-3]")?;
    ensure!(failing.status(503) == 3, "{}", failing.0);
    let during = near(&stage.many(&[], "http://near/during/[1-20]")?);
    ensure!(during == [0, 0, 20], "{during:?}");
    within(Duration::from_secs(30), || {
        let after = near(&stage.many(&[], "http://near/after/[1-5]")?);
        ensure!(after == [5, 0, 0], "{after:?}");
        Ok(())
    })?;
    Ok(format!("{during:?} while the own one is out, then back"))
}

const STRICT_CHECK: &str = r"
apiVersion: meshd.io/v1alpha1
kind: DestinationRule
metadata: {name: weak}
spec:
  host: weak
  trafficPolicy:
    loadBalancer: {simple: ROUND_ROBIN}
    healthCheck: {http: {path: /healthz}, interval: 200ms, timeout: 200ms, unhealthyThreshold: 2, healthyThreshold: 1}
";

/// Waits until the caller's host has put the failing server out.
fn checked(stage: &Stage) -> anyhow::Result<String> {
    within(Duration::from_secs(30), || {
        let rows = stage.caller().ctl_json(&["endpoints", "weak"])?;
        let rows = rows.as_array().cloned().unwrap_or_default();
        let out = rows
            .iter()
            .find(|row| row["labels"]["version"] == "bad" && row["usable"] == false);
        let reason = out.and_then(|row| row["reason"].as_str());
        match reason {
            Some(reason) if reason.contains("failed health check") => Ok(reason.to_owned()),
            _ => anyhow::bail!("{rows:?}"),
        }
    })
}

fn no_panic(stage: &mut Stage) -> anyhow::Result<String> {
    let reason = checked(stage)?;
    let counts = stage.many(&[], "http://weak/checked/[1-40]")?;
    ensure!(counts.from("weak-good") == 40, "{}", counts.0);
    Ok(format!("40 of 40; {reason}"))
}

const PANIC: &str = r"
apiVersion: meshd.io/v1alpha1
kind: DestinationRule
metadata: {name: weak}
spec:
  host: weak
  trafficPolicy:
    loadBalancer: {simple: ROUND_ROBIN}
    panicThreshold: 60
    healthCheck: {http: {path: /healthz}, interval: 200ms, timeout: 200ms, unhealthyThreshold: 2, healthyThreshold: 1}
";

fn panic(stage: &mut Stage) -> anyhow::Result<String> {
    checked(stage)?;
    let counts = stage.many(&[], "http://weak/panic/[1-40]")?;
    let split = [counts.from("weak-good"), counts.from("weak-bad")];
    ensure!(split == [20, 20], "{split:?}");
    Ok(format!("50 % healthy, 60 % asked: {split:?}"))
}
