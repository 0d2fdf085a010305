//! TLS that the mesh passes on unopened: led by its server name (TLSRoute), inside a port of its own, and beside
//! HTTP on a port whose protocol is detected. Clients and servers are not ours.

#![allow(
    clippy::tests_outside_test_module,
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs,
    reason = "a file of tests"
)]

use std::{path::Path, time::Duration};

use mesh_tests::{
    Mesh, eventually, need,
    pair::{self, CLIENT, Offer},
    peers::{PYTHON, Python},
    process::run,
};

const OFFERS: [Offer; 4] = [
    Offer {
        name: "secure",
        port: 8443,
        protocol: "tcp",
    },
    Offer {
        name: "left",
        port: 8444,
        protocol: "tcp",
    },
    Offer {
        name: "right",
        port: 8445,
        protocol: "tcp",
    },
    Offer {
        name: "seen",
        port: 8446,
        protocol: "detect",
    },
];

const ROUTES: &str = r#"
apiVersion: gateway.networking.k8s.io/v1
kind: TLSRoute
metadata: {name: left}
spec:
  parentRefs: [{group: "", kind: Service, name: secure, port: 8443}]
  hostnames: [left.example]
  rules: [{backendRefs: [{name: left, port: 8444}]}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: TLSRoute
metadata: {name: right}
spec:
  parentRefs: [{group: "", kind: Service, name: secure, port: 8443}]
  hostnames: ["*.right.example"]
  rules: [{backendRefs: [{name: right, port: 8445}]}]
"#;

fn certificate(folder: &Path) -> (String, String) {
    let (certificate, key) = (folder.join("tls.pem"), folder.join("tls.key"));
    let (certificate, key) = (certificate.display().to_string(), key.display().to_string());
    run(&[
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-nodes",
        "-days",
        "2",
        "-subj",
        "/CN=test",
        "-keyout",
        &key,
        "-out",
        &certificate,
    ])
    .unwrap();
    (certificate, key)
}

fn stage() -> Mesh {
    let mesh = pair::mesh(&OFFERS, |mesh| {
        let python = Python::new(mesh.directory.path())?;
        let (certificate, key) = certificate(mesh.directory.path());
        let host = mesh.host(0);
        for Offer { name, port, .. } in OFFERS {
            let port = port.to_string();
            python.serve(host, "tls_server.py", &[&port, &certificate, &key, name])?;
        }
        Ok(())
    });
    mesh.unwrap()
}

/// What curl gets from a name at a service's port: the body, or its exit code.
fn ask(mesh: &Mesh, name: &str, service: &str, port: u16, more: &[&str]) -> Result<String, i32> {
    let output = mesh.hosts[1]
        .command_as(CLIENT, "curl")
        .args([
            "-sSk",
            "--max-time",
            "20",
            "--connect-to",
            &format!("::{service}:{port}"),
        ])
        .args(more)
        .arg(format!("https://{name}/"))
        .output()
        .unwrap();
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    } else {
        Err(output.status.code().unwrap_or(-1))
    }
}

#[test]
fn server_names_lead_the_way() {
    need!(namespaces);
    need!(root);
    need!(peer PYTHON);
    let mesh = stage();
    // No route yet: bytes are bytes, whatever name they carry.
    assert_eq!(
        ask(&mesh, "left.example", "secure", 8443, &[]).as_deref(),
        Ok("secure for left.example")
    );
    assert_eq!(
        ask(&mesh, "any.example", "seen", 8446, &[]).as_deref(),
        Ok("seen for any.example")
    );

    let file = mesh.directory.path().join("routes.yaml");
    std::fs::write(&file, ROUTES).unwrap();
    mesh.hosts[0]
        .ctl(&["apply", "-f", &file.display().to_string(), "--wait", "all"])
        .unwrap();
    eventually("the routes act", Duration::from_secs(30), || {
        match ask(&mesh, "left.example", "secure", 8443, &[]) {
            Ok(text) if text == "left for left.example" => Ok(()),
            other => Err(format!("{other:?}")),
        }
    });
    for (name, wanted) in [
        ("LEFT.example", "left for left.example"),
        ("a.right.example", "right for a.right.example"),
        ("a.b.right.example", "right for a.b.right.example"),
    ] {
        assert_eq!(
            ask(&mesh, name, "secure", 8443, &[]).as_deref(),
            Ok(wanted),
            "{name}"
        );
        assert_eq!(
            ask(&mesh, name, "secure", 8443, &["--tls-max", "1.2"]).as_deref(),
            Ok(wanted),
            "{name}"
        );
    }
    // Refused before the handshake, by a reset and no alert (35: the handshake failed).
    for name in [
        "right.example",
        "other.example",
        "x.left.example",
        "192.0.2.7",
    ] {
        assert_eq!(ask(&mesh, name, "secure", 8443, &[]), Err(35), "{name}");
    }
    let alert = mesh.hosts[1]
        .command_as(CLIENT, "curl")
        .args([
            "-sSkv",
            "--max-time",
            "20",
            "--connect-to",
            "::secure:8443",
            "https://other.example/",
        ])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&alert.stderr).into_owned();
    assert!(said.contains("reset") && !said.contains("Alert"), "{said}");
    // Other ports of the same programs are as before.
    assert_eq!(
        ask(&mesh, "other.example", "left", 8444, &[]).as_deref(),
        Ok("left for other.example")
    );
}
