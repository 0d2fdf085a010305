//! Announces this host's services to a registry: registered, renewed with their health, drained, taken out.
//!
//! To add a registrar: 1. a file `<kind>/registrar.rs` that implements `Registrar`; 2. an arm in `open.rs`;
//! 3. a test against the real server: registered, health passed on, drained, gone after `Registrar::deregister`,
//! expired after its process was killed, there again after the registry lost its memory.
//!
//! In: `Announced` instances, as they change. Out: writes, and a row per instance with its state.
//! Never: leaves a registration that does not expire when this process is killed.

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc, time::Duration};

use async_trait::async_trait;
use mesh_model::{
    endpoint::{Health, Locality},
    name::ServiceId,
    service::AppProtocol,
};

use crate::source::SourceError;

/// Keeps the registrations in step with what is wanted.
mod announce;
/// When what is due.
mod course;

pub use announce::{AnnounceRow, Announcer};

/// One instance of a service of this host, as a registry is told of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Registration {
    /// `<host>-<service>-<port>`: the same after every restart, so that registering again replaces.
    pub id: String,
    /// The service; registries without namespaces get its name alone.
    pub service: ServiceId,
    /// Where others reach it.
    pub address: SocketAddr,
    /// What is spoken there.
    pub protocol: AppProtocol,
    /// Relative share, at least 1.
    pub weight: u32,
    /// Where the host is.
    pub locality: Locality,
    /// Labels of the service, for metadata.
    pub labels: BTreeMap<String, String>,
}

impl Registration {
    /// The id of the port of a service on a host. What a registry might not take becomes `-`.
    pub fn id_of(host: &str, service: &ServiceId, port: u16) -> String {
        let word = |text: &str| text.replace(|c: char| !c.is_ascii_alphanumeric(), "-");
        let namespace = service.namespace.as_str();
        let apart = if namespace == "default" {
            String::new()
        } else {
            format!("{namespace}-")
        };
        format!("{}-{apart}{}-{port}", word(host), service.name)
    }
}

/// An instance that should be registered, and how it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Announced {
    /// The instance.
    pub registration: Registration,
    /// Its health as this host knows it.
    pub health: Health,
    /// True: it finishes what it has and wants nothing new.
    pub draining: bool,
}

/// A registration that stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// The instance.
    pub of: Arc<Registration>,
    /// What the registry gave for it: the number of a lease, the path of a node. Empty where the id is enough.
    pub mark: String,
}

/// What became of a registration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Renewal {
    /// It stands.
    Kept,
    /// The registry does not know it any more, or has something else: register it again.
    Lost,
}

/// One registry that takes registrations. Each call is bounded in time and may be repeated.
#[async_trait]
pub trait Registrar: Send + Sync {
    /// How long a registration lives that nobody renews: what a crash leaves behind at most.
    fn life(&self) -> Duration;
    /// Registers the instance or replaces it; in a state that sends no requests to one that is not well.
    async fn register(&self, of: &Arc<Registration>, health: Health) -> Result<Lease, SourceError>;
    /// Puts a changed instance, which has the same id, in the place of an old one. Where the id is the key,
    /// registering is enough.
    async fn replace(
        &self,
        old: Lease,
        of: &Arc<Registration>,
        health: Health,
    ) -> Result<Lease, SourceError> {
        self.deregister(old).await?;
        self.register(of, health).await
    }
    /// Renews it and passes its health on.
    async fn renew(&self, lease: &Lease, health: Health) -> Result<Renewal, SourceError>;
    /// Takes it out of use, where the registry has a word for that; it stays registered.
    async fn drain(&self, lease: &Lease) -> Result<(), SourceError>;
    /// Removes it.
    async fn deregister(&self, lease: Lease) -> Result<(), SourceError>;
}

#[cfg(test)]
pub(crate) mod tests;
