//! The source of DNS names against a real dnsmasq: every case of the contract.

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, fmt::Write, net::Ipv4Addr, path::Path, sync::Arc};

    use mesh_model::{
        config::{DnsRecord, SourceConfig, SourceKind},
        name::ServiceName,
    };
    use mesh_registry::{
        contract::{
            Hook, ID, Na, Registered, Setup, World, laws, matrix,
            server::{Server, dnsmasq, needed},
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

    /// Hosts of the services.
    const HOSTS: &str = "host-record=ten.mesh.test,10.0.0.1,1\nhost-record=six.mesh.test,fd00::1,1\nhost-record=db.mesh.test,10.0.0.53,1\n";

    impl Dnsmasq {
        fn start(root: &Path) -> Self {
            let started = dnsmasq::start(root, Ipv4Addr::LOCALHOST.into());
            Self {
                server: started.server,
                wire: Wire::new(started.to).unwrap(),
                records: BTreeMap::new(),
                services: vec!["web".into(), "api".into()],
            }
        }

        fn write(&self) {
            let records: String = self.records.values().map(String::as_str).collect();
            dnsmasq::write(&self.server, &(HOSTS.to_owned() + &records));
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
