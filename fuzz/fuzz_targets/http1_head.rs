//! Heads of HTTP/1 requests and answers, in one piece and cut at every place: the same verdict.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    mesh_proxy::fuzz::http1_head(bytes);
});
