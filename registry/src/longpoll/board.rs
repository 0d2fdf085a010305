//! One status out of many readers.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Mutex, PoisonError},
};

use crate::{sink::Sink, source::SourceError, status::SourceStatus};

#[derive(Debug, Default)]
struct Readers {
    pending: BTreeSet<String>,
    bad: BTreeMap<String, SourceStatus>,
}

/// How the readers are doing.
#[derive(Debug)]
pub(crate) struct Board {
    out: Sink,
    readers: Mutex<Readers>,
}

impl Board {
    pub(crate) fn new(out: Sink) -> Self {
        Self {
            out,
            readers: Mutex::default(),
        }
    }
    /// A reader begins; nothing is complete before it has read.
    pub(crate) fn expect(&self, reader: &str) {
        self.change(|readers| {
            readers.pending.insert(reader.to_owned());
        });
    }
    /// It has read.
    pub(crate) fn good(&self, reader: &str) {
        self.change(|readers| {
            readers.pending.remove(reader);
            readers.bad.remove(reader);
        });
    }
    /// It has failed.
    pub(crate) fn bad(&self, reader: &str, error: &SourceError) {
        self.change(|readers| {
            readers
                .bad
                .insert(reader.to_owned(), SourceStatus::from(error));
        });
    }
    /// It has ended.
    pub(crate) fn forget(&self, reader: &str) {
        self.good(reader);
    }

    fn change(&self, change: impl FnOnce(&mut Readers)) {
        let mut readers = self.readers.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut readers);
        let refused = |status: &&SourceStatus| matches!(status, SourceStatus::AuthFailed { .. });
        let worst = readers
            .bad
            .values()
            .find(refused)
            .or_else(|| readers.bad.values().next());
        match worst {
            Some(status) => self.out.status(status.clone()),
            None if readers.pending.is_empty() => self.out.status(SourceStatus::Synced),
            None => {}
        }
    }
}
