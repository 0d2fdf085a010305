//! The control state as operators use it: compare-and-set, history, rollback, confirm-or-revert, speed.

#![allow(
    clippy::tests_outside_test_module,
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs,
    reason = "a file of tests"
)]

use std::time::{Duration, Instant};

use mesh_tests::{demo::Stage, eventually, host::Kind, need, process::say};

/// The share of v2 in the route that a host has, in percent.
fn share_of_v2(stage: &Stage, host: usize) -> u64 {
    let rows = stage
        .host(host)
        .unwrap()
        .ctl_json(&["get", "HTTPRoute", "words"])
        .unwrap();
    let weight = rows.pointer("/spec/rules/0/backendRefs/1/weight");
    weight
        .and_then(serde_json::Value::as_u64)
        .unwrap_or_else(|| panic!("no weight in {rows}"))
}

#[test]
fn edits_are_compared_kept_and_undone() {
    need!(namespaces);
    need!(root);
    let stage = Stage::set(Kind::Users, say).unwrap();
    stage.apply("split-10.yaml").unwrap();
    let h1 = stage.host(0).unwrap();
    let first = h1
        .ctl(&["get", "HTTPRoute", "words", "-o", "yaml"])
        .unwrap();
    assert!(first.contains("resourceVersion"), "{first}");

    // An edit on a stale base is refused with the difference.
    stage.apply("split-50.yaml").unwrap();
    let file = stage.mesh.directory.path().join("stale.yaml");
    std::fs::write(&file, &first).unwrap();
    let (code, out, error) = h1
        .ctl_full(&["apply", "-f", &file.display().to_string()])
        .unwrap();
    assert_eq!(code, 4, "{out}{error}");
    assert!(
        format!("{out}{error}").contains("50"),
        "no difference shown: {out}{error}"
    );

    // History names author and reason; a rollback is a new commit.
    let history = h1.ctl_json(&["history", "HTTPRoute", "words"]).unwrap();
    let rows = history.as_array().unwrap();
    assert_eq!(rows.len(), 2, "{history}");
    assert!(
        rows.iter().all(|row| row["reason"] == "demonstration"),
        "{history}"
    );
    let oldest = rows[1]["id"].as_str().unwrap().to_owned();
    h1.ctl(&["rollback", &oldest, "--wait", "all"]).unwrap();
    assert_eq!(share_of_v2(&stage, 2), 10);

    // A tentative edit undoes itself on every host.
    let half = mesh_tests::binary::workspace().join("tests/demo/split-50.yaml");
    h1.ctl(&[
        "apply",
        "-f",
        &half.display().to_string(),
        "--confirm-within",
        "8s",
        "--wait",
        "all",
    ])
    .unwrap();
    assert_eq!(share_of_v2(&stage, 0), 50);
    eventually("the revert on every host", Duration::from_secs(30), || {
        for host in 0..3 {
            let share = share_of_v2(&stage, host);
            if share != 10 {
                return Err(format!("h{}: {share}", host + 1));
            }
        }
        Ok(())
    });

    // A confirmed one stays.
    let answer = h1
        .ctl_json(&[
            "apply",
            "-f",
            &half.display().to_string(),
            "--confirm-within",
            "10s",
            "--wait",
            "all",
        ])
        .unwrap();
    let id = answer["id"].as_str().unwrap_or_default().to_owned();
    h1.ctl(&["confirm", &id, "--wait", "all"]).unwrap();
    let begun = Instant::now();
    eventually("the end of the term", Duration::from_mins(1), || {
        if begun.elapsed() > Duration::from_secs(11) {
            Ok(())
        } else {
            Err("not yet")
        }
    });
    assert_eq!(share_of_v2(&stage, 2), 50);

    // The hurried way, and how fast a change is everywhere.
    let out = h1
        .ctl(&["route", "split", "words", "v1=75", "v2=25", "--wait", "all"])
        .unwrap();
    assert!(out.contains("HTTPRoute") && out.contains("75"), "{out}");
    let begun = Instant::now();
    h1.ctl(&[
        "apply",
        "-f",
        &mesh_tests::binary::workspace()
            .join("tests/demo/split-0.yaml")
            .display()
            .to_string(),
        "--wait",
        "all",
    ])
    .unwrap();
    let took = begun.elapsed();
    say(&format!(
        "a change was on all three hosts after {took:?}, meshctl's own start included"
    ));
    assert_eq!(share_of_v2(&stage, 2), 0);

    // Somebody without an operator's key cannot commit, though the host itself would send it on.
    let (code, out, error) = stage
        .host(1)
        .unwrap()
        .ctl_full(&["apply", "-f", &half.display().to_string()])
        .unwrap();
    assert_ne!(code, 0, "{out}{error}");
}

#[test]
fn what_waits_is_found_and_confirmed() {
    need!(namespaces);
    need!(root);
    let stage = Stage::set(Kind::Users, say).unwrap();
    let h1 = stage.host(0).unwrap();
    let waiting = || {
        let rows = h1.ctl_json(&["history"]).unwrap();
        let rows = rows.as_array().unwrap().clone();
        rows.iter()
            .filter(|row| row["state"] == "tentative")
            .count()
    };
    let term = ["--confirm-within", "10m", "--wait", "all"];

    let (code, out, error) = h1.ctl_full(&["confirm"]).unwrap();
    assert_eq!(code, 1, "{out}{error}");
    assert!(error.contains("nothing of yours waits"), "{out}{error}");

    // The one that waits is kept without being named.
    let split = ["route", "split", "words", "v1=60", "v2=40"];
    h1.ctl(&[&split[..], &term[..]].concat()).unwrap();
    assert_eq!(waiting(), 1);
    h1.ctl(&["confirm", "--wait", "all"]).unwrap();
    assert_eq!(waiting(), 0);
    let row = stage
        .host(2)
        .unwrap()
        .ctl_json(&["get", "HTTPRoute", "words-split"]);
    assert!(row.is_ok(), "{row:?}");

    // Of two none is guessed: each is shown with the command that keeps it.
    stage.apply("split-50.yaml").unwrap();
    for file in ["split-10.yaml", "basic.dtab.yaml"] {
        let path = mesh_tests::binary::workspace()
            .join("tests/demo")
            .join(file);
        let path = path.display().to_string();
        h1.ctl(&[&["apply", "-f", &path][..], &term[..]].concat())
            .unwrap();
    }
    assert_eq!(waiting(), 2);
    let (code, out, error) = h1.ctl_full(&["confirm"]).unwrap();
    assert_eq!(code, 2, "{out}{error}");
    let named = error.matches("`meshctl confirm ").count();
    assert_eq!(named, 2, "{out}{error}");
    assert_eq!(waiting(), 2);
}

#[test]
fn everything_is_there_after_a_restart_of_all() {
    need!(namespaces);
    need!(root);
    let mut stage = Stage::set(Kind::Users, say).unwrap();
    stage.apply("split-100.yaml").unwrap();
    for host in 0..3 {
        stage.mesh.host(host).stop_meshd().unwrap();
    }
    for host in 0..3 {
        stage.mesh.host(host).start_meshd().unwrap();
    }
    stage.mesh.wait_members(Duration::from_secs(30)).unwrap();
    for host in 0..3 {
        assert_eq!(share_of_v2(&stage, host), 100);
    }
    eventually("calls go to v2 alone", Duration::from_secs(30), || {
        let answer = stage
            .client(&["get", "http://words/"])
            .map_err(|error| format!("{error:#}"))?;
        if answer.contains("\nz") {
            Ok(())
        } else {
            Err(answer)
        }
    });
}
