//! One caller's connection, as far as all its requests have it in common.

use std::{cell::RefCell, rc::Rc, sync::Arc};

use mesh_model::name::ServiceId;

use crate::{connection::Origin, observe::Direction, worker::Worker};

/// A caller's connection, or one stream of a tunnel.
#[derive(Debug)]
pub(crate) struct Session {
    /// The thread that serves it.
    pub worker: Rc<Worker>,
    /// Where it comes from.
    pub origin: Rc<Origin>,
    /// Label of the caller.
    pub source: Arc<str>,
    /// Its identity or address, for records.
    pub caller: Box<str>,
    /// Which way its requests go.
    pub direction: Direction,
    /// The service that was called last, and its label.
    last: RefCell<Option<(ServiceId, Arc<str>)>>,
}

impl Session {
    /// Of a connection.
    pub(crate) fn new(worker: Rc<Worker>, origin: Rc<Origin>) -> Self {
        let (source, caller) = match &*origin {
            Origin::Outbound(origin) => (
                Arc::clone(&origin.caller.label),
                origin.caller.principal.to_string(),
            ),
            Origin::Inbound(origin) => match &origin.principal {
                Some(principal) => (worker.observe.principal(principal), principal.to_string()),
                None => (
                    Arc::clone(worker.observe.unknown()),
                    origin.peer.to_string(),
                ),
            },
        };
        let direction = match &*origin {
            Origin::Outbound(_) => Direction::Outbound,
            Origin::Inbound(_) => Direction::Inbound,
        };
        Self {
            worker,
            origin,
            source,
            caller: caller.into_boxed_str(),
            direction,
            last: RefCell::new(None),
        }
    }

    /// The label of a service that is called.
    pub(crate) fn label(&self, service: &ServiceId) -> Arc<str> {
        let mut last = self.last.borrow_mut();
        if let Some((known, label)) = &*last
            && known == service
        {
            return Arc::clone(label);
        }
        let label = self.worker.observe.label(service);
        *last = Some((service.clone(), Arc::clone(&label)));
        label
    }
}
