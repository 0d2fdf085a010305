//! The fake and the file source obey the law; what only files can do wrong.

use std::{fs, path::Path, time::Duration};

use super::{
    run::{PATIENCE, Run, is_synced, seen, status},
    *,
};
use crate::{
    fake::{FakeRegistry, Mood, endpoint},
    file::FileSource,
    published::Published,
    start::{Settings, start_with},
    status::SourceStatus,
};
use mesh_model::{
    address::Address,
    endpoint::{Endpoint, Health},
};
use tokio_util::sync::CancellationToken;

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
    fn change(&mut self, service: &str, port: u16) -> Hook {
        let heavy = Endpoint {
            weight: 7,
            ..endpoint(port)
        };
        self.0.put(service, vec![endpoint(1), heavy]);
        Ok(())
    }
    fn put_addresses(&mut self, service: &str) -> Hook<Vec<String>> {
        let host = Address::Host {
            host: "db.test".into(),
            port: 5432,
        };
        let six = Address::Socket("[fd00::1]:80".parse().unwrap());
        let all = [six, host].map(|address| Endpoint {
            id: address.to_string().into(),
            address,
            ..endpoint(1)
        });
        self.0.put(service, all.to_vec());
        Ok(vec!["[fd00::1]:80".into(), "db.test:5432".into()])
    }
    fn fill(&mut self, endpoints: usize) -> Hook {
        for at in 0..endpoints / 100 {
            let all = (1..=100).map(endpoint).collect();
            self.0.put(&format!("s{at}"), all);
        }
        Ok(())
    }
    fn cut(&mut self) -> Hook {
        self.0.mood(Mood::Partial);
        Ok(())
    }
    fn kill(&mut self) -> Hook {
        Err(Na::NoServer)
    }
    fn freeze(&mut self) -> Hook {
        Err(Na::NoServer)
    }
}

#[tokio::test]
async fn the_fake_passes_every_case() {
    matrix("memory", |setup| match setup {
        Setup::Plain | Setup::Large => Ok(Fake(FakeRegistry::default())),
        Setup::Token => Err(Na::NoCredentials),
        Setup::Tls => Err(Na::NoTls),
    })
    .await;
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
        let now = run
            .until(word, |now| status(now).is_some_and(|s| s.as_str() == word))
            .await;
        let told = status(&now).and_then(SourceStatus::error);
        let is_crash = told.is_some_and(|error| error.contains("it panicked"));
        assert_eq!(is_crash, mood == Mood::Panicking, "{told:?}");
        run.has("still there", "web", &[1]).await;
        registry.mood(Mood::Good);
        run.until("recovered", is_synced).await;
    }
    let mut page = String::new();
    run.registry.metrics(&mut page);
    assert!(page.contains("mesh_registry_endpoints{source=\"contract/x\",health=\"unknown\"} 1"));
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
    fn set(&mut self, service: &str, text: String) {
        write(&self.path(service), &text);
        self.good.insert(service.to_owned(), text);
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
        self.set(service, text);
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
    fn change(&mut self, service: &str, port: u16) -> Hook {
        let old = format!("10.0.0.1:{port}\"");
        let text = self.good[service].replace(&old, &format!("{old}\nweight = 7"));
        self.set(service, text);
        Ok(())
    }
    fn put_addresses(&mut self, service: &str) -> Hook<Vec<String>> {
        let all = ["[fd00::1]:80", "db.test:5432"];
        let mut text = format!("[[service]]\nname = \"{service}\"\n");
        for one in all {
            for part in ["[[service.endpoint]]\naddress = \"", one, "\"\n"] {
                text.push_str(part);
            }
        }
        self.set(service, text);
        Ok(all.map(str::to_owned).to_vec())
    }
    fn fill(&mut self, endpoints: usize) -> Hook {
        for at in 0..endpoints / 100 {
            let all: Vec<Registered> = (1..=100).map(up).collect();
            self.put(&format!("s{at}"), &all);
        }
        Ok(())
    }
    /// A write that stands at its half.
    fn cut(&mut self) -> Hook {
        for (service, text) in &self.good {
            fs::write(self.path(service), &text.as_bytes()[..text.len() - 9]).unwrap();
        }
        Ok(())
    }
    fn kill(&mut self) -> Hook {
        Err(Na::NoServer)
    }
    fn freeze(&mut self) -> Hook {
        Err(Na::NoServer)
    }
}

#[tokio::test]
async fn files_pass_every_case() {
    matrix("file", |setup| match setup {
        Setup::Plain | Setup::Large => Ok(Files::new()),
        Setup::Token => Err(Na::NoCredentials),
        Setup::Tls => Err(Na::NoTls),
    })
    .await;
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
        let run = Run {
            registry,
            stop,
            patience: PATIENCE,
        };
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
        services: None,
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
