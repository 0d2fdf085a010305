//! The daemon as those see it who serve people and other hosts: its ground, its rooms, its main loop.

use std::{path::PathBuf, sync::Arc};

use arc_swap::ArcSwapOption;
use mesh_model::config::Capture;
use tokio::sync::{mpsc, oneshot};

use crate::{ground::Ground, running::Running};

/// What the main loop is asked to do.
#[derive(Debug)]
pub(crate) enum Request {
    /// An identity was written: open the rooms that need one.
    Activate(oneshot::Sender<Result<(), String>>),
    /// Close them and forget the mesh.
    Leave(oneshot::Sender<Result<(), String>>),
    /// Read the configuration again.
    Reload(oneshot::Sender<Result<(), String>>),
    /// The bypass marker changed.
    Capture(oneshot::Sender<Result<(), String>>),
}

/// The whole daemon.
#[derive(Debug)]
pub(crate) struct Daemon {
    /// The file that `SIGHUP` reads again.
    pub(crate) config_path: PathBuf,
    /// What its rooms share.
    pub(crate) ground: Arc<Ground>,
    /// The rooms that exist once the host is in a mesh.
    pub(crate) running: ArcSwapOption<Running>,
    /// Requests to the main loop.
    pub(crate) requests: mpsc::Sender<Request>,
}

impl Daemon {
    /// `idle`, `running` or `bypassed`.
    pub(crate) fn phase(&self) -> &'static str {
        if self.ground.stop.is_cancelled() {
            "draining"
        } else if mesh_intercept::bypass::active(&self.ground.boot.state_dir) {
            "bypassed"
        } else if self.running.load().is_some() {
            "running"
        } else {
            "idle"
        }
    }

    /// What is captured now, whatever the settings ask for.
    pub(crate) fn capture(&self) -> Capture {
        if self.phase() == "running" {
            self.ground.boot.capture
        } else {
            Capture::Off
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
