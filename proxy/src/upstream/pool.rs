//! HTTP/1 connections kept for the next exchange: on a stack per place, the last one used on top.

use std::{
    cell::RefCell,
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::BytesMut;
use foldhash::fast::RandomState;
use mesh_model::snapshot::EndpointKey;

use super::breaker::{Breaker, ConnectionPermit};
pub(crate) use super::place::Place;
use super::shared::Keys;
use crate::io::Io;

/// An HTTP/1.1 connection. Give it back only when the exchange ended cleanly and `buffer` is empty.
#[derive(Debug)]
pub(crate) struct H1Connection {
    /// The bytes.
    pub(crate) io: Io,
    /// Read but not used; empty when handed out.
    pub(crate) buffer: BytesMut,
    /// True when it carried requests before: it may have died unnoticed, an unanswered request may be sent anew.
    pub(crate) reused: bool,
    place: Place,
    retire_at: Instant,
    since: Instant,
    /// Requests that it carried.
    served: u32,
    terms: Terms,
}

/// What a backend's policy says of its connections.
#[derive(Debug, Default)]
pub(crate) struct Terms {
    /// Longest time without a request; `None`: the daemon's.
    pub(crate) idle: Option<Duration>,
    /// Requests after which it is closed; 0: no limit.
    pub(crate) requests: u32,
    /// Its place among the backend's connections, where those are limited.
    pub(crate) permit: Option<ConnectionPermit>,
}

impl H1Connection {
    /// A new one.
    pub(crate) fn new(io: Io, place: Place, retire_at: Instant, terms: Terms) -> Self {
        let buffer = BytesMut::new();
        Self {
            io,
            buffer,
            reused: false,
            place,
            retire_at,
            since: Instant::now(),
            served: 1,
            terms,
        }
    }

    /// Its place among the backend's connections.
    pub(crate) fn permit(&self) -> Option<&ConnectionPermit> {
        self.terms.permit.as_ref()
    }

    /// Gives it another place among a backend's connections.
    pub(crate) fn set_permit(&mut self, permit: ConnectionPermit) {
        self.terms.permit = Some(permit);
    }

    fn is_used_up(&self) -> bool {
        self.terms.requests > 0 && self.served >= self.terms.requests
    }

    fn is_wanted_elsewhere(&self) -> bool {
        let breaker = self.permit().and_then(ConnectionPermit::breaker);
        breaker.is_some_and(|breaker| breaker.is_wanted())
    }
}

/// HTTP/1 connections that nobody uses now.
#[derive(Debug)]
#[expect(
    clippy::vec_box,
    reason = "connections move in and out whole, without being copied"
)]
pub(crate) struct Idle {
    worker: usize,
    most: usize,
    longest: Duration,
    stacks: RefCell<HashMap<Place, Vec<Box<H1Connection>>, RandomState>>,
}

impl Idle {
    /// Keeps at most `most` for one place, each at most `longest`, of the worker with this number.
    pub(crate) fn new(worker: usize, most: usize, longest: Duration) -> Self {
        Self {
            worker,
            most,
            longest,
            stacks: RefCell::default(),
        }
    }

    /// The one used last that is still open and silent.
    pub(crate) fn take(&self, place: &Place) -> Option<Box<H1Connection>> {
        let mut stacks = self.stacks.borrow_mut();
        let stack = stacks.get_mut(place)?;
        while let Some(mut connection) = stack.pop() {
            connection.reused = true;
            connection.served = connection.served.saturating_add(1);
            // Without a limit of its own the tidying sees to it.
            let idle = connection.terms.idle;
            let fresh = idle.is_none_or(|longest| connection.since.elapsed() < longest);
            if fresh && is_silent(&mut connection.io) {
                return Some(connection);
            }
        }
        None
    }

    /// Keeps one; dropped when it is too old, has stray bytes, or there are enough.
    pub(crate) fn keep(&self, mut connection: Box<H1Connection>) {
        let now = Instant::now();
        if !connection.buffer.is_empty() || connection.retire_at <= now || connection.is_used_up() {
            return;
        }
        // Whoever waits longest gets it, or its place among the backend's connections.
        if connection.is_wanted_elsewhere()
            && let Some(breaker) = connection.permit().and_then(ConnectionPermit::breaker)
            && !breaker.hand_over(self.worker, &connection.place)
        {
            return;
        }
        connection.buffer = BytesMut::new();
        connection.since = now;
        let mut stacks = self.stacks.borrow_mut();
        let stack = match stacks.get_mut(&connection.place) {
            Some(stack) => stack,
            None => stacks.entry(connection.place.clone()).or_default(),
        };
        if stack.len() < self.most {
            stack.push(connection);
        }
    }

    /// Lets go of those that were idle too long, that the other end closed, or whose places others wait for: whoever
    /// was told of one may have gone away.
    pub(crate) fn tidy(&self) {
        let now = Instant::now();
        self.stacks.borrow_mut().retain(|_, stack| {
            stack.retain_mut(|kept| {
                now.duration_since(kept.since) < kept.terms.idle.unwrap_or(self.longest)
                    && kept.retire_at > now
                    && !kept.is_wanted_elsewhere()
                    && is_silent(&mut kept.io)
            });
            !stack.is_empty()
        });
    }

    /// Lets go of connections whose places others wait for.
    pub(crate) fn relieve(&self) {
        self.stacks.borrow_mut().retain(|_, stack| {
            stack.retain(|kept| !kept.is_wanted_elsewhere());
            !stack.is_empty()
        });
    }

    /// Lets go of one connection of a backend; false: there is none.
    pub(crate) fn make_room(&self, breaker: &Arc<Breaker>) -> bool {
        let of = |kept: &H1Connection| kept.permit().is_some_and(|permit| permit.is_of(breaker));
        let mut stacks = self.stacks.borrow_mut();
        stacks.values_mut().any(|stack| {
            let found = stack.iter().position(|kept| of(kept));
            found.map(|index| stack.remove(index)).is_some()
        })
    }

    /// Lets go of connections to endpoints that are no more.
    pub(crate) fn retire(&self, endpoints: &Keys) {
        let known = |key: EndpointKey| endpoints.contains(&key);
        self.stacks
            .borrow_mut()
            .retain(|place, _| place.endpoint().is_none_or(known));
    }
}

/// True when nothing can be read: neither stray bytes nor an end.
fn is_silent(io: &mut Io) -> bool {
    match io {
        Io::Tcp(stream) => {
            let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
            // Pending: the kernel reported nothing since the last read, no system call is needed.
            if stream.poll_read_ready(&mut cx).is_pending() {
                return true;
            }
            let mut byte = [0];
            matches!(stream.try_read(&mut byte), Err(error) if error.kind() == std::io::ErrorKind::WouldBlock)
        }
        Io::Tls(_) => false,
        Io::Stream(stream) => stream.is_silent(),
    }
}

#[cfg(test)]
mod tests {
    use std::{
        future::Future as _,
        pin::pin,
        task::{Context, Poll, Waker},
    };

    use mesh_model::snapshot::traffic::CircuitLimits;
    use tokio::net::{TcpListener, TcpStream};

    use super::*;
    use crate::upstream::breaker::{Granted, Spot};

    /// A connection was kept for one who went away before it took it: those who wait elsewhere get its place.
    #[tokio::test]
    async fn what_nobody_fetches_is_given_up() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).await;
        let breaker = Arc::new(Breaker::default());
        let limits = CircuitLimits {
            max_connections: 1,
            ..CircuitLimits::default()
        };
        let (place, hour) = (Place::Endpoint(EndpointKey(1)), Duration::from_hours(1));
        let terms = Terms {
            permit: breaker.open(&limits),
            ..Terms::default()
        };
        let io = Io::Tcp(stream.unwrap());
        let used = H1Connection::new(io, place.clone(), Instant::now() + hour, terms);
        let idle = Idle::new(0, 8, hour);
        let spot = |worker| Spot {
            worker,
            place: Some(place.clone()),
        };
        let mut here = breaker.queue(&limits, spot(0)).unwrap();
        let mut there = breaker.queue(&limits, spot(1)).unwrap();
        let mut cx = Context::from_waker(Waker::noop());
        let mut waits = pin!(there.turn(|| {}));
        {
            let mut goes = pin!(here.turn(|| {}));
            assert!(goes.as_mut().poll(&mut cx).is_pending());
            assert!(waits.as_mut().poll(&mut cx).is_pending());
            idle.keep(Box::new(used));
        }
        drop(here);
        assert!(waits.as_mut().poll(&mut cx).is_pending());
        idle.tidy();
        let turn = waits.as_mut().poll(&mut cx);
        assert!(matches!(turn, Poll::Ready(Granted::Open(_))));
    }
}
