//! The registry as deltas keep it: pure.
//!
//! In: answers. Out: Eureka's own hash of it, and the sets of the services that it makes.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
    fmt::Write,
    sync::Arc,
};

use mesh_model::{
    endpoint::{Endpoint, ServiceKey},
    name::{Namespace, ServiceName},
};

use super::read::{Instance, Status, Told};
use crate::{place::label, sink::ServiceSet};

/// What a service is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Content {
    /// This is its whole set.
    Set(ServiceSet),
    /// It has instances, and none of them can be dialled.
    Unreadable,
}

/// Applications with their instances.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Applications(BTreeMap<Arc<str>, BTreeMap<Arc<str>, Instance>>);

/// The key of a name, where it is one that a mesh can have.
pub(crate) fn key(name: &str) -> Option<ServiceKey> {
    Some(ServiceKey {
        namespace: Some(Namespace::default()),
        name: ServiceName::new(name).ok()?,
        port_name: None,
    })
}

impl Applications {
    /// The names whose services may become others by what is told: those that are used now.
    pub(crate) fn names_of(&self, told: &[Told]) -> BTreeSet<Arc<str>> {
        let mut names = BTreeSet::new();
        for one in told {
            names.insert(Arc::clone(&one.app));
            if let Some(old) = self.0.get(&one.app).and_then(|all| all.get(&one.id)) {
                names.extend(virtual_names(old));
            }
        }
        names
    }

    /// Takes what an answer says, in its order; the virtual names that it uses.
    pub(crate) fn take(&mut self, told: Vec<Told>) -> BTreeSet<Arc<str>> {
        let mut names = BTreeSet::new();
        for Told { app, id, instance } in told {
            names.extend(instance.iter().flat_map(virtual_names));
            match instance {
                Some(instance) => {
                    self.0.entry(app).or_default().insert(id, instance);
                }
                None => {
                    if let Some(all) = self.0.get_mut(&app) {
                        all.remove(&id);
                        if all.is_empty() {
                            self.0.remove(&app);
                        }
                    }
                }
            }
        }
        names
    }

    /// How many instances there are.
    pub(crate) fn len(&self) -> usize {
        self.0.values().map(BTreeMap::len).sum()
    }

    /// `apps__hashcode`: each status with its count, in the order of their names, over all instances.
    pub(crate) fn hash(&self) -> String {
        let mut counts: BTreeMap<Status, usize> = BTreeMap::new();
        for instance in self.0.values().flat_map(BTreeMap::values) {
            *counts.entry(instance.status).or_default() += 1;
        }
        let mut text = String::new();
        for (status, count) in &counts {
            let _infallible = write!(text, "{}_{count}_", status.word());
        }
        text
    }

    /// How many instances of `self` are not in `other`.
    pub(crate) fn lost_in(&self, other: &Self) -> usize {
        let lost = self.0.iter().map(|(app, all)| match other.0.get(app) {
            None => all.len(),
            Some(there) => all.keys().filter(|id| !there.contains_key(*id)).count(),
        });
        lost.sum()
    }

    /// Adds those of `older` that are not here.
    pub(crate) fn keep_from(&mut self, older: &Self) {
        for (app, all) in &older.0 {
            let here = self.0.entry(Arc::clone(app)).or_default();
            for (id, instance) in all {
                here.entry(Arc::clone(id))
                    .or_insert_with(|| instance.clone());
            }
        }
    }

    /// Which application has which name: each its own, and one that is made fit where no application has that very
    /// name; of several that become one the first has it.
    fn owners(&self) -> BTreeMap<Cow<'_, str>, &str> {
        let own = self.0.keys().map(|app| (Cow::from(&**app), &**app));
        let mut owners: BTreeMap<_, _> = own.collect();
        for app in self.0.keys() {
            owners.entry(label(app)).or_insert(app);
        }
        owners
    }

    /// The services of these names, or all: one per application, and one per virtual name that is no
    /// application's.
    pub(crate) fn services(
        &self,
        names: Option<&BTreeSet<Arc<str>>>,
    ) -> BTreeMap<ServiceKey, Content> {
        let names: Option<BTreeSet<Cow<'_, str>>> =
            names.map(|names| names.iter().map(|name| label(name)).collect());
        let wanted = |name: &str| names.as_ref().is_none_or(|names| names.contains(name));
        let owners = self.owners();
        let mut found = BTreeMap::new();
        let mut by_virtual_name: BTreeMap<Arc<str>, Vec<(String, &Instance)>> = BTreeMap::new();
        for (app, all) in &self.0 {
            let name = label(app);
            let counts = owners.get(&name) == Some(&&**app);
            if let Some(key) = key(&name).filter(|_| counts && wanted(&name)) {
                found.insert(key, content(all.iter().map(|(id, one)| (&**id, one))));
            }
            for (id, one) in all {
                for name in virtual_names(one) {
                    if !owners.contains_key(&*name) && wanted(&name) {
                        let one = (format!("{app}/{id}"), one);
                        by_virtual_name.entry(name).or_default().push(one);
                    }
                }
            }
        }
        for (name, all) in by_virtual_name {
            if let Some(key) = key(&name) {
                found.insert(key, content(all.iter().map(|(id, one)| (&**id, *one))));
            }
        }
        found
    }

    /// Names of applications that no service of the mesh can have, or another one has.
    pub(crate) fn unnamed(&self) -> BTreeSet<Arc<str>> {
        let owners = self.owners();
        let counts = |app: &Arc<str>| {
            let name = label(app);
            owners.get(&name) == Some(&&**app) && key(&name).is_some()
        };
        let all = self.0.keys().filter(|app| !counts(app));
        all.cloned().collect()
    }
}

/// The virtual names of an instance, each once.
fn virtual_names(one: &Instance) -> BTreeSet<Arc<str>> {
    let names = one.virtual_names.as_deref().unwrap_or_default().split(',');
    let names = names.map(str::trim).filter(|name| !name.is_empty());
    names.map(Arc::from).collect()
}

fn content<'i>(all: impl Iterator<Item = (&'i str, &'i Instance)>) -> Content {
    let endpoints: Vec<Endpoint> = all.filter_map(|(id, one)| endpoint(id, one)).collect();
    if endpoints.is_empty() {
        return Content::Unreadable;
    }
    Content::Set(ServiceSet::from(endpoints))
}

fn endpoint(id: &str, one: &Instance) -> Option<Endpoint> {
    Some(Endpoint {
        id: Arc::from(id),
        address: one.address.clone()?,
        health: one.health,
        weight: one.weight,
        priority: 0,
        locality: one.locality.clone(),
        metadata: Arc::clone(&one.metadata),
        host: None,
        tunnel: None,
    })
}

#[cfg(test)]
mod tests;
