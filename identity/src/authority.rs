//! The mesh's CA: the root signs authorities, an authority signs hosts, operators and leaves.
//!
//! The root is made by `init` and only signs authorities; each authority makes its own keys where it
//! lives, so no CA key is ever copied. In: requests and the time. Out: certificates and signed grants.
//! Never: signs an id that the asking host's grant does not cover.

use std::time::Duration;

use mesh_model::{
    grant::{AuthorityGrant, Genesis, HostGrant, OperatorGrant, Signed, domain},
    name::HostId,
    principal::{PrincipalError, SpiffeId, TrustDomain},
};
use prost::Message;
use rustls_pki_types::CertificateDer;

use crate::{
    grants::{GrantError, LEAF_TTL_MAX, LEAF_TTL_MIN, Mesh, in_force, may_present},
    key::{Ed25519Key, KeyError, P256Key, random},
};

/// Certificate forms: root, intermediate, leaf, and requests for them.
mod x509;

pub use x509::BACKDATE_MS;
pub(crate) use x509::request as x509_request;

/// Milliseconds of a day.
const DAY_MS: u64 = 86_400_000;
/// Lifetime of the root and of host grants: ten years; hosts are removed by revocation, not by time.
pub const ROOT_LIFETIME_MS: u64 = 3_652 * DAY_MS;
/// Lifetime of an authority: a year.
pub const AUTHORITY_LIFETIME_MS: u64 = 365 * DAY_MS;

/// Why something could not be made or signed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AuthorityError {
    /// A key could not be made, read or stored.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The trust domain is none.
    #[error(transparent)]
    TrustDomain(#[from] PrincipalError),
    /// The DNS domain is none.
    #[error("{0:?} is not a DNS domain: use labels of a-z, 0-9 and '-' with dots between")]
    Domain(String),
    /// The lifetime of leaves is out of range.
    #[error("a leaf lifetime of {0} s is out of range: choose {LEAF_TTL_MIN} to {LEAF_TTL_MAX}")]
    LeafTtl(u64),
    /// The request is malformed, not P-256, or not signed by its own key.
    #[error("the certificate request is malformed or not signed with its own P-256 key")]
    Request,
    /// A certificate could not be made.
    #[error("cannot make a certificate")]
    Certificate(#[source] rcgen::Error),
    /// The parts of an authority do not fit each other.
    #[error("the authority's keys, grant and certificate do not belong together")]
    Mismatch,
    /// A signed right is wrong.
    #[error(transparent)]
    Grant(#[from] GrantError),
    /// The authority's own right has ended.
    #[error(
        "this authority's right ended: join again with an authority token, or use another authority"
    )]
    AuthorityExpired,
    /// The host has no right at this time.
    #[error("host {0} has no grant that is in force")]
    NoGrant(HostId),
    /// The host may not have this id.
    #[error("the grant of host {host} does not cover {id}")]
    NotCovered {
        /// The host.
        host: HostId,
        /// What it asked for.
        id: SpiffeId,
    },
}

/// What a mesh shall be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MeshSettings {
    /// Name for people.
    pub name: String,
    /// Trust domain of its identities.
    pub trust_domain: String,
    /// DNS domain of service names.
    pub domain: String,
    /// Refuse plaintext, deny unless allowed.
    pub strict: bool,
    /// Lifetime of workload certificates, seconds; 60 to 90 days.
    pub leaf_ttl_secs: u64,
}

/// The root: an X.509 root and an Ed25519 root key, and the genesis that names both.
#[derive(Debug)]
pub struct Root {
    key: Ed25519Key,
    x509: P256Key,
    mesh: Mesh,
}

impl Root {
    /// Makes a mesh: keys, root certificate (ten years), signed genesis.
    pub fn create(settings: &MeshSettings, now_ms: u64) -> Result<Self, AuthorityError> {
        let trust_domain = TrustDomain::new(&settings.trust_domain)?;
        let labels = settings.domain.split('.').all(mesh_model::name::is_label);
        if !labels || settings.domain.len() > 200 {
            return Err(AuthorityError::Domain(
                settings.domain.chars().take(300).collect(),
            ));
        }
        if !(LEAF_TTL_MIN..=LEAF_TTL_MAX).contains(&settings.leaf_ttl_secs) {
            return Err(AuthorityError::LeafTtl(settings.leaf_ttl_secs));
        }
        let key = Ed25519Key::generate()?;
        let x509 = P256Key::generate()?;
        let certificate = x509::root(&x509, &trust_domain, now_ms)?;
        let genesis = Genesis {
            mesh_name: settings.name.clone(),
            trust_domain: settings.trust_domain.clone(),
            domain: settings.domain.clone(),
            x509_root: certificate.to_vec(),
            root_key: key.public().to_vec(),
            created_ms: now_ms,
            strict: settings.strict,
            nonce: random::<16>()?.to_vec(),
            leaf_ttl_secs: settings.leaf_ttl_secs,
        };
        let mesh = Mesh::open(&key.sign(domain::GENESIS, genesis.encode_to_vec()))?;
        Ok(Self { key, x509, mesh })
    }
    /// From its stored parts; refuses keys that are not the genesis'.
    pub fn from_parts(key: Ed25519Key, x509: P256Key, mesh: Mesh) -> Result<Self, AuthorityError> {
        let point = x509::public_of(&mesh.genesis.x509_root).ok_or(AuthorityError::Mismatch)?;
        if mesh.genesis.root_key != key.public() || point != x509.public() {
            return Err(AuthorityError::Mismatch);
        }
        Ok(Self { key, x509, mesh })
    }
    /// The mesh.
    pub fn mesh(&self) -> &Mesh {
        &self.mesh
    }
    /// The Ed25519 half, for storage.
    pub fn key(&self) -> &Ed25519Key {
        &self.key
    }
    /// The X.509 half, for storage.
    pub fn x509_key(&self) -> &P256Key {
        &self.x509
    }
    /// Makes `host` an authority for a year: signs its intermediate and its grant.
    pub fn certify(
        &self,
        host: HostId,
        request: &AuthorityRequest,
        grant_seq: u64,
        now_ms: u64,
    ) -> Result<Signed, AuthorityError> {
        let root = root_certificate(&self.mesh);
        let not_after_ms = (now_ms + AUTHORITY_LIFETIME_MS)
            .min(x509::not_after_ms(&root).ok_or(AuthorityError::Mismatch)?);
        let intermediate = x509::intermediate(
            (&self.x509, &self.mesh.trust_domain),
            host,
            &request.csr,
            (now_ms, not_after_ms),
        )?;
        let grant = AuthorityGrant {
            mesh_id: self.mesh.id.0.to_vec(),
            host_id: host.0.to_vec(),
            key: request.key.to_vec(),
            intermediate: intermediate.to_vec(),
            not_before_ms: now_ms.saturating_sub(BACKDATE_MS),
            not_after_ms,
            grant_seq,
        };
        Ok(self.key.sign(domain::AUTHORITY, grant.encode_to_vec()))
    }
}

/// The root certificate of a mesh.
pub fn root_certificate(mesh: &Mesh) -> CertificateDer<'static> {
    CertificateDer::from(mesh.genesis.x509_root.clone())
}

/// What a host sends to become an authority.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuthorityRequest {
    /// Ed25519 public key that will sign grants.
    pub key: [u8; 32],
    /// PKCS#10 request of the intermediate, signed with its own key.
    pub csr: Vec<u8>,
}

/// The keys of an authority: made where they stay.
#[derive(Debug)]
pub struct AuthorityKeys {
    /// Signs grants.
    pub ed25519: Ed25519Key,
    /// Signs leaves.
    pub x509: P256Key,
}

impl AuthorityKeys {
    /// New random keys.
    pub fn generate() -> Result<Self, KeyError> {
        Ok(Self {
            ed25519: Ed25519Key::generate()?,
            x509: P256Key::generate()?,
        })
    }
    /// What to send to the root's holder.
    pub fn request(&self) -> Result<AuthorityRequest, AuthorityError> {
        Ok(AuthorityRequest {
            key: self.ed25519.public(),
            csr: x509::request(&self.x509, None)?,
        })
    }
}

/// The right to issue, with its keys.
#[derive(Debug)]
pub struct Authority {
    keys: AuthorityKeys,
    mesh: Mesh,
    host: HostId,
    grant: AuthorityGrant,
    signed: Signed,
}

impl Authority {
    /// Joins keys with the grant that the root signed for them; refuses what does not fit together.
    pub fn new(keys: AuthorityKeys, mesh: Mesh, signed: Signed) -> Result<Self, AuthorityError> {
        let grant = mesh.authority(&signed)?;
        let host = HostId::from_slice(&grant.host_id).ok_or(AuthorityError::Mismatch)?;
        let point = x509::public_of(&grant.intermediate).ok_or(AuthorityError::Mismatch)?;
        let fits = grant.key == keys.ed25519.public()
            && point == keys.x509.public()
            && x509::is_authority_of(&grant.intermediate, host);
        if !fits {
            return Err(AuthorityError::Mismatch);
        }
        Ok(Self {
            keys,
            mesh,
            host,
            grant,
            signed,
        })
    }
    /// The keys, for storage.
    pub fn keys(&self) -> &AuthorityKeys {
        &self.keys
    }
    /// The host that holds it.
    pub fn host(&self) -> HostId {
        self.host
    }
    /// The mesh.
    pub fn mesh(&self) -> &Mesh {
        &self.mesh
    }
    /// The grant as it was signed.
    pub fn signed(&self) -> &Signed {
        &self.signed
    }
    /// End of its right, milliseconds since the epoch.
    pub fn not_after_ms(&self) -> u64 {
        self.grant.not_after_ms
    }

    /// Signs a leaf for `id`, to be held by `host`: the leaf and the intermediate. No rule is asked.
    ///
    /// The request's own names are ignored. The lifetime is cut at the end of the authority's right.
    pub fn issue_leaf(
        &self,
        csr: &[u8],
        id: &SpiffeId,
        host: HostId,
        ttl: Duration,
        now_ms: u64,
    ) -> Result<Vec<CertificateDer<'static>>, AuthorityError> {
        self.in_force(now_ms)?;
        let seconds = ttl.as_secs();
        if !(LEAF_TTL_MIN..=LEAF_TTL_MAX).contains(&seconds) {
            return Err(AuthorityError::LeafTtl(seconds));
        }
        let not_after_ms = (now_ms + seconds * 1000).min(self.grant.not_after_ms);
        let leaf = x509::leaf(
            (&self.keys.x509, self.host),
            csr,
            id,
            host,
            (now_ms, not_after_ms),
        )?;
        Ok(vec![
            leaf,
            CertificateDer::from(self.grant.intermediate.clone()),
        ])
    }

    /// Signs a leaf under the mesh's rules: the asking host's `grant` is in force and covers `id`.
    pub fn issue(
        &self,
        csr: &[u8],
        id: &SpiffeId,
        grant: &HostGrant,
        now_ms: u64,
    ) -> Result<Vec<CertificateDer<'static>>, AuthorityError> {
        let host = grant.host().ok_or(AuthorityError::Mismatch)?;
        let own = grant.mesh_id == self.mesh.id.0;
        if !own || !in_force(grant.not_before_ms, grant.not_after_ms, now_ms) {
            return Err(AuthorityError::NoGrant(host));
        }
        if !may_present(&self.mesh.trust_domain, host, &grant.may_register, id) {
            return Err(AuthorityError::NotCovered {
                host,
                id: id.clone(),
            });
        }
        let ttl = Duration::from_secs(self.mesh.genesis.leaf_ttl_secs);
        self.issue_leaf(csr, id, host, ttl, now_ms)
    }

    /// Admits a host: keys, name and rights, for ten years or until it is revoked.
    pub fn admit(
        &self,
        request: &HostRequest,
        grant_seq: u64,
        now_ms: u64,
    ) -> Result<Signed, AuthorityError> {
        self.in_force(now_ms)?;
        let grant = HostGrant {
            mesh_id: self.mesh.id.0.to_vec(),
            host_id: crate::key::host_id(&request.ed25519).0.to_vec(),
            ed25519: request.ed25519.to_vec(),
            x25519: request.x25519.to_vec(),
            name: request.name.clone(),
            may_register: request.may_register.clone(),
            not_before_ms: now_ms
                .saturating_sub(BACKDATE_MS)
                .max(self.grant.not_before_ms),
            not_after_ms: now_ms + ROOT_LIFETIME_MS,
            grant_seq,
        };
        Ok(self.keys.ed25519.sign(domain::HOST, grant.encode_to_vec()))
    }

    /// Certifies an operator's key for `ttl`.
    pub fn certify_operator(
        &self,
        name: &str,
        key: [u8; 32],
        namespaces: &[String],
        ttl: Duration,
        now_ms: u64,
    ) -> Result<Signed, AuthorityError> {
        self.in_force(now_ms)?;
        let grant = OperatorGrant {
            mesh_id: self.mesh.id.0.to_vec(),
            name: name.to_owned(),
            key: key.to_vec(),
            namespaces: namespaces.to_vec(),
            not_before_ms: now_ms
                .saturating_sub(BACKDATE_MS)
                .max(self.grant.not_before_ms),
            not_after_ms: now_ms
                + u64::try_from(ttl.as_millis())
                    .unwrap_or(ROOT_LIFETIME_MS)
                    .min(ROOT_LIFETIME_MS),
        };
        Ok(self
            .keys
            .ed25519
            .sign(domain::OPERATOR, grant.encode_to_vec()))
    }

    fn in_force(&self, now_ms: u64) -> Result<(), AuthorityError> {
        if in_force(self.grant.not_before_ms, self.grant.not_after_ms, now_ms) {
            Ok(())
        } else {
            Err(AuthorityError::AuthorityExpired)
        }
    }
}

/// What a host says of itself when it is admitted, and what it is given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostRequest {
    /// Its signing key.
    pub ed25519: [u8; 32],
    /// Its datagram key.
    pub x25519: [u8; 32],
    /// Its name for people.
    pub name: String,
    /// Patterns of services that it may register.
    pub may_register: Vec<String>,
}

#[cfg(test)]
mod tests;
