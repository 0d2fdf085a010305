//! Server sets (Twitter commons) as a source: `<path>/…/<service>/member_0000000012` with JSON in it.
//!
//! In: members, and `vector_…` siblings with weights. Out: a set per directory, and one per named port.
//! Never: drops a member because its JSON is broken now.

use std::sync::Arc;

use mesh_model::{
    config::{SourceConfig, SourceKind},
    endpoint::ServiceKey,
    name::{Namespace, ServiceName},
};

use crate::zookeeper::{
    ZookeeperSource,
    tree::{Kind, Layout, Member, Members, Sets},
};

/// Members to endpoints.
mod parse;
/// Instances of this host.
pub(crate) mod registrar;
#[cfg(test)]
mod tests;

/// The source; `None` when the settings are of another kind.
pub fn open(config: &SourceConfig) -> Option<ZookeeperSource> {
    let SourceKind::Serverset { access, path } = &config.kind else {
        return None;
    };
    let layout = Arc::new(Serversets);
    Some(ZookeeperSource::new(config, access, path, layout, true))
}

/// The service of a directory: its last name, in the namespace of the names before it, joined by `-`; in lower
/// case, `.` and `_` as `-`.
pub(crate) fn key(base: &str, directory: &str) -> Option<ServiceKey> {
    let (space, name) = match directory.rsplit_once('/') {
        Some((space, name)) => (Some(label(space)), name),
        None if directory.is_empty() => (None, base.rsplit('/').next().unwrap_or_default()),
        None => (None, directory),
    };
    let namespace = match space {
        Some(space) => Namespace::new(&space).ok()?,
        None => Namespace::default(),
    };
    Some(ServiceKey {
        namespace: Some(namespace),
        name: ServiceName::new(&label(name)).ok()?,
        port_name: None,
    })
}

/// A name as a mesh writes it.
pub(crate) fn label(text: &str) -> String {
    text.trim_matches(['.', '_'])
        .to_ascii_lowercase()
        .replace(['.', '_', '/'], "-")
}

/// How server sets lie.
struct Serversets;

impl Layout for Serversets {
    fn kind(&self, _depth: usize, name: &str) -> Kind {
        if name.starts_with("member_") || name.starts_with("vector_") {
            Kind::Member
        } else {
            Kind::Inner
        }
    }
    fn key(&self, base: &str, directory: &str) -> Option<ServiceKey> {
        key(base, directory)
    }
    fn read(&self, name: &str, data: &[u8]) -> Result<Member, String> {
        if name.starts_with("vector_") {
            parse::vector(data)
        } else {
            parse::member(name, data)
        }
    }
    fn sets(&self, members: &Members) -> Option<Sets> {
        Some(parse::sets(members))
    }
}
