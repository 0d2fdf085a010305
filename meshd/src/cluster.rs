//! Drives the control state: its clock, its sockets, its disk; and carries questions between hosts.
//!
//! In: datagrams and links of other hosts, requests of this daemon's rooms. Out: the catalog, whenever it
//! changed. One task owns the node; nothing else touches it. Never: decides anything about facts itself.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    io,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use mesh_gossip::{Grant, HistoryFilter, Node};
use mesh_identity::{
    authority::root_certificate,
    credentials::Credentials,
    key::{KeyError, random, verify_signed},
    seal::DatagramBox,
    tls::HostTrust,
};
use mesh_model::{
    admin::{CommitAccepted, HistoryRow},
    catalog::Catalog,
    fact::{Record, RegistryView},
    finding::Finding,
    grant::{OperatorGrant, Signed},
    name::HostId,
};
use tokio::{
    sync::{Notify, mpsc, oneshot, watch},
    time::{Instant, timeout_at},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    admission::{Identity, JoinServer},
    clock,
    disk::Disk,
};

mod actor;
mod dial;
mod frame;
mod link;
mod socket;
#[cfg(test)]
mod tests;

pub(crate) use mesh_gossip::{Current as Stale, SubmitError};

/// Answers the questions of other hosts: who asks, what kind, the question.
pub(crate) type Handler =
    Arc<dyn Fn(HostId, String, Bytes) -> BoxFuture<'static, Result<Bytes, String>> + Send + Sync>;

/// The links that stand, for calls.
type Links = Arc<Mutex<HashMap<HostId, link::Link>>>;

/// Hosts that are not talked to.
type Revoked = Arc<Mutex<BTreeSet<HostId>>>;

/// What the control state needs to start.
pub(crate) struct Start {
    /// UDP and TCP address.
    pub(crate) listen: SocketAddr,
    /// False: membership runs over links alone.
    pub(crate) udp: bool,
    /// Value of `SO_MARK` on every socket; `None`: no mark is set.
    pub(crate) mark: Option<u32>,
    /// Places to look for members: `host:port`.
    pub(crate) seeds: Vec<String>,
    /// Who this host is.
    pub(crate) identity: Arc<Identity>,
    /// Its certificates.
    pub(crate) credentials: Credentials,
    /// What it knew before.
    pub(crate) disk: Arc<Disk>,
    /// Answers other hosts' questions.
    pub(crate) handler: Handler,
    /// Takes connections without a certificate.
    pub(crate) joins: JoinServer,
    /// Owns the tasks.
    pub(crate) tasks: TaskTracker,
    /// Ends them.
    pub(crate) stop: CancellationToken,
}

/// Why the control state cannot start.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StartError {
    /// A socket cannot be opened.
    #[error("cannot listen on {address} ({kind})")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// `UDP` or `TCP`.
        kind: &'static str,
        /// Why.
        source: io::Error,
    },
    /// The host's keys cannot be used.
    #[error("the host's keys cannot be used")]
    Key(#[from] KeyError),
}

/// Why another host did not answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum CallError {
    /// No link, or no answer in time.
    #[error("no answer in time")]
    Late,
    /// It answered with a refusal, or the link broke.
    #[error("{0}")]
    Refused(String),
}

/// A host's connection as people see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LinkRow {
    /// The host's name.
    pub(crate) name: String,
    /// A link stands.
    pub(crate) tcp: bool,
    /// Datagrams pass, or it is not known yet.
    pub(crate) udp: bool,
}

/// Requests to the task that owns the node.
enum Command {
    Publish(Vec<Record>),
    Submit(Signed, oneshot::Sender<Result<CommitAccepted, SubmitError>>),
    Grants(Vec<Grant>, oneshot::Sender<()>),
    LocalViews(BTreeMap<String, Arc<RegistryView>>),
    Leave(oneshot::Sender<()>),
    Connect(HostId),
    Ask(Box<dyn FnOnce(&mut Node) + Send>),
}

/// Opens the sockets of the control state and closes them again. Call it on a runtime.
pub(crate) fn try_listen(address: SocketAddr, udp: bool) -> Result<(), StartError> {
    sockets(address, udp, None).map(drop)
}

type Sockets = (tokio::net::TcpListener, Option<tokio::net::UdpSocket>);

/// TCP, and UDP on the same port unless there is to be none.
fn sockets(address: SocketAddr, udp: bool, mark: Option<u32>) -> Result<Sockets, StartError> {
    let failed = |kind| {
        move |source| StartError::Listen {
            address,
            kind,
            source,
        }
    };
    let listener = socket::listener(address, mark).map_err(failed("TCP"))?;
    let bound = listener.local_addr().map_err(failed("TCP"))?;
    let datagrams = udp.then(|| socket::datagrams(bound, mark).map_err(failed("UDP")));
    Ok((listener, datagrams.transpose()?))
}

/// The handle of the control state.
#[derive(Clone)]
pub(crate) struct Cluster {
    commands: mpsc::Sender<Command>,
    catalog: watch::Receiver<Arc<Catalog>>,
    findings: watch::Receiver<Arc<Vec<Finding>>>,
    links: Links,
    linked: Arc<Notify>,
}

impl std::fmt::Debug for Cluster {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Cluster")
    }
}

impl Cluster {
    /// Opens the sockets and loads what was known; the catalog is there when this returns. Call it on the
    /// runtime of the control side.
    pub(crate) fn start(start: Start) -> Result<Self, StartError> {
        let (listener, udp) = sockets(start.listen, start.udp, start.mark)?;
        let revoked = Revoked::default();
        let trust = host_trust(&start.identity, &revoked);
        let mut node = node(&start)?;
        node.load(start.disk.rows(), actor::now());
        let first = node.start(actor::now());
        let epoch = node.identity().incarnation;
        let sealed = DatagramBox::new(
            start.identity.mesh().id,
            start.identity.host(),
            start.identity.box_key()?,
            epoch,
        )?;
        let (commands, asked) = mpsc::channel(256);
        let (catalog, watched) = watch::channel(node.catalog());
        let (findings, found) = watch::channel(Arc::new(node.findings()));
        let links = Links::default();
        let linked = Arc::new(Notify::new());
        let dialler = dial::Dialler::new(&start, trust, listener);
        let actor = actor::Actor::new(actor::Parts {
            node,
            sealed,
            udp,
            links: Arc::clone(&links),
            linked: Arc::clone(&linked),
            catalog,
            findings,
            revoked,
            dialler,
            asked,
            start,
        });
        actor.spawn(first);
        Ok(Self {
            commands,
            catalog: watched,
            findings: found,
            links,
            linked,
        })
    }

    /// Everything known.
    pub(crate) fn catalog(&self) -> Arc<Catalog> {
        Arc::clone(&self.catalog.borrow())
    }

    /// Everything known, and when it changes.
    pub(crate) fn watch(&self) -> watch::Receiver<Arc<Catalog>> {
        self.catalog.clone()
    }

    /// Problems of the control state.
    pub(crate) fn findings(&self) -> Arc<Vec<Finding>> {
        Arc::clone(&self.findings.borrow())
    }

    /// States these records, the whole set.
    pub(crate) async fn publish(&self, records: Vec<Record>) {
        self.send(Command::Publish(records)).await;
    }

    /// Takes an operator's edit: answered when it is on disk here.
    pub(crate) async fn submit(&self, commit: Signed) -> Result<CommitAccepted, SubmitError> {
        let (answer, answered) = oneshot::channel();
        self.send(Command::Submit(commit, answer)).await;
        answered.await.unwrap_or(Err(SubmitError::NotStored))
    }

    /// Makes grants known that were made here.
    pub(crate) async fn add_grants(&self, grants: Vec<Grant>) {
        let (answer, answered) = oneshot::channel();
        self.send(Command::Grants(grants, answer)).await;
        drop(answered.await);
    }

    /// This host's own view of its registries.
    pub(crate) async fn set_local_views(&self, views: BTreeMap<String, Arc<RegistryView>>) {
        self.send(Command::LocalViews(views)).await;
    }

    /// Says goodbye and gives it a moment to spread.
    pub(crate) async fn leave(&self) {
        let (answer, answered) = oneshot::channel();
        self.send(Command::Leave(answer)).await;
        drop(tokio::time::timeout(Duration::from_secs(2), answered).await);
    }

    /// The commits that `filter` wants as people read them, newest first.
    pub(crate) async fn history(&self, filter: HistoryFilter) -> Vec<HistoryRow> {
        self.ask(move |node| node.history(&filter))
            .await
            .unwrap_or_default()
    }

    /// Operators, with their signed grants and whether they are revoked.
    pub(crate) async fn operators(&self) -> Vec<(Signed, Arc<OperatorGrant>, bool)> {
        self.ask(|node| node.operators()).await.unwrap_or_default()
    }

    /// Every grant known.
    pub(crate) async fn grants(&self) -> Vec<Grant> {
        self.ask(|node| node.grants()).await.unwrap_or_default()
    }

    /// The connection to each other host.
    pub(crate) async fn links(&self) -> Vec<LinkRow> {
        let states = self.ask(|node| node.links()).await.unwrap_or_default();
        let catalog = self.catalog();
        let name = |host: HostId| {
            let info = catalog
                .hosts
                .get(&host)
                .and_then(|facts| facts.info.as_ref());
            info.map_or_else(|| host.short(), |info| info.name.clone())
        };
        states
            .into_iter()
            .map(|state| LinkRow {
                name: name(state.host),
                tcp: state.tcp,
                udp: state.udp.unwrap_or(true),
            })
            .collect()
    }

    /// Asks another host, over a link that is opened when there is none.
    pub(crate) async fn call(
        &self,
        host: HostId,
        kind: &'static str,
        body: Bytes,
        deadline: Duration,
    ) -> Result<Bytes, CallError> {
        let end = Instant::now() + deadline;
        let link = timeout_at(end, self.link(host))
            .await
            .map_err(|_late| CallError::Late)?;
        timeout_at(end, link.call(kind, body))
            .await
            .map_err(|_late| CallError::Late)?
            .map_err(CallError::Refused)
    }

    async fn link(&self, host: HostId) -> link::Link {
        let mut asked = false;
        loop {
            let linked = self.linked.notified();
            let found = self
                .links
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .get(&host)
                .cloned();
            if let Some(link) = found.filter(|link| !link.closed()) {
                return link;
            }
            if !asked {
                self.send(Command::Connect(host)).await;
                asked = true;
            }
            linked.await;
        }
    }

    async fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce(&mut Node) -> T + Send + 'static,
    ) -> Option<T> {
        let (answer, answered) = oneshot::channel();
        let asked = move |node: &mut Node| drop(answer.send(question(node)));
        self.send(Command::Ask(Box::new(asked))).await;
        answered.await.ok()
    }

    async fn send(&self, command: Command) {
        if self.commands.send(command).await.is_err() {
            tracing::debug!("the control state has ended");
        }
    }
}

/// The host's key as the node's signer.
struct HostSigner(Arc<Identity>);

impl mesh_gossip::Signer for HostSigner {
    fn sign(&self, domain: &[u8], payload: Vec<u8>) -> Signed {
        self.0.key().sign(domain, payload)
    }
}

/// Ed25519 for the node.
struct SignatureCheck;

impl mesh_gossip::Verifier for SignatureCheck {
    fn verify(&self, domain: &[u8], signed: &Signed) -> bool {
        verify_signed(domain, signed)
    }
}

fn node(start: &Start) -> Result<Node, KeyError> {
    let identity = mesh_gossip::Identity {
        mesh_id: start.identity.mesh().id,
        host_id: start.identity.host(),
        incarnation: 1,
    };
    let config = mesh_gossip::Config {
        udp: start.udp,
        ..mesh_gossip::Config::default()
    };
    let signer = Box::new(HostSigner(Arc::clone(&start.identity)));
    Ok(Node::new(
        config,
        identity,
        signer,
        Box::new(SignatureCheck),
        u64::from_le_bytes(random()?),
    ))
}

fn host_trust(identity: &Identity, revoked: &Revoked) -> HostTrust {
    let mesh = identity.mesh();
    let revoked = Arc::clone(revoked);
    HostTrust {
        trust_domain: identity.spiffe_id().trust_domain,
        roots: vec![root_certificate(mesh)],
        admits: Arc::new(move |host| {
            !revoked
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .contains(&host)
        }),
    }
}

/// The wall clock for the node.
fn wall_ms() -> u64 {
    clock::now_ms()
}
