//! The source obeys the law against the scripted server; what only Nomad can do wrong.

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
            fake: Fake::start(Kind::Nomad),
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
    fn tells_health(&self) -> bool {
        false
    }
    fn opener(&self) -> Arc<dyn Fn() -> Box<dyn Source> + Send + Sync> {
        let access = Access {
            addresses: vec![self.fake.address.clone()],
            token_file: self.token.clone(),
            ..Access::default()
        };
        let kind = SourceKind::Nomad {
            access,
            region: None,
            namespace: "*".into(),
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
    matrix("nomad-fake", |setup| {
        let mut far = Far::new();
        match setup {
            Setup::Plain | Setup::Large => {}
            Setup::Token => {
                let file = dir.path().join("token");
                std::fs::write(&file, "first").unwrap();
                far.fake.token("first");
                far.token = Some(file);
            }
            Setup::Tls => return Err(Na::NoTwin),
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
