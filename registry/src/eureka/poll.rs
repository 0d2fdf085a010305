//! One full read, then deltas; a full read again whenever a delta cannot be trusted.

use std::{
    collections::{BTreeMap, BTreeSet},
    convert::Infallible,
    sync::Arc,
    time::Duration,
};

use http::StatusCode;
use mesh_model::{endpoint::ServiceKey, name::ServiceName};
use tokio::time::Instant;

use super::{
    read::{Answered, Reader},
    state::{Applications, Content},
};
use crate::{
    backoff::{AWAY, Backoff},
    http::{Answer, Client, Request},
    sink::Sink,
    source::SourceError,
    status::SourceStatus,
    version::Version,
};

/// Servers keep deltas for three minutes: after a longer pause some may be missing.
const DELTAS_LAST: Duration = Duration::from_secs(150);
/// A full read all the same, this often.
const AUDIT: Duration = Duration::from_mins(10);
/// A server that gives no deltas is asked for some again after this.
const NO_DELTAS: Duration = Duration::from_mins(10);
/// A server that is not the first one is used this long, then the first one is tried.
const GOOD_SERVER: Duration = Duration::from_mins(5);
/// Clients of Eureka register again within their lease, 90 s unless they say otherwise.
const LEASE: Duration = Duration::from_secs(90);
/// The longest pause after the first answer that follows errors: what was registered at the return is read soon.
const AFTER_RETURN: Duration = Duration::from_secs(2);
/// The least pause between two full reads that a doubt asks for.
const RECHECK: Duration = Duration::from_secs(1);

/// Follows one registry.
pub(super) struct Poller {
    client: Client,
    out: Sink,
    poll: Duration,
    secure: bool,
    with_password: bool,
    only: Option<Arc<BTreeSet<ServiceName>>>,
    /// What is known; `None` before the first full read that was believed.
    known: Option<Applications>,
    /// The server of the last answer.
    server: String,
    /// When another server than the first one began to be used.
    away_since: Option<Instant>,
    read_at: Option<Instant>,
    full_at: Option<Instant>,
    no_deltas_until: Option<Instant>,
    /// The last hash did not come out.
    mismatch: bool,
    /// Since when the registry lacks most of what was known.
    forgetful_since: Option<Instant>,
    unnamed: BTreeSet<Arc<str>>,
}

impl Poller {
    pub(super) fn new(
        client: Client,
        out: Sink,
        poll: Duration,
        secure: bool,
        only: Option<Arc<BTreeSet<ServiceName>>>,
    ) -> Self {
        Self {
            client,
            out,
            poll,
            secure,
            only,
            with_password: false,
            known: None,
            server: String::new(),
            away_since: None,
            read_at: None,
            full_at: None,
            no_deltas_until: None,
            mismatch: false,
            forgetful_since: None,
            unnamed: BTreeSet::new(),
        }
    }

    /// Whether a refusal can be meant for the credentials.
    pub(super) fn with_password(mut self, with_password: bool) -> Self {
        self.with_password = with_password;
        self
    }

    pub(super) async fn run(mut self) -> Result<Infallible, SourceError> {
        let longest = self.poll.min(AWAY);
        let mut waits = Backoff::new(Duration::from_millis(250).min(longest), longest);
        let (mut again, mut failed) = (false, false);
        loop {
            let asked = self.client.first();
            let pause = match self.round(again).await {
                Ok(()) => {
                    waits.reset();
                    self.out.status(self.status());
                    let pause = self.poll.mul_f64(0.9 + fastrand::f64() / 5.0);
                    if std::mem::take(&mut failed) {
                        pause.min(AFTER_RETURN)
                    } else {
                        pause
                    }
                }
                Err(error) => {
                    // The client leaves servers that fail as a whole by itself.
                    if self.client.first() == asked {
                        self.client.move_on();
                    }
                    self.out.status(SourceStatus::from(&error));
                    failed = true;
                    let wait = waits.next(fastrand::f64());
                    match error {
                        SourceError::Throttled { retry_after } => wait.max(retry_after),
                        _ => wait,
                    }
                }
            };
            again = tokio::select! {
                () = tokio::time::sleep(pause) => false,
                () = self.recheck() => true,
            };
        }
    }

    /// Resolves when the view doubts a removal, but not before a full read would be worth it.
    async fn recheck(&self) {
        self.out.recheck().await;
        if let Some(at) = self.full_at {
            tokio::time::sleep_until(at + RECHECK).await;
        }
    }

    fn status(&self) -> SourceStatus {
        match self.forgetful_since {
            None => SourceStatus::Synced,
            Some(_) => SourceStatus::Degraded {
                error: format!(
                    "{} lacks most of what was registered, as one does that was started anew; nothing is removed for {} s",
                    self.server,
                    self.grace().as_secs()
                ),
            },
        }
    }

    /// How long a server that has forgotten most is given to be told again.
    fn grace(&self) -> Duration {
        LEASE.min(self.poll.saturating_mul(18))
    }

    async fn round(&mut self, again: bool) -> Result<(), SourceError> {
        self.back_to_the_first();
        if again || self.wants_all() {
            return self.full().await;
        }
        let answer = self
            .client
            .send(&Request::get("/apps/delta").packed())
            .await?;
        if matches!(answer.status, StatusCode::FORBIDDEN | StatusCode::NOT_FOUND) {
            self.no_deltas_until = Some(Instant::now() + NO_DELTAS);
            return self.full().await;
        }
        let answered = self.read(answer)?;
        if self.moved() {
            return self.full().await;
        }
        let mut known = self.known.take().unwrap_or_default();
        let mut names = known.names_of(&answered.told);
        let before = known.services(Some(&names));
        names.extend(known.take(answered.told));
        self.mismatch = answered.hash.as_deref() != Some(&known.hash());
        self.publish_changes(&before, known.services(Some(&names)));
        self.known = Some(known);
        self.read_at = Some(Instant::now());
        if self.mismatch {
            self.out.drifted();
            if self.wants_all() {
                return self.full().await;
            }
        }
        Ok(())
    }

    /// True when the next read must be a full one.
    fn wants_all(&self) -> bool {
        let older = |at: Option<Instant>, than: Duration| at.is_none_or(|at| at.elapsed() >= than);
        self.known.is_none()
            || self.forgetful_since.is_some()
            || older(self.read_at, DELTAS_LAST)
            || older(self.full_at, AUDIT)
            || (self.mismatch && older(self.full_at, self.poll.saturating_mul(3)))
            || self
                .no_deltas_until
                .is_some_and(|until| Instant::now() < until)
    }

    async fn full(&mut self) -> Result<(), SourceError> {
        let answer = self.client.send(&Request::get("/apps").packed()).await?;
        if answer.status == StatusCode::FORBIDDEN && !self.with_password {
            // So answers a server that has not heard from its peers yet.
            return Err(SourceError::Protocol {
                subject: answer.subject,
                what: "403: it does not serve its registry yet, or wants a password".into(),
            });
        }
        let answered = self.read(answer)?;
        self.moved();
        let hash = answered.hash;
        let mut fresh = Applications::default();
        fresh.take(answered.told);
        let now = Instant::now();
        (self.read_at, self.full_at) = (Some(now), Some(now));
        self.mismatch = hash.is_none_or(|hash| hash != fresh.hash());
        if self.is_forgetful(&fresh) {
            let since = *self.forgetful_since.get_or_insert(now);
            if since.elapsed() < self.grace() {
                let Some(known) = &self.known else {
                    return Ok(());
                };
                fresh.keep_from(known);
                self.publish_all(fresh);
                return Ok(());
            }
        }
        self.forgetful_since = None;
        self.publish_all(fresh);
        Ok(())
    }

    /// True when most of what was known is not there, or nothing at all; and then until all is there again.
    fn is_forgetful(&self, fresh: &Applications) -> bool {
        let Some(known) = &self.known else {
            return fresh.len() == 0;
        };
        let lost = known.lost_in(fresh);
        lost * 2 > known.len() || (self.forgetful_since.is_some() && lost > 0)
    }

    /// True when another server answered than before. Servers have deltas of their own.
    fn moved(&mut self) -> bool {
        let server = self.client.subject();
        let other = !self.server.is_empty() && self.server != server;
        self.server = server;
        if self.client.first() == 0 {
            self.away_since = None;
        } else {
            self.away_since.get_or_insert_with(Instant::now);
        }
        other
    }

    fn back_to_the_first(&mut self) {
        if self
            .away_since
            .is_some_and(|since| since.elapsed() >= GOOD_SERVER)
        {
            self.away_since = None;
            self.client.begin_with(0);
        }
    }

    fn read(&self, answer: Answer) -> Result<Answered, SourceError> {
        let answer = answer.good()?;
        let answered = answer.json(Reader::new(self.secure)).inspect_err(|_| {
            self.out.unreadable();
        })?;
        for _ in 0..answered.skipped {
            self.out.unreadable();
        }
        Ok(answered)
    }

    fn takes(&self, key: &ServiceKey) -> bool {
        self.only
            .as_ref()
            .is_none_or(|only| only.contains(&key.name))
    }

    fn publish_all(&mut self, fresh: Applications) {
        let mut sync = self.out.begin_sync();
        for (key, content) in fresh.services(None) {
            if !self.takes(&key) {
                continue;
            }
            match content {
                Content::Set(set) => sync.replace(key, set, Version::Hash(0)),
                Content::Unreadable => {
                    self.out.unreadable();
                    sync.keep(key);
                }
            }
        }
        sync.commit();
        let unnamed = fresh.unnamed();
        for app in unnamed.difference(&self.unnamed) {
            tracing::warn!(application = %app.escape_debug(), "no name that the mesh can have, or another one has it; it is left out");
            self.out.unreadable();
        }
        self.unnamed = unnamed;
        self.known = Some(fresh);
    }

    fn publish_changes(
        &self,
        before: &BTreeMap<ServiceKey, Content>,
        mut after: BTreeMap<ServiceKey, Content>,
    ) {
        for key in before.keys().filter(|key| self.takes(key)) {
            if !after.contains_key(key) {
                self.out.absent(key, Version::Hash(0));
            }
        }
        after.retain(|key, content| self.takes(key) && before.get(key) != Some(content));
        for (key, content) in after {
            match content {
                Content::Set(set) => self.out.replace(key, set, Version::Hash(0)),
                Content::Unreadable => self.out.unreadable(),
            }
        }
    }
}
