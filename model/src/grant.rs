//! Signed rights: what the mesh is, who may issue, which host may present what, who may commit.
//!
//! Everything here is signed with Ed25519 and relayed byte for byte: a receiver verifies `payload` as it
//! came and never re-encodes it, so fields that it does not know survive. The chain is short: the
//! genesis names the root key; the root signs authorities; an authority signs hosts and operators.

use prost::Message;

use crate::name::HostId;

/// A payload with its signature; the payload's type is known from where it stands.
#[derive(Clone, PartialEq, Eq, Hash, Message)]
pub struct Signed {
    /// The encoded message, kept and relayed verbatim.
    #[prost(bytes = "vec", tag = "1")]
    pub payload: Vec<u8>,
    /// Ed25519 signature over `domain ‖ payload`; the domain is the message's `DOMAIN`.
    #[prost(bytes = "vec", tag = "2")]
    pub signature: Vec<u8>,
    /// Ed25519 public key of the signer, 32 bytes.
    #[prost(bytes = "vec", tag = "3")]
    pub signer: Vec<u8>,
}

/// What a mesh is: made once by `meshctl init`, never changed. The mesh id is its hash.
#[derive(Clone, PartialEq, Eq, Hash, Message)]
pub struct Genesis {
    /// Name for people.
    #[prost(string, tag = "1")]
    pub mesh_name: String,
    /// Trust domain of every identity of this mesh.
    #[prost(string, tag = "2")]
    pub trust_domain: String,
    /// DNS domain of service names, `mesh.internal` unless chosen.
    #[prost(string, tag = "3")]
    pub domain: String,
    /// X.509 root certificate (DER).
    #[prost(bytes = "vec", tag = "4")]
    pub x509_root: Vec<u8>,
    /// Ed25519 public key of the root, 32 bytes: signs authorities.
    #[prost(bytes = "vec", tag = "5")]
    pub root_key: Vec<u8>,
    /// Milliseconds since the epoch.
    #[prost(uint64, tag = "6")]
    pub created_ms: u64,
    /// True when plaintext is refused and calls are denied unless a policy allows them.
    #[prost(bool, tag = "7")]
    pub strict: bool,
    /// 16 random bytes, so that two meshes of one name differ.
    #[prost(bytes = "vec", tag = "8")]
    pub nonce: Vec<u8>,
    /// Lifetime of workload certificates in seconds; at least 60.
    #[prost(uint64, tag = "9")]
    pub leaf_ttl_secs: u64,
}

/// The right to issue certificates and grants. Signed by the root.
#[derive(Clone, PartialEq, Eq, Hash, Message)]
pub struct AuthorityGrant {
    /// The mesh, 16 bytes.
    #[prost(bytes = "vec", tag = "1")]
    pub mesh_id: Vec<u8>,
    /// The host that holds the keys, 16 bytes.
    #[prost(bytes = "vec", tag = "2")]
    pub host_id: Vec<u8>,
    /// Ed25519 public key that signs grants, 32 bytes.
    #[prost(bytes = "vec", tag = "3")]
    pub key: Vec<u8>,
    /// X.509 intermediate certificate (DER), signed by the root.
    #[prost(bytes = "vec", tag = "4")]
    pub intermediate: Vec<u8>,
    /// Milliseconds since the epoch.
    #[prost(uint64, tag = "5")]
    pub not_before_ms: u64,
    /// Milliseconds since the epoch.
    #[prost(uint64, tag = "6")]
    pub not_after_ms: u64,
    /// Orders grants of one host; the highest valid one counts.
    #[prost(uint64, tag = "7")]
    pub grant_seq: u64,
}

/// A host's admission and its rights. Signed by an authority.
#[derive(Clone, PartialEq, Eq, Hash, Message)]
pub struct HostGrant {
    /// The mesh, 16 bytes.
    #[prost(bytes = "vec", tag = "1")]
    pub mesh_id: Vec<u8>,
    /// BLAKE3 of `ed25519`, first 16 bytes.
    #[prost(bytes = "vec", tag = "2")]
    pub host_id: Vec<u8>,
    /// Ed25519 public key that signs the host's head, 32 bytes.
    #[prost(bytes = "vec", tag = "3")]
    pub ed25519: Vec<u8>,
    /// X25519 public key of the datagram box, 32 bytes.
    #[prost(bytes = "vec", tag = "4")]
    pub x25519: Vec<u8>,
    /// Host name for people; not an identity.
    #[prost(string, tag = "5")]
    pub name: String,
    /// Services that it may register and present: `namespace/name`, `namespace/*` or `*`.
    #[prost(string, repeated, tag = "6")]
    pub may_register: Vec<String>,
    /// Milliseconds since the epoch.
    #[prost(uint64, tag = "7")]
    pub not_before_ms: u64,
    /// Milliseconds since the epoch.
    #[prost(uint64, tag = "8")]
    pub not_after_ms: u64,
    /// Orders grants of one host; the highest valid one counts.
    #[prost(uint64, tag = "9")]
    pub grant_seq: u64,
}

/// The right to commit. Signed by an authority; the key stays with the person.
#[derive(Clone, PartialEq, Eq, Hash, Message)]
pub struct OperatorGrant {
    /// The mesh, 16 bytes.
    #[prost(bytes = "vec", tag = "1")]
    pub mesh_id: Vec<u8>,
    /// Name for people, unique among living operators.
    #[prost(string, tag = "2")]
    pub name: String,
    /// Ed25519 public key that signs commits, 32 bytes.
    #[prost(bytes = "vec", tag = "3")]
    pub key: Vec<u8>,
    /// Namespaces it may write, or `*`; `*` is also needed for resources of the mesh.
    #[prost(string, repeated, tag = "4")]
    pub namespaces: Vec<String>,
    /// Milliseconds since the epoch.
    #[prost(uint64, tag = "5")]
    pub not_before_ms: u64,
    /// Milliseconds since the epoch.
    #[prost(uint64, tag = "6")]
    pub not_after_ms: u64,
}

/// Signature domains, so that a signature for one kind of payload never fits another.
pub mod domain {
    /// For [`super::Genesis`].
    pub const GENESIS: &[u8] = b"meshd/1 genesis\0";
    /// For [`super::AuthorityGrant`].
    pub const AUTHORITY: &[u8] = b"meshd/1 authority\0";
    /// For [`super::HostGrant`].
    pub const HOST: &[u8] = b"meshd/1 host\0";
    /// For [`super::OperatorGrant`].
    pub const OPERATOR: &[u8] = b"meshd/1 operator\0";
    /// For [`crate::fact::HostHead`].
    pub const HEAD: &[u8] = b"meshd/1 head\0";
    /// For [`crate::commit::Commit`].
    pub const COMMIT: &[u8] = b"meshd/1 commit\0";
}

impl HostGrant {
    /// The host, when the id is well formed.
    pub fn host(&self) -> Option<HostId> {
        HostId::from_slice(&self.host_id)
    }
}

/// True when one of `patterns` covers `namespace/name`.
pub fn covers(patterns: &[String], namespace: &str, name: &str) -> bool {
    patterns
        .iter()
        .any(|pattern| match pattern.split_once('/') {
            None => pattern == "*" || (namespace == "default" && pattern == name),
            Some((ns, wanted)) => {
                (ns == "*" || ns == namespace) && (wanted == "*" || wanted == name)
            }
        })
}

#[cfg(test)]
mod tests {
    use super::covers;

    #[test]
    fn patterns() {
        let yes = |p: &str, ns, n| assert!(covers(&[p.to_owned()], ns, n), "{p} {ns}/{n}");
        let no = |p: &str, ns, n| assert!(!covers(&[p.to_owned()], ns, n), "{p} {ns}/{n}");
        yes("*", "a", "b");
        yes("a/*", "a", "b");
        yes("a/b", "a", "b");
        yes("web", "default", "web");
        no("a/*", "b", "b");
        no("web", "other", "web");
        no("a/b", "a", "c");
        assert!(!covers(&[], "a", "b"));
    }
}
