//! Keeps this host's certificates: obtains, renews at half of their life, hands out, and issues for others.
//!
//! In: which identities are wanted, who the authorities are. Out: [`Credentials`] for the data plane and the
//! control state, kept on disk too, so that a restart serves at once. Any living authority will do: this
//! host's own, else the others in random order. Never: gives up, or drops a certificate before its end.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures_util::future::BoxFuture;
use mesh_gossip::Grant;
use mesh_identity::{Credential, Credentials, renew};
use mesh_model::{catalog::Catalog, principal::SpiffeId, snapshot::Snapshot};
use tokio::sync::watch;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{admission::Identity, clock};

/// The issuing side: what an authority answers to other hosts.
mod issue;
/// One certificate is obtained.
mod obtain;

pub(crate) use issue::{AUTHORITY_KIND, ISSUE_KIND, issue, renew_authority};
pub(crate) use obtain::Ask;

/// A certificate of a revoked authority is replaced when it is so old: not again and again.
const DISOWNED_MS: u64 = 10_000;
/// Certificates that are obtained at the same time.
const AT_A_TIME: usize = 8;
/// The longest sleep: clocks jump, and machines sleep.
const LONGEST_SLEEP: Duration = Duration::from_secs(20);

/// Identities of local programs for which certificates are wanted; the host's own always is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Wanted(BTreeSet<SpiffeId>);

impl Wanted {
    /// Takes the identities of a snapshot's local services and callers; true when that changed anything.
    pub(crate) fn take(&mut self, snapshot: &Snapshot) -> bool {
        let Some(mesh) = &snapshot.mesh else {
            return false;
        };
        let callers = &snapshot.callers;
        let of_callers = callers.by_service.values().chain(callers.by_uid.values());
        let ids: BTreeSet<SpiffeId> = of_callers
            .chain(callers.by_unit.values())
            .map(|caller| &caller.principal)
            .chain(snapshot.inbound.identities.values())
            .filter(|id| id.trust_domain == mesh.trust_domain && id.as_host().is_none())
            .cloned()
            .collect();
        let changed = ids != self.0;
        self.0 = ids;
        changed
    }
    /// Of these identities.
    #[cfg(test)]
    pub(crate) fn of(ids: impl IntoIterator<Item = SpiffeId>) -> Self {
        Self(ids.into_iter().collect())
    }
}

/// What the room works with.
pub(crate) struct Settings {
    /// Who this host is.
    pub(crate) identity: Arc<Identity>,
    /// Where certificates go.
    pub(crate) credentials: Credentials,
    /// What is wanted.
    pub(crate) wanted: watch::Receiver<Wanted>,
    /// Where authorities and their liveness are read.
    pub(crate) catalog: watch::Receiver<Arc<Catalog>>,
    /// Asks another host.
    pub(crate) ask: Ask,
    /// Makes a renewed right as an authority known.
    pub(crate) publish: Arc<dyn Fn(Vec<Grant>) -> BoxFuture<'static, ()> + Send + Sync>,
    /// Told when a certificate came or a renewal failed.
    pub(crate) changed: Arc<dyn Fn() + Send + Sync>,
}

impl std::fmt::Debug for Settings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Settings")
            .field("host", &self.identity.host())
            .finish_non_exhaustive()
    }
}

/// The certificates of this host. Clones share them.
#[derive(Debug, Clone)]
pub(crate) struct Certificates {
    credentials: Credentials,
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    /// What is wanted and was not obtained, with the reason of the last failure.
    failures: Mutex<BTreeMap<SpiffeId, String>>,
    wanted: Mutex<BTreeSet<SpiffeId>>,
    authority_ends_ms: Mutex<Option<u64>>,
    /// Why the last renewal of the own right as an authority failed, while none has worked since.
    authority_failure: Mutex<Option<String>>,
}

impl Certificates {
    /// Loads what is on disk at once, then keeps it renewed until `stop`.
    pub(crate) fn start(settings: Settings, tasks: &TaskTracker, stop: CancellationToken) -> Self {
        let credentials = settings.credentials.clone();
        load(&settings.identity, &credentials, clock::now_ms());
        let shared = Arc::new(Shared::default());
        let keeper = Keeper::new(settings, Arc::clone(&shared));
        tasks.spawn(async move {
            stop.run_until_cancelled_owned(Box::pin(keeper.run())).await;
        });
        Self {
            credentials,
            shared,
        }
    }
    /// Every certificate with its end, milliseconds since the epoch; the first to end first.
    pub(crate) fn expiries(&self) -> Vec<(SpiffeId, u64)> {
        self.credentials.expiries()
    }
    /// What ends first, for people, and when: a certificate, or this host's right as an authority.
    pub(crate) fn first_expiry(&self) -> Option<(String, u64)> {
        let certificate = self.expiries().into_iter().next();
        let certificate =
            certificate.map(|(id, end)| (format!("the certificate of {}", short(&id)), end));
        let authority = *self
            .shared
            .authority_ends_ms
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let authority = authority.map(|end| ("this host's right as an authority".to_owned(), end));
        certificate
            .into_iter()
            .chain(authority)
            .min_by_key(|(_, end)| *end)
    }
    /// Why this host's right as an authority could not be renewed, while that is so.
    pub(crate) fn authority_failure(&self) -> Option<String> {
        self.shared
            .authority_failure
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
    /// Wanted identities without a certificate in force.
    pub(crate) fn missing(&self) -> Vec<SpiffeId> {
        let now_ms = clock::now_ms();
        let in_force = |id: &SpiffeId| {
            self.credentials
                .get(id)
                .is_some_and(|credential| credential.not_after_ms > now_ms)
        };
        let wanted = self
            .shared
            .wanted
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        wanted.iter().filter(|id| !in_force(id)).cloned().collect()
    }
    /// Why the last attempt for an identity failed, while it has not succeeded since.
    pub(crate) fn failures(&self) -> Vec<(SpiffeId, String)> {
        let failures = self
            .shared
            .failures
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        failures
            .iter()
            .map(|(id, why)| (id.clone(), why.clone()))
            .collect()
    }
}

/// `default/words`, or `this host`.
fn short(id: &SpiffeId) -> String {
    match id.as_host() {
        Some(_) => "this host".to_owned(),
        None => format!("{}/{}", id.namespace, id.service_account),
    }
}

/// Puts the certificates on disk that are still in force into the set.
pub(crate) fn load(identity: &Identity, credentials: &Credentials, now_ms: u64) {
    for credential in identity.stored_credentials() {
        if credential.not_after_ms > now_ms {
            credentials.insert(credential.id().clone(), credential);
        }
    }
}

/// One certificate's schedule.
#[derive(Debug)]
struct Plan {
    due_ms: u64,
    failures: u32,
}

/// The task that renews.
struct Keeper {
    settings: Settings,
    shared: Arc<Shared>,
    plans: BTreeMap<SpiffeId, Plan>,
    authority: Plan,
}

impl Keeper {
    fn new(settings: Settings, shared: Arc<Shared>) -> Self {
        let authority = Plan {
            due_ms: 0,
            failures: 0,
        };
        let mut keeper = Self {
            settings,
            shared,
            plans: BTreeMap::new(),
            authority,
        };
        keeper.authority.due_ms = keeper.authority_due();
        keeper
    }

    async fn run(mut self) {
        loop {
            self.follow();
            let due = self.due(clock::now_ms());
            if due.is_empty() {
                self.renew_authority().await;
                self.wait().await;
            } else {
                self.obtain(due).await;
            }
        }
    }

    /// Takes up what is newly wanted and drops what is not wanted any more.
    fn follow(&mut self) {
        let own = self.settings.identity.spiffe_id();
        let mut wanted = self.settings.wanted.borrow_and_update().0.clone();
        wanted.insert(own);
        let held = self.settings.credentials.ids();
        for gone in held.iter().filter(|id| !wanted.contains(id)) {
            // Before the first plan nothing is known to be unwanted: what is on disk stays.
            if self.plans.contains_key(gone) {
                self.settings.credentials.remove(gone);
                self.settings.identity.remove_credential(gone);
            }
        }
        self.plans.retain(|id, _| wanted.contains(id));
        for id in &wanted {
            let credentials = &self.settings.credentials;
            self.plans.entry(id.clone()).or_insert_with(|| Plan {
                due_ms: credentials.get(id).map_or(0, |credential| due(&credential)),
                failures: 0,
            });
        }
        for (id, plan) in &mut self.plans {
            // Nobody believes it any more: not only when half of its life is over.
            if plan.failures == 0 && obtain::is_disowned(&self.settings, id) {
                let made = made_ms(&self.settings.credentials, id);
                plan.due_ms = plan.due_ms.min(made.saturating_add(DISOWNED_MS));
            }
        }
        let mut failures = self
            .shared
            .failures
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        failures.retain(|id, _| wanted.contains(id));
        *self
            .shared
            .wanted
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = wanted;
    }

    fn due(&self, now_ms: u64) -> Vec<SpiffeId> {
        let due = self.plans.iter().filter(|(_, plan)| plan.due_ms <= now_ms);
        due.map(|(id, _)| id.clone()).take(AT_A_TIME).collect()
    }

    async fn wait(&mut self) {
        let next = self
            .plans
            .values()
            .map(|plan| plan.due_ms)
            .min()
            .unwrap_or(u64::MAX);
        let next = next.min(self.authority.due_ms);
        let sleep = Duration::from_millis(next.saturating_sub(clock::now_ms()));
        tokio::select! {
            () = tokio::time::sleep(sleep.clamp(Duration::from_millis(50), LONGEST_SLEEP)) => {}
            changed = self.settings.wanted.changed() => if changed.is_err() {
                // Nobody plans any more: what is held is still renewed.
                tokio::time::sleep(LONGEST_SLEEP).await;
            },
        }
    }

    async fn obtain(&mut self, due: Vec<SpiffeId>) {
        let attempts = due.into_iter().map(|id| async {
            let obtained = obtain::obtain(&self.settings, &id).await;
            (id, obtained)
        });
        for (id, obtained) in futures_util::future::join_all(attempts).await {
            match obtained {
                Ok(credential) => self.take(&id, credential),
                Err(why) => self.failed(&id, why),
            }
        }
        (self.settings.changed)();
    }

    fn take(&mut self, id: &SpiffeId, credential: Credential) {
        if let Err(error) = self.settings.identity.store_credential(&credential) {
            tracing::warn!(%id, %error, "a certificate is not on disk: a restart has to ask again");
        }
        tracing::debug!(%id, not_after_ms = credential.not_after_ms, "certificate obtained");
        let plan = Plan {
            due_ms: due(&credential),
            failures: 0,
        };
        self.settings.credentials.insert(id.clone(), credential);
        self.plans.insert(id.clone(), plan);
        self.shared
            .failures
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(id);
    }

    fn failed(&mut self, id: &SpiffeId, why: String) {
        let now_ms = clock::now_ms();
        let end_ms = self
            .settings
            .credentials
            .get(id)
            .map_or(0, |held| held.not_after_ms);
        let left = match end_ms.saturating_sub(now_ms) {
            // Without a certificate there is no end to hurry for; the schedule alone decides.
            0 => Duration::from_hours(1),
            left => Duration::from_millis(left),
        };
        if let Some(plan) = self.plans.get_mut(id) {
            plan.failures = plan.failures.saturating_add(1);
            let wait = renew::retry_after(plan.failures, left, fastrand::f64());
            plan.due_ms = now_ms + u64::try_from(wait.as_millis()).unwrap_or(1000);
            if plan.failures.is_power_of_two() {
                tracing::warn!(%id, why, failures = plan.failures, "no certificate could be obtained");
            }
        }
        self.shared
            .failures
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(id.clone(), why);
    }

    /// When the own authority's right is to be renewed.
    fn authority_due(&self) -> u64 {
        let authority = self.settings.identity.authority();
        let end = authority.as_ref().map(|authority| authority.not_after_ms());
        *self
            .shared
            .authority_ends_ms
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = end;
        let lifetime = mesh_identity::authority::AUTHORITY_LIFETIME_MS;
        end.map_or(u64::MAX, |end| {
            renew::renew_at(end.saturating_sub(lifetime), end, fastrand::f64())
        })
    }

    async fn renew_authority(&mut self) {
        let now_ms = clock::now_ms();
        if self.authority.due_ms > now_ms {
            return;
        }
        let renewed = obtain::authority(&self.settings).await;
        *self
            .shared
            .authority_failure
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = renewed.as_ref().err().cloned();
        match renewed {
            Ok(()) => {
                self.authority = Plan {
                    due_ms: self.authority_due(),
                    failures: 0,
                };
                (self.settings.publish)(self.settings.identity.grants()).await;
                (self.settings.changed)();
            }
            Err(why) => {
                self.authority.failures = self.authority.failures.saturating_add(1);
                // Half a year is left: once an hour is often enough.
                self.authority.due_ms = now_ms + 3_600_000;
                tracing::warn!(why, "this host's right as an authority was not renewed");
            }
        }
    }
}

/// When the certificate that is held was made, milliseconds since the epoch; 0 without one.
fn made_ms(credentials: &Credentials, id: &SpiffeId) -> u64 {
    credentials
        .get(id)
        .map_or(0, |credential| credential.made_ms())
}

fn due(credential: &Credential) -> u64 {
    renew::renew_at(
        credential.made_ms(),
        credential.not_after_ms,
        fastrand::f64(),
    )
}

#[cfg(test)]
mod tests;
