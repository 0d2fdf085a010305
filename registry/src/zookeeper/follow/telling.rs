//! What is said of what is known: whole sets of services, absences, the status.
//!
//! In: the tree. Out: calls of the sink. Never: sweeps what may not be read, or lets two directories be one service.

use std::collections::{BTreeMap, BTreeSet};

use mesh_model::{
    endpoint::{Endpoint, ServiceKey},
    name::ServiceName,
};

use super::{super::tree::Outcome, Follower};
use crate::{source::SourceError, status::SourceStatus, version::Version};

/// One connection reads everything, and a server that knows less than was read takes no session: what is
/// read later is newer.
const VERSION: Version = Version::Hash(0);

impl Follower {
    /// The sets of a directory by their services.
    fn sets(&self, directory: &str) -> Option<BTreeMap<ServiceKey, Vec<Endpoint>>> {
        let Some(key) = self.wanted(directory) else {
            return Some(BTreeMap::new());
        };
        let sets = match self.state.tree.outcome(directory, &*self.layout) {
            Outcome::Sets(sets) => sets,
            Outcome::Absent => return Some(BTreeMap::new()),
            Outcome::Unknown => return None,
        };
        let mut services = BTreeMap::new();
        for (port, endpoints) in sets {
            let name = match &port {
                None => Some(key.name.clone()),
                Some(port) => ServiceName::new(&format!("{}-{port}", key.name)).ok(),
            };
            match name {
                Some(name) => drop(services.insert(
                    ServiceKey {
                        name,
                        ..key.clone()
                    },
                    endpoints,
                )),
                None => self.out.unreadable(),
            }
        }
        Some(services)
    }

    /// Everything at once: what is not there is swept, unless something may not be read.
    pub(super) fn commit(&mut self, directories: &BTreeSet<String>) {
        let mut sync = self.out.begin_sync();
        let before = std::mem::take(&mut self.state.said);
        let mut named = BTreeMap::new();
        let whole = self.state.denied.is_empty();
        for directory in directories {
            let Some(services) = self.sets(directory) else {
                let mut known = before.get(directory).cloned().unwrap_or_default();
                known.extend(self.wanted(directory));
                for key in &known {
                    sync.keep(key.clone());
                    named.insert(key.clone(), directory.clone());
                }
                self.state.said.insert(directory.clone(), known);
                continue;
            };
            let mut said = BTreeSet::new();
            for (key, endpoints) in services {
                // Two directories of one name: the first counts.
                if named.contains_key(&key) {
                    self.out.unreadable();
                    continue;
                }
                named.insert(key.clone(), directory.clone());
                said.insert(key.clone());
                if whole {
                    sync.replace(key, endpoints, VERSION);
                } else {
                    self.out.replace(key, endpoints, VERSION);
                }
            }
            if !said.is_empty() {
                self.state.said.insert(directory.clone(), said);
            }
        }
        if whole {
            sync.commit();
        } else {
            for (directory, keys) in before {
                for key in keys {
                    if *named
                        .entry(key.clone())
                        .or_insert_with(|| directory.clone())
                        == directory
                    {
                        self.state
                            .said
                            .entry(directory.clone())
                            .or_default()
                            .insert(key);
                    }
                }
            }
        }
        self.state.named = named;
        self.tell();
    }

    /// What a directory's services are now.
    pub(super) fn say(&mut self, directory: &str) {
        let Some(services) = self.sets(directory) else {
            return;
        };
        let before = self.state.said.remove(directory).unwrap_or_default();
        for key in before.iter().filter(|key| !services.contains_key(*key)) {
            self.out.absent(key, VERSION);
            self.state.named.remove(key);
        }
        let mut said = BTreeSet::new();
        for (key, endpoints) in services {
            let owner = self
                .state
                .named
                .entry(key.clone())
                .or_insert_with(|| directory.to_owned());
            if owner != directory {
                self.out.unreadable();
                continue;
            }
            self.out.replace(key.clone(), endpoints, VERSION);
            said.insert(key);
        }
        if !said.is_empty() {
            self.state.said.insert(directory.to_owned(), said);
        }
    }

    /// How it is doing.
    pub(super) fn tell(&self) {
        if let Some(path) = self.state.denied.iter().next() {
            let refused = SourceError::Auth(self.path(path));
            self.out.status((&refused).into());
            return;
        }
        let (count, first) = self.state.tree.bad();
        self.out.status(match first {
            None => SourceStatus::Synced,
            Some(first) => SourceStatus::Degraded {
                error: format!(
                    "{count} nodes cannot be understood, such as {}",
                    self.path(&first)
                ),
            },
        });
    }
}
