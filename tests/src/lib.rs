//! The proof's tools: hosts in network namespaces, real daemons, plain programs, and waiting for conditions.
//!
//! Everything runs inside one private set of namespaces (`scripts/private.sh`), so that nothing is left on
//! the machine, whatever kills it. A test that lacks a privilege says so and is counted; with `CI=true`
//! it fails.

/// Programs of the build and of the system.
pub mod binary;
/// The demonstration's hosts and programs.
pub mod demo;
/// A host: a network, mount and UTS namespace with a real `meshd`.
pub mod host;
/// Plain HTTP requests for assertions.
pub mod http;
/// A mesh of hosts on one bridge.
pub mod mesh;
/// What a test needs of the machine; a skip is counted.
pub mod need;
/// A machine with a real systemd: a Debian root booted by systemd-nspawn.
pub mod nspawn;
/// Two hosts: one offers, one calls.
pub mod pair;
/// Protocol suites and clients of other people.
pub mod peers;
/// Child processes with logs, ended by pid.
pub mod process;
/// What the hosts of a failed test still have to say.
pub mod remains;
/// Waiting for a condition with a deadline.
pub mod wait;

pub use host::Host;
pub use mesh::Mesh;
pub use process::Child;
pub use wait::eventually;
