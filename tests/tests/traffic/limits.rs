//! Rate limits of one host and of the whole mesh, and failures on purpose.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use mesh_tests::{
    Child,
    wait::{Running, within},
};

use crate::stage::{CLIENT, GUEST, Group, OTHER, Stage, by, share};

pub const GROUPS: &[Group] = &[
    Group {
        documents: LIMITS,
        rows: &[
            ("rate limit per source", per_source),
            ("rate limit per header", per_header),
            ("rate limit by match", by_match),
            ("rate limit ends", ends),
        ],
    },
    Group {
        documents: MESH_WIDE,
        rows: &[("rate limit of the whole mesh", mesh_wide)],
    },
    Group {
        documents: MESH_WIDE_BY,
        rows: &[(
            "rate limit of the whole mesh per source and header",
            mesh_wide_by,
        )],
    },
    Group {
        documents: FAULTS,
        rows: &[
            ("fault: delay of a share", delay),
            ("fault: abort of a share", abort),
            ("fault: reset", reset),
            ("fault: bandwidth", bandwidth),
            ("fault by source", fault_by_source),
        ],
    },
];

const LIMITS: &str = r"
apiVersion: meshd.io/v1alpha1
kind: RateLimit
metadata: {name: sources}
spec:
  targetRefs: [{kind: Service, name: lone}]
  matches: [{path: {type: PathPrefix, value: /source}}]
  limit: {requests: 5, per: 1m}
  by: [source]
---
apiVersion: meshd.io/v1alpha1
kind: RateLimit
metadata: {name: headers}
spec:
  targetRefs: [{kind: Service, name: lone}]
  matches: [{path: {type: PathPrefix, value: /header}}]
  limit: {requests: 3, per: 1m}
  by: [{header: x-a}]
---
apiVersion: meshd.io/v1alpha1
kind: RateLimit
metadata: {name: guests}
spec:
  targetRefs: [{kind: Service, name: lone}]
  matches: [{method: POST, path: {type: PathPrefix, value: /match}, source: {namespaces: [guests]}}]
  limit: {requests: 1, per: 1m}
---
apiVersion: meshd.io/v1alpha1
kind: RateLimit
metadata: {name: short}
spec:
  targetRefs: [{kind: Service, name: lone}]
  matches: [{path: {type: PathPrefix, value: /short}}]
  limit: {requests: 2, per: 2s}
";

/// Answers of as many requests of one caller: those that passed; the others must be told as limits are.
fn passed(
    stage: &Stage,
    uid: u32,
    arguments: &[&str],
    path: &str,
    count: usize,
) -> anyhow::Result<usize> {
    let mut through = 0;
    for _ in 0..count {
        let url = format!("http://lone.default.mesh.internal{path}");
        let answer = stage.ask(uid, arguments, &url)?;
        if answer.status == 200 {
            through += 1;
            continue;
        }
        let error = answer.header("mesh-error").unwrap_or_default();
        let after = answer
            .header("retry-after")
            .and_then(|text| text.parse::<u64>().ok());
        ensure!(
            answer.status == 429
                && error.starts_with("rate-limited;")
                && after.is_some_and(|seconds| (1..=60).contains(&seconds)),
            "{answer:?}"
        );
    }
    Ok(through)
}

fn per_source(stage: &mut Stage) -> anyhow::Result<String> {
    let mut counts = Vec::new();
    for uid in [CLIENT, OTHER, GUEST] {
        counts.push(passed(stage, uid, &[], "/source", 8)?);
    }
    ensure!(counts == [5, 5, 5], "{counts:?}");
    Ok("5 of 8 for each of three callers, the others 429 with retry-after".to_owned())
}

fn per_header(stage: &mut Stage) -> anyhow::Result<String> {
    let mut counts = Vec::new();
    for key in ["x-a: one", "x-a: two"] {
        counts.push(passed(stage, CLIENT, &["-H", key], "/header", 5)?);
    }
    ensure!(counts == [3, 3], "{counts:?}");
    let elsewhere = passed(stage, CLIENT, &[], "/free", 10)?;
    ensure!(elsewhere == 10, "{elsewhere} of 10 elsewhere");
    Ok("3 of 5 for each key, 10 of 10 elsewhere".to_owned())
}

fn by_match(stage: &mut Stage) -> anyhow::Result<String> {
    let counts = [
        passed(stage, GUEST, &["-X", "POST"], "/match", 3)?,
        passed(stage, GUEST, &[], "/match", 3)?,
        passed(stage, CLIENT, &["-X", "POST"], "/match", 3)?,
    ];
    ensure!(counts == [1, 3, 3], "{counts:?}");
    Ok(format!(
        "guests' POST, guests' GET, others' POST: {counts:?} of 3"
    ))
}

fn ends(stage: &mut Stage) -> anyhow::Result<String> {
    let through = passed(stage, CLIENT, &[], "/short", 4)?;
    ensure!((2..=3).contains(&through), "{through} of 4");
    within(Duration::from_secs(30), || {
        let answer = stage.get("http://lone/short")?;
        ensure!(answer.status == 200, "{answer:?}");
        Ok(())
    })?;
    Ok(format!("{through} of 4 at once, and more after its pause"))
}

const MESH_WIDE: &str = r"
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: near}
spec:
  host: near
  trafficPolicy: {loadBalancer: {simple: ROUND_ROBIN, localityLbSetting: {enabled: false}}}
---
apiVersion: meshd.io/v1alpha1
kind: RateLimit
metadata: {name: mesh-wide}
spec:
  targetRefs: [{kind: Service, name: near}]
  limit: {requests: 40, per: 1s, burst: 10}
  scope: mesh
";

/// Requests that arrived at `near` on a path in the last two seconds of its load.
fn arrived(stage: &Stage, path: &str) -> anyhow::Result<usize> {
    let mut times = Vec::new();
    for server in ["near-own", "near-far", "near-other"] {
        for line in stage.logged(server, path) {
            let time = line.rsplit_once("time=").context("no time")?.1;
            times.push(time.parse::<f64>()?);
        }
    }
    let last = times.iter().copied().fold(0.0, f64::max);
    Ok(times.iter().filter(|time| **time > last - 2.0).count())
}

/// Four times the limit for six seconds; what passed in the last two is counted where it arrived.
fn mesh_wide(stage: &mut Stage) -> anyhow::Result<String> {
    let arguments = ["--rate", "160/s", "--max-time", "30"];
    let clock = Running::now();
    let counts = stage.many(&arguments, "http://near/mesh/[1-960]")?;
    ensure!(
        counts.status(200) + counts.status(429) == 960,
        "{} and {} of 960",
        counts.status(200),
        counts.status(429)
    );
    let through = arrived(stage, "/mesh/")?;
    // The bursts are used up by then. A machine that stands still lets nothing through, and hosts save what they may
    // let through later: 40 a second, ten at most. Each host may round by one.
    let missed = usize::try_from(clock.stood().as_millis() / 25)?;
    let (fewest, most) = (60_usize.saturating_sub(missed), 83 + missed.min(10));
    ensure!(
        (fewest..=most).contains(&through),
        "{through} of 80 passed in two seconds, not {fewest} to {most}"
    );
    Ok(format!(
        "{through} in two seconds on three hosts, limit 40 a second"
    ))
}

const MESH_WIDE_BY: &str = r"
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: near}
spec:
  host: near
  trafficPolicy: {loadBalancer: {simple: ROUND_ROBIN, localityLbSetting: {enabled: false}}}
---
apiVersion: meshd.io/v1alpha1
kind: RateLimit
metadata: {name: mesh-wide-by}
spec:
  targetRefs: [{kind: Service, name: near}]
  limit: {requests: 20, per: 1s, burst: 10}
  by: [source, {header: x-a}]
  scope: mesh
";

/// Three loads at once, each of four times the limit: two keys of one caller, and one of another. Each has the limit
/// for itself.
fn mesh_wide_by(stage: &mut Stage) -> anyhow::Result<String> {
    let clock = Running::now();
    let mut loads = Vec::new();
    let all = [("one", CLIENT), ("two", CLIENT), ("one-of-other", OTHER)];
    for (name, uid) in all {
        let key = format!("x-a: {}", name.trim_end_matches("-of-other"));
        let mut load = stage.caller().command_as(uid, "curl");
        load.args([
            "-sS",
            "--max-time",
            "30",
            "--noproxy",
            "*",
            "--rate",
            "80/s",
        ])
        .args(["-o", "/dev/null", "-H", key.as_str()])
        .arg(format!("http://near/by/{name}/[1-480]"));
        let log = stage.file(&format!("by-{name}.txt"));
        loads.push(Child::start(name, &mut load, &log)?);
    }
    for load in &mut loads {
        let ended = load.wait(Duration::from_mins(1))?;
        ensure!(ended.success(), "{}", load.log());
    }
    // If they shared one limit, each had 13; counted by each host for itself, 120. Each host may round by one, what a
    // load that paused left over comes later, as far as the burst goes, and a machine that stands still lets less
    // through.
    let missed = usize::try_from(clock.stood().as_millis() / 50)?;
    let (fewest, most) = (20_usize.saturating_sub(missed), 40 + 3 + 10);
    let mut seen = Vec::new();
    for (name, _) in all {
        let through = arrived(stage, &format!("/by/{name}/"))?;
        ensure!(
            (fewest..=most).contains(&through),
            "{name}: {through} of 40 passed in two seconds, not {fewest} to {most}"
        );
        seen.push(through);
    }
    Ok(format!(
        "{seen:?} in two seconds on three hosts, limit 20 a second each"
    ))
}

const FAULTS: &str = r"
apiVersion: meshd.io/v1alpha1
kind: FaultInjection
metadata: {name: delay}
spec:
  targetRefs: [{kind: Service, name: lone}]
  matches: [{path: {type: PathPrefix, value: /delay}}]
  delay: {percent: 50, time: 60ms}
---
apiVersion: meshd.io/v1alpha1
kind: FaultInjection
metadata: {name: abort}
spec:
  targetRefs: [{kind: Service, name: lone}]
  matches: [{path: {type: PathPrefix, value: /abort}}]
  abort: {percent: 25, http: 503}
---
apiVersion: meshd.io/v1alpha1
kind: FaultInjection
metadata: {name: reset}
spec:
  targetRefs: [{kind: Service, name: lone}]
  matches: [{headers: [{name: x-a, value: reset}]}]
  abort: {reset: true}
---
apiVersion: meshd.io/v1alpha1
kind: FaultInjection
metadata: {name: bandwidth}
spec:
  targetRefs: [{kind: Service, name: lone}]
  matches: [{path: {type: PathPrefix, value: /big}}]
  bandwidth: {rate: 32KiB/s}
---
apiVersion: meshd.io/v1alpha1
kind: FaultInjection
metadata: {name: caller}
spec:
  targetRefs: [{kind: Service, name: lone}]
  matches: [{path: {type: PathPrefix, value: /caller}, source: {services: [other]}}]
  abort: {http: 418}
";

fn delay(stage: &mut Stage) -> anyhow::Result<String> {
    let text = stage.curl(
        CLIENT,
        &[
            "-o",
            "/dev/null",
            "-w",
            "%{http_code} %{time_starttransfer}\n",
            "http://lone/delay/[1-100]",
        ],
    )?;
    let mut held = 0;
    for line in text.lines() {
        let (code, time) = line.split_once(' ').context("no time")?;
        ensure!(code == "200", "{text}");
        held += usize::from(time.parse::<f64>()? >= 0.06);
    }
    share("held back", held, 100, 0.5)
}

fn abort(stage: &mut Stage) -> anyhow::Result<String> {
    let counts = stage.many(&[], "http://lone/abort/[1-400]")?;
    let aborted = counts.status(503);
    ensure!(aborted + counts.from("lone") == 400, "{}", counts.0);
    let answer = within(Duration::from_secs(30), || {
        let answer = stage.get("http://lone/abort/one")?;
        ensure!(answer.status == 503, "{answer:?}");
        Ok(answer)
    })?;
    let error = answer.header("mesh-error").unwrap_or_default();
    ensure!(error.starts_with("fault-injected;"), "{answer:?}");
    share("aborted", aborted, 400, 0.25)
}

fn reset(stage: &mut Stage) -> anyhow::Result<String> {
    let mut command = stage.caller().command_as(CLIENT, "curl");
    let output = command
        .args([
            "-sS",
            "--max-time",
            "10",
            "-H",
            "x-a: reset",
            "http://lone/",
        ])
        .output()?;
    let code = output.status.code();
    // 52: nothing came back; 56: reset.
    ensure!(
        code == Some(52) || code == Some(56),
        "{code:?} {}",
        String::from_utf8_lossy(&output.stderr)
    );
    ensure!(output.stdout.is_empty(), "an answer came");
    Ok(format!("curl ends with {}", code.unwrap_or_default()))
}

fn bandwidth(stage: &mut Stage) -> anyhow::Result<String> {
    let answer = stage.get("http://lone/big")?;
    ensure!(
        answer.status == 200 && answer.body.len() >= 32768,
        "{}",
        answer.body.len()
    );
    let took = answer.took;
    ensure!(
        took >= Duration::from_millis(800) && answer.ran() < Duration::from_secs(3),
        "32 KiB at 32 KiB/s in {took:?}"
    );
    Ok(format!("32 KiB at 32 KiB/s in {took:?}"))
}

fn fault_by_source(stage: &mut Stage) -> anyhow::Result<String> {
    let answer = stage.ask(OTHER, &[], "http://lone/caller")?;
    ensure!(answer.status == 418, "{answer:?}");
    by(&stage.get("http://lone/caller")?, "lone")?;
    Ok("one caller of two".to_owned())
}
