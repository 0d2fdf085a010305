//! Which routes act on which service and port, for whom, and which only would.
//!
//! Of several kinds on one service and port one acts: GRPCRoute before HTTPRoute before TLSRoute before
//! TCPRoute before VirtualService. A route in the service's own namespace acts for everybody (producer), one of
//! another namespace for the callers of its namespace only (consumer); the groups are never joined (GEP-1294).

use std::{collections::BTreeMap, sync::Arc};

use mesh_model::{
    catalog::{Resource, ResourceKey},
    commit::CommitId,
    document::{
        Spec,
        route::{GrpcRouteSpec, HttpRouteSpec, ParentReference, TcpRouteSpec, TlsRouteSpec},
        virtual_service::VirtualServiceSpec,
    },
    name::{Namespace, ServiceId, ServiceName},
};

use crate::{
    findings::Findings,
    hosts,
    outcome::{Outcome, ParentState, Refusal},
    services::{Service, Services},
    world::World,
};

mod decide;

/// Kinds in order of precedence.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum RouteKind {
    Grpc,
    Http,
    Tls,
    Tcp,
    Virtual,
}

impl RouteKind {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Grpc => "GRPCRoute",
            Self::Http => "HTTPRoute",
            Self::Tls => "TLSRoute",
            Self::Tcp => "TCPRoute",
            Self::Virtual => "VirtualService",
        }
    }
}

/// The body of a route that is carried out.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Body<'a> {
    Http(&'a HttpRouteSpec),
    Grpc(&'a GrpcRouteSpec),
    Tcp(&'a TcpRouteSpec),
    Tls(&'a TlsRouteSpec),
    Virtual(&'a VirtualServiceSpec),
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

/// All routes, and where they act.
#[derive(Debug)]
pub(crate) struct Attached<'a> {
    pub(crate) routes: Vec<Route<'a>>,
    /// Indexes of the routes that act, oldest first; all of one kind.
    pub(crate) places: BTreeMap<Place, Vec<usize>>,
    /// By route: the state of each reference to a service.
    pub(crate) parents: Vec<Vec<ParentState>>,
}

impl<'a> Attached<'a> {
    /// What became of every route.
    pub(crate) fn outcomes(self, mut unresolved: BTreeMap<usize, Refusal>) -> Vec<Outcome<'a>> {
        let all = self.routes.into_iter().zip(self.parents).enumerate();
        all.map(|(index, (route, parents))| Outcome {
            key: route.key,
            revision: route.revision,
            changed_ms: route.changed_ms,
            parents,
            unresolved: unresolved.remove(&index),
        })
        .collect()
    }
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
        for Wish {
            at,
            reference,
            found,
        } in wishes(world, route, services)
        {
            let number = states.len();
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
                        format!("{at}: {why}"),
                        "correct the name, or start the service",
                    );
                    Some(("NoMatchingParent", why))
                }
            };
            states.push(ParentState {
                reference,
                refused,
                partly: String::new(),
            });
        }
        if states.is_empty() {
            tell_nowhere(route, findings);
        }
        parents.push(states);
    }
    let places = decide::decide(&routes, wanted, &mut parents, services, findings);
    Attached {
        routes,
        places,
        parents,
    }
}

fn tell_nowhere(route: &Route<'_>, findings: &Findings) {
    let (what, remedy) = match route.kind {
        RouteKind::Virtual => (
            "it is for gateways only, so it acts on nothing inside the mesh",
            "leave `gateways` out, or add `mesh` to them",
        ),
        RouteKind::Grpc | RouteKind::Http | RouteKind::Tls | RouteKind::Tcp => (
            "the route names no service in parentRefs, so it acts on nothing",
            "write a parentRef with `group: \"\"`, `kind: Service` and the service's name",
        ),
    };
    findings.warning("route-without-parent", &route.subject(), what, remedy);
}

fn gather<'a>(world: &World<'a>) -> Vec<Route<'a>> {
    let route = |key: &'a ResourceKey, resource: &'a Arc<Resource>| {
        let (kind, body) = match &resource.document.spec {
            Spec::HttpRoute(spec) => (RouteKind::Http, Body::Http(spec)),
            Spec::GrpcRoute(spec) => (RouteKind::Grpc, Body::Grpc(spec)),
            Spec::TcpRoute(spec) => (RouteKind::Tcp, Body::Tcp(spec)),
            Spec::TlsRoute(spec) => (RouteKind::Tls, Body::Tls(spec)),
            Spec::VirtualService(spec) => (RouteKind::Virtual, Body::Virtual(spec)),
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

/// What a route wants to act on.
struct Wish {
    /// Path of the field.
    at: String,
    /// The reference to a service.
    reference: ParentReference,
    /// The places that it means, or why there are none.
    found: Result<Vec<Place>, Refusal>,
}

fn wishes(world: &World<'_>, route: &Route<'_>, services: &Services) -> Vec<Wish> {
    let references = match route.body {
        Body::Http(spec) => &spec.parent_refs,
        Body::Grpc(spec) => &spec.parent_refs,
        Body::Tcp(spec) => &spec.parent_refs,
        Body::Tls(spec) => &spec.parent_refs,
        Body::Virtual(spec) => return hosts(world, route, spec, services),
    };
    references
        .iter()
        .enumerate()
        .filter(|(_, reference)| is_service(reference))
        .map(|(number, reference)| {
            let found = find(&route.namespace, reference, services).and_then(routable);
            let found = found.map(|(id, _, ports)| {
                let consumer = (id.namespace != route.namespace).then(|| route.namespace.clone());
                let place = |port| (id.clone(), port, consumer.clone());
                ports.into_iter().map(place).collect()
            });
            Wish {
                at: format!("spec.parentRefs[{number}]"),
                reference: reference.clone(),
                found,
            }
        })
        .collect()
}

/// The services that a VirtualService names, each as the reference that a route would write.
fn hosts(
    world: &World<'_>,
    route: &Route<'_>,
    spec: &VirtualServiceSpec,
    services: &Services,
) -> Vec<Wish> {
    let meshed = spec.gateways.is_empty() || spec.gateways.iter().any(|name| name == "mesh");
    let hosts = if meshed { &spec.hosts[..] } else { &[] };
    hosts
        .iter()
        .enumerate()
        .map(|(number, host)| {
            let id = hosts::service(host, &route.namespace, &world.mesh.domain);
            let (name, namespace) = match &id {
                Some(id) => (id.name.to_string(), Some(&id.namespace)),
                None => (host.clone(), None),
            };
            let reference = ParentReference {
                group: Some(String::new()),
                kind: Some("Service".to_owned()),
                namespace: namespace
                    .filter(|namespace| **namespace != route.namespace)
                    .map(ToString::to_string),
                name,
                section_name: None,
                port: None,
            };
            let found = if id.is_some() {
                find(&route.namespace, &reference, services)
            } else {
                Err((
                    "route-unknown-parent",
                    format!("{host} is no name of a service of the mesh"),
                ))
            };
            let found = found.and_then(routable).and_then(|(id, service, _)| {
                let audience = audience(route, spec, &id)?;
                let ports = service.ports.keys();
                let pairs = ports.flat_map(|port| audience.iter().map(move |one| (port, one)));
                Ok(pairs
                    .map(|(port, consumer)| (id.clone(), *port, consumer.clone()))
                    .collect())
            });
            Wish {
                at: format!("spec.hosts[{number}]"),
                reference,
                found,
            }
        })
        .collect()
}

/// For whose callers a VirtualService acts: everybody's (`None`) or those of some namespaces. One of another
/// namespace than the service's acts for the callers of its own only, whatever it exports.
fn audience(
    route: &Route<'_>,
    spec: &VirtualServiceSpec,
    id: &ServiceId,
) -> Result<Vec<Option<Namespace>>, Refusal> {
    let own = &route.namespace;
    let exports = &spec.export_to;
    let all = exports.is_empty() || exports.iter().any(|one| one == "*");
    let mut named: Vec<Namespace> = exports
        .iter()
        .filter_map(|one| match one.as_str() {
            "." => Some(own.clone()),
            name => Namespace::new(name).ok(),
        })
        .collect();
    named.sort();
    named.dedup();
    if id.namespace == *own {
        let named = named.into_iter().map(Some);
        return Ok(if all { vec![None] } else { named.collect() });
    }
    if all || named.contains(own) {
        return Ok(vec![Some(own.clone())]);
    }
    Err((
        "route-without-effect",
        format!("it is not exported to its own namespace, and {id} is of another"),
    ))
}

fn is_service(reference: &ParentReference) -> bool {
    reference.group.as_deref() == Some("") && reference.kind.as_deref() == Some("Service")
}

/// A service, and those of its ports that are meant.
pub(crate) type Found<'s> = (ServiceId, &'s Service, Vec<u16>);

fn routable(found: Found<'_>) -> Result<Found<'_>, Refusal> {
    let (id, service, _) = &found;
    if service.headless {
        return Err((
            "route-headless-parent",
            format!("{id} is headless, so calls to it cannot be routed"),
        ));
    }
    Ok(found)
}

/// The service and the ports that a reference from a namespace means.
pub(crate) fn find<'s>(
    own: &Namespace,
    reference: &ParentReference,
    services: &'s Services,
) -> Result<Found<'s>, Refusal> {
    let namespace = reference.namespace.as_deref().unwrap_or(own.as_str());
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
    let ports = matching_ports(service, reference);
    if ports.is_empty() {
        let said = match (&reference.section_name, reference.port) {
            (Some(name), _) => format!("port {name:?}"),
            (None, Some(port)) => format!("port {port}"),
            (None, None) => "port".to_owned(),
        };
        return Err(("route-unknown-parent", format!("{id} has no {said}")));
    }
    Ok((id, service, ports))
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
