//! Between our heads and those of a link.
//!
//! In: what a program or another daemon sent. Out: only what RFC 9113 lets a head be.

use mesh_model::snapshot::decide::RequestView as _;
use smallvec::SmallVec;

use crate::{
    http::{
        authority,
        convert::{self, Hop},
        fields::{Fields, Known},
        h1::{FIELD_LIMIT, LINE_LIMIT, framing::Declared},
        malformed::HeadError,
        message::{Form, Framing, Request, Response, Version},
        octet, upgrade,
    },
    link::{self, Head, Peer},
};

/// Fields that a daemon adds to those of a request.
const ADDED: usize = 8;

/// Reads a request head of `peer`; `ended` when no body follows.
pub(crate) fn request_from(
    head: &Head,
    ended: bool,
    peer: Peer,
    request: &mut Request,
) -> Result<(), HeadError> {
    request.clear();
    request.version = Version::Http2;
    if head.is_too_large() {
        return Err(HeadError::HeadTooLarge);
    }
    let mut pseudo = Pseudo::default();
    let declared = read(head, peer, &mut request.fields, |name, value| {
        pseudo.request(name, value)
    })?;
    let method = pseudo.method.ok_or(HeadError::StartLine)?;
    if !octet::is_token(method) {
        return Err(HeadError::Method);
    }
    request.set_method(method);
    let connect = method == b"CONNECT";
    // Tunnels carry these apart.
    if connect && peer == Peer::Daemon {
        return Err(HeadError::Method);
    }
    if pseudo.protocol.is_some() && (!connect || peer == Peer::Daemon) {
        return Err(HeadError::StartLine);
    }
    set_place(request, &declared, pseudo.authority)?;
    if connect && pseudo.protocol.is_none() {
        set_address(request, &pseudo)?;
    } else {
        let scheme = pseudo.scheme.ok_or(HeadError::StartLine)?;
        if !matches!(scheme, b"http" | b"https") {
            return Err(HeadError::Target);
        }
        let path = pseudo.path.filter(|path| !path.is_empty());
        set_target(request, path.ok_or(HeadError::StartLine)?)?;
    }
    let announced = declared.length();
    if (ended && announced.is_some_and(|length| length > 0)) || (connect && announced.is_some()) {
        return Err(HeadError::ContentLength);
    }
    convert::conclude(request, &declared, ended)?;
    match pseudo.protocol {
        Some(protocol) => extended_connect(protocol, request),
        None => Ok(()),
    }
}

/// A CONNECT names an address, and nothing else (RFC 9113 section 8.5).
fn set_address(request: &mut Request, pseudo: &Pseudo<'_>) -> Result<(), HeadError> {
    if pseudo.scheme.is_some() || pseudo.path.is_some() {
        return Err(HeadError::StartLine);
    }
    let named = pseudo.authority.ok_or(HeadError::Host)?;
    let port = authority::parse(named).and_then(|parts| parts.port);
    port.ok_or(HeadError::Target)?;
    request.form = Form::Authority;
    Ok(())
}

/// An extended CONNECT is what HTTP/1 says as GET with `upgrade` (RFC 8441 section 5), and goes on as that.
fn extended_connect(protocol: &[u8], request: &mut Request) -> Result<(), HeadError> {
    if !upgrade::is_protocol(protocol) {
        return Err(HeadError::Target);
    }
    request.set_method(b"GET");
    request.upgrade = Some(request.fields.store(protocol));
    request.extended = true;
    request.framing = Framing::None;
    request.fields.drop_named(upgrade::KEY);
    Ok(())
}

/// `:authority` and `host` name one place.
fn set_place(
    request: &mut Request,
    declared: &Declared,
    named: Option<&[u8]>,
) -> Result<(), HeadError> {
    let host = declared.host;
    if let (Some(named), Some(host)) = (named, host)
        && !named.eq_ignore_ascii_case(request.fields.at(host))
    {
        return Err(HeadError::Host);
    }
    match (named, host) {
        (Some(named), _) => {
            authority::parse(named).ok_or(HeadError::Host)?;
            request.set_authority(named);
        }
        (None, Some(host)) => {
            let named = request.fields.at(host).to_vec();
            authority::parse(&named).ok_or(HeadError::Host)?;
            request.set_authority(&named);
        }
        (None, None) => return Err(HeadError::Host),
    }
    Ok(())
}

fn set_target(request: &mut Request, target: &[u8]) -> Result<(), HeadError> {
    if target.len() > LINE_LIMIT {
        return Err(HeadError::LineTooLong);
    }
    if target == b"*" && request.method() == "OPTIONS" {
        request.form = Form::Asterisk;
    } else if !target.starts_with(b"/") || !octet::is_target(target) {
        return Err(HeadError::Target);
    }
    request.set_target(target).map_err(|_nul| HeadError::Target)
}

/// Reads an answer's head; `ended` when no body follows.
pub(super) fn response_from(
    head: &Head,
    ended: bool,
    head_request: bool,
    response: &mut Response,
) -> Result<(), HeadError> {
    response.clear();
    response.version = Version::Http2;
    if head.is_too_large() {
        return Err(HeadError::HeadTooLarge);
    }
    let mut status = None;
    let declared = read(head, Peer::Daemon, &mut response.fields, |name, value| {
        let known = name == b":status" && status.is_none();
        status = Some(value);
        known
    })?;
    response.status = match status {
        Some([a @ b'1'..=b'5', b @ b'0'..=b'9', c @ b'0'..=b'9']) => [a, b, c]
            .iter()
            .fold(0, |all, digit| 10 * all + u16::from(**digit - b'0')),
        _ => return Err(HeadError::Status),
    };
    convert::settle(response, &declared, ended, head_request);
    let announced = declared.length().is_some_and(|length| length > 0);
    if ended && announced && response.told_length.is_none() && !is_bodiless(response) {
        return Err(HeadError::ContentLength);
    }
    Ok(())
}

fn is_bodiless(response: &Response) -> bool {
    response.answers_head || matches!(response.status, 100..=199 | 204 | 304)
}

/// Reads trailers of `peer`; what they may not name is left out.
pub(super) fn fields_from(head: &Head, peer: Peer) -> Result<Fields, HeadError> {
    if head.is_too_large() {
        return Err(HeadError::HeadTooLarge);
    }
    for (number, (name, value)) in head.iter().enumerate() {
        if number >= FIELD_LIMIT + ADDED {
            return Err(HeadError::TooManyFields);
        }
        if !is_name(name) {
            return Err(HeadError::FieldName);
        }
        if !octet::is_value(value) {
            return Err(HeadError::FieldValue);
        }
        if peer == Peer::Program && is_of_connection(name, value) {
            return Err(HeadError::Connection);
        }
    }
    Ok(convert::trailers_from(head.iter()))
}

/// What HTTP/2 itself says of a request.
#[derive(Default)]
struct Pseudo<'h> {
    method: Option<&'h [u8]>,
    scheme: Option<&'h [u8]>,
    path: Option<&'h [u8]>,
    authority: Option<&'h [u8]>,
    protocol: Option<&'h [u8]>,
}

impl<'h> Pseudo<'h> {
    /// False for what is not known, or said twice.
    fn request(&mut self, name: &[u8], value: &'h [u8]) -> bool {
        let place = match name {
            b":method" => &mut self.method,
            b":scheme" => &mut self.scheme,
            b":path" => &mut self.path,
            b":authority" => &mut self.authority,
            b":protocol" => &mut self.protocol,
            _ => return false,
        };
        place.replace(value).is_none()
    }
}

/// True for what is said of one connection (RFC 9113 section 8.2.2).
fn is_of_connection(name: &[u8], value: &[u8]) -> bool {
    match name {
        b"connection" | b"keep-alive" | b"proxy-connection" | b"transfer-encoding" | b"upgrade" => {
            true
        }
        b"te" => value != b"trailers",
        _ => false,
    }
}

/// Reads all fields; `pseudo` takes those that begin with a colon, which come before all others.
fn read<'h>(
    head: &'h Head,
    peer: Peer,
    fields: &mut Fields,
    mut pseudo: impl FnMut(&[u8], &'h [u8]) -> bool,
) -> Result<Declared, HeadError> {
    let mut declared = Declared::default();
    let (mut ordinary, mut count) = (false, 0);
    let most = match peer {
        Peer::Daemon => FIELD_LIMIT + ADDED,
        Peer::Program => FIELD_LIMIT,
    };
    for (name, value) in head.iter() {
        if !octet::is_value(value) {
            return Err(HeadError::FieldValue);
        }
        if name.starts_with(b":") {
            if ordinary || !pseudo(name, value) {
                return Err(HeadError::StartLine);
            }
            continue;
        }
        ordinary = true;
        count += 1;
        if count > most {
            return Err(HeadError::TooManyFields);
        }
        if !is_name(name) {
            return Err(HeadError::FieldName);
        }
        if peer == Peer::Program && is_of_connection(name, value) {
            return Err(HeadError::Connection);
        }
        convert::add(fields, &mut declared, name, value)?;
    }
    Ok(declared)
}

/// True for a name as HTTP/2 has it: in lower case.
fn is_name(name: &[u8]) -> bool {
    octet::is_token(name) && !name.iter().any(u8::is_ascii_uppercase)
}

/// Writes a request head for another daemon.
pub(crate) fn request_to(
    request: &Request,
    default_host: &str,
    expect: bool,
    hop: &Hop<'_>,
    out: &mut link::Fields<'_>,
) {
    out.field(b":method", request.method().as_bytes());
    out.field(b":scheme", b"http");
    let place = request.authority().unwrap_or(default_host);
    out.field(b":authority", place.as_bytes());
    match request.raw_query() {
        None => out.field(b":path", request.raw_path().as_bytes()),
        Some(query) => {
            let mut target: SmallVec<[u8; 256]> = SmallVec::new();
            target.extend_from_slice(request.raw_path().as_bytes());
            target.push(b'?');
            target.extend_from_slice(query.as_bytes());
            out.field(b":path", &target);
        }
    }
    put(out, &request.fields, |known| {
        known.stays_here() || (known == Known::Expect && !expect)
    });
    if let Framing::Length(length) = request.framing {
        put_number(out, b"content-length", length);
    }
    if request.wishes.takes_trailers || request.wishes.grpc {
        out.field(b"te", b"trailers");
    }
    put_number(out, convert::TARGET.as_bytes(), hop.target.into());
    out.once(convert::REQUEST_ID.as_bytes(), hop.id.as_bytes());
    let version = if hop.http1 { b"1" } else { b"2" };
    out.field(convert::PROGRAM_HTTP.as_bytes(), version);
    if let Some(upgrade) = request.upgrade_name() {
        out.field(convert::UPGRADE.as_bytes(), upgrade.as_bytes());
    }
}

/// Writes an answer's head.
pub(super) fn response_to(response: &Response, out: &mut link::Fields<'_>) {
    let mut text = itoa::Buffer::new();
    out.field(b":status", text.format(response.status).as_bytes());
    put(out, &response.fields, Known::stays_here);
    if let Some(length) = convert::told_length(response) {
        put_number(out, b"content-length", length);
    }
}

/// Writes trailers.
pub(super) fn fields_to(fields: &Fields, out: &mut link::Fields<'_>) {
    put(out, fields, Known::stays_here);
}

fn put(out: &mut link::Fields<'_>, fields: &Fields, skipped: impl Fn(Known) -> bool) {
    for (known, name, value) in fields.iter() {
        if skipped(known) {
            continue;
        }
        let mut lower: SmallVec<[u8; 64]> = SmallVec::new();
        let name = if name.iter().any(u8::is_ascii_uppercase) {
            lower.extend(name.iter().map(u8::to_ascii_lowercase));
            &lower
        } else {
            name
        };
        if known == Known::Credentials || known == Known::Cookie || name == b"set-cookie" {
            out.secret(name, value);
        } else {
            out.field(name, value);
        }
    }
}

fn put_number(out: &mut link::Fields<'_>, name: &[u8], number: u64) {
    let mut text = itoa::Buffer::new();
    out.field(name, text.format(number).as_bytes());
}

#[cfg(test)]
mod tests;
