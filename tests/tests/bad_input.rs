//! Bad input gets a clear error and changes nothing.

#![allow(
    clippy::tests_outside_test_module,
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs,
    reason = "a file of tests"
)]

use std::time::Duration;

use mesh_tests::{Mesh, demo::Stage, eventually, host::Kind, need, process::say};

/// `meshd --check` of a configuration: exit code and what it says.
fn check(files: &[(&str, &str)]) -> (i32, String) {
    let directory = tempfile::tempdir().unwrap();
    for (name, text) in files {
        let path = directory.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
    let output = std::process::Command::new(mesh_tests::binary::built("meshd"))
        .arg("--config")
        .arg(directory.path().join("meshd.toml"))
        .arg("--check")
        .output()
        .unwrap();
    let text = format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    (output.status.code().unwrap(), text)
}

/// What is wrong, files with their text, words that the answer contains.
type Case<'a> = (&'a str, Vec<(&'a str, &'a str)>, &'a [&'a str]);

#[test]
fn faults_of_the_configuration_name_file_line_and_key() {
    let service = |name: &str, more: &str| format!("[[service]]\nname = \"{name}\"\n{more}");
    let web = service(
        "web",
        "user = 1000\nports = [{ port = 80, target = 8080 }]\n",
    );
    let clash = service(
        "other",
        "user = 1001\nports = [{ port = 80, target = 8080 }]\n",
    );
    let same_user = service(
        "other",
        "user = 1000\nports = [{ port = 81, target = 8081 }]\n",
    );
    let cases: [Case<'_>; 6] = [
        (
            "unknown key",
            vec![("meshd.toml", "\nstat_dir = \"/tmp/x\"\n")],
            &["meshd.toml:2", "stat_dir", "state_dir"],
        ),
        (
            "wrong type",
            vec![("meshd.toml", "workers = \"two\"\n")],
            &["meshd.toml:1", "workers"],
        ),
        (
            "listeners clash",
            vec![(
                "meshd.toml",
                "[listeners]\noutbound_port = 15001\ninbound_port = 15001\n",
            )],
            &["15001", "listeners"],
        ),
        (
            "services clash",
            vec![("services.d/a.toml", &web), ("services.d/b.toml", &clash)],
            &["b.toml", "8080"],
        ),
        (
            "users overlap",
            vec![
                ("services.d/a.toml", &web),
                ("services.d/b.toml", &same_user),
            ],
            &["b.toml", "1000"],
        ),
        (
            "no TOML",
            vec![("meshd.toml", "workers = = 2\n")],
            &["meshd.toml:1"],
        ),
    ];
    for (case, files, parts) in cases {
        let (code, text) = check(&files);
        assert_eq!(code, 1, "{case}: {text}");
        for part in parts {
            assert!(text.contains(part), "{case}: does not name {part}:\n{text}");
        }
    }
    let (code, text) = check(&[("meshd.toml", "workers = 2\n"), ("services.d/a.toml", &web)]);
    assert_eq!(code, 0, "{text}");
}

#[test]
fn faults_of_documents_are_refused_and_nothing_changes() {
    need!(namespaces);
    need!(root);
    let stage = Stage::set(Kind::Users, say).unwrap();
    stage.apply("split-10.yaml").unwrap();
    let host = stage.host(0).unwrap();
    let before = host.ctl_json(&["get", "HTTPRoute", "words"]).unwrap();
    let route = |spec: &str| {
        format!(
            "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {{name: words}}\nspec:\n  \
             parentRefs: [{{group: \"\", kind: Service, name: words}}]\n  rules:\n{spec}"
        )
    };
    let cases = [
        ("unknown key", route("    - backendRef: [{name: words, port: 80}]\n"), vec!["backendRef", "backendRefs"]),
        ("unknown service", route("    - backendRefs: [{name: wards, port: 80}]\n"), vec!["wards"]),
        ("weights of 0", route("    - backendRefs: [{name: words-v1, port: 80, weight: 0}, {name: words-v2, port: 80, weight: 0}]\n"), vec!["weight"]),
        ("no duration", route("    - backendRefs: [{name: words, port: 80}]\n      timeouts: {request: soon}\n"), vec!["timeouts", "soon"]),
        ("unknown kind", "apiVersion: v1\nkind: Servis\nmetadata: {name: x}\nspec: {}\n".to_owned(), vec!["Servis"]),
        ("broken table", "apiVersion: meshd.io/v1alpha1\nkind: DelegationTable\nmetadata: {name: words}\nspec: {dtab: \"/svc/words = /svc/x\"}\n".to_owned(), vec!["dtab"]),
    ];
    for (case, text, parts) in cases {
        let file = stage.mesh.directory.path().join("bad.yaml");
        std::fs::write(&file, &text).unwrap();
        let (code, out, error) = host
            .ctl_full(&["apply", "-f", &file.display().to_string()])
            .unwrap();
        assert_ne!(code, 0, "{case} was accepted: {out}");
        let said = format!("{out}{error}");
        for part in parts {
            assert!(said.contains(part), "{case}: does not name {part}:\n{said}");
        }
        let after = host.ctl_json(&["get", "HTTPRoute", "words"]).unwrap();
        assert_eq!(before, after, "{case} changed the route");
    }
    let answer = stage.client(&["get", "http://capitalizer/"]).unwrap();
    assert!(answer.starts_with("200"), "{answer}");
}

#[test]
fn a_bad_reload_keeps_the_last_good_configuration() {
    need!(namespaces);
    need!(root);
    let stage = Stage::set(Kind::Users, say).unwrap();
    let host = stage.host(0).unwrap();
    let good = std::fs::read_to_string(host.directory.join("etc/services.d/words.toml")).unwrap();
    host.configure(
        "services.d/words.toml",
        &good.replace("port = 80", "prt = 80"),
    )
    .unwrap();
    host.signal_meshd(nix::sys::signal::Signal::SIGHUP).unwrap();
    eventually("the finding", Duration::from_secs(30), || {
        let status = host.ctl_json(&["status"]).unwrap();
        let said = status["findings"].to_string();
        if said.contains("prt") {
            Ok(())
        } else {
            Err(said)
        }
    });
    stage
        .mesh
        .wait_endpoints(2, "words", 3, Duration::from_secs(30))
        .unwrap();
    host.configure("services.d/words.toml", &good).unwrap();
    host.signal_meshd(nix::sys::signal::Signal::SIGHUP).unwrap();
    eventually("the finding is gone", Duration::from_secs(30), || {
        let status = host.ctl_json(&["status"]).unwrap();
        let said = status["findings"].to_string();
        if said.contains("prt") {
            Err(said)
        } else {
            Ok(())
        }
    });
    the_access_log_follows_reloads(&stage);
}

/// It begins at a reload, a rotated file is left alone, and one that cannot be opened refuses the reload.
fn the_access_log_follows_reloads(stage: &Stage) {
    let host = stage.host(2).unwrap();
    let log = host.directory.join("access.log");
    let logs_to = |path: &std::path::Path| {
        let text = format!("[access_log]\ndestination = \"{}\"\n", path.display());
        host.configure("conf.d/log.toml", &text).unwrap();
        host.signal_meshd(nix::sys::signal::Signal::SIGHUP).unwrap();
    };
    let logged = |what: &str| {
        eventually(what, Duration::from_secs(30), || {
            stage.client(&["get", "http://capitalizer/"])?;
            let text = std::fs::read_to_string(&log)?;
            anyhow::ensure!(text.contains("default/capitalizer"), "{text}");
            anyhow::Ok(())
        });
    };
    logs_to(&log);
    logged("the log begins");
    std::fs::rename(&log, log.with_extension("1")).unwrap();
    logs_to(&log);
    logged("a new file takes the place of the one that was rotated away");
    let nowhere = host.directory.join("nowhere/access.log");
    logs_to(&nowhere);
    let place = nowhere.display().to_string();
    eventually("the reload is refused", Duration::from_secs(30), || {
        let said = host.ctl_json(&["status"]).unwrap()["findings"].to_string();
        if said.contains(&place) {
            Ok(())
        } else {
            Err(said)
        }
    });
    std::fs::write(&log, "").unwrap();
    logged("the log before goes on");
}

#[test]
fn tokens_and_state_directories_are_guarded() {
    need!(namespaces);
    need!(root);
    let mut mesh = Mesh::new(Kind::Users, 3).unwrap();
    for host in &mut mesh.hosts {
        let text = host.default_config("");
        host.configure("meshd.toml", &text).unwrap();
        host.start_meshd().unwrap();
    }
    mesh.host(0)
        .ctl(&["init", "--name", "demo", "--trust-domain", "demo.example"])
        .unwrap();
    let token = |mesh: &mut Mesh, ttl: &str| {
        mesh.host(0)
            .ctl(&["token", "create", "--ttl", ttl, "--uses", "1"])
            .unwrap()
    };
    let join = |mesh: &mut Mesh, index: usize, token: &str| {
        let path = mesh.directory.path().join("token");
        std::fs::write(&path, token).unwrap();
        mesh.host(index)
            .ctl_full(&["join", "--token-file", &path.display().to_string()])
            .unwrap()
    };

    // Wrong: a digit changed.
    let good = token(&mut mesh, "10m");
    let wrong: String = good
        .trim()
        .chars()
        .rev()
        .enumerate()
        .map(|(n, c)| {
            if n == 3 {
                if c == 'A' { 'B' } else { 'A' }
            } else {
                c
            }
        })
        .collect();
    let wrong: String = wrong.chars().rev().collect();
    let (code, out, error) = join(&mut mesh, 1, &wrong);
    assert_ne!(code, 0, "a wrong token was accepted: {out}{error}");
    assert_eq!(mesh.host(1).ctl_json(&["status"]).unwrap()["phase"], "idle");

    // Expired.
    let short = token(&mut mesh, "1s");
    eventually("the token's end", Duration::from_secs(30), {
        let begun = std::time::Instant::now();
        move || {
            if begun.elapsed() > Duration::from_millis(1500) {
                Ok(())
            } else {
                Err("not yet")
            }
        }
    });
    let (code, out, error) = join(&mut mesh, 1, &short);
    assert_ne!(code, 0, "an expired token was accepted");
    assert!(format!("{out}{error}").contains("expired"), "{out}{error}");

    // Used.
    let (code, out, error) = join(&mut mesh, 1, &good);
    assert_eq!(code, 0, "{out}{error}");
    let (code, out, error) = join(&mut mesh, 2, &good);
    assert_ne!(code, 0, "a used token was accepted");
    assert!(format!("{out}{error}").contains("used"), "{out}{error}");
    assert_eq!(mesh.host(2).ctl_json(&["status"]).unwrap()["phase"], "idle");

    // A second daemon on one state directory.
    let mut second = mesh.host(1).command(mesh_tests::binary::built("meshd"));
    let config = mesh.host(1).directory.join("second.toml");
    let other_run = mesh.host(1).directory.join("run2");
    std::fs::create_dir_all(&other_run).unwrap();
    let text = mesh.host(1).default_config("").replace(
        &mesh.host(1).directory.join("run").display().to_string(),
        &other_run.display().to_string(),
    );
    std::fs::write(&config, text).unwrap();
    let output = second
        .env("MESHD_CONFIG", &config)
        .env(
            "MESHD_MACHINE_ID_FILE",
            mesh.host(1).directory.join("machine-id"),
        )
        .output()
        .unwrap();
    assert!(!output.status.success());
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("state") && said.contains("another"), "{said}");

    // A copied state directory: another machine id.
    mesh.host(1).stop_meshd().unwrap();
    std::fs::write(
        mesh.host(1).directory.join("machine-id"),
        "ffffffffffffffffffffffffffffffff\n",
    )
    .unwrap();
    assert!(
        mesh.host(1).start_meshd().is_err()
            || mesh.host(1).ctl_json(&["status"]).unwrap()["phase"] == "idle"
    );
    let log = mesh.host(1).meshd_log();
    assert!(log.contains("--fresh"), "{log}");
}
