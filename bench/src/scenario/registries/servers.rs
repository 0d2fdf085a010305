//! Real registries on loopback, and one way to write into each: the registrar that meshd has for it.

use std::{
    collections::BTreeMap,
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
    time::Duration,
};

use anyhow::Context;
use mesh_model::{
    config::{Access, EtcdLayout, RegistrationConfig, SourceConfig, SourceKind},
    endpoint::{Health, Locality},
    name::{Namespace, ServiceId, ServiceName},
    service::AppProtocol,
};
use mesh_registry::{
    contract::server::{Plan, Server, free_ports, http, installed},
    open,
    registrar::{Registrar, Registration},
};

/// A DNS server whose hosts change.
mod dns;
/// An API server with its etcd.
mod kubernetes;

/// A registry that can be started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    File,
    Consul,
    Etcd,
    Serverset,
    Curator,
    Kubernetes,
    Dns,
    Eureka,
}

/// All of them.
pub(super) const KINDS: [Kind; 8] = [
    Kind::File,
    Kind::Consul,
    Kind::Etcd,
    Kind::Serverset,
    Kind::Curator,
    Kind::Kubernetes,
    Kind::Dns,
    Kind::Eureka,
];

impl Kind {
    /// As the rows name it.
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::File => "file",
            Self::Consul => "consul",
            Self::Etcd => "etcd",
            Self::Serverset => "serverset",
            Self::Curator => "curator",
            Self::Kubernetes => "kubernetes",
            Self::Dns => "dns",
            Self::Eureka => "eureka",
        }
    }

    /// Of one that is asked now and then fewer will do.
    pub(super) fn writes(self) -> u16 {
        if self.is_asked() { 8 } else { 200 }
    }

    /// Services in turn, so that none of them grows to a size that few have. The first write of each, which
    /// makes the service, is not measured.
    pub(super) fn services(self) -> u16 {
        if self.is_asked() { 1 } else { 16 }
    }

    /// True when its source asks at intervals and is told of nothing.
    fn is_asked(self) -> bool {
        matches!(self, Self::Eureka | Self::Dns)
    }
}

/// A registry that runs.
pub(super) struct Standing {
    /// The source that reads it.
    pub(super) config: SourceConfig,
    /// Where it is asked directly.
    pub(super) admin: SocketAddr,
    writer: Writer,
    services: u16,
    _servers: Vec<Server>,
    _folder: Option<tempfile::TempDir>,
}

enum Writer {
    Directory(PathBuf),
    Registrar(Arc<dyn Registrar>),
    Kubernetes(kubernetes::Writer),
    Dns(dns::Writer),
}

impl Standing {
    /// Starts it; an error when it is not installed.
    pub(super) fn start(kind: Kind) -> anyhow::Result<Self> {
        let (program, settings) = match kind {
            Kind::File => return Self::directory(),
            Kind::Kubernetes => return kubernetes::start(),
            Kind::Dns => return dns::start(),
            Kind::Consul => ("consul", consul as fn(&Path) -> Started),
            Kind::Etcd => ("etcd", etcd as fn(&Path) -> Started),
            Kind::Serverset | Kind::Curator => ("zookeeper", zookeeper as fn(&Path) -> Started),
            Kind::Eureka => ("eureka", eureka as fn(&Path) -> Started),
        };
        let root = found(program)?;
        let (plan, admin) = settings(&root);
        let server = Server::start(plan, tempfile::tempdir()?);
        let web = |path: &str| Access {
            addresses: vec![format!("http://{admin}{path}")],
            ..Access::default()
        };
        let bare = || Access {
            addresses: vec![admin.to_string()],
            ..Access::default()
        };
        let source = match kind {
            Kind::File | Kind::Kubernetes | Kind::Dns | Kind::Consul => SourceKind::Consul {
                access: web(""),
                datacenter: None,
                namespace: None,
                partition: None,
                tags: Vec::new(),
                passing: false,
                max_watches: SourceKind::CONSUL_WATCHES,
            },
            Kind::Etcd => SourceKind::Etcd {
                access: web(""),
                layout: EtcdLayout::Meshd,
                prefix: EtcdLayout::Meshd.prefix().to_owned(),
            },
            Kind::Serverset => SourceKind::Serverset {
                access: bare(),
                path: "/discovery".into(),
            },
            Kind::Curator => SourceKind::Curator {
                access: bare(),
                path: "/services".into(),
            },
            Kind::Eureka => SourceKind::Eureka {
                access: web("/eureka"),
                zone: None,
                poll: Duration::from_secs(5),
                secure_port: false,
            },
        };
        let config = named(kind, source);
        let registrar = open::registrar(&RegistrationConfig {
            source: config.clone(),
            services: None,
            ttl: Duration::from_mins(2),
            address: None,
            tags: Vec::new(),
        })?;
        Ok(Self {
            config,
            admin,
            writer: Writer::Registrar(registrar),
            services: kind.services(),
            _servers: vec![server],
            _folder: None,
        })
    }

    fn directory() -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        let directory = folder.path().to_owned();
        Ok(Self {
            config: named(
                Kind::File,
                SourceKind::File {
                    directory: directory.clone(),
                },
            ),
            admin: SocketAddr::from(([127, 0, 0, 1], 0)),
            writer: Writer::Directory(directory),
            services: Kind::File.services(),
            _servers: Vec::new(),
            _folder: Some(folder),
        })
    }

    /// The address of the instance that is written at this turn.
    pub(super) fn address(&self, turn: u16) -> SocketAddr {
        match &self.writer {
            Writer::Dns(_) => dns::address(turn),
            _ => SocketAddr::from(([10, 0, 0, 1], 10_000 + turn)),
        }
    }

    /// Registers the instance of this turn.
    pub(super) async fn write(&self, turn: u16) -> anyhow::Result<()> {
        let address = self.address(turn);
        let name = format!("web-{}", turn % self.services);
        match &self.writer {
            Writer::Directory(directory) => {
                let text = format!(
                    "[[service]]\nname = \"web-{turn}\"\n[[service.endpoint]]\naddress = \"{address}\"\n"
                );
                let path = directory.join(format!("web-{turn}.toml"));
                let new = path.with_extension("new");
                fs::write(&new, text)?;
                fs::rename(new, path)?;
            }
            Writer::Registrar(registrar) => {
                let service = ServiceId::new(Namespace::default(), ServiceName::new(&name)?);
                let of = Registration {
                    id: Registration::id_of("bench", &service, address.port()),
                    service,
                    address,
                    protocol: AppProtocol::Http,
                    weight: 1,
                    locality: Locality::default(),
                    labels: BTreeMap::new(),
                };
                registrar.register(&Arc::new(of), Health::Healthy).await?;
            }
            Writer::Kubernetes(writer) => writer.write(&name, address).await?,
            Writer::Dns(writer) => writer.write(address)?,
        }
        Ok(())
    }
}

/// The folder of a server.
fn found(program: &str) -> anyhow::Result<PathBuf> {
    installed(program)
        .with_context(|| format!("{program} is not there: scripts/registries.sh {program}"))
}

fn named(kind: Kind, source: SourceKind) -> SourceConfig {
    SourceConfig {
        id: format!("{}/bench", kind.word()),
        publish: true,
        kind: source,
        services: None,
    }
}

/// What is started, and where it listens.
type Started = (Plan, SocketAddr);

fn local(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

fn consul(root: &Path) -> Started {
    let [web, dns, rpc, serf] = free_ports();
    let program = root.join("usr/bin/consul");
    let settings = format!(
        r#"{{"node_name":"lab","server":true,"bootstrap_expect":1,"bind_addr":"127.0.0.1","log_level":"warn",
            "disable_update_check":true,"raft_protocol":3,"performance":{{"raft_multiplier":1}},
            "ports":{{"http":{web},"dns":{dns},"grpc":-1,"server":{rpc},"serf_lan":{serf},"serf_wan":-1}}}}"#
    );
    let plan = Plan {
        name: "consul".into(),
        root: root.to_owned(),
        command: Box::new(move |state| {
            let file = state.join("consul.json");
            drop(fs::write(&file, &settings));
            let mut command = Command::new(&program);
            command.arg("agent").arg("-config-file").arg(file);
            command.arg("-data-dir").arg(state.join("data"));
            command
        }),
        ready: Box::new(move || {
            let known = http(local(web), "GET", "/v1/catalog/node/lab", &[], "");
            known.is_ok_and(|(status, body)| status == 200 && body.contains("\"consul\""))
        }),
        within: Duration::from_secs(30),
    };
    (plan, local(web))
}

fn etcd(root: &Path) -> Started {
    let [web, peer] = free_ports();
    let program = root.join("usr/bin/etcd");
    let plan = Plan {
        name: "etcd".into(),
        root: root.to_owned(),
        command: Box::new(move |state| {
            let (near, between) = (
                format!("http://{}", local(web)),
                format!("http://{}", local(peer)),
            );
            let mut command = Command::new(&program);
            command.args(["--name", "lab", "--log-level", "warn", "--data-dir"]);
            command.arg(state.join("etcd"));
            command.args([
                "--listen-client-urls",
                &near,
                "--advertise-client-urls",
                &near,
            ]);
            command.args(["--listen-peer-urls", &between]);
            command.args(["--initial-advertise-peer-urls", &between]);
            command.args(["--initial-cluster", &format!("lab={between}")]);
            command
        }),
        ready: Box::new(move || {
            let asked = http(local(web), "GET", "/health", &[], "");
            asked.is_ok_and(|(status, body)| status == 200 && body.contains("true"))
        }),
        within: Duration::from_secs(30),
    };
    (plan, local(web))
}

fn zookeeper(root: &Path) -> Started {
    let [port] = free_ports();
    let jars = format!("{}/usr/share/java/*:/usr/share/java/*", root.display());
    let plan = Plan {
        name: "zookeeper".into(),
        root: root.to_owned(),
        command: Box::new(move |state| {
            let settings = format!(
                "tickTime=500\ndataDir={}\nclientPort={port}\nclientPortAddress=127.0.0.1\nmaxClientCnxns=0\n\
                 minSessionTimeout=1000\nadmin.enableServer=false\n4lw.commands.whitelist=*\n",
                state.join("data").display()
            );
            let file = state.join("zoo.cfg");
            drop(fs::write(&file, settings));
            let mut command = Command::new("java");
            command.args(["-Xmx192m", "-XX:+UseSerialGC", "-cp", &jars]);
            command
                .arg("org.apache.zookeeper.server.quorum.QuorumPeerMain")
                .arg(file);
            command
        }),
        // It closes the connection after its answer, whatever was asked before it is ready.
        ready: Box::new(move || {
            word(local(port), "srvr").is_some_and(|text| text.contains("Mode:"))
        }),
        within: Duration::from_mins(1),
    };
    (plan, local(port))
}

/// The answer to one of `ZooKeeper`'s words of four letters.
fn word(at: SocketAddr, word: &str) -> Option<String> {
    use std::io::{Read, Write};
    let mut stream = std::net::TcpStream::connect_timeout(&at, Duration::from_secs(1)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(1))).ok()?;
    stream.write_all(word.as_bytes()).ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).ok()?;
    Some(text)
}

fn eureka(root: &Path) -> Started {
    let [port] = free_ports();
    let jar = root.join("eureka.jar");
    let plan = Plan {
        name: "eureka".into(),
        root: root.to_owned(),
        command: Box::new(move |_state| {
            let mut command = Command::new("java");
            command.args([
                "-Xmx320m",
                "-XX:TieredStopAtLevel=1",
                "-XX:+UseSerialGC",
                "-jar",
            ]);
            command.arg(&jar).args([
                &format!("--server.port={port}"),
                "--server.address=127.0.0.1",
                "--spring.main.banner-mode=off",
                "--logging.level.root=warn",
                "--eureka.client.register-with-eureka=false",
                "--eureka.client.fetch-registry=false",
                "--eureka.server.response-cache-update-interval-ms=100",
            ]);
            command
        }),
        ready: Box::new(move || {
            http(local(port), "GET", "/eureka/apps", &[], "").is_ok_and(|(status, _)| status == 200)
        }),
        within: Duration::from_mins(2),
    };
    (plan, local(port))
}
