//! Values to endpoints: one reader for each layout.

use std::{collections::BTreeMap, sync::Arc};

use mesh_model::{
    address::Address,
    config::EtcdLayout,
    endpoint::{Endpoint, Health},
};
use serde::Deserialize;
use serde_json::Value;

use crate::{
    place::{address, endpoint, locality},
    sink::{MAX_METADATA, ServiceSet},
};

/// Most bytes of one value.
const MAX_VALUE: usize = 64 << 10;
/// The largest weight that counts.
const MAX_WEIGHT: u32 = 1_000_000;

/// Why a value cannot be understood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Fault(String);

fn fault(what: impl Into<String>) -> Fault {
    Fault(what.into())
}

/// What one value says.
pub(super) fn read(kind: EtcdLayout, id: &str, value: &[u8]) -> Result<ServiceSet, Fault> {
    if value.len() > MAX_VALUE {
        return Err(fault(format!(
            "it has {} bytes, at most {MAX_VALUE} are read",
            value.len()
        )));
    }
    let set = match kind {
        EtcdLayout::Meshd => meshd(id, value),
        EtcdLayout::Skydns => skydns(id, value),
        EtcdLayout::Registrator => registrator(id, value),
        EtcdLayout::Grpc => grpc(id, value),
        EtcdLayout::GoMicro => go_micro(id, value),
    }?;
    for endpoint in &set.endpoints {
        let size: usize = endpoint
            .metadata
            .iter()
            .map(|(key, value)| key.len() + value.len())
            .sum();
        if size > MAX_METADATA {
            return Err(fault(format!(
                "it has {size} bytes of metadata, at most {MAX_METADATA} are taken"
            )));
        }
    }
    Ok(set)
}

/// One JSON object: a list would be taken for the fields in their order.
fn json<'v, T: Deserialize<'v>>(value: &'v [u8]) -> Result<T, Fault> {
    if value.trim_ascii_start().first() != Some(&b'{') {
        return Err(fault("it is no JSON object"));
    }
    serde_json::from_slice(value).map_err(|error| fault(error.to_string()))
}

/// `host:port`, with an IPv6 address in brackets.
fn joined(text: &str) -> Result<Address, Fault> {
    let wrong = || fault(format!("{text:?} is no host:port"));
    let (host, port) = text.rsplit_once(':').ok_or_else(wrong)?;
    if host.contains(':') && !host.starts_with('[') {
        return Err(wrong());
    }
    dialled(host, port.parse().map_err(|_not_a_port| wrong())?)
}

fn dialled(host: &str, port: u16) -> Result<Address, Fault> {
    match address(host, port) {
        Some(Address::Socket(at)) if at.ip().is_unspecified() => {
            Err(fault(format!("{at} cannot be dialled from another host")))
        }
        Some(found) => Ok(found),
        None => Err(fault(format!(
            "{host:?} with port {port} cannot be dialled"
        ))),
    }
}

/// An endpoint as the registrar of meshd writes it.
#[derive(Deserialize)]
struct Written {
    address: String,
    weight: Option<u32>,
    #[serde(default)]
    priority: u16,
    #[serde(default)]
    health: Health,
    region: Option<Arc<str>>,
    zone: Option<Arc<str>>,
    sub_zone: Option<Arc<str>>,
    #[serde(default)]
    metadata: BTreeMap<String, String>,
    #[serde(default)]
    protocol: String,
    #[serde(default)]
    port: u16,
}

fn meshd(id: &str, value: &[u8]) -> Result<ServiceSet, Fault> {
    let written: Written = json(value)?;
    Ok(ServiceSet {
        port: written.port,
        protocol: written
            .protocol
            .parse()
            .map_err(|error| fault(format!("{error}")))?,
        endpoints: vec![Endpoint {
            health: written.health,
            weight: written.weight.unwrap_or(1).clamp(1, MAX_WEIGHT),
            priority: written.priority,
            locality: locality(written.region, written.zone, written.sub_zone),
            metadata: Arc::new(written.metadata),
            ..endpoint(id, joined(&written.address)?)
        }],
    })
}

/// `SkyDNS` and the etcd plugin of `CoreDNS`.
#[derive(Deserialize)]
struct Record {
    #[serde(default)]
    host: String,
    port: Option<u16>,
    #[serde(default)]
    priority: i64,
    #[serde(default)]
    weight: i64,
    #[serde(default)]
    text: String,
    #[serde(default)]
    group: String,
    #[serde(default)]
    mail: bool,
}

fn skydns(id: &str, value: &[u8]) -> Result<ServiceSet, Fault> {
    let record: Record = json(value)?;
    if record.host.is_empty() || record.mail {
        return Ok(ServiceSet::default());
    }
    let port = record
        .port
        .filter(|port| *port > 0)
        .ok_or_else(|| fault("it has no port"))?;
    let metadata = [("text", record.text), ("group", record.group)]
        .into_iter()
        .filter(|(_, value)| !value.is_empty())
        .map(|(key, value)| (key.to_owned(), value))
        .collect();
    let found = Endpoint {
        priority: u16::try_from(record.priority.max(0)).unwrap_or(u16::MAX),
        weight: weight(record.weight),
        metadata: Arc::new(metadata),
        ..endpoint(id, dialled(record.host.trim_end_matches('.'), port)?)
    };
    Ok(vec![found].into())
}

fn weight(written: i64) -> u32 {
    u32::try_from(written.max(1))
        .unwrap_or(MAX_WEIGHT)
        .min(MAX_WEIGHT)
}

fn registrator(id: &str, value: &[u8]) -> Result<ServiceSet, Fault> {
    let text = std::str::from_utf8(value).map_err(|_not_text| fault("it is no text"))?;
    Ok(vec![endpoint(id, joined(text.trim())?)].into())
}

/// An update of gRPC naming.
#[derive(Deserialize)]
struct Naming {
    #[serde(rename = "Op", alias = "op", default)]
    op: u8,
    #[serde(rename = "Addr", alias = "addr")]
    address: String,
    #[serde(rename = "Metadata", alias = "metadata", default)]
    metadata: Value,
}

fn grpc(id: &str, value: &[u8]) -> Result<ServiceSet, Fault> {
    let update: Naming = json(value)?;
    match update.op {
        0 => {}
        // What was written to take an endpoint away.
        1 => return Ok(ServiceSet::default()),
        op => return Err(fault(format!("Op {op} is unknown"))),
    }
    let found = described(endpoint(id, joined(&update.address)?), update.metadata);
    Ok(vec![found].into())
}

/// With free metadata: its weight and places are read, the rest is kept as text.
fn described(mut endpoint: Endpoint, metadata: Value) -> Endpoint {
    let mut kept = BTreeMap::new();
    let (mut region, mut zone) = (None, None);
    match metadata {
        Value::Object(fields) => {
            for (key, value) in fields {
                let text = match value {
                    Value::String(text) => text,
                    Value::Number(_) | Value::Bool(_) => value.to_string(),
                    Value::Null | Value::Array(_) | Value::Object(_) => continue,
                };
                match key.as_str() {
                    "weight" => {
                        if let Ok(given) = text.parse() {
                            endpoint.weight = weight(given);
                        }
                    }
                    "region" => region = Some(Arc::from(text)),
                    "zone" => zone = Some(Arc::from(text)),
                    _ => {
                        kept.insert(key, text);
                    }
                }
            }
        }
        Value::String(text) if !text.is_empty() => {
            kept.insert("metadata".to_owned(), text);
        }
        _ => {}
    }
    endpoint.metadata = Arc::new(kept);
    endpoint.locality = locality(region, zone, None);
    endpoint
}

/// A service of go-micro, as one of its nodes registers it.
#[derive(Deserialize)]
struct Micro {
    #[serde(default)]
    version: String,
    #[serde(default)]
    nodes: Option<Vec<Node>>,
}

#[derive(Deserialize)]
struct Node {
    #[serde(default)]
    id: String,
    address: String,
    #[serde(default)]
    port: u16,
    #[serde(default)]
    metadata: Value,
}

fn go_micro(id: &str, value: &[u8]) -> Result<ServiceSet, Fault> {
    let service: Micro = json(value)?;
    let nodes = service.nodes.unwrap_or_default();
    let mut found = Vec::with_capacity(nodes.len());
    for node in nodes {
        // Old releases write the port apart.
        let address = if node.port > 0 {
            dialled(&node.address, node.port)
        } else {
            joined(&node.address)
        }?;
        let name = if node.id.is_empty() { id } else { &node.id };
        let mut one = described(endpoint(name, address), node.metadata);
        if !service.version.is_empty() {
            Arc::make_mut(&mut one.metadata)
                .entry("version".to_owned())
                .or_insert_with(|| service.version.clone());
        }
        found.push(one);
    }
    Ok(found.into())
}
