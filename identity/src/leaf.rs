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
    id: SpiffeId,
    key: P256Key,
    csr: Vec<u8>,
}

impl LeafRequest {
    /// Makes a key and a PKCS#10 request that names `id`.
    pub fn new(id: &SpiffeId) -> Result<Self, AuthorityError> {
        let key = P256Key::generate()?;
        let csr = x509_request(&key, Some(id))?;
        Ok(Self {
            id: id.clone(),
            key,
            csr,
        })
    }
    /// The request (DER).
    pub fn csr(&self) -> &[u8] {
        &self.csr
    }
    /// Takes the answer: refuses a chain for another key, another id or another host.
    pub fn finish(
        self,
        chain: Vec<CertificateDer<'static>>,
        host: HostId,
    ) -> Result<Credential, CredentialError> {
        let credential = Credential::new(self.key, chain)?;
        if *credential.id() != self.id || credential.host() != Some(host) {
            return Err(CredentialError::OtherIdentity {
                wanted: Box::new(self.id),
                found: Box::new(credential.id().clone()),
            });
        }
        Ok(credential)
    }
}
