//! What becomes of failures: further tries and their budget, time-outs, circuit limits, ejection, checks, draining.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use mesh_tests::{Child, process::finished, wait::within};
use nix::sys::signal::Signal;
use serde_json::Value;

use crate::stage::{CLIENT, Group, Stage};

pub const GROUPS: &[Group] = &[
    Group {
        documents: RETRIES,
        rows: &[
            ("retries on 503", retries),
            ("retry budget", budget),
            ("Retry-After is honoured", retry_after),
            ("bodies are sent again", replay),
            ("timeout of a try", try_timeout),
            ("timeout of a request", request_timeout),
        ],
    },
    Group {
        documents: REQUESTS,
        rows: &[("circuit breaking: requests", max_requests)],
    },
    Group {
        documents: PENDING,
        rows: &[("circuit breaking: connections and pending", max_pending)],
    },
    Group {
        documents: OUTLIERS,
        rows: &[("outlier detection by consecutive 5xx", outliers)],
    },
    Group {
        documents: SUCCESS,
        rows: &[("outlier detection by success rate", success_rate)],
    },
    Group {
        documents: LATENCY,
        rows: &[("outlier detection by latency", latency)],
    },
    Group {
        documents: CONNECTIONS,
        rows: &[
            ("requests of one connection", per_connection),
            ("idle time of connections", idle),
        ],
    },
    Group {
        documents: WARMUP,
        rows: &[("slow start", warmup)],
    },
    Group {
        documents: CHECKS,
        rows: &[("active health checks", health_checks)],
    },
];

/// What ends a daemon: last of all.
pub const LAST: &[Group] = &[Group {
    documents: DRAIN,
    rows: &[
        ("draining: connection: close", close),
        ("draining: no failed request", drained),
    ],
}];

const RETRIES: &str = r#"
apiVersion: meshd.io/v1alpha1
kind: DestinationRule
metadata: {name: weak}
spec:
  host: weak
  trafficPolicy:
    loadBalancer: {simple: ROUND_ROBIN}
    retryBudget: {percent: 100, minRetriesPerSecond: 10}
---
apiVersion: meshd.io/v1alpha1
kind: DestinationRule
metadata: {name: pool}
spec:
  host: pool
  trafficPolicy:
    retryBudget: {percent: 10, minRetriesPerSecond: 1}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: weak}
spec:
  parentRefs: [{group: "", kind: Service, name: weak}]
  rules:
  - matches: [{path: {type: PathPrefix, value: /stuck}}]
    timeouts: {request: 5s, backendRequest: 300ms}
    retry: {attempts: 1, codes: [503, 504]}
    backendRefs: [{name: weak, port: 80}]
  - matches: [{path: {type: PathPrefix, value: /slow}}]
    timeouts: {request: 300ms}
    backendRefs: [{name: weak, port: 80}]
  - retry: {attempts: 2, codes: [503]}
    backendRefs: [{name: weak, port: 80}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: pool}
spec:
  parentRefs: [{group: "", kind: Service, name: pool}]
  rules:
  - retry: {attempts: 3, codes: [503]}
    backendRefs: [{name: pool, port: 80}]
"#;

fn retries(stage: &mut Stage) -> anyhow::Result<String> {
    let counts = stage.many(&[], "http://weak/weak/retried/[1-100]")?;
    ensure!(counts.from("weak-good") == 100, "{}", counts.0);
    let failed = stage.logged("weak-bad", "/weak/retried/").len();
    ensure!(
        (25..=100).contains(&failed),
        "{failed} tries at the bad one"
    );
    Ok(format!("100 of 100 answered, {failed} tries failed"))
}

fn budget(stage: &mut Stage) -> anyhow::Result<String> {
    let began = Instant::now();
    let counts = stage.many(&[], "http://pool/fails/[1-300]")?;
    ensure!(counts.status(503) == 300, "{} of 300", counts.status(503));
    let tries: usize = ["pool-1", "pool-2", "pool-3", "pool-4"]
        .iter()
        .map(|name| stage.logged(name, "/fails/").len())
        .sum();
    // A tenth of the requests, one each second, and what ten seconds save.
    let seconds = usize::try_from(began.elapsed().as_secs())? + 1;
    let most = 300 + 30 + seconds + 10;
    ensure!(
        tries > 300 && tries <= most,
        "{tries} tries, at most {most} allowed"
    );
    Ok(format!("{tries} tries of 300 failing requests, not 1200"))
}

fn retry_after(stage: &mut Stage) -> anyhow::Result<String> {
    // One of two goes to the server that asks for a pause.
    let mut waited = 0;
    for number in 0..4 {
        let before = stage.logged("weak-bad", "/later/").len();
        let answer = stage.get(&format!("http://weak/later/{number}"))?;
        ensure!(
            answer.status == 200 && answer.from() == "weak-good",
            "{answer:?}"
        );
        if stage.logged("weak-bad", "/later/").len() > before {
            ensure!(answer.took >= Duration::from_millis(950), "{answer:?}");
            waited += 1;
        } else {
            ensure!(answer.took < Duration::from_millis(950), "{answer:?}");
        }
    }
    ensure!(waited > 0, "nothing was tried again");
    Ok(format!("{waited} of 4 waited the second they were told"))
}

fn replay(stage: &mut Stage) -> anyhow::Result<String> {
    let body = "x".repeat(60_000);
    let file = stage.file("body.txt");
    std::fs::write(&file, &body)?;
    let body = format!("@{}", file.display());
    let arguments = ["--data-binary", body.as_str(), "-H", "expect:"];
    let counts = stage.many(&arguments, "http://weak/weak/body/[1-20]")?;
    ensure!(counts.from("weak-good") == 20, "{}", counts.0);
    let failed = stage.logged("weak-bad", "POST /weak/body/").len();
    ensure!(failed > 0, "nothing was tried again");
    Ok(format!("60 KB each, {failed} of 20 sent twice"))
}

fn try_timeout(stage: &mut Stage) -> anyhow::Result<String> {
    let counts = stage.many(&["--max-time", "10"], "http://weak/stuck/[1-6]")?;
    ensure!(counts.from("weak-good") == 6, "{}", counts.0);
    Ok("6 of 6 in time, one of two servers stuck for 3 s".to_owned())
}

fn request_timeout(stage: &mut Stage) -> anyhow::Result<String> {
    let answer = stage.get("http://weak/slow")?;
    let error = answer.header("mesh-error").unwrap_or_default();
    ensure!(
        answer.status == 504
            && error.starts_with("request-timeout;")
            && answer.took < Duration::from_millis(900),
        "{answer:?}"
    );
    Ok(format!("504 after {:?}", answer.took))
}

const REQUESTS: &str = r#"
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: lone}
spec: {host: lone, trafficPolicy: {connectionPool: {http: {http2MaxRequests: 2}}}}
"#;

/// Ten requests at once that take a second each: so many get through, the others are told at once.
fn ten_at_once(stage: &Stage, service: &str, through: usize) -> anyhow::Result<String> {
    let parallel = ["--parallel", "--parallel-immediate", "--parallel-max", "10"];
    let more = ["-w", "\ncode=%{http_code}\nerror=%header{mesh-error}\n"];
    let mut all: Vec<&str> = parallel.to_vec();
    all.extend(more);
    let url = format!("http://{service}/slow/[1-10]");
    all.push(&url);
    let text = stage.curl(CLIENT, &all)?;
    let count = |begin: &str| text.lines().filter(|line| line.starts_with(begin)).count();
    let (good, told) = (count("code=200"), count("error=overloaded;"));
    ensure!(
        good == through && told == 10 - through && count("code=503") == told,
        "{text}"
    );
    Ok(format!("{good} of 10 at once, {told} told 503 overloaded"))
}

fn max_requests(stage: &mut Stage) -> anyhow::Result<String> {
    ten_at_once(stage, "lone", 2)
}

const PENDING: &str = r#"
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: near}
spec:
  host: near
  trafficPolicy: {connectionPool: {tcp: {maxConnections: 1}, http: {http1MaxPendingRequests: 2}}}
"#;

fn max_pending(stage: &mut Stage) -> anyhow::Result<String> {
    ten_at_once(stage, "near", 3)
}

const OUTLIERS: &str = r#"
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: weak}
spec:
  host: weak
  trafficPolicy:
    loadBalancer: {simple: ROUND_ROBIN}
    outlierDetection: {consecutive5xxErrors: 3, baseEjectionTime: 3s, interval: 1s, maxEjectionPercent: 50}
"#;

/// What the caller's host says of the failing server: usable, and why not.
fn bad(stage: &Stage) -> anyhow::Result<(bool, String)> {
    let rows = stage.caller().ctl_json(&["endpoints", "weak"])?;
    let rows = rows.as_array().context("no list")?;
    let row = rows.iter().find(|row| row["labels"]["version"] == "bad");
    let row = row.context("no such endpoint")?;
    let reason = row["reason"].as_str().unwrap_or_default().to_owned();
    Ok((row["usable"] == true, reason))
}

/// Waits until what other rows did to the failing server is over.
fn well(stage: &Stage) -> anyhow::Result<()> {
    within(Duration::from_secs(30), || {
        let (usable, reason) = bad(stage)?;
        ensure!(usable, "{reason}");
        Ok(())
    })
}

fn outliers(stage: &mut Stage) -> anyhow::Result<String> {
    well(stage)?;
    let counts = stage.many(&["-X", "POST"], "http://weak/broken/[1-60]")?;
    let failed = counts.status(500);
    ensure!(
        failed == 3 && counts.from("weak-good") == 57,
        "{failed} failed"
    );
    let (usable, reason) = bad(stage)?;
    ensure!(
        !usable && reason.contains("errors in a row"),
        "{usable} {reason}"
    );
    well(stage)?;
    Ok(format!("3 of 60 failed; {reason}; then back"))
}

const SUCCESS: &str = r#"
apiVersion: meshd.io/v1alpha1
kind: DestinationRule
metadata: {name: weak}
spec:
  host: weak
  trafficPolicy:
    loadBalancer: {simple: ROUND_ROBIN}
    outlierDetection:
      consecutive5xxErrors: 0
      interval: 500ms
      baseEjectionTime: 1s
      maxEjectionPercent: 50
      successRate: {minimumHosts: 2, requestVolume: 5, stdevFactor: 0.9}
"#;

/// Sends requests until an endpoint of a service is out for this reason.
fn out(stage: &Stage, service: &str, url: &str, reason: &str) -> anyhow::Result<Value> {
    within(Duration::from_secs(20), || {
        stage.many(&["--parallel", "--parallel-max", "8", "-X", "POST"], url)?;
        let rows = stage.caller().ctl_json(&["endpoints", service])?;
        let all = rows.as_array().context("no list")?;
        let is_out = |row: &&Value| {
            row["usable"] == false
                && row["reason"]
                    .as_str()
                    .is_some_and(|text| text.contains(reason))
        };
        let out: Vec<Value> = all.iter().filter(is_out).cloned().collect();
        ensure!(out.len() == 1, "{rows}");
        out.into_iter().next().context("nobody is out")
    })
}

fn success_rate(stage: &mut Stage) -> anyhow::Result<String> {
    well(stage)?;
    let row = out(stage, "weak", "http://weak/broken/[1-40]", "success rate")?;
    ensure!(row["labels"]["version"] == "bad", "{row}");
    well(stage)?;
    Ok(row["reason"].to_string())
}

const LATENCY: &str = r#"
apiVersion: meshd.io/v1alpha1
kind: DestinationRule
metadata: {name: pool}
spec:
  host: pool
  trafficPolicy:
    loadBalancer: {simple: ROUND_ROBIN}
    outlierDetection:
      consecutive5xxErrors: 0
      interval: 1s
      baseEjectionTime: 1s
      maxEjectionPercent: 50
      latency: {factor: 3, floor: 50ms, requestVolume: 4}
"#;

fn latency(stage: &mut Stage) -> anyhow::Result<String> {
    let row = out(stage, "pool", "http://pool/race/[1-60]", "latency")?;
    ensure!(
        row["address"]
            .as_str()
            .is_some_and(|address| address.ends_with(":8114")),
        "{row}"
    );
    within(Duration::from_secs(20), || {
        let rows = stage.caller().ctl_json(&["endpoints", "pool"])?;
        let rows = rows.as_array().context("no list")?;
        ensure!(rows.iter().all(|row| row["usable"] == true), "{rows:?}");
        Ok(())
    })?;
    Ok(row["reason"].to_string())
}

const CONNECTIONS: &str = r#"
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: near}
spec:
  host: near
  trafficPolicy: {connectionPool: {http: {maxRequestsPerConnection: 2, idleTimeout: 1s}}}
"#;

fn per_connection(stage: &mut Stage) -> anyhow::Result<String> {
    let counts = stage.many(&[], "http://near/connection/[1-20]")?;
    ensure!(counts.from("near-own") == 20, "{}", counts.0);
    stage.wait_logged("near-own", "/connection/", 20)?;
    let mut used: BTreeMap<String, usize> = BTreeMap::new();
    for line in stage.logged("near-own", "/connection/") {
        let number = line.split(' ').find(|word| word.starts_with("connection="));
        *used
            .entry(number.context("no connection")?.to_owned())
            .or_default() += 1;
    }
    ensure!(used.values().all(|count| *count <= 2), "{used:?}");
    Ok(format!("20 requests over {} connections", used.len()))
}

fn idle(stage: &mut Stage) -> anyhow::Result<String> {
    // An odd one leaves a connection behind that could be used again.
    stage.get("http://near/idle")?;
    within(Duration::from_secs(8), || {
        let text = stage
            .caller()
            .sh("ss -Htnp state established dport = :8151")?;
        ensure!(!text.contains("meshd"), "{text}");
        Ok(())
    })?;
    Ok("none is open after the bound of 1 s".to_owned())
}

const WARMUP: &str = r#"
apiVersion: meshd.io/v1alpha1
kind: DestinationRule
metadata: {name: weak}
spec:
  host: weak
  trafficPolicy:
    loadBalancer: {simple: ROUND_ROBIN, warmup: {duration: 120s, minimumPercent: 10}}
    outlierDetection: {consecutive5xxErrors: 2, baseEjectionTime: 1s, interval: 200ms, maxEjectionPercent: 50}
"#;

fn warmup(stage: &mut Stage) -> anyhow::Result<String> {
    well(stage)?;
    // It is put out, comes back, and begins with a tenth of its share.
    out(
        stage,
        "weak",
        "http://weak/broken/[1-20]",
        "errors in a row",
    )?;
    well(stage)?;
    let counts = stage.many(&[], "http://weak/warm/[1-110]")?;
    let share = counts.from("weak-bad");
    ensure!(
        counts.status(200) == 110 && (3..=30).contains(&share),
        "{share} of 110"
    );
    Ok(format!("{share} of 110 for the one that is back, later 55"))
}

const CHECKS: &str = r#"
apiVersion: meshd.io/v1alpha1
kind: DestinationRule
metadata: {name: weak}
spec:
  host: weak
  trafficPolicy:
    healthCheck: {http: {path: /healthz}, interval: 200ms, timeout: 200ms, unhealthyThreshold: 2, healthyThreshold: 1}
"#;

fn health_checks(stage: &mut Stage) -> anyhow::Result<String> {
    let reason = within(Duration::from_secs(10), || {
        let (usable, reason) = bad(stage)?;
        ensure!(
            !usable && reason.contains("failed health check"),
            "{reason}"
        );
        Ok(reason)
    })?;
    let counts = stage.many(&["-X", "POST"], "http://weak/weak/checked/[1-40]")?;
    ensure!(counts.from("weak-good") == 40, "{}", counts.0);
    Ok(format!("40 of 40 at the good one; {reason}"))
}

const DRAIN: &str = r#"
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: near}
spec:
  host: near
  trafficPolicy: {loadBalancer: {simple: ROUND_ROBIN, localityLbSetting: {enabled: false}}}
"#;

/// A caller without a daemon holds a connection to the second host's server while that host's daemon stops; callers
/// on the third go on.
fn close(stage: &mut Stage) -> anyhow::Result<String> {
    let log = stage.file("load.txt");
    let mut load = stage.caller().command_as(CLIENT, "curl");
    load.args(["-sS", "--max-time", "60", "--rate", "100/s"])
        .args(["-w", "\ncode=%{http_code}\n", "http://near/drain/[1-400]"]);
    let mut load = Child::start("load", &mut load, &log)?;
    within(Duration::from_secs(10), || {
        ensure!(
            !stage.logged("near-other", "/drain/").is_empty(),
            "no request arrived"
        );
        Ok(())
    })?;
    let url = format!("http://{}:8153", stage.mesh.hosts[1].v4);
    let mut held = std::process::Command::new("curl");
    held.args(["-sS", "-i", "--max-time", "20"])
        .arg(format!("{url}/slow/held"))
        .stdout(std::process::Stdio::piped());
    let held = held.spawn()?;
    // nginx logs at the end of a request: that it has begun is seen by its connection in the caller's name.
    within(Duration::from_secs(10), || {
        let text = stage.mesh.hosts[1].sh("ss -Htnp state established")?;
        let begun = |line: &str| line.contains("10.77.0.254:") && line.contains("nginx");
        ensure!(text.lines().any(begun), "{text}");
        Ok(())
    })?;
    stage.mesh.hosts[1].signal_meshd(Signal::SIGTERM)?;
    let output = held.wait_with_output()?;
    let ended = load.wait(Duration::from_secs(60))?;
    let text = finished("curl", &output)?.to_ascii_lowercase();
    ensure!(
        text.starts_with("http/1.1 200") && text.contains("connection: close"),
        "{text}"
    );
    ensure!(ended.success(), "{}", load.log());
    Ok("the answer that was under way said it".to_owned())
}

fn drained(stage: &mut Stage) -> anyhow::Result<String> {
    let text = std::fs::read_to_string(stage.file("load.txt"))?;
    let good = text.lines().filter(|line| *line == "code=200").count();
    ensure!(
        good == 400,
        "{good} of 400: {:?}",
        text.lines()
            .filter(|line| !line.contains("code=200"))
            .filter(|line| line.starts_with("code=") || line.starts_with("curl"))
            .collect::<Vec<_>>()
    );
    let other = stage.logged("near-other", "/drain/").len();
    ensure!(other > 0 && other < 134, "{other} at the stopped host");
    Ok(format!(
        "400 of 400 answered, {other} of them by the host that stopped"
    ))
}
