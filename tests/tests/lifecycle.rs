//! Hosts come, go, come back: discovery from files, blocked ports, wrong clocks, damaged keys, backups,
//! goodbyes.

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
    Mesh,
    demo::{CLIENT, Stage},
    eventually,
    host::Kind,
    need,
    process::say,
};

/// Three idle daemons, the first of them in a mesh of its own.
fn founded() -> Mesh {
    let mut mesh = Mesh::new(Kind::Users, 3).unwrap();
    for host in &mut mesh.hosts {
        let text = host.default_config("");
        host.configure("meshd.toml", &text).unwrap();
        host.start_meshd().unwrap();
    }
    mesh.host(0)
        .ctl(&["init", "--name", "demo", "--trust-domain", "demo.example"])
        .unwrap();
    mesh
}

fn join(mesh: &mut Mesh, index: usize) -> (i32, String) {
    let token = mesh
        .host(0)
        .ctl(&["token", "create", "--ttl", "10m", "--uses", "1"])
        .unwrap();
    let path = mesh.directory.path().join("token");
    std::fs::write(&path, token).unwrap();
    let (code, out, error) = mesh
        .host(index)
        .ctl_full(&["join", "--token-file", &path.display().to_string()])
        .unwrap();
    (code, format!("{out}{error}"))
}

/// A folder whose files name services, and the settings of a host that reads and publishes it.
fn file_source(mesh: &Mesh) -> (std::path::PathBuf, String) {
    let folder = mesh.directory.path().join("registry");
    std::fs::create_dir_all(&folder).unwrap();
    let more = format!(
        "[[source]]\nid = \"file/test\"\nkind = \"file\"\ndirectory = \"{}\"\npublish = true\n",
        folder.display()
    );
    (folder, more)
}

#[test]
fn services_of_a_file_are_routable_everywhere_and_never_emptied_by_garbage() {
    need!(namespaces);
    need!(root);
    let mut stage = Stage::set(Kind::Users, say).unwrap();
    let (folder, more) = file_source(&stage.mesh);
    // A plain program on h2 that no daemon knows of, but the file does.
    stage
        .mesh
        .host(1)
        .start_app(
            5030,
            &["words", "--version", "v2", "--listen", "0.0.0.0:8123"],
        )
        .unwrap();
    let h1 = stage.host(0).unwrap();
    h1.configure("conf.d/registry.toml", &more).unwrap();
    let address = stage.host(1).unwrap().v4;
    let write = |text: &str| {
        std::fs::write(folder.join("next"), text).unwrap();
        std::fs::rename(folder.join("next"), folder.join("legacy.toml")).unwrap();
    };
    let good = format!(
        "[[service]]\nname = \"legacy\"\nport = 80\nprotocol = \"http\"\nendpoint = [{{ address = \"{address}:8123\" }}]\n"
    );
    write(&good);
    h1.signal_meshd(nix::sys::signal::Signal::SIGHUP).unwrap();
    stage
        .mesh
        .wait_endpoints(2, "legacy", 1, Duration::from_secs(30))
        .unwrap();
    eventually("the first call", Duration::from_secs(30), || {
        let answer = stage.client(&["get", "http://legacy/"])?;
        let right = answer.starts_with("200") && answer.contains("\nz");
        anyhow::ensure!(right, "{answer}");
        anyhow::Ok(())
    });

    // Garbage keeps the last good content and is told.
    write("[[service]\nname = ");
    eventually("the finding", Duration::from_secs(30), || {
        let status = stage.host(0).unwrap().ctl_json(&["status"]).unwrap();
        let said = status["findings"].to_string();
        if said.contains("legacy.toml") {
            Ok(())
        } else {
            Err(said)
        }
    });
    let answer = stage.client(&["get", "http://legacy/"]).unwrap();
    assert!(answer.starts_with("200"), "{answer}");
    write(&good);
    eventually("the finding is gone", Duration::from_secs(30), || {
        let status = stage.host(0).unwrap().ctl_json(&["status"]).unwrap();
        let said = status["findings"].to_string();
        if said.contains("legacy.toml") {
            Err(said)
        } else {
            Ok(())
        }
    });
}

#[test]
fn what_resolves_can_be_called_and_what_is_listed_too() {
    need!(namespaces);
    need!(root);
    let mut stage = Stage::set(Kind::Users, say).unwrap();
    let (folder, more) = file_source(&stage.mesh);
    let program = ["words", "--listen", "0.0.0.0:8123"];
    stage.mesh.host(1).start_app(5030, &program).unwrap();
    let address = stage.host(1).unwrap().v4;
    let h1 = stage.host(0).unwrap();
    h1.configure("conf.d/registry.toml", &more).unwrap();
    let write = |services: u32| {
        let all: Vec<String> = (0..services)
            .map(|number| {
                format!(
                    "[[service]]\nname = \"s{number}\"\nport = 80\nprotocol = \"http\"\n\
                     endpoint = [{{ address = \"{address}:8123\" }}]\n"
                )
            })
            .collect();
        std::fs::write(folder.join("next"), all.concat()).unwrap();
        std::fs::rename(folder.join("next"), folder.join("all.toml")).unwrap();
    };
    write(1);
    h1.signal_meshd(nix::sys::signal::Signal::SIGHUP).unwrap();
    let (client, listed) = (stage.host(2).unwrap(), Duration::from_secs(20));
    for number in 0..12_u32 {
        write(number + 1);
        let name = format!("s{number}");
        let call = format!("curl -sS --fail --max-time 10 http://{name}/");
        if number % 2 == 0 {
            // curl ends with 6 while the name does not resolve; the first other end is a good one.
            let called = eventually("it resolves", listed, || match client.sh(&call) {
                Err(error) if error.to_string().contains("exit status: 6") => Err(error),
                other => Ok(other),
            });
            called.unwrap();
        } else {
            stage.mesh.wait_endpoints(2, &name, 1, listed).unwrap();
            client.sh(&call).unwrap();
        }
    }
}

#[test]
fn a_blocked_port_is_named_and_tcp_alone_is_enough() {
    need!(namespaces);
    need!(root);
    let mut mesh = founded();
    // Datagrams to and from h2 are lost; its tunnel cannot be reached from outside.
    let rules = mesh.directory.path().join("block.nft");
    let text = "table inet block {\n chain in {\n  type filter hook input priority 0;\n  udp dport 7947 drop\n  iif != \"lo\" tcp dport 15008 reject with tcp reset\n }\n chain out {\n  type filter hook output priority 0;\n  udp dport 7947 drop\n }\n}\n";
    std::fs::write(&rules, text).unwrap();
    mesh.host(1)
        .sh(&format!("nft -f {}", rules.display()))
        .unwrap();
    let (code, said) = join(&mut mesh, 1);
    say(&said);
    assert_eq!(code, 0, "{said}");
    assert!(
        said.contains("15008"),
        "the tunnel's port is not named: {said}"
    );
    assert!(said.contains("UDP"), "the datagrams are not named: {said}");
    let (code, said) = join(&mut mesh, 2);
    assert_eq!(code, 0, "{said}");
    mesh.wait_members(Duration::from_secs(30)).unwrap();
    eventually("check tells of UDP", Duration::from_secs(30), || {
        let (_, text, _) = mesh.host(0).ctl_full(&["check"]).unwrap();
        if text.contains("not on UDP") {
            Ok(())
        } else {
            Err(text)
        }
    });
}

/// A program on this host has the port; the daemon that wants it says so, and has made nothing.
fn refused_for_a_port(mesh: &mut Mesh, index: usize, taken: &str, arguments: &[&str]) {
    let host = mesh.host(index);
    let program = ["words", "--listen", taken];
    host.start_app(5030, &program).unwrap();
    eventually("the port is taken", Duration::from_secs(30), || {
        let listening = host.sh("ss -Hltn")?;
        anyhow::ensure!(listening.contains(taken), "{listening}");
        anyhow::Ok(())
    });
    let (code, out, error) = host.ctl_full(arguments).unwrap();
    let said = format!("{out}{error}");
    assert_eq!(code, 1, "{said}");
    let (_, port) = taken.rsplit_once(':').unwrap();
    assert!(said.contains(port), "{port} is not named: {said}");
    assert!(!host.directory.join("state/identity").exists());
    host.end_programs();
}

#[test]
fn what_the_daemon_cannot_open_is_told_before_a_mesh_is_made_or_a_token_spent() {
    need!(namespaces);
    need!(root);
    let mut mesh = Mesh::new(Kind::Users, 2).unwrap();
    let folder = mesh.host(0).directory.join("logs");
    let log = format!("[access_log]\ndestination = \"{}/log\"\n", folder.display());
    for (host, more) in mesh.hosts.iter_mut().zip([&*log, ""]) {
        let text = host.default_config(more);
        host.configure("meshd.toml", &text).unwrap();
        host.start_meshd().unwrap();
    }
    let init = ["init", "--name", "demo", "--trust-domain", "demo.example"];
    for taken in ["127.0.0.1:15001", "0.0.0.0:15008", "0.0.0.0:7947"] {
        refused_for_a_port(&mut mesh, 0, taken, &init);
    }
    // What is only seen at the start itself is taken back whole.
    let h1 = mesh.host(0);
    let (code, _, error) = h1.ctl_full(&init).unwrap();
    assert_eq!(code, 1, "{error}");
    assert!(error.contains("access log"), "{error}");
    assert!(!h1.directory.join("state/identity").exists());
    assert_eq!(h1.ctl_json(&["status"]).unwrap()["phase"], "idle");
    std::fs::create_dir(&folder).unwrap();
    h1.ctl(&init).unwrap();
    let token = h1
        .ctl(&["token", "create", "--ttl", "10m", "--uses", "1"])
        .unwrap();
    let path = mesh.directory.path().join("token");
    std::fs::write(&path, token).unwrap();
    let place = path.display().to_string();
    let join = ["join", "--token-file", &place];
    refused_for_a_port(&mut mesh, 1, "127.0.0.1:15001", &join);
    mesh.host(1).ctl(&join).unwrap();
}

#[test]
fn a_clock_that_is_off_by_a_day_is_told_and_nothing_changes() {
    need!(namespaces);
    need!(root);
    let mut mesh = founded();
    mesh.host(1).stop_meshd().unwrap();
    let preload = [
        "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1",
        "/usr/lib/aarch64-linux-gnu/faketime/libfaketimeMT.so.1",
    ]
    .into_iter()
    .find(|path| std::path::Path::new(path).exists())
    .unwrap();
    mesh.host(1)
        .start_meshd_with(&[
            ("LD_PRELOAD", preload),
            ("FAKETIME", "+1d"),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
        ])
        .unwrap();
    let (code, said) = join(&mut mesh, 1);
    assert_ne!(code, 0, "{said}");
    assert!(said.contains("clock"), "{said}");
    assert_eq!(mesh.host(1).ctl_json(&["status"]).unwrap()["phase"], "idle");
    assert!(!mesh.host(1).directory.join("state/identity").exists());
}

#[test]
fn damaged_keys_are_named_and_a_backup_restores_an_authority() {
    need!(namespaces);
    need!(root);
    let mut mesh = founded();
    let (code, said) = join(&mut mesh, 1);
    assert_eq!(code, 0, "{said}");
    let backup = mesh.directory.path().join("backup.json");
    mesh.host(0)
        .ctl(&["backup", "--file", &backup.display().to_string()])
        .unwrap();
    let mode =
        std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&backup).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
    // Beside a daemon that runs, idle as it is, nothing is restored.
    let place = backup.display().to_string();
    let (code, _, said) = mesh
        .host(2)
        .ctl_full(&["restore", "--file", &place])
        .unwrap();
    assert_eq!(code, 1, "{said}");
    assert!(said.contains("systemctl stop meshd"), "{said}");
    assert!(!mesh.host(2).directory.join("state/identity").exists());
    mesh.host(0).stop_meshd().unwrap();

    // A damaged key: the daemon says which file, and does not start.
    let key = mesh
        .host(0)
        .directory
        .join("state/identity/authority-x509.key");
    let good = std::fs::read(&key).unwrap();
    std::fs::write(&key, "no key").unwrap();
    assert!(mesh.host(0).start_meshd().is_err());
    let log = mesh.host(0).meshd_log();
    assert!(log.contains("authority-x509.key"), "{log}");
    std::fs::write(&key, good).unwrap();

    // The host is lost; its backup makes it whole.
    std::fs::remove_dir_all(mesh.host(0).directory.join("state")).unwrap();
    std::fs::create_dir_all(mesh.host(0).directory.join("state")).unwrap();
    mesh.host(0)
        .ctl(&["restore", "--file", &backup.display().to_string()])
        .unwrap();
    mesh.host(0).start_meshd().unwrap();
    eventually(
        "the restored host is back as an authority",
        Duration::from_secs(30),
        || {
            let members = mesh.host(1).ctl_json(&["members"]).unwrap();
            let back =
                members.as_array().unwrap().iter().any(|m| {
                    m["name"] == "h1" && m["liveness"] == "alive" && m["authority"] == true
                });
            if back {
                Ok(())
            } else {
                Err(members.to_string())
            }
        },
    );
    let (code, said) = join(&mut mesh, 2);
    assert_eq!(code, 0, "the restored authority lets nobody in: {said}");
}

#[test]
fn a_host_that_leaves_leaves_nothing() {
    need!(namespaces);
    need!(root);
    let mut stage = Stage::set(Kind::Users, say).unwrap();
    // The first host holds the root: without a backup of it no authority could be made any more.
    for arguments in [&["leave", "--dry-run"][..], &["leave"]] {
        let (code, _, error) = stage.host(0).unwrap().ctl_full(arguments).unwrap();
        assert_eq!(code, 1, "{arguments:?}: {error}");
        assert!(error.contains("root"), "{error}");
        assert!(error.contains("meshctl backup"), "{error}");
    }
    let h1 = stage.host(0).unwrap();
    assert!(h1.directory.join("state/identity/root.key").exists());
    assert_eq!(h1.ctl_json(&["status"]).unwrap()["phase"], "running");
    // The other authority may go, though it does not yet.
    let other = stage.host(1).unwrap();
    let (code, _, error) = other.ctl_full(&["leave", "--dry-run"]).unwrap();
    assert_eq!(code, 0, "{error}");
    stage.host(2).unwrap().ctl(&["leave"]).unwrap();
    let h3 = stage.host(2).unwrap();
    assert_eq!(h3.ctl_json(&["status"]).unwrap()["phase"], "idle");
    let rules = h3.sh("nft list ruleset").unwrap();
    assert!(!rules.contains("meshd"), "{rules}");
    let routes = h3.sh("ip route show table all").unwrap();
    assert!(!routes.contains("240.240.0.0/16"), "{routes}");
    assert!(!h3.directory.join("state/identity").exists());
    let limit = Duration::from_secs(30);
    stage.mesh.wait_unused(0, "words", "h3", limit).unwrap();
    // It can come back with a token.
    let token = stage
        .host(0)
        .unwrap()
        .ctl(&["token", "create", "--ttl", "10m"])
        .unwrap();
    stage
        .host(2)
        .unwrap()
        .ctl_with_input(&["join", "--token-file", "-"], token.trim())
        .unwrap();
    stage
        .mesh
        .wait_endpoints(0, "words", 3, Duration::from_secs(30))
        .unwrap();
    // The others know it before it knows all of them.
    eventually("its first call", Duration::from_secs(30), || {
        let mut curl = stage.mesh.host(2).command_as(CLIENT, "curl");
        curl.args(["-sS", "-o", "/dev/null", "-w", "%{http_code}"]);
        let output = curl.arg("http://words/").output()?;
        anyhow::ensure!(output.stdout == b"200", "{output:?}");
        anyhow::Ok(())
    });
}
