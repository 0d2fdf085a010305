//! Decoders of bytes from outside, open to the fuzzer.

pub use crate::http::whole::{End, Whole};
use crate::{detect, hello, http, link, tls};

/// Judges the bytes as heads of HTTP/1; panics when a law of the codec is broken.
pub fn http1_head(bytes: &[u8]) {
    http::judge_head(bytes);
}

/// The requests of HTTP/1 in a run of bytes that comes in pieces of `piece` bytes.
pub fn http1_requests(bytes: &[u8], piece: usize) -> (Vec<Whole>, End) {
    http::whole::requests(bytes, piece)
}

/// What an end of HTTP/2 between daemons hears, and a head of it; panics when a law is broken.
pub fn link(bytes: &[u8]) {
    link::judge(bytes);
}

/// What a stream of TLS makes of records behind a handshake; panics when a law is broken.
pub fn tls_records(bytes: &[u8]) {
    tls::judge::judge(bytes);
}

/// Paths: what routes and policies see of one; panics when a law is broken.
pub fn path(text: &str) {
    http::judge_path(text);
}

/// First bytes: what is spoken, and for whom; panics when a law is broken.
pub fn first_bytes(bytes: &[u8]) {
    /// Enough to decide by.
    const ENOUGH: usize = 64;
    let whole = detect::spoken(bytes);
    assert!(whole.is_some() || bytes.len() < ENOUGH, "no verdict");
    let beginning = bytes.get(..bytes.len().min(ENOUGH)).unwrap_or_default();
    let mut decided = None;
    for end in 0..=beginning.len() {
        let verdict = beginning.get(..end).and_then(detect::spoken);
        // Only a long line without an end is judged before its end.
        let firm = end < ENOUGH || beginning.contains(&b'\n');
        assert!(
            decided.is_none() || !firm || decided == verdict,
            "a verdict changed"
        );
        decided = verdict;
    }
    let _any = hello::server_name(bytes);
}
