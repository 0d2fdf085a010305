//! Apache Curator's service discovery as a source: `<path>/<service>/<id>` with JSON in it.
//!
//! In: instances, those of Spring Cloud among them. Out: a set per service; a service without instances is a
//! service without endpoints. Never: drops an instance because its JSON is broken now.

use std::sync::Arc;

use mesh_model::{
    config::{SourceConfig, SourceKind},
    endpoint::ServiceKey,
    name::{Namespace, ServiceName},
};

use crate::{
    serverset,
    zookeeper::{
        ZookeeperSource,
        tree::{Kind, Layout, Member, Members, Sets},
    },
};

/// Instances to endpoints.
mod parse;
/// Instances of this host.
pub(crate) mod registrar;
#[cfg(test)]
mod tests;

/// The source; `None` when the settings are of another kind.
pub fn open(config: &SourceConfig) -> Option<ZookeeperSource> {
    let SourceKind::Curator { access, path } = &config.kind else {
        return None;
    };
    let layout = Arc::new(Instances);
    Some(ZookeeperSource::new(config, access, path, layout, true))
}

/// How instances lie.
struct Instances;

impl Layout for Instances {
    fn kind(&self, depth: usize, _name: &str) -> Kind {
        match depth {
            0 => Kind::Inner,
            1 => Kind::Member,
            _ => Kind::Foreign,
        }
    }
    fn key(&self, _base: &str, directory: &str) -> Option<ServiceKey> {
        Some(ServiceKey {
            namespace: Some(Namespace::default()),
            name: ServiceName::new(&serverset::label(directory)).ok()?,
            port_name: None,
        })
    }
    fn read(&self, name: &str, data: &[u8]) -> Result<Member, String> {
        parse::instance(name, data)
    }
    fn sets(&self, members: &Members) -> Option<Sets> {
        let all = members.values().flatten().flat_map(|one| &one.endpoints);
        Some(Sets::from([(
            None,
            all.map(|(_, one)| one.clone()).collect(),
        )]))
    }
    fn depth(&self) -> Option<usize> {
        Some(1)
    }
}
