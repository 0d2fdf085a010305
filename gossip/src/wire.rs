//! Bytes ↔ messages between hosts: bounded, versioned; signed objects travel verbatim.
//!
//! Kinds that are not known are skipped, so that a newer host may say more. Every list is counted before
//! it is decoded, so that a short frame cannot ask for much memory.

use bytes::{Buf, Bytes};
use mesh_model::{fact::Record, grant::Signed};
use prost::{
    Message,
    encoding::{DecodeContext, decode_key, skip_field},
};

/// Longest frame that is taken.
pub(crate) const MAX_FRAME: usize = 4 * 1024 * 1024;
/// Most fields of one message.
const MAX_FIELDS: usize = 16_384;
/// The version written.
const VERSION: u32 = 1;

/// Why a frame is not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// Longer than a frame may be.
    #[error("frame of {0} bytes is too long")]
    Long(usize),
    /// More entries than a message may have.
    #[error("message has too many entries")]
    Many,
    /// No message of the kind that it says it is.
    #[error("message does not decode")]
    Decode(#[from] prost::DecodeError),
}

#[derive(Clone, PartialEq, Message)]
struct Envelope {
    #[prost(uint32, tag = "1")]
    version: u32,
    #[prost(uint32, tag = "2")]
    kind: u32,
    #[prost(bytes = "bytes", tag = "3")]
    body: Bytes,
}

/// What a set is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum SetKind {
    /// Not set; skipped.
    Unspecified = 0,
    /// Genesis and grants; item: hash 16.
    Grants = 1,
    /// Commits; item: id 32.
    Commits = 2,
    /// Heads; item: host 16, incarnation 4, seq 8, hash 8.
    Hosts = 3,
}

/// The fingerprint of one set.
#[derive(Clone, PartialEq, Message)]
pub struct SetState {
    /// Which set.
    #[prost(enumeration = "SetKind", tag = "1")]
    pub kind: i32,
    /// Number of items.
    #[prost(uint64, tag = "2")]
    pub count: u64,
    /// Fingerprint, 16 bytes.
    #[prost(bytes = "vec", tag = "3")]
    pub sum: Vec<u8>,
}

/// "This is what I have, compactly."
#[derive(Clone, PartialEq, Message)]
pub struct Summary {
    /// One for each set.
    #[prost(message, repeated, tag = "1")]
    pub sets: Vec<SetState>,
}

/// The 256 fingerprints of a large set, by the first byte of the items.
#[derive(Clone, PartialEq, Message)]
pub struct Buckets {
    /// Which set.
    #[prost(enumeration = "SetKind", tag = "1")]
    pub kind: i32,
    /// 256 × 16 bytes.
    #[prost(bytes = "vec", tag = "2")]
    pub sums: Vec<u8>,
}

/// "In these buckets I have exactly these."
#[derive(Clone, PartialEq, Message)]
pub struct Have {
    /// Which set.
    #[prost(enumeration = "SetKind", tag = "1")]
    pub kind: i32,
    /// Bit map of 256 buckets; empty: all.
    #[prost(bytes = "vec", tag = "2")]
    pub covered: Vec<u8>,
    /// The items, one behind the other.
    #[prost(bytes = "vec", tag = "3")]
    pub items: Vec<u8>,
}

/// "Send me these."
#[derive(Clone, PartialEq, Message)]
pub struct Want {
    /// Which set.
    #[prost(enumeration = "SetKind", tag = "1")]
    pub kind: i32,
    /// The keys, one behind the other: 16 bytes for grants and hosts, 32 for commits.
    #[prost(bytes = "vec", tag = "2")]
    pub keys: Vec<u8>,
}

/// A signed grant with its kind.
#[derive(Clone, PartialEq, Eq, Message)]
pub(crate) struct GrantItem {
    /// The kind as [`crate::Grant`] numbers it.
    #[prost(uint32, tag = "1")]
    pub kind: u32,
    /// The grant.
    #[prost(message, optional, tag = "2")]
    pub signed: Option<Signed>,
}

/// A host's head with all of its records, or with what changed since an earlier head.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct HostUpdate {
    /// The head.
    #[prost(message, optional, tag = "1")]
    pub head: Option<Signed>,
    /// True: `upserts` are all records.
    #[prost(bool, tag = "2")]
    pub full: bool,
    /// Otherwise: incarnation of the head that this is based on.
    #[prost(uint32, tag = "3")]
    pub base_incarnation: u32,
    /// Otherwise: its sequence.
    #[prost(uint64, tag = "4")]
    pub base_seq: u64,
    /// Records that are new or changed.
    #[prost(message, repeated, tag = "5")]
    pub upserts: Vec<Record>,
    /// Keys of records that are gone.
    #[prost(string, repeated, tag = "6")]
    pub deletes: Vec<String>,
}

/// "You lack these." The entries stay encoded until each is looked at.
#[derive(Clone, PartialEq, Message)]
pub struct Delta {
    /// Encoded [`GrantItem`]s.
    #[prost(bytes = "vec", repeated, tag = "1")]
    pub grants: Vec<Vec<u8>>,
    /// Encoded [`Signed`] commits.
    #[prost(bytes = "vec", repeated, tag = "2")]
    pub commits: Vec<Vec<u8>>,
    /// Encoded [`HostUpdate`]s.
    #[prost(bytes = "vec", repeated, tag = "3")]
    pub hosts: Vec<Vec<u8>>,
}

/// A frame between two hosts.
#[derive(Debug, Clone, PartialEq)]
pub enum Frame {
    /// A membership packet, as in a datagram.
    Swim(Bytes),
    /// Fingerprints.
    Summary(Summary),
    /// Fingerprints of buckets.
    Buckets(Buckets),
    /// A listing.
    Have(Have),
    /// A wish.
    Want(Want),
    /// Content.
    Delta(Delta),
    /// Of a newer version; skipped.
    Unknown(u32),
}

impl Frame {
    /// Encodes the frame.
    pub fn encode(&self) -> Bytes {
        let (kind, body) = match self {
            Self::Swim(bytes) => (1, bytes.clone()),
            Self::Summary(message) => (2, message.encode_to_vec().into()),
            Self::Buckets(message) => (3, message.encode_to_vec().into()),
            Self::Have(message) => (4, message.encode_to_vec().into()),
            Self::Want(message) => (5, message.encode_to_vec().into()),
            Self::Delta(message) => (6, message.encode_to_vec().into()),
            Self::Unknown(kind) => (*kind, Bytes::new()),
        };
        Envelope {
            version: VERSION,
            kind,
            body,
        }
        .encode_to_vec()
        .into()
    }

    /// Decodes a frame.
    pub fn decode(bytes: Bytes) -> Result<Self, WireError> {
        if bytes.len() > MAX_FRAME {
            return Err(WireError::Long(bytes.len()));
        }
        bounded(&bytes)?;
        let envelope = Envelope::decode(bytes)?;
        let body = envelope.body;
        Ok(match envelope.kind {
            1 => Self::Swim(body),
            2 => Self::Summary(decode(&body)?),
            3 => Self::Buckets(decode(&body)?),
            4 => Self::Have(decode(&body)?),
            5 => Self::Want(decode(&body)?),
            6 => Self::Delta(decode(&body)?),
            other => Self::Unknown(other),
        })
    }
}

/// Decodes a message whose fields were counted first.
pub(crate) fn decode<M: Message + Default>(bytes: &[u8]) -> Result<M, WireError> {
    bounded(bytes)?;
    Ok(M::decode(bytes)?)
}

fn bounded(mut bytes: &[u8]) -> Result<(), WireError> {
    let mut fields = 0;
    while bytes.has_remaining() {
        fields += 1;
        if fields > MAX_FIELDS {
            return Err(WireError::Many);
        }
        let (tag, wire_type) = decode_key(&mut bytes)?;
        skip_field(wire_type, tag, &mut bytes, DecodeContext::default())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn frames_round_trip_and_are_bounded() {
        let frame = Frame::Delta(Delta {
            commits: vec![vec![1, 2], vec![]],
            ..Delta::default()
        });
        assert_eq!(Frame::decode(frame.encode()).unwrap(), frame);
        assert_eq!(
            Frame::decode(Frame::Unknown(99).encode()).unwrap(),
            Frame::Unknown(99)
        );
        let many = Delta {
            commits: vec![Vec::new(); MAX_FIELDS + 1],
            ..Delta::default()
        };
        assert_eq!(
            Frame::decode(Frame::Delta(many).encode()),
            Err(WireError::Many)
        );
        let long = Bytes::from(vec![0; MAX_FRAME + 1]);
        assert_eq!(Frame::decode(long), Err(WireError::Long(MAX_FRAME + 1)));
    }

    proptest! {
        #[test]
        fn garbage_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            if let Ok(frame) = Frame::decode(bytes.into()) {
                let _again = frame.encode();
            }
        }
    }
}
