//! Frontends: each service's port as callers see it, with its rules; and the ways to find one.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use mesh_model::{
    config::Capture,
    name::{Namespace, ServiceId},
    service::AppProtocol,
    snapshot::{Frontend, Map, Outbound, RuleTable, Target},
};

use crate::{
    Allocations, Input, VirtualPort,
    attach::{Attached, Route, RouteKind},
    backends::Backends,
    findings::Findings,
    routes::{Compiler, Unresolved},
    services::{Port, Services},
    share,
    tables::Tables,
    world::World,
};

/// What frontends are built from.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Room<'a> {
    pub(crate) world: &'a World<'a>,
    pub(crate) services: &'a Services,
    pub(crate) allocations: &'a Allocations,
    pub(crate) backends: &'a Backends,
    pub(crate) attached: &'a Attached<'a>,
    pub(crate) tables: &'a Tables,
    pub(crate) findings: &'a Findings,
}

/// Frontends, and the references of routes that lead nowhere.
#[derive(Debug)]
pub(crate) struct Routed {
    pub(crate) frontends: Vec<Arc<Frontend>>,
    pub(crate) resolved: Unresolved,
}

impl Room<'_> {
    pub(crate) fn build(&self) -> Routed {
        let before: BTreeMap<(&ServiceId, u16), &Arc<Frontend>> = self
            .world
            .input
            .previous
            .iter()
            .flat_map(|previous| &previous.outbound.frontends)
            .map(|frontend| ((&frontend.service, frontend.port), frontend))
            .collect();
        let mut unresolved = Unresolved::new();
        let mut frontends = Vec::new();
        for (id, service) in &self.services.by_id {
            for (number, port) in &service.ports {
                let Some(mut fresh) = self.frontend(id, *number, port, &mut unresolved) else {
                    continue;
                };
                fresh.fail_closed = service.fail_closed;
                frontends.push(share::frontend(fresh, before.get(&(id, *number)).copied()));
            }
        }
        Routed {
            frontends,
            resolved: unresolved,
        }
    }

    fn frontend(
        &self,
        id: &ServiceId,
        number: u16,
        port: &Port,
        unresolved: &mut Unresolved,
    ) -> Option<Frontend> {
        let backend = Arc::clone(self.backends.by_service.get(&(id.clone(), number))?);
        let (rules, tcp_rules) = self.producer(id, number, port, unresolved);
        Some(Frontend {
            service: id.clone(),
            port: number,
            port_name: Arc::clone(&port.name),
            protocol: port.protocol,
            virtual_addresses: self
                .allocations
                .0
                .get(id)
                .filter(|_| {
                    !self
                        .services
                        .by_id
                        .get(id)
                        .is_some_and(|service| service.headless)
                })
                .map(|(v4, v6)| vec![IpAddr::V4(*v4), IpAddr::V6(*v6)])
                .unwrap_or_default(),
            fail_closed: false,
            rules,
            consumer_rules: self.consumers(id, number, unresolved),
            tcp_rules,
            tls_rules: Vec::new(),
            faults: Arc::from([]),
            backend,
        })
    }

    fn acting(
        &self,
        id: &ServiceId,
        port: u16,
        consumer: Option<&Namespace>,
    ) -> Vec<(usize, &Route<'_>)> {
        let place = (id.clone(), port, consumer.cloned());
        let indexes = self
            .attached
            .places
            .get(&place)
            .map(Vec::as_slice)
            .unwrap_or_default();
        indexes
            .iter()
            .filter_map(|index| Some((*index, self.attached.routes.get(*index)?)))
            .collect()
    }

    fn compiler(&self, port: u16) -> Compiler<'_> {
        Compiler {
            services: self.services,
            backends: self.backends,
            findings: self.findings,
            port,
        }
    }

    /// Rules for everybody: of requests and of connections.
    fn producer(
        &self,
        id: &ServiceId,
        number: u16,
        port: &Port,
        unresolved: &mut Unresolved,
    ) -> (RuleTable, RuleTable) {
        let routes = self.acting(id, number, None);
        let by_table = self.tables.rules(id, number, &self.backends.by_service);
        if let (Some((_, route)), Some(table)) = (routes.first(), &by_table) {
            let name = table
                .rules
                .first()
                .map(|rule| rule.route.name.to_string())
                .unwrap_or_default();
            self.findings.warning(
                "table-without-effect",
                &format!("DelegationTable/{name}"),
                format!(
                    "{} is attached to {id}:{number} and goes before the table",
                    route.subject()
                ),
                "remove one of the two",
            );
        }
        if let Some(table) = &by_table {
            self.tell_failure(table);
        }
        match (routes.first().map(|(_, route)| route.kind), by_table) {
            (Some(RouteKind::Tcp | RouteKind::Tls), _) => (
                RuleTable::default(),
                self.compiler(number).table(&routes, unresolved),
            ),
            (Some(RouteKind::Http | RouteKind::Grpc), _) => (
                self.compiler(number).table(&routes, unresolved),
                RuleTable::default(),
            ),
            (None, Some(table)) if port.protocol == AppProtocol::Tcp => {
                (RuleTable::default(), table)
            }
            (None, Some(table)) if port.protocol.is_http() => (table, RuleTable::default()),
            (None, Some(table)) => (table.clone(), table),
            (None, None) => (RuleTable::default(), RuleTable::default()),
        }
    }

    fn tell_failure(&self, table: &RuleTable) {
        for rule in &table.rules {
            if let Target::Fail { reason, .. } = &rule.target {
                self.findings.warning(
                    "table-leads-nowhere",
                    &format!("DelegationTable/{}", rule.route.name),
                    reason.to_string(),
                    "correct the table; `meshctl explain` shows what a request would meet",
                );
            }
        }
    }

    fn consumers(
        &self,
        id: &ServiceId,
        number: u16,
        unresolved: &mut Unresolved,
    ) -> BTreeMap<Namespace, RuleTable> {
        let low = (id.clone(), number, None);
        let mut found = BTreeMap::new();
        for ((service, port, consumer), _) in self.attached.places.range(low..) {
            if (service, *port) != (id, number) {
                break;
            }
            let Some(namespace) = consumer else { continue };
            let routes = self.acting(id, number, Some(namespace));
            found.insert(
                namespace.clone(),
                self.compiler(number).table(&routes, unresolved),
            );
        }
        found
    }
}

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

fn captures(input: &Input<'_>) -> bool {
    input.transparent && input.boot.capture == Capture::Mesh
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
    if !captures(input) {
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
    if !captures(input) {
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
    let mut found: Vec<SocketAddr> = outbound.direct.keys().copied().collect();
    found.sort();
    found
}
