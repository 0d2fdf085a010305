//! Becomes `meshd` for what works without a running daemon.

use std::{
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use crate::failure::{Exit, Failure};

/// Whose rights `meshd` gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum As {
    /// Those of the caller.
    Caller,
    /// Those of the user `meshd`, when the caller is root and a package has made that user: files of the
    /// state belong to it.
    Daemon,
}

/// Replaces this process by `meshd [--config FILE] VERB`. Comes back only when that fails.
pub(crate) fn become_daemon(
    config: Option<&Path>,
    verb: &str,
    rights: As,
    input: Option<Stdio>,
) -> Failure {
    let program = beside(std::env::current_exe().ok()).unwrap_or_else(|| PathBuf::from("meshd"));
    let mut command = Command::new(&program);
    if let Some(config) = config {
        command.arg("--config").arg(config);
    }
    command.arg(verb);
    if let Some(input) = input {
        command.stdin(input);
    }
    // A configuration of one's own may name directories that `meshd` cannot write.
    if rights == As::Daemon
        && config.is_none()
        && nix::unistd::geteuid().is_root()
        && let Ok(Some(user)) = nix::unistd::User::from_name("meshd")
    {
        command.uid(user.uid.as_raw()).gid(user.gid.as_raw());
    }
    let error = command.exec();
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
    fn the_neighbour_comes_first() {
        let directory = tempfile::tempdir().unwrap();
        let own = directory.path().join("meshctl");
        assert_eq!(beside(Some(own.clone())), None);
        std::fs::write(directory.path().join("meshd"), "").unwrap();
        assert_eq!(beside(Some(own)), Some(directory.path().join("meshd")));
        assert_eq!(beside(None), None);
    }
}
