//! Marathon as a source: its applications whole, its events as hints.
//!
//! In: `/v2/apps` with tasks, `/v2/events`, `/v2/leader`. Out: whole sets, one per application or stated name.
//! Never: believes an event, or that an application is gone before Marathon says so when asked for it.

use std::{collections::BTreeSet, convert::Infallible, sync::Arc};

use async_trait::async_trait;
use mesh_model::{
    config::{Access, SourceConfig, SourceKind},
    name::ServiceName,
};
use tokio_util::sync::CancellationToken;

use crate::{
    demand::Demand,
    http::{Client, Credential},
    sink::Sink,
    source::{Capabilities, Reach, Source, SourceError},
};

/// Events to hints.
mod events;
/// A scripted server.
#[cfg(any(test, feature = "contract"))]
pub(crate) mod fake;
/// Fields of its JSON.
mod fields;
/// Lists, single reads and hints, in their order.
mod follow;
/// The stream of events, and the leader.
mod hints;
/// Where tasks listen.
mod ports;
/// Applications to services.
mod read;
#[cfg(test)]
mod tests;

use read::Taste;

/// Marathon.
#[derive(Debug)]
pub struct MarathonSource {
    id: String,
    access: Access,
    only: Option<Arc<BTreeSet<ServiceName>>>,
    taste: Taste,
}

impl MarathonSource {
    /// Nothing is read yet; `None` when the settings are of another kind.
    pub fn new(config: &SourceConfig) -> Option<Self> {
        let SourceKind::Marathon {
            access,
            prefix,
            port_index,
        } = &config.kind
        else {
            return None;
        };
        Some(Self {
            id: config.id.clone(),
            access: access.clone(),
            only: config.services.clone().map(Arc::new),
            taste: Taste {
                prefix: prefix.trim_end_matches('/').to_owned(),
                port_index: *port_index,
            },
        })
    }
}

#[async_trait]
impl Source for MarathonSource {
    fn id(&self) -> &str {
        &self.id
    }
    fn capabilities(&self) -> Capabilities {
        Capabilities {
            reach: Reach::All,
            pushes: true,
            health: true,
            weights: false,
            latency: follow::COALESCE,
        }
    }
    async fn run(
        &mut self,
        out: Sink,
        _demand: Demand,
        _stop: CancellationToken,
    ) -> Result<Infallible, SourceError> {
        // The word of DC/OS.
        let client = Client::new(&self.access, Credential::Authorization("token="))?;
        let guarded = self.access.token_file.is_some() || self.access.password_file.is_some();
        follow::run(client, out, self.taste.clone(), self.only.clone(), guarded).await
    }
}
