//! One thread of the data plane: what its connections share, and its life.

use std::{
    cell::RefCell,
    future::Future,
    net::SocketAddr,
    ops::Deref,
    panic::AssertUnwindSafe,
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::FutureExt;
use mesh_identity::Credentials;
use mesh_model::snapshot::{Snapshot, Trust, cell::Reader};
use tokio_util::task::TaskTracker;

use crate::{
    config::Config,
    detect::Memory,
    drain::Drain,
    listen::{self, Bound},
    observe::{Observe, cells::Cells, log::Lines},
    origin::{Origins, units::Units},
    tcp::copy::Buffers,
    tls::Tls,
    tunnel::Tunnels,
    upstream::{self, Upstream},
};

/// What the connections of one thread share; always behind `Rc`.
#[derive(Debug)]
pub(crate) struct Worker {
    /// Where snapshots come from; prefer [`Worker::snapshot`].
    pub(crate) reader: Reader,
    /// Endpoints' live state and connections to them.
    pub(crate) upstream: Upstream,
    /// Counters, log, failures.
    pub(crate) observe: Observe,
    /// Settings.
    pub(crate) config: Arc<Config>,
    /// Whether the proxy is stopping.
    pub(crate) drain: Drain,
    /// The running connections and streams.
    pub(crate) tasks: TaskTracker,
    /// Who opened connections.
    pub(crate) origins: Origins,
    /// Where servers speak first.
    pub(crate) memory: Memory,
    /// Buffers and pipes that no connection needs now.
    pub(crate) buffers: Buffers,
    /// Handshakes.
    pub(crate) tls: Rc<Tls>,
    /// Tunnel connections from other daemons.
    pub(crate) tunnels: Tunnels,
    /// Addresses of our own listeners.
    pub(crate) own: Arc<[SocketAddr]>,
    /// The snapshot that was loaded last.
    pub(crate) view: RefCell<Rc<View>>,
}

/// A snapshot held by one thread: cloned without touching a counter that others share.
#[derive(Debug)]
pub(crate) struct View(Arc<Snapshot>);

impl Deref for View {
    type Target = Snapshot;
    fn deref(&self) -> &Snapshot {
        &self.0
    }
}

impl View {
    /// The snapshot now.
    pub(crate) fn load(reader: &Reader) -> Rc<Self> {
        Rc::new(Self(reader.load()))
    }
}

/// How often a new snapshot's rights are enforced and log lines handed on.
const TICK: Duration = Duration::from_millis(250);
/// Ticks from one tidying of the pools to the next.
const TIDY: u32 = 8;

/// What a worker begins with.
#[derive(Debug)]
pub(crate) struct Parts {
    pub(crate) config: Arc<Config>,
    pub(crate) reader: Reader,
    pub(crate) credentials: Credentials,
    pub(crate) drain: Drain,
    pub(crate) shared: Arc<upstream::Shared>,
    pub(crate) units: Arc<Units>,
    pub(crate) cells: Arc<Cells>,
    pub(crate) lines: Lines,
    pub(crate) own: Arc<[SocketAddr]>,
    /// The same for all workers that share `shared`.
    pub(crate) started: Instant,
}

impl Worker {
    /// Nothing open yet; made on the thread that will run it.
    pub(crate) fn new(parts: Parts) -> Rc<Self> {
        let tls = Rc::new(Tls::new(parts.reader.clone(), parts.credentials));
        let upstream = Upstream::new(
            Arc::clone(&parts.config),
            Rc::clone(&tls),
            parts.shared,
            Arc::clone(&parts.cells.transport),
            parts.started,
        );
        Rc::new(Self {
            view: RefCell::new(View::load(&parts.reader)),
            reader: parts.reader,
            upstream,
            observe: Observe::new(parts.cells, parts.lines),
            config: parts.config,
            drain: parts.drain,
            tasks: TaskTracker::new(),
            origins: Origins::new(parts.units),
            memory: Memory::default(),
            buffers: Buffers::default(),
            tls,
            tunnels: Tunnels::default(),
            own: parts.own,
        })
    }

    /// The snapshot now; load once per request and hold it to the end.
    pub(crate) fn snapshot(&self) -> Rc<View> {
        let mut view = self.view.borrow_mut();
        if view.generation != self.reader.generation() {
            *view = View::load(&self.reader);
        }
        Rc::clone(&view)
    }

    /// Runs a task on this thread; a panic in it ends that task only.
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + 'static) {
        let panics = self.observe.panics();
        self.tasks.spawn_local(async move {
            if AssertUnwindSafe(task).catch_unwind().await.is_err() {
                panics.add(1);
                tracing::error!("a connection's task panicked; the connection was closed");
            }
        });
    }

    /// Accepts until draining begins, then finishes what runs, until forced.
    pub(crate) async fn run(self: Rc<Self>, bound: Vec<Bound>) {
        for listener in bound {
            let worker = Rc::clone(&self);
            self.spawn(listen::accept(worker, listener));
        }
        tokio::select! {
            () = self.keep_tidy() => {}
            () = self.drain.draining() => {}
        }
        self.tasks.close();
        tokio::select! {
            () = self.tasks.wait() => {}
            () = self.drain.forced() => {}
            () = self.keep_tidy() => {}
        }
        self.observe.flush();
    }

    async fn keep_tidy(&self) {
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut enforced = self.snapshot();
        for ticks in 1u32.. {
            tick.tick().await;
            self.observe.flush();
            if ticks.is_multiple_of(TIDY) {
                self.upstream.tidy();
            }
            let snapshot = self.snapshot();
            if snapshot.generation == enforced.generation {
                continue;
            }
            self.upstream.retire(&snapshot);
            if !same_trust(&enforced, &snapshot) {
                self.tunnels.enforce(&snapshot);
                self.upstream.enforce(&snapshot);
            }
            enforced = snapshot;
        }
    }
}

fn same_trust(a: &Snapshot, b: &Snapshot) -> bool {
    let Trust { bundles, grants } = &a.trust;
    *bundles == b.trust.bundles && *grants == b.trust.grants && a.mesh == b.mesh
}
