//! The ways to find a frontend: by virtual address and by name; and what the kernel and the names process are told.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use mesh_model::{
    name::{Namespace, ServiceId},
    snapshot::{Direct, Frontend, Map, Outbound},
};

use crate::{Input, VirtualPort, backends::Backends, services::Services};

/// By virtual address and port.
pub(crate) fn by_address(frontends: &[Arc<Frontend>]) -> Map<SocketAddr, Arc<Frontend>> {
    frontends
        .iter()
        .flat_map(|frontend| {
            frontend
                .virtual_addresses
                .iter()
                .map(|ip| (SocketAddr::new(*ip, frontend.port), Arc::clone(frontend)))
        })
        .collect()
}

/// Names of a service below the mesh's domain.
fn full_names(id: &ServiceId, domain: &str) -> Vec<String> {
    let mut names = vec![format!("{}.{}.{domain}", id.name, id.namespace)];
    if id.namespace == Namespace::default() {
        names.push(format!("{}.{domain}", id.name));
    }
    names
}

/// By every accepted spelling: `name` and `name.domain` (namespace `default` only), `name.namespace`,
/// `name.namespace.domain`.
pub(crate) fn by_host(
    frontends: &[Arc<Frontend>],
    domain: &str,
) -> Map<Box<str>, BTreeMap<u16, Arc<Frontend>>> {
    let mut found: BTreeMap<String, (ServiceId, BTreeMap<u16, Arc<Frontend>>)> = BTreeMap::new();
    for frontend in frontends {
        let id = &frontend.service;
        let mut names = vec![format!("{}.{}", id.name, id.namespace)];
        names.extend(full_names(id, domain));
        if id.namespace == Namespace::default() {
            names.push(id.name.to_string());
        }
        for name in names {
            let (owner, ports) = found
                .entry(name.to_ascii_lowercase())
                .or_insert_with(|| (id.clone(), BTreeMap::new()));
            if owner == id {
                ports.insert(frontend.port, Arc::clone(frontend));
            }
        }
    }
    found
        .into_iter()
        .map(|(name, (_, ports))| (name.into_boxed_str(), ports))
        .collect()
}

/// Families of addresses that this host can use.
fn usable(ip: IpAddr, input: &Input<'_>) -> bool {
    let own = input.host_addresses;
    own.iter().any(|own| own.is_ipv4() == ip.is_ipv4()) || (own.is_empty() && ip.is_ipv4())
}

/// Names with the addresses that they lead to; of headless services those of the endpoints.
///
/// A family in which no endpoint could be reached without the daemon is left out while the other has some,
/// so that a name goes on working when the daemon dies.
pub(crate) fn names(
    services: &Services,
    frontends: &[Arc<Frontend>],
    backends: &Backends,
    input: &Input<'_>,
    domain: &str,
) -> Vec<(String, Vec<IpAddr>)> {
    if !input.captures() {
        return Vec::new();
    }
    let mut found: BTreeMap<String, Vec<IpAddr>> = BTreeMap::new();
    for frontend in frontends {
        let headless = services
            .by_id
            .get(&frontend.service)
            .is_some_and(|service| service.headless);
        let addresses: Vec<IpAddr> = if headless {
            frontend
                .backend
                .endpoints
                .iter()
                .map(|endpoint| endpoint.address.ip())
                .collect()
        } else {
            let key = (frontend.service.clone(), frontend.port);
            let plain = backends
                .fallback
                .get(&key)
                .map(Vec::as_slice)
                .unwrap_or_default();
            let goes_on = |ip: &IpAddr| {
                plain.is_empty() || plain.iter().any(|one| one.is_ipv4() == ip.is_ipv4())
            };
            frontend
                .virtual_addresses
                .iter()
                .copied()
                .filter(goes_on)
                .collect()
        };
        for name in full_names(&frontend.service, domain) {
            let entry = found.entry(name.to_ascii_lowercase()).or_default();
            entry.extend(addresses.iter().filter(|ip| usable(**ip, input)));
            entry.sort();
            entry.dedup();
        }
    }
    found.into_iter().collect()
}

/// What the kernel is told of virtual addresses, ordered.
pub(crate) fn virtuals(
    frontends: &[Arc<Frontend>],
    backends: &Backends,
    input: &Input<'_>,
) -> Vec<VirtualPort> {
    if !input.captures() {
        return Vec::new();
    }
    let mut found: Vec<VirtualPort> = frontends
        .iter()
        .flat_map(|frontend| {
            let key = (frontend.service.clone(), frontend.port);
            let plain = backends
                .fallback
                .get(&key)
                .map(Vec::as_slice)
                .unwrap_or_default();
            frontend
                .virtual_addresses
                .iter()
                .filter(|ip| usable(**ip, input))
                .map(move |ip| VirtualPort {
                    address: *ip,
                    port: frontend.port,
                    fallback: if frontend.fail_closed {
                        Vec::new()
                    } else {
                        plain
                            .iter()
                            .filter(|one| one.is_ipv4() == ip.is_ipv4())
                            .copied()
                            .collect()
                    },
                    fail_closed: frontend.fail_closed,
                })
        })
        .collect();
    found.sort();
    found
}

/// Other hosts' endpoints whose own addresses are captured, ordered.
pub(crate) fn direct(outbound: &Outbound) -> Vec<SocketAddr> {
    let secured = |direct: &&Direct| direct.endpoint.tunnel.is_some();
    let all = outbound.direct.values().filter(secured);
    let mut found: Vec<SocketAddr> = all.map(|direct| direct.endpoint.address).collect();
    found.sort();
    found
}
