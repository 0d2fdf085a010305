//! All registries are taken away at once while their services are called, and come back.
//!
//! Each server has a keeper, a thread that moves it: a server ends with the thread that started it.

use std::{
    process::Command,
    sync::mpsc::{Receiver, SyncSender, sync_channel},
    thread::{Builder, JoinHandle},
    time::{Duration, Instant},
};

use mesh_tests::{
    Child, Mesh, binary::built, eventually, host::Kind, need, process::say, process::sh,
    wait::Running,
};
use nix::sys::signal::Signal;
use serde_json::Value;

use super::{
    CLIENT, PORT,
    far::{self, Far},
};

/// What a change that was made at the return is to take: what takes longer is marked.
const RECOVERY: Duration = Duration::from_secs(5);
/// What takes longer than this has not come back, however busy the machine.
const NEVER: Duration = Duration::from_secs(15);

/// The same, with what the source waits between two questions where it must ask.
fn recovery(service: &str) -> Duration {
    let between = match service.split_once('-') {
        Some(("eureka", _)) => far::EUREKA_POLL,
        // The life of its answers.
        Some(("dns", _)) => Duration::from_secs(1),
        _ => Duration::ZERO,
    };
    RECOVERY + between
}
/// A program in Java on a machine with other work.
const START: Duration = Duration::from_mins(3);
/// Longest life of the callers: they are told to end.
const TAIL: Duration = Duration::from_mins(10);

/// How a registry goes away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sort {
    /// SIGKILL.
    Killed,
    /// SIGSTOP: it takes connections and says nothing.
    Stopped,
}

impl Sort {
    fn word(self) -> &'static str {
        match self {
            Self::Killed => "killed",
            Self::Stopped => "stopped",
        }
    }
}

/// What a keeper is told.
#[derive(Debug, Clone, Copy)]
enum Step {
    Away,
    Back,
}

/// A return: when the server was ready, and when it had taken the change.
#[derive(Debug, Clone, Copy)]
struct Back {
    ready: Instant,
    written: Instant,
}

/// What was seen of it for one service, after the server was ready.
#[derive(Debug, Clone, Copy)]
struct Recovered {
    written: Duration,
    known: Duration,
}

/// A server and who moves it.
struct Kept {
    steps: SyncSender<Step>,
    /// When it was back.
    back: Receiver<Back>,
    services: Vec<String>,
    sources: String,
    thread: JoinHandle<()>,
}

/// An address of the plain instance `number`, which stands outside the mesh.
fn instance(number: u8) -> String {
    format!("10.77.0.{}", 200 + number)
}

fn instances(count: u8) -> Vec<String> {
    (1..=count).map(instance).collect()
}

/// Starts a server of each kind and sort, all at once, with two instances of each service.
fn start_all() -> Vec<Kept> {
    let mut starting = Vec::new();
    for kind in far::KINDS.into_iter().filter(|kind| far::is_there(kind)) {
        for sort in [Sort::Killed, Sort::Stopped] {
            let (steps, told) = sync_channel(4);
            let (say_back, back) = sync_channel(4);
            let (say_up, up) = sync_channel(4);
            let name = format!("{kind}-{}", sort.word());
            let thread = Builder::new().name(name).spawn(move || {
                let mut far = far::start(kind, sort.word());
                far.set(&instances(2));
                say_up.send((far.services(), far.sources())).unwrap();
                keep(far.as_mut(), sort, &told, &say_back);
            });
            starting.push((steps, back, up, thread.unwrap()));
        }
    }
    let kept = starting.into_iter().map(|(steps, back, up, thread)| {
        let (services, sources) = up.recv_timeout(START).unwrap();
        Kept {
            steps,
            back,
            services,
            sources,
            thread,
        }
    });
    kept.collect()
}

/// Moves a server until nobody tells anything any more.
fn keep(far: &mut dyn Far, sort: Sort, told: &Receiver<Step>, back: &SyncSender<Back>) {
    while let Ok(step) = told.recv() {
        match (step, sort) {
            (Step::Away, Sort::Killed) => far.server().kill(),
            (Step::Away, Sort::Stopped) => far.server().freeze(),
            (Step::Back, _) => {
                match sort {
                    Sort::Killed => far.server().start_again(true),
                    Sort::Stopped => far.server().thaw(),
                }
                let ready = Instant::now();
                far.set(&instances(3));
                let written = Instant::now();
                let _nobody_waits = back.send(Back { ready, written });
            }
        }
    }
}

fn serve(mesh: &Mesh, number: u8) -> Child {
    let address = instance(number);
    sh(&format!("ip address add {address}/32 dev mesh-bridge")).unwrap();
    let mut command = Command::new(built("mesh-soak-app"));
    command.args(["serve", "--listen", &format!("{address}:{PORT}")]);
    let log = mesh.directory.path().join(format!("instance-{number}"));
    Child::start(&format!("instance-{number}"), &mut command, &log).unwrap()
}

/// The callers of one service.
fn call(mesh: &Mesh, service: &str) -> Child {
    let host = &mesh.hosts[1];
    let mut command = host.command_as(CLIENT, built("mesh-soak-app"));
    let seconds = (outage_length() + TAIL).as_secs().to_string();
    command.args(["load", "--place", &format!("{service}:{PORT}")]);
    command.args(["--seconds", &seconds, "--name", service]);
    // Two clients: both speak HTTP/1, which is all that the instances do. Not every registry tells a protocol.
    command.args(["--clients", "2", "--pause", "100"]);
    Child::start(service, &mut command, &host.log_path(service)).unwrap()
}

/// One call of a service.
fn answers(mesh: &Mesh, service: &str) -> Result<(), String> {
    let mut command = mesh.hosts[1].command_as(CLIENT, "curl");
    command.args([
        "--silent",
        "--fail",
        "--max-time",
        "5",
        "--output",
        "/dev/null",
    ]);
    command.arg(format!("http://{service}:{PORT}/bytes/1/first"));
    let status = command.status().map_err(|error| error.to_string())?;
    let said = || format!("curl: {status}");
    status.success().then_some(()).ok_or_else(said)
}

/// How many usable endpoints of each service the caller's daemon knows.
fn known(mesh: &Mesh, services: &[&String]) -> anyhow::Result<Vec<usize>> {
    let rows = mesh.hosts[1].ctl_json(&["endpoints"])?;
    let rows = rows.as_array().cloned().unwrap_or_default();
    let count = |service: &&String| {
        let name = format!("default/{service}");
        let of = |row: &&Value| row["service"] == name.as_str() && row["usable"] == true;
        rows.iter().filter(of).count()
    };
    Ok(services.iter().map(count).collect())
}

fn outage_length() -> Duration {
    let text = std::env::var("OUTAGE_SECONDS").unwrap_or_default();
    Duration::from_secs(text.parse().unwrap_or(60))
}

/// Tells the servers to come back and to take a third instance; when each service had it, as far as it did.
fn recovered(mesh: &Mesh, kept: &[Kept], services: &[&String]) -> Vec<Option<Recovered>> {
    for one in kept {
        one.steps.send(Step::Back).unwrap();
    }
    let mut seen: Vec<Option<Instant>> = vec![None; services.len()];
    let mut back: Vec<Option<Back>> = vec![None; kept.len()];
    let mut end = Instant::now() + START;
    let clock = Running::now();
    loop {
        for (at, count) in known(mesh, services).unwrap().into_iter().enumerate() {
            if count == 3 {
                seen[at].get_or_insert_with(Instant::now);
            }
        }
        for (at, one) in kept.iter().enumerate() {
            back[at] = back[at].or_else(|| one.back.try_recv().ok());
            if back.iter().all(Option::is_some) {
                let last = back.iter().flatten().map(|back| back.written).max();
                end = end.min(last.unwrap() + NEVER);
            }
        }
        let all = seen.iter().all(Option::is_some) && back.iter().all(Option::is_some);
        if all || Instant::now() > end + clock.stood() {
            break;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    let of = |one: &Kept, back: Option<Back>| vec![back; one.services.len()];
    let back = kept.iter().zip(back).flat_map(|(one, back)| of(one, back));
    let pairs = seen.into_iter().zip(back);
    pairs
        .map(|(seen, back)| {
            let (seen, back) = (seen?, back?);
            Some(Recovered {
                written: back.written - back.ready,
                known: seen.saturating_duration_since(back.ready),
            })
        })
        .collect()
}

/// Tells the callers to end; calls and failures of each.
fn counted(callers: Vec<Child>) -> Vec<(u64, u64, String)> {
    for caller in &callers {
        caller.signal(Signal::SIGTERM).unwrap();
    }
    let counted = callers.into_iter().map(|mut caller| {
        caller.wait(Duration::from_secs(90)).unwrap();
        let log = caller.log();
        let counts: Value =
            serde_json::from_str(log.trim()).unwrap_or_else(|error| panic!("{error}: {log}"));
        let number = |key: &str| counts[key].as_u64().unwrap();
        let failures = counts["failures"].to_string();
        let shown = failures.chars().take(2_000).collect();
        (number("calls"), number("calls") - number("right"), shown)
    });
    counted.collect()
}

/// Prints a line for each service; what is not as it must be.
fn judged(
    length: Duration,
    services: &[&String],
    recovered: &[Option<Recovered>],
    counts: &[(u64, u64, String)],
) -> Vec<String> {
    let mut wrong = Vec::new();
    say(&format!(
        "registries: {:<22} {:>8} {:>7} {:>12} {:>12}",
        format!("away for {} s", length.as_secs()),
        "calls",
        "failed",
        "change taken",
        "change known"
    ));
    for ((service, recovered), (calls, failed, failures)) in
        services.iter().zip(recovered).zip(counts)
    {
        let told = |of: fn(&Recovered) -> Duration| {
            let after = recovered.as_ref().map(of);
            after.map_or_else(
                || "never".to_owned(),
                |after| format!("{} ms", after.as_millis()),
            )
        };
        let (taken, known) = (told(|one| one.written), told(|one| one.known));
        let late = |one: &Recovered| one.known > one.written + recovery(service);
        let mark = recovered.as_ref().is_some_and(late);
        let mark = if mark { "  late" } else { "" };
        say(&format!(
            "registries: {service:<22} {calls:>8} {failed:>7} {taken:>12} {known:>12}{mark}"
        ));
        if recovered.is_none() {
            wrong.push(format!(
                "{service}: taken after {taken}, known after {known}"
            ));
        }
        if *failed > 0 || *calls < length.as_secs() {
            wrong.push(format!("{service}: {failed} of {calls} failed: {failures}"));
        }
    }
    wrong
}

#[test]
fn every_registry_goes_away_and_comes_back() {
    need!(namespaces);
    need!(root);
    let length = outage_length();
    let began = Instant::now();
    let mut mesh = Mesh::new(Kind::Users, 2).unwrap();
    let kept = start_all();
    let after = |what: &str| {
        say(&format!(
            "registries: {what} after {} s",
            began.elapsed().as_secs()
        ));
    };
    if kept.is_empty() {
        return;
    }
    after("all servers are up");
    let sources: String = kept.iter().map(|one| one.sources.as_str()).collect();
    let reader = mesh.hosts[0].default_config(&sources);
    mesh.hosts[0].configure("meshd.toml", &reader).unwrap();
    let caller = format!("[[service]]\nname = \"caller\"\nuser = {CLIENT}\n");
    mesh.hosts[1]
        .configure("services.d/caller.toml", &caller)
        .unwrap();
    let _instances: Vec<Child> = (1..=3).map(|number| serve(&mesh, number)).collect();
    mesh.form(1, &[]).unwrap();
    let services: Vec<&String> = kept.iter().flat_map(|one| &one.services).collect();
    let two_of_each = || {
        let counts = known(&mesh, &services).map_err(|error| format!("{error:#}"))?;
        let all = counts.iter().all(|count| *count == 2);
        all.then_some(())
            .ok_or_else(|| format!("{services:?} have {counts:?}"))
    };
    eventually("the first sync", Duration::from_mins(1), two_of_each);
    // Its name is told and its way laid a moment later.
    for service in &services {
        eventually(service, Duration::from_secs(20), || answers(&mesh, service));
    }
    after("all services are known and answer");

    let callers: Vec<Child> = services
        .iter()
        .map(|service| call(&mesh, service))
        .collect();
    for one in &kept {
        one.steps.send(Step::Away).unwrap();
    }
    std::thread::sleep(length);
    let mut wrong: Vec<String> = two_of_each().err().into_iter().collect();
    let recovered = recovered(&mesh, &kept, &services);
    // A moment of calls with everything there again.
    std::thread::sleep(Duration::from_secs(3));
    let counts = counted(callers);
    after("all is over");

    wrong.extend(judged(length, &services, &recovered, &counts));
    for one in kept {
        drop(one.steps);
        one.thread.join().unwrap();
    }
    let log = if wrong.is_empty() {
        String::new()
    } else {
        mesh.hosts[0].meshd_log()
    };
    assert!(wrong.is_empty(), "{}\n{log}", wrong.join("\n"));
}
