//! A mesh is made: the root, the genesis, the first authority, the first host, the first operator.

use data_encoding::BASE64URL_NOPAD;
use mesh_gossip::Grant;
use mesh_identity::{
    archive::{self, ArchiveError, Files},
    authority::{Authority, AuthorityError, AuthorityKeys, HostRequest, MeshSettings, Root},
    credentials::CredentialError,
    key::{Ed25519Key, KeyError, X25519Key, host_id},
    leaf::LeafRequest,
};
use mesh_model::{
    admin::{Init, InitAnswer},
    grant::Signed,
    principal::SpiffeId,
};
use prost::Message as _;
use zeroize::Zeroizing;

use super::{
    Site, exists,
    identity::{self, AuthorityFailure, OPERATOR_TTL},
    machine::Machine,
};
use crate::clock;

/// Leaves live a day unless said otherwise.
const LEAF_TTL: u64 = 86_400;

/// Why no mesh was made; nothing was changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum InitError {
    /// The host is in a mesh.
    #[error("this host holds the identity of a mesh already")]
    Present,
    /// A setting is wrong, or something could not be signed.
    #[error("cannot make the mesh")]
    Authority(#[from] AuthorityError),
    /// A key could not be made.
    #[error("cannot make the host's keys")]
    Key(#[from] KeyError),
    /// The operator's name or key is none.
    #[error("cannot certify the first operator")]
    Operator(#[from] AuthorityFailure),
    /// The first certificate could not be made.
    #[error("cannot make the host's certificate")]
    Credential(#[from] CredentialError),
    /// The files could not be written.
    #[error("cannot write the identity")]
    Archive(#[from] ArchiveError),
}

/// What was made.
#[derive(Debug)]
pub(crate) struct Made {
    /// The answer to `meshctl`.
    pub(crate) answer: InitAnswer,
    /// The first operator's grant, as it was signed.
    pub(crate) operator_grant: Signed,
}

/// Makes a mesh with this host as its first host and authority.
#[expect(
    clippy::needless_pass_by_value,
    reason = "the same form as join, whose future keeps it"
)]
pub(crate) fn init(site: Site, request: &Init) -> Result<Made, InitError> {
    init_at(&site, request, &Machine::current(), clock::now_ms())
}

pub(super) fn init_at(
    site: &Site,
    request: &Init,
    machine: &Machine,
    now_ms: u64,
) -> Result<Made, InitError> {
    if exists(&site.state_dir) {
        return Err(InitError::Present);
    }
    let root = Root::create(&settings(request), now_ms)?;
    let mesh = root.mesh().clone();
    let (key, box_key) = (Ed25519Key::generate()?, X25519Key::generate()?);
    let host = host_id(&key.public());
    let keys = AuthorityKeys::generate()?;
    let authority_grant = root.certify(host, &keys.request()?, 1, now_ms)?;
    let authority = Authority::new(keys, mesh.clone(), authority_grant.clone())?;
    let admitted = HostRequest {
        ed25519: key.public(),
        x25519: box_key.public(),
        name: site.host_name.clone(),
        may_register: vec!["*".to_owned()],
    };
    let host_grant = authority.admit(&admitted, 1, now_ms)?;
    let (name, public) = (&request.operator, &request.operator_key);
    let operator_grant = identity::operator(&authority, name, public, &[], OPERATOR_TTL, now_ms)?;

    let id = SpiffeId::host(mesh.trust_domain.clone(), host);
    let leaf = LeafRequest::new(&id)?;
    let ttl = std::time::Duration::from_secs(mesh.genesis.leaf_ttl_secs);
    let chain = authority.issue_leaf(leaf.csr(), &id, host, ttl, now_ms)?;
    let credential = leaf.finish(chain, host)?;

    let others = vec![
        Grant::Authority(authority_grant.clone()),
        Grant::Host(host_grant.clone()),
        Grant::Operator(operator_grant.clone()),
    ];
    let mut files: Files = vec![
        open(identity::GENESIS, mesh.signed.encode_to_vec()),
        (identity::HOST_KEY.to_owned(), key.to_pem()?),
        (identity::BOX_KEY.to_owned(), box_key.to_pem()?),
        open(identity::HOST_GRANT, host_grant.encode_to_vec()),
        open(identity::GRANTS, identity::encode_grants(&others)),
        open(identity::SEEDS, Vec::new()),
        (
            identity::AUTHORITY_KEY.to_owned(),
            authority.keys().ed25519.to_pem()?,
        ),
        (
            identity::AUTHORITY_X509.to_owned(),
            authority.keys().x509.to_pem(),
        ),
        open(identity::AUTHORITY_GRANT, authority_grant.encode_to_vec()),
        (identity::ROOT_KEY.to_owned(), root.key().to_pem()?),
        (identity::ROOT_X509.to_owned(), root.x509_key().to_pem()),
        machine.file(),
    ];
    files.push((file_name(&id), credential.to_pem()));
    archive::install(&identity::directory(&site.state_dir), &files)?;

    let answer = InitAnswer {
        mesh_id: mesh.id.to_string(),
        host_id: host.to_string(),
        operator_grant: BASE64URL_NOPAD.encode(&operator_grant.encode_to_vec()),
    };
    Ok(Made {
        answer,
        operator_grant,
    })
}

fn settings(request: &Init) -> MeshSettings {
    let or = |text: &str, default: &str| {
        if text.is_empty() {
            default.to_owned()
        } else {
            text.to_owned()
        }
    };
    MeshSettings {
        name: or(&request.mesh_name, "mesh"),
        trust_domain: request.trust_domain.clone(),
        domain: or(&request.domain, "mesh.internal"),
        strict: request.strict,
        leaf_ttl_secs: if request.leaf_ttl_secs == 0 {
            LEAF_TTL
        } else {
            request.leaf_ttl_secs
        },
    }
}

/// A file without a secret; it is stored like one all the same.
pub(super) fn open(name: &str, content: Vec<u8>) -> (String, Zeroizing<Vec<u8>>) {
    (name.to_owned(), Zeroizing::new(content))
}

/// The file name of a certificate, as text.
pub(super) fn file_name(id: &SpiffeId) -> String {
    mesh_identity::Credential::file_name(id)
        .display()
        .to_string()
}
