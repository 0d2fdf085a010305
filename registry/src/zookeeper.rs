//! `ZooKeeper`: one session room for server sets, leaders and Curator's service discovery.
//!
//! In: settings, a `Layout`. Out: a source that follows everything below a path.
//! Never: leaves a session behind that nobody uses, or takes the loss of one for a removal.

use std::{collections::BTreeSet, convert::Infallible, sync::Arc, time::Duration};

use async_trait::async_trait;
use mesh_model::{
    config::{Access, SourceConfig},
    name::ServiceName,
};
use tokio_util::sync::CancellationToken;

use crate::{
    demand::Demand,
    sink::Sink,
    source::{Capabilities, Reach, Source, SourceError},
};

/// Nodes that live with a session.
pub(crate) mod announce;
/// What is read below a path, as it changes.
mod follow;
/// The encoding of messages.
mod jute;
/// One connection to one server.
mod link;
/// Questions, answers, events.
mod message;
/// A scripted server.
#[cfg(test)]
pub(crate) mod scripted;
/// The credential.
mod secret;
/// Where an ensemble is.
mod servers;
/// A session over many connections.
pub(crate) mod session;
/// What is known below a path.
pub(crate) mod tree;

use follow::Follower;
#[cfg(test)]
pub(crate) use message::op;

/// A session's life without any word of ours; the server may choose another.
const LIFE: Duration = Duration::from_secs(12);

/// What stands in an ensemble below a path.
pub struct ZookeeperSource {
    id: String,
    access: Access,
    path: String,
    only: Option<Arc<BTreeSet<ServiceName>>>,
    layout: Arc<dyn tree::Layout>,
    weights: bool,
}

impl std::fmt::Debug for ZookeeperSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ZookeeperSource")
            .field("id", &self.id)
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}

impl ZookeeperSource {
    /// Nothing is read yet.
    pub(crate) fn new(
        config: &SourceConfig,
        access: &Access,
        path: &str,
        layout: Arc<dyn tree::Layout>,
        weights: bool,
    ) -> Self {
        Self {
            id: config.id.clone(),
            access: access.clone(),
            path: path.to_owned(),
            only: config.services.clone().map(Arc::new),
            layout,
            weights,
        }
    }
}

#[async_trait]
impl Source for ZookeeperSource {
    fn id(&self) -> &str {
        &self.id
    }
    fn capabilities(&self) -> Capabilities {
        Capabilities {
            reach: Reach::OnDemand,
            pushes: true,
            health: true,
            weights: self.weights,
            latency: Duration::from_millis(10),
        }
    }
    async fn run(
        &mut self,
        out: Sink,
        demand: Demand,
        _stop: CancellationToken,
    ) -> Result<Infallible, SourceError> {
        let session = session::session(&self.access, LIFE)?;
        let follower = Follower {
            layout: Arc::clone(&self.layout),
            base: format!("{}{}", session.chroot, self.path.trim_end_matches('/')),
            only: self.only.clone(),
            zk: session.zk,
            events: session.events,
            out,
            demand,
            state: follow::State::default(),
        };
        tokio::select! {
            () = session.driver.run() => Err(SourceError::Protocol {
                subject: self.path.clone(),
                what: "the session has ended".into(),
            }),
            error = follower.run() => Err(error),
        }
    }
}
