//! Keeps what is obeyed in step with what is known: catalog and settings → plan → snapshot → kernel,
//! names, certificates, and this host's own statement.
//!
//! In: watches on catalog, settings, views and health. Out: a published snapshot; or, when the plan
//! fails, the last good one and a finding. Never: publishes more often than inputs change.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc, time::Duration};

use mesh_model::{
    catalog::Catalog,
    cause,
    config::{Live, LocalService},
    fact::RegistryView,
    finding::{Finding, Severity},
    snapshot::cell::Publisher,
};
use mesh_plan::{Allocations, Breath, Compiled, Input};
use mesh_registry::{Published, breath};
use tokio::{
    sync::watch,
    time::{Instant, sleep_until},
};

use crate::{
    capture::CaptureRoom,
    certificates::Wanted,
    clock,
    cluster::Cluster,
    ground::Ground,
    intake::{self, Statement},
    local::HealthMap,
    replaced::{self, Replaced},
};

const QUIET: Duration = Duration::from_millis(20);
const LONGEST_WAIT: Duration = Duration::from_millis(200);
const HEARTBEAT: Duration = Duration::from_secs(15);
const ALLOCATIONS: &str = "virtual-addresses";

/// The watches that a pass depends on.
#[derive(Debug)]
pub(crate) struct Inputs {
    pub(crate) catalog: watch::Receiver<Arc<Catalog>>,
    pub(crate) live: watch::Receiver<Arc<Live>>,
    pub(crate) views: watch::Receiver<Arc<Published>>,
    pub(crate) health: watch::Receiver<HealthMap>,
    pub(crate) drain: watch::Receiver<bool>,
}

/// Everything that a pass drives.
#[derive(Debug)]
pub(crate) struct Reconcile {
    pub(crate) ground: Arc<Ground>,
    pub(crate) inputs: Inputs,
    pub(crate) publisher: Publisher,
    pub(crate) cluster: Cluster,
    pub(crate) wanted: watch::Sender<Wanted>,
    pub(crate) capture: CaptureRoom,
    pub(crate) compiled: watch::Sender<Option<Arc<Compiled>>>,
    pub(crate) allocations: Allocations,
    pub(crate) stated: Vec<mesh_model::fact::Record>,
    pub(crate) authority: bool,
    pub(crate) local_views: BTreeMap<String, Arc<RegistryView>>,
    /// The commits that this host said it obeys, and how many these are.
    pub(crate) applied: ([u8; 16], u64),
    /// What was replaced, until nobody else has it: so no worker lets go of a large snapshot last, which would hold
    /// its requests up.
    pub(crate) replaced: Replaced,
}

/// The virtual addresses that this host gave before.
pub(crate) fn remembered(ground: &Ground) -> Allocations {
    ground
        .disk
        .get(ALLOCATIONS)
        .and_then(|bytes| serde_json::from_slice(&bytes).ok())
        .unwrap_or_default()
}

impl Reconcile {
    /// Plans what is known already and publishes it; the kernel and the peers are told by the first pass.
    pub(crate) async fn first(&mut self) {
        let live = Arc::clone(&self.inputs.live.borrow());
        let catalog = Arc::clone(&self.inputs.catalog.borrow());
        match self.compile(&catalog, &live).await {
            Ok(compiled) => {
                self.publisher.publish(compiled.snapshot);
                self.allocations = compiled.allocations;
            }
            Err(error) => tracing::error!(error, "what was known cannot be planned"),
        }
    }

    /// One pass after the other, until stopped.
    pub(crate) async fn run(mut self, stop: tokio_util::sync::CancellationToken) {
        loop {
            self.pass().await;
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.changed() => {}
            }
            self.settle().await;
        }
    }

    /// Plans once and carries it out.
    pub(crate) async fn pass(&mut self) {
        let live = Arc::clone(&self.inputs.live.borrow_and_update());
        let catalog = Arc::clone(&self.inputs.catalog.borrow_and_update());
        let views = Arc::clone(&self.inputs.views.borrow_and_update());
        let health = self.inputs.health.borrow_and_update().clone();
        let draining = *self.inputs.drain.borrow_and_update();
        match self.compile(&catalog, &live).await {
            Ok(compiled) => {
                self.ground.raise("plan-failed", "plan", None);
                let compiled = Arc::new(compiled);
                self.carry_out(&compiled);
                let applied = self.applied(&catalog).await;
                self.state(&live, &health, &views, (draining, applied), &compiled)
                    .await;
                let before = self.compiled.send_replace(Some(compiled));
                // Very many values, freed where no peer waits.
                tokio::task::spawn_blocking(move || replaced::free(before));
            }
            Err(error) => self.ground.raise(
                "plan-failed",
                "plan",
                Some(Finding::new(
                    "plan-failed",
                    Severity::Error,
                    "plan",
                    error,
                    "the last good plan stays in force; see meshctl history for what changed",
                )),
            ),
        }
    }

    /// What this host obeys, as it tells the others: with a new commit not before the kernel and the names do.
    async fn applied(&mut self, catalog: &Catalog) -> ([u8; 16], u64) {
        let applied = (catalog.commits, catalog.commit_count);
        if self.applied != applied {
            self.capture.settled().await;
            self.applied = applied;
        }
        applied
    }

    async fn changed(&mut self) {
        self.let_go();
        let until = Instant::now() + self.next_expiry();
        tokio::select! {
            _ = self.inputs.catalog.changed() => {}
            _ = self.inputs.live.changed() => {}
            _ = self.inputs.views.changed() => {}
            _ = self.inputs.health.changed() => {}
            _ = self.inputs.drain.changed() => {}
            () = sleep_until(until) => {}
        }
    }

    /// Frees what was replaced and nobody else has any longer, off this thread.
    fn let_go(&mut self) {
        if let Some(unused) = self.replaced.unused() {
            tokio::task::spawn_blocking(move || unused.free());
        }
    }

    /// Waits until nothing has changed for a moment, but not for long.
    async fn settle(&mut self) {
        let deadline = Instant::now() + LONGEST_WAIT;
        loop {
            let quiet = (Instant::now() + QUIET).min(deadline);
            tokio::select! {
                _ = self.inputs.catalog.changed() => {}
                _ = self.inputs.live.changed() => {}
                _ = self.inputs.views.changed() => {}
                _ = self.inputs.health.changed() => {}
                () = sleep_until(quiet) => return,
            }
            if Instant::now() >= deadline {
                return;
            }
        }
    }

    /// Time until something ends by itself: a tentative change, a lease.
    fn next_expiry(&self) -> Duration {
        let now = clock::now_ms();
        let catalog = self.inputs.catalog.borrow();
        catalog
            .resources
            .values()
            .map(|resource| resource.confirm_by_ms)
            .chain(catalog.hosts.values().map(|host| host.lease_until_ms))
            .filter(|end| *end > now)
            .min()
            .map_or(HEARTBEAT, |end| {
                Duration::from_millis(end - now + 1).min(HEARTBEAT)
            })
    }

    async fn compile(&self, catalog: &Arc<Catalog>, live: &Arc<Live>) -> Result<Compiled, String> {
        let catalog = Arc::clone(catalog);
        let live = Arc::clone(live);
        let ground = Arc::clone(&self.ground);
        let previous = self.publisher.current();
        let allocations = self.allocations.clone();
        let transparent = self.capture.transparent();
        let planned = tokio::task::spawn_blocking(move || {
            let addresses: Vec<IpAddr> = ground.host.addresses.clone();
            mesh_plan::compile(&Input {
                catalog: &catalog,
                boot: &ground.boot,
                live: &live,
                host_addresses: &addresses,
                previous: Some(&previous),
                allocations: &allocations,
                now_ms: clock::now_ms(),
                transparent,
                breath: Breath::new(&breath::take),
            })
            .map_err(|error| cause::chain(&error))
        })
        .await;
        planned.unwrap_or_else(|_panicked| Err("the planner failed; this is a bug".to_owned()))
    }

    fn carry_out(&mut self, compiled: &Arc<Compiled>) {
        let current = self.publisher.current();
        if current.generation == 0 || current.version != compiled.snapshot.version {
            let generation = self.publisher.publish(compiled.snapshot.clone());
            self.replaced.snapshot(current);
            tracing::debug!(generation, version = compiled.snapshot.version, "published");
        }
        // At once: who reads what was published waits for the kernel to follow it.
        self.capture.follow(&self.ground, compiled);
        if compiled.allocations != self.allocations {
            self.allocations = compiled.allocations.clone();
            if let Ok(bytes) = serde_json::to_vec(&self.allocations) {
                self.ground.disk.put(ALLOCATIONS, bytes);
            }
        }
        self.wanted
            .send_if_modified(|wanted| wanted.take(&compiled.snapshot));
    }

    /// Publishes this host's records when they differ from what was stated before.
    async fn state(
        &mut self,
        live: &Live,
        health: &HealthMap,
        views: &Published,
        (draining, applied): (bool, ([u8; 16], u64)),
        compiled: &Compiled,
    ) {
        let strict = |service: &LocalService| {
            compiled.snapshot.inbound.by_address.values().any(|port| {
                port.service == service.service
                    && port.labels.as_ref() == &service.labels
                    && port.strict
            })
        };
        let local: BTreeMap<String, Arc<RegistryView>> = views
            .views
            .iter()
            .filter(|(_, view)| !view.publish)
            .map(|(key, view)| (key.clone(), Arc::clone(&view.view)))
            .collect();
        if local != self.local_views {
            self.cluster.set_local_views(local.clone()).await;
            let before = std::mem::replace(&mut self.local_views, local);
            self.replaced.views(before, &self.local_views);
        }
        let shared: Vec<(String, Arc<RegistryView>)> = views
            .views
            .iter()
            .filter(|(_, view)| view.publish)
            .map(|(key, view)| (key.clone(), Arc::clone(&view.view)))
            .collect();
        let records = intake::records(&Statement {
            boot: &self.ground.boot,
            host: &self.ground.host,
            authority: self.authority,
            applied,
            live,
            elected: &self.ground.elected.load(),
            rows: &views.sources,
            released: &self.ground.released.load(),
            health,
            draining,
            strict: &strict,
            views: &shared,
            statuses: &compiled.statuses,
        });
        if records != self.stated {
            self.cluster.publish(records.clone()).await;
            self.stated = records;
        }
    }
}
