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
    labels::Labels,
    name::Namespace,
    service::AppProtocol,
};

use crate::{
    alike::Alike,
    breath,
    hold::{RecentRemovals, Removal},
    saved::observed,
    sink::{Batch, ServiceSet, Update},
    status::SourceStatus,
    version::Version,
};

/// Endpoints that a source removed, by id, and until when each is kept: milliseconds since the epoch.
type Held = BTreeMap<Arc<str>, (Endpoint, u64)>;

/// What is known of one service.
#[derive(Debug)]
struct Entry {
    port: u16,
    protocol: AppProtocol,
    /// What the source said, where some endpoints have host names; else the fact tells all of it.
    named: Option<Vec<Endpoint>>,
    /// Endpoints that the source named.
    count: usize,
    version: Version,
    /// Removed by the source, not yet by us: offered as degraded until then.
    held: Held,
    /// The source says that there is no such service.
    absent: bool,
    fact: Arc<RegistryView>,
}

impl Entry {
    /// What the source named, by the facts; none where some have host names.
    fn told(&self) -> impl Iterator<Item = &ViewEndpoint> {
        let all = self.fact.endpoints.iter().filter(|_| self.named.is_none());
        let mut is_held = among(self.held.keys());
        all.filter(move |one| !is_held(&one.id))
    }

    /// Those that the source named and for which `wanted` holds, which is asked in order of the ids.
    fn endpoints(&self, mut wanted: impl FnMut(&str) -> bool) -> Vec<Endpoint> {
        if let Some(named) = &self.named {
            let named = named.iter().filter(|one| wanted(&one.id));
            return named.cloned().collect();
        }
        let told = self.told().inspect(|_| breath::take());
        let told = told.filter(|one| wanted(&one.id));
        told.filter_map(observed).collect()
    }

    /// What the source said.
    fn set(&self) -> ServiceSet {
        ServiceSet {
            port: self.port,
            protocol: self.protocol,
            endpoints: self.endpoints(|_| true),
        }
    }
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
    alike: Alike,
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
            alike: Alike::default(),
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
            .flat_map(|entry| hosts(entry.named.as_deref().unwrap_or_default(), &entry.held))
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
                let set = entry.set();
                self.put(key, set, entry.version, entry.held, entry.absent);
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
        let before = self.services.len();
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
                Update::Listed(set, version) => self.replace(key, set.unpacked(), version, now_ms),
                Update::Absent(version) => self.remove(&key, version, now_ms),
            });
        }
        if self.services.len() / 2 > before {
            // A map into which many came in order is half empty; made of all at once it is full.
            self.services = std::mem::take(&mut self.services).into_iter().collect();
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
            let set = entry.set();
            entry.held.retain(|_, (_, until)| *until > now_ms);
            if !(entry.absent && entry.held.is_empty()) {
                self.put(key.clone(), set, entry.version, entry.held, entry.absent);
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
    pub(crate) fn saved(&self) -> impl Iterator<Item = (Arc<RegistryView>, String)> + '_ {
        self.services.iter().map(|(key, entry)| {
            let port_name = key.port_name.as_deref().unwrap_or_default();
            (Arc::clone(&entry.fact), port_name.to_owned())
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

    /// True when the service is to have no fewer endpoints than the source named before. Others may be in their
    /// places: a new leader, an instance that registered anew.
    pub(crate) fn is_no_smaller(&self, key: &ServiceKey, set: &ServiceSet) -> bool {
        let entry = self.services.get(key);
        entry.is_none_or(|entry| set.endpoints.len() >= entry.count)
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
        let Some(entry) = self.services.get_mut(&key) else {
            self.put(key, set, version, BTreeMap::new(), false);
            return (true, false);
        };
        if version.is_older_than(entry.version) {
            self.counters.outdated += 1;
            return (false, false);
        }
        let removed = unnamed(entry, &set);
        let mut held = still_held(std::mem::take(&mut entry.held), &set);
        let removal = Removal {
            before: entry.count,
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
        let removed = entry.endpoints(|_| true);
        let count = entry.count;
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
                port: entry.port,
                protocol: entry.protocol,
                endpoints: Vec::new(),
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
        held: &mut Held,
        now_ms: u64,
    ) -> bool {
        if self.hold_ms == 0 || !self.recent.judge(removal, now_ms) {
            return false;
        }
        let until = now_ms.saturating_add(self.hold_ms);
        let removed = removed.into_iter().inspect(|_| breath::take());
        let removed = removed.map(|endpoint| (Arc::clone(&endpoint.id), (endpoint, until)));
        if held.is_empty() {
            // In order: faster than one by one.
            *held = removed.collect();
        } else {
            held.extend(removed);
        }
        true
    }

    fn take(&mut self, key: &ServiceKey) -> Option<Entry> {
        let entry = self.services.remove(key)?;
        self.endpoints = self.endpoints.saturating_sub(entry.count);
        self.named.remove(key);
        Some(entry)
    }

    fn put(
        &mut self,
        key: ServiceKey,
        set: ServiceSet,
        version: Version,
        held: Held,
        absent: bool,
    ) {
        let fact = Arc::new(self.fact(&key, &set, &held));
        self.take(&key);
        let count = set.endpoints.len();
        self.endpoints += count;
        let named = if hosts(&set.endpoints, &held).next().is_some() {
            self.named.insert(key.clone());
            Some(set.endpoints)
        } else {
            breath::free(set.endpoints);
            None
        };
        self.services.insert(
            key,
            Entry {
                port: set.port,
                protocol: set.protocol,
                named,
                count,
                version,
                held,
                absent,
                fact,
            },
        );
    }

    /// Adds the endpoint as facts: one for each address that its name leads to, none before that is known.
    fn add_facts(&mut self, endpoint: &Endpoint, health: Health, facts: &mut Vec<ViewEndpoint>) {
        breath::take();
        let labels = self.alike.of(endpoint);
        let fact = |id, address| view_endpoint(endpoint, id, address, health, labels.clone());
        match &endpoint.address {
            Address::Socket(address) => facts.push(fact(endpoint.id.to_string(), *address)),
            Address::Host { host, port } => {
                let addresses = self.names.get(host).into_iter().flat_map(|all| all.iter());
                facts.extend(addresses.map(|ip| {
                    let id = format!("{}@{ip}", endpoint.id);
                    fact(id, (*ip, *port).into())
                }));
            }
        }
    }

    fn fact(&mut self, key: &ServiceKey, set: &ServiceSet, held: &Held) -> RegistryView {
        let mut endpoints = Vec::with_capacity(set.endpoints.len() + held.len());
        for endpoint in &set.endpoints {
            self.add_facts(endpoint, endpoint.health, &mut endpoints);
        }
        for (endpoint, _) in held.values() {
            self.add_facts(endpoint, doubted(endpoint.health), &mut endpoints);
        }
        endpoints.sort_by(|one, other| one.id.cmp(&other.id));
        endpoints.shrink_to_fit();
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
fn hosts<'e>(endpoints: &'e [Endpoint], held: &'e Held) -> impl Iterator<Item = &'e Arc<str>> {
    let all = endpoints.iter().chain(held.values().map(|(one, _)| one));
    all.filter_map(|endpoint| match &endpoint.address {
        Address::Host { host, .. } => Some(host),
        Address::Socket(_) => None,
    })
}

/// The endpoints that the source named before and does not name any longer.
fn unnamed(entry: &Entry, set: &ServiceSet) -> Vec<Endpoint> {
    let mut is_named = among(set.endpoints.iter().map(|one| &one.id));
    entry.endpoints(|id| !is_named(id))
}

/// Those of the held ones that are not named again; the others are freed with pauses in between.
fn still_held(held: Held, set: &ServiceSet) -> Held {
    let mut is_named = among(set.endpoints.iter().map(|one| &one.id));
    let held = held.into_iter().inspect(|_| breath::take());
    held.filter(|(id, _)| !is_named(id)).collect()
}

/// Says of ids, asked in order, whether they are among these, which are in order too.
fn among(ids: impl Iterator<Item: AsRef<str>>) -> impl FnMut(&str) -> bool {
    let mut ids = ids.peekable();
    move |id| {
        while ids.next_if(|one| one.as_ref() < id).is_some() {}
        ids.peek().is_some_and(|one| one.as_ref() == id)
    }
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
    labels: Labels,
) -> ViewEndpoint {
    let mut address = mesh_model::address::canonical(address).to_string();
    address.shrink_to_fit();
    ViewEndpoint {
        id,
        address,
        health: WireHealth::from(health).into(),
        weight: endpoint.weight.max(1),
        priority: u32::from(endpoint.priority),
        labels,
    }
}

#[cfg(test)]
#[path = "view/tests.rs"]
mod tests;
