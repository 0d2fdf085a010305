//! Decoders of bytes from outside, open to the fuzzer.

/// Judges the bytes as heads of HTTP/1; panics when a law of the codec is broken.
pub fn http1_head(bytes: &[u8]) {
    crate::http::judge_head(bytes);
}
