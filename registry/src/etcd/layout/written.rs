//! Instances of this host to keys and values: what the source of the same layout reads again.

use mesh_model::{config::EtcdLayout, endpoint::Health, name::Namespace, service::AppProtocol};
use serde_json::{Map, Value, json};

use super::Layout;
use crate::registrar::Registration;

impl Layout {
    /// The key of an instance.
    pub(crate) fn key(&self, of: &Registration) -> String {
        let (prefix, id) = (&self.prefix, &of.id);
        let (namespace, name) = (&of.service.namespace, &of.service.name);
        match self.kind {
            EtcdLayout::Meshd => format!("{prefix}{namespace}/{name}/{id}"),
            EtcdLayout::Skydns if *namespace != Namespace::default() => {
                format!("{prefix}{namespace}/{name}/{id}")
            }
            EtcdLayout::Skydns
            | EtcdLayout::Registrator
            | EtcdLayout::Grpc
            | EtcdLayout::GoMicro => {
                format!("{prefix}{name}/{id}")
            }
        }
    }

    /// The value of an instance; `None` where the layout has no word for its health and it must not be used.
    pub(crate) fn value(&self, of: &Registration, health: Health) -> Option<String> {
        let address = of.address.to_string();
        if self.kind != EtcdLayout::Meshd && !health.is_routable() {
            return None;
        }
        let value = match self.kind {
            EtcdLayout::Meshd => meshd(of, health),
            EtcdLayout::Skydns => json!({
                "host": of.address.ip().to_string(), "port": of.address.port(), "priority": 10, "weight": of.weight,
            }),
            EtcdLayout::Registrator => return Some(address),
            EtcdLayout::Grpc => json!({"Op": 0, "Addr": address, "Metadata": labels(of, true)}),
            EtcdLayout::GoMicro => json!({
                "name": of.service.name.as_str(), "version": of.labels.get("version").map_or("latest", String::as_str),
                "metadata": null, "endpoints": [],
                "nodes": [{"id": of.id, "address": address, "metadata": labels(of, true)}],
            }),
        };
        Some(value.to_string())
    }
}

fn meshd(of: &Registration, health: Health) -> Value {
    let mut value = json!({
        "address": of.address.to_string(), "health": health, "weight": of.weight, "metadata": labels(of, false),
    });
    let place = [
        ("region", &of.locality.region),
        ("zone", &of.locality.zone),
        ("sub_zone", &of.locality.sub_zone),
    ];
    if let Some(fields) = value.as_object_mut() {
        for (name, part) in place {
            if let Some(part) = part {
                fields.insert(name.to_owned(), Value::from(&**part));
            }
        }
        if of.protocol != AppProtocol::default() {
            fields.insert("protocol".to_owned(), Value::from(of.protocol.as_str()));
        }
    }
    value
}

/// The labels; with weight and places among them where there is no other room for those. All are texts: that
/// is what readers of metadata expect.
fn labels(of: &Registration, with_places: bool) -> Map<String, Value> {
    let mut all: Map<String, Value> = of
        .labels
        .iter()
        .map(|(key, value)| (key.clone(), Value::from(value.as_str())))
        .collect();
    if with_places {
        all.insert("weight".to_owned(), Value::from(of.weight.to_string()));
        for (name, part) in [("region", &of.locality.region), ("zone", &of.locality.zone)] {
            if let Some(part) = part {
                all.insert(name.to_owned(), Value::from(&**part));
            }
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, sync::Arc};

    use mesh_model::{
        endpoint::Locality,
        name::{ServiceId, ServiceName},
    };

    use super::*;

    fn registration(namespace: &str) -> Registration {
        let service = ServiceId::new(
            Namespace::new(namespace).unwrap(),
            ServiceName::new("web").unwrap(),
        );
        Registration {
            id: Registration::id_of("h1", &service, 80),
            service,
            address: "[fd00::1]:8080".parse().unwrap(),
            protocol: AppProtocol::Http,
            weight: 5,
            locality: Locality {
                region: None,
                zone: Some(Arc::from("a")),
                sub_zone: None,
            },
            labels: BTreeMap::from([("version".to_owned(), "2".to_owned())]),
        }
    }

    #[test]
    fn what_is_written_is_read_again() {
        for (_, kind) in EtcdLayout::ALL {
            let layout = Layout::new(kind, kind.prefix());
            let of = registration("default");
            let place = layout.place(layout.key(&of).as_bytes()).unwrap();
            assert_eq!(place.service.name, of.service.name, "{kind:?}");
            assert_eq!(
                place.service.namespace.as_ref(),
                Some(&of.service.namespace)
            );
            let value = layout.value(&of, Health::Healthy).unwrap();
            let read = layout.read(&place.id, value.as_bytes()).unwrap();
            let one = &read.endpoints[0];
            assert_eq!(one.address.to_string(), "[fd00::1]:8080", "{kind:?}");
            if kind != EtcdLayout::Registrator {
                assert_eq!(one.weight, 5, "{kind:?}");
            }
            if !matches!(kind, EtcdLayout::Registrator | EtcdLayout::Skydns) {
                assert_eq!(one.metadata["version"], "2", "{kind:?}");
                assert_eq!(one.locality.as_ref().unwrap().zone.as_deref(), Some("a"));
            }
            let ill = layout.value(&of, Health::Draining);
            assert_eq!(ill.is_some(), kind == EtcdLayout::Meshd);
        }
    }

    #[test]
    fn namespaces_stay_where_there_is_room_for_them() {
        for kind in [EtcdLayout::Meshd, EtcdLayout::Skydns] {
            let layout = Layout::new(kind, kind.prefix());
            let of = registration("shop");
            let place = layout.place(layout.key(&of).as_bytes()).unwrap();
            assert_eq!(
                place.service.namespace,
                Some(of.service.namespace),
                "{kind:?}"
            );
        }
        let layout = Layout::new(EtcdLayout::Meshd, "/x");
        let of = registration("default");
        let read = layout
            .read("x", layout.value(&of, Health::Draining).unwrap().as_bytes())
            .unwrap();
        assert_eq!(
            (read.endpoints[0].health, read.protocol),
            (Health::Draining, AppProtocol::Http)
        );
    }
}
