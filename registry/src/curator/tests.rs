//! Curator's layout obeys the law against the scripted server.

use std::collections::BTreeMap;

use mesh_model::config::Access;

use super::*;
use crate::{
    contract::{ID, Registered, Watched, World, laws, up},
    source::Source,
    zookeeper::scripted::{Mood, Server},
};

struct Far {
    server: Server,
    good: BTreeMap<String, String>,
}

impl Far {
    fn new() -> Self {
        let server = Server::start();
        server.put("/services", "");
        Self {
            server,
            good: BTreeMap::new(),
        }
    }
}

fn json(port: u16, healthy: bool) -> String {
    let status = if healthy { "UP" } else { "DOWN" };
    format!(
        r#"{{"name":"web","id":"i-{port}","address":"10.0.0.1","port":{port},"sslPort":null,"payload":{{"@class":"org.springframework.cloud.zookeeper.discovery.ZookeeperInstance","id":"web-1","name":"web","metadata":{{"instance_status":"{status}"}}}},"registrationTimeUTC":1,"serviceType":"DYNAMIC","uriSpec":null}}"#
    )
}

impl World for Far {
    fn put(&mut self, service: &str, endpoints: &[Registered]) {
        let inside = format!("/services/{service}");
        let wanted: BTreeMap<String, String> = endpoints
            .iter()
            .map(|one| {
                (
                    format!("{inside}/i-{}", one.port),
                    json(one.port, one.healthy),
                )
            })
            .collect();
        let there = self.server.below(&inside);
        for path in there.keys().filter(|path| !wanted.contains_key(*path)) {
            self.server.remove(path);
            self.good.remove(path);
        }
        for (path, text) in wanted {
            if there.get(&path) != Some(&text) {
                self.server.put(&path, &text);
                self.good.insert(path, text);
            }
        }
    }
    fn remove(&mut self, service: &str) {
        let path = format!("/services/{service}");
        self.server.remove(&path);
        self.good
            .retain(|member, _| !member.starts_with(&format!("{path}/")));
    }
    fn garbage(&mut self) {
        for path in self.good.keys() {
            self.server.put(path, "?");
        }
    }
    fn break_off(&mut self) {
        self.server.mood(Mood::Broken);
    }
    fn repair(&mut self) {
        self.server.mood(Mood::Good);
        for (path, text) in &self.good {
            self.server.put(path, text);
        }
    }
    fn opener(&self) -> Arc<dyn Fn() -> Box<dyn Source> + Send + Sync> {
        let access = Access {
            addresses: vec![self.server.address.clone()],
            ..Access::default()
        };
        let config = SourceConfig {
            id: ID.to_owned(),
            publish: true,
            kind: SourceKind::Curator {
                access,
                path: "/services".to_owned(),
            },
            services: None,
        };
        Arc::new(move || crate::open::open(&config))
    }
}

#[tokio::test]
async fn it_obeys() {
    laws(Far::new).await;
}

#[tokio::test]
async fn a_service_without_instances_is_empty_and_not_absent() {
    let mut far = Far::new();
    far.put("web", &[up(1)]);
    far.server.put("/services/none", "");
    far.server.put("/services/not a name", "");
    let run = Watched::new(&far);
    run.has("web", &[1]).await;
    run.has("none", &[]).await;
    far.put("none", &[up(2)]);
    run.has("none", &[2]).await;
    run.end().await;
}
