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

use super::{Port, Room, Service};
use crate::{
    endpoints::{Considered, of_view},
    merge::Merged,
    world::{View, World, labels, selects},
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

fn ports(view: &View<'_>) -> BTreeSet<u16> {
    let addresses = view.endpoints.iter().filter_map(|one| socket(&one.address));
    addresses.map(|address| address.port()).collect()
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
                let mut endpoints = view.endpoints.iter();
                endpoints.any(|one| selects(&spec.selector, &labels(&one.labels, &source.name)))
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
        for (source, view) in &merged.views {
            let Ok(name) = ServiceName::new(&view.service) else {
                continue;
            };
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
                if fits && selects(&spec.selector, &labels(&endpoint.labels, &name)) {
                    let place = (*source, *view);
                    found.push(self.endpoint(id, port.port, place, endpoint, address));
                }
            }
        }
        found
    }

    /// The ports and endpoints of a service without a document.
    pub(super) fn add_views(&self, id: &ServiceId, service: &mut Service, views: &[&'a View<'a>]) {
        let merged = self.sources.merge(id, None, views.iter().copied());
        let common = common_port(&merged);
        let said = merged.views.iter().any(|(_, view)| stated(view).is_some());
        let mut touched = BTreeSet::new();
        for (source, view) in &merged.views {
            let Some(number) = stated(view).or(common) else {
                continue;
            };
            if !said {
                self.tell_ports(id, view, number);
            }
            touched.insert(number);
            let port = service.ports.entry(number).or_insert_with(|| Port {
                name: Arc::from(""),
                protocol: view.protocol.parse().unwrap_or_default(),
                candidates: Vec::new(),
            });
            for endpoint in &view.endpoints {
                if let Some(address) = socket(&endpoint.address) {
                    let place = (*source, *view);
                    port.candidates
                        .push(self.endpoint(id, number, place, endpoint, address));
                }
            }
        }
        for number in touched {
            if let Some(port) = service.ports.get_mut(&number) {
                port.merge(&merged);
            }
        }
    }

    fn tell_ports(&self, id: &ServiceId, view: &View<'_>, number: u16) {
        if ports(view).len() > 1 {
            self.findings.warning(
                "no-common-port",
                &format!("{} of {}", id, view.source),
                format!("its endpoints have different ports, so {number} is what callers dial"),
                "say in the source which port callers dial, or write a Service document",
            );
        }
    }

    fn endpoint(
        &self,
        id: &ServiceId,
        number: u16,
        (source, view): (usize, &View<'_>),
        stated: &ViewEndpoint,
        address: SocketAddr,
    ) -> Considered {
        Considered {
            source: Some(source),
            ..of_view(self.world, id, number, view, stated, address, &self.known)
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
    views().find_map(|view| ports(view).into_iter().next())
}
