//! The one publication point: one publisher, many readers, a generation.
//!
//! Never: blocks a reader, or is written by two.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use arc_swap::ArcSwap;

use super::Snapshot;

#[derive(Debug)]
struct Cell {
    current: ArcSwap<Snapshot>,
    generation: AtomicU64,
}

/// The writing end; there is one, and only `reconcile` owns it.
#[derive(Debug)]
pub struct Publisher(Arc<Cell>);

/// The reading end.
#[derive(Debug, Clone)]
pub struct Reader(Arc<Cell>);

/// A cell that holds the empty snapshot.
pub fn cell() -> (Publisher, Reader) {
    let cell = Arc::new(Cell {
        current: ArcSwap::from_pointee(Snapshot::default()),
        generation: AtomicU64::new(0),
    });
    (Publisher(Arc::clone(&cell)), Reader(cell))
}

impl Publisher {
    /// Publishes; the snapshot's generation is set here and returned.
    pub fn publish(&mut self, mut snapshot: Snapshot) -> u64 {
        let generation = self.0.generation.load(Ordering::Relaxed) + 1;
        snapshot.generation = generation;
        self.0.current.store(Arc::new(snapshot));
        self.0.generation.store(generation, Ordering::Release);
        generation
    }
    /// A reading end.
    pub fn reader(&self) -> Reader {
        Reader(Arc::clone(&self.0))
    }
    /// What is published now.
    pub fn current(&self) -> Arc<Snapshot> {
        self.0.current.load_full()
    }
}

impl Reader {
    /// The snapshot now. Load once per request and hold it to the end; never load twice for one request.
    pub fn load(&self) -> Arc<Snapshot> {
        self.0.current.load_full()
    }
    /// The generation now: a cheap test whether anything was published since a `load`.
    pub fn generation(&self) -> u64 {
        self.0.generation.load(Ordering::Acquire)
    }
}
