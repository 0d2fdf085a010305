//! Our reading of HTTP/1 beside hyper's: we may be stricter, never laxer, and where both accept, method, target,
//! place, framing and body agree.
//!
//! Where hyper is stricter, by decision (`docs/wire.md`): a minor version above 1, and targets that the `http`
//! crate cannot hold. Those requests end the comparison.

use std::{
    convert::Infallible,
    future::Future,
    pin::{Pin, pin},
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty};
use hyper::{
    Request, Response,
    body::Incoming,
    header::{CONTENT_LENGTH, HOST, TRANSFER_ENCODING},
    rt::{Read, ReadBufCursor, Write},
    server::conn::http1,
    service::service_fn,
};
use mesh_proxy::fuzz::{End, Whole, http1_requests};

/// A request as hyper read it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Seen {
    method: String,
    target: String,
    authority: Option<String>,
    http10: bool,
    chunked: bool,
    length: Option<u64>,
    body: Vec<u8>,
    trailers: usize,
}

/// Compares; panics where the readings differ.
pub fn judge(bytes: &[u8]) {
    let (ours, end) = http1_requests(bytes, usize::MAX);
    if ours.is_empty() {
        return;
    }
    let (theirs, failed) = hyper_reads(bytes);
    for (index, own) in ours.iter().enumerate() {
        let Some(their) = theirs.get(index) else {
            assert!(
                !failed || is_documented(bytes, own),
                "hyper refuses what we accept: {own:?}"
            );
            // It ended the connection after the one before, or cannot hold this one.
            return;
        };
        compare(own, their);
        if own.method == "CONNECT" {
            return;
        }
    }
    // What we refuse it may accept: we are the stricter ones.
    let _stricter = end != End::Between && theirs.len() > ours.len();
}

fn compare(own: &Whole, their: &Seen) {
    assert_eq!(own.method, their.method);
    assert_eq!(own.http10, their.http10, "{own:?} {their:?}");
    assert_eq!(own.body, their.body, "{own:?} {their:?}");
    assert_eq!(own.chunked, their.chunked, "{own:?} {their:?}");
    assert_eq!(
        own.length,
        their.length.filter(|length| *length > 0),
        "{own:?} {their:?}"
    );
    // Of OPTIONS the absolute form without a path is the asterisk (RFC 9112 section 3.2.4), with `/` it is that path;
    // the `http` crate reads both as `/`.
    let asked_the_server = own.absolute && own.method == "OPTIONS" && own.target == "*";
    let target = if asked_the_server { "/" } else { &own.target };
    assert_eq!(escaped(target), escaped(&their.target), "{own:?} {their:?}");
    if own.method != "CONNECT" {
        assert_eq!(own.authority, their.authority, "{own:?} {their:?}");
    }
    assert!(own.trailers <= their.trailers, "{own:?} {their:?}");
}

/// Loose bytes are escaped on our side only.
fn escaped(target: &str) -> String {
    let mut out = String::with_capacity(target.len());
    for byte in target.bytes() {
        if byte > 0x7f || b"\"<>\\^`{|}".contains(&byte) {
            let digits = |half: u8| char::from_digit(u32::from(half), 16).unwrap_or('0');
            out.push('%');
            out.push(digits(byte >> 4).to_ascii_uppercase());
            out.push(digits(byte & 15).to_ascii_uppercase());
        } else {
            out.push(char::from(byte));
        }
    }
    out
}

/// Where hyper is stricter by decision: minor versions, and what the `http` crate cannot hold.
fn is_documented(bytes: &[u8], own: &Whole) -> bool {
    let is_loose = |byte: &u8| *byte > 0x7f || b"\"<>\\^`{|}".contains(byte);
    let begins = [own.method.as_bytes(), b" "].concat();
    let line = bytes
        .split(|byte| *byte == b'\n')
        .filter(|line| line.windows(begins.len()).any(|word| word == begins))
        .any(|line| {
            let minor = line
                .split(|byte| *byte == b' ')
                .next_back()
                .unwrap_or_default();
            line.iter().any(is_loose)
                || matches!(
                    minor,
                    [b'H', b'T', b'T', b'P', b'/', b'1', b'.', b'2'..=b'9', b'\r']
                )
        });
    let target = own.target.parse::<http::Uri>().is_err();
    let place = own
        .authority
        .as_deref()
        .is_some_and(|place| place.parse::<http::uri::Authority>().is_err());
    line || target || place
}

/// Lets hyper serve the bytes; the whole requests that it saw, and whether it refused something.
fn hyper_reads(bytes: &[u8]) -> (Vec<Seen>, bool) {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let service = service_fn(|request: Request<Incoming>| {
        let seen = Arc::clone(&seen);
        async move {
            if let Some(whole) = collect(request).await {
                seen.lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .push(whole);
            }
            Ok::<_, Infallible>(Response::new(Empty::<Bytes>::new()))
        }
    });
    let io = Bytewise { left: bytes };
    let mut connection = pin!(
        http1::Builder::new()
            .half_close(true)
            .serve_connection(io, service)
    );
    let mut cx = Context::from_waker(Waker::noop());
    // Everything is always ready: it ends, or waits for nothing that could come.
    let mut failed = false;
    for _ in 0..10_000 {
        if let Poll::Ready(ended) = connection.as_mut().poll(&mut cx) {
            failed = ended.is_err();
            break;
        }
    }
    let seen = seen.lock().unwrap_or_else(PoisonError::into_inner).clone();
    (seen, failed)
}

/// The request with its whole body; `None` when that is cut or malformed.
async fn collect(request: Request<Incoming>) -> Option<Seen> {
    let (parts, body) = request.into_parts();
    let body = body.collect().await.ok()?;
    let host = parts
        .headers
        .get(HOST)
        .map(|host| String::from_utf8_lossy(host.as_bytes()).into_owned());
    let authority = parts.uri.authority().map(|place| place.as_str().to_owned());
    let target = match parts.uri.path_and_query() {
        _ if parts.method == http::Method::CONNECT => authority.clone().unwrap_or_default(),
        // Printed, the path of `http://host?query` is `/` (RFC 9110 section 4.2.3).
        Some(target) => target.to_string(),
        None => String::new(),
    };
    let trailers = body.trailers().map_or(0, http::HeaderMap::len);
    Some(Seen {
        method: parts.method.as_str().to_owned(),
        target,
        authority: authority.or(host),
        http10: parts.version == http::Version::HTTP_10,
        chunked: parts.headers.contains_key(TRANSFER_ENCODING),
        length: parts
            .headers
            .get(CONTENT_LENGTH)
            .and_then(|length| length.to_str().ok()?.parse().ok()),
        body: body.to_bytes().to_vec(),
        trailers,
    })
}

/// The bytes, and then the end; what is written is thrown away.
struct Bytewise<'b> {
    left: &'b [u8],
}

impl Read for Bytewise<'_> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _cx: &mut Context<'_>,
        mut buf: ReadBufCursor<'_>,
    ) -> Poll<std::io::Result<()>> {
        let count = self.left.len().min(buf.remaining());
        let (now, later) = self.left.split_at_checked(count).unwrap_or_default();
        buf.put_slice(now);
        self.left = later;
        Poll::Ready(Ok(()))
    }
}

impl Write for Bytewise<'_> {
    fn poll_write(
        self: Pin<&mut Self>,
        _cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        Poll::Ready(Ok(bytes.len()))
    }
    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }
    fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
