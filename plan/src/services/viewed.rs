//! What registries say of services: the endpoints of their views, on the ports that callers dial.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::Arc,
};

use mesh_model::{
    address::canonical,
    document::spec::{PortOrName, ServicePortSpec, ServiceSpec},
    fact::ViewEndpoint,
    name::{Namespace, ServiceId, ServiceName},
};

use super::{BySource, Port, Room, Service};
use crate::{
    endpoints::{Considered, Keys, of_view},
    labelled::Labelled,
    merge::Merged,
    world::{View, World, selects},
};

/// Views by the service that they name.
pub(super) fn by_service<'a>(world: &'a World<'a>) -> BTreeMap<ServiceId, Vec<&'a View<'a>>> {
    let mut all: BTreeMap<ServiceId, Vec<&View<'_>>> = BTreeMap::new();
    for view in &world.views {
        if let Some(id) = view_service(view) {
            all.entry(id).or_default().push(view);
        }
    }
    all
}

fn view_service(view: &View<'_>) -> Option<ServiceId> {
    let namespace = Namespace::new(&view.namespace).ok()?;
    Some(ServiceId::new(
        namespace,
        ServiceName::new(&view.service).ok()?,
    ))
}

fn socket(text: &str) -> Option<SocketAddr> {
    text.parse()
        .ok()
        .map(canonical)
        .filter(|address: &SocketAddr| address.port() != 0)
}

fn stated(view: &View<'_>) -> Option<u16> {
    u16::try_from(view.port).ok().filter(|port| *port != 0)
}

/// The lowest port of a view's endpoints, and the highest.
fn ports(view: &View<'_>) -> Option<(u16, u16)> {
    let addresses = view.endpoints.iter().filter_map(|one| socket(&one.address));
    addresses
        .map(|address| (address.port(), address.port()))
        .reduce(|(lowest, highest), (port, _)| (lowest.min(port), highest.max(port)))
}

impl<'a> Room<'a> {
    /// The views that count for a service with a document: of its own name, or with what its selector asks for.
    pub(super) fn merged(&self, id: &ServiceId, spec: &ServiceSpec) -> Merged<'a, 'a> {
        if spec.selector.is_empty() {
            let views = self.views.get(id).into_iter().flatten().copied();
            return self.sources.merge(id, Some(spec), views);
        }
        let selected = self
            .views
            .iter()
            .filter(|(source, _)| source.namespace == id.namespace)
            .flat_map(|(source, views)| views.iter().map(move |view| (source, *view)))
            .filter(|(source, view)| {
                let mut labelled = Labelled::new(&source.name);
                let mut endpoints = view.endpoints.iter();
                endpoints.any(|one| selects(&spec.selector, &labelled.of(&one.labels).0))
            });
        self.sources
            .merge(id, Some(spec), selected.map(|(_, view)| view))
    }

    /// Registry endpoints of a port of a service with a document.
    pub(super) fn of_document(
        &self,
        id: &ServiceId,
        spec: &ServiceSpec,
        port: &ServicePortSpec,
        merged: &Merged<'_, '_>,
    ) -> Vec<Considered> {
        let mut found = Vec::new();
        let keys = Keys::new(id, port.port);
        let mut labelled = Labelled::new(&id.name);
        for (source, view) in &merged.views {
            let Ok(name) = ServiceName::new(&view.service) else {
                continue;
            };
            let mut of_view = Labelled::new(&name);
            for endpoint in &view.endpoints {
                let Some(address) = socket(&endpoint.address) else {
                    continue;
                };
                let fits = match &port.target_port {
                    None => {
                        spec.ports.len() == 1
                            || view.port == u32::from(port.port)
                            || address.port() == port.port
                    }
                    Some(PortOrName::Port(number)) => address.port() == *number,
                    Some(PortOrName::Name(_)) => false,
                };
                if fits && selects(&spec.selector, &of_view.of(&endpoint.labels).0) {
                    let place = (*source, *view);
                    found.push(self.endpoint(keys, place, endpoint, address, &mut labelled));
                }
            }
        }
        found
    }

    /// The ports and endpoints of a service without a document.
    pub(super) fn add_views(&self, id: &ServiceId, service: &mut Service, views: &[&'a View<'a>]) {
        let first = views.first().map(|view| view.source.as_str());
        let one_source = views.iter().all(|view| Some(view.source.as_str()) == first);
        let merged = self.sources.merge(id, None, views.iter().copied());
        service.sole = first
            .filter(|_| one_source && service.ports.is_empty() && !merged.has_shares())
            .map(Arc::from);
        let said = merged.views.iter().any(|(_, view)| stated(view).is_some());
        let touched = self.ports(id, &merged, &mut service.ports, |view, number| {
            if !said {
                self.tell_ports(id, view, number);
            }
        });
        for number in touched {
            if let Some(port) = service.ports.get_mut(&number) {
                port.merge(&merged, self.world.input.breath);
            }
        }
    }

    /// What each source alone says of a service.
    pub(super) fn by_source(&self, id: &ServiceId, views: &[&'a View<'a>], into: &mut BySource) {
        let mut by_source: BTreeMap<&str, Vec<&'a View<'a>>> = BTreeMap::new();
        for view in views {
            by_source.entry(&view.source).or_default().push(view);
        }
        for (source, views) in by_source {
            let merged = Merged::alone(views.into_iter());
            let mut ports = BTreeMap::new();
            self.ports(id, &merged, &mut ports, |_, _| {});
            for port in ports.values_mut() {
                port.settle(self.world.input.breath);
            }
            let of_source = into.entry(Arc::from(source)).or_default();
            of_source.insert(id.clone(), ports);
        }
    }

    /// Adds the endpoints of the views to the ports; the numbers of these.
    fn ports(
        &self,
        id: &ServiceId,
        merged: &Merged<'_, '_>,
        ports: &mut BTreeMap<u16, Port>,
        tell: impl Fn(&View<'_>, u16),
    ) -> BTreeSet<u16> {
        let common = common_port(merged);
        let mut labelled = Labelled::new(&id.name);
        let mut touched = BTreeSet::new();
        for (source, view) in &merged.views {
            let Some(number) = stated(view).or(common) else {
                continue;
            };
            tell(view, number);
            touched.insert(number);
            let port = ports.entry(number).or_insert_with(|| {
                let protocol = view.protocol.parse().unwrap_or_default();
                Port::new(Arc::from(view.port_name), protocol, Vec::new())
            });
            let keys = Keys::new(id, number);
            port.candidates.reserve(view.endpoints.len());
            for endpoint in &view.endpoints {
                if let Some(address) = socket(&endpoint.address) {
                    let place = (*source, *view);
                    port.push(self.endpoint(keys, place, endpoint, address, &mut labelled));
                }
            }
        }
        touched
    }

    fn tell_ports(&self, id: &ServiceId, view: &View<'_>, number: u16) {
        if stated(view).is_none() && ports(view).is_some_and(|(lowest, highest)| lowest < highest) {
            self.findings.warning(
                "no-common-port",
                &format!("{} of {}", id, view.source),
                format!("its endpoints have different ports, so {number} is what callers dial"),
                "say in the source which port callers dial, or write a Service document",
            );
        }
    }

    fn endpoint<'e>(
        &self,
        keys: Keys,
        (source, view): (usize, &View<'_>),
        stated: &'e ViewEndpoint,
        address: SocketAddr,
        labelled: &mut Labelled<'e>,
    ) -> Considered {
        self.world.input.breath.take();
        let known = &self.known;
        Considered {
            source: Some(source),
            ..of_view(self.world, keys, view, stated, address, known, labelled)
        }
    }
}

/// The port of views that state none: the one that the others state when they agree, else the first view's
/// lowest. So endpoints that two registries name on different ports are one service.
fn common_port(merged: &Merged<'_, '_>) -> Option<u16> {
    let views = || merged.views.iter().map(|(_, view)| *view);
    let said: BTreeSet<u16> = views().filter_map(stated).collect();
    if said.len() == 1 {
        return said.into_iter().next();
    }
    views().find_map(|view| ports(view).map(|(lowest, _)| lowest))
}
