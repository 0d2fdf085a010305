//! The shapes of objects as the API server writes them, and what is made of each.

use std::{collections::BTreeMap, sync::Arc};

use mesh_model::{
    endpoint::{Health, Locality},
    name::Namespace,
    service::AppProtocol,
};
use serde::{Deserialize, de::DeserializeOwned};

use super::super::object::{
    Content, Key, Member, Object, Service, ServicePort, Slice, SlicePort, Stamp,
};
use crate::place::fitting;

/// Longest name or zone that is taken over into metadata.
const MAX_TEXT: usize = 253;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Meta {
    name: String,
    namespace: String,
    #[serde(default)]
    uid: String,
    #[serde(default)]
    pub(super) resource_version: String,
    #[serde(default)]
    labels: Option<Labels>,
}

#[derive(Deserialize)]
pub(super) struct Labels {
    #[serde(rename = "kubernetes.io/service-name")]
    service: Option<String>,
}

/// An object of which only the name is understood.
#[derive(Deserialize)]
pub(super) struct Bare {
    pub(super) metadata: Meta,
}

/// What makes the content of an object.
pub(super) trait Raw: DeserializeOwned {
    fn split(self) -> (Meta, Option<Content>);
}

#[derive(Deserialize)]
pub(super) struct RawService {
    metadata: Meta,
    #[serde(default)]
    spec: RawSpec,
}

#[derive(Deserialize, Default)]
struct RawSpec {
    #[serde(default)]
    ports: Option<Vec<RawPort>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawPort {
    #[serde(default)]
    name: Option<String>,
    #[serde(default)]
    port: Option<u16>,
    #[serde(default)]
    protocol: Option<String>,
    #[serde(default)]
    app_protocol: Option<String>,
    #[serde(default)]
    target_port: Option<Target>,
}

#[derive(Deserialize)]
pub(super) struct RawPod {
    metadata: PodMeta,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct PodMeta {
    name: String,
    namespace: String,
    #[serde(default)]
    uid: String,
    #[serde(default)]
    resource_version: String,
    #[serde(default)]
    labels: Option<BTreeMap<String, String>>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Target {
    Number(u16),
    Name(serde::de::IgnoredAny),
}

#[derive(Deserialize)]
pub(super) struct RawSlice {
    metadata: Meta,
    #[serde(default)]
    endpoints: Option<Vec<RawMember>>,
    #[serde(default)]
    ports: Option<Vec<RawPort>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawMember {
    #[serde(default)]
    addresses: Vec<String>,
    #[serde(default)]
    conditions: Conditions,
    #[serde(default)]
    zone: Option<String>,
    #[serde(default)]
    node_name: Option<String>,
    #[serde(default)]
    target_ref: Option<Reference>,
    #[serde(default)]
    hints: Option<Hints>,
}

#[derive(Deserialize, Default)]
struct Conditions {
    #[serde(default)]
    ready: Option<bool>,
    #[serde(default)]
    serving: Option<bool>,
    #[serde(default)]
    terminating: Option<bool>,
}

#[derive(Deserialize)]
struct Reference {
    #[serde(default)]
    kind: String,
    #[serde(default)]
    name: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Hints {
    #[serde(default)]
    for_zones: Option<Vec<Named>>,
}

#[derive(Deserialize)]
struct Named {
    name: String,
}

pub(super) fn key(meta: &Meta) -> Option<Key> {
    let named = (1..=MAX_TEXT).contains(&meta.name.len());
    Some(Key {
        namespace: Namespace::new(&meta.namespace).ok()?,
        name: named.then(|| Arc::from(meta.name.as_str()))?,
    })
}

fn stamp(meta: &Meta) -> Stamp {
    Stamp {
        uid: Box::from(meta.uid.as_str()),
        version: meta.resource_version.parse().unwrap_or(0),
    }
}

pub(super) fn unreadable(meta: &Meta) -> Option<Object> {
    Some(Object {
        key: key(meta)?,
        stamp: stamp(meta),
        content: Content::Unreadable,
    })
}

pub(super) fn whole<T: Raw>(raw: T) -> Option<Object> {
    let (meta, content) = raw.split();
    Some(Object {
        key: key(&meta)?,
        stamp: stamp(&meta),
        content: content.unwrap_or(Content::Unreadable),
    })
}

impl RawPort {
    /// TCP is what is meant when nothing is said; nothing else is meshed.
    fn is_tcp(&self) -> bool {
        self.protocol.as_deref().is_none_or(|word| word == "TCP")
    }
    fn name(&self) -> Arc<str> {
        Arc::from(self.name.as_deref().unwrap_or_default())
    }
    /// As it says itself, else as its name begins (`http`, `grpc-api`), which is what many write instead.
    fn spoken(&self) -> Option<AppProtocol> {
        if let Some(word) = self.app_protocol.as_deref().filter(|word| !word.is_empty()) {
            return word.parse().ok();
        }
        let name = self.name.as_deref()?;
        let word = name.split('-').next().filter(|word| !word.is_empty())?;
        word.parse()
            .ok()
            .filter(|spoken| *spoken != AppProtocol::Detect)
    }
}

impl Raw for RawService {
    fn split(self) -> (Meta, Option<Content>) {
        let ports = self.spec.ports.unwrap_or_default();
        let ports = ports
            .iter()
            .filter(|port| port.is_tcp())
            .filter_map(|port| {
                Some(ServicePort {
                    name: port.name(),
                    port: port.port.filter(|number| *number != 0)?,
                    target: match port.target_port {
                        Some(Target::Number(number)) if number != 0 => Some(number),
                        _ => None,
                    },
                    protocol: port.spoken(),
                })
            });
        let service = Service {
            ports: ports.collect(),
        };
        (self.metadata, Some(Content::Service(service)))
    }
}

impl Raw for RawPod {
    fn split(self) -> (Meta, Option<Content>) {
        let PodMeta {
            name,
            namespace,
            uid,
            resource_version,
            labels,
        } = self.metadata;
        let meta = Meta {
            name,
            namespace,
            uid,
            resource_version,
            labels: None,
        };
        let labels = Arc::new(fitting(labels.unwrap_or_default()));
        (meta, Some(Content::Pod(labels)))
    }
}

impl Raw for RawSlice {
    fn split(self) -> (Meta, Option<Content>) {
        let service = self
            .metadata
            .labels
            .as_ref()
            .and_then(|labels| labels.service.as_deref());
        let Some(service) = service.map(Arc::from) else {
            return (self.metadata, None);
        };
        let ports = self.ports.unwrap_or_default();
        let ports = ports
            .iter()
            .filter(|port| port.is_tcp())
            .map(|port| SlicePort {
                name: port.name(),
                port: port.port.filter(|number| *number != 0),
                protocol: port.spoken(),
            });
        let given = self.endpoints.unwrap_or_default();
        let count = given.len();
        let mut zones = Vec::new();
        let members: Vec<Member> = given
            .into_iter()
            .filter_map(|one| member(one, &mut zones))
            .collect();
        let slice = Slice {
            service,
            ports: ports.collect(),
            skipped: count - members.len(),
            members,
        };
        (self.metadata, Some(Content::Slice(slice)))
    }
}

/// The first address counts, as for every other reader of slices.
fn member(raw: RawMember, zones: &mut Vec<Arc<Locality>>) -> Option<Member> {
    let host = raw.addresses.into_iter().next()?;
    let fits = |text: &String| (1..=MAX_TEXT).contains(&text.len());
    if !fits(&host) {
        return None;
    }
    let mut metadata = BTreeMap::new();
    let mut say = |name: &str, value: Option<String>| {
        if let Some(value) = value.filter(fits) {
            metadata.insert(name.to_owned(), value);
        }
    };
    let pod = raw
        .target_ref
        .filter(|one| one.kind == "Pod")
        .map(|one| one.name);
    say("pod", pod);
    say("node", raw.node_name);
    say(
        "for-zones",
        raw.hints.and_then(|hints| joined(hints.for_zones?)),
    );
    Some(Member {
        host: host.into_boxed_str(),
        health: health(&raw.conditions),
        locality: raw.zone.filter(fits).map(|zone| place(zone, zones)),
        metadata: Arc::new(metadata),
    })
}

fn joined(zones: Vec<Named>) -> Option<String> {
    let names: Vec<String> = zones.into_iter().map(|zone| zone.name).collect();
    (!names.is_empty()).then(|| names.join(","))
}

/// Few zones have many members: one value for all of them.
fn place(zone: String, known: &mut Vec<Arc<Locality>>) -> Arc<Locality> {
    let same = known.iter().find(|one| one.zone.as_deref() == Some(&*zone));
    if let Some(same) = same {
        return Arc::clone(same);
    }
    let made = Arc::new(Locality {
        zone: Some(Arc::from(zone)),
        ..Locality::default()
    });
    if known.len() < 16 {
        known.push(Arc::clone(&made));
    }
    made
}

/// `ready` unsaid is ready; what ends but still serves finishes what it has.
fn health(conditions: &Conditions) -> Health {
    let said = |condition: Option<bool>| condition.unwrap_or(false);
    if conditions.ready.unwrap_or(true) {
        Health::Healthy
    } else if said(conditions.terminating) && said(conditions.serving) {
        Health::Draining
    } else {
        Health::Unhealthy
    }
}
