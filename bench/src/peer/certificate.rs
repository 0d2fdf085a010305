//! Certificates for the other proxies' mTLS: P-256, an authority and one leaf for both sides.

use std::path::{Path, PathBuf};

use anyhow::Context;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};

use crate::place::write;

/// The folder with `ca.pem`, `leaf.pem`, `key.pem` and `both.pem`, made where it is missing.
pub(super) fn folder(place: &Path) -> anyhow::Result<PathBuf> {
    let folder = place.join("certificates");
    if folder.join("both.pem").exists() {
        return Ok(folder);
    }
    let authority_key = KeyPair::generate().context("a key")?;
    let mut params = CertificateParams::new(Vec::new())?;
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    // A subject of its own: with equal names the leaf would look as if it had signed itself.
    params
        .distinguished_name
        .push(DnType::CommonName, "bench authority");
    let authority = params.self_signed(&authority_key)?;
    let issuer = Issuer::new(params, authority_key);
    let key = KeyPair::generate()?;
    let leaf = CertificateParams::new(vec!["bench".to_owned()])?.signed_by(&key, &issuer)?;
    write(&folder, "ca.pem", &authority.pem())?;
    write(&folder, "leaf.pem", &leaf.pem())?;
    write(&folder, "key.pem", &key.serialize_pem())?;
    write(
        &folder,
        "both.pem",
        &format!("{}{}", leaf.pem(), key.serialize_pem()),
    )?;
    Ok(folder)
}
