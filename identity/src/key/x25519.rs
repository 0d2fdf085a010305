//! X25519 keys: the static key of a host's datagram box.

use std::{fmt, path::Path};

use aws_lc_rs::{
    agreement::{self, PrivateKey, UnparsedPublicKey, X25519},
    encoding::{AsBigEndian, Curve25519SeedBin},
};
use zeroize::Zeroizing;

use super::KeyError;
use crate::{file, pem};

/// What stands before the 32 secret bytes in PKCS#8 (RFC 8410 section 7); the library has no such encoder.
const PKCS8: [u8; 16] = [
    0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x6e, 4, 0x22, 4, 0x20,
];

/// A key-agreement key. Its private half is wiped by the library when dropped.
pub struct X25519Key {
    private: PrivateKey,
    public: [u8; 32],
}

impl X25519Key {
    /// A new random key.
    pub fn generate() -> Result<Self, KeyError> {
        Self::from_private(PrivateKey::generate(&X25519).map_err(|_unspecified| KeyError::Make)?)
    }
    fn from_private(private: PrivateKey) -> Result<Self, KeyError> {
        let public = private
            .compute_public_key()
            .map_err(|_unspecified| KeyError::Make)?;
        let public = public
            .as_ref()
            .try_into()
            .map_err(|_length| KeyError::Make)?;
        Ok(Self { private, public })
    }
    /// From PKCS#8 in PEM; `what` names it in the error.
    pub fn from_pem(text: &[u8], what: &str) -> Result<Self, KeyError> {
        let bad = || KeyError::Form {
            kind: "X25519",
            what: what.to_owned(),
        };
        let der = pem::private_key(text).ok_or_else(bad)?;
        let secret = der
            .secret_pkcs8_der()
            .strip_prefix(&PKCS8)
            .ok_or_else(bad)?;
        let private = PrivateKey::from_private_key(&X25519, secret).map_err(|_form| bad())?;
        Self::from_private(private)
    }
    /// As PKCS#8 in PEM.
    pub fn to_pem(&self) -> Result<Zeroizing<Vec<u8>>, KeyError> {
        let secret: Curve25519SeedBin<'_> = self
            .private
            .as_be_bytes()
            .map_err(|_unspecified| KeyError::Make)?;
        let mut der = Zeroizing::new(Vec::with_capacity(PKCS8.len() + 32));
        der.extend_from_slice(&PKCS8);
        der.extend_from_slice(secret.as_ref());
        Ok(pem::encode(pem::PRIVATE_KEY, &der))
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
    /// The secret shared with the holder of `peer`; `None` for a key of small order (RFC 7748 section 6.1).
    pub(crate) fn agree(&self, peer: &[u8; 32]) -> Option<Zeroizing<[u8; 32]>> {
        let peer = UnparsedPublicKey::new(&X25519, peer);
        agreement::agree(&self.private, peer, (), |secret| {
            secret.try_into().map(Zeroizing::new).map_err(|_length| ())
        })
        .ok()
    }
}

impl fmt::Debug for X25519Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "X25519Key({})",
            data_encoding::HEXLOWER.encode(&self.public)
        )
    }
}
