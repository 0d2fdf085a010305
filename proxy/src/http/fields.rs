//! Header fields as one run of text and a list of places in it; reused from message to message.
//!
//! Names keep their spelling and are compared in any case. A field that is dropped keeps its place.

use bytes::{Bytes, BytesMut};

/// A place in the text of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Span {
    start: u32,
    end: u32,
}

/// Names that mean something to the mesh.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Known {
    /// Any other.
    Other,
    /// Taken out: not sent on.
    Dropped,
    /// `host`
    Host,
    /// `content-length`
    ContentLength,
    /// `transfer-encoding`
    TransferEncoding,
    /// `connection`
    Connection,
    /// Further fields of one hop: `keep-alive`, `proxy-connection`, `http2-settings`.
    HopOnly,
    /// `te`
    Te,
    /// `upgrade`
    Upgrade,
    /// `expect`
    Expect,
    /// `date`
    Date,
    /// `cookie`
    Cookie,
    /// `content-type`
    ContentType,
    /// `grpc-status`
    GrpcStatus,
    /// `x-forwarded-for`
    ForwardedFor,
    /// `x-forwarded-proto`
    ForwardedProto,
    /// Names that speak of identity: `mesh-*` and `x-forwarded-client-cert` in any spelling.
    Identity,
    /// `l5d-*`
    Linkerd,
    /// `trailer`
    Trailer,
    /// `authorization`, `proxy-authorization`
    Credentials,
}

impl Known {
    /// What a name is.
    pub(crate) fn of(name: &[u8]) -> Self {
        let is = |wanted: &[u8]| name.eq_ignore_ascii_case(wanted);
        // Length and first letter tell most names apart before they are compared.
        let initial = name.first().map_or(0, u8::to_ascii_lowercase);
        let known = match (name.len(), initial) {
            (2, b't') if is(b"te") => Self::Te,
            (4, b'h') if is(b"host") => Self::Host,
            (4, b'd') if is(b"date") => Self::Date,
            (6, b'c') if is(b"cookie") => Self::Cookie,
            (6, b'e') if is(b"expect") => Self::Expect,
            (7, b'u') if is(b"upgrade") => Self::Upgrade,
            (7, b't') if is(b"trailer") => Self::Trailer,
            (10, b'c') if is(b"connection") => Self::Connection,
            (10, b'k') if is(b"keep-alive") => Self::HopOnly,
            (11, b'g') if is(b"grpc-status") => Self::GrpcStatus,
            (12, b'c') if is(b"content-type") => Self::ContentType,
            (13, b'a') if is(b"authorization") => Self::Credentials,
            (14, b'c') if is(b"content-length") => Self::ContentLength,
            (14, b'h') if is(b"http2-settings") => Self::HopOnly,
            (15, b'x') if is(b"x-forwarded-for") => Self::ForwardedFor,
            (16, b'p') if is(b"proxy-connection") => Self::HopOnly,
            (17, b't') if is(b"transfer-encoding") => Self::TransferEncoding,
            (17, b'x') if is(b"x-forwarded-proto") => Self::ForwardedProto,
            (19, b'p') if is(b"proxy-authorization") => Self::Credentials,
            _ => Self::Other,
        };
        if known == Self::Other {
            Self::family(name)
        } else {
            known
        }
    }

    /// Programs that make variables of names read `_` as `-`: what such a spelling could frame, or could say
    /// in place of the mesh, is dropped.
    fn spelled_with_underscore(name: &[u8]) -> bool {
        let as_program = |wanted: &[u8]| name.len() == wanted.len() && begins(name, wanted);
        matches!(name.len(), 10 | 14..=17)
            && memchr::memchr(b'_', name).is_some()
            && [
                &b"keep-alive"[..],
                b"content-length",
                b"http2-settings",
                b"x-forwarded-for",
                b"proxy-connection",
                b"transfer-encoding",
                b"x-forwarded-proto",
            ]
            .into_iter()
            .any(as_program)
    }

    fn family(name: &[u8]) -> Self {
        match name.first().map(u8::to_ascii_lowercase) {
            Some(b'm') if begins(name, b"mesh-") => Self::Identity,
            Some(b'l') if begins(name, b"l5d-") => Self::Linkerd,
            Some(b'x') if name.len() == 23 && begins(name, b"x-forwarded-client-cert") => {
                Self::Identity
            }
            _ if Self::spelled_with_underscore(name) => Self::Dropped,
            _ => Self::Other,
        }
    }

    /// True for what a sender of trailers may not put into them and that is taken out there: identity, and the
    /// fields that the mesh sets itself.
    pub(crate) fn is_ours(self) -> bool {
        matches!(
            self,
            Self::Identity | Self::Linkerd | Self::ForwardedFor | Self::ForwardedProto
        )
    }

    /// True for what no trailer may be (RFC 9110 section 6.5.1).
    pub(crate) fn is_no_trailer(self) -> bool {
        self != Self::Dropped
            && (self.stays_here()
                || matches!(
                    self,
                    Self::Trailer | Self::Credentials | Self::Expect | Self::Cookie
                ))
    }

    /// True for what belongs to one hop, and for framing, which is written anew.
    pub(crate) fn stays_here(self) -> bool {
        matches!(
            self,
            Self::Dropped
                | Self::Host
                | Self::ContentLength
                | Self::TransferEncoding
                | Self::Connection
                | Self::HopOnly
                | Self::Te
                | Self::Upgrade
        )
    }

    /// True for what a peer cannot have removed by naming it in `connection`.
    pub(crate) fn is_protected(self) -> bool {
        !matches!(
            self,
            Self::Other | Self::Date | Self::HopOnly | Self::Te | Self::Upgrade | Self::Trailer
        )
    }
}

/// Compares a beginning in any case; `_` counts as `-`, as programs that make variables of names do.
fn begins(name: &[u8], wanted: &[u8]) -> bool {
    name.len() >= wanted.len()
        && name.iter().zip(wanted).all(|(byte, wanted)| {
            byte.eq_ignore_ascii_case(wanted) || (*byte == b'_' && *wanted == b'-')
        })
}

#[derive(Debug, Clone, Copy)]
struct Field {
    known: Known,
    name: Span,
    value: Span,
}

/// A list of fields.
#[derive(Debug, Clone, Default)]
pub(crate) struct Fields {
    text: Vec<u8>,
    list: Vec<Field>,
}

impl Fields {
    /// Forgets everything and keeps the memory.
    pub(crate) fn clear(&mut self) {
        self.text.clear();
        self.list.clear();
    }

    /// Adds a line.
    pub(crate) fn push(&mut self, name: &[u8], value: &[u8]) {
        let name = self.store(name);
        let value = self.store(value);
        self.push_stored(name, value);
    }

    /// Adds a line whose text is already stored, and says what it is.
    pub(crate) fn push_stored(&mut self, name: Span, value: Span) -> Known {
        let known = Known::of(self.at(name));
        self.list.push(Field { known, name, value });
        known
    }

    /// Stores text of the message that is no field, such as its path.
    pub(crate) fn store(&mut self, bytes: &[u8]) -> Span {
        let start = self.end();
        self.text.extend_from_slice(bytes);
        Span {
            start,
            end: self.end(),
        }
    }

    /// Makes a place of `text[start..end]`, both counted from `base`.
    pub(crate) fn span(base: usize, start: usize, end: usize) -> Span {
        let place = |at: usize| u32::try_from(base + at).unwrap_or(u32::MAX);
        Span {
            start: place(start),
            end: place(end),
        }
    }

    /// The text at a place.
    pub(crate) fn at(&self, span: Span) -> &[u8] {
        self.text
            .get(span.start as usize..span.end as usize)
            .unwrap_or_default()
    }

    /// The text at a place, empty when it is not UTF-8.
    pub(crate) fn str_at(&self, span: Span) -> &str {
        std::str::from_utf8(self.at(span)).unwrap_or_default()
    }

    /// Number of lines that are not dropped.
    pub(crate) fn len(&self) -> usize {
        self.list
            .iter()
            .filter(|field| field.known != Known::Dropped)
            .count()
    }

    /// True without a line.
    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Every line that is not dropped.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (Known, &[u8], &[u8])> {
        self.list
            .iter()
            .filter(|field| field.known != Known::Dropped)
            .map(|field| (field.known, self.at(field.name), self.at(field.value)))
    }

    /// Writes the lines that `wanted` means, and none that is dropped, each as name, `: `, value and CRLF.
    pub(crate) fn write(&self, out: &mut BytesMut, wanted: impl Fn(Known) -> bool) {
        // Lines that stand in the text just as they are to be written go out together.
        let mut run = 0..0;
        let due = |field: &&Field| field.known != Known::Dropped && wanted(field.known);
        for field in self.list.iter().filter(due) {
            let (start, end) = (field.name.start as usize, field.value.end as usize + 2);
            let between = field.name.end as usize..field.value.start as usize;
            let plain = self.text.get(between).is_some_and(|text| text == b": ")
                && self
                    .text
                    .get(end - 2..end)
                    .is_some_and(|text| text == b"\r\n");
            if plain && start == run.end {
                run.end = end;
                continue;
            }
            out.extend_from_slice(self.text.get(run).unwrap_or_default());
            run = if plain { start..end } else { 0..0 };
            if !plain {
                out.extend_from_slice(self.at(field.name));
                out.extend_from_slice(b": ");
                out.extend_from_slice(self.at(field.value));
                out.extend_from_slice(b"\r\n");
            }
        }
        out.extend_from_slice(self.text.get(run).unwrap_or_default());
    }

    /// Every line that is not dropped, all values as slices of one new allocation.
    pub(crate) fn shared(&self) -> impl Iterator<Item = (Known, &[u8], Bytes)> {
        let text = Bytes::copy_from_slice(&self.text);
        self.list
            .iter()
            .filter(|field| field.known != Known::Dropped)
            .map(move |field| {
                let (start, end) = (field.value.start as usize, field.value.end as usize);
                let end = end.min(text.len());
                (
                    field.known,
                    self.at(field.name),
                    text.slice(start.min(end)..end),
                )
            })
    }

    /// The values of a known name.
    pub(crate) fn of(&self, known: Known) -> impl Iterator<Item = &[u8]> {
        self.list
            .iter()
            .filter(move |field| field.known == known)
            .map(|field| self.at(field.value))
    }

    /// The values of a name in any spelling of case.
    pub(crate) fn named(&self, name: &[u8]) -> impl Iterator<Item = &[u8]> {
        self.iter()
            .filter(move |(_, found, _)| found.eq_ignore_ascii_case(name))
            .map(|(_, _, value)| value)
    }

    /// Drops the lines of a known name; true when there was one.
    pub(crate) fn drop_known(&mut self, known: Known) -> bool {
        self.drop_where(|found, _| found == known)
    }

    /// Drops the lines of a name; true when there was one.
    pub(crate) fn drop_named(&mut self, name: &[u8]) -> bool {
        self.drop_where(|_, found| found.eq_ignore_ascii_case(name))
    }

    /// Drops lines by what they are and are called; true when there was one.
    pub(crate) fn drop_where(&mut self, unwanted: impl Fn(Known, &[u8]) -> bool) -> bool {
        let mut found = false;
        for field in &mut self.list {
            let name = self
                .text
                .get(field.name.start as usize..field.name.end as usize);
            if field.known != Known::Dropped && unwanted(field.known, name.unwrap_or_default()) {
                field.known = Known::Dropped;
                found = true;
            }
        }
        found
    }

    fn end(&self) -> u32 {
        u32::try_from(self.text.len()).unwrap_or(u32::MAX)
    }

    /// Memory held, for the pool of messages.
    pub(crate) fn capacity(&self) -> usize {
        self.text.capacity()
    }

    /// Where the next stored text begins.
    pub(crate) fn base(&self) -> usize {
        self.text.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        for (name, wanted) in [
            ("Host", Known::Host),
            ("TRANSFER-ENCODING", Known::TransferEncoding),
            ("mesh-target", Known::Identity),
            ("Mesh_Error", Known::Identity),
            ("X_Forwarded-Client_Cert", Known::Identity),
            ("x-forwarded-client-certs", Known::Other),
            ("L5D-Dtab", Known::Linkerd),
            ("l5d_dtab", Known::Linkerd),
            ("x-mesh", Known::Other),
            ("content-lengt", Known::Other),
            ("Content_Length", Known::Dropped),
            ("TRANSFER_ENCODING", Known::Dropped),
            ("x_forwarded-for", Known::Dropped),
            ("x_forwarded_proto", Known::Dropped),
            ("x_forwarded_host", Known::Other),
            ("content_type", Known::Other),
        ] {
            assert_eq!(Known::of(name.as_bytes()), wanted, "{name}");
        }
    }

    /// However lines stand in the text, what is written is name, colon, space, value, CRLF.
    #[test]
    fn writing() {
        let lines = b"a: 1\r\nb: 2\r\nc:3\r\nD:  4 \r\ne: \r\nf: 6\r\ng: 7\r\n";
        let mut fields = Fields::default();
        let base = fields.base();
        fields.store(lines);
        let mut at = 0;
        for line in lines.split_inclusive(|byte| *byte == b'\n') {
            let colon = line.iter().position(|byte| *byte == b':').unwrap();
            let value = line.get(colon + 1..line.len() - 2).unwrap();
            let lead = value.len() - value.trim_ascii_start().len();
            let start = at + colon + 1 + lead;
            let end = start + value.trim_ascii().len();
            let span = |start, end| Fields::span(base, start, end);
            fields.push_stored(span(at, at + colon), span(start, end));
            at += line.len();
        }
        fields.push(b"host", b"x");
        fields.push(b"h", b"8");
        let written = |fields: &Fields| {
            let mut out = BytesMut::from(&b"first\r\n"[..]);
            fields.write(&mut out, |known| known != Known::Host);
            String::from_utf8(out.to_vec()).unwrap()
        };
        let all = "first\r\na: 1\r\nb: 2\r\nc: 3\r\nD: 4\r\ne: \r\nf: 6\r\ng: 7\r\nh: 8\r\n";
        assert_eq!(written(&fields), all);
        fields.drop_named(b"b");
        fields.drop_named(b"g");
        let some = "first\r\na: 1\r\nc: 3\r\nD: 4\r\ne: \r\nf: 6\r\nh: 8\r\n";
        assert_eq!(written(&fields), some);
    }

    #[test]
    fn dropping() {
        let mut fields = Fields::default();
        fields.push(b"A", b"1");
        fields.push(b"b", b"2");
        fields.push(b"a", b"3");
        assert_eq!(fields.named(b"a").collect::<Vec<_>>(), [b"1", b"3"]);
        assert!(fields.drop_named(b"A"));
        assert!(!fields.drop_named(b"A"));
        assert_eq!(fields.len(), 1);
        assert_eq!(fields.iter().next().unwrap().1, b"b");
    }
}
