//! Files of the file source, in each of the three forms.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    for name in ["web.toml", "web.json", "web"] {
        let _either = mesh_registry::file::parse::parse(name, text);
    }
});
