//! Heads of requests and answers in the form that every part of the HTTP data plane uses.
//!
//! In: the bytes of an HTTP/1 head, or an HTTP/2 head. Out: what rules, filters and both writers need.
//! Never: framing bytes of the side that it came from.

use std::borrow::Cow;

use bytes::BytesMut;
use mesh_model::snapshot::decide::RequestView;

use super::{
    fields::{Fields, Known, Span},
    octet,
    path::{self, PathError},
};

/// The version of HTTP that a message came in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Version {
    /// HTTP/1.0
    Http10,
    /// HTTP/1.1
    #[default]
    Http11,
    /// HTTP/2
    Http2,
}

/// How the body is delimited.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Framing {
    /// There is none.
    #[default]
    None,
    /// By its length, which is not 0.
    Length(u64),
    /// By itself: chunks, or HTTP/2 frames without a length.
    Streamed,
    /// By the end of the connection (answers only).
    Close,
}

/// The form of the request target (RFC 9112 section 3.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Form {
    /// `/path`
    #[default]
    Origin,
    /// `http://host/path`
    Absolute,
    /// `host:port`, for CONNECT
    Authority,
    /// `*`, for OPTIONS
    Asterisk,
}

/// What a request's `connection` and similar fields say, and what its head declares.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[expect(clippy::struct_excessive_bools, reason = "each is one wish")]
pub(crate) struct Wishes {
    /// The connection may serve another request.
    pub persistent: bool,
    /// `expect: 100-continue`
    pub expects_continue: bool,
    /// `te: trailers`
    pub takes_trailers: bool,
    /// The content type is gRPC's.
    pub grpc: bool,
}

/// The head of a request.
#[derive(Debug, Default, Clone)]
pub(crate) struct Request {
    /// The fields, and the store of all text.
    pub fields: Fields,
    /// As it came in.
    pub version: Version,
    /// The form of its target.
    pub form: Form,
    /// How its body is delimited.
    pub framing: Framing,
    /// What it asks of this hop.
    pub wishes: Wishes,
    /// The protocol that it wants to change to.
    pub upgrade: Option<Span>,
    /// It came as an extended CONNECT (RFC 8441): any 2xx would mean that the protocol was changed.
    pub extended: bool,
    /// The Websocket key that the mesh made, because the caller's HTTP has none.
    pub own_key: Option<Span>,
    method: Span,
    authority: Option<Span>,
    path: Span,
    query: Option<Span>,
    normal: Option<Span>,
}

/// The head of an answer.
#[derive(Debug, Default)]
pub(crate) struct Response {
    /// The fields, and the store of all text.
    pub fields: Fields,
    /// As it came in.
    pub version: Version,
    /// 100 to 599.
    pub status: u16,
    /// How its body is delimited.
    pub framing: Framing,
    /// The connection may serve another request.
    pub persistent: bool,
    /// The length that an answer without a body tells (HEAD, 304).
    pub told_length: Option<u64>,
    /// The protocol that a 101 changes to.
    pub upgrade: Option<Span>,
    /// The content type is gRPC's.
    pub grpc: bool,
    /// It answers HEAD.
    pub answers_head: bool,
    reason: Span,
}

impl Request {
    /// Forgets everything and keeps the memory.
    pub(crate) fn clear(&mut self) {
        let mut fields = std::mem::take(&mut self.fields);
        fields.clear();
        *self = Self {
            fields,
            ..Self::default()
        };
    }

    /// The `host` or `:authority`, as it will be sent.
    pub(crate) fn authority(&self) -> Option<&str> {
        self.authority.map(|span| self.fields.str_at(span))
    }

    /// The method, as bytes: to compare it and to send it there is no need to look whether it is UTF-8.
    pub(crate) fn method_bytes(&self) -> &[u8] {
        self.fields.at(self.method)
    }

    /// Writes path and query.
    pub(crate) fn write_target(&self, out: &mut BytesMut) {
        out.extend_from_slice(self.fields.at(self.path));
        if let Some(query) = self.query {
            out.extend_from_slice(b"?");
            out.extend_from_slice(self.fields.at(query));
        }
    }

    /// The path as it will be sent.
    pub(crate) fn raw_path(&self) -> &str {
        self.fields.str_at(self.path)
    }

    /// The query as it will be sent; an empty one differs from none.
    pub(crate) fn raw_query(&self) -> Option<&str> {
        self.query.map(|span| self.fields.str_at(span))
    }

    /// The protocol to change to.
    pub(crate) fn upgrade_name(&self) -> Option<&str> {
        self.upgrade.map(|span| self.fields.str_at(span))
    }

    /// Sets the method; the text must be a token.
    pub(crate) fn set_method(&mut self, method: &[u8]) {
        self.method = self.fields.store(method);
    }

    /// Sets the authority.
    pub(crate) fn set_authority(&mut self, authority: &[u8]) {
        self.authority = Some(self.fields.store(authority));
    }

    /// Sets path and query from the text of a target in origin form; loose bytes are escaped.
    pub(crate) fn set_target(&mut self, target: &[u8]) -> Result<(), PathError> {
        let escaped = escape(target);
        let cut = memchr::memchr(b'?', &escaped);
        let (path, query) = match cut {
            Some(at) => (escaped.get(..at).unwrap_or_default(), escaped.get(at + 1..)),
            None => (&*escaped, None),
        };
        self.path = self.fields.store(path);
        self.query = query.map(|query| self.fields.store(query));
        self.normalise()
    }

    /// Sets the path and keeps the query.
    pub(crate) fn set_path(&mut self, path: &str) -> Result<(), PathError> {
        self.path = self.fields.store(&escape(path.as_bytes()));
        self.normalise()
    }

    fn normalise(&mut self) -> Result<(), PathError> {
        let normal = match path::normal(self.fields.str_at(self.path))? {
            Cow::Borrowed(_) => None,
            Cow::Owned(normal) => Some(normal),
        };
        self.normal = normal.map(|normal| self.fields.store(normal.as_bytes()));
        Ok(())
    }

    /// True for methods that may be repeated (RFC 9110 section 9.2.2).
    pub(crate) fn is_idempotent(&self) -> bool {
        matches!(
            self.method_bytes(),
            b"GET" | b"HEAD" | b"OPTIONS" | b"TRACE" | b"PUT" | b"DELETE"
        )
    }

    /// True when the request has a body.
    pub(crate) fn has_body(&self) -> bool {
        self.framing != Framing::None
    }
}

impl RequestView for Request {
    fn method(&self) -> &str {
        self.fields.str_at(self.method)
    }
    fn path(&self) -> &str {
        self.fields.str_at(self.normal.unwrap_or(self.path))
    }
    fn query(&self) -> &str {
        self.raw_query().unwrap_or_default()
    }
    fn header(&self, name: &str) -> Option<Cow<'_, [u8]>> {
        if name == "host" {
            return self.authority().map(|text| Cow::Borrowed(text.as_bytes()));
        }
        let mut values = self.fields.named(name.as_bytes());
        let first = values.next()?;
        let Some(second) = values.next() else {
            return Some(Cow::Borrowed(first));
        };
        let mut joined = [first, second].join(&b',');
        for value in values {
            joined.push(b',');
            joined.extend_from_slice(value);
        }
        Some(Cow::Owned(joined))
    }
}

impl Response {
    /// Forgets everything and keeps the memory.
    pub(crate) fn clear(&mut self) {
        let mut fields = std::mem::take(&mut self.fields);
        fields.clear();
        *self = Self {
            fields,
            ..Self::default()
        };
    }

    /// The reason phrase as it came in, or the usual one.
    pub(crate) fn reason(&self) -> &str {
        match self.fields.str_at(self.reason) {
            "" => http::StatusCode::from_u16(self.status)
                .ok()
                .and_then(|status| status.canonical_reason())
                .unwrap_or("Unknown"),
            reason => reason,
        }
    }

    /// The protocol that a 101 changes to.
    pub(crate) fn upgrade_name(&self) -> Option<&str> {
        self.upgrade.map(|span| self.fields.str_at(span))
    }

    /// Sets the reason phrase.
    pub(crate) fn set_reason(&mut self, reason: Span) {
        self.reason = reason;
    }

    /// The value of `grpc-status` in the head of a trailers-only answer.
    pub(crate) fn grpc_status(&self) -> Option<u8> {
        grpc_status(&self.fields)
    }
}

/// The value of `grpc-status`, when there is one.
pub(crate) fn grpc_status(fields: &Fields) -> Option<u8> {
    let value = fields.of(Known::GrpcStatus).next()?;
    octet::number(value).and_then(|number| u8::try_from(number).ok())
}

/// Loose bytes as escapes, as a strict sender would have written them.
fn escape(target: &[u8]) -> Cow<'_, [u8]> {
    if !target.iter().any(|byte| octet::is_loose(*byte)) {
        return Cow::Borrowed(target);
    }
    let mut out = Vec::with_capacity(target.len() + 16);
    for byte in target {
        if octet::is_loose(*byte) {
            out.extend_from_slice(format!("%{byte:02X}").as_bytes());
        } else {
            out.push(*byte);
        }
    }
    Cow::Owned(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets() {
        let mut request = Request::default();
        request.set_target("/a/../b?x=1?y".as_bytes()).unwrap();
        assert_eq!(
            (request.raw_path(), request.raw_query()),
            ("/a/../b", Some("x=1?y"))
        );
        assert_eq!(request.path(), "/b");
        request.set_target("/ä?".as_bytes()).unwrap();
        assert_eq!(
            (request.raw_path(), request.raw_query()),
            ("/%C3%A4", Some(""))
        );
        request.set_target(br#"/a|b\c?{"d"}[e]"#).unwrap();
        assert_eq!(request.raw_path(), "/a%7Cb%5Cc");
        assert_eq!(request.raw_query(), Some("%7B%22d%22%7D[e]"));
        assert!(request.set_target(b"/%00").is_err());
        assert!(request.set_target(b"/%0").is_err());
        assert!(request.set_target(b"/?%0").is_ok());
    }

    #[test]
    fn headers_are_joined() {
        let mut request = Request::default();
        request.fields.push(b"X-A", b"1");
        assert_eq!(request.header("x-a").unwrap().as_ref(), b"1");
        request.fields.push(b"x-a", b"2");
        request.fields.push(b"x-a", b"3");
        assert_eq!(request.header("x-a").unwrap().as_ref(), b"1,2,3");
        assert!(request.header("x-b").is_none());
    }
}
