//! Is this peer who it says: chain, SPIFFE id, grant.
//!
//! A peer is verified against the roots of the trust domain in its own SAN, never a flat pool. In the own
//! trust domain the leaf names its host, and that host's grant must cover the id: a valid chain alone is
//! not enough. Never: trusts a subject, a DNS name or an address.

use std::sync::Arc;

use mesh_model::{
    name::HostId,
    principal::{PrincipalError, SpiffeId, TrustDomain},
    snapshot::{HostRights, Trust},
};
use rustls_pki_types::{CertificateDer, UnixTime};

use crate::grants::may_present;

/// What a leaf says, before any of it is believed.
pub(crate) mod certificate;
/// Chains: from a leaf to one of the given roots.
pub(crate) mod chain;
/// The form in which rustls asks.
pub(crate) mod handshake;

pub use chain::Usage;

/// Who is at the other end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// Its identity.
    pub id: SpiffeId,
    /// The host that its leaf is bound to; it means something in the own trust domain only.
    pub host: Option<HostId>,
    /// End of its leaf's validity, milliseconds since the epoch.
    pub not_after_ms: u64,
}

/// Why a peer is not believed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PeerError {
    /// It showed no certificate.
    #[error("the peer showed no certificate")]
    Absent,
    /// Its certificate cannot be read.
    #[error("the peer's certificate is malformed")]
    Malformed,
    /// Not exactly one URI name.
    #[error("the peer's certificate has {0} URI names where exactly one is needed")]
    Names(usize),
    /// The name is no SPIFFE id of the five-part form.
    #[error(transparent)]
    Id(#[from] PrincipalError),
    /// No roots are known for its trust domain.
    #[error("no roots are known for the trust domain {0}")]
    TrustDomain(TrustDomain),
    /// The chain does not lead to a root of its trust domain, or is outdated.
    #[error("the certificate of {id} is not valid: {reason}")]
    Chain {
        /// The id that it claims.
        id: Box<SpiffeId>,
        /// Why, in the words of the verifier.
        reason: String,
    },
    /// A leaf of the own trust domain that names no host.
    #[error("the certificate of {0} names no host")]
    NoHost(Box<SpiffeId>),
    /// The host has no grant, or it was revoked, or it has ended.
    #[error("host {0} has no grant that is in force")]
    NoGrant(HostId),
    /// It was signed by the authority of a host that was revoked, or is not known.
    #[error("the certificate was signed by the authority of host {0}, which has no grant in force")]
    Issuer(HostId),
    /// The host may not present this id.
    #[error("the grant of host {host} does not cover {id}")]
    NotCovered {
        /// The host.
        host: HostId,
        /// What it presented.
        id: Box<SpiffeId>,
    },
    /// Somebody else than the one that was called.
    #[error("the peer is {found}, expected {expected}")]
    Unexpected {
        /// Who it is.
        found: Box<SpiffeId>,
        /// Who was wanted: one, or a list.
        expected: String,
    },
    /// It is a workload where a host is needed.
    #[error("{0} is no host of this mesh")]
    NotAHost(Box<SpiffeId>),
    /// The daemon is in no mesh yet.
    #[error("this daemon is in no mesh")]
    Idle,
    /// The server's root is not the one that the token names.
    #[error("the server's root certificate is not the one that the token pins")]
    Pin,
}

impl PeerError {
    /// Finds it inside an error of a handshake.
    pub fn in_handshake(error: &rustls::Error) -> Option<&Self> {
        let rustls::Error::InvalidCertificate(rustls::CertificateError::Other(other)) = error
        else {
            return None;
        };
        other.0.downcast_ref()
    }
}

impl From<PeerError> for rustls::Error {
    fn from(error: PeerError) -> Self {
        Self::InvalidCertificate(rustls::CertificateError::Other(rustls::OtherError(
            Arc::new(error),
        )))
    }
}

/// Who a chain names. Only for chains that a handshake of this crate has verified.
pub fn peer_of(chain: &[CertificateDer<'_>]) -> Result<Peer, PeerError> {
    certificate::read(chain).map(|leaf| leaf.peer)
}

/// Verifies a chain by a snapshot's trust: id, chain under its own trust domain's roots, and grant.
///
/// `own` is the own trust domain: grants are asked for there, foreign domains answer for themselves.
pub fn verify(
    chain: &[CertificateDer<'_>],
    usage: Usage,
    own: &TrustDomain,
    trust: &Trust,
    now: UnixTime,
) -> Result<Peer, PeerError> {
    let peer = peer_of(chain)?;
    let domain = &peer.id.trust_domain;
    let roots = trust.bundles.get(domain).filter(|roots| !roots.is_empty());
    let roots = roots.ok_or_else(|| PeerError::TrustDomain(domain.clone()))?;
    let roots: Vec<_> = roots
        .iter()
        .map(|root| CertificateDer::from(&root[..]))
        .collect();
    let issuers = chain::verify(chain, &peer, &roots, usage, now)?;
    if domain == own {
        granted(&peer, own, trust, now)?;
        // A revoked authority still has its keys: what it signs for others is not believed.
        if let Some(issuer) = issuers
            .iter()
            .find(|host| in_force(trust, **host, now).is_none())
        {
            return Err(PeerError::Issuer(*issuer));
        }
    }
    Ok(peer)
}

fn in_force(trust: &Trust, host: HostId, now: UnixTime) -> Option<&HostRights> {
    let rights = trust.grants.get(&host)?;
    (rights.not_after_ms > now.as_secs().saturating_mul(1000)).then_some(rights)
}

fn granted(peer: &Peer, own: &TrustDomain, trust: &Trust, now: UnixTime) -> Result<(), PeerError> {
    let host = peer
        .host
        .ok_or_else(|| PeerError::NoHost(Box::new(peer.id.clone())))?;
    let rights = in_force(trust, host, now).ok_or(PeerError::NoGrant(host))?;
    if may_present(own, host, &rights.may_register, &peer.id) {
        Ok(())
    } else {
        Err(PeerError::NotCovered {
            host,
            id: Box::new(peer.id.clone()),
        })
    }
}

#[cfg(test)]
mod tests;
