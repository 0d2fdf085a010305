//! Keeps the registrations in step with what is wanted: one task per instance and registry.
//!
//! In: registrars by id, the wanted instances whenever they change. Out: rows with the state of each.
//! Never: lets one registry delay another, or goes on after a panic with less than what is wanted.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use mesh_model::cause::chain;
use tokio::{sync::watch, time::Instant};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    Announced, Registrar, Registration,
    course::{Course, Step, Wish},
};
use crate::source::SourceError;

/// For one call, whatever the registrar does itself.
const CALL: Duration = Duration::from_secs(15);

/// How one registration is doing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AnnounceRow {
    /// The id of the source whose registry it is.
    pub source: String,
    /// The id of the registration.
    pub id: String,
    /// True: it stands in the registry.
    pub registered: bool,
    /// What went wrong last; none when nothing does.
    pub error: Option<String>,
}

type Rows = Arc<Mutex<BTreeMap<(String, String), AnnounceRow>>>;

/// The instance that is wanted, and how.
type Wanted = (Arc<Registration>, Wish);

/// Announces instances to one registry.
pub struct Announcer {
    source: String,
    registrar: Arc<dyn Registrar>,
    kept: BTreeMap<String, watch::Sender<Wanted>>,
    rows: Rows,
    tracker: TaskTracker,
    stop: CancellationToken,
}

impl std::fmt::Debug for Announcer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Announcer")
            .field("source", &self.source)
            .field("kept", &self.kept.keys())
            .finish_non_exhaustive()
    }
}

impl Announcer {
    /// Nothing is announced yet. Once `stop` is cancelled nothing is written any more: what is registered
    /// then expires by itself.
    pub fn new(source: &str, registrar: Arc<dyn Registrar>, stop: CancellationToken) -> Self {
        Self {
            source: source.to_owned(),
            registrar,
            kept: BTreeMap::new(),
            rows: Rows::default(),
            tracker: TaskTracker::new(),
            stop,
        }
    }

    /// This is what should be registered now, and nothing else.
    pub fn want(&mut self, wanted: &[Announced]) {
        self.kept.retain(|id, kept| {
            let stays = wanted.iter().any(|one| one.registration.id == *id);
            if !stays {
                kept.send_modify(|(_, wish)| wish.gone = true);
            }
            stays
        });
        for one in wanted {
            let wish = Wish {
                health: one.health,
                draining: one.draining,
                gone: false,
            };
            let Some(kept) = self.kept.get(&one.registration.id) else {
                self.start(&one.registration, wish);
                continue;
            };
            kept.send_if_modified(|(of, known)| {
                let changed = *known != wish || **of != one.registration;
                if **of != one.registration {
                    *of = Arc::new(one.registration.clone());
                }
                *known = wish;
                changed
            });
        }
    }

    /// How each registration is doing.
    pub fn rows(&self) -> Vec<AnnounceRow> {
        let rows = self.rows.lock().unwrap_or_else(PoisonError::into_inner);
        rows.values().cloned().collect()
    }

    /// Takes everything out and waits until that is done, at most `longest`.
    pub async fn end(mut self, longest: Duration) {
        self.want(&[]);
        self.tracker.close();
        if tokio::time::timeout(longest, self.tracker.wait())
            .await
            .is_err()
        {
            tracing::warn!(source = %self.source, "some registrations could not be taken out; they expire by themselves");
        }
    }

    fn start(&mut self, registration: &Registration, wish: Wish) {
        let (kept, wanted) = watch::channel((Arc::new(registration.clone()), wish));
        let one = One {
            source: self.source.clone(),
            id: registration.id.clone(),
            registrar: Arc::clone(&self.registrar),
            rows: Arc::clone(&self.rows),
            wanted,
        };
        let stop = self.stop.clone();
        self.tracker
            .spawn(stop.run_until_cancelled_owned(one.keep()));
        self.kept.insert(registration.id.clone(), kept);
    }
}

/// The task of one instance.
struct One {
    source: String,
    id: String,
    registrar: Arc<dyn Registrar>,
    rows: Rows,
    wanted: watch::Receiver<Wanted>,
}

impl One {
    async fn keep(mut self) {
        let began = Instant::now();
        let mut course = Course::new(self.registrar.life(), Duration::ZERO, fastrand::f64());
        let mut gone_since = None;
        self.say(false, None);
        loop {
            let (of, wish) = self.wanted.borrow_and_update().clone();
            let step = course.next(&of, wish, began.elapsed());
            if step == Step::End {
                return self.forget();
            }
            if let Step::Wait(rest) = step {
                self.rest(rest).await;
                continue;
            }
            let done = tokio::time::timeout(CALL, self.take(step, &of, wish, &mut course, began));
            let result = done.await.unwrap_or_else(|_late| {
                Err(SourceError::Protocol {
                    subject: self.source.clone(),
                    what: "no answer in time".into(),
                })
            });
            if let Err(error) = result {
                let least = match &error {
                    SourceError::Throttled { retry_after } => *retry_after,
                    _ => Duration::ZERO,
                };
                course.failed(least, began.elapsed(), fastrand::f64());
                tracing::warn!(source = %self.source, id = %self.id, error = %chain(&error), "registration failed");
                self.say(course.stands(), Some(chain(&error)));
            }
            if wish.gone {
                let since = *gone_since.get_or_insert_with(Instant::now);
                if since.elapsed() > self.registrar.life() * 2 {
                    // It has expired by itself.
                    return self.forget();
                }
            }
        }
    }

    /// Waits, at most until something else is wanted.
    async fn rest(&mut self, rest: Duration) {
        tokio::select! {
            changed = self.wanted.changed() => if changed.is_err() {
                // Nothing else will ever be wanted: what is now counts.
                tokio::time::sleep(rest).await;
            },
            () = tokio::time::sleep(rest) => {}
        }
    }

    async fn take(
        &self,
        step: Step,
        of: &Arc<Registration>,
        wish: Wish,
        course: &mut Course,
        began: Instant,
    ) -> Result<(), SourceError> {
        let health = wish.health;
        match step {
            Step::Register => {
                let lease = self.registrar.register(of, health).await?;
                course.registered(lease, health, began.elapsed(), fastrand::f64());
                self.say(true, None);
            }
            Step::Replace(old) => {
                let lease = self.registrar.replace(old, of, health).await?;
                course.registered(lease, health, began.elapsed(), fastrand::f64());
                self.say(true, None);
            }
            Step::Renew(lease) => {
                let how = self.registrar.renew(&lease, health).await?;
                course.renewed(how, health, began.elapsed(), fastrand::f64());
                self.say(how == super::Renewal::Kept, None);
            }
            Step::Drain(lease) => {
                self.registrar.drain(&lease).await?;
                course.drained(began.elapsed(), fastrand::f64());
            }
            Step::Deregister(lease) => {
                self.registrar.deregister(lease).await?;
                course.gone();
            }
            Step::Wait(_) | Step::End => {}
        }
        Ok(())
    }

    fn key(&self) -> (String, String) {
        (self.source.clone(), self.id.clone())
    }

    fn say(&self, registered: bool, error: Option<String>) {
        let row = AnnounceRow {
            source: self.source.clone(),
            id: self.id.clone(),
            registered,
            error,
        };
        let mut rows = self.rows.lock().unwrap_or_else(PoisonError::into_inner);
        rows.insert(self.key(), row);
    }

    fn forget(&self) {
        let mut rows = self.rows.lock().unwrap_or_else(PoisonError::into_inner);
        rows.remove(&self.key());
    }
}
