//! The small DNS process: mesh names from a file that the daemon replaces, all others sent on or refused.
//!
//! In: queries over UDP and TCP, the names file. Out: addresses of mesh names with a short life, answers of
//! upstreams for the rest. Never: needs the daemon alive, or keeps more than a bounded amount of work.
//!
//! A name has two kinds of addresses. *Virtual* ones lead into the mesh, or, with the daemon dead, go on by
//! the fallback rules. *Plain* ones are the endpoints' own: they are answered while bypass is on, and after a
//! boot until the daemon has written its file, because then nothing makes virtual addresses reachable.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
};

use mesh_model::config::Boot;
use tokio_util::sync::CancellationToken;

/// One query in, one answer out, or word that it must be sent on.
mod answer;
/// Asks an upstream.
mod forward;
/// Sockets, and the limits on what they may cost.
mod listen;
/// The names file: written whole, read when it changed.
mod zone;

pub(crate) use listen::RunError;
pub(crate) use zone::{Entry, write};

/// Where the names process listens and reads.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    /// Where it answers, UDP and TCP.
    pub(crate) listen: Vec<SocketAddr>,
    /// Where other names are sent on to; none: they are refused.
    pub(crate) upstream: Vec<SocketAddr>,
    /// The file of a daemon that has started since the last boot.
    pub(crate) runtime_file: PathBuf,
    /// The copy that survives a boot.
    pub(crate) state_file: PathBuf,
    /// Where the bypass marker is.
    pub(crate) state_dir: PathBuf,
}

impl Settings {
    /// What the daemon's configuration says.
    pub(crate) fn from_boot(boot: &Boot) -> Self {
        let listen = boot.names.listen.clone();
        // A query must not come back to us.
        let upstream = boot
            .names
            .upstream
            .iter()
            .copied()
            .filter(|one| !listen.contains(one))
            .collect();
        Self {
            listen,
            upstream,
            runtime_file: file_in(&boot.runtime_dir),
            state_file: file_in(&boot.state_dir),
            state_dir: boot.state_dir.clone(),
        }
    }
}

/// Answers until `stop`.
pub(crate) async fn run(settings: Settings, stop: CancellationToken) -> Result<(), RunError> {
    listen::run(settings, stop).await
}

/// The names file of a runtime or state directory.
fn file_in(folder: &Path) -> PathBuf {
    folder.join("names")
}
