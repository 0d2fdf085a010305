//! Instances of Curator's service discovery to endpoints: pure.

use std::{collections::BTreeMap, sync::Arc};

use mesh_model::endpoint::{Endpoint, Health};
use serde::Deserialize;
use serde_json::Value;

use crate::{
    place::{self, address, fitting},
    zookeeper::tree::Member,
};

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Instance {
    #[serde(default)]
    address: Option<String>,
    #[serde(default)]
    port: Option<u16>,
    #[serde(default)]
    ssl_port: Option<u16>,
    #[serde(default)]
    payload: Value,
    #[serde(default)]
    enabled: Option<bool>,
}

/// One instance; its id is the node's name.
pub(super) fn instance(name: &str, data: &[u8]) -> Result<Member, String> {
    let instance: Instance = serde_json::from_slice(data).map_err(|error| error.to_string())?;
    let host = instance.address.unwrap_or_default();
    // The plain port where there is one: the mesh secures the way itself.
    let port = instance.port.or(instance.ssl_port).unwrap_or_default();
    let address = address(&host, port).ok_or_else(|| {
        let host: String = host.chars().take(80).collect();
        format!("{host:?} and port {port} cannot be dialled")
    })?;
    let mut metadata = payload(instance.payload);
    if let Some(port) = instance.ssl_port {
        metadata
            .entry("ssl-port".into())
            .or_insert_with(|| port.to_string());
    }
    let metadata = fitting(metadata);
    let weight: Option<u32> = metadata
        .get("weight")
        .and_then(|weight| weight.trim().parse().ok());
    let mut health = match metadata.get("instance_status").map(String::as_str) {
        Some("UP") => Health::Healthy,
        Some("DOWN" | "STARTING") => Health::Unhealthy,
        Some("OUT_OF_SERVICE") => Health::Draining,
        _ => Health::Unknown,
    };
    // Curator's own serializer leaves the flag out, so that only a flag that is there says anything.
    if (instance.enabled == Some(false) || weight == Some(0)) && health.is_routable() {
        health = Health::Draining;
    }
    let endpoint = Endpoint {
        health,
        weight: weight.unwrap_or(1).max(1),
        locality: place::locality_in(&metadata),
        metadata: Arc::new(metadata),
        ..place::endpoint(name, address)
    };
    Ok(Member {
        endpoints: vec![(None, endpoint)],
        weights: Vec::new(),
    })
}

/// A payload as metadata: the entries of an object, and those of its `metadata` (Spring Cloud); anything else
/// as `payload`. Names of classes are left out.
fn payload(payload: Value) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    match payload {
        Value::Null => {}
        Value::Object(entries) => {
            for (key, value) in entries {
                match value {
                    Value::Object(inner) if key == "metadata" => {
                        found.extend(inner.into_iter().filter_map(text));
                    }
                    value => found.extend(text((key, value))),
                }
            }
        }
        Value::String(text) => drop(found.insert("payload".into(), text)),
        other => drop(found.insert("payload".into(), other.to_string())),
    }
    found
}

fn text((key, value): (String, Value)) -> Option<(String, String)> {
    if key == "@class" {
        return None;
    }
    match value {
        Value::Null => None,
        Value::String(text) => Some((key, text)),
        other => Some((key, other.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // As Curator 5.4.0 wrote them.
    const DYNAMIC: &str = r#"{"name":"web","id":"i-1","address":"127.0.0.1","port":8080,"sslPort":8443,"payload":{"@class":"java.util.TreeMap","weight":"10","zone":"a"},"registrationTimeUTC":1795229900488,"serviceType":"DYNAMIC","uriSpec":{"parts":[{"value":"scheme","variable":true},{"value":"://","variable":false},{"value":"address","variable":true},{"value":":","variable":false},{"value":"port","variable":true}]}}"#;
    const STATIC: &str = r#"{"name":"web","id":"i-2","address":"127.0.0.1","port":8081,"sslPort":null,"payload":null,"registrationTimeUTC":1795229900489,"serviceType":"STATIC","uriSpec":null}"#;
    // As Spring Cloud Zookeeper writes them.
    const SPRING: &str = r#"{"name":"web","id":"7b1d","address":"web.example","port":8082,"sslPort":null,"payload":{"@class":"org.springframework.cloud.zookeeper.discovery.ZookeeperInstance","id":"application-1","name":"web","metadata":{"instance_status":"OUT_OF_SERVICE","zone":"b"}},"registrationTimeUTC":1,"serviceType":"DYNAMIC","uriSpec":null}"#;

    fn read(text: &str) -> Result<Endpoint, String> {
        instance("i-1", text.as_bytes()).map(|mut member| member.endpoints.remove(0).1)
    }

    #[test]
    fn instances_are_mapped() {
        let one = read(DYNAMIC).unwrap();
        assert_eq!(
            (one.address.to_string().as_str(), one.weight),
            ("127.0.0.1:8080", 10)
        );
        assert_eq!(one.health, Health::Unknown);
        assert_eq!(one.locality.unwrap().zone.as_deref(), Some("a"));
        assert_eq!(one.metadata["ssl-port"], "8443");
        assert!(!one.metadata.contains_key("@class"));
        let two = read(STATIC).unwrap();
        assert_eq!((two.weight, two.metadata.len()), (1, 0));
        let spring = read(SPRING).unwrap();
        assert_eq!(spring.health, Health::Draining);
        assert_eq!(spring.address.to_string(), "web.example:8082");
        let up = read(&SPRING.replace("OUT_OF_SERVICE", "UP")).unwrap();
        assert_eq!(up.health, Health::Healthy);
    }

    #[test]
    fn a_flag_counts_when_it_is_there() {
        let off = STATIC.replace("\"uriSpec\":null", "\"enabled\":false");
        assert_eq!(read(&off).unwrap().health, Health::Draining);
        let on = STATIC.replace("\"uriSpec\":null", "\"enabled\":true");
        assert_eq!(read(&on).unwrap().health, Health::Unknown);
        let nothing = DYNAMIC.replace("\"10\"", "\"0\"");
        assert_eq!(read(&nothing).unwrap().health, Health::Draining);
        let raw = STATIC.replace("\"payload\":null", "\"payload\":[1,2]");
        assert_eq!(read(&raw).unwrap().metadata["payload"], "[1,2]");
    }

    #[test]
    fn what_is_none_is_told() {
        for end in 0..DYNAMIC.len() {
            assert!(instance("i", &DYNAMIC.as_bytes()[..end]).is_err(), "{end}");
        }
        let secured = STATIC.replace("8081,\"sslPort\":null", "null,\"sslPort\":8443");
        assert_eq!(
            read(&secured).unwrap().address.to_string(),
            "127.0.0.1:8443"
        );
        assert!(read(&STATIC.replace("8081", "null")).is_err());
        assert!(read(&STATIC.replace("127.0.0.1", "")).is_err());
        let long = format!("\"payload\":\"{}\"", "x".repeat(5_000));
        let long = STATIC.replace("\"payload\":null", &long);
        assert!(read(&long).unwrap().metadata.is_empty());
    }

    #[test]
    fn broken_bytes_are_told_and_nothing_panics() {
        let mut dice = fastrand::Rng::with_seed(7);
        for _ in 0..20_000 {
            let mut bytes = DYNAMIC.as_bytes().to_vec();
            for _ in 0..dice.usize(1..4) {
                let at = dice.usize(..bytes.len());
                bytes[at] = dice.u8(..);
            }
            let _told = instance("i-1", &bytes);
        }
    }
}
