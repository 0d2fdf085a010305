//! The source obeys the law against the scripted server; what only Eureka can do wrong.

use std::{fs, path::PathBuf};

use super::{
    fake::{Fake, Quirk},
    *,
};
use crate::{
    contract::{
        Hook, ID, Na, Registered, Setup, Watched, World, laws, matrix, server::authority, up,
    },
    http::stage::Mood,
};

const POLL: Duration = Duration::from_millis(100);

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
            far.password("first");
            fs::write(far.file("password"), "first").unwrap();
        }
        far
    }
    fn plain() -> Self {
        Self::new(Setup::Plain)
    }
    fn file(&self, name: &str) -> PathBuf {
        self.files.path().join(name)
    }
    fn password(&self, password: &str) {
        let pair = data_encoding::BASE64.encode(format!("mesh:{password}").as_bytes());
        self.fake.stage.want(&format!("Basic {pair}"));
    }
    fn asked_for(&self, what: &str) -> usize {
        let asked = self.fake.stage.asked();
        asked.iter().filter(|line| line.contains(what)).count()
    }
    fn address(&self) -> String {
        let scheme = if self.setup == Setup::Tls {
            "https"
        } else {
            "http"
        };
        format!("{scheme}://{}/eureka", self.fake.stage.address)
    }
}

fn at(port: u16, more: &str) -> String {
    format!(
        "\"hostName\":\"10.0.0.1\",\"ipAddr\":\"10.0.0.1\",\"port\":{{\"$\":{port},\"@enabled\":\"true\"}}{more}"
    )
}

impl World for Far {
    fn put(&mut self, service: &str, endpoints: &[Registered]) {
        for one in endpoints {
            let status = if one.healthy { "UP" } else { "DOWN" };
            let id = format!("{service}:{}", one.port);
            self.fake.put(service, &id, status, &at(one.port, ""));
        }
        for id in self.fake.ids(service) {
            if !endpoints
                .iter()
                .any(|one| id == format!("{service}:{}", one.port))
            {
                self.fake.remove(service, &id);
            }
        }
    }
    fn remove(&mut self, service: &str) {
        self.put(service, &[]);
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
        let mut access = Access {
            addresses: self.before.clone(),
            ..Access::default()
        };
        access.addresses.push(self.address());
        if self.setup == Setup::Tls {
            access.tls.ca = Some(self.file("ca.pem"));
        }
        if self.setup == Setup::Token {
            access.username = Some("mesh".into());
            access.password_file = Some(self.file("password"));
        }
        let kind = SourceKind::Eureka {
            access,
            zone: None,
            poll: POLL,
            secure_port: false,
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
        let id = format!("{service}:{port}");
        self.fake.put(
            service,
            &id,
            "UP",
            &at(port, ",\"metadata\":{\"zone\":\"b\"}"),
        );
        Ok(())
    }
    fn put_addresses(&mut self, service: &str) -> Hook<Vec<String>> {
        let six = "\"hostName\":\"fd00::1\",\"ipAddr\":\"fd00::1\",\"port\":{\"$\":80,\"@enabled\":\"true\"}";
        self.fake.put(service, &format!("{service}:80"), "UP", six);
        let named =
            "\"hostName\":\"Db.Test\",\"ipAddr\":\"\",\"port\":{\"$\":5432,\"@enabled\":\"true\"}";
        self.fake
            .put(service, &format!("{service}:5432"), "UP", named);
        Ok(vec!["[fd00::1]:80".into(), "db.test:5432".into()])
    }
    fn fill(&mut self, endpoints: usize) -> Hook {
        for one in 0..endpoints {
            let port = 1_024 + u16::try_from(one % 60_000).unwrap();
            let app = format!("service-{}", one / 10);
            self.fake.put(
                &app,
                &format!("{app}:{one}"),
                "UP",
                &at(port, ",\"metadata\":{\"zone\":\"a\"}"),
            );
        }
        Ok(())
    }
    fn cut(&mut self) -> Hook {
        self.fake.stage.mood(Mood::Cut);
        Ok(())
    }
    fn kill(&mut self) -> Hook {
        Err(Na::Twin)
    }
    fn freeze(&mut self) -> Hook {
        self.fake.stage.mood(Mood::Silent);
        Ok(())
    }
    fn thaw(&mut self) {
        self.repair();
    }
    fn revoke_token(&mut self) -> Hook {
        self.password("second");
        Ok(())
    }
    fn rotate_token(&mut self) -> Hook {
        fs::write(self.file("password"), "second").unwrap();
        Ok(())
    }
    fn rotate_certificate(&mut self) -> Hook {
        authority::write(self.files.path()).unwrap();
        // Connections that stand are of the old one.
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
    matrix("eureka (fake)", |setup| Ok(Far::new(setup))).await;
}

#[tokio::test]
async fn a_restarted_server_is_given_time_to_be_told_again() {
    let mut far = Far::plain();
    far.put("web", &[up(1), up(2), up(3)]);
    far.put("api", &[up(9)]);
    let run = Watched::new(&far);
    run.has("web", &[1, 2, 3]).await;
    run.is("synced").await;
    far.fake.forget();
    run.is("degraded").await;
    run.has("web", &[1, 2, 3]).await;
    far.put("web", &[up(1)]);
    far.put("api", &[up(9), up(8)]);
    run.has("api", &[8, 9]).await;
    run.has("web", &[1, 2, 3]).await;
    run.is("degraded").await;
    far.put("web", &[up(1), up(2), up(3)]);
    run.is("synced").await;
    far.put("web", &[up(1), up(2)]);
    run.has("web", &[1, 2]).await;
    run.end().await;
}

#[tokio::test]
async fn a_server_that_never_learns_again_is_believed_in_the_end() {
    let mut far = Far::plain();
    far.put("web", &[up(1), up(2), up(3)]);
    let run = Watched::new(&far);
    run.has("web", &[1, 2, 3]).await;
    far.fake.forget();
    far.put("web", &[up(3)]);
    run.is("degraded").await;
    run.is("synced").await;
    run.has("web", &[3]).await;
    run.end().await;
}

#[tokio::test]
async fn deltas_that_cannot_be_had_or_trusted_are_replaced_by_everything() {
    for quirk in [Quirk::NoDeltas, Quirk::WrongHash] {
        let mut far = Far::plain();
        far.put("web", &[up(1), up(2), up(3), up(4)]);
        let run = Watched::new(&far);
        run.has("web", &[1, 2, 3, 4]).await;
        far.fake.quirk(quirk);
        far.put("web", &[up(1), up(2), up(4), up(5), up(6)]);
        run.has("web", &[1, 2, 4, 5, 6]).await;
        run.is("synced").await;
        let end = tokio::time::Instant::now() + Duration::from_secs(20);
        while far.asked_for("/apps?") < 3 {
            assert!(
                tokio::time::Instant::now() < end,
                "{quirk:?} never asks for everything"
            );
            tokio::time::sleep(POLL).await;
        }
        run.end().await;
        // A server with wrong hashes is not asked for everything each time.
        assert!(quirk != Quirk::WrongHash || far.asked_for("/delta") > far.asked_for("/apps?"));
    }
}

#[tokio::test]
async fn a_delta_that_leaves_something_out_is_noticed_by_its_hash() {
    let mut far = Far::plain();
    far.put("web", &[up(1), up(2)]);
    let run = Watched::new(&far);
    run.has("web", &[1, 2]).await;
    far.fake.quirk(Quirk::LosesDeltas);
    far.put("web", &[up(1), up(2), up(3)]);
    run.has("web", &[1, 2, 3]).await;
    run.is("synced").await;
    run.end().await;
    assert_eq!(far.asked_for("/apps?"), 2);
}

#[tokio::test]
async fn deltas_are_what_is_asked_for_when_all_is_well() {
    let mut far = Far::plain();
    far.put("web", &[up(1)]);
    let run = Watched::new(&far);
    run.has("web", &[1]).await;
    for port in 2..8 {
        far.put("web", &[up(1), up(port)]);
        run.has("web", &[1, port]).await;
    }
    run.end().await;
    assert_eq!(far.asked_for("/apps?"), 1);
    assert!(far.asked_for("/delta?") >= 6);
}

#[tokio::test]
async fn a_server_that_does_not_serve_yet_takes_nothing_and_the_next_one_is_asked() {
    let mut far = Far::plain();
    let other = Fake::start(None);
    other.put("web", "web:1", "UP", &at(1, ""));
    far.before
        .push(format!("http://{}/eureka", other.stage.address));
    far.put("web", &[up(1), up(2)]);
    let run = Watched::new(&far);
    run.has("web", &[1]).await;
    other.quirk(Quirk::Starting);
    run.has("web", &[1, 2]).await;
    run.is("synced").await;
    other.quirk(Quirk::None);
    far.fake.quirk(Quirk::Starting);
    far.put("web", &[]);
    other.put("web", "web:3", "UP", &at(3, ""));
    run.has("web", &[1, 3]).await;
    other.stage.mood(Mood::Ill);
    run.is("degraded").await;
    run.stays("web", &[1, 3]).await;
    run.end().await;
}

#[test]
fn servers_of_the_own_zone_go_first() {
    let access = Access {
        addresses: [
            "http://us-east-1d.registry.example:7001/eureka",
            "https://us-east-1c.registry.example/eureka",
            "http://10.0.0.1:8761/eureka",
        ]
        .map(str::to_owned)
        .to_vec(),
        ..Access::default()
    };
    let near = nearest_first(&access, Some("us-east-1c")).addresses;
    assert!(
        near[0].contains("us-east-1c") && near[1].contains("us-east-1d"),
        "{near:?}"
    );
    assert_eq!(nearest_first(&access, None).addresses, access.addresses);
    assert_eq!(
        nearest_first(&access, Some("eureka")).addresses,
        access.addresses
    );
}
