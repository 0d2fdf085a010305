//! The access log: JSON lines, written by a thread of their own; what it cannot take is dropped and counted.
//!
//! In: records of the workers, and settings that may change while it runs. Out: lines. Never: lets a worker wait.

use std::{
    cell::RefCell,
    fs::{File, OpenOptions},
    io::{self, Write},
    path::Path,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU8, Ordering},
        mpsc::{Receiver, SyncSender, sync_channel},
    },
};

use mesh_model::config::{AccessLog, AccessLogDestination};
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use serde::Serialize;

use super::{RequestRecord, micros};
use crate::clock::now_ms;

/// Bytes that a worker gathers before it hands them on.
const CHUNK: usize = 16 << 10;
/// Chunks that wait for the writer.
const CHUNKS: usize = 256;

/// No lines are wanted.
const NONE: u8 = 0;
/// Lines of what failed are wanted.
const FAILURES: u8 = 1;
/// All lines are wanted.
const ALL: u8 = 2;

/// One worker's end of the log.
#[derive(Debug)]
pub(crate) struct Lines {
    to: SyncSender<Vec<u8>>,
    /// [`NONE`], [`FAILURES`] or [`ALL`].
    wanted: Arc<AtomicU8>,
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
        match self.wanted.load(Ordering::Relaxed) {
            NONE => return true,
            FAILURES if !failed => return true,
            _ => {}
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
        let mut gathered = self.gathered.borrow_mut();
        if gathered.is_empty() {
            return true;
        }
        self.to.try_send(std::mem::take(&mut *gathered)).is_ok()
    }
}

/// The writer's thread, and how workers reach it. The thread runs from the first settings on that want lines, until
/// the last worker has ended.
#[derive(Debug)]
pub(crate) struct Writer {
    to: SyncSender<Vec<u8>>,
    wanted: Arc<AtomicU8>,
    /// Where lines go from the next chunk on.
    next: Arc<Mutex<Option<Out>>>,
    /// The thread's end, until there is the thread.
    from: Mutex<Option<Receiver<Vec<u8>>>>,
}

impl Writer {
    /// Starts the thread, unless the log is off.
    pub(crate) fn start(settings: &AccessLog) -> io::Result<Self> {
        let (to, from) = sync_channel(CHUNKS);
        let writer = Self {
            to,
            wanted: Arc::new(AtomicU8::new(NONE)),
            next: Arc::default(),
            from: Mutex::new(Some(from)),
        };
        writer.take(settings)?;
        Ok(writer)
    }

    /// Follows these settings from now on; a file is opened anew though it is the same. After an error all stays as
    /// it was.
    pub(crate) fn take(&self, settings: &AccessLog) -> io::Result<()> {
        let wanted = match (&settings.destination, settings.failures_only) {
            (None, _) => NONE,
            (Some(_), true) => FAILURES,
            (Some(_), false) => ALL,
        };
        let out = settings.destination.as_ref().map(Out::open).transpose()?;
        self.turn(out.unwrap_or(Out::Nowhere))?;
        self.wanted.store(wanted, Ordering::Relaxed);
        Ok(())
    }

    fn turn(&self, out: Out) -> io::Result<()> {
        let mut thread = self.from.lock().unwrap_or_else(PoisonError::into_inner);
        if thread.is_some() && matches!(out, Out::Nowhere) {
            return Ok(());
        }
        *self.next.lock().unwrap_or_else(PoisonError::into_inner) = Some(out);
        if let Some(from) = thread.take() {
            let next = Arc::clone(&self.next);
            std::thread::Builder::new()
                .name("mesh-access-log".to_owned())
                .spawn(move || run(&from, &next))?;
        }
        // It lets go of the old file now and not at the next line; where chunks wait, it wakes without this.
        _ = self.to.try_send(Vec::new()).is_ok();
        Ok(())
    }

    /// An end for a worker.
    pub(crate) fn lines(&self) -> Lines {
        Lines {
            to: self.to.clone(),
            wanted: Arc::clone(&self.wanted),
            gathered: RefCell::default(),
        }
    }
}

#[derive(Debug)]
enum Out {
    Nowhere,
    Stdout,
    File(File),
}

impl Out {
    fn open(destination: &AccessLogDestination) -> io::Result<Self> {
        match destination {
            AccessLogDestination::Stdout => Ok(Self::Stdout),
            AccessLogDestination::File(path) => append_to(path).map(Self::File),
        }
    }
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Nowhere => Ok(()),
            Self::Stdout => {
                let mut out = io::stdout().lock();
                out.write_all(bytes)?;
                out.flush()
            }
            Self::File(file) => file.write_all(bytes),
        }
    }
}

/// Opens without waiting: a pipe that nobody reads is refused.
fn append_to(path: &Path) -> io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt;
    let file = OpenOptions::new()
        .create(true)
        .append(true)
        .mode(0o640)
        .custom_flags(OFlag::O_NONBLOCK.bits())
        .open(path)?;
    // The thread may wait for what it writes to.
    fcntl(&file, FcntlArg::F_SETFL(OFlag::O_APPEND))?;
    Ok(file)
}

fn run(from: &Receiver<Vec<u8>>, next: &Mutex<Option<Out>>) {
    let mut out = Out::Nowhere;
    let mut well = true;
    for chunk in from {
        if let Some(newer) = next.lock().unwrap_or_else(PoisonError::into_inner).take() {
            out = newer;
            well = true;
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
