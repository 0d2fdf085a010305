//! P-256 keys of certificates: leaves, intermediates, the X.509 root.

use std::{fmt, path::Path, sync::Arc};

use aws_lc_rs::{
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair},
};
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use zeroize::Zeroizing;

use super::KeyError;
use crate::{file, pem};

/// A key of a certificate; its PKCS#8 form is wiped when dropped.
pub struct P256Key {
    pair: EcdsaKeyPair,
    pkcs8: Zeroizing<Vec<u8>>,
}

impl P256Key {
    /// A new random key.
    pub fn generate() -> Result<Self, KeyError> {
        let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING)
            .map_err(|_unspecified| KeyError::Make)?;
        let document = pair.to_pkcs8v1().map_err(|_unspecified| KeyError::Make)?;
        Ok(Self {
            pair,
            pkcs8: Zeroizing::new(document.as_ref().to_vec()),
        })
    }
    /// From PKCS#8 in PEM; `what` names it in the error.
    pub fn from_pem(text: &[u8], what: &str) -> Result<Self, KeyError> {
        let bad = || KeyError::Form {
            kind: "P-256",
            what: what.to_owned(),
        };
        let der = pem::private_key(text).ok_or_else(bad)?;
        let pkcs8 = Zeroizing::new(der.secret_pkcs8_der().to_vec());
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &pkcs8)
            .map_err(|_form| bad())?;
        Ok(Self { pair, pkcs8 })
    }
    /// As PKCS#8 in PEM.
    pub fn to_pem(&self) -> Zeroizing<Vec<u8>> {
        pem::encode(pem::PRIVATE_KEY, &self.pkcs8)
    }
    /// Reads a key file; refuses one that others may read.
    pub fn load(path: &Path) -> Result<Self, KeyError> {
        Self::from_pem(&file::read_secret(path)?, &path.display().to_string())
    }
    /// Writes a key file with mode 0600, atomically.
    pub fn store(&self, path: &Path) -> Result<(), KeyError> {
        Ok(file::write_secret(path, &self.to_pem())?)
    }
    /// The public key as an uncompressed point, 65 bytes.
    pub fn public(&self) -> &[u8] {
        self.pair.public_key().as_ref()
    }
    /// The form that rustls signs with.
    pub(crate) fn signing(&self) -> Result<Arc<dyn rustls::sign::SigningKey>, KeyError> {
        let der = PrivatePkcs8KeyDer::from(self.pkcs8.to_vec());
        let der = Zeroizing::new(PrivateKeyDer::from(der));
        rustls::crypto::aws_lc_rs::sign::any_ecdsa_type(&der).map_err(|_form| KeyError::Make)
    }
}

impl rcgen::PublicKeyData for P256Key {
    fn der_bytes(&self) -> &[u8] {
        self.public()
    }
    fn algorithm(&self) -> &'static rcgen::SignatureAlgorithm {
        &rcgen::PKCS_ECDSA_P256_SHA256
    }
}

impl rcgen::SigningKey for P256Key {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        let signature = self.pair.sign(&SystemRandom::new(), message);
        signature
            .map(|s| s.as_ref().to_vec())
            .map_err(|_unspecified| rcgen::Error::RemoteKeyError)
    }
}

impl fmt::Debug for P256Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "P256Key({})",
            blake3::hash(self.public())
                .to_hex()
                .get(..16)
                .unwrap_or_default()
        )
    }
}
