//! Which services anybody needs, so that a source watches those and not a whole registry.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use mesh_model::endpoint::ServiceKey;
use tokio::sync::watch;

/// How long a service is still watched after the last one who needed it went.
pub const IDLE_GRACE: Duration = Duration::from_mins(10);

/// What is needed; `None` means everything.
type Needed = Option<Arc<BTreeSet<ServiceKey>>>;

/// The reading side, held by a source.
#[derive(Debug, Clone)]
pub struct Demand(watch::Receiver<Needed>);

impl Demand {
    /// Everything is needed, for ever: for small registries and for tests.
    pub fn all() -> Self {
        Self(watch::channel(None).1)
    }
    /// True when somebody needs the service.
    pub fn wants(&self, key: &ServiceKey) -> bool {
        self.0.borrow().as_ref().is_none_or(|set| set.contains(key))
    }
    /// What is needed now; `None` means everything.
    pub fn needed(&self) -> Option<Arc<BTreeSet<ServiceKey>>> {
        self.0.borrow().clone()
    }
    /// Resolves when the need has changed; waits for ever when it never can.
    pub async fn changed(&mut self) {
        if self.0.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

/// The writing side: takes the whole set that is needed now and keeps what was needed lately.
#[derive(Debug)]
pub(crate) struct Wanted {
    sender: watch::Sender<Needed>,
    last_needed_ms: BTreeMap<ServiceKey, u64>,
}

impl Wanted {
    /// Everything is needed until a set is given.
    pub(crate) fn everything() -> Self {
        Self {
            sender: watch::channel(None).0,
            last_needed_ms: BTreeMap::new(),
        }
    }
    /// A reading side.
    pub(crate) fn subscribe(&self) -> Demand {
        Demand(self.sender.subscribe())
    }
    /// Says what is needed now.
    pub(crate) fn replace(&mut self, needed: impl IntoIterator<Item = ServiceKey>, now_ms: u64) {
        for key in needed {
            self.last_needed_ms.insert(key, now_ms);
        }
        let grace = u64::try_from(IDLE_GRACE.as_millis()).unwrap_or(u64::MAX);
        self.last_needed_ms
            .retain(|_, last| now_ms.saturating_sub(*last) <= grace);
        let next: BTreeSet<ServiceKey> = self.last_needed_ms.keys().cloned().collect();
        self.sender.send_if_modified(|current| {
            let changed = current.as_deref() != Some(&next);
            if changed {
                *current = Some(Arc::new(next));
            }
            changed
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mesh_model::name::ServiceName;

    fn key(name: &str) -> ServiceKey {
        ServiceKey {
            namespace: None,
            name: ServiceName::new(name).unwrap(),
            port_name: None,
        }
    }

    #[test]
    fn what_was_needed_lately_is_kept() {
        let mut wanted = Wanted::everything();
        let demand = wanted.subscribe();
        assert!(demand.wants(&key("a")), "everything, until told");
        wanted.replace([key("a")], 0);
        wanted.replace([key("b")], 599_000);
        assert!(demand.wants(&key("a")) && demand.wants(&key("b")));
        wanted.replace([key("b")], 601_000);
        assert!(!demand.wants(&key("a")) && demand.wants(&key("b")));
    }
}
