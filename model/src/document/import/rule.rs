//! `RouteRule.spec` as written: config.istio.io/v1alpha2, with the words of the form before it.

use std::collections::BTreeMap;

use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, Visitor, value::MapAccessDeserializer},
};
use serde_json::Value;

use crate::document::virtual_service::TextMatch;

/// Name and namespace of a rule.
#[derive(Debug)]
pub(super) struct RuleMetadata {
    pub(super) name: String,
    pub(super) namespace: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct RouteRuleSpec {
    pub(super) destination: Service,
    /// Higher ones are asked first.
    #[serde(default)]
    pub(super) precedence: i32,
    #[serde(default, rename = "match")]
    pub(super) condition: Option<Condition>,
    #[serde(default)]
    pub(super) route: Vec<Share>,
    #[serde(default)]
    pub(super) redirect: Option<Address>,
    #[serde(default)]
    pub(super) rewrite: Option<Address>,
    /// `WebSocket`s pass with and without it.
    #[serde(default, rename = "websocketUpgrade")]
    pub(super) _websocket_upgrade: bool,
    #[serde(default)]
    pub(super) http_req_timeout: Option<Timeout>,
    #[serde(default)]
    pub(super) http_req_retries: Option<Retries>,
    #[serde(default)]
    pub(super) http_fault: Option<Fault>,
    #[serde(default)]
    pub(super) l4_fault: Option<Value>,
    #[serde(default)]
    pub(super) mirror: Option<Service>,
    #[serde(default)]
    pub(super) cors_policy: Option<Cors>,
    #[serde(default)]
    pub(super) append_headers: BTreeMap<String, String>,
}

/// A service: a table, or in the oldest form its full name.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct Service {
    pub(super) name: Option<String>,
    pub(super) namespace: Option<String>,
    pub(super) domain: Option<String>,
    pub(super) full: Option<String>,
    pub(super) labels: BTreeMap<String, String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct ServiceTable {
    name: Option<String>,
    namespace: Option<String>,
    domain: Option<String>,
    service: Option<String>,
    #[serde(default, alias = "tags")]
    labels: BTreeMap<String, String>,
}

struct ServiceVisitor;

impl<'de> Visitor<'de> for ServiceVisitor {
    type Value = Service;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a service: a table with `name`, or its full name")
    }
    fn visit_str<E>(self, text: &str) -> Result<Service, E> {
        Ok(Service {
            full: Some(text.to_owned()),
            ..Service::default()
        })
    }
    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Service, A::Error> {
        let table = ServiceTable::deserialize(MapAccessDeserializer::new(map))?;
        if table.name.is_none() && table.service.is_none() {
            return Err(serde::de::Error::custom("names no service; write `name`"));
        }
        Ok(Service {
            name: table.name,
            namespace: table.namespace,
            domain: table.domain,
            full: table.service,
            labels: table.labels,
        })
    }
}

impl<'de> Deserialize<'de> for Service {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ServiceVisitor)
    }
}

#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Condition {
    #[serde(default)]
    pub(super) source: Option<Caller>,
    /// Of the oldest form.
    #[serde(default)]
    pub(super) source_tags: BTreeMap<String, String>,
    #[serde(default)]
    pub(super) request: Option<Request>,
    /// Of the oldest form.
    #[serde(default)]
    pub(super) http_headers: BTreeMap<String, TextMatch>,
    #[serde(default)]
    pub(super) tcp: Option<Subnets>,
    #[serde(default)]
    pub(super) udp: Option<Value>,
}

/// Who calls: as a service, but labels alone will do.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct Caller(pub(super) Service);

impl<'de> Deserialize<'de> for Caller {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct CallerVisitor;
        impl<'de> Visitor<'de> for CallerVisitor {
            type Value = Caller;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a service: a table with `name` or `labels`, or its full name")
            }
            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Caller, E> {
                ServiceVisitor.visit_str(text).map(Caller)
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Caller, A::Error> {
                let table = ServiceTable::deserialize(MapAccessDeserializer::new(map))?;
                Ok(Caller(Service {
                    name: table.name,
                    namespace: table.namespace,
                    domain: table.domain,
                    full: table.service,
                    labels: table.labels,
                }))
            }
        }
        deserializer.deserialize_any(CallerVisitor)
    }
}

#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Request {
    #[serde(default)]
    pub(super) headers: BTreeMap<String, TextMatch>,
}

#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Subnets {
    #[serde(default)]
    pub(super) source_subnet: Vec<String>,
    #[serde(default)]
    pub(super) destination_subnet: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Share {
    #[serde(default)]
    pub(super) destination: Option<Service>,
    #[serde(default, alias = "tags")]
    pub(super) labels: BTreeMap<String, String>,
    #[serde(default)]
    pub(super) weight: Option<u32>,
}

#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Address {
    #[serde(default)]
    pub(super) uri: Option<String>,
    #[serde(default)]
    pub(super) authority: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Timeout {
    #[serde(default)]
    pub(super) simple_timeout: Option<SimpleTimeout>,
    #[serde(default)]
    pub(super) custom: Option<Value>,
}

#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct SimpleTimeout {
    pub(super) timeout: String,
    #[serde(default)]
    pub(super) override_header_name: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Retries {
    #[serde(default)]
    pub(super) simple_retry: Option<SimpleRetry>,
    #[serde(default)]
    pub(super) custom: Option<Value>,
}

#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct SimpleRetry {
    pub(super) attempts: u32,
    #[serde(default)]
    pub(super) per_try_timeout: Option<String>,
    #[serde(default)]
    pub(super) override_header_name: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Fault {
    #[serde(default)]
    pub(super) delay: Option<FaultPart>,
    #[serde(default)]
    pub(super) abort: Option<FaultPart>,
}

#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct FaultPart {
    #[serde(default)]
    pub(super) percent: Option<f64>,
    #[serde(default)]
    pub(super) fixed_delay: Option<String>,
    #[serde(default)]
    pub(super) exponential_delay: Option<String>,
    #[serde(default)]
    pub(super) http_status: Option<u16>,
    #[serde(default)]
    pub(super) grpc_status: Option<String>,
    #[serde(default)]
    pub(super) http2_error: Option<String>,
    #[serde(default)]
    pub(super) override_header_name: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Cors {
    #[serde(default)]
    pub(super) allow_origin: Vec<String>,
    #[serde(default)]
    pub(super) allow_methods: Vec<String>,
    #[serde(default)]
    pub(super) allow_headers: Vec<String>,
    #[serde(default)]
    pub(super) expose_headers: Vec<String>,
    #[serde(default)]
    pub(super) max_age: Option<String>,
    #[serde(default)]
    pub(super) allow_credentials: Option<bool>,
}
