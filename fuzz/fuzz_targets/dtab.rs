//! Delegation tables: what parses prints to something that parses to the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mesh_model::dtab::Dtab;

fuzz_target!(|text: &str| {
    if let Ok(dtab) = Dtab::parse(text) {
        let printed = dtab.to_string();
        assert_eq!(Dtab::parse(&printed).ok().as_ref(), Some(&dtab), "{printed}");
    }
});
