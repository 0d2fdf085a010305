//! A Eureka server. It keeps nothing: it is empty after each start.

use std::{
    fs,
    net::{IpAddr, SocketAddr},
    path::Path,
    process::Command,
    time::Duration,
};

use serde_json::{Value, json};

use super::{Plan, Server, Started, authority, free_ports, http};
use crate::contract::Setup;

/// A Java program on a machine with other work.
const START: Duration = Duration::from_mins(2);

/// Starts a server that listens at `ip`. With a token, its password stands in its folder as `server-password`.
pub fn start(root: &Path, ip: IpAddr, setup: Setup) -> Started {
    let folder = super::folder();
    let [port, clear] = free_ports();
    let path = |name: &str| folder.path().join(name).display().to_string();
    let mut arguments = vec![
        format!("--server.port={port}"),
        format!("--server.address={ip}"),
        "--spring.main.banner-mode=off".into(),
        "--logging.level.root=warn".into(),
        "--eureka.client.register-with-eureka=false".into(),
        "--eureka.client.fetch-registry=false".into(),
        "--eureka.server.enable-self-preservation=false".into(),
        "--eureka.server.eviction-interval-timer-in-ms=500".into(),
        "--eureka.server.response-cache-update-interval-ms=100".into(),
    ];
    let mut admin = SocketAddr::new(ip, port);
    match setup {
        Setup::Token => {
            super::sure(fs::write(folder.path().join("server-password"), "first"));
            arguments.push(format!("--password.file={}", path("server-password")));
        }
        Setup::Tls => {
            super::sure(authority::write(folder.path()));
            admin = SocketAddr::new(ip, clear);
            arguments.push(format!("--plain.port={clear}"));
            for (key, file) in [
                ("certificate", "server.pem"),
                ("certificate-private-key", "server.key"),
            ] {
                arguments.push(format!("--server.ssl.{key}=file:{}", path(file)));
            }
        }
        Setup::Plain | Setup::Large => {}
    }
    let jar = root.join("eureka.jar");
    let plan = Plan {
        name: "eureka".into(),
        root: root.to_owned(),
        command: Box::new(move |_state| {
            let mut command = Command::new("java");
            command.args([
                "-Xmx320m",
                "-XX:TieredStopAtLevel=1",
                "-XX:+UseSerialGC",
                "-jar",
            ]);
            command.arg(&jar).args(&arguments);
            command
        }),
        ready: Box::new(move || {
            let fields = [("Accept", "application/json")];
            let asked = http(admin, "GET", "/eureka/apps", &fields, "");
            asked.is_ok_and(|(status, _)| matches!(status, 200 | 401))
        }),
        within: START,
    };
    Started {
        server: Server::start(plan, folder),
        admin,
        to: SocketAddr::new(ip, port),
    }
}

/// An instance as a client of Eureka writes it.
pub fn instance(
    id: &str,
    service: &str,
    (host, port): (&str, u16),
    healthy: bool,
    zone: &str,
) -> Value {
    json!({"instance": {
        "instanceId": id, "app": service.to_uppercase(),
        "hostName": host, "ipAddr": host, "vipAddress": service,
        "status": if healthy { "UP" } else { "DOWN" },
        "port": {"$": port, "@enabled": "true"}, "securePort": {"$": 443, "@enabled": "false"},
        "dataCenterInfo": {"@class": "com.netflix.appinfo.InstanceInfo$DefaultDataCenterInfo", "name": "MyOwn"},
        "leaseInfo": {"renewalIntervalInSecs": 30, "durationInSecs": 3600},
        "metadata": {"zone": zone},
    }})
}
