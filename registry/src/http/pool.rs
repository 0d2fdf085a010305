//! Connections that are used again: one request at a time, or many where HTTP/2 is spoken.
//!
//! In: what was dialled. Out: a [`Connection`] that may take a request now. Never: more requests on a connection
//! than every server takes, or a request on one that has failed another.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use http::{Request, Response, Uri, header};
use http_body_util::Full;
use hyper::{
    body::Incoming,
    client::conn::{http1, http2},
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::{
    HttpError,
    dial::{Sender, Target},
};

/// Connections that wait for the next request.
const MAX_IDLE: usize = 256;
/// Requests at a time on a connection of HTTP/2: what the standard asks of every server at least, and proxies
/// give no more. Go's servers, Consul's and Nomad's among them, take 250.
pub(super) const MAX_STREAMS: usize = 100;

/// A connection that takes a request now.
#[derive(Debug)]
pub(super) struct Connection {
    at: usize,
    generation: u64,
    way: Way,
}

#[derive(Debug)]
enum Way {
    One(http1::SendRequest<Full<Bytes>>),
    Many {
        sender: http2::SendRequest<Full<Bytes>>,
        free: Arc<Semaphore>,
        /// This request's place on it.
        _place: Option<OwnedSemaphorePermit>,
    },
}

impl Connection {
    /// Sends the request; the head of its answer.
    pub(super) async fn send(
        &mut self,
        target: &Target,
        mut request: Request<Full<Bytes>>,
    ) -> Result<Response<Incoming>, HttpError> {
        let sent = match &mut self.way {
            Way::One(sender) => sender.send_request(request).await,
            Way::Many { sender, .. } => {
                whole_address(target, &mut request)?;
                sender.send_request(request).await
            }
        };
        sent.map_err(HttpError::Broken)
    }
}

/// HTTP/2 has scheme and authority where HTTP/1.1 has the field `Host`.
fn whole_address(target: &Target, request: &mut Request<Full<Bytes>>) -> Result<(), HttpError> {
    let path = request
        .uri()
        .path_and_query()
        .map_or("/", |path| path.as_str());
    let address = Uri::builder()
        .scheme("https")
        .authority(&*target.authority)
        .path_and_query(path)
        .build();
    let address = address.map_err(|_invalid| HttpError::Request(path.to_owned()))?;
    *request.uri_mut() = address;
    request.headers_mut().remove(header::HOST);
    Ok(())
}

/// A connection of HTTP/2, and the places that are free on it.
#[derive(Debug)]
struct Shared {
    at: usize,
    generation: u64,
    sender: http2::SendRequest<Full<Bytes>>,
    free: Arc<Semaphore>,
}

#[derive(Debug, Default)]
struct Kept {
    idle: Vec<(usize, u64, http1::SendRequest<Full<Bytes>>)>,
    shared: Vec<Shared>,
}

/// The connections of one client.
#[derive(Debug, Default)]
pub(super) struct Pool(Mutex<Kept>);

impl Pool {
    /// One to the address `at`, made with the certificates of `generation`.
    pub(super) fn take(&self, at: usize, generation: u64) -> Option<Connection> {
        let mut kept = self.kept();
        kept.idle
            .retain(|(_, made, sender)| *made == generation && !sender.is_closed());
        kept.shared
            .retain(|one| one.generation == generation && !one.sender.is_closed());
        let mut shared = kept.shared.iter().filter(|one| one.at == at);
        if let Some(way) = shared.find_map(Shared::place) {
            return Some(Connection {
                at,
                generation,
                way,
            });
        }
        let place = kept
            .idle
            .iter()
            .rposition(|(of, _, sender)| *of == at && sender.is_ready())?;
        Some(Connection {
            at,
            generation,
            way: Way::One(kept.idle.swap_remove(place).2),
        })
    }

    /// A new one, for its first request.
    pub(super) fn add(&self, at: usize, generation: u64, sender: Sender) -> Connection {
        let way = match sender {
            Sender::One(sender) => Way::One(sender),
            Sender::Many(sender) => {
                let free = Arc::new(Semaphore::new(MAX_STREAMS));
                let way = Way::Many {
                    _place: Arc::clone(&free).try_acquire_owned().ok(),
                    sender: sender.clone(),
                    free: Arc::clone(&free),
                };
                self.kept().shared.push(Shared {
                    at,
                    generation,
                    sender,
                    free,
                });
                way
            }
        };
        Connection {
            at,
            generation,
            way,
        }
    }

    /// The answer was read: the next request may use it.
    pub(super) fn keep(&self, connection: Connection) {
        // A place on a shared one is free when this is dropped.
        let Way::One(sender) = connection.way else {
            return;
        };
        let mut kept = self.kept();
        if kept.idle.len() < MAX_IDLE && !sender.is_closed() {
            kept.idle
                .push((connection.at, connection.generation, sender));
        }
    }

    /// A request failed on it: no other one shall. Those that are on their way go on.
    pub(super) fn spoiled(&self, connection: &Connection) {
        if let Way::Many { free, .. } = &connection.way {
            let mut kept = self.kept();
            kept.shared.retain(|one| !Arc::ptr_eq(&one.free, free));
        }
    }

    /// Forgets all of them.
    pub(super) fn clear(&self) {
        let mut kept = self.kept();
        kept.idle.clear();
        kept.shared.clear();
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shared {
    fn place(&self) -> Option<Way> {
        Some(Way::Many {
            _place: Some(Arc::clone(&self.free).try_acquire_owned().ok()?),
            sender: self.sender.clone(),
            free: Arc::clone(&self.free),
        })
    }
}

#[cfg(test)]
mod tests;
