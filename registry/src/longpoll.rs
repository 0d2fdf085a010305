//! Registries that answer when an index has grown: Consul and Nomad.
//!
//! In: a `Dialect`, a client, the demand. Out: whole sets, absences that two reads agree on, one status. So
//! many services as the settings say have a question of their own that waits, those that this host calls first; the
//! others are read when the registry says that something changed. Never: believes an empty answer alone, an index that went backwards
//! without the leader's word, or a registry that lists nothing where it must list itself. An error keeps
//! everything and starts the index anew.

use std::{
    collections::{BTreeMap, BTreeSet},
    convert::Infallible,
    future::Future,
    sync::{Arc, PoisonError},
    time::Duration,
};

use mesh_model::{endpoint::ServiceKey, name::ServiceName};
use tokio::{
    sync::watch,
    task::{AbortHandle, JoinSet},
    time::Instant,
};

use crate::{demand::Demand, http::Client, sink::Sink, source::SourceError};

/// One status out of many readers.
pub(crate) mod board;
/// The rules of an index.
mod cursor;
/// What is different between the registries.
mod dialect;
/// What readers share.
mod engine;
/// A scripted server of either dialect.
#[cfg(any(test, feature = "contract"))]
pub(crate) mod fake;
/// Questions about everything.
mod feeds;
/// Services with a question of their own.
mod own;
/// Signs of life.
pub(crate) mod probe;
/// Which service is read next.
mod queue;
/// What the tests of both dialects share.
#[cfg(test)]
pub(crate) mod tests;
/// Services that are read in turn.
mod turn;

pub(crate) use cursor::Ask;
pub(crate) use dialect::{Dialect, Instances, Names, Subject, Unwell};

use engine::{Engine, label, spread};
use feeds::{Feed, NAMES};
use probe::LEADER;

/// Services that get a question of their own at a time because they changed, and how often that is. A server may
/// go on with a question that was given up until its time ends, and counts it for the connection.
const SWAPS: (usize, Duration) = (4, Duration::from_secs(10));

/// The readers that run.
struct Readers {
    engine: Arc<Engine>,
    tasks: JoinSet<()>,
    /// Of one service.
    hot: BTreeMap<ServiceKey, AbortHandle>,
    /// Of everything, by name on the board.
    feeds: BTreeMap<&'static str, AbortHandle>,
    /// When services swapped last.
    swapped: Option<Instant>,
    /// What this host calls.
    called: BTreeSet<ServiceKey>,
    /// Some of it waits for another one's question.
    owes: bool,
}

/// Reads for ever: what `demand` wants, or everything, and of it `only` what the settings name; at most `most`
/// services by a question of their own.
pub(crate) async fn run(
    dialect: Arc<dyn Dialect>,
    client: Client,
    only: Option<Arc<BTreeSet<ServiceName>>>,
    most: u16,
    out: Sink,
    mut demand: Demand,
) -> Result<Infallible, SourceError> {
    let (names_in, mut names) = watch::channel(None::<Arc<BTreeSet<ServiceKey>>>);
    let engine = Arc::new(Engine::new(dialect, client, most.into(), out.clone()));
    let mut readers = Readers {
        engine: Arc::clone(&engine),
        tasks: JoinSet::new(),
        hot: BTreeMap::new(),
        feeds: BTreeMap::new(),
        swapped: None,
        called: BTreeSet::new(),
        owes: false,
    };
    engine.board.expect(LEADER);
    readers.tasks.spawn(Arc::clone(&engine).probe());
    readers.tasks.spawn(Arc::clone(&engine).sweep());
    if engine.dialect.events().is_some() {
        readers.tasks.spawn(Arc::clone(&engine).events());
    }
    let (mut only_swaps, mut synced) = (false, None);
    let mut calls = demand.clone();
    loop {
        let needed = demand.needed();
        let all = names.borrow_and_update().clone();
        let wanted = match (&needed, all) {
            (Some(needed), _) => Some(engine.normal(needed.iter(), only.as_deref())),
            (None, Some(all)) => Some(engine.normal(all.iter(), only.as_deref())),
            (None, None) => None,
        };
        readers.feed(NAMES, needed.is_none(), |engine| {
            engine.list(names_in.clone())
        });
        if let Some(wanted) = wanted {
            let called = engine.normal(demand.called().iter(), only.as_deref());
            let has_cold = readers.follow(&wanted, needed.is_some(), called);
            let told = has_cold && engine.dialect.unwell(Ask::NOW).is_some();
            for (feed, runs) in [
                (Feed::Catalog, has_cold && needed.is_some()),
                (Feed::Unwell, told),
            ] {
                readers.feed(feed.label(), runs, |engine| engine.feed(feed));
            }
            // Who asks is no matter of the registry's content.
            if !only_swaps || synced.as_ref() != Some(&wanted) {
                let mut sync = out.begin_sync();
                for key in wanted.iter().chain(readers.hot.keys()) {
                    sync.keep(key.clone());
                }
                sync.commit();
                synced = Some(wanted);
            }
        }
        only_swaps = false;
        tokio::select! {
            () = demand.changed() => {}
            () = calls.calls_changed() => only_swaps = true,
            () = tokio::time::sleep(SWAPS.1), if readers.owes => only_swaps = true,
            changed = names.changed() => if changed.is_err() { std::future::pending::<()>().await },
            () = out.recheck() => engine.all_again(),
            () = engine.rising.notified() => only_swaps = true,
            ended = readers.tasks.join_next() => {
                if ended.is_some_and(|ended| ended.is_err_and(|error| error.is_panic())) {
                    return Err(SourceError::Protocol { subject: "a reader".into(), what: "it panicked".into() });
                }
            }
        }
    }
}

impl Readers {
    /// Starts or ends a reader of everything.
    fn feed<F: Future<Output = ()> + Send + 'static>(
        &mut self,
        name: &'static str,
        runs: bool,
        reader: impl FnOnce(Arc<Engine>) -> F,
    ) {
        match (runs, self.feeds.contains_key(name)) {
            (true, false) => {
                self.engine.board.expect(name);
                let reader = self.tasks.spawn(reader(Arc::clone(&self.engine)));
                self.feeds.insert(name, reader);
            }
            (false, true) => {
                if let Some(running) = self.feeds.remove(name) {
                    running.abort();
                }
                self.engine.board.forget(name);
            }
            _ => {}
        }
    }

    /// Starts and ends readers; what has none is read in turn. A service that is no longer listed keeps its
    /// reader until that one has seen it empty. What this host calls comes first. True when some are read in turn.
    fn follow(
        &mut self,
        wanted: &BTreeSet<ServiceKey>,
        demanded: bool,
        called: BTreeSet<ServiceKey>,
    ) -> bool {
        let engine = Arc::clone(&self.engine);
        {
            let mut gone = engine.gone.lock().unwrap_or_else(PoisonError::into_inner);
            self.hot.retain(|key, reader| {
                let stays = wanted.contains(key) || !(demanded || gone.contains(key));
                if !stays {
                    reader.abort();
                    gone.remove(key);
                    engine.board.forget(&label(key));
                }
                stays
            });
        }
        let mut cold: BTreeSet<ServiceKey> = wanted.iter().cloned().collect();
        cold.retain(|key| !self.hot.contains_key(key));
        let free = engine.most.saturating_sub(self.hot.len()).min(cold.len());
        let spread = spread(free);
        let (first, rest): (Vec<_>, Vec<_>) = cold.iter().partition(|key| called.contains(*key));
        let begin: Vec<ServiceKey> = first.into_iter().chain(rest).take(free).cloned().collect();
        for key in begin {
            cold.remove(&key);
            self.watch(&key, spread.mul_f64(fastrand::f64()));
        }
        let swaps = self.swaps(wanted, &cold, &called);
        if !swaps.is_empty() {
            self.swapped = Some(Instant::now());
        }
        for (up, down) in swaps {
            if !cold.remove(&up) {
                continue;
            }
            if let Some(reader) = self.hot.remove(&down) {
                reader.abort();
            }
            if wanted.contains(&down) {
                cold.insert(down);
            }
            self.watch(&up, Duration::ZERO);
        }
        let [new, left] = {
            let mut queue = engine.queue();
            let changes = queue.set(&cold);
            for key in called.difference(&self.called) {
                queue.name(key.clone());
            }
            changes
        };
        for key in &new {
            engine.board.expect(&label(key));
        }
        for key in left.iter().filter(|key| !self.hot.contains_key(*key)) {
            engine.board.forget(&label(key));
        }
        if !new.is_empty() || !called.is_subset(&self.called) {
            engine.woken.notify_one();
        }
        self.called = called;
        engine.follows(self.hot.len(), cold.len());
        !cold.is_empty()
    }

    /// Who takes whose question: what is called before what changed lately, of what is not called and did not
    /// change for longest.
    fn swaps(
        &mut self,
        wanted: &BTreeSet<ServiceKey>,
        cold: &BTreeSet<ServiceKey>,
        called: &BTreeSet<ServiceKey>,
    ) -> Vec<(ServiceKey, ServiceKey)> {
        let may_swap = self.swapped.is_none_or(|at| at.elapsed() >= SWAPS.1);
        let most = if may_swap { SWAPS.0 } else { 0 };
        let mut queue = self.engine.queue();
        queue.keep(wanted);
        let mut others: Vec<&ServiceKey> = self.hot.keys().collect();
        // What is no longer listed keeps its reader until that one has seen it empty.
        others.retain(|key| wanted.contains(*key) && !called.contains(*key));
        queue.by_heat(&mut others);
        let wishes = cold.iter().filter(|key| called.contains(*key));
        let pairs: Vec<_> = wishes.zip(&others).collect();
        self.owes = pairs.len() > most;
        let pairs = pairs.into_iter().take(most);
        let mut swaps: Vec<(ServiceKey, ServiceKey)> = pairs
            .map(|(up, down)| (up.clone(), (*down).clone()))
            .collect();
        let watched = others.split_off(swaps.len());
        swaps.extend(queue.swaps(watched, most - swaps.len()));
        swaps
    }

    fn watch(&mut self, key: &ServiceKey, delay: Duration) {
        self.engine.board.expect(&label(key));
        let reader = Arc::clone(&self.engine).watch(key.clone(), delay);
        self.hot.insert(key.clone(), self.tasks.spawn(reader));
    }
}
