//! This host's services: which ones there are, and how healthy each is by its own check.
//!
//! In: the services of `Live`, and what was known before a restart. Out: a watched map from instance to
//! health; a service without a check is `Unknown`. One whose check has not ended yet is what it was before the
//! daemon started, so that a restart withdraws nothing; a new one is `Unhealthy`: nothing is offered untested.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use mesh_model::{config::LocalService, endpoint::Health};
use tokio::sync::watch;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

mod probe;

/// Health by instance.
pub(crate) type HealthMap = BTreeMap<String, Health>;

/// Runs the health checks of this host's services.
#[derive(Debug)]
pub(crate) struct LocalHealth {
    states: watch::Sender<HealthMap>,
    running: BTreeMap<String, Running>,
    tasks: TaskTracker,
    stop: CancellationToken,
    default_address: IpAddr,
    remembered: HealthMap,
}

#[derive(Debug)]
struct Running {
    service: Arc<LocalService>,
    stop: CancellationToken,
}

impl LocalHealth {
    /// Nothing is checked yet. `default_address` is where services without an address listen; `remembered`
    /// is what was known when the daemon ended.
    pub(crate) fn new(
        default_address: IpAddr,
        remembered: HealthMap,
        tasks: TaskTracker,
        stop: CancellationToken,
    ) -> Self {
        let (states, _) = watch::channel(HealthMap::new());
        let running = BTreeMap::new();
        Self {
            states,
            running,
            tasks,
            stop,
            default_address,
            remembered,
        }
    }

    /// Health now and later.
    pub(crate) fn watch(&self) -> watch::Receiver<HealthMap> {
        self.states.subscribe()
    }

    /// Takes the services of a new configuration: unchanged ones keep their state and their rhythm.
    pub(crate) fn take(&mut self, services: &[Arc<LocalService>]) {
        self.running.retain(|instance, running| {
            let stays = services.contains(&running.service);
            if !stays {
                running.stop.cancel();
                self.states
                    .send_if_modified(|states| states.remove(instance).is_some());
            }
            stays
        });
        for service in services {
            if !self.running.contains_key(&service.instance) {
                self.start(service);
            }
        }
    }

    fn start(&mut self, service: &Arc<LocalService>) {
        let stop = self.stop.child_token();
        let before = self.remembered.remove(&service.instance);
        let first = match service.health {
            Some(_) => before.unwrap_or(Health::Unhealthy),
            None => Health::Unknown,
        };
        self.states.send_modify(|states| {
            states.insert(service.instance.clone(), first);
        });
        if let Some(check) = service.health.clone() {
            let address = service.address.unwrap_or(self.default_address);
            let states = self.states.clone();
            let instance = service.instance.clone();
            let stopped = stop.clone();
            self.tasks.spawn(async move {
                let run = probe::run(address, &check, |health| {
                    states.send_if_modified(|all| match all.get_mut(&instance) {
                        Some(known) if *known != health => {
                            tracing::info!(service = %instance, ?health, "local service");
                            *known = health;
                            true
                        }
                        _ => false,
                    });
                });
                tokio::select! {
                    () = run => {}
                    () = stopped.cancelled() => {}
                }
            });
        }
        self.running.insert(
            service.instance.clone(),
            Running {
                service: Arc::clone(service),
                stop,
            },
        );
    }
}
