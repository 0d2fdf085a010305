//! A source in memory that misbehaves on demand, so that the contract suite is itself tested.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    sync::{Arc, Mutex, PoisonError},
};

use async_trait::async_trait;
use mesh_model::{
    address::Address,
    endpoint::{Endpoint, Health, ServiceKey},
    name::{Namespace, ServiceName},
};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::{
    demand::Demand,
    sink::Sink,
    source::{Capabilities, Reach, Source, SourceError},
    status::SourceStatus,
    version::Version,
};

/// An endpoint at 10.0.0.1 and the port.
pub fn endpoint(port: u16) -> Endpoint {
    let address = std::net::SocketAddr::from(([10, 0, 0, 1], port));
    Endpoint {
        id: Arc::from(address.to_string()),
        address: Address::Socket(address),
        health: Health::Unknown,
        weight: 1,
        priority: 0,
        locality: None,
        metadata: Arc::default(),
        host: None,
        tunnel: None,
    }
}

/// How the fake registry behaves now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Mood {
    /// Answers.
    #[default]
    Good,
    /// Answers nonsense.
    Garbage,
    /// Breaks the connection.
    Broken,
    /// Breaks off in the middle of a list.
    Partial,
    /// Refuses the credentials.
    Refusing,
    /// The client crashes on the answer.
    Panicking,
}

#[derive(Debug, Default)]
struct Content {
    services: BTreeMap<String, Vec<Endpoint>>,
    mood: Mood,
    index: u64,
}

/// The fake registry, seen from outside.
#[derive(Debug, Clone, Default)]
pub struct FakeRegistry(Arc<(Mutex<Content>, Notify)>);

impl FakeRegistry {
    /// Sets the whole content of a service.
    pub fn put(&self, name: &str, endpoints: Vec<Endpoint>) {
        self.change(|content| {
            content.services.insert(name.to_owned(), endpoints);
        });
    }
    /// Removes a service.
    pub fn remove(&self, name: &str) {
        self.change(|content| {
            content.services.remove(name);
        });
    }
    /// Behaves so from now on.
    pub fn mood(&self, mood: Mood) {
        self.change(|content| content.mood = mood);
    }
    /// A client of it.
    pub fn source(&self, id: &str) -> Box<dyn Source> {
        Box::new(FakeSource {
            id: id.to_owned(),
            registry: self.clone(),
        })
    }

    fn change(&self, change: impl FnOnce(&mut Content)) {
        let mut content = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        content.index += 1;
        change(&mut content);
        self.0.1.notify_one();
    }

    fn read(&self) -> (Mood, u64, BTreeMap<String, Vec<Endpoint>>) {
        let content = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        (content.mood, content.index, content.services.clone())
    }
}

#[derive(Debug)]
struct FakeSource {
    id: String,
    registry: FakeRegistry,
}

impl FakeSource {
    fn list(&self, out: &Sink) -> Result<(), SourceError> {
        let (mood, index, services) = self.registry.read();
        let mut sync = out.begin_sync();
        for (at, (name, endpoints)) in services.into_iter().enumerate() {
            if mood == Mood::Partial && at > 0 {
                break;
            }
            let Ok(name) = ServiceName::new(&name) else {
                continue;
            };
            let key = ServiceKey {
                namespace: Some(Namespace::default()),
                name,
                port_name: None,
            };
            sync.replace(key, endpoints, Version::Index(index));
        }
        match mood {
            Mood::Good => sync.commit(),
            Mood::Garbage => {
                out.unreadable();
                out.status(SourceStatus::Degraded {
                    error: "cannot understand the answer".into(),
                });
                return Ok(());
            }
            Mood::Broken | Mood::Partial => {
                return Err(SourceError::Transport {
                    subject: "fake".into(),
                    cause: std::io::Error::other("connection reset"),
                });
            }
            Mood::Refusing => return Err(SourceError::Auth("fake".into())),
            // A panic that the hook does not see: it is meant, and its trace would hide others in a log.
            Mood::Panicking => {
                std::panic::resume_unwind(Box::new("the fake client crashes, as told"))
            }
        }
        out.status(SourceStatus::Synced);
        Ok(())
    }
}

#[async_trait]
impl Source for FakeSource {
    fn id(&self) -> &str {
        &self.id
    }
    fn capabilities(&self) -> Capabilities {
        let latency = std::time::Duration::ZERO;
        Capabilities {
            reach: Reach::All,
            pushes: true,
            health: true,
            weights: true,
            latency,
        }
    }
    async fn run(
        &mut self,
        out: Sink,
        _demand: Demand,
        _stop: CancellationToken,
    ) -> Result<Infallible, SourceError> {
        loop {
            self.list(&out)?;
            tokio::select! {
                () = self.registry.0.1.notified() => {}
                () = out.recheck() => {}
            }
        }
    }
}
