//! A backend with the live state of its endpoints, in order of preference.

use std::{cell::Cell, rc::Rc, sync::Arc, time::Duration};

use mesh_model::snapshot::{Backend, BackendEndpoint, EndpointKey};

use super::{
    budget::{Bucket, Budget},
    health::Health,
};
use crate::balance::{self, Load, Tier};

/// One endpoint as this worker knows it.
#[derive(Debug)]
pub(crate) struct Live {
    pub(crate) health: Arc<Health>,
    outstanding: Cell<u32>,
    /// Smoothed latency in microseconds.
    latency: Cell<f64>,
}

impl Live {
    pub(crate) fn new(health: Arc<Health>) -> Self {
        Self {
            health,
            outstanding: Cell::new(0),
            latency: Cell::new(0.0),
        }
    }
    pub(crate) fn begin(&self) {
        self.outstanding
            .set(self.outstanding.get().saturating_add(1));
    }
    pub(crate) fn end(&self) {
        self.outstanding
            .set(self.outstanding.get().saturating_sub(1));
    }
    pub(crate) fn load(&self) -> u32 {
        self.outstanding.get()
    }
    pub(crate) fn measured(&self, latency: Duration) {
        let now = latency.as_secs_f64() * 1e6;
        let before = self.latency.get();
        self.latency.set(if before == 0.0 {
            now
        } else {
            before * 0.9 + now * 0.1
        });
    }
}

/// A backend whose endpoints are sorted: preferred before others, low priority numbers first.
#[derive(Debug)]
pub(crate) struct Group {
    backend: Arc<Backend>,
    slots: Vec<(Arc<BackendEndpoint>, Rc<Live>)>,
    tiers: Vec<Tier>,
    pub(crate) budget: Budget,
}

impl Group {
    /// Sorts a backend's endpoints.
    pub(crate) fn new(
        backend: Arc<Backend>,
        live: impl Fn(EndpointKey) -> Rc<Live>,
        bucket: Arc<Bucket>,
    ) -> Self {
        let rank = |endpoint: &BackendEndpoint| (!endpoint.preferred, endpoint.priority);
        let mut sorted = backend.endpoints.clone();
        sorted.sort_by_key(|endpoint| rank(endpoint));
        let mut tiers = Vec::new();
        let mut start = 0;
        for tier in sorted.chunk_by(|a, b| rank(a) == rank(b)) {
            let weights: Vec<u32> = tier.iter().map(|endpoint| endpoint.weight).collect();
            tiers.push(Tier::new(start..start + tier.len(), &weights));
            start += tier.len();
        }
        let slots = sorted
            .into_iter()
            .map(|endpoint| (Arc::clone(&endpoint), live(endpoint.key)));
        Self {
            slots: slots.collect(),
            tiers,
            budget: Budget::new(bucket),
            backend,
        }
    }

    /// True when it was made from this very backend.
    pub(crate) fn is_of(&self, backend: &Arc<Backend>) -> bool {
        Arc::ptr_eq(&self.backend, backend)
    }

    /// Picks one that was not tried, ejected ones last; then one that was tried.
    pub(crate) fn pick(&self, tried: &[EndpointKey]) -> Option<(Arc<BackendEndpoint>, Rc<Live>)> {
        let is_in = |live: &Live| !live.health.is_out();
        let fresh = |endpoint: &BackendEndpoint| !tried.contains(&endpoint.key);
        let slot = self
            .pick_where(|endpoint, live| is_in(live) && fresh(endpoint))
            .or_else(|| self.pick_where(|endpoint, _| fresh(endpoint)))
            .or_else(|| self.pick_where(|_, live| is_in(live)))
            .or_else(|| self.pick_where(|_, _| true))?;
        self.slots.get(slot).cloned()
    }

    fn pick_where(&self, may: impl Fn(&BackendEndpoint, &Live) -> bool) -> Option<usize> {
        let load = |slot: usize| {
            let (weight, outstanding) = self
                .slots
                .get(slot)
                .map_or((1, 0), |(e, live)| (e.weight.max(1), live.load()));
            Load {
                outstanding,
                weight,
            }
        };
        let may = |slot: usize| self.slots.get(slot).is_some_and(|(e, live)| may(e, live));
        balance::pick(&self.tiers, load, may, &mut |below| {
            fastrand::u64(0..below.max(1))
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use mesh_model::{name::ServiceId, service::AppProtocol, snapshot::BackendKey};

    use super::*;

    fn group(endpoints: &[(u64, u16, bool)]) -> Group {
        let endpoint = |(key, priority, preferred): &(u64, u16, bool)| {
            Arc::new(BackendEndpoint {
                key: EndpointKey(*key),
                id: key.to_string().into(),
                address: "127.0.0.1:1".parse().unwrap(),
                tunnel: None,
                local: false,
                weight: 1,
                priority: *priority,
                distance: 2,
                locality: None,
                preferred: *preferred,
                host: None,
                host_name: "".into(),
                labels: Arc::new(BTreeMap::new()),
            })
        };
        let backend = Backend {
            key: BackendKey(1),
            service: ServiceId::parse("words").unwrap(),
            port: 80,
            protocol: AppProtocol::Http,
            subset: "".into(),
            endpoints: endpoints.iter().map(endpoint).collect(),
            policy: Arc::default(),
        };
        let lives: Vec<_> = endpoints
            .iter()
            .map(|(key, ..)| (EndpointKey(*key), Rc::new(Live::new(Arc::default()))))
            .collect();
        let live = |key| Rc::clone(&lives.iter().find(|(other, _)| *other == key).unwrap().1);
        Group::new(Arc::new(backend), live, Arc::new(Bucket::new(0)))
    }

    fn picks(group: &Group, tried: &[u64]) -> Vec<u64> {
        let tried: Vec<_> = tried.iter().map(|key| EndpointKey(*key)).collect();
        let mut all: Vec<_> = (0..200)
            .filter_map(|_| group.pick(&tried))
            .map(|(e, _)| e.key.0)
            .collect();
        all.sort_unstable();
        all.dedup();
        all
    }

    fn put_out(group: &Group, key: u64) {
        let (_, live) = group.slots.iter().find(|(e, _)| e.key.0 == key).unwrap();
        live.health.put_out();
    }

    #[test]
    fn order_of_preference() {
        let group = group(&[(1, 1, true), (2, 0, true), (3, 0, true), (4, 0, false)]);
        assert_eq!(picks(&group, &[]), [2, 3]);
        assert_eq!(picks(&group, &[2]), [3]);
        assert_eq!(picks(&group, &[2, 3]), [1]);
        assert_eq!(picks(&group, &[1, 2, 3]), [4]);
        put_out(&group, 3);
        assert_eq!(picks(&group, &[]), [2]);
        assert_eq!(picks(&group, &[2, 1]), [4]);
        assert_eq!(
            picks(&group, &[2, 1, 4]),
            [3],
            "an ejected one rather than one that was tried"
        );
        assert_eq!(
            picks(&group, &[1, 2, 3, 4]),
            [2],
            "all were tried: the best that is in"
        );
        for key in [1, 2, 4] {
            put_out(&group, key);
        }
        assert_eq!(
            picks(&group, &[]),
            [2, 3],
            "all are out: still somebody is tried"
        );
    }

    #[test]
    fn an_empty_backend_has_nobody() {
        assert!(group(&[]).pick(&[]).is_none());
    }
}
