//! The HTTP client that sources share: over TCP, TLS or a unix socket, with a deadline for everything.
//!
//! In: where a registry is and with which credentials, one `Request` at a time. Out: a whole answer, or
//! lines as they come. Never: waits without end, takes a body beyond the cap, follows a redirect, or writes
//! a credential anywhere but into its header.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http::{StatusCode, header};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use mesh_model::config::Access;
use tokio::time::Instant;
use tokio_util::{
    sync::{CancellationToken, DropGuard},
    task::TaskTracker,
};

use crate::{source::SourceError, tally::Tally};

/// Addresses and how to dial them.
pub(crate) mod dial;
/// Why there is no answer.
mod failure;
/// Bodies of JSON, packed or not.
mod json;
/// Lines of a stream.
mod lines;
/// What is asked and answered.
mod message;
/// Connections that are used again.
mod pool;
/// Credentials in files.
pub(crate) mod secret;
/// A scripted server.
#[cfg(any(test, feature = "contract"))]
pub(crate) mod stage;
/// Certificates in files.
pub(crate) mod tls;

pub use failure::HttpError;
pub use json::MAX_UNPACKED;
pub use lines::Lines;
pub use message::{Answer, Request};
pub use secret::Credential;
pub use tls::Pem;

use dial::{Target, Workers};
use failure::refused;
use pool::{Connection, Pool};
use secret::Secret;
use tls::Tls;

/// Most bytes of one answer.
pub const MAX_BODY: usize = 64 << 20;
/// For a connection, TLS included.
const CONNECT: Duration = Duration::from_secs(3);
/// For the body, once the head has come; and for each piece of it half as much.
const BODY: Duration = Duration::from_secs(30);

/// Who may dial an address. A hundred requests at once must not make a hundred connections that take a hundred
/// each.
#[derive(Debug, Default)]
struct Turn {
    one: tokio::sync::Mutex<()>,
    /// True once the server chose HTTP/1.1: nobody needs to wait.
    single: AtomicBool,
}

/// A client of one registry with one or more addresses. Connections are kept and used again.
#[derive(Debug)]
pub struct Client {
    targets: Vec<Target>,
    /// The address that answered last.
    good: AtomicUsize,
    secret: Secret,
    tls: Tls,
    pool: Pool,
    /// Per address: whose turn it is to dial where a connection takes many requests.
    turns: Vec<Turn>,
    /// True: HTTP/2 is offered inside TLS.
    many: bool,
    tally: Arc<Tally>,
    workers: Workers,
    _ends: DropGuard,
}

impl Client {
    /// Nothing is dialled or read yet.
    pub fn new(access: &Access, credential: Credential) -> Result<Self, SourceError> {
        Self::with_pem(access, credential, Pem::default())
    }

    /// As [`Client::new`], with certificates that are in no file; they go before those of `access`.
    pub fn with_pem(
        access: &Access,
        credential: Credential,
        pem: Pem,
    ) -> Result<Self, SourceError> {
        let targets = Target::all(&access.addresses)?;
        let stop = CancellationToken::new();
        Ok(Self {
            turns: targets.iter().map(|_| Turn::default()).collect(),
            targets,
            good: AtomicUsize::new(0),
            secret: Secret::new(access, credential),
            tls: Tls::new(&access.tls, pem),
            pool: Pool::default(),
            many: false,
            tally: Tally::current(),
            _ends: stop.clone().drop_guard(),
            workers: Workers {
                tracker: TaskTracker::new(),
                stop,
            },
        })
    }

    /// Offers HTTP/2 inside TLS: many requests share a connection where the server takes it.
    #[must_use]
    pub fn sharing(mut self) -> Self {
        self.tls = self.tls.speaking(&["h2", "http/1.1"]);
        self.many = true;
        self
    }

    /// The whole answer, whatever its status. After 401 and 403 the credential is read again, and when it is
    /// another one the request is sent again.
    pub async fn send(&self, request: &Request) -> Result<Answer, SourceError> {
        let (subject, at, first) = self.head(request).await?;
        let (at, mut response) = (at, first);
        if matches!(
            response.0.status(),
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN
        ) && self.secret.changed()
        {
            response = self
                .ask(at, request)
                .await
                .map_err(|error| error.about(&subject))?;
        }
        let (response, connection) = response;
        let (parts, body) = response.into_parts();
        let body = match whole(body).await {
            Ok(body) => body,
            Err(error) => {
                self.pool.spoiled(&connection);
                return Err(error.about(&subject));
            }
        };
        self.pool.keep(connection);
        Ok(Answer {
            subject,
            status: parts.status,
            headers: parts.headers,
            body,
        })
    }

    /// Lines of an answer without end, each at most `silence` after the one before.
    pub async fn lines(&self, request: &Request, silence: Duration) -> Result<Lines, SourceError> {
        let refusal = match self.stream(request, silence).await? {
            Ok(lines) => return Ok(lines),
            Err(answer) => answer,
        };
        let (status, headers) = (refusal.status, &refusal.headers);
        Err(refused(status, &refusal.subject, headers, &refusal.body))
    }

    /// As [`Client::lines`], with the whole answer where its status is not 2xx.
    pub async fn stream(
        &self,
        request: &Request,
        silence: Duration,
    ) -> Result<Result<Lines, Answer>, SourceError> {
        let (subject, _, (response, connection)) = self.head(request).await?;
        let status = response.status();
        if status.is_success() {
            let body = response.into_body();
            return Ok(Ok(Lines::new(body, subject, silence, connection)));
        }
        if matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) {
            self.secret.forget();
        }
        let (parts, body) = response.into_parts();
        let body = whole(body).await.map_err(|error| error.about(&subject))?;
        Ok(Err(Answer {
            subject,
            status,
            headers: parts.headers,
            body,
        }))
    }

    /// Where the registry is, for messages.
    pub fn subject(&self) -> String {
        self.targets
            .get(self.good.load(Ordering::Relaxed))
            .map_or_else(String::new, |target| target.text.clone())
    }

    /// Which address answered last, and is asked first: its place in the settings.
    pub fn first(&self) -> usize {
        self.good.load(Ordering::Relaxed)
    }

    /// Asks another address first from now on; places that there are not change nothing.
    pub fn begin_with(&self, place: usize) {
        if place < self.targets.len() {
            self.good.store(place, Ordering::Relaxed);
        }
    }

    /// Asks the address after the one that answered last: it answers, but not what it should.
    pub fn move_on(&self) {
        self.begin_with((self.first() + 1) % self.targets.len().max(1));
    }

    /// The place of the address with this host and port, such as `10.0.0.1:8080`.
    pub fn place_of(&self, authority: &str) -> Option<usize> {
        self.targets
            .iter()
            .position(|target| target.authority.eq_ignore_ascii_case(authority))
    }

    /// Closes what is idle, so that the next requests dial anew.
    pub fn redial(&self) {
        self.pool.clear();
    }

    /// The head of the first answer, from the addresses in order, the good one first.
    async fn head(&self, request: &Request) -> Result<(String, usize, Answered), SourceError> {
        let count = self.targets.len();
        let first = self.good.load(Ordering::Relaxed);
        let mut failure = None;
        for step in 0..count {
            let at = (first + step) % count;
            let Some(target) = self.targets.get(at) else {
                continue;
            };
            let path = request.path.split('?').next().unwrap_or_default();
            let subject = format!("{}{path}", target.text);
            match self.ask(at, request).await {
                Ok(answered) => {
                    self.tally.request(answered.0.status().as_u16());
                    // A server that fails as a whole is left for the next one; what it says of the
                    // request itself would be the same elsewhere.
                    let broken = answered.0.status().is_server_error();
                    let next = if broken { (at + 1) % count } else { at };
                    self.good.store(next, Ordering::Relaxed);
                    return Ok((subject, at, answered));
                }
                Err(error) => {
                    self.tally.request(0);
                    failure = Some(error.about(&subject));
                }
            }
        }
        Err(failure.unwrap_or_else(|| SourceError::Config("there is no address".into())))
    }

    async fn ask(&self, at: usize, request: &Request) -> Result<Answered, HttpError> {
        let target = self
            .targets
            .get(at)
            .ok_or_else(|| HttpError::Request(request.path.clone()))?;
        let safe = request.method.is_safe();
        let generation = if target.is_secured() {
            self.tls.generation()?
        } else {
            0
        };
        let built = self.build(target, request)?;
        let deadline = Instant::now() + request.deadline;
        loop {
            let (mut connection, fresh) = match self.pool.take(at, generation) {
                Some(connection) => (connection, false),
                None => self.connect(at, target, generation, deadline).await?,
            };
            let sent = connection.send(target, built.clone());
            match tokio::time::timeout_at(deadline, sent).await {
                Ok(Ok(response)) => return Ok((response, connection)),
                Ok(Err(error)) => {
                    self.pool.spoiled(&connection);
                    if fresh || !safe {
                        return Err(error);
                    }
                }
                Err(_) => {
                    self.pool.spoiled(&connection);
                    return Err(HttpError::Late("answer"));
                }
            }
        }
    }

    /// A connection, and whether it is a new one.
    async fn connect(
        &self,
        at: usize,
        target: &Target,
        generation: u64,
        deadline: Instant,
    ) -> Result<(Connection, bool), HttpError> {
        let turn = self.turns.get(at).filter(|turn| {
            self.many && target.is_secured() && !turn.single.load(Ordering::Relaxed)
        });
        let mut mine = None;
        if let Some(turn) = turn {
            let waited = tokio::time::timeout_at(deadline, turn.one.lock()).await;
            mine = Some(waited.map_err(|_late| HttpError::Late("connection"))?);
            if let Some(connection) = self.pool.take(at, generation) {
                return Ok((connection, false));
            }
            if turn.single.load(Ordering::Relaxed) {
                mine = None;
            }
        }
        let dialled = Box::pin(dial::dial(target, &self.tls, &self.workers));
        let dialled = tokio::time::timeout(CONNECT, dialled).await;
        let (sender, driver) = dialled.map_err(|_late| HttpError::Late("connection"))??;
        let (stop, open) = (self.workers.stop.clone(), Tally::connected(&self.tally));
        self.workers.tracker.spawn(async move {
            let _open = open;
            tokio::select! {
                () = stop.cancelled() => {}
                () = driver => {}
            }
        });
        if let Some(turn) = turn {
            turn.single.store(!sender.is_shared(), Ordering::Relaxed);
        }
        let connection = self.pool.add(at, generation, sender);
        drop(mine);
        Ok((connection, true))
    }

    fn build(
        &self,
        target: &Target,
        request: &Request,
    ) -> Result<http::Request<Full<Bytes>>, HttpError> {
        let mut builder = http::Request::builder()
            .method(request.method.clone())
            .uri(format!("{}{}", target.prefix, request.path))
            .header(header::HOST, &*target.authority)
            .header(header::ACCEPT, "application/json")
            .header(header::USER_AGENT, "meshd");
        if let Some(fields) = builder.headers_mut() {
            for (name, value) in &request.headers {
                fields.insert(name, value.clone());
            }
            if let Some((name, value)) = self.secret.field()? {
                fields.insert(name, value);
            }
        }
        builder
            .body(Full::new(request.body.clone()))
            .map_err(|_cause| HttpError::Request(request.path.clone()))
    }
}

/// An answer's head and its connection.
type Answered = (http::Response<Incoming>, Connection);

/// The whole body, bounded in size and time.
async fn whole(mut body: Incoming) -> Result<Bytes, HttpError> {
    let end = Instant::now() + BODY;
    let mut all = Vec::new();
    loop {
        let piece_end = end.min(Instant::now() + BODY / 2);
        let frame = tokio::time::timeout_at(piece_end, body.frame())
            .await
            .map_err(|_late| HttpError::Late("body"))?;
        let Some(frame) = frame else {
            return Ok(Bytes::from(all));
        };
        if let Ok(data) = frame.map_err(HttpError::Broken)?.into_data() {
            if all.len() + data.len() > MAX_BODY {
                return Err(HttpError::TooLarge);
            }
            all.extend_from_slice(&data);
        }
    }
}

#[cfg(test)]
mod tests;
