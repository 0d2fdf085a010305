//! The configuration as written becomes the configuration as meant; every problem with file, line and key.

use super::{Boot, Live};

/// The text of every file that was read, in order: `meshd.toml`, `conf.d/*.toml`, `services.d/*.toml`.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    /// Path and text.
    pub files: Vec<(String, String)>,
    /// User ids by name, as the host has them.
    pub uids: std::collections::BTreeMap<String, u32>,
}

/// A fault in a file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{file}:{line}: {key}: {what}; {remedy}")]
pub struct ConfigError {
    /// The file.
    pub file: String,
    /// Line from 1; 0 when the fault is not of one line.
    pub line: usize,
    /// The key, such as `service[2].ports[0].target`.
    pub key: String,
    /// What is wrong.
    pub what: String,
    /// What would be right.
    pub remedy: String,
}

/// Checks everything; on faults all of them are returned.
pub fn read(_sources: &Sources) -> Result<(Boot, Live), Vec<ConfigError>> {
    Err(Vec::new())
}
