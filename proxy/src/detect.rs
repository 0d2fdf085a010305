//! TLS, HTTP/1, HTTP/2 or opaque, from the first bytes.
//!
//! In: what the caller sent so far. Out: a verdict, or that more is needed. A caller that stays silent
//! is dialled on; who speaks first then decides, and places where the server did are remembered.

use std::{
    cell::RefCell,
    collections::HashMap,
    net::SocketAddr,
    time::{Duration, Instant},
};

/// What is spoken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Spoken {
    /// A TLS handshake.
    Tls,
    /// HTTP/2 with prior knowledge (RFC 9113 section 3.4).
    Http2,
    /// HTTP/1.
    Http1,
    /// Anything else.
    Opaque,
}

/// The client's connection preface (RFC 9113 section 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Longest method that is believed.
const METHOD: usize = 24;
/// Beginnings of a request target in absolute form.
const SCHEME: &[u8] = b"http";
/// A line that is longer and begins as a request does is believed before its end.
const LINE: usize = 64;

/// What the first bytes say; `None`: too few to tell. Decides within 64 bytes.
pub(crate) fn spoken(bytes: &[u8]) -> Option<Spoken> {
    let verdict = beginning(bytes)?;
    if verdict != Spoken::Http1 {
        return Some(verdict);
    }
    // Other protocols have such lines too (`GET /key` of Redis, `OPTIONS * RTSP/1.0`): the version tells.
    match memchr::memchr(b'\n', bytes) {
        Some(end) if names_http(bytes.get(..end)?) => Some(Spoken::Http1),
        Some(_) => Some(Spoken::Opaque),
        None if bytes.len() >= LINE => Some(Spoken::Http1),
        None => None,
    }
}

/// The likeliest verdict on bytes behind which nothing came for a while.
pub(crate) fn likely(bytes: &[u8]) -> Spoken {
    beginning(bytes).unwrap_or(Spoken::Opaque)
}

/// The last word of a request line.
fn names_http(line: &[u8]) -> bool {
    let word = line.rsplit(|byte| *byte == b' ').next();
    word.is_some_and(|word| word.starts_with(b"HTTP/"))
}

/// The same without a look at the end of a request line.
pub(crate) fn beginning(bytes: &[u8]) -> Option<Spoken> {
    match bytes {
        [] | [0x16] | [0x16, 0x03] => None,
        [0x16, 0x03, 0..=4, ..] => Some(Spoken::Tls),
        _ if bytes.starts_with(PREFACE) => Some(Spoken::Http2),
        _ if PREFACE.starts_with(bytes) => None,
        _ => request_line(bytes),
    }
}

/// A method (upper-case letters and `-`), one space, and the beginning of a request target (RFC 9112 section 3).
fn request_line(bytes: &[u8]) -> Option<Spoken> {
    let method = bytes
        .iter()
        .take_while(|byte| byte.is_ascii_uppercase() || **byte == b'-')
        .count();
    if method > METHOD {
        return Some(Spoken::Opaque);
    }
    let (name, rest) = bytes.split_at_checked(method)?;
    let target = match rest {
        [] => return None,
        [b' ', target @ ..] if method > 0 => target,
        _ => return Some(Spoken::Opaque),
    };
    match target {
        [] => None,
        [b'/' | b'*', ..] => Some(Spoken::Http1),
        [byte, ..] if name == b"CONNECT" && (byte.is_ascii_alphanumeric() || *byte == b'[') => {
            Some(Spoken::Http1)
        }
        _ if target.starts_with(SCHEME) => Some(Spoken::Http1),
        _ if SCHEME.starts_with(target) => None,
        _ => Some(Spoken::Opaque),
    }
}

/// Places where the server speaks first: dialled at once, without a wait.
#[derive(Debug, Default)]
pub(crate) struct Memory(RefCell<HashMap<SocketAddr, Instant>>);

/// How long a place is remembered.
const REMEMBERED: Duration = Duration::from_hours(1);
/// Most places remembered.
const PLACES: usize = 4096;

impl Memory {
    /// True when the server there spoke first lately.
    pub(crate) fn server_first(&self, place: SocketAddr) -> bool {
        self.0
            .borrow()
            .get(&place)
            .is_some_and(|seen| seen.elapsed() < REMEMBERED)
    }
    /// Remembers who spoke first there: the server, with these bytes, or the caller (`None`). A server of HTTP that
    /// tells a silent caller to go (408) is none that speaks first.
    pub(crate) fn learn(&self, place: SocketAddr, server: Option<&[u8]>) {
        let mut places = self.0.borrow_mut();
        if server.is_none_or(|said| said.starts_with(b"HTTP/")) {
            places.remove(&place);
            return;
        }
        if places.len() >= PLACES && !places.contains_key(&place) {
            forget_old(&mut places);
        }
        places.insert(place, Instant::now());
    }
}

/// Makes room: what is too old goes, and of what is left the older half.
fn forget_old(places: &mut HashMap<SocketAddr, Instant>) {
    places.retain(|_, seen| seen.elapsed() < REMEMBERED);
    if places.len() < PLACES {
        return;
    }
    let mut seen: Vec<Instant> = places.values().copied().collect();
    let half = seen.len() / 2;
    let (_, &mut newer, _) = seen.select_nth_unstable(half);
    places.retain(|_, seen| *seen > newer);
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &[(&[u8], Option<Spoken>)] = &[
        (b"", None),
        (b"\x16", None),
        (b"\x16\x03", None),
        (b"\x16\x03\x01\x02\x00", Some(Spoken::Tls)),
        (b"\x16\x03\x09", Some(Spoken::Opaque)),
        (b"\x16\x01", Some(Spoken::Opaque)),
        (b"P", None),
        (b"PRI * HT", None),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", Some(Spoken::Http2)),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0", Some(Spoken::Http2)),
        (b"PRI * HTTP/1.1\r\n", Some(Spoken::Http1)),
        (b"PRI * HTTP/2.0\r\n\r\nXX\r\n", Some(Spoken::Http1)),
        (b"GET", None),
        (b"GET ", None),
        (b"GET /", None),
        (b"GET / HTTP/1.1\r\n", Some(Spoken::Http1)),
        (b"GET / HTTP/1.0\n", Some(Spoken::Http1)),
        (b"GET / HTTP/9.9\r\n", Some(Spoken::Http1)),
        (b"HEAD / HTTP/1.1\r\n", Some(Spoken::Http1)),
        (b"POST /a?b HTTP/1.1\r\nhost: x", Some(Spoken::Http1)),
        (b"PUT /a HTTP/1.1\r\n", Some(Spoken::Http1)),
        (b"DELETE /a HTTP/1.1\r\n", Some(Spoken::Http1)),
        (b"PATCH /a HTTP/1.1\r\n", Some(Spoken::Http1)),
        (b"TRACE /a HTTP/1.1\r\n", Some(Spoken::Http1)),
        (b"PROPFIND /a HTTP/1.1\r\n", Some(Spoken::Http1)),
        (b"VERSION-CONTROL /a HTTP/1.1\r\n", Some(Spoken::Http1)),
        (b"OPTIONS * HTTP/1.1\r\n", Some(Spoken::Http1)),
        (b"M-SEARCH * HTTP/1.1\r\n", Some(Spoken::Http1)),
        (b"GET ht", None),
        (b"GET http://words/ HTTP/1.1\r\n", Some(Spoken::Http1)),
        (b"CONNECT words:80 HTTP/1.1\r\n", Some(Spoken::Http1)),
        (b"CONNECT [::1]:80 HTTP/1.1\r\n", Some(Spoken::Http1)),
        (
            b"GET /a-path-that-is-longer-than-what-is-waited-for-before-a-verdict",
            Some(Spoken::Http1),
        ),
        // Redis, memcached, STOMP, RTSP, SIP, ICAP.
        (b"GET key\r\n", Some(Spoken::Opaque)),
        (b"GET /key\r\n", Some(Spoken::Opaque)),
        (b"*1\r\n$4\r\nPING\r\n", Some(Spoken::Opaque)),
        (b"get key\r\n", Some(Spoken::Opaque)),
        (b"CONNECT\naccept-version:1.2", Some(Spoken::Opaque)),
        (b"OPTIONS rtsp://host/ RTSP/1.0", Some(Spoken::Opaque)),
        (b"OPTIONS * RTSP/1.0\r\n", Some(Spoken::Opaque)),
        (b"REGISTER sip:host SIP/2.0\r\n", Some(Spoken::Opaque)),
        (b"REQMOD icap://host/ ICAP/1.0\r\n", Some(Spoken::Opaque)),
        // SSH, SMTP, FTP, IMAP, IRC, finger.
        (b"SSH-2.0-OpenSSH_9.2\r\n", Some(Spoken::Opaque)),
        (b"EHLO client.example\r\n", Some(Spoken::Opaque)),
        (b"HELP\r\n", Some(Spoken::Opaque)),
        (b"USER name\r\n", Some(Spoken::Opaque)),
        (b"a1 LOGIN x y\r\n", Some(Spoken::Opaque)),
        (b"NICK name\r\n", Some(Spoken::Opaque)),
        (b"\r\n", Some(Spoken::Opaque)),
        // MySQL's and PostgreSQL's clients, MQTT, Kafka, MongoDB, a TLS 1.0 alert, SOCKS.
        (b"\x20\0\0\x01\x85\xa6\xff\x01", Some(Spoken::Opaque)),
        (b"\0\0\0\x08\x04\xd2\x16\x2f", Some(Spoken::Opaque)),
        (b"\x10\x0c\0\x04MQTT\x04", Some(Spoken::Opaque)),
        (b"\0\0\0\x16\0\x12\0\x03", Some(Spoken::Opaque)),
        (b"\x3f\0\0\0\x01\0\0\0", Some(Spoken::Opaque)),
        (b"\x15\x03\x01\0\x02", Some(Spoken::Opaque)),
        (b"\x05\x01\0", Some(Spoken::Opaque)),
        (b" GET / HTTP/1.1", Some(Spoken::Opaque)),
        (b"GET  / HTTP/1.1", Some(Spoken::Opaque)),
        (b"ABCDEFGHIJKLMNOPQRSTUVWXYZ", Some(Spoken::Opaque)),
        (b"\r\n\r\n", Some(Spoken::Opaque)),
    ];

    #[test]
    fn table() {
        for (bytes, verdict) in TABLE {
            assert_eq!(
                spoken(bytes),
                *verdict,
                "{:?}",
                String::from_utf8_lossy(bytes)
            );
        }
    }

    /// However the bytes are cut, the verdict is the same, and 64 bytes are always enough.
    #[test]
    fn cuts_do_not_matter() {
        for (bytes, verdict) in TABLE {
            let first = (0..=bytes.len()).find_map(|length| spoken(&bytes[..length]));
            assert_eq!(first, *verdict, "{:?}", String::from_utf8_lossy(bytes));
        }
        assert!(spoken(&[b'A'; 64]).is_some());
    }

    /// A caller that stops in the middle of its line is judged by what there is.
    #[test]
    fn likely_verdicts() {
        for (bytes, wanted) in [
            (&b"GET /half"[..], Spoken::Http1),
            (b"GET", Spoken::Opaque),
            (b"PRI * HTTP/2.0", Spoken::Opaque),
            (b"\x16", Spoken::Opaque),
            (b"\x16\x03\x01", Spoken::Tls),
        ] {
            assert_eq!(likely(bytes), wanted, "{bytes:?}");
        }
    }

    proptest::proptest! {
        /// Random bytes get one verdict, the same however they are cut, and 64 are always enough.
        #[test]
        fn random_bytes(bytes in proptest::collection::vec(0u8.., 64..80)) {
            let first = (0..=bytes.len()).find_map(|length| spoken(&bytes[..length]));
            proptest::prop_assert_eq!(first, spoken(&bytes));
            proptest::prop_assert!(spoken(&bytes[..64]).is_some());
            let http = bytes.first().is_some_and(u8::is_ascii_uppercase);
            proptest::prop_assert!(http || !matches!(first, Some(Spoken::Http1 | Spoken::Http2)));
        }
    }

    #[test]
    fn memory_learns_and_unlearns() {
        let memory = Memory::default();
        let place = "240.240.0.1:25".parse().unwrap();
        assert!(!memory.server_first(place));
        memory.learn(place, Some(b"220 hello"));
        assert!(memory.server_first(place));
        memory.learn(place, None);
        assert!(!memory.server_first(place));
    }

    #[test]
    fn memory_is_bounded_and_forgets_the_oldest_first() {
        let memory = Memory::default();
        let place = |number: usize| {
            let number = u32::try_from(number).unwrap();
            SocketAddr::from((std::net::Ipv4Addr::from_bits(number), 25))
        };
        for number in 0..=PLACES * 3 {
            memory.learn(place(number), Some(b"220 hello"));
            assert!(memory.0.borrow().len() <= PLACES);
        }
        let known = |number| memory.server_first(place(number));
        assert!(!known(0) && known(PLACES * 3) && known(PLACES * 3 - 1000));
        // What is too old counts no more, and goes before anything else.
        let long_ago = Instant::now().checked_sub(REMEMBERED);
        if let Some(long_ago) = long_ago {
            let mut places = memory.0.borrow_mut();
            places.clear();
            places.extend((0..PLACES - 1).map(|number| (place(number), long_ago)));
            places.insert(place(PLACES), Instant::now());
            drop(places);
            assert!(!known(1));
            memory.learn(place(PLACES + 1), Some(b"220 hello"));
            assert_eq!(memory.0.borrow().len(), 2);
        }
    }
}
