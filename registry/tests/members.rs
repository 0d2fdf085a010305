//! Registries of three members: whichever of them dies, what is read from it and announced to it goes on at another
//! one. And an etcd that asks its clients for certificates.

#[cfg(test)]
mod tests {
    use std::{
        collections::BTreeMap,
        fmt::Write as _,
        fs,
        io::{Read, Write},
        net::{SocketAddr, TcpStream},
        path::Path,
        process::Command,
        sync::{
            Arc,
            atomic::{AtomicBool, Ordering},
        },
        time::{Duration, Instant},
    };

    use mesh_model::{
        config::{Access, EtcdLayout, RegistrationConfig, SourceConfig, SourceKind, SourceTls},
        endpoint::{Health, Locality},
        fact::WireHealth,
        name::{Namespace, ServiceId, ServiceName},
        service::AppProtocol,
    };
    use mesh_registry::{
        Published,
        contract::server::{Plan, Server, authority, free_ports, http, needed},
        registrar::{Registrar, Registration},
        start,
    };
    use tokio::sync::watch;
    use tokio_util::sync::CancellationToken;

    /// A new member leads after a second or two; the machine may be busy.
    const PATIENCE: Duration = Duration::from_mins(1);
    /// Longer than a member is away: what is announced must not go meanwhile.
    const LIFE: Duration = Duration::from_mins(1);

    /// Members of one registry.
    struct Members {
        servers: Vec<Server>,
        at: [SocketAddr; 3],
    }

    impl Members {
        /// Starts them side by side: none of them answers before most of them run.
        fn start(
            root: &Path,
            at: [SocketAddr; 3],
            answers: fn(SocketAddr) -> bool,
            command: impl Fn(usize, &Path) -> Command + Clone + Send + 'static,
        ) -> Self {
            let formed = Arc::new(AtomicBool::new(false));
            let one = |(number, at): (usize, SocketAddr)| {
                let (command, formed) = (command.clone(), Arc::clone(&formed));
                let plan = Plan {
                    name: format!("member {number}"),
                    root: root.to_owned(),
                    command: Box::new(move |state| command(number, state)),
                    ready: Box::new(move || !formed.load(Ordering::Relaxed) || answers(at)),
                    within: PATIENCE,
                };
                Server::start(plan, tempfile::tempdir().unwrap())
            };
            let servers: Vec<Server> = at.into_iter().enumerate().map(one).collect();
            formed.store(true, Ordering::Relaxed);
            let end = Instant::now() + PATIENCE;
            while !at.into_iter().all(answers) {
                let logs: Vec<String> = servers.iter().map(Server::log).collect();
                assert!(Instant::now() < end, "they are no ensemble: {logs:#?}");
                std::thread::sleep(Duration::from_millis(50));
            }
            Self { servers, at }
        }
    }

    fn local(port: u16) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], port))
    }

    fn zookeeper(root: &Path) -> Members {
        let [a, b, c, peers @ ..] = free_ports::<9>();
        let ports = [a, b, c];
        let jars = format!("{0}/usr/share/java/*", root.display());
        Members::start(
            root,
            ports.map(local),
            |at| word(at, "srvr").is_some_and(|said| said.contains("Mode:")),
            move |number, state| {
                let mut settings = format!(
                    "tickTime=500\ninitLimit=40\nsyncLimit=20\ndataDir={}\nclientPort={}\nclientPortAddress=127.0.0.1\n\
                     maxClientCnxns=0\nminSessionTimeout=1000\nmaxSessionTimeout=120000\nadmin.enableServer=false\n\
                     4lw.commands.whitelist=*\n",
                    state.display(),
                    ports[number]
                );
                for (at, pair) in peers.chunks(2).enumerate() {
                    writeln!(settings, "server.{at}=127.0.0.1:{}:{}", pair[0], pair[1]).unwrap();
                }
                fs::write(state.join("zoo.cfg"), settings).unwrap();
                fs::write(state.join("myid"), number.to_string()).unwrap();
                let mut command = Command::new("java");
                command.args([
                    "-Xmx96m",
                    "-XX:+UseSerialGC",
                    "-XX:TieredStopAtLevel=1",
                    "-Dzookeeper.forceSync=no",
                    "-Djava.net.preferIPv4Stack=true",
                    "-cp",
                    &jars,
                    "org.apache.zookeeper.server.quorum.QuorumPeerMain",
                ]);
                command.arg(state.join("zoo.cfg"));
                command
            },
        )
    }

    /// The answer to one of `ZooKeeper`'s words of four letters.
    fn word(at: SocketAddr, word: &str) -> Option<String> {
        let mut stream = TcpStream::connect_timeout(&at, Duration::from_secs(1)).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(1))).ok()?;
        stream.write_all(word.as_bytes()).ok()?;
        let mut said = String::new();
        stream.read_to_string(&mut said).ok()?;
        Some(said)
    }

    fn is_healthy(at: SocketAddr) -> bool {
        http(at, "GET", "/health", &[], "")
            .is_ok_and(|(status, body)| status == 200 && body.contains("true"))
    }

    fn etcd(root: &Path) -> Members {
        let [a, b, c, peers @ ..] = free_ports::<6>();
        let ports = [a, b, c];
        let program = root.join("usr/bin/etcd");
        Members::start(root, ports.map(local), is_healthy, move |number, state| {
            let near = format!("http://{}", local(ports[number]));
            let between = |at: usize| format!("http://{}", local(peers[at]));
            let all = (0..3).map(|at| format!("m{at}={}", between(at)));
            let all: Vec<String> = all.collect();
            let mut command = Command::new(&program);
            command.args(["--name", &format!("m{number}"), "--log-level", "warn"]);
            command.arg("--unsafe-no-fsync");
            command.arg("--data-dir").arg(state.join("etcd"));
            for (option, value) in [
                ("--listen-client-urls", near.clone()),
                ("--advertise-client-urls", near),
                ("--listen-peer-urls", between(number)),
                ("--initial-advertise-peer-urls", between(number)),
                ("--initial-cluster", all.join(",")),
            ] {
                command.arg(option).arg(value);
            }
            command
        })
    }

    fn config(kind: SourceKind) -> SourceConfig {
        SourceConfig {
            id: "members/x".into(),
            publish: true,
            services: None,
            kind,
        }
    }

    fn etcd_kind(access: Access) -> SourceKind {
        SourceKind::Etcd {
            access,
            layout: EtcdLayout::Meshd,
            prefix: EtcdLayout::Meshd.prefix().to_owned(),
        }
    }

    fn registrar(source: &SourceConfig) -> Arc<dyn Registrar> {
        let config = RegistrationConfig {
            source: source.clone(),
            services: None,
            ttl: LIFE,
            address: None,
            tags: Vec::new(),
        };
        mesh_registry::open::registrar(&config).unwrap()
    }

    /// Announces the instance with this port, and tries again while there is nobody to tell.
    async fn announce(registrar: &Arc<dyn Registrar>, port: u16) {
        let service = ServiceId::new(Namespace::default(), ServiceName::new("web").unwrap());
        let of = Arc::new(Registration {
            id: Registration::id_of("h1", &service, port),
            service,
            address: SocketAddr::from(([10, 0, 0, 1], port)),
            protocol: AppProtocol::Http,
            weight: 1,
            locality: Locality::default(),
            labels: BTreeMap::new(),
        });
        let end = Instant::now() + PATIENCE;
        while let Err(error) = registrar.register(&of, Health::Healthy).await {
            assert!(Instant::now() < end, "{error:?}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// The ports of `web` to which new requests go, in order.
    fn ports(now: &Published) -> Vec<u16> {
        let all = now.views.values().filter(|one| one.view.service == "web");
        let well = i32::from(WireHealth::Healthy);
        let mut ports: Vec<u16> = all
            .flat_map(|one| &one.view.endpoints)
            .filter(|one| one.health == well)
            .map(|one| one.address.rsplit_once(':').unwrap().1.parse().unwrap())
            .collect();
        ports.sort_unstable();
        ports
    }

    async fn until(
        views: &mut watch::Receiver<Arc<Published>>,
        what: &str,
        holds: impl Fn(&Published) -> bool,
    ) {
        let seen = tokio::time::timeout(PATIENCE, views.wait_for(|now| holds(now))).await;
        assert!(matches!(seen, Ok(Ok(_))), "it did not come to be: {what}");
    }

    fn is_synced(now: &Published) -> bool {
        now.sources
            .iter()
            .all(|row| row.status.as_str() == "synced")
    }

    /// Each member in turn is away for a while: one of them was the source's own.
    async fn every_member_may_die(mut members: Members, kind: SourceKind) {
        let config = config(kind);
        let registrar = registrar(&config);
        announce(&registrar, 80).await;
        let stop = CancellationToken::new();
        let registry = start(std::slice::from_ref(&config), stop.clone());
        let mut views = registry.views();
        until(&mut views, "it is read", |now| ports(now) == [80]).await;
        // From here on nothing may go, not even for a moment.
        let mut all = registry.views();
        let watching = tokio_util::task::TaskTracker::new().spawn(async move {
            let mut last = vec![80];
            while all.changed().await.is_ok() {
                let now = ports(&all.borrow_and_update());
                assert!(
                    last.iter().all(|port| now.contains(port)),
                    "{last:?} {now:?}"
                );
                last = now;
            }
        });
        let mut wanted = vec![80];
        for (number, port) in (0..3).zip(81..) {
            members.servers[number].kill();
            announce(&registrar, port).await;
            wanted.push(port);
            until(&mut views, "it goes on elsewhere", |now| {
                ports(now) == wanted && is_synced(now)
            })
            .await;
            members.servers[number].start_again(true);
        }
        stop.cancel();
        registry.ended().await;
        drop((registry, views));
        watching.await.unwrap();
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn every_member_of_an_ensemble_may_die() {
        let Some(root) = needed("zookeeper", "zookeeper-members") else {
            return;
        };
        let members = zookeeper(&root);
        let access = Access {
            addresses: members.at.map(|at| at.to_string()).to_vec(),
            ..Access::default()
        };
        let path = "/lab".into();
        every_member_may_die(members, SourceKind::Serverset { access, path }).await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn every_member_of_an_etcd_may_die() {
        let Some(root) = needed("etcd", "etcd-members") else {
            return;
        };
        let members = etcd(&root);
        let access = Access {
            addresses: members.at.map(|at| format!("http://{at}")).to_vec(),
            ..Access::default()
        };
        every_member_may_die(members, etcd_kind(access)).await;
    }

    /// Writes `NAME.pem`, the roots of clients, and a client's certificate and key, `NAME.crt` and `NAME.key`.
    fn client_certificate(folder: &Path, name: &str) {
        let mut roots = rcgen::CertificateParams::new(Vec::new()).unwrap();
        roots.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        roots
            .distinguished_name
            .push(rcgen::DnType::CommonName, format!("clients of {name}"));
        let key = rcgen::KeyPair::generate().unwrap();
        let roots = rcgen::CertifiedIssuer::self_signed(roots, key).unwrap();
        let mut client = rcgen::CertificateParams::new(Vec::new()).unwrap();
        client
            .distinguished_name
            .push(rcgen::DnType::CommonName, "meshd");
        client
            .extended_key_usages
            .push(rcgen::ExtendedKeyUsagePurpose::ClientAuth);
        let key = rcgen::KeyPair::generate().unwrap();
        let client = client.signed_by(&key, &roots).unwrap();
        for (ending, text) in [
            ("pem", roots.pem()),
            ("crt", client.pem()),
            ("key", key.serialize_pem()),
        ] {
            fs::write(folder.join(format!("{name}.{ending}")), text).unwrap();
        }
    }

    /// An etcd whose clients must have a certificate; its second address is where tests ask.
    fn guarded(root: &Path) -> (Server, SocketAddr) {
        let folder = tempfile::tempdir().unwrap();
        authority::write(folder.path()).unwrap();
        client_certificate(folder.path(), "ours");
        client_certificate(folder.path(), "foreign");
        let [web, tls, peer] = free_ports();
        let (program, home) = (root.join("usr/bin/etcd"), folder.path().to_owned());
        let plan = Plan {
            name: "etcd".into(),
            root: root.to_owned(),
            command: Box::new(move |state| {
                let (near, between) = (
                    format!("http://{}", local(web)),
                    format!("http://{}", local(peer)),
                );
                let mut command = Command::new(&program);
                command.args(["--name", "lab", "--log-level", "warn", "--unsafe-no-fsync"]);
                command.arg("--client-cert-auth");
                command.arg("--data-dir").arg(state.join("etcd"));
                for (option, file) in [
                    ("--cert-file", "server.pem"),
                    ("--key-file", "server.key"),
                    ("--trusted-ca-file", "ours.pem"),
                ] {
                    command.arg(option).arg(home.join(file));
                }
                let listen = format!("{near},https://{}", local(tls));
                for (option, value) in [
                    ("--listen-client-urls", &listen),
                    ("--advertise-client-urls", &near),
                    ("--listen-peer-urls", &between),
                    ("--initial-advertise-peer-urls", &between),
                    ("--initial-cluster", &format!("lab={between}")),
                ] {
                    command.arg(option).arg(value);
                }
                command
            }),
            ready: Box::new(move || is_healthy(local(web))),
            within: PATIENCE,
        };
        (Server::start(plan, folder), local(tls))
    }

    /// With its own certificate it reads and announces; with none, or another authority's, it does neither, and
    /// what was read stays.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn an_etcd_may_ask_for_certificates() {
        let Some(root) = needed("etcd", "etcd-certificates") else {
            return;
        };
        let (server, at) = guarded(&root);
        let file = |name: &str| server.folder().join(name);
        let with = |certificate: Option<&str>| {
            config(etcd_kind(Access {
                addresses: vec![format!("https://{at}")],
                tls: SourceTls {
                    ca: Some(file("ca.pem")),
                    certificate: certificate.map(|name| file(&format!("{name}.crt"))),
                    key: certificate.map(|name| file(&format!("{name}.key"))),
                    server_name: None,
                },
                ..Access::default()
            }))
        };
        let ours = with(Some("ours"));
        announce(&registrar(&ours), 80).await;
        let stop = CancellationToken::new();
        let registry = start(std::slice::from_ref(&ours), stop.clone());
        let mut views = registry.views();
        let read = |now: &Published| ports(now) == [80] && is_synced(now);
        until(&mut views, "it is read", read).await;
        for wrong in [with(None), with(Some("foreign"))] {
            registry.reload(std::slice::from_ref(&wrong));
            let refused = |now: &Published| {
                let words = ["degraded", "auth-failed"];
                ports(now) == [80] && words.contains(&now.sources[0].status.as_str())
            };
            until(&mut views, "it is refused", refused).await;
            registry.reload(std::slice::from_ref(&ours));
            until(&mut views, "it is read again", read).await;
        }
        stop.cancel();
        registry.ended().await;
    }
}
