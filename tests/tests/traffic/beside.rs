//! Endpoints beside the mesh, known of a file: priorities, bounds on opening connections, checks, HTTP/2 by policy;
//! and what gRPC servers ask of callers.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use mesh_tests::{
    peers::{PYTHON, Python, folder},
    wait::{Running, within},
};

use crate::stage::{Answer, Group, Stage, by, share};

pub const GROUPS: &[Group] = &[
    Group {
        documents: "",
        rows: &[
            ("priorities of endpoints", priorities),
            ("delegation table of one request", dtab),
        ],
    },
    Group {
        documents: OPENING,
        rows: &[
            ("connect timeout", connect_timeout),
            ("health check by TCP", tcp_check),
            ("spill-over by healthy capacity", spilled),
            ("HTTP/1 goes on as HTTP/2", upgraded),
        ],
    },
    Group {
        documents: NOT_HEDGED,
        rows: &[("no hedging unless asked for", not_hedged)],
    },
    Group {
        documents: HEDGED,
        rows: &[("hedging", hedged)],
    },
    Group {
        documents: CHECKED,
        rows: &[("health check by gRPC", grpc_check)],
    },
    Group {
        documents: PUSHED_BACK,
        rows: &[("gRPC pushback", pushback)],
    },
];

/// What the callers' host reads: `254` is the machine that the hosts are on, nobody has `252` and `253`.
pub const KNOWN: &str = r#"
[[service]]
name = "ranked"
port = 80
protocol = "http"
endpoint = [
    { address = "10.77.0.254:8161", priority = 0 },
    { address = "10.77.0.254:8162", priority = 1 },
]

[[service]]
name = "mute"
port = 80
protocol = "http"
endpoint = [{ address = "10.77.0.252:80" }]

[[service]]
name = "half"
port = 80
protocol = "http"
endpoint = [{ address = "10.77.0.253:80" }, { address = "10.77.0.254:8161" }]

[[service]]
name = "spilled"
port = 80
protocol = "http"
endpoint = [
    { priority = 0, address = "10.77.0.253:80" },
    { priority = 0, address = "10.77.0.254:8161" },
    { priority = 1, address = "10.77.0.254:8162" },
]

[[service]]
name = "newer"
port = 80
protocol = "http"
endpoint = [{ address = "10.77.0.254:8163" }]
"#;

/// The first of them is the better one.
const SWAPPED: (&str, &str) = (
    "{ address = \"10.77.0.254:8161\", priority = 0 }",
    "{ address = \"10.77.0.254:8161\", priority = 2 }",
);

fn priorities(stage: &mut Stage) -> anyhow::Result<String> {
    let counts = stage.many(&[], "http://ranked/[1-20]")?;
    ensure!(counts.from("ranked-1") == 20, "{}", counts.0);
    let known = KNOWN.replace(SWAPPED.0, SWAPPED.1);
    ensure!(known != KNOWN, "nothing was changed");
    std::fs::write(stage.file("registry/beside.toml"), known)?;
    within(Duration::from_secs(30), || {
        by(&stage.get("http://ranked/")?, "ranked-2")
    })?;
    let counts = stage.many(&[], "http://ranked/[1-20]")?;
    ensure!(counts.from("ranked-2") == 20, "{}", counts.0);
    Ok("20 of 20 at the first, 20 of 20 at the second once it was better".to_owned())
}

fn dtab(stage: &mut Stage) -> anyhow::Result<String> {
    for server in ["v1", "v2", "v1"] {
        let header = format!("l5d-dtab: /svc/shop => /#/mesh/default/shop-{server}");
        for number in 0..5 {
            let answer = stage.call(&["-H", &header], &format!("http://shop/dtab/{number}"))?;
            let expected = if server == "v1" { "shop-1" } else { "shop-2" };
            by(&answer, expected)?;
        }
    }
    Ok("15 requests, each where its own table leads".to_owned())
}

const OPENING: &str = r"
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: mute}
spec: {host: mute, trafficPolicy: {connectionPool: {tcp: {connectTimeout: 300ms}}}}
---
apiVersion: meshd.io/v1alpha1
kind: DestinationRule
metadata: {name: half}
spec:
  host: half
  trafficPolicy:
    healthCheck: {tcp: {}, interval: 200ms, timeout: 200ms, unhealthyThreshold: 2, healthyThreshold: 1}
---
apiVersion: meshd.io/v1alpha1
kind: DestinationRule
metadata: {name: spilled}
spec:
  host: spilled
  trafficPolicy:
    healthCheck: {tcp: {}, interval: 200ms, timeout: 200ms, unhealthyThreshold: 2, healthyThreshold: 1}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: newer}
spec: {host: newer, trafficPolicy: {connectionPool: {http: {h2UpgradePolicy: UPGRADE}}}}
";

fn connect_timeout(stage: &mut Stage) -> anyhow::Result<String> {
    let answer = stage.get("http://mute/")?;
    let error = answer.header("mesh-error").unwrap_or_default();
    // One endpoint: the further tries have the same one and the same bound. Nobody else dials that address, so the
    // kernel has not found out yet that nobody has it, which takes it three seconds.
    ensure!(
        answer.status == 503
            && error.starts_with("connect-failed;")
            && answer.took >= Duration::from_millis(290)
            && answer.ran() < Duration::from_millis(2_500),
        "{answer:?}"
    );
    Ok(format!("{} after {:?}", answer.status, answer.took))
}

fn tcp_check(stage: &mut Stage) -> anyhow::Result<String> {
    let reason = out(stage, "half", "10.77.0.253")?;
    let counts = stage.many(&[], "http://half/[1-20]")?;
    ensure!(counts.from("ranked-1") == 20, "{}", counts.0);
    Ok(format!("20 of 20; {reason}"))
}

fn spilled(stage: &mut Stage) -> anyhow::Result<String> {
    out(stage, "spilled", "10.77.0.253")?;
    let counts = stage.many(&[], "http://spilled/[1-600]")?;
    ensure!(counts.status(200) == 600, "{} of 600", counts.status(200));
    // Half of the first level is healthy, and taken to carry 1.4 times its share.
    share("first level", counts.from("ranked-1"), 600, 0.7)
}

/// Waits until an endpoint is out by the checks of the callers' host.
fn out(stage: &Stage, service: &str, address: &str) -> anyhow::Result<String> {
    within(Duration::from_secs(30), || {
        let rows = stage.caller().ctl_json(&["endpoints", service])?;
        let row = rows.as_array().context("no list")?.iter().find(|row| {
            row["usable"] == false
                && row["address"]
                    .as_str()
                    .unwrap_or_default()
                    .contains(address)
        });
        let reason = row.and_then(|row| row["reason"].as_str());
        match reason {
            Some(reason) if reason.contains("failed health check") => Ok(reason.to_owned()),
            _ => anyhow::bail!("{rows:?}"),
        }
    })
}

fn upgraded(stage: &mut Stage) -> anyhow::Result<String> {
    let answer = stage.get("http://newer/")?;
    by(&answer, "newer")?;
    ensure!(
        answer.version == "HTTP/1.1" && answer.said("version") == "HTTP/2.0",
        "{answer:?}"
    );
    Ok("HTTP/1.1 at the caller, HTTP/2 at the program".to_owned())
}

const NOT_HEDGED: &str = r"
apiVersion: meshd.io/v1alpha1
kind: DestinationRule
metadata: {name: weak}
spec:
  host: weak
  trafficPolicy:
    loadBalancer: {simple: ROUND_ROBIN}
    retryBudget: {percent: 100, minRetriesPerSecond: 10}
";

fn not_hedged(stage: &mut Stage) -> anyhow::Result<String> {
    // One of two goes to the server that is stuck, and waits for it.
    let answers = [
        stage.get("http://weak/stuck/alone/1")?,
        stage.get("http://weak/stuck/alone/2")?,
    ];
    let waited = |answer: &&Answer| answer.took >= Duration::from_millis(2_950);
    let slow: Vec<&Answer> = answers.iter().filter(waited).collect();
    ensure!(
        slow.len() == 1 && answers.iter().all(|answer| answer.status == 200),
        "{answers:?}"
    );
    by(slow[0], "weak-bad")?;
    stage.wait_logged("weak-good", "/stuck/alone/", 1)?;
    stage.wait_logged("weak-bad", "/stuck/alone/", 1)?;
    Ok(format!(
        "2 requests, 2 tries; the stuck one took {:?}",
        slow[0].took
    ))
}

const HEDGED: &str = r"
apiVersion: meshd.io/v1alpha1
kind: DestinationRule
metadata: {name: weak}
spec:
  host: weak
  trafficPolicy:
    loadBalancer: {simple: ROUND_ROBIN}
    retryBudget: {percent: 100, minRetriesPerSecond: 10}
    hedgeAfter: 100ms
";

fn hedged(stage: &mut Stage) -> anyhow::Result<String> {
    for number in 0..6 {
        let answer = stage.get(&format!("http://weak/stuck/{number}"))?;
        by(&answer, "weak-good")?;
        ensure!(answer.ran() < Duration::from_millis(2_500), "{answer:?}");
    }
    Ok("6 of 6 in time, one of two servers stuck for 3 s".to_owned())
}

const CHECKED: &str = r"
apiVersion: meshd.io/v1alpha1
kind: DestinationRule
metadata: {name: talk}
spec:
  host: talk
  trafficPolicy:
    loadBalancer: {simple: ROUND_ROBIN}
    healthCheck: {grpc: {}, interval: 1s, timeout: 1s, unhealthyThreshold: 2, healthyThreshold: 1}
";

/// The rows of the protocols have started the servers.
fn client(stage: &Stage) -> anyhow::Result<Option<Python>> {
    if folder(PYTHON).is_none() {
        return Ok(None);
    }
    Python::new(stage.mesh.directory.path()).map(Some)
}

fn grpc_check(stage: &mut Stage) -> anyhow::Result<String> {
    let Some(python) = client(stage)? else {
        return Ok("left out".to_owned());
    };
    // The second server says NOT_SERVING.
    let reason = out(stage, "talk", ":9002")?;
    let text = python.ask(stage.caller(), "grpc_who.py", &["many", "talk:9000"])?;
    let all = text.lines().all(|line| line.ends_with("=9001"));
    ensure!(all && text.lines().count() == 10, "{text}");
    Ok(format!("10 of 10 at the one that serves; {reason}"))
}

const PUSHED_BACK: &str = r"
apiVersion: meshd.io/v1alpha1
kind: DestinationRule
metadata: {name: talk}
spec:
  host: talk
  trafficPolicy:
    loadBalancer: {simple: ROUND_ROBIN}
    retryBudget: {percent: 100, minRetriesPerSecond: 10}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: talk}
spec:
  hosts: [talk]
  http:
  - route: [{destination: {host: talk}}]
    retries: {attempts: 1, retryOn: unavailable}
";

fn pushback(stage: &mut Stage) -> anyhow::Result<String> {
    let Some(python) = client(stage)? else {
        return Ok("left out".to_owned());
    };
    let clock = Running::now();
    let text = python.ask(stage.caller(), "grpc_who.py", &["pushback", "talk:9000"])?;
    let at_once = 0.45 + clock.stood().as_secs_f64();
    let (mut waited, mut final_ones) = (0, 0);
    for line in text.lines() {
        let mut words = line.split(' ');
        let (asked, said) = (
            words.next().unwrap_or_default(),
            words.next().unwrap_or_default(),
        );
        let took: f64 = words.next().context("no time")?.parse()?;
        match (asked, said) {
            // The first try found the one that serves.
            ("500" | "-1", "9001") if took < at_once => {}
            ("500", "9001") => waited += 1,
            ("-1", "UNAVAILABLE") => final_ones += 1,
            _ => anyhow::bail!("{text}"),
        }
    }
    ensure!(waited > 0 && final_ones > 0, "{text}");
    Ok(format!(
        "{waited} waited the half second, {final_ones} were not sent again"
    ))
}
