//! The API server's lists and watch lines to objects: pure, and one broken object spoils no other.

use std::{collections::BTreeMap, sync::Arc};

use mesh_model::{
    endpoint::{Health, Locality},
    name::Namespace,
    service::AppProtocol,
};
use serde::{Deserialize, de::DeserializeOwned};

/// Longest name or zone that is taken over into metadata.
const MAX_TEXT: usize = 253;

/// What is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    /// `v1` Services.
    Services,
    /// `discovery.k8s.io/v1` `EndpointSlices`.
    Slices,
}

/// Where an object is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Key {
    pub(crate) namespace: Namespace,
    pub(crate) name: Arc<str>,
}

/// What tells one state of an object from another.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Stamp {
    /// Unique over time: an object of the same name that was made again has another one.
    pub(crate) uid: Box<str>,
    /// Its resource version; 0 when it is no number.
    pub(crate) version: u64,
}

/// An object.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Object {
    pub(crate) key: Key,
    pub(crate) stamp: Stamp,
    pub(crate) content: Content,
}

/// What an object says.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Content {
    Service(Service),
    Slice(Slice),
    /// It is there, and makes no sense: what is known of it stays.
    Unreadable,
}

/// A Service, as far as it is needed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Service {
    /// Its TCP ports.
    pub(crate) ports: Vec<ServicePort>,
}

/// A port of a Service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ServicePort {
    /// Empty when it has none.
    pub(crate) name: Arc<str>,
    /// What callers dial.
    pub(crate) port: u16,
    /// Where the program listens, when that is a number.
    pub(crate) target: Option<u16>,
    /// `None`: the Service does not say.
    pub(crate) protocol: Option<AppProtocol>,
}

/// An `EndpointSlice`.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Slice {
    /// The Service that it belongs to.
    pub(crate) service: Arc<str>,
    /// Its TCP ports.
    pub(crate) ports: Vec<SlicePort>,
    pub(crate) members: Vec<Member>,
    /// Members that nothing can be made of.
    pub(crate) skipped: usize,
}

/// A port of an `EndpointSlice`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SlicePort {
    /// Empty when it has none.
    pub(crate) name: Arc<str>,
    /// `None`: it does not say.
    pub(crate) port: Option<u16>,
    pub(crate) protocol: Option<AppProtocol>,
}

/// One endpoint of an `EndpointSlice`.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Member {
    /// An address, or a host name in a slice of names.
    pub(crate) host: Box<str>,
    pub(crate) health: Health,
    pub(crate) locality: Option<Arc<Locality>>,
    pub(crate) metadata: Arc<BTreeMap<String, String>>,
}

/// A page of a list.
#[derive(Debug)]
pub(crate) struct Page {
    pub(crate) objects: Vec<Object>,
    /// The state of the whole at which the list was made.
    pub(crate) version: String,
    /// Asks for the next page; `None`: this was the last.
    pub(crate) next: Option<String>,
    /// Objects without even a name.
    pub(crate) nameless: usize,
}

/// A line of a watch.
#[derive(Debug)]
pub(crate) enum Event {
    /// There it is, or it is another now.
    There(Object, String),
    /// It is gone.
    Gone(Key, String),
    /// Nothing happened up to this version.
    Bookmark(String),
    /// The versions after the one that was asked for are forgotten: list again.
    Expired,
    /// The server says that it cannot go on.
    Failed(String),
}

#[derive(Deserialize)]
struct RawPage<T> {
    kind: String,
    metadata: PageMeta,
    #[serde(default = "Option::default")]
    items: Option<Vec<T>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct PageMeta {
    resource_version: String,
    #[serde(default)]
    r#continue: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Meta {
    name: String,
    namespace: String,
    #[serde(default)]
    uid: String,
    #[serde(default)]
    resource_version: String,
    #[serde(default)]
    labels: Option<Labels>,
}

#[derive(Deserialize)]
struct Labels {
    #[serde(rename = "kubernetes.io/service-name")]
    service: Option<String>,
}

/// An object of which only the name is understood.
#[derive(Deserialize)]
struct Bare {
    metadata: Meta,
}

/// What makes the content of an object.
trait Raw: DeserializeOwned {
    fn split(self) -> (Meta, Option<Content>);
}

#[derive(Deserialize)]
struct RawService {
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
#[serde(untagged)]
enum Target {
    Number(u16),
    Name(serde::de::IgnoredAny),
}

#[derive(Deserialize)]
struct RawSlice {
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

#[derive(Deserialize)]
struct RawEvent<T> {
    object: T,
}

#[derive(Deserialize)]
struct Peek {
    r#type: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Marked {
    metadata: Mark,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Mark {
    resource_version: String,
}

/// What a request that failed is answered with.
#[derive(Deserialize, Default)]
#[serde(default)]
struct Status {
    code: u16,
    reason: String,
    message: String,
}

/// The sentence of a refusal, one line, bounded; empty when there is none.
pub(crate) fn message(body: &[u8]) -> String {
    serde_json::from_slice::<Status>(body)
        .map_or_else(|_other| String::new(), |status| line(&status.message))
}

fn line(text: &str) -> String {
    text.chars()
        .take(300)
        .collect::<String>()
        .replace(char::is_control, " ")
}

/// A page of a list of `kind`.
pub(crate) fn page(kind: Kind, body: &[u8]) -> Result<Page, String> {
    match kind {
        Kind::Services => page_of::<RawService>("ServiceList", body),
        Kind::Slices => page_of::<RawSlice>("EndpointSliceList", body),
    }
}

fn page_of<T: Raw>(expected: &str, body: &[u8]) -> Result<Page, String> {
    let mut nameless = 0;
    let (kind, meta, objects) = match serde_json::from_slice::<RawPage<T>>(body) {
        Ok(raw) => {
            let all = raw.items.unwrap_or_default();
            (
                raw.kind,
                raw.metadata,
                all.into_iter().map(whole::<T>).collect::<Vec<_>>(),
            )
        }
        // One broken object must not hide the others: each is looked at by itself.
        Err(error) => {
            let raw: RawPage<serde_json::Value> =
                serde_json::from_slice(body).map_err(|_same| error.to_string())?;
            let all = raw.items.unwrap_or_default();
            (
                raw.kind,
                raw.metadata,
                all.into_iter().map(each::<T>).collect(),
            )
        }
    };
    if kind != expected {
        return Err(format!("a {} instead of {expected}", line(&kind)));
    }
    if meta.resource_version.is_empty() {
        return Err("a list without a version".into());
    }
    let objects = objects
        .into_iter()
        .flatten_counting(&mut nameless)
        .collect();
    Ok(Page {
        objects,
        version: meta.resource_version,
        next: meta.r#continue.filter(|next| !next.is_empty()),
        nameless,
    })
}

/// Leaves out what is nothing, and counts it.
trait FlattenCounting: Iterator<Item = Option<Object>> + Sized {
    fn flatten_counting(self, missing: &mut usize) -> impl Iterator<Item = Object> {
        self.filter_map(|one| {
            *missing += usize::from(one.is_none());
            one
        })
    }
}

impl<I: Iterator<Item = Option<Object>>> FlattenCounting for I {}

/// A line of a watch of `kind`.
pub(crate) fn event(kind: Kind, line: &[u8]) -> Result<Event, String> {
    match kind {
        Kind::Services => event_of::<RawService>(line),
        Kind::Slices => event_of::<RawSlice>(line),
    }
}

fn event_of<T: Raw>(text: &[u8]) -> Result<Event, String> {
    fn read<T: DeserializeOwned>(text: &[u8]) -> Result<T, String> {
        serde_json::from_slice::<RawEvent<T>>(text)
            .map(|event| event.object)
            .map_err(|error| error.to_string())
    }
    let peek: Peek = serde_json::from_slice(text).map_err(|error| error.to_string())?;
    match peek.r#type.as_str() {
        "ADDED" | "MODIFIED" => {
            let bare: Bare = read(text)?;
            let version = bare.metadata.resource_version.clone();
            let object = match read::<T>(text) {
                Ok(raw) => whole::<T>(raw),
                Err(_) => unreadable(&bare.metadata),
            };
            let object = object.ok_or("an object whose name is none")?;
            Ok(Event::There(object, version))
        }
        "DELETED" => {
            let bare: Bare = read(text)?;
            let version = bare.metadata.resource_version.clone();
            let key = key(&bare.metadata).ok_or("an object whose name is none")?;
            Ok(Event::Gone(key, version))
        }
        "BOOKMARK" => Ok(Event::Bookmark(
            read::<Marked>(text)?.metadata.resource_version,
        )),
        "ERROR" => {
            let status: Status = read(text)?;
            if status.code == 410 || matches!(&*status.reason, "Expired" | "Gone") {
                return Ok(Event::Expired);
            }
            Ok(Event::Failed(format!(
                "{} {}",
                status.code,
                line(&status.message)
            )))
        }
        other => Err(format!("an event of type {:?}", line(other))),
    }
}

fn each<T: Raw>(value: serde_json::Value) -> Option<Object> {
    let meta = serde_json::from_value::<Bare>(value.clone()).ok()?.metadata;
    match serde_json::from_value::<T>(value) {
        Ok(raw) => whole(raw),
        Err(_) => unreadable(&meta),
    }
}

fn key(meta: &Meta) -> Option<Key> {
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

fn unreadable(meta: &Meta) -> Option<Object> {
    Some(Object {
        key: key(meta)?,
        stamp: stamp(meta),
        content: Content::Unreadable,
    })
}

fn whole<T: Raw>(raw: T) -> Option<Object> {
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

#[cfg(test)]
#[path = "parse/tests.rs"]
mod tests;
