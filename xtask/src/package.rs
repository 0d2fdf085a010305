//! `packaging/files.toml` to packages: one list, staged into a folder, packed reproducibly.
//!
//! In: the list, the compiled programs, what they generate. Out: `target/packages/meshd_VERSION_ARCH.deb`,
//! the same bytes for the same inputs and `SOURCE_DATE_EPOCH`.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use clap::Parser;

use crate::command::{self, heading, say};

/// The Debian package.
mod deb;
/// `files.toml` as written.
mod list;
/// The list as a tree of files.
mod stage;

use list::List;

/// Builds packages.
#[derive(Debug, Parser)]
#[command(name = "package")]
struct Wish {
    /// What to build
    #[arg(default_value = "deb")]
    form: Form,
    /// Take the programs as they are
    #[arg(long)]
    no_build: bool,
    /// Folder of the compiled programs; `target/release` unless set
    #[arg(long, env = "MESH_BIN_DIR")]
    programs: Option<PathBuf>,
    /// Where packages go; `target/packages` unless set
    #[arg(long)]
    out: Option<PathBuf>,
    /// The workspace's version unless set
    #[arg(long)]
    version: Option<String>,
    /// Compress little: for packages that are thrown away
    #[arg(long)]
    fast: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Form {
    /// Debian, Ubuntu
    Deb,
}

/// Where a package comes from and what it is called.
#[derive(Debug)]
pub(crate) struct Job {
    /// The list.
    pub(crate) list: List,
    /// Folder of the compiled programs.
    pub(crate) programs: PathBuf,
    /// Folder of what is made on the way; emptied first.
    pub(crate) work: PathBuf,
    /// Folder of finished packages.
    pub(crate) out: PathBuf,
    /// Version without a revision.
    pub(crate) version: String,
    /// Seconds since the epoch: the time of every file.
    pub(crate) time: u64,
    /// Compress little.
    pub(crate) fast: bool,
}

/// Builds the packages that `rest` asks for.
pub(crate) fn run(rest: &[String]) -> anyhow::Result<()> {
    let words = std::iter::once("package".to_owned()).chain(rest.iter().cloned());
    let wish = Wish::try_parse_from(words)?;
    let root = command::root();
    let target =
        std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
    if !wish.no_build && wish.programs.is_none() {
        heading("programs of the package");
        command::cargo(&["build", "--release", "-p", "meshd", "-p", "meshctl"], &[])?;
    }
    let list = List::read(&root.join("packaging/files.toml"))?;
    let out = absolute(&wish.out.unwrap_or_else(|| target.join("packages")))?;
    let job = Job {
        programs: absolute(&wish.programs.unwrap_or_else(|| target.join("release")))?,
        work: out.join(format!("{}.work", list.package.name)),
        version: match wish.version {
            Some(version) => version,
            None => workspace_version(&root)?,
        },
        time: source_date(&root)?,
        fast: wish.fast,
        list,
        out,
    };
    stage::empty(&job.work)?;
    let Form::Deb = wish.form;
    let package = deb::build(&job)?;
    std::fs::remove_dir_all(&job.work).context("the staging folder cannot be removed")?;
    say(&format!("{}", package.display()));
    Ok(())
}

fn absolute(path: &Path) -> anyhow::Result<PathBuf> {
    std::path::absolute(path).with_context(|| format!("{} is no path", path.display()))
}

fn workspace_version(root: &Path) -> anyhow::Result<String> {
    let text = std::fs::read_to_string(root.join("Cargo.toml")).context("Cargo.toml")?;
    let manifest: toml::Table = text.parse().context("Cargo.toml")?;
    let version = manifest
        .get("workspace")
        .and_then(|workspace| workspace.get("package")?.get("version")?.as_str());
    version
        .map(str::to_owned)
        .context("Cargo.toml names no workspace.package.version")
}

/// `SOURCE_DATE_EPOCH`, or the time of the last commit.
fn source_date(root: &Path) -> anyhow::Result<u64> {
    if let Some(given) = std::env::var_os("SOURCE_DATE_EPOCH") {
        let text = given.to_string_lossy();
        return text
            .trim()
            .parse()
            .with_context(|| format!("SOURCE_DATE_EPOCH={text}"));
    }
    let root = root.display().to_string();
    let log = ["-C", &root, "log", "-1", "--format=%ct"];
    match command::output(Path::new("git"), &log) {
        Ok(text) => text.trim().parse().context("git names no time"),
        // A source archive without history: any fixed time is as reproducible.
        Err(_no_git) => Ok(1_700_000_000),
    }
}

/// Runs a program; its output is shown when it fails.
pub(crate) fn tool(program: &Path, arguments: &[&str], time: u64) -> anyhow::Result<String> {
    let output = command::command(program)
        .args(arguments)
        .env("SOURCE_DATE_EPOCH", time.to_string())
        .env("LC_ALL", "C")
        .stdin(std::process::Stdio::null())
        .output()
        .with_context(|| format!("{} cannot be started", program.display()))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!(
            "{} {} failed: {}",
            program.display(),
            arguments.join(" "),
            said.trim()
        );
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
