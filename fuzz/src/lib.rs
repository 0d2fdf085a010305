//! Fuzz targets: any bytes go in; a law that is broken panics.
//!
//! In: bytes. Out: nothing. `make fuzz` runs each under libFuzzer; `fuzz/tests/corpus.rs` runs each over its
//! corpus, and over changed copies of it, as a plain test.

/// Decoders of the other rooms.
mod decoders;
/// Our reading of HTTP/1 beside hyper's.
pub mod differential;
/// HTTP/1, HTTP/2 and TLS between daemons, paths and first bytes.
mod wire;

/// A law over any bytes.
pub type Target = fn(&[u8]);

/// Every target with its name; what stands before `_` is the folder of its corpus.
pub const TARGETS: [(&str, Target); 14] = [
    ("config", decoders::config),
    ("dns", decoders::dns),
    ("documents", decoders::documents),
    ("dtab", decoders::dtab),
    ("first_bytes", wire::first_bytes),
    ("gossip_wire", decoders::gossip_wire),
    ("http1_differential", differential::judge),
    ("http1_head", wire::http1_head),
    ("http1_requests", wire::http1_requests),
    ("link", wire::link),
    ("path", wire::path),
    ("registry_file", decoders::registry_file),
    ("tls_records", wire::tls_records),
    ("token", decoders::token),
];

/// The target of this name.
pub fn named(name: &str) -> Option<Target> {
    TARGETS
        .iter()
        .find(|(known, _)| *known == name)
        .map(|(_, target)| *target)
}
