//! Reads the head of an answer (RFC 9112 section 4) as strictly as that of a request.

use super::{HeadError, fields, framing::Declared};
use crate::http::{
    fields::Known,
    message::{Framing, Response, Version},
    octet,
};

/// Reads a whole head; `head_request` when it answers HEAD.
pub(crate) fn read(
    head: &[u8],
    head_request: bool,
    response: &mut Response,
) -> Result<(), HeadError> {
    response.clear();
    response.answers_head = head_request;
    let cut = memchr::memchr(b'\n', head).ok_or(HeadError::StartLine)?;
    let (line, rest) = head.split_at_checked(cut + 1).ok_or(HeadError::StartLine)?;
    let line = line.strip_suffix(b"\r\n").ok_or(HeadError::LineEnd)?;
    let lines = rest.strip_suffix(b"\r\n").ok_or(HeadError::LineEnd)?;

    let base = response.fields.base();
    response.fields.store(lines);
    status_line(line, response)?;
    let mut declared = Declared::default();
    fields::read(&mut response.fields, lines, base, |fields, known, value| {
        // A second `host` in an answer means nothing; what frames is checked.
        if known == Known::Host {
            Ok(())
        } else {
            declared.add(fields, known, value)
        }
    })?;

    let bodiless = head_request || matches!(response.status, 100..=199 | 204 | 304);
    response.framing = declared.response_body(response.version, bodiless)?;
    response.persistent =
        declared.persistent(response.version) && response.framing != Framing::Close;
    response.grpc = declared.grpc;
    if response.status == 101 && declared.upgrade_option {
        response.upgrade = declared.upgrade;
    }
    declared.drop_nominated(&mut response.fields);
    keep_length(&declared, head_request, response);
    Ok(())
}

/// An answer to HEAD and a 304 may tell a length that frames nothing; a 204 may not.
fn keep_length(declared: &Declared, head_request: bool, response: &mut Response) {
    let tells = (head_request && response.status != 204) || response.status == 304;
    response.told_length = declared
        .length()
        .filter(|_| tells && response.status >= 200);
}

fn status_line(line: &[u8], response: &mut Response) -> Result<(), HeadError> {
    response.version = match line.get(..8) {
        Some(b"HTTP/1.0") => Version::Http10,
        // A higher minor version is read as the highest that is known (RFC 9110 section 2.5).
        Some([b'H', b'T', b'T', b'P', b'/', b'1', b'.', b'1'..=b'9']) => Version::Http11,
        _ => return Err(HeadError::StartLine),
    };
    let [b' ', hundreds, tens, ones, rest @ ..] = line.get(8..).unwrap_or_default() else {
        return Err(HeadError::StartLine);
    };
    let digits = [*hundreds, *tens, *ones];
    let status = octet::number(&digits).and_then(|status| u16::try_from(status).ok());
    response.status = status
        .filter(|status| (100..600).contains(status))
        .ok_or(HeadError::Status)?;
    let reason = match rest {
        [] => rest,
        [b' ', reason @ ..] if octet::is_value(reason) => reason,
        _ => return Err(HeadError::StartLine),
    };
    let reason = if reason.is_ascii() {
        octet::trim(reason)
    } else {
        b""
    };
    let reason = response.fields.store(reason);
    response.set_reason(reason);
    Ok(())
}
