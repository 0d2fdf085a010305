//! The law that every source must pass: run it against a fake, and against the real server too.
//!
//! In: a [`World`], the registry's far side as a test can move it. Out: a panic that names the broken law.

use std::{sync::Arc, time::Duration};

use mesh_model::fact::{RegistryView, WireHealth};
use tokio_util::sync::CancellationToken;

use crate::{
    source::{Source, SourceStatus},
    start::{Published, Registry, Settings, start_with},
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
mod tests {
    use std::{fs, path::Path};

    use super::*;
    use crate::{
        fake::{FakeRegistry, Mood, endpoint},
        file::FileSource,
    };
    use mesh_model::endpoint::{Endpoint, Health};

    struct Fake(FakeRegistry);

    impl World for Fake {
        fn put(&mut self, service: &str, endpoints: &[Registered]) {
            let health = |healthy| {
                if healthy {
                    Health::Unknown
                } else {
                    Health::Unhealthy
                }
            };
            let all = endpoints
                .iter()
                .map(|one| Endpoint {
                    health: health(one.healthy),
                    ..endpoint(one.port)
                })
                .collect();
            self.0.put(service, all);
        }
        fn remove(&mut self, service: &str) {
            self.0.remove(service);
        }
        fn garbage(&mut self) {
            self.0.mood(Mood::Garbage);
        }
        fn break_off(&mut self) {
            self.0.mood(Mood::Partial);
        }
        fn repair(&mut self) {
            self.0.mood(Mood::Good);
        }
        fn opener(&self) -> Arc<dyn Fn() -> Box<dyn Source> + Send + Sync> {
            let registry = self.0.clone();
            Arc::new(move || registry.source(ID))
        }
    }

    #[tokio::test]
    async fn the_fake_obeys() {
        laws(|| Fake(FakeRegistry::default())).await;
    }

    #[tokio::test]
    async fn a_crash_and_a_refusal_remove_nothing() {
        let registry = FakeRegistry::default();
        registry.put("web", vec![endpoint(1)]);
        let run = Run::new(&Fake(registry.clone()), None);
        run.has("the first sync is complete", "web", &[1]).await;
        for (mood, word) in [
            (Mood::Panicking, "degraded"),
            (Mood::Refusing, "auth-failed"),
        ] {
            registry.mood(mood);
            run.until(word, |now| status(now).is_some_and(|s| s.as_str() == word))
                .await;
            run.has("still there", "web", &[1]).await;
            registry.mood(Mood::Good);
            run.until("recovered", is_synced).await;
        }
        let mut page = String::new();
        run.registry.metrics(&mut page);
        assert!(
            page.contains("mesh_registry_endpoints{source=\"contract/x\",health=\"unknown\"} 1")
        );
        assert!(!page.contains("mesh_registry_restarts_total{source=\"contract/x\"} 0"));
        run.end().await;
    }

    struct Files {
        root: tempfile::TempDir,
        good: std::collections::BTreeMap<String, String>,
    }

    impl Files {
        fn new() -> Self {
            let root = tempfile::tempdir().unwrap();
            fs::create_dir(root.path().join("d")).unwrap();
            Self {
                root,
                good: std::collections::BTreeMap::new(),
            }
        }
        fn path(&self, service: &str) -> std::path::PathBuf {
            self.root.path().join("d").join(format!("{service}.toml"))
        }
    }

    fn write(path: &Path, text: &str) {
        let temporary = path.with_extension("tmp");
        fs::write(&temporary, text).unwrap();
        fs::rename(&temporary, path).unwrap();
    }

    impl World for Files {
        fn put(&mut self, service: &str, endpoints: &[Registered]) {
            let mut text = format!("[[service]]\nname = \"{service}\"\n");
            for one in endpoints {
                let health = if one.healthy { "unknown" } else { "unhealthy" };
                let _infallible = std::fmt::Write::write_fmt(
                    &mut text,
                    format_args!(
                        "[[service.endpoint]]\naddress = \"10.0.0.1:{}\"\nhealth = \"{health}\"\n",
                        one.port
                    ),
                );
            }
            write(&self.path(service), &text);
            self.good.insert(service.to_owned(), text);
        }
        fn remove(&mut self, service: &str) {
            fs::remove_file(self.path(service)).unwrap();
            self.good.remove(service);
        }
        fn garbage(&mut self) {
            for (at, service) in self.good.keys().enumerate() {
                let text = ["\u{0}\u{1}[[[", ""][at % 2];
                fs::write(self.path(service), text).unwrap();
            }
        }
        fn break_off(&mut self) {
            fs::rename(self.root.path().join("d"), self.root.path().join("away")).unwrap();
        }
        fn repair(&mut self) {
            let away = self.root.path().join("away");
            if away.exists() {
                fs::rename(away, self.root.path().join("d")).unwrap();
            }
            for (service, text) in &self.good {
                write(&self.path(service), text);
            }
        }
        fn opener(&self) -> Arc<dyn Fn() -> Box<dyn Source> + Send + Sync> {
            let directory = self.root.path().join("d");
            Arc::new(move || Box::new(FileSource::new(ID, &directory)))
        }
    }

    #[tokio::test]
    async fn files_obey() {
        laws(Files::new).await;
    }

    #[tokio::test]
    async fn a_file_written_slowly_never_removes() {
        let mut world = Files::new();
        world.put("web", &[up(1), up(2), up(3)]);
        let run = Run::new(&world, None);
        run.has("the first sync is complete", "web", &[1, 2, 3])
            .await;
        let text = world.good["web"].replace("10.0.0.1:3\"", "10.0.0.1:4\"");
        let mut views = run.registry.views();
        let mut file = fs::File::create(world.path("web")).unwrap();
        for piece in text.as_bytes().chunks(8) {
            std::io::Write::write_all(&mut file, piece).unwrap();
            tokio::time::sleep(Duration::from_millis(5)).await;
            let now = views.borrow_and_update().clone();
            assert!(
                seen(&now, "web").is_some_and(|ports| ports.len() >= 2),
                "{now:?}"
            );
        }
        drop(file);
        run.has("the new content counts when it is whole", "web", &[1, 2, 4])
            .await;
        run.end().await;
    }

    #[tokio::test]
    async fn a_swapped_symlink_is_followed() {
        let root = tempfile::tempdir().unwrap();
        let line = |port: u16| {
            format!("[[service]]\nname=\"web\"\nendpoint=[{{address=\"10.0.0.1:{port}\"}}]\n")
        };
        for (version, port) in [("..one", 1), ("..two", 2)] {
            fs::create_dir(root.path().join(version)).unwrap();
            fs::write(root.path().join(version).join("web.toml"), line(port)).unwrap();
        }
        let at = |name: &str| root.path().join(name);
        std::os::unix::fs::symlink("..one", at("..data")).unwrap();
        std::os::unix::fs::symlink("..data/web.toml", at("web.toml")).unwrap();
        std::os::unix::fs::symlink("..one", at("current")).unwrap();
        // Both ways: a link inside the directory, as a mounted volume does it, and a link that is the
        // directory, as a release tool does it.
        for directory in [root.path().to_owned(), at("current")] {
            let stop = CancellationToken::new();
            let (registry, _) = start_with(&[], None, Settings::default(), stop.clone());
            let opened = directory.clone();
            registry.add(ID, false, move || Box::new(FileSource::new(ID, &opened)));
            let run = Run { registry, stop };
            run.has("the first content", "web", &[1]).await;
            for link in ["..data", "current"] {
                std::os::unix::fs::symlink("..two", at("new")).unwrap();
                fs::rename(at("new"), at(link)).unwrap();
            }
            run.has("the swapped content", "web", &[2]).await;
            run.end().await;
            for link in ["..data", "current"] {
                std::os::unix::fs::symlink("..one", at("new")).unwrap();
                fs::rename(at("new"), at(link)).unwrap();
            }
        }
    }

    #[tokio::test]
    async fn reload_keeps_what_is_unchanged() {
        let mut world = Files::new();
        world.put("web", &[up(1)]);
        let config = |id: &str, publish| mesh_model::config::SourceConfig {
            id: id.to_owned(),
            publish,
            kind: mesh_model::config::SourceKind::File {
                directory: world.root.path().join("d"),
            },
        };
        let stop = CancellationToken::new();
        let registry = crate::start(
            &[config("file/a", true), config("file/b", true)],
            stop.clone(),
        );
        assert!(registry.settled(PATIENCE).await);
        registry.reload(&[config("file/a", true), config("file/c", false)]);
        let mut views = registry.views();
        let two = |now: &Arc<Published>| {
            now.views.keys().cloned().collect::<Vec<_>>()
                == ["view/file/a/default/web", "view/file/c/default/web"]
        };
        let now = tokio::time::timeout(PATIENCE, views.wait_for(two))
            .await
            .unwrap()
            .unwrap()
            .clone();
        assert!(!now.views["view/file/c/default/web"].publish);
        stop.cancel();
        registry.ended().await;
    }
}
