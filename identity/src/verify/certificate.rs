//! What a leaf says, before any of it is believed.

use mesh_model::{name::HostId, principal::SpiffeId};
use rustls_pki_types::CertificateDer;
use x509_parser::{certificate::X509Certificate, extensions::GeneralName};

use super::{Peer, PeerError};

/// A leaf, read.
#[derive(Debug)]
pub(crate) struct Leaf {
    pub(crate) peer: Peer,
    pub(crate) not_before_ms: u64,
    pub(crate) public_key: Vec<u8>,
}

/// Reads the first certificate of a chain: exactly one URI name of the five-part form (other kinds of
/// names are ignored, an empty subject and a critical SAN are fine), the host in the subject if there is one.
pub(crate) fn read(chain: &[CertificateDer<'_>]) -> Result<Leaf, PeerError> {
    let leaf = chain.first().ok_or(PeerError::Absent)?;
    let (rest, parsed) =
        x509_parser::parse_x509_certificate(leaf).map_err(|_form| PeerError::Malformed)?;
    if !rest.is_empty() {
        return Err(PeerError::Malformed);
    }
    let milliseconds = |time: x509_parser::time::ASN1Time| {
        u64::try_from(time.timestamp())
            .unwrap_or(0)
            .saturating_mul(1000)
    };
    let id = only_uri(&parsed)?;
    let mut names = parsed.subject().iter_common_name();
    let host = names
        .next()
        .and_then(|name| name.as_str().ok()?.parse().ok());
    let host = host.filter(|_| names.next().is_none());
    Ok(Leaf {
        peer: Peer {
            id,
            host,
            not_after_ms: milliseconds(parsed.validity().not_after),
        },
        not_before_ms: milliseconds(parsed.validity().not_before),
        public_key: parsed.public_key().subject_public_key.data.to_vec(),
    })
}

/// What the subject of an authority's certificate begins with; its host follows.
pub(crate) const AUTHORITY: &str = "meshd authority ";

/// The host of the authority to which an intermediate of ours belongs.
pub(crate) fn authority_host(intermediate: &[u8]) -> Option<HostId> {
    let (_, parsed) = x509_parser::parse_x509_certificate(intermediate).ok()?;
    let mut names = parsed.subject().iter_common_name();
    let text = names.next()?.as_str().ok()?;
    let host = text.strip_prefix(AUTHORITY)?.parse().ok()?;
    names.next().is_none().then_some(host)
}

fn only_uri(parsed: &X509Certificate<'_>) -> Result<SpiffeId, PeerError> {
    let names = parsed
        .subject_alternative_name()
        .map_err(|_twice| PeerError::Malformed)?;
    let names = names.map_or(&[][..], |extension| &extension.value.general_names[..]);
    let uris: Vec<&str> = names
        .iter()
        .filter_map(|name| {
            if let GeneralName::URI(uri) = name {
                Some(*uri)
            } else {
                None
            }
        })
        .collect();
    match uris[..] {
        [uri] => Ok(uri.parse()?),
        _ => Err(PeerError::Names(uris.len())),
    }
}
