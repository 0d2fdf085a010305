//! A daemon that dies is not noticed: its programs go on directly, other hosts stop sending to it, it comes
//! back from disk; a service that is declared fail-closed is refused at once.

#![allow(
    clippy::tests_outside_test_module,
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs,
    reason = "a file of tests"
)]

use std::time::{Duration, Instant};

use mesh_tests::{
    Child, demo::Stage, eventually, host::Kind, need, process::say, remains::note, wait::Running,
};
use serde_json::Value;

fn json_of(child: &mut Child, deadline: Duration) -> Value {
    child.wait(deadline).unwrap();
    serde_json::from_str(child.log().trim())
        .unwrap_or_else(|error| panic!("{error}: {}", child.log()))
}

/// 500 calls a second from h3's client to words, of which many have been answered already.
fn under_load(stage: &Stage, count: &str) -> Child {
    let before = stage.calls_of_v2().unwrap();
    let words = ["load", "--url", "http://words/", "--count", count];
    let pace = ["--rate", "500", "--concurrency", "32", "--seconds", "30"];
    let mut command = stage.client_command(&words).unwrap();
    let log = stage.mesh.directory.path().join("load.log");
    let load = Child::start("load", command.args(pace), &log).unwrap();
    // Every third call is v2's: about 900 calls.
    eventually("calls under way", Duration::from_secs(30), || {
        let calls = stage.calls_of_v2().map_err(|error| format!("{error:#}"))? - before;
        if calls >= 300 {
            Ok(())
        } else {
            Err(format!("{calls} calls"))
        }
    });
    load
}

#[test]
fn a_killed_daemon_is_not_noticed() {
    need!(namespaces);
    need!(root);
    let closed = |host: &str, text: String| {
        if host == "h2" {
            text.replace(
                "name = \"simon\"\n",
                "name = \"simon\"\nfail_closed = true\n",
            )
        } else {
            text
        }
    };
    let mut stage = Stage::set_with(Kind::Users, say, &[], &closed).unwrap();
    // 500 requests/s from h3's client to words, for 12 s, while h3's own daemon is killed and comes back.
    let mut load = under_load(&stage, "6000");
    stage.mesh.host(2).kill_meshd().unwrap();

    // New calls go on directly: names, balance and all.
    let text = stage.client(&["get", "http://words/"]).unwrap();
    assert!(text.starts_with("200"), "{text}");

    // A fail-closed service is refused at once, not after a time-out.
    let asked = Running::now();
    let refused = stage
        .client_command(&["get", "http://simon/"])
        .unwrap()
        .output()
        .unwrap();
    assert!(
        !refused.status.success(),
        "a fail-closed service answered: {refused:?}"
    );
    assert!(
        asked.elapsed() < Duration::from_secs(2),
        "refused only after {:?}",
        asked.elapsed()
    );

    // The others stop sending to its tunnel.
    let started = Instant::now();
    let limit = Duration::from_secs(5);
    stage.mesh.wait_unused(0, "words", "h3", limit).unwrap();
    say(&format!(
        "h1 stopped using h3 after {:?}",
        started.elapsed()
    ));

    // It comes back from disk at once, and is whole within 5 s.
    let started = Instant::now();
    stage.mesh.host(2).start_meshd().unwrap();
    eventually(
        "h3 serves again through the mesh",
        Duration::from_secs(5),
        || {
            let answer =
                stage
                    .host(2)
                    .unwrap()
                    .ctl_json(&["curl", "--as", "client", "http://words/"]);
            match answer {
                Ok(answer) if answer["status"] == 200 => Ok(()),
                Ok(answer) => Err(answer.to_string()),
                Err(error) => Err(format!("{error:#}")),
            }
        },
    );
    say(&format!("h3 served again after {:?}", started.elapsed()));
    stage.mesh.wait_members(Duration::from_secs(5)).unwrap();
    stage
        .mesh
        .wait_endpoints(0, "words", 3, Duration::from_secs(5))
        .unwrap();

    let counts = json_of(&mut load, Duration::from_mins(1));
    let failed = counts["failed"].as_u64().unwrap();
    say(&format!(
        "{} requests at 500/s, {failed} failed when the daemon was killed: {counts}",
        counts["requests"]
    ));
    // No more than what was in flight: one per concurrent caller.
    note(&counts);
    assert!(failed <= 32, "{failed} failed: {counts}");
    assert_eq!(counts["requests"].as_u64().unwrap(), 6000, "{counts}");
}

#[test]
fn a_restart_withdraws_nothing() {
    need!(namespaces);
    need!(root);
    let mut stage = Stage::set(Kind::Users, say).unwrap();
    // What peers said is on disk within a second.
    let begun = Instant::now();
    eventually("a second and a half", Duration::from_secs(30), || {
        if begun.elapsed() > Duration::from_millis(1500) {
            Ok(())
        } else {
            Err("not yet")
        }
    });
    // v2 runs on h3 alone and has a health check, which a restart must not begin from nothing: the daemon
    // dies again as soon as it has answered, and the direct way is still open.
    for round in 0..3 {
        stage.mesh.host(2).kill_meshd().unwrap();
        stage.mesh.host(2).start_meshd().unwrap();
        stage.mesh.host(2).kill_meshd().unwrap();
        let text = eventually("a direct call", Duration::from_secs(1), || {
            stage
                .client(&["get", "http://words-v2/"])
                .map_err(|error| format!("{error:#}"))
        });
        assert!(text.starts_with("200"), "round {round}: {text}");
        stage.mesh.host(2).start_meshd().unwrap();
    }
}

#[test]
fn a_killed_peer_costs_only_what_was_in_flight() {
    need!(namespaces);
    need!(root);
    let mut stage = Stage::set(Kind::Users, say).unwrap();
    let mut load = under_load(&stage, "4000");
    stage.mesh.host(0).kill_meshd().unwrap();
    let counts = json_of(&mut load, Duration::from_mins(1));
    let failed = counts["failed"].as_u64().unwrap();
    say(&format!(
        "{} requests, {failed} failed when a peer's daemon was killed: {counts}",
        counts["requests"]
    ));
    note(&counts);
    assert!(failed <= 32, "{failed} failed: {counts}");
}
