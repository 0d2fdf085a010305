//! The package on a machine with a real systemd: install, mesh, restart, reboot, upgrade, remove, purge.

#![allow(
    clippy::tests_outside_test_module,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::indexing_slicing,
    missing_docs,
    reason = "a file of tests"
)]

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use mesh_tests::{
    binary::{built, workspace},
    need,
    nspawn::{Machine, Results, finished},
};

/// Facts that are not just "ok".
const FIRST: &[(&str, &str)] = &[
    // CAP_NET_BIND_SERVICE and CAP_NET_ADMIN, and nothing else.
    ("capabilities", "0000000000001400"),
    ("user", "meshd"),
    ("socket", "660 meshd meshd"),
    ("state directory", "700 meshd meshd"),
    ("a stranger asks", "exit 6"),
    ("a member of the group asks", "exit 0"),
    ("a member of the group makes a mesh", "exit 6"),
    ("operator's key", "600 root"),
    ("a second init", "exit 1"),
    ("files of the state that others may read", "0"),
    ("explain", "exit 0"),
    ("peer of a call from outside", "10.88.0.1"),
    ("the same split again", "exit 0"),
    ("no difference to itself", "exit 0"),
    ("an edit on a stale base", "exit 4"),
    ("what is deleted", "exit 1"),
    ("dead: the daemon's state after the call", "activating"),
    ("a bad configuration", "exit 1"),
];

/// Builds a package of the programs under test with this version.
fn package(out: &Path, version: &str) -> PathBuf {
    let programs = built("meshd");
    let programs = programs.parent().expect("a program is in a folder");
    let mut command = Command::new("cargo");
    command.current_dir(workspace());
    command.args([
        "xtask",
        "package",
        "deb",
        "--no-build",
        "--fast",
        "--version",
        version,
    ]);
    command
        .arg("--programs")
        .arg(programs)
        .arg("--out")
        .arg(out);
    finished(&mut command).expect("the package is built");
    let mut found = std::fs::read_dir(out)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let fits = format!("meshd_{version}_");
    found
        .find(|path| {
            path.file_name()
                .unwrap()
                .to_string_lossy()
                .starts_with(&fits)
        })
        .expect("the package is there")
}

fn script(name: &str) -> String {
    let path = workspace().join("tests/tests/packages").join(name);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Every step that the script names must be there and ok, every fact as told.
fn assert_results(script: &str, results: &Results, facts: &[(&str, &str)]) {
    let mut wrong = Vec::new();
    let facts: BTreeMap<&str, &str> = facts.iter().copied().collect();
    for name in named(script, "step").chain(named(script, "must")) {
        match results.lines.get(name).map(String::as_str) {
            Some("ok") => println!("  √ {name}"),
            other => wrong.push(format!("{name}: {}", other.unwrap_or("was not reached"))),
        }
    }
    for (name, wanted) in facts {
        match results.lines.get(name) {
            Some(text) if text == wanted => println!("  √ {name}: {text}"),
            other => wrong.push(format!("{name}: {other:?}, not {wanted:?}")),
        }
    }
    let lines: Vec<String> = wrong
        .iter()
        .map(|line| format!("  × {}", line.replace('~', "\n      ")))
        .collect();
    assert!(wrong.is_empty(), "{}\n\n{}", results.log, lines.join("\n"));
}

/// The names in lines `WORD "NAME" …`.
fn named<'a>(script: &'a str, word: &'a str) -> impl Iterator<Item = &'a str> {
    script.lines().filter_map(move |line| {
        line.trim()
            .strip_prefix(word)?
            .strip_prefix(" \"")?
            .split('"')
            .next()
    })
}

#[test]
fn a_package_lives_and_dies() {
    need!(root);
    let folder = tempfile::tempdir().unwrap();
    let one = package(folder.path(), "0.1.0");
    let two = package(folder.path(), "0.2.0");
    let machine = Machine::new("package").expect("a machine");
    let copy = |from: &Path, name: &str| {
        std::fs::create_dir_all(machine.root().join("test")).unwrap();
        std::fs::copy(from, machine.root().join("test").join(name)).unwrap();
    };
    copy(&one, "one.deb");
    copy(&two, "two.deb");
    for name in ["functions.sh", "network.sh", "web.py", "dns.py"] {
        machine
            .write(&format!("test/{name}"), &script(name))
            .unwrap();
    }

    let first = script("first.sh");
    let results = machine
        .run(&first, Duration::from_mins(6))
        .expect("the first boot");
    println!("first boot");
    assert_results(&first, &results, FIRST);
    let exposure: f32 = results.lines.get("exposure").unwrap().parse().unwrap();
    assert!(exposure < 3.0, "systemd-analyze security: {exposure}");

    let alone: u32 = results
        .lines
        .get("alone, milliseconds")
        .unwrap()
        .parse()
        .unwrap();
    assert!(alone < 100, "meshctl alone took {alone} ms");

    let second = script("second.sh");
    let results = machine
        .run(&second, Duration::from_mins(6))
        .expect("the second boot");
    println!("second boot");
    let told = |name: &str| results.lines.get(name).cloned().unwrap_or_default();
    let (mesh, host) = (told("mesh before"), told("host before"));
    assert_eq!((mesh.len(), host.len()), (32, 32), "{mesh} {host}");
    let facts = [
        ("version", "0.2.0"),
        ("mesh after", &mesh),
        ("host after removal", &host),
    ];
    assert_results(&second, &results, &facts);
}

#[test]
fn a_package_is_the_same_each_time() {
    let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let packages = folders
        .each_ref()
        .map(|folder| package(folder.path(), "0.1.0"));
    let bytes = packages.map(|path| std::fs::read(path).unwrap());
    assert!(bytes[0] == bytes[1], "the two packages differ");
}
