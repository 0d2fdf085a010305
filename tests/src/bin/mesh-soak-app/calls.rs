//! One checked call over a connection, in HTTP/1.1 or HTTP/2.

use std::time::Duration;

use anyhow::{Context as _, bail};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, StreamBody, combinators::BoxBody};
use hyper::{
    Method, Request, Response,
    body::{Frame, Incoming},
    client::conn::{http1, http2},
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;

use crate::pattern;

/// What is asked.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Ask {
    /// An answer of so many bytes.
    Get(usize),
    /// The same, read slowly.
    Slowly(usize),
    /// A body of so many bytes, with or without its length announced.
    Post(usize, bool),
}

/// How a call ended.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// As it should.
    Right,
    /// With a status that is not the server's own success; the `mesh-error` header, if any.
    Refused(u16, Option<String>),
    /// Without a whole answer.
    Cut(String),
    /// With an answer that is not the one for this request.
    Wrong(String),
}

type Body = BoxBody<Bytes, std::io::Error>;

/// A connection.
#[derive(Debug)]
pub(crate) enum Connection {
    H1(http1::SendRequest<Body>),
    H2(http2::SendRequest<Body>),
}

impl Connection {
    /// Connects.
    pub(crate) async fn open(place: &str, h2: bool) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(place)
            .await
            .with_context(|| format!("cannot connect to {place}"))?;
        stream.set_nodelay(true)?;
        let io = TokioIo::new(stream);
        if h2 {
            let (sender, driver) = http2::handshake(TokioExecutor::new(), io).await?;
            tokio::task::spawn_local(async move { drop(driver.await) });
            Ok(Self::H2(sender))
        } else {
            let (sender, driver) = http1::handshake(io).await?;
            tokio::task::spawn_local(async move { drop(driver.await) });
            Ok(Self::H1(sender))
        }
    }

    /// True while another call may be made on it.
    pub(crate) async fn usable(&mut self) -> bool {
        match self {
            Self::H1(sender) => sender.ready().await.is_ok(),
            Self::H2(sender) => sender.ready().await.is_ok(),
        }
    }

    async fn send(&mut self, request: Request<Body>) -> anyhow::Result<Response<Incoming>> {
        Ok(match self {
            Self::H1(sender) => {
                sender.ready().await?;
                sender.send_request(request).await?
            }
            Self::H2(sender) => {
                sender.ready().await?;
                sender.send_request(request).await?
            }
        })
    }

    /// One call; a connection whose call was cut is not used again.
    pub(crate) async fn call(&mut self, host: &str, path: &str, id: &str, ask: Ask) -> Outcome {
        match self.checked(host, path, id, ask).await {
            Ok(outcome) => outcome,
            Err(error) => Outcome::Cut(format!("{error:#}")),
        }
    }

    async fn checked(
        &mut self,
        host: &str,
        path: &str,
        id: &str,
        ask: Ask,
    ) -> anyhow::Result<Outcome> {
        let request = self.request(host, path, id, ask)?;
        let answer = self.send(request).await?;
        let status = answer.status().as_u16();
        let named = |name: &str| {
            let value = answer.headers().get(name)?;
            value.to_str().ok().map(str::to_owned)
        };
        if status != 200 {
            let named = named("mesh-error");
            drop(answer.into_body().collect().await);
            return Ok(Outcome::Refused(status, named));
        }
        if named("soak-path").as_deref() != Some(path) {
            return Ok(Outcome::Wrong(format!(
                "{path} was answered as {:?}",
                named("soak-path")
            )));
        }
        let body = answer.into_body();
        match ask {
            Ask::Get(count) => matches(body, id, count, None).await,
            Ask::Slowly(count) => matches(body, id, count, Some(Duration::from_millis(20))).await,
            Ask::Post(count, _) => {
                let text = body.collect().await?.to_bytes();
                let sum = pattern::sum(&pattern::bytes(id, 0, count), pattern::START);
                let wanted = format!("{count} {sum:016x}");
                if *text == *wanted.as_bytes() {
                    Ok(Outcome::Right)
                } else {
                    let text = String::from_utf8_lossy(&text);
                    Ok(Outcome::Wrong(format!("{path}: {text}, not {wanted}")))
                }
            }
        }
    }

    fn request(&self, host: &str, path: &str, id: &str, ask: Ask) -> anyhow::Result<Request<Body>> {
        let uri = match self {
            Self::H1(_) => path.to_owned(),
            Self::H2(_) => format!("http://{host}{path}"),
        };
        let mut request = Request::builder().uri(uri);
        if matches!(self, Self::H1(_)) {
            request = request.header("host", host);
        }
        let (method, body) = match ask {
            Ask::Get(_) | Ask::Slowly(_) => (Method::GET, whole(Vec::new())),
            Ask::Post(count, true) => (Method::POST, whole(pattern::bytes(id, 0, count))),
            Ask::Post(count, false) => (Method::POST, pieces(&pattern::bytes(id, 0, count))),
        };
        Ok(request.method(method).body(body)?)
    }
}

fn whole(bytes: Vec<u8>) -> Body {
    Full::new(Bytes::from(bytes))
        .map_err(std::io::Error::other)
        .boxed()
}

/// A body without a length: chunked in HTTP/1.1.
fn pieces(bytes: &[u8]) -> Body {
    let frames: Vec<_> = bytes
        .chunks(7_001)
        .map(|piece| Ok(Frame::data(Bytes::copy_from_slice(piece))))
        .collect();
    StreamBody::new(futures_util::stream::iter(frames)).boxed()
}

/// Reads a body and compares each byte.
async fn matches(
    mut body: Incoming,
    id: &str,
    count: usize,
    pause: Option<Duration>,
) -> anyhow::Result<Outcome> {
    let mut place = 0;
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame?.into_data() else {
            continue;
        };
        if place + data.len() > count || *data != *pattern::bytes(id, place, data.len()) {
            return Ok(Outcome::Wrong(format!("{id}: other bytes from {place} on")));
        }
        place += data.len();
        if let Some(pause) = pause {
            tokio::time::sleep(pause).await;
        }
    }
    if place != count {
        // An answer whose length was announced and that ended early is an error of the connection, not an end.
        bail!("{place} of {count} bytes");
    }
    Ok(Outcome::Right)
}
