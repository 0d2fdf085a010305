//! One thread of the data plane: what its connections share.

use std::{
    cell::RefCell, future::Future, net::SocketAddr, ops::Deref, panic::AssertUnwindSafe, rc::Rc,
    sync::Arc, time::Instant,
};

use futures_util::FutureExt;
use mesh_identity::Credentials;
use mesh_model::snapshot::{Snapshot, cell::Reader};
use tokio_util::task::TaskTracker;

use crate::{
    buffers::Buffers,
    config::Config,
    detect::Memory,
    drain::Drain,
    limits::{self, Limits},
    observe::{Observe, cells::Cells, log::Lines},
    origin::{Origins, units::Units},
    peers::Peers,
    tls::Tls,
    upstream::{self, Upstream},
};

/// What the connections of one thread share; always behind `Rc`.
#[derive(Debug)]
pub(crate) struct Worker {
    /// Where snapshots come from; prefer [`Worker::snapshot`].
    pub(crate) reader: Reader,
    /// Endpoints' live state and connections to them.
    pub(crate) upstream: Upstream,
    /// Rate limits.
    pub(crate) limits: Limits,
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
    /// Other daemons with a tunnel to us.
    pub(crate) peers: Peers,
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

/// What a worker begins with.
#[derive(Debug)]
pub(crate) struct Parts {
    pub(crate) config: Arc<Config>,
    pub(crate) reader: Reader,
    pub(crate) credentials: Credentials,
    pub(crate) drain: Drain,
    pub(crate) shared: Arc<upstream::Shared>,
    pub(crate) limits: Arc<limits::Shared>,
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
            limits: Limits::new(parts.limits),
            observe: Observe::new(parts.cells, parts.lines),
            config: parts.config,
            drain: parts.drain,
            tasks: TaskTracker::new(),
            origins: Origins::new(parts.units),
            memory: Memory::default(),
            buffers: Buffers::default(),
            tls,
            peers: Peers::default(),
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
        // Combinators: an async block would hold the task twice, before and while it runs.
        let watched = AssertUnwindSafe(task).catch_unwind().map(move |ended| {
            if ended.is_err() {
                panics.add(1);
                tracing::error!("a connection's task panicked; the connection was closed");
            }
        });
        self.tasks.spawn_local(watched);
    }
}
