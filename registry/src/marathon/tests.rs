//! The source obeys the law against the scripted server; what only Marathon can do wrong.

use std::{fs, path::PathBuf, time::Duration};

use serde_json::json;

use super::{
    fake::{Fake, app, task},
    *,
};
use crate::{
    contract::{
        Hook, ID, Na, Registered, Setup, Watched, World, laws, matrix, server::authority, up,
    },
    http::stage::Mood,
};

struct Far {
    fake: Fake,
    files: tempfile::TempDir,
    setup: Setup,
    /// Further servers, before the fake.
    before: Vec<String>,
}

impl Far {
    fn new(setup: Setup) -> Self {
        let files = tempfile::tempdir().unwrap();
        let secured = (setup == Setup::Tls).then(|| {
            authority::write(files.path()).unwrap();
            files.path().to_owned()
        });
        let far = Self {
            fake: Fake::start(secured),
            files,
            setup,
            before: Vec::new(),
        };
        if setup == Setup::Token {
            far.fake.stage.want("token=first");
            fs::write(far.file("token"), "first").unwrap();
        }
        far
    }
    fn plain() -> Self {
        Self::new(Setup::Plain)
    }
    fn file(&self, name: &str) -> PathBuf {
        self.files.path().join(name)
    }
}

impl World for Far {
    fn put(&mut self, service: &str, endpoints: &[Registered]) {
        let tasks = endpoints.iter();
        let tasks = tasks.map(|one| task(service, "10.0.0.1", one.port, one.healthy));
        self.fake.put(app(service, &tasks.collect::<Vec<_>>()));
    }
    fn remove(&mut self, service: &str) {
        self.fake.remove(&format!("/{service}"));
    }
    fn garbage(&mut self) {
        self.fake.stage.mood(Mood::Garbage);
    }
    fn break_off(&mut self) {
        self.fake.stage.mood(Mood::Broken);
    }
    fn repair(&mut self) {
        self.fake.stage.mood(Mood::Good);
    }
    fn opener(&self) -> Arc<dyn Fn() -> Box<dyn Source> + Send + Sync> {
        let scheme = if self.setup == Setup::Tls {
            "https"
        } else {
            "http"
        };
        let mut access = Access {
            addresses: self.before.clone(),
            ..Access::default()
        };
        access
            .addresses
            .push(format!("{scheme}://{}", self.fake.stage.address));
        if self.setup == Setup::Tls {
            access.tls.ca = Some(self.file("ca.pem"));
        }
        if self.setup == Setup::Token {
            access.token_file = Some(self.file("token"));
        }
        let kind = SourceKind::Marathon {
            access,
            prefix: String::new(),
            port_index: 0,
        };
        let config = SourceConfig {
            id: ID.to_owned(),
            publish: true,
            kind,
            services: None,
        };
        Arc::new(move || crate::open::open(&config))
    }
    fn change(&mut self, service: &str, port: u16) -> Hook {
        let tasks = [1, 2].map(|one| {
            let mut task = task(service, "10.0.0.1", one, true);
            if one == port {
                task["zone"] = "b".into();
            }
            task
        });
        self.fake.put(app(service, &tasks));
        Ok(())
    }
    fn put_addresses(&mut self, service: &str) -> Hook<Vec<String>> {
        let tasks = vec![
            task(service, "fd00::1", 80, true),
            task(service, "Db.Test", 5432, true),
        ];
        self.fake.put(app(service, &tasks));
        Ok(vec!["[fd00::1]:80".into(), "db.test:5432".into()])
    }
    fn fill(&mut self, endpoints: usize) -> Hook {
        for service in 0..endpoints / 100 {
            let name = format!("service-{service}");
            let tasks = (0..100).map(|one| task(&name, "10.0.0.1", 1_024 + one, true));
            self.fake.put(app(&name, &tasks.collect::<Vec<_>>()));
        }
        Ok(())
    }
    fn cut(&mut self) -> Hook {
        self.fake.stage.mood(Mood::Cut);
        Ok(())
    }
    fn kill(&mut self) -> Hook {
        Err(Na::NoTwin)
    }
    fn freeze(&mut self) -> Hook {
        self.fake.stage.mood(Mood::Silent);
        Ok(())
    }
    fn thaw(&mut self) {
        self.repair();
    }
    fn revoke_token(&mut self) -> Hook {
        self.fake.stage.want("token=second");
        Ok(())
    }
    fn rotate_token(&mut self) -> Hook {
        fs::write(self.file("token"), "second").unwrap();
        Ok(())
    }
    fn rotate_certificate(&mut self) -> Hook {
        authority::write(self.files.path()).unwrap();
        self.fake.stage.mood(Mood::Broken);
        self.fake.stage.mood(Mood::Good);
        Ok(())
    }
}

#[tokio::test]
async fn it_obeys() {
    laws(Far::plain).await;
}

#[tokio::test]
async fn every_case() {
    matrix("marathon (fake)", |setup| Ok(Far::new(setup))).await;
}

#[tokio::test]
async fn what_the_token_may_not_see_is_not_gone() {
    let mut far = Far::plain();
    far.put("web", &[up(1), up(2)]);
    let run = Watched::new(&far);
    run.has("web", &[1, 2]).await;
    run.is("synced").await;
    far.fake.hide(true);
    far.fake.tell("status_update_event", &json!({}));
    run.is("auth-failed").await;
    run.stays("web", &[1, 2]).await;
    far.fake.hide(false);
    run.is("synced").await;
    run.end().await;
}

#[tokio::test]
async fn an_empty_list_to_a_token_is_not_believed_at_first() {
    let far = Far::new(Setup::Token);
    let run = Watched::new(&far);
    run.is("auth-failed").await;
    far.fake
        .put(app("web", &[task("web", "10.0.0.1", 1, true)]));
    run.has("web", &[1]).await;
    run.is("synced").await;
    run.end().await;
}

#[tokio::test]
async fn what_no_event_tells_is_found_when_the_leader_changes() {
    let mut far = Far::plain();
    far.put("web", &[up(1)]);
    let run = Watched::new(&far);
    run.has("web", &[1]).await;
    run.is("synced").await;
    far.fake.mute(true);
    far.put("web", &[up(1), up(2)]);
    far.fake.lead("another:8080");
    run.has("web", &[1, 2]).await;
    far.fake.lead("");
    run.is("degraded").await;
    run.stays("web", &[1, 2]).await;
    far.fake.lead("another:8080");
    run.is("synced").await;
    run.end().await;
}

#[tokio::test]
async fn the_stream_is_opened_at_the_leader() {
    let mut far = Far::plain();
    let other = Fake::start(None);
    far.before.push(format!("http://{}", other.stage.address));
    for fake in [&other, &far.fake] {
        fake.lead(&far.fake.stage.address);
        fake.put(app("web", &[task("web", "10.0.0.1", 1, true)]));
    }
    let run = Watched::new(&far);
    run.has("web", &[1]).await;
    run.is("synced").await;
    let opened = || {
        let asked = far.fake.stage.asked();
        asked.iter().any(|line| line.contains("/v2/events"))
    };
    let end = tokio::time::Instant::now() + Duration::from_secs(20);
    while !opened() {
        let asked = far.fake.stage.asked();
        assert!(tokio::time::Instant::now() < end, "the leader's: {asked:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    far.put("web", &[up(1), up(2)]);
    run.has("web", &[1, 2]).await;
    run.end().await;
}

#[tokio::test]
async fn readiness_is_seen_without_an_event() {
    let mut far = Far::plain();
    let mut deployed = app(
        "web",
        &[
            task("web", "10.0.0.1", 1, true),
            task("web", "10.0.0.1", 2, true),
        ],
    );
    deployed["deployments"] = json!([{"id": "1"}]);
    deployed["readinessChecks"] = json!([{"name": "ready"}]);
    deployed["readinessCheckResults"] = json!([{"taskId": "web.1", "ready": true}]);
    far.fake.put(deployed.clone());
    far.put("api", &[up(9)]);
    let run = Watched::new(&far);
    run.routes("web", &[1]).await;
    far.fake.mute(true);
    deployed["readinessCheckResults"] =
        json!([{"taskId": "web.1", "ready": true}, {"taskId": "web.2", "ready": true}]);
    far.fake.put(deployed);
    run.routes("web", &[1, 2]).await;
    run.end().await;
}
