//! The rooms that exist once this host is in a mesh: opened in order, closed in reverse.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::Path,
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use anyhow::Context as _;
use mesh_identity::credentials::Credentials;
use mesh_intercept::Removal;
use mesh_model::{
    admin::{
        Enrol, Explain, FailureRecord, StatRow,
        live::{EdgeSample, TapFilter},
    },
    catalog::Catalog,
    cause,
    config::{AccessLog, Capture, Live, SourceConfig},
    snapshot::{
        EndpointKey,
        cell::{Reader, cell},
        limit::LimitKey,
    },
};
use mesh_plan::{
    Compiled,
    explain::{Told, View},
    readers,
};
use mesh_proxy::{Proxy, Tap};
use mesh_registry::Registry;
use tokio::sync::watch;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    admission::{self, Identity, JoinServer, Probes, Reach, Tokens},
    announce::{self, Announcements},
    capture::CaptureRoom,
    certificates::{self, Certificates, Settings, Wanted},
    clock,
    cluster::{self, Cluster, Handler},
    ground::Ground,
    local::LocalHealth,
    quota::Quotas,
    reconcile::{self, Inputs, Reconcile},
    replaced::Replaced,
};

/// How long a question to another host may take.
const CALL: Duration = Duration::from_secs(5);
/// How long the sources may take before the first plan is made without them.
const FIRST_SYNC: Duration = Duration::from_millis(500);
const VIEWS: &str = "registry-views";
const HEALTH: &str = "local-health";

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
    /// The registries that are told of this host's services.
    pub(crate) announcements: Announcements,
    /// Answers other hosts that pass on a join.
    pub(crate) joins: JoinServer,
    /// The certificates that this host presents.
    pub(crate) certificates: Certificates,
    /// Mesh-wide rate limits that this host counts.
    pub(crate) quotas: Quotas,
    capture: CaptureRoom,
    proxy: RwLock<Option<Proxy>>,
    drain: watch::Sender<bool>,
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl Running {
    /// Opens every room; what was known is planned and obeyed before any peer or registry answers. The
    /// handler answers other hosts. When it fails, whatever had begun has ended.
    pub(crate) async fn open(ground: &Arc<Ground>, handler: Handler) -> anyhow::Result<Self> {
        let identity = Arc::new(Identity::load(&ground.boot.state_dir)?);
        let (tasks, stop) = (TaskTracker::new(), ground.stop.child_token());
        let rooms = Self::open_rooms(ground, handler, identity, tasks.clone(), stop.clone());
        let opened = Box::pin(rooms).await;
        if opened.is_err() {
            // None of them writes any more when the mesh that does not start is forgotten.
            ended(&tasks, &stop).await;
        }
        opened
    }

    async fn open_rooms(
        ground: &Arc<Ground>,
        handler: Handler,
        identity: Arc<Identity>,
        tasks: TaskTracker,
        stop: CancellationToken,
    ) -> anyhow::Result<Self> {
        let site = ground.admission_site();
        let tokens = Arc::new(Tokens::open(Arc::clone(&identity), &site)?);
        let joins = JoinServer::new(
            Arc::clone(&identity),
            Arc::clone(&tokens),
            Probes::default(),
            site,
        );
        let credentials = Credentials::new();
        certificates::load(&identity, &credentials, clock::now_ms());
        let mut seeds = ground.boot.cluster.seeds.clone();
        seeds.extend(identity.seeds().iter().cloned());
        let cluster = Cluster::start(cluster::Start {
            listen: ground.boot.cluster.listen,
            udp: ground.boot.cluster.udp,
            mark: (ground.boot.capture == Capture::Mesh).then_some(ground.boot.mark.value),
            seeds,
            identity: Arc::clone(&identity),
            credentials: credentials.clone(),
            disk: Arc::clone(&ground.disk),
            handler,
            joins: joins.clone(),
            tasks: tasks.clone(),
            stop: stop.clone(),
        })?;
        joins.connect(reach(&cluster));
        let (wanted, wants) = watch::channel(Wanted::default());
        let certificates = Certificates::start(
            Settings {
                identity: Arc::clone(&identity),
                credentials: credentials.clone(),
                wanted: wants,
                catalog: cluster.watch(),
                ask: ask(&cluster),
                publish: publish(&cluster),
                changed: Arc::new(|| {}),
            },
            &tasks,
            stop.clone(),
        );
        let registry = sources(ground, &cluster, &tasks, &stop).await;
        let (publisher, reader) = cell();
        let (compiled_into, compiled) = watch::channel(None);
        let (drain, draining) = watch::channel(false);
        let health = health(ground, &tasks, &stop);
        let told = announce::Inputs {
            health: health.clone(),
            drain: draining.clone(),
        };
        let capture = CaptureRoom::open(ground, stop.clone())?;
        let mut reconcile = Reconcile {
            ground: Arc::clone(ground),
            inputs: Inputs {
                catalog: cluster.watch(),
                live: ground.live.subscribe(),
                views: registry.views(),
                health,
                drain: draining,
            },
            publisher,
            cluster: cluster.clone(),
            wanted,
            capture: capture.clone(),
            compiled: compiled_into,
            allocations: reconcile::remembered(ground),
            stated: Vec::new(),
            authority: identity.is_authority(),
            local_views: std::collections::BTreeMap::new(),
            applied: Default::default(),
            replaced: Replaced::default(),
        };
        // The first plan is obeyed before a listener opens; nothing is captured before there is one.
        reconcile.first().await;
        let proxy = match mesh_proxy::start(
            proxy_config(ground, capture.transparent()),
            reader.clone(),
            credentials,
            stop.clone(),
        ) {
            Ok(proxy) => proxy,
            Err(error) => {
                // The kernel has nothing of this yet. Its keeper ends before another one may begin.
                capture.remove(Removal::Stop).await;
                return Err(error.into());
            }
        };
        tasks.spawn(reconcile.run(stop.clone()));
        // What is announced can be reached: the listeners are open.
        let announcements = Announcements::start(ground, told, stop.clone());
        Ok(Self {
            identity,
            tokens,
            cluster,
            reader,
            compiled,
            registry,
            announcements,
            joins,
            certificates,
            quotas: Quotas::default(),
            capture,
            proxy: RwLock::new(Some(proxy)),
            drain,
            stop,
            tasks,
        })
    }

    /// Ends with these rooms.
    pub(crate) fn stopped(&self) -> CancellationToken {
        self.stop.clone()
    }

    fn with_proxy<T>(&self, ask: impl FnOnce(&Proxy) -> T) -> Option<T> {
        self.proxy
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .as_ref()
            .map(ask)
    }

    /// Request counts.
    pub(crate) fn stats(&self) -> Vec<StatRow> {
        self.with_proxy(Proxy::stats).unwrap_or_default()
    }

    /// Counts by edge since the start, and the CPU time of the data plane in microseconds.
    pub(crate) fn edges(&self) -> (Vec<EdgeSample>, u64) {
        self.with_proxy(|proxy| (proxy.edges(), proxy.cpu_us()))
            .unwrap_or_default()
    }

    /// The counts of each edge.
    pub(crate) fn counted(&self) -> Vec<EdgeSample> {
        self.with_proxy(Proxy::edges).unwrap_or_default()
    }

    /// What was asked of each mesh-wide rate limit here, since the start.
    pub(crate) fn quota_usage(&self) -> Vec<(LimitKey, u64)> {
        self.with_proxy(Proxy::quota_usage).unwrap_or_default()
    }

    /// This host's share of a mesh-wide rate limit.
    pub(crate) fn set_quota_share(&self, limit: LimitKey, share: f32) {
        self.with_proxy(|proxy| proxy.set_quota_share(limit, share));
    }

    /// The mesh-wide rate limit is none of this host's any longer.
    pub(crate) fn forget_quota_share(&self, limit: LimitKey) {
        self.with_proxy(|proxy| proxy.forget_quota_share(limit));
    }

    /// Looks at live requests; `None` while the data plane closes.
    pub(crate) fn tap(&self, filter: TapFilter) -> Option<Tap> {
        self.with_proxy(|proxy| proxy.tap(filter))
    }

    /// What this host remembers of a failed request.
    pub(crate) fn failures(&self, id: &str) -> Vec<FailureRecord> {
        self.with_proxy(|proxy| proxy.failures(id))
            .unwrap_or_default()
    }

    /// Endpoints that are out for now.
    pub(crate) fn ejected(&self) -> Vec<EndpointKey> {
        self.with_proxy(Proxy::ejected).unwrap_or_default()
    }

    /// Endpoints that are out for now, with the reason.
    pub(crate) fn ejections(&self) -> Vec<mesh_proxy::Ejection> {
        self.with_proxy(Proxy::ejections).unwrap_or_default()
    }

    /// The listener for `meshctl curl`.
    pub(crate) fn internal_address(&self) -> SocketAddr {
        self.with_proxy(Proxy::internal_address)
            .unwrap_or_else(|| SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))
    }

    /// Metrics of the data plane and the sources.
    pub(crate) fn render_metrics(&self, out: &mut String) {
        self.with_proxy(|proxy| proxy.render_metrics(out));
        self.registry.metrics(out);
    }

    /// Writes the access log by these settings from now on, its file opened anew; after an error as before.
    pub(crate) fn log_to(&self, settings: &AccessLog) -> std::io::Result<()> {
        self.with_proxy(|proxy| proxy.log_to(settings))
            .unwrap_or(Ok(()))
    }

    /// What expires first, and when.
    pub(crate) fn first_expiry(&self) -> Option<(String, u64)> {
        self.certificates.first_expiry()
    }

    /// Why this host's right as an authority could not be renewed, while that is so.
    pub(crate) fn authority_failure(&self) -> Option<String> {
        self.certificates.authority_failure()
    }

    /// Binds a unit's cgroup to its name.
    pub(crate) fn enrol(&self, request: &Enrol) -> Result<(), String> {
        self.with_proxy(|proxy| proxy.enrol(Path::new(&request.cgroup), &request.unit))
            .unwrap_or_else(|| Err(std::io::Error::other("the data plane is closing")))
            .map_err(|error| format!("cannot enrol {}: {error}", request.unit))
    }

    /// What this host can say of a request, with what is captured now.
    pub(crate) fn explain_outbound(
        &self,
        capture: Capture,
        request: &Explain,
    ) -> Result<Told, String> {
        let ejected = self.ejected();
        let compiled = self
            .compiled
            .borrow()
            .clone()
            .ok_or("the first plan is being made")?;
        let view = View {
            compiled: &compiled,
            captured: capture == Capture::Mesh,
            ejected: &ejected,
        };
        mesh_plan::explain::outbound(&view, request).map_err(|error| cause::chain(&error))
    }

    /// Waits until what the last plan names can be called: the kernel and the names follow it.
    pub(crate) async fn settled(&self) {
        self.capture.settled().await;
    }

    /// The bypass marker changed.
    pub(crate) async fn recapture(&self) -> Result<(), String> {
        self.capture.again().await
    }

    /// Drains and closes; what must go on without this daemon stays in the kernel.
    pub(crate) async fn close(&self, timeout: Duration) {
        // Peers hear first that nothing new is wanted, then what runs may finish: until then the kernel keeps the
        // way back from programs that were called in the name of their callers.
        self.drain.send_replace(true);
        self.capture.release().await;
        self.drain_proxy(timeout).await;
        self.capture.remove(Removal::Stop).await;
        self.end().await;
    }

    /// Leaves the mesh: says goodbye, takes everything out of the kernel, forgets who it was.
    pub(crate) async fn leave(&self, ground: &Ground) -> anyhow::Result<()> {
        self.drain.send_replace(true);
        self.cluster.leave().await;
        self.capture.release().await;
        self.drain_proxy(Duration::from_secs(5)).await;
        self.capture.remove(Removal::Everything).await;
        self.end().await;
        ground.disk.clear();
        admission::forget(&ground.boot.state_dir).context("cannot forget the identity")?;
        Ok(())
    }

    async fn drain_proxy(&self, timeout: Duration) {
        let proxy = self
            .proxy
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(proxy) = proxy {
            proxy.drain(timeout).await;
        }
    }

    async fn end(&self) {
        self.announcements.end().await;
        ended(&self.tasks, &self.stop).await;
    }
}

/// Ends the rooms' tasks and waits for them, at most 5 s.
async fn ended(tasks: &TaskTracker, stop: &CancellationToken) {
    stop.cancel();
    tasks.close();
    if tokio::time::timeout(Duration::from_secs(5), tasks.wait())
        .await
        .is_err()
    {
        tracing::warn!("some rooms did not close in time");
    }
}

/// Opens every listener that the rooms need, and closes them again: what is taken is told before anything is made.
/// Call it while the rooms are closed, on the runtime of the control side.
pub(crate) fn try_listeners(ground: &Ground) -> anyhow::Result<()> {
    let boot = &ground.boot;
    cluster::try_listen(boot.cluster.listen, boot.cluster.udp)?;
    mesh_proxy::try_listeners(&proxy_config(ground, boot.capture == Capture::Mesh))?;
    Ok(())
}

fn proxy_config(ground: &Ground, transparent: bool) -> mesh_proxy::Config {
    let (boot, live) = (&ground.boot, ground.live.borrow());
    mesh_proxy::Config {
        workers: boot.workers,
        outbound_port: transparent.then_some(boot.listeners.outbound_port),
        inbound_port: transparent.then_some(boot.listeners.inbound_port),
        transparent,
        tunnel: Some(boot.listeners.tunnel),
        explicit: boot.listeners.explicit,
        mark: transparent.then_some(boot.mark.value),
        cgroup_root: None,
        access_log: live.access_log.clone(),
        limits: mesh_proxy::Limits::default(),
    }
}

fn health(
    ground: &Arc<Ground>,
    tasks: &TaskTracker,
    stop: &CancellationToken,
) -> watch::Receiver<crate::local::HealthMap> {
    let address = ground
        .host
        .addresses
        .first()
        .copied()
        .unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST));
    let remembered = ground.disk.get(HEALTH);
    let remembered = remembered.and_then(|bytes| serde_json::from_slice(&bytes).ok());
    let mut checks = LocalHealth::new(
        address,
        remembered.unwrap_or_default(),
        tasks.clone(),
        stop.clone(),
    );
    let watched = checks.watch();
    let mut live = ground.live.subscribe();
    let services = Arc::clone(&live.borrow_and_update());
    checks.take(&services.services);
    tasks.spawn(stop.clone().run_until_cancelled_owned(async move {
        while live.changed().await.is_ok() {
            let now = Arc::clone(&live.borrow_and_update());
            checks.take(&now.services);
        }
    }));
    let (mut saved, disk) = (watched.clone(), Arc::clone(&ground.disk));
    tasks.spawn(stop.clone().run_until_cancelled_owned(async move {
        while saved.changed().await.is_ok() {
            let now = saved.borrow_and_update().clone();
            if let Ok(bytes) = serde_json::to_vec(&now) {
                disk.put(HEALTH, bytes);
            }
        }
    }));
    watched
}

/// The sources of the whole mesh that this host reads now; true when they are others than before.
fn elect(ground: &Ground, catalog: &Catalog) -> bool {
    let Some(mesh) = &catalog.mesh else {
        return false;
    };
    let before = ground.elected.load();
    let reading = before.iter().map(|source| source.id.clone()).collect();
    let elected = readers::readers(catalog, clock::now_ms());
    let now = readers::read_here(&elected, mesh.host, &reading);
    let changed = **before != now;
    if changed {
        ground.elected.store(Arc::new(now));
    }
    changed
}

/// What the settings name, and what this host reads for the mesh; of one id the settings' own.
fn all_sources(ground: &Ground, live: &Live) -> Vec<SourceConfig> {
    let mut all = live.sources.clone();
    for one in ground.elected.load().iter() {
        if !all.iter().any(|own| own.id == one.id) {
            all.push(one.clone());
        }
    }
    all
}

/// Starts the sources from what they said before, keeps them in step with the configuration and saved.
async fn sources(
    ground: &Arc<Ground>,
    cluster: &Cluster,
    tasks: &TaskTracker,
    stop: &CancellationToken,
) -> Registry {
    let mut live = ground.live.subscribe();
    let mut catalog = cluster.watch();
    elect(ground, &catalog.borrow_and_update());
    let configured = all_sources(ground, &live.borrow_and_update());
    let saved = ground.disk.get(VIEWS);
    let settings = mesh_registry::Settings::default();
    let (registry, unusable) =
        mesh_registry::start_with(&configured, saved.as_deref(), settings, stop.clone());
    if let Some(error) = unusable {
        tracing::warn!(%error, "what the sources said before cannot be used");
    }
    if !configured.is_empty() {
        registry.settled(FIRST_SYNC).await;
    }
    let (room, ground) = (registry.clone(), Arc::clone(ground));
    let mut views = registry.views();
    tasks.spawn(stop.clone().run_until_cancelled_owned(async move {
        loop {
            tokio::select! {
                changed = live.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    room.reload(&all_sources(&ground, &live.borrow_and_update()));
                }
                changed = catalog.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    if elect(&ground, &catalog.borrow_and_update()) {
                        room.reload(&all_sources(&ground, &live.borrow()));
                    }
                }
                changed = views.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    views.borrow_and_update();
                    if let Ok(bytes) = tokio::task::spawn_blocking(room.saving()).await {
                        ground.disk.put(VIEWS, bytes);
                    }
                }
            }
        }
    }));
    registry
}

fn ask(cluster: &Cluster) -> certificates::Ask {
    let cluster = cluster.clone();
    Arc::new(move |host, kind, body| {
        let cluster = cluster.clone();
        Box::pin(async move {
            cluster
                .call(host, kind, body, CALL)
                .await
                .map_err(|error| error.to_string())
        })
    })
}

fn publish(
    cluster: &Cluster,
) -> Arc<
    dyn Fn(Vec<mesh_gossip::Grant>) -> futures_util::future::BoxFuture<'static, ()> + Send + Sync,
> {
    let cluster = cluster.clone();
    Arc::new(move |grants| {
        let cluster = cluster.clone();
        Box::pin(async move { cluster.add_grants(grants).await })
    })
}

fn reach(cluster: &Cluster) -> Reach {
    let (of_grants, of_hosts) = (cluster.clone(), cluster.clone());
    Reach {
        grants: Arc::new(move || {
            let cluster = of_grants.clone();
            Box::pin(async move { cluster.grants().await })
        }),
        publish: publish(cluster),
        grant_of: Arc::new(move |host| {
            of_hosts
                .catalog()
                .hosts
                .get(&host)
                .and_then(|facts| facts.grant.as_deref().cloned())
        }),
        call: ask(cluster),
    }
}
