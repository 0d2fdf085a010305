//! Nomad's answers to services: pure.

use std::{collections::BTreeMap, sync::Arc};

use mesh_model::{
    endpoint::{Endpoint, Health, Locality, ServiceKey},
    name::{Namespace, ServiceName},
};
use serde::Deserialize;

use crate::{
    longpoll::{Instances, Names},
    place::address,
};

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Listed {
    namespace: String,
    services: Vec<Name>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Name {
    service_name: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Registration {
    #[serde(rename = "ID")]
    id: String,
    address: String,
    port: u16,
    #[serde(default)]
    datacenter: String,
    #[serde(rename = "NodeID", default)]
    node: String,
    #[serde(rename = "AllocID", default)]
    allocation: String,
    #[serde(rename = "JobID", default)]
    job: String,
    #[serde(default)]
    tags: Option<Vec<String>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Events {
    #[serde(default)]
    events: Vec<Event>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Event {
    payload: Payload,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Payload {
    service: Option<Told>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Told {
    namespace: String,
    service_name: String,
}

/// The services that a line of `/v1/event/stream` names; none when it cannot be read, since it is a hint.
pub(crate) fn changed(line: &[u8]) -> Vec<ServiceKey> {
    let Ok(told) = serde_json::from_slice::<Events>(line) else {
        return Vec::new();
    };
    let services = told
        .events
        .into_iter()
        .filter_map(|one| one.payload.service);
    services
        .filter_map(|one| {
            Some(ServiceKey {
                namespace: Some(Namespace::new(&one.namespace).ok()?),
                name: ServiceName::new(&one.service_name).ok()?,
                port_name: None,
            })
        })
        .collect()
}

/// The services of `/v1/services`, of one namespace or all.
pub(crate) fn names(body: &[u8]) -> Result<Names, String> {
    let all: Vec<Listed> = serde_json::from_slice(body).map_err(|error| error.to_string())?;
    let mut names = Names::default();
    for Listed {
        namespace,
        services,
    } in all
    {
        for Name { service_name } in services {
            match (Namespace::new(&namespace), ServiceName::new(&service_name)) {
                (Ok(namespace), Ok(name)) => {
                    names.keys.insert(ServiceKey {
                        namespace: Some(namespace),
                        name,
                        port_name: None,
                    });
                }
                _ => {
                    names.skipped.insert(format!("{namespace}/{service_name}"));
                }
            }
        }
    }
    Ok(names)
}

/// The instances of `/v1/service/<name>`.
pub(crate) fn instances(body: &[u8]) -> Result<Instances, String> {
    let all: Vec<Registration> = serde_json::from_slice(body).map_err(|error| error.to_string())?;
    let mut found = Instances {
        listed: all.len(),
        ..Instances::default()
    };
    for one in all {
        let Some(address) = address(&one.address, one.port) else {
            found.skipped += 1;
            continue;
        };
        let tags = one.tags.map(|tags| tags.join(",")).unwrap_or_default();
        let metadata: BTreeMap<String, String> = [
            ("nomad-allocation", one.allocation),
            ("nomad-job", one.job),
            ("nomad-node", one.node),
            ("tags", tags),
        ]
        .into_iter()
        .filter(|(_, value)| !value.is_empty())
        .map(|(key, value)| (key.to_owned(), value))
        .collect();
        let region = (!one.datacenter.is_empty()).then(|| Arc::from(one.datacenter));
        found.set.endpoints.push(Endpoint {
            id: Arc::from(one.id),
            address,
            health: Health::Unknown,
            weight: 1,
            priority: 0,
            locality: Some(Arc::new(Locality {
                region,
                zone: None,
                sub_zone: None,
            })),
            metadata: Arc::new(metadata),
            host: None,
            tunnel: None,
        });
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a real agent answered.
    const THREE: &str = r#"[{"Address":"127.0.0.1","AllocID":"99fb3888-c734-fc2f-be10-f0a4fdf1b73a","CreateIndex":23,"Datacenter":"dc1","ID":"_nomad-task-99fb3888-c734-fc2f-be10-f0a4fdf1b73a-group-web-web-http","JobID":"web","ModifyIndex":23,"Namespace":"default","NodeID":"4df2d096-22ad-a906-125c-b75211f5f733","Port":26276,"ServiceName":"web","Tags":["v1","mesh"]},{"Address":"127.0.0.1","AllocID":"d19517ee-5506-83b4-72ed-774b975731b7","CreateIndex":24,"Datacenter":"dc1","ID":"_nomad-task-d19517ee-5506-83b4-72ed-774b975731b7-group-web-web-http","JobID":"web","ModifyIndex":24,"Namespace":"default","NodeID":"4df2d096-22ad-a906-125c-b75211f5f733","Port":27534,"ServiceName":"web","Tags":["v1","mesh"]},{"Address":"127.0.0.1","AllocID":"e8bb4d98-3838-e623-0148-46bce1653636","CreateIndex":16,"Datacenter":"dc1","ID":"_nomad-task-e8bb4d98-3838-e623-0148-46bce1653636-group-web-web-http","JobID":"web","ModifyIndex":16,"Namespace":"default","NodeID":"4df2d096-22ad-a906-125c-b75211f5f733","Port":20679,"ServiceName":"web","Tags":["v1","mesh"]}]"#;

    #[test]
    fn recorded_answers_are_mapped() {
        let found = instances(THREE.as_bytes()).unwrap();
        assert_eq!((found.listed, found.skipped), (3, 0));
        let first = &found.set.endpoints[0];
        assert_eq!(first.address.to_string(), "127.0.0.1:26276");
        assert_eq!(first.metadata["tags"], "v1,mesh");
        assert_eq!(first.metadata["nomad-job"], "web");
        assert_eq!(first.health, Health::Unknown);
        let listed = names(br#"[{"Namespace":"default","Services":[{"ServiceName":"web","Tags":["v1","mesh"]}]},{"Namespace":"other","Services":[{"ServiceName":"Bad_Name","Tags":[]}]}]"#).unwrap();
        assert_eq!(listed.keys.len(), 1);
        assert!(listed.skipped.contains("other/Bad_Name"));
        assert_eq!(names(b"[]").unwrap(), Names::default());
    }

    #[test]
    fn every_cut_and_every_plain_text_is_an_error() {
        for end in 0..THREE.len() {
            assert!(instances(&THREE.as_bytes()[..end]).is_err(), "{end}");
        }
        for text in [
            "Permission denied",
            "No path to region",
            "Invalid index",
            "{}",
            "null",
        ] {
            assert!(
                instances(text.as_bytes()).is_err() && names(text.as_bytes()).is_err(),
                "{text}"
            );
        }
    }
}
