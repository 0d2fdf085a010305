//! Registries that answer when an index has grown: Consul and Nomad.
//!
//! In: a [`Dialect`], a client, the demand. Out: whole sets, absences that two reads agree on, one status.
//! Never: believes an empty answer alone, an index that went backwards without the leader's word, or a
//! registry that lists nothing where it must list itself. An error keeps everything and starts the index anew.

use std::{
    collections::{BTreeMap, BTreeSet},
    convert::Infallible,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use mesh_model::{
    endpoint::ServiceKey,
    name::{Namespace, ServiceName},
};
use tokio::{
    sync::watch,
    task::{AbortHandle, JoinSet},
    time::Instant,
};

use crate::{
    backoff::Backoff,
    demand::Demand,
    http::{Answer, Client, Request},
    sink::{ServiceSet, Sink},
    source::SourceError,
    version::Version,
};

/// One status out of many readers.
pub(crate) mod board;
/// The rules of an index.
mod cursor;
/// A scripted server of either dialect.
#[cfg(test)]
pub(crate) mod fake;

use board::Board;
pub(crate) use cursor::Ask;
use cursor::{Bucket, Cursor, Step};

/// Most questions that wait at the same time: below the 200 connections that an agent takes from one client.
const MAX_WATCHES: usize = 160;
/// The rest is read in turn: this many at once, at most 50 a second after the first round.
const AT_ONCE: usize = 16;
/// The pause after one such group.
const GROUP_PAUSE: Duration = Duration::from_millis(320);
/// One wake of a service.
const WAKE: Duration = Duration::from_millis(100);
/// A server that has not heard from its leader for longer is not believed.
const MAX_STALE_MS: u64 = 10_000;
/// Between two signs of life, while all is well and while it is not.
const PROBE: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(1));
/// For one sign of life.
const PROBE_DEADLINE: Duration = Duration::from_secs(3);
/// A stream of events says something at least this often.
const SILENCE: Duration = Duration::from_secs(30);

const NAMES: &str = "the list of services";
const LEADER: &str = "the leader";

/// The list of services.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Names {
    /// Those that a mesh can name.
    pub(crate) keys: BTreeSet<ServiceKey>,
    /// Those that it cannot.
    pub(crate) skipped: BTreeSet<String>,
}

/// The instances of one service.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Instances {
    /// Those that count.
    pub(crate) set: ServiceSet,
    /// How many the answer had, of any kind.
    pub(crate) listed: usize,
    /// How many could not be understood.
    pub(crate) skipped: usize,
}

/// What is different between the registries.
pub(crate) trait Dialect: Send + Sync + 'static {
    /// What its fields begin with, such as `x-consul-`.
    fn fields(&self) -> &'static str;
    /// Path and query of the list of services.
    fn names(&self, ask: Ask) -> String;
    /// Path and query of one service.
    fn service(&self, key: &ServiceKey, ask: Ask) -> String;
    /// Path of the stream of events, where there is one.
    fn events(&self) -> Option<String> {
        None
    }
    /// Reads the list.
    fn read_names(&self, body: &[u8]) -> Result<Names, String>;
    /// Reads one service.
    fn read_service(&self, key: &ServiceKey, body: &[u8]) -> Result<Instances, String>;
    /// True when a list without any service can be true.
    fn may_be_empty(&self, index: u64) -> bool;
    /// True when the service can be there at all.
    fn owns(&self, key: &ServiceKey) -> bool;
}

/// What all readers share.
struct Engine {
    dialect: Arc<dyn Dialect>,
    client: Client,
    out: Sink,
    board: Board,
    /// Grows when everybody must read again.
    again: watch::Sender<u64>,
    /// Wakes the reader of names.
    hint: tokio::sync::Notify,
    /// The newest list that the leader gave, and when it was asked for.
    confirmed: tokio::sync::Mutex<Option<(Instant, Names)>>,
    /// Services whose absence is published.
    gone: Mutex<BTreeSet<ServiceKey>>,
    /// When this engine began: buckets count from here.
    began: Instant,
}

/// Reads for ever: what `demand` wants, or everything, and of it `only` what the settings name.
pub(crate) async fn run(
    dialect: Arc<dyn Dialect>,
    client: Client,
    only: Option<Arc<BTreeSet<ServiceName>>>,
    out: Sink,
    mut demand: Demand,
) -> Result<Infallible, SourceError> {
    let (names_in, mut names) = watch::channel(None::<Arc<BTreeSet<ServiceKey>>>);
    let (cold_in, cold) = watch::channel(Arc::<Vec<ServiceKey>>::default());
    let engine = Arc::new(Engine {
        dialect,
        client,
        board: Board::new(out.clone()),
        out: out.clone(),
        again: watch::channel(0).0,
        hint: tokio::sync::Notify::new(),
        confirmed: tokio::sync::Mutex::default(),
        gone: Mutex::default(),
        began: Instant::now(),
    });
    let mut tasks = JoinSet::new();
    engine.board.expect(LEADER);
    tasks.spawn(Arc::clone(&engine).probe());
    tasks.spawn(Arc::clone(&engine).sweep(cold));
    if engine.dialect.events().is_some() {
        tasks.spawn(Arc::clone(&engine).events());
    }
    let mut reader: Option<AbortHandle> = None;
    let mut hot: BTreeMap<ServiceKey, AbortHandle> = BTreeMap::new();
    loop {
        let needed = demand.needed();
        let all = names.borrow_and_update().clone();
        let wanted = match (&needed, all) {
            (Some(needed), _) => Some(engine.normal(needed.iter(), only.as_deref())),
            (None, Some(all)) => Some(engine.normal(all.iter(), only.as_deref())),
            (None, None) => None,
        };
        match (&needed, &reader) {
            (None, None) => {
                engine.board.expect(NAMES);
                reader = Some(tasks.spawn(Arc::clone(&engine).list(names_in.clone())));
            }
            (Some(_), Some(_)) => {
                if let Some(running) = reader.take() {
                    running.abort();
                }
                engine.board.forget(NAMES);
            }
            _ => {}
        }
        if let Some(wanted) = wanted {
            let late = engine.follow(&wanted, needed.is_some(), &mut hot, &mut tasks);
            let mut sync = out.begin_sync();
            for key in wanted.iter().chain(hot.keys()) {
                sync.keep(key.clone());
            }
            sync.commit();
            cold_in.send_replace(Arc::new(late));
        }
        tokio::select! {
            () = demand.changed() => {}
            changed = names.changed() => if changed.is_err() { std::future::pending::<()>().await },
            () = out.recheck() => engine.all_again(),
            ended = tasks.join_next() => {
                if ended.is_some_and(|ended| ended.is_err_and(|error| error.is_panic())) {
                    return Err(SourceError::Protocol { subject: "a reader".into(), what: "it panicked".into() });
                }
            }
        }
    }
}

impl Engine {
    /// Keys as readers use them.
    fn normal<'k, K: Iterator<Item = &'k ServiceKey>>(
        &self,
        keys: K,
        only: Option<&BTreeSet<ServiceName>>,
    ) -> BTreeSet<ServiceKey> {
        keys.filter(|key| only.is_none_or(|only| only.contains(&key.name)))
            .map(|key| ServiceKey {
                namespace: Some(key.namespace.clone().unwrap_or_default()),
                name: key.name.clone(),
                port_name: None,
            })
            .filter(|key| self.dialect.owns(key))
            .collect()
    }

    /// Starts and ends readers; what has none is the rest that is read in turn. A service that is no longer
    /// listed keeps its reader until that one has seen it empty.
    fn follow(
        self: &Arc<Self>,
        wanted: &BTreeSet<ServiceKey>,
        demanded: bool,
        hot: &mut BTreeMap<ServiceKey, AbortHandle>,
        tasks: &mut JoinSet<()>,
    ) -> Vec<ServiceKey> {
        let mut gone = self.gone.lock().unwrap_or_else(PoisonError::into_inner);
        hot.retain(|key, reader| {
            let stays = wanted.contains(key) || !(demanded || gone.contains(key));
            if !stays {
                reader.abort();
                gone.remove(key);
                self.board.forget(&label(key));
            }
            stays
        });
        let spread = Duration::from_millis(5)
            .saturating_mul(u32::try_from(wanted.len()).unwrap_or(u32::MAX));
        let spread = spread.min(Duration::from_millis(1_500));
        let mut late = Vec::new();
        for key in wanted {
            if hot.contains_key(key) {
                continue;
            }
            if hot.len() >= MAX_WATCHES {
                late.push(key.clone());
                continue;
            }
            self.board.expect(&label(key));
            let delay = spread.mul_f64(fastrand::f64());
            let reader = tasks.spawn(Arc::clone(self).watch(key.clone(), delay));
            hot.insert(key.clone(), reader);
        }
        late
    }

    /// Everybody reads again, from the leader.
    fn all_again(&self) {
        self.again.send_modify(|round| *round += 1);
    }

    /// One question and its index. What a server says of itself is checked here.
    async fn ask(&self, path: String, ask: Ask) -> Result<(Answer, u64), SourceError> {
        let answer = self
            .client
            .send(&Request::get(path).within(ask.deadline()))
            .await?
            .good()?;
        let field = |name: &str| answer.field(&format!("{}{name}", self.dialect.fields()));
        let wrong = |what: &str| SourceError::Protocol {
            subject: answer.subject.clone(),
            what: what.to_owned(),
        };
        if field("knownleader") == Some("false") {
            return Err(wrong("the server knows no leader"));
        }
        if field("results-filtered-by-acls") == Some("true") {
            return Err(SourceError::Auth(format!(
                "{} (what the token may not see was left out)",
                answer.subject
            )));
        }
        if ask.stale
            && field("lastcontact")
                .and_then(|ms| ms.parse().ok())
                .unwrap_or(0_u64)
                > MAX_STALE_MS
        {
            return Err(wrong("the server has not heard from its leader"));
        }
        let index = field("index").and_then(|index| index.parse().ok());
        let index = index.ok_or_else(|| wrong("there is no index"))?;
        Ok((answer, index))
    }

    fn parsed<T>(&self, answer: &Answer, result: Result<T, String>) -> Result<T, SourceError> {
        result.map_err(|what| {
            self.out.unreadable();
            SourceError::Protocol {
                subject: answer.subject.clone(),
                what,
            }
        })
    }

    fn names_of(&self, answer: &Answer, index: u64) -> Result<Names, SourceError> {
        let names = self.parsed(answer, self.dialect.read_names(&answer.body))?;
        if names.keys.is_empty() && names.skipped.is_empty() && !self.dialect.may_be_empty(index) {
            return Err(SourceError::Auth(format!(
                "{} (it lists nothing: the token may see nothing)",
                answer.subject
            )));
        }
        Ok(names)
    }

    /// The list as the leader has it, asked for after `since`.
    async fn confirm(&self, since: Instant) -> Result<Names, SourceError> {
        let mut known = self.confirmed.lock().await;
        if let Some((_, names)) = known.as_ref().filter(|(at, _)| *at > since) {
            return Ok(names.clone());
        }
        let at = Instant::now();
        let (answer, index) = self
            .ask(self.dialect.names(Ask::SURELY), Ask::SURELY)
            .await?;
        let names = self.names_of(&answer, index)?;
        *known = Some((at, names.clone()));
        Ok(names)
    }

    /// What an answer says of a service. An empty one counts when the leader's list does not name it either.
    async fn publish(
        &self,
        key: &ServiceKey,
        answer: &Answer,
        index: u64,
        version: Version,
    ) -> Result<(), SourceError> {
        let found = self.parsed(answer, self.dialect.read_service(key, &answer.body))?;
        for _ in 0..found.skipped {
            self.out.unreadable();
        }
        if found.listed > 0 {
            self.gone
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .remove(key);
            self.out.replace(key.clone(), found.set, version);
            return Ok(());
        }
        let denied = |why: &str| SourceError::Auth(format!("{} ({why})", answer.subject));
        if index == 0 {
            return Err(denied("an empty answer without an index proves nothing"));
        }
        if self.confirm(Instant::now()).await?.keys.contains(key) {
            return Err(denied(
                "the service is listed but none of its instances: the token may not read nodes",
            ));
        }
        self.out.absent(key, version);
        self.gone
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(key.clone());
        Ok(())
    }

    /// Follows one service until it is aborted.
    async fn watch(self: Arc<Self>, key: ServiceKey, delay: Duration) {
        let label = label(&key);
        tokio::time::sleep(delay).await;
        let (mut cursor, mut bucket) = (Cursor::default(), Bucket::default());
        let mut waits = Backoff::new(Duration::from_millis(250), Duration::from_secs(30));
        let mut again = self.again.subscribe();
        loop {
            let asked = cursor.ask(fastrand::f64());
            let result = tokio::select! {
                result = Box::pin(self.step(&key, asked, &mut cursor)) => Some(result),
                _ = again.changed() => None,
            };
            let pause = match result {
                None => {
                    cursor.lost();
                    continue;
                }
                Some(Ok(())) => {
                    waits.reset();
                    self.board.good(&label);
                    bucket.take(self.now_ms(), WAKE)
                }
                Some(Err(error)) => {
                    cursor.lost();
                    self.board.bad(&label, &error);
                    pause(&error, waits.next(fastrand::f64()))
                }
            };
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                _ = again.changed() => cursor.lost(),
            }
        }
    }

    async fn step(
        &self,
        key: &ServiceKey,
        ask: Ask,
        cursor: &mut Cursor,
    ) -> Result<(), SourceError> {
        let (answer, index) = self.ask(self.dialect.service(key, ask), ask).await?;
        match cursor.took(index) {
            Step::Backwards => Ok(()),
            // The first of a row counts in the order of reading: the index may be of a new history.
            Step::First => self.publish(key, &answer, index, Version::Hash(0)).await,
            // What comes after a wait is read too: rights can go while an index stays.
            Step::Same(index) | Step::Grown(index) => {
                self.publish(key, &answer, index, Version::Index(index))
                    .await
            }
        }
    }

    /// Follows the list of services.
    async fn list(self: Arc<Self>, names: watch::Sender<Option<Arc<BTreeSet<ServiceKey>>>>) {
        let (mut cursor, mut bucket) = (Cursor::default(), Bucket::default());
        let mut waits = Backoff::new(Duration::from_millis(250), Duration::from_secs(30));
        let mut again = self.again.subscribe();
        let mut skipped = BTreeSet::new();
        loop {
            let ask = cursor.ask(fastrand::f64());
            let result = tokio::select! {
                result = Box::pin(self.ask(self.dialect.names(ask), ask)) => result,
                _ = again.changed() => { cursor.lost(); continue }
                () = self.hint.notified() => { cursor.lost(); continue }
            };
            let read = result.and_then(|(answer, index)| {
                let step = cursor.took(index);
                if step == Step::Backwards {
                    return Ok(None);
                }
                Ok(Some((self.names_of(&answer, index)?, answer.body.len())))
            });
            let pause = match read {
                Ok(None) => Duration::ZERO,
                Ok(Some((found, size))) => {
                    for name in found.skipped.difference(&skipped) {
                        tracing::warn!(service = %name.escape_debug(), "no name that the mesh can have; it is left out");
                        self.out.unreadable();
                    }
                    skipped = found.skipped;
                    names.send_if_modified(|now| {
                        let new = now.as_deref() != Some(&found.keys);
                        if new {
                            *now = Some(Arc::new(found.keys));
                        }
                        new
                    });
                    self.board.good(NAMES);
                    waits.reset();
                    // It wakes with every change of any service: a large list is read seldom.
                    let each = Duration::from_millis(u64::try_from(size / 32).unwrap_or(u64::MAX));
                    bucket.take(
                        self.now_ms(),
                        each.clamp(Duration::from_millis(500), Duration::from_secs(10)),
                    )
                }
                Err(error) => {
                    cursor.lost();
                    self.board.bad(NAMES, &error);
                    pause(&error, waits.next(fastrand::f64()))
                }
            };
            tokio::time::sleep(pause).await;
        }
    }

    /// Reads in turn what has no reader of its own.
    async fn sweep(self: Arc<Self>, mut cold: watch::Receiver<Arc<Vec<ServiceKey>>>) {
        let mut fast = true;
        loop {
            let keys = Arc::clone(&cold.borrow_and_update());
            for group in keys.chunks(AT_ONCE) {
                let mut reads = JoinSet::new();
                for key in group.iter().cloned() {
                    reads.spawn(Arc::clone(&self).once(key));
                }
                while reads.join_next().await.is_some() {}
                if !fast {
                    tokio::time::sleep(GROUP_PAUSE).await;
                }
            }
            fast = keys.is_empty();
            tokio::select! {
                changed = cold.changed() => if changed.is_err() { return },
                () = tokio::time::sleep(Duration::from_secs(5)), if !keys.is_empty() => {}
            }
        }
    }

    async fn once(self: Arc<Self>, key: ServiceKey) {
        let read = async {
            let (answer, index) = self
                .ask(self.dialect.service(&key, Ask::NOW), Ask::NOW)
                .await?;
            self.publish(&key, &answer, index, Version::Hash(0)).await
        };
        match read.await {
            Ok(()) => self.board.good(&label(&key)),
            Err(error) => self.board.bad(&label(&key), &error),
        }
    }

    /// Asks for a sign of life: a question that waits minutes says nothing about its server.
    async fn probe(self: Arc<Self>) {
        let mut alive = true;
        loop {
            let sign = self
                .client
                .send(&Request::get("/v1/status/leader").within(PROBE_DEADLINE))
                .await;
            let sign = sign.and_then(|answer| {
                let led =
                    !answer.body.trim_ascii().is_empty() && answer.body.trim_ascii() != b"\"\"";
                // A server that does not know the question is alive.
                if answer.status.is_client_error() || (led && answer.status.is_success()) {
                    return Ok(());
                }
                let subject = answer.good()?.subject;
                Err(SourceError::Protocol {
                    subject,
                    what: "there is no leader".into(),
                })
            });
            match sign {
                Ok(()) => {
                    self.board.good(LEADER);
                    if !alive {
                        self.client.redial();
                        self.all_again();
                    }
                    alive = true;
                }
                Err(error) => {
                    self.board.bad(LEADER, &error);
                    alive = false;
                }
            }
            let (well, ill) = PROBE;
            let pause = if alive { well } else { ill };
            tokio::time::sleep(pause.mul_f64(0.9 + fastrand::f64() / 5.0)).await;
        }
    }

    /// Events are a hint and nothing more: gaps are silent, and so is a stream without rights.
    async fn events(self: Arc<Self>) {
        let mut waits = Backoff::new(Duration::from_secs(1), Duration::from_secs(30));
        loop {
            let path = self.dialect.events().unwrap_or_default();
            if let Ok(mut lines) = self.client.lines(&Request::get(path), SILENCE).await {
                while let Ok(Some(line)) = lines.next().await {
                    waits.reset();
                    // Heartbeats are `{}`.
                    if line.len() > 2 {
                        self.hint.notify_one();
                    }
                }
            }
            tokio::time::sleep(waits.next(fastrand::f64())).await;
        }
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

fn pause(error: &SourceError, wait: Duration) -> Duration {
    match error {
        SourceError::Throttled { retry_after } => wait.max(*retry_after),
        _ => wait,
    }
}

fn label(key: &ServiceKey) -> String {
    format!(
        "{}/{}",
        key.namespace.as_ref().map_or("default", Namespace::as_str),
        key.name
    )
}
