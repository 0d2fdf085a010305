//! Between daemons on 7947: mTLS by host identity; a join is authenticated by the root that its token pins.

use std::{fmt, sync::Arc};

use mesh_model::{
    name::HostId,
    principal::{SpiffeId, TrustDomain},
};
use rustls::{
    ClientConfig, ServerConfig,
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};
use rustls_pki_types::{CertificateDer, UnixTime};

use super::{ALPN_CLUSTER, client, server, tunnel::Presents};
use crate::{
    authority::BACKDATE_MS,
    credentials::Credentials,
    verify::{Peer, PeerError, Usage, certificate, chain, handshake::Judge, peer_of},
};

/// Label of the TLS exporter (RFC 8446 section 7.5) over which a join's MAC goes; 32 bytes, no context.
pub const JOIN_EXPORTER: &[u8] = b"EXPORTER-meshd-join/1";

/// Which hosts are let onto a link.
///
/// The chain and the form of the id are checked here; grants arrive over the link itself, so whether an
/// unknown host has one is asked by the control state, and `admits` only refuses those known to be revoked.
#[derive(Clone)]
pub struct HostTrust {
    /// The own trust domain.
    pub trust_domain: TrustDomain,
    /// X.509 roots of the own trust domain.
    pub roots: Vec<CertificateDer<'static>>,
    /// False for a host that is revoked.
    pub admits: Arc<dyn Fn(HostId) -> bool + Send + Sync>,
}

impl fmt::Debug for HostTrust {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "HostTrust({}, {} roots)",
            self.trust_domain,
            self.roots.len()
        )
    }
}

impl HostTrust {
    pub(super) fn judge(
        &self,
        presented: &[CertificateDer<'_>],
        usage: Usage,
        now: UnixTime,
    ) -> Result<Peer, PeerError> {
        let peer = peer_of(presented)?;
        if peer.id.trust_domain != self.trust_domain {
            return Err(PeerError::TrustDomain(peer.id.trust_domain));
        }
        let issuers = chain::verify(presented, &peer, &self.roots, usage, now)?;
        let host = host_of(&peer)?;
        if !(self.admits)(host) {
            return Err(PeerError::NoGrant(host));
        }
        // A revoked authority could otherwise go on as any host.
        match issuers.into_iter().find(|issuer| !(self.admits)(*issuer)) {
            Some(issuer) => Err(PeerError::Issuer(issuer)),
            None => Ok(peer),
        }
    }
}

/// The host that a peer is, when its id and its subject agree.
fn host_of(peer: &Peer) -> Result<HostId, PeerError> {
    let host = peer.id.as_host().filter(|host| peer.host == Some(*host));
    host.ok_or_else(|| PeerError::NotAHost(Box::new(peer.id.clone())))
}

/// The server side of links; a client without a certificate is let in, for a join and nothing else.
///
/// The chain that is shown ends with the root, so that a joiner can compare it with its pin.
pub fn cluster_server(
    credentials: Credentials,
    local: &SpiffeId,
    trust: HostTrust,
) -> Arc<ServerConfig> {
    let resolver = WithRoot {
        credentials,
        id: local.clone(),
        root: trust.roots.first().cloned(),
    };
    let judge = Judge::new(move |chain, now| trust.judge(chain, Usage::Client, now)).optional();
    server(judge, Arc::new(resolver), &[ALPN_CLUSTER])
}

/// The client side of links: presents the host `local`, accepts `expected`, or any host when `None`.
pub fn cluster_client(
    credentials: Credentials,
    local: &SpiffeId,
    trust: HostTrust,
    expected: Option<HostId>,
) -> Arc<ClientConfig> {
    let judge = Judge::new(move |chain, now| {
        let peer = trust.judge(chain, Usage::Server, now)?;
        match expected {
            Some(host) if peer.host != Some(host) => Err(PeerError::Unexpected {
                found: Box::new(peer.id),
                expected: SpiffeId::host(trust.trust_domain.clone(), host).to_string(),
            }),
            Some(_) | None => Ok(peer),
        }
    });
    client(
        judge,
        Some(Arc::new(Presents {
            credentials,
            id: local.clone(),
        })),
        &[ALPN_CLUSTER],
    )
}

/// The client side of a join: the server is a host whose chain leads to the root with this pin.
///
/// The time is not asked, because a joiner's clock may be wrong and the join shall say so; the caller checks
/// the clock against the server's and then calls [`pinned`] with its own time.
pub fn join_client(pin: [u8; 32]) -> Arc<ClientConfig> {
    let judge = Judge::new(move |chain, _now| {
        let leaf = certificate::read(chain)?;
        pinned(chain, pin, leaf.not_before_ms + BACKDATE_MS)
    });
    client(judge, None, &[ALPN_CLUSTER])
}

/// Verifies a server's chain against a pinned root at a time: milliseconds since the epoch.
pub fn pinned(
    presented: &[CertificateDer<'_>],
    pin: [u8; 32],
    now_ms: u64,
) -> Result<Peer, PeerError> {
    let peer = peer_of(presented)?;
    let root = presented
        .iter()
        .find(|certificate| pin_of(certificate) == Some(pin));
    let root = root.ok_or(PeerError::Pin)?;
    let now = UnixTime::since_unix_epoch(std::time::Duration::from_millis(now_ms));
    chain::verify(
        presented,
        &peer,
        std::slice::from_ref(root),
        Usage::Server,
        now,
    )?;
    host_of(&peer)?;
    Ok(peer)
}

/// The pin of a root: SHA-256 of its subject public key info, so that it survives a renewed certificate.
pub fn pin_of(certificate: &[u8]) -> Option<[u8; 32]> {
    let (_, parsed) = x509_parser::parse_x509_certificate(certificate).ok()?;
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, parsed.public_key().raw);
    digest.as_ref().try_into().ok()
}

/// Presents the host's chain with the root at its end.
#[derive(Debug)]
struct WithRoot {
    credentials: Credentials,
    id: SpiffeId,
    root: Option<CertificateDer<'static>>,
}

impl ResolvesServerCert for WithRoot {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let credential = self.credentials.get(&self.id)?;
        let mut chain = credential.chain.clone();
        chain.extend(self.root.clone());
        Some(Arc::new(CertifiedKey::new(
            chain,
            Arc::clone(&credential.certified_key.key),
        )))
    }
}
