//! Connections that are open already, for the many exchanges that need not wait for one.
//!
//! Never: waits, opens, or takes what a policy counts.

use std::{net::IpAddr, sync::Arc};

use mesh_model::{
    endpoint::TunnelKind,
    service::AppProtocol,
    snapshot::{Caller, InboundPort},
};

use super::{HttpUpstream, Upstream, is_h2, multiplex::Road, picked::Picked, place::Place};

impl Upstream {
    /// A connection to the picked endpoint, if one is open and free; otherwise ask [`Upstream::http`].
    pub(crate) fn ready(
        &self,
        picked: &Picked,
        caller: &Caller,
        protocol: AppProtocol,
    ) -> Option<HttpUpstream> {
        let endpoint = &picked.endpoint;
        let policy = picked.group.policy();
        match &endpoint.tunnel {
            // It has to take a place among the backend's connections first.
            Some(_) if policy.limits.max_connections != u32::MAX && !is_h2(protocol) => None,
            Some(tunnel) if tunnel.kind == TunnelKind::Mesh => {
                let road = Road::requests(&caller.principal, tunnel);
                let shared = self.0.multiplexed.checkout(&road, Some(tunnel));
                shared.map(HttpUpstream::H2)
            }
            Some(_) => None,
            None if is_h2(protocol) || policy.upgrade_to_http2 => {
                let road = Road::Plain(Place::Endpoint(endpoint.key));
                let shared = self.0.multiplexed.checkout(&road, None);
                shared.map(HttpUpstream::H2)
            }
            None if policy.limits.max_connections != u32::MAX => None,
            None => {
                let kept = self.0.idle.take(&Place::Endpoint(endpoint.key));
                kept.map(HttpUpstream::H1)
            }
        }
    }

    /// A connection to a local program, if one is open and free; otherwise ask [`Upstream::local`].
    pub(crate) fn ready_local(
        &self,
        port: &Arc<InboundPort>,
        protocol: AppProtocol,
        source: Option<IpAddr>,
    ) -> Option<HttpUpstream> {
        let source = self.0.kept_source(port.target, source);
        let place = Place::Local(port.target, source);
        if is_h2(protocol) {
            let shared = self.0.multiplexed.checkout(&Road::Plain(place), None);
            return shared.map(HttpUpstream::H2);
        }
        self.0.idle.take(&place).map(HttpUpstream::H1)
    }
}
