//! The admin socket: one HTTP/1.1 server on a unix socket, one function per request kind.
//!
//! In: requests of `mesh_model::admin`. Out: JSON. Never: trusts what a caller says of itself; the
//! kernel's word (`SO_PEERCRED`) decides who may change this host, an operator's signature who may commit.

use std::{
    convert::Infallible,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use hyper::{Request, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::{UnixListener, UnixStream},
    sync::Semaphore,
};

use crate::daemon::Daemon;

mod adopt;
mod answer;
mod check;
mod enrol;
mod lifecycle;
mod live;
mod registry;
mod request;
mod resources;
mod route;
mod state;
mod story;

/// Every problem known, worst first.
pub(crate) fn findings(daemon: &Daemon) -> Vec<mesh_model::finding::Finding> {
    state::findings(daemon, daemon.running.load_full().as_deref())
}

/// Why the socket cannot be opened.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OpenError {
    /// Another daemon answers there.
    #[error("{} is in use by a running meshd", .0.display())]
    InUse(PathBuf),
    /// The file system says no.
    #[error("cannot open {}", path.display())]
    Io {
        /// The socket.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
}

/// Most connections at a time; more wait until one ends.
const CONNECTIONS: usize = 256;

/// Who asks, by the kernel.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Caller {
    /// True for root and the daemon's own user.
    pub(crate) owner: bool,
}

/// Opens the socket: mode 0660, so that its group decides who may ask.
pub(crate) fn open(path: &Path) -> Result<UnixListener, OpenError> {
    let io = |source| OpenError::Io {
        path: path.to_owned(),
        source,
    };
    if std::os::unix::net::UnixStream::connect(path).is_ok() {
        return Err(OpenError::InUse(path.to_owned()));
    }
    match std::fs::remove_file(path) {
        Ok(()) => {}
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(io(error)),
    }
    let listener = UnixListener::bind(path).map_err(io)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o660)).map_err(io)?;
    Ok(listener)
}

/// Answers until stopped.
pub(crate) async fn serve(listener: UnixListener, daemon: Arc<Daemon>) {
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let next = async {
            let place = Arc::clone(&places).acquire_owned().await.ok();
            listener.accept().await.map(|(stream, _)| (stream, place))
        };
        let accepted = tokio::select! {
            () = daemon.ground.stop.cancelled() => return,
            accepted = next => accepted,
        };
        match accepted {
            Ok((stream, place)) => {
                let daemon_of_task = Arc::clone(&daemon);
                daemon.ground.tasks.spawn(async move {
                    connection(stream, daemon_of_task).await;
                    drop(place);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "admin socket: accept failed");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn connection(stream: UnixStream, daemon: Arc<Daemon>) {
    let owner = stream
        .peer_cred()
        .is_ok_and(|peer| peer.uid() == 0 || peer.uid() == nix::unistd::geteuid().as_raw());
    let stop = daemon.ground.stop.clone();
    let service = service_fn(move |request: Request<Incoming>| {
        let daemon = Arc::clone(&daemon);
        async move {
            let answer = route::dispatch(&daemon, Caller { owner }, request).await;
            Ok::<_, Infallible>(answer)
        }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(Duration::from_secs(30))
        .serve_connection(TokioIo::new(stream), service);
    tokio::select! {
        served = served => {
            if let Err(error) = served {
                tracing::debug!(%error, "admin connection");
            }
        }
        () = stop.cancelled() => {}
    }
}
