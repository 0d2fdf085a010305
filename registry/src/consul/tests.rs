//! The source obeys the law against the scripted server; what only Consul can do wrong.

use std::fs;

use super::*;
use crate::{
    contract::{HOST, Hook, ID, Na, Registered, Setup, Watched, World, laws, matrix, up},
    longpoll::fake::{Fake, Kind, Mood, hooks},
};

struct Far {
    fake: Fake,
    token: Option<std::path::PathBuf>,
}

impl Far {
    fn new() -> Self {
        Self {
            fake: Fake::start(Kind::Consul),
            token: None,
        }
    }
}

impl World for Far {
    fn put(&mut self, service: &str, endpoints: &[Registered]) {
        let all: Vec<_> = endpoints
            .iter()
            .map(|one| (one.port, one.healthy))
            .collect();
        self.fake.put(service, &all);
    }
    fn remove(&mut self, service: &str) {
        self.fake.remove(service);
    }
    fn garbage(&mut self) {
        self.fake.mood(Mood::Garbage);
    }
    fn break_off(&mut self) {
        self.fake.mood(Mood::Broken);
    }
    fn repair(&mut self) {
        self.fake.mood(Mood::Good);
    }
    fn opener(&self) -> Arc<dyn Fn() -> Box<dyn Source> + Send + Sync> {
        let access = Access {
            addresses: vec![self.fake.address.clone()],
            token_file: self.token.clone(),
            ..Access::default()
        };
        let kind = SourceKind::Consul {
            access,
            datacenter: None,
            namespace: None,
            partition: None,
            tags: Vec::new(),
            passing: false,
        };
        let config = SourceConfig {
            id: ID.to_owned(),
            publish: true,
            kind,
            services: None,
        };
        Arc::new(move || crate::open::open(&config))
    }
    hooks!();
}

#[tokio::test]
async fn it_obeys() {
    laws(Far::new).await;
}

#[tokio::test]
async fn it_passes_every_case() {
    let dir = tempfile::tempdir().unwrap();
    matrix("consul-fake", |setup| {
        let mut far = Far::new();
        match setup {
            Setup::Plain | Setup::Large => {}
            Setup::Token => {
                let file = dir.path().join("token");
                fs::write(&file, "first").unwrap();
                far.fake.token("first");
                far.token = Some(file);
            }
            Setup::Tls => return Err(Na::Twin),
        }
        Ok(far)
    })
    .await;
}

#[tokio::test]
async fn no_misbehaviour_removes_anything() {
    let mut far = Far::new();
    far.put("web", &[up(1), up(2)]);
    let run = Watched::new(&far);
    run.has("web", &[1, 2]).await;
    run.is("synced").await;
    for (mood, word) in [
        (Mood::Blind, "auth-failed"),
        (Mood::Nodeless, "auth-failed"),
        (Mood::Filtered, "auth-failed"),
        (Mood::Leaderless, "degraded"),
        (Mood::Cut, "degraded"),
        (Mood::Garbage, "degraded"),
    ] {
        far.fake.mood(mood);
        run.is(word).await;
        run.stays("web", &[1, 2]).await;
        far.fake.mood(Mood::Good);
        run.is("synced").await;
    }
    run.end().await;
}

#[tokio::test]
async fn an_index_that_begins_anew_is_followed() {
    let mut far = Far::new();
    for round in 1..=20 {
        far.put("web", &[up(round), up(1)]);
    }
    let run = Watched::new(&far);
    run.has("web", &[1, 20]).await;
    far.put("web", &[up(1), up(2)]);
    run.has("web", &[1, 2]).await;
    far.fake.mood(Mood::Broken);
    run.is("degraded").await;
    far.fake.rebuild();
    far.put("web", &[up(1), up(2), up(3)]);
    far.fake.mood(Mood::Good);
    run.has("web", &[1, 2, 3]).await;
    assert!(
        far.fake
            .asked()
            .iter()
            .any(|line| line.contains("/v1/health/service/web ")),
        "the leader was asked"
    );
    far.put("web", &[up(2), up(3), up(1), up(4)]);
    run.has("web", &[1, 2, 3, 4]).await;
    run.end().await;
}

#[tokio::test]
async fn a_black_hole_is_noticed_and_left() {
    let mut far = Far::new();
    far.put("web", &[up(1)]);
    let run = Watched::new(&far);
    run.has("web", &[1]).await;
    run.is("synced").await;
    far.fake.mood(Mood::Silent);
    run.is("degraded").await;
    far.fake.mood(Mood::Good);
    far.put("web", &[up(1), up(2)]);
    run.has("web", &[1, 2]).await;
    run.is("synced").await;
    run.end().await;
}

#[tokio::test]
async fn a_revoked_token_keeps_everything_until_the_new_one_is_there() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("token");
    fs::write(&file, "first").unwrap();
    let mut far = Far::new();
    far.token = Some(file.clone());
    far.fake.token("first");
    far.put("web", &[up(1)]);
    let run = Watched::new(&far);
    run.has("web", &[1]).await;
    far.fake.token("second");
    far.put("web", &[up(1), up(2)]);
    run.is("auth-failed").await;
    run.stays("web", &[1]).await;
    fs::write(&file, "second").unwrap();
    run.has("web", &[1, 2]).await;
    run.is("synced").await;
    run.end().await;
}
