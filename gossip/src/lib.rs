//! The replicated control state: a state machine that is told the time.
//!
//! In: datagrams, frames, timers, local facts, signed edits. Out: datagrams, frames, rows to keep, answers.
//! Never: reads a clock, draws its own randomness, opens a file or a socket, waits, or checks a
//! signature by itself. `ALGORITHM.md` tells how the parts work together.

mod agenda;
mod commits;
mod config;
mod delta;
mod digest;
mod event;
mod facts;
mod fingerprint;
mod links;
mod member;
mod node;
mod rights;
mod row;
mod signing;
/// Many nodes, seeded clock, loss, partition, restart: the world in which the laws are tested.
#[cfg(any(test, feature = "sim"))]
pub mod sim;
mod store;
mod time;
mod view;
mod wire;

pub use commits::{
    CommitError, Commits, Current, HistoryFilter, SubmitError,
    graph::{Value, evaluate},
};
pub use config::Config;
pub use event::{Identity, Input, Output};
pub use links::LinkState;
pub use node::Node;
pub use rights::{Grant, GrantError, Rights};
pub use row::{Row, table};
pub use signing::{Signer, Verifier};
pub use store::{HeadError, Hosts, Outcome, root_of};
pub use time::Time;
pub use wire::{Frame, HostUpdate, WireError};
