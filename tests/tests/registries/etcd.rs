//! An etcd with a folder for its state.

use std::{net::SocketAddr, path::Path, process::Command, time::Duration};

use data_encoding::BASE64;
use mesh_registry::contract::server::{Plan, Server, free_ports, http, told};
use serde_json::json;

use super::{Far, NEAR, PORT};

pub(super) struct Etcd {
    server: Server,
    admin: SocketAddr,
}

impl Etcd {
    pub(super) fn start(root: &Path) -> Self {
        let [web, peer] = free_ports();
        let admin = SocketAddr::from((NEAR, web));
        let program = root.join("usr/bin/etcd");
        let plan = Plan {
            name: "etcd".into(),
            root: root.to_owned(),
            command: Box::new(move |state| {
                let (near, between) = (
                    format!("http://{admin}"),
                    format!("http://127.0.0.1:{peer}"),
                );
                let mut command = Command::new(&program);
                command.args(["--name", "lab", "--log-level", "warn"]);
                command.arg("--data-dir").arg(state.join("etcd"));
                for (key, value) in [
                    ("--listen-client-urls", &near),
                    ("--advertise-client-urls", &near),
                    ("--listen-peer-urls", &between),
                    ("--initial-advertise-peer-urls", &between),
                    ("--initial-cluster", &format!("lab={between}")),
                ] {
                    command.args([key, value]);
                }
                command
            }),
            ready: Box::new(move || {
                http(admin, "GET", "/health", &[], "")
                    .is_ok_and(|(status, body)| status == 200 && body.contains("true"))
            }),
            within: Duration::from_secs(20),
        };
        let server = Server::start(plan, tempfile::tempdir().unwrap());
        Self { server, admin }
    }
}

impl Far for Etcd {
    fn source(&self) -> String {
        format!(
            "[[source]]\nkind = \"etcd\"\naddresses = [\"http://{}\"]\n",
            self.admin
        )
    }
    fn register(&mut self, address: &str) {
        let key = format!("/meshd/v1/services/default/words/{address}");
        let value = json!({"address": format!("{address}:{PORT}"), "protocol": "http"});
        let body = json!({
            "key": BASE64.encode(key.as_bytes()),
            "value": BASE64.encode(value.to_string().as_bytes()),
        });
        told(self.admin, "POST", "/v3/kv/put", &[], &body.to_string());
    }
    fn server(&mut self) -> &mut Server {
        &mut self.server
    }
}
