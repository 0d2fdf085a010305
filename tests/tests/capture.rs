//! Interception: what is installed, that it is kept, that it goes; bypass; ordinary names; TCP of all sorts.

#![allow(
    clippy::tests_outside_test_module,
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs,
    reason = "a file of tests"
)]

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    process::{Command, Stdio},
    time::Duration,
};

use mesh_tests::{
    Host,
    demo::{CLIENT, Stage},
    eventually,
    host::Kind,
    need,
    process::say,
};

fn with_tcp(host: &str, text: String) -> String {
    let tcp = "[[service]]\nname = \"echo\"\nuser = 5010\nports = [{ port = 9000, target = 9000, protocol = \"tcp\" }]\n\
               [[service]]\nname = \"greeting\"\nuser = 5011\nports = [{ port = 9001, target = 9001 }]\n";
    if host == "h1" && text.contains("capitalizer") {
        format!("{text}{tcp}")
    } else {
        text
    }
}

fn rules(host: &Host) -> String {
    host.sh("nft list ruleset").unwrap_or_default()
}

/// A netcat of the client's: dials through the mesh.
fn dial(host: &Host, name: &str, port: u16) -> Command {
    let mut command = host.command_as(CLIENT, "socat");
    command.args(["-t", "20", "-", &format!("TCP:{name}:{port}")]);
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit());
    command
}

#[test]
fn tcp_of_all_sorts_goes_through() {
    need!(namespaces);
    need!(root);
    let mut stage = Stage::set_with(Kind::Users, say, &[], &with_tcp).unwrap();
    stage.mesh.host(0).start_app(5010, &["echo-tcp"]).unwrap();
    stage
        .mesh
        .host(0)
        .start_app(5011, &["greeting-tcp", "--listen", "[::]:9001"])
        .unwrap();
    stage
        .mesh
        .wait_endpoints(2, "echo", 1, Duration::from_secs(30))
        .unwrap();
    stage
        .mesh
        .wait_endpoints(2, "greeting", 1, Duration::from_secs(30))
        .unwrap();
    let client = stage.host(2).unwrap();

    // Half-close: everything sent comes back after the sender has closed its half.
    let mut child = dial(client, "echo", 9000).spawn().unwrap();
    let sent: Vec<u8> = (0..4_000_000_u32).map(|n| (n % 251) as u8).collect();
    let mut input = child.stdin.take().unwrap();
    let copy = sent.clone();
    let writer = std::thread::spawn(move || {
        input.write_all(&copy).unwrap();
    });
    let mut back = Vec::new();
    child.stdout.take().unwrap().read_to_end(&mut back).unwrap();
    writer.join().unwrap();
    child.wait().unwrap();
    assert_eq!(back.len(), sent.len());
    assert!(back == sent, "the bytes differ");

    // The server speaks first, and sees the client's own address.
    let mut child = dial(client, "greeting", 9001).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap())
        .read_line(&mut line)
        .unwrap();
    drop(child.stdin.take());
    child.wait().unwrap();
    assert_eq!(
        line.trim(),
        format!("hello {}", client.v4),
        "the client's address was not kept"
    );

    // In plaintext from outside the mesh too, IPv4 and IPv6.
    let (v4, v6) = {
        let host = stage.host(0).unwrap();
        (host.v4, host.v6)
    };
    for (target, source) in [
        (format!("TCP:{v4}:9001"), "10.77.0.254".to_owned()),
        (format!("TCP6:[{v6}]:9001"), "fd77::fe".to_owned()),
    ] {
        let output = Command::new("socat")
            .args(["-t", "2", "-T", "2", "-", &target])
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert_eq!(
            text.lines().next().unwrap_or_default(),
            format!("hello {source}"),
            "{target}: {output:?}"
        );
    }
}

#[test]
fn rules_are_kept_and_go() {
    need!(namespaces);
    need!(root);
    let mut stage = Stage::set(Kind::Users, say).unwrap();
    let host = stage.host(2).unwrap();
    let installed = rules(host);
    assert!(installed.contains("table inet meshd "), "{installed}");
    assert!(installed.contains("meshd_fallback"), "{installed}");

    // Somebody removes the rule and the route: they come back.
    let rule_lines = |host: &Host| host.sh("ip rule").unwrap();
    let route_lines = |host: &Host| host.sh("ip route show table all").unwrap();
    let (rules_before, routes_before) = (rule_lines(host), route_lines(host));
    assert!(routes_before.contains("240.240.0.0/16"), "{routes_before}");
    let route = routes_before
        .lines()
        .find(|line| line.contains("240.240.0.0/16"))
        .unwrap()
        .to_owned();
    host.sh(&format!(
        "ip route del {}",
        route.split(" proto").next().unwrap()
    ))
    .unwrap();
    for line in rules_before.lines().filter(|line| line.contains("fwmark")) {
        let priority = line.split(':').next().unwrap();
        host.sh(&format!("ip rule del priority {priority}"))
            .unwrap();
    }
    eventually("rule and route are back", Duration::from_secs(30), || {
        let seen = (rule_lines(host), route_lines(host));
        if seen.0 == rules_before && seen.1.contains("240.240.0.0/16") {
            Ok(())
        } else {
            Err(format!("{seen:?}"))
        }
    });
    let answer = stage.client(&["get", "http://words/"]).unwrap();
    assert!(answer.starts_with("200"), "{answer}");

    let (_, said, _) = stage.host(2).unwrap().ctl_full(&["check"]).unwrap();
    assert!(said.contains("registered ports are captured"), "{said}");

    // Nobody else can delete the owner table.
    assert!(
        stage
            .host(2)
            .unwrap()
            .sh("nft delete table inet meshd")
            .is_err()
    );

    // Bypass: nothing of ours is left in the kernel, with the daemon alive and dead.
    let host = stage.host(2).unwrap();
    host.ctl(&["bypass"]).unwrap();
    eventually("nothing is captured", Duration::from_secs(30), || {
        let text = rules(host);
        if text.contains("meshd") {
            Err(text)
        } else {
            Ok(())
        }
    });
    assert_eq!(host.ctl_json(&["status"]).unwrap()["phase"], "bypassed");
    host.ctl(&["unbypass"]).unwrap();
    eventually("captured again", Duration::from_secs(30), || {
        let answer = stage
            .client(&["get", "http://words/"])
            .map_err(|error| format!("{error:#}"))?;
        if rules(host).contains("table inet meshd ") && answer.starts_with("200") {
            Ok(())
        } else {
            Err(answer)
        }
    });

    // Stopped: the owner table is gone, the fallback carries on.
    stage.mesh.host(2).stop_meshd().unwrap();
    let left = rules(stage.host(2).unwrap());
    assert!(!left.contains("table inet meshd "), "{left}");
    let answer = stage.client(&["get", "http://words/"]).unwrap();
    assert!(answer.starts_with("200"), "{answer}");

    // Bypass with the daemon dead removes the fallback too.
    let host = stage.host(2).unwrap();
    host.ctl(&["bypass"]).unwrap();
    let text = rules(host);
    assert!(!text.contains("meshd"), "{text}");
    let routes = route_lines(host);
    assert!(!routes.contains("240.240.0.0/16"), "{routes}");
    host.ctl(&["unbypass"]).unwrap();
    stage.mesh.host(2).start_meshd().unwrap();
    eventually("captured after a restart", Duration::from_secs(30), || {
        let answer = stage
            .client(&["get", "http://words/"])
            .map_err(|error| format!("{error:#}"))?;
        if answer.starts_with("200") {
            Ok(())
        } else {
            Err(answer)
        }
    });
    out_in_spite_of_everything(stage.host(2).unwrap());
}

/// Bypass beside a daemon that hangs, and with a configuration that has faults.
fn out_in_spite_of_everything(host: &Host) {
    eventually("its table is there", Duration::from_secs(30), || {
        let text = rules(host);
        if text.contains("table inet meshd ") {
            Ok(())
        } else {
            Err(text)
        }
    });
    host.signal_meshd(nix::sys::signal::Signal::SIGSTOP)
        .unwrap();
    let (code, out, said) = host
        .ctl_full(&["-o", "json", "--timeout", "2s", "bypass"])
        .unwrap();
    assert_eq!(code, 1, "{out}{said}");
    assert!(said.contains("systemctl kill -s KILL meshd"), "{said}");
    assert!(said.contains("bypass-failed"), "{said}");
    host.signal_meshd(nix::sys::signal::Signal::SIGKILL)
        .unwrap();
    host.configure("conf.d/faults.toml", "nonsense = 1\n")
        .unwrap();
    let (code, out, said) = host.ctl_full(&["bypass"]).unwrap();
    assert_eq!(code, 0, "{out}{said}");
    assert!(out.contains("until `meshctl unbypass`"), "{out}");
    assert!(
        said.contains("faults.toml:1") && said.contains("nonsense"),
        "{said}"
    );
    let text = rules(host);
    assert!(!text.contains("meshd"), "{text}");
}

#[test]
fn a_port_that_sshd_listens_on_is_never_captured() {
    need!(namespaces);
    need!(root);
    // A program of that name that listens on the registered port, as sshd would.
    let ssh = |host: &str, text: String| {
        if host == "h1" && text.contains("capitalizer") {
            format!(
                "{text}[[service]]\nname = \"shell\"\nports = [{{ port = 2222, target = 22, protocol = \"tcp\" }}]\n"
            )
        } else {
            text
        }
    };
    let stage = Stage::set_with(Kind::Users, say, &[], &ssh).unwrap();
    let host = stage.host(0).unwrap();
    let text = rules(host);
    assert!(text.contains("8080"), "{text}");
    assert!(
        !text.contains(". 22 ") && !text.contains(". 22,") && !text.contains(" 22 }"),
        "port 22 is captured:\n{text}"
    );
}
