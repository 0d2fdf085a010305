//! What all readers of one registry share: how it is asked, and what an answer is worth.

use std::{
    collections::BTreeSet,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use mesh_model::{
    endpoint::ServiceKey,
    name::{Namespace, ServiceName},
};
use tokio::{
    sync::{Notify, watch},
    time::Instant,
};

use super::{
    board::Board,
    cursor::{Ask, patience},
    dialect::{Dialect, Names},
    queue::Queue,
};
use crate::{
    http::{Answer, Client, Request},
    sink::Sink,
    source::SourceError,
    tally::Tally,
    version::Version,
};

/// A server that has not heard from its leader for longer is not believed.
const MAX_STALE_MS: u64 = 10_000;

/// What all readers share.
pub(super) struct Engine {
    pub(super) dialect: Arc<dyn Dialect>,
    pub(super) client: Client,
    pub(super) out: Sink,
    pub(super) board: Board,
    pub(super) tally: Arc<Tally>,
    /// Most services with a question of their own.
    pub(super) most: usize,
    /// How many have one.
    watched: AtomicUsize,
    /// Grows when everybody must read again.
    pub(super) again: watch::Sender<u64>,
    /// Wakes the reader of names.
    pub(super) hint: Notify,
    /// The services that have no question of their own.
    queue: Mutex<Queue>,
    /// Wakes their reader.
    pub(super) woken: Notify,
    /// Some of them change: they should have one.
    pub(super) rising: Notify,
    /// How many of the questions that tell of changes were answered.
    pub(super) told: watch::Sender<usize>,
    /// The newest list that the leader gave, and when it was asked for.
    confirmed: tokio::sync::Mutex<Option<(Instant, Names)>>,
    /// Services whose absence is published.
    pub(super) gone: Mutex<BTreeSet<ServiceKey>>,
    /// When this engine began: buckets count from here.
    began: Instant,
}

impl Engine {
    pub(super) fn new(dialect: Arc<dyn Dialect>, client: Client, most: usize, out: Sink) -> Self {
        Self {
            dialect,
            client,
            board: Board::new(out.clone()),
            out,
            tally: Tally::current(),
            most,
            watched: AtomicUsize::new(0),
            again: watch::channel(0).0,
            hint: Notify::new(),
            queue: Mutex::default(),
            woken: Notify::new(),
            rising: Notify::new(),
            told: watch::channel(0).0,
            confirmed: tokio::sync::Mutex::default(),
            gone: Mutex::default(),
            began: Instant::now(),
        }
    }

    pub(super) fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// So many services have a question of their own, so many have none.
    pub(super) fn follows(&self, watched: usize, in_turn: usize) {
        self.watched.store(watched, Ordering::Relaxed);
        self.tally.follows(watched, in_turn);
    }

    /// How many services have a question of their own.
    pub(super) fn watched(&self) -> usize {
        self.watched.load(Ordering::Relaxed)
    }

    /// How long a question may wait: the more there are, the longer.
    pub(super) fn patience(&self) -> Duration {
        patience(self.watched())
    }

    /// Everything may be different: what has no question of its own is read, too.
    pub(super) fn everything(&self) {
        self.queue().everything();
        self.woken.notify_one();
    }

    /// Keys as readers use them.
    pub(super) fn normal<'k, K: Iterator<Item = &'k ServiceKey>>(
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

    /// Everybody reads again, from the leader, on new connections: a server may go on with the questions that
    /// are given up now.
    pub(super) fn all_again(&self) {
        self.client.redial();
        self.again.send_modify(|round| *round += 1);
        self.everything();
    }

    /// One question and its index. What a server says of itself is checked here.
    pub(super) async fn ask(&self, path: String, ask: Ask) -> Result<(Answer, u64), SourceError> {
        let (answer, index) = self.hint(path, ask).await?;
        let filtered = format!("{}results-filtered-by-acls", self.dialect.fields());
        if answer.field(&filtered) == Some("true") {
            return Err(SourceError::Auth(format!(
                "{} (what the token may not see was left out)",
                answer.subject
            )));
        }
        Ok((answer, index))
    }

    /// As [`Engine::ask`], where it does not matter that something was left out.
    pub(super) async fn hint(&self, path: String, ask: Ask) -> Result<(Answer, u64), SourceError> {
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

    pub(super) fn parsed<T>(
        &self,
        answer: &Answer,
        result: Result<T, String>,
    ) -> Result<T, SourceError> {
        result.map_err(|what| {
            self.out.unreadable();
            SourceError::Protocol {
                subject: answer.subject.clone(),
                what,
            }
        })
    }

    pub(super) fn names_of(&self, answer: &Answer, index: u64) -> Result<Names, SourceError> {
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
    pub(super) async fn publish(
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

    pub(super) fn now_ms(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

/// Over how long the questions of so many services begin, so that they do not come at once.
pub(super) fn spread(services: usize) -> Duration {
    let services = u32::try_from(services).unwrap_or(u32::MAX);
    let quick = Duration::from_millis(5).saturating_mul(services);
    let slow = Duration::from_micros(500).saturating_mul(services);
    quick.min(slow.max(Duration::from_millis(1_500)))
}

/// How long to wait after the error.
pub(super) fn pause(error: &SourceError, wait: Duration) -> Duration {
    match error {
        SourceError::Throttled { retry_after } => wait.max(*retry_after),
        _ => wait,
    }
}

/// The service in messages and on the board.
pub(super) fn label(key: &ServiceKey) -> String {
    format!(
        "{}/{}",
        key.namespace.as_ref().map_or("default", Namespace::as_str),
        key.name
    )
}
