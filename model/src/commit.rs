//! One signed edit of resources, with the revisions that it is based on.
//!
//! A commit is made and signed by an operator's key, never by a host's. Its id is the BLAKE3 hash of the
//! signed payload; the revision of a resource is the id of the commit that last changed it.

use std::{fmt, str::FromStr};

use prost::Message;

use crate::name::NameError;

/// The hash of a commit's payload; also the revision of every resource that it changed.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CommitId(pub [u8; 32]);

impl CommitId {
    /// From exactly 32 bytes.
    pub fn from_slice(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }
    /// The first twelve hexadecimal digits: what people see and may type.
    pub fn short(&self) -> String {
        self.to_string().chars().take(12).collect()
    }
}

impl fmt::Display for CommitId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|b| write!(f, "{b:02x}"))
    }
}
impl fmt::Debug for CommitId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.short())
    }
}
impl FromStr for CommitId {
    type Err = NameError;
    fn from_str(text: &str) -> Result<Self, NameError> {
        let bad = || NameError::Id(text.chars().take(80).collect());
        if text.len() != 64 || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(bad());
        }
        let mut out = [0u8; 32];
        for (slot, pair) in out.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
            let digits = std::str::from_utf8(pair).map_err(|_invalid| bad())?;
            *slot = u8::from_str_radix(digits, 16).map_err(|_invalid| bad())?;
        }
        Ok(Self(out))
    }
}
impl serde::Serialize for CommitId {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}
impl<'de> serde::Deserialize<'de> for CommitId {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'_, str>>::deserialize(d)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// What a change does to its resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum Op {
    /// Not set; refused.
    Unspecified = 0,
    /// Create or replace with `document`.
    Put = 1,
    /// Remove.
    Delete = 2,
    /// Keep a tentative change: `bases` names the commit that is confirmed.
    Confirm = 3,
}

/// A change of one resource.
#[derive(Clone, PartialEq, Eq, Hash, Message)]
pub struct Change {
    /// The kind, such as `HTTPRoute`.
    #[prost(string, tag = "1")]
    pub kind: String,
    /// The namespace; empty for resources of the mesh.
    #[prost(string, tag = "2")]
    pub namespace: String,
    /// The name.
    #[prost(string, tag = "3")]
    pub name: String,
    /// Revisions that this change is based on (32 bytes each): none to create, one to edit, several to merge.
    #[prost(bytes = "vec", repeated, tag = "4")]
    pub bases: Vec<Vec<u8>>,
    /// What it does.
    #[prost(enumeration = "Op", tag = "5")]
    pub op: i32,
    /// The whole document as JSON, for `Put`.
    #[prost(bytes = "vec", tag = "6")]
    pub document: Vec<u8>,
}

/// An edit of one or more resources: all of it or nothing.
#[derive(Clone, PartialEq, Eq, Hash, Message)]
pub struct Commit {
    /// The mesh, 16 bytes.
    #[prost(bytes = "vec", tag = "1")]
    pub mesh_id: Vec<u8>,
    /// What changes.
    #[prost(message, repeated, tag = "2")]
    pub changes: Vec<Change>,
    /// The author's right: an encoded [`crate::grant::Signed`] over an [`crate::grant::OperatorGrant`].
    #[prost(bytes = "vec", tag = "3")]
    pub author_grant: Vec<u8>,
    /// Why, for history; free text of at most 1 KiB.
    #[prost(string, tag = "4")]
    pub reason: String,
    /// Hybrid logical clock of the author: milliseconds since the epoch × 2^16 + counter; above every base's.
    #[prost(uint64, tag = "5")]
    pub hlc: u64,
    /// 16 random bytes made by the client: the same edit sent twice is one edit.
    #[prost(bytes = "vec", tag = "6")]
    pub edit_id: Vec<u8>,
    /// Lowest feature level that understands the change.
    #[prost(uint32, tag = "7")]
    pub feature_level: u32,
    /// When not 0: the change undoes itself at this time (milliseconds since the epoch) unless confirmed before.
    #[prost(uint64, tag = "8")]
    pub confirm_by_ms: u64,
}

impl Commit {
    /// The author's clock in milliseconds since the epoch.
    pub fn time_ms(&self) -> u64 {
        self.hlc >> 16
    }
}
