//! Nomad's own service registry as a source.
//!
//! In: the list of `/v1/services`, each service of `/v1/service`, the event stream as a hint. Out: whole sets
//! without health or weight: Nomad knows neither here. Never: believes index 0, or silence.

use std::{collections::BTreeSet, convert::Infallible, fmt::Write, sync::Arc, time::Duration};

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
    longpoll::{self, Ask, Dialect, Instances, Names},
    place::escaped,
    sink::Sink,
    source::{Capabilities, Reach, Source, SourceError},
};

/// Answers to services.
pub(crate) mod parse;
#[cfg(test)]
mod tests;

#[derive(Debug, Clone)]
struct Scope {
    region: Option<String>,
    /// `*`: all that the token may see.
    namespace: String,
}

/// Nomad.
#[derive(Debug)]
pub struct NomadSource {
    id: String,
    access: Access,
    only: Option<Arc<BTreeSet<ServiceName>>>,
    max_watches: u16,
    scope: Scope,
}

impl NomadSource {
    /// Nothing is read yet; `None` when the settings are of another kind.
    pub fn new(config: &SourceConfig) -> Option<Self> {
        let SourceKind::Nomad {
            access,
            region,
            namespace,
            max_watches,
        } = &config.kind
        else {
            return None;
        };
        Some(Self {
            id: config.id.clone(),
            access: access.clone(),
            only: config.services.clone().map(Arc::new),
            max_watches: *max_watches,
            scope: Scope {
                region: region.clone(),
                namespace: namespace.clone(),
            },
        })
    }
}

impl Scope {
    fn query(&self, path: &str, namespace: &str, ask: Ask) -> String {
        let mut text = format!("{path}?namespace={}", escaped(namespace));
        if let Some(region) = &self.region {
            let _infallible = write!(text, "&region={}", escaped(region));
        }
        if ask.stale {
            text.push_str("&stale=true");
        }
        if let Some((index, wait)) = ask.after {
            let _infallible = write!(text, "&index={index}&wait={}ms", wait.as_millis());
        }
        text
    }
}

impl Dialect for Scope {
    fn fields(&self) -> &'static str {
        "x-nomad-"
    }
    fn names(&self, ask: Ask) -> String {
        self.query("/v1/services", &self.namespace, ask)
    }
    fn service(&self, key: &ServiceKey, ask: Ask) -> String {
        let namespace = key.namespace.as_ref().map_or("default", Namespace::as_str);
        self.query(&format!("/v1/service/{}", key.name), namespace, ask)
    }
    fn events(&self) -> Option<String> {
        Some(format!(
            "{}&topic=Service",
            self.query("/v1/event/stream", &self.namespace, Ask::SURELY)
        ))
    }
    fn changed(&self, line: &[u8]) -> Vec<ServiceKey> {
        parse::changed(line)
    }
    fn read_names(&self, body: &[u8]) -> Result<Names, String> {
        parse::names(body)
    }
    fn read_service(&self, _key: &ServiceKey, body: &[u8]) -> Result<Instances, String> {
        parse::instances(body)
    }
    fn may_be_empty(&self, index: u64) -> bool {
        index > 0
    }
    fn owns(&self, key: &ServiceKey) -> bool {
        self.namespace == "*"
            || key
                .namespace
                .as_ref()
                .is_some_and(|name| name.as_str() == self.namespace)
    }
}

#[async_trait]
impl Source for NomadSource {
    fn id(&self) -> &str {
        &self.id
    }
    fn capabilities(&self) -> Capabilities {
        Capabilities {
            reach: Reach::OnDemand,
            pushes: true,
            health: false,
            weights: false,
            latency: Duration::from_millis(20),
        }
    }
    async fn run(
        &mut self,
        out: Sink,
        demand: Demand,
        _stop: CancellationToken,
    ) -> Result<Infallible, SourceError> {
        let credential = Credential::Field(HeaderName::from_static("x-nomad-token"));
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
