//! Reads the head of a request (RFC 9112 sections 3 and 5) and refuses what could be read in two ways.

use super::{HeadError, fields, framing::Declared};
use crate::http::{
    authority,
    fields::{Known, Span},
    message::{Form, Request, Version, Wishes},
    octet, path, upgrade,
};

/// Longest method.
const METHOD_LIMIT: usize = 32;

/// Reads a whole head, as [`super::scan`] found it.
pub(crate) fn read(head: &[u8], request: &mut Request) -> Result<(), HeadError> {
    request.clear();
    let cut = memchr::memchr(b'\n', head).ok_or(HeadError::StartLine)?;
    let (line, rest) = head.split_at_checked(cut + 1).ok_or(HeadError::StartLine)?;
    let line = line.strip_suffix(b"\r\n").ok_or(HeadError::LineEnd)?;
    let lines = rest.strip_suffix(b"\r\n").ok_or(HeadError::LineEnd)?;

    let base = request.fields.base();
    request.fields.store(lines);
    let mut declared = Declared::default();
    fields::read(&mut request.fields, lines, base, |fields, known, value| {
        declared.add(fields, known, value)
    })?;

    let target = start_line(line, request)?;
    place(target, declared.host, request)?;
    settle(&declared, request)
}

/// Reads `method SP target SP version`.
fn start_line<'a>(line: &'a [u8], request: &mut Request) -> Result<&'a [u8], HeadError> {
    let mut parts = line.split(|byte| *byte == b' ');
    let (Some(method), Some(target), Some(version), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(HeadError::StartLine);
    };
    request.version = match version {
        b"HTTP/1.0" => Version::Http10,
        // A higher minor version is read as the highest that is known (RFC 9110 section 2.5).
        [b'H', b'T', b'T', b'P', b'/', b'1', b'.', b'1'..=b'9'] => Version::Http11,
        _ if is_version(version) => return Err(HeadError::Version),
        _ => return Err(HeadError::StartLine),
    };
    if !octet::is_token(method) || method.len() > METHOD_LIMIT {
        return Err(HeadError::Method);
    }
    if !octet::is_target(target) {
        return Err(HeadError::Target);
    }
    request.set_method(method);
    Ok(target)
}

fn is_version(version: &[u8]) -> bool {
    matches!(version, [b'H', b'T', b'T', b'P', b'/', major, b'.', minor]
        if major.is_ascii_digit() && minor.is_ascii_digit())
}

/// Finds out whom the request is for: by the target when it says so, otherwise by `host`.
fn place(target: &[u8], host: Option<Span>, request: &mut Request) -> Result<(), HeadError> {
    let host = host.map(|span| request.fields.at(span).to_owned_small());
    if let Some(host) = &host
        && authority::parse(host).is_none()
    {
        return Err(HeadError::Host);
    }
    if host.is_none() && request.version != Version::Http10 {
        return Err(HeadError::Host);
    }
    let connect = request.method_bytes() == b"CONNECT";
    let fault = |_fault: path::PathError| HeadError::Target;
    match target {
        _ if connect => {
            let port = authority::parse(target).ok_or(HeadError::Target)?.port;
            port.ok_or(HeadError::Target)?;
            request.form = Form::Authority;
            request.set_authority(target);
        }
        [b'/', ..] => {
            request.form = Form::Origin;
            request.set_target(target).map_err(fault)?;
            if let Some(host) = &host {
                request.set_authority(host);
            }
        }
        b"*" if request.method_bytes() == b"OPTIONS" => {
            request.form = Form::Asterisk;
            request.set_target(target).map_err(fault)?;
            if let Some(host) = &host {
                request.set_authority(host);
            }
        }
        _ => absolute(target, request)?,
    }
    Ok(())
}

/// `http://authority/path`: its authority replaces `host` (RFC 9112 section 3.2.2).
fn absolute(target: &[u8], request: &mut Request) -> Result<(), HeadError> {
    let (scheme, rest) = target
        .split_at_checked(b"http://".len())
        .ok_or(HeadError::Target)?;
    if !scheme.eq_ignore_ascii_case(b"http://") {
        return Err(HeadError::Target);
    }
    let end = rest
        .iter()
        .position(|byte| matches!(byte, b'/' | b'?'))
        .unwrap_or(rest.len());
    let (host, path) = rest.split_at_checked(end).ok_or(HeadError::Target)?;
    authority::parse(host).ok_or(HeadError::Target)?;
    request.form = Form::Absolute;
    request.set_authority(host);
    let fault = |_fault: path::PathError| HeadError::Target;
    match path {
        [] if request.method_bytes() == b"OPTIONS" => request.set_target(b"*").map_err(fault),
        [] => request.set_target(b"/").map_err(fault),
        [b'?', ..] => request.set_target(&[b"/", path].concat()).map_err(fault),
        path => request.set_target(path).map_err(fault),
    }
}

fn settle(declared: &Declared, request: &mut Request) -> Result<(), HeadError> {
    let version = request.version;
    request.framing = declared.request_body(version)?;
    request.wishes = Wishes {
        persistent: declared.persistent(version),
        expects_continue: declared.expects_continue && version != Version::Http10,
        takes_trailers: declared.takes_trailers,
        grpc: declared.grpc,
    };
    if declared.upgrade_option && version == Version::Http11 && !request.has_body() {
        request.upgrade = declared
            .upgrade
            .filter(|name| upgrade::is_protocol(request.fields.at(*name)));
    }
    let bodiless = request.form == Form::Authority || request.method_bytes() == b"TRACE";
    if bodiless && request.has_body() {
        return Err(HeadError::ContentLength);
    }
    if version == Version::Http10 && declared.expects_continue {
        request.fields.drop_known(Known::Expect);
    }
    declared.drop_nominated(&mut request.fields);
    Ok(())
}

/// A short copy that stays on the stack: the store may move while it is used.
trait Small {
    fn to_owned_small(&self) -> smallvec::SmallVec<[u8; 128]>;
}

impl Small for [u8] {
    fn to_owned_small(&self) -> smallvec::SmallVec<[u8; 128]> {
        smallvec::SmallVec::from_slice(self)
    }
}
