//! DNS messages as the names process reads them.
#![no_main]

use hickory_proto::op::Message;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(message) = Message::from_vec(bytes) {
        let _either = message.to_vec();
    }
});
