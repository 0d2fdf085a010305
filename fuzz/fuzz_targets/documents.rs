//! Resource documents, YAML and JSON: any text gives documents or faults with lines.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let parsed = mesh_model::document::parse_documents(text, "fuzz.yaml");
    if let Ok(documents) = parsed {
        for document in documents {
            // What was accepted is accepted again from what is stored.
            let stored = document.json.to_string();
            assert!(mesh_model::document::parse_documents(&stored, "stored.json").is_ok(), "{stored}");
        }
    }
});
