//! A daemon that stops: what runs is finished, callers are told, others take over.

use std::time::Duration;

use anyhow::ensure;
use mesh_tests::{
    Child,
    peers::{PYTHON, Python, folder},
    process::finished,
    wait::within,
};
use nix::sys::signal::Signal;

use crate::stage::{CLIENT, Group, Stage};

pub const GROUPS: &[Group] = &[Group {
    documents: DRAIN,
    rows: &[
        ("draining: connection: close", close),
        ("draining: GOAWAY", goaway),
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
    within(Duration::from_secs(30), || {
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
    let modern = hold_stream(stage)?;
    let expected = if modern.is_some() { 2 } else { 1 };
    // nginx logs at the end of a request: that it has begun is seen by its connection in the caller's name.
    within(Duration::from_secs(30), || {
        let text = stage.mesh.hosts[1].sh("ss -Htnp state established")?;
        let begun = |line: &&str| line.contains("10.77.0.254:") && line.contains("nginx");
        ensure!(text.lines().filter(begun).count() >= expected, "{text}");
        Ok(())
    })?;
    stage.mesh.hosts[1].signal_meshd(Signal::SIGTERM)?;
    let output = held.wait_with_output()?;
    if let Some(modern) = modern {
        let output = modern.wait_with_output()?;
        std::fs::write(stage.file(MODERN), finished("h2_hold.py", &output)?)?;
    }
    let ended = load.wait(Duration::from_mins(1))?;
    let text = finished("curl", &output)?.to_ascii_lowercase();
    ensure!(
        text.starts_with("http/1.1 200") && text.contains("connection: close"),
        "{text}"
    );
    ensure!(ended.success(), "{}", load.log());
    Ok("the answer that was under way said it".to_owned())
}

/// What a stream of HTTP/2 saw.
const MODERN: &str = "h2-hold.txt";

/// A caller without a daemon holds a stream of HTTP/2 to the same server; `None` without Python's `h2`.
fn hold_stream(stage: &Stage) -> anyhow::Result<Option<std::process::Child>> {
    if folder(PYTHON).is_none() {
        return Ok(None);
    }
    let python = Python::new(stage.mesh.directory.path())?;
    let mut command = python.program_here("h2_hold.py");
    let address = format!("{}:8153", stage.mesh.hosts[1].v4);
    command
        .args([&address, "near", "/slow/held"])
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped());
    Ok(Some(command.spawn()?))
}

fn goaway(stage: &mut Stage) -> anyhow::Result<String> {
    let Ok(text) = std::fs::read_to_string(stage.file(MODERN)) else {
        return Ok("left out".to_owned());
    };
    // In this order; there may be two GOAWAY, and 0 is NO_ERROR.
    let mut said: Vec<&str> = text.lines().collect();
    said.dedup();
    let expected = ["goaway=0", "status=200", "ended=yes", "closed=yes"];
    let told_again = [
        "goaway=0",
        "status=200",
        "ended=yes",
        "goaway=0",
        "closed=yes",
    ];
    ensure!(said == expected || said == told_again, "{text}");
    Ok("told at once, and the stream under way was finished".to_owned())
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
