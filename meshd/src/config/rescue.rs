//! Of a configuration with faults: where the state is, and how names are answered. All else is as without a file.
//!
//! For what must work when nothing else does: bypass, purge, names, a restore. Out: a [`Boot`] in which only
//! `state_dir`, `runtime_dir` and `[names]` are the files' own. Never: enough to start the daemon with.

use std::path::Path;

use mesh_model::config::{Boot, ConfigError, Sources};

use super::{faults_text, found, load_files};
use crate::telemetry;

/// The keys that count here.
const KEYS: [&[&str]; 4] = [
    &["state_dir"],
    &["runtime_dir"],
    &["names", "listen"],
    &["names", "upstream"],
];
/// Lines that are passed over in a file that is no TOML.
const MAX_LINES: usize = 100;

/// The settings of a good configuration; of another one what can be read, with its faults on standard error.
pub(crate) fn rescued(path: &Path) -> Result<Boot, Vec<ConfigError>> {
    let faults = match load_files(path, &[]) {
        Ok(loaded) => return Ok(loaded.boot),
        Err(faults) => faults,
    };
    let boot = readable(&found(path, &mut Vec::new()))?;
    telemetry::complain(&format!(
        "{}going on in spite of this, with state_dir {} and runtime_dir {}\n",
        faults_text(&faults),
        boot.state_dir.display(),
        boot.runtime_dir.display()
    ));
    Ok(boot)
}

/// What the keys that count here say, each where it is good; of several files the last one counts.
fn readable(files: &[(String, String)]) -> Result<Boot, Vec<ConfigError>> {
    let mut good = toml::Table::new();
    for (_, text) in files.iter().filter(|(path, _)| !of_a_service(path)) {
        let table = lines_that_parse(text);
        for keys in KEYS {
            let mut more = good.clone();
            if copy(&table, &mut more, keys) && meant(&more).is_ok() {
                good = more;
            }
        }
    }
    meant(&good)
}

/// Files of `services.d` hold services only.
fn of_a_service(path: &str) -> bool {
    path.rsplit('/').nth(1) == Some("services.d")
}

/// Puts the value at `keys` into the other table; false when there is none.
fn copy(from: &toml::Table, into: &mut toml::Table, keys: &[&str]) -> bool {
    let Some((key, inner)) = keys.split_first() else {
        return false;
    };
    let Some(value) = from.get(*key) else {
        return false;
    };
    if inner.is_empty() {
        into.insert((*key).to_owned(), value.clone());
        return true;
    }
    let place = into
        .entry((*key).to_owned())
        .or_insert_with(|| toml::Value::Table(toml::Table::new()));
    match (value, place) {
        (toml::Value::Table(value), toml::Value::Table(place)) => copy(value, place, inner),
        _ => false,
    }
}

fn meant(table: &toml::Table) -> Result<Boot, Vec<ConfigError>> {
    let sources = Sources {
        files: vec![(String::new(), table.to_string())],
        ..Sources::default()
    };
    mesh_model::config::read(&sources).map(|(boot, _)| boot)
}

/// The file without the lines that keep it from being TOML.
fn lines_that_parse(text: &str) -> toml::Table {
    let mut lines: Vec<&str> = text.lines().collect();
    for _ in 0..MAX_LINES {
        let now = lines.join("\n");
        let error = match toml::from_str(&now) {
            Ok(table) => return table,
            Err(error) => error,
        };
        let place = toml::de::Error::span(&error).map_or(0, |span| span.start);
        let number = now
            .get(..place)
            .map_or(0, |before| before.matches('\n').count());
        match lines.get_mut(number) {
            Some(line) if !line.is_empty() => *line = "",
            _ => break,
        }
    }
    toml::Table::new()
}
