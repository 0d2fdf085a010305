//! Which routes act on which service and port, for whom, and which only would.
//!
//! Of several kinds on one service and port one acts: GRPCRoute before HTTPRoute before TLSRoute before
//! TCPRoute. A route in the service's own namespace acts for everybody (producer), one of another
//! namespace for the callers of its namespace only (consumer); the groups are never joined (GEP-1294).

use std::{collections::BTreeMap, sync::Arc};

use mesh_model::{
    catalog::{Resource, ResourceKey},
    commit::CommitId,
    document::{
        Spec,
        route::{GrpcRouteSpec, HttpRouteSpec, ParentReference, TcpRouteSpec, TlsRouteSpec},
    },
    name::{Namespace, ServiceId, ServiceName},
    service::AppProtocol,
};

use crate::{
    findings::Findings,
    services::{Service, Services},
    world::World,
};

/// Kinds in order of precedence.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum RouteKind {
    Grpc,
    Http,
    Tls,
    Tcp,
}

impl RouteKind {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Grpc => "GRPCRoute",
            Self::Http => "HTTPRoute",
            Self::Tls => "TLSRoute",
            Self::Tcp => "TCPRoute",
        }
    }
}

/// The body of a route that is carried out.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Body<'a> {
    Http(&'a HttpRouteSpec),
    Grpc(&'a GrpcRouteSpec),
    Tcp(&'a TcpRouteSpec),
    /// Accepted as a document, not carried out.
    Tls(&'a TlsRouteSpec),
}

/// A route.
#[derive(Debug, Clone)]
pub(crate) struct Route<'a> {
    pub(crate) kind: RouteKind,
    pub(crate) body: Body<'a>,
    pub(crate) namespace: Namespace,
    /// `namespace/name`.
    pub(crate) name: Arc<str>,
    pub(crate) created_ms: u64,
    pub(crate) changed_ms: u64,
    pub(crate) revision: CommitId,
    pub(crate) author: Arc<str>,
    pub(crate) key: &'a ResourceKey,
}

impl Route<'_> {
    /// `HTTPRoute/default/words`, for findings.
    pub(crate) fn subject(&self) -> String {
        format!("{}/{}", self.kind.name(), self.name)
    }
}

/// Where a group of routes acts: service, port, and the callers' namespace (none: everybody).
pub(crate) type Place = (ServiceId, u16, Option<Namespace>);

/// What became of one parent reference.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ParentState {
    pub(crate) reference: ParentReference,
    /// Reason and message when it is not accepted.
    pub(crate) refused: Option<(&'static str, String)>,
}

/// All routes, and where they act.
#[derive(Debug)]
pub(crate) struct Attached<'a> {
    pub(crate) routes: Vec<Route<'a>>,
    /// Indexes of the routes that act, oldest first; all of one kind.
    pub(crate) places: BTreeMap<Place, Vec<usize>>,
    /// By route: the state of each reference to a service.
    pub(crate) parents: Vec<Vec<ParentState>>,
}

/// Attaches every route.
pub(crate) fn attach<'a>(
    world: &World<'a>,
    services: &Services,
    findings: &Findings,
) -> Attached<'a> {
    let routes = gather(world);
    let mut wanted: BTreeMap<Place, Vec<(usize, usize)>> = BTreeMap::new();
    let mut parents = Vec::new();
    for (index, route) in routes.iter().enumerate() {
        let mut states = Vec::new();
        for reference in references(route)
            .iter()
            .filter(|reference| is_service(reference))
        {
            let number = states.len();
            let found = places(route, reference, services);
            let refused = match found {
                Ok(found) => {
                    for place in found {
                        wanted.entry(place).or_default().push((index, number));
                    }
                    None
                }
                Err((code, why)) => {
                    findings.warning(
                        code,
                        &route.subject(),
                        why.clone(),
                        "correct the parentRef, or start the service",
                    );
                    Some(("NoMatchingParent", why))
                }
            };
            states.push(ParentState {
                reference: reference.clone(),
                refused,
            });
        }
        if states.is_empty() {
            findings.warning(
                "route-without-parent",
                &route.subject(),
                "the route names no service in parentRefs, so it acts on nothing",
                "write a parentRef with `group: \"\"`, `kind: Service` and the service's name",
            );
        }
        parents.push(states);
    }
    let places = decide(&routes, wanted, &mut parents, services, findings);
    Attached {
        routes,
        places,
        parents,
    }
}

fn gather<'a>(world: &World<'a>) -> Vec<Route<'a>> {
    let route = |key: &'a ResourceKey, resource: &'a Arc<Resource>| {
        let (kind, body) = match &resource.document.spec {
            Spec::HttpRoute(spec) => (RouteKind::Http, Body::Http(spec)),
            Spec::GrpcRoute(spec) => (RouteKind::Grpc, Body::Grpc(spec)),
            Spec::TcpRoute(spec) => (RouteKind::Tcp, Body::Tcp(spec)),
            Spec::TlsRoute(spec) => (RouteKind::Tls, Body::Tls(spec)),
            _ => return None,
        };
        Some(Route {
            kind,
            body,
            namespace: Namespace::new(&key.namespace).ok()?,
            name: Arc::from(format!("{}/{}", key.namespace, key.name)),
            created_ms: resource.created_ms,
            changed_ms: resource.changed_ms,
            revision: resource.revision,
            author: Arc::clone(&resource.author),
            key,
        })
    };
    let mut routes: Vec<Route<'a>> = world
        .input
        .catalog
        .resources
        .iter()
        .filter_map(|(key, resource)| route(key, resource))
        .collect();
    routes.sort_by(|a, b| (a.created_ms, &a.name, a.kind).cmp(&(b.created_ms, &b.name, b.kind)));
    routes
}

fn references<'r>(route: &Route<'r>) -> &'r [ParentReference] {
    match route.body {
        Body::Http(spec) => &spec.parent_refs,
        Body::Grpc(spec) => &spec.parent_refs,
        Body::Tcp(spec) => &spec.parent_refs,
        Body::Tls(spec) => &spec.parent_refs,
    }
}

fn is_service(reference: &ParentReference) -> bool {
    reference.group.as_deref() == Some("") && reference.kind.as_deref() == Some("Service")
}

type Refusal = (&'static str, String);

fn places(
    route: &Route<'_>,
    reference: &ParentReference,
    services: &Services,
) -> Result<Vec<Place>, Refusal> {
    let namespace = reference
        .namespace
        .as_deref()
        .unwrap_or(route.namespace.as_str());
    let unknown = || {
        (
            "route-unknown-parent",
            format!("the service {namespace}/{} is not known", reference.name),
        )
    };
    let (Ok(parent), Ok(name)) = (Namespace::new(namespace), ServiceName::new(&reference.name))
    else {
        return Err(unknown());
    };
    let id = ServiceId::new(parent, name);
    let service = services.by_id.get(&id).ok_or_else(unknown)?;
    if service.headless {
        return Err((
            "route-headless-parent",
            format!("{id} is headless, so calls to it cannot be routed"),
        ));
    }
    let ports = matching_ports(service, reference);
    if ports.is_empty() {
        let said = match (&reference.section_name, reference.port) {
            (Some(name), _) => format!("port {name:?}"),
            (None, Some(port)) => format!("port {port}"),
            (None, None) => "port".to_owned(),
        };
        return Err(("route-unknown-parent", format!("{id} has no {said}")));
    }
    let consumer = (id.namespace != route.namespace).then(|| route.namespace.clone());
    Ok(ports
        .into_iter()
        .map(|port| (id.clone(), port, consumer.clone()))
        .collect())
}

fn matching_ports(service: &Service, reference: &ParentReference) -> Vec<u16> {
    service
        .ports
        .iter()
        .filter(|(number, port)| {
            reference.port.is_none_or(|wanted| wanted == **number)
                && reference
                    .section_name
                    .as_deref()
                    .is_none_or(|wanted| *wanted == *port.name)
        })
        .map(|(number, _)| *number)
        .collect()
}

/// Of the kinds at one place the first acts; the others are told.
fn decide(
    routes: &[Route<'_>],
    wanted: BTreeMap<Place, Vec<(usize, usize)>>,
    parents: &mut [Vec<ParentState>],
    services: &Services,
    findings: &Findings,
) -> BTreeMap<Place, Vec<usize>> {
    let mut places = BTreeMap::new();
    for (place, all) in wanted {
        let judged: Vec<_> = all
            .into_iter()
            .filter_map(|(index, parent)| {
                let route = routes.get(index)?;
                Some((index, parent, route, unfit(route, &place, services)))
            })
            .collect();
        let fit = judged.iter().filter(|(.., unfit)| unfit.is_none());
        let winner = fit.map(|(_, _, route, _)| route.kind).min();
        let mut acting = Vec::new();
        for (index, parent, route, unfit) in judged {
            let refused = unfit.or_else(|| {
                (Some(route.kind) != winner).then(|| {
                    let other = winner.map_or("", RouteKind::name);
                    let (id, port, _) = &place;
                    (
                        "Conflicted",
                        format!("{other} is attached to {id}:{port} and goes before"),
                    )
                })
            });
            match refused {
                None => acting.push(index),
                Some((reason, why)) => {
                    findings.warning(
                        "route-without-effect",
                        &route.subject(),
                        why.clone(),
                        "attach the route to the ports on which it can act (parentRefs.port)",
                    );
                    if let Some(state) = parents.get_mut(index).and_then(|all| all.get_mut(parent))
                    {
                        state.refused = Some((reason, why));
                    }
                }
            }
        }
        acting.dedup();
        if !acting.is_empty() {
            places.insert(place, acting);
        }
    }
    places
}

/// Why a route cannot act there, whatever else is attached.
fn unfit(route: &Route<'_>, place: &Place, services: &Services) -> Option<(&'static str, String)> {
    let (id, number, consumer) = place;
    let protocol = services.by_id.get(id)?.ports.get(number)?.protocol;
    match route.kind {
        RouteKind::Tcp if consumer.is_some() => Some((
            "UnsupportedValue",
            format!(
                "a TCPRoute of another namespace than {id}'s is not carried out by this version"
            ),
        )),
        RouteKind::Tls => Some((
            "UnsupportedValue",
            "TLSRoutes are not carried out by this version".to_owned(),
        )),
        RouteKind::Http | RouteKind::Grpc if protocol == AppProtocol::Tcp => Some((
            "UnsupportedProtocol",
            format!("{id}:{number} speaks tcp, in which there are no requests to route"),
        )),
        RouteKind::Tcp | RouteKind::Http | RouteKind::Grpc => None,
    }
}
