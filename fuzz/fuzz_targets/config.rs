//! The daemon's configuration: any text gives settings or faults.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mesh_model::config::{Sources, read};

fuzz_target!(|text: &str| {
    let files = vec![("fuzz.toml".to_owned(), text.to_owned())];
    let _either = read(&Sources { files, ..Sources::default() });
});
