//! Ed25519 signing keys: hosts, authorities, the root, operators.

use std::{fmt, path::Path};

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use mesh_model::grant::Signed;
use zeroize::Zeroizing;

use super::KeyError;
use crate::{file, pem};

/// A signing key. Its private half is wiped by the library when dropped.
pub struct Ed25519Key {
    pair: Ed25519KeyPair,
    public: [u8; 32],
}

impl Ed25519Key {
    /// A new random key.
    pub fn generate() -> Result<Self, KeyError> {
        Self::from_pair(Ed25519KeyPair::generate().map_err(|_unspecified| KeyError::Make)?)
    }
    fn from_pair(pair: Ed25519KeyPair) -> Result<Self, KeyError> {
        let public = pair
            .public_key()
            .as_ref()
            .try_into()
            .map_err(|_length| KeyError::Make)?;
        Ok(Self { pair, public })
    }
    /// From PKCS#8 in PEM; `what` names it in the error.
    pub fn from_pem(text: &[u8], what: &str) -> Result<Self, KeyError> {
        let bad = || KeyError::Form {
            kind: "Ed25519",
            what: what.to_owned(),
        };
        let der = pem::private_key(text).ok_or_else(bad)?;
        // PKCS#8 version 1 has no public half to compare with; the file's integrity is the file's.
        let pair = Ed25519KeyPair::from_pkcs8_maybe_unchecked(der.secret_pkcs8_der())
            .map_err(|_form| bad())?;
        Self::from_pair(pair)
    }
    /// As PKCS#8 in PEM.
    pub fn to_pem(&self) -> Result<Zeroizing<Vec<u8>>, KeyError> {
        let der = self
            .pair
            .to_pkcs8v1()
            .map_err(|_unspecified| KeyError::Make)?;
        Ok(pem::encode(pem::PRIVATE_KEY, der.as_ref()))
    }
    /// Reads a key file; refuses one that others may read.
    pub fn load(path: &Path) -> Result<Self, KeyError> {
        Self::from_pem(&file::read_secret(path)?, &path.display().to_string())
    }
    /// Writes a key file with mode 0600, atomically.
    pub fn store(&self, path: &Path) -> Result<(), KeyError> {
        Ok(file::write_secret(path, &self.to_pem()?)?)
    }
    /// The public key, 32 bytes.
    pub fn public(&self) -> [u8; 32] {
        self.public
    }
    /// Signs `domain ‖ payload`.
    pub fn sign(&self, domain: &[u8], payload: Vec<u8>) -> Signed {
        let mut message = Vec::with_capacity(domain.len() + payload.len());
        message.extend_from_slice(domain);
        message.extend_from_slice(&payload);
        let signature = self.pair.sign(&message).as_ref().to_vec();
        Signed {
            payload,
            signature,
            signer: self.public.to_vec(),
        }
    }
}

impl fmt::Debug for Ed25519Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "Ed25519Key({})",
            data_encoding::HEXLOWER.encode(&self.public)
        )
    }
}
