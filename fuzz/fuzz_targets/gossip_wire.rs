//! Frames of the control state: what decodes encodes to something that decodes to the same.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use mesh_gossip::Frame;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(frame) = Frame::decode(Bytes::copy_from_slice(bytes)) {
        assert_eq!(Frame::decode(frame.encode()).ok().as_ref(), Some(&frame));
    }
});
