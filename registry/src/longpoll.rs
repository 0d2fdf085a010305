//! Registries that answer when an index has grown: Consul and Nomad.
//!
//! In: a [`Dialect`], a client, the demand. Out: whole sets, absences that two reads agree on, one status. So
//! many services as the settings say have a question of their own that waits; the others are read when the
//! registry says that something changed. Never: believes an empty answer alone, an index that went backwards
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
#[cfg(test)]
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
    };
    engine.board.expect(LEADER);
    readers.tasks.spawn(Arc::clone(&engine).probe());
    readers.tasks.spawn(Arc::clone(&engine).sweep());
    if engine.dialect.events().is_some() {
        readers.tasks.spawn(Arc::clone(&engine).events());
    }
    let (mut only_swaps, mut synced) = (false, None);
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
            let has_cold = readers.follow(&wanted, needed.is_some());
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
    /// reader until that one has seen it empty. True when some are read in turn.
    fn follow(&mut self, wanted: &BTreeSet<ServiceKey>, demanded: bool) -> bool {
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
        let spread = spread(wanted.len());
        let mut cold = BTreeSet::new();
        for key in wanted {
            if self.hot.contains_key(key) {
                continue;
            }
            if self.hot.len() >= engine.most {
                cold.insert(key.clone());
                continue;
            }
            self.watch(key, spread.mul_f64(fastrand::f64()));
        }
        let may_swap = self.swapped.is_none_or(|at| at.elapsed() >= SWAPS.1);
        let swaps = {
            let mut queue = engine.queue();
            queue.keep(wanted);
            let most = if may_swap { SWAPS.0 } else { 0 };
            queue.swaps(self.hot.keys().collect(), most)
        };
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
        let [new, left] = engine.queue().set(&cold);
        for key in &new {
            engine.board.expect(&label(key));
        }
        for key in left.iter().filter(|key| !self.hot.contains_key(*key)) {
            engine.board.forget(&label(key));
        }
        if !new.is_empty() {
            engine.woken.notify_one();
        }
        engine.follows(self.hot.len(), cold.len());
        !cold.is_empty()
    }

    fn watch(&mut self, key: &ServiceKey, delay: Duration) {
        self.engine.board.expect(&label(key));
        let reader = Arc::clone(&self.engine).watch(key.clone(), delay);
        self.hot.insert(key.clone(), self.tasks.spawn(reader));
    }
}
