//! Registries that nobody can install, as HTTP servers on a free port of loopback: what the laws are held against
//! there, and what a benchmark can read.
//!
//! In: services with their ports. Out: an address that speaks as the registry does. They live in the runtime that
//! starts them, and end with it.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
};

use crate::{longpoll, marathon};

/// Whose words are spoken.
enum Server {
    Nomad(longpoll::fake::Fake),
    Marathon(marathon::fake::Fake),
}

/// One that runs.
pub struct Scripted {
    server: Server,
    /// The ports of each service.
    known: Mutex<BTreeMap<String, Vec<u16>>>,
}

impl std::fmt::Debug for Scripted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Scripted")
            .field("url", &self.url())
            .finish_non_exhaustive()
    }
}

impl Scripted {
    /// Nomad's service registry, after the recorded answers of a real agent: questions that wait, and events.
    pub fn nomad() -> Self {
        Self::of(Server::Nomad(longpoll::fake::Fake::start(
            longpoll::fake::Kind::Nomad,
        )))
    }

    /// Marathon, after its published API: applications with tasks, and events.
    pub fn marathon() -> Self {
        Self::of(Server::Marathon(marathon::fake::Fake::start(None)))
    }

    fn of(server: Server) -> Self {
        Self {
            server,
            known: Mutex::default(),
        }
    }

    /// Where it listens, as sources have it.
    pub fn url(&self) -> String {
        match &self.server {
            Server::Nomad(fake) => fake.address.clone(),
            Server::Marathon(fake) => format!("http://{}", fake.stage.address),
        }
    }

    /// One more healthy instance of a service, at this port of 10.0.0.1; it is there when this returns.
    pub fn add(&self, service: &str, port: u16) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let ports = known.entry(service.to_owned()).or_default();
        ports.push(port);
        match &self.server {
            Server::Nomad(fake) => {
                let all: Vec<_> = ports.iter().map(|port| (*port, true)).collect();
                fake.put(service, &all);
            }
            Server::Marathon(fake) => {
                let one = |port: &u16| marathon::fake::task(service, "10.0.0.1", *port, true);
                let tasks: Vec<_> = ports.iter().map(one).collect();
                fake.put(marathon::fake::app(service, &tasks));
            }
        }
    }
}
