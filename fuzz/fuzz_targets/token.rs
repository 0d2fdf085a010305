//! Join tokens: what parses prints to the same text.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mesh_identity::token::Token;

fuzz_target!(|text: &str| {
    if let Ok(token) = Token::parse(text) {
        let again = Token::parse(&token.to_text());
        assert!(again.is_ok());
    }
});
