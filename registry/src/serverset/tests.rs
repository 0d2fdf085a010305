//! Server sets obey the law against the scripted server; what only `ZooKeeper` can do wrong.

use std::{collections::BTreeMap, fs, path::PathBuf};

use mesh_model::config::Access;

use super::*;
use crate::{
    contract::{Hook, ID, Na, Registered, Setup, Watched, World, laws, matrix, up},
    source::Source,
    zookeeper::{
        op,
        scripted::{Mood, Server},
    },
};

/// Where server sets lie in the tests.
const BASE: &str = "/discovery";

struct Far {
    server: Server,
    numbers: BTreeMap<(String, u16), u32>,
    next: u32,
    good: BTreeMap<String, String>,
    password: Option<(tempfile::TempDir, PathBuf)>,
    old: bool,
}

impl Far {
    fn new(mood: Mood) -> Self {
        let server = Server::start();
        server.mood(mood);
        server.put(BASE, "");
        Self {
            server,
            numbers: BTreeMap::new(),
            next: 0,
            good: BTreeMap::new(),
            password: None,
            old: mood != Mood::Good,
        }
    }

    fn with_password() -> Self {
        let mut far = Self::new(Mood::Good);
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("password");
        fs::write(&file, "first").unwrap();
        far.server.secret(Some("mesh:first"));
        far.password = Some((dir, file));
        far
    }

    fn config(&self) -> SourceConfig {
        let file = self.password.as_ref().map(|(_, file)| file.clone());
        let access = Access {
            addresses: vec![self.server.address.clone()],
            username: file.as_ref().map(|_| "mesh".to_owned()),
            password_file: file,
            ..Access::default()
        };
        SourceConfig {
            id: ID.to_owned(),
            publish: true,
            kind: SourceKind::Serverset {
                access,
                path: BASE.to_owned(),
            },
            services: None,
        }
    }

    fn member(&mut self, service: &str, port: u16) -> String {
        let next = &mut self.next;
        let number = *self
            .numbers
            .entry((service.to_owned(), port))
            .or_insert_with(|| {
                *next += 1;
                *next
            });
        format!("{BASE}/{service}/member_{number:010}")
    }

    fn write(&mut self, path: &str, text: String) {
        self.server.put(path, &text);
        self.good.insert(path.to_owned(), text);
    }
}

fn json(host: &str, port: u16, status: &str, shard: u16) -> String {
    format!(
        r#"{{"serviceEndpoint":{{"host":"{host}","port":{port}}},"additionalEndpoints":{{}},"status":"{status}","shard":{shard}}}"#
    )
}

impl World for Far {
    fn put(&mut self, service: &str, endpoints: &[Registered]) {
        let mut wanted = BTreeMap::new();
        for one in endpoints {
            let status = if one.healthy { "ALIVE" } else { "DEAD" };
            wanted.insert(
                self.member(service, one.port),
                json("10.0.0.1", one.port, status, 1),
            );
        }
        let inside = format!("{BASE}/{service}");
        let there = self.server.below(&inside);
        for path in there.keys().filter(|path| !wanted.contains_key(*path)) {
            self.server.remove(path);
            self.good.remove(path);
        }
        for (path, text) in wanted {
            if there.get(&path) != Some(&text) {
                self.write(&path, text);
            }
        }
    }
    fn remove(&mut self, service: &str) {
        let path = format!("{BASE}/{service}");
        self.server.remove(&path);
        self.good
            .retain(|member, _| !member.starts_with(&format!("{path}/")));
    }
    fn garbage(&mut self) {
        for path in self.good.keys() {
            self.server.put(path, "{\"serviceEndpoint\":");
        }
    }
    fn break_off(&mut self) {
        self.server.mood(Mood::Broken);
    }
    fn repair(&mut self) {
        self.server
            .mood(if self.old { Mood::Old } else { Mood::Good });
        for (path, text) in &self.good {
            if self.server.below(BASE).get(path) != Some(text) {
                self.server.put(path, text);
            }
        }
    }
    fn opener(&self) -> Arc<dyn Fn() -> Box<dyn Source> + Send + Sync> {
        let config = self.config();
        Arc::new(move || crate::open::open(&config))
    }
    fn change(&mut self, service: &str, port: u16) -> Hook {
        let path = self.member(service, port);
        self.write(&path, json("10.0.0.1", port, "ALIVE", 7));
        Ok(())
    }
    fn put_addresses(&mut self, service: &str) -> Hook<Vec<String>> {
        for (number, host) in [(1, "fd00::1"), (2, "db.test")] {
            let path = format!("{BASE}/{service}/member_{number:010}");
            self.write(&path, json(host, 5432, "ALIVE", number));
        }
        Ok(vec!["[fd00::1]:5432".into(), "db.test:5432".into()])
    }
    fn fill(&mut self, endpoints: usize) -> Hook {
        for at in 0..endpoints {
            let path = format!("{BASE}/many-{}/member_{at:010}", at / 1_000);
            self.server.put(
                &path,
                &json(
                    "10.0.0.1",
                    u16::try_from(at % 60_000 + 1).unwrap(),
                    "ALIVE",
                    1,
                ),
            );
        }
        Ok(())
    }
    fn cut(&mut self) -> Hook {
        self.server.mood(Mood::Cut);
        Ok(())
    }
    fn kill(&mut self) -> Hook {
        Err(Na::Twin)
    }
    fn start_again(&mut self, _keep: bool) -> Hook {
        Err(Na::Twin)
    }
    fn freeze(&mut self) -> Hook {
        self.server.mood(Mood::Silent);
        Ok(())
    }
    fn thaw(&mut self) {
        self.server.mood(Mood::Good);
    }
    fn revoke_token(&mut self) -> Hook {
        self.server.secret(Some("mesh:second"));
        Ok(())
    }
    fn rotate_token(&mut self) -> Hook {
        if let Some((_, file)) = &self.password {
            fs::write(file, "second").unwrap();
        }
        Ok(())
    }
    fn rotate_certificate(&mut self) -> Hook {
        Err(Na::Twin)
    }
}

#[tokio::test]
async fn it_obeys() {
    laws(|| Far::new(Mood::Good)).await;
}

#[tokio::test]
async fn it_obeys_with_an_old_server() {
    laws(|| Far::new(Mood::Old)).await;
}

#[tokio::test]
async fn every_case() {
    matrix("serverset-fake", |setup| match setup {
        Setup::Plain | Setup::Large => Ok(Far::new(Mood::Good)),
        Setup::Token => Ok(Far::with_password()),
        Setup::Tls => Err(Na::Twin),
    })
    .await;
}

#[tokio::test]
async fn a_server_that_does_not_answer_what_it_does_not_know_is_an_old_one() {
    let mut far = Far::new(Mood::Mute);
    far.put("web", &[up(1)]);
    let run = Watched::new(&far);
    run.has("web", &[1]).await;
    far.put("web", &[up(1), up(2)]);
    run.has("web", &[1, 2]).await;
    far.change("web", 2).unwrap();
    far.put("api", &[up(3)]);
    run.has("api", &[3]).await;
    run.end().await;
}

#[tokio::test]
async fn an_ended_session_takes_nothing() {
    let mut far = Far::new(Mood::Good);
    far.put("web", &[up(1), up(2)]);
    let run = Watched::new(&far);
    run.has("web", &[1, 2]).await;
    run.is("synced").await;
    far.server.mood(Mood::Good);
    far.put("web", &[up(1), up(2), up(3)]);
    run.has("web", &[1, 2, 3]).await;
    assert!(far.server.resumed() > 0, "the session went on");
    far.server.expire();
    run.stays("web", &[1, 2, 3]).await;
    far.put("web", &[up(1), up(2), up(3), up(4)]);
    run.has("web", &[1, 2, 3, 4]).await;
    run.end().await;
}

#[tokio::test]
async fn a_server_made_anew_is_followed_and_its_emptiness_is_not_believed() {
    let mut far = Far::new(Mood::Good);
    for round in 1..=20 {
        far.put("web", &[up(1), up(round)]);
    }
    let run = Watched::new(&far);
    run.has("web", &[1, 20]).await;
    far.server.empty();
    run.is("degraded").await;
    run.stays("web", &[1, 20]).await;
    far.server.put(BASE, "");
    far.put("web", &[up(1), up(20), up(5)]);
    run.has("web", &[1, 5, 20]).await;
    run.is("synced").await;
    run.end().await;
}

#[tokio::test]
async fn nonsense_takes_nothing() {
    let mut far = Far::new(Mood::Good);
    far.put("web", &[up(1)]);
    let run = Watched::new(&far);
    run.has("web", &[1]).await;
    for mood in [Mood::Nonsense, Mood::Cut, Mood::Silent] {
        far.server.mood(mood);
        run.is("degraded").await;
        run.stays("web", &[1]).await;
        far.server.mood(Mood::Good);
        run.is("synced").await;
    }
    run.end().await;
}

#[tokio::test]
async fn ports_with_names_are_services_and_namespaces_are_paths() {
    let far = Far::new(Mood::Good);
    let text = r#"{"serviceEndpoint":{"host":"10.0.0.1","port":1},"additionalEndpoints":{"http":{"host":"10.0.0.1","port":2}},"status":"ALIVE"}"#;
    far.server
        .put("/discovery/prod/web/member_0000000001", text);
    far.server
        .put("/discovery/prod/My_App/member_0000000001", text);
    let run = Watched::new(&far);
    run.has("web", &[1]).await;
    run.has("web-http", &[2]).await;
    run.is("synced").await;
    assert_eq!(
        key("/discovery", "www/prod/web")
            .unwrap()
            .namespace
            .unwrap()
            .as_str(),
        "www-prod"
    );
    assert_eq!(key("/discovery/web", "").unwrap().name.as_str(), "web");
    assert_eq!(
        key("/discovery", "prod/My_App").unwrap().name.as_str(),
        "my-app"
    );
    assert_eq!(key("/discovery", "prod/not a name"), None);
    far.server.remove("/discovery/prod/web/member_0000000001");
    let without = text.replace("\"http\":{\"host\":\"10.0.0.1\",\"port\":2}", "");
    far.server
        .put("/discovery/prod/web/member_0000000002", &without);
    run.has("web", &[1]).await;
    run.end().await;
}

#[tokio::test]
async fn two_directories_of_one_name_do_not_mix() {
    let far = Far::new(Mood::Good);
    let member = |port| json("10.0.0.1", port, "ALIVE", 1);
    far.server
        .put("/discovery/my-app/member_0000000001", &member(1));
    let run = Watched::new(&far);
    run.has("my-app", &[1]).await;
    far.server
        .put("/discovery/my_app/member_0000000001", &member(2));
    far.server
        .put("/discovery/web/member_0000000001", &member(3));
    run.has("web", &[3]).await;
    run.has("my-app", &[1]).await;
    far.server
        .put("/discovery/my-app/member_0000000002", &member(4));
    run.has("my-app", &[1, 4]).await;
    run.end().await;
}

#[tokio::test]
async fn only_what_is_needed_is_read() {
    let mut far = Far::new(Mood::Good);
    for at in 0..20 {
        far.put(&format!("s-{at}"), &[up(1), up(2)]);
    }
    let stop = tokio_util::sync::CancellationToken::new();
    let registry = crate::start(&[], stop.clone());
    let key = |name: &str| ServiceKey {
        namespace: None,
        name: ServiceName::new(name).unwrap(),
        port_name: None,
    };
    registry.need([key("s-3")]);
    let config = far.config();
    registry.add(ID, true, move || crate::open::open(&config));
    let has = async |names: &[&str]| {
        let names: Vec<String> = names
            .iter()
            .map(|name| format!("view/{ID}/default/{name}"))
            .collect();
        let mut views = registry.views();
        let all = views.wait_for(|now| now.views.keys().eq(names.iter()));
        let found = tokio::time::timeout(std::time::Duration::from_secs(20), all).await;
        assert!(found.is_ok(), "{names:?}");
    };
    has(&["s-3"]).await;
    assert_eq!(far.server.asked(op::GET_DATA), 2);
    far.put("s-5", &[up(1), up(2), up(3)]);
    registry.need([key("s-5")]);
    has(&["s-3", "s-5"]).await;
    // The new member may be read once more for its event; s-3 is known.
    let asked = far.server.asked(op::GET_DATA);
    assert!((5..=6).contains(&asked), "{asked}");
    stop.cancel();
    registry.ended().await;
}

#[tokio::test]
async fn one_watch_serves_all_and_only_what_changes_is_read() {
    let mut far = Far::new(Mood::Good);
    for at in 0..20 {
        far.put(&format!("s-{at}"), &[up(1), up(2)]);
    }
    let run = Watched::new(&far);
    run.has("s-7", &[1, 2]).await;
    run.is("synced").await;
    let before = far.server.asked(op::GET_DATA);
    far.put("s-7", &[up(1), up(2), up(3)]);
    run.has("s-7", &[1, 2, 3]).await;
    assert_eq!(far.server.asked(op::GET_DATA) - before, 1);
    assert_eq!(far.server.asked(op::ADD_WATCH), 1);
    run.end().await;
}
