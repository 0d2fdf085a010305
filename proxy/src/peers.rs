//! Who has a tunnel open to us, and whether their rights last.

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    rc::Rc,
};

use mesh_identity::verify::Usage;
use mesh_model::snapshot::Snapshot;
use tokio_util::sync::CancellationToken;

use crate::tls::{self, Verified};

/// The tunnel connections that other daemons opened to one worker.
#[derive(Debug, Default)]
pub(crate) struct Peers {
    next: Cell<u64>,
    open: RefCell<HashMap<u64, Entry>>,
}

#[derive(Debug)]
struct Entry {
    verified: Rc<Verified>,
    close: CancellationToken,
}

impl Peers {
    /// One more; its key, and what closes it.
    pub(crate) fn add(&self, verified: Rc<Verified>) -> (u64, CancellationToken) {
        let key = self.next.get();
        self.next.set(key.wrapping_add(1));
        let close = CancellationToken::new();
        self.open.borrow_mut().insert(
            key,
            Entry {
                verified,
                close: close.clone(),
            },
        );
        (key, close)
    }

    /// It is gone.
    pub(crate) fn remove(&self, key: u64) {
        self.open.borrow_mut().remove(&key);
    }

    /// Closes connections whose peers lost their rights.
    pub(crate) fn enforce(&self, snapshot: &Snapshot) {
        for entry in self.open.borrow().values() {
            if let Err(error) = tls::still_believed(snapshot, &entry.verified, Usage::Client) {
                let peer = &entry.verified.peer.id;
                tracing::warn!(%peer, %error, "a tunnel is closed: the peer lost its rights");
                entry.close.cancel();
            }
        }
    }
}
