//! HTTP/1.1, HTTP/2 with prior knowledge, the explicit listener, metrics and the access log, seen by
//! programs that are not ours: curl and nghttpd.

#![allow(
    clippy::tests_outside_test_module,
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs,
    reason = "a file of tests"
)]

use std::time::Duration;

use mesh_tests::{
    Child, Host,
    demo::{CLIENT, Stage},
    eventually,
    host::Kind,
    need,
    process::say,
};

fn curl(host: &Host, arguments: &[&str]) -> String {
    let mut command = host.command_as(CLIENT, "curl");
    let output = command
        .args(["-sS", "--max-time", "30"])
        .args(arguments)
        .output()
        .unwrap();
    format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

fn explicit(host: &str, text: String) -> String {
    let h2 = "[[service]]\nname = \"files\"\nuser = 5020\nports = [{ port = 8090, target = 8090, protocol = \"http2\" }]\n";
    if host == "h1" && text.contains("capitalizer") {
        format!("{text}{h2}")
    } else {
        text
    }
}

#[test]
fn http_in_both_versions_and_by_the_explicit_listener() {
    need!(namespaces);
    need!(root);
    let mut stage = Stage::set_with(Kind::Users, say, &[], &explicit).unwrap();
    let root = stage.mesh.directory.path().join("files");
    std::fs::create_dir_all(&root).unwrap();
    let body: String = (0..400_000)
        .map(|n| char::from(b'a' + u8::try_from(n % 26).unwrap()))
        .collect();
    std::fs::write(root.join("big.txt"), &body).unwrap();
    {
        let host = stage.mesh.host(0);
        let mut command = host.command("nghttpd");
        command
            .args(["--no-tls", "--echo-upload", "-d"])
            .arg(&root)
            .arg("8090");
        let child = Child::start("nghttpd", &mut command, &host.log_path("nghttpd")).unwrap();
        host.keep(child);
    }
    stage
        .mesh
        .wait_endpoints(2, "files", 1, Duration::from_secs(30))
        .unwrap();
    let client = stage.host(2).unwrap();

    // HTTP/2 with prior knowledge: a large answer, and an upload that comes back.
    let answer = eventually("an HTTP/2 answer", Duration::from_secs(30), || {
        let text = curl(
            client,
            &[
                "--http2-prior-knowledge",
                "-o",
                "-",
                "http://files:8090/big.txt",
            ],
        );
        if text.len() >= body.len() {
            Ok(text)
        } else {
            Err(text.chars().take(300).collect::<String>())
        }
    });
    assert!(answer == body, "the large body differs");
    let version = curl(
        client,
        &[
            "--http2-prior-knowledge",
            "-o",
            "/dev/null",
            "-w",
            "%{http_version} %{http_code}",
            "http://files:8090/big.txt",
        ],
    );
    assert_eq!(version, "2 200");
    let upload = stage.mesh.directory.path().join("upload");
    std::fs::write(&upload, &body).unwrap();
    let echoed = curl(
        client,
        &[
            "--http2-prior-knowledge",
            "-X",
            "POST",
            "--data-binary",
            &format!("@{}", upload.display()),
            "http://files:8090/echo",
        ],
    );
    assert!(
        echoed == body,
        "the upload did not come back whole: {} bytes",
        echoed.len()
    );

    // HTTP/1.1 with Expect: 100-continue and a chunked upload.
    let continued = curl(
        client,
        &[
            "-H",
            "Expect: 100-continue",
            "-d",
            "x=1",
            "-o",
            "/dev/null",
            "-w",
            "%{http_code}",
            "http://words/",
        ],
    );
    assert_eq!(continued, "200");
    let chunked = curl(
        client,
        &[
            "-H",
            "Transfer-Encoding: chunked",
            "--data-binary",
            &format!("@{}", upload.display()),
            "-o",
            "/dev/null",
            "-w",
            "%{http_code}",
            "http://words/",
        ],
    );
    assert_eq!(chunked, "200");
    let head = curl(
        client,
        &[
            "-I",
            "-o",
            "/dev/null",
            "-w",
            "%{http_code}",
            "http://words/",
        ],
    );
    assert_eq!(head, "200");

    // Metrics name source, destination and class; the control state and the sources are there.
    let page = eventually("metrics of the calls", Duration::from_secs(30), || {
        let page = curl(client, &["http://127.0.0.1:15020/metrics"]);
        let line = page.lines().find(|line| {
            line.starts_with("mesh_proxy_requests_total")
                && line.contains("words")
                && line.contains("client")
                && !line.ends_with(" 0")
        });
        if line.is_some() {
            Ok(page.clone())
        } else {
            Err(page.clone())
        }
    });
    for name in [
        "mesh_cluster_hosts",
        "mesh_cluster_commits",
        "mesh_proxy_request_duration_seconds_bucket",
        "mesh_identity_first_expiry_seconds",
    ] {
        assert!(page.contains(name), "no {name} in:\n{page}");
    }
}

#[test]
fn ordinary_names_resolve_as_before() {
    need!(namespaces);
    need!(root);
    let stage = Stage::set(Kind::Users, say).unwrap();
    let client = stage.host(2).unwrap();
    // A name of the mesh, and one that is none: without an upstream it is refused, not invented.
    let mesh = client.sh("getent hosts words.mesh.internal").unwrap();
    assert!(
        mesh.contains("240.240.") || mesh.contains("fd6d:"),
        "{mesh}"
    );
    assert!(client.sh("getent hosts localhost").is_ok());
    assert!(client.sh("getent hosts example.org").is_err());
    let unknown = client.sh("getent hosts nosuch.mesh.internal");
    assert!(unknown.is_err(), "{unknown:?}");
}
