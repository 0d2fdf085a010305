//! Follows the applications: everything at first and every minute, single ones when an event hints at them.
//!
//! The stream of events is opened before the list is read, so that nothing falls between. It has no replay
//! and can die without a word: a watch over its silence, a question for the leader every ten seconds, and the
//! list every minute find what it loses.

use std::{
    collections::{BTreeMap, BTreeSet},
    convert::Infallible,
    sync::Arc,
    time::Duration,
};

use futures_util::{StreamExt, stream};
use http::StatusCode;
use mesh_model::{endpoint::ServiceKey, name::ServiceName};
use tokio::{task::JoinSet, time::Instant};

use super::{
    events::is_id,
    hints::{Dirty, Hints, MANY},
    read::{App, Part, Reader, Taste},
};
use crate::{
    backoff::{AWAY, Backoff},
    http::{Answer, Client, Request},
    longpoll::board::Board,
    sink::{ServiceSet, Sink},
    source::SourceError,
    version::Version,
};

/// Events of one application within this are one.
pub(super) const COALESCE: Duration = Duration::from_millis(250);
/// Everything is read again this often.
const LIST: Duration = Duration::from_mins(1);
/// An application that was hinted at and is as it was is read once more after this: events come before what
/// they tell of can be read.
const SECOND_LOOK: Duration = Duration::from_secs(1);
/// Tasks that become ready without an event are looked at this often.
const WAITING: Duration = Duration::from_secs(2);
/// So many applications are read side by side.
const AT_ONCE: usize = 8;
/// For the head of a list.
const LIST_DEADLINE: Duration = Duration::from_secs(15);

const APPS: &str = "the applications";

/// Reads for ever.
pub(super) async fn run(
    client: Client,
    out: Sink,
    taste: Taste,
    only: Option<Arc<BTreeSet<ServiceName>>>,
    guarded: bool,
) -> Result<Infallible, SourceError> {
    let shared = Arc::new(Hints::new(client, Board::new(out.clone())));
    shared.board.expect(APPS);
    let mut tasks = JoinSet::new();
    tasks.spawn(Arc::clone(&shared).events());
    tasks.spawn(Arc::clone(&shared).leader());
    let follower = Follower {
        shared,
        out,
        taste,
        only,
        guarded,
        apps: BTreeMap::new(),
        listed: false,
        told: BTreeSet::new(),
        looks: BTreeMap::new(),
    };
    tokio::select! {
        never = follower.run() => never,
        ended = tasks.join_next() => Err(SourceError::Protocol {
            subject: "a reader".into(),
            what: format!("it has ended: {ended:?}").chars().take(160).collect(),
        }),
    }
}

/// What is known.
struct Follower {
    shared: Arc<Hints>,
    out: Sink,
    taste: Taste,
    only: Option<Arc<BTreeSet<ServiceName>>>,
    /// There are credentials, so that a list may be short for want of rights.
    guarded: bool,
    apps: BTreeMap<Arc<str>, App>,
    /// A whole list was believed.
    listed: bool,
    /// Odd applications that were told of.
    told: BTreeSet<Arc<str>>,
    /// When applications are looked at again without an event.
    looks: BTreeMap<Arc<str>, Instant>,
}

impl Follower {
    async fn run(mut self) -> Result<Infallible, SourceError> {
        let mut waits = Backoff::new(Duration::from_millis(250), AWAY);
        let mut next_list = Instant::now();
        let mut due: Option<Instant> = None;
        loop {
            let look = self.looks.values().min().copied();
            let next = [Some(next_list), due, look].into_iter().flatten().min();
            tokio::select! {
                () = tokio::time::sleep_until(next.unwrap_or(next_list)) => {}
                () = self.shared.marked.notified() => {
                    due.get_or_insert_with(|| Instant::now() + COALESCE);
                    continue;
                }
                () = self.out.recheck() => next_list = Instant::now(),
            }
            let now = Instant::now();
            let mut dirty = Dirty::default();
            if due.is_some_and(|due| due <= now) {
                due = None;
                dirty = self.shared.take();
            }
            let again = self.due_looks(now);
            dirty.all |= dirty.apps.len() + again.len() > MANY || next_list <= now;
            let result = if dirty.all {
                Box::pin(self.list()).await
            } else {
                Box::pin(self.some(dirty.apps, again)).await
            };
            match result {
                Ok(true) => {
                    waits.reset();
                    self.shared.board.good(APPS);
                    next_list = Instant::now() + LIST.mul_f64(0.9 + fastrand::f64() / 5.0);
                }
                Ok(false) => {}
                Err(error) => {
                    self.shared.board.bad(APPS, &error);
                    let wait = waits.next(fastrand::f64());
                    let wait = match error {
                        SourceError::Throttled { retry_after } => wait.max(retry_after),
                        _ => wait,
                    };
                    // What was to be read is in the list.
                    next_list = Instant::now() + wait;
                    tokio::time::sleep(wait).await;
                }
            }
        }
    }

    /// The applications whose time it is to be looked at.
    fn due_looks(&mut self, now: Instant) -> BTreeSet<Arc<str>> {
        let due = self.looks.iter().filter(|(_, at)| **at <= now);
        let due: BTreeSet<Arc<str>> = due.map(|(id, _)| Arc::clone(id)).collect();
        self.looks.retain(|id, _| !due.contains(id));
        due
    }

    fn read(&self, answer: Answer) -> Result<Vec<App>, SourceError> {
        let answer = answer.good()?;
        answer
            .json(Reader(&self.taste))
            .inspect_err(|_| self.out.unreadable())
    }

    /// Reads everything. True: it was believed.
    async fn list(&mut self) -> Result<bool, SourceError> {
        let request =
            Request::get("/v2/apps?embed=apps.tasks&embed=apps.deployments&embed=apps.readiness");
        let request = request.packed().within(LIST_DEADLINE);
        let answer = self.shared.client.send(&request).await?;
        let subject = answer.subject.clone();
        let all = self.read(answer)?;
        let fresh: BTreeMap<Arc<str>, App> = all
            .into_iter()
            .map(|app| (Arc::clone(&app.id), self.sound(app)))
            .collect();
        if fresh.is_empty() && !self.listed && self.guarded {
            return Err(SourceError::Auth(format!(
                "{subject} (it lists nothing: the token may see nothing)"
            )));
        }
        self.confirm(&subject, &fresh).await?;
        self.apps = fresh;
        self.listed = true;
        self.looks.clear();
        self.look_at_waiting();
        self.publish_all();
        Ok(true)
    }

    /// Applications that the list lacks must be gone when asked for: a list is short for want of rights too.
    async fn confirm(
        &self,
        subject: &str,
        fresh: &BTreeMap<Arc<str>, App>,
    ) -> Result<(), SourceError> {
        let gone = self.apps.keys().filter(|id| !fresh.contains_key(*id));
        let ask: Vec<Arc<str>> = gone.take(AT_ONCE * 2).cloned().collect();
        let mut answers = stream::iter(ask)
            .map(|id| async move {
                let request = Request::get(format!("/v2/apps{id}"));
                (self.shared.client.send(&request).await, id)
            })
            .buffer_unordered(AT_ONCE);
        while let Some((answer, id)) = answers.next().await {
            let status = answer?.status;
            if status == StatusCode::NOT_FOUND {
                continue;
            }
            let what = format!("it does not list {id}, which answers {}", status.as_u16());
            return Err(match status {
                StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                    SourceError::Auth(format!("{subject} ({what})"))
                }
                _ => SourceError::Protocol {
                    subject: subject.to_owned(),
                    what,
                },
            });
        }
        Ok(())
    }

    /// Reads the applications that were hinted at, and those that are looked at again. True: all was read
    /// as a list.
    async fn some(
        &mut self,
        hinted: BTreeSet<Arc<str>>,
        again: BTreeSet<Arc<str>>,
    ) -> Result<bool, SourceError> {
        let prefix = &self.taste.prefix;
        let ids: Vec<Arc<str>> = hinted
            .union(&again)
            .filter(|id| is_id(id) && id.starts_with(&**prefix))
            .cloned()
            .collect();
        let client = &self.shared.client;
        let answers: Vec<_> = stream::iter(ids)
            .map(|id| async move {
                let path = format!(
                    "/v2/apps{id}?embed=app.tasks&embed=app.deployments&embed=app.readiness"
                );
                client.send(&Request::get(path).packed()).await
            })
            .buffer_unordered(AT_ONCE)
            .collect()
            .await;
        let mut changed = BTreeSet::new();
        let mut lists = false;
        for answer in answers {
            let answer = answer?;
            if answer.status == StatusCode::NOT_FOUND {
                // The list says what is gone.
                lists = true;
                continue;
            }
            for app in self.read(answer)? {
                self.take(app, &hinted, &mut changed);
            }
        }
        self.look_at_waiting();
        self.publish(&changed);
        if lists {
            return self.list().await;
        }
        Ok(false)
    }

    /// Takes one application; the services that it touches go to `changed`.
    fn take(&mut self, app: App, hinted: &BTreeSet<Arc<str>>, changed: &mut BTreeSet<ServiceKey>) {
        let old = self.apps.get(&app.id);
        if old == Some(&app) {
            if hinted.contains(&app.id) {
                self.look(&app.id, SECOND_LOOK);
            }
            return;
        }
        for part in old.iter().map(|old| &old.part).chain([&app.part]) {
            if let Part::Of { key, .. } = part {
                changed.insert(key.clone());
            }
        }
        self.apps.insert(Arc::clone(&app.id), self.sound(app));
    }

    /// The application; what was known of one that cannot be understood.
    fn sound(&self, app: App) -> App {
        match (&app.part, self.apps.get(&app.id)) {
            (Part::Odd(_), Some(old)) if matches!(old.part, Part::Of { .. }) => old.clone(),
            _ => app,
        }
    }

    fn look(&mut self, id: &Arc<str>, after: Duration) {
        let at = Instant::now() + after;
        self.looks
            .entry(Arc::clone(id))
            .and_modify(|known| *known = at.min(*known))
            .or_insert(at);
    }

    fn look_at_waiting(&mut self) {
        let waiting = self.apps.values().filter(|app| app.waits);
        let waiting: Vec<Arc<str>> = waiting.map(|app| Arc::clone(&app.id)).collect();
        // As a list of all where there are many, and so less often.
        let after = if waiting.len() > MANY {
            WAITING.saturating_mul(5)
        } else {
            WAITING
        };
        for id in waiting {
            self.look(&id, after);
        }
    }

    /// The services of these keys, or all. Applications that state the same name are one service; a name
    /// that is derived belongs to the first.
    fn services(
        &mut self,
        keys: Option<&BTreeSet<ServiceKey>>,
    ) -> BTreeMap<ServiceKey, ServiceSet> {
        let mut found: BTreeMap<ServiceKey, ServiceSet> = BTreeMap::new();
        let only = self.only.as_deref();
        let wanted = |key: &ServiceKey| {
            keys.is_none_or(|keys| keys.contains(key))
                && only.is_none_or(|only| only.contains(&key.name))
        };
        for round in [true, false] {
            for app in self.apps.values() {
                let Part::Of { key, stated, set } = &app.part else {
                    continue;
                };
                if *stated != round || !wanted(key) {
                    continue;
                }
                match found.get_mut(key) {
                    None => {
                        found.insert(key.clone(), set.clone());
                    }
                    Some(whole) if *stated => whole.endpoints.extend(set.endpoints.iter().cloned()),
                    Some(_) => {
                        let why = format!("{} has the name of another application", app.id);
                        tell(&self.out, &mut self.told, &app.id, &why);
                    }
                }
            }
        }
        found
    }

    fn publish_all(&mut self) {
        let mut sync = self.out.begin_sync();
        for (key, set) in self.services(None) {
            sync.replace(key, set, Version::Hash(0));
        }
        sync.commit();
        let odd = self.apps.values().filter_map(|app| match &app.part {
            Part::Odd(why) => Some((&app.id, why)),
            _ => None,
        });
        for (id, why) in odd {
            tell(&self.out, &mut self.told, id, why);
        }
    }

    fn publish(&mut self, changed: &BTreeSet<ServiceKey>) {
        if changed.is_empty() {
            return;
        }
        let mut services = self.services(Some(changed));
        for key in changed {
            match services.remove(key) {
                Some(set) => self.out.replace(key.clone(), set, Version::Hash(0)),
                None => self.out.absent(key, Version::Hash(0)),
            }
        }
    }
}

/// Says once that an application is left out.
fn tell(out: &Sink, told: &mut BTreeSet<Arc<str>>, id: &Arc<str>, why: &str) {
    if told.len() < 10_000 && told.insert(Arc::clone(id)) {
        tracing::warn!(application = %id.escape_debug(), why = %why.escape_debug(), "it is left out");
        out.unreadable();
    }
}
