//! No authority that cannot be lost: the first host dies for good, leaves go on being renewed by the other
//! authority, and nobody notices.

#![allow(
    clippy::tests_outside_test_module,
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs,
    reason = "a file of tests"
)]

use std::time::{Duration, Instant};

use mesh_tests::{Child, demo::Stage, host::Kind, need, process::say, remains::none_failed};
use serde_json::Value;

#[test]
fn the_first_host_dies_and_certificates_go_on() {
    need!(namespaces);
    need!(root);
    let mut stage =
        Stage::set_with(Kind::Users, say, &["--leaf-ttl", "2m"], &|_, text| text).unwrap();
    stage.mesh.host(0).kill_meshd().unwrap();
    // Its programs are gone with it: a host lost for good.
    stage.mesh.host(0).end_programs();
    let limit = Duration::from_secs(30);
    stage.mesh.wait_unused(2, "words", "h1", limit).unwrap();
    // Six minutes: three lifetimes of a leaf.
    let mut command = stage
        .client_command(&[
            "load",
            "--url",
            "http://words/",
            "--url",
            "http://simon/",
            "--count",
            "36000",
            "--rate",
            "100",
            "--concurrency",
            "16",
            "--seconds",
            "380",
        ])
        .unwrap();
    let log = stage.mesh.directory.path().join("load.log");
    let mut load = Child::start("load", &mut command, &log).unwrap();
    let begun = Instant::now();
    load.wait(Duration::from_mins(7)).unwrap();
    let counts: Value = serde_json::from_str(load.log().trim()).unwrap();
    say(&format!(
        "after {:?} without the first host: {counts}",
        begun.elapsed()
    ));
    none_failed(&counts, 35_000);
    for host in [1, 2] {
        let (_, text, _) = stage.host(host).unwrap().ctl_full(&["check"]).unwrap();
        assert!(text.contains("one authority is left: h2"), "{text}");
        assert!(text.contains("expires first"), "{text}");
    }
}
