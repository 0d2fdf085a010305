//! Signatures are made and checked outside: the two seams to it.

use mesh_model::grant::Signed;

/// Signs with the host's Ed25519 key.
pub trait Signer: Send {
    /// Signs `domain ‖ payload`.
    fn sign(&self, domain: &[u8], payload: Vec<u8>) -> Signed;
}

/// Checks Ed25519 signatures.
pub trait Verifier: Send {
    /// True when `signed.signature` is `signed.signer`'s over `domain ‖ payload`.
    fn verify(&self, domain: &[u8], signed: &Signed) -> bool;
}
