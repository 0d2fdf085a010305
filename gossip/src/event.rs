//! The whole boundary: what goes into a node and what comes out.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use bytes::Bytes;
use mesh_model::{
    admin::CommitAccepted,
    fact::{Record, RegistryView},
    grant::Signed,
    name::{HostId, MeshId},
};

use crate::{commits::SubmitError, rights::Grant, row::Row};

/// Who this node is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    /// The mesh.
    pub mesh_id: MeshId,
    /// This host.
    pub host_id: HostId,
    /// Lowest incarnation to use; what is stored, plus one, wins when it is higher.
    pub incarnation: u32,
}

/// What happens to a node.
#[derive(Debug, Clone)]
pub enum Input {
    /// A datagram whose sender the box has proven.
    Datagram {
        /// The sender.
        from: HostId,
        /// The content.
        bytes: Bytes,
    },
    /// A frame from a link whose far end TLS has proven.
    Frame {
        /// The sender.
        from: HostId,
        /// The content.
        bytes: Bytes,
    },
    /// A frame was written to the link's socket, so more may follow.
    Sent {
        /// The receiver.
        to: HostId,
        /// Its length.
        bytes: usize,
    },
    /// A link to a host stands, whoever dialled.
    LinkUp(HostId),
    /// The last link to a host is gone, or a dial failed.
    LinkDown(HostId),
    /// Somebody here wants a link to a host; answered like [`Output::Connect`].
    Dial(HostId),
    /// The time asked for by the newest [`Output::Timer`] has come. A wrong or late one does no harm.
    Timer(u64),
    /// This host's records: the whole set.
    Publish(Vec<Record>),
    /// An operator's signed edit, to be answered under `ticket`.
    Submit {
        /// Comes back in [`Output::Answer`].
        ticket: u64,
        /// Signature over a [`mesh_model::commit::Commit`].
        commit: Signed,
    },
    /// Grants that were made here or came with a join.
    Grants(Vec<Grant>),
    /// This host says goodbye.
    Leave,
    /// This host's own view of its registries, never published; the whole set.
    LocalViews(BTreeMap<String, Arc<RegistryView>>),
    /// The rows of [`Output::Persist`] with this ticket are on disk.
    Stored(u64),
    /// They could not be written.
    StoreFailed(u64),
}

/// What a node wants done.
#[derive(Debug)]
pub enum Output {
    /// Send a datagram of at most 1,200 bytes; it may be lost.
    Datagram {
        /// The receiver.
        to: HostId,
        /// The content.
        bytes: Bytes,
    },
    /// Send a frame over the link; it may be dropped only together with the link.
    Frame {
        /// The receiver.
        to: HostId,
        /// The content.
        bytes: Bytes,
    },
    /// Try to open a link. Answered by [`Input::LinkUp`] or [`Input::LinkDown`].
    Connect(HostId),
    /// This link is not needed any more.
    Disconnect(HostId),
    /// Give [`Input::Timer`] after this time; replaces the one asked for before.
    Timer {
        /// From now.
        after: Duration,
        /// To be given back.
        token: u64,
    },
    /// Keep these rows, in order with earlier ones.
    Persist {
        /// The rows.
        rows: Vec<Row>,
        /// True: on disk (fsync) before [`Input::Stored`]; false: within a second.
        durable: bool,
        /// When set, [`Input::Stored`] or [`Input::StoreFailed`] must follow.
        ticket: Option<u64>,
    },
    /// The answer to [`Input::Submit`].
    Answer {
        /// As given.
        ticket: u64,
        /// What became of it.
        result: Result<CommitAccepted, SubmitError>,
    },
    /// [`crate::Node::catalog`] would give something new.
    CatalogChanged,
}
