//! One thread of the data plane: what its connections share.

use std::{future::Future, ops::Deref, rc::Rc, sync::Arc};

use mesh_model::snapshot::{Snapshot, cell::Reader};
use tokio_util::task::TaskTracker;

use crate::{config::Config, drain::Drain, observe::Observe, upstream::Upstream};

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

impl Worker {
    /// The snapshot now; load once per request and hold it to the end.
    pub(crate) fn snapshot(&self) -> Rc<View> {
        Rc::new(View(self.reader.load()))
    }

    /// Runs a task on this thread; a panic in it ends that task only.
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + 'static) {
        self.tasks.spawn_local(task);
    }
}
