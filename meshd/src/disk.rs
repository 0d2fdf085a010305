//! What survives a restart of the control state: rows of byte strings in one file, written by one thread.
//!
//! In: rows, some of which must be on disk before anybody is told. Out: all rows at the next start. A file
//! that cannot be read is moved aside, because peers have what was in it; keys live elsewhere. Never: two
//! daemons on one state directory.

use std::{
    fs::File,
    io,
    path::{Path, PathBuf},
    sync::{
        Arc,
        mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use mesh_gossip::{Row, table};
use nix::fcntl::{Flock, FlockArg};
use redb::{Database, Durability, ReadableDatabase as _, ReadableTable as _, TableDefinition};

/// The daemon's own table, beside those of the control state.
const BOOT: &str = "boot";
/// Rows that need not be durable are written together, this often.
const LAZY: Duration = Duration::from_millis(500);
/// Batches that may wait for the writer.
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

struct Batch {
    rows: Vec<Row>,
    durable: bool,
    told: Option<Told>,
}

/// The open state directory.
pub(crate) struct Disk {
    database: Arc<Database>,
    batches: Option<SyncSender<Batch>>,
    writer: Option<JoinHandle<()>>,
    _lock: Flock<File>,
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
        let database = Arc::new(database(&path)?);
        let (batches, queue) = sync_channel(QUEUE);
        let written = Arc::clone(&database);
        let writer = std::thread::Builder::new()
            .name("meshd-disk".to_owned())
            .spawn(move || write_all(&written, &queue))
            .map_err(|source| DiskError::Io { path, source })?;
        Ok(Self {
            database,
            batches: Some(batches),
            writer: Some(writer),
            _lock: lock,
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
        let read = || -> Result<Vec<Row>, redb::Error> {
            let reading = self.database.begin_read()?;
            let rows = match reading.open_table(definition(name)) {
                Ok(table) => table
                    .iter()?
                    .filter_map(Result::ok)
                    .map(|(key, value)| Row {
                        table: name,
                        key: key.value().to_vec(),
                        value: Some(value.value().to_vec()),
                    })
                    .collect(),
                Err(redb::TableError::TableDoesNotExist(_)) => Vec::new(),
                Err(error) => return Err(error.into()),
            };
            Ok(rows)
        };
        read().unwrap_or_else(|error| {
            tracing::error!(table = name, %error, "stored rows cannot be read; peers will send them again");
            Vec::new()
        })
    }

    /// A value of the daemon's own.
    pub(crate) fn get(&self, key: &str) -> Option<Vec<u8>> {
        let reading = self.database.begin_read().ok()?;
        let table = reading.open_table(definition(BOOT)).ok()?;
        let value = table.get(key.as_bytes()).ok()??;
        Some(value.value().to_vec())
    }

    /// Keeps a value of the daemon's own; written within a second.
    pub(crate) fn put(&self, key: &str, value: &[u8]) {
        let row = Row {
            table: BOOT,
            key: key.as_bytes().to_vec(),
            value: Some(value.to_vec()),
        };
        self.write(vec![row], false, None);
    }

    /// Writes rows after those given before; `told` hears when they are on disk.
    pub(crate) fn write(&self, rows: Vec<Row>, durable: bool, told: Option<Told>) {
        let Some(batches) = &self.batches else { return };
        if batches
            .send(Batch {
                rows,
                durable,
                told,
            })
            .is_err()
        {
            tracing::error!("the writer of the state directory has ended");
        }
    }

    /// Forgets everything of the mesh.
    pub(crate) fn clear(&self) {
        let clear = || -> Result<(), redb::Error> {
            let writing = self.database.begin_write()?;
            for name in table::ALL.iter().chain([&BOOT]) {
                writing.delete_table(definition(name))?;
            }
            Ok(writing.commit()?)
        };
        if let Err(error) = clear() {
            tracing::error!(%error, "the state cannot be forgotten");
        }
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Closing the queue lets the writer finish what waits.
        self.batches.take();
        if let Some(writer) = self.writer.take() {
            drop(writer.join());
        }
    }
}

fn definition(name: &str) -> TableDefinition<'_, &'static [u8], &'static [u8]> {
    TableDefinition::new(name)
}

fn lock(state_dir: &Path) -> Result<Flock<File>, DiskError> {
    let path = state_dir.join("lock");
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
    let database = Database::create(path)?;
    let private = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    std::fs::set_permissions(path, private).map_err(redb::StorageError::from)?;
    Ok(database)
}

/// Writes batch after batch; rows that may wait are gathered with those that come next.
fn write_all(database: &Database, queue: &Receiver<Batch>) {
    let mut waiting: Vec<Batch> = Vec::new();
    let mut since: Option<Instant> = None;
    loop {
        let patience = since.map_or(Duration::from_secs(3600), |since| {
            LAZY.saturating_sub(since.elapsed())
        });
        let (due, last) = match queue.recv_timeout(patience) {
            Ok(batch) => {
                let due = batch.durable || batch.told.is_some();
                since.get_or_insert_with(Instant::now);
                waiting.push(batch);
                // Group commit: what else is there already goes with it.
                waiting.extend(queue.try_iter().take(QUEUE));
                (
                    due || waiting
                        .iter()
                        .any(|batch| batch.durable || batch.told.is_some()),
                    false,
                )
            }
            Err(RecvTimeoutError::Timeout) => (true, false),
            Err(RecvTimeoutError::Disconnected) => (true, true),
        };
        if due && !waiting.is_empty() {
            let durable = last || waiting.iter().any(|batch| batch.durable);
            let stored = store(database, &waiting, durable);
            if let Err(error) = &stored {
                tracing::error!(%error, "the state cannot be written");
            }
            for batch in waiting.drain(..) {
                if let Some(told) = batch.told {
                    told(stored.is_ok());
                }
            }
            since = None;
        }
        if last {
            return;
        }
    }
}

fn store(database: &Database, batches: &[Batch], durable: bool) -> Result<(), redb::Error> {
    let mut writing = database.begin_write()?;
    writing
        .set_durability(if durable {
            Durability::Immediate
        } else {
            Durability::None
        })
        .map_err(|error| redb::Error::Io(io::Error::other(error)))?;
    for row in batches.iter().flat_map(|batch| &batch.rows) {
        let mut table = writing.open_table(definition(row.table))?;
        match &row.value {
            Some(value) => drop(table.insert(row.key.as_slice(), value.as_slice())?),
            None => drop(table.remove(row.key.as_slice())?),
        }
    }
    Ok(writing.commit()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_survive_and_two_daemons_do_not_meet() {
        let directory = tempfile::tempdir().unwrap();
        let disk = Disk::open(directory.path()).unwrap();
        assert!(matches!(
            Disk::open(directory.path()),
            Err(DiskError::InUse(_))
        ));
        let (told, heard) = sync_channel(1);
        let row = Row {
            table: table::COMMIT,
            key: b"k".to_vec(),
            value: Some(b"v".to_vec()),
        };
        let tell: Told = Box::new(move |stored| told.send(stored).unwrap());
        disk.write(vec![row.clone()], true, Some(tell));
        assert!(heard.recv_timeout(Duration::from_secs(10)).unwrap());
        disk.put("a", b"b");
        drop(disk);
        let disk = Disk::open(directory.path()).unwrap();
        assert_eq!(disk.rows(), vec![row]);
        assert_eq!(disk.get("a"), Some(b"b".to_vec()));
        disk.clear();
        assert!(disk.rows().is_empty());
    }

    #[test]
    fn a_damaged_file_is_moved_aside() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("state.redb"), vec![7; 9000]).unwrap();
        let disk = Disk::open(directory.path()).unwrap();
        assert!(disk.rows().is_empty());
        assert!(directory.path().join("state.redb.damaged").exists());
    }
}
