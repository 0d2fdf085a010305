//! Checks of the signed rights: genesis, then authorities under its root, then hosts and operators under those.
//!
//! In: signed bytes as they came. Out: the decoded right, or why it is none. Whether a right is in force at
//! a given time is asked apart (`in_force`), because history outlives rights.

use mesh_model::{
    grant::{AuthorityGrant, Genesis, HostGrant, OperatorGrant, Signed, covers, domain},
    name::{HostId, MeshId, Namespace},
    principal::{SpiffeId, TrustDomain},
};
use prost::Message;

use crate::key::{host_id, mesh_id, verify_signed};

/// Least lifetime of a leaf, seconds.
pub const LEAF_TTL_MIN: u64 = 60;
/// Greatest lifetime of a leaf, seconds.
pub const LEAF_TTL_MAX: u64 = 90 * 86_400;

/// Why signed bytes are no right of this mesh.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum GrantError {
    /// The signature does not fit.
    #[error("the signature of the {0} is wrong")]
    Signature(&'static str),
    /// Signed by somebody without the right to.
    #[error("the {0} is signed by a key that has no right to")]
    Signer(&'static str),
    /// Not decodable, or a field has an impossible value.
    #[error("the {what} is malformed: {field}")]
    Form {
        /// Which right.
        what: &'static str,
        /// Which field.
        field: &'static str,
    },
    /// Of another mesh.
    #[error("the {what} is of mesh {found}, not of {expected}")]
    OtherMesh {
        /// Which right.
        what: &'static str,
        /// Its mesh.
        found: MeshId,
        /// The own mesh.
        expected: MeshId,
    },
}

/// A mesh, as its checked genesis says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mesh {
    /// The id: the hash of the genesis.
    pub id: MeshId,
    /// Trust domain of its identities.
    pub trust_domain: TrustDomain,
    /// What it says.
    pub genesis: Genesis,
    /// As it was signed.
    pub signed: Signed,
}

impl Mesh {
    /// Checks a genesis: signed by the root key that it names, every field possible.
    pub fn open(signed: &Signed) -> Result<Self, GrantError> {
        const WHAT: &str = "genesis";
        let genesis: Genesis = open(WHAT, domain::GENESIS, signed)?;
        let form = |field| GrantError::Form { what: WHAT, field };
        if genesis.root_key != signed.signer {
            return Err(GrantError::Signer(WHAT));
        }
        if genesis.nonce.len() != 16 {
            return Err(form("nonce"));
        }
        if !(LEAF_TTL_MIN..=LEAF_TTL_MAX).contains(&genesis.leaf_ttl_secs) {
            return Err(form("leaf_ttl_secs"));
        }
        let trust_domain =
            TrustDomain::new(&genesis.trust_domain).map_err(|_form| form("trust_domain"))?;
        Ok(Self {
            id: mesh_id(&signed.payload),
            trust_domain,
            genesis,
            signed: signed.clone(),
        })
    }
    /// Checks an authority's right: signed by the root, of this mesh.
    pub fn authority(&self, signed: &Signed) -> Result<AuthorityGrant, GrantError> {
        const WHAT: &str = "authority grant";
        let grant: AuthorityGrant = open(WHAT, domain::AUTHORITY, signed)?;
        if signed.signer != self.genesis.root_key {
            return Err(GrantError::Signer(WHAT));
        }
        self.own(WHAT, &grant.mesh_id)?;
        if HostId::from_slice(&grant.host_id).is_none() {
            return Err(GrantError::Form {
                what: WHAT,
                field: "host_id",
            });
        }
        if grant.key.len() != 32 {
            return Err(GrantError::Form {
                what: WHAT,
                field: "key",
            });
        }
        Ok(grant)
    }
    /// Checks a host's right: signed by one of `authorities` while that was in force, of this mesh.
    pub fn host(
        &self,
        signed: &Signed,
        authorities: &[AuthorityGrant],
    ) -> Result<HostGrant, GrantError> {
        const WHAT: &str = "host grant";
        let grant: HostGrant = open(WHAT, domain::HOST, signed)?;
        signed_by_authority(WHAT, signed, grant.not_before_ms, authorities)?;
        self.own(WHAT, &grant.mesh_id)?;
        let key: [u8; 32] =
            grant
                .ed25519
                .as_slice()
                .try_into()
                .map_err(|_length| GrantError::Form {
                    what: WHAT,
                    field: "ed25519",
                })?;
        if grant.host() != Some(host_id(&key)) {
            return Err(GrantError::Form {
                what: WHAT,
                field: "host_id",
            });
        }
        if grant.x25519.len() != 32 {
            return Err(GrantError::Form {
                what: WHAT,
                field: "x25519",
            });
        }
        Ok(grant)
    }
    /// Checks an operator's right: signed by one of `authorities` while that was in force, of this mesh.
    pub fn operator(
        &self,
        signed: &Signed,
        authorities: &[AuthorityGrant],
    ) -> Result<OperatorGrant, GrantError> {
        const WHAT: &str = "operator grant";
        let grant: OperatorGrant = open(WHAT, domain::OPERATOR, signed)?;
        signed_by_authority(WHAT, signed, grant.not_before_ms, authorities)?;
        self.own(WHAT, &grant.mesh_id)?;
        if grant.key.len() != 32 {
            return Err(GrantError::Form {
                what: WHAT,
                field: "key",
            });
        }
        Ok(grant)
    }
    fn own(&self, what: &'static str, mesh: &[u8]) -> Result<(), GrantError> {
        let found = MeshId::from_slice(mesh).ok_or(GrantError::Form {
            what,
            field: "mesh_id",
        })?;
        if found == self.id {
            Ok(())
        } else {
            Err(GrantError::OtherMesh {
                what,
                found,
                expected: self.id,
            })
        }
    }
}

/// Verifies and decodes; the payload is never re-encoded.
fn open<M: Message + Default>(
    what: &'static str,
    domain: &[u8],
    signed: &Signed,
) -> Result<M, GrantError> {
    if !verify_signed(domain, signed) {
        return Err(GrantError::Signature(what));
    }
    M::decode(signed.payload.as_slice()).map_err(|_decode| GrantError::Form {
        what,
        field: "encoding",
    })
}

fn signed_by_authority(
    what: &'static str,
    signed: &Signed,
    made_ms: u64,
    authorities: &[AuthorityGrant],
) -> Result<(), GrantError> {
    let fits = |authority: &AuthorityGrant| {
        authority.key == signed.signer
            && in_force(authority.not_before_ms, authority.not_after_ms, made_ms)
    };
    if authorities.iter().any(fits) {
        Ok(())
    } else {
        Err(GrantError::Signer(what))
    }
}

/// True when `now_ms` is in the half-open time from `not_before_ms` to `not_after_ms`.
pub fn in_force(not_before_ms: u64, not_after_ms: u64, now_ms: u64) -> bool {
    (not_before_ms..not_after_ms).contains(&now_ms)
}

/// True when `host`, with the patterns of its grant, may present `id` in the trust domain `own`.
///
/// Ids of hosts belong to their host alone: no pattern, not even `*`, covers another host's.
pub fn may_present(
    own: &TrustDomain,
    host: HostId,
    may_register: &[String],
    id: &SpiffeId,
) -> bool {
    if id.trust_domain != *own {
        return false;
    }
    if id.namespace == Namespace::system() {
        return id.as_host() == Some(host);
    }
    covers(
        may_register,
        id.namespace.as_str(),
        id.service_account.as_str(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_may_present_what() {
        let own = TrustDomain::new("m.internal").unwrap();
        let (host, other) = (HostId([1; 16]), HostId([2; 16]));
        let id = |text: &str| text.parse::<SpiffeId>().unwrap();
        let all = ["*".to_owned()];
        let some = ["shop/*".to_owned()];
        assert!(may_present(
            &own,
            host,
            &all,
            &id("spiffe://m.internal/ns/default/sa/words")
        ));
        assert!(may_present(
            &own,
            host,
            &some,
            &id("spiffe://m.internal/ns/shop/sa/web")
        ));
        assert!(!may_present(
            &own,
            host,
            &some,
            &id("spiffe://m.internal/ns/default/sa/web")
        ));
        assert!(!may_present(
            &own,
            host,
            &all,
            &id("spiffe://n.internal/ns/default/sa/words")
        ));
        assert!(may_present(
            &own,
            host,
            &[],
            &SpiffeId::host(own.clone(), host)
        ));
        assert!(!may_present(
            &own,
            host,
            &all,
            &SpiffeId::host(own.clone(), other)
        ));
        assert!(!may_present(
            &own,
            host,
            &all,
            &id("spiffe://m.internal/ns/meshd-system/sa/x")
        ));
    }

    #[test]
    fn time_is_half_open() {
        assert!(in_force(10, 20, 10));
        assert!(in_force(10, 20, 19));
        assert!(!in_force(10, 20, 20));
        assert!(!in_force(10, 20, 9));
    }
}
