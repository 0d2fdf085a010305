//! The data plane: obeys a snapshot, and cannot ask why.
//!
//! A map. Each worker is one thread with its own runtime, listeners, pools and counters; workers share
//! only atomics and immutable values. [`start()`] is the only entry.

/// Picks one endpoint of a group.
mod balance;
/// What the proxy takes at start: addresses, limits, time-outs.
pub mod config;
/// One connection: where it comes from, and its bytes.
mod connection;
/// TLS, HTTP/1, HTTP/2 or opaque, from the first bytes.
mod detect;
/// Stop accepting, finish, then force.
mod drain;
/// What went wrong, whose fault it is, and what the caller sees.
pub mod failure;
/// The first bytes of a connection.
mod first;
/// CONNECT streams in mTLS, ours and a foreign mesh's.
mod hbone;
/// HTTP, request by request.
mod http;
/// From the mesh to the local program.
mod inbound;
/// Accept loops.
mod listen;
/// Every metric, access-log field and failure record of the data plane.
mod observe;
/// Where a connection was going, and who opened it.
mod origin;
/// From the local program to the mesh.
mod outbound;
/// Starts the threads, and answers for all of them.
mod start;
/// Opaque streams.
mod tcp;
/// Handshakes on both sides.
mod tls;
/// Two daemons on loopback: the stage of tests.
#[cfg(test)]
mod trial;
/// mTLS connections from other daemons.
mod tunnel;
/// Live state by endpoint: connections, loads, ejections, budgets.
mod upstream;
/// One thread of the data plane.
mod worker;

pub use config::{Config, Limits};
pub use start::{Proxy, StartError, start};
