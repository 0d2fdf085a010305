//! Services with their ports, and for each port every endpoint that could serve it.
//!
//! A service comes from a `Service` document, from workloads of its name, or from a registry; an endpoint
//! may belong to several (`words`, `words-v1`). In: the world. Out: services, each endpoint with the
//! reason when it may not be used.

use std::{
    collections::{BTreeMap, HashSet},
    net::SocketAddr,
    sync::Arc,
};

use foldhash::fast::FixedState;
use mesh_model::{
    document::{
        Spec,
        spec::{PortOrName, ServicePortSpec, ServiceSpec},
    },
    name::{Namespace, ServiceId, ServiceName},
    service::{AppProtocol, ServicePort},
};

use crate::{
    Breath,
    endpoints::{Considered, Keys, Known, of_instance},
    findings::Findings,
    merge::{Merged, Sources},
    world::{Instance, View, World, selects},
};

/// What registries say of services.
mod viewed;

/// Ports by source and service.
pub(crate) type BySource = BTreeMap<Arc<str>, BTreeMap<ServiceId, BTreeMap<u16, Port>>>;

/// All services.
#[derive(Debug, Default)]
pub(crate) struct Services {
    pub(crate) by_id: BTreeMap<ServiceId, Service>,
    /// What each source alone says of services that are not its alone.
    pub(crate) by_source: BySource,
}

/// A service.
#[derive(Debug, Default)]
pub(crate) struct Service {
    pub(crate) ports: BTreeMap<u16, Port>,
    pub(crate) fail_closed: bool,
    /// True when it has no virtual address: its name leads to the endpoints' own.
    pub(crate) headless: bool,
    /// The source that alone says what it is.
    pub(crate) sole: Option<Arc<str>>,
}

/// A port of a service.
#[derive(Debug)]
pub(crate) struct Port {
    pub(crate) name: Arc<str>,
    pub(crate) protocol: AppProtocol,
    /// Every endpoint that was looked at, by id.
    pub(crate) candidates: Vec<Considered>,
    /// True when each address stands there once.
    distinct: bool,
}

/// Builds every service.
pub(crate) fn build(world: &World<'_>, sources: &Sources<'_>, findings: &Findings) -> Services {
    let documents = documents(world);
    let room = Room {
        world,
        known: by_address(world),
        sources,
        views: viewed::by_service(world),
        findings,
    };
    let mut services = Services::default();
    for (id, spec) in &documents {
        services.by_id.insert(id.clone(), room.document(id, spec));
    }
    for instance in &world.instances {
        if !documents.contains_key(&instance.service) {
            add_instance(world, &mut services, instance, findings);
        }
    }
    for (id, views) in &room.views {
        if !documents.contains_key(id) {
            let service = services.by_id.entry(id.clone()).or_default();
            room.add_views(id, service, views);
        }
    }
    for (id, views) in &room.views {
        let sole = |service: &Service| service.sole.is_some();
        if !services.by_id.get(id).is_some_and(sole) {
            room.by_source(id, views, &mut services.by_source);
        }
    }
    for service in services.by_id.values_mut() {
        for port in service.ports.values_mut() {
            port.settle(world.input.breath);
        }
    }
    services
        .by_id
        .retain(|_, service| !service.ports.is_empty());
    services
}

impl Services {
    /// Lets go of all endpoints that were looked at.
    pub(crate) fn free(self, breath: Breath<'_>) {
        let of_sources = self.by_source.into_values().flat_map(BTreeMap::into_values);
        let services = self.by_id.into_values().map(|service| service.ports);
        let ports = services.chain(of_sources).flat_map(BTreeMap::into_values);
        breath.free(ports.flat_map(|port| port.candidates));
    }
}

/// What services are made from.
struct Room<'a> {
    world: &'a World<'a>,
    known: Known<'a>,
    sources: &'a Sources<'a>,
    views: BTreeMap<ServiceId, Vec<&'a View<'a>>>,
    findings: &'a Findings,
}

impl Port {
    fn new(name: Arc<str>, protocol: AppProtocol, candidates: Vec<Considered>) -> Self {
        Self {
            name,
            protocol,
            candidates,
            distinct: false,
        }
    }

    fn push(&mut self, one: Considered) {
        self.candidates.push(one);
        self.distinct = false;
    }

    /// Each address once: the first that was found stays, and of several sources so the best.
    fn make_distinct(&mut self, breath: Breath<'_>) {
        if !self.distinct {
            let most = self.candidates.len();
            let mut seen = HashSet::with_capacity_and_hasher(most, FixedState::default());
            self.candidates.retain(|one| {
                breath.take();
                seen.insert((one.endpoint.address, one.endpoint.host))
            });
            self.distinct = true;
        }
    }

    fn merge(&mut self, merged: &Merged<'_, '_>, breath: Breath<'_>) {
        self.make_distinct(breath);
        merged.settle(&mut self.candidates);
    }

    /// By id, each address once. Views of several hosts may use one id for different endpoints; those that were
    /// found later get their address behind it.
    fn settle(&mut self, breath: Breath<'_>) {
        self.make_distinct(breath);
        self.sort();
        let mut renamed = false;
        let same = |a: &Considered, b: &Considered| a.endpoint.id == b.endpoint.id;
        for group in self.candidates.chunk_by_mut(same) {
            for one in group.iter_mut().skip(1) {
                let id = format!("{}@{}", one.endpoint.id, one.endpoint.address);
                Arc::make_mut(&mut one.endpoint).id = id.into();
                renamed = true;
            }
        }
        if renamed {
            self.sort();
        }
    }

    /// By id; those of one id in the order in which they were found.
    fn sort(&mut self) {
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
    let mut all = Known::default();
    for instance in world.instances.iter().filter(|instance| instance.open) {
        for port in &instance.ports {
            all.entry(SocketAddr::new(instance.address, port.target))
                .or_insert((instance, port));
        }
    }
    all
}

impl Room<'_> {
    fn document(&self, id: &ServiceId, spec: &ServiceSpec) -> Service {
        let (world, findings) = (self.world, self.findings);
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
        let merged = self.merged(id, spec);
        let mut service = Service {
            ports: BTreeMap::new(),
            fail_closed: spec.fail_closed || members.iter().any(|member| member.fail_closed),
            headless: spec.cluster_ip.as_deref() == Some("None"),
            sole: None,
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
            let keys = Keys::new(id, port.port);
            let mut candidates: Vec<Considered> = found
                .iter()
                .map(|(member, target)| of_instance(world, keys, member, target))
                .collect();
            candidates.extend(self.of_document(id, spec, port, &merged));
            let protocol =
                stated.unwrap_or_else(|| common(found.iter().map(|(_, port)| port.protocol)));
            let mut entry = Port::new(Arc::from(port.name.as_str()), protocol, candidates);
            entry.merge(&merged, world.input.breath);
            service.ports.insert(port.port, entry);
        }
        service
    }
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
        let endpoint = of_instance(world, Keys::new(id, port.port), instance, port);
        let entry = service
            .ports
            .entry(port.port)
            .or_insert_with(|| Port::new(Arc::clone(&port.name), port.protocol, Vec::new()));
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
        entry.push(endpoint);
    }
}
