//! The laws of the house: each finds what breaks it, with file and remedy; sizes are advice.

use std::path::{Path, PathBuf};

use anyhow::bail;

use crate::command;

/// Modules of a crate never need each other in a circle.
mod circles;
/// Crates depend downward only.
mod floors;
/// One TLS stack, one HTTP stack, one runtime: by the lock file.
mod lock;
/// Documents name only what exists.
mod papers;
/// The largest files and functions.
mod sizes;
/// First lines, names, ignored tests, bans.
mod words;

/// A Rust file of the repository.
pub(crate) struct Source {
    /// Path from the root.
    pub(crate) path: PathBuf,
    /// Its text.
    pub(crate) text: String,
    /// Its syntax; none when it does not parse (the compiler will tell).
    pub(crate) syntax: Option<syn::File>,
}

/// Everything that the laws read.
pub(crate) struct House {
    /// The root of the repository.
    pub(crate) root: PathBuf,
    /// Every Rust file.
    pub(crate) sources: Vec<Source>,
}

impl House {
    /// Reads the repository.
    pub(crate) fn read(root: &Path) -> Self {
        let mut sources: Vec<Source> = files(root, "rs")
            .into_iter()
            .filter_map(|path| {
                let text = std::fs::read_to_string(root.join(&path)).ok()?;
                let syntax = syn::parse_file(&text).ok();
                Some(Source { path, text, syntax })
            })
            .collect();
        sources.sort_by(|one, other| one.path.cmp(&other.path));
        Self {
            root: root.to_owned(),
            sources,
        }
    }
}

/// The crates of the product, lowest floor first; `tests`, `bench`, `fuzz` and `xtask` stand beside.
pub(crate) const ROOMS: [&str; 10] = [
    "model",
    "plan",
    "gossip",
    "identity",
    "registry",
    "intercept",
    "kubernetes",
    "proxy",
    "meshd",
    "meshctl",
];
/// Rooms without clock, randomness, files and sockets.
pub(crate) const PURE: [&str; 3] = ["model", "plan", "gossip"];

/// Files with the extension, paths from the root; build results and hidden folders left out.
pub(crate) fn files(root: &Path, extension: &str) -> Vec<PathBuf> {
    let skipped = |name: &str| name == "target" || (name.starts_with('.') && name.len() > 1);
    walkdir::WalkDir::new(root)
        .into_iter()
        .filter_entry(|entry| {
            entry.depth() == 0 || !entry.file_name().to_str().is_some_and(skipped)
        })
        .filter_map(Result::ok)
        .filter(|entry| entry.file_type().is_file())
        .filter(|entry| {
            entry
                .path()
                .extension()
                .is_some_and(|found| found == extension)
        })
        .filter_map(|entry| entry.path().strip_prefix(root).ok().map(Path::to_owned))
        .collect()
}

/// Every breach of a law, in order.
pub(crate) fn breaches(house: &House) -> Vec<String> {
    let laws: [fn(&House) -> Vec<String>; 5] = [
        floors::breaches,
        circles::breaches,
        words::breaches,
        papers::breaches,
        lock::breaches,
    ];
    laws.iter().flat_map(|law| law(house)).collect()
}

/// Prints the advice, then fails when a law is broken.
pub(crate) fn run() -> anyhow::Result<()> {
    let house = House::read(&command::root());
    for line in sizes::advice(&house) {
        command::say(&line);
    }
    let breaches = breaches(&house);
    for breach in &breaches {
        command::say(&format!("× {breach}"));
    }
    if breaches.is_empty() {
        command::say("√ the laws of the house hold");
        return Ok(());
    }
    bail!("{} breaches of the laws of the house", breaches.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_laws_of_the_house_hold() {
        let breaches = breaches(&House::read(&command::root()));
        assert!(breaches.is_empty(), "{}", breaches.join("\n"));
    }
}
