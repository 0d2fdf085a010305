//! An endpoint that was picked, and what its use teaches about it.

use std::{
    cell::RefCell,
    net::SocketAddr,
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

use mesh_model::snapshot::{Backend, BackendEndpoint};

use super::{
    Inner,
    breaker::ConnectionPermit,
    group::{Group, Live},
    health::{Hold, Reason},
    outlier::{self, Verdict},
};
use crate::clock;

/// How a try ended, when there was no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Failed {
    /// Not reached: ejects at once, until it takes connections again.
    Dial,
    /// Its host was reached, its program refused: ejects at once, for a while.
    Program,
    /// Reset or broken before an answer: ejects after as many in a row as the policy says.
    Reset,
    /// No answer in time: ejects after as many in a row as the policy says.
    Timeout,
}

/// An endpoint that was picked; counts as load on it while alive.
#[derive(Debug)]
pub(crate) struct Picked {
    /// The endpoint.
    pub(crate) endpoint: Arc<BackendEndpoint>,
    pub(super) group: Rc<Group>,
    /// Where it is in the group; `None`: it was dialled by its own address.
    slot: Option<u32>,
    live: Rc<Live>,
    upstream: Rc<Inner>,
    since: Instant,
    /// The place among the backend's connections of one that is opaque, or of a request in a tunnel.
    pub(super) permit: RefCell<Option<ConnectionPermit>>,
}

impl Picked {
    pub(super) fn new(
        endpoint: Arc<BackendEndpoint>,
        (group, slot): (Rc<Group>, Option<u32>),
        live: Rc<Live>,
        upstream: Rc<Inner>,
        since: Instant,
    ) -> Self {
        live.begin();
        Self {
            endpoint,
            group,
            slot,
            live,
            upstream,
            since,
            permit: RefCell::default(),
        }
    }

    /// The try ended well after `latency` (to the response head, or the connection's set-up).
    pub(crate) fn succeeded(&self, latency: Duration) {
        self.did_well(latency, self.upstream.now_us());
    }

    fn did_well(&self, latency: Duration, now: u64) {
        let sample = micros(latency);
        self.live
            .latency
            .observe(sample, now, self.group.decay_us());
        self.group.usual.observe(sample);
        self.live.health.did_well();
        self.tally(true, Some(latency), now);
    }

    /// Whether who asks for a connection to it may have to wait for a place among the backend's connections.
    pub(crate) fn may_queue(&self) -> bool {
        self.group.policy().limits.max_connections != u32::MAX
    }

    /// When it was picked.
    pub(crate) fn since(&self) -> Instant {
        self.since
    }

    /// It answered at `at`, after `latency` (to the response head); `grpc` is the status in a head that ends the answer.
    /// Decides by the backend's policy what that means for the endpoint.
    pub(crate) fn answered(&self, status: u16, grpc: Option<u8>, at: Instant, latency: Duration) {
        let verdict = Verdict::of(status, grpc);
        if verdict == Verdict::Well {
            return self.did_well(latency, self.upstream.us_at(at));
        }
        self.slow_down(latency);
        let policy = &self.group.policy().outlier;
        let reason = outlier::after_answer(policy, &self.live.health.rows, verdict);
        self.tally(false, Some(latency), self.upstream.now_us());
        if let Some(reason) = reason {
            self.put_out(reason);
        }
    }

    /// The try failed without an answer.
    pub(crate) fn failed(&self, how: Failed) {
        self.slow_down(self.since.elapsed());
        let policy = &self.group.policy().outlier;
        let row = outlier::after_silence(policy, &self.live.health.rows);
        self.tally(false, None, self.upstream.now_us());
        let reason = match how {
            Failed::Dial => Some(Reason::Dial),
            Failed::Program => Some(Reason::Refused),
            Failed::Reset | Failed::Timeout => row,
        };
        if let Some(reason) = reason {
            self.put_out(reason);
        }
    }

    /// A failure is no quick answer.
    fn slow_down(&self, latency: Duration) {
        let (now, usual) = (self.upstream.now_us(), self.group.usual.get());
        self.live
            .latency
            .failed(micros(latency), usual, now, self.group.decay_us());
    }

    fn tally(&self, well: bool, latency: Option<Duration>, now_us: u64) {
        let tallies = self.group.roster().tallies();
        let slot = self.slot.map_or(usize::MAX, |slot| slot as usize);
        let Some(tally) = tallies.get(slot) else {
            return;
        };
        tally.count(well, latency);
        let interval = self.group.policy().outlier.interval;
        if self.group.state.is_look_due(now_us, interval) {
            let (upstream, group) = (Rc::clone(&self.upstream), Rc::clone(&self.group));
            self.upstream.tasks.spawn_local(async move {
                upstream.look(&group);
            });
        }
    }

    fn put_out(&self, reason: Reason) {
        self.upstream
            .put_out(&self.group, &self.endpoint, &self.live.health, reason);
    }
}

impl Drop for Picked {
    fn drop(&mut self) {
        self.live.end();
    }
}

impl Inner {
    /// Looks at all endpoints of a backend together.
    fn look(self: &Rc<Self>, group: &Rc<Group>) {
        let roster = group.roster();
        let samples: Vec<_> = roster.tallies().iter().map(|tally| tally.take()).collect();
        for (index, reason) in outlier::look(&group.policy().outlier, &samples) {
            if let Some(slot) = roster.slots().get(index)
                && !slot.health.is_held(Hold::Outlier)
            {
                self.put_out(group, &slot.endpoint, &slot.health, reason);
            }
        }
    }

    /// Puts an endpoint out and sees to its return.
    fn put_out(
        self: &Rc<Self>,
        group: &Rc<Group>,
        endpoint: &Arc<BackendEndpoint>,
        health: &Arc<super::health::Health>,
        reason: Reason,
    ) {
        let policy = &group.policy().outlier;
        let hold = reason.hold();
        if health.is_held(hold) {
            return;
        }
        if hold == Hold::Outlier {
            let count = group.roster().slots().len();
            if !group.state.may_eject(outlier::allowance(policy, count)) {
                self.shared.figures.spared();
                return;
            }
        }
        if !self.shared.put_out(health, reason) {
            if hold == Hold::Outlier {
                group.state.ejection_ended();
            }
            return;
        }
        self.transport.ejections.add(1);
        let pause = match hold {
            Hold::Outlier => {
                let times = health.count_ejection(self.now_us(), policy.interval);
                Some(outlier::duration(policy, times))
            }
            Hold::Refused => Some(health.pause()),
            Hold::Dial | Hold::Check => None,
        };
        if let Some(pause) = pause {
            let pause = u64::try_from(pause.as_millis()).unwrap_or(u64::MAX);
            health.set_until_ms(clock::now_ms().saturating_add(pause));
        }
        tracing::info!(
            endpoint = %endpoint.id, address = %endpoint.address, reason = reason.as_str(), ?pause, "ejected"
        );
        let (inner, state) = (Rc::clone(self), Arc::clone(&group.state));
        let (endpoint, health) = (Arc::clone(endpoint), Arc::clone(health));
        let backend = Arc::clone(group.roster().backend());
        self.tasks.spawn_local(async move {
            match pause {
                Some(pause) => tokio::time::sleep(pause).await,
                None => inner.await_dial(backend, &endpoint, &health).await,
            }
            if hold == Hold::Outlier {
                state.ejection_ended();
            }
            if inner.shared.release(&health, hold, inner.now_us()) {
                tracing::info!(endpoint = %endpoint.id, address = %endpoint.address, "back after ejection");
            }
        });
    }

    /// Asks an endpoint ever less often until it takes a connection, or is gone. It is asked where the snapshot in
    /// force says that it is: it may have moved meanwhile.
    async fn await_dial(
        &self,
        mut backend: Arc<Backend>,
        endpoint: &BackendEndpoint,
        health: &super::health::Health,
    ) {
        let mut address = dialled(endpoint);
        for asked in 0.. {
            let pause = health.ask_after(asked).mul_f64(0.8 + 0.4 * fastrand::f64());
            tokio::time::sleep(pause).await;
            if let Some(newer) = self.shared.newer(&backend) {
                backend = newer;
                let mut endpoints = backend.endpoints.iter();
                let found = endpoints.find(|one| one.key == endpoint.key);
                address = found.map_or(address, |moved| dialled(moved));
            }
            let dialled = super::dial::connect(&self.config, address, None).await;
            if dialled.is_ok() || health.is_gone() {
                return;
            }
        }
    }
}

/// Where a connection to an endpoint goes.
fn dialled(endpoint: &BackendEndpoint) -> SocketAddr {
    let tunnel = endpoint.tunnel.as_ref();
    tunnel.map_or(endpoint.address, |tunnel| tunnel.address)
}

fn micros(latency: Duration) -> f64 {
    latency.as_secs_f64() * 1e6
}
