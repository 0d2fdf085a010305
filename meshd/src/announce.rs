//! This host's services, announced to the registries of the configuration.
//!
//! In: services, their health, whether the daemon drains. Out: registrations that follow them; at the end they
//! are taken out. Never: announces an address that leads nowhere from another host.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use mesh_model::{
    cause::chain,
    config::{Live, LocalService, RegistrationConfig},
    endpoint::Health,
    finding::{Finding, Severity},
};
use mesh_registry::{
    open,
    registrar::{AnnounceRow, Announced, Announcer, Registration},
};
use tokio::sync::watch;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{ground::Ground, local::HealthMap};

/// Longest time for taking everything out at the end.
const LEAVE: Duration = Duration::from_secs(4);
/// The code of a finding about a registration.
const FAILED: &str = "registration-failed";

/// The registries that are told.
#[derive(Debug, Clone)]
pub(crate) struct Announcements {
    rows: Arc<Mutex<Vec<AnnounceRow>>>,
    ending: CancellationToken,
    task: TaskTracker,
}

/// What the registrations follow.
pub(crate) struct Inputs {
    /// Health of this host's services.
    pub(crate) health: watch::Receiver<HealthMap>,
    /// True once the daemon wants nothing new.
    pub(crate) drain: watch::Receiver<bool>,
}

impl Announcements {
    /// Announces from now on. What is registered when `stop` is cancelled without [`Announcements::end`] expires.
    pub(crate) fn start(ground: &Arc<Ground>, inputs: Inputs, stop: CancellationToken) -> Self {
        let announcements = Self {
            rows: Arc::default(),
            ending: CancellationToken::new(),
            task: TaskTracker::new(),
        };
        let room = Room {
            ground: Arc::clone(ground),
            live: ground.live.subscribe(),
            inputs,
            running: BTreeMap::new(),
            rows: Arc::clone(&announcements.rows),
            stop: stop.clone(),
        };
        let ending = announcements.ending.clone();
        announcements
            .task
            .spawn(stop.run_until_cancelled_owned(room.run(ending)));
        announcements
    }

    /// Takes everything out; returns when that is done or has taken too long.
    pub(crate) async fn end(&self) {
        self.ending.cancel();
        self.task.close();
        self.task.wait().await;
    }

    /// What a person should know.
    pub(crate) fn findings(&self) -> Vec<Finding> {
        let rows = self.rows.lock().unwrap_or_else(PoisonError::into_inner);
        let failed = rows
            .iter()
            .filter_map(|row| Some((row, row.error.as_ref()?)));
        failed
            .map(|(row, error)| {
                Finding::new(
                    FAILED,
                    Severity::Warning,
                    format!("registration {} in {}", row.id, row.source),
                    error.clone(),
                    "repair the registry or the rights of the token; it is tried again meanwhile",
                )
            })
            .collect()
    }
}

/// The task's own.
struct Room {
    ground: Arc<Ground>,
    live: watch::Receiver<Arc<Live>>,
    inputs: Inputs,
    running: BTreeMap<String, (RegistrationConfig, Announcer)>,
    rows: Arc<Mutex<Vec<AnnounceRow>>>,
    stop: CancellationToken,
}

impl Room {
    async fn run(mut self, ending: CancellationToken) {
        let mut look = tokio::time::interval(Duration::from_secs(1));
        look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            self.follow().await;
            // A sender that is gone ends with the daemon, which cancels this.
            tokio::select! {
                () = ending.cancelled() => break,
                Ok(()) = self.live.changed() => {}
                Ok(()) = self.inputs.health.changed() => {}
                Ok(()) = self.inputs.drain.changed() => {}
                _ = look.tick() => self.tell(),
            }
        }
        let all = std::mem::take(&mut self.running).into_values();
        futures_util::future::join_all(all.map(|(_, announcer)| announcer.end(LEAVE))).await;
    }

    /// Brings every registry in step with what is known now.
    async fn follow(&mut self) {
        let live = Arc::clone(&self.live.borrow_and_update());
        let health = self.inputs.health.borrow_and_update().clone();
        let draining = *self.inputs.drain.borrow_and_update();
        let gone: Vec<String> = self
            .running
            .iter()
            .filter(|(_, (config, _))| !live.registrations.contains(config))
            .map(|(id, _)| id.clone())
            .collect();
        for id in gone {
            if let Some((_, announcer)) = self.running.remove(&id) {
                announcer.end(LEAVE).await;
            }
        }
        for config in &live.registrations {
            let wanted = self.wanted(config, &live.services, &health, draining);
            if let Some(announcer) = self.announcer(config) {
                announcer.want(&wanted);
            }
        }
        self.tell();
    }

    fn announcer(&mut self, config: &RegistrationConfig) -> Option<&mut Announcer> {
        let id = &config.source.id;
        if !self.running.contains_key(id) {
            match open::registrar(config) {
                Ok(registrar) => {
                    let announcer = Announcer::new(id, registrar, self.stop.clone());
                    self.running.insert(id.clone(), (config.clone(), announcer));
                    self.ground.raise(FAILED, id, None);
                }
                Err(error) => {
                    let finding = Finding::new(
                        FAILED,
                        Severity::Error,
                        id.clone(),
                        chain(&error),
                        "correct [[registration]]",
                    );
                    self.ground.raise(FAILED, id, Some(finding));
                }
            }
        }
        self.running.get_mut(id).map(|(_, announcer)| announcer)
    }

    /// Every port of every service that the settings name.
    fn wanted(
        &self,
        config: &RegistrationConfig,
        services: &[Arc<LocalService>],
        health: &HealthMap,
        draining: bool,
    ) -> Vec<Announced> {
        let named = services.iter().filter(|service| {
            let names = config.services.as_ref();
            names.is_none_or(|names| names.contains(&service.service.name))
        });
        let mut all = Vec::new();
        for service in named {
            let Some(address) = self.address(config, service) else {
                continue;
            };
            let known = health.get(&service.instance).copied();
            all.extend(service.ports.iter().map(|port| Announced {
                registration: Registration {
                    id: Registration::id_of(&self.ground.host.name, &service.service, port.target),
                    service: service.service.clone(),
                    address: (address, port.target).into(),
                    protocol: port.protocol,
                    weight: service.weight,
                    locality: self.ground.boot.locality.clone(),
                    labels: service.labels.clone(),
                },
                health: known.unwrap_or(Health::Unhealthy),
                draining,
            }));
        }
        all
    }

    /// Where others reach the service; none when it listens on loopback only.
    fn address(&self, config: &RegistrationConfig, service: &LocalService) -> Option<IpAddr> {
        let own = service.address.filter(|own| !own.is_unspecified());
        let first = self.ground.host.addresses.first().copied();
        let address = config.address.or(own).or(first);
        address.filter(|address| !address.is_loopback() && !address.is_unspecified())
    }

    fn tell(&self) {
        let rows: Vec<AnnounceRow> = self
            .running
            .values()
            .flat_map(|(_, announcer)| announcer.rows())
            .collect();
        *self.rows.lock().unwrap_or_else(PoisonError::into_inner) = rows;
    }
}
