//! What is asked: everything below the path, or one directory of it, and the members that are wanted.
//!
//! In: answers of the session. Out: directories, and members in the tree. Never: takes a refusal for an absence, or
//! reads more than it has places for.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use futures_util::{StreamExt, stream};
use tokio::time::timeout;

use super::{
    super::{
        message::{Ask, Stat, code},
        session::Fault,
        tree::{Kind, below, depth},
    },
    Follower, Stop,
};
use crate::{sink::MAX_SERVICES, source::SourceError};

/// Most names from the path to a member.
const MAX_DEPTH: usize = 8;
/// Most nodes below the path.
const MAX_NODES: usize = 10 * MAX_SERVICES;
/// Questions that are under way at the same time.
const AT_ONCE: usize = 256;
/// Members of an old server that have a watch of their own; of more, only their lists do.
const MAX_WATCHED: usize = 50_000;
/// A server that says nothing to the question for a watch for so long does not know it.
const OLD: Duration = Duration::from_secs(2);
/// Connections in a row that break on the question for a watch before the server counts as old.
const BROKEN: u32 = 3;

impl Follower {
    /// Sets the watch that tells of everything, where the server has such.
    async fn watch(&mut self) -> Result<(), Stop> {
        if self.state.old {
            return Ok(());
        }
        let ask = Ask::watch_all(&self.path(""));
        let answer = timeout(OLD, self.zk.tell(ask)).await;
        self.state.broken = match answer {
            Ok(Err(Fault::Lost)) => self.state.broken + 1,
            _ => 0,
        };
        match answer {
            Ok(Ok(_)) => Ok(()),
            // An older server refuses what it does not know, and ends the session for it.
            Ok(Err(Fault::Code(code::UNIMPLEMENTED))) | Err(_) => {
                self.state.old = true;
                Ok(())
            }
            Ok(Err(Fault::Code(code::NO_AUTH))) => Err(self.refused("")),
            Ok(Err(fault)) => {
                self.state.old = self.state.broken >= BROKEN;
                Err(fault.into())
            }
        }
    }

    /// Reads everything that is wanted; with `known`, members that a watch keeps are not read again.
    pub(super) async fn list(&mut self, known: bool) -> Result<(), Stop> {
        self.watch().await?;
        self.state.denied.clear();
        let (directories, members) = self.walk(String::new(), true).await?;
        if directories.is_empty() {
            return Err(self.nothing().await);
        }
        self.state.tree.keep(&members.keys().cloned().collect());
        let mut unread = Vec::new();
        for (directory, names) in members {
            let news = self.state.tree.listed(&directory, &names);
            let read: Vec<String> = if known {
                news
            } else {
                names.into_iter().collect()
            };
            unread.extend(read.into_iter().map(|name| (directory.clone(), name)));
        }
        self.read(unread).await?;
        self.commit(&directories);
        self.state.directories = directories;
        Ok(())
    }

    /// The path itself is not there: that proves nothing of services that were.
    async fn nothing(&mut self) -> Stop {
        if self.state.denied.contains("") {
            return self.refused("");
        }
        let path = self.path("");
        if self.state.old && !matches!(self.zk.exists(&path, true).await, Ok(None)) {
            return Stop::Again;
        }
        Stop::Wrong(SourceError::Protocol {
            subject: path,
            what: "there is no such node; what was read before is kept".into(),
        })
    }

    /// The directories from one on, and the members of those that are wanted; `all`: those that are known too.
    pub(super) async fn walk(
        &mut self,
        from: String,
        all: bool,
    ) -> Result<(BTreeSet<String>, BTreeMap<String, BTreeSet<String>>), Stop> {
        let (mut directories, mut members) = (BTreeSet::new(), BTreeMap::new());
        let (mut level, mut nodes) = (vec![from], 0_usize);
        let watch = self.state.old;
        while !level.is_empty() {
            let asked: Vec<_> = level
                .drain(..)
                .map(|directory| {
                    let (zk, path) = (self.zk.clone(), self.path(&directory));
                    async move { (directory, zk.children(&path, watch).await) }
                })
                .collect();
            let mut answers = stream::iter(asked).buffer_unordered(AT_ONCE);
            let mut next = Vec::new();
            while let Some((directory, answer)) = answers.next().await {
                let names = match answer {
                    Ok(names) => names,
                    Err(Fault::Code(code::NO_NODE)) => continue,
                    Err(Fault::Code(code::NO_AUTH)) => {
                        self.state.denied.insert(directory);
                        continue;
                    }
                    Err(fault) => return Err(fault.into()),
                };
                nodes = nodes.saturating_add(names.len());
                if nodes > MAX_NODES {
                    return Err(self.too_many());
                }
                let at = depth(&directory);
                let wanted = self.wanted(&directory).is_some();
                let mut own = BTreeSet::new();
                for name in names {
                    match self.layout.kind(at, &name) {
                        Kind::Member if wanted => drop(own.insert(name)),
                        Kind::Inner if at < MAX_DEPTH => {
                            let inner = below(&directory, &name);
                            if self.layout.depth() == Some(at + 1) && self.wanted(&inner).is_none()
                            {
                                self.unnamed(&inner);
                            } else if all || !self.state.directories.contains(&inner) {
                                next.push(inner);
                            }
                        }
                        _ => {}
                    }
                }
                if wanted {
                    members.insert(directory.clone(), own);
                }
                directories.insert(directory);
            }
            drop(answers);
            level = next;
        }
        Ok((directories, members))
    }

    fn too_many(&self) -> Stop {
        Stop::Wrong(SourceError::Protocol {
            subject: self.path(""),
            what: format!("more than {MAX_NODES} nodes are below it"),
        })
    }

    /// Counts a directory whose name is no name of a service.
    fn unnamed(&self, directory: &str) {
        if self.layout.key(&self.base, directory).is_none() {
            self.out.unreadable();
        }
    }

    /// Reads members; what they say counts at once in the tree.
    pub(super) async fn read(&mut self, members: Vec<(String, String)>) -> Result<(), Stop> {
        let watch = self.state.old;
        let mut asked = Vec::with_capacity(members.len());
        for (directory, name) in members {
            let path = below(&directory, &name);
            let arm = watch
                && self.state.watched.len() < MAX_WATCHED
                && self.state.watched.insert(path.clone());
            let zk = self.zk.clone();
            let whole = self.path(&path);
            asked.push(async move { (directory, name, zk.data(&whole, arm).await) });
        }
        let mut answers = stream::iter(asked).buffer_unordered(AT_ONCE);
        while let Some((directory, name, answer)) = answers.next().await {
            self.take(&directory, &name, answer)?;
        }
        Ok(())
    }

    /// What came of one member.
    fn take(
        &mut self,
        directory: &str,
        name: &str,
        answer: Result<(Vec<u8>, Stat), Fault>,
    ) -> Result<(), Stop> {
        match answer {
            Ok((data, _)) => {
                let read = self.layout.read(name, &data);
                if read.is_err() {
                    self.out.unreadable();
                }
                self.state.tree.set(directory, name, read);
            }
            Err(Fault::Code(code::NO_NODE)) => drop(self.state.tree.gone(&below(directory, name))),
            Err(Fault::Code(code::NO_AUTH)) => {
                self.state.denied.insert(below(directory, name));
                let refused = Err("it may not be read".to_owned());
                self.state.tree.set(directory, name, refused);
            }
            Err(fault) => return Err(fault.into()),
        }
        Ok(())
    }
}
