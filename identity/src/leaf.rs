//! The requesting side of a certificate: the key is made here and stays here.

use mesh_model::{name::HostId, principal::SpiffeId};
use rustls_pki_types::CertificateDer;

use crate::{
    authority::{AuthorityError, x509_request},
    credentials::{Credential, CredentialError},
    key::P256Key,
};

/// A key and the request for its certificate.
#[derive(Debug)]
pub struct LeafRequest {
    id: Option<SpiffeId>,
    key: P256Key,
    csr: Vec<u8>,
}

impl LeafRequest {
    /// Makes a key and a PKCS#10 request that names `id`.
    pub fn new(id: &SpiffeId) -> Result<Self, AuthorityError> {
        let key = P256Key::generate()?;
        let csr = x509_request(&key, Some(id))?;
        Ok(Self {
            id: Some(id.clone()),
            key,
            csr,
        })
    }
    /// Makes a key and a request that names nobody: for a host that does not know its trust domain yet.
    pub fn unnamed() -> Result<Self, AuthorityError> {
        let key = P256Key::generate()?;
        let csr = x509_request(&key, None)?;
        Ok(Self { id: None, key, csr })
    }
    /// The request (DER).
    pub fn csr(&self) -> &[u8] {
        &self.csr
    }
    /// Takes the answer: refuses a chain for another key, another id than was asked for, or another host.
    pub fn finish(
        self,
        chain: Vec<CertificateDer<'static>>,
        host: HostId,
    ) -> Result<Credential, CredentialError> {
        let credential = Credential::new(self.key, chain)?;
        let wanted = self.id.unwrap_or_else(|| credential.id().clone());
        fits(credential, wanted, host)
    }
    /// As [`Self::finish`], for a request that named nobody: refuses a chain for another than `id`.
    pub fn finish_as(
        self,
        id: &SpiffeId,
        chain: Vec<CertificateDer<'static>>,
        host: HostId,
    ) -> Result<Credential, CredentialError> {
        fits(Credential::new(self.key, chain)?, id.clone(), host)
    }
}

fn fits(
    credential: Credential,
    wanted: SpiffeId,
    host: HostId,
) -> Result<Credential, CredentialError> {
    if *credential.id() == wanted && credential.host() == Some(host) {
        return Ok(credential);
    }
    let found = Box::new(credential.id().clone());
    Err(CredentialError::OtherIdentity {
        wanted: Box::new(wanted),
        found,
    })
}
