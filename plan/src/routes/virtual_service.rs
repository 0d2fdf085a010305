//! The rules of a VirtualService for requests, TLS and opaque connections.

use std::sync::Arc;

use mesh_model::{
    document::virtual_service::{
        ConnectionDestination, HttpRoute, TcpCondition, TcpRoute, TlsRoute, VirtualServiceSpec,
    },
    service::AppProtocol,
    snapshot::{RequestMatch, Rule, Target, Timeouts, TlsRule},
};

use super::{
    Draft, actions,
    conditions::Here,
    connection,
    target::{Part, failure},
};
use crate::matches::AS_WRITTEN;

impl Draft<'_> {
    pub(super) fn virtual_service(&mut self, spec: &VirtualServiceSpec) {
        let protocol = self.room.protocol;
        if protocol != AppProtocol::Tcp {
            for (index, rule) in spec.http.iter().enumerate() {
                self.requests(index, rule);
            }
        }
        if !protocol.is_http() {
            for (index, rule) in spec.tls.iter().enumerate() {
                self.tls_connections(index, rule);
            }
            for (index, rule) in spec.tcp.iter().enumerate() {
                self.connections(index, rule);
            }
        }
    }

    fn here(&self) -> Here<'_> {
        Here {
            own: &self.route.namespace,
            port: self.room.port,
        }
    }

    fn requests(&mut self, index: usize, rule: &HttpRoute) {
        let matches = if rule.matches.is_empty() {
            vec![RequestMatch::default()]
        } else {
            let here = self.here();
            let all = rule.matches.iter().flat_map(|one| here.http(one));
            all.collect()
        };
        let target = self.request_target(index, rule);
        for (number, matches) in matches.into_iter().enumerate() {
            let filters = self.changes(&format!("spec.http[{index}]"), rule, &matches.path);
            let per_try = rule
                .retries
                .as_ref()
                .and_then(|given| given.per_try_timeout);
            let above_zero = |span: Option<mesh_model::document::span::Span>| {
                span.map(|span| span.0).filter(|span| !span.is_zero())
            };
            let compiled = Rule {
                route: self.reference(index),
                filters,
                target: target.clone(),
                timeouts: Timeouts {
                    request: above_zero(rule.timeout),
                    backend_request: above_zero(per_try),
                    idle: None,
                },
                retry: actions::retry(rule.retries.as_ref()),
                faults: actions::faults(rule.fault.as_ref(), &self.route.name),
                persistence: None,
                matches,
            };
            self.push_http(AS_WRITTEN, number, compiled);
        }
    }

    fn request_target(&mut self, index: usize, rule: &HttpRoute) -> Target {
        if rule.route.is_empty() {
            if rule.redirect.is_none() && rule.direct_response.is_none() {
                self.without_backend(index);
            }
            return failure(500, &format!("rule {index} names no destination"));
        }
        let parts = rule.route.iter().map(|one| Part {
            destination: &one.destination,
            weight: one.weight,
            filters: actions::of_destination(one.headers.as_ref()),
        });
        self.destinations(&format!("spec.http[{index}]"), parts.collect())
    }

    fn connection_target(&mut self, at: &str, given: &[ConnectionDestination]) -> Target {
        let parts = given.iter().map(|one| Part {
            destination: &one.destination,
            weight: one.weight,
            filters: Arc::from([]),
        });
        self.destinations(at, parts.collect())
    }

    fn connections(&mut self, index: usize, rule: &TcpRoute) {
        let every = [TcpCondition::default()];
        let given = if rule.matches.is_empty() {
            &every[..]
        } else {
            &rule.matches
        };
        let here = self.here();
        let sources: Vec<_> = given.iter().map(|one| here.tcp(one)).collect();
        let target = self.connection_target(&format!("spec.tcp[{index}]"), &rule.route);
        for (number, source) in sources.into_iter().enumerate() {
            if let Ok(source) = source {
                let compiled = connection(self.reference(index), source, target.clone());
                self.push_tcp(number, compiled);
            }
        }
    }

    fn tls_connections(&mut self, index: usize, rule: &TlsRoute) {
        let here = self.here();
        let mut wanted = Vec::new();
        for one in &rule.matches {
            let Ok(source) = here.tls(one) else {
                continue;
            };
            for name in &one.sni_hosts {
                let name = (name != "*").then(|| name.to_ascii_lowercase().into_boxed_str());
                wanted.push((name, source.clone()));
            }
        }
        let target = self.connection_target(&format!("spec.tls[{index}]"), &rule.route);
        for (number, (server_name, source)) in wanted.into_iter().enumerate() {
            let compiled = TlsRule {
                server_name,
                source,
                route: self.reference(index),
                target: target.clone(),
            };
            self.push_tls(AS_WRITTEN, number, compiled);
        }
    }
}
