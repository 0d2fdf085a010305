//! The box around datagrams between hosts: pairwise authenticated encryption, no shared gossip key.
//!
//! Header, 37 bytes, authenticated: version 1 · sender's host id (16) · sender's epoch (4) · sender's salt
//! (4) · receiver's epoch as the sender knows it (4) · counter (8). Then ChaCha20-Poly1305. The key comes by
//! HKDF-SHA256 from X25519 of the two static keys, the mesh id, both host ids, both epochs and the salt, so a
//! box fits one mesh, one direction and one run of each daemon: nothing is replayed past a restart.
//! A sender that names an old epoch gets an empty box back from which it learns the new one; the datagram
//! is lost, as datagrams are. Never: answers or keeps anything for a host without a grant, or answers more
//! bytes than came.

use std::collections::HashMap;

use aws_lc_rs::{
    aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey},
    hkdf::{HKDF_SHA256, Prk, Salt},
};
use mesh_model::name::{HostId, MeshId};

use crate::key::{KeyError, X25519Key, random};

/// Which counters of a sender were seen.
mod window;

use window::Window;

/// First byte of every box.
pub const VERSION: u8 = 1;
/// Bytes that a box adds: header and tag.
pub const OVERHEAD: usize = HEADER + 16;
/// Longest content of a box.
pub const LIMIT: usize = 16_384;

const HEADER: usize = 37;
/// Furthest that a peer may push the own epoch at once: a bound on what a hostile member can do.
const EPOCH_STEP: u32 = 1 << 20;

/// Why nothing could be sealed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SealError {
    /// Longer than [`LIMIT`].
    #[error("the content is longer than {LIMIT} bytes")]
    Long,
    /// The peer's key is none.
    #[error("the peer's datagram key is of small order")]
    Key,
    /// The counter has run out, or the library failed.
    #[error("the box cannot be closed")]
    Failed,
}

/// Why a box was dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// Too short, too long, or of another version.
    #[error("not a box of this version")]
    Form,
    /// The sender has no grant here, or its key is none.
    #[error("the sender {0} is not known")]
    Unknown(HostId),
    /// Not made by whom it says, for this host, in this mesh.
    #[error("the box of {0} does not open")]
    Forged(HostId),
    /// Seen before, or too old.
    #[error("the box of {0} was seen before")]
    Replayed(HostId),
}

/// What was in a box.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Opened {
    /// A datagram of a host.
    Datagram {
        /// Who sent it.
        from: HostId,
        /// What it sent.
        bytes: Vec<u8>,
    },
    /// The sender knows an old epoch; send these bytes back to where the box came from.
    Notice {
        /// Whom it is for.
        to: HostId,
        /// The box to send.
        bytes: Vec<u8>,
    },
    /// Nothing to do: an epoch was learnt.
    Learnt {
        /// Who told it.
        from: HostId,
    },
}

/// The boxes of one host.
#[derive(Debug)]
pub struct DatagramBox {
    mesh: MeshId,
    host: HostId,
    key: X25519Key,
    epoch: u32,
    salt: [u8; 4],
    peers: HashMap<HostId, PeerState>,
}

struct PeerState {
    public: [u8; 32],
    secret: Prk,
    /// Highest epoch of the peer known; 0: none.
    known: u32,
    sent: u64,
    /// Key for sending, with the peer's epoch that it is made for.
    sending: Option<(u32, LessSafeKey)>,
    receiving: Option<Receiving>,
}

struct Receiving {
    epoch: u32,
    salt: [u8; 4],
    key: LessSafeKey,
    window: Window,
}

impl std::fmt::Debug for PeerState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "PeerState(epoch {}, sent {})", self.known, self.sent)
    }
}

impl DatagramBox {
    /// For `host` with its static key; `epoch` grows at each start of the daemon and is at least 1.
    pub fn new(mesh: MeshId, host: HostId, key: X25519Key, epoch: u32) -> Result<Self, KeyError> {
        let (epoch, salt) = (epoch.max(1), random()?);
        Ok(Self {
            mesh,
            host,
            key,
            epoch,
            salt,
            peers: HashMap::new(),
        })
    }
    /// The own epoch; it may have grown because a peer knew a higher one. Keep it for the next start.
    pub fn epoch(&self) -> u32 {
        self.epoch
    }
    /// Takes note of a peer's epoch heard elsewhere (a link, a head), which saves the first datagram.
    pub fn learn(&mut self, peer: HostId, public: &[u8; 32], epoch: u32) {
        if let Some(state) = self.peer(peer, public) {
            state.known = state.known.max(epoch);
        }
    }
    /// Drops everything about a peer, such as a revoked one.
    pub fn forget(&mut self, peer: HostId) {
        self.peers.remove(&peer);
    }

    /// Closes a box for a peer with that datagram key.
    pub fn seal(
        &mut self,
        to: HostId,
        public: &[u8; 32],
        bytes: &[u8],
    ) -> Result<Vec<u8>, SealError> {
        if bytes.len() > LIMIT {
            return Err(SealError::Long);
        }
        let (own, epoch, salt) = (self.host, self.epoch, self.salt);
        let state = self.peer(to, public).ok_or(SealError::Key)?;
        let known = state.known;
        if state
            .sending
            .as_ref()
            .is_none_or(|(made_for, _)| *made_for != known)
        {
            let key = derive(&state.secret, (own, epoch, salt), (to, known));
            state.sending = Some((known, key.ok_or(SealError::Failed)?));
        }
        let (_, key) = state.sending.as_ref().ok_or(SealError::Failed)?;
        state.sent = state.sent.checked_add(1).ok_or(SealError::Failed)?;
        let header = Header {
            from: own,
            epoch,
            salt,
            known,
            counter: state.sent,
        };
        header.close(key, bytes).ok_or(SealError::Failed)
    }

    /// Opens a box; `key_of` yields the datagram key in the grant of a host, if it has one in force.
    pub fn open(
        &mut self,
        bytes: &[u8],
        key_of: impl FnOnce(HostId) -> Option<[u8; 32]>,
    ) -> Result<Opened, OpenError> {
        let header = Header::read(bytes).ok_or(OpenError::Form)?;
        let from = header.from;
        let unknown = OpenError::Unknown(from);
        let public = key_of(from).filter(|_| from != self.host).ok_or(unknown)?;
        let (own, epoch) = (self.host, self.epoch);
        let state = self.peer(from, &public).ok_or(unknown)?;
        let fits = state.receiving.as_ref().is_none_or(|r| {
            header.epoch > r.epoch || (header.epoch == r.epoch && header.salt == r.salt)
        });
        if header.known == epoch && header.epoch >= state.known && fits {
            return state.take(own, epoch, &header, bytes);
        }
        self.reconcile(&public, &header, bytes)
    }

    /// A box for another run of this daemon, or from an earlier run of the sender: only epochs are learnt.
    fn reconcile(
        &mut self,
        public: &[u8; 32],
        header: &Header,
        bytes: &[u8],
    ) -> Result<Opened, OpenError> {
        let (from, own, epoch) = (header.from, self.host, self.epoch);
        let forged = OpenError::Forged(from);
        let state = self.peer(from, public).ok_or(OpenError::Unknown(from))?;
        let key = derive(&state.secret, header.sender(), (own, header.known)).ok_or(forged)?;
        header.open(&key, bytes).ok_or(forged)?;
        if header.known > epoch {
            if header.known - epoch <= EPOCH_STEP {
                self.raise(header.known);
            }
            return Ok(Opened::Learnt { from });
        }
        let reused = |r: &Receiving| r.epoch == header.epoch && r.salt != header.salt;
        let reused = state.receiving.as_ref().is_some_and(reused);
        // A sender that started anew with its old epoch is pushed above it, or it would never be heard.
        state.known = state
            .known
            .max(header.epoch.saturating_add(u32::from(reused)));
        let notice = self.seal(from, public, &[]).map_err(|_failed| forged)?;
        Ok(Opened::Notice {
            to: from,
            bytes: notice,
        })
    }

    /// Peers know a higher epoch than ours: a lost or restored state directory. Go on above it.
    fn raise(&mut self, known: u32) {
        let Ok(salt) = random() else { return };
        self.epoch = known.saturating_add(1);
        self.salt = salt;
        for state in self.peers.values_mut() {
            state.sending = None;
            state.receiving = None;
        }
    }

    fn peer(&mut self, peer: HostId, public: &[u8; 32]) -> Option<&mut PeerState> {
        use std::collections::hash_map::Entry;
        match self.peers.entry(peer) {
            Entry::Occupied(entry) if entry.get().public == *public => Some(entry.into_mut()),
            entry => {
                let secret = self.key.agree(public)?;
                let secret = Salt::new(HKDF_SHA256, &self.mesh.0).extract(&secret[..]);
                let fresh = PeerState {
                    public: *public,
                    secret,
                    known: 0,
                    sent: 0,
                    sending: None,
                    receiving: None,
                };
                Some(entry.insert_entry(fresh).into_mut())
            }
        }
    }
}

impl PeerState {
    fn take(
        &mut self,
        own: HostId,
        own_epoch: u32,
        header: &Header,
        bytes: &[u8],
    ) -> Result<Opened, OpenError> {
        let from = header.from;
        let forged = OpenError::Forged(from);
        let same = |r: &Receiving| r.epoch == header.epoch && r.salt == header.salt;
        if let Some(receiving) = self.receiving.as_mut().filter(|r| same(r)) {
            if !receiving.window.is_new(header.counter) {
                return Err(OpenError::Replayed(from));
            }
            let bytes = header.open(&receiving.key, bytes).ok_or(forged)?;
            receiving.window.note(header.counter);
            return Ok(opened(from, bytes));
        }
        let key = derive(&self.secret, header.sender(), (own, own_epoch)).ok_or(forged)?;
        let bytes = header.open(&key, bytes).ok_or(forged)?;
        let mut window = Window::default();
        window.note(header.counter);
        self.known = header.epoch;
        self.receiving = Some(Receiving {
            epoch: header.epoch,
            salt: header.salt,
            key,
            window,
        });
        Ok(opened(from, bytes))
    }
}

fn opened(from: HostId, bytes: Vec<u8>) -> Opened {
    if bytes.is_empty() {
        Opened::Learnt { from }
    } else {
        Opened::Datagram { from, bytes }
    }
}

type Sender = (HostId, u32, [u8; 4]);

fn derive(
    secret: &Prk,
    (from, epoch, salt): Sender,
    (to, known): (HostId, u32),
) -> Option<LessSafeKey> {
    let (epoch, known) = (epoch.to_be_bytes(), known.to_be_bytes());
    let parts: [&[u8]; 6] = [b"meshd/1 box", &from.0, &to.0, &epoch, &salt, &known];
    let key = secret.expand(&parts, &CHACHA20_POLY1305).ok()?;
    Some(LessSafeKey::new(UnboundKey::from(key)))
}

struct Header {
    from: HostId,
    epoch: u32,
    salt: [u8; 4],
    known: u32,
    counter: u64,
}

impl Header {
    fn read(bytes: &[u8]) -> Option<Self> {
        if !(OVERHEAD..=OVERHEAD + LIMIT).contains(&bytes.len()) {
            return None;
        }
        let (&VERSION, rest) = bytes.split_first()? else {
            return None;
        };
        let (from, rest) = rest.split_first_chunk::<16>()?;
        let (epoch, rest) = rest.split_first_chunk::<4>()?;
        let (salt, rest) = rest.split_first_chunk::<4>()?;
        let (known, rest) = rest.split_first_chunk::<4>()?;
        let (counter, _) = rest.split_first_chunk::<8>()?;
        Some(Self {
            from: HostId(*from),
            epoch: u32::from_be_bytes(*epoch),
            salt: *salt,
            known: u32::from_be_bytes(*known),
            counter: u64::from_be_bytes(*counter),
        })
    }
    fn write(&self) -> Vec<u8> {
        let mut out = vec![VERSION];
        out.extend_from_slice(&self.from.0);
        out.extend_from_slice(&self.epoch.to_be_bytes());
        out.extend_from_slice(&self.salt);
        out.extend_from_slice(&self.known.to_be_bytes());
        out.extend_from_slice(&self.counter.to_be_bytes());
        out
    }
    fn sender(&self) -> Sender {
        (self.from, self.epoch, self.salt)
    }
    fn nonce(&self) -> Nonce {
        let mut nonce = [0; 12];
        for (slot, byte) in nonce.iter_mut().skip(4).zip(self.counter.to_be_bytes()) {
            *slot = byte;
        }
        Nonce::assume_unique_for_key(nonce)
    }
    fn close(&self, key: &LessSafeKey, bytes: &[u8]) -> Option<Vec<u8>> {
        let mut out = self.write();
        let mut content = bytes.to_vec();
        let header = Aad::from(out.as_slice());
        key.seal_in_place_append_tag(self.nonce(), header, &mut content)
            .ok()?;
        out.append(&mut content);
        Some(out)
    }
    fn open(&self, key: &LessSafeKey, bytes: &[u8]) -> Option<Vec<u8>> {
        let (header, content) = bytes.split_at_checked(HEADER)?;
        let mut content = content.to_vec();
        let length = key
            .open_in_place(self.nonce(), Aad::from(header), &mut content)
            .ok()?
            .len();
        content.truncate(length);
        Some(content)
    }
}

#[cfg(test)]
mod tests;
