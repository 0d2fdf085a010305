//! etcd (API v3) as a source.
//!
//! In: every key below a prefix, read once at one revision and watched from there on. Out: whole sets of
//! the services that changed. Never: reads everything again where the watch can go on, trusts that it can
//! without asking, or drops what was read because of an error.

use std::{collections::BTreeSet, convert::Infallible, sync::Arc, time::Duration};

use async_trait::async_trait;
use mesh_model::{
    config::{Access, SourceConfig, SourceKind},
    name::ServiceName,
};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::{
    backoff::Backoff,
    demand::Demand,
    sink::Sink,
    source::{Capabilities, Reach, Source, SourceError},
    status::SourceStatus,
};

/// What etcd's errors mean.
mod failure;
#[cfg(test)]
mod fake;
/// How services are written.
mod layout;
/// Signs of life.
mod life;
/// Connections.
mod link;
/// Announces instances.
mod registrar;
/// One connection's work.
mod session;
/// What stands below the prefix.
mod table;
#[cfg(test)]
mod tests;

pub use registrar::EtcdRegistrar;

use layout::Layout;
use link::Dialer;
use session::{Progress, Session};
use table::Table;

/// Between two attempts: short, since what is lost is one connection, and jittered over that time.
const WAITS: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(3));
/// A session that lasted this long was good: the next wait starts small again.
const GOOD: Duration = Duration::from_secs(10);

/// etcd.
#[derive(Debug)]
pub struct EtcdSource {
    id: String,
    access: Access,
    layout: Layout,
    only: Option<Arc<BTreeSet<ServiceName>>>,
}

impl EtcdSource {
    /// Nothing is read yet; `None` when the settings are of another kind.
    pub fn new(config: &SourceConfig) -> Option<Self> {
        let SourceKind::Etcd {
            access,
            layout,
            prefix,
        } = &config.kind
        else {
            return None;
        };
        Some(Self {
            id: config.id.clone(),
            access: access.clone(),
            layout: Layout::new(*layout, prefix),
            only: config.services.clone().map(Arc::new),
        })
    }
}

#[async_trait]
impl Source for EtcdSource {
    fn id(&self) -> &str {
        &self.id
    }
    fn capabilities(&self) -> Capabilities {
        Capabilities {
            reach: Reach::All,
            pushes: true,
            health: true,
            weights: true,
            latency: Duration::from_millis(5),
        }
    }
    async fn run(
        &mut self,
        out: Sink,
        _demand: Demand,
        _stop: CancellationToken,
    ) -> Result<Infallible, SourceError> {
        let mut dialer = Dialer::new(&self.access)?;
        let mut progress = Progress {
            table: Table::new(self.layout.clone(), self.only.clone()),
            position: None,
            told: None,
        };
        let mut waits = Backoff::new(WAITS.0, WAITS.1);
        // The table outlives a connection: that is what the watch goes on from.
        loop {
            let began = Instant::now();
            let error = match Box::pin(dialer.connect()).await {
                Err(error) => error,
                Ok(link) => {
                    let session = Session::new(&link, &mut progress, &out);
                    let Err(error) = Box::pin(session.run()).await;
                    dialer.leave();
                    error
                }
            };
            tracing::debug!(source = %self.id, %error, "etcd session ended");
            let status = SourceStatus::from(&error);
            progress.told = Some(status.clone());
            out.status(status);
            if began.elapsed() >= GOOD {
                waits.reset();
            }
            tokio::time::sleep(waits.next(fastrand::f64())).await;
        }
    }
}
