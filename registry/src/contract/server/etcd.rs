//! An etcd of one member.

use std::{
    net::{IpAddr, SocketAddr},
    path::Path,
    process::Command,
    time::Duration,
};

use super::{Plan, Server, Started, authority, free_ports, http};
use crate::contract::Setup;

/// Starts a member that listens at `ip`. Users are the test's own work.
pub fn start(root: &Path, ip: IpAddr, setup: Setup) -> Started {
    let folder = super::folder();
    let [web, tls, peer] = free_ports();
    let with_tls = setup == Setup::Tls;
    if with_tls {
        super::sure(authority::write(folder.path()));
    }
    let certificate = |name: &str| folder.path().join(name).display().to_string();
    let (pem, key) = (certificate("server.pem"), certificate("server.key"));
    let program = root.join("usr/bin/etcd");
    let admin = SocketAddr::new(ip, web);
    let secured = SocketAddr::new(ip, tls);
    let plan = Plan {
        name: "etcd".into(),
        root: root.to_owned(),
        command: Box::new(move |state| {
            let near = format!("http://{admin}");
            let between = format!("http://127.0.0.1:{peer}");
            let mut listen = near.clone();
            let mut command = Command::new(&program);
            if with_tls {
                listen = format!("{near},https://{secured}");
                command.args(["--cert-file", &pem, "--key-file", &key]);
            }
            command.args(["--name", "lab", "--log-level", "warn", "--unsafe-no-fsync"]);
            command.arg("--data-dir").arg(state.join("etcd"));
            for (key, value) in [
                ("--listen-client-urls", &listen),
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
    Started {
        server: Server::start(plan, folder),
        admin,
        to: if with_tls { secured } else { admin },
    }
}
