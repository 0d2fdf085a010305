//! A directory of files as a source: what a person, a script or a configuration tool writes.
//!
//! In: `*.toml`, `*.json` and `*.yaml` with `[[service]]` tables, and files named after a service with one
//! `host port [* weight]` a line. Out: the sets of all files, whole. Never: lets a broken, half written or
//! emptied file remove anything: its last good content stays and the status says which line is wrong.

use std::{
    convert::Infallible,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use tokio::{sync::Notify, time::Instant};
use tokio_util::sync::CancellationToken;

use crate::{
    demand::Demand,
    sink::Sink,
    source::{Capabilities, Reach, Source, SourceError},
    status::SourceStatus,
    version::Version,
};

/// One file's text to services, or the line that is wrong.
pub mod parse;
/// What is in the directory now, and what was good before.
mod scan;

use scan::Scan;

/// A sweep without any event, as the safety net for events that never come.
const SWEEP: Duration = Duration::from_secs(10);
/// The same where the directory cannot be watched.
const POLL: Duration = Duration::from_secs(2);
/// After an event, this much quiet before reading: writers are still at it.
const QUIET: Duration = Duration::from_millis(50);
/// After the first event, read at the latest after this.
const AT_MOST: Duration = Duration::from_millis(500);

/// A directory of files.
#[derive(Debug)]
pub struct FileSource {
    id: String,
    directory: PathBuf,
}

impl FileSource {
    /// The directory need not exist yet.
    pub fn new(id: &str, directory: &Path) -> Self {
        Self {
            id: id.to_owned(),
            directory: directory.to_owned(),
        }
    }
}

#[async_trait]
impl Source for FileSource {
    fn id(&self) -> &str {
        &self.id
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            reach: Reach::All,
            pushes: true,
            health: true,
            weights: true,
            latency: QUIET,
        }
    }

    async fn run(
        &mut self,
        out: Sink,
        _demand: Demand,
        _stop: CancellationToken,
    ) -> Result<Infallible, SourceError> {
        let events = Arc::new(Notify::new());
        let mut watch = Watch::none();
        let mut scan = Scan::new(&self.directory);
        let mut told = true;
        loop {
            watch.follow(&self.directory, &events);
            let (next, result) = blocking(scan, told, out.clone()).await?;
            scan = next;
            let found = result?;
            let pause = match (found.unsettled, watch.is_on()) {
                (true, _) => QUIET,
                (false, true) => SWEEP,
                (false, false) => POLL,
            };
            told = tokio::select! {
                () = events.notified() => { settle(&events).await; true }
                () = out.recheck() => true,
                () = tokio::time::sleep(pause) => found.unsettled || !watch.is_on(),
            };
        }
    }
}

/// Reads the directory and reports what it says, off the runtime's threads: that may be very much.
async fn blocking(
    mut scan: Scan,
    told: bool,
    out: Sink,
) -> Result<(Scan, Result<scan::Found, SourceError>), SourceError> {
    let task = tokio::task::spawn_blocking(move || {
        let found = scan.look();
        if let Ok(found) = &found {
            if found.changed && !told {
                out.drifted();
            }
            report(&scan, found, &out);
        }
        (scan, found)
    });
    task.await.map_err(|_panicked| SourceError::Protocol {
        subject: "the directory".into(),
        what: "the reader panicked".into(),
    })
}

/// Waits until events stop coming, a little while at most.
async fn settle(events: &Notify) {
    let end = Instant::now() + AT_MOST;
    while Instant::now() < end && tokio::time::timeout(QUIET, events.notified()).await.is_ok() {}
}

fn report(scan: &Scan, found: &scan::Found, out: &Sink) {
    if found.changed {
        let mut sync = out.begin_sync();
        for (key, set, hash) in scan.services() {
            sync.replace(key, set, Version::Hash(hash));
        }
        sync.commit();
    }
    for _ in 0..found.newly_broken {
        out.unreadable();
    }
    out.status(match scan.error() {
        None => SourceStatus::Synced,
        Some(error) => SourceStatus::Degraded { error },
    });
}

/// The watch on the directory and its parent: a watch on a file goes deaf at the first rename over it,
/// and a watch on a directory when the directory itself is replaced.
struct Watch {
    watcher: Option<notify::RecommendedWatcher>,
    of: Option<(u64, u64)>,
}

impl Watch {
    fn none() -> Self {
        Self {
            watcher: None,
            of: None,
        }
    }

    fn is_on(&self) -> bool {
        self.watcher.is_some()
    }

    /// Watches what the path means now; does nothing while that is the same directory.
    fn follow(&mut self, directory: &Path, events: &Arc<Notify>) {
        use std::os::unix::fs::MetadataExt;
        let now = std::fs::metadata(directory)
            .ok()
            .map(|meta| (meta.dev(), meta.ino()));
        if self.watcher.is_some() && now == self.of {
            return;
        }
        self.of = now;
        self.watcher = now.and_then(|_| watch(directory, events).ok());
        // What happened between the reading and the watching is found by one more look.
        events.notify_one();
    }
}

fn watch(directory: &Path, events: &Arc<Notify>) -> notify::Result<notify::RecommendedWatcher> {
    use notify::{RecursiveMode, Watcher};
    let (wake, ours) = (Arc::clone(events), directory.to_owned());
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        if event.as_ref().map_or(true, |event| concerns(event, &ours)) {
            wake.notify_one();
        }
    })?;
    watcher.watch(directory, RecursiveMode::NonRecursive)?;
    if let Some(parent) = directory
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty())
    {
        // The parent may be unreadable; then the sweep finds a replaced directory.
        let _optional = watcher.watch(parent, RecursiveMode::NonRecursive);
    }
    Ok(watcher)
}

/// False for mere reading, and for neighbours of the directory.
fn concerns(event: &notify::Event, directory: &Path) -> bool {
    use notify::{
        EventKind,
        event::{AccessKind, AccessMode},
    };
    let read_only = matches!(event.kind, EventKind::Access(kind)
        if kind != AccessKind::Close(AccessMode::Write));
    let ours = event.paths.is_empty() || event.paths.iter().any(|path| path.starts_with(directory));
    event.need_rescan() || (ours && !read_only)
}
