//! Collects what the fields of a head say about its body and its connection, and gives one verdict.
//!
//! Source: RFC 9112 section 6, with every ambiguity refused.

use smallvec::SmallVec;

use super::HeadError;
use crate::http::{
    fields::{Fields, Known, Span},
    message::{Framing, Version},
    octet,
};

/// Most options that the `connection` fields of one head may list.
const OPTION_LIMIT: usize = 32;

/// What the fields of a head say, before the verdict.
#[derive(Debug, Default)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is one word that was said or not"
)]
pub(crate) struct Declared {
    /// The valid `content-length`.
    length: Option<u64>,
    /// `transfer-encoding: chunked` was there.
    chunked: bool,
    /// The place of the one `host`.
    pub host: Option<Span>,
    /// `connection: close`
    close: bool,
    /// `connection: keep-alive`
    keep: bool,
    /// `connection: upgrade`
    pub upgrade_option: bool,
    /// The first `upgrade` field.
    pub upgrade: Option<Span>,
    /// `expect: 100-continue`
    pub expects_continue: bool,
    /// `te: trailers`
    pub takes_trailers: bool,
    /// A gRPC content type.
    pub grpc: bool,
    options: usize,
    nominated: bool,
}

impl Declared {
    /// Takes one field into account.
    pub(crate) fn add(
        &mut self,
        fields: &Fields,
        known: Known,
        value: Span,
    ) -> Result<(), HeadError> {
        let text = fields.at(value);
        match known {
            Known::Host => {
                let second = self.host.replace(value).is_some();
                return if second { Err(HeadError::Host) } else { Ok(()) };
            }
            Known::ContentLength => {
                let length = octet::number(text).ok_or(HeadError::ContentLength)?;
                if self
                    .length
                    .replace(length)
                    .is_some_and(|before| before != length)
                {
                    return Err(HeadError::ContentLength);
                }
            }
            Known::TransferEncoding => {
                if self.chunked || !text.eq_ignore_ascii_case(b"chunked") {
                    return Err(refused_coding(text, self.chunked));
                }
                self.chunked = true;
            }
            Known::Connection => self.connection(text)?,
            Known::Upgrade => self.upgrade = self.upgrade.or(Some(value)),
            Known::Expect => self.expects_continue |= text.eq_ignore_ascii_case(b"100-continue"),
            Known::Te => {
                self.takes_trailers |=
                    octet::list(text).any(|te| te.eq_ignore_ascii_case(b"trailers"));
            }
            Known::ContentType => self.grpc |= is_grpc(text),
            _ => {}
        }
        Ok(())
    }

    fn connection(&mut self, text: &[u8]) -> Result<(), HeadError> {
        for option in octet::list(text) {
            self.options += 1;
            if self.options > OPTION_LIMIT || !octet::is_token(option) {
                return Err(HeadError::Connection);
            }
            let is = |wanted: &[u8]| option.eq_ignore_ascii_case(wanted);
            if is(b"close") {
                self.close = true;
            } else if is(b"keep-alive") {
                self.keep = true;
            } else if is(b"upgrade") {
                self.upgrade_option = true;
            } else {
                self.nominated = true;
            }
        }
        Ok(())
    }

    /// Drops the fields that `connection` names, but never one that a peer must not remove.
    pub(crate) fn drop_nominated(&self, fields: &mut Fields) {
        if !self.nominated {
            return;
        }
        let options: SmallVec<[Box<[u8]>; 4]> = fields
            .of(Known::Connection)
            .flat_map(octet::list)
            .map(Box::from)
            .collect();
        fields.drop_where(|known, name| {
            !known.is_protected()
                && options
                    .iter()
                    .any(|option| option.eq_ignore_ascii_case(name))
        });
    }

    /// Whether the connection may be used again after this message.
    pub(crate) fn persistent(&self, version: Version) -> bool {
        match version {
            Version::Http10 => self.keep && !self.close,
            Version::Http11 | Version::Http2 => !self.close,
        }
    }

    /// The verdict on a request's body.
    pub(crate) fn request_body(&self, version: Version) -> Result<Framing, HeadError> {
        if self.chunked {
            self.check_chunked(version)?;
            return Ok(Framing::Streamed);
        }
        Ok(self.length.map_or(Framing::None, length))
    }

    /// The verdict on an answer's body; `bodiless` for HEAD, 1xx, 204 and 304.
    pub(crate) fn response_body(
        &self,
        version: Version,
        bodiless: bool,
    ) -> Result<Framing, HeadError> {
        if self.chunked {
            self.check_chunked(version)?;
        }
        Ok(match self.length {
            _ if bodiless => Framing::None,
            _ if self.chunked => Framing::Streamed,
            Some(known) => length(known),
            None => Framing::Close,
        })
    }

    /// The declared length, also of a message without a body.
    pub(crate) fn length(&self) -> Option<u64> {
        self.length
    }

    fn check_chunked(&self, version: Version) -> Result<(), HeadError> {
        if version == Version::Http10 || self.length.is_some() {
            return Err(HeadError::TransferEncoding);
        }
        Ok(())
    }
}

/// A body whose last coding is not `chunked` has no length that can be known; codings before it are not
/// understood here (RFC 9112 sections 6.1 and 6.3).
fn refused_coding(text: &[u8], second: bool) -> HeadError {
    let mut codings = text.rsplit(|byte| *byte == b',').map(octet::trim);
    let last = codings.next().unwrap_or_default();
    let unknown = last.eq_ignore_ascii_case(b"chunked")
        && codings
            .all(|coding| octet::is_token(coding) && !coding.eq_ignore_ascii_case(b"chunked"));
    if unknown && !second {
        HeadError::Coding
    } else {
        HeadError::TransferEncoding
    }
}

fn length(length: u64) -> Framing {
    if length == 0 {
        Framing::None
    } else {
        Framing::Length(length)
    }
}

/// True for gRPC's content types.
pub(crate) fn is_grpc(value: &[u8]) -> bool {
    value
        .split_at_checked(b"application/grpc".len())
        .is_some_and(|(kind, rest)| {
            kind.eq_ignore_ascii_case(b"application/grpc")
                && matches!(rest.first(), None | Some(b'+' | b';' | b' '))
        })
}
