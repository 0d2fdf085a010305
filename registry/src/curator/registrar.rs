//! Announces instances as Curator's service discovery and Spring Cloud read them.

use std::sync::Arc;

use mesh_model::config::{RegistrationConfig, SourceKind};
use serde_json::{Value, json};

use crate::{
    registrar::{Registrar, Registration},
    serverset::registrar::words,
    source::SourceError,
    zookeeper::announce::{State, Writing, ZookeeperRegistrar},
};

/// The registrar; nothing is written yet.
pub(crate) fn open(config: &RegistrationConfig) -> Result<Arc<dyn Registrar>, SourceError> {
    let SourceKind::Curator { access, path } = &config.source.kind else {
        return Err(SourceError::Config("it is not Curator".into()));
    };
    let writing = Arc::new(Instances);
    Ok(Arc::new(ZookeeperRegistrar::new(
        access, path, config.ttl, writing,
    )))
}

/// How instances are written.
struct Instances;

impl Writing for Instances {
    fn directory(&self, of: &Registration) -> String {
        of.service.name.as_str().to_owned()
    }
    fn name(&self, of: &Registration) -> (String, bool) {
        (of.id.clone(), false)
    }
    fn data(&self, of: &Registration, state: State) -> Vec<u8> {
        let mut payload = words(of);
        payload.insert("weight".to_owned(), Value::from(of.weight.to_string()));
        let status = match state {
            State::Well => "UP",
            State::Ill => "DOWN",
            State::Leaving => "OUT_OF_SERVICE",
        };
        payload.insert("instance_status".to_owned(), Value::from(status));
        // Clients with a payload of a class of their own name it; a map needs this name to be read as one.
        payload.insert("@class".to_owned(), Value::from("java.util.TreeMap"));
        let mut instance = json!({
            "name": of.service.name.as_str(),
            "id": of.id,
            "address": of.address.ip().to_string(),
            "port": of.address.port(),
            "sslPort": null,
            "payload": payload,
            "registrationTimeUTC": 0,
            "serviceType": "DYNAMIC",
            "uriSpec": null,
        });
        // Clients before Curator 3 fail on a word that they do not know, so it is there only when it says something.
        if state != State::Well
            && let Some(instance) = instance.as_object_mut()
        {
            instance.insert("enabled".to_owned(), Value::from(false));
        }
        instance.to_string().into_bytes()
    }
    fn is_of(&self, _data: &[u8], _id: &str) -> bool {
        true
    }
}
