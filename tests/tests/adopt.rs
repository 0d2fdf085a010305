//! Services that a real Consul knows are taken into the mesh and out again, and moved to another registry, under
//! load: nobody notices.

#![allow(
    clippy::tests_outside_test_module,
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs,
    reason = "a file of tests"
)]

use std::{
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use mesh_tests::{
    Host, Mesh,
    binary::built,
    eventually,
    host::Kind,
    need,
    process::{Child, say},
    remains::none_failed,
    wait::within,
};
use serde_json::Value;

const SERVICES: u16 = 10;
const FIRST_PORT: u16 = 9100;
const CALLER: u32 = 5004;

/// A registry's program, copied to where every user reaches it; `None` while it was not fetched.
fn program(mesh: &Mesh, registry: &str, name: &str) -> Option<PathBuf> {
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let cache = cache.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache")))?;
    let tools = std::env::var_os("MESH_TOOLS").map(PathBuf::from);
    let tools = tools.unwrap_or_else(|| cache.join("meshd-peers"));
    let from = tools.join("registries").join(registry).join("usr/bin");
    let copy = mesh.directory.path().join(name);
    std::fs::copy(from.join(name), &copy).ok()?;
    Some(copy)
}

fn start_consul(host: &mut Host, program: &Path) {
    let mut command = host.command(program);
    command.args([
        "agent",
        "-dev",
        "-node=lab",
        "-log-level=warn",
        "-grpc-port=-1",
    ]);
    command.args(["-serf-wan-port=-1", "-client=127.0.0.1"]);
    command.arg(format!("-bind={}", host.v4));
    command.env_remove("http_proxy");
    let log = host.log_path("consul");
    host.keep(Child::start("consul", &mut command, &log).unwrap());
    within(Duration::from_secs(30), || {
        let leader = host.sh("curl -sf http://127.0.0.1:8500/v1/status/leader")?;
        anyhow::ensure!(leader.contains(':'), "no leader: {leader}");
        Ok(())
    })
    .unwrap();
}

fn start_etcd(host: &mut Host, program: &Path) {
    let mut command = host.command(program);
    let data = host.directory.join("etcd");
    command.args(["--name", "lab", "--log-level", "warn", "--unsafe-no-fsync"]);
    command.arg("--data-dir").arg(data);
    let log = host.log_path("etcd");
    host.keep(Child::start("etcd", &mut command, &log).unwrap());
    within(Duration::from_secs(30), || {
        let health = host.sh("curl -sf http://127.0.0.1:2379/health")?;
        anyhow::ensure!(health.contains("true"), "{health}");
        Ok(())
    })
    .unwrap();
}

fn register(host: &Host, name: &str, port: u16) {
    let file = host.directory.join(format!("{name}.json"));
    let body = serde_json::json!({"Name": name, "ID": format!("{name}-1"), "Port": port});
    std::fs::write(&file, body.to_string()).unwrap();
    host.sh(&format!(
        "curl -sf -X PUT --data @{} http://127.0.0.1:8500/v1/agent/service/register",
        file.display()
    ))
    .unwrap();
}

fn deregister(host: &Host, name: &str) {
    host.sh(&format!(
        "curl -sf -X PUT http://127.0.0.1:8500/v1/agent/service/deregister/{name}-1"
    ))
    .unwrap();
}

/// A program of the second host that calls these addresses in turn until it is told to end; one JSON line.
struct Load {
    child: std::process::Child,
}

impl Load {
    fn start(host: &Host, urls: &[String], seconds: u32, rate: u32) -> Self {
        let mut command = host.command_as(CALLER, built("mesh-demo-app"));
        command.args(["load", "--count", "1000000", "--concurrency", "8"]);
        command.args([
            "--seconds",
            &seconds.to_string(),
            "--rate",
            &rate.to_string(),
        ]);
        for url in urls {
            command.args(["--url", url]);
        }
        command.stdout(Stdio::piped());
        let child = command.spawn().unwrap();
        Self { child }
    }

    /// Waits for its end; the counts.
    fn counts(self) -> Value {
        let output = self.child.wait_with_output().unwrap();
        serde_json::from_slice(&output.stdout).unwrap()
    }
}

fn name(index: u16) -> String {
    format!("web{index}")
}

/// The ways of the second host to each of the services that it knows: `mtls` or `plain`.
fn ways(host: &Host) -> anyhow::Result<Vec<String>> {
    let rows = host.ctl_json(&["endpoints"])?;
    let rows = rows.as_array().cloned().unwrap_or_default();
    let mut ways: Vec<String> = rows
        .iter()
        .filter(|row| {
            row["service"]
                .as_str()
                .is_some_and(|name| name.starts_with("default/web"))
        })
        .map(|row| {
            let name = row["service"].as_str().unwrap_or_default();
            let security = row["security"].as_str().unwrap_or_default();
            format!("{} {security}", name.trim_start_matches("default/"))
        })
        .collect();
    ways.sort();
    Ok(ways)
}

/// Waits until these services go with mTLS and all others in plaintext.
fn wait_ways(host: &Host, secured: impl Fn(u16) -> bool) {
    let mut wanted: Vec<String> = (0..SERVICES)
        .map(|index| {
            let way = if secured(index) { "mtls" } else { "plain" };
            format!("{} {way}", name(index))
        })
        .collect();
    wanted.sort();
    within(Duration::from_secs(40), || {
        let ways = ways(host)?;
        anyhow::ensure!(ways == wanted, "{ways:?}, not {wanted:?}");
        Ok(())
    })
    .unwrap();
}

fn states(host: &Host) -> anyhow::Result<Vec<String>> {
    let rows = host.ctl_json(&["adopt", "--dry-run"])?;
    let rows = rows.as_array().cloned().unwrap_or_default();
    Ok(rows
        .iter()
        .map(|row| row["state"].as_str().unwrap_or_default().to_owned())
        .collect())
}

/// Two hosts; the first runs Consul and ten registered programs that the mesh knows nothing of.
fn registered() -> Option<Mesh> {
    let mut mesh = Mesh::new(Kind::Users, 2).unwrap();
    let program = program(&mesh, "consul", "consul")?;
    let source = "[[source]]\nid = \"consul/dc1\"\nkind = \"consul\"\naddresses = [\"http://127.0.0.1:8500\"]\n";
    for (index, host) in mesh.hosts.iter().enumerate() {
        let more = if index == 0 { source } else { "" };
        host.configure("meshd.toml", &host.default_config(more))
            .unwrap();
    }
    let host = mesh.host(0);
    start_consul(host, &program);
    for index in 0..SERVICES {
        let listen = format!("0.0.0.0:{}", FIRST_PORT + index);
        host.start_app(5200 + u32::from(index), &["words", "--listen", &listen])
            .unwrap();
        register(host, &name(index), FIRST_PORT + index);
    }
    mesh.form(1, &[]).unwrap();
    for host in &mut mesh.hosts {
        host.record_failures().unwrap();
    }
    Some(mesh)
}

#[test]
fn ten_services_of_consul_in_and_out() {
    need!(namespaces);
    need!(root);
    let Some(mut mesh) = registered() else {
        need::skip(
            module_path!(),
            "consul is not there: scripts/registries.sh consul",
        );
        return;
    };
    let (first, second) = (mesh.hosts.remove(0), mesh.hosts.remove(0));
    wait_ways(&second, |_| false);
    let urls: Vec<String> = (0..SERVICES)
        .map(|index| format!("http://{}:{}/", first.v4, FIRST_PORT + index))
        .collect();
    let load = Load::start(&second, &urls, 50, 150);

    // What would be adopted: one line each, with port, user and what would be captured.
    eventually("ten are ready", Duration::from_secs(30), || {
        let states = states(&first)?;
        anyhow::ensure!(states == vec!["ready"; SERVICES.into()], "{states:?}");
        anyhow::Ok(())
    });
    let text = first.ctl(&["adopt", "--dry-run", "web3"]).unwrap();
    assert!(
        text.contains("10.77.0.1:9103") && text.contains("user 5203"),
        "{text}"
    );
    say(text.trim_end());

    // Tried, and back by itself.
    // Long enough to be seen on the other host by a machine that stands still for some seconds.
    first.ctl(&["adopt", "web3", "--try", "8s"]).unwrap();
    wait_ways(&second, |index| index == 3);
    wait_ways(&second, |_| false);
    eventually("the trial is over", Duration::from_secs(30), || {
        let there = first.directory.join("state/trial").exists();
        anyhow::ensure!(!there, "its files are there");
        anyhow::Ok(())
    });

    // Tried and kept.
    first.ctl(&["adopt", "web4", "--try", "10m"]).unwrap();
    first.ctl(&["confirm"]).unwrap();
    let kept = first
        .directory
        .join("etc/services.d/adopted-default-web4.toml");
    assert!(
        std::fs::read_to_string(&kept)
            .unwrap()
            .contains("consul/dc1")
    );
    wait_ways(&second, |index| index == 4);

    // All of them.
    first.ctl(&["adopt"]).unwrap();
    wait_ways(&second, |_| true);

    // Each alone out and in again.
    first.ctl(&["adopt", "--undo", "web7"]).unwrap();
    wait_ways(&second, |index| index != 7);
    first.ctl(&["adopt", "web7"]).unwrap();
    wait_ways(&second, |_| true);

    // Out.
    let all: Vec<String> = (0..SERVICES).map(name).collect();
    let mut undo = vec!["adopt", "--undo"];
    undo.extend(all.iter().map(String::as_str));
    first.ctl(&undo).unwrap();
    wait_ways(&second, |_| false);
    let left: Vec<_> = std::fs::read_dir(first.directory.join("etc/services.d"))
        .unwrap()
        .collect();
    assert!(left.is_empty(), "{left:?}");

    let counts = load.counts();
    say(&format!("calls: {counts}"));
    none_failed(&counts, 5000);
    drop((first, second));
}

const SOURCES: &str = "[[source]]\nid = \"consul/old\"\nkind = \"consul\"\naddresses = [\"http://127.0.0.1:8500\"]\n\
    [[source]]\nid = \"etcd/new\"\nkind = \"etcd\"\naddresses = [\"http://127.0.0.1:2379\"]\n";

/// The caller's settings: which registry comes first.
fn order(host: &Host, first: &str, second: &str) {
    let rule = format!(
        "[[merge]]\nservice = \"words\"\npolicy = \"failover\"\nsources = [\"{first}\", \"{second}\"]\n"
    );
    host.configure("meshd.toml", &host.default_config(&rule))
        .unwrap();
}

/// Waits until the caller uses so many endpoints of `words`, all of which this source says.
fn wait_used(host: &Host, source: &str, count: usize) {
    within(Duration::from_secs(40), || {
        let rows = host.ctl_json(&["endpoints", "words"])?;
        let rows = rows.as_array().cloned().unwrap_or_default();
        let of_source = rows.iter().filter(|row| {
            let id = row["id"].as_str().unwrap_or_default();
            id.starts_with(source) && row["usable"] == true
        });
        anyhow::ensure!(of_source.count() == count, "{rows:?}");
        Ok(())
    })
    .unwrap();
}

#[test]
fn words_move_from_consul_to_etcd() {
    need!(namespaces);
    need!(root);
    let mut mesh = Mesh::new(Kind::Users, 2).unwrap();
    let programs = [("consul", "consul"), ("etcd", "etcd"), ("etcd", "etcdctl")];
    let programs = programs.map(|(registry, name)| program(&mesh, registry, name));
    let [Some(consul), Some(etcd), Some(etcdctl)] = programs else {
        need::skip(
            module_path!(),
            "consul or etcd is not there: scripts/registries.sh consul etcd",
        );
        return;
    };
    let text = mesh.hosts[0].default_config(SOURCES);
    mesh.hosts[0].configure("meshd.toml", &text).unwrap();
    order(&mesh.hosts[1], "consul/old", "etcd/new");
    let host = mesh.host(0);
    start_consul(host, &consul);
    start_etcd(host, &etcd);
    for port in 9201..=9203_u16 {
        let listen = format!("0.0.0.0:{port}");
        host.start_app(u32::from(port), &["words", "--listen", &listen])
            .unwrap();
    }
    let in_consul = |host: &Host, port: u16| {
        let file = host.directory.join(format!("words-{port}.json"));
        let body =
            serde_json::json!({"Name": "words", "ID": format!("words{port}-1"), "Port": port});
        std::fs::write(&file, body.to_string()).unwrap();
        host.sh(&format!(
            "curl -sf -X PUT --data @{} http://127.0.0.1:8500/v1/agent/service/register",
            file.display()
        ))
        .unwrap();
    };
    let in_etcd = |host: &Host, port: u16| {
        let (program, v4) = (etcdctl.display(), host.v4);
        let key = format!("/meshd/v1/services/default/words/{port}");
        host.sh(&format!(
            "{program} put {key} {{\"address\":\"{v4}:{port}\"}}"
        ))
        .unwrap();
    };
    for port in 9201..=9203 {
        in_consul(host, port);
    }
    mesh.form(1, &[]).unwrap();
    for host in &mut mesh.hosts {
        host.record_failures().unwrap();
    }
    let (first, second) = (mesh.hosts.remove(0), mesh.hosts.remove(0));
    wait_used(&second, "consul/old/", 3);
    // Its name is told and its way laid a moment later.
    eventually("the first call", Duration::from_secs(30), || {
        let mut curl = second.command_as(CALLER, "curl");
        curl.args(["-sS", "--fail", "--max-time", "5", "-o", "/dev/null"]);
        let output = curl.arg("http://words:9201/").output()?;
        anyhow::ensure!(output.status.success(), "{output:?}");
        anyhow::Ok(())
    });
    let load = Load::start(&second, &["http://words:9201/".to_owned()], 30, 150);

    // Registered in both, compared until they say the same.
    in_etcd(&first, 9201);
    in_etcd(&first, 9202);
    let diff = ["registry", "diff", "consul/old", "etcd/new", "words"];
    eventually("one is missing", Duration::from_secs(30), || {
        let (code, out, _) = first.ctl_full(&diff)?;
        anyhow::ensure!(
            code == 1 && out == "- 10.77.0.1:9203 usable weight 1 priority 0\n",
            "{code}: {out}"
        );
        anyhow::Ok(())
    });
    in_etcd(&first, 9203);
    eventually("they say the same", Duration::from_secs(30), || {
        let (code, out, _) = first.ctl_full(&diff)?;
        anyhow::ensure!(code == 0, "{code}: {out}");
        anyhow::Ok(())
    });
    let synced = |row: &Value| row["state"] == "synced" && row["services"].as_u64() >= Some(1);
    eventually("both are synced", Duration::from_secs(30), || {
        let status = first.ctl_json(&["registry", "status"])?;
        let all = status.as_array().is_some_and(|all| all.iter().all(synced));
        anyhow::ensure!(all, "{status}");
        anyhow::Ok(())
    });

    // The order is swapped, then the old registration goes.
    order(&second, "etcd/new", "consul/old");
    second
        .signal_meshd(nix::sys::signal::Signal::SIGHUP)
        .unwrap();
    wait_used(&second, "etcd/new/", 3);
    for port in 9201..=9203 {
        deregister(&first, &format!("words{port}"));
    }
    eventually("the old registry lets go", Duration::from_mins(1), || {
        let rows = first.ctl_json(&["registry", "dump", "consul/old", "words"])?;
        let held = |row: &Value| {
            let all = row["endpoints"].as_array().cloned().unwrap_or_default();
            all.iter().all(|one| one["health"] == "degraded")
        };
        anyhow::ensure!(
            rows.as_array().is_some_and(|all| all.iter().all(held)),
            "{rows}"
        );
        anyhow::Ok(())
    });
    wait_used(&second, "etcd/new/", 3);

    let counts = load.counts();
    say(&format!("calls: {counts}"));
    none_failed(&counts, 3000);
    drop((first, second));
}

/// How each host gets the services of the mesh's own source: `synced` by reading it, or `elsewhere`.
fn states_of_source(hosts: &[Host], without: Option<usize>) -> anyhow::Result<Vec<String>> {
    let others = hosts
        .iter()
        .enumerate()
        .filter(|(index, _)| Some(*index) != without);
    others
        .map(|(_, host)| {
            let rows = host.ctl_json(&["registry", "status"])?;
            let rows = rows.as_array().cloned().unwrap_or_default();
            let row = rows.iter().find(|row| row["source"] == "mesh/lab");
            Ok(row.map_or_else(String::new, |row| {
                row["state"].as_str().unwrap_or_default().to_owned()
            }))
        })
        .collect()
}

#[test]
fn one_host_reads_for_all_and_another_takes_over() {
    need!(namespaces);
    need!(root);
    let mut mesh = Mesh::new(Kind::Users, 3).unwrap();
    let Some(consul) = program(&mesh, "consul", "consul") else {
        need::skip(
            module_path!(),
            "consul is not there: scripts/registries.sh consul",
        );
        return;
    };
    // Consul stands on the bridge, where every host reaches it and none of them is its.
    let mut command = std::process::Command::new(&consul);
    command.args([
        "agent",
        "-dev",
        "-node=lab",
        "-log-level=warn",
        "-grpc-port=-1",
    ]);
    command.args(["-serf-wan-port=-1", "-client=0.0.0.0", "-bind=10.77.0.254"]);
    let log = mesh.directory.path().join("consul.log");
    let _agent = Child::start("consul", &mut command, &log).unwrap();
    mesh.form(1, &[]).unwrap();
    within(Duration::from_secs(30), || {
        let leader = mesh.hosts[0].sh("curl -sf http://10.77.0.254:8500/v1/status/leader")?;
        anyhow::ensure!(leader.contains(':'), "no leader: {leader}");
        Ok(())
    })
    .unwrap();
    let body = mesh.directory.path().join("web.json");
    std::fs::write(&body, r#"{"Name":"web","ID":"web-1","Port":9301}"#).unwrap();
    mesh.hosts[0]
        .sh(&format!(
            "curl -sf -X PUT --data @{} http://10.77.0.254:8500/v1/agent/service/register",
            body.display()
        ))
        .unwrap();
    let document = mesh.directory.path().join("source.yaml");
    std::fs::write(
        &document,
        "apiVersion: meshd.io/v1alpha1\nkind: ServiceSource\nmetadata: {name: lab}\nspec:\n  readers: 1\n  \
         source: {kind: consul, addresses: ['http://10.77.0.254:8500']}\n",
    )
    .unwrap();
    mesh.hosts[0]
        .ctl(&["apply", "-f", document.to_str().unwrap()])
        .unwrap();
    let one_reads = |hosts: &[Host], without: Option<usize>| {
        within(Duration::from_mins(1), || {
            let states = states_of_source(hosts, without)?;
            let reading = states.iter().filter(|state| *state == "synced").count();
            let told = states.iter().filter(|state| *state == "elsewhere").count();
            anyhow::ensure!(reading == 1 && told + 1 == states.len(), "{states:?}");
            for (_, host) in hosts
                .iter()
                .enumerate()
                .filter(|(index, _)| Some(*index) != without)
            {
                anyhow::ensure!(!ways(host)?.is_empty(), "{} knows no web", host.name);
            }
            Ok(states.iter().position(|state| state == "synced"))
        })
        .unwrap()
    };
    let reader = one_reads(&mesh.hosts, None).unwrap();
    mesh.hosts[reader].kill_meshd().unwrap();
    one_reads(&mesh.hosts, Some(reader));
}
