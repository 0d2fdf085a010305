//! A source that runs in a test, and what is seen of it.
//!
//! In: a world's opener. Out: waits for laws, with a deadline, and a panic that names the broken one.

use std::{
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
    time::Duration,
};

use mesh_model::fact::{RegistryView, ViewEndpoint, WireHealth};
use tokio_util::sync::CancellationToken;

use super::World;
use crate::{
    hosts::Lookup,
    published::Published,
    start::{Registry, Settings, start_with},
    status::SourceStatus,
};

/// The id under which the suite runs a source.
pub const ID: &str = "contract/x";
/// The host name of the suite, and where it leads: endpoints with it are published with that address.
pub const HOST: &str = "db.test";
/// Where [`HOST`] leads.
pub const HOST_AT: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 53));
/// How long a law may take to come true.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);
/// The removal hold of the suite.
pub(crate) const HOLD: Duration = Duration::from_millis(1_500);

/// A registry under test.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) registry: Registry,
    pub(crate) stop: CancellationToken,
    pub(crate) patience: Duration,
}

impl Run {
    pub(crate) fn new<W: World>(world: &W, saved: Option<&[u8]>) -> Self {
        let stop = CancellationToken::new();
        let settings = Settings {
            removal_hold: HOLD,
            first_wait: Duration::from_millis(20),
            longest_wait: Duration::from_millis(100),
            lookup: Lookup::new(|name| async move {
                match name.as_str() {
                    HOST => Ok(vec![HOST_AT]),
                    _ => Err(std::io::Error::other("it is not in this test")),
                }
            }),
            ..Settings::default()
        };
        let (registry, error) = start_with(&[], saved, settings, stop.clone());
        assert_eq!(error, None, "what was saved is read");
        let open = world.opener();
        registry.add_restored(ID, true, saved, move || open());
        Self {
            registry,
            stop,
            patience: world.patience(),
        }
    }

    /// As [`Run::new`], where a law may take this long.
    pub(crate) fn patient<W: World>(world: &W, patience: Duration) -> Self {
        Self {
            patience,
            ..Self::new(world, None)
        }
    }

    /// What is published now.
    pub(crate) fn now(&self) -> Arc<Published> {
        Arc::clone(&self.registry.views().borrow())
    }

    /// As [`Run::until`], with the value as it is shared.
    pub(crate) async fn until_all(
        &self,
        law: &str,
        holds: impl Fn(&Arc<Published>) -> bool,
    ) -> Arc<Published> {
        let mut views = self.registry.views();
        let found = tokio::time::timeout(self.patience, views.wait_for(|now| holds(now))).await;
        match found {
            Ok(Ok(now)) => Arc::clone(&now),
            _ => fail(law, &self.now()),
        }
    }

    /// Waits until the law holds.
    pub(crate) async fn until(
        &self,
        law: &str,
        holds: impl Fn(&Published) -> bool,
    ) -> Arc<Published> {
        self.until_all(law, |now| holds(now)).await
    }

    pub(crate) async fn has(&self, law: &str, service: &str, ports: &[u16]) -> Arc<Published> {
        self.until(law, |now| seen(now, service).as_deref() == Some(ports))
            .await
    }

    pub(crate) async fn end(self) {
        self.stop.cancel();
        self.registry.ended().await;
    }
}

#[expect(
    clippy::panic,
    reason = "a broken law fails the test that runs the suite"
)]
pub(crate) fn fail<T>(law: &str, now: &Published) -> T {
    let seen: String = format!("{now:#?}").chars().take(6_000).collect();
    panic!(
        "the law is broken: {law}\nsources: {:#?}\nseen: {seen}",
        now.sources
    )
}

pub(crate) fn hold(law: &str, holds: bool, now: &Published) {
    if !holds {
        fail::<()>(law, now);
    }
}

pub(crate) fn view<'a>(now: &'a Published, service: &str) -> Option<&'a RegistryView> {
    now.views
        .values()
        .map(|one| &*one.view)
        .find(|view| view.source == ID && view.service == service)
}

/// The ports of a service, in order; `None` when it is not there.
pub(crate) fn seen(now: &Published, service: &str) -> Option<Vec<u16>> {
    Some(ports_of(&view(now, service)?.endpoints))
}

/// The ports of endpoints, in order.
pub(crate) fn ports_of(endpoints: &[ViewEndpoint]) -> Vec<u16> {
    let mut ports: Vec<u16> = endpoints
        .iter()
        .filter_map(|one| {
            one.address
                .rsplit_once(':')
                .and_then(|(_, port)| port.parse().ok())
        })
        .collect();
    ports.sort_unstable();
    ports
}

/// Endpoints of the source under test that wait for their removal.
pub(crate) fn held(now: &Published) -> usize {
    let ours = now.sources.iter().filter(|row| row.id == ID);
    ours.map(|row| row.held).sum()
}

pub(crate) fn status(now: &Published) -> Option<&SourceStatus> {
    now.sources
        .iter()
        .find(|row| row.id == ID)
        .map(|row| &row.status)
}

pub(crate) fn is_synced(now: &Published) -> bool {
    status(now) == Some(&SourceStatus::Synced)
}

/// A source that runs, for what only one registry can do.
#[derive(Debug)]
pub struct Watched(Run);

impl Watched {
    /// Opens a client of `world`.
    pub fn new<W: World>(world: &W) -> Self {
        Self(Run::new(world, None))
    }
    /// Waits until the service has these ports.
    pub async fn has(&self, service: &str, ports: &[u16]) {
        self.0.has("the content is followed", service, ports).await;
    }
    /// Waits until new requests may go to these ports, and no others.
    pub async fn routes(&self, service: &str, ports: &[u16]) {
        self.0
            .until("what is routable is followed", |now| {
                let all = view(now, service).map(|view| view.endpoints.clone());
                let mut all = all.unwrap_or_default();
                let ill = [WireHealth::Unhealthy, WireHealth::Draining].map(i32::from);
                all.retain(|one| !ill.contains(&one.health));
                ports_of(&all) == ports
            })
            .await;
    }
    /// The service has these ports, and still after the hold.
    pub async fn stays(&self, service: &str, ports: &[u16]) {
        tokio::time::sleep(HOLD * 2).await;
        let now = self.0.now();
        hold(
            "nothing was removed",
            seen(&now, service).as_deref() == Some(ports),
            &now,
        );
        let held = now.sources.iter().any(|row| row.held > 0);
        hold("nothing is held", !held, &now);
    }
    /// Waits until the status has this word.
    pub async fn is(&self, word: &str) {
        self.0
            .until(word, |now| {
                status(now).is_some_and(|status| status.as_str() == word)
            })
            .await;
    }
    /// Ends it.
    pub async fn end(self) {
        self.0.end().await;
    }
}
