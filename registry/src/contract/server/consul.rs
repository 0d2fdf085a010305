//! A Consul agent that is a server of one.

use std::{
    fs,
    net::{IpAddr, SocketAddr},
    path::Path,
    process::Command,
};

use serde_json::{Value, json};

use super::{Plan, Server, Started, authority, free_ports, http};
use crate::contract::Setup;

/// The token that may do everything, of agents with tokens.
pub const MASTER: &str = "11111111-2222-3333-4444-555555555555";

/// Starts an agent that listens at `ip`, and on the socket `http.sock` in its folder.
pub fn start(root: &Path, ip: IpAddr, setup: Setup) -> Started {
    let folder = super::folder();
    let ports: [u16; 5] = free_ports();
    let [web, tls, ..] = ports;
    if setup == Setup::Tls {
        super::sure(authority::write(folder.path()));
    }
    let config = folder.path().join("consul.json");
    let text = settings(folder.path(), ip, setup, ports).to_string();
    super::sure(fs::write(&config, text));
    let program = root.join("usr/bin/consul");
    let admin = SocketAddr::new(ip, web);
    let plan = Plan {
        name: "consul".into(),
        root: root.to_owned(),
        command: Box::new(move |state| {
            let mut command = Command::new(&program);
            command.arg("agent").arg("-config-file").arg(&config);
            command.arg("-data-dir").arg(state);
            command
        }),
        ready: Box::new(move || is_ready(admin)),
        within: super::PATIENCE,
    };
    Started {
        server: Server::start(plan, folder),
        admin,
        to: match setup {
            Setup::Tls => SocketAddr::new(ip, tls),
            _ => admin,
        },
    }
}

fn settings(folder: &Path, ip: IpAddr, setup: Setup, ports: [u16; 5]) -> Value {
    let [web, tls, dns, rpc, serf] = ports;
    let path = |name: &str| folder.join(name).display().to_string();
    let secured = match setup {
        Setup::Tls => i32::from(tls),
        _ => -1,
    };
    let mut settings = json!({
        "node_name": "lab", "server": true, "bootstrap_expect": 1, "bind_addr": "127.0.0.1",
        "client_addr": ip.to_string(), "log_level": "warn", "disable_update_check": true,
        "raft_protocol": 3, "performance": {"raft_multiplier": 1}, "leave_on_terminate": false,
        "addresses": {"http": format!("{ip} unix://{}", path("http.sock"))},
        "ports": {"http": web, "https": secured, "dns": dns, "grpc": -1, "server": rpc, "serf_lan": serf, "serf_wan": -1},
    });
    let added = match setup {
        Setup::Token => json!({
            "acl": {"enabled": true, "default_policy": "deny", "tokens": {"master": MASTER, "agent": MASTER}}}),
        Setup::Tls => json!({"cert_file": path("server.pem"), "key_file": path("server.key")}),
        Setup::Plain | Setup::Large => json!({}),
    };
    if let (Value::Object(settings), Value::Object(added)) = (&mut settings, added) {
        settings.extend(added);
    }
    settings
}

fn is_ready(admin: SocketAddr) -> bool {
    let led = http(admin, "GET", "/v1/status/leader", &[], "");
    let fields = [("X-Consul-Token", MASTER)];
    // The agent has registered itself.
    let known = http(admin, "GET", "/v1/catalog/node/lab", &fields, "");
    led.is_ok_and(|(status, body)| status == 200 && body.contains(':'))
        && known.is_ok_and(|(status, body)| status == 200 && body.contains("\"consul\""))
}
