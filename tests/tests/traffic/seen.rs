//! What operators see of these calls: edges, live requests, cost, counts by route, stories, explanations, metrics.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use mesh_tests::{Child, wait::within};
use serde_json::Value;

use crate::stage::{CLIENT, Group, Stage, by};

pub const GROUPS: &[Group] = &[Group {
    documents: ROUTE,
    rows: &[
        ("meshctl edges", edges),
        ("meshctl tap", tap),
        ("meshctl cost", cost),
        ("meshctl stat by route", stat),
        ("meshctl why of a failed request", why),
        ("meshctl explain names the rule", explain),
        ("metrics of policies", metrics),
    ],
}];

const ROUTE: &str = r#"
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: shop-seen}
spec:
  parentRefs: [{group: "", kind: Service, name: shop}]
  rules:
  - name: slow
    matches: [{path: {type: PathPrefix, value: /slow}}]
    timeouts: {request: 200ms}
    backendRefs: [{name: shop-v1, port: 80}]
  - matches: [{path: {type: PathPrefix, value: /canary}}]
    backendRefs: [{name: shop-v2, port: 80}]
  - backendRefs: [{name: shop-v1, port: 80}]
"#;

fn list(value: &Value) -> anyhow::Result<&Vec<Value>> {
    value
        .as_array()
        .with_context(|| format!("no list: {value}"))
}

fn text<'v>(row: &'v Value, key: &str) -> &'v str {
    row[key].as_str().unwrap_or_default()
}

fn edges(stage: &mut Stage) -> anyhow::Result<String> {
    // Every host is asked, wherever the command runs.
    let number = |row: &Value, key: &str| row[key].as_u64().unwrap_or_default();
    let row = within(Duration::from_secs(30), || {
        let mut load = stage.caller().command_as(CLIENT, "curl");
        load.args([
            "-s",
            "--rate",
            "50/s",
            "--max-time",
            "30",
            "http://shop/edge/[1-60]",
        ]);
        let log = stage.file("edges.txt");
        let load = Child::start("load", &mut load, &log)?;
        let found = stage.mesh.hosts[1].ctl_json(&["edges", "shop", "--over", "1s"])?;
        drop(load);
        let rows = list(&found["edges"])?;
        let row = rows
            .iter()
            .find(|row| text(row, "source").ends_with("client") && number(row, "requests") > 0);
        Ok(row.with_context(|| found.to_string())?.clone())
    })?;
    let requests = number(&row, "requests");
    ensure!(
        number(&row, "successes") == requests && number(&row, "secured") == requests,
        "{row}"
    );
    ensure!(
        row["rate"].as_f64() > Some(5.0) && number(&row, "p99_us") >= number(&row, "p50_us"),
        "{row}"
    );
    ensure!(row["hosts"] == serde_json::json!(["h3"]), "{row}");
    let shown = stage.caller().ctl(&["edges", "shop", "--over", "0s"])?;
    ensure!(shown.to_lowercase().contains("mtls"), "{shown}");
    Ok(format!(
        "{requests} requests, all over mTLS, p99 {} µs",
        number(&row, "p99_us")
    ))
}

fn tap(stage: &mut Stage) -> anyhow::Result<String> {
    let mut command = stage.caller().meshctl();
    command.args([
        "-o", "jsonl", "tap", "shop", "--path", "/canary", "--status", "200", "-n", "2",
    ]);
    let file = stage.file("tap.txt");
    command.stdout(std::fs::File::create(&file)?);
    let mut child = command.spawn()?;
    // Requests are made until the two that fit have been told.
    let ended = within(Duration::from_secs(30), || {
        by(&stage.get("http://shop/canary/seen?secret=1")?, "shop-2")?;
        by(&stage.get("http://shop/else")?, "shop-1")?;
        child.try_wait()?.context("tap has not ended")
    });
    if ended.is_err() {
        child.kill()?;
        child.wait()?;
    }
    ensure!(ended?.success(), "tap failed");
    let told = std::fs::read_to_string(&file)?;
    let rows: Vec<Value> = told
        .lines()
        .map(serde_json::from_str)
        .collect::<Result<_, _>>()?;
    ensure!(rows.len() == 2, "{told}");
    for row in &rows {
        ensure!(
            text(row, "path") == "/canary/seen"
                && text(row, "method") == "GET"
                && row["status"] == 200
                && text(row, "direction") == "outbound"
                && text(row, "source").ends_with("client")
                && text(row, "route").contains("shop-seen")
                && text(row, "peer").starts_with("spiffe://")
                && text(row, "id").len() == 32,
            "{row}"
        );
    }
    Ok(format!(
        "2 of 2 that fit, route {}",
        text(&rows[0], "route")
    ))
}

fn cost(stage: &mut Stage) -> anyhow::Result<String> {
    let counts = stage.many(&[], "http://shop/cost/[1-100]")?;
    ensure!(counts.status(200) == 100, "{}", counts.0);
    let found = stage.mesh.hosts[1].ctl_json(&["cost", "client", "shop"])?;
    let sides = list(&found["sides"])?;
    let names: Vec<&str> = sides.iter().map(|side| text(side, "side")).collect();
    ensure!(names == ["outbound", "inbound"], "{found}");
    for side in sides {
        ensure!(
            side["requests"].as_u64() >= Some(100)
                && side["p50_us"].as_u64() > Some(0)
                && side["p99_us"].as_u64() >= side["p50_us"].as_u64()
                && side["cpu_us"].as_f64() > Some(0.0),
            "{found}"
        );
    }
    let (p50, total) = (&sides[0]["p50_us"], &found["total_p50_us"]);
    ensure!(p50.as_u64() < total.as_u64(), "{found}");
    Ok(format!(
        "caller's side {p50} µs and {} µs in the program's, of {total} µs",
        sides[1]["p50_us"]
    ))
}

fn stat(stage: &mut Stage) -> anyhow::Result<String> {
    let count = || -> anyhow::Result<u64> {
        let rows = stage.caller().ctl_json(&["stat", "shop"])?;
        let rows = list(&rows)?;
        let fitting = rows.iter().filter(|row| {
            text(row, "route").contains("shop-seen") && text(row, "source").ends_with("client")
        });
        Ok(fitting.filter_map(|row| row["requests"].as_u64()).sum())
    };
    let before = count()?;
    let counts = stage.many(&[], "http://shop/stat/[1-40]")?;
    ensure!(counts.from("shop-1") == 40, "{}", counts.0);
    within(Duration::from_secs(30), || {
        let after = count()?;
        ensure!(after == before + 40, "{before} then {after}");
        Ok(())
    })?;
    Ok("40 of 40 counted once".to_owned())
}

fn why(stage: &mut Stage) -> anyhow::Result<String> {
    let answer = stage.get("http://shop/slow/why")?;
    let error = answer.header("mesh-error").context("no mesh-error")?;
    ensure!(answer.status == 504, "{answer:?}");
    let id = error.rsplit("id=").next().unwrap_or_default().to_owned();
    // Asked of a host that had no part in it.
    let told = within(Duration::from_secs(30), || {
        let told = stage.mesh.hosts[1].ctl(&["why", &id])?;
        ensure!(told.contains("request-timeout"), "{told}");
        Ok(told)
    })?;
    for part in ["h3", "client", "shop", "10.77.0.1"] {
        ensure!(told.contains(part), "{part} is not told: {told}");
    }
    Ok("request-timeout, with caller, service and endpoint".to_owned())
}

fn explain(stage: &mut Stage) -> anyhow::Result<String> {
    let arguments = ["explain", "--from", "client", "GET", "http://shop/canary/x"];
    let told = stage.caller().ctl(&arguments)?;
    for part in ["HTTPRoute", "shop-seen", "shop-v2", "/canary"] {
        ensure!(told.contains(part), "{part} is not told: {told}");
    }
    ensure!(!told.contains("shop-v1"), "{told}");
    Ok("route, rule and backend".to_owned())
}

fn metrics(stage: &mut Stage) -> anyhow::Result<String> {
    let page = stage.curl(CLIENT, &["http://127.0.0.1:15020/metrics"])?;
    let mut seen = Vec::new();
    for what in [
        "answered",
        "fault-aborted",
        "fault-delayed",
        "fault-slowed",
        "mirrored",
        "shed",
    ] {
        let name = format!("mesh_proxy_policy_total{{what=\"{what}\"}} ");
        let value = page.lines().find_map(|line| line.strip_prefix(&name));
        // A table that runs one row of many has not done everything.
        let value: f64 = value
            .with_context(|| format!("no {name}"))?
            .trim()
            .parse()?;
        if std::env::var_os("TRAFFIC").is_none() {
            ensure!(value > 0.0, "{name} is 0");
        }
        seen.push(format!("{what} {value}"));
    }
    for name in ["mesh_proxy_retries_total", "mesh_proxy_ejections_total"] {
        ensure!(page.contains(name), "no {name}");
    }
    Ok(seen.join(", "))
}
