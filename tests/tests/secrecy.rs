//! No plaintext between hosts: a capture on the bridge holds none of the markers that a call carries, and
//! the same capture finds them when they are sent in the clear.

#![allow(
    clippy::tests_outside_test_module,
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs,
    reason = "a file of tests"
)]

use std::{process::Command, time::Duration};

use mesh_tests::{demo::Stage, eventually, host::Kind, need, process::say};

fn found(file: &std::path::Path, marker: &str) -> bool {
    let bytes = std::fs::read(file).unwrap();
    bytes
        .windows(marker.len())
        .any(|window| window == marker.as_bytes())
}

#[test]
fn calls_cross_the_bridge_encrypted() {
    need!(namespaces);
    need!(root);
    let stage = Stage::set(Kind::Users, say).unwrap();
    let markers: Vec<String> = (0..3)
        .map(|_| format!("{:016x}", fastrand::u64(..)))
        .collect();
    let [path, header, body] = markers.as_slice() else {
        panic!("three markers")
    };

    let secret = stage.mesh.directory.path().join("secret.pcap");
    let capture = stage.mesh.capture(&secret).unwrap();
    // h3 calls words, whose v1 instances are on other hosts, until every marker has crossed many times.
    for _ in 0..30 {
        let host = stage.host(2).unwrap();
        let mut curl = host.command_as(mesh_tests::demo::CLIENT, "curl");
        curl.args(["-sS", "-o", "/dev/null", "-w", "%{http_code}"])
            .args(["-H", &format!("x-marker: {header}"), "-d", body])
            .arg(format!("http://words/{path}"));
        let output = curl.output().unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stdout), "200", "{output:?}");
    }
    let tunnels = eventually(
        "packets to 15008 in the capture",
        Duration::from_secs(30),
        || {
            let text = Command::new("tcpdump")
                .args(["-nr"])
                .arg(&secret)
                .arg("tcp port 15008")
                .output()
                .unwrap();
            let lines = String::from_utf8_lossy(&text.stdout).lines().count();
            if lines > 20 {
                Ok(lines)
            } else {
                Err(format!("{lines} packets"))
            }
        },
    );
    drop(capture);
    assert!(tunnels > 20);
    for marker in &markers {
        assert!(
            !found(&secret, marker),
            "{marker} crossed the bridge in plaintext"
        );
    }

    // The control: the same markers without the mesh are found, so the search can find.
    let open = stage.mesh.directory.path().join("open.pcap");
    let capture = stage.mesh.capture(&open).unwrap();
    let words = stage.host(0).unwrap().v4;
    let answer = Command::new("curl")
        .args([
            "-sS",
            "-o",
            "/dev/null",
            "-H",
            &format!("x-marker: {header}"),
            "-d",
            body,
        ])
        .arg(format!("http://{words}:8080/{path}"))
        .status()
        .unwrap();
    assert!(answer.success());
    eventually("the markers in the clear", Duration::from_secs(30), || {
        let missing: Vec<_> = markers
            .iter()
            .filter(|marker| !found(&open, marker))
            .collect();
        if missing.is_empty() {
            Ok(())
        } else {
            Err(format!("{missing:?} not captured"))
        }
    });
    drop(capture);
}
