//! Announces instances as members of server sets.

use std::sync::Arc;

use mesh_model::config::{RegistrationConfig, SourceKind};
use serde_json::{Map, Value, json};

use crate::{
    registrar::{Registrar, Registration},
    source::SourceError,
    zookeeper::announce::{State, Writing, ZookeeperRegistrar},
};

/// The key under which a member carries its id.
const ID: &str = "meshd-id";

/// The registrar; nothing is written yet.
pub(crate) fn open(config: &RegistrationConfig) -> Result<Arc<dyn Registrar>, SourceError> {
    let SourceKind::Serverset { access, path } = &config.source.kind else {
        return Err(SourceError::Config("it is no server set".into()));
    };
    let writing = Arc::new(Members);
    Ok(Arc::new(ZookeeperRegistrar::new(
        access, path, config.ttl, writing,
    )))
}

/// Labels, and the words that our own sources read.
pub(crate) fn words(of: &Registration) -> Map<String, Value> {
    let place = [("region", &of.locality.region), ("zone", &of.locality.zone)];
    let place = place
        .into_iter()
        .filter_map(|(key, value)| Some((key.to_owned(), Value::from(&**value.as_ref()?))));
    let labels = of
        .labels
        .iter()
        .filter(|(_, value)| value.len() <= 512)
        .take(60)
        .map(|(key, value)| (key.clone(), Value::from(value.as_str())));
    let own = [("protocol".to_owned(), Value::from(of.protocol.as_str()))];
    labels.chain(place).chain(own).collect()
}

/// The directory of a service: its namespace is one above it, unless that is the default one.
pub(crate) fn directory(of: &Registration) -> String {
    let (space, name) = (of.service.namespace.as_str(), of.service.name.as_str());
    if space == "default" {
        name.to_owned()
    } else {
        format!("{space}/{name}")
    }
}

/// How members are written.
struct Members;

impl Writing for Members {
    fn directory(&self, of: &Registration) -> String {
        directory(of)
    }
    fn name(&self, _of: &Registration) -> (String, bool) {
        ("member_".to_owned(), true)
    }
    fn data(&self, of: &Registration, state: State) -> Vec<u8> {
        let status = match state {
            State::Well => "ALIVE",
            State::Ill => "DEAD",
            State::Leaving => "STOPPING",
        };
        let mut metadata = words(of);
        metadata.insert(ID.to_owned(), Value::from(of.id.as_str()));
        let member = json!({
            "serviceEndpoint": {"host": of.address.ip().to_string(), "port": of.address.port()},
            "additionalEndpoints": {},
            "status": status,
            "metadata": metadata,
        });
        member.to_string().into_bytes()
    }
    fn is_of(&self, data: &[u8], id: &str) -> bool {
        let member: Result<Value, _> = serde_json::from_slice(data);
        member.is_ok_and(|member| {
            member
                .pointer(&format!("/metadata/{ID}"))
                .and_then(Value::as_str)
                == Some(id)
        })
    }
}
