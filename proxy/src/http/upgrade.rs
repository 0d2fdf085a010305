//! Changes of protocol in both spellings: `upgrade` with 101 (RFC 9110 section 7.8), and extended CONNECT with
//! 2xx (RFC 8441), with what Websockets say beside it.

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use data_encoding::BASE64;

use super::{
    message::{Request, Response},
    octet,
};
use crate::failure::{Code, Failure};

/// The protocol whose HTTP/1 handshake has a key of its own (RFC 6455 section 4).
const WEBSOCKET: &[u8] = b"websocket";
/// The client's random key; HTTP/2 has none.
pub(crate) const KEY: &[u8] = b"sec-websocket-key";
/// What the server makes of it.
const ACCEPT: &[u8] = b"sec-websocket-accept";

/// Hashed behind the key (RFC 6455 section 1.3).
const SALT: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// One protocol with an optional version, and not a second HTTP, nor TLS.
pub(crate) fn is_protocol(name: &[u8]) -> bool {
    let mut parts = name.splitn(2, |byte| *byte == b'/');
    let stem = parts.next().unwrap_or_default();
    octet::is_token(stem)
        && parts.next().is_none_or(octet::is_token)
        && ![&b"h2c"[..], b"h2", b"http", b"tls"]
            .iter()
            .any(|refused| stem.eq_ignore_ascii_case(refused))
}

fn is_websocket(request: &Request) -> bool {
    request
        .upgrade_name()
        .is_some_and(|name| name.as_bytes().eq_ignore_ascii_case(WEBSOCKET))
}

/// Before the head goes out in HTTP/1: a Websocket whose caller's HTTP has no keys gets one.
pub(crate) fn add_key(request: &mut Request) {
    if is_websocket(request) && request.fields.named(KEY).next().is_none() {
        let key = fresh_key();
        request.fields.push(KEY, key.as_bytes());
        request.own_key = Some(request.fields.store(key.as_bytes()));
    }
}

/// Before the head goes out in HTTP/2 to a program that did not announce extended CONNECT. The wish of an
/// HTTP/1 caller is left out, as a server may always ignore it; an extended CONNECT fails.
pub(crate) fn withdraw(request: &mut Request) -> Result<(), Failure> {
    request.upgrade = None;
    if request.extended {
        let what = "the program speaks HTTP/2 without extended CONNECT";
        return Err(Failure::new(Code::BadResponse, what).with_status(501));
    }
    Ok(())
}

/// To an extended CONNECT any 2xx says that the protocol was changed: an ordinary answer of a program that
/// did not care about the wish must not go out as one.
pub(crate) fn check_ordinary(request: &Request, response: &Response) -> Result<(), Failure> {
    if !request.extended || !(200..300).contains(&response.status) {
        return Ok(());
    }
    let status = response.status;
    let what = format!("the program answered {status} and did not change the protocol");
    Err(Failure::new(Code::BadResponse, what).with_status(501))
}

/// An agreed change of protocol: what the answer says of the key, in the words of the caller's HTTP.
/// `by_extended` when the program was asked by extended CONNECT.
pub(crate) fn settle_key(
    request: &Request,
    response: &mut Response,
    by_extended: bool,
) -> Result<(), Failure> {
    if let Some(own) = request.own_key {
        let wanted = accept(request.fields.at(own));
        let found = response.fields.named(ACCEPT).next();
        if found.map(octet::trim) != Some(wanted.as_bytes()) {
            let what = "the program's answer does not fit the WebSocket key";
            return Err(Failure::new(Code::BadResponse, what));
        }
        response.fields.drop_named(ACCEPT);
    } else if by_extended && is_websocket(request) {
        response.fields.drop_named(ACCEPT);
        if let Some(key) = request.fields.named(KEY).next() {
            response.fields.push(ACCEPT, accept(key).as_bytes());
        }
    }
    Ok(())
}

fn fresh_key() -> String {
    BASE64.encode(&fastrand::u128(..).to_be_bytes())
}

/// What a server answers to a key.
fn accept(key: &[u8]) -> String {
    let salted = [octet::trim(key), SALT].concat();
    BASE64.encode(digest(&SHA1_FOR_LEGACY_USE_ONLY, &salted).as_ref())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn protocols() {
        for good in [&b"websocket"[..], b"WebSocket", b"connect-udp", b"irc/6.9"] {
            assert!(is_protocol(good), "{good:?}");
        }
        for bad in [
            &b""[..],
            b"h2c",
            b"H2C",
            b"HTTP/2.0",
            b"TLS/1.0",
            b"a b",
            b"a,b",
            b"a/",
            b"a/b/c",
            b"/x",
        ] {
            assert!(!is_protocol(bad), "{bad:?}");
        }
    }

    /// The example of RFC 6455 section 1.3.
    #[test]
    fn keys_are_answered() {
        assert_eq!(
            accept(b"dGhlIHNhbXBsZSBub25jZQ=="),
            "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
        );
        assert_eq!(BASE64.decode(fresh_key().as_bytes()).unwrap().len(), 16);
        assert_ne!(fresh_key(), fresh_key());
    }
}
