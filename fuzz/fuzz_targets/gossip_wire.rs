//! Messages of the control state: what decodes encodes to something that decodes to the same.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    mesh_gossip::wire::fuzz(bytes);
});
