//! A mesh whose service stands in a registry keeps calling it while that registry is silent, dead and back: no
//! failed request, and a change is seen within five seconds of the return. A row per kind of registry.
//!
//! Each outage lasts `OUTAGE_SECONDS` (12); `make soak` sets ten minutes. To add a row: a [`Far`] for the server.

#![allow(
    clippy::tests_outside_test_module,
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs,
    reason = "a file of tests"
)]

use std::{
    fs,
    net::SocketAddr,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use mesh_registry::contract::server::{Plan, Server, free_ports, http, needed, told};
use mesh_tests::{Child, Mesh, binary::built, host::Kind, need, process::say, process::sh};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

#[path = "registries/etcd.rs"]
mod etcd;

/// User id of the caller.
const CLIENT: u32 = 5041;
/// Where the registry is: this end of the bridge.
const NEAR: [u8; 4] = [10, 77, 0, 254];
/// The port of every instance.
const PORT: u16 = 9200;
/// What a change may take once the registry is back.
const RECOVERY: Duration = Duration::from_secs(5);

/// A registry that runs beside the mesh.
trait Far {
    /// The keys of its `[[source]]`.
    fn source(&self) -> String;
    /// Registers an instance of `words` at this address; it stays over a restart.
    fn register(&mut self, address: &str);
    /// Its process.
    fn server(&mut self) -> &mut Server;
}

fn outage_length() -> Duration {
    let text = std::env::var("OUTAGE_SECONDS").unwrap_or_default();
    Duration::from_secs(text.parse().unwrap_or(12))
}

/// An address of the plain instance `number`, which stands outside the mesh.
fn instance(number: u8) -> String {
    format!("10.77.0.{}", 200 + number)
}

fn serve(mesh: &Mesh, number: u8) -> Child {
    let address = instance(number);
    sh(&format!("ip address add {address}/32 dev mesh-bridge")).unwrap();
    let mut command = Command::new(built("mesh-soak-app"));
    command.args(["serve", "--listen", &format!("{address}:{PORT}")]);
    let log = mesh.directory.path().join(format!("words-{number}"));
    Child::start(&format!("words-{number}"), &mut command, &log).unwrap()
}

/// Waits at most that long until the caller's daemon knows so many instances.
fn knows(mesh: &Mesh, count: usize, longest: Duration, when: &str) {
    let began = Instant::now();
    mesh.wait_endpoints(1, "words", count, longest)
        .unwrap_or_else(|error| panic!("{when}: {error:#}\n{}", mesh.hosts[0].meshd_log()));
    say(&format!(
        "registries: {when}: {count} instances after {} ms",
        began.elapsed().as_millis()
    ));
}

/// The whole story: silence, death, return, each under traffic.
fn survives(name: &str, make: impl FnOnce() -> Box<dyn Far>) {
    let length = outage_length();
    let mut mesh = Mesh::new(Kind::Users, 2).unwrap();
    let mut far = make();
    let reader = mesh.hosts[0].default_config(&far.source());
    mesh.hosts[0].configure("meshd.toml", &reader).unwrap();
    let caller = format!("[[service]]\nname = \"caller\"\nuser = {CLIENT}\n");
    mesh.hosts[1]
        .configure("services.d/caller.toml", &caller)
        .unwrap();
    let mut words: Vec<Child> = (1..=2).map(|number| serve(&mesh, number)).collect();
    (1..=2).for_each(|number| far.register(&instance(number)));
    mesh.form(1, &[]).unwrap();
    knows(&mesh, 2, Duration::from_secs(30), "the first sync");

    let seconds = (length * 2 + RECOVERY * 4).as_secs();
    let mut load = {
        let mut command = mesh.hosts[1].command_as(CLIENT, built("mesh-soak-app"));
        let place = format!("words:{PORT}");
        let time = seconds.to_string();
        command.args(["load", "--place", &place, "--seconds", &time, "--name", "a"]);
        Child::start("load", &mut command, &mesh.hosts[1].log_path("load")).unwrap()
    };
    words.push(serve(&mesh, 3));
    words.push(serve(&mesh, 4));
    far.server().freeze();
    std::thread::sleep(length);
    far.server().thaw();
    far.register(&instance(3));
    knows(&mesh, 3, RECOVERY, "back from silence");
    far.server().kill();
    std::thread::sleep(length);
    knows(&mesh, 3, Duration::from_secs(1), "while it is dead");
    far.server().start_again(true);
    far.register(&instance(4));
    knows(&mesh, 4, RECOVERY, "back from death");

    load.wait(Duration::from_secs(seconds + 90)).unwrap();
    let counts: Value = serde_json::from_str(load.log().trim())
        .unwrap_or_else(|error| panic!("{error}: {}", load.log()));
    let number = |key: &str| counts[key].as_u64().unwrap();
    say(&format!(
        "registries: {name}: {} calls in {seconds} s, {} right, {} wrong, failures: {}",
        number("calls"),
        number("right"),
        number("wrong"),
        counts["failures"]
    ));
    assert!(number("calls") > seconds * 50, "that is no load");
    assert_eq!(number("right"), number("calls"), "{counts}");
    for child in &mut words {
        child.signal(Signal::SIGTERM).unwrap();
    }
}

/// A Consul agent with a folder for its state.
struct Consul {
    server: Server,
    admin: SocketAddr,
}

impl Consul {
    fn start(root: &Path) -> Self {
        let [web, dns, rpc, serf] = free_ports();
        let admin = SocketAddr::from((NEAR, web));
        let folder = tempfile::tempdir().unwrap();
        let config = folder.path().join("consul.json");
        let settings = json!({
            "node_name": "lab", "server": true, "bootstrap_expect": 1, "bind_addr": "127.0.0.1",
            "client_addr": admin.ip().to_string(), "log_level": "warn", "disable_update_check": true,
            "raft_protocol": 3, "performance": {"raft_multiplier": 1}, "leave_on_terminate": false,
            "ports": {"http": web, "dns": dns, "grpc": -1, "server": rpc, "serf_lan": serf, "serf_wan": -1},
        });
        fs::write(&config, settings.to_string()).unwrap();
        let program = root.join("usr/bin/consul");
        let plan = Plan {
            name: "consul".into(),
            root: root.to_owned(),
            command: Box::new(move |state| {
                let mut command = Command::new(&program);
                command.arg("agent").arg("-config-file").arg(&config);
                command.arg("-data-dir").arg(state);
                command
            }),
            ready: Box::new(move || {
                let led = http(admin, "GET", "/v1/status/leader", &[], "");
                let known = http(admin, "GET", "/v1/catalog/node/lab", &[], "");
                led.is_ok_and(|(status, body)| status == 200 && body.contains(':'))
                    && known.is_ok_and(|(_, body)| body.contains("\"consul\""))
            }),
            within: Duration::from_secs(20),
        };
        let server = Server::start(plan, folder);
        Self { server, admin }
    }
}

impl Far for Consul {
    fn source(&self) -> String {
        format!(
            "[[source]]\nkind = \"consul\"\naddresses = [\"http://{}\"]\n",
            self.admin
        )
    }
    fn register(&mut self, address: &str) {
        let body = json!({"ID": address, "Name": "words", "Address": address, "Port": PORT,
            "Meta": {"protocol": "http"}});
        let path = "/v1/agent/service/register";
        told(self.admin, "PUT", path, &[], &body.to_string());
    }
    fn server(&mut self) -> &mut Server {
        &mut self.server
    }
}

#[test]
fn consul() {
    need!(namespaces);
    need!(root);
    let Some(root) = needed("consul", "registries::consul") else {
        return;
    };
    survives("consul", || Box::new(Consul::start(&root)));
}

#[test]
fn etcd() {
    need!(namespaces);
    need!(root);
    let Some(root) = needed("etcd", "registries::etcd") else {
        return;
    };
    survives("etcd", || Box::new(etcd::Etcd::start(&root)));
}

/// The status of the check that the daemon keeps for `shop`; none when the instance is not there.
fn announced(admin: SocketAddr) -> Option<String> {
    let text = told(admin, "GET", "/v1/health/service/shop", &[], "");
    let all: Vec<Value> = serde_json::from_str(&text).unwrap();
    let one = all.first()?;
    assert_eq!(one["Service"]["Address"], "10.77.0.1", "{one}");
    let checks = one["Checks"].as_array()?;
    let own = checks.iter().find(|check| check["Name"] == "meshd")?;
    Some(own["Status"].as_str()?.to_owned())
}

fn becomes(admin: SocketAddr, wanted: Option<&str>, longest: Duration, when: &str) {
    let end = Instant::now() + longest;
    loop {
        let now = announced(admin);
        if now.as_deref() == wanted {
            return;
        }
        assert!(Instant::now() < end, "{when}: {now:?}, not {wanted:?}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn a_daemon_announces_its_services_to_consul() {
    const SOON: Duration = Duration::from_secs(15);
    need!(namespaces);
    need!(root);
    let Some(root) = needed("consul", "registries::a_daemon_announces") else {
        return;
    };
    let mut mesh = Mesh::new(Kind::Users, 1).unwrap();
    let far = Consul::start(&root);
    let more = format!(
        "{}id = \"consul/1\"\n[[registration]]\nsource = \"consul/1\"\nttl = \"5s\"\n",
        far.source()
    );
    let text = mesh.hosts[0].default_config(&more);
    mesh.hosts[0].configure("meshd.toml", &text).unwrap();
    let service = format!(
        "[[service]]\nname = \"shop\"\nuser = {CLIENT}\nports = [{{ port = 80, target = {PORT}, protocol = \"http\" }}]\n\
         health = {{ kind = \"tcp\", interval = \"200ms\", timeout = \"200ms\", unhealthy_after = 1 }}\n"
    );
    mesh.hosts[0]
        .configure("services.d/shop.toml", &service)
        .unwrap();
    let start = |mesh: &Mesh| {
        let host = &mesh.hosts[0];
        let mut command = host.command_as(CLIENT, built("mesh-soak-app"));
        command.args(["serve", "--listen", &format!("0.0.0.0:{PORT}")]);
        Child::start("shop", &mut command, &host.log_path("shop")).unwrap()
    };
    let mut shop = start(&mesh);
    mesh.form(1, &[]).unwrap();
    becomes(far.admin, Some("passing"), SOON, "a healthy service stands");
    shop.signal(Signal::SIGKILL).unwrap();
    shop.wait(SOON).unwrap();
    becomes(far.admin, Some("critical"), SOON, "its program died");
    let shop = start(&mesh);
    becomes(far.admin, Some("passing"), SOON, "its program is back");
    mesh.hosts[0].stop_meshd().unwrap();
    assert_eq!(announced(far.admin), None, "the daemon took it out");
    mesh.hosts[0].start_meshd().unwrap();
    becomes(far.admin, Some("passing"), SOON, "the daemon is back");
    mesh.hosts[0].kill_meshd().unwrap();
    becomes(
        far.admin,
        Some("critical"),
        SOON,
        "a killed daemon's expires",
    );
    shop.signal(Signal::SIGTERM).unwrap();
}
