//! The answer is checked against the token, and becomes the files of an identity.

use std::sync::Arc;

use mesh_gossip::Grant;
use mesh_identity::{
    Credential,
    archive::Files,
    authority::{Authority, AuthorityKeys, root_certificate},
    grants::{Mesh, in_force},
    key::{Ed25519Key, X25519Key, host_id},
    leaf::LeafRequest,
    tls::pin_of,
    token::Token,
    verify::{Usage, verify},
};
use mesh_model::{
    grant::{AuthorityGrant, HostGrant, Signed},
    name::HostId,
    snapshot::{HostRights, Trust},
};
use prost::Message as _;
use rustls_pki_types::{CertificateDer, UnixTime};

use super::{JoinError, own_id};
use crate::admission::{
    create::{file_name, open},
    identity,
    machine::Machine,
    wire::Admitted,
};

/// The joiner's new keys.
pub(super) struct Keys {
    pub(super) host: Ed25519Key,
    pub(super) datagram: X25519Key,
    pub(super) authority: Option<AuthorityKeys>,
}

/// Everything that came back, checked.
pub(super) struct Accepted {
    /// Name of the mesh, for people.
    pub(super) mesh_name: String,
    mesh: Mesh,
    host: HostId,
    key: Ed25519Key,
    datagram: X25519Key,
    host_grant: Signed,
    authority: Option<Authority>,
    grants: Vec<Grant>,
    credential: Credential,
}

/// Checks that the mesh is the token's, that the grants are for the keys that were sent, and that the certificate
/// holds; nothing that the far side says is believed without that.
pub(super) fn accept(
    token: &Token,
    admitted: &Admitted,
    keys: Keys,
    leaf: LeafRequest,
    now_ms: u64,
) -> Result<Accepted, JoinError> {
    let mesh = Mesh::open(&signed(&admitted.genesis, "the genesis")?)?;
    let root = root_certificate(&mesh);
    if mesh.id != token.mesh_id || pin_of(&root) != Some(token.root_sha256) {
        return Err(JoinError::Answer("it is of another mesh"));
    }
    let grants: Vec<Grant> = admitted
        .grants
        .iter()
        .filter_map(|grant| Grant::decode(grant))
        .collect();
    let authorities = identity::authorities(&mesh, &grants);
    let host_grant = signed(&admitted.host_grant, "the host's grant")?;
    let grant = mesh.host(&host_grant, &authorities)?;
    let host = host_id(&keys.host.public());
    let own = grant.ed25519 == keys.host.public() && grant.x25519 == keys.datagram.public();
    if !own || !in_force(grant.not_before_ms, grant.not_after_ms, now_ms) {
        return Err(JoinError::Answer(
            "the grant is for other keys or another time",
        ));
    }
    let authority = match (keys.authority, &admitted.authority_grant[..]) {
        (None, []) => None,
        (Some(keys), bytes) if !bytes.is_empty() => {
            let signed = signed(bytes, "the authority's grant")?;
            Some(Authority::new(keys, mesh.clone(), signed)?)
        }
        (_, _) => {
            return Err(JoinError::Answer(
                "an authority was promised and not given, or the other way",
            ));
        }
    };
    if authority
        .as_ref()
        .is_some_and(|authority| authority.host() != host)
    {
        return Err(JoinError::Answer(
            "the authority's grant is for another host",
        ));
    }
    let credential = certificate(&mesh, admitted, leaf, (&grant, &authorities), now_ms)?;
    Ok(Accepted {
        mesh_name: mesh.genesis.mesh_name.clone(),
        mesh,
        host,
        key: keys.host,
        datagram: keys.datagram,
        host_grant,
        authority,
        grants,
        credential,
    })
}

fn certificate(
    mesh: &Mesh,
    admitted: &Admitted,
    leaf: LeafRequest,
    (grant, authorities): (&HostGrant, &[AuthorityGrant]),
    now_ms: u64,
) -> Result<Credential, JoinError> {
    let wrong = |_reason| JoinError::Answer("the certificate does not hold");
    let host = grant
        .host()
        .ok_or(JoinError::Answer("the grant names no host"))?;
    let chain: Vec<CertificateDer<'static>> = admitted
        .chain
        .iter()
        .map(|der| CertificateDer::from(der.clone()))
        .collect();
    let mut trust = Trust::default();
    let root: Arc<[u8]> = Arc::from(root_certificate(mesh).as_ref());
    trust.bundles.insert(mesh.trust_domain.clone(), vec![root]);
    let mut believe = |host, may_register, not_after_ms| {
        let rights = HostRights {
            may_register,
            not_after_ms,
        };
        trust.grants.insert(host, Arc::new(rights));
    };
    for authority in authorities {
        if let Some(host) = HostId::from_slice(&authority.host_id) {
            believe(host, Vec::new(), authority.not_after_ms);
        }
    }
    believe(host, grant.may_register.clone(), grant.not_after_ms);
    // Clocks may be a little apart, so the leaf is looked at in the middle of that.
    let at = std::time::Duration::from_millis(now_ms);
    let now = UnixTime::since_unix_epoch(at);
    let own = &mesh.trust_domain;
    verify(&chain, Usage::Server, own, &trust, now).map_err(wrong)?;
    Ok(leaf.finish_as(&own_id(own, host), chain, host)?)
}

fn signed(bytes: &[u8], what: &'static str) -> Result<Signed, JoinError> {
    Signed::decode(bytes).map_err(|_form| JoinError::Answer(what))
}

impl Accepted {
    /// The files of the identity.
    pub(super) fn files(&self, seeds: &[String], machine: &Machine) -> Result<Files, JoinError> {
        let id = own_id(&self.mesh.trust_domain, self.host);
        let mut files: Files = vec![
            open(identity::GENESIS, self.mesh.signed.encode_to_vec()),
            (identity::HOST_KEY.to_owned(), self.key.to_pem()?),
            (identity::BOX_KEY.to_owned(), self.datagram.to_pem()?),
            open(identity::HOST_GRANT, self.host_grant.encode_to_vec()),
            open(identity::GRANTS, identity::encode_grants(&self.grants)),
            open(identity::SEEDS, seeds.join("\n").into_bytes()),
            machine.file(),
            (file_name(&id), self.credential.to_pem()),
        ];
        if let Some(authority) = &self.authority {
            let keys = authority.keys();
            files.push((identity::AUTHORITY_KEY.to_owned(), keys.ed25519.to_pem()?));
            files.push((identity::AUTHORITY_X509.to_owned(), keys.x509.to_pem()));
            files.push(open(
                identity::AUTHORITY_GRANT,
                authority.signed().encode_to_vec(),
            ));
        }
        Ok(files)
    }
}
