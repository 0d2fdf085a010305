//! Addresses of a registry, and a connection to one.

use std::{future::Future, io, path::PathBuf, pin::Pin};

use bytes::Bytes;
use http_body_util::Full;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpStream, UnixStream},
};

use super::{HttpError, tls::Tls};

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
    /// True when TLS is spoken.
    pub(crate) fn is_secured(&self) -> bool {
        matches!(self.place, Place::Tcp { tls: true, .. })
    }
}

/// What moves the bytes of a connection until it ends.
pub(super) type Driver = Pin<Box<dyn Future<Output = ()> + Send>>;

/// A new connection, and what drives it.
pub(super) async fn dial(
    target: &Target,
    tls: &Tls,
) -> Result<(SendRequest<Full<Bytes>>, Driver), HttpError> {
    match &target.place {
        Place::Unix(path) => {
            let stream = UnixStream::connect(path)
                .await
                .map_err(HttpError::Connect)?;
            shake(stream).await
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
            if *secured {
                shake(tls.secure(host, stream).await?).await
            } else {
                shake(stream).await
            }
        }
    }
}

async fn shake<S>(stream: S) -> Result<(SendRequest<Full<Bytes>>, Driver), HttpError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let made = http1::Builder::new()
        .max_headers(128)
        .handshake(TokioIo::new(stream))
        .await;
    let (sender, connection) = made.map_err(|error| HttpError::Connect(io::Error::other(error)))?;
    // Its error reaches the request that is under way.
    Ok((sender, Box::pin(async move { drop(connection.await) })))
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
