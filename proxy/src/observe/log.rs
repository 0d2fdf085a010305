//! The access log: JSON lines, written by a thread of their own; what it cannot take is dropped and counted.

use std::{
    cell::RefCell,
    fs::{File, OpenOptions},
    io::{self, Write},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc::{Receiver, SyncSender, sync_channel},
    },
};

use mesh_model::config::{AccessLog, AccessLogDestination};
use serde::Serialize;

use super::{RequestRecord, micros};
use crate::clock::now_ms;

/// Bytes that a worker gathers before it hands them on.
const CHUNK: usize = 16 << 10;
/// Chunks that wait for the writer.
const CHUNKS: usize = 256;

/// One worker's end of the log.
#[derive(Debug)]
pub(crate) struct Lines {
    to: Option<SyncSender<Vec<u8>>>,
    failures_only: bool,
    gathered: RefCell<Vec<u8>>,
}

#[derive(Serialize)]
struct Line<'a> {
    time_ms: u64,
    direction: &'a str,
    id: &'a str,
    source: &'a str,
    destination: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    route: &'a str,
    protocol: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    method: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    path: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    authority: &'a str,
    status: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    grpc_status: Option<u32>,
    #[serde(skip_serializing_if = "str::is_empty")]
    code: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    what: &'a str,
    caller: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    endpoint: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    endpoint_host: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    peer: &'a str,
    retries: u32,
    received: u64,
    sent: u64,
    duration_us: u64,
    #[serde(skip_serializing_if = "str::is_empty")]
    trace: &'a str,
}

impl Lines {
    /// Writes a line unless it is not wanted; false: lines were dropped.
    pub(crate) fn write(&self, record: &RequestRecord<'_>, failed: bool) -> bool {
        if self.to.is_none() || self.failures_only && !failed {
            return true;
        }
        let line = Line {
            time_ms: now_ms(),
            direction: record.direction.as_str(),
            id: record.id,
            source: record.source,
            destination: record.destination,
            route: record.route,
            protocol: record.protocol,
            method: record.method,
            path: record.path,
            authority: record.authority,
            status: record.status,
            grpc_status: record.grpc_status,
            code: record.code,
            what: record.what,
            caller: record.caller,
            endpoint: record.endpoint,
            endpoint_host: record.endpoint_host,
            peer: record.peer,
            retries: record.retries,
            received: record.received,
            sent: record.sent,
            duration_us: micros(record.duration),
            trace: record.trace,
        };
        let mut gathered = self.gathered.borrow_mut();
        let before = gathered.len();
        if serde_json::to_writer(&mut *gathered, &line).is_err() {
            gathered.truncate(before);
            return false;
        }
        gathered.push(b'\n');
        let full = gathered.len() >= CHUNK;
        drop(gathered);
        !full || self.flush()
    }

    /// Hands on what was gathered; false: it was dropped.
    pub(crate) fn flush(&self) -> bool {
        let Some(to) = &self.to else { return true };
        let mut gathered = self.gathered.borrow_mut();
        if gathered.is_empty() {
            return true;
        }
        to.try_send(std::mem::take(&mut *gathered)).is_ok()
    }
}

/// The writer's thread, and how workers reach it.
#[derive(Debug)]
pub(crate) struct Writer {
    to: Option<SyncSender<Vec<u8>>>,
    failures_only: bool,
    reopen: Arc<AtomicBool>,
}

impl Writer {
    /// Starts the thread, unless the log is off. It ends with the last worker.
    pub(crate) fn start(settings: &AccessLog) -> io::Result<Self> {
        let reopen = Arc::new(AtomicBool::new(false));
        let Some(destination) = settings.destination.clone() else {
            return Ok(Self {
                to: None,
                failures_only: settings.failures_only,
                reopen,
            });
        };
        let out = Out::open(destination)?;
        let (to, from) = sync_channel(CHUNKS);
        let asked = Arc::clone(&reopen);
        std::thread::Builder::new()
            .name("mesh-access-log".to_owned())
            .spawn(move || run(&from, out, &asked))?;
        Ok(Self {
            to: Some(to),
            failures_only: settings.failures_only,
            reopen,
        })
    }

    /// An end for a worker.
    pub(crate) fn lines(&self) -> Lines {
        let gathered = RefCell::default();
        Lines {
            to: self.to.clone(),
            failures_only: self.failures_only,
            gathered,
        }
    }

    /// Opens the file anew before the next line.
    pub(crate) fn reopen(&self) {
        self.reopen.store(true, Ordering::Relaxed);
    }
}

enum Out {
    Stdout,
    File(Box<Path>, File),
}

impl Out {
    fn open(destination: AccessLogDestination) -> io::Result<Self> {
        match destination {
            AccessLogDestination::Stdout => Ok(Self::Stdout),
            AccessLogDestination::File(path) => {
                let file = append_to(&path)?;
                Ok(Self::File(path.into_boxed_path(), file))
            }
        }
    }
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Stdout => {
                let mut out = io::stdout().lock();
                out.write_all(bytes)?;
                out.flush()
            }
            Self::File(_, file) => file.write_all(bytes),
        }
    }
    fn reopen(&mut self) -> io::Result<()> {
        if let Self::File(path, file) = self {
            *file = append_to(path)?;
        }
        Ok(())
    }
}

fn append_to(path: &Path) -> io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt;
    OpenOptions::new()
        .create(true)
        .append(true)
        .mode(0o640)
        .open(path)
}

fn run(from: &Receiver<Vec<u8>>, mut out: Out, reopen: &AtomicBool) {
    let mut well = true;
    for chunk in from {
        if reopen.swap(false, Ordering::Relaxed)
            && let Err(error) = out.reopen()
        {
            tracing::warn!(%error, "the access log could not be opened anew");
        }
        match out.write(&chunk) {
            Ok(()) => well = true,
            Err(error) => {
                // Once, not per chunk.
                if std::mem::replace(&mut well, false) {
                    tracing::warn!(%error, "the access log could not be written");
                }
            }
        }
    }
}
