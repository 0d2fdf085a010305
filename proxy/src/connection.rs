//! One connection: where it comes from, and where it wants to go.

use std::{net::SocketAddr, sync::Arc};

use mesh_model::{
    principal::SpiffeId,
    snapshot::{Caller, InboundPort, Snapshot, decide::Source},
};

/// Where a connection or stream comes from.
#[derive(Debug)]
pub(crate) enum Origin {
    /// From a local program to the mesh.
    Outbound(OutboundOrigin),
    /// From the mesh, or from outside it, to a local program.
    Inbound(InboundOrigin),
}

/// A local program's call.
#[derive(Debug, Clone)]
pub(crate) struct OutboundOrigin {
    /// Who calls.
    pub(crate) caller: Arc<Caller>,
    /// The caller's address.
    pub(crate) peer: SocketAddr,
    /// Where it wants to go.
    pub(crate) destination: Destination,
    /// True on the daemon's own listener: `mesh-as` counts and debug headers are answered.
    pub(crate) internal: bool,
}

/// Where a local program wants to go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Destination {
    /// Captured: a virtual address or an endpoint's own; looked up in the snapshot per request.
    Address(SocketAddr),
    /// By `Host`, absolute form or CONNECT.
    Explicit,
}

/// A call to a local program.
#[derive(Debug, Clone)]
pub(crate) struct InboundOrigin {
    /// The address at the other end of the TCP connection.
    pub(crate) peer: SocketAddr,
    /// Who calls, proven by mTLS; `None` for plaintext.
    pub(crate) principal: Option<SpiffeId>,
    /// The tunnel's server name; `None` for plaintext and for foreign peers.
    pub(crate) server_name: Option<Arc<str>>,
    /// The address that was dialled (plaintext), or that a CONNECT names.
    pub(crate) address: Option<SocketAddr>,
}

impl InboundOrigin {
    /// Who calls, as rules see it.
    pub(crate) fn source(&self) -> Source<'_> {
        Source {
            identity: self.principal.as_ref(),
            address: Some(self.peer.ip()),
            ..Source::default()
        }
    }

    /// The local port that is called: by server name and `target` (header `mesh-target`), or else by address.
    pub(crate) fn port(
        &self,
        snapshot: &Snapshot,
        target: Option<u16>,
    ) -> Option<Arc<InboundPort>> {
        if let Some(name) = &self.server_name {
            let ports = snapshot.inbound.by_server_name.get(&**name)?;
            let target = target.or_else(|| self.address.map(|address| address.port()));
            return ports.get(&target?).cloned();
        }
        snapshot.inbound.by_address.get(&self.address?).cloned()
    }
}
