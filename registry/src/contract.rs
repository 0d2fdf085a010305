//! The law that every source must pass: run it against a fake, and against the real server too.
//!
//! In: a [`World`], the registry's far side as a test can move it. Out: a panic that names the broken law.

use std::{sync::Arc, time::Duration};

use mesh_model::fact::{RegistryView, WireHealth};
use tokio_util::sync::CancellationToken;

use crate::{
    published::Published,
    source::Source,
    start::{Registry, Settings, start_with},
    status::SourceStatus,
};

/// An endpoint as the far side registers it: the port at 10.0.0.1, and whether it is healthy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Registered {
    /// Its port.
    pub port: u16,
    /// Its health by the registry: `false` is unhealthy.
    pub healthy: bool,
}

/// A healthy endpoint.
pub fn up(port: u16) -> Registered {
    Registered {
        port,
        healthy: true,
    }
}

/// The registry's far side. Every change is visible to clients when the call returns.
pub trait World {
    /// Sets the whole content of a service.
    fn put(&mut self, service: &str, endpoints: &[Registered]);
    /// Removes a service.
    fn remove(&mut self, service: &str);
    /// From now on answers cannot be understood.
    fn garbage(&mut self);
    /// From now on nothing can be read.
    fn break_off(&mut self);
    /// Answers as it should.
    fn repair(&mut self);
    /// A way to open a client.
    fn opener(&self) -> Arc<dyn Fn() -> Box<dyn Source> + Send + Sync>;
    /// False where the registry knows no health, so that the laws of health do not apply.
    fn tells_health(&self) -> bool {
        true
    }
}

/// The id under which the suite runs a source.
pub const ID: &str = "contract/x";
/// How long a law may take to come true.
const PATIENCE: Duration = Duration::from_secs(20);
/// The removal hold of the suite.
const HOLD: Duration = Duration::from_millis(1_500);

/// A registry under test.
struct Run {
    registry: Registry,
    stop: CancellationToken,
}

impl Run {
    fn new<W: World>(world: &W, saved: Option<&[u8]>) -> Self {
        let stop = CancellationToken::new();
        let settings = Settings {
            removal_hold: HOLD,
            first_wait: Duration::from_millis(20),
            longest_wait: Duration::from_millis(100),
            ..Settings::default()
        };
        let (registry, error) = start_with(&[], saved, settings, stop.clone());
        assert_eq!(error, None, "what was saved is read");
        let open = world.opener();
        registry.add_restored(ID, true, saved, move || open());
        Self { registry, stop }
    }

    /// Waits until the law holds.
    async fn until(&self, law: &str, holds: impl Fn(&Published) -> bool) -> Arc<Published> {
        let mut views = self.registry.views();
        let found = tokio::time::timeout(PATIENCE, views.wait_for(|now| holds(now))).await;
        match found {
            Ok(Ok(now)) => Arc::clone(&now),
            _ => fail(law, &self.registry.views().borrow()),
        }
    }

    async fn has(&self, law: &str, service: &str, ports: &[u16]) -> Arc<Published> {
        self.until(law, |now| seen(now, service).as_deref() == Some(ports))
            .await
    }

    async fn end(self) {
        self.stop.cancel();
        self.registry.ended().await;
    }
}

#[expect(
    clippy::panic,
    reason = "a broken law fails the test that runs the suite"
)]
fn fail<T>(law: &str, now: &Published) -> T {
    panic!("the law is broken: {law}\nseen: {now:#?}")
}

fn hold(law: &str, holds: bool, now: &Published) {
    if !holds {
        fail::<()>(law, now);
    }
}

fn view<'a>(now: &'a Published, service: &str) -> Option<&'a RegistryView> {
    now.views
        .values()
        .map(|one| &*one.view)
        .find(|view| view.service == service)
}

fn seen(now: &Published, service: &str) -> Option<Vec<u16>> {
    let mut ports: Vec<u16> = view(now, service)?
        .endpoints
        .iter()
        .filter_map(|one| {
            one.address
                .rsplit_once(':')
                .and_then(|(_, port)| port.parse().ok())
        })
        .collect();
    ports.sort_unstable();
    Some(ports)
}

fn status(now: &Published) -> Option<&SourceStatus> {
    now.sources
        .iter()
        .find(|row| row.id == ID)
        .map(|row| &row.status)
}

fn is_synced(now: &Published) -> bool {
    status(now) == Some(&SourceStatus::Synced)
}

/// A source that runs, for what only one registry can do.
#[cfg(test)]
pub(crate) struct Watched(Run);

#[cfg(test)]
impl Watched {
    /// Opens a client of `world`.
    pub(crate) fn new<W: World>(world: &W) -> Self {
        Self(Run::new(world, None))
    }
    /// Waits until the service has these ports.
    pub(crate) async fn has(&self, service: &str, ports: &[u16]) {
        self.0.has("the content is followed", service, ports).await;
    }
    /// The service has these ports, and still after the hold.
    pub(crate) async fn stays(&self, service: &str, ports: &[u16]) {
        tokio::time::sleep(HOLD * 2).await;
        let now = Arc::clone(&self.0.registry.views().borrow());
        hold(
            "nothing was removed",
            seen(&now, service).as_deref() == Some(ports),
            &now,
        );
        let held = now.sources.iter().any(|row| row.held > 0);
        hold("nothing is held", !held, &now);
    }
    /// Waits until the status has this word.
    pub(crate) async fn is(&self, word: &str) {
        self.0
            .until(word, |now| {
                status(now).is_some_and(|status| status.as_str() == word)
            })
            .await;
    }
    /// Ends it.
    pub(crate) async fn end(self) {
        self.0.end().await;
    }
}

/// Every law, one after the other, each in a fresh world.
pub async fn laws<W: World>(world: impl Fn() -> W) {
    content(&mut world()).await;
    removals(&mut world()).await;
    errors(&mut world()).await;
    restart(&mut world()).await;
}

/// What is registered is seen, whole, in order, with its health.
async fn content<W: World>(world: &mut W) {
    world.put("web", &[up(1), up(2)]);
    let run = Run::new(world, None);
    let first = run.has("the first sync is complete", "web", &[1, 2]).await;
    hold(
        "a fact names its source",
        view(&first, "web").is_some_and(|v| v.source == ID),
        &first,
    );
    run.until("the status becomes synced", is_synced).await;
    world.put("web", &[up(1), up(2), up(3)]);
    run.has("an added endpoint is seen", "web", &[1, 2, 3])
        .await;
    world.put("api", &[up(9)]);
    run.has("an added service is seen", "api", &[9]).await;
    if !world.tells_health() {
        run.end().await;
        return;
    }
    world.put(
        "web",
        &[
            up(1),
            Registered {
                port: 2,
                healthy: false,
            },
            up(3),
        ],
    );
    run.until("a change of health is seen", |now| {
        view(now, "web").is_some_and(|view| {
            view.endpoints
                .iter()
                .any(|one| one.health == i32::from(WireHealth::Unhealthy))
        })
    })
    .await;
    run.end().await;
}

/// One endpoint goes at once; most of them, or a whole service, after the hold.
async fn removals<W: World>(world: &mut W) {
    world.put("web", &[up(1), up(2), up(3), up(4), up(5)]);
    world.put("api", &[up(9)]);
    let run = Run::new(world, None);
    run.has("the first sync is complete", "web", &[1, 2, 3, 4, 5])
        .await;
    world.put("web", &[up(1), up(2), up(3), up(4)]);
    run.has("a single removal passes", "web", &[1, 2, 3, 4])
        .await;
    world.put("web", &[up(1)]);
    let held = run
        .until("a mass removal is held", |now| {
            now.sources.iter().any(|row| row.held == 3)
        })
        .await;
    hold(
        "held endpoints stay",
        seen(&held, "web") == Some(vec![1, 2, 3, 4]),
        &held,
    );
    run.has("the hold ends", "web", &[1]).await;
    world.remove("api");
    run.until("a removed service is held", |now| {
        now.sources.iter().any(|row| row.held == 1)
    })
    .await;
    run.until("and then it is gone", |now| view(now, "api").is_none())
        .await;
    world.put("api", &[up(9)]);
    run.has("it can come back", "api", &[9]).await;
    run.end().await;
}

/// Nothing that goes wrong removes anything, for longer than the hold; afterwards all is as it should be.
async fn errors<W: World>(world: &mut W) {
    world.put("web", &[up(1), up(2)]);
    world.put("api", &[up(9)]);
    let run = Run::new(world, None);
    run.has("the first sync is complete", "web", &[1, 2]).await;
    world.garbage();
    let doubtful = run.until("garbage is noticed", |now| !is_synced(now)).await;
    hold(
        "the error has a text",
        status(&doubtful).is_some_and(|s| s.error().is_some()),
        &doubtful,
    );
    tokio::time::sleep(HOLD * 2).await;
    run.has("garbage removes nothing", "web", &[1, 2]).await;
    world.repair();
    run.until("it recovers from garbage", is_synced).await;
    world.break_off();
    run.until("a lost source is noticed", |now| !is_synced(now))
        .await;
    tokio::time::sleep(HOLD * 2).await;
    run.has("a lost source removes nothing", "web", &[1, 2])
        .await;
    run.has("of no service", "api", &[9]).await;
    world.repair();
    run.until("it recovers from the loss", is_synced).await;
    world.put("web", &[up(1), up(2), up(3)]);
    run.has("and is followed again", "web", &[1, 2, 3]).await;
    run.end().await;
}

/// A restart while the registry is away serves what was saved; later the registry wins.
async fn restart<W: World>(world: &mut W) {
    world.put("web", &[up(1), up(2)]);
    let run = Run::new(world, None);
    run.has("the first sync is complete", "web", &[1, 2]).await;
    let saved = run.registry.save();
    run.end().await;
    world.break_off();
    let again = Run::new(world, Some(&saved));
    again
        .has("what was saved is used at once", "web", &[1, 2])
        .await;
    world.repair();
    world.put("web", &[up(1), up(2), up(3)]);
    again
        .has("the registry wins when it is back", "web", &[1, 2, 3])
        .await;
    again.end().await;
}

#[cfg(test)]
mod tests;
