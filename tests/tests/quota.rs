//! A rate limit of the whole mesh: three hosts together let it through, whoever is called.

#![allow(
    clippy::tests_outside_test_module,
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs,
    reason = "a file of tests"
)]

use std::time::Duration;

use mesh_tests::{demo::Stage, eventually, host::Kind, need, process::say, wait::Running};
use serde_json::Value;

/// Requests per second that the mesh lets through.
const RATE: u64 = 60;

const LIMIT: &str = "\
apiVersion: meshd.io/v1alpha1
kind: RateLimit
metadata: {name: words}
spec:
  targetRefs: [{kind: Service, name: words}]
  limit: {requests: 60, per: 1s, burst: 12}
  scope: mesh
";

fn load(stage: &Stage, seconds: u64) -> Value {
    let count = (seconds * 300).to_string();
    let text = stage
        .client(&[
            "load",
            "--url",
            "http://words/",
            "--count",
            &count,
            "--rate",
            "300",
            "--concurrency",
            "16",
            "--seconds",
            "60",
        ])
        .unwrap();
    serde_json::from_str(text.trim()).unwrap()
}

#[test]
fn hosts_share_a_limit() {
    need!(namespaces);
    need!(root);
    let stage = Stage::set(Kind::Users, say).unwrap();
    let first = stage.host(0).unwrap();
    first
        .ctl_with_input(&["apply", "-f", "-", "--wait", "all"], LIMIT)
        .unwrap();
    // The limit acts once every host has heard its share.
    eventually("a refused request", Duration::from_secs(30), || {
        let counts = load(&stage, 1);
        let refused = counts["status"]["429"].as_u64().unwrap_or_default();
        if refused > 0 {
            Ok(())
        } else {
            Err(counts.to_string())
        }
    });
    let clock = Running::now();
    let counts = load(&stage, 12);
    let stood = clock.stood().as_secs_f64();
    let (ok, refused) = (
        counts["status"]["200"].as_u64().unwrap(),
        counts["status"]["429"].as_u64().unwrap(),
    );
    let seconds = counts["seconds"].as_f64().unwrap();
    say(&format!(
        "quota: {ok} let through in {seconds:.1} s, {refused} refused"
    ));
    assert_eq!(
        ok + refused,
        counts["requests"].as_u64().unwrap(),
        "{counts}"
    );
    #[expect(clippy::cast_precision_loss, reason = "small numbers")]
    let (ok, rate) = (ok as f64, RATE as f64);
    // What the document states: the limit, the burst, and for two seconds a limit for each host that grew.
    assert!(ok <= rate * seconds + 12.0 + 2.0 * rate * 3.0, "{counts}");
    let ran = seconds - stood;
    assert!(ok >= rate * ran * 0.6, "the limit is used: {counts}");
    let named = counts["mesh_errors"].to_string();
    assert!(named.contains("rate-limited"), "{counts}");
}
