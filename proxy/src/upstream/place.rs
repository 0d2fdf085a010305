//! Where a connection leads.

use std::net::{IpAddr, SocketAddr};

use mesh_model::{principal::SpiffeId, snapshot::EndpointKey};

/// Where an exclusive connection leads.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Place {
    /// Straight to an endpoint.
    Endpoint(EndpointKey),
    /// Through a foreign tunnel, as this caller.
    Behind(EndpointKey, SpiffeId),
    /// To a local program, from this address.
    Local(SocketAddr, Option<IpAddr>),
}

impl Place {
    /// The endpoint, unless it is a local program.
    pub(crate) fn endpoint(&self) -> Option<EndpointKey> {
        match self {
            Self::Endpoint(key) | Self::Behind(key, _) => Some(*key),
            Self::Local(..) => None,
        }
    }
}
