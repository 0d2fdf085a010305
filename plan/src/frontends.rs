//! Frontends: each service's port as callers see it, with its rules.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use mesh_model::{
    name::{Namespace, ServiceId},
    service::AppProtocol,
    snapshot::{Frontend, NamedSource, RuleTable, Target, decide::Known},
};

use crate::{
    Allocations,
    attach::{Attached, Route},
    backends::Backends,
    doubts,
    faults::Faults,
    findings::Findings,
    routes::{
        self, Acting, Compiler, Unresolved,
        combine::{self, Consumer},
    },
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
    pub(crate) named: &'a [Arc<NamedSource>],
    pub(crate) faults: &'a Faults<'a>,
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
                doubts::unreached(&fresh, self.findings);
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
        let producer = self.producer(id, number, port, unresolved);
        let consumers = self.consumers(id, number, port, unresolved);
        let rules = combine::join(producer, consumers, &backend);
        let service = self.services.by_id.get(id);
        let headless = service.is_some_and(|service| service.headless);
        let addresses = self.allocations.0.get(id).filter(|_| !headless);
        Some(Frontend {
            service: id.clone(),
            port: number,
            port_name: Arc::clone(&port.name),
            protocol: port.protocol,
            virtual_addresses: addresses
                .map(|(v4, v6)| vec![IpAddr::V4(*v4), IpAddr::V6(*v6)])
                .unwrap_or_default(),
            fail_closed: false,
            rules: rules.rules,
            consumer_rules: rules.consumer_rules,
            tcp_rules: rules.tcp_rules,
            tls_rules: rules.tls_rules,
            faults: self.faults.of(id, number),
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

    fn compiler(&self, number: u16, port: &Port) -> Compiler<'_> {
        Compiler {
            world: self.world,
            services: self.services,
            backends: self.backends,
            findings: self.findings,
            port: number,
            protocol: port.protocol,
        }
    }

    /// Rules for everybody, of requests and of connections: of routes, or else of a delegation table.
    fn producer(
        &self,
        id: &ServiceId,
        number: u16,
        port: &Port,
        unresolved: &mut Unresolved,
    ) -> Acting {
        let routes = self.acting(id, number, None);
        let known = Known {
            backends: &self.backends.by_service,
            sources: self.named,
        };
        let by_table = self.tables.rules(id, number, known);
        if let Some(table) = &by_table {
            self.tell_failure(table);
        }
        match (routes.first(), by_table) {
            (None, None) => Acting::default(),
            (None, Some(table)) => Acting {
                tcp: if port.protocol.is_http() {
                    RuleTable::default()
                } else {
                    table.clone()
                },
                http: if port.protocol == AppProtocol::Tcp {
                    RuleTable::default()
                } else {
                    table
                },
                tls: Vec::new(),
            },
            (Some((_, route)), by_table) => {
                if let Some(table) = by_table {
                    self.tell_idle(id, number, &table, route);
                }
                self.compiler(number, port).place(&routes, unresolved)
            }
        }
    }

    fn tell_idle(&self, id: &ServiceId, number: u16, table: &RuleTable, route: &Route<'_>) {
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
        port: &Port,
        unresolved: &mut Unresolved,
    ) -> Vec<Consumer> {
        let low = (id.clone(), number, None);
        let mut found = Vec::new();
        for ((service, other, consumer), _) in self.attached.places.range(low..) {
            if (service, *other) != (id, number) {
                break;
            }
            let Some(namespace) = consumer else { continue };
            let routes = self.acting(id, number, Some(namespace));
            let Some((_, first)) = routes.first() else {
                continue;
            };
            found.push(Consumer {
                namespace: namespace.clone(),
                route: routes::reference(first, 0),
                acting: self.compiler(number, port).place(&routes, unresolved),
            });
        }
        found
    }
}
