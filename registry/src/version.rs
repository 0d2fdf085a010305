//! When a set was read, so that an older one never replaces a newer one.

/// When a set was read, in the registry's own terms. An older set never replaces a newer one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// Consul's and Nomad's index.
    Index(u64),
    /// etcd's revision, inside one cluster.
    Revision {
        /// The cluster's id.
        cluster: u64,
        /// The revision.
        revision: u64,
    },
    /// `ZooKeeper`'s transaction id.
    Zxid(i64),
    /// The hash of the content: order is the order of reading.
    Hash(u64),
    /// Milliseconds since the epoch on the registry's clock.
    Clock(u64),
    /// Read from disk at boot: everything is newer.
    Saved,
}

impl Version {
    /// True when `self` is certainly older than `other`: same kind, same cluster, smaller.
    pub fn is_older_than(self, other: Self) -> bool {
        match (self, other) {
            (Self::Index(mine), Self::Index(theirs)) | (Self::Clock(mine), Self::Clock(theirs)) => {
                mine < theirs
            }
            (Self::Zxid(mine), Self::Zxid(theirs)) => mine < theirs,
            (
                Self::Revision {
                    cluster: here,
                    revision: mine,
                },
                Self::Revision {
                    cluster: there,
                    revision: theirs,
                },
            ) => here == there && mine < theirs,
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_comparable_versions_are_older() {
        assert!(Version::Index(1).is_older_than(Version::Index(2)));
        assert!(!Version::Index(2).is_older_than(Version::Index(2)));
        assert!(!Version::Index(1).is_older_than(Version::Saved));
        assert!(!Version::Hash(1).is_older_than(Version::Hash(2)));
        let at = |cluster, revision| Version::Revision { cluster, revision };
        assert!(at(1, 5).is_older_than(at(1, 6)));
        assert!(
            !at(1, 5).is_older_than(at(2, 6)),
            "a new cluster counts from the start"
        );
    }
}
