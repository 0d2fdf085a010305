//! What reaches local programs: their ports, by address and by server name, with policies compiled.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use mesh_model::{
    address::is_loopback,
    config::{Capture, LocalService},
    grant::covers,
    principal::SpiffeId,
    service::ServicePort,
    snapshot::{Inbound, InboundPort, Map},
};

use crate::{
    destination::Destinations,
    endpoints::server_name,
    findings::Findings,
    limits::Limits,
    policies::Policies,
    world::{World, labels},
};

/// Ports of local programs.
#[derive(Debug, Default)]
pub(crate) struct Ports {
    pub(crate) by_address: Map<SocketAddr, Arc<InboundPort>>,
    pub(crate) by_server_name: Map<Box<str>, BTreeMap<u16, Arc<InboundPort>>>,
    pub(crate) identities: Map<Box<str>, SpiffeId>,
    /// Addresses that other hosts dial, ordered.
    pub(crate) captured: Vec<SocketAddr>,
}

pub(crate) fn build(
    world: &World<'_>,
    rules: &Destinations<'_>,
    limits: &Limits<'_>,
    findings: &Findings,
) -> Ports {
    let policies = Policies::gather(world.input.catalog, world.mesh.strict);
    let mut ports = Ports::default();
    for service in &world.locals {
        if let Some(why) = refusal(world, service) {
            findings.error(
                "not-granted",
                &format!("{} ({})", service.service, service.origin),
                format!("this host may not present it: {why}"),
                "join again with a token for this service (`meshctl token create`)",
            );
            continue;
        }
        ports.add(world, service, (&policies, rules, limits), findings);
    }
    if !world.input.transparent || world.input.boot.capture == Capture::Off {
        ports.captured.clear();
    }
    if let Some(previous) = world.input.previous {
        ports.linger(world, &previous.inbound);
    }
    ports.captured.sort();
    ports.captured.dedup();
    ports
}

/// Why this host may not present a service's identity.
fn refusal(world: &World<'_>, service: &LocalService) -> Option<String> {
    let id = world.mesh.host;
    let Some(host) = world.input.catalog.hosts.get(&id) else {
        return Some("this host's grant has not arrived".to_owned());
    };
    let grant = match world.right(id, host) {
        Ok(grant) => grant,
        Err(why) => return Some(why),
    };
    let namespace = service.service.namespace.as_str();
    let account = service.service_account.as_str();
    if !covers(&grant.may_register, namespace, account) {
        return Some(format!(
            "its grant does not cover the account {namespace}/{account}"
        ));
    }
    let name = service.service.name.as_str();
    (!service.ports.is_empty() && !covers(&grant.may_register, namespace, name))
        .then(|| format!("its grant does not cover the service {}", service.service))
}

impl Ports {
    /// Connections that were captured outlive their service's file: they go on to its program. New ones are not
    /// captured. A service that is still configured and may not be offered any more keeps nothing.
    fn linger(&mut self, world: &World<'_>, before: &Inbound) {
        for (address, port) in &before.by_address {
            let configured = world.locals.iter().any(|one| one.service == port.service);
            if !configured {
                let known = self.by_address.entry(*address);
                known.or_insert_with(|| Arc::clone(port));
            }
        }
    }

    fn add(
        &mut self,
        world: &World<'_>,
        service: &LocalService,
        (policies, rules, limits): (&Policies<'_>, &Destinations<'_>, &Limits<'_>),
        findings: &Findings,
    ) {
        let id = &service.service;
        let selectable = labels(&service.labels, &id.name);
        let name: Box<str> = server_name(world, id).as_ref().into();
        let principal = SpiffeId::workload(
            world.mesh.trust_domain.clone(),
            id.namespace.clone(),
            service.service_account.clone(),
        );
        let port_at = |port: &ServicePort, target: IpAddr| InboundPort {
            service: id.clone(),
            principal: principal.clone(),
            target: SocketAddr::new(target, port.target),
            protocol: port.protocol,
            strict: policies.refuses_plaintext(&id.namespace, &selectable),
            labels: Arc::new(service.labels.clone()),
            authorization: policies.authorization(&id.namespace, &selectable),
            limits: limits.of(SocketAddr::new(world.own_target(service), port.target)),
            connections: rules.policy(id, port.port).terms(),
        };
        let known = self
            .identities
            .entry(name.clone())
            .or_insert_with(|| principal.clone());
        if *known != principal {
            findings.error(
                "two-accounts",
                &format!("{id} ({})", service.origin),
                format!("one instance here presents {known}, another {principal}"),
                "write the same service_account for every instance of a service on one host",
            );
            return;
        }
        for port in &service.ports {
            for (dialled, target, captured) in places(world, service) {
                let dialled = SocketAddr::new(dialled, port.target);
                self.by_address
                    .entry(dialled)
                    .or_insert_with(|| Arc::new(port_at(port, target)));
                if captured {
                    self.captured.push(dialled);
                }
            }
            let by_target = self.by_server_name.entry(name.clone()).or_default();
            let fresh = Arc::new(port_at(port, world.own_target(service)));
            let first = by_target
                .entry(port.target)
                .or_insert_with(|| Arc::clone(&fresh));
            if first.target != fresh.target {
                findings.warning(
                    "same-target-port",
                    &format!("{id} ({})", service.origin),
                    format!("two instances listen on port {} at different addresses", port.target),
                    "give each instance of a service on one host its own port; callers that name only the port reach the first",
                );
            }
        }
    }
}

/// Where a program is dialled from outside, where that leads on this host, and whether it is captured.
fn places(world: &World<'_>, service: &LocalService) -> Vec<(IpAddr, IpAddr, bool)> {
    let own = world.own_addresses();
    match service.address {
        // On its own addresses, each as it was dialled, so that the program sees what it would have seen.
        None => own.into_iter().map(|ip| (ip, ip, true)).collect(),
        Some(address) if address.is_unspecified() => own
            .into_iter()
            .filter(|ip| address.is_ipv6() || ip.is_ipv4())
            .map(|ip| (ip, ip, true))
            .collect(),
        // On loopback: through the mesh only; peers name it by this host's addresses.
        Some(address) if is_loopback(address) && !own.contains(&address) => {
            own.into_iter().map(|ip| (ip, address, false)).collect()
        }
        Some(address) => vec![(address, address, true)],
    }
}
