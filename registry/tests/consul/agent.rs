//! A real agent, and the way to it that can be broken.

use std::{
    collections::BTreeMap,
    fs,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use mesh_model::config::{Access, SourceConfig, SourceKind};
use mesh_registry::{
    contract::{
        Hook, ID, Registered, Setup, World,
        server::{
            Server, authority,
            consul::{self, MASTER},
            told,
        },
        wire::{Fault, Wire},
    },
    open::open,
    source::Source,
};

/// A real agent, and the way to it that can be broken.
pub(crate) struct Agent {
    pub(crate) server: Server,
    setup: Setup,
    pub(crate) admin: SocketAddr,
    wire: Wire,
    /// True: the client comes through the unix socket.
    pub(crate) unix: bool,
    /// The setting.
    pub(crate) max_watches: u16,
    /// What was put, for a change in place.
    known: BTreeMap<String, Vec<Registered>>,
    /// The id of the client's token.
    token: String,
}

impl Agent {
    pub(crate) fn start(root: &Path, setup: Setup) -> Self {
        let started = consul::start(root, Ipv4Addr::LOCALHOST.into(), setup);
        let mut agent = Self {
            server: started.server,
            setup,
            admin: started.admin,
            wire: Wire::new(started.to).unwrap(),
            unix: false,
            max_watches: SourceKind::CONSUL_WATCHES,
            known: BTreeMap::new(),
            token: String::new(),
        };
        if setup == Setup::Token {
            agent.new_token();
        }
        agent
    }

    fn told(&self, path: &str, body: &str) -> String {
        told(self.admin, "PUT", path, &[("X-Consul-Token", MASTER)], body)
    }

    pub(crate) fn token_file(&self) -> PathBuf {
        self.server.folder().join("token")
    }

    fn new_token(&mut self) {
        let rules = r#"service_prefix "" { policy = "read" } node_prefix "" { policy = "read" }"#;
        let name = format!("reader-{}", fastrand::u32(..));
        let policy = serde_json::json!({"Name": name, "Rules": rules}).to_string();
        self.told("/v1/acl/policy", &policy);
        let token = serde_json::json!({"Policies": [{"Name": name}]}).to_string();
        let made: serde_json::Value =
            serde_json::from_str(&self.told("/v1/acl/token", &token)).unwrap();
        self.token = made["AccessorID"].as_str().unwrap().to_owned();
        fs::write(self.token_file(), made["SecretID"].as_str().unwrap()).unwrap();
    }

    fn register(&self, service: &str, one: Registered, address: &str, weight: u32) {
        let id = format!("{service}-{}", one.port);
        let status = if one.healthy { "passing" } else { "critical" };
        let body = serde_json::json!({
            "ID": id, "Name": service, "Address": address, "Port": one.port,
            "Weights": {"Passing": weight, "Warning": 1},
            "Check": {"CheckID": format!("{id}-up"), "TTL": "1h", "Status": status},
        });
        self.told(
            "/v1/agent/service/register?replace-existing-checks=true",
            &body.to_string(),
        );
        // A check that was there keeps its status when it is registered again.
        let body = serde_json::json!({"Status": status}).to_string();
        self.told(&format!("/v1/agent/check/update/{id}-up"), &body);
    }

    /// These instances go, all at one moment, and then the agent forgets them: one by one they would be no mass.
    fn leave(&self, service: &str, ids: &[String]) {
        let delete = |id: &String| {
            let one = serde_json::json!({"ID": id, "Service": service});
            serde_json::json!({"Service": {"Verb": "delete", "Node": "lab", "Service": one}})
        };
        let all: serde_json::Value = ids.iter().map(delete).collect();
        self.told("/v1/txn", &all.to_string());
        for id in ids {
            self.told(&format!("/v1/agent/service/deregister/{id}"), "");
        }
    }

    /// Waits until the catalog, which is what clients read, has what the agent has.
    fn settled(&self, service: &str, wanted: &[Registered]) {
        let path = format!("/v1/health/service/{service}");
        let fields = [("X-Consul-Token", MASTER)];
        let mut wanted: Vec<(u64, bool)> = wanted
            .iter()
            .map(|one| (one.port.into(), one.healthy))
            .collect();
        wanted.sort_unstable();
        let mut found = Vec::new();
        let end = Instant::now() + Duration::from_secs(20);
        while Instant::now() < end {
            let all = told(self.admin, "GET", &path, &fields, "");
            let all: Vec<serde_json::Value> = serde_json::from_str(&all).unwrap();
            found = all
                .iter()
                .map(|one| {
                    let ill = one["Checks"].to_string().contains("\"critical\"");
                    (one["Service"]["Port"].as_u64().unwrap(), !ill)
                })
                .collect();
            found.sort_unstable();
            if found == wanted {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("{service} is {found:?}, not {wanted:?}");
    }
}

impl World for Agent {
    fn put(&mut self, service: &str, endpoints: &[Registered]) {
        let old = self.known.insert(service.to_owned(), endpoints.to_vec());
        let mut gone = old.unwrap_or_default();
        gone.retain(|one| !endpoints.iter().any(|new| new.port == one.port));
        let ids: Vec<String> = gone
            .iter()
            .map(|one| format!("{service}-{}", one.port))
            .collect();
        if !ids.is_empty() {
            self.leave(service, &ids);
        }
        for one in endpoints {
            self.register(service, *one, "10.0.0.1", 1);
        }
        self.settled(service, endpoints);
    }
    fn remove(&mut self, service: &str) {
        self.put(service, &[]);
    }
    fn garbage(&mut self) {
        self.wire.fault(Fault::Garbage);
    }
    fn break_off(&mut self) {
        self.wire.fault(Fault::Closed);
    }
    fn repair(&mut self) {
        self.wire.fault(Fault::None);
    }
    fn opener(&self) -> Arc<dyn Fn() -> Box<dyn Source> + Send + Sync> {
        let at = self.wire.address();
        let mut access = Access::default();
        match self.setup {
            Setup::Tls => {
                access.addresses = vec![format!("https://{at}")];
                access.tls.ca = Some(self.server.folder().join("ca.pem"));
            }
            _ if self.unix => {
                let socket = self.server.folder().join("http.sock");
                access.addresses = vec![format!("unix://{}", socket.display())];
            }
            _ => access.addresses = vec![format!("http://{at}")],
        }
        if self.setup == Setup::Token {
            access.token_file = Some(self.token_file());
        }
        let config = SourceConfig {
            id: ID.to_owned(),
            publish: true,
            services: None,
            kind: SourceKind::Consul {
                access,
                datacenter: None,
                namespace: None,
                partition: None,
                tags: Vec::new(),
                passing: false,
                max_watches: self.max_watches,
            },
        };
        Arc::new(move || open(&config))
    }
    fn is_real(&self) -> bool {
        true
    }
    fn change(&mut self, service: &str, port: u16) -> Hook {
        let one = Registered {
            port,
            healthy: true,
        };
        self.register(service, one, "10.0.0.1", 7);
        Ok(())
    }
    fn put_addresses(&mut self, service: &str) -> Hook<Vec<String>> {
        let one = |port| Registered {
            port,
            healthy: true,
        };
        self.register(service, one(80), "fd00::1", 1);
        self.register(service, one(5432), "db.test", 1);
        self.known
            .insert(service.to_owned(), vec![one(80), one(5432)]);
        Ok(vec!["[fd00::1]:80".into(), "db.test:5432".into()])
    }
    fn fill(&mut self, endpoints: usize) -> Hook {
        // Not the agent's own node: it takes out what it does not know.
        let node = r#"[{"Node": {"Verb": "set", "Node": {"Node": "far", "Address": "10.0.0.1"}}}]"#;
        self.told("/v1/txn", node);
        // Consul itself is one.
        let all: Vec<(usize, usize)> = (0..endpoints - 1).map(|at| (at / 10, at % 10)).collect();
        for group in all.chunks(64) {
            let operations: Vec<serde_json::Value> = group
                .iter()
                .map(|(service, port)| {
                    serde_json::json!({"Service": {"Verb": "set", "Node": "far", "Service": {
                        "ID": format!("s{service}-{port}"), "Service": format!("s{service}"),
                        "Address": "10.0.0.1", "Port": port + 1}}})
                })
                .collect();
            self.told("/v1/txn", &serde_json::Value::from(operations).to_string());
        }
        Ok(())
    }
    fn cut(&mut self) -> Hook {
        self.wire.fault(Fault::Cut);
        Ok(())
    }
    fn kill(&mut self) -> Hook {
        self.server.kill();
        Ok(())
    }
    fn start_again(&mut self, keep: bool) -> Hook {
        if !keep {
            self.known.clear();
        }
        self.server.start_again(keep);
        Ok(())
    }
    fn freeze(&mut self) -> Hook {
        self.server.freeze();
        Ok(())
    }
    fn thaw(&mut self) {
        self.server.thaw();
    }
    fn revoke_token(&mut self) -> Hook {
        let path = format!("/v1/acl/token/{}", self.token);
        let fields = [("X-Consul-Token", MASTER)];
        told(self.admin, "DELETE", &path, &fields, "");
        Ok(())
    }
    fn rotate_token(&mut self) -> Hook {
        self.new_token();
        Ok(())
    }
    fn rotate_certificate(&mut self) -> Hook {
        self.server.kill();
        authority::write(self.server.folder()).unwrap();
        self.server.start_again(true);
        Ok(())
    }
}
