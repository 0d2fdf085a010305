//! The machine and the versions of what was measured.

use std::{collections::BTreeMap, fs, process::Command};

use serde::Serialize;

/// Where and what was measured.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Machine {
    /// The processor's name.
    pub(crate) cpu: String,
    /// How many there are.
    pub(crate) cpus: usize,
    /// Name and release.
    pub(crate) kernel: String,
    /// The distribution.
    pub(crate) system: String,
    /// Day of the run, UTC.
    pub(crate) date: String,
    /// Processes that were ready to run when the bench began; above 0.5 somebody else was at work.
    pub(crate) load_before: f64,
    /// First lines of what the programs say of themselves.
    pub(crate) versions: BTreeMap<&'static str, String>,
}

impl Machine {
    /// Reads it all.
    pub(crate) fn read() -> Self {
        let read = |path| fs::read_to_string(path).unwrap_or_default();
        let field = |text: &str, name: &str, mark: char| {
            let line = text.lines().find(|line| line.starts_with(name));
            line.and_then(|line| line.split_once(mark))
                .map_or_else(String::new, |(_, value)| {
                    value.trim().trim_matches('"').to_owned()
                })
        };
        let versions = [
            (
                "meshd",
                says(
                    &mesh_tests::binary::built("meshd").display().to_string(),
                    "--version",
                ),
            ),
            ("revision", says("git", "log -1 --format=%h")),
            ("envoy", says("envoy", "--version")),
            ("haproxy", says("haproxy", "-v")),
            ("nginx", says("nginx", "-v")),
            ("wrk", says("wrk", "-v")),
            ("h2load", says("h2load", "--version")),
        ];
        Self {
            cpu: field(&read("/proc/cpuinfo"), "model name", ':'),
            cpus: std::thread::available_parallelism().map_or(1, Into::into),
            kernel: says("uname", "-sr"),
            system: field(&read("/etc/os-release"), "PRETTY_NAME", '='),
            date: says("date", "-u +%Y-%m-%d"),
            load_before: read("/proc/loadavg")
                .split_whitespace()
                .next()
                .and_then(|word| word.parse().ok())
                .unwrap_or_default(),
            versions: BTreeMap::from(versions),
        }
    }
}

/// The first line with words that a program prints.
fn says(program: &str, arguments: &str) -> String {
    let output = Command::new(program)
        .args(arguments.split(' '))
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output();
    let Ok(output) = output else {
        return "absent".to_owned();
    };
    let out = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    let line = out
        .lines()
        .chain(errors.lines())
        .find(|line| !line.trim().is_empty());
    line.unwrap_or_default()
        .trim()
        .replace("version: ", "")
        .chars()
        .take(90)
        .collect()
}
