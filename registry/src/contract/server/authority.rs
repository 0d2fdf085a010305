//! Certificates of test authorities, as files for servers and clients.

use std::{fs, path::Path};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};

/// Writes `server.pem`, `server.key` (for the addresses and the name of this machine itself) and `ca.pem` of a fresh authority into
/// `folder`, the last one whole at once.
pub fn write(folder: &Path) -> Result<(), Box<dyn std::error::Error>> {
    let mut authority = CertificateParams::new(Vec::new())?;
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    authority.distinguished_name.push(
        rcgen::DnType::CommonName,
        format!("authority {}", fastrand::u64(..)),
    );
    let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate()?)?;
    let names = ["localhost", "127.0.0.1", "::1"].map(str::to_owned);
    let key = KeyPair::generate()?;
    let leaf = CertificateParams::new(names.to_vec())?.signed_by(&key, &authority)?;
    fs::write(folder.join("server.pem"), leaf.pem())?;
    fs::write(folder.join("server.key"), key.serialize_pem())?;
    let new = folder.join("ca.new");
    fs::write(&new, authority.pem())?;
    fs::rename(new, folder.join("ca.pem"))?;
    Ok(())
}
