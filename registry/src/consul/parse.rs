//! Consul's answers to services: pure, and nothing in them can fail the whole but their form.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use mesh_model::{
    endpoint::{Endpoint, Health, Locality, ServiceKey},
    name::{Namespace, ServiceName, is_label},
    service::AppProtocol,
};
use serde::Deserialize;

use crate::{
    longpoll::{Instances, Names, Subject, Unwell},
    place::{address, label},
};

/// Which instances count.
#[derive(Debug, Clone, Default)]
pub(crate) struct Pick {
    /// Tags that one must carry.
    pub(crate) tags: Vec<String>,
    /// True: only those whose checks all pass.
    pub(crate) passing: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Entry {
    node: Node,
    service: Service,
    #[serde(default)]
    checks: Option<Vec<Check>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Node {
    #[serde(rename = "Node", default)]
    name: String,
    #[serde(default)]
    address: String,
    #[serde(default)]
    datacenter: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Service {
    #[serde(rename = "ID")]
    id: String,
    #[serde(default)]
    tags: Option<Vec<String>>,
    #[serde(default)]
    address: String,
    #[serde(default)]
    port: u16,
    #[serde(default)]
    meta: Option<BTreeMap<String, String>>,
    #[serde(default)]
    weights: Option<Weights>,
    #[serde(default)]
    locality: Option<Place>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Weights {
    #[serde(default)]
    passing: i64,
    #[serde(default)]
    warning: i64,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Place {
    #[serde(default)]
    region: String,
    #[serde(default)]
    zone: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Check {
    #[serde(rename = "CheckID", default)]
    id: String,
    #[serde(default)]
    status: String,
}

/// A check in the list of all.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Listed {
    #[serde(default)]
    node: String,
    #[serde(rename = "CheckID", default)]
    id: String,
    #[serde(default)]
    status: String,
    #[serde(default)]
    service_name: String,
}

/// The checks of `/v1/health/state/any` that do not pass. A server that does not filter lists all.
pub(crate) fn unwell(body: &[u8], namespace: &Namespace) -> Result<Unwell, String> {
    let all: Vec<Listed> = serde_json::from_slice(body).map_err(|error| error.to_string())?;
    let ill = all.into_iter().filter(|one| one.status != "passing");
    let told = ill.map(|one| {
        let subject = if one.service_name.is_empty() {
            Subject::Node
        } else {
            Subject::Service(key(&one.service_name, namespace))
        };
        ((one.node, one.id), (subject, one.status))
    });
    Ok(Unwell(told.collect()))
}

/// How Consul itself writes services whose names were made fit for the mesh.
pub(crate) type Written = BTreeMap<ServiceKey, Arc<str>>;

/// The key of a service by its name there.
fn key(name: &str, namespace: &Namespace) -> Option<ServiceKey> {
    Some(ServiceKey {
        namespace: Some(namespace.clone()),
        name: ServiceName::new(&label(name)).ok()?,
        port_name: None,
    })
}

/// The keys of `/v1/catalog/services`, and those of them that Consul writes otherwise. A name that is the mesh's
/// too goes before one that is made fit, and of those the first counts.
pub(crate) fn names(body: &[u8], namespace: &Namespace) -> Result<(Names, Written), String> {
    let all: BTreeMap<String, Option<Vec<String>>> =
        serde_json::from_slice(body).map_err(|error| error.to_string())?;
    let (mut names, mut written) = (Names::default(), Written::default());
    let (same, others): (Vec<String>, Vec<String>) =
        all.into_keys().partition(|name| is_label(name));
    for name in same {
        match key(&name, namespace) {
            Some(key) => _ = names.keys.insert(key),
            None => _ = names.skipped.insert(name),
        }
    }
    for name in others {
        match key(&name, namespace).filter(|key| !names.keys.contains(key)) {
            Some(key) => {
                written.insert(key.clone(), Arc::from(name));
                names.keys.insert(key);
            }
            None => _ = names.skipped.insert(name),
        }
    }
    Ok((names, written))
}

/// The instances of `/v1/health/service/<name>`.
pub(crate) fn instances(body: &[u8], pick: &Pick) -> Result<Instances, String> {
    let all: Vec<Entry> = serde_json::from_slice(body).map_err(|error| error.to_string())?;
    let mut found = Instances {
        listed: all.len(),
        ..Instances::default()
    };
    for entry in all {
        let tags = entry.service.tags.as_deref().unwrap_or_default();
        if !pick.tags.iter().all(|tag| tags.contains(tag)) {
            continue;
        }
        let Some(endpoint) = endpoint(&entry) else {
            found.skipped += 1;
            continue;
        };
        if !pick.passing || endpoint.health == Health::Healthy {
            found.set.endpoints.push(endpoint);
        }
    }
    found.set.protocol = protocol(&found.set.endpoints);
    Ok(found)
}

/// The protocol that all instances name by the key `protocol` of `Meta`; found from the bytes otherwise.
fn protocol(endpoints: &[Endpoint]) -> AppProtocol {
    let mut words = endpoints.iter().map(|one| one.metadata.get("protocol"));
    let first = words.next().flatten();
    let agreed = first.filter(|first| words.all(|word| word == Some(*first)));
    agreed
        .and_then(|word| word.parse().ok())
        .unwrap_or_default()
}

fn endpoint(entry: &Entry) -> Option<Endpoint> {
    let Entry {
        node,
        service,
        checks,
    } = entry;
    let host = if service.address.is_empty() {
        &node.address
    } else {
        &service.address
    };
    let mut health = health(checks.as_deref().unwrap_or_default());
    let weight = service.weights.as_ref().map_or(1, |weights| match health {
        Health::Degraded => weights.warning,
        _ => weights.passing,
    });
    if weight <= 0 && health.is_routable() && service.weights.is_some() {
        health = Health::Draining;
    }
    let mut metadata = service.meta.clone().unwrap_or_default();
    if let Some(tags) = service.tags.as_ref().filter(|tags| !tags.is_empty()) {
        metadata
            .entry("tags".into())
            .or_insert_with(|| tags.join(","));
    }
    let place = service.locality.as_ref();
    let some = |text: &str| (!text.is_empty()).then(|| Arc::from(text));
    let zone = place
        .and_then(|place| some(&place.zone))
        .or_else(|| metadata.get("zone").and_then(|zone| some(zone)));
    let region = place
        .and_then(|place| some(&place.region))
        .or_else(|| some(&node.datacenter));
    Some(Endpoint {
        id: Arc::from(format!("{}/{}", node.name, service.id)),
        address: address(host, service.port)?,
        health,
        weight: u32::try_from(weight.max(1)).unwrap_or(u32::MAX),
        priority: 0,
        locality: Some(Arc::new(Locality {
            region,
            zone,
            sub_zone: None,
        })),
        metadata: Arc::new(metadata),
        host: None,
        tunnel: None,
    })
}

/// The worst of all checks, those of the node among them; maintenance drains.
fn health(checks: &[Check]) -> Health {
    let one = |check: &Check| match check.status.as_str() {
        _ if check.id == "_node_maintenance" || check.id.starts_with("_service_maintenance") => {
            Health::Draining
        }
        "passing" => Health::Healthy,
        "warning" => Health::Degraded,
        "maintenance" => Health::Draining,
        _ => Health::Unhealthy,
    };
    let all: BTreeSet<Health> = checks.iter().map(one).collect();
    if all.contains(&Health::Draining) {
        return Health::Draining;
    }
    all.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TWO: &str = r#"[
      {"Node":{"ID":"x","Node":"lab","Address":"10.0.0.9","Datacenter":"dc1","TaggedAddresses":null},
       "Service":{"ID":"web-1","Service":"web","Tags":["v1"],"Address":"","Port":8080,"Meta":{"zone":"a"},
                  "Weights":{"Passing":10,"Warning":2}},
       "Checks":[{"CheckID":"serfHealth","Status":"passing"},{"CheckID":"service:web-1","Status":"warning"}]},
      {"Node":{"Node":"lab","Address":"10.0.0.9"},
       "Service":{"ID":"web-2","Service":"web","Tags":null,"Address":"::1","Port":8081,"Meta":null},
       "Checks":[{"CheckID":"_service_maintenance:web-2","Status":"critical"}]},
      {"Node":{"Node":"lab","Address":"10.0.0.9"},
       "Service":{"ID":"web-3","Service":"web","Address":"Web.Example","Port":1},"Checks":[]},
      {"Node":{"Node":"lab","Address":"10.0.0.9"},"Service":{"ID":"web-4","Service":"web","Port":0},"Checks":null}]"#;

    #[test]
    fn instances_are_mapped() {
        let found = instances(TWO.as_bytes(), &Pick::default()).unwrap();
        assert_eq!((found.listed, found.skipped), (4, 1));
        assert_eq!(found.set.protocol, AppProtocol::Detect);
        let said = TWO.replace("\"Meta\":null", r#""Meta":{"protocol":"http"}"#);
        let some = instances(said.as_bytes(), &Pick::default()).unwrap();
        assert_eq!(some.set.protocol, AppProtocol::Detect, "not all agree");
        let one = br#"[{"Node":{"Address":"10.0.0.9"},"Service":{"ID":"a","Port":1,"Meta":{"protocol":"http"}}}]"#;
        let one = instances(one, &Pick::default()).unwrap();
        assert_eq!(one.set.protocol, AppProtocol::Http);
        let all: Vec<_> = found
            .set
            .endpoints
            .iter()
            .map(|e| (e.address.to_string(), e.health, e.weight))
            .collect();
        assert_eq!(
            all,
            [
                ("10.0.0.9:8080".to_owned(), Health::Degraded, 2),
                ("[::1]:8081".to_owned(), Health::Draining, 1),
                ("web.example:1".to_owned(), Health::Unknown, 1),
            ]
        );
        let locality = found.set.endpoints[0].locality.clone().unwrap();
        assert_eq!(
            (locality.region.as_deref(), locality.zone.as_deref()),
            (Some("dc1"), Some("a"))
        );
        let pick = Pick {
            tags: vec!["v1".into()],
            passing: false,
        };
        assert_eq!(
            instances(TWO.as_bytes(), &pick)
                .unwrap()
                .set
                .endpoints
                .len(),
            1
        );
        let pick = Pick {
            tags: vec![],
            passing: true,
        };
        assert!(
            instances(TWO.as_bytes(), &pick)
                .unwrap()
                .set
                .endpoints
                .is_empty()
        );
    }

    #[test]
    fn every_cut_is_an_error_and_names_that_are_none_are_skipped() {
        for end in 0..TWO.len() {
            assert!(
                instances(&TWO.as_bytes()[..end], &Pick::default()).is_err(),
                "{end}"
            );
        }
        let listed = names(
            br#"{"consul":[],"web":["v1"],"My App":[]}"#,
            &Namespace::default(),
        );
        let (listed, written) = listed.unwrap();
        assert_eq!(listed.keys.len(), 2);
        assert!(listed.skipped.contains("My App"));
        assert!(written.is_empty());
        assert!(names(b"[]", &Namespace::default()).is_err());
    }

    #[test]
    fn names_are_made_fit_and_two_never_become_one() {
        let text = br#"{"My_App":[],"my.app":[],"shop_api":[],"shop-api":[],"consul":[]}"#;
        let (listed, written) = names(text, &Namespace::default()).unwrap();
        let keys: Vec<&str> = listed.keys.iter().map(|key| key.name.as_str()).collect();
        assert_eq!(keys, ["consul", "my-app", "shop-api"]);
        let left: Vec<&str> = listed.skipped.iter().map(String::as_str).collect();
        assert_eq!(left, ["my.app", "shop_api"]);
        let written: Vec<&str> = written.values().map(|name| &**name).collect();
        assert_eq!(written, ["My_App"]);
        let ill = br#"[{"Node":"n","CheckID":"c","Status":"critical","ServiceName":"My_App"}]"#;
        let told = unwell(ill, &Namespace::default()).unwrap();
        let (services, _) = told.since(&Unwell::default());
        assert_eq!(services.len(), 1);
        assert!(services.is_subset(&listed.keys));
    }
}
