//! Chains: from a leaf to one of the given roots, by rustls' own verifier library.

use mesh_model::name::HostId;
use rustls_pki_types::{CertificateDer, SignatureVerificationAlgorithm, TrustAnchor, UnixTime};
use webpki::{EndEntityCert, KeyUsage, anchor_from_trusted_cert};

use super::{Peer, PeerError, certificate};

/// What the peer's certificate must be good for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Usage {
    /// The peer is the server.
    Server,
    /// The peer is the client.
    Client,
}

/// Issuers of others may have RSA or P-384 keys, so every algorithm of the provider is taken.
pub(crate) fn algorithms() -> &'static [&'static dyn SignatureVerificationAlgorithm] {
    webpki::ALL_VERIFICATION_ALGS
}

/// Verifies that the chain of `peer` leads to one of `roots` and is in force; a missing extended key usage
/// is taken, a wrong one is not. The hosts whose authorities signed it, for the caller to believe or not.
pub(crate) fn verify(
    chain: &[CertificateDer<'_>],
    peer: &Peer,
    roots: &[CertificateDer<'_>],
    usage: Usage,
    now: UnixTime,
) -> Result<Vec<HostId>, PeerError> {
    let wrong = |reason: webpki::Error| PeerError::Chain {
        id: Box::new(peer.id.clone()),
        reason: reason.to_string(),
    };
    let (leaf, intermediates) = chain.split_first().ok_or(PeerError::Absent)?;
    let leaf = EndEntityCert::try_from(leaf).map_err(wrong)?;
    let anchors: Vec<TrustAnchor<'_>> = roots
        .iter()
        .filter_map(|root| anchor_from_trusted_cert(root).ok())
        .collect();
    let usage = match usage {
        Usage::Server => KeyUsage::server_auth(),
        Usage::Client => KeyUsage::client_auth(),
    };
    let path = leaf
        .verify_for_usage(
            algorithms(),
            &anchors,
            intermediates,
            now,
            usage,
            None,
            None,
        )
        .map_err(wrong)?;
    Ok(path
        .intermediate_certificates()
        .filter_map(|authority| certificate::authority_host(&authority.der()))
        .collect())
}
