//! What is known below a path: directories, their members, and the last good value of each. Pure.
//!
//! In: lists, data, removals, in the order of truth. Out: the sets of a directory's service. Never: gives up
//! the last good value of a node because of data that cannot be understood.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use mesh_model::endpoint::{Endpoint, ServiceKey};

/// What a node is to a layout.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// More nodes are below it.
    Inner,
    /// It says something of the directory that it is in.
    Member,
    /// It is of no concern.
    Foreign,
}

/// What one member says.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Member {
    /// Endpoints, each with the name of its port where that has one.
    pub(crate) endpoints: Vec<(Option<Arc<str>>, Endpoint)>,
    /// Weights that it gives to others, by the names of members, or of none for all.
    pub(crate) weights: Vec<(Selector, f64)>,
}

/// Whom a weight is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Selector {
    /// The member of this name.
    Member(Arc<str>),
    /// Members of this shard.
    Shard(Arc<str>),
    /// Members with this address.
    Address(Arc<str>),
}

/// The members of a directory with their last good values; `None`: never understood.
pub(crate) type Members = BTreeMap<Arc<str>, Option<Member>>;

/// The sets of a directory by the name of the port; `None`: the service itself.
pub(crate) type Sets = BTreeMap<Option<Arc<str>>, Vec<Endpoint>>;

/// How services are laid out below a path. Paths are relative: `prod/web`, and empty for the path itself.
pub(crate) trait Layout: Send + Sync + 'static {
    /// What a node is, `depth` names below the path.
    fn kind(&self, depth: usize, name: &str) -> Kind;
    /// The service of a directory; `None` when a mesh cannot name it.
    fn key(&self, base: &str, directory: &str) -> Option<ServiceKey>;
    /// What a member says.
    fn read(&self, name: &str, data: &[u8]) -> Result<Member, String>;
    /// What the members make together; `None` when what is known does not tell.
    fn sets(&self, members: &Members) -> Option<Sets>;
    /// At which depth every directory is a service and nothing else; `None`: at any.
    fn depth(&self) -> Option<usize> {
        None
    }
}

/// What a directory's service is now.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Outcome {
    /// These sets, the whole of it.
    Sets(Sets),
    /// It cannot be told: what was last said stands.
    Unknown,
    /// There is none.
    Absent,
}

#[derive(Debug, Clone, Default, PartialEq)]
struct Directory {
    members: Members,
    /// Members whose data now cannot be understood, with the reason.
    bad: BTreeMap<Arc<str>, String>,
}

/// What is known.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Tree {
    directories: BTreeMap<String, Directory>,
}

/// A path below a path.
pub(crate) fn below(directory: &str, name: &str) -> String {
    if directory.is_empty() {
        name.to_owned()
    } else {
        format!("{directory}/{name}")
    }
}

/// Directory and name of a path below; `None` for the path itself.
pub(crate) fn split(path: &str) -> Option<(&str, &str)> {
    match path.rsplit_once('/') {
        Some(parts) => Some(parts),
        None if path.is_empty() => None,
        None => Some(("", path)),
    }
}

/// How many names a directory has.
pub(crate) fn depth(directory: &str) -> usize {
    if directory.is_empty() {
        0
    } else {
        directory.matches('/').count() + 1
    }
}

impl Tree {
    /// Every directory.
    pub(crate) fn directories(&self) -> impl Iterator<Item = &String> {
        self.directories.keys()
    }

    /// A directory is there.
    pub(crate) fn found(&mut self, directory: &str) {
        if !self.directories.contains_key(directory) {
            self.directories
                .insert(directory.to_owned(), Directory::default());
        }
    }

    /// Only these members are in a directory. Those of them that are not known yet are given back.
    pub(crate) fn listed(&mut self, directory: &str, names: &BTreeSet<String>) -> Vec<String> {
        self.found(directory);
        let Some(known) = self.directories.get_mut(directory) else {
            return Vec::new();
        };
        known.members.retain(|name, _| names.contains(&**name));
        known.bad.retain(|name, _| names.contains(&**name));
        let news = |name: &&String| !known.members.contains_key(name.as_str());
        names.iter().filter(news).cloned().collect()
    }

    /// Only these directories are there.
    pub(crate) fn keep(&mut self, directories: &BTreeSet<String>) {
        self.directories
            .retain(|directory, _| directories.contains(directory));
    }

    /// A member's data; what was understood, or why not.
    pub(crate) fn set(&mut self, directory: &str, name: &str, read: Result<Member, String>) {
        self.found(directory);
        let Some(known) = self.directories.get_mut(directory) else {
            return;
        };
        let name: Arc<str> = Arc::from(name);
        match read {
            Ok(member) => {
                known.bad.remove(&name);
                known.members.insert(name, Some(member));
            }
            Err(why) => {
                known.members.entry(Arc::clone(&name)).or_default();
                known.bad.insert(name, why);
            }
        }
    }

    /// A node is gone, with all that was below it; the directories whose services that touches.
    pub(crate) fn gone(&mut self, path: &str) -> BTreeSet<String> {
        let mut touched = BTreeSet::new();
        if let Some((directory, name)) = split(path)
            && let Some(known) = self.directories.get_mut(directory)
        {
            known.bad.remove(name);
            if known.members.remove(name).is_some() {
                touched.insert(directory.to_owned());
            }
        }
        let inside = format!("{path}/");
        self.directories.retain(|directory, _| {
            let stays = path.is_empty() || (directory != path && !directory.starts_with(&inside));
            if !stays {
                touched.insert(directory.clone());
            }
            stays
        });
        touched
    }

    /// How many members cannot be understood although they once were, or whose whole directory cannot, and
    /// the first of them with the reason.
    pub(crate) fn bad(&self) -> (usize, Option<String>) {
        let (mut count, mut first) = (0, None);
        for (path, directory) in &self.directories {
            let dark = directory.members.values().all(Option::is_none);
            for (name, why) in &directory.bad {
                if dark || directory.members.get(name).is_some_and(Option::is_some) {
                    count += 1;
                    first.get_or_insert_with(|| format!("{}: {why}", below(path, name)));
                }
            }
        }
        (count, first)
    }

    /// What a directory's service is now.
    pub(crate) fn outcome(&self, directory: &str, layout: &dyn Layout) -> Outcome {
        let Some(known) = self.directories.get(directory) else {
            return Outcome::Absent;
        };
        if known.members.is_empty() {
            let service = layout.depth() == Some(depth(directory));
            return if service {
                Outcome::Sets(Sets::from([(None, Vec::new())]))
            } else {
                Outcome::Absent
            };
        }
        if known.members.values().all(Option::is_none) {
            return Outcome::Unknown;
        }
        layout
            .sets(&known.members)
            .map_or(Outcome::Unknown, Outcome::Sets)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::endpoint;

    struct Plain;
    impl Layout for Plain {
        fn kind(&self, _: usize, _: &str) -> Kind {
            Kind::Member
        }
        fn key(&self, _: &str, _: &str) -> Option<ServiceKey> {
            None
        }
        fn read(&self, _: &str, _: &[u8]) -> Result<Member, String> {
            Err(String::new())
        }
        fn sets(&self, members: &Members) -> Option<Sets> {
            let all = members.values().flatten().flat_map(|one| &one.endpoints);
            Some(Sets::from([(
                None,
                all.map(|(_, one)| one.clone()).collect(),
            )]))
        }
    }

    fn member(port: u16) -> Member {
        Member {
            endpoints: vec![(None, endpoint(port))],
            ..Member::default()
        }
    }

    fn ports(tree: &Tree, directory: &str) -> Option<Vec<String>> {
        match tree.outcome(directory, &Plain) {
            Outcome::Sets(sets) => Some(sets[&None].iter().map(|one| one.id.to_string()).collect()),
            Outcome::Unknown => Some(vec!["?".to_owned()]),
            Outcome::Absent => None,
        }
    }

    #[test]
    fn the_last_good_value_stays() {
        let mut tree = Tree::default();
        tree.set("web", "a", Err("no JSON".into()));
        assert_eq!(ports(&tree, "web").unwrap(), ["?"], "nothing is known");
        assert_eq!(tree.bad(), (1, Some("web/a: no JSON".to_owned())));
        tree.set("web", "b", Ok(member(2)));
        assert_eq!(ports(&tree, "web").unwrap(), ["10.0.0.1:2"]);
        assert_eq!(tree.bad().0, 0, "it never was anything");
        tree.set("web", "b", Err("cut".into()));
        assert_eq!(ports(&tree, "web").unwrap(), ["10.0.0.1:2"]);
        assert_eq!(tree.bad().0, 1);
        tree.set("web", "b", Ok(member(3)));
        assert_eq!(ports(&tree, "web").unwrap(), ["10.0.0.1:3"]);
        assert_eq!(tree.gone("web/b"), BTreeSet::from(["web".to_owned()]));
    }

    #[test]
    fn what_is_gone_takes_what_is_below() {
        let mut tree = Tree::default();
        for directory in ["prod/web", "prod/api", "prodigy"] {
            tree.set(directory, "a", Ok(member(1)));
        }
        assert_eq!(tree.gone("prod").len(), 2);
        assert!(ports(&tree, "prod/web").is_none() && ports(&tree, "prodigy").is_some());
        let names = BTreeSet::from(["b".to_owned()]);
        assert_eq!(tree.listed("prodigy", &names), ["b"]);
        assert!(ports(&tree, "prodigy").is_none());
        assert_eq!((depth(""), depth("a"), depth("a/b")), (0, 1, 2));
        assert_eq!(split("a/b/c"), Some(("a/b", "c")));
        assert_eq!(split("a"), Some(("", "a")));
    }
}
