//! What is written and can never act: rules behind others that take everything first, ports that are not there.

use std::collections::BTreeMap;

use mesh_model::{
    document::virtual_service::VirtualServiceSpec,
    name::{Namespace, ServiceId},
    snapshot::{Frontend, RequestMatch, Rule, RuleTable},
};

use crate::{
    attach::{Body, Route},
    findings::Findings,
    hosts,
    key::Stable,
    services::Services,
    world::World,
};

/// Tells the rules of a frontend that no request reaches.
pub(crate) fn unreached(frontend: &Frontend, findings: &Findings) {
    of_table(&frontend.rules, findings);
    for table in frontend.consumer_rules.values() {
        of_table(table, findings);
    }
}

fn of_table(table: &RuleTable, findings: &Findings) {
    if table.rules.len() < 2 {
        return;
    }
    let every = RequestMatch::default();
    let mut known: BTreeMap<u64, &Rule> = BTreeMap::new();
    let mut takes_all: Option<&Rule> = None;
    for rule in &table.rules {
        let mut hash = Stable::new();
        hash.debug(&rule.matches);
        let earlier = takes_all.or_else(|| known.get(&hash.finish()).copied());
        // Of one document the reader of documents tells it.
        let another = |earlier: &&Rule| {
            (earlier.route.kind, &earlier.route.name) != (rule.route.kind, &rule.route.name)
        };
        if let Some(earlier) = earlier.filter(another) {
            tell(rule, earlier, findings);
            continue;
        }
        known.entry(hash.finish()).or_insert(rule);
        if rule.matches == every {
            takes_all = takes_all.or(Some(rule));
        }
    }
}

fn tell(rule: &Rule, earlier: &Rule, findings: &Findings) {
    let path = |rule: &Rule| match rule.route.kind {
        "VirtualService" => format!("spec.http[{}]", rule.route.rule),
        _ => format!("spec.rules[{}]", rule.route.rule),
    };
    let (own, other) = (&rule.route, &earlier.route);
    findings.note(
        "rule-unreached",
        &format!("{}/{}", own.kind, own.name),
        format!(
            "{}: {} of {} {} takes all that it asks for before it",
            path(rule),
            path(earlier),
            other.kind,
            other.name
        ),
        "remove one of the two, or ask for something narrower in the earlier one",
    );
}

/// Tells ports that a VirtualService asks for and that none of its services has.
pub(crate) fn ports(
    world: &World<'_>,
    services: &Services,
    routes: &[Route<'_>],
    findings: &Findings,
) {
    for route in routes {
        let Body::Virtual(spec) = route.body else {
            continue;
        };
        let called: Vec<ServiceId> = spec
            .hosts
            .iter()
            .filter_map(|host| hosts::service(host, &route.namespace, &world.mesh.domain))
            .filter(|id| services.by_id.contains_key(id))
            .collect();
        if called.is_empty() {
            continue;
        }
        for (path, port) in asked(spec) {
            let there = |id: &ServiceId| {
                let service = services.by_id.get(id);
                service.is_some_and(|service| service.ports.contains_key(&port))
            };
            if !called.iter().any(there) {
                findings.warning(
                    "policy-unknown-port",
                    &route.subject(),
                    format!(
                        "{path}: {} has no port {port}",
                        names(&called, &route.namespace)
                    ),
                    "write a port of the service, or leave it out",
                );
            }
        }
    }
}

fn names(ids: &[ServiceId], own: &Namespace) -> String {
    let name = |id: &ServiceId| {
        if id.namespace == *own {
            id.name.to_string()
        } else {
            id.to_string()
        }
    };
    let all: Vec<String> = ids.iter().map(name).collect();
    all.join(" or ")
}

/// Ports that conditions ask for, with the paths of their fields.
fn asked(spec: &VirtualServiceSpec) -> Vec<(String, u16)> {
    let mut all = Vec::new();
    let mut add = |kind: &str, rule: usize, ports: Vec<Option<u16>>| {
        for (number, port) in ports.into_iter().enumerate() {
            let path = format!("spec.{kind}[{rule}].match[{number}].port");
            all.extend(port.map(|port| (path, port)));
        }
    };
    for (index, rule) in spec.http.iter().enumerate() {
        add(
            "http",
            index,
            rule.matches.iter().map(|one| one.port).collect(),
        );
    }
    for (index, rule) in spec.tls.iter().enumerate() {
        add(
            "tls",
            index,
            rule.matches.iter().map(|one| one.port).collect(),
        );
    }
    for (index, rule) in spec.tcp.iter().enumerate() {
        add(
            "tcp",
            index,
            rule.matches.iter().map(|one| one.port).collect(),
        );
    }
    all
}
