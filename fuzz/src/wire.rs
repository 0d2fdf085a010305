//! HTTP/1, HTTP/2 between daemons, paths and first bytes.

use mesh_proxy::fuzz::{self, End};

/// Heads of requests and answers, in one piece and cut at every place: the same verdict.
pub(crate) fn http1_head(bytes: &[u8]) {
    fuzz::http1_head(bytes);
}

/// Runs of requests with bodies: however the bytes come, the same requests and the same end.
pub(crate) fn http1_requests(bytes: &[u8]) {
    let whole = fuzz::http1_requests(bytes, usize::MAX);
    for piece in [1, 2, 7, 61] {
        assert_eq!(
            fuzz::http1_requests(bytes, piece),
            whole,
            "in pieces of {piece}"
        );
    }
    // A beginning of the bytes holds a beginning of the requests.
    let half = bytes.get(..bytes.len() / 2).unwrap_or_default();
    let (some, end) = fuzz::http1_requests(half, usize::MAX);
    assert!(whole.0.starts_with(&some), "{some:?}");
    if let End::Refused(status) = end {
        assert_eq!(
            whole,
            (some, End::Refused(status)),
            "more bytes make good what was refused"
        );
    }
}

/// Either end of HTTP/2 between daemons.
pub(crate) fn link(bytes: &[u8]) {
    fuzz::link(bytes);
}

/// Records of TLS behind a handshake.
pub(crate) fn tls_records(bytes: &[u8]) {
    fuzz::tls_records(bytes);
}

/// Paths as routes and policies see them.
pub(crate) fn path(bytes: &[u8]) {
    if let Ok(text) = std::str::from_utf8(bytes) {
        fuzz::path(text);
    }
}

/// What is spoken on a connection, and for whom.
pub(crate) fn first_bytes(bytes: &[u8]) {
    fuzz::first_bytes(bytes);
}
