//! Connections within the limits of a backend's policy: kept ones first, new ones while there is room, and a
//! bounded queue for the rest.

use std::{
    future::Future,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll, Waker},
};

use mesh_model::snapshot::{BackendEndpoint, Caller, TrafficPolicy, traffic::CircuitLimits};

use super::{
    DialError, Inner,
    breaker::{ConnectionPermit, Full, Granted, Spot, Waiting},
    multiplex::Connection,
    picked::Picked,
    place::Place,
    pool::{H1Connection, Terms},
};

impl Inner {
    /// An HTTP/1 connection to the picked endpoint.
    pub(super) async fn http1(
        self: &Rc<Self>,
        picked: &Picked,
        caller: &Caller,
        place: Place,
    ) -> Result<Box<H1Connection>, DialError> {
        if picked.group.policy().limits.max_connections == u32::MAX {
            return match self.idle.take(&place) {
                Some(kept) => Ok(kept),
                None => Box::pin(self.open_http1(picked, caller, place, None)).await,
            };
        }
        Box::pin(self.counted_http1(picked, caller, place)).await
    }

    /// The same where connections are limited.
    async fn counted_http1(
        self: &Rc<Self>,
        picked: &Picked,
        caller: &Caller,
        place: Place,
    ) -> Result<Box<H1Connection>, DialError> {
        let mut waiting = None;
        loop {
            if let Some(kept) = self.take_counted(picked, &place) {
                return Ok(kept);
            }
            let granted = self.turn(picked, Some(&place), &mut waiting).await?;
            if let Granted::Open(permit) = granted {
                self.relieve_others();
                return self.open_http1(picked, caller, place, Some(permit)).await;
            }
        }
    }

    /// A kept connection that counts among the backend's.
    fn take_counted(&self, picked: &Picked, place: &Place) -> Option<Box<H1Connection>> {
        let breaker = picked.group.state.breaker();
        let limits = &picked.group.policy().limits;
        loop {
            let mut kept = self.idle.take(place)?;
            if kept.permit().is_some_and(|permit| permit.is_of(breaker)) {
                return Some(kept);
            }
            // Opened for another backend with the same endpoint, or before there was a limit.
            if let Some(permit) = breaker.open(limits) {
                kept.set_permit(permit);
                return Some(kept);
            }
        }
    }

    async fn open_http1(
        self: &Rc<Self>,
        picked: &Picked,
        caller: &Caller,
        place: Place,
        permit: Option<ConnectionPermit>,
    ) -> Result<Box<H1Connection>, DialError> {
        let policy = picked.group.policy();
        let terms = Terms {
            idle: policy.idle_timeout,
            requests: policy.max_requests_per_connection,
            permit,
        };
        let limit = policy.connect_timeout;
        let io = self.stream(&picked.endpoint, caller, None, limit).await?;
        let retire_at = self.retire_at(None);
        Ok(Box::new(H1Connection::new(io, place, retire_at, terms)))
    }

    /// A shared connection of HTTP/2 straight to an endpoint.
    pub(super) fn open_http2(
        self: &Rc<Self>,
        endpoint: &Arc<BackendEndpoint>,
        caller: &Caller,
        policy: &TrafficPolicy,
    ) -> impl Future<Output = Result<Connection, DialError>> + use<> {
        let (inner, endpoint) = (Rc::clone(self), Arc::clone(endpoint));
        let (caller, limit) = (caller.clone(), policy.connect_timeout);
        let (idle, requests) = (policy.idle_timeout, policy.max_requests_per_connection);
        async move {
            let io = inner.stream(&endpoint, &caller, None, limit).await?;
            let connection = inner.http2(io, endpoint.address).await?;
            Ok(connection.within(idle, requests))
        }
    }

    /// A place for an opaque connection; kept in `picked`.
    pub(super) async fn make_room(&self, picked: &Picked) -> Result<(), DialError> {
        let policy = picked.group.policy();
        let most = policy.limits.max_connections;
        // Connections live long: who waits for one to end is told soon that there is none.
        let patience = policy.connect_timeout.unwrap_or(self.config.limits.connect);
        match tokio::time::timeout(patience, self.take_place(picked)).await {
            Ok(taken) => taken,
            Err(_elapsed) => Err(self.full(Full::Connections(most))),
        }
    }

    /// A place among the backend's connections for one that is shared, as if it were its own; kept in `picked`.
    pub(super) async fn take_place(&self, picked: &Picked) -> Result<(), DialError> {
        if picked.group.policy().limits.max_connections == u32::MAX {
            return Ok(());
        }
        let mut waiting = None;
        if let Granted::Open(permit) = self.turn(picked, None, &mut waiting).await? {
            picked.permit.replace(Some(permit));
        }
        Ok(())
    }

    /// Waits for the turn to open a connection, or to use one that was given back.
    async fn turn(
        &self,
        picked: &Picked,
        place: Option<&Place>,
        waiting: &mut Option<Waiting>,
    ) -> Result<Granted, DialError> {
        let breaker = picked.group.state.breaker();
        let limits = &picked.group.policy().limits;
        let waiting = if let Some(waiting) = waiting {
            waiting
        } else {
            let mut permit = breaker.open(limits);
            if permit.is_none() && self.idle.make_room(breaker) {
                permit = breaker.open(limits);
            }
            if let Some(permit) = permit {
                return Ok(Granted::Open(permit));
            }
            let spot = Spot {
                worker: self.worker,
                place: place.cloned(),
            };
            let queued = breaker.queue(limits, spot);
            waiting.insert(queued.map_err(|full| self.full(full))?)
        };
        let ask = || {
            self.shared.relief.send_replace(());
        };
        Ok(waiting.turn(ask).await)
    }

    /// Waits for a shared connection: within the bound of the policy on how many may wait, and how long.
    pub(super) async fn queued<T>(
        &self,
        picked: &Picked,
        opened: impl Future<Output = Result<T, DialError>>,
    ) -> Result<T, DialError> {
        let policy = picked.group.policy();
        let most = policy.limits.max_pending;
        if most == u32::MAX && policy.connect_timeout.is_none() {
            return opened.await;
        }
        let mut opened = Box::pin(opened);
        // One that is open already is no wait.
        let mut cx = Context::from_waker(Waker::noop());
        if let Poll::Ready(opened) = opened.as_mut().poll(&mut cx) {
            return opened;
        }
        // Somebody has to open it.
        let limits = CircuitLimits {
            max_pending: most.max(1),
            ..policy.limits.clone()
        };
        let pending = picked.group.state.breaker().pending(&limits);
        let _pending = pending.map_err(|full| self.full(full))?;
        match policy.connect_timeout {
            None => opened.await,
            Some(limit) => tokio::time::timeout(limit, opened)
                .await
                .map_err(|_elapsed| DialError::Timeout(picked.endpoint.address))?,
        }
    }

    fn full(&self, full: Full) -> DialError {
        self.shared.figures.full(full);
        DialError::Full(full)
    }

    /// From now on idle connections are given up when somebody waits for their places on another worker.
    fn relieve_others(self: &Rc<Self>) {
        if self.relieving.replace(true) {
            return;
        }
        let mut asked = self.shared.relief.subscribe();
        let inner = Rc::downgrade(self);
        self.tasks.spawn_local(async move {
            while asked.changed().await.is_ok() {
                let Some(inner) = inner.upgrade() else { return };
                inner.idle.relieve();
            }
        });
    }
}
