//! Netflix Eureka as a source: the whole registry once, then deltas that its own hash confirms.
//!
//! In: `/apps`, `/apps/delta`. Out: whole sets, one per application and per virtual name. Never: believes a
//! server that has forgotten most of what it had before it had time to be told again, an error, or a delta
//! whose hash does not come out.

use std::{collections::BTreeSet, convert::Infallible, sync::Arc, time::Duration};

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

/// A scripted server.
#[cfg(test)]
mod fake;
/// The fields of an instance.
mod fields;
/// Full reads and deltas, one after the other.
mod poll;
/// Answers to instances.
mod read;
/// Announces to it.
mod registrar;
/// What deltas keep.
mod state;
#[cfg(test)]
mod tests;

pub use registrar::EurekaRegistrar;

use poll::Poller;

/// Eureka.
#[derive(Debug)]
pub struct EurekaSource {
    id: String,
    access: Access,
    only: Option<Arc<BTreeSet<ServiceName>>>,
    poll: Duration,
    secure: bool,
}

impl EurekaSource {
    /// Nothing is read yet; `None` when the settings are of another kind.
    pub fn new(config: &SourceConfig) -> Option<Self> {
        let SourceKind::Eureka {
            access,
            zone,
            poll,
            secure_port,
        } = &config.kind
        else {
            return None;
        };
        Some(Self {
            id: config.id.clone(),
            access: nearest_first(access, zone.as_deref()),
            only: config.services.clone().map(Arc::new),
            poll: *poll,
            secure: *secure_port,
        })
    }
}

/// Servers whose host name has the zone as one of its parts, as Netflix names them, go first.
pub(crate) fn nearest_first(access: &Access, zone: Option<&str>) -> Access {
    let mut access = access.clone();
    if let Some(zone) = zone {
        let is_far = |address: &String| {
            let rest = address
                .split_once("://")
                .map_or(&**address, |(_, rest)| rest);
            let host = rest.split(['/', ':']).next().unwrap_or_default();
            !host.split('.').any(|part| part.eq_ignore_ascii_case(zone))
        };
        access.addresses.sort_by_key(is_far);
    }
    access
}

#[async_trait]
impl Source for EurekaSource {
    fn id(&self) -> &str {
        &self.id
    }
    fn capabilities(&self) -> Capabilities {
        Capabilities {
            reach: Reach::All,
            pushes: false,
            health: true,
            weights: true,
            latency: self.poll,
        }
    }
    async fn run(
        &mut self,
        out: Sink,
        _demand: Demand,
        _stop: CancellationToken,
    ) -> Result<Infallible, SourceError> {
        let client = Client::new(&self.access, Credential::Authorization("Bearer "))?;
        let with_password = self.access.password_file.is_some();
        Poller::new(client, out, self.poll, self.secure, self.only.clone())
            .with_password(with_password)
            .run()
            .await
    }
}
