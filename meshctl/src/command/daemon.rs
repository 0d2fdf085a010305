//! Becomes `meshd` for what works without a running daemon.

use std::{
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use crate::failure::{Exit, Failure};

/// Replaces this process by `meshd [--config FILE] VERB`. Comes back only when that fails.
///
/// It gets the rights of the user `meshd` when the caller is root and a package has made that user: files of the
/// state belong to it.
pub(crate) fn become_daemon(config: Option<&Path>, verb: &str, input: Option<Stdio>) -> Failure {
    let (program, mut command) = form(config, verb);
    if let Some(input) = input {
        command.stdin(input);
    }
    // A configuration of one's own may name directories that `meshd` cannot write.
    if config.is_none()
        && nix::unistd::geteuid().is_root()
        && let Ok(Some(user)) = nix::unistd::User::from_name("meshd")
    {
        command.uid(user.uid.as_raw()).gid(user.gid.as_raw());
    }
    missing(&program, &command.exec())
}

/// Runs `meshd [--config FILE] VERB` with the caller's rights to its end. What it warns of goes to standard error;
/// what it fails of becomes the failure.
pub(crate) fn run_daemon(config: Option<&Path>, verb: &str) -> Result<(), Failure> {
    let (program, mut command) = form(config, verb);
    let output = command
        .stdin(Stdio::null())
        .output()
        .map_err(|error| missing(&program, &error))?;
    let said = String::from_utf8_lossy(&output.stderr);
    let said = said.trim();
    if output.status.success() {
        if !said.is_empty() {
            crate::print::note(said);
        }
        return Ok(());
    }
    let (warned, what) = last_word(said);
    Err(Failure::new(
        Exit::Finding,
        &format!("{verb}-failed"),
        program.display().to_string(),
        if what.is_empty() {
            output.status.to_string()
        } else {
            what.to_owned()
        },
        "",
    )
    .with_details(warned))
}

/// What was told before the error, and the error that ended `meshd`.
fn last_word(said: &str) -> (&str, &str) {
    said.rsplit_once("\nmeshd: ")
        .unwrap_or_else(|| ("", said.strip_prefix("meshd: ").unwrap_or(said)))
}

fn form(config: Option<&Path>, verb: &str) -> (PathBuf, Command) {
    let program = beside(std::env::current_exe().ok()).unwrap_or_else(|| PathBuf::from("meshd"));
    let mut command = Command::new(&program);
    if let Some(config) = config {
        command.arg("--config").arg(config);
    }
    command.arg(verb);
    (program, command)
}

fn missing(program: &Path, error: &std::io::Error) -> Failure {
    Failure::new(
        Exit::Unreachable,
        "meshd-missing",
        program.display().to_string(),
        format!("cannot run it: {error}"),
        "install the package meshd, or put its program beside meshctl",
    )
}

/// The daemon's program in the directory of this one.
fn beside(own: Option<PathBuf>) -> Option<PathBuf> {
    let path = own?.parent()?.join("meshd");
    path.is_file().then_some(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_meshd_warned_of_is_not_what_it_failed_of() {
        assert_eq!(last_word("meshd: no"), ("", "no"));
        assert_eq!(
            last_word("a:1: x\ngoing on\nmeshd: no"),
            ("a:1: x\ngoing on", "no")
        );
        assert_eq!(last_word(""), ("", ""));
    }

    #[test]
    fn the_neighbour_comes_first() {
        let directory = tempfile::tempdir().unwrap();
        let own = directory.path().join("meshctl");
        assert_eq!(beside(Some(own.clone())), None);
        std::fs::write(directory.path().join("meshd"), "").unwrap();
        assert_eq!(beside(Some(own)), Some(directory.path().join("meshd")));
        assert_eq!(beside(None), None);
    }
}
