//! Circuit breaking: what may be open, waiting or under way towards one backend from this host.
//!
//! Exact over all workers. Counted only where a policy sets a limit: a backend without one pays a comparison.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
};

use mesh_model::snapshot::traffic::CircuitLimits;
use tokio::sync::oneshot;

use super::place::Place;

/// Which limit of a backend's policy is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Full {
    /// All connections are in use, and nobody may wait; or none was free in time.
    #[error("the backend's limit of {0} connections is reached")]
    Connections(u32),
    /// Too many wait already.
    #[error("the backend's limit of {0} waiting requests is reached")]
    Pending(u32),
    /// Too many run already.
    #[error("the backend's limit of {0} requests under way is reached")]
    Requests(u32),
}

/// Waiters that may be served before the first one because a kept connection suits them better.
const PASSES: u8 = 16;

/// The counts of one backend.
#[derive(Debug, Default)]
pub(crate) struct Breaker {
    requests: AtomicU32,
    retries: AtomicU32,
    pending: AtomicU32,
    /// Length of the gate's queue, to be read without its lock.
    waiting: AtomicU32,
    gate: Mutex<Gate>,
}

#[derive(Debug, Default)]
struct Gate {
    open: u32,
    most: u32,
    tickets: u64,
    queue: BTreeMap<u64, Waiter>,
}

#[derive(Debug)]
struct Waiter {
    spot: Spot,
    /// How often others were served first.
    passed: u8,
    tell: oneshot::Sender<Granted>,
}

/// Who waits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Spot {
    /// The worker.
    pub(crate) worker: usize,
    /// What it could use a kept connection to; `None`: only one of its own will do.
    pub(crate) place: Option<Place>,
}

/// What a waiter gets.
#[derive(Debug)]
pub(crate) enum Granted {
    /// It may open a connection.
    Open(ConnectionPermit),
    /// A connection that suits it was given back to its worker's pool.
    Kept,
}

impl Breaker {
    /// A place among the requests under way.
    pub(crate) fn admit(self: &Arc<Self>, limits: &CircuitLimits) -> Result<Admitted, Full> {
        Held::take(self, limits.max_requests, |breaker| &breaker.requests)
            .map(Admitted)
            .map_err(|_full| Full::Requests(limits.max_requests))
    }

    /// A place among the retries under way.
    pub(crate) fn retry(self: &Arc<Self>, limits: &CircuitLimits) -> Option<RetryPermit> {
        Held::take(self, limits.max_retries, |breaker| &breaker.retries)
            .map(RetryPermit)
            .ok()
    }

    /// A place among those that wait.
    pub(crate) fn pending(self: &Arc<Self>, limits: &CircuitLimits) -> Result<Pending, Full> {
        let full = match limits.max_pending {
            0 => Full::Connections(limits.max_connections),
            most => Full::Pending(most),
        };
        Held::take(self, limits.max_pending, |breaker| &breaker.pending)
            .map(Pending)
            .map_err(|_full| full)
    }

    /// A place among the connections, unless others wait for one.
    pub(crate) fn open(self: &Arc<Self>, limits: &CircuitLimits) -> Option<ConnectionPermit> {
        let mut gate = self.gate();
        gate.most = limits.max_connections;
        (gate.queue.is_empty() && gate.enter()).then(|| ConnectionPermit(Some(Arc::clone(self))))
    }

    /// Joins those that wait for a connection.
    pub(crate) fn queue(
        self: &Arc<Self>,
        limits: &CircuitLimits,
        spot: Spot,
    ) -> Result<Waiting, Full> {
        let pending = self.pending(limits)?;
        let mut gate = self.gate();
        gate.tickets += 1;
        let ticket = gate.tickets;
        drop(gate);
        Ok(Waiting {
            breaker: Arc::clone(self),
            ticket,
            spot,
            _pending: pending,
        })
    }

    /// True while somebody waits for a connection.
    pub(crate) fn is_wanted(&self) -> bool {
        self.waiting.load(Relaxed) > 0
    }

    /// Tells somebody who waits on this worker for a connection to this place that one is at hand. False: nobody.
    pub(crate) fn hand_over(&self, worker: usize, place: &Place) -> bool {
        let mut gate = self.gate();
        loop {
            let suits = |waiter: &Waiter| {
                waiter.spot.worker == worker && waiter.spot.place.as_ref() == Some(place)
            };
            let found = gate.queue.iter().find(|(_, waiter)| suits(waiter));
            let Some(ticket) = found.map(|(ticket, _)| *ticket) else {
                return false;
            };
            if let Some(mut first) = gate.queue.first_entry()
                && *first.key() != ticket
            {
                let first = first.get_mut();
                if first.passed >= PASSES {
                    return false;
                }
                first.passed += 1;
            }
            let waiter = gate.queue.remove(&ticket);
            self.count(&gate);
            if waiter.is_some_and(|waiter| waiter.tell.send(Granted::Kept).is_ok()) {
                return true;
            }
        }
    }

    fn release(self: &Arc<Self>) {
        let mut gate = self.gate();
        gate.open = gate.open.saturating_sub(1);
        while gate.open < gate.most
            && let Some((_, waiter)) = gate.queue.pop_first()
        {
            gate.open += 1;
            let permit = ConnectionPermit(Some(Arc::clone(self)));
            match waiter.tell.send(Granted::Open(permit)) {
                Err(Granted::Open(mut permit)) => {
                    // Taken back by hand: the lock is held.
                    permit.0 = None;
                    gate.open -= 1;
                }
                Ok(()) | Err(Granted::Kept) => {}
            }
        }
        self.count(&gate);
    }

    fn count(&self, gate: &Gate) {
        let waiting = u32::try_from(gate.queue.len()).unwrap_or(u32::MAX);
        self.waiting.store(waiting, Relaxed);
    }

    fn gate(&self) -> MutexGuard<'_, Gate> {
        self.gate.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Gate {
    fn enter(&mut self) -> bool {
        let fits = self.open < self.most;
        self.open += u32::from(fits);
        fits
    }
}

/// One who waits for a connection; keeps its place in the queue until dropped.
#[derive(Debug)]
pub(crate) struct Waiting {
    breaker: Arc<Breaker>,
    ticket: u64,
    spot: Spot,
    _pending: Pending,
}

impl Waiting {
    /// Waits for its turn. May be asked again when what was [`Granted::Kept`] is gone. `asking` is called once it
    /// is in the queue.
    pub(crate) async fn turn(&mut self, asking: impl FnOnce()) -> Granted {
        let (tell, told) = oneshot::channel();
        if self.enter(tell) {
            return Granted::Open(ConnectionPermit(Some(Arc::clone(&self.breaker))));
        }
        asking();
        match told.await {
            Ok(granted) => granted,
            // Never closed without a word while this one is in the queue.
            Err(_closed) => std::future::pending().await,
        }
    }

    /// Takes a place that is free for the first; joins the queue otherwise.
    fn enter(&self, tell: oneshot::Sender<Granted>) -> bool {
        let mut gate = self.breaker.gate();
        let first = gate.queue.first_key_value();
        if first.is_none_or(|(first, _)| self.ticket < *first) && gate.enter() {
            return true;
        }
        let waiter = Waiter {
            spot: self.spot.clone(),
            passed: 0,
            tell,
        };
        gate.queue.insert(self.ticket, waiter);
        self.breaker.count(&gate);
        false
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let mut gate = self.breaker.gate();
        gate.queue.remove(&self.ticket);
        self.breaker.count(&gate);
    }
}

/// A place among a backend's connections; given back on drop.
#[derive(Debug)]
pub(crate) struct ConnectionPermit(Option<Arc<Breaker>>);

impl ConnectionPermit {
    /// True when it is a place of this backend.
    pub(crate) fn is_of(&self, breaker: &Arc<Breaker>) -> bool {
        self.0.as_ref().is_some_and(|own| Arc::ptr_eq(own, breaker))
    }

    /// The backend's counts.
    pub(crate) fn breaker(&self) -> Option<&Arc<Breaker>> {
        self.0.as_ref()
    }
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        if let Some(breaker) = self.0.take() {
            breaker.release();
        }
    }
}

type Counter = fn(&Breaker) -> &AtomicU32;

/// One of a bounded number; nothing where there is no bound.
#[derive(Debug)]
struct Held(Option<(Arc<Breaker>, Counter)>);

impl Held {
    fn take(breaker: &Arc<Breaker>, most: u32, counter: Counter) -> Result<Self, ()> {
        if most == u32::MAX {
            return Ok(Self(None));
        }
        let more = |count: u32| (count < most).then(|| count + 1);
        counter(breaker)
            .fetch_update(Relaxed, Relaxed, more)
            .map(|_before| Self(Some((Arc::clone(breaker), counter))))
            .map_err(|_full| ())
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if let Some((breaker, counter)) = self.0.take() {
            counter(&breaker).fetch_sub(1, Relaxed);
        }
    }
}

/// A place among a backend's requests under way; given back on drop. Keep it until the exchange has ended.
#[derive(Debug)]
#[must_use = "given back on drop"]
pub(crate) struct Admitted(#[expect(dead_code, reason = "acts on drop")] Held);

impl Admitted {
    /// Where there is no limit.
    pub(crate) fn free() -> Self {
        Self(Held(None))
    }
}

/// The right to one retry; given back on drop. Keep it until the retry's answer has ended.
#[derive(Debug)]
#[must_use = "given back on drop"]
pub(crate) struct RetryPermit(#[expect(dead_code, reason = "acts on drop")] Held);

/// A place among those that wait; given back on drop.
#[derive(Debug)]
pub(crate) struct Pending(#[expect(dead_code, reason = "acts on drop")] Held);

#[cfg(test)]
mod tests {
    use std::{
        future::Future,
        pin::pin,
        task::{Context, Poll, Waker},
    };

    use mesh_model::snapshot::EndpointKey;

    use super::*;

    fn limits(connections: u32, pending: u32) -> CircuitLimits {
        CircuitLimits {
            max_connections: connections,
            max_pending: pending,
            max_requests: 2,
            max_retries: 1,
        }
    }

    fn spot(worker: usize, key: u64) -> Spot {
        Spot {
            worker,
            place: Some(Place::Endpoint(EndpointKey(key))),
        }
    }

    fn now<T>(future: impl Future<Output = T>) -> Option<T> {
        match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(value) => Some(value),
            Poll::Pending => None,
        }
    }

    #[test]
    fn requests_and_retries() {
        let breaker = Arc::new(Breaker::default());
        let limits = limits(1, 1);
        let one = breaker.admit(&limits).unwrap();
        let two = breaker.admit(&limits).unwrap();
        assert_eq!(breaker.admit(&limits).unwrap_err(), Full::Requests(2));
        drop(one);
        let three = breaker.admit(&limits).unwrap();
        drop((two, three));
        assert_eq!(breaker.requests.load(Relaxed), 0);
        let retry = breaker.retry(&limits).unwrap();
        assert!(breaker.retry(&limits).is_none());
        drop(retry);
        assert!(breaker.retry(&limits).is_some());
        // Without limits nothing is counted.
        let free = CircuitLimits::default();
        let held = breaker.admit(&free).unwrap();
        assert_eq!(breaker.requests.load(Relaxed), 0);
        drop(held);
        assert_eq!(breaker.requests.load(Relaxed), 0);
    }

    #[test]
    fn who_waits_is_served_in_order() {
        let breaker = Arc::new(Breaker::default());
        let limits = limits(1, 2);
        let open = breaker.open(&limits).unwrap();
        assert!(breaker.open(&limits).is_none());
        let mut first = breaker.queue(&limits, spot(0, 1)).unwrap();
        let mut second = breaker.queue(&limits, spot(0, 2)).unwrap();
        assert_eq!(
            breaker.queue(&limits, spot(0, 3)).unwrap_err(),
            Full::Pending(2)
        );
        let mut cx = Context::from_waker(Waker::noop());
        let (mut one, mut two) = (pin!(first.turn(|| {})), pin!(second.turn(|| {})));
        assert!(two.as_mut().poll(&mut cx).is_pending());
        assert!(one.as_mut().poll(&mut cx).is_pending());
        assert!(breaker.is_wanted());
        drop(open);
        assert!(two.as_mut().poll(&mut cx).is_pending(), "not its turn");
        let Poll::Ready(Granted::Open(permit)) = one.as_mut().poll(&mut cx) else {
            panic!("its turn");
        };
        assert!(breaker.open(&limits).is_none(), "nobody overtakes");
        drop(permit);
        assert!(matches!(
            two.as_mut().poll(&mut cx),
            Poll::Ready(Granted::Open(_))
        ));
        assert!(!breaker.is_wanted());
    }

    #[test]
    fn who_gives_up_loses_nothing_for_others() {
        let breaker = Arc::new(Breaker::default());
        let limits = limits(1, 9);
        let open = breaker.open(&limits).unwrap();
        let mut one = breaker.queue(&limits, spot(0, 1)).unwrap();
        assert!(now(one.turn(|| {})).is_none());
        let mut two = breaker.queue(&limits, spot(0, 1)).unwrap();
        {
            let mut turn = pin!(two.turn(|| {}));
            let mut cx = Context::from_waker(Waker::noop());
            assert!(turn.as_mut().poll(&mut cx).is_pending());
            drop(one);
            // Granted to one that has gone before it looked: back to the gate.
            drop(open);
        }
        drop(two);
        assert!(breaker.open(&limits).is_some());
        assert_eq!(breaker.pending.load(Relaxed), 0);
        assert_eq!(breaker.waiting.load(Relaxed), 0);
    }

    #[test]
    fn kept_connections_go_to_whom_they_suit() {
        let breaker = Arc::new(Breaker::default());
        let limits = limits(1, u32::MAX);
        let _open = breaker.open(&limits).unwrap();
        let mut other = breaker.queue(&limits, spot(1, 1)).unwrap();
        let mut cx = Context::from_waker(Waker::noop());
        let mut turn = pin!(other.turn(|| {}));
        assert!(turn.as_mut().poll(&mut cx).is_pending());
        let place = Place::Endpoint(EndpointKey(1));
        assert!(!breaker.hand_over(0, &place), "another worker's");
        for _ in 0..PASSES {
            let mut here = breaker.queue(&limits, spot(0, 1)).unwrap();
            let mut turn = pin!(here.turn(|| {}));
            assert!(turn.as_mut().poll(&mut cx).is_pending());
            assert!(breaker.hand_over(0, &place));
            assert!(matches!(
                turn.as_mut().poll(&mut cx),
                Poll::Ready(Granted::Kept)
            ));
        }
        let mut here = breaker.queue(&limits, spot(0, 1)).unwrap();
        assert!(now(here.turn(|| {})).is_none());
        assert!(
            !breaker.hand_over(0, &place),
            "the first was passed often enough"
        );
    }

    #[test]
    fn nobody_may_wait() {
        let breaker = Arc::new(Breaker::default());
        let limits = limits(1, 0);
        let _open = breaker.open(&limits).unwrap();
        assert_eq!(
            breaker.queue(&limits, spot(0, 1)).unwrap_err(),
            Full::Connections(1)
        );
    }

    /// Many threads: never more than the limit, and everybody is served.
    #[test]
    fn many_threads() {
        let breaker = Arc::new(Breaker::default());
        let limits = limits(3, u32::MAX);
        let (running, most) = (AtomicU32::new(0), AtomicU32::new(0));
        std::thread::scope(|scope| {
            for worker in 0..4 {
                let (breaker, limits, running, most) = (&breaker, &limits, &running, &most);
                scope.spawn(move || {
                    let runtime = tokio::runtime::Builder::new_current_thread()
                        .build()
                        .unwrap();
                    runtime.block_on(async {
                        for _ in 0..500 {
                            let permit = if let Some(permit) = breaker.open(limits) {
                                Granted::Open(permit)
                            } else {
                                let queued = breaker.queue(limits, spot(worker, 1));
                                queued.unwrap().turn(|| {}).await
                            };
                            let now = running.fetch_add(1, Relaxed) + 1;
                            most.fetch_max(now, Relaxed);
                            tokio::task::yield_now().await;
                            running.fetch_sub(1, Relaxed);
                            drop(permit);
                        }
                    });
                });
            }
        });
        assert!(most.load(Relaxed) <= 3);
        assert_eq!(breaker.gate().open, 0);
    }
}
