//! One connection's work: a whole read where it is needed, then the watch that goes on from it.
//!
//! In: a link, the table, where the last session ended. Out: whole sets of the services that changed, and
//! the error that ended the session. Never: sweeps on a read that is not whole; goes on behind a revision
//! that is compacted or in the history of another cluster; holds two watches.

use std::{collections::BTreeSet, convert::Infallible, io, time::Duration};

use etcd_client::{
    GetOptions, GetResponse, KeyValue, KvClient, WatchClient, WatchOptions, WatchResponse,
    WatchStream,
};
use futures_util::FutureExt;
use mesh_model::endpoint::ServiceKey;
use tokio::time::{Instant, sleep_until, timeout};

use super::{
    failure::{failed, is_compacted, is_refusal, is_too_large},
    life::probe,
    link::{ANSWER, Link, MAX_MESSAGE},
    table::{Content, Entry, MAX_KEYS, Reading, Table},
};
use crate::{
    breath,
    sink::Sink,
    source::{SourceError, SourceError::Protocol},
    status::SourceStatus,
    version::Version,
};

/// Keys of one page, unless they are large.
const PAGE: i64 = 1_000;
/// Keys of one page of the largest values.
const SMALL_PAGE: i64 = 8;
/// For one page.
const PAGE_ANSWER: Duration = Duration::from_secs(15);
/// Between two whole reads that only look for what the watch missed.
const AUDIT: Duration = Duration::from_mins(10);
/// Services of a whole read that are looked at before others on this thread have their turn.
const SERVICES: usize = 64;
/// Messages that are taken before their services are published.
const AT_ONCE: usize = 256;

/// Where in which history the table stands.
#[derive(Debug, Clone)]
pub(crate) struct Position {
    /// The cluster's id, as it says itself.
    cluster: u64,
    /// Another number for every history: a cluster that is made anew has the same id.
    history: u64,
    /// Everything up to this revision is in the table.
    revision: i64,
    /// Keys below the prefix.
    count: i64,
    /// The key that was written last, and when.
    newest: Option<(Vec<u8>, i64)>,
}

impl Position {
    /// Before the first key; in a history of its own.
    fn new(cluster: u64, revision: i64) -> Self {
        Self {
            cluster,
            history: fastrand::u64(..),
            revision,
            count: 0,
            newest: None,
        }
    }

    /// Counts a key of a whole read.
    fn read(&mut self, kv: &KeyValue) {
        self.count += 1;
        let revision = kv.mod_revision();
        if self.newest.as_ref().is_none_or(|(_, at)| *at <= revision) {
            self.newest = Some((kv.key().to_vec(), revision));
        }
    }

    fn version(&self) -> Version {
        Version::Revision {
            cluster: self.history,
            revision: u64::try_from(self.revision).unwrap_or_default(),
        }
    }
}

/// What a session works on. It outlives its link.
#[derive(Debug)]
pub(crate) struct Progress {
    pub(crate) table: Table,
    pub(crate) position: Option<Position>,
    pub(crate) told: Option<SourceStatus>,
}

/// Why a watch ended that could be begun again.
enum Ended {
    /// What comes next is not there any more: a whole read is needed.
    Behind,
    Failed(SourceError),
}

impl From<SourceError> for Ended {
    fn from(error: SourceError) -> Self {
        Self::Failed(error)
    }
}

/// A session.
pub(crate) struct Session<'s> {
    subject: &'s str,
    kv: KvClient,
    watches: WatchClient,
    progress: &'s mut Progress,
    out: &'s Sink,
}

impl<'s> Session<'s> {
    pub(crate) fn new(link: &'s Link, progress: &'s mut Progress, out: &'s Sink) -> Self {
        Self {
            subject: &link.subject,
            kv: link
                .client
                .kv_client()
                .max_decoding_message_size(MAX_MESSAGE),
            watches: link
                .client
                .watch_client()
                .max_decoding_message_size(MAX_MESSAGE),
            progress,
            out,
        }
    }

    /// Follows etcd until something ends it.
    pub(crate) async fn run(mut self) -> Result<Infallible, SourceError> {
        if !self.goes_on().await? {
            self.sync().await?;
        }
        let mut watch = self.watch().await?;
        self.tell();
        let prefix = self.progress.table.layout().prefix().to_owned();
        let mut life = std::pin::pin!(probe(
            self.kv.clone(),
            self.subject,
            prefix,
            self.position()?.cluster
        ));
        let mut audit = Instant::now() + AUDIT.mul_f64(0.9 + 0.2 * fastrand::f64());
        let out = self.out.clone();
        loop {
            let ended = tokio::select! {
                message = watch.message() => self.take(message, &mut watch).err(),
                error = &mut life => return Err(error),
                () = out.recheck() => Some(Ended::Behind),
                () = sleep_until(audit) => Some(Ended::Behind),
            };
            match ended {
                None => {}
                Some(Ended::Failed(error)) => return Err(error),
                Some(Ended::Behind) => {
                    drop(watch);
                    self.sync().await?;
                    watch = self.watch().await?;
                    audit = Instant::now() + AUDIT;
                }
            }
            self.tell();
        }
    }

    /// True when the watch can go on where the last session ended: the same history still has what the table
    /// says of that revision. The cluster's id alone does not tell: one that is made anew has the same.
    async fn goes_on(&mut self) -> Result<bool, SourceError> {
        let Some(at) = self.progress.position.clone() else {
            return Ok(false);
        };
        let Some((key, changed)) = at.newest.clone() else {
            return Ok(false);
        };
        let counted = GetOptions::new()
            .with_prefix()
            .with_count_only()
            .with_revision(at.revision);
        let prefix = self.progress.table.layout().prefix().to_owned();
        let (Some(all), Some(one)) = (
            self.ask(prefix.as_bytes(), counted).await?,
            self.ask(
                &key,
                GetOptions::new()
                    .with_keys_only()
                    .with_revision(at.revision),
            )
            .await?,
        ) else {
            return Ok(false);
        };
        let same = |answer: &GetResponse| {
            answer
                .header()
                .is_some_and(|header| header.cluster_id() == at.cluster)
        };
        let known = one
            .kvs()
            .first()
            .is_some_and(|kv| kv.mod_revision() == changed);
        Ok(same(&all) && same(&one) && all.count() == at.count && known)
    }

    /// An answer; `None` when the revision is not there.
    async fn ask(
        &mut self,
        key: &[u8],
        options: GetOptions,
    ) -> Result<Option<GetResponse>, SourceError> {
        match timeout(ANSWER, self.kv.get(key, Some(options))).await {
            Err(_late) => Err(self.late()),
            Ok(Ok(answer)) => Ok(Some(answer)),
            Ok(Err(error)) if is_compacted(&error) => Ok(None),
            Ok(Err(error)) => Err(failed(self.subject, error)),
        }
    }

    /// Reads everything at one revision and sweeps what is not there.
    async fn sync(&mut self) -> Result<(), SourceError> {
        let (reading, mut position) = self.pages().await?;
        let before = self.progress.position.take();
        let same = before
            .as_ref()
            .filter(|at| at.cluster == position.cluster && at.revision <= position.revision);
        let in_step = same.is_some_and(|at| at.revision == position.revision);
        if let Some(at) = same {
            position.history = at.history;
        }
        let table = &mut self.progress.table;
        let swept = table.replace(reading);
        for _ in 0..swept.unreadable {
            self.out.unreadable();
        }
        if in_step && swept.differs {
            self.out.drifted();
        }
        let mut sync = self.out.begin_sync();
        for (number, service) in (1_usize..).zip(table.services()) {
            breath::take();
            if number.is_multiple_of(SERVICES) {
                // Peers are answered on this thread, too.
                tokio::task::yield_now().await;
            }
            match table.content(service) {
                Content::Set(set) => sync.replace(service.clone(), set, position.version()),
                Content::Unreadable | Content::Gone => sync.keep(service.clone()),
            }
        }
        sync.commit();
        self.progress.position = Some(position);
        self.tell();
        Ok(())
    }

    /// Every key, as it was at the revision of the first page; in a history of its own. No page is kept.
    async fn pages(&mut self) -> Result<(Reading, Position), SourceError> {
        let mut from = self.progress.table.layout().prefix().as_bytes().to_vec();
        let (mut reading, mut limit) = (Reading::default(), PAGE);
        let mut pinned: Option<Position> = None;
        loop {
            let at = pinned.as_ref().map(|at| at.revision);
            let mut answer = self.page(&from, at, &mut limit).await?;
            let header = answer
                .header()
                .ok_or_else(|| self.wrong("an answer has no header"))?;
            let (cluster, revision) = (header.cluster_id(), header.revision());
            let mut position = pinned.unwrap_or_else(|| Position::new(cluster, revision));
            if cluster != position.cluster || revision < position.revision {
                return Err(self.wrong("the pages are of two clusters"));
            }
            let (more, kvs) = (answer.more(), answer.take_kvs());
            let next = kvs.last().map(|kv| [kv.key(), &[0]].concat());
            for kv in kvs {
                position.read(&kv);
                let revision = kv.mod_revision();
                let (key, value) = kv.into_key_value();
                let entry = Entry {
                    key,
                    value,
                    revision,
                };
                self.progress.table.read(entry, &mut reading);
            }
            if !more {
                return Ok((reading, position));
            }
            if position.count > MAX_KEYS {
                return Err(self.wrong(&format!("there are more than {MAX_KEYS} keys")));
            }
            from = next.ok_or_else(|| self.wrong("a page is empty, and not the last one"))?;
            pinned = Some(position);
        }
    }

    /// The keys from `from` on, as many as an answer can hold.
    async fn page(
        &mut self,
        from: &[u8],
        revision: Option<i64>,
        limit: &mut i64,
    ) -> Result<GetResponse, SourceError> {
        loop {
            let prefix = self.progress.table.layout().prefix().as_bytes();
            let mut options = rest_of(prefix).with_limit(*limit);
            if let Some(revision) = revision {
                options = options.with_revision(revision);
            }
            match timeout(PAGE_ANSWER, self.kv.get(from, Some(options))).await {
                Err(_late) => return Err(self.late()),
                Ok(Err(error)) if is_too_large(&error) && *limit > SMALL_PAGE => {
                    *limit = (*limit / 5).max(SMALL_PAGE);
                }
                Ok(answer) => return answer.map_err(|error| failed(self.subject, error)),
            }
        }
    }

    /// A watch of everything after the position. It is there when this returns.
    async fn watch(&mut self) -> Result<WatchStream, SourceError> {
        loop {
            let prefix = self.progress.table.layout().prefix().to_owned();
            let next = self.position()?.revision + 1;
            let options = WatchOptions::new()
                .with_start_revision(next)
                .with_prefix()
                .with_progress_notify();
            let made = timeout(ANSWER, self.watches.watch(prefix, Some(options))).await;
            let made = made.map_err(|_late| self.late())?;
            let mut stream = made.map_err(|error| failed(self.subject, error))?;
            let first = timeout(ANSWER, stream.message())
                .await
                .map_err(|_late| self.late())?;
            match self.take(first, &mut stream) {
                Ok(()) => return Ok(stream),
                Err(Ended::Failed(error)) => return Err(error),
                Err(Ended::Behind) => self.sync().await?,
            }
        }
    }

    /// Takes a message and those that are there already, and publishes the services that changed.
    fn take(
        &mut self,
        first: Result<Option<WatchResponse>, etcd_client::Error>,
        watch: &mut WatchStream,
    ) -> Result<(), Ended> {
        let mut changed = BTreeSet::new();
        let mut next = Some(first);
        let mut result = Ok(());
        for _ in 0..AT_ONCE {
            let Some(message) = next.take() else { break };
            result = self.learn(message, &mut changed);
            if result.is_err() {
                break;
            }
            next = watch.message().now_or_never();
        }
        self.publish(&changed)?;
        // The one that was looked at last is not lost.
        match (result, next) {
            (Ok(()), Some(message)) => {
                let mut rest = BTreeSet::new();
                let result = self.learn(message, &mut rest);
                self.publish(&rest)?;
                result
            }
            (result, _) => result,
        }
    }

    fn publish(&mut self, changed: &BTreeSet<ServiceKey>) -> Result<(), SourceError> {
        let version = self.position()?.version();
        for service in changed {
            match self.progress.table.content(service) {
                Content::Set(set) => self.out.replace(service.clone(), set, version),
                Content::Gone => self.out.absent(service, version),
                Content::Unreadable => {}
            }
        }
        self.progress.table.rest();
        Ok(())
    }

    /// What one message says.
    fn learn(
        &mut self,
        message: Result<Option<WatchResponse>, etcd_client::Error>,
        changed: &mut BTreeSet<ServiceKey>,
    ) -> Result<(), Ended> {
        let message = match message {
            Ok(Some(message)) => message,
            Ok(None) => return Err(self.broken("the watch ended").into()),
            Err(error) if is_compacted(&error) || is_too_large(&error) => {
                return Err(Ended::Behind);
            }
            Err(error) => return Err(failed(self.subject, error).into()),
        };
        if message.canceled() {
            // The stream would stay open and silent.
            return Err(self.cancelled(&message));
        }
        let Some(at) = self.progress.position.as_mut() else {
            return Err(Ended::Behind);
        };
        let mut known = at.revision;
        for event in message.events() {
            let Some(kv) = event.kv() else { continue };
            let revision = kv.mod_revision();
            if revision <= at.revision {
                continue;
            }
            known = known.max(revision);
            // Only the key of a deletion has no version. The client's own reading of the kind of an event
            // panics at kinds that it does not know.
            let effect = if kv.version() == 0 {
                at.count -= 1;
                self.progress.table.delete(kv.key(), revision)
            } else {
                at.count += i64::from(kv.version() == 1);
                at.newest = Some((kv.key().to_vec(), revision));
                self.progress.table.put(&Entry {
                    key: kv.key().to_vec(),
                    value: kv.value().to_vec(),
                    revision,
                })
            };
            changed.extend(effect.changed);
            if effect.unreadable {
                self.out.unreadable();
            }
        }
        if let Some(header) = message.header() {
            if header.cluster_id() != at.cluster {
                return Err(Ended::Behind);
            }
            // A message without events says how far everything has been told.
            if message.events().is_empty() && !message.created() {
                known = known.max(header.revision());
            }
        }
        at.revision = known;
        Ok(())
    }

    fn cancelled(&self, message: &WatchResponse) -> Ended {
        let reason = message.cancel_reason();
        if message.compact_revision() > 0 || reason.contains("compacted") {
            return Ended::Behind;
        }
        if is_refusal(tonic::Code::Unknown, reason) {
            return SourceError::Auth(format!("{} ({reason})", self.subject)).into();
        }
        self.broken(&format!("the watch was cancelled: {reason}"))
            .into()
    }

    /// Says how it goes, when that is news.
    fn tell(&mut self) {
        let now = match self.progress.table.aged() {
            None => SourceStatus::Synced,
            Some(error) => SourceStatus::Degraded { error },
        };
        if self.progress.told.as_ref() != Some(&now) {
            self.out.status(now.clone());
            self.progress.told = Some(now);
        }
    }

    fn position(&self) -> Result<&Position, SourceError> {
        let none = || self.wrong("nothing was read yet");
        self.progress.position.as_ref().ok_or_else(none)
    }

    fn wrong(&self, what: &str) -> SourceError {
        Protocol {
            subject: self.subject.to_owned(),
            what: what.to_owned(),
        }
    }

    fn broken(&self, what: &str) -> SourceError {
        SourceError::Transport {
            subject: self.subject.to_owned(),
            cause: io::Error::other(what.to_owned()),
        }
    }

    fn late(&self) -> SourceError {
        SourceError::Transport {
            subject: self.subject.to_owned(),
            cause: io::ErrorKind::TimedOut.into(),
        }
    }
}

/// From a key on to the last one that begins with `prefix`.
fn rest_of(prefix: &[u8]) -> GetOptions {
    match end_of(prefix) {
        Some(end) => GetOptions::new().with_range(end),
        None => GetOptions::new().with_from_key(),
    }
}

/// The first key behind all that begin with `prefix`; `None` when there is none.
fn end_of(prefix: &[u8]) -> Option<Vec<u8>> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < 0xff {
            end.push(last + 1);
            return Some(end);
        }
    }
    None
}
