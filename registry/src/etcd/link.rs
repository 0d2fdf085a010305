//! A connection to one member of etcd, for the etcd client to speak on.
//!
//! In: addresses, certificates and credentials in files. Out: a `Link` with keepalive, or why none of the
//! addresses gives one. Files are read again for every connection. Never: waits without a deadline for a
//! connection, or goes on with a member that answers no ping.

use std::{io, path::Path, sync::Arc, time::Duration};

use etcd_client::{Channel, ConnectOptions};
use http::{HeaderName, Uri, uri::Scheme};
use hyper::{
    body::Incoming,
    client::conn::http2::{self, SendRequest},
    rt::Executor,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use mesh_model::config::Access;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    time::timeout,
};
use tokio_util::{
    sync::{CancellationToken, DropGuard},
    task::TaskTracker,
};
use tonic::body::Body;
use tower::{ServiceExt, service_fn, util::BoxCloneSyncService};

use super::failure::{failed, is_without_auth};
use crate::{
    http::{
        Credential, HttpError,
        dial::{Place, Target, Workers},
        secret::{self, Secret},
        tls::{Pem, Tls},
    },
    source::SourceError,
    tally::Tally,
};

/// For a connection, TLS included.
const CONNECT: Duration = Duration::from_secs(2);
/// For one question.
pub(crate) const ANSWER: Duration = Duration::from_secs(5);
/// Between two pings, and for the answer of one. A server takes no more than one in five seconds.
const PING: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(3));
/// What may be under way unread: of one stream, and of the connection.
const WINDOW: (u32, u32) = (1 << 20, 4 << 20);
/// Most bytes of one message.
pub(crate) const MAX_MESSAGE: usize = crate::http::MAX_BODY;

/// Opens connections.
#[derive(Debug)]
pub(crate) struct Dialer {
    targets: Vec<Target>,
    /// The member to begin with.
    next: usize,
    tls: Tls,
    access: Access,
    tracker: TaskTracker,
}

/// A connection. It ends when this is dropped.
pub(crate) struct Link {
    /// Speaks on it.
    pub(crate) client: etcd_client::Client,
    /// The member, for messages.
    pub(crate) subject: String,
    _ends: DropGuard,
}

impl Dialer {
    /// Nothing is dialled or read yet.
    pub(crate) fn new(access: &Access) -> Result<Self, SourceError> {
        let targets = Target::all(&access.addresses)?;
        Ok(Self {
            targets,
            next: 0,
            tls: Tls::new(&access.tls, Pem::default()).speaking(&["h2"]),
            access: access.clone(),
            tracker: TaskTracker::new(),
        })
    }

    /// The first member that can be spoken to, the good one first. After a failure of the link call
    /// [`Dialer::leave`].
    pub(crate) async fn connect(&mut self) -> Result<Link, SourceError> {
        let count = self.targets.len();
        let mut failure = None;
        for step in 0..count {
            let at = (self.next + step) % count;
            let Some(target) = self.targets.get(at) else {
                continue;
            };
            match Box::pin(self.open(target)).await {
                Ok(link) => {
                    self.next = at;
                    return Ok(link);
                }
                // What a member says of the credentials counts more than that another one is away.
                Err(error @ SourceError::Auth(_)) => failure = Some(error),
                Err(error) => {
                    failure.get_or_insert(error);
                }
            }
        }
        Err(failure.unwrap_or_else(|| SourceError::Config("there is no address".into())))
    }

    /// The next connection begins with the next member.
    pub(crate) fn leave(&mut self) {
        self.next = (self.next + 1) % self.targets.len().max(1);
    }

    async fn open(&self, target: &Target) -> Result<Link, SourceError> {
        let stop = CancellationToken::new();
        let ends = stop.clone().drop_guard();
        let work = Workers {
            tracker: self.tracker.clone(),
            stop,
        };
        let about = |error: HttpError| error.about(&target.text);
        let dialled = timeout(CONNECT, Box::pin(dial(target, &self.tls, work)));
        let sender = dialled
            .await
            .map_err(|_late| about(HttpError::Late("connection")))?;
        let sender = sender.map_err(about)?;
        let token = Secret::new(
            &Access {
                password_file: None,
                ..self.access.clone()
            },
            Credential::Field(HeaderName::from_static("token")),
        );
        let field = token.field().map_err(about)?;
        let channel = channel(target, sender, field);
        let user = match (&self.access.username, &self.access.password_file) {
            (Some(name), Some(file)) => Some((name.clone(), password(file).await.map_err(about)?)),
            _ => None,
        };
        let client = match Box::pin(greet(channel.clone(), user)).await {
            Err(error) if is_without_auth(&error) => Box::pin(greet(channel, None)).await,
            other => other,
        };
        Ok(Link {
            client: client.map_err(|error| failed(&target.text, error))?,
            subject: target.text.clone(),
            _ends: ends,
        })
    }
}

async fn password(file: &Path) -> Result<String, HttpError> {
    let path = file.to_owned();
    let read = tokio::task::spawn_blocking(move || secret::text(&path)).await;
    read.unwrap_or_else(|_panic| Err(HttpError::Late("password")))
}

/// A client; with a user, a token has been asked for.
async fn greet(
    channel: Channel,
    user: Option<(String, String)>,
) -> Result<etcd_client::Client, etcd_client::Error> {
    let mut options = ConnectOptions::new()
        .with_require_leader(true)
        .with_auto_token_refresh(true);
    if let Some((name, password)) = user {
        options = options.with_user(name, password);
    }
    let client = etcd_client::Client::from_channel(channel, Some(options));
    timeout(ANSWER, Box::pin(client))
        .await
        .unwrap_or_else(|_late| Err(etcd_client::Error::IoError(io::ErrorKind::TimedOut.into())))
}

/// The connection as the client takes it: every request gets its place and the token of a file.
fn channel(
    target: &Target,
    sender: SendRequest<Body>,
    token: Option<(HeaderName, http::HeaderValue)>,
) -> Channel {
    let scheme = if target.is_secured() {
        Scheme::HTTPS
    } else {
        Scheme::HTTP
    };
    let (authority, prefix) = (target.authority.clone(), target.prefix.clone());
    let tally = Tally::current();
    let service = service_fn(move |mut request: http::Request<Body>| {
        let (mut sender, tally) = (sender.clone(), Arc::clone(&tally));
        let path = format!("{prefix}{}", request.uri().path());
        let uri = Uri::builder()
            .scheme(scheme.clone())
            .authority(&*authority)
            .path_and_query(path)
            .build();
        if let Some((name, value)) = token.clone() {
            request.headers_mut().insert(name, value);
        }
        async move {
            *request.uri_mut() = uri?;
            let answer = sender.send_request(request).await;
            tally.request(answer.as_ref().map_or(0, told));
            Ok::<_, tower::BoxError>(answer?.map(Body::new))
        }
    });
    Channel::Custom(BoxCloneSyncService::new(
        service.map_err(tower::BoxError::from),
    ))
}

/// The code of a refusal (gRPC's), otherwise the status.
fn told(answer: &http::Response<Incoming>) -> u16 {
    let code = answer
        .headers()
        .get("grpc-status")
        .and_then(|code| code.to_str().ok()?.parse().ok());
    code.filter(|code| *code != 0)
        .unwrap_or_else(|| answer.status().as_u16())
}

async fn dial(target: &Target, tls: &Tls, work: Workers) -> Result<SendRequest<Body>, HttpError> {
    let Place::Tcp {
        host,
        port,
        tls: secured,
    } = &target.place
    else {
        return Err(HttpError::Request(target.text.clone()));
    };
    let stream = TcpStream::connect((host.as_str(), *port))
        .await
        .map_err(HttpError::Connect)?;
    stream.set_nodelay(true).map_err(HttpError::Connect)?;
    if *secured {
        let secured = Box::pin(tls.secure(host, stream)).await?;
        Box::pin(shake(secured, work)).await
    } else {
        shake(stream, work).await
    }
}

async fn shake<S>(stream: S, work: Workers) -> Result<SendRequest<Body>, HttpError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let made = http2::Builder::new(work.clone())
        .timer(TokioTimer::new())
        .keep_alive_interval(PING.0)
        .keep_alive_timeout(PING.1)
        .keep_alive_while_idle(true)
        .initial_stream_window_size(WINDOW.0)
        .initial_connection_window_size(WINDOW.1)
        .handshake(TokioIo::new(stream))
        .await;
    let (sender, connection) = made.map_err(|error| HttpError::Connect(io::Error::other(error)))?;
    // Its error reaches the requests that are under way.
    work.execute(async move { drop(connection.await) });
    Ok(sender)
}
