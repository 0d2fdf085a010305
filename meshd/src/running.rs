//! The rooms that exist once this host is in a mesh: opened in order, closed in reverse.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use anyhow::Context as _;
use bytes::Bytes;
use mesh_identity::credentials::Credentials;
use mesh_model::{
    admin::{Enrol, Explain, Explanation, FailureRecord, StatRow},
    name::HostId,
    snapshot::{
        EndpointKey,
        cell::{Reader, cell},
    },
};
use mesh_plan::Compiled;
use mesh_proxy::Proxy;
use mesh_registry::Registry;
use tokio::sync::{Mutex, watch};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    admission::{Identity, Tokens},
    capture::{self, CaptureRoom},
    certificates::{Certificates, Wanted},
    cluster::Cluster,
    daemon::Daemon,
    local::LocalHealth,
    metrics,
    reconcile::{self, Inputs, Reconcile},
};

/// The rooms of a meshed host.
#[derive(Debug)]
pub(crate) struct Running {
    /// Who this host is.
    pub(crate) identity: Arc<Identity>,
    /// Join tokens that this host has given out.
    pub(crate) tokens: Arc<Tokens>,
    /// The control state.
    pub(crate) cluster: Cluster,
    /// What the proxy obeys.
    pub(crate) reader: Reader,
    /// The last plan.
    pub(crate) compiled: watch::Receiver<Option<Arc<Compiled>>>,
    /// The discovery sources.
    pub(crate) registry: Registry,
    certificates: Certificates,
    proxy: Proxy,
    drain: watch::Sender<bool>,
    health: Mutex<LocalHealth>,
    stop: CancellationToken,
    tasks: TaskTracker,
}

/// What this host can say of a request, and what to ask the far host.
#[derive(Debug)]
pub(crate) struct Told {
    /// This host's steps.
    pub(crate) explanation: Explanation,
    /// The host that goes on.
    pub(crate) far: Option<Far>,
}

/// The far host of an explanation.
#[derive(Debug)]
pub(crate) struct Far {
    /// Its id.
    pub(crate) host: HostId,
    /// Its name.
    pub(crate) host_name: String,
    /// What to ask it.
    pub(crate) question: mesh_plan::explain::FarQuestion,
}
