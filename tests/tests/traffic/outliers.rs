//! Endpoints that are put out for what they answer or for their checks, and how they come back.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use mesh_tests::wait::within;
use serde_json::Value;

use crate::stage::{Group, Stage};

pub const GROUPS: &[Group] = &[
    Group {
        documents: OUTLIERS,
        rows: &[("outlier detection by consecutive 5xx", outliers)],
    },
    Group {
        documents: GATEWAY,
        rows: &[(
            "outlier detection by consecutive gateway errors",
            gateway_errors,
        )],
    },
    Group {
        documents: AT_MOST,
        rows: &[("ejection limit", ejection_limit)],
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
        documents: WARMUP,
        rows: &[("slow start", warmup)],
    },
    Group {
        documents: CHECKS,
        rows: &[("active health checks", health_checks)],
    },
];

const OUTLIERS: &str = r"
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: weak}
spec:
  host: weak
  trafficPolicy:
    loadBalancer: {simple: ROUND_ROBIN}
    outlierDetection: {consecutive5xxErrors: 3, baseEjectionTime: 3s, interval: 1s, maxEjectionPercent: 50}
";

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

const GATEWAY: &str = r"
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: weak}
spec:
  host: weak
  trafficPolicy:
    loadBalancer: {simple: ROUND_ROBIN}
    outlierDetection: {consecutive5xxErrors: 0, consecutiveGatewayErrors: 3, baseEjectionTime: 3s, interval: 1s, maxEjectionPercent: 50}
";

fn gateway_errors(stage: &mut Stage) -> anyhow::Result<String> {
    well(stage)?;
    // A 500 is the program's own, and puts nobody out here.
    let counts = stage.many(&["-X", "POST"], "http://weak/broken/own/[1-20]")?;
    let (usable, reason) = bad(stage)?;
    ensure!(counts.status(500) == 10 && usable, "{reason}: {}", counts.0);
    let counts = stage.many(&["-X", "POST"], "http://weak/weak/gateway/[1-40]")?;
    let failed = counts.status(503);
    ensure!(failed == 3, "{failed} failed: {}", counts.0);
    let (usable, reason) = bad(stage)?;
    ensure!(
        !usable && reason.contains("gateway errors in a row"),
        "{usable} {reason}"
    );
    well(stage)?;
    Ok(format!(
        "none out for 10 of 500, out after 3 of 503; {reason}"
    ))
}

const AT_MOST: &str = r"
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: pool}
spec:
  host: pool
  trafficPolicy:
    loadBalancer: {simple: ROUND_ROBIN}
    outlierDetection: {consecutive5xxErrors: 2, baseEjectionTime: 3s, interval: 1s, maxEjectionPercent: 50}
";

/// Endpoints of `pool` that are out.
fn pool_out(stage: &Stage) -> anyhow::Result<usize> {
    let rows = stage.caller().ctl_json(&["endpoints", "pool"])?;
    let rows = rows.as_array().context("no list")?;
    ensure!(rows.len() == 4, "{rows:?}");
    Ok(rows.iter().filter(|row| row["usable"] == false).count())
}

fn ejection_limit(stage: &mut Stage) -> anyhow::Result<String> {
    // Every endpoint fails every time; by their answers all four would be out.
    let mut most = 0;
    within(Duration::from_secs(30), || {
        let counts = stage.many(&["-X", "POST"], "http://pool/fails/limit/[1-40]")?;
        ensure!(counts.status(503) == 40, "{}", counts.0);
        let out = pool_out(stage)?;
        most = most.max(out);
        ensure!(out == 2, "{out} are out");
        Ok(())
    })?;
    ensure!(most == 2, "{most} of 4 were out");
    within(Duration::from_secs(30), || {
        let out = pool_out(stage)?;
        ensure!(out == 0, "{out} are out");
        Ok(())
    })?;
    Ok("2 of 4, half of them, then all back".to_owned())
}

const SUCCESS: &str = r"
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
";

/// Sends requests until an endpoint of a service is out for this reason.
fn out(stage: &Stage, service: &str, url: &str, reason: &str) -> anyhow::Result<Value> {
    within(Duration::from_secs(30), || {
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

const LATENCY: &str = r"
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
";

fn latency(stage: &mut Stage) -> anyhow::Result<String> {
    let row = out(stage, "pool", "http://pool/race/[1-60]", "latency")?;
    ensure!(
        row["address"]
            .as_str()
            .is_some_and(|address| address.ends_with(":8114")),
        "{row}"
    );
    within(Duration::from_secs(30), || {
        let rows = stage.caller().ctl_json(&["endpoints", "pool"])?;
        let rows = rows.as_array().context("no list")?;
        ensure!(rows.iter().all(|row| row["usable"] == true), "{rows:?}");
        Ok(())
    })?;
    Ok(row["reason"].to_string())
}

const WARMUP: &str = r"
apiVersion: meshd.io/v1alpha1
kind: DestinationRule
metadata: {name: weak}
spec:
  host: weak
  trafficPolicy:
    loadBalancer: {simple: ROUND_ROBIN, warmup: {duration: 15s, minimumPercent: 10}}
    outlierDetection: {consecutive5xxErrors: 2, baseEjectionTime: 1s, interval: 200ms, maxEjectionPercent: 50}
";

fn warmup(stage: &mut Stage) -> anyhow::Result<String> {
    well(stage)?;
    // Until both have their whole shares: they are new when they are first called.
    within(Duration::from_secs(40), || {
        let counts = stage.many(&[], "http://weak/warm/even/[1-40]")?;
        let servers: Vec<&str> = counts
            .0
            .lines()
            .filter(|line| line.starts_with("from="))
            .collect();
        let in_turn = servers.windows(2).all(|pair| pair[0] != pair[1]);
        ensure!(servers.len() == 40 && in_turn, "{servers:?}");
        Ok(())
    })?;
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

const CHECKS: &str = r"
apiVersion: meshd.io/v1alpha1
kind: DestinationRule
metadata: {name: weak}
spec:
  host: weak
  trafficPolicy:
    healthCheck: {http: {path: /healthz}, interval: 200ms, timeout: 200ms, unhealthyThreshold: 2, healthyThreshold: 1}
";

fn health_checks(stage: &mut Stage) -> anyhow::Result<String> {
    let reason = within(Duration::from_secs(30), || {
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
