//! Settings to a source: the only match over the kinds.

use std::{convert::Infallible, time::Duration};

use async_trait::async_trait;
use mesh_model::config::{SourceConfig, SourceKind};
use tokio_util::sync::CancellationToken;

use crate::{
    consul::ConsulSource,
    curator,
    demand::Demand,
    dns::DnsSource,
    etcd::EtcdSource,
    eureka::EurekaSource,
    file::FileSource,
    leader,
    kubernetes::KubernetesSource,
    marathon::MarathonSource,
    nomad::NomadSource,
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
            .or_else(|| zookeeper(config).map(|source| Box::new(source) as Box<dyn Source>))
            .or_else(|| EurekaSource::new(config).map(|source| Box::new(source) as Box<dyn Source>))
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
