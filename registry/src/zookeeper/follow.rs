//! Follows what is below a path: the whole of it once, then what changes, and the whole again after every loss.
//!
//! In: a session's answers and events, a layout, the demand. Out: whole sets, absences, one status.
//! Never: takes a lost session, a refusal or nonsense for an absence. From a server 3.6 on one watch tells of
//! everything below the path: it is set first, then all is read, then what it told meanwhile is read again.
//! An older server gets a watch per node, set by the same question that reads the node.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use futures_util::{StreamExt, stream};
use mesh_model::{endpoint::ServiceKey, name::ServiceName};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep, sleep_until, timeout},
};

use super::{
    message::{Ask, Change, Stat, code},
    session::{Event, Fault, Zk},
    tree::{Kind, Layout, Outcome, Tree, below, depth, split},
};
use crate::{
    backoff::Backoff,
    demand::Demand,
    sink::{MAX_SERVICES, Sink},
    source::SourceError,
    status::SourceStatus,
    version::Version,
};

/// Most names from the path to a member.
const MAX_DEPTH: usize = 8;
/// Most nodes below the path.
const MAX_NODES: usize = 10 * MAX_SERVICES;
/// Questions that are under way at the same time.
const AT_ONCE: usize = 256;
/// Members of an old server that have a watch of their own; of more, only their lists do.
const MAX_WATCHED: usize = 50_000;
/// Between two looks whether the path may still be read.
const PROBE: Duration = Duration::from_secs(8);
/// Between two readings of everything, for what a watch has missed.
const AUDIT: Duration = Duration::from_mins(10);
/// Before the next try after something that stands in the way: the first time, and at most.
const AGAIN: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(8));
/// A server that says nothing to the question for a watch for so long does not know it.
const OLD: Duration = Duration::from_secs(2);
/// Connections in a row that break on the question for a watch before the server counts as old.
const BROKEN: u32 = 3;

/// Why reading ends.
#[derive(Debug)]
enum Stop {
    /// The connection broke; the session says when the next one is there.
    Lost,
    /// Everything must be read again.
    Again,
    /// This stands in the way; tried again.
    Wrong(SourceError),
}

impl From<Fault> for Stop {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Lost => Self::Lost,
            other => Self::Wrong(SourceError::Protocol {
                subject: "an answer".into(),
                what: other.to_string(),
            }),
        }
    }
}

/// What is to be done about a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Todo {
    /// Read it.
    Read,
    /// List its children.
    List,
    /// It is gone.
    Forget,
}

/// What is followed, and for whom.
pub(crate) struct Follower {
    pub(crate) layout: Arc<dyn Layout>,
    /// Without a slash at its end.
    pub(crate) base: String,
    pub(crate) only: Option<Arc<BTreeSet<ServiceName>>>,
    pub(crate) zk: Zk,
    pub(crate) events: mpsc::Receiver<Event>,
    pub(crate) out: Sink,
    pub(crate) demand: Demand,
    pub(crate) state: State,
}

/// What is known.
#[derive(Debug)]
pub(crate) struct State {
    tree: Tree,
    waits: Backoff,
    /// The server knows no watch of everything.
    old: bool,
    /// Events that were taken and not yet looked at.
    queue: VecDeque<Event>,
    /// What was said of each directory.
    said: BTreeMap<String, BTreeSet<ServiceKey>>,
    /// The directory that a service is of.
    named: BTreeMap<ServiceKey, String>,
    /// Nodes that the session may not read.
    denied: BTreeSet<String>,
    /// Nodes of an old server that have a watch.
    watched: BTreeSet<String>,
    /// Every directory, wanted or not.
    directories: BTreeSet<String>,
    /// Connections in a row that broke on the question for a watch.
    broken: u32,
    /// The member that the next probe reads.
    turn: usize,
}

impl Default for State {
    fn default() -> Self {
        Self {
            tree: Tree::default(),
            waits: Backoff::new(AGAIN.0, AGAIN.1),
            old: false,
            queue: VecDeque::new(),
            said: BTreeMap::new(),
            named: BTreeMap::new(),
            denied: BTreeSet::new(),
            watched: BTreeSet::new(),
            directories: BTreeSet::new(),
            broken: 0,
            turn: 0,
        }
    }
}

impl std::fmt::Debug for Follower {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Follower")
            .field("base", &self.base)
            .finish_non_exhaustive()
    }
}

impl Follower {
    /// Follows until the session has ended.
    pub(crate) async fn run(mut self) -> SourceError {
        loop {
            match self.event().await {
                None => break,
                // What was dropped may have been that it is up.
                Some(Event::Up(_) | Event::Overflow) => {}
                Some(Event::Down(error)) => {
                    self.out.status((&error).into());
                    continue;
                }
                Some(_) => continue,
            }
            self.state.watched.clear();
            while self.connected().await {}
        }
        SourceError::Protocol {
            subject: self.base.clone(),
            what: "the session has ended".into(),
        }
    }

    async fn event(&mut self) -> Option<Event> {
        match self.state.queue.pop_front() {
            Some(event) => Some(event),
            None => self.events.recv().await,
        }
    }

    /// Everything once, then what changes; false once the connection is lost.
    async fn connected(&mut self) -> bool {
        let stop = match self.list(false).await {
            Ok(()) => {
                self.state.waits.reset();
                self.attend().await
            }
            Err(stop) => stop,
        };
        match stop {
            Stop::Lost => false,
            Stop::Again => true,
            Stop::Wrong(error) => {
                self.out.status((&error).into());
                self.patience().await
            }
        }
    }

    /// Waits for a reason to try again; false when the connection is lost meanwhile.
    async fn patience(&mut self) -> bool {
        let wait = self.state.waits.next(fastrand::f64());
        tokio::select! {
            () = sleep(wait) => true,
            event = self.events.recv() => {
                let lost = matches!(event, None | Some(Event::Down(_) | Event::Up(_)));
                // Of any other event nothing is needed: all is read again.
                self.state.queue.extend(event.filter(|_| lost));
                !lost
            }
        }
    }

    /// Follows changes until everything must be read again.
    async fn attend(&mut self) -> Stop {
        let mut probe = Instant::now() + PROBE;
        let mut audit = Instant::now() + AUDIT.mul_f64(0.9 + 0.2 * fastrand::f64());
        loop {
            let step = tokio::select! {
                biased;
                event = async {
                    match self.state.queue.pop_front() {
                        Some(event) => Some(event),
                        None => self.events.recv().await,
                    }
                } => match event {
                    Some(event) => {
                        self.state.queue.push_front(event);
                        self.changes().await
                    }
                    None => Err(Stop::Lost),
                },
                () = self.out.recheck() => self.surely().await,
                () = self.demand.changed() => self.list(true).await,
                () = sleep_until(audit) => {
                    audit = Instant::now() + AUDIT;
                    self.audit().await
                }
                () = sleep_until(probe) => {
                    probe = Instant::now() + PROBE;
                    self.probe().await
                }
            };
            if let Err(stop) = step {
                return stop;
            }
        }
    }

    /// A doubted removal: what the leader has written by now is read.
    async fn surely(&mut self) -> Result<(), Stop> {
        let path = self.path("");
        match self.zk.tell(Ask::sync(&path)).await {
            Ok(_) | Err(Fault::Code(_)) => self.list(false).await,
            Err(fault) => Err(fault.into()),
        }
    }

    /// Everything again; what nobody told of is drift.
    async fn audit(&mut self) -> Result<(), Stop> {
        let before = self.state.tree.clone();
        self.list(false).await?;
        while let Ok(event) = self.events.try_recv() {
            self.state.queue.push_back(event);
        }
        let told: BTreeSet<String> = self
            .state
            .queue
            .iter()
            .filter_map(|event| match event {
                Event::Changed(_, path) => self.relative(path),
                _ => None,
            })
            .collect();
        let all: BTreeSet<&String> = before
            .directories()
            .chain(self.state.tree.directories())
            .collect();
        for directory in all {
            let layout = &*self.layout;
            let drifted =
                before.outcome(directory, layout) != self.state.tree.outcome(directory, layout);
            let inside = format!("{directory}/");
            if drifted
                && !told
                    .iter()
                    .any(|path| path == directory || path.starts_with(&inside))
            {
                self.out.drifted();
            }
        }
        Ok(())
    }

    /// Whether the path and a member of it may still be read: a right that goes is told by nobody.
    async fn probe(&mut self) -> Result<(), Stop> {
        if !self.state.denied.is_empty() {
            return Err(Stop::Again);
        }
        let count = self.state.said.len().max(1);
        self.state.turn = (self.state.turn + 1) % count;
        let directory = self
            .state
            .said
            .keys()
            .nth(self.state.turn)
            .cloned()
            .unwrap_or_default();
        for path in BTreeSet::from([String::new(), directory]) {
            match self.zk.children(&self.path(&path), false).await {
                Err(Fault::Code(code::NO_AUTH)) => return Err(Stop::Again),
                Err(Fault::Code(_)) | Ok(_) => {}
                Err(fault) => return Err(fault.into()),
            }
        }
        Ok(())
    }

    /// The whole path of a relative one.
    fn path(&self, relative: &str) -> String {
        match (self.base.is_empty(), relative.is_empty()) {
            (true, true) => "/".to_owned(),
            (_, true) => self.base.clone(),
            (_, false) => format!("{}/{relative}", self.base),
        }
    }

    /// The relative path of a whole one; `None` for what is elsewhere.
    fn relative(&self, path: &str) -> Option<String> {
        let rest = path.strip_prefix(self.base.as_str())?;
        match rest.strip_prefix('/') {
            Some(rest) => Some(rest.to_owned()),
            None => rest.is_empty().then(String::new),
        }
    }

    /// The service of a directory, when it is wanted by anybody.
    fn wanted(&self, directory: &str) -> Option<ServiceKey> {
        let key = self.layout.key(&self.base, directory)?;
        let named = |name: &ServiceName| {
            // Ports with names of their own are services beside it.
            name == &key.name
                || name
                    .as_str()
                    .strip_prefix(key.name.as_str())
                    .is_some_and(|rest| rest.starts_with('-'))
        };
        let only = self.only.as_ref().is_none_or(|only| only.iter().any(named));
        let needed = self.demand.needed().is_none_or(|needed| {
            needed.iter().any(|one| {
                one.namespace.clone().unwrap_or_default()
                    == key.namespace.clone().unwrap_or_default()
                    && named(&one.name)
            })
        });
        (only && needed).then_some(key)
    }

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

    fn refused(&self, relative: &str) -> Stop {
        Stop::Wrong(SourceError::Auth(self.path(relative)))
    }

    /// Reads everything that is wanted; with `known`, members that a watch keeps are not read again.
    async fn list(&mut self, known: bool) -> Result<(), Stop> {
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
    async fn walk(
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
    async fn read(&mut self, members: Vec<(String, String)>) -> Result<(), Stop> {
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

    /// Looks at the events that have come, and reads what they name.
    async fn changes(&mut self) -> Result<(), Stop> {
        while let Ok(event) = self.events.try_recv() {
            self.state.queue.push_back(event);
        }
        let mut todo: BTreeMap<String, Todo> = BTreeMap::new();
        while let Some(event) = self.state.queue.pop_front() {
            match event {
                Event::Down(error) => {
                    self.out.status((&error).into());
                    return Err(Stop::Lost);
                }
                up @ Event::Up(_) => {
                    self.state.queue.push_front(up);
                    return Err(Stop::Lost);
                }
                Event::Overflow | Event::Credential => return Err(Stop::Again),
                Event::Changed(change, path) => {
                    if let Some(path) = self.relative(&path) {
                        self.state.watched.remove(&path);
                        let what = match change {
                            Change::Created | Change::Data => Todo::Read,
                            Change::Children => Todo::List,
                            Change::Deleted => Todo::Forget,
                        };
                        todo.insert(path, what);
                    }
                }
            }
        }
        self.settle(todo).await
    }

    async fn settle(&mut self, todo: BTreeMap<String, Todo>) -> Result<(), Stop> {
        let (mut touched, mut members) = (BTreeSet::new(), Vec::new());
        for (path, what) in todo {
            let Some((directory, name)) = split(&path) else {
                match what {
                    Todo::List => self.relist(path, &mut touched, &mut members).await?,
                    // The path itself came or went: everything is looked at.
                    Todo::Read | Todo::Forget => return Err(Stop::Again),
                }
                continue;
            };
            let kind = self.layout.kind(depth(directory), name);
            match (kind, what) {
                (Kind::Foreign, _) => {}
                (_, Todo::Forget) => touched.extend(self.gone(&path)),
                (Kind::Member, _) if self.wanted(directory).is_some() => {
                    members.push((directory.to_owned(), name.to_owned()));
                }
                (Kind::Member, _) => {}
                (Kind::Inner, Todo::Read) if !self.state.old => {
                    if self.wanted(&path).is_some() {
                        self.state.tree.found(&path);
                        touched.insert(path);
                    }
                }
                (Kind::Inner, _) => self.relist(path, &mut touched, &mut members).await?,
            }
        }
        touched.extend(members.iter().map(|(directory, _)| directory.clone()));
        self.read(members).await?;
        for directory in &touched {
            self.say(directory);
        }
        self.tell();
        Ok(())
    }

    /// A node is gone; the directories that it touches.
    fn gone(&mut self, path: &str) -> BTreeSet<String> {
        let inside = format!("{path}/");
        self.state
            .directories
            .retain(|directory| directory != path && !directory.starts_with(&inside));
        self.state.tree.gone(path)
    }

    /// Lists one directory again, and those that are new in it.
    async fn relist(
        &mut self,
        path: String,
        touched: &mut BTreeSet<String>,
        unread: &mut Vec<(String, String)>,
    ) -> Result<(), Stop> {
        let (directories, members) = self.walk(path.clone(), false).await?;
        if directories.is_empty() && !self.state.denied.contains(&path) {
            touched.extend(self.gone(&path));
        }
        self.state.directories.extend(directories);
        for (directory, names) in members {
            let news = self.state.tree.listed(&directory, &names);
            unread.extend(news.into_iter().map(|name| (directory.clone(), name)));
            touched.insert(directory);
        }
        Ok(())
    }

    /// The sets of a directory by their services.
    fn sets(
        &self,
        directory: &str,
    ) -> Option<BTreeMap<ServiceKey, Vec<mesh_model::endpoint::Endpoint>>> {
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
    fn commit(&mut self, directories: &BTreeSet<String>) {
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
    fn say(&mut self, directory: &str) {
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
    fn tell(&self) {
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

/// One connection reads everything, and a server that knows less than was read takes no session: what is
/// read later is newer.
const VERSION: Version = Version::Hash(0);
