//! A session with an ensemble: it outlives connections, goes on at another server, and begins anew when it ends.
//!
//! In: questions, in order. Out: their answers, and `Event`s: up, down, changes of watched nodes.
//! Never: asks twice (a question under way when the connection breaks is `Fault::Lost`), waits without
//! end, or keeps more than `MAX_EVENTS` events: beyond them the reader is told to read everything.

use std::{collections::VecDeque, io, sync::Arc, time::Duration};

use bytes::BytesMut;
use mesh_model::config::Access;
use tokio::{
    sync::{mpsc, oneshot},
    time::{Instant, sleep_until},
};

use super::{
    jute::{Malformed, Reader},
    link::{self, Incoming, LinkError, Outgoing},
    message::{self, Ask, Change, Stat, Ticket, code, xid},
    secret::Digest,
    servers::{self, Server},
};
use crate::{
    backoff::{AWAY, Backoff},
    http::{Pem, tls::Tls},
    source::SourceError,
    tally::Tally,
};

/// Most events that wait for the reader.
pub(super) const MAX_EVENTS: usize = 65_536;
/// Most questions that wait to be written.
const MAX_ASKED: usize = 1_024;
/// Most of them that are written at once.
const MAX_BATCH: usize = 256;
/// Between two looks at the credential's file.
const LOOK: Duration = Duration::from_secs(1);
/// Rounds in which all servers hang up on the greeting before an older history is believed; twice as many where
/// some of them cannot be reached.
const REFUSALS: u32 = 3;

/// What happened.
#[derive(Debug)]
pub(crate) enum Event {
    /// Connected, with this session: when it is another one, what lived with the old one is gone.
    Up(i64),
    /// The connection is gone; the session may live on.
    Down(SourceError),
    /// A watched node changed.
    Changed(Change, String),
    /// The credential is another one.
    Credential,
    /// Events were dropped.
    Overflow,
}

/// Why a question has no good answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Fault {
    /// The connection broke before the answer; what was asked may have happened.
    #[error("the connection broke")]
    Lost,
    /// The server says no.
    #[error("the server answers with error {0}")]
    Code(i32),
    /// The answer cannot be understood.
    #[error(transparent)]
    Malformed(#[from] Malformed),
}

struct Question {
    ask: Ask,
    answer: oneshot::Sender<Result<BytesMut, Fault>>,
}

/// Asks. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Zk {
    questions: mpsc::Sender<Question>,
}

impl std::fmt::Debug for Question {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Question")
            .field("op", &self.ask.op)
            .finish_non_exhaustive()
    }
}

impl Zk {
    async fn ask<T>(
        &self,
        ask: Ask,
        read: impl FnOnce(Reader<'_>) -> Result<T, Malformed>,
    ) -> Result<T, Fault> {
        let (answer, answered) = oneshot::channel();
        let asked = self.questions.send(Question { ask, answer }).await;
        asked.map_err(|_gone| Fault::Lost)?;
        let frame = answered.await.map_err(|_gone| Fault::Lost)??;
        let (_, body) = message::head(&frame)?;
        Ok(read(body)?)
    }
    /// Names of the children of a node.
    pub(crate) async fn children(&self, path: &str, watch: bool) -> Result<Vec<String>, Fault> {
        self.ask(Ask::children(path, watch), message::read_children)
            .await
    }
    /// A node's data.
    pub(crate) async fn data(&self, path: &str, watch: bool) -> Result<(Vec<u8>, Stat), Fault> {
        self.ask(Ask::data(path, watch), message::read_data).await
    }
    /// Whether a node is there.
    pub(crate) async fn exists(&self, path: &str, watch: bool) -> Result<Option<Stat>, Fault> {
        match self.ask(Ask::exists(path, watch), message::read_stat).await {
            Err(Fault::Code(code::NO_NODE)) => Ok(None),
            other => other.map(Some),
        }
    }
    /// Any other question; the path that the answer names, if any.
    pub(crate) async fn tell(&self, ask: Ask) -> Result<String, Fault> {
        let read = |body: Reader<'_>| Ok(message::read_path(body).unwrap_or_default());
        self.ask(ask, read).await
    }
}

/// Keeps the session alive while it is polled.
pub(crate) struct Driver {
    servers: Vec<Server>,
    tls: Arc<Tls>,
    by_default: bool,
    digest: Digest,
    tally: Arc<Tally>,
    at: usize,
    questions: mpsc::Receiver<Question>,
    events: mpsc::Sender<Event>,
    overflow: bool,
    life: Duration,
    ticket: Ticket,
    last_zxid: i64,
    refusals: u32,
}

impl std::fmt::Debug for Driver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Driver")
            .field("servers", &self.servers)
            .finish_non_exhaustive()
    }
}

/// What an ensemble needs: who asks, what happens there, who keeps it alive, and the path in its addresses.
pub(crate) struct Session {
    pub(crate) zk: Zk,
    pub(crate) events: mpsc::Receiver<Event>,
    pub(crate) driver: Driver,
    pub(crate) chroot: String,
}

/// A session that is not connected before its driver is polled. It lives for `life` without any word of ours,
/// unless the server chooses otherwise.
pub(crate) fn session(access: &Access, life: Duration) -> Result<Session, SourceError> {
    let (servers, chroot) = servers::servers(&access.addresses)?;
    let (ask, questions) = mpsc::channel(MAX_ASKED);
    let (tell, events) = mpsc::channel(MAX_EVENTS);
    let tls = &access.tls;
    let by_default = tls.ca.is_some() || tls.certificate.is_some() || tls.server_name.is_some();
    // Many hosts must not all sit at the first server.
    let at = fastrand::usize(..servers.len());
    let driver = Driver {
        at,
        servers,
        tls: Arc::new(Tls::new(tls, Pem::default())),
        tally: Tally::current(),
        by_default,
        digest: Digest::new(access),
        questions,
        events: tell,
        overflow: false,
        life,
        ticket: Ticket::default(),
        last_zxid: 0,
        refusals: 0,
    };
    Ok(Session {
        zk: Zk { questions: ask },
        events,
        driver,
        chroot,
    })
}

/// A connection in use.
struct Open {
    incoming: Incoming,
    outgoing: Outgoing,
    waiting: VecDeque<(i32, oneshot::Sender<Result<BytesMut, Fault>>)>,
    next: i32,
    heard: Instant,
    spoke: Instant,
    /// When the files are looked at again.
    look: Instant,
    life: Duration,
}

impl Driver {
    /// Runs until nobody asks any more; the session is ended then.
    pub(crate) async fn run(mut self) {
        let mut waits = Backoff::new(Duration::from_millis(250), AWAY);
        loop {
            let error = match self.connect().await {
                Ok(open) => {
                    let began = Instant::now();
                    self.say(Event::Up(self.ticket.id));
                    let error = self.pump(open).await;
                    if began.elapsed() > Duration::from_secs(5) {
                        waits.reset();
                    }
                    error
                }
                Err(error) => error,
            };
            if self.questions.is_closed() {
                return;
            }
            self.say(Event::Down(error));
            let until = Instant::now() + waits.next(fastrand::f64());
            if !self.refuse_until(until).await {
                return;
            }
        }
    }

    /// Says that events were dropped, once there is room for it.
    fn say_overflow(&mut self) {
        if self.overflow && self.events.try_send(Event::Overflow).is_ok() {
            self.overflow = false;
        }
    }

    fn say(&mut self, event: Event) {
        self.say_overflow();
        if self.events.try_send(event).is_err() {
            self.overflow = true;
        }
    }

    /// While there is no connection every question is lost; false when nobody asks any more.
    async fn refuse_until(&mut self, until: Instant) -> bool {
        loop {
            tokio::select! {
                () = sleep_until(until) => return true,
                question = self.questions.recv() => match question {
                    Some(question) => drop(question.answer.send(Err(Fault::Lost))),
                    None => return false,
                },
            }
        }
    }

    /// The next server that takes us, after the last one.
    async fn connect(&mut self) -> Result<Open, SourceError> {
        let mut failure = SourceError::Config("there is no address".into());
        let (mut refused, mut away) = (0, 0);
        for _ in 0..self.servers.len() {
            let Some(server) = self.servers.get(self.at).cloned() else {
                self.at = 0;
                continue;
            };
            match self.greet(&server).await {
                Ok(found) => {
                    self.refusals = 0;
                    return Ok(found);
                }
                Err(error) => {
                    refused += usize::from(matches!(error, LinkError::Refused));
                    away += usize::from(matches!(error, LinkError::Io(_)));
                    failure = told(&server.text, error);
                }
            }
            self.at = (self.at + 1) % self.servers.len();
        }
        if refused > 0 && refused + away == self.servers.len() {
            self.refusals += 1;
            let enough = if away == 0 { REFUSALS } else { REFUSALS * 2 };
            if self.refusals >= enough {
                // Every server that is there knows less than we read: the ensemble was made anew. The old session is
                // unknown there, and so is what it read.
                (self.ticket, self.last_zxid, self.refusals) = (Ticket::default(), 0, 0);
            }
        } else {
            self.refusals = 0;
        }
        Err(failure)
    }

    /// One server: the session goes on there, or a new one begins.
    async fn greet(&mut self, server: &Server) -> Result<Open, LinkError> {
        let tls = (server.secured || self.by_default).then(|| Arc::clone(&self.tls));
        let mut fresh = self.ticket.id == 0;
        loop {
            let opened = link::open(
                server,
                tls.as_deref(),
                &self.ticket,
                self.last_zxid,
                self.life,
            );
            let (incoming, mut outgoing, ticket) = opened.await?;
            let Some(ticket) = ticket else {
                if fresh {
                    return Err(LinkError::Nonsense("it gives no session".into()));
                }
                fresh = true;
                self.ticket = Ticket::default();
                continue;
            };
            let life = Duration::from_millis(u64::from(ticket.timeout_ms.unsigned_abs()));
            self.ticket = ticket;
            if let Some(ask) = self.digest.ask().map_err(LinkError::Config)? {
                let mut frame = Vec::new();
                ask.write(xid::AUTH, &mut frame);
                outgoing.send(&frame, life / 3).await?;
            }
            let now = Instant::now();
            let open = Open {
                incoming,
                outgoing,
                waiting: VecDeque::new(),
                next: 1,
                heard: now,
                spoke: now,
                look: now + LOOK,
                life,
            };
            return Ok(open);
        }
    }

    /// Moves questions and answers until the connection ends; every question under way is lost then.
    async fn pump(&mut self, mut open: Open) -> SourceError {
        let server = self
            .servers
            .get(self.at)
            .map_or_else(String::new, |server| server.text.clone());
        let error = loop {
            match self.turn(&mut open, &server).await {
                Ok(()) => {}
                Err(error) => break error,
            }
        };
        for (_, answer) in open.waiting.drain(..) {
            self.tally.request(0);
            drop(answer.send(Err(Fault::Lost)));
        }
        error
    }

    async fn turn(&mut self, open: &mut Open, server: &str) -> Result<(), SourceError> {
        let speak = open.spoke + open.life / 3;
        let dead = open.heard + open.life * 2 / 3;
        let mut batch = Vec::new();
        tokio::select! {
            biased;
            frame = open.incoming.frame() => {
                let frame = frame.map_err(|error| told(server, error))?;
                self.heard(open, frame, server)?;
                // Answers and events without end must not keep questions waiting.
                while batch.len() < MAX_BATCH && let Ok(question) = self.questions.try_recv() {
                    batch.push(question);
                }
                self.put(open, batch, server).await
            }
            count = self.questions.recv_many(&mut batch, MAX_BATCH) => {
                if count == 0 {
                    batch.push(Question { ask: Ask::close(), answer: oneshot::channel().0 });
                }
                self.put(open, batch, server).await?;
                if count == 0 {
                    return Err(SourceError::Config("nobody asks any more".into()));
                }
                Ok(())
            }
            () = sleep_until(dead) => Err(told(server, io::Error::from(io::ErrorKind::TimedOut).into())),
            () = sleep_until(speak) => self.write(open, &Ask::ping(), xid::PING, server).await,
            () = sleep_until(open.look) => {
                open.look = Instant::now() + LOOK;
                self.say_overflow();
                if let Some(ask) = self.digest.changed() {
                    self.write(open, &ask, xid::AUTH, server).await?;
                    self.say(Event::Credential);
                }
                Ok(())
            }
        }
    }

    /// Writes questions, whose answers come in the same order.
    async fn put(
        &self,
        open: &mut Open,
        batch: Vec<Question>,
        server: &str,
    ) -> Result<(), SourceError> {
        if batch.is_empty() {
            return Ok(());
        }
        let mut bytes = Vec::new();
        for question in batch {
            question.ask.write(open.next, &mut bytes);
            open.waiting.push_back((open.next, question.answer));
            open.next = open.next.checked_add(1).unwrap_or(1);
        }
        self.send(open, &bytes, server).await
    }

    async fn write(
        &self,
        open: &mut Open,
        ask: &Ask,
        xid: i32,
        server: &str,
    ) -> Result<(), SourceError> {
        let mut bytes = Vec::new();
        ask.write(xid, &mut bytes);
        self.send(open, &bytes, server).await
    }

    async fn send(&self, open: &mut Open, bytes: &[u8], server: &str) -> Result<(), SourceError> {
        let sent = open.outgoing.send(bytes, open.life / 3).await;
        sent.map_err(|error| told(server, error))?;
        open.spoke = Instant::now();
        Ok(())
    }

    /// One frame.
    fn heard(&mut self, open: &mut Open, frame: BytesMut, server: &str) -> Result<(), SourceError> {
        open.heard = Instant::now();
        let wrong = |malformed: Malformed| SourceError::Protocol {
            subject: server.to_owned(),
            what: malformed.to_string(),
        };
        let (head, body) = message::head(&frame).map_err(wrong)?;
        if head.zxid > 0 {
            self.last_zxid = self.last_zxid.max(head.zxid);
        }
        match head.xid {
            xid::PING => Ok(()),
            xid::EVENT => {
                if let Some((change, path)) = message::event(body).map_err(wrong)? {
                    self.say(Event::Changed(change, path));
                }
                Ok(())
            }
            xid::AUTH if head.error == 0 => Ok(()),
            xid::AUTH => Err(SourceError::Auth(server.to_owned())),
            number => {
                let waiting = open.waiting.pop_front();
                let Some((expected, answer)) = waiting.filter(|(expected, _)| *expected == number)
                else {
                    return Err(SourceError::Protocol {
                        subject: server.to_owned(),
                        what: "an answer that nobody waits for came".into(),
                    });
                };
                debug_assert_eq!(expected, number);
                let over = matches!(head.error, code::SESSION_EXPIRED | code::SESSION_MOVED);
                // An error is counted by its number without the sign, such as 101 for a node that is not there.
                let error = u16::try_from(head.error.unsigned_abs()).unwrap_or(u16::MAX);
                self.tally.request(if error == 0 { 200 } else { error });
                let result = match head.error {
                    0 => Ok(frame),
                    error => Err(Fault::Code(error)),
                };
                drop(answer.send(result));
                if over {
                    return Err(told(server, io::Error::other("the session is over").into()));
                }
                Ok(())
            }
        }
    }
}

/// What went wrong with a server, as the failure of a source.
fn told(server: &str, error: LinkError) -> SourceError {
    match error {
        LinkError::Io(cause) => SourceError::Transport {
            subject: server.to_owned(),
            cause,
        },
        LinkError::Config(what) => SourceError::Config(what),
        other @ (LinkError::Refused | LinkError::Nonsense(_)) => SourceError::Protocol {
            subject: server.to_owned(),
            what: other.to_string(),
        },
    }
}
