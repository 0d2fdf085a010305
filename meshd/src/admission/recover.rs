//! A host whose certificate has ended proves itself by its Ed25519 key and gets a new one.
//!
//! A fleet that was switched off for longer than a leaf lives comes back by itself: authorities renew their
//! own certificates, everybody else asks them here. It is possible as long as the host's grant is in force.

use std::{net::SocketAddr, time::Duration};

use mesh_identity::{
    Credential,
    authority::{AuthorityError, root_certificate},
    credentials::CredentialError,
    leaf::LeafRequest,
    tls::{JOIN_EXPORTER, join_client, pin_of},
};
use prost::Message as _;
use rustls_pki_types::{CertificateDer, ServerName};
use tokio::{net::TcpStream, time::timeout};
use tokio_rustls::TlsConnector;

use super::{
    identity::Identity,
    wire::{self, ASK_LIMIT, Admitted, Answer, Ask, Kind, PROOF, Renewal, WireError, proof_input},
};

/// The whole exchange takes no longer.
const PATIENCE: Duration = Duration::from_secs(10);

/// Why no certificate came.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum RecoverError {
    /// The connection could not be made or broke.
    #[error("cannot speak to the authority")]
    Io(#[from] std::io::Error),
    /// A message could not be read.
    #[error("cannot speak to the authority")]
    Wire(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// It says no.
    #[error("the authority refuses: {0}")]
    Refused(String),
    /// The request could not be made.
    #[error("cannot make a certificate request")]
    Request(#[from] AuthorityError),
    /// The certificate is not usable.
    #[error("the certificate that came is wrong")]
    Credential(#[from] CredentialError),
}

impl From<WireError> for RecoverError {
    fn from(error: WireError) -> Self {
        Self::Wire(Box::new(error))
    }
}

/// Asks the authority whose control state listens at `at` for this host's own certificate.
pub(crate) async fn recover(
    identity: &Identity,
    at: SocketAddr,
) -> Result<Credential, RecoverError> {
    timeout(PATIENCE, Box::pin(exchange(identity, at)))
        .await
        .unwrap_or_else(|_elapsed| Err(std::io::Error::from(std::io::ErrorKind::TimedOut).into()))
}

async fn exchange(identity: &Identity, at: SocketAddr) -> Result<Credential, RecoverError> {
    let pin = pin_of(&root_certificate(identity.mesh())).unwrap_or_default();
    let stream = TcpStream::connect(at).await?;
    let connector = TlsConnector::from(join_client(pin));
    let mut stream = connector.connect(ServerName::from(at.ip()), stream).await?;
    let exporter = stream
        .get_ref()
        .1
        .export_keying_material([0; 32], JOIN_EXPORTER, None);
    let exporter = exporter.map_err(std::io::Error::other)?;
    let leaf = LeafRequest::new(&identity.spiffe_id())?;
    let renewal = Renewal {
        host: identity.host().0.to_vec(),
        csr: leaf.csr().to_vec(),
    };
    let body = renewal.encode_to_vec();
    let ask = Ask {
        kind: Kind::Recover.into(),
        proof: identity
            .key()
            .sign(PROOF, proof_input(&exporter, &body))
            .signature,
        body,
        ..Ask::default()
    };
    wire::send(&mut stream, &ask).await?;
    let answer: Answer = wire::receive(&mut stream, ASK_LIMIT).await?;
    if let Some(refusal) = answer.refusal {
        return Err(RecoverError::Refused(refusal.what));
    }
    let admitted = Admitted::decode(answer.body.as_slice()).map_err(WireError::from)?;
    let chain = admitted
        .chain
        .into_iter()
        .map(CertificateDer::from)
        .collect();
    Ok(leaf.finish(chain, identity.host())?)
}
