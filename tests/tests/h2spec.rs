//! The published suite of HTTP/2 (h2spec 2.2.1) against every listener that speaks it.

#![allow(
    clippy::tests_outside_test_module,
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::string_slice,
    missing_docs,
    reason = "a file of tests"
)]

use std::{collections::BTreeSet, os::unix::fs::PermissionsExt, path::PathBuf, process::Command};

use mesh_tests::{
    Child, Mesh, need,
    pair::{self, CLIENT, Offer, SERVER},
    peers::{self, H2SPEC},
};

const OFFERS: [Offer; 2] = [
    Offer {
        name: "pages",
        port: 8095,
        protocol: "http",
    },
    Offer {
        name: "pages2",
        port: 8096,
        protocol: "http2",
    },
];

/// Cases that may fail, and at which listeners.
///
/// RFC 9113 section 3.4 lets the GOAWAY go, "since an invalid preface indicates that the peer is not using HTTP/2":
/// where HTTP/1 is spoken too, such bytes are a malformed request, which RFC 9112 section 3 answers with 400 before
/// the connection is closed. The suite takes that answer for a frame. Ports of `http2` close at once.
const ALLOWED: [(&str, &[&str]); 1] = [(
    "http2/3.5: Sends invalid connection preface",
    &["captured", "inbound", "explicit"],
)];

/// What a run said: the cases that ran, those that were left out, and those that failed.
#[derive(Debug, Default)]
struct Report {
    ran: usize,
    skipped: BTreeSet<String>,
    failed: BTreeSet<String>,
}

/// Reads the `JUnit` file: `package` is the section, `classname` the case.
fn report(xml: &str) -> Report {
    let mut report = Report::default();
    for case in xml.split("<testcase ").skip(1) {
        let attribute = |name: &str| {
            let from = case.find(&format!("{name}=\"")).unwrap() + name.len() + 2;
            let rest = &case[from..];
            rest[..rest.find('"').unwrap()].to_owned()
        };
        let name = format!("{}: {}", attribute("package"), attribute("classname"));
        let body = case.split("</testcase>").next().unwrap();
        if body.contains("<skipped") {
            report.skipped.insert(name);
            continue;
        }
        report.ran += 1;
        if body.contains("<failure") || body.contains("<error") {
            report.failed.insert(name);
        }
    }
    report
}

/// Runs the suite by `command` and judges what it says.
fn conforms(what: &str, mesh: &Mesh, mut command: Command, arguments: &[String]) {
    // Written by the suite as a user of its own.
    let file = mesh.directory.path().join(format!("{what}.xml"));
    std::fs::write(&file, "").unwrap();
    std::fs::set_permissions(&file, PermissionsExt::from_mode(0o666)).unwrap();
    let output = command
        .args(["--junit-report", &file.display().to_string(), "-o", "3"])
        .args(arguments)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let xml =
        std::fs::read_to_string(&file).unwrap_or_else(|error| panic!("{what}: {error}: {said}"));
    let report = report(&xml);
    assert!(
        report.ran > 140,
        "{what}: only {} cases ran\n{said}",
        report.ran
    );
    assert!(
        report.skipped.is_empty(),
        "{what}: {:?} were left out",
        report.skipped
    );
    let allowed = |case: &String| {
        ALLOWED
            .iter()
            .any(|(name, at)| name == case && at.contains(&what))
    };
    let wrong: Vec<_> = report.failed.iter().filter(|case| !allowed(case)).collect();
    assert!(wrong.is_empty(), "{what}: {wrong:#?}\n{said}");
}

fn stage() -> (Mesh, PathBuf) {
    let mut suite = None;
    let mesh = pair::mesh(&OFFERS, |mesh| {
        let folder = peers::copied(H2SPEC, mesh.directory.path())?;
        // The calling host's explicit listener stands where the suite's `:authority` names a service.
        let caller = mesh.host(1);
        let text = caller.default_config("[listeners]\nexplicit = \"127.0.0.1:8095\"\n");
        caller.configure("meshd.toml", &text)?;
        let hosts = mesh.directory.path().join("hosts");
        std::fs::write(&hosts, "127.0.0.1 localhost pages\n")?;
        let root = mesh.directory.path().join("pages");
        std::fs::create_dir_all(&root)?;
        std::fs::write(root.join("index.html"), "page ".repeat(2000))?;
        let host = mesh.host(0);
        host.start_app(SERVER, &["words", "--listen", "[::]:8095"])?;
        let mut new = host.command_as(SERVER + 1, "nghttpd");
        new.args(["--no-tls", "-d"]).arg(&root).arg("8096");
        let child = Child::start("nghttpd", &mut new, &host.log_path("nghttpd"))?;
        host.keep(child);
        suite = Some(folder.join("h2spec"));
        Ok(())
    });
    (mesh.unwrap(), suite.unwrap())
}

#[test]
fn every_listener_conforms() {
    need!(namespaces);
    need!(root);
    need!(peer H2SPEC);
    let (mesh, suite) = stage();
    let at = |name: &str, port: &str| {
        let all = ["--strict", "-h", name, "-p", port];
        all.map(str::to_owned)
    };
    let served = mesh.hosts[0].v4.to_string();
    let caller = &mesh.hosts[1];
    for (what, name, port) in [
        ("captured", "pages.mesh.internal", "8095"),
        ("captured2", "pages2.mesh.internal", "8096"),
    ] {
        conforms(
            what,
            &mesh,
            caller.command_as(CLIENT, &suite),
            &at(name, port),
        );
    }
    for (what, port) in [("inbound", "8095"), ("inbound2", "8096")] {
        conforms(what, &mesh, Command::new(&suite), &at(&served, port));
    }
    // The suite's `:authority` is what it dials: here a name that leads to the explicit listener.
    let hosts = mesh.directory.path().join("hosts");
    caller
        .sh(&format!("mount --bind {} /etc/hosts", hosts.display()))
        .unwrap();
    conforms(
        "explicit",
        &mesh,
        caller.command_as(CLIENT, &suite),
        &at("pages", "8095"),
    );
}
