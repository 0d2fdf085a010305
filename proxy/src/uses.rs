//! How many exchanges a shared connection carries.

use std::{cell::Cell, rc::Rc, time::Instant};

/// The exchanges of one connection.
#[derive(Debug)]
pub(crate) struct Uses {
    active: Cell<u32>,
    idle_since: Cell<Instant>,
}

impl Uses {
    /// None yet.
    pub(crate) fn none() -> Rc<Self> {
        Rc::new(Self {
            active: Cell::new(0),
            idle_since: Cell::new(Instant::now()),
        })
    }

    /// One more.
    pub(crate) fn begin(self: &Rc<Self>) -> InUse {
        self.active.set(self.active.get() + 1);
        InUse(Rc::clone(self))
    }

    /// How many run.
    pub(crate) fn active(&self) -> u32 {
        self.active.get()
    }

    /// Since when none runs; `None` while one does.
    pub(crate) fn idle_since(&self) -> Option<Instant> {
        (self.active.get() == 0).then(|| self.idle_since.get())
    }
}

/// Counts as use of a connection while alive.
#[derive(Debug)]
pub(crate) struct InUse(Rc<Uses>);

impl Drop for InUse {
    fn drop(&mut self) {
        let active = self.0.active.get().saturating_sub(1);
        self.0.active.set(active);
        if active == 0 {
            self.0.idle_since.set(Instant::now());
        }
    }
}
