//! The names file: written whole, read when it changed.
//!
//! Text, for people as well: `domain NAME` first, then a line for each name, `NAME VIRTUAL… | PLAIN…`.

use std::{
    collections::{HashMap, HashSet},
    fmt::Write as _,
    fs, io,
    net::IpAddr,
    os::unix::fs::MetadataExt as _,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
};

use super::{Settings, file_in};

/// The largest file that is read, in bytes: some half a million names.
const MAX_FILE: u64 = 64 << 20;

/// A name and its addresses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    /// The full name, without a dot at the end.
    pub(crate) name: String,
    /// Virtual addresses.
    pub(crate) addresses: Vec<IpAddr>,
    /// The endpoints' own addresses.
    pub(crate) direct: Vec<IpAddr>,
}

/// Replaces the names file in the runtime directory, and its copy in the state directory.
pub(crate) fn write(
    runtime_dir: &Path,
    state_dir: &Path,
    domain: &str,
    entries: &[Entry],
) -> io::Result<()> {
    let text = render(domain, entries);
    for folder in [state_dir, runtime_dir] {
        let (file, next) = (file_in(folder), folder.join("names.next"));
        // A reader that runs has the old file whole or the new one whole.
        fs::write(&next, &text)?;
        fs::rename(next, file)?;
    }
    Ok(())
}

fn render(domain: &str, entries: &[Entry]) -> String {
    let mut text = format!("# Written by meshd, read by `meshd names`.\ndomain {domain}\n");
    for entry in entries {
        text.push_str(&entry.name);
        for address in &entry.addresses {
            // Writing to a String cannot fail.
            write!(text, " {address}").unwrap_or_default();
        }
        text.push_str(" |");
        for address in &entry.direct {
            write!(text, " {address}").unwrap_or_default();
        }
        text.push('\n');
    }
    text
}

/// All names of the mesh.
#[derive(Debug, Default)]
pub(super) struct Zone {
    domain: String,
    names: HashMap<String, Entry>,
    /// Names that are only the end of longer ones: they exist, but have no address.
    between: HashSet<String>,
}

/// What is known of a name.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found<'a> {
    /// Its addresses.
    Name(&'a Entry),
    /// It exists and has no addresses.
    Empty,
    /// It would be ours, but there is no such name.
    Nothing,
    /// It is not ours.
    Foreign,
}

impl Zone {
    fn parse(text: &str) -> Self {
        let mut zone = Self::default();
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let mut words = line.split_whitespace();
            let Some(first) = words.next() else { continue };
            if first == "domain" && zone.domain.is_empty() {
                words
                    .next()
                    .unwrap_or_default()
                    .to_ascii_lowercase()
                    .clone_into(&mut zone.domain);
                continue;
            }
            let name = first.to_ascii_lowercase();
            let (mut addresses, mut direct, mut plain) = (Vec::new(), Vec::new(), false);
            for word in words {
                match word.parse() {
                    Ok(address) if plain => direct.push(address),
                    Ok(address) => addresses.push(address),
                    Err(_) => plain |= word == "|",
                }
            }
            zone.names.insert(
                name.clone(),
                Entry {
                    name,
                    addresses,
                    direct,
                },
            );
        }
        zone.between = zone.ends();
        zone
    }

    fn ends(&self) -> HashSet<String> {
        let mut ends = HashSet::new();
        for name in self.names.keys() {
            let mut rest = name.as_str();
            while let Some((_, parent)) = rest.split_once('.') {
                if !ours(parent, &self.domain) {
                    break;
                }
                ends.insert(parent.to_owned());
                rest = parent;
            }
        }
        ends
    }

    /// Looks a name up: lower case, without a dot at the end.
    pub(super) fn find(&self, name: &str) -> Found<'_> {
        if !ours(name, &self.domain) {
            return Found::Foreign;
        }
        if let Some(entry) = self.names.get(name) {
            return Found::Name(entry);
        }
        if name == self.domain || self.between.contains(name) {
            return Found::Empty;
        }
        Found::Nothing
    }

    /// The domain of the mesh; empty while the host is in none.
    pub(super) fn domain(&self) -> &str {
        &self.domain
    }
}

fn ours(name: &str, domain: &str) -> bool {
    !domain.is_empty()
        && name
            .strip_suffix(domain)
            .is_some_and(|before| before.is_empty() || before.ends_with('.'))
}

/// The zone in force, and which addresses of it count.
#[derive(Debug, Clone)]
pub(super) struct Current {
    pub(super) zone: Arc<Zone>,
    /// True: the endpoints' own addresses.
    pub(super) plain: bool,
}

/// Reads the file again when it changed.
#[derive(Debug)]
pub(super) struct Source {
    settings: Settings,
    seen: Mutex<(Option<Stamp>, Arc<Zone>)>,
}

/// Which file, and which state of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    runtime: bool,
    device: u64,
    inode: u64,
    length: u64,
    changed: (i64, i64),
}

impl Source {
    pub(super) fn new(settings: Settings) -> Self {
        Self {
            settings,
            seen: Mutex::new((None, Arc::default())),
        }
    }

    /// The zone now. A file that cannot be read leaves the last one in force.
    pub(super) fn current(&self) -> Current {
        let stamp = self.stamp();
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if stamp.is_some() && seen.0 != stamp {
            let runtime = stamp.is_some_and(|stamp| stamp.runtime);
            match self.read(runtime) {
                Ok(zone) => *seen = (stamp, Arc::new(zone)),
                Err(error) => tracing::warn!(%error, "the names file cannot be read"),
            }
        }
        let runtime = seen.0.is_some_and(|stamp| stamp.runtime);
        let plain = !runtime || mesh_intercept::bypass::active(&self.settings.state_dir);
        Current {
            zone: Arc::clone(&seen.1),
            plain,
        }
    }

    fn stamp(&self) -> Option<Stamp> {
        [
            (true, &self.settings.runtime_file),
            (false, &self.settings.state_file),
        ]
        .into_iter()
        .find_map(|(runtime, file)| {
            let metadata = fs::metadata(file).ok()?;
            Some(Stamp {
                runtime,
                device: metadata.dev(),
                inode: metadata.ino(),
                length: metadata.len(),
                changed: (metadata.mtime(), metadata.mtime_nsec()),
            })
        })
    }

    fn read(&self, runtime: bool) -> io::Result<Zone> {
        let file = if runtime {
            &self.settings.runtime_file
        } else {
            &self.settings.state_file
        };
        let mut text = String::new();
        let opened = fs::File::open(file)?;
        io::Read::read_to_string(&mut io::Read::take(opened, MAX_FILE), &mut text)?;
        Ok(Zone::parse(&text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(name: &str, addresses: &[&str], direct: &[&str]) -> Entry {
        let parse = |list: &[&str]| list.iter().map(|text| text.parse().unwrap()).collect();
        Entry {
            name: name.to_owned(),
            addresses: parse(addresses),
            direct: parse(direct),
        }
    }

    fn settings(folder: &Path) -> Settings {
        fs::create_dir_all(folder.join("run")).unwrap();
        Settings {
            listen: Vec::new(),
            upstream: Vec::new(),
            runtime_file: folder.join("run/names"),
            state_file: folder.join("names"),
            state_dir: folder.to_owned(),
        }
    }

    #[test]
    fn names_are_found_as_written() {
        let entries = [
            entry(
                "words.mesh.internal",
                &["240.240.1.2", "fd6d::2"],
                &["10.0.0.1"],
            ),
            entry("web.shop.mesh.internal", &["240.240.1.3"], &[]),
        ];
        let zone = Zone::parse(&render("mesh.internal", &entries));
        assert_eq!(zone.find("words.mesh.internal"), Found::Name(&entries[0]));
        assert_eq!(
            zone.find("web.shop.mesh.internal"),
            Found::Name(&entries[1])
        );
        assert_eq!(zone.find("shop.mesh.internal"), Found::Empty);
        assert_eq!(zone.find("mesh.internal"), Found::Empty);
        assert_eq!(zone.find("nobody.mesh.internal"), Found::Nothing);
        assert_eq!(zone.find("notmesh.internal"), Found::Foreign);
        assert_eq!(zone.find("example.com"), Found::Foreign);
    }

    #[test]
    fn a_damaged_file_yields_what_can_be_read() {
        let zone = Zone::parse(
            "# x\n\ndomain mesh.internal\nA.mesh.internal 240.240.0.1 junk | 10.0.0.1 |\nb\n",
        );
        let Found::Name(found) = zone.find("a.mesh.internal") else {
            panic!("not found")
        };
        assert_eq!(
            *found,
            entry("a.mesh.internal", &["240.240.0.1"], &["10.0.0.1"])
        );
        assert_eq!(zone.find("b"), Found::Foreign);
        assert_eq!(Zone::parse("").find("mesh.internal"), Found::Foreign);
    }

    #[test]
    fn a_new_file_counts_at_once_and_the_copy_means_plain_addresses() {
        let folder = tempfile::tempdir().unwrap();
        let source = Source::new(settings(folder.path()));
        assert_eq!(source.current().zone.domain(), "");
        for domain in ["one.internal", "two.internal"] {
            write(&folder.path().join("run"), folder.path(), domain, &[]).unwrap();
            let current = source.current();
            assert_eq!(current.zone.domain(), domain);
            assert!(!current.plain);
        }
        fs::write(mesh_intercept::bypass::marker(folder.path()), b"").unwrap();
        assert!(source.current().plain, "bypass");
        mesh_intercept::bypass::leave(folder.path()).unwrap();
        assert!(!source.current().plain);
        fs::remove_file(folder.path().join("run/names")).unwrap();
        let current = source.current();
        assert_eq!(current.zone.domain(), "two.internal");
        assert!(current.plain, "after a boot");
        fs::remove_file(folder.path().join("names")).unwrap();
        assert_eq!(
            source.current().zone.domain(),
            "two.internal",
            "the last one stays"
        );
    }
}
