//! The readers beside the list: the stream of events, and the question for the leader.
//!
//! In: events, leaders. Out: marks of what is to be read again. Never: says what changed, only where.

use std::{
    collections::BTreeSet,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use http::{HeaderValue, StatusCode, header};
use tokio::{sync::Notify, time::Instant};

use super::{
    events::{Framer, Hint, WANTED},
    fields::text,
};
use crate::{
    backoff::{AWAY, Backoff},
    http::{Client, Request},
    longpoll::{board::Board, probe},
    source::SourceError,
};

/// More applications than this at once are read as a list.
pub(super) const MANY: usize = 64;
/// A stream without any line for this long is dead.
const SILENCE: Duration = Duration::from_secs(30);
/// A stream that lived this long was good; and a leader that cannot be reached is tried again after it.
const GOOD: Duration = Duration::from_mins(1);

const EVENTS: &str = "the events";
const LEADER: &str = "the leader";

/// What is to be read again.
#[derive(Debug, Default)]
pub(super) struct Dirty {
    /// Everything.
    pub(super) all: bool,
    /// These applications.
    pub(super) apps: BTreeSet<Arc<str>>,
}

/// What the readers share.
pub(super) struct Hints {
    pub(super) client: Client,
    pub(super) board: Board,
    dirty: Mutex<Dirty>,
    /// Something is to be read again.
    pub(super) marked: Notify,
    /// The leader is another one: the stream must be opened there.
    moved: Notify,
    /// The leader's place among the addresses; [`usize::MAX`]: it is none of them.
    leads: AtomicUsize,
    /// The place at which the stream was opened.
    opened: AtomicUsize,
}

impl Hints {
    pub(super) fn new(client: Client, board: Board) -> Self {
        Self {
            client,
            board,
            dirty: Mutex::default(),
            marked: Notify::new(),
            moved: Notify::new(),
            leads: AtomicUsize::new(usize::MAX),
            opened: AtomicUsize::new(usize::MAX),
        }
    }

    fn mark(&self, hint: Hint) {
        let mut dirty = self.dirty.lock().unwrap_or_else(PoisonError::into_inner);
        match hint {
            Hint::App(id) if dirty.apps.len() < MANY => {
                dirty.apps.insert(id);
            }
            _ => dirty.all = true,
        }
        drop(dirty);
        self.marked.notify_one();
    }

    /// What is to be read again; from now on it is not.
    pub(super) fn take(&self) -> Dirty {
        std::mem::take(&mut *self.dirty.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Reads the stream of events, again and again.
    pub(super) async fn events(self: Arc<Self>) {
        let mut waits = Backoff::new(Duration::from_millis(250), AWAY);
        let query: Vec<String> = WANTED
            .iter()
            .map(|kind| format!("event_type={kind}"))
            .collect();
        let request = Request::get(format!("/v2/events?{}", query.join("&"))).with(
            header::ACCEPT,
            HeaderValue::from_static("text/event-stream"),
        );
        loop {
            let opened = Instant::now();
            let error = tokio::select! {
                error = self.stream(&request) => error,
                () = self.moved.notified() => {
                    waits.reset();
                    continue;
                }
            };
            self.board.bad(EVENTS, &error);
            if opened.elapsed() >= GOOD {
                waits.reset();
            }
            tokio::time::sleep(waits.next(fastrand::f64())).await;
        }
    }

    /// One stream to its end.
    async fn stream(&self, request: &Request) -> SourceError {
        // Through others the stream comes late, or in pieces.
        self.client.begin_with(self.leads.load(Ordering::Relaxed));
        let mut lines = match self.client.lines(request, SILENCE).await {
            Ok(lines) => lines,
            Err(error) => return error,
        };
        self.opened.store(self.client.first(), Ordering::Relaxed);
        self.board.good(EVENTS);
        // What happened before it was opened is nowhere but in the list.
        self.mark(Hint::All);
        let mut framer = Framer::default();
        loop {
            match lines.next().await {
                Ok(Some(line)) => {
                    if let Some(hint) = framer.line(&line) {
                        self.mark(hint);
                    }
                }
                Ok(None) => {
                    return SourceError::Protocol {
                        subject: "/v2/events".into(),
                        what: "the stream has ended".into(),
                    };
                }
                Err(error) => return error,
            }
        }
    }

    /// Asks for the leader: a sign of life, and where the stream is whole.
    pub(super) async fn leader(self: Arc<Self>) {
        let mut known = None;
        let mut alive = true;
        let mut moved_at = None;
        loop {
            match self.ask_leader().await {
                Ok(leader) => {
                    self.board.good(LEADER);
                    let place = leader.as_deref().and_then(|at| self.client.place_of(at));
                    self.leads
                        .store(place.unwrap_or(usize::MAX), Ordering::Relaxed);
                    let elsewhere =
                        place.is_some_and(|at| at != self.opened.load(Ordering::Relaxed));
                    let lately = moved_at.is_some_and(|at: Instant| at.elapsed() < GOOD);
                    let other = leader.is_some() && known.is_some() && known != leader;
                    if other || !alive || (elsewhere && !lately) {
                        moved_at = Some(Instant::now());
                        self.client.redial();
                        self.moved.notify_one();
                        self.mark(Hint::All);
                    }
                    known = leader.or(known);
                    alive = true;
                }
                Err(error) => {
                    self.board.bad(LEADER, &error);
                    alive = false;
                }
            }
            tokio::time::sleep(probe::until_next(alive)).await;
        }
    }

    /// The leader as it calls itself; `None` where one may not ask.
    async fn ask_leader(&self) -> Result<Option<String>, SourceError> {
        let answer = self
            .client
            .send(&Request::get("/v2/leader").within(probe::DEADLINE))
            .await?;
        // The list may be allowed where this is not.
        if answer.status == StatusCode::FORBIDDEN {
            return Ok(None);
        }
        if answer.status == StatusCode::NOT_FOUND {
            return Err(SourceError::Protocol {
                subject: answer.subject,
                what: "there is no leader".into(),
            });
        }
        let answer = answer.good()?;
        let document: serde_json::Value = answer.json(std::marker::PhantomData)?;
        Ok(text(&document, "leader").map(str::to_owned))
    }
}
