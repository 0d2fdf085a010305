//! One list that is kept: listed in pages, then watched; resumed after anything that goes wrong.
//!
//! In: the API server's answers. Out: [`Told`], in the order of truth. Never: takes half a list, resumes in a
//! history that is another one by now, or waits on a connection that nobody answers.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use http::{HeaderValue, header};
use mesh_model::name::Namespace;
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, sleep_until},
};

use super::{
    door::{Door, Refusal},
    object::{Key, Kind, Object, Stamp},
    parse::{self, Event},
};
use crate::{backoff::Backoff, http::Request, place::escaped, source::SourceError};

/// Objects of one page.
const PAGE: usize = 500;
/// Most pages of one list.
const MAX_PAGES: usize = 4_000;
/// For a page.
const LIST_DEADLINE: Duration = Duration::from_secs(30);
/// For the question whether the server lives.
const PROBE_DEADLINE: Duration = Duration::from_secs(4);
/// Bookmarks come each minute: a stream that is silent for longer is opened again.
const SILENCE: Duration = Duration::from_secs(75);
/// Lists are read again this often, in case an event was lost.
const AUDIT: Duration = Duration::from_mins(10);
/// Longest wait after a failure.
const LONGEST_WAIT: Duration = Duration::from_secs(3);
/// Lists and objects without their content.
const LIST: &str = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1";
const ONE: &str = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1";
/// A stream that ends sooner, and brought nothing, is a failure.
const TOO_SHORT: Duration = Duration::from_secs(1);

/// What is listed.
#[derive(Debug, Clone)]
pub(crate) struct Scope {
    pub(crate) kind: Kind,
    /// `None`: all.
    pub(crate) namespace: Option<Namespace>,
    /// Label selector; empty: all.
    pub(crate) selector: String,
}

impl Scope {
    fn path(&self, namespace: Option<&Namespace>) -> String {
        let (root, name) = match self.kind {
            Kind::Services => ("/api/v1", "services"),
            Kind::Slices => ("/apis/discovery.k8s.io/v1", "endpointslices"),
            Kind::Pods => ("/api/v1", "pods"),
        };
        match namespace {
            Some(namespace) => format!("{root}/namespaces/{namespace}/{name}"),
            None => format!("{root}/{name}"),
        }
    }
    /// A question of this scope. Of pods only the metadata is wanted, which is a tenth of them.
    fn asked(&self, path: String, form: &'static str, deadline: Duration) -> Request {
        let request = Request::get(path).within(deadline);
        match self.kind {
            Kind::Pods => request.with(header::ACCEPT, HeaderValue::from_static(form)),
            Kind::Services | Kind::Slices => request,
        }
    }
    fn selected(&self, query: &str) -> String {
        let path = self.path(self.namespace.as_ref());
        if self.selector.is_empty() {
            return format!("{path}?{query}");
        }
        format!("{path}?{query}&labelSelector={}", escaped(&self.selector))
    }
    /// A page. Without `resourceVersion`: with 0 the server ignores the limit, and may answer with the past.
    fn list(&self, next: Option<&str>) -> String {
        let next = next.map_or_else(String::new, |next| format!("&continue={}", escaped(next)));
        self.selected(&format!("limit={PAGE}{next}"))
    }
    fn watch(&self, after: &str, seconds: u64) -> String {
        self.selected(&format!(
            "watch=1&allowWatchBookmarks=true&resourceVersion={}&timeoutSeconds={seconds}",
            escaped(after)
        ))
    }
    /// The smallest list: of the one object that is known to be there.
    fn probe(&self, witness: Option<&Key>) -> String {
        let Some(key) = witness else {
            return self.selected("limit=1");
        };
        let path = self.path(Some(&key.namespace));
        format!(
            "{path}?limit=1&fieldSelector=metadata.name%3D{}",
            escaped(&key.name)
        )
    }
}

/// What a watcher says.
#[derive(Debug)]
pub(crate) enum Told {
    /// This is everything in its scope. `drift`: what no event had told of.
    Listed {
        objects: Vec<Object>,
        drift: usize,
        nameless: usize,
    },
    /// There it is, or it is another now.
    There(Object),
    /// It is gone.
    Gone(Key),
    /// The server answers.
    Well,
    /// It does not, or not so that it can be understood.
    Trouble(SourceError),
}

/// How the watchers of one source know of each other's trouble.
#[derive(Debug, Clone)]
pub(crate) struct Signals {
    /// Counts failures: whoever sees one more asks whether the server lives.
    pub(crate) alarm: watch::Sender<u64>,
    /// Counts wishes for a complete list.
    pub(crate) again: watch::Sender<u64>,
}

impl Default for Signals {
    fn default() -> Self {
        Self {
            alarm: watch::channel(0).0,
            again: watch::channel(0).0,
        }
    }
}

/// What comes next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    /// A complete list; an audit when all of it should be known.
    List { audit: bool },
    /// Is it the server that it was?
    Verify,
    /// The stream.
    Follow,
}

/// Keeps one list.
#[derive(Debug)]
pub(crate) struct Watcher {
    at: usize,
    scope: Scope,
    door: Arc<Door>,
    tell: mpsc::Sender<(usize, Told)>,
    signals: Signals,
    alarm: watch::Receiver<u64>,
    again: watch::Receiver<u64>,
    /// Between two questions whether the server lives.
    pulse: Duration,
    next: Next,
    version: String,
    known: BTreeMap<Key, Stamp>,
}

impl Watcher {
    /// The `at`th of `count` watchers.
    pub(crate) fn new(
        (at, count): (usize, usize),
        scope: Scope,
        door: Arc<Door>,
        tell: mpsc::Sender<(usize, Told)>,
        signals: &Signals,
    ) -> Self {
        // However many there are, together they ask four times in 16 seconds.
        let beats = u32::try_from(count).unwrap_or(u32::MAX).clamp(2, 15);
        Self {
            at,
            scope,
            door,
            tell,
            signals: signals.clone(),
            alarm: signals.alarm.subscribe(),
            again: signals.again.subscribe(),
            pulse: Duration::from_secs(4) * beats,
            next: Next::List { audit: false },
            version: String::new(),
            known: BTreeMap::new(),
        }
    }

    /// Runs until it is dropped.
    pub(crate) async fn run(mut self) {
        let mut waits = Backoff::new(Duration::from_millis(250), LONGEST_WAIT);
        loop {
            let began = Instant::now();
            let Err(error) = self.step().await else {
                continue;
            };
            if began.elapsed() > Duration::from_secs(30) {
                waits.reset();
            }
            let mut wait = waits.next(fastrand::f64());
            match &error {
                SourceError::Throttled { retry_after } => wait = wait.max(*retry_after),
                SourceError::Transport { .. } => {
                    self.signals.alarm.send_modify(|count| *count += 1);
                }
                _ => {}
            }
            self.alarm.mark_unchanged();
            self.say(Told::Trouble(error)).await;
            if self.next == Next::Follow {
                self.next = Next::Verify;
            }
            tokio::time::sleep(wait).await;
        }
    }

    async fn step(&mut self) -> Result<(), SourceError> {
        let done = match self.next {
            Next::List { audit } => self.list(audit).await,
            Next::Verify => self.verify().await,
            Next::Follow => self.follow().await,
        };
        match done {
            Ok(next) => self.next = next,
            Err(Refusal::Expired) => self.next = Next::List { audit: false },
            Err(Refusal::Failed(error)) => return Err(error),
        }
        Ok(())
    }

    /// Everything, page by page; nothing of it counts before the last one has come.
    async fn list(&mut self, audit: bool) -> Result<Next, Refusal> {
        let (mut objects, mut nameless, mut next, mut version) =
            (Vec::new(), 0, None, String::new());
        for at in 0_usize.. {
            let path = self.scope.list(next.as_deref());
            let request = self.scope.asked(path, LIST, LIST_DEADLINE);
            let answer = self.door.send(&request).await?;
            let wrong = |what: String| SourceError::Protocol {
                subject: answer.subject.clone(),
                what,
            };
            let page = parse::page(self.scope.kind, &answer.body).map_err(wrong)?;
            objects.extend(page.objects);
            nameless += page.nameless;
            version = page.version;
            next = page.next;
            if next.is_none() {
                break;
            }
            if at >= MAX_PAGES {
                return Err(wrong(format!("more than {MAX_PAGES} pages")).into());
            }
        }
        let drift = if audit { self.drift(&objects) } else { 0 };
        self.known = objects
            .iter()
            .map(|object| (object.key.clone(), object.stamp.clone()))
            .collect();
        self.version = version;
        self.say(Told::Listed {
            objects,
            drift,
            nameless,
        })
        .await;
        Ok(Next::Follow)
    }

    /// Objects whose state is older than what was followed, and that no event told of.
    fn drift(&self, objects: &[Object]) -> usize {
        let Some(followed) = number(&self.version) else {
            return 0;
        };
        let missed = |object: &&Object| {
            (1..=followed).contains(&object.stamp.version)
                && self.known.get(&object.key) != Some(&object.stamp)
        };
        objects.iter().filter(missed).count()
    }

    /// Asks for one object that is known: the same server answers with the same object, and its clock has
    /// not gone back. A server that lost its memory is another one, and everything is listed again.
    async fn verify(&mut self) -> Result<Next, Refusal> {
        let witness = self.known.first_key_value();
        let path = self.scope.probe(witness.map(|(key, _)| key));
        let request = self.scope.asked(path, LIST, PROBE_DEADLINE);
        let answer = self.door.send(&request).await?;
        let page =
            parse::page(self.scope.kind, &answer.body).map_err(|what| SourceError::Protocol {
                subject: answer.subject.clone(),
                what,
            })?;
        let backwards = number(&page.version)
            .zip(number(&self.version))
            .is_some_and(|(now, known)| now < known);
        let same = witness.is_none_or(|(_, stamp)| {
            page.objects
                .first()
                .is_some_and(|object| object.stamp.uid == stamp.uid)
        });
        if backwards || !same {
            return Ok(Next::List { audit: false });
        }
        Ok(Next::Follow)
    }

    /// The stream, until it ends or something else is to be done.
    async fn follow(&mut self) -> Result<Next, Refusal> {
        let seconds = 240 + fastrand::u64(0..60);
        let path = self.scope.watch(&self.version, seconds);
        let began = Instant::now();
        // The silence is watched below: here it would begin anew with every look at the clock.
        let request = self.scope.asked(path, ONE, LIST_DEADLINE);
        let mut lines = self.door.stream(&request, AUDIT).await?;
        self.say(Told::Well).await;
        let audit = began + jittered(AUDIT);
        let mut quiet = began + SILENCE;
        let mut pulse = began + jittered(self.pulse);
        let mut empty = true;
        loop {
            tokio::select! {
                line = lines.next() => match line? {
                    Some(line) => {
                        empty = false;
                        quiet = Instant::now() + SILENCE;
                        if !self.took(&line).await? {
                            return Ok(Next::List { audit: false });
                        }
                    }
                    None => break,
                },
                () = sleep_until(pulse.min(quiet).min(audit)) => {
                    let now = Instant::now();
                    if now >= audit {
                        return Ok(Next::List { audit: true });
                    }
                    if now >= quiet {
                        return Ok(Next::Verify);
                    }
                    pulse = now + jittered(self.pulse);
                    if let Some(next) = self.beat().await? {
                        return Ok(next);
                    }
                }
                _ = self.alarm.changed() => if let Some(next) = self.beat().await? {
                    return Ok(next);
                },
                _ = self.again.changed() => return Ok(Next::List { audit: true }),
            }
        }
        self.ended(empty && began.elapsed() < TOO_SHORT)
    }

    /// Does the server live, and is it the same? `None`: yes.
    async fn beat(&mut self) -> Result<Option<Next>, Refusal> {
        let next = self.verify().await?;
        self.say(Told::Well).await;
        Ok((next != Next::Follow).then_some(next))
    }

    /// A stream that ended, as it does after some minutes.
    fn ended(&self, at_once: bool) -> Result<Next, Refusal> {
        if at_once {
            return Err(Refusal::Failed(SourceError::Protocol {
                subject: self.scope.path(self.scope.namespace.as_ref()),
                what: "the watch ended as soon as it began".into(),
            }));
        }
        Ok(Next::Follow)
    }

    /// Takes a line; false when the server has forgotten what comes next.
    async fn took(&mut self, line: &[u8]) -> Result<bool, SourceError> {
        let wrong = |what: String| SourceError::Protocol {
            subject: self.scope.path(self.scope.namespace.as_ref()),
            what,
        };
        let version = match parse::event(self.scope.kind, line).map_err(wrong)? {
            Event::There(object, version) => {
                self.known.insert(object.key.clone(), object.stamp.clone());
                self.say(Told::There(object)).await;
                version
            }
            Event::Gone(key, version) => {
                self.known.remove(&key);
                self.say(Told::Gone(key)).await;
                version
            }
            Event::Bookmark(version) => version,
            Event::Expired => return Ok(false),
            Event::Failed(what) => return Err(wrong(what)),
        };
        if !version.is_empty() {
            self.version = version;
        }
        Ok(true)
    }

    /// Nobody listens any more only when the source ends, and then this does too.
    async fn say(&self, told: Told) {
        drop(self.tell.send((self.at, told)).await);
    }
}

/// A resource version as a number: they are comparable, though a server need not say so.
fn number(version: &str) -> Option<u64> {
    version.parse().ok()
}

fn jittered(time: Duration) -> Duration {
    time.mul_f64(0.8 + fastrand::f64() * 0.4)
}
