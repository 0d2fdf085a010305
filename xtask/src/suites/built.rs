//! The test programs of the workspace: built once, all together, and run by path.
//!
//! One build for all keeps the features of the dependencies the same in every suite; a `cargo test -p` for
//! each would compile them again for each choice of packages.

use std::{path::PathBuf, process::Stdio};

use anyhow::{Context, bail};
use serde::Deserialize;

use crate::command;

/// The command that builds them.
pub(super) const BUILD: &str = "cargo test --workspace --all-features --no-run";

/// A test program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Built {
    /// Folder of its package: where it is run.
    pub(super) folder: PathBuf,
    /// Name of the target; of a suite in `tests/`, the file's.
    pub(super) target: String,
    /// True for a file of a package's `tests/`, false for what stands beside the code.
    pub(super) apart: bool,
    /// The program.
    pub(super) program: PathBuf,
}

impl Built {
    /// Name of its package's folder.
    pub(super) fn room(&self) -> &str {
        self.folder
            .file_name()
            .and_then(|name| name.to_str())
            .unwrap_or_default()
    }

    /// A line for `bash` that runs it.
    pub(super) fn line(&self, arguments: &str) -> String {
        let (folder, program) = (self.folder.display(), self.program.display());
        format!("cd '{folder}' && '{program}' {arguments}")
    }
}

#[derive(Deserialize)]
struct Message {
    reason: String,
    #[serde(default)]
    executable: Option<PathBuf>,
    #[serde(default)]
    manifest_path: PathBuf,
    #[serde(default)]
    target: Target,
    #[serde(default)]
    profile: Profile,
}

#[derive(Default, Deserialize)]
struct Target {
    name: String,
    kind: Vec<String>,
}

#[derive(Default, Deserialize)]
struct Profile {
    test: bool,
}

/// All of them, in order of package and target. They are built already: cargo only tells where.
pub(super) fn list() -> anyhow::Result<Vec<Built>> {
    let told = command::command("cargo")
        .args(BUILD.split_whitespace().skip(1))
        .arg("--message-format=json")
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output()
        .context("cargo cannot be started")?;
    if !told.status.success() {
        bail!("the test programs cannot be built");
    }
    let text = String::from_utf8_lossy(&told.stdout);
    let mut all = read(&text);
    all.sort_by(|a, b| (&a.folder, a.apart, &a.target).cmp(&(&b.folder, b.apart, &b.target)));
    Ok(all)
}

fn read(text: &str) -> Vec<Built> {
    text.lines()
        .filter_map(|line| serde_json::from_str::<Message>(line).ok())
        .filter(|message| message.reason == "compiler-artifact" && message.profile.test)
        .filter_map(|message| {
            Some(Built {
                folder: message.manifest_path.parent()?.to_owned(),
                target: message.target.name,
                apart: message.target.kind.iter().any(|kind| kind == "test"),
                program: message.executable?,
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn test_programs_are_told_from_other_artifacts() {
        let text = r#"
{"reason":"compiler-artifact","manifest_path":"/w/tests/Cargo.toml","target":{"kind":["test"],"name":"death"},"profile":{"test":true},"executable":"/t/death-1"}
{"reason":"compiler-artifact","manifest_path":"/w/tests/Cargo.toml","target":{"kind":["bin"],"name":"demo"},"profile":{"test":false},"executable":"/t/demo"}
{"reason":"build-finished","success":true}"#;
        let built = read(text);
        assert_eq!(built.len(), 1);
        let only = &built[0];
        assert!(only.apart && only.room() == "tests" && only.target == "death");
        assert_eq!(only.line("--x"), "cd '/w/tests' && '/t/death-1' --x");
    }
}
