//! The server name in a TLS ClientHello that is passed on unopened.
//!
//! In: the first bytes of a connection, cut anywhere, the message fragmented over records (RFC 8446 section 5.1).
//! Out: the name (RFC 6066 section 3), or that more is needed, or that these bytes are none that may be routed.
//! Never: reads more than `LONGEST` bytes, or takes a message that could be read in two ways.

/// What the first bytes say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Hello {
    /// Too few: so many in all are needed to look again.
    More(usize),
    /// A whole ClientHello, with the server name in lower case when it has one.
    Named(Option<Box<str>>),
    /// No ClientHello, a malformed one, or one that is too long.
    Other,
}

/// Longest message.
const MESSAGE: usize = 16 << 10;
/// Most records that carry it.
const RECORDS: usize = 32;
/// Most bytes that are looked at.
pub(crate) const LONGEST: usize = MESSAGE + 4 + RECORDS * RECORD_HEAD;
/// Type, version and length of a record.
const RECORD_HEAD: usize = 5;
/// Longest record.
const RECORD: usize = 16 << 10;
const HANDSHAKE: u8 = 22;
const CLIENT_HELLO: u8 = 1;
/// The extension `server_name`, and in it the type `host_name`.
const SERVER_NAME: u16 = 0;
const HOST_NAME: u8 = 0;

/// Looks for the server name.
pub(crate) fn server_name(bytes: &[u8]) -> Hello {
    let mut rest = bytes;
    let mut message = Vec::new();
    let mut seen = 0;
    for _ in 0..RECORDS {
        let Some((head, after)) = rest.split_at_checked(RECORD_HEAD) else {
            return if is_beginning(rest) {
                Hello::More(seen + RECORD_HEAD)
            } else {
                Hello::Other
            };
        };
        let [_, _, _, high, low] = *head else {
            return Hello::Other;
        };
        let length = usize::from(u16::from_be_bytes([high, low]));
        if !is_beginning(head) || length == 0 || length > RECORD {
            return Hello::Other;
        }
        seen += RECORD_HEAD + length;
        if seen > LONGEST {
            return Hello::Other;
        }
        let Some((fragment, after)) = after.split_at_checked(length) else {
            return Hello::More(seen);
        };
        rest = after;
        match whole(if message.is_empty() {
            fragment
        } else {
            message.extend_from_slice(fragment);
            &message
        }) {
            Whole::Body(body) => return read(body).unwrap_or(Hello::Other),
            Whole::Not => return Hello::Other,
            Whole::Part => {
                if message.is_empty() {
                    message.extend_from_slice(fragment);
                }
            }
        }
    }
    Hello::Other
}

/// True while the bytes may begin a record with a handshake message.
fn is_beginning(bytes: &[u8]) -> bool {
    matches!(
        bytes,
        [] | [HANDSHAKE] | [HANDSHAKE, 3] | [HANDSHAKE, 3, 0..=4, ..]
    )
}

enum Whole<'a> {
    Body(&'a [u8]),
    Part,
    Not,
}

/// The body of the message, once all of it is there. What follows it in the same record is not looked at.
fn whole(message: &[u8]) -> Whole<'_> {
    match message {
        [CLIENT_HELLO, high, middle, low, body @ ..] => {
            let length = u32::from_be_bytes([0, *high, *middle, *low]) as usize;
            if length > MESSAGE {
                return Whole::Not;
            }
            body.get(..length).map_or(Whole::Part, Whole::Body)
        }
        [] | [CLIENT_HELLO, ..] => Whole::Part,
        _ => Whole::Not,
    }
}

/// Takes bytes from the front.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }
    fn byte(&mut self) -> Option<u8> {
        self.take(1)?.first().copied()
    }
    fn number(&mut self) -> Option<u16> {
        Some(u16::from_be_bytes(self.take(2)?.try_into().ok()?))
    }
    fn short(&mut self) -> Option<&'a [u8]> {
        let length = self.byte()?;
        self.take(length.into())
    }
    fn long(&mut self) -> Option<&'a [u8]> {
        let length = self.number()?;
        self.take(length.into())
    }
}

/// Reads the body (RFC 8446 section 4.1.2). `None`: malformed.
fn read(body: &[u8]) -> Option<Hello> {
    let mut reader = Reader(body);
    let _version_and_random = reader.take(2 + 32)?;
    let _session = reader.short()?;
    let _suites = reader.long()?;
    let _compressions = reader.short()?;
    if reader.0.is_empty() {
        return Some(Hello::Named(None));
    }
    let mut extensions = Reader(reader.long()?);
    if !reader.0.is_empty() {
        return None;
    }
    let mut found = None;
    while !extensions.0.is_empty() {
        let kind = extensions.number()?;
        let data = extensions.long()?;
        if kind == SERVER_NAME && found.replace(name(data)?).is_some() {
            return None;
        }
    }
    Some(Hello::Named(found))
}

/// The one name of the extension, in lower case and without a dot at its end.
fn name(data: &[u8]) -> Option<Box<str>> {
    let mut reader = Reader(data);
    let mut list = Reader(reader.long()?);
    let (kind, name) = (list.byte()?, list.long()?);
    if kind != HOST_NAME || !list.0.is_empty() || !reader.0.is_empty() {
        return None;
    }
    let name = name.strip_suffix(b".").unwrap_or(name);
    let fits = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    if name.is_empty() || name.len() > 253 || !name.iter().all(fits) {
        return None;
    }
    let name = std::str::from_utf8(name).ok()?;
    Some(name.to_ascii_lowercase().into_boxed_str())
}

#[cfg(test)]
pub(crate) mod tests {
    use std::sync::Arc;

    use super::*;

    /// The first bytes of a real client.
    pub(crate) fn client_hello(name: &str) -> Vec<u8> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(rustls::RootCertStore::empty())
            .with_no_client_auth();
        let name = name.to_owned().try_into().unwrap();
        let mut client = rustls::ClientConnection::new(Arc::new(config), name).unwrap();
        let mut bytes = Vec::new();
        client.write_tls(&mut bytes).unwrap();
        bytes
    }

    /// The same message in records of at most `size` bytes.
    pub(crate) fn fragmented(hello: &[u8], size: usize) -> Vec<u8> {
        let message = &hello[RECORD_HEAD..];
        message
            .chunks(size)
            .flat_map(|piece| {
                let length = u16::try_from(piece.len()).unwrap().to_be_bytes();
                [&hello[..3], &length, piece].concat()
            })
            .collect()
    }

    fn named(name: &str) -> Hello {
        Hello::Named(Some(name.into()))
    }

    #[test]
    fn names_are_found_however_the_bytes_are_cut() {
        let hello = client_hello("Shop.Example");
        assert_eq!(server_name(&hello), named("shop.example"));
        let most = hello.len() - RECORD_HEAD;
        for size in [most / 31 + 1, 100, most - 1, most] {
            let bytes = fragmented(&hello, size);
            for cut in 0..bytes.len() {
                let Hello::More(needed) = server_name(&bytes[..cut]) else {
                    panic!("{cut} of {} bytes in records of {size}", bytes.len());
                };
                assert!(needed > cut && needed <= bytes.len(), "{cut} {needed}");
            }
            assert_eq!(server_name(&bytes), named("shop.example"), "{size}");
            // Data behind it belongs to the stream.
            assert_eq!(
                server_name(&[&bytes[..], b"more"].concat()),
                named("shop.example")
            );
        }
        assert_eq!(server_name(&client_hello("192.0.2.1")), Hello::Named(None));
    }

    /// A message of our own making, its extensions as given.
    fn made(extensions: &[u8]) -> Vec<u8> {
        let mut body = vec![3, 3];
        body.extend([7; 32]);
        body.extend([0, 0, 2, 0x13, 1, 1, 0]);
        body.extend(u16::try_from(extensions.len()).unwrap().to_be_bytes());
        body.extend(extensions);
        let [_, a, b, c] = u32::try_from(body.len()).unwrap().to_be_bytes();
        let message = [&[CLIENT_HELLO, a, b, c], &body[..]].concat();
        let length = u16::try_from(message.len()).unwrap().to_be_bytes();
        [&[HANDSHAKE, 3, 1], &length[..], &message].concat()
    }

    fn sni(kind: u8, name: &[u8], more: &[u8]) -> Vec<u8> {
        let entry = [
            &[kind],
            &u16::try_from(name.len()).unwrap().to_be_bytes()[..],
            name,
            more,
        ]
        .concat();
        let length = u16::try_from(entry.len()).unwrap();
        let outer = (length + 2).to_be_bytes();
        [&[0, 0], &outer[..], &length.to_be_bytes(), &entry].concat()
    }

    #[test]
    fn what_could_be_read_in_two_ways_is_refused() {
        assert_eq!(server_name(&made(&[])), Hello::Named(None));
        assert_eq!(server_name(&made(&sni(0, b"a.B.", b""))), named("a.b"));
        let long = [b'a'; 254];
        for (what, bytes) in [
            (
                "two extensions",
                made(&[sni(0, b"a", b""), sni(0, b"b", b"")].concat()),
            ),
            ("two names", made(&sni(0, b"a", &[0, 0, 1, b'b']))),
            ("another kind", made(&sni(1, b"a", b""))),
            ("empty", made(&sni(0, b"", b""))),
            ("a dot", made(&sni(0, b".", b""))),
            ("too long", made(&sni(0, &long, b""))),
            ("NUL", made(&sni(0, b"a\0b", b""))),
            ("not ASCII", made(&sni(0, "ä".as_bytes(), b""))),
            ("an extension that is cut", made(&[0, 0, 0, 9, 1])),
            ("an alert", b"\x15\x03\x01\x00\x02\x02\x28".to_vec()),
            ("an empty record", b"\x16\x03\x01\x00\x00".to_vec()),
            ("a long record", b"\x16\x03\x01\x40\x01".to_vec()),
            (
                "another message",
                b"\x16\x03\x01\x00\x04\x02\0\0\0".to_vec(),
            ),
            (
                "a huge message",
                b"\x16\x03\x01\x00\x04\x01\x01\0\0".to_vec(),
            ),
            (
                "too many records",
                fragmented(&client_hello("a.example"), 2),
            ),
            ("HTTP", b"GET / HTTP/1.1".to_vec()),
        ] {
            assert_eq!(server_name(&bytes), Hello::Other, "{what}");
        }
        // A record of something else between two fragments.
        let hello = client_hello("a.example");
        let mut bytes = fragmented(&hello, 100);
        bytes.splice(105..105, *b"\x14\x03\x03\x00\x01\x01");
        assert_eq!(server_name(&bytes), Hello::Other);
    }

    proptest::proptest! {
        /// No bytes make it panic, ask for nothing, or ask for too much.
        #[test]
        fn any_bytes(mut bytes in proptest::collection::vec(0u8.., 0..600), hello: bool, at: usize) {
            if hello {
                let mut real = client_hello("a.example");
                let at = at % real.len();
                real.splice(at..at, bytes);
                bytes = real;
            }
            if let Hello::More(needed) = server_name(&bytes) {
                proptest::prop_assert!(needed > bytes.len() && needed <= LONGEST);
            }
        }
    }
}
