//! Mixed load while instances are killed, faults are asked for and routes change: no wrong answer, no leak, and
//! every failure explained. 60 s; `SOAK_SECONDS` for longer (`make soak`).

#![allow(
    clippy::tests_outside_test_module,
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs,
    reason = "a file of tests"
)]

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use mesh_tests::{Child, Host, Mesh, binary::built, host::Kind, need, process::say, wait::Running};
use nix::sys::signal::Signal;
use serde_json::Value;

const SERVER: u32 = 5031;
const CLIENT: u32 = 5041;
/// Instances on each of the two serving hosts.
const INSTANCES: u16 = 3;
/// How long after a kill calls may still fail for it: bodies under way, and the check that notices.
const AFTERMATH_MS: u64 = 5_000;
/// Share of calls to the second service that are to fail, in per cent.
const FAULT_PERCENT: u32 = 2;

fn now_ms() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    u64::try_from(now.as_millis()).unwrap()
}

fn seconds() -> u64 {
    std::env::var("SOAK_SECONDS")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(60)
}

/// A host's services: each instance is a service of its own with the label `app: echo`.
fn services() -> String {
    let mut text = String::new();
    for number in 0..INSTANCES {
        let port = 9100 + number;
        write!(
            text,
            "[[service]]\nname = \"echo-{number}\"\nuser = {user}\n\
             labels = {{ app = \"echo\", half = \"{half}\" }}\n\
             ports = [{{ name = \"http\", port = 80, target = {port}, protocol = \"http\" }}]\n\
             health = {{ kind = \"tcp\", interval = \"500ms\", timeout = \"400ms\", unhealthy_after = 1 }}\n",
            user = SERVER + u32::from(number),
            half = number % 2,
        )
        .unwrap();
    }
    text
}

const DOCUMENTS: &str = "\
apiVersion: v1
kind: Service
metadata: {name: echo}
spec: {selector: {app: echo}, ports: [{name: http, port: 80, targetPort: http, appProtocol: http}]}
---
apiVersion: v1
kind: Service
metadata: {name: echo-a}
spec: {selector: {app: echo, half: \"0\"}, ports: [{name: http, port: 80, targetPort: http, appProtocol: http}]}
---
apiVersion: v1
kind: Service
metadata: {name: echo-b}
spec: {selector: {app: echo, half: \"1\"}, ports: [{name: http, port: 80, targetPort: http, appProtocol: http}]}
";

fn route(weight: u32) -> String {
    format!(
        "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {{name: soak}}\nspec:\n  \
         parentRefs: [{{group: \"\", kind: Service, name: echo}}]\n  rules:\n  - backendRefs:\n    \
         - {{name: echo-a, port: 80, weight: {weight}}}\n    - {{name: echo-b, port: 80, weight: {rest}}}\n    \
         retry: {{codes: [502, 503, 504], attempts: 3}}\n",
        rest = 100 - weight
    )
}

fn fault() -> String {
    format!(
        "apiVersion: meshd.io/v1alpha1\nkind: FaultInjection\nmetadata: {{name: soak}}\nspec:\n  \
         targetRefs: [{{kind: Service, name: echo-b}}]\n  abort: {{percent: {FAULT_PERCENT}, http: 503}}\n"
    )
}

fn apply(host: &Host, text: &str) {
    host.ctl_with_input(&["apply", "-f", "-"], text).unwrap();
}

fn start_server(host: &Host, number: u16) -> Child {
    let mut command = host.command_as(SERVER + u32::from(number), built("mesh-soak-app"));
    let port = 9100 + number;
    command.args(["serve", "--listen", &format!("0.0.0.0:{port}")]);
    let log = host.log_path(&format!("echo-{number}"));
    Child::start(
        &format!("echo-{number} on {}", host.name),
        &mut command,
        &log,
    )
    .unwrap()
}

fn start_load(host: &Host, place: &str, name: &str, seconds: u64) -> Child {
    let mut command = host.command_as(CLIENT, built("mesh-soak-app"));
    let (time, name) = (seconds.to_string(), name.to_owned());
    command.args([
        "load",
        "--place",
        place,
        "--seconds",
        &time,
        "--name",
        &name,
    ]);
    let log = host.log_path(&format!("load-{name}"));
    Child::start(&format!("load {name}"), &mut command, &log).unwrap()
}

fn resident_kb(host: &Host) -> u64 {
    let pid = host.meshd_pid().unwrap();
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status
        .lines()
        .find(|line| line.starts_with("VmRSS:"))
        .unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

struct Stage {
    mesh: Mesh,
    /// By host and number.
    servers: BTreeMap<(usize, u16), Child>,
}

impl Stage {
    fn set() -> Self {
        let mut mesh = Mesh::new(Kind::Users, 3).unwrap();
        for index in 0..2 {
            mesh.host(index)
                .configure("services.d/echo.toml", &services())
                .unwrap();
        }
        let caller = format!("[[service]]\nname = \"caller\"\nuser = {CLIENT}\n");
        mesh.host(2)
            .configure("services.d/caller.toml", &caller)
            .unwrap();
        let mut servers = BTreeMap::new();
        for host in 0..2 {
            for number in 0..INSTANCES {
                servers.insert((host, number), start_server(mesh.host(host), number));
            }
        }
        mesh.form(2, &[]).unwrap();
        apply(mesh.host(0), DOCUMENTS);
        apply(mesh.host(0), &route(50));
        apply(mesh.host(0), &fault());
        mesh.wait_endpoints(2, "echo", 6, Duration::from_secs(30))
            .unwrap();
        Self { mesh, servers }
    }

    /// Kills one instance and starts another in its place: the time of the kill.
    fn kill_one(&mut self) -> u64 {
        let keys: Vec<_> = self.servers.keys().copied().collect();
        let key = keys[fastrand::usize(..keys.len())];
        let mut child = self.servers.remove(&key).unwrap();
        let at = now_ms();
        child.signal(Signal::SIGKILL).unwrap();
        child.wait(Duration::from_secs(30)).unwrap();
        let again = start_server(self.mesh.host(key.0), key.1);
        self.servers.insert(key, again);
        at
    }
}

/// Every failed request that the callers' daemon saw, by path.
fn tapped(text: &str) -> BTreeMap<String, Value> {
    text.lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .map(|record| {
            (
                record["path"].as_str().unwrap_or_default().to_owned(),
                record,
            )
        })
        .collect()
}

#[test]
fn nothing_is_wrong_and_every_failure_is_explained() {
    need!(namespaces);
    need!(root);
    let seconds = seconds();
    let mut stage = Stage::set();
    let client = &stage.mesh.hosts[2];
    let mut tap = {
        let mut command = client.meshctl();
        command.args(["-o", "jsonl", "tap", "--direction", "outbound", "--failed"]);
        Child::start("tap", &mut command, &client.log_path("tap")).unwrap()
    };
    let mut loads = vec![
        start_load(client, "echo:80", "all", seconds),
        start_load(client, "echo-b:80", "faulty", seconds),
    ];
    let (mut kills, mut pushes) = (Vec::new(), 0u32);
    let mut resident: Vec<Vec<u64>> = vec![Vec::new(); 3];
    let (began, clock) = (Instant::now(), Running::now());
    let whole = Duration::from_secs(seconds);
    let (mut next_kill, mut next_push, mut next_look) =
        (Duration::from_secs(3), Duration::from_secs(1), whole / 4);
    while began.elapsed() < whole {
        let now = began.elapsed();
        if now >= next_kill {
            kills.push(stage.kill_one());
            next_kill = now + Duration::from_millis(fastrand::u64(3_000..6_000));
        }
        if now >= next_push {
            pushes += 1;
            apply(stage.mesh.host(0), &route(fastrand::u32(10..90)));
            next_push = now + Duration::from_secs(2);
        }
        if now >= next_look {
            for (host, sizes) in stage.mesh.hosts.iter().zip(&mut resident) {
                sizes.push(resident_kb(host));
            }
            next_look = now + (whole / 200).max(Duration::from_millis(500));
        }
        let next = next_kill.min(next_push).min(next_look).min(whole);
        std::thread::park_timeout(next.saturating_sub(began.elapsed()));
    }
    let mut failures = Vec::new();
    let (mut calls, mut right, mut wrong) = (0, 0, 0);
    for load in &mut loads {
        load.wait(Duration::from_secs(90)).unwrap();
        let counts: Value = serde_json::from_str(load.log().trim())
            .unwrap_or_else(|error| panic!("{error}: {}", load.log()));
        calls += counts["calls"].as_u64().unwrap();
        right += counts["right"].as_u64().unwrap();
        wrong += counts["wrong"].as_u64().unwrap();
        failures.extend(counts["failures"].as_array().unwrap().clone());
    }
    tap.signal(Signal::SIGTERM).unwrap();
    tap.wait(Duration::from_secs(30)).unwrap();
    say(&format!(
        "soak: {calls} calls in {seconds} s, {right} right, {} failed, {wrong} wrong; {} kills, {pushes} pushes",
        failures.len(),
        kills.len(),
    ));
    let wrongs: Vec<_> = failures
        .iter()
        .filter(|failure| failure["status"] == 200)
        .take(20)
        .collect();
    assert_eq!(wrong, 0, "wrong answers: {wrongs:#?}");
    assert!(calls > seconds * 20, "{calls} calls are no load");
    // What a machine that stood still did late is late by as much.
    let stood = u64::try_from(clock.stood().as_millis()).unwrap();
    let kills: Vec<(u64, u64)> = kills
        .iter()
        .map(|kill| (*kill, kill + AFTERMATH_MS + stood))
        .collect();
    explained(&stage.mesh.hosts[2], &failures, &tapped(&tap.log()), &kills);
    flat(&resident, seconds);
}

/// Each failure has an id that `why` knows, and a cause that was put there by this test.
fn explained(
    client: &Host,
    failures: &[Value],
    tapped: &BTreeMap<String, Value>,
    kills: &[(u64, u64)],
) {
    let mut causes: BTreeMap<String, u32> = BTreeMap::new();
    let mut riddles = Vec::new();
    // The newest first: a daemon remembers its last ten thousand.
    let mut failures: Vec<&Value> = failures.iter().collect();
    failures.sort_by_key(|failure| std::cmp::Reverse(failure["time_ms"].as_u64()));
    for (asked, failure) in failures.into_iter().enumerate() {
        // Each question is a process of its own: a thousand stand for all.
        let ask = (asked < 1_000).then_some(client);
        match cause(failure, tapped, kills, ask) {
            Ok(code) => *causes.entry(code).or_default() += 1,
            Err(riddle) => riddles.push(riddle),
        }
    }
    say(&format!("soak: why calls failed: {causes:?}"));
    assert!(
        riddles.is_empty(),
        "{} failures are not explained, among them:\n{}",
        riddles.len(),
        riddles[..riddles.len().min(8)].join("\n")
    );
    assert!(
        causes.contains_key("fault-injected"),
        "the fault that was asked for did not happen"
    );
}

/// The code under which the mesh knows a failure of a caller, or what is unexplained. A kill comes with the end of its
/// aftermath.
fn cause(
    failure: &Value,
    tapped: &BTreeMap<String, Value>,
    kills: &[(u64, u64)],
    ask: Option<&Host>,
) -> Result<String, String> {
    let time = failure["time_ms"].as_u64().unwrap();
    let since_kill = kills
        .iter()
        .filter_map(|(kill, _)| time.checked_sub(*kill))
        .min();
    let path = failure["path"].as_str().unwrap();
    let record = tapped.get(path).ok_or_else(|| {
        format!("the mesh saw no failure of {failure}; {since_kill:?} ms after a kill")
    })?;
    let (id, code) = (
        record["id"].as_str().unwrap(),
        record["code"].as_str().unwrap(),
    );
    let told = failure["mesh_error"].as_str().unwrap_or_default();
    if !(told.is_empty() || told.contains(id) && told.starts_with(code)) {
        return Err(format!("{failure} is not {record}"));
    }
    let killed = kills
        .iter()
        .any(|(kill, over)| time + 500 >= *kill && time <= *over);
    if code != "fault-injected" && !killed {
        return Err(format!(
            "nothing was done to {failure}: {record}; {since_kill:?} ms after a kill"
        ));
    }
    if let Some(client) = ask {
        let story = client
            .ctl(&["why", id])
            .map_err(|error| error.to_string())?;
        if !story.contains(code) {
            return Err(format!("why {id} does not say {code}: {story}"));
        }
    }
    Ok(code.to_owned())
}

/// What a daemon holds in the last third is what it held in the first: within 5 %, and in a short run, in which
/// pools and the memory of what failed are still filling, within 8 MiB more.
fn flat(resident: &[Vec<u64>], seconds: u64) {
    let slack_kb = if seconds < 600 { 8_192 } else { 512 };
    let mut grown = Vec::new();
    for (number, sizes) in (1..).zip(resident) {
        let third = sizes.len() / 3;
        let most = |part: &[u64]| part.iter().max().copied().unwrap();
        let (early, late) = (most(&sizes[..third]), most(&sizes[sizes.len() - third..]));
        say(&format!("soak: h{number} held {early} KB, then {late} KB"));
        if late > early + early / 20 + slack_kb {
            grown.push(format!(
                "h{number} grows: {early} KB, then {late} KB; all: {sizes:?}"
            ));
        }
    }
    assert!(grown.is_empty(), "{}", grown.join("\n"));
}
