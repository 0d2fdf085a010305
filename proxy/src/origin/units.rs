//! Which systemd unit a cgroup belongs to.
//!
//! In: the cgroup id that the kernel gives with a socket, and units announced before their first process
//! starts. Out: the unit of the system manager that holds the cgroup. Never: believes units of user
//! managers, whose names anybody may choose.

use std::{
    collections::HashMap,
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Component, Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

/// Known cgroups; shared by all workers, asked once per connection.
#[derive(Debug)]
pub(crate) struct Units {
    root: PathBuf,
    known: Mutex<HashMap<u64, Option<Arc<str>>>>,
}

/// More cgroups than a host has; beyond it everything is looked up anew.
const KNOWN: usize = 65_536;
/// Deepest cgroup that is searched.
const DEPTH: usize = 12;

impl Units {
    /// Looks below `root`, the mount point of the cgroup v2 tree.
    pub(crate) fn new(root: Option<PathBuf>) -> Self {
        let unified = Path::new("/sys/fs/cgroup/unified");
        let found = || {
            if unified.is_dir() {
                unified
            } else {
                Path::new("/sys/fs/cgroup")
            }
            .into()
        };
        Self {
            root: root.unwrap_or_else(found),
            known: Mutex::default(),
        }
    }

    /// The unit of a cgroup. A cgroup never seen before costs one walk over the tree.
    pub(crate) fn unit(&self, cgroup: u64) -> Option<Arc<str>> {
        if let Some(unit) = self.lock().get(&cgroup) {
            return unit.clone();
        }
        let unit = find(&self.root, cgroup, DEPTH)
            .and_then(|path| unit_of(path.strip_prefix(&self.root).ok()?).map(Arc::from));
        self.remember(cgroup, unit.clone());
        unit
    }

    /// Binds a cgroup, given by its path under the root, to a unit.
    pub(crate) fn enrol(&self, cgroup: &Path, unit: &str) -> io::Result<()> {
        let inside = cgroup.strip_prefix("/").unwrap_or(cgroup);
        if inside
            .components()
            .any(|part| !matches!(part, Component::Normal(_)))
        {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "not a path under the cgroup root",
            ));
        }
        let metadata = fs::metadata(self.root.join(inside))?;
        self.remember(metadata.ino(), Some(Arc::from(unit)));
        Ok(())
    }

    fn remember(&self, cgroup: u64, unit: Option<Arc<str>>) {
        let mut known = self.lock();
        if known.len() >= KNOWN {
            known.clear();
        }
        known.insert(cgroup, unit);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<u64, Option<Arc<str>>>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The directory below `directory` with this inode number.
fn find(directory: &Path, cgroup: u64, depth: usize) -> Option<PathBuf> {
    let entries = fs::read_dir(directory).ok()?;
    let below: Vec<_> = entries
        .filter_map(Result::ok)
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .collect();
    let hit = |entry: &&fs::DirEntry| entry.metadata().is_ok_and(|data| data.ino() == cgroup);
    if let Some(entry) = below.iter().find(hit) {
        return Some(entry.path());
    }
    let deeper = depth.checked_sub(1)?;
    below
        .iter()
        .find_map(|entry| find(&entry.path(), cgroup, deeper))
}

/// The outermost unit on a path: that one was made by the system manager.
fn unit_of(path: &Path) -> Option<&str> {
    path.components()
        .filter_map(|part| part.as_os_str().to_str())
        .find(|name| {
            [".service", ".scope"]
                .iter()
                .any(|kind| name.ends_with(kind))
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_system_managers_units_count() {
        let unit = |path| unit_of(Path::new(path));
        assert_eq!(unit("system.slice/web.service"), Some("web.service"));
        assert_eq!(unit("system.slice/web.service/worker"), Some("web.service"));
        assert_eq!(
            unit("system.slice/system-web.slice/web@1.service"),
            Some("web@1.service")
        );
        assert_eq!(
            unit("user.slice/user-1000.slice/user@1000.service/app.slice/web.service"),
            Some("user@1000.service")
        );
        assert_eq!(unit("mesh.slice"), None);
    }

    #[test]
    fn by_inode_and_by_announcement() {
        let root = tempfile::tempdir().unwrap();
        let cgroup = root.path().join("system.slice/web.service");
        fs::create_dir_all(&cgroup).unwrap();
        let other = root.path().join("custom/place");
        fs::create_dir_all(&other).unwrap();
        let units = Units::new(Some(root.path().to_owned()));
        let id = |path: &Path| fs::metadata(path).unwrap().ino();
        assert_eq!(units.unit(id(&cgroup)).as_deref(), Some("web.service"));
        assert_eq!(units.unit(u64::MAX), None);
        units
            .enrol(Path::new("/custom/place"), "db.service")
            .unwrap();
        assert_eq!(units.unit(id(&other)).as_deref(), Some("db.service"));
        assert!(units.enrol(Path::new("../../etc"), "db.service").is_err());
        assert!(units.enrol(Path::new("/missing"), "db.service").is_err());
    }
}
