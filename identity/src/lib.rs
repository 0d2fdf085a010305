//! Who we are and whom we trust: the life of a certificate, a grant, a key and a token.
//!
//! The root (made by `init`) signs authorities; an authority signs hosts, operators and leaves; a leaf is
//! presented on a tunnel only by a host whose grant covers it, and every verifier checks that. Keys are
//! made where they live, stored 0600 and wiped from memory. No async, no sockets.

/// All files of an identity directory as one value, and back.
pub mod archive;
/// The mesh's CA: the root, and the authorities that issue in its name.
pub mod authority;
/// The certificates that this daemon holds, by identity.
pub mod credentials;
/// Files that hold secrets: 0600, replaced atomically.
pub mod file;
/// Checks of the signed rights, from the genesis down.
pub mod grants;
/// Private keys, signatures, and the ids that follow from them.
pub mod key;
/// The requesting side of a certificate.
pub mod leaf;
/// PEM text of keys and certificates.
mod pem;
/// When to renew: a pure schedule.
pub mod renew;
/// The box around datagrams between hosts.
pub mod seal;
/// A small mesh for tests.
#[cfg(test)]
mod testing;
/// TLS configurations that follow rotation.
pub mod tls;
/// Join tokens.
pub mod token;
/// Is this peer who it says: chain, id, grant.
pub mod verify;

pub use credentials::{Credential, Credentials};
pub use verify::{Peer, PeerError};
