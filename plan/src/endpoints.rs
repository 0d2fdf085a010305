//! Endpoints: how each is reached, whether it may be used, and why not.
//!
//! In: a workload or what a registry says. Out: an endpoint ready to be dialled, or the reason to leave it
//! out. A registry's endpoint at a workload's address is that workload, with mTLS.

use std::{net::SocketAddr, sync::Arc};

use mesh_model::{
    address::is_loopback,
    endpoint::{AuthorityForm, Health, Tunnel, TunnelKind},
    fact::ViewEndpoint,
    name::ServiceId,
    principal::SpiffeId,
    service::ServicePort,
    snapshot::{BackendEndpoint, EndpointKey, Map},
};

use crate::{
    key::Stable,
    labelled::Labelled,
    world::{Instance, View, World, health},
};

/// An endpoint that was looked at.
#[derive(Debug, Clone)]
pub(crate) struct Considered {
    pub(crate) endpoint: Arc<BackendEndpoint>,
    pub(crate) health: Health,
    /// Why it gets no requests.
    pub(crate) left_out: Option<Arc<str>>,
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
pub(crate) type Known<'a> = Map<SocketAddr, (&'a Instance, &'a ServicePort)>;

/// Makes the keys under which the live state of a port's endpoints is kept: of service, port and place, never of
/// health or labels.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Keys(Stable);

impl Keys {
    pub(crate) fn new(id: &ServiceId, port: u16) -> Self {
        let mut hash = Stable::new();
        hash.text(id.namespace.as_str())
            .text(id.name.as_str())
            .number(port.into());
        Self(hash)
    }

    fn of(self, address: SocketAddr, host: &str) -> EndpointKey {
        let mut hash = self.0;
        hash.address(address).text(host);
        EndpointKey(hash.finish())
    }
}

pub(crate) fn of_instance(
    world: &World<'_>,
    keys: Keys,
    instance: &Instance,
    port: &ServicePort,
) -> Considered {
    let address = SocketAddr::new(instance.address, port.target);
    let endpoint = BackendEndpoint {
        key: keys.of(address, &instance.host.to_string()),
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
    let left_out = instance.refused.as_deref().map(Arc::from).or_else(|| {
        if !instance.health.is_routable() {
            Some(format!("it is {}", word(instance.health)).into())
        } else if plain && !instance.open {
            Some("it listens on loopback and its host has no tunnel".into())
        } else if plain && instance.strict {
            Some("it refuses plaintext and its host has no tunnel".into())
        } else {
            None
        }
    });
    Considered {
        endpoint: Arc::new(endpoint),
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

/// What a source has against an endpoint.
fn blamed(view: &View<'_>, health: Health) -> Arc<str> {
    format!("{} says it is {}", view.source, word(health)).into()
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

/// A registry's endpoint: a workload of the mesh when it is known at that address, else a plain one. `labelled` are
/// the service's labels.
pub(crate) fn of_view<'a>(
    world: &World<'_>,
    keys: Keys,
    view: &View<'_>,
    stated: &'a ViewEndpoint,
    address: SocketAddr,
    known: &Known<'_>,
    labelled: &mut Labelled<'a>,
) -> Considered {
    let by_registry = health(stated.health);
    if let Some((instance, port)) = known.get(&address) {
        let mut endpoint = of_instance(world, keys, instance, port);
        if endpoint.left_out.is_none() && !by_registry.is_routable() {
            endpoint.left_out = Some(blamed(view, by_registry));
        }
        // What a registry puts behind others stays there, whoever runs it.
        Arc::make_mut(&mut endpoint.endpoint).priority = priority(stated);
        return endpoint;
    }
    let of_host = world.input.host_addresses.contains(&address.ip());
    let loopback = is_loopback(address.ip());
    let own = of_host || loopback;
    let (labels, locality) = labelled.of(&stated.labels);
    let locality = match locality {
        None if own => world.own_locality(),
        said => said,
    };
    let left_out = if loopback && !of_host && !view.own {
        Some("it is a loopback address of another host".into())
    } else if by_registry.is_routable() {
        None
    } else {
        Some(blamed(view, by_registry))
    };
    Considered {
        endpoint: Arc::new(BackendEndpoint {
            key: keys.of(address, ""),
            id: [&view.source, "/", &stated.id].concat().into(),
            address,
            tunnel: None,
            local: own,
            weight: stated.weight.max(1),
            priority: priority(stated),
            distance: world.distance(locality.as_ref()),
            locality,
            preferred: by_registry != Health::Degraded,
            host: None,
            host_name: world.no_name(),
            labels,
        }),
        health: by_registry,
        refused: false,
        fallback: left_out.is_none() && !loopback,
        left_out,
        reluctant: (by_registry == Health::Degraded).then_some("it is degraded"),
        source: None,
        home: None,
    }
}
