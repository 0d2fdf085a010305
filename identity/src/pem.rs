//! PEM text (RFC 7468) of keys and certificates: written here, read by `rustls-pki-types`.

use data_encoding::BASE64;
use rustls_pki_types::{PrivatePkcs8KeyDer, pem::PemObject};
use zeroize::Zeroizing;

/// Label of a PKCS#8 private key.
pub(crate) const PRIVATE_KEY: &str = "PRIVATE KEY";
/// Label of an X.509 certificate.
pub(crate) const CERTIFICATE: &str = "CERTIFICATE";

/// Appends one PEM section; `out` should have room, so that secrets are not copied around.
pub(crate) fn append(out: &mut Zeroizing<Vec<u8>>, label: &str, der: &[u8]) {
    let text = Zeroizing::new(BASE64.encode(der));
    out.reserve(text.len() + text.len() / 64 + 2 * label.len() + 40);
    out.extend_from_slice(format!("-----BEGIN {label}-----\n").as_bytes());
    for line in text.as_bytes().chunks(64) {
        out.extend_from_slice(line);
        out.push(b'\n');
    }
    out.extend_from_slice(format!("-----END {label}-----\n").as_bytes());
}

/// One PEM section.
pub(crate) fn encode(label: &str, der: &[u8]) -> Zeroizing<Vec<u8>> {
    let mut out = Zeroizing::new(Vec::with_capacity(der.len() * 3 / 2 + 128));
    append(&mut out, label, der);
    out
}

/// The first PKCS#8 private key of a text; wiped when dropped.
pub(crate) fn private_key(text: &[u8]) -> Option<Zeroizing<PrivatePkcs8KeyDer<'static>>> {
    PrivatePkcs8KeyDer::from_pem_slice(text)
        .ok()
        .map(Zeroizing::new)
}
