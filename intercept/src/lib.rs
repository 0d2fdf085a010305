//! The kernel's hand: takes the local programs' traffic, and gives it back.
//!
//! In: an [`Intent`]. Out: two nftables tables, routes and `ip rule`s that say the same, verified and
//! re-asserted; and their removal. Never: touches a table, a rule or a route that is not its own.
//!
//! * Table `inet meshd` belongs to a child `nft -i`; it vanishes when the daemon dies.
//! * Table `inet meshd_fallback` outlives the daemon: calls to virtual addresses then go on directly.
//! * [`bypass`] undoes all of it, also with the daemon dead, and until it is undone.

/// One atomic change in, verified; the whole life of what is installed.
pub mod apply;
/// Everything off, until it is undone; works without a daemon.
pub mod bypass;
/// The kernel's count of changes to its rules.
mod generation;
/// What is installed, written down so that another process can remove it.
mod installed;
/// What should be intercepted.
pub mod intent;
/// Listening sockets: address, port, user, cgroup.
pub mod listening;
/// The file that stands for bypass.
mod marker;
/// The `nft` program: the owner child, and one-shot commands.
mod nft;
/// What is really in the kernel, and whose foreign rules are in the way.
pub mod observe;
/// Routes and `ip rule`s: present, absent, disturbed.
mod routes;
/// Intent to nftables text; pure.
pub mod rules;
/// Ports that a running sshd listens on: never intercepted.
pub mod sshd;

pub use apply::{
    Applied, ApplyError, How, Interceptor, Removal, RemoveError, Settings, Skipped, StartError,
};
pub use intent::{Inbound, Intent, Virtual};
