//! The four exercises, each by route and by delegation table: what is set, what is sent, what must come back.

use anyhow::Context as _;

use mesh_tests::demo::Stage;

use crate::table::{Row, say};

/// How an exercise is set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum By {
    /// HTTPRoute documents.
    Route,
    /// DelegationTable documents and the `l5d-dtab` header.
    Dtab,
}

/// An exercise.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exercise {
    Basic,
    Canary,
    Errors,
    Stealth,
}

/// In the order of the play.
pub(crate) const ALL: [Exercise; 4] = [
    Exercise::Basic,
    Exercise::Canary,
    Exercise::Errors,
    Exercise::Stealth,
];

/// What a load run counted.
#[derive(Debug, Clone, Copy, Default)]
struct Counted {
    requests: u64,
    failed: u64,
    first: u64,
    second: u64,
}

impl By {
    fn word(self) -> &'static str {
        match self {
            Self::Route => "route",
            Self::Dtab => "dtab",
        }
    }
    fn file(self, name: &str) -> String {
        match self {
            Self::Route => format!("{name}.yaml"),
            Self::Dtab => format!("{name}.dtab.yaml"),
        }
    }
    fn kind(self) -> &'static str {
        match self {
            Self::Route => "HTTPRoute",
            Self::Dtab => "DelegationTable",
        }
    }
}

impl Exercise {
    /// Sets it, runs it, clears it.
    pub(crate) fn run(self, stage: &mut Stage, by: By, requests: u64) -> anyhow::Result<Row> {
        let row = match self {
            Self::Basic => basic(stage, by, requests),
            Self::Canary => canary(stage, by, requests),
            Self::Errors => errors(stage, by, requests),
            Self::Stealth => stealth(stage, by, requests),
        }?;
        stage.fail_share("0")?;
        stage.delete(by.kind(), "words")?;
        Ok(row)
    }
}

fn load(stage: &Stage, requests: u64, more: &[&str]) -> anyhow::Result<Counted> {
    let count = requests.to_string();
    let mut arguments = vec![
        "load",
        "--url",
        "http://capitalizer/",
        "--url",
        "http://capitalizer/simon",
        "--count",
        &count,
        "--concurrency",
        "16",
    ];
    arguments.extend(more);
    let text = stage.client(&arguments)?;
    let counts: serde_json::Value =
        serde_json::from_str(text.trim()).with_context(|| text.clone())?;
    let part = |path: &str| counts.pointer(path).unwrap_or(&serde_json::Value::Null);
    let number = |path: &str| part(path).as_u64().unwrap_or_default();
    let counted = Counted {
        requests: number("/requests"),
        failed: number("/failed"),
        first: number("/first_letter/a"),
        second: number("/first_letter/z"),
    };
    if counted.failed > 0 {
        say(&format!(
            "  failures: status {} errors {} {}",
            part("/status"),
            part("/errors"),
            part("/mesh_errors")
        ));
    }
    Ok(counted)
}

/// Basic mesh: everything answers, encrypted and balanced over all three instances.
fn basic(stage: &Stage, by: By, requests: u64) -> anyhow::Result<Row> {
    stage.apply(&by.file("basic"))?;
    let counted = load(stage, requests, &[])?;
    Ok(Row {
        exercise: "basic",
        by: by.word(),
        requests: counted.requests,
        seen: format!("v1 {} v2 {}", counted.first, counted.second),
        failed: counted.failed,
        note: "client → capitalizer → (simon →) words".to_owned(),
        passed: counted.failed == 0 && counted.first + counted.second == requests,
    })
}

/// Canary: four splits, each within five standard deviations of its share.
fn canary(stage: &Stage, by: By, requests: u64) -> anyhow::Result<Row> {
    let mut seen = Vec::new();
    let mut all = Counted::default();
    let mut passed = true;
    for share in [0_u32, 10, 50, 100] {
        stage.apply(&by.file(&format!("split-{share}")))?;
        let counted = load(stage, requests, &[])?;
        all.requests += counted.requests;
        all.failed += counted.failed;
        passed &= counted.failed == 0 && fits(counted, share);
        seen.push(format!("{share} %: {:.1}", percent(counted)));
    }
    Ok(Row {
        exercise: "canary",
        by: by.word(),
        requests: all.requests,
        seen: seen.join("  "),
        failed: all.failed,
        note: format!("v2's share, {requests} requests at each of 0, 10, 50, 100 %"),
        passed,
    })
}

#[expect(clippy::cast_precision_loss, reason = "counts of thousands")]
fn percent(counted: Counted) -> f64 {
    100.0 * counted.second as f64 / (counted.first + counted.second).max(1) as f64
}

#[expect(clippy::cast_precision_loss, reason = "counts of thousands")]
fn fits(counted: Counted, share: u32) -> bool {
    let share = f64::from(share) / 100.0;
    let total = (counted.first + counted.second) as f64;
    let deviation = (total * share * (1.0 - share)).sqrt();
    (counted.second as f64 - total * share).abs() <= 5.0 * deviation
}

/// Errors: v2 fails half its calls, the caller sees none of it.
fn errors(stage: &Stage, by: By, requests: u64) -> anyhow::Result<Row> {
    stage.apply(&by.file("errors"))?;
    let before = stage.failures_of_v2()?;
    stage.fail_share("0.5")?;
    let counted = load(stage, requests, &[])?;
    let own = stage.failures_of_v2()?.saturating_sub(before);
    Ok(Row {
        exercise: "errors",
        by: by.word(),
        requests: counted.requests,
        seen: format!("v1 {} v2 {}", counted.first, counted.second),
        failed: counted.failed,
        note: format!("v2 itself failed {own} calls; retries hid them"),
        passed: counted.failed == 0 && own > 100,
    })
}

/// Stealth: v2 only for those who say so.
fn stealth(stage: &Stage, by: By, requests: u64) -> anyhow::Result<Row> {
    stage.apply(&by.file("stealth"))?;
    let header = match by {
        By::Route => "x-stealth=on",
        By::Dtab => "l5d-dtab: /svc/words => /svc/words-v2",
    };
    let with = load(stage, requests, &["--header", header])?;
    let without = load(stage, requests, &[])?;
    Ok(Row {
        exercise: "stealth",
        by: by.word(),
        requests: with.requests + without.requests,
        seen: format!(
            "with: {:.0} % v2, without: {:.0} % v2",
            percent(with),
            percent(without)
        ),
        failed: with.failed + without.failed,
        note: if by == By::Route {
            "header x-stealth"
        } else {
            "header l5d-dtab"
        }
        .to_owned(),
        passed: with.failed + without.failed == 0
            && with.second == requests
            && without.first == requests,
    })
}
