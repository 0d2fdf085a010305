//! What the outside says exists: discovery sources of one shape, and their last complete views.
//!
//! To add a source: 1. a settings variant in `mesh_model::config::SourceKind`; 2. a file here that
//! implements [`Source`], with its decoder pure and apart (as `file/parse.rs`); 3. one arm in `open.rs`;
//! 4. a world for `contract.rs`, against a fake and, where there is one, the real server; 5. a line in
//! `docs/config.md` (generated).
//!
//! In: settings, and what registries answer. Out: [`Published`]: one fact per source and service.
//! Never: deletes because of an error. A lost source ages its view; only an authoritative absence removes,
//! and a large removal is held first.

/// Labels that endpoints have alike.
mod alike;
/// Waits between attempts: full jitter.
pub mod backoff;
/// Pauses inside long work.
pub mod breath;
/// Consul's catalog and health.
pub mod consul;
/// The law that every source must pass.
#[cfg(any(test, feature = "contract"))]
pub mod contract;
/// Apache Curator's service discovery.
pub mod curator;
/// Which services anybody needs.
pub mod demand;
/// DNS names: SRV, A and AAAA.
pub mod dns;
/// etcd's keys below a prefix.
pub mod etcd;
/// Netflix Eureka.
pub mod eureka;
/// A source in memory that misbehaves on demand.
#[cfg(any(test, feature = "contract"))]
pub mod fake;
/// A directory of files, watched.
pub mod file;
/// Which removals wait before they count.
mod hold;
/// Host names that registries give instead of addresses.
mod hosts;
/// The HTTP client that sources share.
pub mod http;
/// Kubernetes Services and EndpointSlices.
pub mod kubernetes;
/// Leaders of elections in `ZooKeeper`.
pub mod leader;
/// Registries that answer when an index has grown.
mod longpoll;
/// Marathon's applications and their tasks.
pub mod marathon;
/// The gauges and counters of this room.
mod metrics;
/// Nomad's own services.
pub mod nomad;
/// Settings to a source.
pub mod open;
/// Endpoints in few bytes.
mod packed;
/// Addresses as registries write them.
mod place;
/// What readers see: all views at one moment.
mod published;
/// This host's services, announced to registries.
pub mod registrar;
/// Views to bytes and back, for the next boot.
mod saved;
/// Server sets in `ZooKeeper`.
pub mod serverset;
/// The whole set of one service.
mod set;
/// What a source reports.
pub mod sink;
/// What a source is.
pub mod source;
/// Runs the sources and publishes their views.
mod start;
/// How a source is doing.
pub mod status;
/// Keeps one source running.
mod supervise;
/// What one source did: requests, times.
mod tally;
/// When a set was read.
pub mod version;
/// The last complete view of one source.
mod view;
/// One session room for what stands in `ZooKeeper`.
pub mod zookeeper;

pub use demand::Demand;
pub use hosts::Lookup;
pub use published::{Published, PublishedView, SourceRow};
pub use saved::RestoreError;
pub use sink::{ServiceSet, Sink, SyncGuard};
pub use source::{Capabilities, Reach, Source, SourceError};
pub use start::{Registry, Settings, start, start_with};
pub use status::SourceStatus;
pub use tally::Reading;
pub use version::Version;
