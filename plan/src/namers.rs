//! What each discovery source alone says: the backends that namers of delegation tables lead to.
//!
//! A service that is nothing but what one source says shares its backend; only where sources meet, or a document or
//! workloads are there too, the source has one of its own.

use std::{collections::BTreeMap, sync::Arc};

use mesh_model::{
    config::SourceKind,
    name::{Namespace, ServiceId},
    snapshot::{Backend, NamedSource, Snapshot},
};

use crate::{
    Breath,
    backends::{Backends, backend_key},
    merge::{Known, Sources},
    services::{Port, Services},
    share,
    world::World,
};

/// What the subset of a source's own backend begins with; no name of a subset has a space.
pub(crate) const OF_SOURCE: &str = "of ";

/// The sources of the mesh, best first.
pub(crate) fn build(
    world: &World<'_>,
    sources: &Sources<'_>,
    services: &Services,
    backends: &Backends,
    previous: Option<&Snapshot>,
) -> Vec<Arc<NamedSource>> {
    let mut alone: BTreeMap<&str, Vec<&ServiceId>> = BTreeMap::new();
    for (id, service) in &services.by_id {
        if let Some(source) = service.sole.as_deref() {
            alone.entry(source).or_default().push(id);
        }
    }
    let before = |id: &str| {
        let mut all = previous.iter().flat_map(|one| &one.outbound.sources);
        all.find(|one| *one.id == *id)
    };
    let one = |(id, known): (&str, Known<'_>)| {
        let mut source = empty(world, id, known);
        for service in alone.get(id).into_iter().flatten() {
            if let Some(found) = services.by_id.get(service) {
                add(&mut source, service, &found.ports, |port| {
                    let key = ((*service).clone(), port);
                    backends.by_service.get(&key).cloned()
                });
            }
        }
        let before = before(id);
        for (service, ports) in services.by_source.get(id).into_iter().flatten() {
            add(&mut source, service, ports, |number| {
                let key = (service.clone(), number);
                let old = before.and_then(|before| before.backends.get(&key));
                let whole = backends.by_service.get(&key);
                Some(backend(
                    id,
                    service,
                    number,
                    ports.get(&number)?,
                    whole,
                    old,
                    world.input.breath,
                ))
            });
        }
        share::kept(source, before)
    };
    sources.in_order().into_iter().map(one).collect()
}

fn empty(world: &World<'_>, id: &str, known: Known<'_>) -> NamedSource {
    let mut configured = world.input.live.sources.iter();
    let records = match configured.find(|one| one.id == id).map(|one| &one.kind) {
        Some(SourceKind::Dns { records, .. }) => records
            .iter()
            .map(|one| {
                let service = ServiceId::new(Namespace::default(), one.service.clone());
                (Box::from(one.name.trim_end_matches('.')), service)
            })
            .collect(),
        _ => BTreeMap::new(),
    };
    NamedSource {
        id: Arc::from(id),
        kind: Arc::from(known.kind),
        scope: Arc::from(known.scope),
        tags: known.tags.to_vec(),
        records,
        ..NamedSource::default()
    }
}

fn add(
    source: &mut NamedSource,
    service: &ServiceId,
    ports: &BTreeMap<u16, Port>,
    backend: impl Fn(u16) -> Option<Arc<Backend>>,
) {
    for (number, port) in ports {
        let Some(backend) = backend(*number) else {
            continue;
        };
        source.backends.insert((service.clone(), *number), backend);
        if !port.name.is_empty() {
            let key = (service.clone(), Box::from(&*port.name));
            source.ports.insert(key, *number);
        }
    }
}

/// The source's own backend; used as the whole service's is.
fn backend(
    source: &str,
    service: &ServiceId,
    number: u16,
    port: &Port,
    whole: Option<&Arc<Backend>>,
    before: Option<&Arc<Backend>>,
    breath: Breath<'_>,
) -> Arc<Backend> {
    let subset = format!("{OF_SOURCE}{source}");
    let usable = port.candidates.iter().filter(|one| one.left_out.is_none());
    let fresh = Backend {
        key: backend_key(service, number, &subset),
        service: service.clone(),
        port: number,
        protocol: whole.map_or(port.protocol, |whole| whole.protocol),
        subset: Arc::from(subset),
        endpoints: usable.map(|one| Arc::clone(&one.endpoint)).collect(),
        policy: whole.map_or_else(Arc::default, |whole| Arc::clone(&whole.policy)),
    };
    share::backend(fresh, before, breath)
}
