//! Which services anybody needs, so that a source watches those and not a whole registry, and which of them this host
//! calls, so that those come first where not all can be watched closely.

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

/// What is called.
type Called = Arc<BTreeSet<ServiceKey>>;

/// The reading side, held by a source.
#[derive(Debug, Clone)]
pub struct Demand {
    needed: watch::Receiver<Needed>,
    called: watch::Receiver<Called>,
}

impl Demand {
    /// Everything is needed, for ever: for small registries and for tests.
    pub fn all() -> Self {
        Self {
            needed: watch::channel(None).1,
            called: watch::channel(Called::default()).1,
        }
    }
    /// True when somebody needs the service.
    pub fn wants(&self, key: &ServiceKey) -> bool {
        let needed = self.needed.borrow();
        needed.as_ref().is_none_or(|set| set.contains(key))
    }
    /// What is needed now; `None` means everything.
    pub fn needed(&self) -> Option<Arc<BTreeSet<ServiceKey>>> {
        self.needed.borrow().clone()
    }
    /// Resolves when the need has changed; waits for ever when it never can.
    pub async fn changed(&mut self) {
        if self.needed.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
    /// What this host calls, or called lately. It says nothing about what is needed.
    pub fn called(&self) -> Arc<BTreeSet<ServiceKey>> {
        Arc::clone(&self.called.borrow())
    }
    /// Resolves when other services are called; waits for ever when that never can be.
    pub async fn calls_changed(&mut self) {
        if self.called.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

/// Services with the time at which each was named last: they stay for [`IDLE_GRACE`].
#[derive(Debug, Default)]
struct Lately(BTreeMap<ServiceKey, u64>);

impl Lately {
    /// Those of now and of lately.
    fn with(
        &mut self,
        keys: impl IntoIterator<Item = ServiceKey>,
        now_ms: u64,
    ) -> BTreeSet<ServiceKey> {
        self.0.extend(keys.into_iter().map(|key| (key, now_ms)));
        let grace = u64::try_from(IDLE_GRACE.as_millis()).unwrap_or(u64::MAX);
        self.0
            .retain(|_, last| now_ms.saturating_sub(*last) <= grace);
        self.0.keys().cloned().collect()
    }
}

/// The writing side: takes the whole set that is needed now and keeps what was needed lately.
#[derive(Debug)]
pub(crate) struct Wanted {
    sender: watch::Sender<Needed>,
    needed: Lately,
    calls: watch::Sender<Called>,
    called: Lately,
}

impl Wanted {
    /// Everything is needed until a set is given.
    pub(crate) fn everything() -> Self {
        Self {
            sender: watch::channel(None).0,
            needed: Lately::default(),
            calls: watch::channel(Called::default()).0,
            called: Lately::default(),
        }
    }
    /// A reading side.
    pub(crate) fn subscribe(&self) -> Demand {
        Demand {
            needed: self.sender.subscribe(),
            called: self.calls.subscribe(),
        }
    }
    /// Says what is needed now.
    pub(crate) fn replace(&mut self, needed: impl IntoIterator<Item = ServiceKey>, now_ms: u64) {
        let next = self.needed.with(needed, now_ms);
        self.sender.send_if_modified(|current| {
            let changed = current.as_deref() != Some(&next);
            if changed {
                *current = Some(Arc::new(next));
            }
            changed
        });
    }
    /// Says what is called now.
    pub(crate) fn calls(&mut self, called: impl IntoIterator<Item = ServiceKey>, now_ms: u64) {
        let next = self.called.with(called, now_ms);
        self.calls.send_if_modified(|current| {
            let changed = **current != next;
            if changed {
                *current = Arc::new(next);
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

    #[test]
    fn what_is_called_says_nothing_about_what_is_needed() {
        let mut wanted = Wanted::everything();
        let demand = wanted.subscribe();
        wanted.calls([key("a")], 0);
        wanted.calls([key("b")], 599_000);
        assert!(demand.called().iter().eq(&[key("a"), key("b")]));
        assert_eq!(demand.needed(), None);
        wanted.calls([key("b")], 601_000);
        assert!(demand.called().iter().eq(&[key("b")]));
    }
}
