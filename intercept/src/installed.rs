//! What is installed, written down so that another process can remove it when the daemon is dead.

use std::{
    fs, io,
    net::IpAddr,
    path::{Path, PathBuf},
};

use serde_json::{Value, json};

use crate::{intent::Intent, routes::Range};

/// Priority of our `ip rule` and number of our routing table.
pub(crate) const TABLE: u32 = 7700;

/// The routes and rules of one installation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Installed {
    pub(crate) ranges: Vec<Range>,
    pub(crate) table: u32,
}

impl Installed {
    pub(crate) fn of(intent: &Intent, table: u32) -> Self {
        let (v4, v6) = (intent.virtual_v4, intent.virtual_v6);
        Self {
            ranges: vec![
                Range {
                    network: IpAddr::V4(v4.0),
                    prefix: v4.1,
                },
                Range {
                    network: IpAddr::V6(v6.0),
                    prefix: v6.1,
                },
            ],
            table,
        }
    }

    /// What was written last; none when nothing was, or it cannot be read.
    pub(crate) fn read(state_dir: &Path) -> Option<Self> {
        let value: Value = serde_json::from_slice(&fs::read(file(state_dir)).ok()?).ok()?;
        let ranges = value
            .get("ranges")?
            .as_array()?
            .iter()
            .filter_map(|range| range.as_str()?.parse().ok())
            .collect();
        let table = u32::try_from(value.get("table")?.as_u64()?).ok()?;
        Some(Self { ranges, table })
    }

    /// Written before anything is installed.
    pub(crate) fn write(&self, state_dir: &Path) -> io::Result<()> {
        let ranges: Vec<String> = self.ranges.iter().map(ToString::to_string).collect();
        let value = json!({ "ranges": ranges, "table": self.table });
        let (path, next) = (file(state_dir), file(state_dir).with_extension("next"));
        fs::write(&next, value.to_string())?;
        fs::rename(next, path)
    }

    pub(crate) fn forget(state_dir: &Path) -> io::Result<()> {
        match fs::remove_file(file(state_dir)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other,
        }
    }
}

fn file(state_dir: &Path) -> PathBuf {
    state_dir.join("interception.json")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_read_back_and_forgotten() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(Installed::read(folder.path()), None);
        let written = Installed {
            ranges: vec![
                "240.240.0.0/16".parse().unwrap(),
                "fd00:1::/64".parse().unwrap(),
            ],
            table: 7700,
        };
        written.write(folder.path()).unwrap();
        assert_eq!(Installed::read(folder.path()), Some(written));
        Installed::forget(folder.path()).unwrap();
        Installed::forget(folder.path()).unwrap();
        assert_eq!(Installed::read(folder.path()), None);
    }

    #[test]
    fn a_damaged_record_is_no_record() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(file(folder.path()), b"{\"ranges\": 7").unwrap();
        assert_eq!(Installed::read(folder.path()), None);
    }
}
