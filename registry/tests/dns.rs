//! The source of DNS names against a real dnsmasq: every case of the contract.

#[cfg(test)]
mod tests {
    use std::{
        collections::BTreeMap,
        fmt::Write,
        fs,
        net::{SocketAddr, UdpSocket},
        path::Path,
        process::Command,
        sync::Arc,
        time::Duration,
    };

    use mesh_model::{
        config::{DnsRecord, SourceConfig, SourceKind},
        name::ServiceName,
    };
    use mesh_registry::{
        contract::{
            Hook, ID, Na, Registered, Setup, World, laws, matrix,
            server::{Plan, Server, free_ports, needed},
            wire::{Fault, Wire},
        },
        open::open,
        source::Source,
    };

    /// A server whose records are its settings: a change is a restart, which takes less than a life of them.
    struct Dnsmasq {
        server: Server,
        wire: Wire,
        /// Lines of the settings by service.
        records: BTreeMap<String, String>,
        services: Vec<String>,
    }

    fn srv(service: &str, host: &str, port: u16, weight: u16) -> String {
        format!("srv-host=_{service}._tcp.mesh.test,{host}.mesh.test,{port},0,{weight}\n")
    }

    /// True when it answers anything by UDP.
    fn answers(port: u16) -> bool {
        let mut question = vec![0, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        for label in ["ten", "mesh", "test"] {
            question.push(u8::try_from(label.len()).unwrap());
            question.extend(label.as_bytes());
        }
        question.extend([0, 0, 1, 0, 1]);
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let wait = Some(Duration::from_millis(100));
        socket.set_read_timeout(wait).unwrap();
        let sent = socket.send_to(&question, ("127.0.0.1", port));
        sent.is_ok() && socket.recv(&mut [0; 512]).is_ok()
    }

    impl Dnsmasq {
        fn start(root: &Path) -> Self {
            let folder = tempfile::tempdir().unwrap();
            let [port] = free_ports();
            let program = root.join("usr/sbin/dnsmasq");
            let config = folder.path().join("dnsmasq.conf");
            let head = format!(
                "port={port}\nlisten-address=127.0.0.1\nbind-interfaces\nno-resolv\nno-hosts\nlocal=/mesh.test/\nlocal-ttl=1\ncache-size=0\n\
                 host-record=ten.mesh.test,10.0.0.1,1\nhost-record=six.mesh.test,fd00::1,1\nhost-record=db.mesh.test,10.0.0.53,1\n"
            );
            fs::write(folder.path().join("head"), &head).unwrap();
            fs::write(&config, head).unwrap();
            let plan = Plan {
                name: "dnsmasq".into(),
                root: root.to_owned(),
                command: Box::new(move |state| {
                    let mut command = Command::new(&program);
                    command.arg("--keep-in-foreground");
                    command.arg(format!("--conf-file={}", config.display()));
                    command.arg(format!("--pid-file={}", state.join("pid").display()));
                    command.args(["--user=", "--group="]);
                    command
                }),
                ready: Box::new(move || answers(port)),
                within: Duration::from_secs(10),
            };
            Self {
                server: Server::start(plan, folder),
                wire: Wire::new(SocketAddr::from(([127, 0, 0, 1], port))).unwrap(),
                records: BTreeMap::new(),
                services: vec!["web".into(), "api".into()],
            }
        }

        fn write(&self) {
            let folder = self.server.folder();
            let mut text = fs::read_to_string(folder.join("head")).unwrap();
            text.extend(self.records.values().map(String::as_str));
            fs::write(folder.join("dnsmasq.conf"), text).unwrap();
        }

        fn set(&mut self, service: &str, lines: String) {
            self.records.insert(service.to_owned(), lines);
            self.write();
            self.server.start_again(true);
        }
    }

    impl World for Dnsmasq {
        fn put(&mut self, service: &str, endpoints: &[Registered]) {
            let lines = endpoints.iter().map(|one| srv(service, "ten", one.port, 1));
            self.set(service, lines.collect());
        }
        fn remove(&mut self, service: &str) {
            self.set(service, String::new());
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
            let record = |service: &String| DnsRecord {
                service: ServiceName::new(service).unwrap(),
                name: format!("_{service}._tcp.mesh.test"),
                port: None,
            };
            let config = SourceConfig {
                id: ID.to_owned(),
                publish: true,
                services: None,
                kind: SourceKind::Dns {
                    servers: vec![self.wire.address()],
                    records: self.services.iter().map(record).collect(),
                    udp: false,
                },
            };
            Arc::new(move || open(&config))
        }
        fn tells_health(&self) -> bool {
            false
        }
        fn is_real(&self) -> bool {
            true
        }
        fn change(&mut self, service: &str, port: u16) -> Hook {
            let lines = srv(service, "ten", 1, 1) + &srv(service, "ten", port, 7);
            self.set(service, lines);
            Ok(())
        }
        fn put_addresses(&mut self, service: &str) -> Hook<Vec<String>> {
            let lines = srv(service, "six", 80, 1) + &srv(service, "db", 5432, 1);
            self.set(service, lines);
            Ok(vec!["[fd00::1]:80".into(), "10.0.0.53:5432".into()])
        }
        fn fill(&mut self, endpoints: usize) -> Hook {
            self.services = (0..endpoints / 500).map(|at| format!("s{at}")).collect();
            let mut lines = String::new();
            for service in &self.services {
                for port in 1..=500 {
                    lines.write_str(&srv(service, "ten", port, 1)).unwrap();
                }
            }
            self.set("all", lines);
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
                self.records.clear();
                self.write();
            }
            self.server.start_again(true);
            Ok(())
        }
        fn freeze(&mut self) -> Hook {
            self.server.freeze();
            Ok(())
        }
        fn thaw(&mut self) {
            self.server.thaw();
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn dnsmasq_passes_every_case() {
        let Some(root) = needed("dnsmasq", "dns") else {
            return;
        };
        matrix("dns", |setup| match setup {
            Setup::Plain | Setup::Large => Ok(Dnsmasq::start(&root)),
            Setup::Token => Err(Na::NoCredentials),
            Setup::Tls => Err(Na::NoTls),
        })
        .await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn dnsmasq_obeys() {
        let Some(root) = needed("dnsmasq", "dns-laws") else {
            return;
        };
        laws(|| Dnsmasq::start(&root)).await;
    }
}
