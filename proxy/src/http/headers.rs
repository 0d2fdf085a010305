//! What the mesh takes out of heads and adds to them: identity, the client's address, ids, traces.

use std::net::IpAddr;

use smallvec::SmallVec;

use super::{
    convert,
    fields::{Fields, Known},
    message::{Framing, Request, Response},
    octet, upgrade,
};

/// A request's id: 32 hexadecimal digits, the same on every host that it passes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RequestId([u8; 32]);

impl RequestId {
    /// A new one.
    pub(crate) fn fresh() -> Self {
        let mut digits = [b'0'; 32];
        let mut left = fastrand::u128(..);
        for slot in &mut digits {
            let digit = u32::try_from(left & 0xf).unwrap_or_default();
            *slot = char::from_digit(digit, 16).map_or(b'0', |digit| digit as u8);
            left >>= 4;
        }
        Self(digits)
    }

    /// The id in a text.
    pub(crate) fn parse(text: &[u8]) -> Option<Self> {
        let digits: [u8; 32] = text.try_into().ok()?;
        digits
            .iter()
            .all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f'))
            .then_some(Self(digits))
    }

    /// As text.
    pub(crate) fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

/// What another daemon says beside the request, over the hop.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct HopWords {
    /// `mesh-target`
    pub target: Option<u16>,
    /// `mesh-request-id`
    pub id: Option<RequestId>,
    /// `mesh-http: 1`: the calling program spoke HTTP/1.
    pub http1: bool,
}

/// Reads and takes out what another daemon says; an upgrade becomes one again.
pub(crate) fn take_hop_words(request: &mut Request) -> HopWords {
    let fields = &request.fields;
    let first = |name: &str| fields.named(name.as_bytes()).next();
    let number = |text: &[u8]| std::str::from_utf8(text).ok()?.parse().ok();
    let words = HopWords {
        target: first(convert::TARGET).and_then(number),
        id: first(convert::REQUEST_ID).and_then(RequestId::parse),
        http1: first(convert::PROGRAM_HTTP) == Some(b"1"),
    };
    let wish = first(convert::UPGRADE).map(<[u8]>::to_vec);
    // The same as a program may ask for: a second HTTP behind it would be seen by no policy.
    if let Some(name) = wish.filter(|name| upgrade::is_protocol(name)) {
        request.upgrade = Some(request.fields.store(&name));
        request.framing = Framing::None;
    }
    request.fields.drop_known(Known::Identity);
    words
}

/// Takes out of a local program's request what only the mesh may say.
pub(crate) fn clean_request(request: &mut Request, trusted: bool) {
    request.fields.drop_known(Known::Identity);
    if !trusted {
        request.fields.drop_known(Known::Linkerd);
    }
}

/// Takes out of an answer what only the mesh may say; another daemon's `mesh-error` stays.
pub(crate) fn clean_response(response: &mut Response, from_daemon: bool) {
    response.fields.drop_where(|known, name| {
        let kept = from_daemon && name.eq_ignore_ascii_case(convert::ERROR.as_bytes());
        known == Known::Identity && !kept
    });
}

/// Says whose request it is: the last element is the address at the other end of the connection.
pub(crate) fn forwarded(request: &mut Request, client: IpAddr) {
    let text = address(client.to_canonical());
    let text = text.as_slice();
    let known = Known::ForwardedFor;
    if request.fields.of(known).next().is_none() {
        request.fields.push(b"x-forwarded-for", text);
    } else {
        let mut all: Vec<&[u8]> = request
            .fields
            .of(known)
            .filter(|value| !value.is_empty())
            .collect();
        all.push(text);
        let joined = all.join(&b", "[..]);
        request.fields.drop_known(known);
        request.fields.push(b"x-forwarded-for", &joined);
    }
    if request.fields.of(Known::ForwardedProto).next().is_none() {
        request.fields.push(b"x-forwarded-proto", b"http");
    }
}

/// An address as text.
fn address(ip: IpAddr) -> SmallVec<[u8; 48]> {
    let mut text = SmallVec::new();
    match ip {
        // Nearly every one: without the machinery of formats.
        IpAddr::V4(ip) => {
            for octet in ip.octets() {
                if !text.is_empty() {
                    text.push(b'.');
                }
                text.extend_from_slice(itoa::Buffer::new().format(octet).as_bytes());
            }
        }
        IpAddr::V6(ip) => text.extend_from_slice(ip.to_string().as_bytes()),
    }
    text
}

/// Counts down how many more hops OPTIONS and TRACE may take (RFC 9110 section 7.6.2); true when this is the last.
pub(crate) fn is_last_hop(request: &mut Request) -> bool {
    if !matches!(request.method_bytes(), b"OPTIONS" | b"TRACE") {
        return false;
    }
    let left = request.fields.named(b"max-forwards").next();
    let Some(left) = left.and_then(octet::number) else {
        return false;
    };
    let Some(less) = left.checked_sub(1) else {
        return true;
    };
    request.fields.drop_named(b"max-forwards");
    let mut digits = itoa::Buffer::new();
    request
        .fields
        .push(b"max-forwards", digits.format(less).as_bytes());
    false
}

/// The trace id of a W3C `traceparent`; empty when there is none.
pub(crate) fn trace(fields: &Fields) -> &str {
    let value = fields.named(b"traceparent").next().unwrap_or_default();
    let id = value
        .get(3..35)
        .filter(|id| id.iter().all(u8::is_ascii_hexdigit));
    id.and_then(|id| std::str::from_utf8(id).ok())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids() {
        let id = RequestId::fresh();
        assert_eq!(RequestId::parse(id.as_str().as_bytes()), Some(id));
        assert_eq!(RequestId::parse(b"short"), None);
        assert_eq!(RequestId::parse(&[b'G'; 32]), None);
    }

    /// A daemon may pass on no change of protocol that a program could not ask for itself.
    #[test]
    fn changes_of_protocol_over_the_hop() {
        for (name, taken) in [("websocket", true), ("h2c", false), ("TLS/1.0", false)] {
            let mut request = Request::default();
            let fields = &mut request.fields;
            fields.push(convert::UPGRADE.as_bytes(), name.as_bytes());
            take_hop_words(&mut request);
            assert_eq!(request.upgrade_name(), Some(name).filter(|_| taken));
            assert!(request.fields.is_empty());
        }
    }

    #[test]
    fn forwarding() {
        let mut request = Request::default();
        request.fields.push(b"X-Forwarded-For", b"1.1.1.1");
        request.fields.push(b"x-forwarded-for", b"2.2.2.2");
        forwarded(&mut request, "::ffff:10.0.0.1".parse().unwrap());
        let all: Vec<_> = request.fields.named(b"x-forwarded-for").collect();
        assert_eq!(all, [b"1.1.1.1, 2.2.2.2, 10.0.0.1"]);
        assert_eq!(
            request.fields.named(b"x-forwarded-proto").next(),
            Some(&b"http"[..])
        );
    }

    #[test]
    fn addresses() {
        for text in ["0.0.0.0", "10.1.22.255", "255.255.255.255", "::", "fd00::1"] {
            let ip: IpAddr = text.parse().unwrap();
            assert_eq!(address(ip).as_slice(), text.as_bytes());
        }
    }

    #[test]
    fn hops_are_counted() {
        for (method, sent, last, left) in [
            ("OPTIONS", "3", false, "2"),
            ("TRACE", "1", false, "0"),
            ("TRACE", "0", true, "0"),
            ("OPTIONS", "x", false, "x"),
            ("GET", "0", false, "0"),
        ] {
            let mut request = Request::default();
            request.set_method(method.as_bytes());
            request.fields.push(b"Max-Forwards", sent.as_bytes());
            assert_eq!(is_last_hop(&mut request), last, "{method} {sent}");
            let found: Vec<_> = request.fields.named(b"max-forwards").collect();
            assert_eq!(found, [left.as_bytes()]);
        }
    }

    #[test]
    fn identity_is_taken_out() {
        let mut request = Request::default();
        for name in [
            "mesh-target",
            "Mesh_Error",
            "x-forwarded-client-cert",
            "l5d-dtab",
            "x-a",
        ] {
            request.fields.push(name.as_bytes(), b"1");
        }
        clean_request(&mut request, true);
        assert_eq!(request.fields.len(), 2);
        clean_request(&mut request, false);
        assert_eq!(request.fields.len(), 1);
        let mut response = Response::default();
        response.fields.push(b"mesh-error", b"denied");
        response.fields.push(b"mesh-peer", b"x");
        clean_response(&mut response, true);
        assert_eq!(response.fields.len(), 1);
        clean_response(&mut response, false);
        assert!(response.fields.is_empty());
    }

    #[test]
    fn traces() {
        let mut fields = Fields::default();
        assert_eq!(trace(&fields), "");
        fields.push(
            b"traceparent",
            b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        );
        assert_eq!(trace(&fields), "0af7651916cd43dd8448eb211c80319c");
    }
}
