//! What the rooms of the running daemon share: settings, the state of the mesh, requests to the main loop.

use std::{path::PathBuf, sync::Arc};

use arc_swap::{ArcSwap, ArcSwapOption};
use mesh_model::{
    config::{Boot, Live},
    finding::Finding,
};
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{admission::Site, clock, disk::Disk, intake::Host, running::Running};

/// What the main loop is asked to do.
#[derive(Debug)]
pub(crate) enum Request {
    /// An identity was written: open the rooms that need one.
    Activate(oneshot::Sender<Result<(), String>>),
    /// Close them and forget the mesh.
    Leave(oneshot::Sender<Result<(), String>>),
    /// The bypass marker changed.
    Capture(oneshot::Sender<Result<(), String>>),
}

/// Shared by every room of the control side.
#[derive(Debug)]
pub(crate) struct Daemon {
    /// The file that `SIGHUP` reads again.
    pub(crate) config_path: PathBuf,
    /// Settings that need a restart.
    pub(crate) boot: Boot,
    /// Settings that a reload may change.
    pub(crate) live: watch::Sender<Arc<Live>>,
    /// What survives a restart.
    pub(crate) disk: Arc<Disk>,
    /// Name and addresses of this host.
    pub(crate) host: Host,
    /// The rooms that exist once the host is in a mesh.
    pub(crate) running: ArcSwapOption<Running>,
    /// Problems outside the plan, by subject; see [`Daemon::raise`].
    pub(crate) findings: ArcSwap<Vec<Finding>>,
    /// Requests to the main loop.
    pub(crate) requests: mpsc::Sender<Request>,
    /// Ends every task.
    pub(crate) stop: CancellationToken,
    /// Owns every task.
    pub(crate) tasks: TaskTracker,
}

impl Daemon {
    /// Where this host stands, for admission.
    pub(crate) fn admission_site(&self) -> Site {
        Site::new(&self.boot, &self.host)
    }

    /// `idle`, `running` or `bypassed`.
    pub(crate) fn phase(&self) -> &'static str {
        if self.stop.is_cancelled() {
            "draining"
        } else if mesh_intercept::bypass::active(&self.boot.state_dir) {
            "bypassed"
        } else if self.running.load().is_some() {
            "running"
        } else {
            "idle"
        }
    }

    /// Sets the problem with this code and subject, or takes it away; logs only what changed.
    pub(crate) fn raise(&self, code: &str, subject: &str, finding: Option<Finding>) {
        let mut changed = false;
        self.findings.rcu(|all| {
            let mut next: Vec<Finding> = all
                .iter()
                .filter(|known| !(known.code == code && known.subject == subject))
                .cloned()
                .collect();
            let before = all
                .iter()
                .find(|known| known.code == code && known.subject == subject);
            changed = match (&finding, before) {
                (Some(new), Some(old)) => new.what != old.what,
                (None, None) => false,
                _ => true,
            };
            if let Some(mut finding) = finding.clone() {
                finding.since_ms = before.map_or_else(clock::now_ms, |before| before.since_ms);
                next.push(finding);
            }
            next
        });
        if changed {
            if let Some(finding) = finding {
                tracing::warn!(%finding, "finding");
            } else {
                tracing::info!(code, subject, "finding solved");
            }
        }
    }

    /// Asks the main loop and waits for its answer.
    pub(crate) async fn ask(
        &self,
        request: impl FnOnce(oneshot::Sender<Result<(), String>>) -> Request,
    ) -> Result<(), String> {
        let (answer, answered) = oneshot::channel();
        let gone = |_closed| "the daemon is stopping".to_owned();
        self.requests
            .send(request(answer))
            .await
            .map_err(|_closed| "the daemon is stopping".to_owned())?;
        answered.await.map_err(gone)?
    }
}
