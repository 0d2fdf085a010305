//! Protocol suites and clients of other people, as `scripts/peers.sh` left them, and our small programs over them.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, bail};

use crate::{
    binary::workspace,
    host::Host,
    process::{Child, run},
    wait::within,
};

/// The published suite of HTTP/2.
pub const H2SPEC: &str = "h2spec-2.2.1";
/// Client and server of gRPC's interoperability cases.
pub const GRPC: &str = "grpc-interop-1.85.0";
/// Python's `websockets`, `h2` and `grpcio`.
pub const PYTHON: &str = "python-1";

/// The folder of a peer; `None` while it was not built.
pub fn folder(name: &str) -> Option<PathBuf> {
    let tools = std::env::var_os("MESH_TOOLS")
        .map(PathBuf::from)
        .or_else(|| {
            let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
            let cache =
                cache.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache")));
            cache.map(|cache| cache.join("meshd-peers"))
        })?;
    let folder = tools.join("peers").join(name);
    folder.join(".done").exists().then_some(folder)
}

/// A copy of a peer that every user of a test's hosts can reach, which the cache of this user may not allow.
pub fn copied(name: &str, into: &Path) -> anyhow::Result<PathBuf> {
    let from =
        folder(name).with_context(|| format!("{name} was not built: scripts/setup.sh test"))?;
    let to = into.join(name);
    if !to.exists() {
        run(&[
            "cp",
            "-r",
            &from.display().to_string(),
            &to.display().to_string(),
        ])?;
    }
    Ok(to)
}

/// Our programs of `tests/programs` beside the Python packages that they use.
#[derive(Debug, Clone)]
pub struct Python {
    packages: PathBuf,
    programs: PathBuf,
}

impl Python {
    /// Copies packages and programs to where every user reaches them.
    pub fn new(into: &Path) -> anyhow::Result<Self> {
        let packages = copied(PYTHON, into)?;
        let programs = into.join("programs");
        if !programs.exists() {
            let from = workspace().join("tests/programs").display().to_string();
            run(&["cp", "-r", &from, &programs.display().to_string()])?;
        }
        Ok(Self { packages, programs })
    }

    /// A program on a host, ready to be given arguments. As root: an interpreter of root's own is out of reach of
    /// other users.
    pub fn program(&self, host: &Host, name: &str) -> Command {
        self.prepared(host.command("python3"), name)
    }

    /// A program outside all hosts, ready to be given arguments.
    pub fn program_here(&self, name: &str) -> Command {
        self.prepared(Command::new("python3"), name)
    }

    fn prepared(&self, mut command: Command, name: &str) -> Command {
        let path = format!("{}:{}", self.packages.display(), self.programs.display());
        command
            .env("PYTHONPATH", path)
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .arg("-u")
            .arg(self.programs.join(name));
        command
    }

    /// Starts a server that prints `ready`, and waits for that.
    pub fn serve(&self, host: &mut Host, name: &str, arguments: &[&str]) -> anyhow::Result<()> {
        let mut command = self.program(host, name);
        command.args(arguments);
        let title = format!("{name} {}", arguments.join(" "));
        let log = host.log_path(&title.replace([' ', '/'], "-"));
        let mut child = Child::start(&title, &mut command, &log)?;
        within(std::time::Duration::from_mins(1), || {
            if !child.runs() {
                bail!("{title} ended: {}", child.log());
            }
            if child.log().contains("ready") {
                Ok(())
            } else {
                bail!("{title} is not ready: {}", child.log())
            }
        })?;
        host.keep(child);
        Ok(())
    }

    /// Runs a client on a host to its end; what it printed.
    pub fn ask(&self, host: &Host, name: &str, arguments: &[&str]) -> anyhow::Result<String> {
        asked(self.program(host, name), name, arguments)
    }

    /// Runs a client outside all hosts to its end; what it printed.
    pub fn ask_here(&self, name: &str, arguments: &[&str]) -> anyhow::Result<String> {
        asked(self.program_here(name), name, arguments)
    }
}

fn asked(mut command: Command, name: &str, arguments: &[&str]) -> anyhow::Result<String> {
    let output = command.args(arguments).output()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() {
        return Ok(text);
    }
    let errors = String::from_utf8_lossy(&output.stderr);
    let shown = arguments.join(" ");
    bail!("{name} {shown}: {}\n{text}{errors}", output.status)
}
