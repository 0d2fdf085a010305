//! Decoders of configuration, documents, tables, tokens, DNS and the control state.

use bytes::Bytes;
use hickory_proto::op::Message;
use mesh_gossip::Frame;
use mesh_identity::token::Token;
use mesh_model::{
    config::{Sources, read},
    document::parse_documents,
    dtab::Dtab,
};

/// The daemon's configuration: any text gives settings or faults.
pub(crate) fn config(bytes: &[u8]) {
    if let Ok(text) = std::str::from_utf8(bytes) {
        let files = vec![("fuzz.toml".to_owned(), text.to_owned())];
        let _either = read(&Sources {
            files,
            ..Sources::default()
        });
    }
}

/// DNS messages as the names process reads them.
pub(crate) fn dns(bytes: &[u8]) {
    if let Ok(message) = Message::from_vec(bytes) {
        let _either = message.to_vec();
    }
}

/// Resource documents, YAML and JSON: what is accepted is accepted again from what is stored.
pub(crate) fn documents(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    for document in parse_documents(text, "fuzz.yaml").into_iter().flatten() {
        let stored = document.json.to_string();
        assert!(parse_documents(&stored, "stored.json").is_ok(), "{stored}");
    }
}

/// Delegation tables: what parses prints to something that parses to the same.
pub(crate) fn dtab(bytes: &[u8]) {
    if let Some(dtab) = std::str::from_utf8(bytes)
        .ok()
        .and_then(|text| Dtab::parse(text).ok())
    {
        let printed = dtab.to_string();
        assert_eq!(
            Dtab::parse(&printed).ok().as_ref(),
            Some(&dtab),
            "{printed}"
        );
    }
}

/// Frames of the control state: what decodes encodes to something that decodes to the same.
pub(crate) fn gossip_wire(bytes: &[u8]) {
    if let Ok(frame) = Frame::decode(Bytes::copy_from_slice(bytes)) {
        assert_eq!(Frame::decode(frame.encode()).ok().as_ref(), Some(&frame));
    }
}

/// Files of the file source, in each of the three forms.
pub(crate) fn registry_file(bytes: &[u8]) {
    if let Ok(text) = std::str::from_utf8(bytes) {
        for name in ["web.toml", "web.json", "web"] {
            let _either = mesh_registry::file::parse::parse(name, text);
        }
    }
}

/// Join tokens: what parses prints to the same text.
pub(crate) fn token(bytes: &[u8]) {
    let token = std::str::from_utf8(bytes)
        .ok()
        .and_then(|text| Token::parse(text).ok());
    if let Some(token) = token {
        assert!(Token::parse(&token.to_text()).is_ok());
    }
}
