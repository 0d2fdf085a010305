//! Fake keys that only the oracle can verify, and the grants of a small mesh made with them.

use std::{collections::BTreeMap, sync::Arc};

use mesh_model::{
    grant::{AuthorityGrant, Genesis, HostGrant, OperatorGrant, Signed, domain},
    name::{HostId, MeshId},
};
use prost::Message;
use rand::{Rng, RngExt};

use crate::{Grant, Signer, Verifier, rights::first16};

/// A key pair; whoever lacks `secret` cannot sign.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Key {
    secret: [u8; 32],
    /// The public part.
    pub public: [u8; 32],
}

impl Key {
    fn new(rng: &mut impl Rng) -> Self {
        let secret: [u8; 32] = rng.random();
        Self {
            secret,
            public: *blake3::hash(&secret).as_bytes(),
        }
    }
    /// Signs like the real thing.
    pub fn sign(&self, domain: &[u8], payload: Vec<u8>) -> Signed {
        let signature = signature(&self.secret, domain, &payload);
        Signed {
            payload,
            signature,
            signer: self.public.to_vec(),
        }
    }
}

fn signature(secret: &[u8; 32], domain: &[u8], payload: &[u8]) -> Vec<u8> {
    let mut hasher = blake3::Hasher::new_keyed(secret);
    hasher.update(domain);
    hasher.update(payload);
    hasher.finalize().as_bytes().to_vec()
}

impl Signer for Key {
    fn sign(&self, domain: &[u8], payload: Vec<u8>) -> Signed {
        Self::sign(self, domain, payload)
    }
}

/// Knows every secret, and tells only whether a signature is right.
#[derive(Debug, Clone)]
struct Oracle(Arc<BTreeMap<Vec<u8>, [u8; 32]>>);

impl Verifier for Oracle {
    fn verify(&self, domain: &[u8], signed: &Signed) -> bool {
        let secret = self.0.get(&signed.signer);
        secret.is_some_and(|secret| signature(secret, domain, &signed.payload) == signed.signature)
    }
}

/// All keys of a mesh.
#[derive(Debug)]
pub struct Keys {
    /// The mesh.
    pub mesh: MeshId,
    root: Key,
    genesis: Signed,
    /// Signing key of the authority on machine 0.
    pub authority: Key,
    hosts: Vec<Key>,
    /// Two operators: the first may write everything, the second the namespace `shop`.
    pub operators: [Key; 2],
    oracle: Oracle,
}

/// Grants begin an hour before the world does and last a year.
pub(crate) const BEGIN_MS: u64 = super::EPOCH_MS - 3_600_000;
const END_MS: u64 = super::EPOCH_MS + 365 * 24 * 3_600_000;

impl Keys {
    pub(crate) fn new(rng: &mut impl Rng, hosts: usize) -> Self {
        let root = Key::new(rng);
        let genesis = Genesis {
            mesh_name: "sim".to_owned(),
            trust_domain: "sim.test".to_owned(),
            domain: "mesh.internal".to_owned(),
            root_key: root.public.to_vec(),
            created_ms: BEGIN_MS,
            ..Genesis::default()
        };
        let genesis = root.sign(domain::GENESIS, genesis.encode_to_vec());
        let authority = Key::new(rng);
        let hosts: Vec<Key> = (0..hosts).map(|_| Key::new(rng)).collect();
        let operators = [Key::new(rng), Key::new(rng)];
        let all = [root, authority]
            .into_iter()
            .chain(hosts.iter().copied())
            .chain(operators);
        Self {
            mesh: MeshId(first16(&blake3::hash(&genesis.payload))),
            oracle: Oracle(Arc::new(
                all.map(|key| (key.public.to_vec(), key.secret)).collect(),
            )),
            root,
            genesis,
            authority,
            hosts,
            operators,
        }
    }

    /// The id of a machine.
    pub fn host_id(&self, index: usize) -> HostId {
        HostId(first16(&blake3::hash(&self.hosts[index].public)))
    }
    /// The key of a machine.
    pub fn host(&self, index: usize) -> Key {
        self.hosts[index]
    }
    pub(crate) fn signer(&self, index: usize) -> Box<dyn Signer> {
        Box::new(self.hosts[index])
    }
    pub(crate) fn verifier(&self) -> Box<dyn Verifier> {
        Box::new(self.oracle.clone())
    }
    /// The verifier as a value, for tests of single parts.
    pub fn oracle(&self) -> Box<dyn Verifier> {
        self.verifier()
    }

    /// What a machine has from its join: the genesis, the authority, its own grant.
    pub fn bootstrap(&self, index: usize) -> Vec<Grant> {
        vec![
            Grant::Genesis(self.genesis.clone()),
            self.authority_grant(0, &self.authority, 1),
            self.host_grant(index, &["*"], 1),
        ]
    }
    /// An authority on a machine, signed by the root.
    pub fn authority_grant(&self, index: usize, key: &Key, grant_seq: u64) -> Grant {
        let grant = AuthorityGrant {
            mesh_id: self.mesh.0.to_vec(),
            host_id: self.host_id(index).0.to_vec(),
            key: key.public.to_vec(),
            not_before_ms: BEGIN_MS,
            not_after_ms: END_MS,
            grant_seq,
            ..AuthorityGrant::default()
        };
        Grant::Authority(self.root.sign(domain::AUTHORITY, grant.encode_to_vec()))
    }
    /// The grant of a machine.
    pub fn host_grant(&self, index: usize, services: &[&str], grant_seq: u64) -> Grant {
        self.host_grant_until(index, services, grant_seq, END_MS)
    }
    /// The grant of a machine, with its end.
    pub fn host_grant_until(
        &self,
        index: usize,
        services: &[&str],
        grant_seq: u64,
        end_ms: u64,
    ) -> Grant {
        let grant = HostGrant {
            mesh_id: self.mesh.0.to_vec(),
            host_id: self.host_id(index).0.to_vec(),
            ed25519: self.hosts[index].public.to_vec(),
            x25519: vec![0; 32],
            name: format!("m{index}"),
            may_register: services
                .iter()
                .map(|service| (*service).to_owned())
                .collect(),
            not_before_ms: BEGIN_MS,
            not_after_ms: end_ms,
            grant_seq,
        };
        Grant::Host(self.authority.sign(domain::HOST, grant.encode_to_vec()))
    }
    /// The grant of an operator, signed by `signer`.
    pub fn operator_grant_by(&self, operator: usize, signer: &Key) -> Signed {
        let namespaces = if operator == 0 { "*" } else { "shop" };
        let grant = OperatorGrant {
            mesh_id: self.mesh.0.to_vec(),
            name: format!("op{operator}"),
            key: self.operators[operator].public.to_vec(),
            namespaces: vec![namespaces.to_owned()],
            not_before_ms: BEGIN_MS,
            not_after_ms: END_MS,
        };
        signer.sign(domain::OPERATOR, grant.encode_to_vec())
    }
    /// The grant of an operator.
    pub fn operator_grant(&self, operator: usize) -> Signed {
        self.operator_grant_by(operator, &self.authority)
    }
}
