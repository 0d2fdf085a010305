//! What a cluster has, and the services that follow from it: a service is the union of its slices.
//!
//! In: objects as they come and go, and whole lists. Out: which services are different now, and their sets.
//! Never: clocks, files, sockets.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use mesh_model::{
    endpoint::{Endpoint, ServiceKey},
    name::{Namespace, ServiceName},
};

use super::object::{Content, Key, Kind, Member, Object, Service, ServicePort, Slice};
use crate::{
    place::{address, endpoint, fitting},
    sink::ServiceSet,
};

/// Most objects of one kind.
const MAX_OBJECTS: usize = 200_000;
/// Most endpoints in all slices.
const MAX_MEMBERS: usize = 2_000_000;

/// The objects.
#[derive(Debug, Default)]
pub(crate) struct Cluster {
    /// Services that are read; `None`: all.
    only: Option<Arc<BTreeSet<ServiceName>>>,
    services: BTreeMap<Key, Service>,
    /// Slices with their version: of two that say different things of an endpoint the newer one counts.
    slices: BTreeMap<Key, (u64, Slice)>,
    /// Labels of pods, where they are read.
    pods: BTreeMap<Key, Arc<BTreeMap<String, String>>>,
    /// The slices that name a pod; kept only where pods are read.
    homes: Option<BTreeMap<Key, BTreeSet<Key>>>,
    /// The names of a service's slices.
    members: BTreeMap<Key, BTreeSet<Arc<str>>>,
    /// The names of the ports that were told of a service.
    told: BTreeMap<Key, BTreeSet<Arc<str>>>,
    changed: BTreeSet<Key>,
    /// Objects that are there and make no sense.
    broken: BTreeSet<(Kind, Key)>,
    /// Endpoints in all slices.
    size: usize,
    full: bool,
}

/// What is to be told of a service.
#[derive(Debug, PartialEq)]
pub(crate) enum News {
    /// This is its set now.
    Set(ServiceKey, ServiceSet),
    /// It is no more.
    Absent(ServiceKey),
}

impl Cluster {
    pub(crate) fn new(only: Option<Arc<BTreeSet<ServiceName>>>, pods: bool) -> Self {
        Self {
            only,
            homes: pods.then(BTreeMap::new),
            ..Self::default()
        }
    }

    /// An object as it is now. Of one that cannot be read, or is too much, what is known stays; false then.
    pub(crate) fn put(&mut self, kind: Kind, object: Object) -> bool {
        let Object {
            key,
            stamp,
            content,
        } = object;
        let place = (kind, key);
        if content == Content::Unreadable {
            self.broken.insert(place);
            return false;
        }
        self.broken.remove(&place);
        match content {
            Content::Service(service) => self.put_service(place.1, service),
            Content::Slice(slice) => self.put_slice(place.1, stamp.version, slice),
            Content::Pod(labels) => self.put_pod(place.1, labels),
            Content::Unreadable => false,
        }
    }

    /// An object that is no more.
    pub(crate) fn gone(&mut self, kind: Kind, key: &Key) {
        if !self.broken.is_empty() {
            self.broken.remove(&(kind, key.clone()));
        }
        match kind {
            Kind::Services => {
                if self.services.remove(key).is_some() {
                    self.changed.insert(key.clone());
                }
            }
            Kind::Pods => {
                if self.pods.remove(key).is_some() {
                    self.relabelled(key);
                }
            }
            Kind::Slices => {
                if let Some((_, old)) = self.slices.remove(key) {
                    self.size = self.size.saturating_sub(old.members.len());
                    self.settle(key, &old, false);
                    self.leave(key, &old.service);
                }
            }
        }
    }

    /// Whatever of `kind` in `namespace` (`None`: in all) is not `seen` is no more.
    pub(crate) fn sweep(
        &mut self,
        kind: Kind,
        namespace: Option<&Namespace>,
        seen: &BTreeSet<Key>,
    ) {
        let unseen =
            |key: &&Key| namespace.is_none_or(|one| key.namespace == *one) && !seen.contains(*key);
        let over: Vec<Key> = match kind {
            Kind::Services => self.services.keys().filter(unseen).cloned().collect(),
            Kind::Slices => self.slices.keys().filter(unseen).cloned().collect(),
            Kind::Pods => self.pods.keys().filter(unseen).cloned().collect(),
        };
        for key in &over {
            self.gone(kind, key);
        }
        self.broken.retain(|(of, key)| *of != kind || !unseen(&key));
        self.full = false;
    }

    /// What stands in the way of a complete picture, as a sentence.
    pub(crate) fn complaint(&self) -> Option<String> {
        if let Some((_, key)) = self.broken.first() {
            let (namespace, name) = (&key.namespace, &key.name);
            let count = self.broken.len();
            return Some(format!(
                "{count} objects make no sense, such as {namespace}/{name}"
            ));
        }
        let full = "the cluster has more than is read: name namespaces or services";
        self.full.then(|| full.to_owned())
    }

    /// What is different since the last call, in the namespaces that are `whole`.
    pub(crate) fn news(&mut self, whole: impl Fn(&Namespace) -> bool) -> Vec<News> {
        let mut news = Vec::new();
        let (now, later): (BTreeSet<Key>, BTreeSet<Key>) = std::mem::take(&mut self.changed)
            .into_iter()
            .partition(|key| whole(&key.namespace));
        self.changed = later;
        for key in now {
            self.tell(&key, &mut news);
        }
        news
    }

    /// Every service.
    pub(crate) fn all(&mut self) -> Vec<(ServiceKey, ServiceSet)> {
        self.changed.clear();
        self.told.retain(|key, _| self.services.contains_key(key));
        let keys: Vec<Key> = self.services.keys().cloned().collect();
        let mut news = Vec::new();
        for key in &keys {
            self.tell(key, &mut news);
        }
        let sets = news.into_iter().filter_map(|one| match one {
            News::Set(key, set) => Some((key, set)),
            News::Absent(_) => None,
        });
        sets.collect()
    }

    fn reads(&self, service: &str) -> bool {
        self.only
            .as_ref()
            .is_none_or(|only| ServiceName::new(service).is_ok_and(|name| only.contains(&name)))
    }

    fn put_service(&mut self, key: Key, service: Service) -> bool {
        let old = self.services.get(&key);
        if !self.reads(&key.name) || old == Some(&service) {
            return true;
        }
        if old.is_none() && self.services.len() >= MAX_OBJECTS {
            self.full = true;
            return false;
        }
        self.services.insert(key.clone(), service);
        self.changed.insert(key);
        true
    }

    fn put_slice(&mut self, key: Key, version: u64, slice: Slice) -> bool {
        let old = self.slices.get(&key);
        // The version counts too: it says which of two slices is right.
        if old.is_some_and(|(at, old)| *at == version && *old == slice) {
            return true;
        }
        let reads = self.reads(&slice.service);
        let size = self
            .slices
            .get(&key)
            .map_or(0, |(_, old)| old.members.len());
        let grown = self
            .size
            .saturating_sub(size)
            .saturating_add(slice.members.len());
        let is_more = grown > MAX_MEMBERS || self.slices.len() >= MAX_OBJECTS;
        if reads && is_more && grown > self.size {
            self.full = true;
            return false;
        }
        self.gone(Kind::Slices, &key);
        if !reads {
            return true;
        }
        let service = Key {
            namespace: key.namespace.clone(),
            name: Arc::clone(&slice.service),
        };
        let name = Arc::clone(&key.name);
        self.members
            .entry(service.clone())
            .or_default()
            .insert(name);
        self.size += slice.members.len();
        self.settle(&key, &slice, true);
        self.slices.insert(key, (version, slice));
        self.changed.insert(service);
        true
    }

    fn put_pod(&mut self, key: Key, labels: Arc<BTreeMap<String, String>>) -> bool {
        let old = self.pods.get(&key);
        if old == Some(&labels) {
            return true;
        }
        if old.is_none() && self.pods.len() >= MAX_OBJECTS {
            self.full = true;
            return false;
        }
        self.relabelled(&key);
        self.pods.insert(key, labels);
        true
    }

    /// The services that have this pod are different.
    fn relabelled(&mut self, pod: &Key) {
        let homes = self.homes.as_ref().and_then(|homes| homes.get(pod));
        for slice in homes.into_iter().flatten() {
            if let Some((_, slice)) = self.slices.get(slice) {
                self.changed.insert(Key {
                    namespace: pod.namespace.clone(),
                    name: Arc::clone(&slice.service),
                });
            }
        }
    }

    /// The pods of a slice know of it, or no longer.
    fn settle(&mut self, key: &Key, slice: &Slice, there: bool) {
        let Some(homes) = &mut self.homes else {
            return;
        };
        for member in &slice.members {
            let Some(pod) = pod_of(&key.namespace, member) else {
                continue;
            };
            if there {
                homes.entry(pod).or_default().insert(key.clone());
            } else if let Some(all) = homes.get_mut(&pod) {
                all.remove(key);
                if all.is_empty() {
                    homes.remove(&pod);
                }
            }
        }
    }

    /// A slice is none of the service's any more.
    fn leave(&mut self, slice: &Key, service: &Arc<str>) {
        let service = Key {
            namespace: slice.namespace.clone(),
            name: Arc::clone(service),
        };
        if let Some(names) = self.members.get_mut(&service) {
            names.remove(&slice.name);
            if names.is_empty() {
                self.members.remove(&service);
            }
        }
        self.changed.insert(service);
    }

    fn tell(&mut self, key: &Key, news: &mut Vec<News>) {
        let Ok(name) = ServiceName::new(&key.name) else {
            return;
        };
        let named = |port: &Arc<str>| ServiceKey {
            namespace: Some(key.namespace.clone()),
            name: name.clone(),
            port_name: (!port.is_empty()).then(|| Arc::clone(port)),
        };
        let mut ports = BTreeSet::new();
        if let Some(service) = self.services.get(key) {
            let slices = self.slices_of(key);
            for port in &service.ports {
                if ports.insert(Arc::clone(&port.name)) {
                    let set = set(port, &slices, |member| self.said_of(&key.namespace, member));
                    news.push(News::Set(named(&port.name), set));
                }
            }
        }
        let before = if ports.is_empty() {
            self.told.remove(key)
        } else {
            self.told.insert(key.clone(), ports.clone())
        };
        let over = before.unwrap_or_default();
        news.extend(
            over.difference(&ports)
                .map(|port| News::Absent(named(port))),
        );
    }

    /// What is known of an endpoint: the labels of its pod, and what its slice says.
    fn said_of(&self, namespace: &Namespace, member: &Member) -> Arc<BTreeMap<String, String>> {
        let labels = match &self.homes {
            Some(_) => pod_of(namespace, member).and_then(|pod| self.pods.get(&pod)),
            None => None,
        };
        let Some(labels) = labels.filter(|labels| !labels.is_empty()) else {
            return Arc::clone(&member.metadata);
        };
        let mut all = (**labels).clone();
        let own = member.metadata.iter();
        all.extend(own.map(|(name, value)| (name.clone(), value.clone())));
        Arc::new(fitting(all))
    }

    /// The slices of a service, the newest last.
    fn slices_of(&self, service: &Key) -> Vec<&Slice> {
        let names = self.members.get(service);
        let mut found: Vec<&(u64, Slice)> = names
            .into_iter()
            .flatten()
            .filter_map(|name| {
                self.slices.get(&Key {
                    namespace: service.namespace.clone(),
                    name: Arc::clone(name),
                })
            })
            .collect();
        found.sort_by_key(|(version, _)| *version);
        found.into_iter().map(|(_, slice)| slice).collect()
    }
}

fn pod_of(namespace: &Namespace, member: &Member) -> Option<Key> {
    Some(Key {
        namespace: namespace.clone(),
        name: Arc::from(member.metadata.get("pod")?.as_str()),
    })
}

/// The endpoints of one port: of equal addresses the last one counts (see [`ServiceSet`]).
fn set(
    port: &ServicePort,
    slices: &[&Slice],
    said: impl Fn(&Member) -> Arc<BTreeMap<String, String>>,
) -> ServiceSet {
    let mut protocol = port.protocol;
    let mut endpoints = Vec::new();
    for slice in slices {
        for own in slice.ports.iter().filter(|own| own.name == port.name) {
            protocol = protocol.or(own.protocol);
            let number = own.port.or(port.target).unwrap_or(port.port);
            let all = slice.members.iter().filter_map(|member| {
                let address = address(&member.host, number)?;
                Some(Endpoint {
                    health: member.health,
                    locality: member.locality.clone(),
                    metadata: said(member),
                    ..endpoint(address.to_string(), address)
                })
            });
            endpoints.extend(all);
        }
    }
    ServiceSet {
        port: port.port,
        protocol: protocol.unwrap_or_default(),
        endpoints,
    }
}

#[cfg(test)]
#[path = "cluster/tests.rs"]
mod tests;
