//! Which route acts, and which backends it leads to with what share.

use std::sync::Arc;

use mesh_model::{
    dtab::Dtab,
    snapshot::{
        Backend, Frontend, RouteReference, Rule, RuleTable, Target,
        decide::{self, Connected, Matched, Opening},
    },
};

use super::{State, Story};

impl Story<'_> {
    pub(super) fn http_target(&mut self, frontend: &Arc<Frontend>) -> Option<Target> {
        if let Some(target) = self.delegated(frontend) {
            return Some(target);
        }
        let namespace = &self.caller.namespace;
        let consumer = frontend.consumer_rules.contains_key(namespace);
        match decide::matched(frontend, namespace, &self.called()) {
            Matched::Default(backend) => {
                self.steps.add(
                    "route",
                    State::Ok,
                    "the service's own endpoints",
                    "no route is attached",
                );
                self.tell_faults(frontend, None);
                Some(Target::Backend(Arc::clone(backend)))
            }
            Matched::Rule(rule) => {
                let scope = if consumer {
                    format!(", for callers of {namespace}")
                } else {
                    String::new()
                };
                let (what, because) = told_rule(rule);
                self.steps
                    .add("route", State::Ok, format!("{what}{scope}"), because);
                self.tell_faults(frontend, Some(rule));
                self.tell_changes(rule).then(|| rule.target.clone())
            }
            Matched::NoRule => {
                let routes = told_routes(decide::rules_for(frontend, namespace));
                self.steps.add(
                    "route",
                    State::Refused,
                    "no rule matches: 404 no-route",
                    format!("attached and not matching: {routes}"),
                );
                None
            }
        }
    }

    /// Where the caller's own delegation table sends the request.
    pub(super) fn delegated(&mut self, frontend: &Arc<Frontend>) -> Option<Target> {
        let text = self
            .asked
            .headers
            .iter()
            .find(|(name, _)| name.eq_ignore_ascii_case("l5d-dtab"))
            .map(|(_, value)| value.clone())?;
        if !self.caller.trusted {
            self.steps.add(
                "route",
                State::Warning,
                "l5d-dtab is ignored",
                "the caller is not trusted",
            );
            return None;
        }
        match Dtab::parse(&text) {
            Ok(table) => {
                let target = decide::delegate(self.snapshot, frontend, &table)?;
                self.steps.add(
                    "route",
                    State::Ok,
                    "the caller's own delegation table",
                    format!("l5d-dtab: {text}"),
                );
                Some(target)
            }
            Err(error) => {
                self.steps.add(
                    "route",
                    State::Warning,
                    "l5d-dtab is ignored",
                    error.to_string(),
                );
                None
            }
        }
    }

    pub(super) fn tcp_target(&mut self, frontend: &Arc<Frontend>) -> Option<Target> {
        let opening = if self.asked.tls {
            Opening::Tls(self.asked.server_name())
        } else {
            Opening::Other
        };
        let found = decide::connected(frontend, opening, &self.source());
        match found {
            Connected::Rule { route, target } => {
                let (what, because) = told_route(route);
                self.steps.add("route", State::Ok, what, because);
                Some(target.clone())
            }
            Connected::Default(backend) => {
                self.steps.add(
                    "route",
                    State::Ok,
                    "the service's own endpoints",
                    "no route of connections takes it",
                );
                Some(Target::Backend(Arc::clone(backend)))
            }
            Connected::NoRule => {
                self.steps.add(
                    "route",
                    State::Refused,
                    "no rule takes this connection: no-route",
                    "a route is attached to this port",
                );
                None
            }
        }
    }

    /// Tells the shares, and collects the backends, the likeliest first.
    pub(super) fn tell_target(&mut self, target: &Target, out: &mut Vec<Arc<Backend>>) {
        match target {
            Target::Backend(backend) => {
                self.steps
                    .add("backend", State::Ok, name(backend), "the only one");
                out.push(Arc::clone(backend));
            }
            Target::Weighted(shares) => {
                let total: u64 = shares.iter().map(|share| u64::from(share.weight)).sum();
                let mut shares: Vec<_> = shares.iter().filter(|share| share.weight > 0).collect();
                shares.sort_by_key(|share| std::cmp::Reverse(share.weight));
                for share in shares {
                    let percent = 100.0 * f64::from(share.weight) / precise(total);
                    let because = format!("weight {} of {total}", share.weight);
                    match &share.target {
                        Target::Backend(backend) => {
                            self.steps.add(
                                "backend",
                                State::Ok,
                                format!("{percent:.1} % to {}", name(backend)),
                                because,
                            );
                            out.push(Arc::clone(backend));
                        }
                        other => {
                            self.steps.add(
                                "backend",
                                State::Ok,
                                format!("{percent:.1} % as follows"),
                                because,
                            );
                            self.tell_target(other, out);
                        }
                    }
                }
            }
            Target::Failover(targets) => {
                self.steps.add(
                    "backend",
                    State::Ok,
                    "the first of these with a usable endpoint",
                    "alternatives, tried in order",
                );
                for one in targets {
                    self.tell_target(one, out);
                }
            }
            Target::Fail {
                status,
                code,
                reason,
            } => {
                self.steps.add(
                    "backend",
                    State::Refused,
                    format!("{status} {code}"),
                    reason.to_string(),
                );
            }
        }
    }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "a sum of weights, shown with one decimal"
)]
fn precise(total: u64) -> f64 {
    total.max(1) as f64
}

pub(super) fn name(backend: &Backend) -> String {
    let (service, port, subset) = (&backend.service, backend.port, &backend.subset);
    if subset.is_empty() {
        format!("{service}:{port}")
    } else {
        format!("{service}:{port} subset {subset}")
    }
}

pub(super) fn kind_and_name(route: &RouteReference) -> String {
    format!("{} {}", route.kind, route.name)
}

fn told_route(route: &RouteReference) -> (String, String) {
    let what = format!("{} {} rule {}", route.kind, route.name, route.rule);
    let revision = route.revision.map(|id| id.short()).unwrap_or_default();
    (what, format!("revision {revision} by {}", route.author))
}

fn told_rule(rule: &Rule) -> (String, String) {
    let (mut what, because) = told_route(&rule.route);
    if let Some(span) = rule.timeouts.request {
        what += ", time-out ";
        what += &mesh_model::duration::print(span);
    }
    what += ", ";
    what += &rule.retry.attempts.to_string();
    what += " further tries";
    (what, because)
}

fn told_routes(table: &RuleTable) -> String {
    let mut names: Vec<String> = table
        .rules
        .iter()
        .map(|rule| format!("{} {}", rule.route.kind, rule.route.name))
        .collect();
    names.dedup();
    names.join(", ")
}
