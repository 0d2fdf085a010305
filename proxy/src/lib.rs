//! The data plane: obeys a snapshot, and cannot ask why.
//!
//! A map. Each worker is one thread with its own runtime, listeners, pools and counters; workers share
//! only atomics and immutable values. [`start()`] is the only entry.

/// Accept loops.
mod accept;
/// One timer for a whole connection.
mod alarm;
/// Picks one endpoint of a group.
mod balance;
/// Buffers and pipes, lent to connections.
mod buffers;
/// The wall clock.
mod clock;
/// What the proxy takes at start: addresses, limits, time-outs.
pub mod config;
/// One connection: where it comes from, and where it wants to go.
mod connection;
/// TLS, HTTP/1, HTTP/2 or opaque, from the first bytes.
mod detect;
/// Stop accepting, finish, then force.
mod drain;
/// What went wrong, whose fault it is, and what the caller sees.
pub mod failure;
/// The first bytes of a connection.
mod first;
/// Decoders of bytes from outside, open to the fuzzer.
#[cfg(feature = "fuzz")]
pub mod fuzz;
/// CONNECT streams that come in mTLS.
mod hbone;
/// The server name in a ClientHello.
mod hello;
/// HTTP, request by request.
mod http;
/// From the mesh to the local program.
mod inbound;
/// The bytes of one connection.
mod io;
/// Rate limits.
mod limits;
/// HTTP/2 between our own daemons.
mod link;
/// Listeners.
mod listen;
/// Every metric, access-log field and failure record of the data plane.
mod observe;
/// Where a connection was going, and who opened it.
mod origin;
/// From the local program to the mesh.
mod outbound;
/// Who has a tunnel open to us.
mod peers;
/// Starts the threads, and answers for all of them.
mod start;
/// Opaque streams.
mod tcp;
/// The life of a worker's thread.
mod thread;
/// Handshakes on both sides.
mod tls;
/// Two daemons on loopback: the stage of tests.
#[cfg(test)]
mod trial;
/// mTLS connections from other daemons.
mod tunnel;
/// Turns of a worker on its CPU.
mod turn;
/// Live state by endpoint: connections, loads, ejections, budgets.
mod upstream;
/// How many exchanges a shared connection carries.
mod uses;
/// What the connections of one thread share.
mod worker;

pub use config::{Config, Limits};
pub use observe::{
    edges::{is_bucket, quantile_of},
    tap::Tap,
};
pub use start::{Proxy, StartError, start, try_listeners};
pub use upstream::Ejection;
