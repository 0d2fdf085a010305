//! Rules for everybody and rules for some callers, joined: the latter replace the former and never mix with them.
//!
//! Requests have a table for each namespace. Connections have one list: rules for a namespace stand before those
//! for everybody, and end with one that takes whatever is left of that namespace.

use std::{collections::BTreeMap, sync::Arc};

use mesh_model::{
    name::Namespace,
    snapshot::{Backend, RouteReference, Rule, RuleTable, Target, TlsRule},
};

use super::{Acting, connection};
use crate::sources::within;

/// What acts for the callers of one namespace.
pub(crate) struct Consumer {
    pub(crate) namespace: Namespace,
    pub(crate) acting: Acting,
    /// The first of the routes.
    pub(crate) route: Arc<RouteReference>,
}

/// The rules of a frontend.
pub(crate) struct Joined {
    pub(crate) rules: RuleTable,
    pub(crate) consumer_rules: BTreeMap<Namespace, RuleTable>,
    pub(crate) tcp_rules: RuleTable,
    pub(crate) tls_rules: Vec<TlsRule>,
}

pub(crate) fn join(producer: Acting, consumers: Vec<Consumer>, own: &Arc<Backend>) -> Joined {
    let mut joined = Joined {
        rules: producer.http,
        consumer_rules: BTreeMap::new(),
        tcp_rules: RuleTable::new(producer.tcp.attached, Vec::new()),
        tls_rules: Vec::new(),
    };
    let everybody = (
        !producer.tcp.rules.is_empty() || producer.tcp.attached,
        !producer.tls.is_empty(),
    );
    for consumer in consumers {
        let rest = consumer.rest(own);
        let Consumer {
            namespace,
            acting,
            route,
        } = consumer;
        for rule in &acting.tcp.rules {
            joined.tcp_rules.rules.extend(narrowed(rule, &namespace));
        }
        let last = acting.tcp.rules.last();
        let closed = last.is_some_and(|rule| rule.matches.source.is_none());
        if !closed && (acting.tcp.attached || everybody.0) {
            let source = within(None, &namespace);
            let last = connection(Arc::clone(&route), source, rest.clone());
            joined.tcp_rules.rules.push(Arc::new(last));
        }
        for rule in &acting.tls {
            if let Some(source) = within(rule.source.as_ref(), &namespace) {
                joined.tls_rules.push(TlsRule {
                    source: Some(source),
                    ..rule.clone()
                });
            }
        }
        let last = acting.tls.last();
        let closed = last.is_some_and(|rule| rule.server_name.is_none() && rule.source.is_none());
        if !closed && everybody.1 {
            joined.tls_rules.push(TlsRule {
                server_name: None,
                source: within(None, &namespace),
                route,
                target: rest,
            });
        }
        if acting.http.attached || joined.rules.attached {
            joined.consumer_rules.insert(namespace, acting.http);
        }
    }
    joined.tcp_rules.rules.extend(producer.tcp.rules);
    joined.tls_rules.extend(producer.tls);
    joined
}

fn narrowed(rule: &Arc<Rule>, namespace: &Namespace) -> Option<Arc<Rule>> {
    let source = within(rule.matches.source.as_ref(), namespace)?;
    let mut rule = Rule::clone(rule);
    rule.matches.source = Some(source);
    Some(Arc::new(rule))
}

impl Consumer {
    /// Where connections go that none of its rules takes.
    fn rest(&self, own: &Arc<Backend>) -> Target {
        let last = self.acting.tcp.rules.last();
        match last.filter(|rule| rule.matches.source.is_none()) {
            Some(rule) => rule.target.clone(),
            None if self.acting.tcp.attached => Target::Fail {
                status: 404,
                code: "no-route",
                reason: Arc::from("no route of the caller's namespace takes this connection"),
            },
            None => Target::Backend(Arc::clone(own)),
        }
    }
}
