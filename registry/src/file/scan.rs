//! What is in the directory now, and what was good before.
//!
//! In: the directory. Out: whether anything changed, which file is broken and where.
//! Never: forgets the last good content of a file that still exists.

use std::{
    collections::BTreeMap,
    fs,
    io::{ErrorKind, Read},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use mesh_model::endpoint::ServiceKey;

use super::parse::{self, Parsed};
use crate::{breath, saved::checksum, sink::ServiceSet, source::SourceError};

/// Largest file that is read.
const MAX_FILE: u64 = 16 << 20;
/// Most files of one directory.
const MAX_FILES: usize = 10_000;

/// What a look found.
#[derive(Debug, Default)]
pub(crate) struct Found {
    /// The services are different from those of the last look.
    pub(crate) changed: bool,
    /// A file was being written: look again soon.
    pub(crate) unsettled: bool,
    /// Files that became unreadable with this look.
    pub(crate) newly_broken: usize,
}

/// A file's outer looks: when these are equal it is not read again.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    modified: (i64, i64),
    length: u64,
}

impl Stamp {
    fn of(meta: &fs::Metadata) -> Self {
        Self {
            device: meta.dev(),
            inode: meta.ino(),
            modified: (meta.mtime(), meta.mtime_nsec()),
            length: meta.len(),
        }
    }
}

/// A file that is or was read.
#[derive(Debug)]
struct Known {
    stamp: Option<Stamp>,
    good: Option<Parsed>,
    hash: u64,
    error: Option<String>,
}

/// The directory as last seen.
#[derive(Debug)]
pub(crate) struct Scan {
    directory: PathBuf,
    files: BTreeMap<String, Known>,
    first: bool,
}

impl Scan {
    pub(crate) fn new(directory: &Path) -> Self {
        Self {
            directory: directory.to_owned(),
            files: BTreeMap::new(),
            first: true,
        }
    }

    /// Looks at every file; reads those that look different.
    pub(crate) fn look(&mut self) -> Result<Found, SourceError> {
        let names = self.names()?;
        let mut found = Found {
            changed: self.first,
            ..Found::default()
        };
        self.first = false;
        let before = self.files.len();
        self.files.retain(|name, _| names.contains(name));
        found.changed |= self.files.len() != before;
        for name in names {
            self.look_at(&name, &mut found);
        }
        Ok(found)
    }

    /// The sets of all files, with a hash of their file's content. A service that two files name is the
    /// first file's; `error` tells of it.
    pub(crate) fn services(&self) -> Vec<(ServiceKey, ServiceSet, u64)> {
        let mut all: BTreeMap<ServiceKey, (ServiceSet, u64)> = BTreeMap::new();
        for known in self.files.values() {
            for (key, set) in known.good.iter().flat_map(|parsed| &parsed.services) {
                breath::take();
                all.entry(key.clone())
                    .or_insert_with(|| (set.clone(), known.hash));
            }
        }
        all.into_iter()
            .map(|(key, (set, hash))| (key, set, hash))
            .collect()
    }

    /// What is wrong, first file first; `None` when nothing is.
    pub(crate) fn error(&self) -> Option<String> {
        let broken = self.files.values().filter_map(|known| known.error.clone());
        let mut owners: BTreeMap<&ServiceKey, &str> = BTreeMap::new();
        let mut doubles = Vec::new();
        for (name, known) in &self.files {
            for (key, _) in known.good.iter().flat_map(|parsed| &parsed.services) {
                match owners.get(key) {
                    None => {
                        owners.insert(key, name);
                    }
                    Some(owner) => doubles.push(format!(
                        "{}: service {} is already in {owner}, which is used",
                        self.directory.join(name).display(),
                        key.name
                    )),
                }
            }
        }
        let all: Vec<String> = broken.chain(doubles).collect();
        match all.as_slice() {
            [] => None,
            [only] => Some(only.clone()),
            [first, rest @ ..] => Some(format!("{first} (and {} more)", rest.len())),
        }
    }

    fn names(&self) -> Result<Vec<String>, SourceError> {
        let wrap = |cause| SourceError::Transport {
            subject: self.directory.display().to_string(),
            cause,
        };
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.directory).map_err(wrap)? {
            let name = entry.map_err(wrap)?.file_name();
            if let Some(name) = name.to_str().filter(|name| parse::is_ours(name)) {
                names.push(name.to_owned());
            }
            if names.len() > MAX_FILES {
                return Err(SourceError::Config(format!(
                    "{} has more than {MAX_FILES} files",
                    self.directory.display()
                )));
            }
        }
        names.sort();
        Ok(names)
    }

    fn look_at(&mut self, name: &str, found: &mut Found) {
        let path = self.directory.join(name);
        let known = self.files.entry(name.to_owned()).or_insert_with(|| Known {
            stamp: None,
            good: None,
            hash: 0,
            error: None,
        });
        let before = match fs::metadata(&path) {
            // Gone between the listing and now: the next look removes it.
            Err(error) if error.kind() == ErrorKind::NotFound => return found.unsettled = true,
            Err(error) => return known.break_with(format!("{}: {error}", path.display()), found),
            Ok(meta) if meta.is_dir() => return,
            Ok(meta) => Stamp::of(&meta),
        };
        if known.stamp.as_ref() == Some(&before) {
            return;
        }
        let text = match read(&path) {
            Ok(text) => text,
            Err(what) => return known.break_with(format!("{}: {what}", path.display()), found),
        };
        let after = fs::metadata(&path).ok().map(|meta| Stamp::of(&meta));
        if after.as_ref() != Some(&before) {
            found.unsettled = true;
            return;
        }
        known.take(&path, name, &text, before, found);
    }
}

impl Known {
    fn break_with(&mut self, error: String, found: &mut Found) {
        if self.error.as_ref() != Some(&error) {
            found.newly_broken += 1;
            self.error = Some(error);
        }
        // Not remembered by its looks, so that it is read again at the next look.
        self.stamp = None;
    }

    fn take(&mut self, path: &Path, name: &str, text: &str, stamp: Stamp, found: &mut Found) {
        let parsed = parse::parse(name, text).and_then(|parsed| {
            let had_some = self
                .good
                .as_ref()
                .is_some_and(|good| !good.services.is_empty());
            if parsed.services.is_empty() && had_some && !parsed.allow_empty {
                return Err(parse::Fault {
                    line: 0,
                    what:
                        "it names no service any more; delete the file, or write allow_empty = true"
                            .to_owned(),
                });
            }
            Ok(parsed)
        });
        match parsed {
            Ok(parsed) => {
                found.changed |= self.good.as_ref() != Some(&parsed);
                self.hash = checksum(text.as_bytes());
                let before = self.good.replace(parsed).unwrap_or_default();
                for (_, set) in before.services {
                    breath::free(set.endpoints);
                }
                self.error = None;
                self.stamp = Some(stamp);
            }
            Err(fault) => {
                self.break_with(
                    format!("{}:{}: {}", path.display(), fault.line, fault.what),
                    found,
                );
                self.stamp = Some(stamp);
            }
        }
    }
}

fn read(path: &Path) -> Result<String, String> {
    let file = fs::File::open(path).map_err(|error| error.to_string())?;
    let mut text = String::new();
    let mut limited = file.take(MAX_FILE + 1);
    limited
        .read_to_string(&mut text)
        .map_err(|error| error.to_string())?;
    if text.len() as u64 > MAX_FILE {
        return Err(format!("larger than {MAX_FILE} bytes"));
    }
    Ok(text)
}
