//! The vocabulary of the mesh: what every room talks about.
//!
//! A map. Nouns only: nothing in this crate reads a clock, draws a random number, opens a file or a
//! socket, or waits. Four degrees of trust have four names: an *observation* (a source said it), a
//! *fact* (a host vouches for it), the *catalog* (all facts merged), the *snapshot* (what we obey).

/// Where something listens: a socket address or a host name and port.
pub mod address;
/// Requests and answers between `meshctl` and `meshd` on the unix socket.
pub mod admin;
/// All facts known, by owner and key: the value that gossip yields.
pub mod catalog;
/// Errors with their causes.
pub mod cause;
/// One signed edit of resources, with the revisions that it is based on.
pub mod commit;
/// The daemon's configuration: as written, as checked, as meant.
pub mod config;
/// A resource as people write it: `apiVersion`, `kind`, `metadata`, `spec`.
pub mod document;
/// Delegation tables: prefixes, failover and weighted union.
pub mod dtab;
/// Spans of time as people write them: `10s`, `500ms`, `1m30s`.
pub mod duration;
/// One instance of a service.
pub mod endpoint;
/// What a host states about itself, and the signed head above it.
pub mod fact;
/// A problem told to people.
pub mod finding;
/// Signed rights: of hosts, of authorities, of operators.
pub mod grant;
/// Labels of which many endpoints have the same.
pub mod labels;
/// Validated names: services, namespaces, hosts, meshes.
pub mod name;
/// Who is calling: trust domains and SPIFFE ids.
pub mod principal;
/// Query strings of URLs.
pub mod query;
/// What is offered: service ports and their protocols.
pub mod service;
/// The immutable compiled view that the proxy obeys.
pub mod snapshot;
/// Points in time as people read them.
pub mod time;
/// Values as written, with their places: the ground of configuration and documents.
mod written;
