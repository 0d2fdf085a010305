//! Runs cargo and other programs, loudly, from the root of the repository.

use std::{
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, bail};

/// The root of the repository.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .map_or_else(PathBuf::new, Path::to_owned)
}

/// A line on standard output; a reader that went away is no error.
pub(crate) fn say(line: &str) {
    let _gone = writeln!(std::io::stdout(), "{line}");
}

/// The one place where an error is told.
pub(crate) fn say_error(line: &str) {
    let _gone = writeln!(std::io::stderr(), "error: {line}");
}

/// A heading above the output of a step.
pub(crate) fn heading(title: &str) {
    say(&format!("\n==== {title} ===="));
}

/// Runs cargo; fails when it fails.
pub(crate) fn cargo(arguments: &[&str], environment: &[(&str, &str)]) -> anyhow::Result<()> {
    let status = command("cargo")
        .args(arguments)
        .envs(environment.iter().copied())
        .status()
        .context("cargo cannot be started")?;
    if !status.success() {
        bail!("cargo {} failed", arguments.join(" "));
    }
    Ok(())
}

/// A program's standard output as text; fails when it fails.
pub(crate) fn output(program: &Path, arguments: &[&str]) -> anyhow::Result<String> {
    let result = command(program)
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("{} cannot be started", program.display()))?;
    if !result.status.success() {
        bail!("{} {} failed", program.display(), arguments.join(" "));
    }
    String::from_utf8(result.stdout).context("its output is no text")
}

/// A command that starts in the root of the repository.
pub(crate) fn command(program: impl AsRef<std::ffi::OsStr>) -> Command {
    let mut command = Command::new(program);
    command.current_dir(root());
    command
}
