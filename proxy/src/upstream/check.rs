//! Health checks of endpoints by this host, where a policy asks for them: one worker does it for all.
//!
//! In: the snapshot. Out: endpoints put out and in. Each endpoint is asked once per interval, not in step with
//! others, and no more than a bounded number at a time.

use std::{
    cell::{Cell, RefCell},
    rc::{Rc, Weak},
    sync::{
        Arc,
        atomic::Ordering::{AcqRel, Release},
    },
    time::Duration,
};

use mesh_model::snapshot::{
    Backend, BackendEndpoint, Caller, EndpointKey, Map, Snapshot, traffic::HealthCheck,
};
use tokio::sync::Notify;

use self::schedule::{Record, Schedule};
use super::{
    Inner,
    health::{Health, Hold, Reason},
    shared::{Shared, all_backends},
};

/// One question.
mod ask;
/// When which endpoint is checked, and what the results mean.
mod schedule;

/// Checks that run at once.
const AT_ONCE: usize = 64;
/// Longest sleep of the task that begins checks.
const LONGEST: Duration = Duration::from_hours(1);

/// What this worker checks; nothing unless it is the one that does.
#[derive(Debug, Default)]
pub(super) struct Checks {
    claim: RefCell<Option<Claim>>,
    caller: RefCell<Option<Arc<Caller>>>,
    targets: RefCell<Map<EndpointKey, Target>>,
    schedule: RefCell<Schedule>,
    running: Cell<usize>,
    wake: Rc<Notify>,
}

/// An endpoint that is checked.
#[derive(Debug)]
struct Target {
    backend: Arc<Backend>,
    endpoint: Arc<BackendEndpoint>,
    health: Arc<Health>,
    record: Record,
}

/// The right to do the host's checks; given back on drop.
#[derive(Debug)]
struct Claim(Arc<Shared>);

impl Claim {
    fn new(shared: &Arc<Shared>) -> Option<Self> {
        let taken = shared.prober.swap(true, AcqRel);
        (!taken).then(|| Self(Arc::clone(shared)))
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.0.prober.store(false, Release);
    }
}

impl Inner {
    /// Checks what the snapshot says to check, on one worker of the host.
    pub(super) fn check(self: &Rc<Self>, snapshot: &Snapshot) {
        let wanted = all_backends(snapshot).any(|backend| backend.policy.health_check.is_some());
        let checks = &self.checks;
        if checks.claim.borrow().is_none() {
            if !wanted {
                return;
            }
            let Some(claim) = Claim::new(&self.shared) else {
                return;
            };
            checks.claim.replace(Some(claim));
            let task = run(Rc::downgrade(self), Rc::clone(&checks.wake));
            self.tasks.spawn_local(task);
        }
        checks.caller.replace(snapshot.callers.host.clone());
        self.aim(snapshot);
        checks.wake.notify_one();
    }

    /// Takes over the targets of a snapshot; what is known of those that stay is kept.
    fn aim(&self, snapshot: &Snapshot) {
        let now_us = self.now_us();
        let mut targets = self.checks.targets.borrow_mut();
        let mut before = std::mem::take(&mut *targets);
        for backend in all_backends(snapshot) {
            if backend.policy.health_check.is_none() {
                continue;
            }
            for endpoint in &backend.endpoints {
                // The service's own policy goes before that of its subsets.
                if targets.contains_key(&endpoint.key) {
                    continue;
                }
                let known = before.remove(&endpoint.key);
                let (health, record) = match known {
                    Some(known) => (known.health, known.record),
                    None => (self.shared.health(endpoint.key, now_us), Record::default()),
                };
                let target = Target {
                    backend: Arc::clone(backend),
                    endpoint: Arc::clone(endpoint),
                    health,
                    record,
                };
                targets.insert(endpoint.key, target);
            }
        }
        for gone in before.into_values() {
            if gone.health.is_held(Hold::Check) {
                self.shared.release(&gone.health, Hold::Check, now_us);
            }
        }
        let mut schedule = self.checks.schedule.borrow_mut();
        let count = targets.len();
        for (key, target) in &*targets {
            if let Some(check) = target.policy() {
                let chance = fastrand::f64();
                schedule.begin(*key, now_us, check.interval, count, chance);
            }
        }
    }

    /// Begins the checks that are due, as many as may run. When to look again.
    fn begin_checks(self: &Rc<Self>) -> Duration {
        let checks = &self.checks;
        let now_us = self.now_us();
        while checks.running.get() < AT_ONCE {
            let Some(key) = checks.schedule.borrow_mut().take(now_us) else {
                break;
            };
            checks.running.set(checks.running.get() + 1);
            let inner = Rc::clone(self);
            self.tasks.spawn_local(async move {
                inner.check_one(key).await;
                inner.checks.running.set(inner.checks.running.get() - 1);
                inner.checks.wake.notify_one();
            });
        }
        if checks.running.get() >= AT_ONCE {
            return LONGEST;
        }
        let next = checks.schedule.borrow().next();
        next.map_or(LONGEST, |due| {
            Duration::from_micros(due.saturating_sub(now_us)).min(LONGEST)
        })
    }

    async fn check_one(self: &Rc<Self>, key: EndpointKey) {
        let aimed = self.checks.targets.borrow().get(&key).map(|target| {
            let (backend, endpoint) = (Arc::clone(&target.backend), Arc::clone(&target.endpoint));
            (backend, endpoint)
        });
        let Some((backend, endpoint)) = aimed else {
            return;
        };
        let Some(check) = &backend.policy.health_check else {
            return;
        };
        let caller = self.checks.caller.borrow().clone();
        let passed = match &caller {
            None => None,
            Some(caller) => {
                let asked = ask::ask(self, &backend, &endpoint, caller, &check.probe);
                // No answer in time is a failure.
                let asked = tokio::time::timeout(check.timeout, asked).await;
                asked.unwrap_or(Some(false))
            }
        };
        self.shared.figures.checked(passed);
        let mut targets = self.checks.targets.borrow_mut();
        let Some(target) = targets.get_mut(&key) else {
            return;
        };
        if let Some(passed) = passed {
            let now_us = self.now_us();
            target.count(passed, check, &self.shared, now_us);
        }
        let (interval, chance) = (check.interval, fastrand::f64());
        let now_us = self.now_us();
        self.checks
            .schedule
            .borrow_mut()
            .again(key, now_us, interval, chance);
    }
}

impl Target {
    fn policy(&self) -> Option<&HealthCheck> {
        self.backend.policy.health_check.as_ref()
    }

    fn count(&mut self, passed: bool, check: &HealthCheck, shared: &Shared, now_us: u64) {
        let is_out = self.health.is_held(Hold::Check);
        let bounds = (check.healthy_threshold, check.unhealthy_threshold);
        let (id, address) = (&self.endpoint.id, self.endpoint.address);
        match self.record.count(passed, is_out, bounds) {
            None => {}
            Some(false) => {
                shared.put_out(&self.health, Reason::Check);
                tracing::info!(endpoint = %id, %address, "put out: health checks fail");
            }
            Some(true) => {
                shared.release(&self.health, Hold::Check, now_us);
                tracing::info!(endpoint = %id, %address, "health checks pass again");
            }
        }
    }
}

/// Begins checks when they are due, until the worker ends.
async fn run(inner: Weak<Inner>, wake: Rc<Notify>) {
    loop {
        let Some(pause) = inner.upgrade().map(|inner| inner.begin_checks()) else {
            return;
        };
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = wake.notified() => {}
        }
    }
}
