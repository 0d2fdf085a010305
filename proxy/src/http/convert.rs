//! Between our heads and those of the `http` crate, at the boundary to HTTP/2 and nowhere else.

use bytes::Bytes;
use http::{
    HeaderMap, HeaderName, HeaderValue, Uri,
    header::{CONTENT_LENGTH, TE},
    uri::{Authority, PathAndQuery, Scheme},
};
use mesh_model::snapshot::decide::RequestView as _;

use super::{
    fields::{Fields, Known},
    h1::{FIELD_LIMIT, framing::Declared},
    malformed::HeadError,
    message::{Form, Framing, Request, Response, Version, Wishes},
    octet,
};

/// What a request's fields say of its body and of what its caller wishes; `ended`: no body follows.
pub(super) fn conclude(
    request: &mut Request,
    declared: &Declared,
    ended: bool,
) -> Result<(), HeadError> {
    request.framing = body(declared, ended);
    if request.method() == "TRACE" && request.has_body() {
        return Err(HeadError::ContentLength);
    }
    request.wishes = Wishes {
        persistent: true,
        expects_continue: declared.expects_continue,
        takes_trailers: declared.takes_trailers,
        grpc: declared.grpc,
    };
    Ok(())
}

/// Reads an answer's head; `ended` when no body follows.
pub(crate) fn response_from(
    parts: &http::response::Parts,
    ended: bool,
    head_request: bool,
    response: &mut Response,
) -> Result<(), HeadError> {
    response.clear();
    response.version = Version::Http2;
    response.status = parts.status.as_u16();
    if !(100..600).contains(&response.status) {
        return Err(HeadError::Status);
    }
    let declared = read(&parts.headers, &mut response.fields)?;
    settle(response, &declared, ended, head_request);
    Ok(())
}

/// What an answer's status and fields say of its body; `ended` when none follows.
pub(super) fn settle(
    response: &mut Response,
    declared: &Declared,
    ended: bool,
    head_request: bool,
) {
    response.answers_head = head_request;
    let bodiless = head_request || matches!(response.status, 100..=199 | 204 | 304);
    response.framing = if bodiless {
        Framing::None
    } else {
        body(declared, ended)
    };
    let tells = (head_request && response.status != 204) || response.status == 304;
    response.told_length = declared.length().filter(|_| tells);
    response.persistent = true;
    response.grpc = declared.grpc;
}

/// How a body is delimited; `ended` when there is none.
fn body(declared: &Declared, ended: bool) -> Framing {
    match declared.length() {
        _ if ended => Framing::None,
        Some(length) if length > 0 => Framing::Length(length),
        _ => Framing::Streamed,
    }
}

fn read(map: &HeaderMap, fields: &mut Fields) -> Result<Declared, HeadError> {
    let mut declared = Declared::default();
    if map.len() > FIELD_LIMIT {
        return Err(HeadError::TooManyFields);
    }
    for (name, value) in map {
        add(
            fields,
            &mut declared,
            name.as_str().as_bytes(),
            value.as_bytes(),
        )?;
    }
    Ok(declared)
}

/// Adds a field; what may stand inside its value was checked by the codec.
pub(super) fn add(
    fields: &mut Fields,
    declared: &mut Declared,
    name: &[u8],
    value: &[u8],
) -> Result<(), HeadError> {
    // RFC 9113 section 8.2.1.
    if octet::trim(value).len() != value.len() {
        return Err(HeadError::FieldValue);
    }
    // The codec lets more through than a token may have (RFC 9110 section 5.1).
    if !octet::is_token(name) {
        return Err(HeadError::FieldName);
    }
    let name = fields.store(name);
    let value = fields.store(value);
    let known = fields.push_stored(name, value);
    if matches!(
        known,
        Known::Connection | Known::TransferEncoding | Known::Upgrade
    ) {
        return Err(HeadError::Connection);
    }
    declared.add(fields, known, value)
}

/// To whom a request of HTTP/2 goes.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Towards<'a> {
    /// Another daemon.
    Daemon(Hop<'a>),
    /// A program; a change of protocol is asked for by extended CONNECT.
    Program,
}

/// What a request carries over the hop beside its own fields.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Hop<'a> {
    /// The target port, in the words of the receiving host.
    pub target: u16,
    /// The request's id.
    pub id: &'a str,
    /// The program was spoken to in HTTP/1: the other program will be too.
    pub http1: bool,
}

/// Name of the target port's header.
pub(crate) const TARGET: &str = "mesh-target";
/// Name of the request id's header.
pub(crate) const REQUEST_ID: &str = "mesh-request-id";
/// Name of the header that says in which version the program spoke: `1` or `2`.
pub(crate) const PROGRAM_HTTP: &str = "mesh-http";
/// Name of the header that carries an upgrade over the hop; an answer that has it is a 101.
pub(crate) const UPGRADE: &str = "mesh-upgrade";
/// Name of the header that says what went wrong in the mesh.
pub(crate) const ERROR: &str = "mesh-error";

/// Writes a request head; `None` when it cannot be one of HTTP/2.
pub(crate) fn request_to(
    request: &Request,
    default_host: &str,
    expect: bool,
    towards: &Towards<'_>,
) -> Option<http::Request<()>> {
    let mut head = http::Request::new(());
    *head.method_mut() = http::Method::from_bytes(request.method().as_bytes()).ok()?;
    let extended = match (towards, request.upgrade_name()) {
        (Towards::Program, Some(protocol)) => {
            *head.method_mut() = http::Method::CONNECT;
            head.extensions_mut()
                .insert(h2::ext::Protocol::from(protocol));
            true
        }
        _ => false,
    };
    let place = request.authority().unwrap_or(default_host);
    let mut parts = http::uri::Parts::default();
    parts.authority = Some(Authority::try_from(place).ok()?);
    if request.form != Form::Authority {
        parts.scheme = Some(Scheme::HTTP);
        parts.path_and_query = Some(target(request)?);
    }
    *head.uri_mut() = Uri::from_parts(parts).ok()?;
    *head.version_mut() = http::Version::HTTP_2;
    let headers = head.headers_mut();
    headers.reserve(request.fields.len() + 5);
    append(headers, &request.fields, |known| {
        known.stays_here() || (known == Known::Expect && !expect)
    });
    if let Framing::Length(length) = request.framing {
        headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
    }
    if request.wishes.takes_trailers || request.wishes.grpc {
        headers.insert(TE, HeaderValue::from_static("trailers"));
    }
    if extended {
        headers.remove("sec-websocket-key");
    }
    if let Towards::Daemon(hop) = towards {
        headers.insert(
            HeaderName::from_static(TARGET),
            HeaderValue::from(hop.target),
        );
        headers.insert(
            HeaderName::from_static(REQUEST_ID),
            HeaderValue::from_str(hop.id).ok()?,
        );
        let version = HeaderValue::from_static(if hop.http1 { "1" } else { "2" });
        headers.insert(HeaderName::from_static(PROGRAM_HTTP), version);
        if let Some(upgrade) = request.upgrade_name() {
            headers.insert(
                HeaderName::from_static(UPGRADE),
                HeaderValue::from_str(upgrade).ok()?,
            );
        }
    }
    Some(head)
}

fn target(request: &Request) -> Option<PathAndQuery> {
    let text = match request.raw_query() {
        Some(query) => [request.raw_path(), "?", query].concat(),
        None => request.raw_path().to_owned(),
    };
    let text = Bytes::from(text);
    PathAndQuery::from_maybe_shared(text.clone())
        .or_else(|_invalid| PathAndQuery::from_maybe_shared(escaped(&text)))
        .ok()
}

/// Escapes what is loose in a target: some programs send such bytes raw.
fn escaped(target: &[u8]) -> Bytes {
    let mut out = Vec::with_capacity(target.len() + 16);
    for byte in target {
        if matches!(
            byte,
            b'<' | b'>' | b'"' | b'`' | b'{' | b'}' | b'|' | b'\\' | b'^'
        ) {
            out.extend_from_slice(format!("%{byte:02X}").as_bytes());
        } else {
            out.push(*byte);
        }
    }
    Bytes::from(out)
}

/// The length that an answer's head tells.
pub(super) fn told_length(response: &Response) -> Option<u64> {
    let length = match response.framing {
        Framing::Length(length) => Some(length),
        Framing::None if matches!(response.status, 204 | 304) => response.told_length,
        Framing::None if response.answers_head => response.told_length,
        _ => None,
    };
    length.filter(|_| response.status >= 200)
}

/// Appends fields, all values as slices of one allocation.
fn append(headers: &mut HeaderMap, fields: &Fields, skipped: impl Fn(Known) -> bool) {
    for (known, name, value) in fields.shared() {
        if skipped(known) {
            continue;
        }
        if let (Ok(name), Ok(value)) = (
            HeaderName::from_bytes(name),
            HeaderValue::from_maybe_shared(value),
        ) {
            headers.append(name, value);
        }
    }
}

/// Reads trailers; what they may not name is left out.
pub(crate) fn fields_from(map: &HeaderMap) -> Fields {
    trailers_from(
        map.iter()
            .map(|(name, value)| (name.as_str().as_bytes(), value.as_bytes())),
    )
}

/// The same from names and values.
pub(super) fn trailers_from<'m>(list: impl Iterator<Item = (&'m [u8], &'m [u8])>) -> Fields {
    let mut fields = Fields::default();
    for (name, value) in list {
        fields.push(name, value);
    }
    fields.drop_where(|known, name| {
        let kept = name.eq_ignore_ascii_case(ERROR.as_bytes());
        known.is_no_trailer() || (known.is_ours() && !kept) || !octet::is_token(name)
    });
    fields
}

/// Writes trailers.
pub(crate) fn fields_to(fields: &Fields) -> HeaderMap {
    let mut map = HeaderMap::with_capacity(fields.len());
    append(&mut map, fields, Known::stays_here);
    map
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trailers_say_nothing_that_is_ours() {
        let mut map = HeaderMap::new();
        for name in [
            "x-sum",
            "mesh-peer",
            "mesh_peer",
            "l5d-a",
            "x-forwarded-for",
            "x_forwarded_proto",
            "cookie",
            "authorization",
            "content-length",
            "host",
            ERROR,
        ] {
            map.insert(
                HeaderName::from_bytes(name.as_bytes()).unwrap(),
                HeaderValue::from_static("1"),
            );
        }
        let fields = fields_from(&map);
        let mut names: Vec<_> = fields.iter().map(|(_, name, _)| name.to_vec()).collect();
        names.sort();
        assert_eq!(names, [ERROR.as_bytes(), b"x-sum"]);
    }

    #[test]
    fn requests_go_out_with_the_words_of_the_hop() {
        let mut request = Request::default();
        request.set_method(b"GET");
        request.set_authority(b"web");
        request.set_target(b"/a|b?c<d").unwrap();
        for (name, value) in [
            ("X-A", "1"),
            ("Connection", "x"),
            ("Keep-Alive", "1"),
            ("TE", "gzip"),
        ] {
            request.fields.push(name.as_bytes(), value.as_bytes());
        }
        let hop = Hop {
            target: 8080,
            id: "0123",
            http1: true,
        };
        let hop = Towards::Daemon(hop);
        let head = request_to(&request, "default", false, &hop).unwrap();
        assert_eq!(head.uri().to_string(), "http://web/a%7Cb?c%3Cd");
        let headers = head.headers();
        assert_eq!(
            (headers[TARGET].as_bytes(), headers[PROGRAM_HTTP].as_bytes()),
            (&b"8080"[..], &b"1"[..])
        );
        assert_eq!(headers[REQUEST_ID], "0123");
        assert!(headers.contains_key("x-a"));
        for gone in ["connection", "keep-alive", "te", "host", UPGRADE] {
            assert!(!headers.contains_key(gone), "{gone}");
        }
        request.upgrade = Some(request.fields.store(b"websocket"));
        let head = request_to(&request, "default", false, &hop).unwrap();
        assert_eq!(
            (head.method(), &head.headers()[UPGRADE]),
            (&http::Method::GET, &"websocket".parse().unwrap())
        );
        request.fields.push(b"Sec-WebSocket-Key", b"x");
        let head = request_to(&request, "default", false, &Towards::Program).unwrap();
        assert_eq!(head.method(), http::Method::CONNECT);
        assert_eq!(head.uri().to_string(), "http://web/a%7Cb?c%3Cd");
        let protocol = head.extensions().get::<h2::ext::Protocol>().unwrap();
        assert_eq!(protocol.as_str(), "websocket");
        assert!(
            !head.headers().contains_key("sec-websocket-key")
                && !head.headers().contains_key(UPGRADE)
        );
    }

    #[test]
    fn answers_keep_the_length_that_they_tell() {
        for (method_head, status, ended, framing, told) in [
            (false, 200, false, Framing::Length(7), None),
            (true, 200, true, Framing::None, Some(7)),
            (false, 304, true, Framing::None, Some(7)),
            (true, 204, true, Framing::None, None),
        ] {
            let build = http::Response::builder()
                .status(status)
                .header("content-length", "7");
            let parts = build.body(()).unwrap().into_parts().0;
            let mut response = Response::default();
            response_from(&parts, ended, method_head, &mut response).unwrap();
            assert_eq!(
                (response.framing, response.told_length),
                (framing, told),
                "{status}"
            );
            let expected = (status != 204).then_some(7);
            assert_eq!(told_length(&response), expected, "{status}");
        }
    }
}
