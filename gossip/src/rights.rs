//! Who may what: the genesis, authorities, hosts and operators, each signed by the one above.
//!
//! In: signed grants from anywhere, in any order. Out: the rights in force.
//! The highest grant of a host counts, then the higher hash, so the order of arrival does not matter.

use std::{collections::BTreeMap, sync::Arc};

use mesh_model::{
    grant::{AuthorityGrant, Genesis, HostGrant, OperatorGrant, Signed, domain},
    name::{HostId, MeshId},
};
use prost::Message;

use crate::{signing::Verifier, wire::GrantItem};

/// A signed grant with its kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Grant {
    /// What the mesh is.
    Genesis(Signed),
    /// Over an [`AuthorityGrant`].
    Authority(Signed),
    /// Over a [`HostGrant`].
    Host(Signed),
    /// Over an [`OperatorGrant`].
    Operator(Signed),
}

/// Why a grant is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum GrantError {
    /// It does not decode, or an id or a key has the wrong length.
    #[error("the grant is malformed")]
    Malformed,
    /// It is of another mesh.
    #[error("the grant is of another mesh")]
    OtherMesh,
    /// The signature does not fit, or its key may not sign this.
    #[error("the grant is not signed by whoever may give it")]
    Signature,
    /// The authority that signed it is not known (yet).
    #[error("the authority that signed the grant is not known")]
    UnknownAuthority,
    /// More of its kind than is kept.
    #[error("there are too many grants of this kind")]
    Full,
}

/// Hash by which a grant is compared between hosts.
pub(crate) type GrantId = [u8; 16];

/// A grant that was checked.
#[derive(Debug, Clone)]
pub(crate) struct Held<T> {
    pub(crate) signed: Signed,
    pub(crate) grant: Arc<T>,
    pub(crate) id: GrantId,
    /// Host of the authority that signed it; for authorities their own.
    pub(crate) by: HostId,
}

/// What became of a grant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Taken {
    /// Nothing new, or an older one than ours.
    Known,
    /// A new mesh, authority or operator.
    New,
    /// A new or better grant of this host.
    Host(HostId),
}

/// All grants.
#[derive(Debug)]
pub struct Rights {
    mesh: MeshId,
    max_hosts: usize,
    genesis: Option<Held<Genesis>>,
    authorities: BTreeMap<(HostId, Vec<u8>), Held<AuthorityGrant>>,
    hosts: BTreeMap<HostId, Held<HostGrant>>,
    operators: BTreeMap<Vec<u8>, Held<OperatorGrant>>,
    by_id: BTreeMap<GrantId, Grant>,
}

/// Clocks of admitted hosts may differ by this much.
const SKEW_MS: u64 = 5 * 60 * 1000;
const MAX_AUTHORITIES: usize = 1024;
const MAX_OPERATORS: usize = 4096;

impl Grant {
    /// The number of the kind on the wire.
    pub fn kind(&self) -> u32 {
        match self {
            Self::Genesis(_) => 1,
            Self::Authority(_) => 2,
            Self::Host(_) => 3,
            Self::Operator(_) => 4,
        }
    }
    /// The signed part.
    pub fn signed(&self) -> &Signed {
        match self {
            Self::Genesis(signed)
            | Self::Authority(signed)
            | Self::Host(signed)
            | Self::Operator(signed) => signed,
        }
    }
    /// Encodes kind and grant, as in rows and frames.
    pub fn encode(&self) -> Vec<u8> {
        GrantItem {
            kind: self.kind(),
            signed: Some(self.signed().clone()),
        }
        .encode_to_vec()
    }
    /// Decodes kind and grant.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let item: GrantItem = crate::wire::decode(bytes).ok()?;
        let signed = item.signed?;
        match item.kind {
            1 => Some(Self::Genesis(signed)),
            2 => Some(Self::Authority(signed)),
            3 => Some(Self::Host(signed)),
            4 => Some(Self::Operator(signed)),
            _ => None,
        }
    }
    pub(crate) fn id(&self) -> GrantId {
        let signed = self.signed();
        let mut hasher = blake3::Hasher::new();
        hasher.update(&self.kind().to_le_bytes());
        hasher.update(
            &u64::try_from(signed.payload.len())
                .unwrap_or(0)
                .to_le_bytes(),
        );
        hasher.update(&signed.payload);
        hasher.update(&signed.signer);
        first16(&hasher.finalize())
    }
}

/// First 16 bytes of a hash.
pub(crate) fn first16(hash: &blake3::Hash) -> [u8; 16] {
    let mut out = [0; 16];
    out.iter_mut()
        .zip(hash.as_bytes())
        .for_each(|(to, from)| *to = *from);
    out
}

impl Rights {
    /// No rights yet of the mesh.
    pub fn new(mesh: MeshId, max_hosts: usize) -> Self {
        Self {
            mesh,
            max_hosts,
            genesis: None,
            authorities: BTreeMap::new(),
            hosts: BTreeMap::new(),
            operators: BTreeMap::new(),
            by_id: BTreeMap::new(),
        }
    }

    /// What the mesh is, once known.
    pub fn genesis(&self) -> Option<&Arc<Genesis>> {
        self.genesis.as_ref().map(|held| &held.grant)
    }
    /// A host's grant, valid or not.
    pub fn host(&self, host: HostId) -> Option<&Arc<HostGrant>> {
        self.hosts.get(&host).map(|held| &held.grant)
    }
    /// Every grant as it was signed, those first on which others rest.
    pub fn all(&self) -> Vec<Grant> {
        let mut all: Vec<Grant> = self.by_id.values().cloned().collect();
        all.sort_by_key(Grant::kind);
        all
    }

    pub(crate) fn ids(&self) -> impl Iterator<Item = &GrantId> {
        self.by_id.keys()
    }
    pub(crate) fn get(&self, id: &GrantId) -> Option<&Grant> {
        self.by_id.get(id)
    }
    pub(crate) fn hosts(&self) -> impl Iterator<Item = (HostId, &Held<HostGrant>)> {
        self.hosts.iter().map(|(host, held)| (*host, held))
    }
    pub(crate) fn held_host(&self, host: HostId) -> Option<&Held<HostGrant>> {
        self.hosts.get(&host)
    }
    pub(crate) fn operators(&self) -> impl Iterator<Item = &Held<OperatorGrant>> {
        self.operators.values()
    }
    /// The newest grant of each host that is an authority.
    pub(crate) fn authorities(&self) -> impl Iterator<Item = &Held<AuthorityGrant>> {
        let mut newest: BTreeMap<HostId, &Held<AuthorityGrant>> = BTreeMap::new();
        for held in self.authorities.values() {
            let best = newest.entry(held.by).or_insert(held);
            if (held.grant.grant_seq, held.id) > (best.grant.grant_seq, best.id) {
                *best = held;
            }
        }
        newest.into_values()
    }
    /// What a host needs to be believed: the genesis, authorities, and its own grant.
    pub(crate) fn chain(&self, host: HostId) -> Vec<Grant> {
        let genesis = self.genesis.iter().map(|held| held.id);
        let own = self.hosts.get(&host).into_iter().map(|held| held.id);
        let authorities = self.authorities.values().map(|held| held.id);
        genesis
            .chain(authorities)
            .chain(own)
            .filter_map(|id| self.by_id.get(&id).cloned())
            .collect()
    }

    /// True when the time is inside the grant, give or take the clocks.
    pub(crate) fn in_force(not_before_ms: u64, not_after_ms: u64, now_ms: u64) -> bool {
        now_ms.saturating_add(SKEW_MS) >= not_before_ms && now_ms <= not_after_ms
    }

    /// The host of the authority whose key signed a grant that begins at `not_before_ms`.
    pub(crate) fn authority_of(
        &self,
        signer: &[u8],
        not_before_ms: u64,
    ) -> Result<HostId, GrantError> {
        let mut of_key = self
            .authorities
            .values()
            .filter(|held| held.grant.key == signer)
            .peekable();
        if of_key.peek().is_none() {
            return Err(GrantError::UnknownAuthority);
        }
        of_key
            .find(|held| {
                let (from, to) = (held.grant.not_before_ms, held.grant.not_after_ms);
                not_before_ms.saturating_add(SKEW_MS) >= from && not_before_ms <= to
            })
            .map(|held| held.by)
            .ok_or(GrantError::Signature)
    }

    /// Checks a grant and keeps it when it is the best of its kind.
    pub(crate) fn accept(
        &mut self,
        grant: &Grant,
        verifier: &dyn Verifier,
    ) -> Result<Taken, GrantError> {
        if self.by_id.contains_key(&grant.id()) {
            return Ok(Taken::Known);
        }
        match grant {
            Grant::Genesis(signed) => self.accept_genesis(grant, signed, verifier),
            Grant::Authority(signed) => self.accept_authority(grant, signed, verifier),
            Grant::Host(signed) => self.accept_host(grant, signed, verifier),
            Grant::Operator(signed) => self.accept_operator(grant, signed, verifier),
        }
    }

    fn accept_genesis(
        &mut self,
        grant: &Grant,
        signed: &Signed,
        verifier: &dyn Verifier,
    ) -> Result<Taken, GrantError> {
        if first16(&blake3::hash(&signed.payload)) != self.mesh.0 {
            return Err(GrantError::OtherMesh);
        }
        let genesis = Genesis::decode(&*signed.payload).map_err(|_bad| GrantError::Malformed)?;
        if genesis.root_key != signed.signer || !verifier.verify(domain::GENESIS, signed) {
            return Err(GrantError::Signature);
        }
        if self.genesis.is_some() {
            return Ok(Taken::Known);
        }
        let id = grant.id();
        self.by_id.insert(id, grant.clone());
        let by = HostId([0; 16]);
        self.genesis = Some(Held {
            signed: signed.clone(),
            grant: Arc::new(genesis),
            id,
            by,
        });
        Ok(Taken::New)
    }

    fn accept_authority(
        &mut self,
        grant: &Grant,
        signed: &Signed,
        verifier: &dyn Verifier,
    ) -> Result<Taken, GrantError> {
        let given =
            AuthorityGrant::decode(&*signed.payload).map_err(|_bad| GrantError::Malformed)?;
        self.same_mesh(&given.mesh_id)?;
        let host = HostId::from_slice(&given.host_id).ok_or(GrantError::Malformed)?;
        let genesis = self.genesis().ok_or(GrantError::UnknownAuthority)?;
        if signed.signer != genesis.root_key || !verifier.verify(domain::AUTHORITY, signed) {
            return Err(GrantError::Signature);
        }
        let slot = (host, given.key.clone());
        let id = grant.id();
        let old = self.authorities.get(&slot);
        if old.is_some_and(|old| (old.grant.grant_seq, old.id) >= (given.grant_seq, id)) {
            return Ok(Taken::Known);
        }
        if old.is_none() && self.authorities.len() >= MAX_AUTHORITIES {
            return Err(GrantError::Full);
        }
        let held = Held {
            signed: signed.clone(),
            grant: Arc::new(given),
            id,
            by: host,
        };
        if let Some(old) = self.authorities.insert(slot, held) {
            self.by_id.remove(&old.id);
        }
        self.by_id.insert(id, grant.clone());
        Ok(Taken::New)
    }

    fn accept_host(
        &mut self,
        grant: &Grant,
        signed: &Signed,
        verifier: &dyn Verifier,
    ) -> Result<Taken, GrantError> {
        let given = HostGrant::decode(&*signed.payload).map_err(|_bad| GrantError::Malformed)?;
        self.same_mesh(&given.mesh_id)?;
        let host = given.host().ok_or(GrantError::Malformed)?;
        if first16(&blake3::hash(&given.ed25519)) != host.0 {
            return Err(GrantError::Malformed);
        }
        let by = self.authority_of(&signed.signer, given.not_before_ms)?;
        if !verifier.verify(domain::HOST, signed) {
            return Err(GrantError::Signature);
        }
        let id = grant.id();
        let old = self.hosts.get(&host);
        if old.is_some_and(|old| (old.grant.grant_seq, old.id) >= (given.grant_seq, id)) {
            return Ok(Taken::Known);
        }
        if old.is_none() && self.hosts.len() >= self.max_hosts {
            return Err(GrantError::Full);
        }
        let held = Held {
            signed: signed.clone(),
            grant: Arc::new(given),
            id,
            by,
        };
        if let Some(old) = self.hosts.insert(host, held) {
            self.by_id.remove(&old.id);
        }
        self.by_id.insert(id, grant.clone());
        Ok(Taken::Host(host))
    }

    fn accept_operator(
        &mut self,
        grant: &Grant,
        signed: &Signed,
        verifier: &dyn Verifier,
    ) -> Result<Taken, GrantError> {
        let (given, by) = self.check_operator(signed, verifier)?;
        let id = grant.id();
        let old = self.operators.get(&given.key);
        let rank = |held: &Held<OperatorGrant>| (held.grant.not_before_ms, held.id);
        if old.is_some_and(|old| rank(old) >= (given.not_before_ms, id)) {
            return Ok(Taken::Known);
        }
        if old.is_none() && self.operators.len() >= MAX_OPERATORS {
            return Err(GrantError::Full);
        }
        let slot = given.key.clone();
        let held = Held {
            signed: signed.clone(),
            grant: Arc::new(given),
            id,
            by,
        };
        if let Some(old) = self.operators.insert(slot, held) {
            self.by_id.remove(&old.id);
        }
        self.by_id.insert(id, grant.clone());
        Ok(Taken::New)
    }

    /// Checks an operator's grant; the grant and the host of the authority that gave it.
    pub(crate) fn check_operator(
        &self,
        signed: &Signed,
        verifier: &dyn Verifier,
    ) -> Result<(OperatorGrant, HostId), GrantError> {
        let given =
            OperatorGrant::decode(&*signed.payload).map_err(|_bad| GrantError::Malformed)?;
        self.same_mesh(&given.mesh_id)?;
        if given.key.len() != 32 {
            return Err(GrantError::Malformed);
        }
        let by = self.authority_of(&signed.signer, given.not_before_ms)?;
        if !verifier.verify(domain::OPERATOR, signed) {
            return Err(GrantError::Signature);
        }
        Ok((given, by))
    }

    fn same_mesh(&self, mesh: &[u8]) -> Result<(), GrantError> {
        if mesh == self.mesh.0 {
            Ok(())
        } else {
            Err(GrantError::OtherMesh)
        }
    }
}
