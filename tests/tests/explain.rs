//! Every question has an answer: `explain` for what would happen, `why` for what did, `curl` for one call.

#![allow(
    clippy::tests_outside_test_module,
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs,
    reason = "a file of tests"
)]

use std::time::Duration;

use mesh_tests::{demo::Stage, host::Kind, need, process::say, wait::within};

#[test]
fn calls_are_explained_end_to_end() {
    need!(namespaces);
    need!(root);
    let stage = Stage::set(Kind::Users, say).unwrap();
    stage.apply("split-10.yaml").unwrap();

    let h1 = stage.host(0).unwrap();
    let text = h1
        .ctl(&["explain", "--from", "capitalizer", "GET", "http://words/"])
        .unwrap();
    say(&text);
    let revision = h1.ctl_json(&["get", "HTTPRoute", "words"]).unwrap();
    let revision = revision.pointer("/metadata/resourceVersion");
    let revision: String = revision
        .and_then(|value| value.as_str())
        .unwrap()
        .chars()
        .take(12)
        .collect();
    for part in [
        "spiffe://demo.example/ns/default/sa/capitalizer",
        "240.240.",
        "HTTPRoute",
        "default/words",
        &revision,
        "words-v1",
        "words-v2",
        "spiffe://demo.example/ns/default/sa/words",
    ] {
        assert!(text.contains(part), "explain does not name {part}:\n{text}");
    }

    // One call, as a local service.
    let answer = h1
        .ctl_json(&["curl", "--as", "capitalizer", "http://words/"])
        .unwrap();
    assert_eq!(answer["status"], 200, "{answer}");
    assert!(
        answer["route"].as_str().unwrap().contains("words"),
        "{answer}"
    );
    assert!(!answer["endpoint"].as_str().unwrap().is_empty(), "{answer}");
    within(Duration::from_secs(20), || {
        let rows = h1.ctl_json(&["stat", "words"])?;
        let counted = rows.as_array().is_some_and(|rows| {
            rows.iter()
                .any(|row| row["source"] == "default/capitalizer")
        });
        anyhow::ensure!(counted, "not counted as the service's: {rows}");
        Ok(())
    })
    .unwrap();

    // A call that fails names its id, and both hosts tell its story.
    let (id, line) = within(Duration::from_secs(30), || {
        let (_, text, _) = stage.host(0)?.ctl_full(&[
            "-o",
            "json",
            "curl",
            "--as",
            "capitalizer",
            "http://words-v9/",
        ])?;
        let answer: serde_json::Value = serde_json::from_str(&text)?;
        let error = answer["headers"]
            .as_array()
            .and_then(|all| all.iter().find(|pair| pair[0] == "mesh-error"))
            .and_then(|pair| pair[1].as_str().map(str::to_owned));
        let Some(error) = error else {
            anyhow::bail!("{answer}")
        };
        let id = error.rsplit("id=").next().unwrap_or_default().to_owned();
        Ok((id, error))
    })
    .unwrap();
    assert_eq!(id.len(), 32, "{line}");
    // A story is kept when its request has ended, which may be after its answer is read.
    let why = within(Duration::from_secs(30), || {
        let why = stage.host(2)?.ctl(&["why", &id])?;
        let told = why.contains("h1") && why.contains("unknown-host");
        anyhow::ensure!(told, "{why}");
        Ok(why)
    })
    .unwrap();
    say(&why);
}

#[test]
fn a_refused_call_is_told_by_both_hosts() {
    need!(namespaces);
    need!(root);
    let stage = Stage::set(Kind::Users, say).unwrap();
    let deny = "apiVersion: meshd.io/v1alpha1\nkind: AuthorizationPolicy\nmetadata: {name: no-client}\nspec:\n  \
                selector: {matchLabels: {app: words}}\n  action: DENY\n  rules:\n    - from: [{source: {principals: [\"demo.example/ns/default/sa/client\"]}}]\n";
    let file = stage.mesh.directory.path().join("deny.yaml");
    std::fs::write(&file, deny).unwrap();
    stage
        .host(0)
        .unwrap()
        .ctl(&["apply", "-f", &file.display().to_string(), "--wait", "all"])
        .unwrap();
    let host = stage.host(2).unwrap();
    let text = within(Duration::from_secs(30), || {
        let mut curl = host.command_as(mesh_tests::demo::CLIENT, "curl");
        // v1 runs on other hosts only, so the refusal is theirs.
        let output = curl.args(["-sS", "-i", "http://words-v1/"]).output()?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        if text.contains("mesh-error: denied") {
            Ok(text)
        } else {
            anyhow::bail!("{text}")
        }
    })
    .unwrap();
    assert!(text.starts_with("HTTP/1.1 403"), "{text}");
    let id = text
        .split("id=")
        .nth(1)
        .unwrap()
        .split_whitespace()
        .next()
        .unwrap()
        .to_owned();
    within(Duration::from_secs(30), || {
        let why = stage.host(1)?.ctl_json(&["why", &id])?;
        let records = why["records"].as_array().cloned().unwrap_or_default();
        let sides: Vec<String> = records
            .iter()
            .map(|record| format!("{} {}", record["host"], record["side"]))
            .collect();
        let outbound = |side: &String| side.contains("h3") && side.contains("outbound");
        let both = sides.iter().any(outbound) && sides.iter().any(|side| side.contains("inbound"));
        anyhow::ensure!(both, "{why}");
        Ok(())
    })
    .unwrap();
    // capitalizer is another identity and still gets through.
    let answer = stage.client(&["get", "http://capitalizer/"]).unwrap();
    assert!(answer.starts_with("200"), "{answer}");
}
