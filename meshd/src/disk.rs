//! What survives a restart of the control state: rows of byte strings in one file, written by one thread.
//!
//! In: rows, some of which must be on disk before anybody is told. Out: all rows at the next start. A file
//! that cannot be read is moved aside, because peers have what was in it; keys live elsewhere. Never: two
//! daemons on one state directory.

use std::{
    fs::File,
    io,
    path::{Path, PathBuf},
    sync::mpsc::{SyncSender, sync_channel},
    thread::JoinHandle,
};

use mesh_gossip::{Row, table};
use nix::fcntl::{Flock, FlockArg};
use redb::{Database, ReadableDatabase as _, ReadableTable as _, TableDefinition};

/// The thread that writes: batches in order, together, again after a fault.
mod writer;

use writer::{Order, Shared, Writer};

/// The daemon's own table, beside those of the control state.
const BOOT: &str = "boot";
/// The file whose lock says that a daemon uses the directory.
const LOCK: &str = "lock";
/// Bytes of the file that may be held in memory: it is read whole once, at the start, and then only written. Rows
/// come at random places, so that whatever is allowed here is filled by some hundred edits.
const CACHE: usize = 1 << 18;
/// Orders that may wait for the writer; above it whoever gives one waits.
const QUEUE: usize = 1024;

/// Why the state directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DiskError {
    /// Somebody has it.
    #[error("the state directory {} is in use by another meshd", .0.display())]
    InUse(PathBuf),
    /// The file system says no.
    #[error("cannot use {}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// The database cannot be made.
    #[error("cannot make {}", path.display())]
    Database {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: Box<redb::DatabaseError>,
    },
}

/// Told when a batch is on disk, or could not be written.
pub(crate) type Told = Box<dyn FnOnce(bool) + Send>;

/// The open state directory.
pub(crate) struct Disk {
    database: Shared,
    orders: Option<SyncSender<Order>>,
    writer: Option<JoinHandle<()>>,
    /// Held for as long as the directory is in use.
    lock: Option<Flock<File>>,
}

impl std::fmt::Debug for Disk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Disk")
    }
}

impl Disk {
    /// Locks the directory and opens its database.
    pub(crate) fn open(state_dir: &Path) -> Result<Self, DiskError> {
        let lock = lock(state_dir)?;
        let path = state_dir.join("state.redb");
        let first = database(&path)?;
        let again = path.clone();
        let mut disk = Self::with(first, Box::new(move || open_private(&again)))
            .map_err(|source| DiskError::Io { path, source })?;
        disk.lock = Some(lock);
        Ok(disk)
    }

    /// Over an open database; `reopen` opens it again after a fault.
    fn with(first: Database, reopen: writer::Reopen) -> io::Result<Self> {
        let database = Shared::new(first);
        let (orders, queue) = sync_channel(QUEUE);
        let mut work = Writer::new(database.clone(), reopen);
        let thread = std::thread::Builder::new().name("meshd-disk".to_owned());
        let writer = Some(thread.spawn(move || work.run(&queue))?);
        Ok(Self {
            database,
            orders: Some(orders),
            writer,
            lock: None,
        })
    }

    /// Every row of the control state.
    pub(crate) fn rows(&self) -> Vec<Row> {
        table::ALL
            .iter()
            .flat_map(|name| self.rows_of(name))
            .collect()
    }

    fn rows_of(&self, name: &'static str) -> Vec<Row> {
        self.database.with(|database| read_rows(database, name)).unwrap_or_else(|error| {
            tracing::error!(table = name, %error, "stored rows cannot be read; peers will send them again");
            Vec::new()
        })
    }

    /// A value of the daemon's own.
    pub(crate) fn get(&self, key: &str) -> Option<Vec<u8>> {
        let read = |database: &Database| -> Result<Option<Vec<u8>>, redb::Error> {
            let reading = database.begin_read()?;
            match reading.open_table(definition(BOOT)) {
                Ok(table) => Ok(table
                    .get(key.as_bytes())?
                    .map(|value| value.value().to_vec())),
                Err(redb::TableError::TableDoesNotExist(_)) => Ok(None),
                Err(error) => Err(error.into()),
            }
        };
        self.database.with(read).unwrap_or_else(|error| {
            tracing::error!(key, %error, "a stored value cannot be read");
            None
        })
    }

    /// Keeps a value of the daemon's own; on disk within about a second.
    pub(crate) fn put(&self, key: &str, value: impl Into<Vec<u8>>) {
        let row = Row {
            table: BOOT,
            key: key.as_bytes().to_vec(),
            value: Some(value.into()),
        };
        self.write(vec![row], false, None);
    }

    /// Writes rows after those given before: at once when `durable` or when somebody waits to be told,
    /// else within about a second.
    pub(crate) fn write(&self, rows: Vec<Row>, durable: bool, told: Option<Told>) {
        self.order(Order::Write {
            rows,
            at_once: durable || told.is_some(),
            told,
        });
    }

    /// Forgets everything of the mesh, and what is still to be written of it.
    pub(crate) fn clear(&self) {
        let (told, done) = sync_channel(1);
        // Whoever waits has not gone.
        self.order(Order::Clear(Box::new(move |cleared| {
            told.send(cleared).unwrap_or_default();
        })));
        if done.recv() != Ok(true) {
            tracing::error!("the state cannot be forgotten");
        }
    }

    fn order(&self, order: Order) {
        let Some(orders) = &self.orders else { return };
        if orders.send(order).is_err() {
            tracing::error!("the writer of the state directory has ended");
        }
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Closing the queue lets the writer finish what waits.
        self.orders.take();
        if let Some(writer) = self.writer.take() {
            drop(writer.join());
        }
    }
}

fn read_rows(database: &Database, name: &'static str) -> Result<Vec<Row>, redb::Error> {
    let reading = database.begin_read()?;
    let table = match reading.open_table(definition(name)) {
        Ok(table) => table,
        Err(redb::TableError::TableDoesNotExist(_)) => return Ok(Vec::new()),
        Err(error) => return Err(error.into()),
    };
    let mut rows = Vec::new();
    for entry in table.iter()? {
        let (key, value) = entry?;
        rows.push(Row {
            table: name,
            key: key.value().to_vec(),
            value: Some(value.value().to_vec()),
        });
    }
    Ok(rows)
}

fn definition(name: &str) -> TableDefinition<'_, &'static [u8], &'static [u8]> {
    TableDefinition::new(name)
}

/// Keeps daemons away from a directory that one of them has used; a directory without a lock file has none to keep
/// away, and gets no such file, which would belong to the caller.
pub(crate) fn lock_if_used(state_dir: &Path) -> Result<Option<Flock<File>>, DiskError> {
    if !state_dir.join(LOCK).exists() {
        return Ok(None);
    }
    lock(state_dir).map(Some)
}

fn lock(state_dir: &Path) -> Result<Flock<File>, DiskError> {
    let path = state_dir.join(LOCK);
    let io = |source| DiskError::Io {
        path: path.clone(),
        source,
    };
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .map_err(io)?;
    Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, errno)| match errno {
        nix::errno::Errno::EWOULDBLOCK => DiskError::InUse(state_dir.to_owned()),
        other => DiskError::Io {
            path: path.clone(),
            source: other.into(),
        },
    })
}

fn database(path: &Path) -> Result<Database, DiskError> {
    match open_private(path) {
        Ok(database) => Ok(database),
        Err(error) => {
            let aside = path.with_extension("redb.damaged");
            tracing::error!(%error, aside = %aside.display(), "the state cannot be read; it is moved aside and asked of the peers again");
            std::fs::rename(path, &aside).map_err(|source| DiskError::Io {
                path: path.to_owned(),
                source,
            })?;
            open_private(path).map_err(|source| DiskError::Database {
                path: path.to_owned(),
                source: Box::new(source),
            })
        }
    }
}

fn open_private(path: &Path) -> Result<Database, redb::DatabaseError> {
    let database = Database::builder().set_cache_size(CACHE).create(path)?;
    let private = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    std::fs::set_permissions(path, private).map_err(redb::StorageError::from)?;
    Ok(database)
}

#[cfg(test)]
mod tests;
