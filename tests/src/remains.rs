//! What the hosts of a failed test still have to say: told while its daemons run, so that one record shows the cause.
//!
//! In: the counts of loads that were judged, a host about to end while its test panics. Out: the failures' own words,
//! and for each host its endpoints, sources, findings and what its mesh knows of the failed calls.

use std::sync::{Mutex, PoisonError};

use serde_json::Value;

use crate::process::{tail, tell};

/// Most failed calls whose stories are asked for.
const STORIES: usize = 3;
/// Most places that are shown of a long list in counts.
const SHOWN: usize = 12;
/// Last lines of an answer.
const LINES: usize = 40;

/// Ids of failed calls, as loads told them.
static FAILED: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// Fails unless every call of a load was answered with 200, and so many were; the ids of calls that were not are
/// asked about when the hosts end.
#[expect(clippy::panic, reason = "a failed call is the failure of the test")]
#[track_caller]
pub fn none_failed(counts: &Value, least: u64) {
    let ok = counts["ok"].as_u64().unwrap_or_default();
    if counts["failed"] == 0 && ok >= least {
        return;
    }
    note(counts);
    panic!("{}", shown(counts, least));
}

/// Keeps the ids of failed calls that these counts name, for the end of the hosts.
pub fn note(counts: &Value) {
    let named = counts["mesh_errors"].as_array();
    let ids = named
        .into_iter()
        .flatten()
        .filter_map(|error| error.as_str()?.rsplit_once("id="))
        .map(|(_, id)| id.to_owned());
    let mut failed = FAILED.lock().unwrap_or_else(PoisonError::into_inner);
    failed.extend(ids);
    failed.truncate(STORIES);
}

/// The counts in short: the number of failures and their words first, times of the first ones last.
fn shown(counts: &Value, least: u64) -> String {
    let part = |key: &str| match counts[key].as_array() {
        Some(all) if all.len() > SHOWN => {
            let first: Vec<String> = all.iter().take(SHOWN).map(Value::to_string).collect();
            format!("{} … of {}", first.join(" "), all.len())
        }
        _ => counts[key].to_string(),
    };
    format!(
        "{} of {} calls failed, {} were answered with 200, at least {least} wanted; errors {}, status {}, mesh errors {}, \
         failed at ms {}, in {} s, 99 % within {} ms",
        part("failed"),
        part("requests"),
        part("ok"),
        part("errors"),
        part("status"),
        part("mesh_errors"),
        part("failed_at_ms"),
        part("seconds"),
        part("p99_ms"),
    )
}

/// Tells what a host knows when its test fails: `ask` puts questions to its daemon, which must still run.
pub(crate) fn tell_of(host: &str, ask: &dyn Fn(&[&str]) -> anyhow::Result<String>) {
    let answered = |question: &[&str]| {
        // A daemon that hangs must not keep the others from being asked.
        let words = [&["--timeout", "5s"], question].concat();
        let told = ask(&words).unwrap_or_else(|error| format!("{error:#}"));
        let (question, told) = (question.join(" "), tail(&told, LINES));
        tell(&format!("--- {host}: meshctl {question} ---\n{told}\n"));
    };
    answered(&["status"]);
    answered(&["endpoints"]);
    answered(&["registry", "status"]);
    // Every host is asked for a story, whoever is asked first.
    let failed = std::mem::take(&mut *FAILED.lock().unwrap_or_else(PoisonError::into_inner));
    for id in failed {
        answered(&["why", &id]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_told_in_short_and_ids_are_kept() {
        let at: Vec<u64> = (0..500).collect();
        let counts = serde_json::json!({
            "requests": 700, "ok": 200, "failed": 500, "errors": {"refused": 499}, "status": {"200": 200, "503": 1},
            "mesh_errors": ["no-endpoint; id=abc"], "failed_at_ms": at, "seconds": 3.0, "p99_ms": 1.0
        });
        let text = shown(&counts, 600);
        assert!(text.len() < 400, "{text}");
        for part in [
            "500 of 700",
            "at least 600",
            "refused\":499",
            "11 … of 500",
            "id=abc",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
        note(&counts);
        assert_eq!(*FAILED.lock().unwrap(), ["abc"]);
        none_failed(&serde_json::json!({"ok": 5, "failed": 0}), 5);
    }
}
