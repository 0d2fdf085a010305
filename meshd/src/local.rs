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

    /// Takes the services of a new configuration: those that are asked the same at the same place keep their state
    /// and their rhythm, whatever else is written of them; the others begin anew.
    pub(crate) fn take(&mut self, services: &[Arc<LocalService>]) {
        self.running.retain(|instance, running| {
            let now = services.iter().find(|one| one.instance == *instance);
            if let Some(now) = now.filter(|now| same_question(now, &running.service)) {
                running.service = Arc::clone(now);
                return true;
            }
            running.stop.cancel();
            self.states
                .send_if_modified(|states| states.remove(instance).is_some());
            false
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
                // One that was replaced says nothing more: what it found is no answer to the new question.
                tokio::select! {
                    biased;
                    () = stopped.cancelled() => {}
                    () = run => {}
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

/// True when the same is asked of the same address.
fn same_question(one: &LocalService, other: &LocalService) -> bool {
    one.health == other.health && one.address == other.address
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, net::Ipv4Addr, time::Duration};

    use mesh_model::{
        config::{HealthCheck, HealthKind},
        name::{Namespace, ServiceName},
    };

    use super::*;

    /// A service that was healthy, whose check says nothing for as long as a test may take.
    fn slow() -> LocalService {
        let mut service = LocalService::named(
            Namespace::new("default").unwrap(),
            ServiceName::new("web").unwrap(),
        );
        service.health = Some(HealthCheck {
            kind: HealthKind::Tcp { port: 1 },
            interval: Duration::from_mins(5),
            timeout: Duration::from_secs(1),
            unhealthy_after: 100,
            healthy_after: 100,
        });
        service
    }

    fn checks() -> LocalHealth {
        LocalHealth::new(
            Ipv4Addr::LOCALHOST.into(),
            BTreeMap::from([("web".to_owned(), Health::Healthy)]),
            TaskTracker::new(),
            CancellationToken::new(),
        )
    }

    fn state(checks: &LocalHealth) -> Option<Health> {
        checks.watch().borrow().get("web").copied()
    }

    #[tokio::test]
    async fn only_another_check_or_place_begins_anew() {
        let told = |change: fn(&mut LocalService)| {
            let mut checks = checks();
            checks.take(&[Arc::new(slow())]);
            assert_eq!(state(&checks), Some(Health::Healthy));
            let mut service = slow();
            change(&mut service);
            checks.take(&[Arc::new(service)]);
            state(&checks)
        };
        let kept: [fn(&mut LocalService); 4] = [
            |service| service.origin = "services.d/web.toml:7".to_owned(),
            |service| service.weight = 9,
            |service| service.labels = BTreeMap::from([("version".into(), "2".into())]),
            |service| service.recognise.unit = Some("web.service".to_owned()),
        ];
        for change in kept {
            assert_eq!(told(change), Some(Health::Healthy));
        }
        let anew: [fn(&mut LocalService); 2] = [
            |service| service.address = Some(Ipv4Addr::new(127, 0, 0, 2).into()),
            |service| service.health.as_mut().unwrap().kind = HealthKind::Tcp { port: 2 },
        ];
        for change in anew {
            assert_eq!(told(change), Some(Health::Unhealthy));
        }
        assert_eq!(told(|service| service.health = None), Some(Health::Unknown));
        let mut checks = checks();
        checks.take(&[Arc::new(slow())]);
        checks.take(&[]);
        assert_eq!(state(&checks), None);
        // One that was gone is new: nothing is offered untested.
        checks.take(&[Arc::new(slow())]);
        assert_eq!(state(&checks), Some(Health::Unhealthy));
    }
}
