//! Writes heads, chunk lines and trailers anew from parsed values: one Host, one framing, CRLF only.

use bytes::BytesMut;

use crate::http::{
    fields::{Fields, Known},
    message::{Form, Framing, Request, Response, Version},
};

/// What the writer of a request adds to what the request says itself.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct RequestExtras<'a> {
    /// Host of a request that named none.
    pub default_host: &'a str,
    /// Send `expect: 100-continue` on.
    pub expect: bool,
}

/// What the writer of an answer needs beside the answer.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ResponseExtras {
    /// How the body will be delimited.
    pub framing: Framing,
    /// The caller's version.
    pub version: Version,
    /// Whether the connection stays open afterwards.
    pub persistent: bool,
}

/// Writes a request head.
pub(crate) fn request(out: &mut BytesMut, request: &Request, extras: &RequestExtras<'_>) {
    out.reserve(request.fields.base() + 256);
    out.extend_from_slice(request.method_bytes());
    out.extend_from_slice(b" ");
    if request.form == Form::Authority {
        out.extend_from_slice(request.authority().unwrap_or_default().as_bytes());
    } else {
        request.write_target(out);
    }
    out.extend_from_slice(b" HTTP/1.1\r\nhost: ");
    out.extend_from_slice(
        request
            .authority()
            .unwrap_or(extras.default_host)
            .as_bytes(),
    );
    out.extend_from_slice(b"\r\n");
    let joined = request.version == Version::Http2;
    request.fields.write(out, |known| {
        let skipped = known.stays_here()
            || (known == Known::Expect && request.wishes.expects_continue && !extras.expect)
            || (known == Known::Cookie && joined);
        !skipped
    });
    if joined {
        cookies(out, &request.fields);
    }
    framing(out, request.framing, request_needs_length(request));
    match request.upgrade_name() {
        Some(name) => {
            line(out, b"upgrade", name.as_bytes());
            line(out, b"connection", b"upgrade");
        }
        None if request.wishes.takes_trailers => {
            line(out, b"te", b"trailers");
            line(out, b"connection", b"te");
        }
        None => {}
    }
    out.extend_from_slice(b"\r\n");
}

/// A request whose method means a body says so even when it is empty (RFC 9110 section 8.6).
fn request_needs_length(request: &Request) -> bool {
    matches!(request.method_bytes(), b"POST" | b"PUT" | b"PATCH")
}

/// HTTP/2 may split cookies; HTTP/1 may not (RFC 9113 section 8.2.3).
fn cookies(out: &mut BytesMut, fields: &Fields) {
    let mut first = true;
    for value in fields.of(Known::Cookie) {
        out.extend_from_slice(if first { b"cookie: " } else { b"; " });
        out.extend_from_slice(value);
        first = false;
    }
    if !first {
        out.extend_from_slice(b"\r\n");
    }
}

/// Writes an answer's head. An interim answer (1xx) has no framing.
pub(crate) fn response(out: &mut BytesMut, response: &Response, extras: &ResponseExtras) {
    out.reserve(response.fields.base() + 256);
    let reason = response.reason();
    if (response.status, reason) == (200, "OK") {
        out.extend_from_slice(b"HTTP/1.1 200 OK\r\n");
    } else {
        out.extend_from_slice(b"HTTP/1.1 ");
        out.extend_from_slice(itoa::Buffer::new().format(response.status).as_bytes());
        out.extend_from_slice(b" ");
        out.extend_from_slice(reason.as_bytes());
        out.extend_from_slice(b"\r\n");
    }
    response.fields.write(out, |known| !known.stays_here());
    if response.status == 101 {
        line(
            out,
            b"upgrade",
            response.upgrade_name().unwrap_or_default().as_bytes(),
        );
        line(out, b"connection", b"upgrade");
    } else if response.status >= 200 {
        match response.told_length {
            Some(told) if extras.framing == Framing::None => {
                line(
                    out,
                    b"content-length",
                    itoa::Buffer::new().format(told).as_bytes(),
                );
            }
            _ => framing(out, extras.framing, needs_length(response)),
        }
        if !extras.persistent {
            line(out, b"connection", b"close");
        } else if extras.version == Version::Http10 {
            line(out, b"connection", b"keep-alive");
        }
    }
    out.extend_from_slice(b"\r\n");
}

/// An answer whose status allows a body must say that there is none; HEAD and 304 need not.
fn needs_length(response: &Response) -> bool {
    !matches!(response.status, 204 | 304) && !response.answers_head
}

fn framing(out: &mut BytesMut, framing: Framing, say_none: bool) {
    match framing {
        Framing::Length(length) => {
            line(
                out,
                b"content-length",
                itoa::Buffer::new().format(length).as_bytes(),
            );
        }
        Framing::Streamed => line(out, b"transfer-encoding", b"chunked"),
        Framing::None if say_none => line(out, b"content-length", b"0"),
        Framing::None | Framing::Close => {}
    }
}

/// Writes one field line.
fn line(out: &mut BytesMut, name: &[u8], value: &[u8]) {
    out.extend_from_slice(name);
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

/// Writes the line before a chunk of `length` bytes, which is not 0.
pub(crate) fn chunk(out: &mut BytesMut, length: usize) {
    let mut digits = [0u8; 16];
    let mut left = length;
    let mut used = 0;
    for slot in digits.iter_mut().rev() {
        let digit = u32::try_from(left & 0xf).unwrap_or_default();
        *slot = char::from_digit(digit, 16).map_or(b'0', |digit| digit as u8);
        used += 1;
        left >>= 4;
        if left == 0 {
            break;
        }
    }
    out.extend_from_slice(digits.get(digits.len() - used..).unwrap_or_default());
    out.extend_from_slice(b"\r\n");
}

/// Writes the last chunk and the trailers.
pub(crate) fn last_chunk(out: &mut BytesMut, trailers: Option<&Fields>) {
    out.extend_from_slice(b"0\r\n");
    if let Some(trailers) = trailers {
        trailers.write(out, |known| !known.stays_here());
    }
    out.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunk_lines() {
        for (length, wanted) in [
            (1, "1\r\n"),
            (15, "f\r\n"),
            (16, "10\r\n"),
            (65_536, "10000\r\n"),
        ] {
            let mut out = BytesMut::new();
            chunk(&mut out, length);
            assert_eq!(out, wanted.as_bytes());
        }
    }
}
