//! What was replaced and may be very large: freed when nobody else has it any longer.
//!
//! In: snapshots and views that others may still read. Out: those that nobody reads, to be freed on a thread for long
//! work. Never: frees by itself, where requests or peers wait.

use std::{collections::BTreeMap, sync::Arc};

use mesh_model::{
    fact::RegistryView,
    snapshot::{Outbound, Snapshot},
};
use mesh_plan::Compiled;
use mesh_registry::breath;

/// Views by record key.
type Views = BTreeMap<String, Arc<RegistryView>>;

/// What was replaced.
#[derive(Debug, Default)]
pub(crate) struct Replaced {
    snapshots: Vec<Arc<Snapshot>>,
    views: Vec<Arc<RegistryView>>,
}

impl Replaced {
    /// This snapshot is in force no longer.
    pub(crate) fn snapshot(&mut self, snapshot: Arc<Snapshot>) {
        self.snapshots.push(snapshot);
    }

    /// These were the views until now, those are they from now on.
    pub(crate) fn views(&mut self, before: Views, now: &Views) {
        let stays = |key: &str, view: &Arc<RegistryView>| {
            now.get(key).is_some_and(|now| Arc::ptr_eq(now, view))
        };
        let gone = before.into_iter().filter(|(key, view)| !stays(key, view));
        self.views.extend(gone.map(|(_, view)| view));
        // One that came back and went again stands here once, or it would never be alone.
        self.views.sort_unstable_by_key(Arc::as_ptr);
        self.views.dedup_by(|one, other| Arc::ptr_eq(one, other));
    }

    /// What nobody else has any longer; `None` when that is nothing.
    pub(crate) fn unused(&mut self) -> Option<Self> {
        let unused = Self {
            snapshots: alone(&mut self.snapshots),
            views: alone(&mut self.views),
        };
        (!unused.snapshots.is_empty() || !unused.views.is_empty()).then_some(unused)
    }

    /// Frees it, with pauses.
    pub(crate) fn free(self) {
        let snapshots = self.snapshots.into_iter().filter_map(Arc::into_inner);
        snapshots.for_each(in_pieces);
        for view in self.views.into_iter().filter_map(Arc::into_inner) {
            breath::free(view.endpoints);
        }
    }
}

/// Frees a snapshot: what shares the backends first, so that they come apart endpoint by endpoint.
fn in_pieces(snapshot: Snapshot) {
    let Outbound {
        frontends,
        by_address,
        by_host,
        direct,
        backends,
        subsets,
        sources,
        delegations: _,
    } = snapshot.outbound;
    breath::free(by_address);
    breath::free(by_host);
    breath::free(direct);
    breath::free(frontends);
    breath::free(sources);
    let backends = backends.into_values().chain(subsets.into_values());
    for backend in backends.filter_map(Arc::into_inner) {
        breath::free(backend.endpoints);
    }
}

fn alone<T>(all: &mut Vec<Arc<T>>) -> Vec<Arc<T>> {
    all.extract_if(.., |one| Arc::strong_count(one) == 1)
        .collect()
}

/// Frees a plan that was carried out and is no longer the last one, with pauses.
pub(crate) fn free(plan: Option<Arc<Compiled>>) {
    let Some(plan) = plan.and_then(Arc::into_inner) else {
        return;
    };
    breath::free(plan.candidates.into_values().flatten());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn views(all: &[(&str, &Arc<RegistryView>)]) -> Views {
        let one = |(key, view): &(&str, &Arc<RegistryView>)| ((*key).to_owned(), Arc::clone(view));
        all.iter().map(one).collect()
    }

    #[test]
    fn what_somebody_has_stays() {
        let mut replaced = Replaced::default();
        let snapshot = Arc::new(Snapshot::default());
        replaced.snapshot(Arc::clone(&snapshot));
        assert!(replaced.unused().is_none());
        drop(snapshot);
        let unused = replaced.unused().unwrap();
        assert_eq!((unused.snapshots.len(), unused.views.len()), (1, 0));
        unused.free();
        assert!(replaced.unused().is_none());
    }

    #[test]
    fn views_that_stay_or_come_back_are_freed_once() {
        let mut replaced = Replaced::default();
        let (kept, moved) = (Arc::default(), Arc::default());
        let (with, without) = (
            views(&[("a", &kept), ("b", &moved)]),
            views(&[("a", &kept)]),
        );
        replaced.views(with.clone(), &without);
        replaced.views(with, &without);
        assert!(replaced.unused().is_none(), "somebody has it");
        drop(moved);
        assert_eq!(replaced.unused().unwrap().views.len(), 1);
        drop((kept, without));
        assert!(
            replaced.unused().is_none(),
            "what stayed is not ours to free"
        );
    }
}
