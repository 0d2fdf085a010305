//! Match, authorize, choose: pure functions that the proxy and `explain` both run.

use std::{borrow::Cow, collections::BTreeMap, net::IpAddr, sync::Arc};

use super::{
    Authorization, AuthorizationRule, Backend, Caller, Filter, Frontend, NamedSource, Outbound,
    RouteReference, Rule, RuleTable, Snapshot, Target, WeightedTarget, namers::named,
};
use crate::{
    dtab::{self, Bound, Dtab, delegate::service_path},
    name::{Namespace, ServiceId},
    principal::SpiffeId,
};

mod fits;

/// A request as rules see it.
pub trait RequestView {
    /// The method, such as `GET`.
    fn method(&self) -> &str;
    /// The path without the query, normalised for matching.
    fn path(&self) -> &str;
    /// The query without `?`; empty when there is none.
    fn query(&self) -> &str;
    /// The value of a header (name in lower case); several lines joined with `,`.
    fn header(&self, name: &str) -> Option<Cow<'_, [u8]>>;
    /// `Host` or `:authority`, in lower case.
    fn authority(&self) -> Option<&str> {
        None
    }
    /// Who calls.
    fn source(&self) -> Source<'_> {
        Source::default()
    }
}

/// Who calls, as rules see it.
#[derive(Debug, Clone, Copy, Default)]
pub struct Source<'a> {
    /// Its identity, when it is known.
    pub identity: Option<&'a SpiffeId>,
    /// Its service, when it is a local caller.
    pub service: Option<&'a ServiceId>,
    /// Its labels, when it is a local caller.
    pub labels: Option<&'a BTreeMap<String, String>>,
    /// Its address.
    pub address: Option<IpAddr>,
}

impl<'a> Source<'a> {
    /// A local caller.
    pub fn local(caller: &'a Caller, address: Option<IpAddr>) -> Self {
        Self {
            identity: Some(&caller.principal),
            service: caller.service.as_ref(),
            labels: Some(&caller.labels),
            address,
        }
    }
}

/// What the rules say of a request.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Matched<'a> {
    /// This rule acts.
    Rule(&'a Arc<Rule>),
    /// No route is attached: the service's own backend takes it.
    Default(&'a Arc<Backend>),
    /// Routes are attached and none matches: 404 (gRPC: UNIMPLEMENTED).
    NoRule,
}

/// The rules that act for a caller of `namespace`: its consumer routes, or else the producer's.
pub fn rules_for<'a>(frontend: &'a Frontend, namespace: &Namespace) -> &'a RuleTable {
    frontend
        .consumer_rules
        .get(namespace)
        .unwrap_or(&frontend.rules)
}

/// Finds the rule for a request.
pub fn matched<'a>(
    frontend: &'a Frontend,
    namespace: &Namespace,
    request: &impl RequestView,
) -> Matched<'a> {
    let table = rules_for(frontend, namespace);
    if !table.attached {
        return Matched::Default(&frontend.backend);
    }
    table
        .index
        .find(&table.rules, request)
        .map_or(Matched::NoRule, Matched::Rule)
}

/// How an opaque connection begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Opening<'a> {
    /// A TLS ClientHello, with the server name that it asks for (lower case).
    Tls(Option<&'a str>),
    /// Anything else, or nothing at all.
    Other,
}

/// What the rules say of an opaque connection.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Connected<'a> {
    /// A rule's target.
    Rule {
        /// Where the rule comes from.
        route: &'a Arc<RouteReference>,
        /// Where the connection goes.
        target: &'a Target,
    },
    /// No route is attached: the service's own backend takes it.
    Default(&'a Arc<Backend>),
    /// Routes are attached and none matches: refused.
    NoRule,
}

/// Finds where an opaque connection goes: by its server name when it is TLS, else by who calls.
pub fn connected<'a>(
    frontend: &'a Frontend,
    opening: Opening<'_>,
    source: &Source<'_>,
) -> Connected<'a> {
    if let Opening::Tls(name) = opening {
        let found = frontend
            .tls_rules
            .iter()
            .find(|rule| rule.fits(name, source));
        if let Some(rule) = found {
            return Connected::Rule {
                route: &rule.route,
                target: &rule.target,
            };
        }
    }
    let table = &frontend.tcp_rules;
    let fits = |rule: &&Arc<Rule>| {
        let wanted = rule.matches.source.as_ref();
        wanted.is_none_or(|wanted| wanted.fits(source))
    };
    match table.rules.iter().find(fits) {
        Some(rule) => Connected::Rule {
            route: &rule.route,
            target: &rule.target,
        },
        None if table.attached => Connected::NoRule,
        None => Connected::Default(&frontend.backend),
    }
}

/// A backend chosen from a target, with the filters met on the way.
#[derive(Debug, Clone, PartialEq)]
pub enum Choice<'a> {
    /// This backend.
    Backend {
        /// The backend.
        backend: &'a Arc<Backend>,
        /// Filters of the shares that led to it, outermost first.
        filters: Vec<&'a [Filter]>,
    },
    /// The mesh answers itself.
    Fail {
        /// HTTP status.
        status: u16,
        /// Documented code.
        code: &'static str,
        /// What is wrong.
        reason: &'a str,
    },
}

/// Chooses once per request. `draw(n)` gives a number below `n`; `usable` says whether a backend has an
/// endpoint that may be used now (for failover).
pub fn choose<'a>(
    target: &'a Target,
    draw: &mut impl FnMut(u64) -> u64,
    usable: &impl Fn(&Backend) -> bool,
) -> Choice<'a> {
    let mut filters = Vec::new();
    let mut target = target;
    loop {
        match target {
            Target::Backend(backend) => return Choice::Backend { backend, filters },
            Target::Fail {
                status,
                code,
                reason,
            } => {
                return Choice::Fail {
                    status: *status,
                    code,
                    reason,
                };
            }
            Target::Failover(targets) => {
                let first = targets
                    .iter()
                    .find(|t| is_usable(t, usable))
                    .or_else(|| targets.first());
                let Some(next) = first else { return NO_BACKEND };
                target = next;
            }
            Target::Weighted(shares) => {
                let total: u64 = shares.iter().map(|share| u64::from(share.weight)).sum();
                if total == 0 {
                    return NO_BACKEND;
                }
                let mut left = draw(total);
                let share = shares.iter().find(|share| {
                    let weight = u64::from(share.weight);
                    let hit = left < weight;
                    left = left.saturating_sub(weight);
                    hit
                });
                let Some(share) = share else {
                    return NO_BACKEND;
                };
                if !share.filters.is_empty() {
                    filters.push(&*share.filters);
                }
                target = &share.target;
            }
        }
    }
}

const NO_BACKEND: Choice<'static> = Choice::Fail {
    status: 500,
    code: "no-backend",
    reason: "the rule names no backend with a weight",
};

fn is_usable(target: &Target, usable: &impl Fn(&Backend) -> bool) -> bool {
    match target {
        Target::Backend(backend) => usable(backend),
        Target::Weighted(shares) => shares
            .iter()
            .any(|share| share.weight > 0 && is_usable(&share.target, usable)),
        Target::Failover(targets) => targets.iter().any(|target| is_usable(target, usable)),
        Target::Fail { .. } => false,
    }
}

/// What policies say of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict<'a> {
    /// Allowed; by which policy, or none when nothing forbids it.
    Allow(Option<&'a str>),
    /// Refused; by which policy, or none when no ALLOW matches.
    Deny(Option<&'a str>),
}

/// Whether `caller` (none: unauthenticated) may call. `request` is none for opaque connections, and for
/// the first check of a connection whose requests are checked one by one.
pub fn authorize<'a>(
    authorization: &'a Authorization,
    caller: Option<&SpiffeId>,
    port: u16,
    request: Option<(&str, &str)>,
) -> Verdict<'a> {
    let hit = |rules: &'a [AuthorizationRule]| {
        rules
            .iter()
            .find(|rule| rule.fits(caller, port, request))
            .map(|rule| &*rule.policy)
    };
    if let Some(policy) = hit(&authorization.deny) {
        return Verdict::Deny(Some(policy));
    }
    match hit(&authorization.allow) {
        Some(policy) => Verdict::Allow(Some(policy)),
        None if authorization.allow_only => Verdict::Deny(None),
        None => Verdict::Allow(None),
    }
}

/// Where a request's own delegation table (`l5d-dtab` of a trusted caller) sends it, on top of the tables
/// of the service's namespace. `None` when no entry of it touches the service: then the routes act.
pub fn delegate(snapshot: &Snapshot, frontend: &Frontend, extra: &Dtab) -> Option<Target> {
    let empty = Dtab::default();
    let namespace = &frontend.service.namespace;
    let table = snapshot
        .outbound
        .delegations
        .get(namespace)
        .map_or(&empty, |table| table);
    let known = Known {
        backends: &snapshot.outbound.backends,
        sources: &snapshot.outbound.sources,
    };
    follow(known, &[table, extra], &frontend.service, frontend.port)
}

/// Follows tables from a service's name, `/svc => /#/mesh/<namespace>` below them. `None` when no entry of
/// the last table took part.
pub fn follow(
    known: Known<'_>,
    tables: &[&Dtab],
    service: &ServiceId,
    dialled: u16,
) -> Option<Target> {
    let base = dtab::delegate::base(&service.namespace);
    let mut all = vec![&base];
    all.extend(tables);
    let names = Dialled { known, dialled };
    let found = dtab::delegate(&all, &service_path(&service.name), &names);
    found.last_used.then(|| bound_target(found.bound))
}

/// What names in tables may mean.
#[derive(Debug, Clone, Copy)]
pub struct Known<'a> {
    /// Services of the mesh.
    pub backends: &'a Backends,
    /// What each discovery source alone says.
    pub sources: &'a [Arc<NamedSource>],
}

/// What names mean to a caller who dialled this port.
struct Dialled<'a> {
    known: Known<'a>,
    dialled: u16,
}

impl dtab::Names<Arc<Backend>> for Dialled<'_> {
    fn service(&self, service: &ServiceId, port: Option<u16>) -> Option<Arc<Backend>> {
        named_backend(self.known.backends, service, port, self.dialled)
    }
    fn named(&self, path: &[Arc<str>]) -> Result<Arc<Backend>, String> {
        named(self.known.sources, path, self.dialled)
    }
}

/// Backends by service and port.
pub type Backends = BTreeMap<(ServiceId, u16), Arc<Backend>>;

fn bound_target(bound: Bound<Arc<Backend>>) -> Target {
    match bound {
        Bound::One(backend) => Target::Backend(backend),
        Bound::Weighted(shares) => Target::Weighted(
            shares
                .into_iter()
                .map(|(weight, bound)| WeightedTarget {
                    weight: weight.0,
                    target: bound_target(bound),
                    filters: Arc::from([]),
                })
                .collect(),
        ),
        Bound::Failover(all) => Target::Failover(all.into_iter().map(bound_target).collect()),
        Bound::Nothing(reason) => Target::Fail {
            status: 503,
            code: "no-backend",
            reason: Arc::from(reason),
        },
    }
}

/// The backend that a table names: by its port, or else the port that was dialled, or else the only one.
fn named_backend(
    backends: &Backends,
    service: &ServiceId,
    port: Option<u16>,
    dialled: u16,
) -> Option<Arc<Backend>> {
    let found = backends.get(&(service.clone(), port.unwrap_or(dialled)));
    let found = found.or_else(|| {
        let (low, high) = ((service.clone(), 0), (service.clone(), u16::MAX));
        let mut all = backends.range(low..=high).map(|(_, backend)| backend);
        let only = all.next()?;
        (port.is_none() && all.next().is_none()).then_some(only)
    });
    found.cloned()
}

impl Outbound {
    /// The frontend that a `Host` or CONNECT authority names: any accepted spelling of a service, any case,
    /// with or without a port. Without one: `port` when given, else 80, else the service's only port.
    pub fn named(&self, authority: &str, port: Option<u16>) -> Option<&Arc<Frontend>> {
        let (host, written) = match authority.rsplit_once(':') {
            Some((host, digits)) if !digits.is_empty() && !host.contains(':') => {
                (host, Some(digits.parse::<u16>().ok()?))
            }
            _ => (authority, None),
        };
        let host = host.trim_end_matches('.');
        let ports = match self.by_host.get(host) {
            Some(ports) => ports,
            None => self.by_host.get(host.to_ascii_lowercase().as_str())?,
        };
        match written.or(port) {
            Some(port) => ports.get(&port),
            None => ports
                .get(&80)
                .or_else(|| (ports.len() == 1).then(|| ports.values().next()).flatten()),
        }
    }
}

#[cfg(test)]
mod tests;
