//! The sources in `ZooKeeper` against real servers, new and old: every case of the contract, and the way out.

#[cfg(test)]
#[path = "zookeeper/ensemble.rs"]
mod ensemble;

#[cfg(test)]
mod tests {
    use std::{
        collections::BTreeMap,
        net::SocketAddr,
        sync::Arc,
        time::{Duration, Instant},
    };

    use mesh_model::{
        config::RegistrationConfig,
        endpoint::{Health, Locality},
        name::{Namespace, ServiceId, ServiceName},
        service::AppProtocol,
    };
    use mesh_registry::{
        contract::{
            Setup, Watched, World, laws, matrix,
            server::{needed, zookeeper::curator_jars},
            up,
        },
        registrar::{Registrar, Registration, Renewal},
    };

    use crate::ensemble::{Ensemble, Layout};

    async fn every_case(layout: Layout) {
        let Some(root) = needed("zookeeper", layout.word()) else {
            return;
        };
        matrix(layout.word(), |setup| {
            Ok(Ensemble::start(&root, layout, setup))
        })
        .await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn server_sets_pass_every_case() {
        every_case(Layout::Serverset).await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn leaders_pass_every_case() {
        every_case(Layout::Leader).await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn curator_passes_every_case() {
        every_case(Layout::Curator).await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn the_server_obeys() {
        let Some(root) = needed("zookeeper", "serverset-laws") else {
            return;
        };
        laws(|| Ensemble::start(&root, Layout::Serverset, Setup::Plain)).await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn an_old_server_obeys() {
        let Some(root) = needed("zookeeper", "serverset-old") else {
            return;
        };
        laws(|| Ensemble::start_old(&root, Layout::Serverset)).await;
    }

    /// The times from a write to its publication, for people: they decide nothing.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_write_is_published_soon() {
        let Some(root) = needed("zookeeper", "serverset-latency") else {
            return;
        };
        for layout in [Layout::Serverset, Layout::Curator] {
            let mut ensemble = Ensemble::start(&root, layout, Setup::Plain);
            ensemble.put("web", &[up(1)]);
            let run = Watched::new(&ensemble);
            run.has("web", &[1]).await;
            let mut times = Vec::new();
            for at in 0..100 {
                let service = format!("s{at}");
                let began = Instant::now();
                ensemble.put(&service, &[up(1)]);
                run.has(&service, &[1]).await;
                times.push(began.elapsed());
                tokio::time::sleep(Duration::from_millis(fastrand::u64(20..60))).await;
            }
            times.sort_unstable();
            let (half, most) = (times[50], times[98]);
            println!(
                "{}: write to published p50 {half:?} p99 {most:?}",
                layout.word()
            );
            run.end().await;
        }
    }

    fn registration(port: u16) -> Arc<Registration> {
        let name = ServiceName::new("web").unwrap();
        let service = ServiceId::new(Namespace::default(), name);
        Arc::new(Registration {
            id: Registration::id_of("host-1", &service, port),
            service,
            address: SocketAddr::from(([10, 0, 0, 1], port)),
            protocol: AppProtocol::Http,
            weight: 3,
            locality: Locality {
                zone: Some(Arc::from("a")),
                ..Locality::default()
            },
            labels: BTreeMap::from([("team".to_owned(), "shop".to_owned())]),
        })
    }

    fn registrar(ensemble: &Ensemble) -> Arc<dyn Registrar> {
        let config = RegistrationConfig {
            source: ensemble.config(),
            services: None,
            ttl: Duration::from_secs(5),
            address: None,
            tags: Vec::new(),
        };
        mesh_registry::open::registrar(&config).unwrap()
    }

    /// Waits until a directory of the server has so many nodes.
    async fn nodes(ensemble: &Ensemble, count: usize) -> Vec<String> {
        let directory = format!("{}/web", ensemble.layout.base());
        let end = Instant::now() + Duration::from_secs(20);
        loop {
            let there = ensemble
                .client()
                .children(&directory)
                .unwrap()
                .unwrap_or_default();
            if there.len() == count {
                return there;
            }
            assert!(Instant::now() < end, "{there:?} are not {count}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    async fn announced(layout: Layout) {
        let Some(root) = needed("zookeeper", "zookeeper-registrar") else {
            return;
        };
        let mut ensemble = Ensemble::start(&root, layout, Setup::Plain);
        let ours = registrar(&ensemble);
        let lease = ours
            .register(&registration(80), Health::Healthy)
            .await
            .unwrap();
        let run = Watched::new(&ensemble);
        run.has("web", &[80]).await;
        // Again, by a process after this one: one node, in a new session.
        let next = registrar(&ensemble);
        let again = next
            .register(&registration(80), Health::Healthy)
            .await
            .unwrap();
        nodes(&ensemble, 1).await;
        assert_eq!(
            ours.renew(&lease, Health::Healthy).await.unwrap(),
            Renewal::Lost
        );
        drop(ours);
        assert_eq!(
            next.renew(&again, Health::Unhealthy).await.unwrap(),
            Renewal::Kept
        );
        let directory = format!("{}/web", layout.base());
        let names = nodes(&ensemble, 1).await;
        let path = format!("{directory}/{}", names[0]);
        let told = ensemble.client().data(&path).unwrap();
        assert!(told.contains("DEAD") || told.contains("DOWN"), "{told}");
        assert!(
            told.contains("\"team\":\"shop\"") && told.contains("\"zone\":\"a\""),
            "{told}"
        );
        next.drain(&again).await.unwrap();
        let told = ensemble.client().data(&path).unwrap();
        assert!(
            told.contains("STOPPING") || told.contains("OUT_OF_SERVICE"),
            "{told}"
        );
        // The server loses its memory: the node is made again, whoever asks first.
        ensemble.kill().unwrap();
        ensemble.start_again(false).unwrap();
        let renewed = next.renew(&again, Health::Healthy).await;
        assert!(!matches!(renewed, Ok(Renewal::Lost)), "{renewed:?}");
        nodes(&ensemble, 1).await;
        next.deregister(again).await.unwrap();
        nodes(&ensemble, 0).await;
        // A crash: nobody takes it out, it goes with its session.
        let _lease = next
            .register(&registration(81), Health::Healthy)
            .await
            .unwrap();
        nodes(&ensemble, 1).await;
        drop(next);
        nodes(&ensemble, 0).await;
        run.end().await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn instances_are_announced_as_members() {
        announced(Layout::Serverset).await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn instances_are_announced_as_curator_does() {
        announced(Layout::Curator).await;
    }

    /// A program that uses the real Curator, told line by line.
    struct Curator {
        child: std::process::Child,
        lines: std::io::Lines<std::io::BufReader<std::process::ChildStdout>>,
    }

    impl Curator {
        fn start(root: &std::path::Path, ensemble: &Ensemble) -> Self {
            let program = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/zookeeper/Reg.java");
            let mut child = std::process::Command::new("setpriv")
                .args([
                    "--pdeathsig",
                    "KILL",
                    "--",
                    "java",
                    "-Xmx128m",
                    "-XX:TieredStopAtLevel=1",
                    "-cp",
                ])
                .arg(curator_jars(root))
                .args([program, &ensemble.admin.to_string(), ensemble.layout.base()])
                .stdin(std::process::Stdio::piped())
                .stdout(std::process::Stdio::piped())
                .spawn()
                .unwrap();
            let out = std::io::BufReader::new(child.stdout.take().unwrap());
            let mut curator = Self {
                child,
                lines: std::io::BufRead::lines(out),
            };
            assert_eq!(curator.line(), "ready");
            curator
        }
        fn line(&mut self) -> String {
            self.lines.next().unwrap().unwrap()
        }
        fn tell(&mut self, line: &str) -> String {
            use std::io::Write;
            writeln!(self.child.stdin.as_mut().unwrap(), "{line}").unwrap();
            self.line()
        }
    }

    impl Drop for Curator {
        fn drop(&mut self) {
            let _gone = self.child.kill();
            let _gone = self.child.wait();
        }
    }

    /// What the real Curator writes is read here, and what is announced here is read by it.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn the_real_curator_and_we_read_each_other() {
        let Some(root) = needed("zookeeper", "curator-library") else {
            return;
        };
        let ensemble = Ensemble::start(&root, Layout::Curator, Setup::Plain);
        let mut curator = Curator::start(&root, &ensemble);
        assert_eq!(curator.tell("add i-1 8080 10"), "done");
        let run = Watched::new(&ensemble);
        run.has("web", &[8080]).await;
        assert_eq!(curator.tell("add i-2 8081 1"), "done");
        run.has("web", &[8080, 8081]).await;
        assert_eq!(curator.tell("update i-2 8082 1"), "done");
        run.has("web", &[8080, 8082]).await;
        assert_eq!(curator.tell("remove i-1 8080"), "done");
        run.has("web", &[8082]).await;
        let ours = registrar(&ensemble);
        let lease = ours
            .register(&registration(80), Health::Healthy)
            .await
            .unwrap();
        run.has("web", &[80, 8082]).await;
        let told = curator.tell("list web");
        assert!(told.contains(" host-1-web-80=10.0.0.1:80/a/true"), "{told}");
        ours.drain(&lease).await.unwrap();
        let told = curator.tell("list web");
        assert!(
            told.contains(" host-1-web-80=10.0.0.1:80/a/false"),
            "{told}"
        );
        ours.deregister(lease).await.unwrap();
        run.has("web", &[8082]).await;
        // Killed: its instances go with its session.
        drop(curator);
        run.has("web", &[]).await;
        run.end().await;
    }

    /// A session that ends while the process lives: the nodes are made again by themselves.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn an_ended_session_is_made_good() {
        let Some(root) = needed("zookeeper", "zookeeper-expired") else {
            return;
        };
        let mut ensemble = Ensemble::start(&root, Layout::Serverset, Setup::Plain);
        let ours = registrar(&ensemble);
        let lease = ours
            .register(&registration(80), Health::Healthy)
            .await
            .unwrap();
        let before = nodes(&ensemble, 1).await;
        ensemble.break_off();
        nodes(&ensemble, 0).await;
        ensemble.repair();
        let after = nodes(&ensemble, 1).await;
        assert_ne!(before, after, "another node of another session");
        assert_eq!(
            ours.renew(&lease, Health::Healthy).await.unwrap(),
            Renewal::Kept
        );
        nodes(&ensemble, 1).await;
    }
}
