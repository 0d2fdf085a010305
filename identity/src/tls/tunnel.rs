//! Between workloads on 15008: our own peers name the wanted service by SNI, foreign HBONE peers name none.

use std::sync::Arc;

use mesh_model::{
    endpoint::TunnelKind,
    principal::SpiffeId,
    snapshot::{Snapshot, cell::Reader},
};
use rustls::{
    ClientConfig, ServerConfig, SignatureScheme,
    client::ResolvesClientCert,
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};
use rustls_pki_types::{CertificateDer, UnixTime};

use super::{ALPN_H2, ALPN_MESH, client, server};
use crate::{
    credentials::Credentials,
    verify::{Peer, PeerError, Usage, handshake::Judge, verify},
};

/// Why a tunnel cannot be opened.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TunnelError {
    /// There is no certificate for the caller.
    #[error("there is no certificate for {0} yet")]
    NoCredential(Box<SpiffeId>),
    /// Nobody would be accepted.
    #[error("no identity is accepted at the other end")]
    NobodyExpected,
}

/// The server side: the certificate by SNI, without SNI the host's; clients must show a certificate.
///
/// A client of ours that asks for a service that is not here gets no certificate at all; a foreign client
/// (no `mesh-h2/1`) may send any SNI and gets the host's.
pub fn tunnel_server(reader: Reader, credentials: Credentials) -> Arc<ServerConfig> {
    let trust = reader.clone();
    let judge = Judge::new(move |chain, now| judge_by(&trust.load(), chain, Usage::Client, now));
    let resolver = Arc::new(ByServerName {
        reader,
        credentials,
    });
    server(judge, resolver, &[ALPN_MESH, ALPN_H2])
}

/// The client side: presents `local`, accepts one of `expected` and nobody else.
///
/// The configuration follows rotation, so callers keep one per (local, expected, kind).
pub fn tunnel_client(
    reader: Reader,
    credentials: Credentials,
    local: &SpiffeId,
    expected: Arc<[SpiffeId]>,
    kind: TunnelKind,
) -> Result<Arc<ClientConfig>, TunnelError> {
    if expected.is_empty() {
        return Err(TunnelError::NobodyExpected);
    }
    if credentials.get(local).is_none() {
        return Err(TunnelError::NoCredential(Box::new(local.clone())));
    }
    let judge = Judge::new(move |chain, now| {
        let peer = judge_by(&reader.load(), chain, Usage::Server, now)?;
        if expected.contains(&peer.id) {
            return Ok(peer);
        }
        let expected: Vec<String> = expected.iter().take(4).map(ToString::to_string).collect();
        Err(PeerError::Unexpected {
            found: Box::new(peer.id),
            expected: expected.join(" or "),
        })
    });
    let resolver = Arc::new(Presents {
        credentials,
        id: local.clone(),
    });
    let alpn: &[&[u8]] = match kind {
        TunnelKind::Mesh => &[ALPN_MESH, ALPN_H2],
        TunnelKind::Hbone => &[ALPN_H2],
    };
    Ok(client(judge, Some(resolver), alpn))
}

fn judge_by(
    snapshot: &Snapshot,
    chain: &[CertificateDer<'_>],
    usage: Usage,
    now: UnixTime,
) -> Result<Peer, PeerError> {
    let mesh = snapshot.mesh.as_ref().ok_or(PeerError::Idle)?;
    verify(chain, usage, &mesh.trust_domain, &snapshot.trust, now)
}

/// Chooses the certificate of the service that a client names.
#[derive(Debug)]
struct ByServerName {
    reader: Reader,
    credentials: Credentials,
}

impl ResolvesServerCert for ByServerName {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let snapshot = self.reader.load();
        let mesh = snapshot.mesh.as_ref()?;
        let name = hello.server_name().map(str::to_ascii_lowercase);
        let ours = hello
            .alpn()
            .is_some_and(|mut offered| offered.any(|name| name == ALPN_MESH));
        let id = match name.and_then(|name| snapshot.inbound.identities.get(name.as_str())) {
            Some(id) => id.clone(),
            None if ours && hello.server_name().is_some() => return None,
            None => SpiffeId::host(mesh.trust_domain.clone(), mesh.host),
        };
        self.credentials
            .get(&id)
            .map(|credential| Arc::clone(&credential.certified_key))
    }
}

/// Presents the newest certificate of one identity.
#[derive(Debug)]
pub(super) struct Presents {
    pub(super) credentials: Credentials,
    pub(super) id: SpiffeId,
}

impl ResolvesClientCert for Presents {
    fn resolve(
        &self,
        _root_hints: &[&[u8]],
        schemes: &[SignatureScheme],
    ) -> Option<Arc<CertifiedKey>> {
        let credential = self.credentials.get(&self.id)?;
        credential.certified_key.key.choose_scheme(schemes)?;
        Some(Arc::clone(&credential.certified_key))
    }
    fn has_certs(&self) -> bool {
        true
    }
}
