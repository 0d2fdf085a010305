//! The certificates that this daemon holds, by identity: read on every handshake, replaced as they are renewed.
//!
//! In: finished leaves. Out: what rustls presents. Never: blocks a reader, or logs a key.

use std::{
    collections::BTreeMap,
    fmt,
    path::{Path, PathBuf},
    sync::Arc,
};

use arc_swap::ArcSwap;
use mesh_model::{name::HostId, principal::SpiffeId};
use rustls::sign::CertifiedKey;
use rustls_pki_types::{CertificateDer, pem::PemObject};
use zeroize::Zeroizing;

use crate::{
    authority::BACKDATE_MS,
    file::{self, FileError},
    key::{KeyError, P256Key},
    pem,
    verify::{PeerError, certificate},
};

/// Why a certificate cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CredentialError {
    /// The key could not be read or made.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The file could not be read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// There is no certificate, or it is no SPIFFE leaf.
    #[error("the certificate is no leaf of a mesh")]
    Leaf(#[from] PeerError),
    /// The certificate is for another key.
    #[error("the certificate is for another key")]
    OtherKey,
    /// The certificate is for somebody else.
    #[error("the certificate is for {found}, not for {wanted} on this host")]
    OtherIdentity {
        /// What was asked for.
        wanted: Box<SpiffeId>,
        /// What came.
        found: Box<SpiffeId>,
    },
}

/// A certificate chain with its key.
pub struct Credential {
    /// What rustls presents: chain and signing key.
    pub certified_key: Arc<CertifiedKey>,
    /// The chain: leaf first, then intermediates; no root.
    pub chain: Vec<CertificateDer<'static>>,
    /// Beginning of the leaf's validity, milliseconds since the epoch.
    pub not_before_ms: u64,
    /// End of the leaf's validity, milliseconds since the epoch.
    pub not_after_ms: u64,
    id: SpiffeId,
    host: Option<HostId>,
    key: P256Key,
}

impl Credential {
    /// Joins a key with its chain; refuses a chain for another key and one that is no SPIFFE leaf.
    pub fn new(key: P256Key, chain: Vec<CertificateDer<'static>>) -> Result<Self, CredentialError> {
        let leaf = certificate::read(&chain)?;
        if leaf.public_key != key.public() {
            return Err(CredentialError::OtherKey);
        }
        let certified_key = Arc::new(CertifiedKey::new(chain.clone(), key.signing()?));
        Ok(Self {
            certified_key,
            chain,
            not_before_ms: leaf.not_before_ms,
            not_after_ms: leaf.peer.not_after_ms,
            id: leaf.peer.id,
            host: leaf.peer.host,
            key,
        })
    }
    /// Whose it is.
    pub fn id(&self) -> &SpiffeId {
        &self.id
    }
    /// The host that it is bound to.
    pub fn host(&self) -> Option<HostId> {
        self.host
    }
    /// The host whose authority signed it; `None` for what another CA signed.
    pub fn issuer(&self) -> Option<HostId> {
        certificate::authority_host(self.chain.get(1)?)
    }
    /// When it was made, milliseconds since the epoch: certificates begin a little before that.
    pub fn made_ms(&self) -> u64 {
        (self.not_before_ms + BACKDATE_MS).min(self.not_after_ms)
    }
    /// Key and chain in PEM: a secret.
    pub fn to_pem(&self) -> Zeroizing<Vec<u8>> {
        let mut text = self.key.to_pem();
        for certificate in &self.chain {
            pem::append(&mut text, pem::CERTIFICATE, certificate);
        }
        text
    }
    /// From key and chain in PEM; `what` names it in the error.
    pub fn from_pem(text: &[u8], what: &str) -> Result<Self, CredentialError> {
        let key = P256Key::from_pem(text, what)?;
        let chain = CertificateDer::pem_slice_iter(text)
            .collect::<Result<Vec<_>, _>>()
            .map_err(|_form| PeerError::Malformed)?;
        Self::new(key, chain)
    }
    /// The file name of an identity inside a directory: `<namespace>.<account>.pem`.
    pub fn file_name(id: &SpiffeId) -> PathBuf {
        PathBuf::from(format!("{}.{}.pem", id.namespace, id.service_account))
    }
    /// Writes it into `directory`, 0600, atomically.
    pub fn store(&self, directory: &Path) -> Result<(), CredentialError> {
        Ok(file::write_secret(
            &directory.join(Self::file_name(&self.id)),
            &self.to_pem(),
        )?)
    }
    /// Reads one file; refuses one that others may read.
    pub fn load(path: &Path) -> Result<Self, CredentialError> {
        Self::from_pem(&file::read_secret(path)?, &path.display().to_string())
    }
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Credential({} until {})", self.id, self.not_after_ms)
    }
}

/// All credentials of a daemon; clones share one set.
#[derive(Debug, Clone, Default)]
pub struct Credentials(Arc<ArcSwap<BTreeMap<SpiffeId, Arc<Credential>>>>);

impl Credentials {
    /// An empty set.
    pub fn new() -> Self {
        Self::default()
    }
    /// Adds or replaces; handshakes that begin afterwards present the new one.
    pub fn insert(&self, id: SpiffeId, credential: Credential) {
        let entry = (id, Arc::new(credential));
        self.0.rcu(|map| {
            let mut map = BTreeMap::clone(map);
            map.extend([entry.clone()]);
            map
        });
    }
    /// Removes one.
    pub fn remove(&self, id: &SpiffeId) {
        self.0.rcu(|map| {
            let mut map = BTreeMap::clone(map);
            map.remove(id);
            map
        });
    }
    /// The newest credential of an identity.
    pub fn get(&self, id: &SpiffeId) -> Option<Arc<Credential>> {
        self.0.load().get(id).map(Arc::clone)
    }
    /// The identities held, in order.
    pub fn ids(&self) -> Vec<SpiffeId> {
        self.0.load().keys().cloned().collect()
    }
    /// Every identity with the end of its certificate (milliseconds since the epoch), the first to end first.
    pub fn expiries(&self) -> Vec<(SpiffeId, u64)> {
        let map = self.0.load();
        let mut all: Vec<_> = map
            .iter()
            .map(|(id, c)| (id.clone(), c.not_after_ms))
            .collect();
        all.sort_by_key(|(_, not_after_ms)| *not_after_ms);
        all
    }
}
