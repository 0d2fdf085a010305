//! Consul's catalog and health as a source.
//!
//! In: the names of `/v1/catalog/services` and each service of `/v1/health/service`, as they change.
//! Out: whole sets. Never: takes an empty answer for an absence before the leader's catalog agrees.

use std::{
    collections::BTreeSet,
    convert::Infallible,
    fmt::Write,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use http::HeaderName;
use mesh_model::{
    config::{Access, SourceConfig, SourceKind},
    endpoint::ServiceKey,
    name::{Namespace, ServiceName},
};
use tokio_util::sync::CancellationToken;

use crate::{
    demand::Demand,
    http::{Client, Credential},
    longpoll::{self, Ask, Dialect, Instances, Names, Unwell},
    place::escaped,
    sink::Sink,
    source::{Capabilities, Reach, Source, SourceError},
};

/// Answers to services.
pub(crate) mod parse;
/// Services of this host, announced.
mod registrar;
#[cfg(test)]
mod tests;

pub use registrar::ConsulRegistrar;

/// What is read, and how.
#[derive(Debug, Clone)]
struct Scope {
    datacenter: Option<String>,
    namespace: Option<String>,
    partition: Option<String>,
    pick: parse::Pick,
    /// The mesh namespace that its services get.
    mapped: Namespace,
    /// What Consul calls services whose names the mesh cannot have, as the lists said.
    written: Arc<Mutex<parse::Written>>,
}

/// Consul.
#[derive(Debug)]
pub struct ConsulSource {
    id: String,
    access: Access,
    only: Option<Arc<BTreeSet<ServiceName>>>,
    max_watches: u16,
    scope: Scope,
}

impl ConsulSource {
    /// Nothing is read yet; `None` when the settings are of another kind.
    pub fn new(config: &SourceConfig) -> Option<Self> {
        let SourceKind::Consul {
            access,
            datacenter,
            namespace,
            partition,
            tags,
            passing,
            max_watches,
        } = &config.kind
        else {
            return None;
        };
        let mapped = namespace
            .as_deref()
            .and_then(|name| Namespace::new(name).ok());
        Some(Self {
            id: config.id.clone(),
            access: access.clone(),
            only: config.services.clone().map(Arc::new),
            max_watches: *max_watches,
            scope: Scope {
                datacenter: datacenter.clone(),
                namespace: namespace.clone(),
                partition: partition.clone(),
                pick: parse::Pick {
                    tags: tags.clone(),
                    passing: *passing,
                },
                mapped: mapped.unwrap_or_default(),
                written: Arc::default(),
            },
        })
    }
}

impl Scope {
    fn written(&self) -> MutexGuard<'_, parse::Written> {
        self.written.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn query(&self, path: &str, ask: Ask) -> String {
        let mut text = format!("{path}?");
        if ask.stale {
            text.push_str("stale&");
        }
        if let Some((index, wait)) = ask.after {
            let _infallible = write!(text, "index={index}&wait={}ms&", wait.as_millis());
        }
        for (name, value) in [
            ("dc", &self.datacenter),
            ("ns", &self.namespace),
            ("partition", &self.partition),
        ] {
            if let Some(value) = value {
                let _infallible = write!(text, "{name}={}&", escaped(value));
            }
        }
        text.pop();
        text
    }
}

impl Dialect for Scope {
    fn fields(&self) -> &'static str {
        "x-consul-"
    }
    fn names(&self, ask: Ask) -> String {
        self.query("/v1/catalog/services", ask)
    }
    fn service(&self, key: &ServiceKey, ask: Ask) -> String {
        let written = self.written().get(key).cloned();
        let name = written.as_deref().unwrap_or(key.name.as_str());
        self.query(&format!("/v1/health/service/{}", escaped(name)), ask)
    }
    fn unwell(&self, ask: Ask) -> Option<String> {
        let text = self.query("/v1/health/state/any", ask);
        let next = if text.contains('?') { '&' } else { '?' };
        Some(format!(
            "{text}{next}filter={}",
            escaped("Status != \"passing\"")
        ))
    }
    fn read_unwell(&self, body: &[u8]) -> Result<Unwell, String> {
        parse::unwell(body, &self.mapped)
    }
    fn read_names(&self, body: &[u8]) -> Result<Names, String> {
        let (names, written) = parse::names(body, &self.mapped)?;
        // A list of a server that is behind takes no name away: its service may still be asked for.
        let mut known = self.written();
        known.retain(|key, _| written.contains_key(key) || !names.keys.contains(key));
        known.extend(written);
        Ok(names)
    }
    fn read_service(&self, _key: &ServiceKey, body: &[u8]) -> Result<Instances, String> {
        parse::instances(body, &self.pick)
    }
    fn may_be_empty(&self, _index: u64) -> bool {
        // Consul lists itself in the default namespace of the default partition.
        let other = |part: &Option<String>| part.as_deref().is_some_and(|name| name != "default");
        other(&self.namespace) || other(&self.partition)
    }
    fn owns(&self, key: &ServiceKey) -> bool {
        key.namespace.as_ref() == Some(&self.mapped)
    }
}

#[async_trait]
impl Source for ConsulSource {
    fn id(&self) -> &str {
        &self.id
    }
    fn capabilities(&self) -> Capabilities {
        Capabilities {
            reach: Reach::OnDemand,
            pushes: true,
            health: true,
            weights: true,
            latency: Duration::from_millis(10),
        }
    }
    async fn run(
        &mut self,
        out: Sink,
        demand: Demand,
        _stop: CancellationToken,
    ) -> Result<Infallible, SourceError> {
        let credential = Credential::Field(HeaderName::from_static("x-consul-token"));
        let client = Client::new(&self.access, credential)?.sharing();
        longpoll::run(
            Arc::new(self.scope.clone()),
            client,
            self.only.clone(),
            self.max_watches,
            out,
            demand,
        )
        .await
    }
}
