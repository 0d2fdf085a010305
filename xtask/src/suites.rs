//! Every suite, one after the other, with headings; one plain sum as the last line.
//!
//! In: the workspace. Out: exit 0 when nothing failed and, with `CI=true`, nothing was skipped.
//! A test that lacks a privilege prints a line `SKIPPED name: why`; such a test counts as skipped.

use std::{
    fmt::Write as _,
    io::{BufRead, BufReader},
    process::Stdio,
    time::Instant,
};

use anyhow::{Context, bail};

use crate::command::{self, heading, say};
use built::Built;
use matrix::Table;
use reasons::Reasons;

/// The test programs.
mod built;
/// The table of registries.
mod matrix;
/// Why tests failed.
mod reasons;

/// Tests that ran.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Count {
    passed: u64,
    failed: u64,
    skipped: u64,
    /// Lines that said so; their tests are counted as passed by the runner.
    said: u64,
}

impl Count {
    /// Reads one line of a test runner.
    fn take(&mut self, line: &str) {
        // A test that runs itself again elsewhere filters; the outer run counts it.
        let result = line.strip_prefix("test result: ");
        if let Some(rest) = result.filter(|rest| rest.contains("; 0 filtered out")) {
            self.passed += number_before(rest, " passed");
            self.failed += number_before(rest, " failed");
            self.skipped += number_before(rest, " ignored");
        } else if line.starts_with("SKIPPED ") || line.contains(" ... SKIPPED ") {
            self.said += 1;
        }
    }

    fn add(&mut self, other: Self) {
        self.passed += other.passed.saturating_sub(other.said);
        self.failed += other.failed;
        self.skipped += other.skipped + other.said;
    }
}

fn number_before(text: &str, word: &str) -> u64 {
    text.split_once(word)
        .and_then(|(before, _)| {
            before
                .rsplit(|c: char| !c.is_ascii_digit())
                .next()?
                .parse()
                .ok()
        })
        .unwrap_or(0)
}

/// A suite: a heading, a command line for `bash`, and the longest time that it may take.
struct Suite {
    name: String,
    script: String,
    minutes: u32,
}

fn suite(name: &str, minutes: u32, script: &str) -> Suite {
    Suite {
        name: name.to_owned(),
        script: script.to_owned(),
        minutes,
    }
}

/// Unit tests, properties, contract suites, the simulation, the laws.
const UNIT: &str = "unit, property and simulation tests";

/// Tests against fakes mostly wait for holds and signs of life: more of them at a time than there are cores.
const WAITING: &str = "--nocapture --test-threads=6";

/// Everything that needs no release build.
fn plain(built: &[Built]) -> Vec<Suite> {
    let room = |name: &'static str| built.iter().filter(move |one| one.room() == name);
    let alone = ["tests", "intercept"];
    // The fakes beside the code say their cells of the table; the real servers stand apart.
    let is_registry = |one: &&Built| one.room() == "registry";
    let unit = built
        .iter()
        .filter(|one| !(alone.contains(&one.room()) || is_registry(one) && one.apart));
    let (fakes, others): (Vec<_>, Vec<_>) = unit.partition(is_registry);
    vec![
        suite(
            UNIT,
            30,
            &format!(
                "first=0\n({}) || first=1\n({}) && exit $first",
                each(&mut others.into_iter(), ""),
                each(&mut fakes.into_iter(), WAITING)
            ),
        ),
        suite(
            "registries: the contract of sources",
            30,
            &each(&mut room("registry").filter(|one| one.apart), "--nocapture"),
        ),
        suite(
            "interception in network namespaces",
            10,
            &each(&mut room("intercept"), "--nocapture"),
        ),
        suite(
            "the harness",
            10,
            &each(&mut room("tests").filter(|one| !one.apart), ""),
        ),
    ]
}

/// One after the other; a failed one does not keep the next from running.
fn each(programs: &mut dyn Iterator<Item = &Built>, arguments: &str) -> String {
    let mut script = "ended=0\n".to_owned();
    for one in programs {
        let name = format!("{}/{}", one.room(), one.target);
        let _infallible = writeln!(
            script,
            "echo '     Running {name}'\n({}) || {{ ended=1; echo 'failed: {name}'; }}",
            one.line(arguments)
        );
    }
    script.push_str("exit $ended");
    script
}

/// What is built before the suites that drive real programs.
fn build() -> Suite {
    suite(
        "release build",
        30,
        "cargo build --release -p meshd -p meshctl -p mesh-tests --bins",
    )
}

/// The suites that drive real programs, one per test target; the package last.
fn driven(built: &[Built]) -> Vec<Suite> {
    let hosts = built
        .iter()
        .filter(|one| one.room() == "tests" && one.apart);
    let (packages, others): (Vec<_>, Vec<_>) =
        hosts.partition(|one| one.target.contains("package"));
    let arguments = "--test-threads=1 --nocapture";
    let mut all = Vec::new();
    all.extend(others.iter().map(|one| {
        let longer = match one.target.as_str() {
            "soak" => minutes("SOAK_SECONDS"),
            "registries" => minutes("OUTAGE_SECONDS"),
            _ => 0,
        };
        suite(
            &format!("hosts: {}", one.target),
            15 + longer,
            &format!(
                "bash scripts/private.sh bash -c \"{}\"",
                one.line(arguments)
            ),
        )
    }));
    all.extend(packages.iter().map(|one| {
        suite(
            &format!("a booted system: {}", one.target),
            20,
            &format!("cargo xtask package && {}", one.line(arguments)),
        )
    }));
    all
}

/// How long a test is asked to take by this variable.
fn minutes(variable: &str) -> u32 {
    let seconds = std::env::var(variable);
    seconds
        .ok()
        .and_then(|text| text.parse::<u32>().ok())
        .unwrap_or(0)
        / 60
}

/// Runs the suites whose name contains `only`, or all of them.
pub(crate) fn run(only: Option<&str>) -> anyhow::Result<()> {
    let began = Instant::now();
    let wanted = |suite: &Suite| only.is_none_or(|part| suite.name.contains(part));
    let mut sum = Count::default();
    let mut broken: Vec<String> = Vec::new();
    let mut table = Table::default();
    let mut reasons = Reasons::default();
    let mut step = |suite: Suite| -> anyhow::Result<bool> {
        let (count, ok) = one(&suite, &mut table, &mut reasons)?;
        sum.add(count);
        if !ok {
            broken.push(suite.name);
        }
        Ok(ok)
    };
    if step(suite("test programs", 40, built::BUILD))? {
        let built = built::list()?;
        for suite in plain(&built).into_iter().filter(wanted) {
            step(suite)?;
        }
        let driven: Vec<Suite> = driven(&built).into_iter().filter(wanted).collect();
        if !driven.is_empty() && step(build())? {
            for suite in driven {
                step(suite)?;
            }
        }
    }
    for line in table.lines() {
        say(&line);
    }
    let missing = table.missing(only.is_none());
    for what in &missing {
        say(&format!("the table of registries lacks {what}"));
    }
    heading(&format!("the end, after {} s", began.elapsed().as_secs()));
    for name in &broken {
        say(&format!("failed suite: {name}"));
    }
    for line in reasons.lines() {
        say(line);
    }
    let in_ci = std::env::var_os("CI").is_some_and(|value| value == "true");
    say(&format!(
        "{} passed, {} failed, {} skipped",
        sum.passed, sum.failed, sum.skipped
    ));
    if sum.failed > 0 || !broken.is_empty() || !missing.is_empty() {
        bail!("not everything passed");
    }
    if in_ci && sum.skipped > 0 {
        bail!("with CI=true nothing may be skipped");
    }
    if sum.passed == 0 {
        bail!("no test ran");
    }
    Ok(())
}

/// Only what needs no privilege and no release build.
pub(crate) fn unit() -> anyhow::Result<()> {
    run(Some(UNIT))
}

/// Whether panics and errors of tests show their backtraces: `MESH_BACKTRACE=1`. Without it they do not, whatever the
/// environment says: hundreds of lines hide the message, and each error that a waiting loop swallows takes one.
fn backtrace() -> String {
    std::env::var("MESH_BACKTRACE").unwrap_or_else(|_unset| "0".to_owned())
}

/// Runs a suite with its output shown as it comes.
fn one(suite: &Suite, table: &mut Table, reasons: &mut Reasons) -> anyhow::Result<(Count, bool)> {
    heading(&suite.name);
    let limit = format!("{}m", suite.minutes);
    let mut child = command::command("timeout")
        .args([
            "--kill-after=20",
            &limit,
            "bash",
            "-c",
            &format!("({}) 2>&1", suite.script),
        ])
        .env("RUST_BACKTRACE", backtrace())
        .env_remove("RUST_LIB_BACKTRACE")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .context("timeout cannot be started")?;
    let mut count = Count::default();
    let output = child.stdout.take().context("its output is not piped")?;
    for line in BufReader::new(output).split(b'\n') {
        let line = line.context("its output cannot be read")?;
        let line = String::from_utf8_lossy(&line);
        say(&line);
        count.take(&line);
        table.take(&line);
        reasons.take(&line);
    }
    let status = child.wait().context("it cannot be waited for")?;
    // Once more below the logs of a failed test: they are long.
    for line in reasons.end_of_suite(status.success()) {
        say(line);
    }
    if status.code() == Some(124) {
        say(&format!("{} did not end within {limit}", suite.name));
    }
    if !status.success() && count.failed == 0 {
        say(&format!("{} failed: {status}", suite.name));
    }
    Ok((count, status.success()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_counted() {
        let mut count = Count::default();
        for line in [
            "test a ... ok",
            "SKIPPED tests::b: it needs root",
            "test result: ok. 31 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 1s",
            "test result: FAILED. 4 passed; 2 failed; 1 ignored; 0 measured; 0 filtered out",
            "test result: ok. 1 passed; 0 failed; 0 ignored; 0 measured; 20 filtered out",
        ] {
            count.take(line);
        }
        let mut sum = Count::default();
        sum.add(count);
        assert_eq!(
            sum,
            Count {
                passed: 34,
                failed: 2,
                skipped: 2,
                said: 0
            }
        );
    }
}
