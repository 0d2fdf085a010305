//! Registries that this host's services are announced to, as meant.

use std::{collections::BTreeSet, net::IpAddr, time::Duration};

use super::{SourceConfig, SourceKind};
use crate::name::ServiceName;

/// A registry that this host's services are announced to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RegistrationConfig {
    /// The source of whose registry this is: its id, servers, credentials and layout.
    pub source: SourceConfig,
    /// Services that are announced; `None`: all of this host's that offer a port.
    pub services: Option<BTreeSet<ServiceName>>,
    /// After a crash an instance is gone this much later; 30 s; 5 s to 10 min.
    pub ttl: Duration,
    /// The address that is announced; `None`: the service's, or the host's first.
    pub address: Option<IpAddr>,
    /// Tags of the instances (Consul).
    pub tags: Vec<String>,
}

impl SourceKind {
    /// True where services can be announced: an orchestrator's registry is its own business, a DNS server and a
    /// directory of files have no leases.
    pub fn takes_registrations(&self) -> bool {
        matches!(
            self,
            Self::Consul { .. }
                | Self::Etcd { .. }
                | Self::Eureka { .. }
                | Self::Serverset { .. }
                | Self::Curator { .. }
        )
    }
}
