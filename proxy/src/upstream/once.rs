//! One request over a shared connection, apart from all others: a health check's.

use std::future::poll_fn;

use bytes::Bytes;
use h2::RecvStream;
use http::{HeaderName, HeaderValue, Request, Response, StatusCode};

use super::{H2Handle, Speaker};
use crate::link::{self, Broken, head};

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum OnceError {
    /// With the `h2` crate.
    #[error("the stream broke")]
    Other(#[from] h2::Error),
    /// On a link.
    #[error("the stream broke")]
    Linked(#[from] Broken),
    /// The other end takes no further streams.
    #[error("the connection takes no further streams")]
    Closed,
    /// The answer's head breaks a rule.
    #[error("the answer's head is malformed")]
    Malformed,
}

/// An answer.
#[derive(Debug)]
pub(super) struct Answer {
    /// Its head.
    pub(super) head: Response<()>,
    body: Body,
    /// The right on the connection.
    _handle: H2Handle,
}

#[derive(Debug)]
enum Body {
    Other(RecvStream),
    Linked(link::Stream),
}

/// Asks; the caller bounds the time.
pub(super) async fn once(
    handle: H2Handle,
    request: Request<()>,
    body: Option<Bytes>,
) -> Result<Answer, OnceError> {
    let (head, body) = match &handle.send {
        Speaker::Other(send) => {
            let mut send = send.clone().ready().await?;
            let (answer, mut stream) = send.send_request(request, body.is_none())?;
            if let Some(body) = body {
                stream.send_data(body, true)?;
            }
            let (head, body) = answer.await?.into_parts();
            (Response::from_parts(head, ()), Body::Other(body))
        }
        Speaker::Link(link) => {
            let opened = link.open(body.is_none(), |fields| write(&request, fields));
            let stream = opened.ok_or(OnceError::Closed)?;
            if let Some(mut body) = body {
                while !body.is_empty() {
                    let room = poll_fn(|cx| stream.poll_room(cx, body.len())).await?;
                    let piece = body.split_to(room);
                    stream.send(piece, body.is_empty());
                }
            }
            (final_head(&stream).await?, Body::Linked(stream))
        }
    };
    Ok(Answer {
        head,
        body,
        _handle: handle,
    })
}

fn write(request: &Request<()>, fields: &mut link::Fields<'_>) {
    let uri = request.uri();
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let place = uri.authority().map_or("", |place| place.as_str());
    fields.field(b":method", request.method().as_str().as_bytes());
    fields.field(b":scheme", b"http");
    fields.field(b":authority", place.as_bytes());
    fields.field(b":path", path.as_bytes());
    for (name, value) in request.headers() {
        fields.once(name.as_str().as_bytes(), value.as_bytes());
    }
}

/// The head of the answer that is no interim one.
async fn final_head(stream: &link::Stream) -> Result<Response<()>, OnceError> {
    loop {
        let found = poll_fn(|cx| stream.poll_head(cx)).await?;
        let read = read(&found);
        head::put(found);
        let head = read.ok_or(OnceError::Malformed)?;
        if !head.status().is_informational() {
            return Ok(head);
        }
    }
}

fn read(found: &link::Head) -> Option<Response<()>> {
    let mut head = Response::new(());
    *head.status_mut() = StatusCode::from_bytes(found.value(b":status")?).ok()?;
    for (name, value) in found.iter().filter(|(name, _)| !name.starts_with(b":")) {
        let name = HeaderName::from_bytes(name).ok()?;
        let value = HeaderValue::from_bytes(value).ok()?;
        head.headers_mut().append(name, value);
    }
    Some(head)
}

impl Answer {
    /// The next piece of the body; `None` at its end.
    pub(super) async fn piece(&mut self) -> Result<Option<Bytes>, OnceError> {
        match &mut self.body {
            Body::Other(body) => {
                let piece = body.data().await.transpose()?;
                if let Some(piece) = &piece {
                    body.flow_control().release_capacity(piece.len())?;
                }
                Ok(piece)
            }
            Body::Linked(stream) => {
                let piece = poll_fn(|cx| stream.poll_piece(cx)).await?;
                if let Some(piece) = &piece {
                    stream.release(piece.len());
                }
                Ok(piece)
            }
        }
    }
}
