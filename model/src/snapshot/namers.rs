//! What each discovery source alone says, for names in delegation tables that mean one source.

use std::{collections::BTreeMap, sync::Arc};

use super::Backend;
use crate::{
    dtab::namer::{self, MeantPort, Place},
    name::ServiceId,
};

/// A source with the services that it has.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct NamedSource {
    /// Its id.
    pub id: Arc<str>,
    /// The word of its kind.
    pub kind: Arc<str>,
    /// Which part of the registry it reads; may be empty.
    pub scope: Arc<str>,
    /// Tags that its instances carry.
    pub tags: Vec<String>,
    /// Names of DNS, without the dot at the end, by the service that each becomes.
    pub records: BTreeMap<Box<str>, ServiceId>,
    /// Its services by port.
    pub backends: BTreeMap<(ServiceId, u16), Arc<Backend>>,
    /// Ports by name.
    pub ports: BTreeMap<(ServiceId, Box<str>), u16>,
}

impl NamedSource {
    fn find(&self, path: &[Arc<str>], dialled: u16) -> Option<&Arc<Backend>> {
        let place = Place {
            id: &self.id,
            kind: &self.kind,
            scope: &self.scope,
            tags: &self.tags,
        };
        if let (Some("dns"), [_, name, ..]) = (path.first().and_then(|one| namer::kind(one)), path)
            && let Some(service) = self.records.get(name.trim_end_matches('.'))
        {
            return self.backend(service, &MeantPort::Any, dialled);
        }
        let mut all = namer::meant(path, place).into_iter();
        all.find_map(|meant| self.backend(&meant.service, &meant.port, dialled))
    }

    fn backend(
        &self,
        service: &ServiceId,
        port: &MeantPort,
        dialled: u16,
    ) -> Option<&Arc<Backend>> {
        let exact = |number: u16| self.backends.get(&(service.clone(), number));
        match port {
            MeantPort::Number(number) => exact(*number),
            MeantPort::Name(name) => {
                let key = (service.clone(), Box::from(&**name));
                self.ports.get(&key).and_then(|number| exact(*number))
            }
            MeantPort::Any => exact(dialled).or_else(|| {
                let (low, high) = ((service.clone(), 0), (service.clone(), u16::MAX));
                let mut all = self.backends.range(low..=high).map(|(_, one)| one);
                all.next()
            }),
        }
    }
}

/// What the segments behind `/#/` mean: the first source that has it, or why there is none.
pub fn named(
    sources: &[Arc<NamedSource>],
    path: &[Arc<str>],
    dialled: u16,
) -> Result<Arc<Backend>, String> {
    if let Some(found) = sources.iter().find_map(|one| one.find(path, dialled)) {
        return Ok(Arc::clone(found));
    }
    let namer = path.first().map_or("", |one| one);
    let of_id = |source: &NamedSource| source.id.split('/').next() == Some(namer);
    match namer::kind(namer) {
        None if sources.iter().any(|one| of_id(one)) => {
            Err(format!("no source of {namer} has such a service"))
        }
        None => Err(format!("{namer} is no namer")),
        Some(kind) if sources.iter().any(|one| *one.kind == *kind) => {
            Err(format!("no source of kind {kind} has such a service"))
        }
        Some(kind) => Err(format!("there is no source of kind {kind}")),
    }
}
