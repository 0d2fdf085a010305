//! Settings to a source or a registrar: the only matches over the kinds.

use std::{convert::Infallible, sync::Arc, time::Duration};

use async_trait::async_trait;
use mesh_model::config::{RegistrationConfig, SourceConfig, SourceKind};
use tokio_util::sync::CancellationToken;

use crate::{
    consul::{ConsulRegistrar, ConsulSource},
    curator,
    demand::Demand,
    dns::DnsSource,
    etcd::{EtcdRegistrar, EtcdSource},
    eureka::{EurekaRegistrar, EurekaSource},
    file::FileSource,
    kubernetes::KubernetesSource,
    leader,
    marathon::MarathonSource,
    nomad::NomadSource,
    registrar::Registrar,
    serverset,
    sink::Sink,
    source::{Capabilities, Reach, Source, SourceError},
    zookeeper::ZookeeperSource,
};

/// A fresh instance of the source. Nothing is read before it runs.
pub fn open(config: &SourceConfig) -> Box<dyn Source> {
    match &config.kind {
        SourceKind::File { directory } => Box::new(FileSource::new(&config.id, directory)),
        SourceKind::Dns {
            servers,
            records,
            udp,
        } => Box::new(DnsSource::new(&config.id, servers, records, *udp)),
        other => ConsulSource::new(config)
            .map(|source| Box::new(source) as Box<dyn Source>)
            .or_else(|| NomadSource::new(config).map(|source| Box::new(source) as Box<dyn Source>))
            .or_else(|| {
                KubernetesSource::new(config).map(|source| Box::new(source) as Box<dyn Source>)
            })
            .or_else(|| EtcdSource::new(config).map(|source| Box::new(source) as Box<dyn Source>))
            .or_else(|| EurekaSource::new(config).map(|source| Box::new(source) as Box<dyn Source>))
            .or_else(|| zookeeper(config).map(|source| Box::new(source) as Box<dyn Source>))
            .or_else(|| {
                MarathonSource::new(config).map(|source| Box::new(source) as Box<dyn Source>)
            })
            .unwrap_or_else(|| {
                Box::new(Missing {
                    id: config.id.clone(),
                    kind: other.word(),
                })
            }),
    }
}

/// The registrar of the settings. Nothing is written before it is used.
pub fn registrar(config: &RegistrationConfig) -> Result<Arc<dyn Registrar>, SourceError> {
    match &config.source.kind {
        SourceKind::Consul { .. } => Ok(Arc::new(ConsulRegistrar::new(config)?)),
        SourceKind::Etcd { .. } => Ok(Arc::new(EtcdRegistrar::new(config)?)),
        SourceKind::Eureka { .. } => Ok(Arc::new(EurekaRegistrar::new(config)?)),
        SourceKind::Serverset { .. } => serverset::registrar::open(config),
        SourceKind::Curator { .. } => curator::registrar::open(config),
        other => {
            let what = format!("registrations in {} are not in this build", other.word());
            Err(SourceError::Config(what))
        }
    }
}

/// What stands in `ZooKeeper`.
fn zookeeper(config: &SourceConfig) -> Option<ZookeeperSource> {
    serverset::open(config)
        .or_else(|| leader::open(config))
        .or_else(|| curator::open(config))
}

/// A kind that this build cannot read: says so, and changes nothing.
#[derive(Debug)]
struct Missing {
    id: String,
    kind: &'static str,
}

#[async_trait]
impl Source for Missing {
    fn id(&self) -> &str {
        &self.id
    }
    fn capabilities(&self) -> Capabilities {
        Capabilities {
            reach: Reach::All,
            pushes: false,
            health: false,
            weights: false,
            latency: Duration::MAX,
        }
    }
    async fn run(
        &mut self,
        _out: Sink,
        _demand: Demand,
        _stop: CancellationToken,
    ) -> Result<Infallible, SourceError> {
        let what = format!("sources of kind {} are not in this build", self.kind);
        Err(SourceError::Config(what))
    }
}
