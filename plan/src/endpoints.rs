//! Endpoints: how each is reached, whether it may be used, and why not.
//!
//! In: a workload or what a registry says. Out: an endpoint ready to be dialled, or the reason to leave it
//! out. A registry's endpoint at a workload's address is that workload, with mTLS.

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc};

use mesh_model::{
    address::is_loopback,
    endpoint::{AuthorityForm, Health, Tunnel, TunnelKind},
    fact::ViewEndpoint,
    name::ServiceId,
    principal::SpiffeId,
    service::ServicePort,
    snapshot::{BackendEndpoint, EndpointKey},
};

use crate::{
    key::Stable,
    locality,
    world::{Instance, View, World, health, labels},
};

/// An endpoint that was looked at.
#[derive(Debug, Clone)]
pub(crate) struct Considered {
    pub(crate) endpoint: BackendEndpoint,
    pub(crate) health: Health,
    /// Why it gets no requests.
    pub(crate) left_out: Option<String>,
    /// Why it is only used when nothing better is left.
    pub(crate) reluctant: Option<&'static str>,
    /// True when its host has no right to offer it.
    pub(crate) refused: bool,
    /// True when this host may dial it in plaintext while no daemon runs.
    pub(crate) fallback: bool,
    /// The number of the source that names it, best first; `None` for what the mesh's own hosts state.
    pub(crate) source: Option<usize>,
    /// The workload's own service: of several services with this endpoint, that one owns its address.
    pub(crate) home: Option<ServiceId>,
}

/// Workloads by the address that others dial.
pub(crate) type Known<'a> = BTreeMap<SocketAddr, (&'a Instance, &'a ServicePort)>;

/// The live state of an endpoint is kept under this key: service, port and place, never health or labels.
fn endpoint_key(id: &ServiceId, port: u16, address: SocketAddr, host: &str) -> EndpointKey {
    let mut hash = Stable::new();
    hash.text(id.namespace.as_str())
        .text(id.name.as_str())
        .number(port.into());
    hash.text(&address.to_string()).text(host);
    EndpointKey(hash.finish())
}

pub(crate) fn of_instance(
    world: &World<'_>,
    id: &ServiceId,
    number: u16,
    instance: &Instance,
    port: &ServicePort,
) -> Considered {
    let address = SocketAddr::new(instance.address, port.target);
    let endpoint = BackendEndpoint {
        key: endpoint_key(id, number, address, &instance.host.to_string()),
        id: Arc::from(format!(
            "{}/{}:{}",
            instance.host_name, instance.name, port.target
        )),
        address,
        tunnel: instance
            .tunnel
            .map(|tunnel| tunnel_to(world, instance, tunnel)),
        local: instance.own,
        weight: instance.weight,
        priority: 0,
        distance: world.distance(instance.locality.as_ref()),
        locality: instance.locality.clone(),
        preferred: instance.reluctant.is_none() && instance.health != Health::Degraded,
        host: Some(instance.host),
        host_name: Arc::clone(&instance.host_name),
        labels: Arc::clone(&instance.labels),
    };
    let plain = endpoint.tunnel.is_none() && !instance.own;
    let left_out = instance.refused.clone().or_else(|| {
        if !instance.health.is_routable() {
            Some(format!("it is {}", word(instance.health)))
        } else if plain && !instance.open {
            Some("it listens on loopback and its host has no tunnel".to_owned())
        } else if plain && instance.strict {
            Some("it refuses plaintext and its host has no tunnel".to_owned())
        } else {
            None
        }
    });
    Considered {
        endpoint,
        health: instance.health,
        left_out,
        reluctant: instance
            .reluctant
            .or_else(|| (instance.health == Health::Degraded).then_some("it is degraded")),
        refused: instance.refused.is_some(),
        fallback: instance.open && (instance.own || !instance.strict),
        source: None,
        home: Some(instance.service.clone()),
    }
}

pub(crate) fn word(health: Health) -> &'static str {
    match health {
        Health::Unknown => "unchecked",
        Health::Healthy => "healthy",
        Health::Degraded => "degraded",
        Health::Draining => "draining",
        Health::Unhealthy => "unhealthy",
    }
}

fn tunnel_to(world: &World<'_>, instance: &Instance, address: SocketAddr) -> Tunnel {
    let trust_domain = world.mesh.trust_domain.clone();
    let principal = SpiffeId::workload(
        trust_domain,
        instance.service.namespace.clone(),
        instance.account.clone(),
    );
    Tunnel {
        kind: TunnelKind::Mesh,
        address,
        server_name: Some(server_name(world, &instance.service)),
        sans: Arc::from([principal]),
        next_hop: None,
        authority: AuthorityForm::Address,
        network: None,
    }
}

/// 0 is used first.
fn priority(stated: &ViewEndpoint) -> u16 {
    u16::try_from(stated.priority).unwrap_or(u16::MAX)
}

/// The name by which a tunnel's client asks for a local service: `<service>.<namespace>.<trust-domain>`.
pub(crate) fn server_name(world: &World<'_>, service: &ServiceId) -> Arc<str> {
    Arc::from(format!(
        "{}.{}.{}",
        service.name, service.namespace, world.mesh.trust_domain
    ))
}

/// A registry's endpoint: a workload of the mesh when it is known at that address, else a plain one.
pub(crate) fn of_view(
    world: &World<'_>,
    id: &ServiceId,
    number: u16,
    view: &View<'_>,
    stated: &ViewEndpoint,
    address: SocketAddr,
    known: &Known<'_>,
) -> Considered {
    let by_registry = health(stated.health);
    if let Some((instance, port)) = known.get(&address) {
        let mut endpoint = of_instance(world, id, number, instance, port);
        if endpoint.left_out.is_none() && !by_registry.is_routable() {
            endpoint.left_out = Some(format!("{} says it is {}", view.source, word(by_registry)));
        }
        // What a registry puts behind others stays there, whoever runs it.
        endpoint.endpoint.priority = priority(stated);
        return endpoint;
    }
    let own = world.input.host_addresses.contains(&address.ip()) || is_loopback(address.ip());
    let loopback = is_loopback(address.ip()) && !world.input.host_addresses.contains(&address.ip());
    let locality = match locality::of_labels(&stated.labels) {
        None if own => world.own_locality(),
        said => said,
    };
    let left_out = if loopback && !view.own {
        Some("it is a loopback address of another host".to_owned())
    } else if by_registry.is_routable() {
        None
    } else {
        Some(format!("{} says it is {}", view.source, word(by_registry)))
    };
    Considered {
        endpoint: BackendEndpoint {
            key: endpoint_key(id, number, address, ""),
            id: Arc::from(format!("{}/{}", view.source, stated.id)),
            address,
            tunnel: None,
            local: own,
            weight: stated.weight.max(1),
            priority: priority(stated),
            distance: world.distance(locality.as_ref()),
            locality,
            preferred: by_registry != Health::Degraded,
            host: None,
            host_name: Arc::from(""),
            labels: labels(&stated.labels, &id.name),
        },
        health: by_registry,
        refused: false,
        fallback: left_out.is_none() && !is_loopback(address.ip()),
        left_out,
        reluctant: (by_registry == Health::Degraded).then_some("it is degraded"),
        source: None,
        home: None,
    }
}
