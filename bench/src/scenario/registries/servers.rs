//! Registries on loopback, and one way to write into each: the registrar that meshd has for it, where it has one.

use std::{
    collections::BTreeMap,
    fs,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::PathBuf,
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
    contract::{
        Setup,
        scripted::Scripted,
        server::{Server, Started, consul, etcd, eureka, installed, zookeeper},
    },
    open,
    registrar::{Registrar, Registration},
};

/// A DNS server whose hosts change.
mod dns;
/// An API server with its etcd.
mod kubernetes;
/// Elections, and who wins them.
mod leader;

/// Where servers listen.
const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
/// Of what has no port to be asked at.
const NOWHERE: SocketAddr = SocketAddr::new(HERE, 0);

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
    Nomad,
    Marathon,
    Leader,
}

/// All of them.
pub(super) const KINDS: [Kind; 11] = [
    Kind::File,
    Kind::Consul,
    Kind::Etcd,
    Kind::Serverset,
    Kind::Leader,
    Kind::Curator,
    Kind::Kubernetes,
    Kind::Nomad,
    Kind::Marathon,
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
            Self::Nomad => "nomad",
            Self::Marathon => "marathon",
            Self::Leader => "leader",
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
    Kubernetes(Box<kubernetes::Writer>),
    Dns(dns::Writer),
    Leader(leader::Writer),
    Scripted(Scripted),
}

impl Standing {
    /// Starts it; an error when it is not installed.
    pub(super) fn start(kind: Kind) -> anyhow::Result<Self> {
        // Real servers wait for their disks, as where they work.
        match kind {
            Kind::File => Self::directory(),
            Kind::Kubernetes => kubernetes::start(),
            Kind::Dns => dns::start(),
            Kind::Nomad => Ok(Self::scripted(kind, Scripted::nomad())),
            Kind::Marathon => Ok(Self::scripted(kind, Scripted::marathon())),
            Kind::Consul => {
                let server = consul::start(&found("consul")?, HERE, Setup::Plain);
                let source = SourceKind::Consul {
                    access: web(server.to, ""),
                    datacenter: None,
                    namespace: None,
                    partition: None,
                    tags: Vec::new(),
                    passing: false,
                    max_watches: SourceKind::CONSUL_WATCHES,
                };
                Self::announced(kind, source, server)
            }
            Kind::Etcd => {
                let server = store()?;
                let source = SourceKind::Etcd {
                    access: web(server.to, ""),
                    layout: EtcdLayout::Meshd,
                    prefix: EtcdLayout::Meshd.prefix().to_owned(),
                };
                Self::announced(kind, source, server)
            }
            Kind::Serverset | Kind::Curator | Kind::Leader => {
                let member = zookeeper::Member::alone(HERE, Setup::Plain);
                let server = member.durable().start(&found("zookeeper")?);
                let access = Access {
                    addresses: vec![server.to.to_string()],
                    ..Access::default()
                };
                let path = "/services".to_owned();
                let source = match kind {
                    Kind::Curator => SourceKind::Curator { access, path },
                    Kind::Leader => return leader::start(server, access, path),
                    _ => SourceKind::Serverset { access, path },
                };
                Self::announced(kind, source, server)
            }
            Kind::Eureka => {
                let server = eureka::start(&found("eureka")?, HERE, Setup::Plain);
                let source = SourceKind::Eureka {
                    access: web(server.to, "/eureka"),
                    zone: None,
                    poll: Duration::from_secs(5),
                    secure_port: false,
                };
                Self::announced(kind, source, server)
            }
        }
    }

    /// One into which meshd itself announces.
    fn announced(kind: Kind, source: SourceKind, server: Started) -> anyhow::Result<Self> {
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
            admin: server.admin,
            writer: Writer::Registrar(registrar),
            services: kind.services(),
            _servers: vec![server.server],
            _folder: None,
        })
    }

    /// One that nobody can install.
    fn scripted(kind: Kind, server: Scripted) -> Self {
        let access = Access {
            addresses: vec![server.url()],
            ..Access::default()
        };
        let source = match kind {
            Kind::Marathon => SourceKind::Marathon {
                access,
                prefix: String::new(),
                port_index: 0,
            },
            _ => SourceKind::Nomad {
                access,
                region: None,
                namespace: "*".into(),
                max_watches: SourceKind::NOMAD_WATCHES,
            },
        };
        Self {
            config: named(kind, source),
            admin: NOWHERE,
            writer: Writer::Scripted(server),
            services: kind.services(),
            _servers: Vec::new(),
            _folder: None,
        }
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
            admin: NOWHERE,
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
            Writer::Kubernetes(writer) => writer.write(&name, address).await,
            Writer::Dns(writer) => writer.write(address)?,
            Writer::Leader(writer) => writer.write(&name, turn, address)?,
            Writer::Scripted(server) => server.add(&name, address.port()),
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

/// An etcd.
fn store() -> anyhow::Result<Started> {
    let member = etcd::Member::alone(HERE, Setup::Plain).durable();
    Ok(member.start(&found("etcd")?))
}

fn web(at: SocketAddr, path: &str) -> Access {
    Access {
        addresses: vec![format!("http://{at}{path}")],
        ..Access::default()
    }
}
