//! Routes that act at one place become tables of rules, best first.
//!
//! Rules of Gateway API routes are put in order over all routes; those of a VirtualService act in the order in which
//! they are written, the older document's first.

use std::{collections::BTreeMap, sync::Arc};

use mesh_model::{
    service::AppProtocol,
    snapshot::{RouteReference, Rule, RuleTable, SourceMatch, Target, TlsRule},
};

use crate::{
    attach::{Body, Route, RouteKind},
    backends::Backends,
    findings::Findings,
    matches::{self, Rank},
    outcome::Refusal,
    services::Services,
    world::World,
};

/// What a VirtualService changes of a request.
mod actions;
/// Rules for everybody and rules for some namespaces, joined.
pub(crate) mod combine;
/// What a VirtualService asks of a request.
mod conditions;
/// The filters of Gateway API.
mod filters;
/// The routes of Gateway API.
mod gateway;
/// Where rules lead.
mod target;
/// The rules of a VirtualService.
mod virtual_service;

/// References of a route that lead nowhere: reason and message of the first.
pub(crate) type Unresolved = BTreeMap<usize, Refusal>;

/// What rules are compiled against.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Compiler<'a> {
    pub(crate) world: &'a World<'a>,
    pub(crate) services: &'a Services,
    pub(crate) backends: &'a Backends,
    pub(crate) findings: &'a Findings,
    /// The port that was dialled: for references without one.
    pub(crate) port: u16,
    /// What is spoken there.
    pub(crate) protocol: AppProtocol,
}

/// What the routes at one place make of requests and of connections.
#[derive(Debug, Default)]
pub(crate) struct Acting {
    pub(crate) http: RuleTable,
    pub(crate) tcp: RuleTable,
    pub(crate) tls: Vec<TlsRule>,
}

/// A rule with its place in the order.
struct Ranked<T> {
    rank: Rank,
    created_ms: u64,
    name: Arc<str>,
    rule: usize,
    number: usize,
    compiled: T,
}

impl<T> Ranked<T> {
    fn key(&self) -> (&Rank, u64, &str, usize, usize) {
        (
            &self.rank,
            self.created_ms,
            &self.name,
            self.rule,
            self.number,
        )
    }
}

fn ordered<T>(mut all: Vec<Ranked<T>>) -> impl Iterator<Item = T> {
    all.sort_by(|a, b| a.key().cmp(&b.key()));
    all.into_iter().map(|one| one.compiled)
}

/// Rules of all routes at one place, not in order yet.
#[derive(Default)]
struct Drafts {
    http: Vec<Ranked<Arc<Rule>>>,
    tcp: Vec<Ranked<Arc<Rule>>>,
    tls: Vec<Ranked<TlsRule>>,
}

/// The rules of one route while they are made.
struct Draft<'d> {
    room: &'d Compiler<'d>,
    route: &'d Route<'d>,
    out: &'d mut Drafts,
    /// The first reference that leads nowhere.
    broken: Option<Refusal>,
}

impl Compiler<'_> {
    /// What the routes that act at one place make; all are of one kind.
    pub(crate) fn place(
        &self,
        routes: &[(usize, &Route<'_>)],
        unresolved: &mut Unresolved,
    ) -> Acting {
        let mut drafts = Drafts::default();
        for (index, route) in routes {
            let mut draft = Draft {
                room: self,
                route,
                out: &mut drafts,
                broken: None,
            };
            draft.rules();
            if let Some(broken) = draft.broken {
                unresolved.entry(*index).or_insert(broken);
            }
        }
        let mut acting = Acting {
            http: table(drafts.http),
            tcp: table(drafts.tcp),
            tls: ordered(drafts.tls).collect(),
        };
        if let Some((_, first)) = routes.first() {
            self.close(first, &mut acting);
        }
        acting
    }

    /// What becomes of requests and connections that no rule matches.
    fn close(&self, first: &Route<'_>, acting: &mut Acting) {
        match first.kind {
            RouteKind::Http | RouteKind::Grpc => acting.http.attached = true,
            RouteKind::Tcp => {
                acting.tcp.attached = true;
                // Where requests are seen one by one, the route takes each of them.
                if self.protocol != AppProtocol::Tcp {
                    acting.http = acting.tcp.clone();
                }
            }
            RouteKind::Tls => {
                acting.tls.push(nameless(first));
                acting.tcp.attached = true;
                acting.http.attached = self.protocol != AppProtocol::Tcp;
            }
            // As in Istio: without a matching rule requests get 404, connections go on to the service.
            RouteKind::Virtual => acting.http.attached = !acting.http.rules.is_empty(),
        }
    }
}

fn table(drafts: Vec<Ranked<Arc<Rule>>>) -> RuleTable {
    RuleTable::new(false, ordered(drafts).collect())
}

/// The end of a TLSRoute's rules: no server of that name.
fn nameless(route: &Route<'_>) -> TlsRule {
    TlsRule {
        server_name: None,
        source: None,
        route: reference(route, 0),
        target: Target::Fail {
            status: 404,
            code: "no-route",
            reason: Arc::from("no TLSRoute is for this server name"),
        },
    }
}

impl Draft<'_> {
    fn rules(&mut self) {
        match self.route.body {
            Body::Http(spec) => self.http_route(spec),
            Body::Grpc(spec) => self.grpc_route(spec),
            Body::Tcp(spec) => self.tcp_route(spec),
            Body::Tls(spec) => self.tls_route(spec),
            Body::Virtual(spec) => self.virtual_service(spec),
        }
    }

    fn ranked<T>(&self, rank: Rank, rule: usize, number: usize, compiled: T) -> Ranked<T> {
        Ranked {
            rank,
            created_ms: self.route.created_ms,
            name: Arc::clone(&self.route.name),
            rule,
            number,
            compiled,
        }
    }

    fn push_http(&mut self, rank: Rank, number: usize, rule: Rule) {
        let ranked = self.ranked(rank, rule.route.rule, number, Arc::new(rule));
        self.out.http.push(ranked);
    }

    fn push_tcp(&mut self, number: usize, rule: Rule) {
        let ranked = self.ranked(matches::AS_WRITTEN, rule.route.rule, number, Arc::new(rule));
        self.out.tcp.push(ranked);
    }

    fn push_tls(&mut self, rank: Rank, number: usize, rule: TlsRule) {
        let ranked = self.ranked(rank, rule.route.rule, number, rule);
        self.out.tls.push(ranked);
    }

    fn reference(&self, rule: usize) -> Arc<RouteReference> {
        reference(self.route, rule)
    }
}

pub(crate) fn reference(route: &Route<'_>, rule: usize) -> Arc<RouteReference> {
    Arc::new(RouteReference {
        kind: route.kind.name(),
        name: Arc::clone(&route.name),
        rule,
        revision: Some(route.revision),
        author: Arc::clone(&route.author),
    })
}

/// A rule of connections: only who calls is asked.
fn connection(
    route: Arc<RouteReference>,
    source: Option<Arc<SourceMatch>>,
    target: Target,
) -> Rule {
    Rule {
        route,
        matches: mesh_model::snapshot::RequestMatch {
            source,
            ..mesh_model::snapshot::RequestMatch::default()
        },
        filters: Arc::from([]),
        target,
        timeouts: mesh_model::snapshot::Timeouts::default(),
        retry: mesh_model::snapshot::Retry::default(),
        faults: Arc::from([]),
        persistence: None,
    }
}
