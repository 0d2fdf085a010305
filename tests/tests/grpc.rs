//! gRPC through two intercepting daemons: the published interoperability cases, straight and while a route splits
//! and retries, and Python's client and server.

#![allow(
    clippy::tests_outside_test_module,
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs,
    reason = "a file of tests"
)]

use std::path::{Path, PathBuf};

use mesh_tests::{
    Child, Mesh, need,
    pair::{self, CLIENT, Offer, SERVER},
    peers::{self, GRPC, PYTHON, Python},
};

const OFFERS: [Offer; 5] = [
    Offer {
        name: "interop",
        port: 10000,
        protocol: "grpc",
    },
    Offer {
        name: "left",
        port: 10001,
        protocol: "grpc",
    },
    Offer {
        name: "right",
        port: 10002,
        protocol: "grpc",
    },
    Offer {
        name: "seen",
        port: 10003,
        protocol: "detect",
    },
    Offer {
        name: "python",
        port: 10004,
        protocol: "grpc",
    },
];

/// The cases that need no credentials of a cloud.
const CASES: [&str; 14] = [
    "empty_unary",
    "large_unary",
    "client_streaming",
    "server_streaming",
    "ping_pong",
    "empty_stream",
    "timeout_on_sleeping_server",
    "cancel_after_begin",
    "cancel_after_first_response",
    "status_code_and_message",
    "special_status_message",
    "custom_metadata",
    "unimplemented_method",
    "unimplemented_service",
];

/// Checks of our own client.
const CHECKS: [&str; 8] = [
    "unary",
    "large",
    "failures",
    "deadlines",
    "cancels",
    "talk",
    "streams",
    "beside",
];

const SPLIT: &str = r#"
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: interop}
spec:
  parentRefs: [{group: "", kind: Service, name: interop, port: 10000}]
  rules:
    - backendRefs:
        - {name: left, port: 10001, weight: 50}
        - {name: right, port: 10002, weight: 50}
      retry: {attempts: 3, codes: [500, 502, 503, 504]}
"#;

fn stage() -> (Mesh, PathBuf, Python) {
    let mut peer = None;
    let mesh = pair::mesh(&OFFERS, |mesh| {
        let folder = peers::copied(GRPC, mesh.directory.path())?;
        let python = Python::new(mesh.directory.path())?;
        let host = mesh.host(0);
        for (index, offer) in OFFERS.iter().enumerate().take(4) {
            let uid = SERVER + u32::try_from(index)?;
            let mut command = host.command_as(uid, folder.join("server"));
            command.arg(format!("--port={}", offer.port));
            let child = Child::start(offer.name, &mut command, &host.log_path(offer.name))?;
            host.keep(child);
        }
        python.serve(host, "grpc_server.py", &["10004"])?;
        peer = Some((folder.join("client"), python));
        Ok(())
    });
    let (client, python) = peer.unwrap();
    (mesh.unwrap(), client, python)
}

/// Runs every case against a service.
fn all_cases(mesh: &Mesh, client: &Path, name: &str, port: u16) {
    let mut failed = Vec::new();
    for case in CASES {
        let output = mesh.hosts[1]
            .command_as(CLIENT, "timeout")
            .arg("60")
            .arg(client)
            .arg(format!("--server_host={name}"))
            .arg(format!("--server_port={port}"))
            .arg(format!("--test_case={case}"))
            .output()
            .unwrap();
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            failed.push(format!("{case}: {said}"));
        }
    }
    assert!(
        failed.is_empty(),
        "{name}: {} of {} cases failed:\n{}",
        failed.len(),
        CASES.len(),
        failed.join("\n")
    );
}

/// Requests that reached a service, by the count of the host that serves it.
fn requests(mesh: &Mesh, service: &str) -> u64 {
    let rows = mesh.hosts[0].ctl_json(&["stat"]).unwrap();
    let rows = rows.as_array().unwrap();
    let to = |row: &&serde_json::Value| {
        let destination = row["destination"].as_str();
        destination.is_some_and(|name| name.ends_with(service))
    };
    rows.iter()
        .filter(to)
        .filter_map(|row| row["requests"].as_u64())
        .sum()
}

#[test]
fn interoperability_cases_pass_through_the_mesh() {
    need!(namespaces);
    need!(root);
    need!(peer GRPC);
    need!(peer PYTHON);
    let (mesh, client, python) = stage();
    all_cases(&mesh, &client, "interop", 10000);
    all_cases(&mesh, &client, "seen", 10003);

    let mut arguments = vec!["python:10004"];
    arguments.extend(CHECKS);
    let said = python
        .ask(&mesh.hosts[1], "grpc_client.py", &arguments)
        .unwrap();
    assert_eq!(
        said.lines().filter(|line| line.starts_with("ok ")).count(),
        CHECKS.len(),
        "{said}"
    );

    // The same while a route splits over two servers and tries again.
    let file = mesh.directory.path().join("split.yaml");
    std::fs::write(&file, SPLIT).unwrap();
    mesh.hosts[0]
        .ctl(&["apply", "-f", &file.display().to_string(), "--wait", "all"])
        .unwrap();
    for _ in 0..3 {
        all_cases(&mesh, &client, "interop", 10000);
    }
    let (left, right) = (requests(&mesh, "left"), requests(&mesh, "right"));
    assert!(left > 5 && right > 5, "not split: {left} and {right}");
}
