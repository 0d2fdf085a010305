//! `files.toml` as written: unknown keys refused, every entry checked before anything is made.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use serde::Deserialize;

/// The list.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct List {
    /// What the package says of itself.
    pub(crate) package: Package,
    /// Its files.
    #[serde(rename = "file")]
    pub(crate) files: Vec<Entry>,
}

/// What a package says of itself.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Package {
    /// Its name.
    pub(crate) name: String,
    /// One line.
    pub(crate) summary: String,
    /// Paragraphs, with an empty line between them.
    pub(crate) description: String,
    /// Section of the archive.
    pub(crate) section: String,
    /// Whom to write to.
    pub(crate) maintainer: String,
    /// What it needs, in Debian's words.
    pub(crate) depends: Vec<String>,
    /// What goes well with it.
    pub(crate) recommends: Vec<String>,
}

/// A file of the package, or several (`source` ends with `*`).
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Entry {
    /// Where it comes from; nothing for a directory.
    pub(crate) source: Option<String>,
    /// Where it goes; ends with `/` when `source` names several.
    pub(crate) destination: String,
    /// Octal.
    pub(crate) mode: String,
    /// What it is.
    pub(crate) kind: Kind,
}

/// What a file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Kind {
    /// Compiled; symbols are stripped.
    Program,
    /// For systemd and its relatives.
    Unit,
    /// An administrator's edits are kept.
    Config,
    /// Compressed.
    Manual,
    /// As it is.
    Document,
    /// Empty.
    Directory,
}

impl List {
    /// Reads and checks the list.
    pub(crate) fn read(path: &Path) -> anyhow::Result<Self> {
        let place = || path.display().to_string();
        let text = std::fs::read_to_string(path).with_context(place)?;
        let list: Self = toml::from_str(&text).with_context(place)?;
        for entry in &list.files {
            entry.check().with_context(place)?;
        }
        let mut seen = std::collections::BTreeSet::new();
        for entry in &list.files {
            let folder = entry.destination.ends_with('/');
            if !folder && !seen.insert(&entry.destination) {
                bail!("{}: {} is there twice", place(), entry.destination);
            }
        }
        Ok(list)
    }
}

impl Entry {
    fn check(&self) -> anyhow::Result<()> {
        let fault = |what: &str| anyhow::anyhow!("{}: {what}", self.destination);
        if !self.destination.starts_with('/') || self.destination.contains("..") {
            return Err(fault("the destination is no absolute path"));
        }
        self.bits()?;
        match (&self.source, self.kind) {
            (None, Kind::Directory) => Ok(()),
            (Some(_), Kind::Directory) => Err(fault("a directory has no source")),
            (None, _) => Err(fault("the source is missing")),
            (Some(source), _) if source.ends_with('*') != self.destination.ends_with('/') => {
                Err(fault("several files need a destination that ends with /"))
            }
            (Some(_), _) => Ok(()),
        }
    }

    /// The mode.
    pub(crate) fn bits(&self) -> anyhow::Result<u32> {
        let bits = u32::from_str_radix(&self.mode, 8);
        match bits {
            Ok(bits) if bits <= 0o755 => Ok(bits),
            _ => bail!(
                "{}: mode {} is not between 0000 and 0755",
                self.destination,
                self.mode
            ),
        }
    }

    /// Every file of the entry: where it is and where it goes (without the leading `/`).
    pub(crate) fn files(
        &self,
        root: &Path,
        programs: &Path,
        made: &Path,
    ) -> anyhow::Result<Vec<(PathBuf, PathBuf)>> {
        let Some(source) = &self.source else {
            return Ok(Vec::new());
        };
        let from = match source.split_once(':') {
            Some(("build", name)) => programs.join(name),
            Some(("made", name)) => made.join(name),
            _ => root.join(source),
        };
        let destination = PathBuf::from(self.destination.trim_start_matches('/'));
        if !source.ends_with('*') {
            return Ok(vec![(from, destination)]);
        }
        let folder = from.parent().context("no folder")?;
        let mut found: Vec<(PathBuf, PathBuf)> = std::fs::read_dir(folder)
            .with_context(|| folder.display().to_string())?
            .map(|entry| entry.map(|e| (e.path(), destination.join(e.file_name()))))
            .collect::<Result<_, _>>()?;
        found.sort();
        if found.is_empty() {
            bail!("{}: nothing is there", folder.display());
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(source: Option<&str>, destination: &str, mode: &str, kind: Kind) -> Entry {
        Entry {
            source: source.map(str::to_owned),
            destination: destination.into(),
            mode: mode.into(),
            kind,
        }
    }

    #[test]
    fn faults_of_an_entry() {
        let bad = [
            entry(Some("a"), "usr/bin/a", "0755", Kind::Program),
            entry(Some("a"), "/usr/../a", "0755", Kind::Program),
            entry(Some("a"), "/a", "4755", Kind::Program),
            entry(Some("a"), "/a", "x", Kind::Program),
            entry(None, "/a", "0755", Kind::Program),
            entry(Some("a"), "/a", "0755", Kind::Directory),
            entry(Some("a/*"), "/a", "0644", Kind::Document),
            entry(Some("a"), "/a/", "0644", Kind::Document),
        ];
        for one in bad {
            assert!(one.check().is_err(), "{one:?}");
        }
        entry(None, "/etc/x", "0755", Kind::Directory)
            .check()
            .unwrap();
    }

    #[test]
    fn the_list_of_this_repository_is_sound_and_its_sources_exist() {
        let root = crate::command::root();
        let list = List::read(&root.join("packaging/files.toml")).unwrap();
        for entry in &list.files {
            let source = entry.source.as_deref().unwrap_or_default();
            if source.contains(':') {
                continue;
            }
            for (from, _) in entry.files(&root, &root, &root).unwrap() {
                assert!(from.is_file(), "{}", from.display());
            }
        }
    }

    #[test]
    fn every_unit_of_the_repository_is_packaged() {
        let root = crate::command::root();
        let list = List::read(&root.join("packaging/files.toml")).unwrap();
        for unit in std::fs::read_dir(root.join("systemd")).unwrap() {
            let name = unit.unwrap().file_name().into_string().unwrap();
            let source = format!("systemd/{name}");
            let listed = list
                .files
                .iter()
                .any(|entry| entry.source.as_ref() == Some(&source));
            assert!(listed, "{source}");
        }
    }
}
