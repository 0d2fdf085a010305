//! Services with their ports, and for each port every endpoint that could serve it.
//!
//! A service comes from a `Service` document, from workloads of its name, or from a registry; an endpoint
//! may belong to several (`words`, `words-v1`). In: the world. Out: services, each endpoint with the
//! reason when it may not be used.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::Arc,
};

use mesh_model::{
    address::canonical,
    document::{
        Spec,
        spec::{PortOrName, ServicePortSpec, ServiceSpec},
    },
    fact::ViewEndpoint,
    name::{Namespace, ServiceId, ServiceName},
    service::{AppProtocol, ServicePort},
};

use crate::{
    endpoints::{Considered, Known, of_instance, of_view},
    findings::Findings,
    world::{Instance, View, World, labels, selects},
};

/// All services.
#[derive(Debug, Default)]
pub(crate) struct Services {
    pub(crate) by_id: BTreeMap<ServiceId, Service>,
}

/// A service.
#[derive(Debug, Default)]
pub(crate) struct Service {
    pub(crate) ports: BTreeMap<u16, Port>,
    pub(crate) fail_closed: bool,
    /// True when it has no virtual address: its name leads to the endpoints' own.
    pub(crate) headless: bool,
}

/// A port of a service.
#[derive(Debug)]
pub(crate) struct Port {
    pub(crate) name: Arc<str>,
    pub(crate) protocol: AppProtocol,
    /// Every endpoint that was looked at, by id.
    pub(crate) candidates: Vec<Considered>,
}

/// Builds every service.
pub(crate) fn build(world: &World<'_>, findings: &Findings) -> Services {
    let documents = documents(world);
    let by_address = by_address(world);
    let mut services = Services::default();
    for (id, spec) in &documents {
        services.by_id.insert(
            id.clone(),
            from_document(world, id, spec, &by_address, findings),
        );
    }
    for instance in &world.instances {
        if !documents.contains_key(&instance.service) {
            add_instance(world, &mut services, instance, findings);
        }
    }
    for view in &world.views {
        let Some(id) = view_service(view) else {
            continue;
        };
        if !documents.contains_key(&id) {
            add_view(world, &mut services, &id, view, &by_address, findings);
        }
    }
    for service in services.by_id.values_mut() {
        for port in service.ports.values_mut() {
            port.settle();
        }
    }
    services
}

impl Port {
    /// By id, each address once: the first that was found stays. Views of several hosts may use one id for
    /// different endpoints; the later ones get their address behind it.
    fn settle(&mut self) {
        let mut seen = BTreeSet::new();
        self.candidates
            .retain(|one| seen.insert((one.endpoint.address, one.endpoint.host)));
        let mut ids = BTreeSet::new();
        for one in &mut self.candidates {
            if !ids.insert(Arc::clone(&one.endpoint.id)) {
                one.endpoint.id =
                    Arc::from(format!("{}@{}", one.endpoint.id, one.endpoint.address));
            }
        }
        self.candidates
            .sort_by(|a, b| a.endpoint.id.cmp(&b.endpoint.id));
    }
}

fn documents<'a>(world: &World<'a>) -> BTreeMap<ServiceId, &'a ServiceSpec> {
    world
        .input
        .catalog
        .of_kind("Service")
        .filter_map(|(key, resource)| {
            let Spec::Service(spec) = &resource.document.spec else {
                return None;
            };
            let namespace = Namespace::new(&key.namespace).ok()?;
            Some((
                ServiceId::new(namespace, ServiceName::new(&key.name).ok()?),
                spec,
            ))
        })
        .collect()
}

/// Workloads by the address that others dial: what a registry names there is that workload.
fn by_address<'a>(world: &'a World<'_>) -> Known<'a> {
    let mut all = BTreeMap::new();
    for instance in world.instances.iter().filter(|instance| instance.open) {
        for port in &instance.ports {
            all.entry(SocketAddr::new(instance.address, port.target))
                .or_insert((instance, port));
        }
    }
    all
}

fn from_document(
    world: &World<'_>,
    id: &ServiceId,
    spec: &ServiceSpec,
    known: &Known<'_>,
    findings: &Findings,
) -> Service {
    let members: Vec<&Instance> = world
        .instances
        .iter()
        .filter(|instance| instance.service.namespace == id.namespace)
        .filter(|instance| {
            if spec.selector.is_empty() {
                instance.service == *id
            } else {
                selects(&spec.selector, &instance.labels)
            }
        })
        .collect();
    let mut service = Service {
        ports: BTreeMap::new(),
        fail_closed: spec.fail_closed || members.iter().any(|member| member.fail_closed),
        headless: spec.cluster_ip.as_deref() == Some("None"),
    };
    for port in &spec.ports {
        let mut found: Vec<(&Instance, &ServicePort)> = members
            .iter()
            .filter_map(|member| Some((*member, target(port, &member.ports)?)))
            .collect();
        found.retain(|(member, _)| !member.ports.is_empty());
        for member in members.iter().filter(|member| !member.ports.is_empty()) {
            if !found.iter().any(|(other, _)| std::ptr::eq(*other, *member)) {
                findings.note(
                    "no-such-target",
                    &format!("Service/{}/{}", id.namespace, id.name),
                    format!(
                        "{} on {} has no port for {}",
                        member.name, member.host_name, port.port
                    ),
                    "correct targetPort, or the ports of the workload",
                );
            }
        }
        let stated = port
            .app_protocol
            .as_deref()
            .and_then(|word| word.parse().ok());
        let mut candidates: Vec<Considered> = found
            .iter()
            .map(|(member, target)| of_instance(world, id, port.port, member, target))
            .collect();
        candidates.extend(viewed(world, id, spec, port, known));
        service.ports.insert(
            port.port,
            Port {
                name: Arc::from(port.name.as_str()),
                protocol: stated
                    .unwrap_or_else(|| common(found.iter().map(|(_, port)| port.protocol))),
                candidates,
            },
        );
    }
    service
}

/// What all speak, or `detect` when they differ.
fn common(mut all: impl Iterator<Item = AppProtocol>) -> AppProtocol {
    let Some(first) = all.next() else {
        return AppProtocol::Detect;
    };
    if all.all(|other| other == first) {
        first
    } else {
        AppProtocol::Detect
    }
}

/// The workload's port that a service's port leads to. A number names the program's port first, since
/// that is what Kubernetes means by it; left out, the workload's port that callers dial comes first.
fn target<'a>(port: &ServicePortSpec, ports: &'a [ServicePort]) -> Option<&'a ServicePort> {
    let by_port = |number: u16| ports.iter().find(|one| one.port == number);
    let by_target = |number: u16| ports.iter().find(|one| one.target == number);
    match &port.target_port {
        None => by_port(port.port).or_else(|| by_target(port.port)),
        Some(PortOrName::Port(number)) => by_target(*number).or_else(|| by_port(*number)),
        Some(PortOrName::Name(name)) => ports.iter().find(|one| *one.name == **name),
    }
}

/// Registry endpoints of a service with a document: of its own name, or with the selected labels.
fn viewed(
    world: &World<'_>,
    id: &ServiceId,
    spec: &ServiceSpec,
    port: &ServicePortSpec,
    known: &Known<'_>,
) -> Vec<Considered> {
    let mut found = Vec::new();
    for view in &world.views {
        let Some(source) = view_service(view) else {
            continue;
        };
        let here = if spec.selector.is_empty() {
            source == *id
        } else {
            source.namespace == id.namespace
        };
        if !here {
            continue;
        }
        for endpoint in &view.endpoints {
            let Some(address) = socket(&endpoint.address) else {
                continue;
            };
            let labels = labels(&endpoint.labels, &source.name);
            let fits = match &port.target_port {
                None => {
                    spec.ports.len() == 1
                        || view.port == u32::from(port.port)
                        || address.port() == port.port
                }
                Some(PortOrName::Port(number)) => address.port() == *number,
                Some(PortOrName::Name(_)) => false,
            };
            if fits && selects(&spec.selector, &labels) {
                found.push(of_view(
                    world, id, port.port, view, endpoint, address, known,
                ));
            }
        }
    }
    found
}

fn add_instance(
    world: &World<'_>,
    services: &mut Services,
    instance: &Instance,
    findings: &Findings,
) {
    if instance.ports.is_empty() {
        return;
    }
    let id = &instance.service;
    let service = services.by_id.entry(id.clone()).or_default();
    service.fail_closed |= instance.fail_closed;
    for port in &instance.ports {
        let endpoint = of_instance(world, id, port.port, instance, port);
        let entry = service.ports.entry(port.port).or_insert_with(|| Port {
            name: Arc::clone(&port.name),
            protocol: port.protocol,
            candidates: Vec::new(),
        });
        if entry.protocol != port.protocol {
            findings.warning(
                "port-differs",
                &format!("{id}:{}", port.port),
                format!(
                    "{} on {} says {}, others say {}",
                    instance.name, instance.host_name, port.protocol, entry.protocol
                ),
                "write the same protocol everywhere, or a Service document with appProtocol",
            );
        }
        entry.candidates.push(endpoint);
    }
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

fn add_view(
    world: &World<'_>,
    services: &mut Services,
    id: &ServiceId,
    view: &View<'_>,
    known: &Known<'_>,
    findings: &Findings,
) {
    let endpoints: Vec<(&ViewEndpoint, SocketAddr)> = view
        .endpoints
        .iter()
        .filter_map(|one| Some((one, socket(&one.address)?)))
        .collect();
    let ports: BTreeSet<u16> = endpoints
        .iter()
        .map(|(_, address)| address.port())
        .collect();
    let stated = u16::try_from(view.port).ok().filter(|port| *port != 0);
    let Some(number) = stated.or_else(|| ports.first().copied()) else {
        return;
    };
    if stated.is_none() && ports.len() > 1 {
        findings.warning(
            "no-common-port",
            &format!("{} of {}", id, view.source),
            format!("its endpoints have different ports, so {number} is what callers dial"),
            "say in the source which port callers dial, or write a Service document",
        );
    }
    let service = services.by_id.entry(id.clone()).or_default();
    let port = service.ports.entry(number).or_insert_with(|| Port {
        name: Arc::from(""),
        protocol: view.protocol.parse().unwrap_or_default(),
        candidates: Vec::new(),
    });
    for (endpoint, address) in endpoints {
        port.candidates
            .push(of_view(world, id, number, view, endpoint, address, known));
    }
}
