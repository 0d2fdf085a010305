//! Eureka's source and registrar against the real server: every case of the contract.

#[cfg(test)]
mod tests {
    use std::{
        cell::RefCell,
        collections::BTreeMap,
        fs,
        net::{Ipv4Addr, SocketAddr},
        path::{Path, PathBuf},
        rc::Rc,
        sync::Arc,
        time::{Duration, Instant},
    };

    use data_encoding::BASE64;
    use mesh_model::{
        config::{Access, RegistrationConfig, SourceConfig, SourceKind},
        endpoint::{Health, Locality},
        name::ServiceId,
        service::AppProtocol,
    };
    use mesh_registry::{
        contract::{
            HOST, Hook, ID, Na, Registered, Setup, Watched, World, laws, matrix,
            server::{Server, Started, authority, eureka, http, needed, told},
            up,
            wire::{Fault, Wire},
        },
        open::open,
        registrar::{Registrar, Registration, Renewal},
        source::Source,
    };
    use serde_json::Value;

    /// A real server, and the way to it that can be broken.
    struct Far {
        server: Rc<RefCell<Server>>,
        setup: Setup,
        admin: SocketAddr,
        wire: Wire,
        known: BTreeMap<String, Vec<Registered>>,
    }

    fn launch(root: &Path, setup: Setup) -> Started {
        let started = eureka::start(root, Ipv4Addr::LOCALHOST.into(), setup);
        if setup == Setup::Token {
            fs::write(started.server.folder().join("password"), "first").unwrap();
        }
        started
    }

    /// Ports and statuses of an answer about one application, sorted.
    fn listed(body: &str, service: &str) -> Vec<(u64, bool)> {
        let page: Value = serde_json::from_str(body).unwrap();
        let all = page["applications"]["application"]
            .as_array()
            .unwrap()
            .iter();
        let mut found: Vec<(u64, bool)> = all
            .filter(|app| app["name"] == service.to_uppercase())
            .flat_map(|app| app["instance"].as_array().unwrap())
            .map(|one| (one["port"]["$"].as_u64().unwrap(), one["status"] == "UP"))
            .collect();
        found.sort_unstable();
        found
    }

    impl Far {
        fn start(root: &Path, setup: Setup) -> Self {
            let Started { server, admin, to } = launch(root, setup);
            Self::at(Rc::new(RefCell::new(server)), setup, admin, to)
        }

        fn at(
            server: Rc<RefCell<Server>>,
            setup: Setup,
            admin: SocketAddr,
            to: SocketAddr,
        ) -> Self {
            Self {
                server,
                setup,
                admin,
                wire: Wire::new(to).unwrap(),
                known: BTreeMap::new(),
            }
        }

        fn file(&self, name: &str) -> PathBuf {
            self.server.borrow().folder().join(name)
        }

        fn ask(&self, method: &str, path: &str, body: &str) -> (u16, String) {
            let mut fields = vec![
                ("Accept", "application/json"),
                ("Content-Type", "application/json"),
            ];
            let password = fs::read_to_string(self.file("server-password")).unwrap_or_default();
            let pair = BASE64.encode(format!("mesh:{password}").as_bytes());
            let authorization = format!("Basic {pair}");
            fields.push(("Authorization", &authorization));
            http(self.admin, method, &format!("/eureka{path}"), &fields, body).unwrap()
        }

        fn register(&self, service: &str, port: u16, healthy: bool, host: &str, zone: &str) {
            let body = eureka::instance(
                &format!("{service}:{port}"),
                service,
                (host, port),
                healthy,
                zone,
            )
            .to_string();
            let (status, text) =
                self.ask("POST", &format!("/apps/{}", service.to_uppercase()), &body);
            assert_eq!(status, 204, "{text}");
        }

        /// Waits until what clients read is this, in both forms.
        fn settled(&self, service: &str, wanted: &[(u64, bool)]) {
            let end = Instant::now() + Duration::from_secs(30);
            let mut nudge = Instant::now() + Duration::from_secs(1);
            let mut wanted = wanted.to_vec();
            wanted.sort_unstable();
            loop {
                let found = listed(&self.ask("GET", "/apps", "").1, service);
                if found == wanted {
                    break;
                }
                assert!(
                    Instant::now() < end,
                    "{service} is {found:?}, not {wanted:?}"
                );
                std::thread::sleep(Duration::from_millis(20));
                if Instant::now() > nudge {
                    // A server that filled its cache while it was written to keeps what is old for minutes,
                    // until the next write.
                    nudge = Instant::now() + Duration::from_secs(1);
                    self.register("nudge", 1, true, "10.0.0.1", "a");
                    self.ask("DELETE", "/apps/NUDGE/nudge:1", "");
                }
            }
            // Both caches are renewed by one timer: the other one follows at once.
            std::thread::sleep(Duration::from_millis(120));
        }

        fn config(&self, addresses: Vec<String>) -> SourceConfig {
            let mut access = Access {
                addresses,
                ..Access::default()
            };
            if self.setup == Setup::Tls {
                access.tls.ca = Some(self.file("ca.pem"));
            }
            if self.setup == Setup::Token {
                access.username = Some("mesh".into());
                access.password_file = Some(self.file("password"));
            }
            SourceConfig {
                id: ID.to_owned(),
                publish: true,
                services: None,
                kind: SourceKind::Eureka {
                    access,
                    zone: None,
                    poll: Duration::from_millis(300),
                    secure_port: false,
                },
            }
        }

        fn address(&self) -> String {
            let scheme = if self.setup == Setup::Tls {
                "https"
            } else {
                "http"
            };
            format!("{scheme}://{}/eureka", self.wire.address())
        }
    }

    impl World for Far {
        fn put(&mut self, service: &str, endpoints: &[Registered]) {
            let old = self.known.insert(service.to_owned(), endpoints.to_vec());
            let mut gone = old.unwrap_or_default();
            gone.retain(|one| !endpoints.iter().any(|new| new.port == one.port));
            let wanted: Vec<(u64, bool)> = endpoints
                .iter()
                .map(|one| (one.port.into(), one.healthy))
                .collect();
            // Nobody asks in between: one by one they would be no mass.
            self.wire.silently(|| {
                for one in gone {
                    let path = format!("/apps/{}/{service}:{}", service.to_uppercase(), one.port);
                    self.ask("DELETE", &path, "");
                }
                for one in endpoints {
                    self.register(service, one.port, one.healthy, "10.0.0.1", "a");
                }
                self.settled(service, &wanted);
            });
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
            let config = self.config(vec![self.address()]);
            Arc::new(move || open(&config))
        }
        fn is_real(&self) -> bool {
            true
        }
        fn patience(&self) -> Duration {
            Duration::from_secs(40)
        }
        fn change(&mut self, service: &str, port: u16) -> Hook {
            self.register(service, port, true, "10.0.0.1", "b");
            Ok(())
        }
        fn put_addresses(&mut self, service: &str) -> Hook<Vec<String>> {
            // A host name in the place of an address, as a server takes it.
            self.register(service, 80, true, "fd00::1", "a");
            self.register(service, 5432, true, HOST, "a");
            self.known
                .insert(service.to_owned(), vec![up(80), up(5432)]);
            self.settled(service, &[(80, true), (5432, true)]);
            Ok(vec!["[fd00::1]:80".into(), format!("{HOST}:5432")])
        }
        fn fill(&mut self, endpoints: usize) -> Hook {
            let admin = self.admin;
            let mut writers = Vec::new();
            for writer in 0..8 {
                writers.push(std::thread::spawn(move || {
                    for at in (writer..endpoints).step_by(8) {
                        let service = format!("s{}", at / 10);
                        let port = 1_024 + u16::try_from(at % 50_000).unwrap();
                        let body = eureka::instance(
                            &format!("{service}:{port}"),
                            &service,
                            ("10.0.0.1", port),
                            true,
                            "a",
                        )
                        .to_string();
                        let path = format!("/eureka/apps/{}", service.to_uppercase());
                        told(
                            admin,
                            "POST",
                            &path,
                            &[("Content-Type", "application/json")],
                            &body,
                        );
                    }
                }));
            }
            for writer in writers {
                writer.join().unwrap();
            }
            Ok(())
        }
        fn cut(&mut self) -> Hook {
            self.wire.fault(Fault::Cut);
            Ok(())
        }
        fn kill(&mut self) -> Hook {
            self.server.borrow_mut().kill();
            Ok(())
        }
        fn start_again(&mut self, keep: bool) -> Hook {
            if keep {
                return Err(Na::NoState);
            }
            self.known.clear();
            self.server.borrow_mut().start_again(false);
            Ok(())
        }
        fn freeze(&mut self) -> Hook {
            self.server.borrow().freeze();
            Ok(())
        }
        fn thaw(&mut self) {
            self.server.borrow().thaw();
        }
        fn revoke_token(&mut self) -> Hook {
            fs::write(self.file("server-password"), "second").unwrap();
            Ok(())
        }
        fn rotate_token(&mut self) -> Hook {
            fs::write(self.file("password"), "second").unwrap();
            Ok(())
        }
        fn rotate_certificate(&mut self) -> Hook {
            self.server.borrow_mut().kill();
            authority::write(self.server.borrow().folder()).unwrap();
            self.server.borrow_mut().start_again(false);
            // Clients of Eureka register again by themselves.
            for (service, all) in std::mem::take(&mut self.known) {
                self.put(&service, &all);
            }
            Ok(())
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn the_server_passes_every_case() {
        let Some(root) = needed("eureka", "eureka") else {
            return;
        };
        matrix("eureka", |setup| Ok(Far::start(&root, setup))).await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn the_server_obeys() {
        let Some(root) = needed("eureka", "eureka-laws") else {
            return;
        };
        let Started { server, admin, to } = launch(&root, Setup::Plain);
        let server = Rc::new(RefCell::new(server));
        // One server for all laws: each begins with nothing in it.
        let fresh = || {
            let mut far = Far::at(Rc::clone(&server), Setup::Plain, admin, to);
            for service in ["web", "api"] {
                let here = listed(&far.ask("GET", "/apps", "").1, service).into_iter();
                let here = here.map(|(port, _)| up(u16::try_from(port).unwrap()));
                far.known.insert(service.to_owned(), here.collect());
                far.remove(service);
            }
            far
        };
        laws(fresh).await;
    }

    fn registrar(far: &Far) -> Arc<dyn Registrar> {
        let config = RegistrationConfig {
            source: far.config(vec![far.address()]),
            services: None,
            ttl: Duration::from_secs(5),
            address: None,
            tags: Vec::new(),
        };
        mesh_registry::open::registrar(&config).unwrap()
    }

    fn status(far: &Far) -> Option<String> {
        let (status, body) = far.ask("GET", "/apps/WEB/h1-web-80", "");
        let page: Value = (status == 200).then(|| serde_json::from_str(&body).unwrap())?;
        Some(page["instance"]["status"].as_str().unwrap().to_owned())
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn an_instance_is_registered_drained_forgotten_and_expires() {
        let Some(root) = needed("eureka", "eureka-registrar") else {
            return;
        };
        let far = Far::start(&root, Setup::Plain);
        let run = Watched::new(&far);
        let registrar = registrar(&far);
        let service = ServiceId::parse("web").unwrap();
        let of = Arc::new(Registration {
            id: Registration::id_of("h1", &service, 80),
            service,
            address: SocketAddr::from(([10, 0, 0, 1], 80)),
            protocol: AppProtocol::Http,
            weight: 3,
            locality: Locality::default(),
            labels: BTreeMap::from([("version".to_owned(), "2".to_owned())]),
        });
        let lease = registrar.register(&of, Health::Healthy).await.unwrap();
        run.has("web", &[80]).await;
        run.routes("web", &[80]).await;
        assert_eq!(status(&far).as_deref(), Some("UP"));
        registrar.renew(&lease, Health::Unhealthy).await.unwrap();
        assert_eq!(status(&far).as_deref(), Some("DOWN"), "health is passed on");
        run.routes("web", &[]).await;
        registrar.renew(&lease, Health::Healthy).await.unwrap();
        run.routes("web", &[80]).await;
        registrar.drain(&lease).await.unwrap();
        assert_eq!(status(&far).as_deref(), Some("OUT_OF_SERVICE"));
        assert_eq!(
            registrar.renew(&lease, Health::Healthy).await.unwrap(),
            Renewal::Kept
        );
        assert_eq!(status(&far).as_deref(), Some("OUT_OF_SERVICE"), "still");
        run.routes("web", &[]).await;
        // A daemon that is started again is in service.
        let lease = registrar.register(&of, Health::Healthy).await.unwrap();
        assert_eq!(status(&far).as_deref(), Some("UP"));
        registrar.deregister(lease.clone()).await.unwrap();
        assert_eq!(status(&far), None);
        registrar.deregister(lease.clone()).await.unwrap();
        assert_eq!(
            registrar.register(&of, Health::Healthy).await.unwrap(),
            lease,
            "there again"
        );
        // The registry loses its memory.
        far.server.borrow_mut().kill();
        assert!(registrar.renew(&lease, Health::Healthy).await.is_err());
        far.server.borrow_mut().start_again(false);
        assert_eq!(
            registrar.renew(&lease, Health::Healthy).await.unwrap(),
            Renewal::Lost
        );
        let lease = registrar.register(&of, Health::Healthy).await.unwrap();
        let began = Instant::now();
        assert_eq!(
            registrar.renew(&lease, Health::Healthy).await.unwrap(),
            Renewal::Kept
        );
        // Nobody renews it: it goes within its life, and the round of the server that looks for such.
        while status(&far).is_some() {
            assert!(began.elapsed() < Duration::from_mins(1), "it expires");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        assert!(began.elapsed() > Duration::from_secs(2), "not at once");
        run.end().await;
    }
}
