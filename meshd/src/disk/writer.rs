//! The thread that writes: batches in order, together, again after a fault.
//!
//! Every commit is synced. Rows that nobody waits for are gathered for a second, so that a busy mesh costs
//! one sync a second; a batch that somebody waits for takes along whatever else is there. What could not be
//! written is kept, the newest value of each row, and tried again: the full disk may have room again.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{Receiver, RecvTimeoutError},
    },
    time::{Duration, Instant},
};

use mesh_gossip::{Row, table};
use redb::Database;

use super::{BOOT, Told, definition};

/// Rows that nobody waits for are written this often.
const LAZY: Duration = Duration::from_secs(1);
/// Most orders that are written together.
const TOGETHER: usize = 1024;

/// What the writer is asked to do.
pub(super) enum Order {
    /// Write rows.
    Write {
        /// The rows.
        rows: Vec<Row>,
        /// Without waiting for more.
        at_once: bool,
        /// Who waits.
        told: Option<Told>,
    },
    /// Forget everything.
    Clear(Told),
}

/// Opens the database again after a fault.
pub(super) type Reopen = Box<dyn Fn() -> Result<Database, redb::DatabaseError> + Send>;

/// The database; absent while a fault has closed it.
#[derive(Clone)]
pub(super) struct Shared(Arc<Mutex<Option<Database>>>);

impl Shared {
    pub(super) fn new(database: Database) -> Self {
        Self(Arc::new(Mutex::new(Some(database))))
    }

    /// Reads or writes.
    pub(super) fn with<T>(
        &self,
        act: impl FnOnce(&Database) -> Result<T, redb::Error>,
    ) -> Result<T, redb::Error> {
        let database = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        act(database.as_ref().ok_or(redb::Error::DatabaseClosed)?)
    }

    /// Closes it and opens it again: after an input or output fault redb refuses everything else.
    fn reopen(&self, reopen: &Reopen) -> Result<(), redb::DatabaseError> {
        let mut database = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        database.take();
        *database = Some(reopen()?);
        Ok(())
    }
}

type Rows = BTreeMap<(&'static str, Vec<u8>), Option<Vec<u8>>>;

/// The writer's state.
pub(super) struct Writer {
    database: Shared,
    reopen: Reopen,
    /// The newest value of each row that is to be written.
    rows: Rows,
    told: Vec<Told>,
    since: Option<Instant>,
    faulty: bool,
}

impl Writer {
    pub(super) fn new(database: Shared, reopen: Reopen) -> Self {
        Self {
            database,
            reopen,
            rows: Rows::new(),
            told: Vec::new(),
            since: None,
            faulty: false,
        }
    }

    /// Works until the queue is closed and everything is written.
    pub(super) fn run(&mut self, queue: &Receiver<Order>) {
        loop {
            let patience = self.since.map_or(Duration::from_hours(1), |since| {
                LAZY.saturating_sub(since.elapsed())
            });
            match queue.recv_timeout(patience) {
                Ok(order) => {
                    let mut due = self.take(order);
                    // Group commit: what else is there already goes with it.
                    for order in queue.try_iter().take(TOGETHER) {
                        due |= self.take(order);
                    }
                    if due || self.since.is_some_and(|since| since.elapsed() >= LAZY) {
                        self.write();
                    }
                }
                Err(RecvTimeoutError::Timeout) => self.write(),
                Err(RecvTimeoutError::Disconnected) => {
                    self.write();
                    return;
                }
            }
        }
    }

    /// True when it is to be written at once.
    fn take(&mut self, order: Order) -> bool {
        match order {
            Order::Write {
                rows,
                at_once,
                told,
            } => {
                self.since.get_or_insert_with(Instant::now);
                let fresh = rows
                    .into_iter()
                    .map(|row| ((row.table, row.key), row.value));
                self.rows.extend(fresh);
                self.told.extend(told);
                at_once
            }
            Order::Clear(told) => {
                // Whoever waits for a row of what is forgotten hears that it was not kept.
                self.rows.clear();
                self.tell(false);
                told(self.attempt(&clear));
                false
            }
        }
    }

    fn write(&mut self) {
        self.since = None;
        if self.rows.is_empty() && self.told.is_empty() {
            return;
        }
        let rows = std::mem::take(&mut self.rows);
        let stored = self.attempt(&|database| store(database, &rows));
        if !stored {
            self.rows = rows;
            self.since = Some(Instant::now());
        }
        self.tell(stored);
    }

    fn tell(&mut self, stored: bool) {
        for told in self.told.drain(..) {
            told(stored);
        }
    }

    /// Acts, and after a fault once more on the database opened anew. Each fault is logged when it begins.
    fn attempt(&mut self, act: &dyn Fn(&Database) -> Result<(), redb::Error>) -> bool {
        let first = self.database.with(act);
        let result = first.or_else(|error| {
            if !self.faulty {
                tracing::error!(%error, "the state cannot be written; it is tried again every second");
            }
            self.database.reopen(&self.reopen).map_err(redb::Error::from)?;
            self.database.with(act)
        });
        if self.faulty && result.is_ok() {
            tracing::info!("the state can be written again");
        }
        self.faulty = result.is_err();
        !self.faulty
    }
}

fn store(database: &Database, rows: &Rows) -> Result<(), redb::Error> {
    let writing = database.begin_write()?;
    for ((name, key), value) in rows {
        let mut table = writing.open_table(definition(name))?;
        match value {
            Some(value) => drop(table.insert(key.as_slice(), value.as_slice())?),
            None => drop(table.remove(key.as_slice())?),
        }
    }
    Ok(writing.commit()?)
}

fn clear(database: &Database) -> Result<(), redb::Error> {
    let writing = database.begin_write()?;
    for name in table::ALL.iter().chain([&BOOT]) {
        writing.delete_table(definition(name))?;
    }
    Ok(writing.commit()?)
}
