//! What a plan is made from.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use mesh_model::{
    catalog::Catalog,
    config::{Boot, Capture, Live},
    name::ServiceId,
    snapshot::Snapshot,
};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::Breath;

/// Everything that a plan is made from.
#[derive(Debug, Clone, Copy)]
pub struct Input<'a> {
    /// All facts.
    pub catalog: &'a Catalog,
    /// Settings that need a restart.
    pub boot: &'a Boot,
    /// Settings that a reload changes, local services among them.
    pub live: &'a Live,
    /// Addresses of this host, preferred first.
    pub host_addresses: &'a [IpAddr],
    /// The snapshot in force: unchanged parts keep their `Arc`.
    pub previous: Option<&'a Snapshot>,
    /// Virtual addresses given before.
    pub allocations: &'a Allocations,
    /// Milliseconds since the epoch.
    pub now_ms: u64,
    /// True when interception runs here; without it nothing is told to the kernel or to the names process.
    pub transparent: bool,
    /// Pauses of a long plan.
    pub breath: Breath<'a>,
}

impl Input<'_> {
    /// True when the kernel and the names process are told anything.
    pub(crate) fn captures(&self) -> bool {
        self.transparent && self.boot.capture == Capture::Mesh
    }
}

/// Virtual addresses by service; kept by the host, so that a service keeps its own.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Allocations(pub BTreeMap<ServiceId, (Ipv4Addr, Ipv6Addr)>);

impl Serialize for Allocations {
    /// As `{"namespace/name": ["240.240.1.2", "fd6d:…"]}`.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(
            self.0
                .iter()
                .map(|(service, pair)| (service.to_string(), pair)),
        )
    }
}

impl<'de> Deserialize<'de> for Allocations {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = BTreeMap::<String, (Ipv4Addr, Ipv6Addr)>::deserialize(deserializer)?;
        text.into_iter()
            .map(|(service, pair)| {
                ServiceId::parse(&service)
                    .map(|id| (id, pair))
                    .map_err(serde::de::Error::custom)
            })
            .collect::<Result<_, _>>()
            .map(Self)
    }
}

/// Why no plan could be made. The last good one stays in force.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CompileError {
    /// More services than virtual addresses.
    #[error(
        "{services} services need virtual addresses and the range has {room}: make capture.virtual_v4 larger"
    )]
    AddressesExhausted {
        /// Services that need one.
        services: usize,
        /// Addresses in the range.
        room: usize,
    },
}
