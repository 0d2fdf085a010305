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

use mesh_model::{endpoint::ServiceKey, name::ServiceName};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep, sleep_until},
};

use super::{
    message::{Ask, code},
    session::{Event, Fault, Zk},
    tree::{Layout, Tree},
};
use crate::{backoff::Backoff, demand::Demand, sink::Sink, source::SourceError};

/// What events name is read again.
mod changes;
/// What is asked.
mod reading;
/// What is said of what is known.
mod telling;

/// Between two looks whether the path may still be read.
const PROBE: Duration = Duration::from_secs(8);
/// Between two readings of everything, for what a watch has missed.
const AUDIT: Duration = Duration::from_mins(10);
/// Before the next try after something that stands in the way: the first time, and at most.
const AGAIN: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(8));

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

    fn refused(&self, relative: &str) -> Stop {
        Stop::Wrong(SourceError::Auth(self.path(relative)))
    }
}
