//! Which rule of HTTP a message breaks, and the status that says so.

/// A rule that is broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum HeadError {
    /// A line that does not end in CRLF.
    #[error("a line does not end in CRLF")]
    LineEnd,
    /// The first line exceeds 16 KiB.
    #[error("the first line is longer than 16 KiB")]
    LineTooLong,
    /// The head exceeds 64 KiB, or trailers 8 KiB.
    #[error("the head is longer than 64 KiB, or the trailers than 8 KiB")]
    HeadTooLarge,
    /// More than 100 fields.
    #[error("more than 100 fields")]
    TooManyFields,
    /// The first line has not the form of one.
    #[error("the first line is malformed")]
    StartLine,
    /// Neither HTTP/1.0 nor HTTP/1.1.
    #[error("the version is neither HTTP/1.0 nor HTTP/1.1")]
    Version,
    /// Not a token, or too long.
    #[error("the method is malformed")]
    Method,
    /// Not one of the four forms.
    #[error("the request target is malformed")]
    Target,
    /// Missing, twice, or not a host.
    #[error("the host is missing, given twice, or malformed")]
    Host,
    /// Not a token directly before the colon.
    #[error("a field name is malformed")]
    FieldName,
    /// A control byte in a value.
    #[error("a field value is malformed")]
    FieldValue,
    /// Not a number, or two different ones, or where none may be.
    #[error("the content length is malformed or contradicts itself")]
    ContentLength,
    /// Anything but one `chunked`, or with a length, or in HTTP/1.0.
    #[error("the transfer encoding is not exactly chunked, or contradicts a length or the version")]
    TransferEncoding,
    /// Codings before `chunked`.
    #[error("the transfer encoding has codings that are not known")]
    Coding,
    /// Too many options, or one that is no token.
    #[error("the connection options are malformed")]
    Connection,
    /// Not 100 to 599.
    #[error("the status is outside 100 to 599")]
    Status,
    /// A malformed chunk, or too many extensions.
    #[error("the chunked body is malformed")]
    Chunk,
    /// A trailer that may not be one.
    #[error("a trailer frames, routes or identifies the message")]
    Trailer,
    /// The bytes ended early.
    #[error("the message is cut short")]
    Truncated,
}

impl HeadError {
    /// The status that tells a client.
    pub(crate) fn status(self) -> u16 {
        match self {
            Self::LineTooLong => 414,
            Self::HeadTooLarge | Self::TooManyFields => 431,
            Self::Coding => 501,
            Self::Version => 505,
            _ => 400,
        }
    }
}
