//! Callers' connections: one request after another, or many streams beside each other.

use std::rc::Rc;

use bytes::BytesMut;

use crate::{connection::OutboundOrigin, io::Io, worker::Worker};

/// HTTP/1.
pub(crate) mod h1;
/// HTTP/2.
pub(crate) mod h2;
/// Requests of other daemons.
pub(crate) mod linked;

/// A CONNECT was answered: from here on the connection, or stream, is one to the address in `origin`.
#[derive(Debug)]
pub(crate) struct Connected {
    /// Its bytes.
    pub io: Io,
    /// What was read of it already.
    pub first: BytesMut,
    /// Where it comes from, and where it goes now.
    pub origin: OutboundOrigin,
}

/// Carries what a CONNECT opened, in a task of its own.
pub(crate) type Onward = fn(&Rc<Worker>, Connected);
