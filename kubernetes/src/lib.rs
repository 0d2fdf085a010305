//! The cluster next door: a source and an exporter over the Kubernetes API.
//!
//! A map of what will live here: `source` (watches of Services and `EndpointSlices` as a
//! `mesh_registry::Source`), `translate` (objects to observations, pure), `export` (services of hosts as
//! `EndpointSlices`). Until then it holds only the name of its field manager, which must never change.

/// The field manager under which the exporter will own what it writes.
pub const FIELD_MANAGER: &str = "meshd";
