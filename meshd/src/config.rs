//! Reads the configuration's files; the checking is `mesh_model::config`'s.
//!
//! In: a path. Out: `Boot` and `Live`, or every fault with file, line and key.

use std::{
    collections::BTreeMap,
    io::ErrorKind,
    path::{Path, PathBuf},
};

use mesh_model::config::{Boot, ConfigError, Live, Sources};

/// What can still be read of a configuration that has faults.
mod rescue;

pub(crate) use rescue::rescued;

/// A configuration that was found good.
#[derive(Debug, Clone)]
pub(crate) struct Loaded {
    /// What needs a restart.
    pub(crate) boot: Boot,
    /// What a reload may change.
    pub(crate) live: Live,
}

/// The main file unless another one is named. It alone may be missing.
pub(crate) const DEFAULT: &str = "/etc/meshd/meshd.toml";

const MAX_FILE: u64 = 4 << 20;

/// As [`load_files`], with the services that are tried; a trial that does not fit the rest is left out.
pub(crate) fn load(path: &Path) -> Result<Loaded, Vec<ConfigError>> {
    let loaded = load_files(path, &[])?;
    let trial = crate::adopt::trial::directory(&loaded.boot.state_dir);
    // Whoever only checks may not look into the state directory.
    let tried = toml_files(&trial).unwrap_or_else(|error| {
        tracing::warn!(%error, "what is tried cannot be read");
        Vec::new()
    });
    if tried.is_empty() {
        return Ok(loaded);
    }
    match load_files(path, &tried) {
        Ok(with) => Ok(with),
        Err(faults) => {
            tracing::warn!(faults = %faults_text(&faults), "what is tried does not fit the configuration");
            Ok(loaded)
        }
    }
}

/// Reads `path`, `conf.d/*.toml` and `services.d/*.toml` beside it, in this order, each by name, and `more`.
/// Without the main file of the default place, and without a folder, defaults count, so that a fresh install runs
/// idle. Whatever else cannot be read is a fault: a service whose file cannot be read has not been taken away.
fn load_files(path: &Path, more: &[PathBuf]) -> Result<Loaded, Vec<ConfigError>> {
    let mut faults = Vec::new();
    let mut files = found(path, &mut faults);
    for file in more {
        take(file, &mut files, &mut faults);
    }
    let uids = named_users(&files);
    match mesh_model::config::read(&Sources { files, uids }) {
        Ok((boot, live)) if faults.is_empty() => Ok(Loaded { boot, live }),
        Ok(_) => Err(faults),
        Err(more) => {
            faults.extend(more);
            Err(faults)
        }
    }
}

/// The files of a configuration, with the faults of those that cannot be read.
fn found(path: &Path, faults: &mut Vec<ConfigError>) -> Vec<(String, String)> {
    let mut files = Vec::new();
    // A link that leads nowhere is there.
    let missing =
        std::fs::symlink_metadata(path).is_err_and(|error| error.kind() == ErrorKind::NotFound);
    if !(missing && path == Path::new(DEFAULT)) {
        take(path, &mut files, faults);
    }
    let directory = path.parent().unwrap_or_else(|| Path::new("."));
    for folder in ["conf.d", "services.d"] {
        let folder = directory.join(folder);
        match toml_files(&folder) {
            Ok(list) => list.iter().for_each(|file| take(file, &mut files, faults)),
            Err(error) => faults.push(unreadable(
                &folder,
                &error,
                "make it a directory that meshd may read",
            )),
        }
    }
    files
}

/// All faults, one a line.
pub(crate) fn faults_text(faults: &[ConfigError]) -> String {
    faults.iter().fold(String::new(), |text, fault| {
        text + &fault.to_string() + "\n"
    })
}

fn take(path: &Path, files: &mut Vec<(String, String)>, faults: &mut Vec<ConfigError>) {
    let name = path.display().to_string();
    let read = std::fs::metadata(path).and_then(|found| {
        if found.len() > MAX_FILE {
            return Err(std::io::Error::other("larger than 4 MiB"));
        }
        std::fs::read_to_string(path)
    });
    match read {
        Ok(text) => files.push((name, text)),
        Err(error) => faults.push(unreadable(
            path,
            &error,
            "make it a readable UTF-8 text file",
        )),
    }
}

fn unreadable(path: &Path, error: &std::io::Error, remedy: &str) -> ConfigError {
    ConfigError {
        file: path.display().to_string(),
        line: 0,
        key: String::new(),
        what: format!("cannot be read: {error}"),
        remedy: remedy.to_owned(),
    }
}

/// The files of a folder by name; none when there is no folder.
fn toml_files(folder: &Path) -> std::io::Result<Vec<PathBuf>> {
    // A link that leads nowhere is there.
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error)
            if error.kind() == ErrorKind::NotFound
                && std::fs::symlink_metadata(folder).is_err() =>
        {
            return Ok(Vec::new());
        }
        Err(error) => return Err(error),
    };
    let all: Vec<PathBuf> = entries
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<std::io::Result<_>>()?;
    let mut found: Vec<PathBuf> = all
        .into_iter()
        .filter(|path| {
            path.extension()
                .is_some_and(|extension| extension == "toml")
        })
        .filter(|path| {
            !path
                .file_name()
                .is_some_and(|name| name.to_string_lossy().starts_with('.'))
        })
        .collect();
    found.sort();
    Ok(found)
}

/// The user ids of every user name that a `user` key mentions, by the host's own name service.
fn named_users(files: &[(String, String)]) -> BTreeMap<String, u32> {
    let mut names = Vec::new();
    for (_, text) in files {
        if let Ok(value) = toml::from_str::<toml::Value>(text) {
            collect_users(&value, &mut names);
        }
    }
    names
        .into_iter()
        .filter_map(|name| {
            let user = nix::unistd::User::from_name(&name).ok().flatten()?;
            Some((name, user.uid.as_raw()))
        })
        .collect()
}

fn collect_users(value: &toml::Value, names: &mut Vec<String>) {
    match value {
        toml::Value::Table(table) => {
            for (key, inner) in table {
                match (key.as_str(), inner) {
                    ("user" | "users", toml::Value::String(name)) => names.push(name.clone()),
                    ("user" | "users", toml::Value::Array(list)) => {
                        names.extend(list.iter().filter_map(|v| v.as_str().map(str::to_owned)));
                    }
                    (_, inner) => collect_users(inner, names),
                }
            }
        }
        toml::Value::Array(list) => list.iter().for_each(|inner| collect_users(inner, names)),
        _ => {}
    }
}

#[cfg(test)]
mod tests;
