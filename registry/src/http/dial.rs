//! Addresses of a registry, and a connection to one.

use std::{future::Future, io, path::PathBuf, pin::Pin, time::Duration};

use bytes::Bytes;
use http_body_util::Full;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpStream, UnixStream},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{HttpError, tls::Tls};
use crate::source::SourceError;

/// A shared connection is asked for a sign of life this often, and must give it within half of that.
const PING: Duration = Duration::from_secs(10);
/// Bytes that one answer, and all of a shared connection, may be ahead of their readers.
const WINDOWS: (u32, u32) = (1 << 20, 16 << 20);

/// One address, read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Target {
    /// As a person reads it.
    pub(crate) text: String,
    /// The value of `Host`.
    pub(crate) authority: String,
    /// What stands before every path, without a slash at its end.
    pub(crate) prefix: String,
    pub(crate) place: Place,
}

/// Where the bytes go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Place {
    /// A host, and whether TLS is spoken.
    Tcp { host: String, port: u16, tls: bool },
    /// A socket in the file system.
    Unix(PathBuf),
}

impl Target {
    /// Reads `http://host[:port][/path]`, the same with `https`, or `unix:///path`.
    pub(crate) fn new(text: &str) -> Result<Self, String> {
        if let Some(path) = text.strip_prefix("unix://") {
            return Ok(Self {
                text: text.to_owned(),
                authority: "localhost".into(),
                prefix: String::new(),
                place: Place::Unix(PathBuf::from(path)),
            });
        }
        let wrong = || format!("{text:?} is no http, https or unix address");
        let uri: http::Uri = text.parse().map_err(|_invalid| wrong())?;
        let tls = match uri.scheme_str() {
            Some("http") => false,
            Some("https") => true,
            _ => return Err(wrong()),
        };
        let authority = uri.authority().ok_or_else(wrong)?;
        if authority.as_str().contains('@') {
            return Err("credentials belong into files, not into an address".into());
        }
        let host = authority.host().trim_matches(['[', ']']).to_owned();
        let port = authority.port_u16().unwrap_or(if tls { 443 } else { 80 });
        let prefix = uri.path().trim_end_matches('/').to_owned();
        Ok(Self {
            text: text.trim_end_matches('/').to_owned(),
            authority: authority.as_str().to_owned(),
            prefix,
            place: Place::Tcp { host, port, tls },
        })
    }
}

impl Target {
    /// Reads all addresses; there must be one.
    pub(crate) fn all(addresses: &[String]) -> Result<Vec<Self>, SourceError> {
        let targets: Result<Vec<Self>, String> =
            addresses.iter().map(|text| Self::new(text)).collect();
        let targets = targets.map_err(SourceError::Config)?;
        if targets.is_empty() {
            return Err(SourceError::Config("there is no address".into()));
        }
        Ok(targets)
    }
    /// True when TLS is spoken.
    pub(crate) fn is_secured(&self) -> bool {
        matches!(self.place, Place::Tcp { tls: true, .. })
    }
}

/// What moves the bytes of a connection until it ends.
pub(super) type Driver = Pin<Box<dyn Future<Output = ()> + Send>>;

/// What takes requests.
pub(super) enum Sender {
    /// One at a time.
    One(http1::SendRequest<Full<Bytes>>),
    /// Many.
    Many(http2::SendRequest<Full<Bytes>>),
}

impl Sender {
    /// True when it takes many requests at a time.
    pub(super) fn is_shared(&self) -> bool {
        matches!(self, Self::Many(_))
    }
}

/// Runs what connections do beside requests, until the client or the link that made them ends.
#[derive(Debug, Clone)]
pub(crate) struct Workers {
    pub(crate) tracker: TaskTracker,
    pub(crate) stop: CancellationToken,
}

impl<F> hyper::rt::Executor<F> for Workers
where
    F: Future + Send + 'static,
    F::Output: Send,
{
    fn execute(&self, work: F) {
        let stop = self.stop.clone();
        self.tracker.spawn(async move {
            tokio::select! {
                () = stop.cancelled() => {}
                _ = work => {}
            }
        });
    }
}

/// A new connection, and what drives it.
pub(super) async fn dial(
    target: &Target,
    tls: &Tls,
    workers: &Workers,
) -> Result<(Sender, Driver), HttpError> {
    match &target.place {
        Place::Unix(path) => {
            let stream = UnixStream::connect(path)
                .await
                .map_err(HttpError::Connect)?;
            single(stream).await
        }
        Place::Tcp {
            host,
            port,
            tls: secured,
        } => {
            let stream = TcpStream::connect((host.as_str(), *port))
                .await
                .map_err(HttpError::Connect)?;
            stream.set_nodelay(true).map_err(HttpError::Connect)?;
            if !*secured {
                return single(stream).await;
            }
            let stream = tls.secure(host, stream).await?;
            if stream.get_ref().1.alpn_protocol() == Some(b"h2") {
                Box::pin(shared(stream, workers)).await
            } else {
                single(stream).await
            }
        }
    }
}

async fn single<S>(stream: S) -> Result<(Sender, Driver), HttpError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let made = http1::Builder::new()
        .max_headers(128)
        .handshake(TokioIo::new(stream))
        .await;
    let (sender, connection) = made.map_err(|error| HttpError::Connect(io::Error::other(error)))?;
    // Its error reaches the request that is under way.
    let driver = Box::pin(async move { drop(connection.await) });
    Ok((Sender::One(sender), driver))
}

async fn shared<S>(stream: S, workers: &Workers) -> Result<(Sender, Driver), HttpError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let made = http2::Builder::new(workers.clone())
        .timer(TokioTimer::new())
        .keep_alive_interval(PING)
        .keep_alive_timeout(PING / 2)
        .keep_alive_while_idle(true)
        .initial_stream_window_size(WINDOWS.0)
        .initial_connection_window_size(WINDOWS.1)
        .handshake(TokioIo::new(stream))
        .await;
    let (sender, connection) = made.map_err(|error| HttpError::Connect(io::Error::other(error)))?;
    let driver = Box::pin(async move { drop(connection.await) });
    Ok((Sender::Many(sender), driver))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        let at = |text| Target::new(text).unwrap();
        assert_eq!(
            at("https://[::1]:8501/consul/").place,
            Place::Tcp {
                host: "::1".into(),
                port: 8501,
                tls: true
            }
        );
        assert_eq!(at("https://[::1]:8501/consul/").prefix, "/consul");
        assert_eq!(
            at("http://a").place,
            Place::Tcp {
                host: "a".into(),
                port: 80,
                tls: false
            }
        );
        assert_eq!(
            at("unix:///run/c.sock").place,
            Place::Unix("/run/c.sock".into())
        );
        assert!(Target::new("http://u:p@h").unwrap_err().contains("files"));
        assert!(!Target::new("http://u:p@h").unwrap_err().contains("u:p"));
        assert!(Target::new("ftp://h").is_err());
    }
}
