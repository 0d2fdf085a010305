//! Delegation tables: prefixes rewritten to other paths, failover and weighted union.
//!
//! Follows Finagle's dtabs as Linkerd 1.x used them: `prefix => destination;`, later entries first,
//! `*` matches one segment, `|` tries alternatives in order, `&` unites with weights (`3 * /a & 1 * /b`),
//! `~` is the empty name, `!` fails, `$` succeeds with nothing. Text of at most 64 KiB, depth at most 100.

use std::sync::Arc;

/// Follows a table from a name to backends.
pub mod delegate;
/// What Linkerd's namers mean.
pub mod namer;
/// Reads and prints the text form.
pub mod text;

pub use delegate::{Bound, Delegated, Names, delegate};
pub use text::DtabError;

/// A path: segments without their slashes.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Path(pub Vec<Arc<str>>);

/// One entry: a prefix, whose `*` segments match anything, and what it becomes.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Dentry {
    /// Segments; `None` is `*`.
    pub prefix: Vec<Option<Arc<str>>>,
    /// What the prefix is replaced with.
    pub destination: NameTree,
}

/// What an entry leads to.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum NameTree {
    /// Another path; what followed the prefix is appended.
    Leaf(Path),
    /// The first alternative that is bound and usable.
    Alternatives(Vec<Self>),
    /// A share of each, by weight.
    Union(Vec<(Weight, Self)>),
    /// `~`: no such name, the next entry is tried.
    Negative,
    /// `!`: fail here, try nothing else.
    Fail,
    /// `$`: a name that is bound to nothing.
    Empty,
}

/// A weight in thousandths, so that tables compare and hash exactly (`0.9` is 900).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Weight(pub u32);

/// A table; later entries are tried first.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Dtab(pub Vec<Dentry>);

impl Dtab {
    /// The table with `other`'s entries behind (and so before, in effect) its own.
    #[must_use]
    pub fn concat(&self, other: &Self) -> Self {
        Self(self.0.iter().chain(&other.0).cloned().collect())
    }
    /// The destinations that entries give for `path`, in the order in which they are tried, each with
    /// what followed the prefix already appended.
    pub fn lookup(&self, path: &Path) -> Vec<NameTree> {
        self.0
            .iter()
            .rev()
            .filter(|dentry| dentry.matches(path))
            .map(|dentry| {
                let rest = path.0.get(dentry.prefix.len()..).unwrap_or_default();
                dentry.destination.append(rest)
            })
            .collect()
    }
}

impl Dtab {
    /// Every path of `/#/` that the entries lead to.
    pub fn namers(&self) -> Vec<&Path> {
        let mut found = Vec::new();
        let mut open: Vec<&NameTree> = self.0.iter().map(|one| &one.destination).collect();
        while let Some(tree) = open.pop() {
            match tree {
                NameTree::Leaf(path) if path.0.first().is_some_and(|one| &**one == "#") => {
                    found.push(path);
                }
                NameTree::Alternatives(trees) => open.extend(trees),
                NameTree::Union(trees) => open.extend(trees.iter().map(|(_, tree)| tree)),
                NameTree::Leaf(_) | NameTree::Negative | NameTree::Fail | NameTree::Empty => {}
            }
        }
        found
    }
}

impl Dentry {
    fn matches(&self, path: &Path) -> bool {
        self.prefix.len() <= path.0.len()
            && self
                .prefix
                .iter()
                .zip(&path.0)
                .all(|(wanted, segment)| wanted.as_ref().is_none_or(|wanted| wanted == segment))
    }
}

impl NameTree {
    fn append(&self, rest: &[Arc<str>]) -> Self {
        match self {
            Self::Leaf(path) => Self::Leaf(Path(path.0.iter().chain(rest).cloned().collect())),
            Self::Alternatives(trees) => {
                Self::Alternatives(trees.iter().map(|tree| tree.append(rest)).collect())
            }
            Self::Union(trees) => Self::Union(
                trees
                    .iter()
                    .map(|(w, tree)| (*w, tree.append(rest)))
                    .collect(),
            ),
            Self::Negative => Self::Negative,
            Self::Fail => Self::Fail,
            Self::Empty => Self::Empty,
        }
    }
}
