//! The last complete view of one source: what it said, what is held, how old it is.
//!
//! In: batches of a sink, the time. Out: facts, one per service, and when to look again.
//! Never: removes because of an error. Time is passed in, so every rule has a test.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use mesh_model::{
    address::Address,
    endpoint::{Endpoint, Health, ServiceKey},
    fact::{RegistryView, ViewEndpoint, WireHealth},
    name::Namespace,
};

use crate::{
    hold::{RecentRemovals, Removal},
    saved::SavedView,
    sink::{Batch, ServiceSet, Update},
    status::SourceStatus,
    version::Version,
};

/// What is known of one service.
#[derive(Debug)]
struct Entry {
    set: ServiceSet,
    version: Version,
    /// Removed by the source, not yet by us: offered as degraded until then.
    held: BTreeMap<Arc<str>, (Endpoint, u64)>,
    /// The source says that there is no such service.
    absent: bool,
    fact: Arc<RegistryView>,
}

/// Counters of one source, since its view was made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Counters {
    pub(crate) refused: u64,
    pub(crate) outdated: u64,
    pub(crate) drift: u64,
    pub(crate) unreadable: u64,
    pub(crate) restarts: u64,
}

/// The last complete view of one source.
#[derive(Debug)]
pub(crate) struct View {
    source: String,
    hold_ms: u64,
    services: BTreeMap<ServiceKey, Entry>,
    /// Endpoints of all services, the held ones left out.
    endpoints: usize,
    recent: RecentRemovals,
    status: SourceStatus,
    since_ms: u64,
    last_success_ms: u64,
    refusal: Option<String>,
    counters: Counters,
    /// Services that could not be read the last time, while the source as a whole could.
    troubles: BTreeMap<ServiceKey, String>,
    /// Services with endpoints that have a host name.
    named: BTreeSet<ServiceKey>,
    /// What the names lead to.
    names: BTreeMap<Arc<str>, Arc<[IpAddr]>>,
}

impl View {
    /// An empty view. `hold_ms` 0 switches the removal hold off.
    pub(crate) fn new(source: &str, hold_ms: u64, now_ms: u64) -> Self {
        Self {
            source: source.to_owned(),
            hold_ms,
            services: BTreeMap::new(),
            endpoints: 0,
            recent: RecentRemovals::default(),
            status: SourceStatus::Connecting,
            since_ms: now_ms,
            last_success_ms: 0,
            refusal: None,
            counters: Counters::default(),
            troubles: BTreeMap::new(),
            named: BTreeSet::new(),
            names: BTreeMap::new(),
        }
    }

    /// True when there is any host name.
    pub(crate) fn has_hosts(&self) -> bool {
        !self.named.is_empty()
    }

    /// The host names that endpoints have instead of addresses.
    pub(crate) fn hosts(&self) -> BTreeSet<Arc<str>> {
        let entries = self.named.iter().filter_map(|key| self.services.get(key));
        entries
            .flat_map(|entry| hosts(&entry.set, &entry.held))
            .cloned()
            .collect()
    }

    /// Takes what names lead to now; names that are not in it keep what they led to. True when facts changed.
    pub(crate) fn resolved(&mut self, found: &BTreeMap<Arc<str>, Arc<[IpAddr]>>) -> bool {
        let before = self.names.clone();
        let wanted = self.hosts();
        self.names.retain(|name, _| wanted.contains(name));
        for (name, addresses) in found.iter().filter(|(name, _)| wanted.contains(*name)) {
            self.names.insert(Arc::clone(name), Arc::clone(addresses));
        }
        if before == self.names {
            return false;
        }
        for key in self.named.clone() {
            if let Some(entry) = self.take(&key) {
                self.put(key, entry.set, entry.version, entry.held, entry.absent);
            }
        }
        true
    }

    /// Takes a service as it was at the last run; everything that the source says is newer.
    pub(crate) fn restore(&mut self, key: ServiceKey, set: ServiceSet) {
        self.put(key, set, Version::Saved, BTreeMap::new(), false);
    }

    /// Applies a batch. True in the first place when facts changed, in the second when the source should
    /// be asked for an authoritative read because a removal is doubted.
    pub(crate) fn apply(&mut self, batch: Batch, now_ms: u64) -> (bool, bool) {
        let mut changed = false;
        let mut doubt = false;
        let mut step = |(facts, held): (bool, bool)| {
            changed |= facts;
            doubt |= held;
        };
        if let Some(seen) = &batch.seen {
            for key in self.unseen(seen) {
                step(self.remove(&key, Version::Saved, now_ms));
            }
        }
        for (key, update) in batch.updates {
            step(match update {
                Update::Replace(set, version) => self.replace(key, set, version, now_ms),
                Update::Absent(version) => self.remove(&key, version, now_ms),
            });
        }
        self.counters.drift += batch.drift;
        self.counters.unreadable += batch.unreadable;
        self.counters.refused += u64::try_from(batch.refused.len()).unwrap_or(u64::MAX);
        if batch.seen.is_some() {
            self.refusal = None;
        }
        if let Some(reason) = batch.refused.into_iter().next() {
            self.refusal = Some(reason);
        }
        if let Some(status) = batch.status {
            self.set_status(status, now_ms);
        }
        for (key, error) in batch.troubles {
            match error {
                Some(error) => self.troubles.insert(key, error),
                None => self.troubles.remove(&key),
            };
        }
        (changed, doubt)
    }

    /// The status, with the time of its last change kept when it stays of the same kind.
    pub(crate) fn set_status(&mut self, status: SourceStatus, now_ms: u64) {
        if status.as_str() != self.status.as_str() {
            self.since_ms = now_ms;
        }
        if status == SourceStatus::Synced {
            self.last_success_ms = now_ms;
        }
        self.status = status;
    }

    /// Counts a restart of the source.
    pub(crate) fn restarted(&mut self) {
        self.counters.restarts += 1;
    }

    /// Ends the holds that are over. They end only while the source is synced: a source that fails right
    /// after a large removal is not believed. True when facts changed.
    pub(crate) fn expire(&mut self, now_ms: u64) -> bool {
        if self.status != SourceStatus::Synced {
            return false;
        }
        let over: Vec<ServiceKey> = self
            .services
            .iter()
            .filter(|(key, _)| !self.troubles.contains_key(*key))
            .filter(|(_, entry)| entry.held.values().any(|(_, until)| *until <= now_ms))
            .map(|(key, _)| key.clone())
            .collect();
        for key in &over {
            let Some(mut entry) = self.take(key) else {
                continue;
            };
            entry.held.retain(|_, (_, until)| *until > now_ms);
            if !(entry.absent && entry.held.is_empty()) {
                self.put(
                    key.clone(),
                    entry.set,
                    entry.version,
                    entry.held,
                    entry.absent,
                );
            }
        }
        !over.is_empty()
    }

    /// When [`View::expire`] has something to do; `None` when never.
    pub(crate) fn deadline_ms(&self) -> Option<u64> {
        if self.status != SourceStatus::Synced {
            return None;
        }
        self.services
            .iter()
            .filter(|(key, _)| !self.troubles.contains_key(*key))
            .flat_map(|(_, entry)| entry.held.values())
            .map(|(_, until)| *until)
            .min()
    }

    /// One fact per service, with its record key.
    pub(crate) fn facts(&self) -> impl Iterator<Item = (String, &Arc<RegistryView>)> {
        self.services
            .iter()
            .map(|(key, entry)| (self.record_key(key), &entry.fact))
    }

    /// What the next boot starts from.
    pub(crate) fn saved(&self) -> impl Iterator<Item = SavedView> + '_ {
        self.services.iter().map(|(key, entry)| SavedView {
            view: Some((*entry.fact).clone()),
            port_name: key.port_name.as_deref().unwrap_or_default().to_owned(),
        })
    }

    /// How the source is doing, and since when.
    pub(crate) fn status(&self) -> (&SourceStatus, u64) {
        (&self.status, self.since_ms)
    }

    /// Milliseconds since the epoch of the last complete success; 0: never.
    pub(crate) fn last_success_ms(&self) -> u64 {
        self.last_success_ms
    }

    /// Why the newest set of some service was refused; none once a sync passed.
    pub(crate) fn refusal(&self) -> Option<&str> {
        self.refusal.as_deref()
    }

    /// Counters.
    pub(crate) fn counters(&self) -> Counters {
        self.counters
    }

    /// Services that could not be read the last time, while the source as a whole could, with the reasons.
    pub(crate) fn troubles(&self) -> &BTreeMap<ServiceKey, String> {
        &self.troubles
    }

    /// Number of services.
    pub(crate) fn service_count(&self) -> usize {
        self.services.len()
    }

    /// Endpoints that wait for their removal.
    pub(crate) fn held_count(&self) -> usize {
        self.services.values().map(|entry| entry.held.len()).sum()
    }

    fn record_key(&self, key: &ServiceKey) -> String {
        let namespace = key.namespace.as_ref().map_or("default", Namespace::as_str);
        let port = key
            .port_name
            .as_ref()
            .map_or_else(String::new, |port| format!("/{port}"));
        format!("view/{}/{namespace}/{}{port}", self.source, key.name)
    }

    /// True when the set has every endpoint that the service has now.
    pub(crate) fn is_kept_by(&self, key: &ServiceKey, set: &ServiceSet) -> bool {
        let stays = |known: &Endpoint| {
            set.endpoints
                .binary_search_by(|other| other.id.cmp(&known.id))
                .is_ok()
        };
        self.services
            .get(key)
            .is_none_or(|entry| entry.set.endpoints.iter().all(stays))
    }

    fn unseen(&self, seen: &BTreeSet<ServiceKey>) -> Vec<ServiceKey> {
        self.services
            .keys()
            .filter(|key| !seen.contains(*key))
            .cloned()
            .collect()
    }

    fn replace(
        &mut self,
        key: ServiceKey,
        set: ServiceSet,
        version: Version,
        now_ms: u64,
    ) -> (bool, bool) {
        let source = self.endpoints;
        let Some(entry) = self.services.get(&key) else {
            self.put(key, set, version, BTreeMap::new(), false);
            return (true, false);
        };
        if version.is_older_than(entry.version) {
            self.counters.outdated += 1;
            return (false, false);
        }
        let remains = |endpoint: &Endpoint| {
            set.endpoints
                .binary_search_by(|other| other.id.cmp(&endpoint.id))
                .is_ok()
        };
        let removed: Vec<Endpoint> = entry
            .set
            .endpoints
            .iter()
            .filter(|endpoint| !remains(endpoint))
            .cloned()
            .collect();
        let mut held = entry.held.clone();
        held.retain(|_, (endpoint, _)| !remains(endpoint));
        let removal = Removal {
            before: entry.set.endpoints.len(),
            removed: removed.len(),
            after: set.endpoints.len(),
            source,
        };
        let doubt = self.hold(removed, removal, &mut held, now_ms);
        let before = self.services.get(&key).map(|entry| Arc::clone(&entry.fact));
        self.put(key.clone(), set, version, held, false);
        let after = self.services.get(&key).map(|entry| &entry.fact);
        (before.as_ref() != after, doubt)
    }

    fn remove(&mut self, key: &ServiceKey, version: Version, now_ms: u64) -> (bool, bool) {
        let source = self.endpoints;
        let Some(entry) = self.services.get(key) else {
            return (false, false);
        };
        if version.is_older_than(entry.version) {
            self.counters.outdated += 1;
            return (false, false);
        }
        if entry.absent {
            return (false, false);
        }
        let Some(entry) = self.take(key) else {
            return (false, false);
        };
        let removed = entry.set.endpoints;
        let count = removed.len();
        let removal = Removal {
            before: count,
            removed: count,
            after: 0,
            source,
        };
        let mut held = entry.held;
        let doubt = self.hold(removed, removal, &mut held, now_ms);
        if !held.is_empty() {
            let set = ServiceSet {
                endpoints: Vec::new(),
                ..entry.set
            };
            self.put(key.clone(), set, version, held, true);
        }
        (true, doubt)
    }

    /// Moves `removed` to `held` when the removal is doubted; true then.
    fn hold(
        &mut self,
        removed: Vec<Endpoint>,
        removal: Removal,
        held: &mut BTreeMap<Arc<str>, (Endpoint, u64)>,
        now_ms: u64,
    ) -> bool {
        if self.hold_ms == 0 || !self.recent.judge(removal, now_ms) {
            return false;
        }
        let until = now_ms.saturating_add(self.hold_ms);
        held.extend(
            removed
                .into_iter()
                .map(|endpoint| (Arc::clone(&endpoint.id), (endpoint, until))),
        );
        true
    }

    fn take(&mut self, key: &ServiceKey) -> Option<Entry> {
        let entry = self.services.remove(key)?;
        self.endpoints = self.endpoints.saturating_sub(entry.set.endpoints.len());
        self.named.remove(key);
        Some(entry)
    }

    fn put(
        &mut self,
        key: ServiceKey,
        set: ServiceSet,
        version: Version,
        held: BTreeMap<Arc<str>, (Endpoint, u64)>,
        absent: bool,
    ) {
        let fact = Arc::new(self.fact(&key, &set, &held));
        self.take(&key);
        self.endpoints += set.endpoints.len();
        if hosts(&set, &held).next().is_some() {
            self.named.insert(key.clone());
        }
        self.services.insert(
            key,
            Entry {
                set,
                version,
                held,
                absent,
                fact,
            },
        );
    }

    /// The endpoint as facts: one for each address that its name leads to, none before that is known.
    fn view_endpoints(
        &self,
        endpoint: &Endpoint,
        health: Health,
    ) -> impl Iterator<Item = ViewEndpoint> {
        let (first, port, named) = match &endpoint.address {
            Address::Socket(address) => {
                let id = endpoint.id.to_string();
                (Some(view_endpoint(endpoint, id, *address, health)), 0, None)
            }
            Address::Host { host, port } => (None, *port, self.names.get(host)),
        };
        let named = named.map_or(&[][..], |addresses| addresses);
        let named: Vec<ViewEndpoint> = named
            .iter()
            .map(|ip| {
                let id = format!("{}@{ip}", endpoint.id);
                view_endpoint(endpoint, id, (*ip, port).into(), health)
            })
            .collect();
        first.into_iter().chain(named)
    }

    fn fact(
        &self,
        key: &ServiceKey,
        set: &ServiceSet,
        held: &BTreeMap<Arc<str>, (Endpoint, u64)>,
    ) -> RegistryView {
        let mut endpoints: Vec<ViewEndpoint> = set
            .endpoints
            .iter()
            .map(|endpoint| (endpoint, endpoint.health))
            .chain(
                held.values()
                    .map(|(endpoint, _)| (endpoint, doubted(endpoint.health))),
            )
            .flat_map(|(endpoint, health)| self.view_endpoints(endpoint, health))
            .collect();
        endpoints.sort_by(|one, other| one.id.cmp(&other.id));
        RegistryView {
            source: self.source.clone(),
            namespace: key
                .namespace
                .as_ref()
                .map_or("default", Namespace::as_str)
                .to_owned(),
            service: key.name.as_str().to_owned(),
            endpoints,
            protocol: set.protocol.as_str().to_owned(),
            port: u32::from(set.port),
        }
    }
}

/// The host names among these.
fn hosts<'e>(
    set: &'e ServiceSet,
    held: &'e BTreeMap<Arc<str>, (Endpoint, u64)>,
) -> impl Iterator<Item = &'e Arc<str>> {
    let all = set
        .endpoints
        .iter()
        .chain(held.values().map(|(one, _)| one));
    all.filter_map(|endpoint| match &endpoint.address {
        Address::Host { host, .. } => Some(host),
        Address::Socket(_) => None,
    })
}

/// A held endpoint is used when nothing better is left, and never better than it was.
fn doubted(health: Health) -> Health {
    match health {
        Health::Unknown | Health::Healthy | Health::Degraded => Health::Degraded,
        Health::Draining | Health::Unhealthy => health,
    }
}

/// The endpoint as a fact.
fn view_endpoint(
    endpoint: &Endpoint,
    id: String,
    address: SocketAddr,
    health: Health,
) -> ViewEndpoint {
    let mut labels = (*endpoint.metadata).clone();
    if let Some(locality) = &endpoint.locality {
        let places = [
            ("region", &locality.region),
            ("zone", &locality.zone),
            ("sub-zone", &locality.sub_zone),
        ];
        for (label, place) in places {
            if let Some(place) = place {
                labels
                    .entry(label.to_owned())
                    .or_insert_with(|| place.to_string());
            }
        }
    }
    ViewEndpoint {
        id,
        address: mesh_model::address::canonical(address).to_string(),
        health: WireHealth::from(health).into(),
        weight: endpoint.weight.max(1),
        priority: u32::from(endpoint.priority),
        labels,
    }
}

#[cfg(test)]
#[path = "view/tests.rs"]
mod tests;
