//! What becomes of failures: further tries and their budget, time-outs, circuit limits, bounds of connections.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use mesh_tests::wait::{Running, within};

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
        documents: TRIES,
        rows: &[("circuit breaking: retries", max_retries)],
    },
    Group {
        documents: PENDING,
        rows: &[("circuit breaking: connections and pending", max_pending)],
    },
    Group {
        documents: CONNECTIONS,
        rows: &[
            ("requests of one connection", per_connection),
            ("idle time of connections", idle),
        ],
    },
];

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
            ensure!(answer.ran() < Duration::from_millis(950), "{answer:?}");
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
            && answer.ran() < Duration::from_millis(900),
        "{answer:?}"
    );
    Ok(format!("504 after {:?}", answer.took))
}

const REQUESTS: &str = r"
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: lone}
spec: {host: lone, trafficPolicy: {connectionPool: {http: {http2MaxRequests: 2}}}}
";

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

const TRIES: &str = r#"
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: lone}
spec:
  host: lone
  trafficPolicy: {connectionPool: {http: {maxRetries: 1}}, retryBudget: {percent: 100}}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: lone}
spec:
  parentRefs: [{group: "", kind: Service, name: lone}]
  rules:
  - retry: {attempts: 1, codes: [503], backoff: 2s}
    backendRefs: [{name: lone, port: 80}]
"#;

/// Ten failures at once: the one retry that may be under way pauses for two seconds, and the others are over by then.
fn max_retries(stage: &mut Stage) -> anyhow::Result<String> {
    let parallel = ["--parallel", "--parallel-immediate", "--parallel-max", "10"];
    let clock = Running::now();
    let counts = stage.many(&parallel, "http://lone/fails/tries/[1-10]")?;
    ensure!(counts.status(503) == 10, "{}", counts.0);
    let stood = clock.stood();
    let tries = within(Duration::from_secs(30), || {
        let tries = stage.logged("lone", "/fails/tries/").len();
        // Requests that a machine standing still has held back may come when the place is free again.
        let late = stood > Duration::from_secs(1) && (11..20).contains(&tries);
        ensure!(tries == 11 || late, "{tries} tries of 10 failing requests");
        Ok(tries)
    })?;
    Ok(format!("{tries} tries of 10 failing requests"))
}

const PENDING: &str = r"
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: near}
spec:
  host: near
  trafficPolicy: {connectionPool: {tcp: {maxConnections: 1}, http: {http1MaxPendingRequests: 2}}}
";

fn max_pending(stage: &mut Stage) -> anyhow::Result<String> {
    ten_at_once(stage, "near", 3)
}

const CONNECTIONS: &str = r"
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: outside}
spec:
  host: outside
  trafficPolicy: {connectionPool: {http: {maxRequestsPerConnection: 2, idleTimeout: 1s}}}
";

fn per_connection(stage: &mut Stage) -> anyhow::Result<String> {
    let counts = stage.many(&[], "http://outside/connection/[1-20]")?;
    ensure!(counts.from("outside") == 20, "{}", counts.0);
    stage.wait_logged("outside", "/connection/", 20)?;
    let mut used: BTreeMap<String, usize> = BTreeMap::new();
    for line in stage.logged("outside", "/connection/") {
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
    stage.get("http://outside/idle")?;
    within(Duration::from_secs(20), || {
        let text = stage
            .caller()
            .sh("ss -Htnp state established dport = :8160")?;
        ensure!(!text.contains("meshd"), "{text}");
        Ok(())
    })?;
    Ok("none is open after the bound of 1 s".to_owned())
}
