//! etcd's source against a real etcd: every case of the contract, and what only etcd can do.

#[cfg(test)]
mod tests {
    use std::{
        collections::BTreeMap,
        fs,
        net::{Ipv4Addr, SocketAddr},
        path::{Path, PathBuf},
        process::Command,
        sync::Arc,
        time::{Duration, Instant},
    };

    use data_encoding::BASE64;
    use mesh_model::{
        config::{Access, EtcdLayout, RegistrationConfig, SourceConfig, SourceKind},
        endpoint::{Health, Locality},
        name::{Namespace, ServiceId, ServiceName},
        service::AppProtocol,
    };
    use mesh_registry::{
        contract::{
            Hook, ID, Registered, Setup, Watched, World, laws, matrix,
            server::{self, Server, authority, free_ports, http, needed, told},
            up,
            wire::{Fault, Wire},
        },
        open::open,
        registrar::{Registrar, Registration, Renewal},
        source::Source,
    };
    use serde_json::{Value, json};

    const ROOT: &str = "root-password";
    const PREFIX: &str = "/meshd/v1/services";

    /// A real etcd, and the way to it that can be broken.
    struct Etcd {
        server: Server,
        setup: Setup,
        admin: SocketAddr,
        wire: Wire,
        layout: EtcdLayout,
        /// The keys of each service.
        known: BTreeMap<String, Vec<String>>,
        /// In front of the addresses of the members: nobody is there.
        dead: Option<String>,
    }

    impl Etcd {
        fn start(root: &Path, setup: Setup) -> Self {
            let started = server::etcd::start(root, Ipv4Addr::LOCALHOST.into(), setup);
            let etcd = Self {
                server: started.server,
                setup,
                admin: started.admin,
                wire: Wire::new(started.to).unwrap(),
                layout: EtcdLayout::Meshd,
                known: BTreeMap::new(),
                dead: None,
            };
            if setup == Setup::Token {
                etcd.with_users();
            }
            etcd
        }

        /// Users: root, and a reader that may read the prefix.
        fn with_users(&self) {
            let user = |name: &str, password: &str| json!({"name": name, "password": password});
            self.say("/v3/auth/user/add", &user("root", ROOT));
            self.say(
                "/v3/auth/user/grant",
                &json!({"user": "root", "role": "root"}),
            );
            self.say("/v3/auth/role/add", &json!({"name": "reader"}));
            let range = json!({"permType": "READ", "key": coded(&format!("{PREFIX}/")), "range_end": coded(&format!("{PREFIX}0"))});
            self.say(
                "/v3/auth/role/grant",
                &json!({"name": "reader", "perm": range}),
            );
            self.say("/v3/auth/user/add", &user("meshd", "first"));
            self.say(
                "/v3/auth/user/grant",
                &json!({"user": "meshd", "role": "reader"}),
            );
            fs::write(self.password_file(), "first\n").unwrap();
            self.say("/v3/auth/enable", &json!({}));
        }

        fn password_file(&self) -> PathBuf {
            self.server.folder().join("password")
        }

        fn password(&self, new: &str) {
            self.say(
                "/v3/auth/user/changepw",
                &json!({"name": "meshd", "password": new}),
            );
        }

        fn say(&self, path: &str, body: &Value) -> Value {
            let mut token = None;
            let enabled = self.setup == Setup::Token && self.password_file().exists();
            if enabled {
                let who = json!({"name": "root", "password": ROOT}).to_string();
                if let Ok((200, answer)) =
                    http(self.admin, "POST", "/v3/auth/authenticate", &[], &who)
                {
                    let answer: Value = serde_json::from_str(&answer).unwrap();
                    token = Some(answer["token"].as_str().unwrap().to_owned());
                }
            }
            let fields: Vec<(&str, &str)> = token
                .iter()
                .map(|token| ("Authorization", token.as_str()))
                .collect();
            serde_json::from_str(&told(self.admin, "POST", path, &fields, &body.to_string()))
                .unwrap()
        }

        /// All of it at one revision.
        fn at_once(&self, puts: &[(String, String)], deletes: &[String]) {
            let puts = puts.iter().map(
                |(key, value)| json!({"requestPut": {"key": coded(key), "value": coded(value)}}),
            );
            let deletes = deletes
                .iter()
                .map(|key| json!({"requestDeleteRange": {"key": coded(key)}}));
            let all: Vec<Value> = puts.chain(deletes).collect();
            self.say("/v3/kv/txn", &json!({"success": all}));
        }

        fn compact(&self) {
            let answer = self.say("/v3/kv/range", &json!({"key": coded("x")}));
            let revision = answer["header"]["revision"].as_str().unwrap().to_owned();
            self.say(
                "/v3/kv/compaction",
                &json!({"revision": revision, "physical": true}),
            );
        }

        fn endpoint(service: &str, one: Registered, weight: u32) -> (String, String) {
            let address = format!("10.0.0.1:{}", one.port);
            let health = if one.healthy { "unknown" } else { "unhealthy" };
            let value = json!({"address": address, "health": health, "weight": weight});
            (key(service, one.port), value.to_string())
        }
    }

    fn key(service: &str, port: u16) -> String {
        format!("{PREFIX}/default/{service}/h1-{port}")
    }

    fn coded(text: &str) -> String {
        BASE64.encode(text.as_bytes())
    }

    impl World for Etcd {
        fn put(&mut self, service: &str, endpoints: &[Registered]) {
            let puts: Vec<_> = endpoints
                .iter()
                .map(|one| Self::endpoint(service, *one, 1))
                .collect();
            let keys: Vec<String> = puts.iter().map(|(key, _)| key.clone()).collect();
            let mut old = self
                .known
                .insert(service.to_owned(), keys.clone())
                .unwrap_or_default();
            old.retain(|key| !keys.contains(key));
            self.at_once(&puts, &old);
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
                _ => access.addresses = vec![format!("http://{at}")],
            }
            if let Some(dead) = &self.dead {
                access.addresses.insert(0, dead.clone());
            }
            // Without users a server says so, and is asked without one.
            fs::write(self.server.folder().join("nobody"), "x").unwrap();
            let file = if self.setup == Setup::Token {
                self.password_file()
            } else {
                self.server.folder().join("nobody")
            };
            access.username = Some("meshd".into());
            access.password_file = Some(file);
            let config = SourceConfig {
                id: ID.to_owned(),
                publish: true,
                services: None,
                kind: SourceKind::Etcd {
                    access,
                    layout: self.layout,
                    prefix: self.layout.prefix().to_owned(),
                },
            };
            Arc::new(move || open(&config))
        }
        fn is_real(&self) -> bool {
            true
        }
        fn change(&mut self, service: &str, port: u16) -> Hook {
            let heavy = Self::endpoint(service, up(port), 7);
            self.at_once(&[heavy], &[]);
            Ok(())
        }
        fn put_addresses(&mut self, service: &str) -> Hook<Vec<String>> {
            let all = ["[fd00::1]:80", "db.test:5432"];
            let puts: Vec<(String, String)> = all
                .iter()
                .zip(1..)
                .map(|(address, at)| (key(service, at), json!({"address": address}).to_string()))
                .collect();
            self.known.insert(
                service.to_owned(),
                puts.iter().map(|(key, _)| key.clone()).collect(),
            );
            self.at_once(&puts, &[]);
            Ok(all.map(str::to_owned).to_vec())
        }
        fn fill(&mut self, endpoints: usize) -> Hook {
            let all: Vec<(usize, u16)> = (0..endpoints)
                .map(|at| (at / 10, u16::try_from(at % 10).unwrap() + 1))
                .collect();
            for group in all.chunks(100) {
                let puts: Vec<_> = group
                    .iter()
                    .map(|(service, port)| Self::endpoint(&format!("s{service}"), up(*port), 1))
                    .collect();
                self.at_once(&puts, &[]);
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
            self.password("another");
            Ok(())
        }
        fn rotate_token(&mut self) -> Hook {
            self.password("second");
            fs::write(self.password_file(), "second").unwrap();
            Ok(())
        }
        fn rotate_certificate(&mut self) -> Hook {
            self.server.kill();
            authority::write(self.server.folder()).unwrap();
            self.server.start_again(true);
            Ok(())
        }
    }

    /// What the build takes for protoc's work is what protoc makes of the client that is built.
    #[test]
    fn the_kept_protocol_is_that_of_the_client() {
        let real = Command::new("protoc").arg("--version").output();
        if !real.is_ok_and(|output| output.status.success()) {
            eprintln!("SKIPPED etcd-protocol: protoc is not there: scripts/setup.sh test");
            return;
        }
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("proto/protoc.sh");
        let output = Command::new(script).arg("check").output().unwrap();
        assert!(
            output.status.success(),
            "run registry/proto/protoc.sh renew: {output:?}"
        );
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn the_server_passes_every_case() {
        let Some(root) = needed("etcd", "etcd") else {
            return;
        };
        matrix("etcd", |setup| Ok(Etcd::start(&root, setup))).await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn the_server_obeys() {
        let Some(root) = needed("etcd", "etcd-laws") else {
            return;
        };
        laws(|| Etcd::start(&root, Setup::Plain)).await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_compaction_in_the_gap_loses_nothing() {
        let Some(root) = needed("etcd", "etcd-compaction") else {
            return;
        };
        let mut etcd = Etcd::start(&root, Setup::Plain);
        etcd.put("web", &[up(1), up(2)]);
        etcd.put("api", &[up(9)]);
        let run = Watched::new(&etcd);
        run.has("web", &[1, 2]).await;
        run.is("synced").await;
        etcd.break_off();
        run.is("degraded").await;
        // What the watch would go on from is compacted, and so is the removal in between.
        for round in 3..30 {
            etcd.put("web", &[up(1), up(2), up(round)]);
        }
        etcd.put("web", &[up(2), up(4)]);
        etcd.compact();
        etcd.repair();
        run.has("web", &[2, 4]).await;
        run.has("api", &[9]).await;
        run.is("synced").await;
        etcd.put("web", &[up(2), up(4), up(5)]);
        run.has("web", &[2, 4, 5]).await;
        run.end().await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_value_that_is_nonsense_keeps_the_last_good_one() {
        let Some(root) = needed("etcd", "etcd-values") else {
            return;
        };
        let mut etcd = Etcd::start(&root, Setup::Plain);
        // The first address is nobody's: the next one is used.
        let [dead] = free_ports();
        etcd.dead = Some(format!("http://127.0.0.1:{dead}"));
        etcd.put("web", &[up(1), up(2)]);
        let run = Watched::new(&etcd);
        run.has("web", &[1, 2]).await;
        run.is("synced").await;
        let nonsense = (key("web", 2), "{\"address\":".to_owned());
        etcd.at_once(&[nonsense], &[]);
        run.is("degraded").await;
        run.stays("web", &[1, 2]).await;
        etcd.put("web", &[up(1), up(2), up(3)]);
        run.has("web", &[1, 2, 3]).await;
        run.is("synced").await;
        run.end().await;
    }

    fn registrar(etcd: &Etcd, layout: EtcdLayout) -> Arc<dyn Registrar> {
        let access = Access {
            addresses: vec![format!("http://{}", etcd.wire.address())],
            ..Access::default()
        };
        let kind = SourceKind::Etcd {
            access,
            layout,
            prefix: layout.prefix().to_owned(),
        };
        let source = SourceConfig {
            id: ID.to_owned(),
            publish: true,
            kind,
            services: None,
        };
        let config = RegistrationConfig {
            source,
            services: None,
            ttl: Duration::from_secs(5),
            address: None,
            tags: Vec::new(),
        };
        mesh_registry::open::registrar(&config).unwrap()
    }

    fn registration() -> Registration {
        let service = ServiceId::new(Namespace::default(), ServiceName::new("web").unwrap());
        Registration {
            id: Registration::id_of("h1", &service, 80),
            service,
            address: SocketAddr::from(([10, 0, 0, 1], 80)),
            protocol: AppProtocol::Http,
            weight: 3,
            locality: Locality::default(),
            labels: BTreeMap::from([("version".to_owned(), "2".to_owned())]),
        }
    }

    /// What stands under the key of an instance.
    fn stands(etcd: &Etcd, key: &str) -> Option<String> {
        let answer = etcd.say("/v3/kv/range", &json!({"key": coded(key)}));
        let value = answer["kvs"][0]["value"].as_str()?;
        Some(String::from_utf8(BASE64.decode(value.as_bytes()).unwrap()).unwrap())
    }

    const KEY: &str = "/meshd/v1/services/default/web/h1-web-80";

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_registration_is_kept_drained_and_taken_out() {
        let Some(root) = needed("etcd", "etcd-registrar") else {
            return;
        };
        let mut etcd = Etcd::start(&root, Setup::Plain);
        let run = Watched::new(&etcd);
        let registrar = registrar(&etcd, EtcdLayout::Meshd);
        assert_eq!(
            registrar.life(),
            Duration::from_secs(10),
            "less is no life for a lease"
        );
        let of = Arc::new(registration());
        let lease = registrar.register(&of, Health::Healthy).await.unwrap();
        run.has("web", &[80]).await;
        assert!(stands(&etcd, KEY).unwrap().contains("\"healthy\""));
        let renewed = registrar.renew(&lease, Health::Unhealthy).await.unwrap();
        assert_eq!(renewed, Renewal::Kept);
        assert!(stands(&etcd, KEY).unwrap().contains("\"unhealthy\""));
        registrar.drain(&lease).await.unwrap();
        assert!(stands(&etcd, KEY).unwrap().contains("\"draining\""));
        // Another address in the same place, without a moment in between.
        let moved = Arc::new(Registration {
            address: SocketAddr::from(([10, 0, 0, 1], 81)),
            ..registration()
        });
        let lease = registrar
            .replace(lease, &moved, Health::Healthy)
            .await
            .unwrap();
        run.has("web", &[81]).await;
        // Its key is taken away, or is somebody else's.
        etcd.at_once(&[], &[KEY.to_owned()]);
        assert_eq!(
            registrar.renew(&lease, Health::Healthy).await.unwrap(),
            Renewal::Lost
        );
        let lease = registrar.register(&moved, Health::Healthy).await.unwrap();
        // The registry loses its memory.
        etcd.server.kill();
        assert!(registrar.renew(&lease, Health::Healthy).await.is_err());
        etcd.server.start_again(false);
        assert_eq!(
            registrar.renew(&lease, Health::Healthy).await.unwrap(),
            Renewal::Lost
        );
        let lease = registrar.register(&moved, Health::Healthy).await.unwrap();
        assert!(stands(&etcd, KEY).is_some());
        registrar.deregister(lease.clone()).await.unwrap();
        assert_eq!(stands(&etcd, KEY), None);
        registrar.deregister(lease).await.unwrap();
        run.end().await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn what_nobody_renews_expires_in_every_layout() {
        let Some(root) = needed("etcd", "etcd-expiry") else {
            return;
        };
        let etcd = Etcd::start(&root, Setup::Plain);
        let mut keys = Vec::new();
        for (_, layout) in EtcdLayout::ALL {
            let registrar = registrar(&etcd, layout);
            let lease = registrar
                .register(&Arc::new(registration()), Health::Unknown)
                .await
                .unwrap();
            let prefix = match layout {
                EtcdLayout::Meshd => "/meshd/v1/services/default/",
                EtcdLayout::Grpc => "/",
                other => &format!("{}/", other.prefix()),
            };
            let key = format!("{prefix}web/h1-web-80");
            let key = if layout == EtcdLayout::Grpc {
                key.trim_start_matches('/').to_owned()
            } else {
                key
            };
            assert!(stands(&etcd, &key).is_some(), "{key}");
            if layout != EtcdLayout::Meshd {
                // There is no word for it: the key goes and comes back.
                assert_eq!(
                    registrar.renew(&lease, Health::Unhealthy).await.unwrap(),
                    Renewal::Kept
                );
                assert_eq!(stands(&etcd, &key), None, "{key}");
                assert_eq!(
                    registrar.renew(&lease, Health::Healthy).await.unwrap(),
                    Renewal::Kept
                );
                assert!(stands(&etcd, &key).is_some(), "{key}");
            }
            keys.push(key);
        }
        let end = Instant::now() + Duration::from_secs(30);
        while keys.iter().any(|key| stands(&etcd, key).is_some()) {
            assert!(Instant::now() < end, "a lease that nobody renews ends");
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    /// The times from a write to its publication, for people: they decide nothing.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_write_is_published_soon() {
        let Some(root) = needed("etcd", "etcd-latency") else {
            return;
        };
        let mut etcd = Etcd::start(&root, Setup::Plain);
        etcd.put("web", &[up(1)]);
        let run = Watched::new(&etcd);
        run.has("web", &[1]).await;
        let mut times = Vec::new();
        for at in 0..100 {
            let service = format!("s{at}");
            let began = Instant::now();
            etcd.put(&service, &[up(1)]);
            run.has(&service, &[1]).await;
            times.push(began.elapsed());
            tokio::time::sleep(Duration::from_millis(fastrand::u64(20..60))).await;
        }
        times.sort_unstable();
        println!(
            "etcd: write to published p50 {:?} p99 {:?}",
            times[50], times[98]
        );
        run.end().await;
    }
}
