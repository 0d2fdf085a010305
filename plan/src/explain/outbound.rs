//! The part of the calling host: caller, name, capture, route, backend, endpoints, TLS.

use std::{net::SocketAddr, sync::Arc};

use mesh_model::{
    admin::Explain,
    dtab::Dtab,
    name::ServiceId,
    service::AppProtocol,
    snapshot::{
        Backend, BackendEndpoint, Caller, Direct, Frontend, Rule, RuleTable, Snapshot, Target,
        decide::{self, Matched},
    },
};

use super::{Asked, ExplainError, Far, Question, State, Steps, Told, View};
use crate::Candidate;

/// Backends of one target that are told in full.
const MOST_BACKENDS: usize = 8;

pub(super) fn explain(view: &View<'_>, request: &Explain) -> Result<Told, ExplainError> {
    let snapshot = &view.compiled.snapshot;
    if snapshot.mesh.is_none() {
        return Err(ExplainError::NoMesh);
    }
    let asked = Asked::read(request)?;
    let caller = caller(snapshot, &request.from)?;
    let mut story = Story {
        view,
        snapshot,
        asked,
        caller,
        steps: Steps::of(snapshot),
    };
    story.tell_caller();
    let far = match story.destination() {
        Some(Destination::Frontend(frontend)) => story.frontend(&frontend),
        Some(Destination::Direct(direct)) => story.direct(&direct),
        None => None,
    };
    Ok(story.steps.told(far))
}

fn caller(snapshot: &Snapshot, from: &str) -> Result<Arc<Caller>, ExplainError> {
    let callers = &snapshot.callers;
    if from.is_empty() {
        return callers.host.clone().ok_or(ExplainError::NoMesh);
    }
    let id = ServiceId::parse(from).map_err(ExplainError::Caller)?;
    callers
        .by_service
        .get(&id)
        .cloned()
        .ok_or_else(|| ExplainError::NotHere(id.to_string()))
}

enum Destination {
    Frontend(Arc<Frontend>),
    Direct(Direct),
}

struct Story<'a> {
    view: &'a View<'a>,
    snapshot: &'a Snapshot,
    asked: Asked<'a>,
    caller: Arc<Caller>,
    steps: Steps,
}

impl Story<'_> {
    fn tell_caller(&mut self) {
        let callers = &self.snapshot.callers;
        let mut known: Vec<String> = Vec::new();
        let mut units: Vec<&str> = callers
            .by_unit
            .iter()
            .filter(|(_, caller)| **caller == self.caller)
            .map(|(unit, _)| &**unit)
            .collect();
        units.sort_unstable();
        known.extend(units.iter().map(|unit| format!("unit {unit}")));
        let mut uids: Vec<u32> = callers
            .by_uid
            .iter()
            .filter(|(_, caller)| **caller == self.caller)
            .map(|(uid, _)| *uid)
            .collect();
        uids.sort_unstable();
        known.extend(uids.iter().map(|uid| format!("user {uid}")));
        let (state, because) = match (&self.caller.service, known.is_empty()) {
            (None, _) => (
                State::Ok,
                "no service of this host, so the host itself".to_owned(),
            ),
            (Some(_), false) => (State::Ok, format!("recognised by {}", known.join(", "))),
            (Some(service), true) => (
                State::Warning,
                format!("{service} has neither unit nor user, so its processes call as the host"),
            ),
        };
        self.steps
            .add("caller", state, self.caller.principal.to_string(), because);
    }

    /// Finds what is called, and tells how the call reaches the mesh.
    fn destination(&mut self) -> Option<Destination> {
        let default = if self.asked.http { Some(80) } else { None };
        if let Some(address) = self.address() {
            return self.by_address(address);
        }
        let authority = self.asked.authority;
        let found = self.snapshot.outbound.named(authority, None).cloned();
        let Some(frontend) = found else {
            self.unknown(authority, default);
            return None;
        };
        let addresses: Vec<String> = frontend
            .virtual_addresses
            .iter()
            .map(ToString::to_string)
            .collect();
        self.steps.add(
            "name",
            State::Ok,
            format!("{}:{}", frontend.service, frontend.port),
            if addresses.is_empty() {
                format!("{authority} is headless: its name leads to the endpoints' own addresses")
            } else {
                format!("{authority} is {}", addresses.join(" and "))
            },
        );
        self.tell_capture(if self.view.captured {
            "the virtual address is redirected to the data plane"
        } else {
            "interception is off here: the call reaches the mesh through the explicit listener only"
        });
        Some(Destination::Frontend(frontend))
    }

    fn unknown(&mut self, authority: &str, default: Option<u16>) {
        let host = authority
            .rsplit_once(':')
            .map_or(authority, |(host, _)| host);
        let mut ports: Vec<u16> = self
            .snapshot
            .outbound
            .by_host
            .get(host.to_ascii_lowercase().as_str())
            .map(|ports| ports.keys().copied().collect())
            .unwrap_or_default();
        ports.sort_unstable();
        let because = if ports.is_empty() {
            "no service of the mesh has this name; see `meshctl services`".to_owned()
        } else {
            let default = default
                .map(|port| format!(" (http means {port})"))
                .unwrap_or_default();
            format!("the service has only the ports {ports:?}{default}")
        };
        self.steps.add(
            "name",
            State::Refused,
            format!("{authority} is not known: unknown-service"),
            because,
        );
    }

    fn address(&self) -> Option<SocketAddr> {
        let authority = self.asked.authority;
        let bare = authority.trim_start_matches('[').trim_end_matches(']');
        authority
            .parse()
            .ok()
            .or_else(|| Some(SocketAddr::new(bare.parse().ok()?, 80)))
    }

    fn by_address(&mut self, address: SocketAddr) -> Option<Destination> {
        let outbound = &self.snapshot.outbound;
        if let Some(frontend) = outbound.by_address.get(&address).cloned() {
            let what = format!("{}:{}", frontend.service, frontend.port);
            self.steps.add(
                "name",
                State::Ok,
                what,
                format!("{address} is its virtual address"),
            );
            self.tell_capture("the virtual address is redirected to the data plane");
            return Some(Destination::Frontend(frontend));
        }
        if let Some(direct) = outbound.direct.get(&address).cloned() {
            let what = format!(
                "{} of {}:{}",
                direct.endpoint.id, direct.backend.service, direct.backend.port
            );
            self.steps.add(
                "name",
                State::Ok,
                what,
                format!("{address} is that endpoint's own address"),
            );
            self.tell_capture(
                "known endpoints' own addresses are redirected, so that they get mTLS",
            );
            return Some(Destination::Direct(direct));
        }
        self.steps.add(
            "capture",
            State::Warning,
            format!("{address} is not captured: the call goes there unchanged"),
            "neither a virtual address nor a known endpoint of another host",
        );
        None
    }

    fn tell_capture(&mut self, because: &str) {
        let (state, what) = if self.view.captured {
            (State::Ok, "captured")
        } else {
            (State::Warning, "not captured")
        };
        self.steps.add("capture", state, what, because);
    }

    fn frontend(&mut self, frontend: &Arc<Frontend>) -> Option<Far> {
        let target = if self.asked.http && frontend.protocol != AppProtocol::Tcp {
            self.http_target(frontend)?
        } else {
            self.tcp_target(frontend)
        };
        let mut backends = Vec::new();
        self.tell_target(&target, &mut backends);
        backends.dedup_by(|a, b| a.key == b.key);
        let told: Vec<Option<Far>> = backends
            .iter()
            .take(MOST_BACKENDS)
            .map(|backend| self.backend(backend))
            .collect();
        told.into_iter().flatten().next()
    }

    fn http_target(&mut self, frontend: &Arc<Frontend>) -> Option<Target> {
        if let Some(target) = self.delegated(frontend) {
            return Some(target);
        }
        let namespace = &self.caller.namespace;
        let consumer = frontend.consumer_rules.contains_key(namespace);
        match decide::matched(frontend, namespace, &self.asked) {
            Matched::Default(backend) => {
                self.steps.add(
                    "route",
                    State::Ok,
                    "the service's own endpoints",
                    "no route is attached",
                );
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
                Some(rule.target.clone())
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
    fn delegated(&mut self, frontend: &Arc<Frontend>) -> Option<Target> {
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

    fn tcp_target(&mut self, frontend: &Arc<Frontend>) -> Target {
        let Some(rule) = frontend.tcp_rules.rules.first() else {
            self.steps.add(
                "route",
                State::Ok,
                "the service's own endpoints",
                "no TCPRoute is attached",
            );
            return Target::Backend(Arc::clone(&frontend.backend));
        };
        let (what, because) = told_rule(rule);
        self.steps.add("route", State::Ok, what, because);
        rule.target.clone()
    }

    /// Tells the shares, and collects the backends, the likeliest first.
    fn tell_target(&mut self, target: &Target, out: &mut Vec<Arc<Backend>>) {
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
                    "alternatives (`|`) of a delegation table",
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

    /// Tells every endpoint of a backend, and TLS to the first that can be used.
    fn backend(&mut self, backend: &Arc<Backend>) -> Option<Far> {
        let key = (backend.service.clone(), backend.port);
        let candidates = self.view.compiled.candidates.get(&key);
        for candidate in candidates.map(Vec::as_slice).unwrap_or_default() {
            self.candidate(backend, candidate);
        }
        let usable = |one: &&Arc<BackendEndpoint>| !self.view.ejected.contains(&one.key);
        let best = backend
            .endpoints
            .iter()
            .filter(usable)
            .min_by_key(|one| (!one.preferred, one.priority));
        let best = best.or_else(|| backend.endpoints.first()).cloned();
        match best {
            None => {
                self.steps.add(
                    "endpoint",
                    State::Refused,
                    format!("none of {}: 503 no-endpoint", name(backend)),
                    "every endpoint is left out",
                );
                None
            }
            Some(endpoint) => self.tls(&endpoint),
        }
    }

    fn candidate(&mut self, backend: &Backend, candidate: &Candidate) {
        let what = format!(
            "{} at {} ({})",
            candidate.id, candidate.address, candidate.security
        );
        let endpoint = backend
            .endpoints
            .iter()
            .find(|one| *one.id == *candidate.id);
        let ejected = endpoint.is_some_and(|one| self.view.ejected.contains(&one.key));
        match &candidate.left_out {
            Some(why) => self.steps.add(
                "endpoint",
                State::Refused,
                format!("{what}: left out"),
                why.clone(),
            ),
            None if ejected => {
                self.steps.add(
                    "endpoint",
                    State::Warning,
                    format!("{what}: kept out for now"),
                    "it failed just now",
                );
            }
            None if !candidate.reluctant.is_empty() => {
                self.steps.add(
                    "endpoint",
                    State::Warning,
                    format!("{what}: last resort"),
                    candidate.reluctant.clone(),
                );
            }
            None => {
                let weight = endpoint.map_or(1, |one| one.weight);
                self.steps.add(
                    "endpoint",
                    State::Ok,
                    format!("{what}: eligible"),
                    format!(
                        "{}, weight {weight}; the less loaded of two random ones is taken",
                        crate::services::word(candidate.health)
                    ),
                );
            }
        }
    }

    fn tls(&mut self, endpoint: &Arc<BackendEndpoint>) -> Option<Far> {
        let Some(tunnel) = &endpoint.tunnel else {
            let (state, because) = if endpoint.local {
                (State::Ok, "the program runs on this host")
            } else {
                (State::Warning, "no daemon of the mesh is known there")
            };
            self.steps.add(
                "tls",
                state,
                format!("none: plaintext to {}", endpoint.address),
                because,
            );
            return None;
        };
        let peers: Vec<String> = tunnel.sans.iter().map(ToString::to_string).collect();
        let server_name = tunnel.server_name.as_deref().unwrap_or_default().to_owned();
        self.steps.add(
            "tls",
            State::Ok,
            format!(
                "mTLS to {} as {}, peer {}",
                tunnel.address,
                self.caller.principal,
                peers.join(" or ")
            ),
            format!(
                "server name {server_name}; the certificate of {} and its grant are checked",
                endpoint.host_name
            ),
        );
        Some(Far {
            host: endpoint.host?,
            host_name: endpoint.host_name.to_string(),
            question: Question {
                caller: self.caller.principal.clone(),
                server_name,
                address: endpoint.address,
                method: if self.asked.http {
                    self.asked.method.to_owned()
                } else {
                    String::new()
                },
                path: self.asked.path.to_owned(),
            },
        })
    }

    fn direct(&mut self, direct: &Direct) -> Option<Far> {
        self.steps.add(
            "route",
            State::Ok,
            "none: straight to the endpoint",
            "routes act on calls to the service, not to an endpoint",
        );
        self.tls(&direct.endpoint)
    }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "a sum of weights, shown with one decimal"
)]
fn precise(total: u64) -> f64 {
    total.max(1) as f64
}

fn name(backend: &Backend) -> String {
    format!("{}:{}", backend.service, backend.port)
}

fn told_rule(rule: &Rule) -> (String, String) {
    let route = &rule.route;
    let mut what = format!("{} {} rule {}", route.kind, route.name, route.rule);
    if let Some(span) = rule.timeouts.request {
        what += ", time-out ";
        what += &mesh_model::duration::print(span);
    }
    what += ", ";
    what += &rule.retry.attempts.to_string();
    what += " further tries";
    let revision = route.revision.map(|id| id.short()).unwrap_or_default();
    (what, format!("revision {revision} by {}", route.author))
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
