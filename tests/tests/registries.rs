//! A mesh whose services stand in registries keeps calling them while those are silent or dead, and after: no failed
//! request, and a change is seen within five seconds of the return. All kinds of registries at once, each as a
//! server that is killed and as one that is stopped, for `OUTAGE_SECONDS` (60; `make soak`: 600).
//!
//! To add a kind: a `Far` for its server.

#![allow(
    clippy::tests_outside_test_module,
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs,
    reason = "a file of tests"
)]

use std::{net::SocketAddr, time::Duration};

use mesh_registry::contract::server::told;
use mesh_tests::{Child, Mesh, binary::built, eventually, host::Kind, need};
use nix::sys::signal::Signal;
use serde_json::Value;

use far::{Consul, Far};

/// The real servers.
#[path = "registries/far.rs"]
mod far;
/// What happens while they are away.
#[path = "registries/outage.rs"]
mod outage;

/// User id of the caller, and of the announced service.
const CLIENT: u32 = 5041;
/// The port of every instance.
const PORT: u16 = 9200;

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
    eventually(when, longest, || {
        let now = announced(admin);
        let same = now.as_deref() == wanted;
        same.then_some(()).ok_or_else(|| format!("{now:?}"))
    });
}

#[test]
fn a_daemon_announces_its_services_to_consul() {
    const SOON: Duration = Duration::from_secs(30);
    need!(namespaces);
    need!(root);
    if !far::is_there("consul") {
        return;
    }
    let mut mesh = Mesh::new(Kind::Users, 1).unwrap();
    let far = Consul::start("1");
    let admin = far.admin();
    let more = format!(
        "{}[[registration]]\nsource = \"consul/1\"\nttl = \"5s\"\n",
        far.sources()
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
    becomes(admin, Some("passing"), SOON, "a healthy service stands");
    shop.signal(Signal::SIGKILL).unwrap();
    shop.wait(SOON).unwrap();
    becomes(admin, Some("critical"), SOON, "its program died");
    let shop = start(&mesh);
    becomes(admin, Some("passing"), SOON, "its program is back");
    mesh.hosts[0].stop_meshd().unwrap();
    assert_eq!(announced(admin), None, "the daemon took it out");
    mesh.hosts[0].start_meshd().unwrap();
    becomes(admin, Some("passing"), SOON, "the daemon is back");
    mesh.hosts[0].kill_meshd().unwrap();
    becomes(admin, Some("critical"), SOON, "a killed daemon's expires");
    shop.signal(Signal::SIGTERM).unwrap();
}
