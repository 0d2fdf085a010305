//! Websockets through two daemons, between programs that are not ours: HTTP/1 and HTTP/2 (RFC 8441) on either side.

#![allow(
    clippy::tests_outside_test_module,
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs,
    reason = "a file of tests"
)]

use mesh_tests::{
    Mesh, need,
    pair::{self, Offer},
    peers::{PYTHON, Python},
};

const OFFERS: [Offer; 4] = [
    Offer {
        name: "chat",
        port: 8091,
        protocol: "http",
    },
    Offer {
        name: "chat2",
        port: 8092,
        protocol: "http2",
    },
    Offer {
        name: "silent",
        port: 8093,
        protocol: "http2",
    },
    Offer {
        name: "seen",
        port: 8094,
        protocol: "detect",
    },
];

/// Checks of a client of HTTP/1 that every way must pass.
const OLD: [&str; 11] = [
    "sizes",
    "large",
    "fragments",
    "pings",
    "pinged",
    "closes",
    "breaks",
    "masking",
    "early",
    "refusals",
    "many",
];
/// Those of a client of HTTP/2.
const NEW: [&str; 8] = [
    "talks",
    "large",
    "fragments",
    "beside",
    "refusals",
    "ignored",
    "unknown",
    "taken_back",
];

fn stage() -> (Mesh, Python) {
    let mut python = None;
    let mesh = pair::mesh(&OFFERS, |mesh| {
        let made = Python::new(mesh.directory.path())?;
        let host = mesh.host(0);
        made.serve(host, "ws_server.py", &["8091"])?;
        made.serve(host, "ws_h2_server.py", &["8092", "announce"])?;
        made.serve(host, "ws_h2_server.py", &["8093", "silent"])?;
        made.serve(host, "ws_server.py", &["8094"])?;
        python = Some(made);
        Ok(())
    });
    (mesh.unwrap(), python.unwrap())
}

/// Runs checks on the calling host; each must say that it passed.
fn check(mesh: &Mesh, python: &Python, client: &str, authority: &str, checks: &[&str]) {
    let mut arguments = vec![authority];
    arguments.extend(checks);
    let said = python
        .ask(&mesh.hosts[1], client, &arguments)
        .unwrap_or_else(|error| panic!("{client} at {authority}: {error:#}"));
    let passed = said.lines().filter(|line| line.starts_with("ok ")).count();
    assert_eq!(passed, checks.len(), "{client} at {authority}:\n{said}");
}

#[test]
fn websockets_between_all_versions_of_http() {
    need!(namespaces);
    need!(root);
    need!(peer PYTHON);
    let (mesh, python) = stage();
    check(&mesh, &python, "ws_client.py", "chat:8091", &OLD);
    check(&mesh, &python, "ws_client.py", "seen:8094", &OLD);
    check(&mesh, &python, "ws_h2_client.py", "chat:8091", &NEW);
    // A program of HTTP/2 is asked by extended CONNECT, whoever calls.
    check(
        &mesh,
        &python,
        "ws_client.py",
        "chat2:8092",
        &["sizes", "large", "fragments", "pings", "many"],
    );
    let asked = NEW.map(|name| if name == "ignored" { "talks" } else { name });
    check(&mesh, &python, "ws_h2_client.py", "chat2:8092", &asked);
    // One that does not announce it is never asked.
    check(
        &mesh,
        &python,
        "ws_h2_client.py",
        "silent:8093",
        &["ignored"],
    );
    check(&mesh, &python, "ws_client.py", "silent:8093", &["left_out"]);

    // From outside the mesh, straight to the inbound listener.
    let address = format!("{}:8091", mesh.hosts[0].v4);
    for (client, checks) in [("ws_client.py", &OLD[..]), ("ws_h2_client.py", &NEW[..])] {
        let mut arguments = vec![address.as_str()];
        arguments.extend(checks);
        let said = python.ask_here(client, &arguments).unwrap();
        let passed = said.lines().filter(|line| line.starts_with("ok ")).count();
        assert_eq!(passed, checks.len(), "{client} from outside:\n{said}");
    }
}
