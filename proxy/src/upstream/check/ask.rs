//! One health check: the way is that of requests, through the tunnel where there is one.
//!
//! Out: passed, failed, or undecided where the fault is not the endpoint's: a policy refuses this host, or it
//! has no certificate.

use std::{io, rc::Rc, sync::Arc};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Uri};
use mesh_model::{
    endpoint::TunnelKind,
    snapshot::{Backend, BackendEndpoint, Caller, traffic::Probe},
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::{
    io::Io,
    observe::fresh_id,
    upstream::{
        DialError, H2Handle, Inner, is_h2,
        multiplex::Road,
        once::{Answer, OnceError, once},
        place::Place,
    },
};

/// Most bytes that are read for the first line of an answer.
const LINE: usize = 1024;
/// Most bytes that are read of a gRPC answer.
const MESSAGE: usize = 4096;
/// What checks call themselves.
const AGENT: &str = "meshd-health-check";

/// Asks one endpoint; the caller bounds the time. `None`: undecided.
pub(super) async fn ask(
    inner: &Rc<Inner>,
    backend: &Backend,
    endpoint: &Arc<BackendEndpoint>,
    caller: &Caller,
    probe: &Probe,
) -> Option<bool> {
    let question = Question {
        inner,
        backend,
        endpoint,
        caller,
    };
    let asked = match probe {
        Probe::Tcp => match question.stream().await {
            Ok(_taken) => Ok(Some(true)),
            Err(error) => Err(error.into()),
        },
        Probe::Http {
            path,
            host,
            statuses,
        } => {
            let host = host.as_deref().unwrap_or(backend.service.name.as_str());
            question.http(path, host, statuses).await
        }
        Probe::Grpc { service } => question.grpc(service).await,
    };
    match asked {
        Ok(passed) => passed,
        Err(Unasked::Dial(error)) if error.blame().is_none() => None,
        Err(error) => {
            tracing::debug!(endpoint = %endpoint.id, %error, "a health check failed");
            Some(false)
        }
    }
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
enum Unasked {
    #[error("not reached")]
    Dial(#[from] DialError),
    #[error("the connection broke")]
    Io(#[from] io::Error),
    #[error("no answer")]
    Http2(#[from] OnceError),
    #[error("the question cannot be said in HTTP")]
    Words(#[from] http::Error),
}

struct Question<'q> {
    inner: &'q Rc<Inner>,
    backend: &'q Backend,
    endpoint: &'q Arc<BackendEndpoint>,
    caller: &'q Caller,
}

impl Question<'_> {
    async fn stream(&self) -> Result<Io, DialError> {
        let limit = self.backend.policy.connect_timeout;
        self.inner
            .stream(self.endpoint, self.caller, None, limit)
            .await
    }

    /// A shared connection: the mesh's own tunnel, or HTTP/2 straight to the program.
    async fn shared(&self) -> Result<H2Handle, DialError> {
        let (inner, endpoint) = (self.inner, self.endpoint);
        let place = match &endpoint.tunnel {
            Some(tunnel) if tunnel.kind == TunnelKind::Mesh => {
                let road = Road::requests(&self.caller.principal, tunnel);
                return inner.mesh(road, self.caller, tunnel).await;
            }
            Some(_) => Place::Behind(endpoint.key, self.caller.principal.clone()),
            None => Place::Endpoint(endpoint.key),
        };
        let open = || inner.open_http2(endpoint, self.caller, &self.backend.policy);
        inner.shared_h2(Road::Plain(place), open).await
    }

    async fn http(
        &self,
        path: &str,
        host: &str,
        statuses: &[u16],
    ) -> Result<Option<bool>, Unasked> {
        let tunnel = self.endpoint.tunnel.as_ref();
        let meshed = tunnel.is_some_and(|tunnel| tunnel.kind == TunnelKind::Mesh);
        let h2 = is_h2(self.backend.protocol) || self.backend.policy.upgrade_to_http2;
        let status = if meshed || h2 {
            let request = self.request(Method::GET, path, host, !is_h2(self.backend.protocol))?;
            let answer = self.send(request, None).await?;
            if is_denied(answer.head.headers()) {
                return Ok(None);
            }
            answer.head.status().as_u16()
        } else {
            first_line(self.stream().await?, path, host).await?
        };
        let passed = if statuses.is_empty() {
            (200..300).contains(&status)
        } else {
            statuses.contains(&status)
        };
        Ok(Some(passed))
    }

    async fn grpc(&self, service: &str) -> Result<Option<bool>, Unasked> {
        let host = self.backend.service.name.as_str();
        let path = "/grpc.health.v1.Health/Check";
        let mut request = self.request(Method::POST, path, host, false)?;
        let headers = request.headers_mut();
        headers.insert("content-type", HeaderValue::from_static("application/grpc"));
        headers.insert("te", HeaderValue::from_static("trailers"));
        let mut answer = self.send(request, Some(question(service))).await?;
        if is_denied(answer.head.headers()) {
            return Ok(None);
        }
        let message = message(&mut answer).await?;
        Ok(Some(is_serving(&message)))
    }

    fn request(
        &self,
        method: Method,
        path: &str,
        host: &str,
        http1: bool,
    ) -> Result<Request<()>, http::Error> {
        let uri = Uri::builder()
            .scheme("http")
            .authority(host)
            .path_and_query(path)
            .build()?;
        let mut request = Request::builder()
            .method(method)
            .uri(uri)
            .header("user-agent", AGENT);
        let tunnel = self.endpoint.tunnel.as_ref();
        if tunnel.is_some_and(|tunnel| tunnel.kind == TunnelKind::Mesh) {
            request = request
                .header("mesh-target", self.endpoint.address.port())
                .header("mesh-request-id", fresh_id())
                .header("mesh-http", if http1 { "1" } else { "2" });
        }
        request.body(())
    }

    async fn send(&self, request: Request<()>, body: Option<Bytes>) -> Result<Answer, Unasked> {
        let handle = self.shared().await?;
        Ok(once(handle, request, body).await?)
    }
}

/// The whole body of an answer, when it is short.
async fn message(answer: &mut Answer) -> Result<Vec<u8>, Unasked> {
    let mut message = Vec::new();
    while message.len() < MESSAGE
        && let Some(piece) = answer.piece().await?
    {
        message.extend_from_slice(&piece);
    }
    Ok(message)
}

/// True when the far daemon refuses this host: that says nothing of the program.
fn is_denied(headers: &HeaderMap) -> bool {
    let code = headers.get("mesh-error").map(HeaderValue::as_bytes);
    let code = code.and_then(|code| code.split(|byte| *byte == b';').next());
    matches!(code, Some(b"denied" | b"rate-limited" | b"overloaded"))
}

/// Asks over HTTP/1.1 on a connection of its own; the status of the answer.
async fn first_line(mut io: Io, path: &str, host: &str) -> Result<u16, Unasked> {
    let text = format!(
        "GET {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: {AGENT}\r\nConnection: close\r\n\r\n"
    );
    io.write_all(text.as_bytes()).await?;
    io.flush().await?;
    let mut line = Vec::new();
    while !line.contains(&b'\n') && line.len() < LINE {
        if io.read_buf(&mut line).await? == 0 {
            break;
        }
    }
    status_of(&line).ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData).into())
}

/// The status in an HTTP/1 status line.
fn status_of(line: &[u8]) -> Option<u16> {
    let rest = line
        .strip_prefix(b"HTTP/1.1 ")
        .or_else(|| line.strip_prefix(b"HTTP/1.0 "))?;
    let (digits, rest) = rest.split_at_checked(3)?;
    let ends = matches!(rest.first(), Some(b' ' | b'\r' | b'\n'));
    let text = std::str::from_utf8(digits).ok().filter(|_| ends)?;
    text.parse().ok().filter(|status| *status >= 100)
}

/// The lowest seven bits.
fn low(number: usize) -> u8 {
    u8::try_from(number & 0x7f).unwrap_or_default()
}

/// A `HealthCheckRequest` in its gRPC frame.
fn question(service: &str) -> Bytes {
    let mut message = Vec::with_capacity(service.len() + 12);
    if !service.is_empty() {
        message.push(0x0a);
        let mut length = service.len();
        while length >= 0x80 {
            message.push(low(length) | 0x80);
            length >>= 7;
        }
        message.push(low(length));
        message.extend_from_slice(service.as_bytes());
    }
    let mut frame = vec![0];
    frame.extend_from_slice(
        &u32::try_from(message.len())
            .unwrap_or_default()
            .to_be_bytes(),
    );
    frame.extend_from_slice(&message);
    frame.into()
}

/// Whether a frame holds a `HealthCheckResponse` whose status is SERVING.
fn is_serving(frame: &[u8]) -> bool {
    let Some((&[0, a, b, c, d], message)) = frame.split_first_chunk() else {
        return false;
    };
    let length = u32::from_be_bytes([a, b, c, d]) as usize;
    // One field, a number that is 1; unknown fields may follow.
    message
        .get(..length)
        .is_some_and(|message| message.starts_with(&[0x08, 0x01]))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn status_lines() {
        assert_eq!(status_of(b"HTTP/1.1 200 OK\r\n"), Some(200));
        assert_eq!(status_of(b"HTTP/1.0 503\r\n"), Some(503));
        for bad in [
            &b"HTTP/2 200 OK\r\n"[..],
            b"HTTP/1.1 20",
            b"HTTP/1.1 2000 OK",
            b"HTTP/1.1 099 No\r\n",
            b"SSH-2.0-x\r\n",
            b"",
        ] {
            assert_eq!(status_of(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn grpc_frames() {
        assert_eq!(&question("")[..], [0, 0, 0, 0, 0]);
        assert_eq!(&question("ab")[..], [0, 0, 0, 0, 4, 0x0a, 2, b'a', b'b']);
        let long = question(&"x".repeat(300));
        assert_eq!(long[5..8], [0x0a, 0xac, 0x02]);
        assert!(is_serving(&[0, 0, 0, 0, 2, 8, 1]));
        for not in [
            &[0, 0, 0, 0, 2, 8, 2][..],
            &[0, 0, 0, 0, 0],
            &[0, 0, 0, 0, 3, 8, 1],
            &[1, 0, 0, 0, 2, 8, 1],
            &[],
        ] {
            assert!(!is_serving(not), "{not:?}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes(bytes: Vec<u8>) {
            let _ = (status_of(&bytes), is_serving(&bytes));
        }
    }
}
