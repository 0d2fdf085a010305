//! Raw bytes against the real daemon: what it refuses, and what reaches the other side of what it accepts.
//!
//! Each case of `tests/corpus` follows from a rule of `docs/wire.md`. Judged by what a raw back end received.

#![allow(
    clippy::tests_outside_test_module,
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::string_slice,
    clippy::redundant_pub_crate,
    unreachable_pub,
    missing_docs,
    reason = "a file of tests"
)]

/// A raw back end.
#[path = "wire/backend.rs"]
mod backend;
/// A raw client.
#[path = "wire/client.rs"]
mod client;
/// The cases.
#[path = "wire/corpus.rs"]
mod corpus;
/// Floods.
#[path = "wire/floods.rs"]
mod floods;
/// A raw client of HTTP/2.
#[path = "wire/frames.rs"]
mod frames;
/// Cases of HTTP/2.
#[path = "wire/http2.rs"]
mod http2;
/// Requests of HTTP/1.
#[path = "wire/requests.rs"]
mod requests;
/// Answers of a back end.
#[path = "wire/responses.rs"]
mod responses;
/// The judge.
#[path = "wire/strict.rs"]
mod strict;
/// Plain bytes.
#[path = "wire/tunnels.rs"]
mod tunnels;
/// The mesh under test.
#[path = "wire/ways.rs"]
mod ways;
