//! The list as a tree of files with the right modes, and what the programs themselves generate.

use std::{
    io::ErrorKind,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use anyhow::Context;

use super::{
    Job,
    list::{Entry, Kind},
    tool,
};
use crate::command::root;

/// A staged tree.
#[derive(Debug)]
pub(crate) struct Tree {
    /// Its root.
    pub(crate) root: PathBuf,
    /// Files without the leading `/`, sorted.
    pub(crate) files: Vec<PathBuf>,
    /// Of them those whose edits are kept.
    pub(crate) config: Vec<PathBuf>,
}

/// Makes a folder that holds nothing.
pub(crate) fn empty(folder: &Path) -> anyhow::Result<()> {
    match std::fs::remove_dir_all(folder) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            return Err(error).with_context(|| folder.display().to_string());
        }
        _ => {}
    }
    std::fs::create_dir_all(folder).with_context(|| folder.display().to_string())
}

/// Puts every file of the list into `job.work/root`.
pub(crate) fn tree(job: &Job) -> anyhow::Result<Tree> {
    let made = job.work.join("made");
    generate(job, &made)?;
    let mut tree = Tree {
        root: job.work.join("root"),
        files: Vec::new(),
        config: Vec::new(),
    };
    directory(&tree.root)?;
    for entry in &job.list.files {
        if entry.kind == Kind::Directory {
            let path = tree.root.join(entry.destination.trim_start_matches('/'));
            parents(&tree.root, &path.join("x"))?;
            mode(&path, entry.bits()?)?;
            continue;
        }
        for (from, to) in entry.files(&root(), &job.programs, &made)? {
            let placed = place(job, &tree.root, entry, &from, &to)?;
            if entry.kind == Kind::Config {
                tree.config.push(placed.clone());
            }
            tree.files.push(placed);
        }
    }
    tree.files.sort();
    tree.config.sort();
    Ok(tree)
}

/// Manual pages and completions, from the program that they describe.
fn generate(job: &Job, made: &Path) -> anyhow::Result<()> {
    let program = job.programs.join("meshctl");
    let pages = made.join("man");
    std::fs::create_dir_all(&pages)?;
    tool(&program, &["man", &pages.display().to_string()], job.time)?;
    let scripts = made.join("completions");
    std::fs::create_dir_all(&scripts)?;
    for (shell, name) in [
        ("bash", "meshctl.bash"),
        ("zsh", "_meshctl"),
        ("fish", "meshctl.fish"),
    ] {
        let script = tool(&program, &["completions", shell], job.time)?;
        std::fs::write(scripts.join(name), script)?;
    }
    Ok(())
}

/// Copies one file; its final path without the leading `/`.
fn place(job: &Job, root: &Path, entry: &Entry, from: &Path, to: &Path) -> anyhow::Result<PathBuf> {
    let target = root.join(to);
    parents(root, &target)?;
    std::fs::copy(from, &target)
        .with_context(|| format!("{} to {}", from.display(), target.display()))?;
    let text = target.display().to_string();
    let mut placed = to.to_owned();
    match entry.kind {
        Kind::Program => {
            // The release build is stripped by cargo; another one is not.
            let stripped = tool(Path::new("strip"), &["--strip-unneeded", &text], job.time);
            if let Err(error) = stripped {
                crate::command::say(&format!("not stripped: {error:#}"));
            }
        }
        Kind::Manual => {
            tool(Path::new("gzip"), &["-9nf", &text], job.time)?;
            placed.as_mut_os_string().push(".gz");
        }
        Kind::Unit | Kind::Config | Kind::Document | Kind::Directory => {}
    }
    mode(&root.join(&placed), entry.bits()?)?;
    Ok(placed)
}

/// Every folder above `path`, mode 0755 whatever the umask.
fn parents(root: &Path, path: &Path) -> anyhow::Result<()> {
    let below = path.strip_prefix(root).context("outside of the tree")?;
    let mut folder = root.to_owned();
    for part in below.parent().into_iter().flat_map(Path::components) {
        folder.push(part);
        if !folder.is_dir() {
            directory(&folder)?;
        }
    }
    Ok(())
}

fn directory(path: &Path) -> anyhow::Result<()> {
    std::fs::create_dir_all(path).with_context(|| path.display().to_string())?;
    mode(path, 0o755)
}

/// Sets a mode.
pub(crate) fn mode(path: &Path, bits: u32) -> anyhow::Result<()> {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(bits))
        .with_context(|| path.display().to_string())
}
