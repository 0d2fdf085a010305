//! HTTPRoute, GRPCRoute, TCPRoute and TLSRoute: their rules.

use std::sync::Arc;

use mesh_model::{
    document::route::{
        GrpcMatch, GrpcRouteSpec, GrpcRule, HttpFilter, HttpMatch, HttpRetry, HttpRouteSpec,
        HttpRule, HttpTimeouts, SessionPersistenceSpec, TcpRouteSpec, TlsRouteSpec,
    },
    duration,
    snapshot::{Filter, RequestMatch, Retry, Rule, Target, Timeouts, TlsRule, rule::Persistence},
};

use super::{Draft, connection, target::failure};
use crate::matches;

/// The list, or the one entry that an empty list stands for.
fn or_every<T: Default + Clone>(given: &[T]) -> std::borrow::Cow<'_, [T]> {
    if given.is_empty() {
        vec![T::default()].into()
    } else {
        given.into()
    }
}

impl Draft<'_> {
    pub(super) fn http_route(&mut self, spec: &HttpRouteSpec) {
        for (index, rule) in or_every::<HttpRule>(&spec.rules).iter().enumerate() {
            for (number, one) in or_every::<HttpMatch>(&rule.matches).iter().enumerate() {
                if let Some(matches) = matches::http(one) {
                    self.http_rule(index, number, rule, matches);
                }
            }
        }
    }

    fn http_rule(&mut self, index: usize, number: usize, rule: &HttpRule, matches: RequestMatch) {
        let at = format!("spec.rules[{index}]");
        let mut target = self.target(&at, &rule.backend_refs, &matches, 500);
        let filters = self.filters(&at, &rule.filters, &matches);
        let filters = filters.unwrap_or_else(|why| unmade(500, &why, &mut target));
        if rule.backend_refs.is_empty() && !answers(&rule.filters) {
            self.without_backend(index);
        }
        let compiled = Rule {
            route: self.reference(index),
            filters,
            target,
            timeouts: timeouts(rule.timeouts.as_ref()),
            retry: retry(rule.retry.as_ref()),
            faults: Arc::from([]),
            persistence: rule.session_persistence.as_ref().map(persistence),
            matches,
        };
        self.push_http(matches::rank(&compiled.matches), number, compiled);
    }

    pub(super) fn grpc_route(&mut self, spec: &GrpcRouteSpec) {
        for (index, rule) in or_every::<GrpcRule>(&spec.rules).iter().enumerate() {
            for (number, one) in or_every::<GrpcMatch>(&rule.matches).iter().enumerate() {
                if let Some(matches) = matches::grpc(one) {
                    self.grpc_rule(index, number, rule, matches);
                }
            }
        }
    }

    fn grpc_rule(&mut self, index: usize, number: usize, rule: &GrpcRule, matches: RequestMatch) {
        // 503, which becomes UNAVAILABLE: that is what a gRPC caller of a broken backend must see.
        let at = format!("spec.rules[{index}]");
        let mut target = self.target(&at, &rule.backend_refs, &matches, 503);
        let filters = self.filters(&at, &rule.filters, &matches);
        let filters = filters.unwrap_or_else(|why| unmade(503, &why, &mut target));
        if rule.backend_refs.is_empty() && !answers(&rule.filters) {
            self.without_backend(index);
        }
        let compiled = Rule {
            route: self.reference(index),
            filters,
            target,
            timeouts: Timeouts::default(),
            retry: Retry::default(),
            faults: Arc::from([]),
            persistence: rule.session_persistence.as_ref().map(persistence),
            matches,
        };
        self.push_http(matches::rank(&compiled.matches), number, compiled);
    }

    pub(super) fn tcp_route(&mut self, spec: &TcpRouteSpec) {
        // Of several rules the first acts: nothing in a connection tells them apart.
        if let Some(rule) = spec.rules.first() {
            let every = RequestMatch::default();
            let target = self.target("spec.rules[0]", &rule.backend_refs, &every, 500);
            let compiled = connection(self.reference(0), None, target);
            self.push_tcp(0, compiled);
        }
    }

    pub(super) fn tls_route(&mut self, spec: &TlsRouteSpec) {
        let Some(rule) = spec.rules.first() else {
            return;
        };
        let every = RequestMatch::default();
        let target = self.target("spec.rules[0]", &rule.backend_refs, &every, 500);
        let names = spec.hostnames.iter().map(|name| {
            let name = name.to_ascii_lowercase();
            (name != "*").then(|| name.into_boxed_str())
        });
        let mut names: Vec<Option<Box<str>>> = names.collect();
        if names.is_empty() {
            names.push(None);
        }
        for (number, server_name) in names.into_iter().enumerate() {
            let rank = matches::rank_of_name(server_name.as_deref());
            let compiled = TlsRule {
                server_name,
                source: None,
                route: self.reference(0),
                target: target.clone(),
            };
            self.push_tls(rank, number, compiled);
        }
    }

    pub(super) fn without_backend(&self, index: usize) {
        self.room.findings.warning(
            "route-without-backend",
            &self.route.subject(),
            format!("rule {index} names no backend, so its requests are answered with an error"),
            "write where its requests go, or a redirect",
        );
    }
}

/// A filter that cannot be made and must not be skipped turns its rule into errors.
fn unmade(status: u16, why: &str, target: &mut Target) -> Arc<[Filter]> {
    *target = failure(status, why);
    Arc::from([])
}

/// Whether the mesh answers itself, so that no backend is needed.
fn answers(filters: &[HttpFilter]) -> bool {
    filters
        .iter()
        .any(|filter| filter.request_redirect.is_some() || filter.extension_ref.is_some())
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

fn persistence(given: &SessionPersistenceSpec) -> Arc<Persistence> {
    let header = given.type_.as_deref() == Some("Header");
    let config = given.cookie_config.as_ref();
    let lasting = config.and_then(|config| config.lifetime_type.as_deref()) == Some("Permanent");
    let name = given.session_name.as_deref().unwrap_or("mesh-session");
    Arc::new(Persistence {
        name: if header {
            name.to_ascii_lowercase().into()
        } else {
            name.into()
        },
        header,
        lifetime: given
            .absolute_timeout
            .as_deref()
            .filter(|_| lasting)
            .and_then(|text| duration::parse(text).ok()),
    })
}
