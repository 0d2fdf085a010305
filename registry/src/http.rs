//! The HTTP client that sources share: over TCP, TLS or a unix socket, with a deadline for everything.
//!
//! In: where a registry is and with which credentials, one [`Request`] at a time. Out: a whole answer, or
//! lines as they come. Never: waits without end, takes a body beyond the cap, follows a redirect, or writes
//! a credential anywhere but into its header.

use std::{
    io,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use http_body_util::{BodyExt, Full};
use hyper::{body::Incoming, client::conn::http1::SendRequest};
use mesh_model::config::Access;
use tokio::time::Instant;
use tokio_util::{
    sync::{CancellationToken, DropGuard},
    task::TaskTracker,
};

use crate::{source::SourceError, tally::Tally};

/// Addresses and how to dial them.
pub(crate) mod dial;
/// Bodies of JSON, packed or not.
mod json;
/// Lines of a stream.
mod lines;
/// Credentials in files.
pub(crate) mod secret;
/// A scripted server.
#[cfg(test)]
pub(crate) mod stage;
/// Certificates in files.
pub(crate) mod tls;

pub use json::MAX_UNPACKED;
pub use lines::Lines;
pub use secret::Credential;
pub use tls::Pem;

use dial::Target;
use secret::Secret;
use tls::Tls;

/// Most bytes of one answer.
pub const MAX_BODY: usize = 64 << 20;
/// For a connection, TLS included.
const CONNECT: Duration = Duration::from_secs(3);
/// For the body, once the head has come; and for each piece of it half as much.
const BODY: Duration = Duration::from_secs(30);
/// Connections that wait for the next request.
const MAX_IDLE: usize = 256;

/// One request.
#[derive(Debug, Clone)]
pub struct Request {
    /// The method; safe ones are sent again when an idle connection turns out to be dead.
    pub method: Method,
    /// Path and query, below the path of the address.
    pub path: String,
    /// Fields beside the credentials.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// The body.
    pub body: Bytes,
    /// For the head of the answer, per server.
    pub deadline: Duration,
}

impl Request {
    /// A GET that is answered within ten seconds.
    pub fn get(path: impl Into<String>) -> Self {
        Self {
            method: Method::GET,
            path: path.into(),
            headers: Vec::new(),
            body: Bytes::new(),
            deadline: Duration::from_secs(10),
        }
    }
    /// With another deadline.
    #[must_use]
    pub fn within(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }
    /// The answer may come packed (gzip); it is read with [`Answer::json`].
    #[must_use]
    pub fn packed(self) -> Self {
        self.with(header::ACCEPT_ENCODING, HeaderValue::from_static("gzip"))
    }
    /// With one more field.
    #[must_use]
    pub fn with(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.push((name, value));
        self
    }
}

/// A whole answer.
#[derive(Debug, Clone)]
pub struct Answer {
    /// What was asked, for messages: address and path without query.
    pub subject: String,
    /// Its status.
    pub status: StatusCode,
    /// Its fields.
    pub headers: HeaderMap,
    /// Its body.
    pub body: Bytes,
}

impl Answer {
    /// The answer when its status is 2xx, otherwise what the status means.
    pub fn good(self) -> Result<Self, SourceError> {
        if self.status.is_success() {
            return Ok(self);
        }
        Err(refused(
            self.status,
            &self.subject,
            &self.headers,
            &self.body,
        ))
    }
    /// The body as one JSON document, unpacked on the way where it came packed.
    pub fn json<'de, S: serde::de::DeserializeSeed<'de>>(
        &'de self,
        seed: S,
    ) -> Result<S::Value, SourceError> {
        json::read(self.field("content-encoding"), &self.body, seed).map_err(|what| {
            SourceError::Protocol {
                subject: self.subject.clone(),
                what,
            }
        })
    }
    /// A field as text.
    pub fn field(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok().map(str::trim)
    }
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    /// No address answers.
    #[error("cannot connect")]
    Connect(#[source] io::Error),
    /// The connection broke, or what came was no HTTP.
    #[error("the connection broke")]
    Broken(#[source] hyper::Error),
    /// Nothing came in time.
    #[error("no {0} in time")]
    Late(&'static str),
    /// The body is larger than [`MAX_BODY`].
    #[error("the answer is larger than {MAX_BODY} bytes")]
    TooLarge,
    /// A file with a credential or certificate cannot be used.
    #[error("{path}: {what}")]
    File {
        /// The file.
        path: String,
        /// What is wrong; never its content.
        what: String,
    },
    /// The request cannot be written.
    #[error("{0} cannot be asked")]
    Request(String),
}

impl HttpError {
    /// As the failure of a source that read `subject`.
    pub fn about(self, subject: &str) -> SourceError {
        let subject = subject.to_owned();
        match self {
            Self::Connect(cause) => SourceError::Transport { subject, cause },
            Self::File { path, what } => SourceError::Config(format!("{path}: {what}")),
            Self::Request(what) => SourceError::Config(format!("{what} cannot be asked")),
            Self::TooLarge => SourceError::Protocol {
                subject,
                what: self.to_string(),
            },
            Self::Late(_) => SourceError::Transport {
                subject,
                cause: io::Error::new(io::ErrorKind::TimedOut, self.to_string()),
            },
            Self::Broken(cause) => SourceError::Transport {
                subject,
                cause: io::Error::other(cause),
            },
        }
    }
}

/// What a status that is not 2xx means.
fn refused(status: StatusCode, subject: &str, headers: &HeaderMap, body: &[u8]) -> SourceError {
    if matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) {
        return SourceError::Auth(subject.to_owned());
    }
    let wait = headers
        .get(header::RETRY_AFTER)
        .and_then(|value| value.to_str().ok()?.trim().parse().ok());
    if status == StatusCode::TOO_MANY_REQUESTS || wait.is_some() {
        let retry_after = Duration::from_secs(wait.unwrap_or(1_u64).min(300));
        return SourceError::Throttled { retry_after };
    }
    let text: String = String::from_utf8_lossy(body).chars().take(160).collect();
    SourceError::Protocol {
        subject: subject.to_owned(),
        what: format!(
            "{} {}",
            status.as_u16(),
            text.replace(char::is_control, " ").trim()
        ),
    }
}

type Connection = SendRequest<Full<Bytes>>;

/// A client of one registry with one or more addresses. Connections are kept and used again.
#[derive(Debug)]
pub struct Client {
    targets: Vec<Target>,
    /// The address that answered last.
    good: AtomicUsize,
    secret: Secret,
    tls: Tls,
    idle: Mutex<Vec<(usize, u64, Connection)>>,
    tally: std::sync::Arc<Tally>,
    tracker: TaskTracker,
    stop: CancellationToken,
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
        let targets: Result<Vec<Target>, String> = access
            .addresses
            .iter()
            .map(|text| Target::new(text))
            .collect();
        let targets = targets.map_err(SourceError::Config)?;
        if targets.is_empty() {
            return Err(SourceError::Config("there is no address".into()));
        }
        let stop = CancellationToken::new();
        Ok(Self {
            targets,
            good: AtomicUsize::new(0),
            secret: Secret::new(access, credential),
            tls: Tls::new(&access.tls, pem),
            idle: Mutex::default(),
            tally: Tally::current(),
            tracker: TaskTracker::new(),
            _ends: stop.clone().drop_guard(),
            stop,
        })
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
        let (response, connection, generation) = response;
        let (parts, body) = response.into_parts();
        let body = whole(body).await.map_err(|error| error.about(&subject))?;
        self.keep(at, generation, connection);
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
        let (subject, _, (response, connection, _)) = self.head(request).await?;
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
        self.pool().clear();
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
        while let Some(mut connection) = self.idle(at, generation) {
            let sent =
                tokio::time::timeout_at(deadline, connection.send_request(built.clone())).await;
            match sent {
                Ok(Ok(response)) => return Ok((response, connection, generation)),
                Ok(Err(_)) if safe => {}
                Ok(Err(error)) => return Err(HttpError::Broken(error)),
                Err(_) => return Err(HttpError::Late("answer")),
            }
        }
        let dialled = tokio::time::timeout(CONNECT, Box::pin(dial::dial(target, &self.tls))).await;
        let (mut connection, driver) = dialled.map_err(|_late| HttpError::Late("connection"))??;
        let stop = self.stop.clone();
        self.tracker.spawn(async move {
            tokio::select! {
                () = stop.cancelled() => {}
                () = driver => {}
            }
        });
        match tokio::time::timeout_at(deadline, connection.send_request(built)).await {
            Ok(Ok(response)) => Ok((response, connection, generation)),
            Ok(Err(error)) => Err(HttpError::Broken(error)),
            Err(_) => Err(HttpError::Late("answer")),
        }
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

    fn idle(&self, at: usize, generation: u64) -> Option<Connection> {
        let mut pool = self.pool();
        pool.retain(|(_, made, connection)| *made == generation && !connection.is_closed());
        let place = pool
            .iter()
            .rposition(|(of, _, connection)| *of == at && connection.is_ready())?;
        Some(pool.swap_remove(place).2)
    }

    fn keep(&self, at: usize, generation: u64, connection: Connection) {
        let mut pool = self.pool();
        if pool.len() < MAX_IDLE && !connection.is_closed() {
            pool.push((at, generation, connection));
        }
    }

    fn pool(&self) -> std::sync::MutexGuard<'_, Vec<(usize, u64, Connection)>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An answer's head, its connection, and the certificates that the connection was made with.
type Answered = (http::Response<Incoming>, Connection, u64);

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
