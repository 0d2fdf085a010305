//! Runs the sources and publishes their views as one value.
//!
//! In: settings of the sources, and what was saved at the last run. Out: [`Published`] through a watch,
//! coalesced: after calm a few that take nothing away at once, the rest after 20 ms of quiet, at most 100 ms.
//! Never: lets one source delay or blank another.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use mesh_model::{config::SourceConfig, endpoint::ServiceKey};
use tokio::{
    sync::{Notify, watch},
    time::Instant,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    demand::Wanted,
    hosts::{Hosts, Lookup},
    metrics, open,
    published::{Published, PublishedView, row, same},
    saved,
    saved::{RestoreError, SavedView},
    sink::{Outlet, Sink},
    source::Source,
    status::SourceStatus,
    supervise::{Opener, Supervised, supervise},
    tally::{Reading, Tally},
    view::View,
};

/// Times and guards; the defaults are for production, tests shorten them.
#[derive(Debug, Clone)]
pub struct Settings {
    /// How long a large removal waits before it counts; 30 s; zero switches the hold off.
    pub removal_hold: Duration,
    /// A change is published after this much quiet; 20 ms.
    pub quiet: Duration,
    /// A change is published after this at the latest; 100 ms.
    pub at_most: Duration,
    /// First wait after a failure; 250 ms.
    pub first_wait: Duration,
    /// Longest wait after failures; 30 s.
    pub longest_wait: Duration,
    /// How the host names of endpoints are looked up; the system's resolver.
    pub lookup: Lookup,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            removal_hold: Duration::from_secs(30),
            quiet: Duration::from_millis(20),
            at_most: Duration::from_millis(100),
            first_wait: Duration::from_millis(250),
            longest_wait: Duration::from_secs(30),
            lookup: Lookup::default(),
        }
    }
}

/// One source that runs.
struct Slot {
    config: SourceConfig,
    view: View,
    /// The shortest time after which a change may be expected.
    latency: Duration,
    tally: Arc<Tally>,
    stop: CancellationToken,
}

struct Shared {
    settings: Settings,
    slots: Mutex<BTreeMap<String, Slot>>,
    wanted: Mutex<Wanted>,
    /// There may be host names to look up.
    named: Notify,
    published: watch::Sender<Arc<Published>>,
    tracker: TaskTracker,
    stop: CancellationToken,
}

/// The running sources. Dropping it does not stop them; its token does.
#[derive(Clone)]
pub struct Registry(Arc<Shared>);

impl std::fmt::Debug for Registry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Registry")
            .field("sources", &self.0.published.borrow().sources)
            .finish()
    }
}

/// Starts the sources. They run on the calling runtime until `stop`.
pub fn start(sources: &[SourceConfig], stop: CancellationToken) -> Registry {
    start_with(sources, None, Settings::default(), stop).0
}

/// Starts the sources from what [`Registry::saving`] gave at the last run; bytes that cannot be used are
/// told and ignored.
pub fn start_with(
    sources: &[SourceConfig],
    saved: Option<&[u8]>,
    settings: Settings,
    stop: CancellationToken,
) -> (Registry, Option<RestoreError>) {
    let registry = Registry(Arc::new(Shared {
        settings,
        slots: Mutex::default(),
        wanted: Mutex::new(Wanted::everything()),
        named: Notify::new(),
        published: watch::channel(Arc::default()).0,
        tracker: TaskTracker::new(),
        stop,
    }));
    let (restored, error) = match saved.map(|bytes| saved::restore(bytes, now_ms())) {
        None => (Vec::new(), None),
        Some(Ok(views)) => (views, None),
        Some(Err(error)) => (Vec::new(), Some(error)),
    };
    for config in sources {
        let view = registry.0.restored_view(&config.id, &restored);
        let again = config.clone();
        registry
            .0
            .add(config.clone(), view, Arc::new(move || open::open(&again)));
    }
    registry.0.publish();
    let names = Arc::clone(&registry.0).look_up();
    let stop = registry.0.stop.clone();
    registry
        .0
        .tracker
        .spawn(stop.run_until_cancelled_owned(names));
    (registry, error)
}

impl Registry {
    /// The views, now and whenever they change. Everything is in the value: a slow reader misses nothing.
    pub fn views(&self) -> watch::Receiver<Arc<Published>> {
        self.0.published.subscribe()
    }

    /// Takes new settings: sources that are gone stop and their views go, new ones start, changed ones
    /// start again and keep their views, unchanged ones are not touched.
    pub fn reload(&self, sources: &[SourceConfig]) {
        let mut changed: BTreeMap<String, View> = BTreeMap::new();
        {
            let mut slots = self.0.slots();
            let stays = |id: &str, slot: &Slot| {
                sources
                    .iter()
                    .any(|config| config.id == id && *config == slot.config)
            };
            let leaving: Vec<String> = slots
                .iter()
                .filter(|(id, slot)| !stays(id, slot))
                .map(|(id, _)| id.clone())
                .collect();
            for id in leaving {
                if let Some(slot) = slots.remove(&id) {
                    slot.stop.cancel();
                    changed.insert(id, slot.view);
                }
            }
        }
        for config in sources {
            if self.0.slots().contains_key(&config.id) {
                continue;
            }
            let view = changed
                .remove(&config.id)
                .unwrap_or_else(|| self.0.empty_view(&config.id));
            let again = config.clone();
            self.0
                .add(config.clone(), view, Arc::new(move || open::open(&again)));
        }
        self.0.publish();
    }

    /// Adds a source that is not made from settings: for other crates' sources and for tests.
    pub fn add(
        &self,
        id: &str,
        publish: bool,
        open: impl Fn() -> Box<dyn Source> + Send + Sync + 'static,
    ) {
        self.add_restored(id, publish, None, open);
    }

    /// As [`Registry::add`], from what was saved at the last run.
    pub fn add_restored(
        &self,
        id: &str,
        publish: bool,
        saved: Option<&[u8]>,
        open: impl Fn() -> Box<dyn Source> + Send + Sync + 'static,
    ) {
        let kind = mesh_model::config::SourceKind::File {
            directory: std::path::PathBuf::new(),
        };
        let config = SourceConfig {
            id: id.to_owned(),
            publish,
            services: None,
            kind,
        };
        let restored = saved
            .and_then(|bytes| saved::restore(bytes, now_ms()).ok())
            .unwrap_or_default();
        let view = self.0.restored_view(id, &restored);
        self.0.add(config, view, Arc::new(open));
        self.0.publish();
    }

    /// Says which services are needed; until the first call everything is.
    pub fn need(&self, services: impl IntoIterator<Item = ServiceKey>) {
        self.0
            .wanted
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .replace(services, now_ms());
    }

    /// Says which services this host calls now. They count so for ten minutes; a registry that cannot follow all of
    /// its services closely follows these first, and reads them at once.
    pub fn calls(&self, services: impl IntoIterator<Item = ServiceKey>) {
        self.0
            .wanted
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .calls(services, now_ms());
    }

    /// Waits until no source is connecting any more, at most `longest`. True when that came to be.
    pub async fn settled(&self, longest: Duration) -> bool {
        let mut views = self.views();
        let all = views.wait_for(|now| {
            now.sources
                .iter()
                .all(|row| row.status != SourceStatus::Connecting)
        });
        matches!(tokio::time::timeout(longest, all).await, Ok(Ok(_)))
    }

    /// The views as bytes for [`start_with`] at the next boot; the caller keeps them. What is returned holds no lock
    /// and takes long with many services: for a thread of its own.
    pub fn saving(&self) -> impl FnOnce() -> Vec<u8> + Send + use<> {
        let views: Vec<_> = {
            let slots = self.0.slots();
            slots.values().flat_map(|slot| slot.view.saved()).collect()
        };
        move || saved::save(&views, now_ms())
    }

    /// How the source reads its registry at this moment; all zero where that is not over HTTP.
    pub fn reading(&self, id: &str) -> Reading {
        let slots = self.0.slots();
        slots
            .get(id)
            .map(|slot| slot.tally.reading())
            .unwrap_or_default()
    }

    /// Appends this room's metrics in Prometheus' text format.
    pub fn metrics(&self, out: &mut String) {
        let slots = self.0.slots();
        let rows = slots
            .iter()
            .map(|(id, slot)| (id.as_str(), &slot.view, &*slot.tally));
        metrics::render(rows, out);
    }

    /// Waits until every task has ended; after the token was cancelled.
    pub async fn ended(&self) {
        self.0.tracker.close();
        self.0.tracker.wait().await;
    }
}

impl Shared {
    fn slots(&self) -> MutexGuard<'_, BTreeMap<String, Slot>> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn empty_view(&self, id: &str) -> View {
        View::new(id, millis(self.settings.removal_hold), now_ms())
    }

    fn restored_view(&self, id: &str, restored: &[SavedView]) -> View {
        let mut view = self.empty_view(id);
        let of_this = |old: &&SavedView| old.view.as_ref().is_some_and(|fact| fact.source == id);
        for (key, set) in restored
            .iter()
            .filter(of_this)
            .filter_map(saved::observation)
        {
            view.restore(key, set);
        }
        view
    }

    fn add(self: &Arc<Self>, config: SourceConfig, view: View, open: Opener) {
        let stop = self.stop.child_token();
        let (sink, outlet) = Sink::new();
        let tally = Arc::new(Tally::default());
        let latency = open().capabilities().latency;
        let supervised = Supervised {
            open,
            sink,
            demand: self
                .wanted
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .subscribe(),
            tally: Arc::clone(&tally),
            first_wait: self.settings.first_wait,
            longest_wait: self.settings.longest_wait,
        };
        let id = config.id.clone();
        self.slots().insert(
            id.clone(),
            Slot {
                config,
                view,
                latency,
                tally,
                stop: stop.clone(),
            },
        );
        let (shared, name) = (Arc::clone(self), id.clone());
        let restarted = move || {
            if let Some(slot) = shared.slots().get_mut(&name) {
                slot.view.restarted();
            }
        };
        self.tracker.spawn(supervise(
            supervised,
            self.tracker.clone(),
            stop.clone(),
            restarted,
        ));
        self.tracker.spawn(Arc::clone(self).pump(id, outlet, stop));
    }

    /// Moves what one source reports into its view and publishes, until `stop`.
    async fn pump(self: Arc<Self>, id: String, outlet: Outlet, stop: CancellationToken) {
        let mut looked: Option<Instant> = None;
        loop {
            let deadline = self
                .slots()
                .get(&id)
                .and_then(|slot| slot.view.deadline_ms());
            let mut reported = None;
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                () = outlet.filled() => {
                    reported = Some(Instant::now());
                    let calm = looked.is_none_or(|at| at.elapsed() >= self.settings.quiet);
                    self.quiet(&id, &outlet, calm).await;
                }
                () = until_ms(deadline) => {}
            }
            if stop.is_cancelled() {
                return;
            }
            self.look(&id, &outlet, reported);
            looked = Some(Instant::now());
        }
    }

    /// True when what was reported is little and leaves no service with fewer endpoints: then it need not wait for
    /// more. What shrinks a service waits, because the hold judges all that goes at one time.
    fn only_grows(&self, id: &str, outlet: &Outlet) -> bool {
        let slots = self.slots();
        slots
            .get(id)
            .is_some_and(|slot| outlet.all_few(|key, set| slot.view.is_no_smaller(key, set)))
    }

    /// Keeps the host names of endpoints resolved.
    async fn look_up(self: Arc<Self>) {
        let mut hosts = Hosts::default();
        loop {
            let wanted: BTreeSet<Arc<str>> = {
                let slots = self.slots();
                slots.values().flat_map(|slot| slot.view.hosts()).collect()
            };
            let (found, rest) = hosts.look(&self.settings.lookup, &wanted).await;
            let mut changed = false;
            for slot in self.slots().values_mut() {
                changed |= slot.view.resolved(&found);
            }
            if changed {
                self.publish();
            }
            tokio::select! {
                () = self.named.notified() => {}
                () = tokio::time::sleep(rest), if !wanted.is_empty() => {}
            }
        }
    }

    /// Waits for quiet, so that a burst is one publication; after calm, until what was reported needs no wait, as when
    /// a leader goes and the next one comes.
    async fn quiet(&self, id: &str, outlet: &Outlet, calm: bool) {
        let end = Instant::now() + self.settings.at_most;
        while Instant::now() < end && !(calm && self.only_grows(id, outlet)) {
            let pause = self
                .settings
                .quiet
                .min(end.saturating_duration_since(Instant::now()));
            if tokio::time::timeout(pause, outlet.filled()).await.is_err() {
                return;
            }
        }
    }

    fn look(&self, id: &str, outlet: &Outlet, reported: Option<Instant>) {
        let mut changed = None;
        {
            let mut slots = self.slots();
            let Some(slot) = slots.get_mut(id) else {
                return;
            };
            let now = now_ms();
            if let Some(batch) = outlet.take() {
                let (facts, doubt) = slot.view.apply(batch, now);
                changed = facts.then(|| Arc::clone(&slot.tally));
                if doubt {
                    outlet.ask_again();
                }
            }
            slot.view.expire(now);
            if slot.view.has_hosts() {
                self.named.notify_one();
            }
        }
        self.publish();
        if let (Some(tally), Some(reported)) = (changed, reported) {
            tally.published(reported.elapsed());
        }
    }

    /// Publishes when anything is different.
    fn publish(&self) {
        let (views, sources) = {
            let slots = self.slots();
            let views: BTreeMap<String, PublishedView> = slots
                .values()
                .flat_map(|slot| {
                    let publish = slot.config.publish;
                    slot.view.facts().map(move |(key, view)| {
                        (
                            key,
                            PublishedView {
                                view: Arc::clone(view),
                                publish,
                            },
                        )
                    })
                })
                .collect();
            (
                views,
                slots
                    .iter()
                    .map(|(id, slot)| row(id, &slot.config, slot.latency, &slot.view))
                    .collect::<Vec<_>>(),
            )
        };
        self.published.send_if_modified(|current| {
            if same(&current.views, &views) && current.sources == sources {
                return false;
            }
            *current = Arc::new(Published {
                version: current.version + 1,
                views,
                sources,
            });
            true
        });
    }
}

async fn until_ms(deadline: Option<u64>) {
    match deadline {
        Some(at) => tokio::time::sleep(Duration::from_millis(at.saturating_sub(now_ms()))).await,
        None => std::future::pending().await,
    }
}

fn now_ms() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, millis)
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
