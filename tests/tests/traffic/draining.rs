//! A daemon that stops: what runs is finished, callers are told, others take over.

use std::time::Duration;

use anyhow::ensure;
use mesh_tests::{Child, process::finished, wait::within};
use nix::sys::signal::Signal;

use crate::stage::{CLIENT, Group, Stage};

pub const GROUPS: &[Group] = &[Group {
    documents: DRAIN,
    rows: &[
        ("draining: connection: close", close),
        ("draining: no failed request", drained),
    ],
}];

const DRAIN: &str = r"
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: near}
spec:
  host: near
  trafficPolicy: {loadBalancer: {simple: ROUND_ROBIN, localityLbSetting: {enabled: false}}}
";

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
    let ended = load.wait(Duration::from_mins(1))?;
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
