//! Routes attached to one place become one table of rules, best match first.

use std::{collections::BTreeMap, sync::Arc};

use mesh_model::{
    document::route::{
        BackendReference, GrpcRule, HttpMatch, HttpRetry, HttpRule, HttpTimeouts, TcpRule,
    },
    duration,
    name::{Namespace, ServiceId, ServiceName},
    snapshot::{
        Filter, RequestMatch, Retry, RouteReference, Rule, RuleTable, Target, Timeouts,
        WeightedTarget,
    },
};

use crate::{
    attach::{Body, Route},
    backends::Backends,
    findings::Findings,
    matches::{self, Rank},
    services::Services,
};

/// References of a route that lead nowhere: reason and message of the first.
pub(crate) type Unresolved = BTreeMap<usize, (&'static str, String)>;

/// What rules are compiled against.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Compiler<'a> {
    pub(crate) services: &'a Services,
    pub(crate) backends: &'a Backends,
    pub(crate) findings: &'a Findings,
    /// The port that was dialled: for references without one.
    pub(crate) port: u16,
}

struct Ranked {
    rank: Rank,
    created_ms: u64,
    name: Arc<str>,
    rule: usize,
    number: usize,
    compiled: Arc<Rule>,
}

impl Compiler<'_> {
    /// The table of the routes that act at one place.
    pub(crate) fn table(
        &self,
        routes: &[(usize, &Route<'_>)],
        unresolved: &mut Unresolved,
    ) -> RuleTable {
        let mut ranked = Vec::new();
        for (index, route) in routes {
            let mut broken = None;
            self.rules(route, &mut ranked, &mut broken);
            if let Some(broken) = broken {
                unresolved.entry(*index).or_insert(broken);
            }
        }
        ranked.sort_by(|a, b| {
            (&a.rank, a.created_ms, &a.name, a.rule, a.number).cmp(&(
                &b.rank,
                b.created_ms,
                &b.name,
                b.rule,
                b.number,
            ))
        });
        let rules = ranked.into_iter().map(|one| one.compiled).collect();
        RuleTable {
            attached: !routes.is_empty(),
            rules,
        }
    }

    fn rules(
        &self,
        route: &Route<'_>,
        out: &mut Vec<Ranked>,
        broken: &mut Option<(&'static str, String)>,
    ) {
        match route.body {
            Body::Http(spec) => {
                let every = [HttpRule::default()];
                let rules = if spec.rules.is_empty() {
                    &every[..]
                } else {
                    &spec.rules
                };
                for (index, rule) in rules.iter().enumerate() {
                    self.http_rule(route, index, rule, out, broken);
                }
            }
            Body::Grpc(spec) => {
                let every = [GrpcRule::default()];
                let rules = if spec.rules.is_empty() {
                    &every[..]
                } else {
                    &spec.rules
                };
                for (index, rule) in rules.iter().enumerate() {
                    self.grpc_rule(route, index, rule, out, broken);
                }
            }
            Body::Tcp(spec) => {
                // Of several rules the first acts: nothing in a connection tells them apart.
                if let Some(rule) = spec.rules.first() {
                    self.tcp_rule(route, rule, out, broken);
                }
            }
            Body::Tls(_) => {}
        }
    }

    fn http_rule(
        &self,
        route: &Route<'_>,
        index: usize,
        rule: &HttpRule,
        out: &mut Vec<Ranked>,
        broken: &mut Option<(&'static str, String)>,
    ) {
        let every = [HttpMatch::default()];
        let all = if rule.matches.is_empty() {
            &every[..]
        } else {
            &rule.matches
        };
        for (number, one) in all.iter().enumerate() {
            let Some(matches) = matches::http(one) else {
                continue;
            };
            let target = self.target(route, &rule.backend_refs, &matches, 500, broken);
            let filters = matches::filters(&rule.filters, &matches);
            let redirects = filters
                .iter()
                .any(|filter| matches!(filter, Filter::Redirect(_)));
            if rule.backend_refs.is_empty() && !redirects {
                self.without_backend(route, index);
            }
            let compiled = Rule {
                route: reference(route, index),
                filters,
                target,
                timeouts: timeouts(rule.timeouts.as_ref()),
                retry: retry(rule.retry.as_ref()),
                faults: Arc::from([]),
                persistence: None,
                matches,
            };
            out.push(ranked(route, index, number, compiled));
        }
    }

    fn grpc_rule(
        &self,
        route: &Route<'_>,
        index: usize,
        rule: &GrpcRule,
        out: &mut Vec<Ranked>,
        broken: &mut Option<(&'static str, String)>,
    ) {
        let every = [mesh_model::document::route::GrpcMatch::default()];
        let all = if rule.matches.is_empty() {
            &every[..]
        } else {
            &rule.matches
        };
        if rule.backend_refs.is_empty() {
            self.without_backend(route, index);
        }
        for (number, one) in all.iter().enumerate() {
            let Some(matches) = matches::grpc(one) else {
                continue;
            };
            // 503, which becomes UNAVAILABLE: that is what a gRPC caller of a broken backend must see.
            let target = self.target(route, &rule.backend_refs, &matches, 503, broken);
            let compiled = Rule {
                route: reference(route, index),
                filters: matches::filters(&rule.filters, &matches),
                target,
                timeouts: Timeouts::default(),
                retry: Retry::default(),
                faults: Arc::from([]),
                persistence: None,
                matches,
            };
            out.push(ranked(route, index, number, compiled));
        }
    }

    fn tcp_rule(
        &self,
        route: &Route<'_>,
        rule: &TcpRule,
        out: &mut Vec<Ranked>,
        broken: &mut Option<(&'static str, String)>,
    ) {
        let matches = RequestMatch::default();
        let compiled = Rule {
            route: reference(route, 0),
            filters: Arc::from([]),
            target: self.target(route, &rule.backend_refs, &matches, 500, broken),
            timeouts: Timeouts::default(),
            retry: Retry::default(),
            faults: Arc::from([]),
            persistence: None,
            matches,
        };
        out.push(ranked(route, 0, 0, compiled));
    }

    fn without_backend(&self, route: &Route<'_>, index: usize) {
        self.findings.warning(
            "route-without-backend",
            &route.subject(),
            format!("rule {index} names no backend, so its requests are answered with an error"),
            "write backendRefs, or a redirect",
        );
    }

    /// Where a rule leads: a share to each backend of weight above 0; a share of errors for broken ones.
    fn target(
        &self,
        route: &Route<'_>,
        backends: &[BackendReference],
        matches: &RequestMatch,
        status: u16,
        broken: &mut Option<(&'static str, String)>,
    ) -> Target {
        let mut shares: Vec<WeightedTarget> = Vec::new();
        for one in backends.iter().filter(|one| one.weight != Some(0)) {
            let target = self.resolve(route, one).unwrap_or_else(|(reason, why)| {
                let code = match reason {
                    "InvalidKind" => "route-invalid-backend",
                    _ => "route-unknown-backend",
                };
                self.findings.warning(
                    code,
                    &route.subject(),
                    why.clone(),
                    "correct the backendRef, or start the service",
                );
                broken.get_or_insert_with(|| (reason, why.clone()));
                Target::Fail {
                    status,
                    code: "no-backend",
                    reason: Arc::from(why),
                }
            });
            let filters = matches::filters(&one.filters, matches);
            shares.push(WeightedTarget {
                weight: one.weight.unwrap_or(1),
                target,
                filters,
            });
        }
        match shares.len() {
            0 => Target::Fail {
                status,
                code: "no-backend",
                reason: Arc::from("the rule names no backend with a weight"),
            },
            1 if shares.iter().all(|share| share.filters.is_empty()) => shares.remove(0).target,
            _ => Target::Weighted(shares),
        }
    }

    fn resolve(
        &self,
        route: &Route<'_>,
        one: &BackendReference,
    ) -> Result<Target, (&'static str, String)> {
        let group = one.group.as_deref().unwrap_or_default();
        let kind = one.kind.as_deref().unwrap_or("Service");
        if !group.is_empty() || kind != "Service" {
            return Err((
                "InvalidKind",
                format!("a backend of kind {kind} is not known here"),
            ));
        }
        let namespace = one.namespace.as_deref().unwrap_or(route.namespace.as_str());
        let unknown = || {
            (
                "BackendNotFound",
                format!("the service {namespace}/{} is not known", one.name),
            )
        };
        let (Ok(namespace), Ok(name)) = (Namespace::new(namespace), ServiceName::new(&one.name))
        else {
            return Err(unknown());
        };
        let id = ServiceId::new(namespace, name);
        let service = self.services.by_id.get(&id).ok_or_else(unknown)?;
        let port = match one.port {
            Some(port) => port,
            None if service.ports.len() == 1 => {
                service.ports.keys().copied().next().unwrap_or(self.port)
            }
            None => self.port,
        };
        self.backends
            .by_service
            .get(&(id.clone(), port))
            .map(|backend| Target::Backend(Arc::clone(backend)))
            .ok_or_else(|| ("BackendNotFound", format!("{id} has no port {port}")))
    }
}

fn ranked(route: &Route<'_>, rule: usize, number: usize, compiled: Rule) -> Ranked {
    Ranked {
        rank: matches::rank(&compiled.matches),
        created_ms: route.created_ms,
        name: Arc::clone(&route.name),
        rule,
        number,
        compiled: Arc::new(compiled),
    }
}

fn reference(route: &Route<'_>, rule: usize) -> Arc<RouteReference> {
    Arc::new(RouteReference {
        kind: route.kind.name(),
        name: Arc::clone(&route.name),
        rule,
        revision: Some(route.revision),
        author: Arc::clone(&route.author),
    })
}

/// `0s` switches a time-out off.
fn timeouts(given: Option<&HttpTimeouts>) -> Timeouts {
    let span = |text: Option<&String>| {
        text.and_then(|text| duration::parse(text).ok())
            .filter(|span| !span.is_zero())
    };
    Timeouts {
        request: span(given.and_then(|given| given.request.as_ref())),
        backend_request: span(given.and_then(|given| given.backend_request.as_ref())),
        idle: None,
    }
}

/// A route's own retry replaces the default: only its codes, for every method.
fn retry(given: Option<&HttpRetry>) -> Retry {
    let default = Retry::default();
    let Some(given) = given else { return default };
    let mut codes = given.codes.clone();
    codes.sort_unstable();
    Retry {
        attempts: given.attempts.unwrap_or(default.attempts),
        codes,
        idempotent_only: false,
        backoff: given
            .backoff
            .as_ref()
            .and_then(|text| duration::parse(text).ok())
            .unwrap_or(default.backoff),
        ..default
    }
}
