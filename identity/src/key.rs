//! Private keys, signatures over grants, heads and commits, and the ids that follow from keys.
//!
//! Never: shows a private key in a log, a `Debug` text or a file that others may read.

use aws_lc_rs::signature::{ED25519, UnparsedPublicKey};
use mesh_model::{
    grant::Signed,
    name::{HostId, MeshId},
};

use crate::file::FileError;

/// Signing keys of hosts, authorities, the root and operators.
mod ed25519;
/// Keys of certificates.
mod p256;
/// Keys of the datagram box.
mod x25519;

pub use ed25519::Ed25519Key;
pub use p256::P256Key;
pub use x25519::X25519Key;

/// Why a key could not be made, read or stored.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// The library or the system's random source failed.
    #[error("cannot make a key: the cryptographic library failed")]
    Make,
    /// The bytes are no key of this kind.
    #[error("{what} is no {kind} private key in PKCS#8 PEM")]
    Form {
        /// `Ed25519`, `X25519` or `P-256`.
        kind: &'static str,
        /// The file, or what was parsed.
        what: String,
    },
    /// The file could not be read or written.
    #[error(transparent)]
    File(#[from] FileError),
}

/// The host that a key names: BLAKE3 of the Ed25519 public key, first 16 bytes.
pub fn host_id(ed25519_public: &[u8; 32]) -> HostId {
    HostId(first16(ed25519_public))
}

/// The mesh that a genesis names: BLAKE3 of the genesis payload, first 16 bytes.
pub fn mesh_id(genesis_payload: &[u8]) -> MeshId {
    MeshId(first16(genesis_payload))
}

fn first16(bytes: &[u8]) -> [u8; 16] {
    let mut out = [0; 16];
    blake3::Hasher::new()
        .update(bytes)
        .finalize_xof()
        .fill(&mut out);
    out
}

/// True when `signed.signature` is the signature of `signed.signer` over `domain ‖ payload`.
///
/// Says nothing about whether the signer may sign it: compare `signer` with the key that has the right.
pub fn verify_signed(domain: &[u8], signed: &Signed) -> bool {
    if signed.signer.len() != 32 || signed.signature.len() != 64 {
        return false;
    }
    let mut message = Vec::with_capacity(domain.len() + signed.payload.len());
    message.extend_from_slice(domain);
    message.extend_from_slice(&signed.payload);
    UnparsedPublicKey::new(&ED25519, &signed.signer)
        .verify(&message, &signed.signature)
        .is_ok()
}

/// Random bytes from the operating system.
pub fn random<const N: usize>() -> Result<[u8; N], KeyError> {
    let mut out = [0; N];
    aws_lc_rs::rand::fill(&mut out).map_err(|_unspecified| KeyError::Make)?;
    Ok(out)
}

#[cfg(test)]
mod tests {
    use mesh_model::grant::domain;

    use super::*;

    #[test]
    fn signatures_bind_domain_payload_and_signer() {
        let key = Ed25519Key::generate().unwrap();
        let other = Ed25519Key::generate().unwrap();
        let signed = key.sign(domain::HOST, b"payload".to_vec());
        assert!(verify_signed(domain::HOST, &signed));
        assert!(
            !verify_signed(domain::COMMIT, &signed),
            "a grant is no commit"
        );
        for change in [
            Signed {
                payload: b"payloae".to_vec(),
                ..signed.clone()
            },
            Signed {
                signer: other.public().to_vec(),
                ..signed.clone()
            },
            Signed {
                signature: vec![0; 64],
                ..signed.clone()
            },
            Signed {
                signature: Vec::new(),
                ..signed.clone()
            },
            Signed {
                signer: Vec::new(),
                ..signed.clone()
            },
        ] {
            assert!(!verify_signed(domain::HOST, &change));
        }
    }

    #[test]
    fn ids_are_the_first_half_of_blake3() {
        let public = [7; 32];
        assert_eq!(host_id(&public).0, blake3::hash(&public).as_bytes()[..16]);
        assert_eq!(
            mesh_id(b"genesis").0,
            blake3::hash(b"genesis").as_bytes()[..16]
        );
    }

    #[test]
    fn keys_survive_their_files_and_are_private() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);

        let signing = Ed25519Key::generate().unwrap();
        signing.store(&at("a")).unwrap();
        assert_eq!(
            Ed25519Key::load(&at("a")).unwrap().public(),
            signing.public()
        );

        let agreeing = X25519Key::generate().unwrap();
        agreeing.store(&at("b")).unwrap();
        assert_eq!(
            X25519Key::load(&at("b")).unwrap().public(),
            agreeing.public()
        );

        let leaf = P256Key::generate().unwrap();
        leaf.store(&at("c")).unwrap();
        assert_eq!(P256Key::load(&at("c")).unwrap().public(), leaf.public());

        for name in ["a", "b", "c"] {
            let mode = std::fs::metadata(at(name)).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{name}");
        }
        assert!(
            Ed25519Key::load(&at("c")).is_err(),
            "a P-256 key is no Ed25519 key"
        );
        assert!(
            X25519Key::load(&at("a")).is_err(),
            "an Ed25519 key is no X25519 key"
        );
        assert!(
            P256Key::load(&at("b")).is_err(),
            "an X25519 key is no P-256 key"
        );
        for text in [
            format!("{signing:?}"),
            format!("{agreeing:?}"),
            format!("{leaf:?}"),
        ] {
            assert!(text.len() < 200, "{text}");
        }
    }
}
