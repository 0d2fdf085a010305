//! Two daemons on loopback, in one thread: the stage of this crate's tests.
//!
//! Host `A` calls, host `B` serves. Certificates are real, addresses are loopback's, and connections are
//! handed to [`crate::outbound`] as if the kernel had redirected them.

use std::{
    cell::RefCell,
    collections::BTreeMap,
    future::Future,
    net::{IpAddr, SocketAddr},
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::BytesMut;
use mesh_identity::{
    Credentials,
    authority::{Authority, AuthorityKeys, MeshSettings, Root, root_certificate},
    leaf::LeafRequest,
};
use mesh_model::{
    config::AccessLog,
    endpoint::{AuthorityForm, Tunnel, TunnelKind},
    name::{HostId, Namespace, ServiceAccount, ServiceId},
    principal::SpiffeId,
    service::AppProtocol,
    snapshot::{
        Authorization, Backend, BackendEndpoint, BackendKey, Caller, ConnectionTerms, EndpointKey,
        Frontend, HostRights, InboundPort, MeshView, RateLimit, RuleTable, Snapshot,
        cell::{self, Publisher},
        limit::{LimitFields, LimitKey, LimitScope},
    },
};
use tokio::net::{TcpListener, TcpStream};

use crate::{
    clock,
    config::{Config, Limits},
    connection::{Destination, OutboundOrigin},
    drain::Drain,
    io::Io,
    limits,
    listen::{self, Kind},
    observe::{cells::Cells, log},
    origin::units::Units,
    outbound, thread,
    upstream::Shared,
    worker::{Parts, Worker},
};

mod opaque;
mod passed;
mod rights;

/// The host that calls.
pub(crate) const A: HostId = HostId([1; 16]);
/// The host that serves.
pub(crate) const B: HostId = HostId([2; 16]);
/// The service's address for callers.
pub(crate) const VIRTUAL: &str = "240.240.0.1:80";
/// The service's server name.
pub(crate) const NAME: &str = "web.shop.m.internal";

/// The mesh that both are in.
pub(crate) struct World {
    authority: Authority,
    root: Root,
    now_ms: u64,
}

/// One daemon.
pub(crate) struct Host {
    pub(crate) worker: Rc<Worker>,
    pub(crate) cells: Arc<Cells>,
    pub(crate) shared: Arc<Shared>,
    pub(crate) drain: Drain,
    pub(crate) tunnel: SocketAddr,
    pub(crate) done: Rc<RefCell<Option<tokio::task::JoinHandle<()>>>>,
    publisher: RefCell<Publisher>,
}

/// Runs a test on a worker's kind of runtime, in at most a minute.
pub(crate) fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build_local(tokio::runtime::LocalOptions::default());
    runtime.unwrap().block_on(async {
        tokio::time::timeout(Duration::from_mins(1), test)
            .await
            .expect("the test takes too long");
    });
}

/// Waits until something holds, in at most ten seconds.
pub(crate) async fn eventually(what: &str, holds: impl Fn() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(
            begun.elapsed() < Duration::from_secs(10),
            "not in time: {what}"
        );
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

impl World {
    pub(crate) fn new() -> Self {
        let now_ms = clock::now_ms();
        let settings = MeshSettings {
            name: "test".into(),
            trust_domain: "m.internal".into(),
            domain: "mesh.internal".into(),
            strict: false,
            leaf_ttl_secs: 86_400,
        };
        let root = Root::create(&settings, now_ms).unwrap();
        let keys = AuthorityKeys::generate().unwrap();
        let signed = root
            .certify(A, &keys.request().unwrap(), 1, now_ms)
            .unwrap();
        let authority = Authority::new(keys, root.mesh().clone(), signed).unwrap();
        Self {
            authority,
            root,
            now_ms,
        }
    }

    pub(crate) fn id(&self, namespace: &str, account: &str) -> SpiffeId {
        SpiffeId::workload(
            self.root.mesh().trust_domain.clone(),
            Namespace::new(namespace).unwrap(),
            ServiceAccount::new(account).unwrap(),
        )
    }

    /// Certificates of a host's services.
    pub(crate) fn credentials(&self, host: HostId, ids: &[SpiffeId]) -> Credentials {
        let credentials = Credentials::new();
        let own = SpiffeId::host(self.root.mesh().trust_domain.clone(), host);
        for id in ids.iter().chain([&own]) {
            let request = LeafRequest::new(id).unwrap();
            let ttl = Duration::from_hours(1);
            let chain = self
                .authority
                .issue_leaf(request.csr(), id, host, ttl, self.now_ms)
                .unwrap();
            credentials.insert(id.clone(), request.finish(chain, host).unwrap());
        }
        credentials
    }

    /// A snapshot that trusts the mesh and both hosts.
    pub(crate) fn snapshot(&self, host: HostId) -> Snapshot {
        let trust_domain = self.root.mesh().trust_domain.clone();
        let mut snapshot = Snapshot {
            mesh: Some(MeshView {
                trust_domain: trust_domain.clone(),
                domain: "mesh.internal".into(),
                host,
                host_name: if host == A { "a" } else { "b" }.into(),
            }),
            ..Snapshot::default()
        };
        let root: Arc<[u8]> = Arc::from(root_certificate(self.root.mesh()).as_ref());
        snapshot.trust.bundles.insert(trust_domain, vec![root]);
        for host in [A, B] {
            let rights = HostRights {
                may_register: vec!["shop/*".into()],
                not_after_ms: self.now_ms + 86_400_000,
            };
            snapshot.trust.grants.insert(host, Arc::new(rights));
        }
        snapshot
    }

    /// The calling host, idle as to services.
    pub(crate) fn caller_host(&self) -> Host {
        Host::start(
            self.credentials(A, &[self.id("shop", "cart")]),
            self.snapshot(A),
        )
    }

    /// The same within other bounds.
    pub(crate) fn caller_host_with(&self, change: impl FnOnce(&mut Limits)) -> Host {
        let mut config = config();
        change(&mut config.limits);
        Host::start_with(
            config,
            self.credentials(A, &[self.id("shop", "cart")]),
            self.snapshot(A),
        )
    }

    /// Another worker of the same host: what its workers share is shared.
    pub(crate) fn beside(&self, host: &Host) -> Host {
        Host::start_beside(
            config(),
            self.credentials(A, &[self.id("shop", "cart")]),
            self.snapshot(A),
            Arc::clone(&host.shared),
        )
    }

    /// The serving host, with one program.
    pub(crate) fn serving_host(&self, port: InboundPort) -> Host {
        let host = Host::start(
            self.credentials(B, &[self.id("shop", "web")]),
            Snapshot::default(),
        );
        host.publish(self.serving(port));
        host
    }

    /// What the serving host obeys.
    pub(crate) fn serving(&self, port: InboundPort) -> Snapshot {
        let mut snapshot = self.snapshot(B);
        let port = Arc::new(port);
        let inbound = &mut snapshot.inbound;
        inbound.by_address.insert(port.target, Arc::clone(&port));
        let named = BTreeMap::from([(port.target.port(), port)]);
        inbound.by_server_name.insert(NAME.into(), named);
        inbound
            .identities
            .insert(NAME.into(), self.id("shop", "web"));
        snapshot
    }

    /// A program of the serving host.
    pub(crate) fn port(&self, target: SocketAddr, protocol: AppProtocol) -> InboundPort {
        InboundPort {
            service: ServiceId::parse("shop/web").unwrap(),
            principal: self.id("shop", "web"),
            target,
            protocol,
            strict: false,
            labels: Arc::default(),
            authorization: Authorization::default(),
            limits: Arc::from([]),
            connections: ConnectionTerms::default(),
        }
    }

    /// An endpoint behind the serving host's tunnel.
    pub(crate) fn meshed(
        &self,
        key: u64,
        address: SocketAddr,
        tunnel: SocketAddr,
    ) -> BackendEndpoint {
        let tunnel = Tunnel {
            kind: TunnelKind::Mesh,
            address: tunnel,
            server_name: Some(NAME.into()),
            sans: Arc::from([self.id("shop", "web")]),
            next_hop: None,
            authority: AuthorityForm::Address,
            network: None,
        };
        BackendEndpoint {
            tunnel: Some(tunnel),
            ..plain(key, address)
        }
    }

    /// What the calling host obeys: one service with these endpoints.
    pub(crate) fn calling(
        &self,
        protocol: AppProtocol,
        endpoints: impl IntoIterator<Item = BackendEndpoint>,
    ) -> Snapshot {
        let mut snapshot = self.snapshot(A);
        let service = ServiceId::parse("shop/web").unwrap();
        let backend = Arc::new(Backend {
            key: BackendKey(1),
            service: service.clone(),
            port: 80,
            protocol,
            subset: "".into(),
            endpoints: endpoints.into_iter().map(Arc::new).collect(),
            policy: Arc::default(),
        });
        let address: SocketAddr = VIRTUAL.parse().unwrap();
        let frontend = Arc::new(Frontend {
            service: service.clone(),
            port: 80,
            port_name: "".into(),
            protocol,
            virtual_addresses: vec![address.ip()],
            fail_closed: false,
            rules: RuleTable::default(),
            consumer_rules: BTreeMap::new(),
            tcp_rules: RuleTable::default(),
            tls_rules: Vec::new(),
            faults: Arc::from([]),
            backend: Arc::clone(&backend),
        });
        snapshot.outbound.backends.insert((service, 80), backend);
        snapshot
            .outbound
            .by_address
            .insert(address, Arc::clone(&frontend));
        snapshot.outbound.frontends.push(frontend);
        snapshot.callers.host = Some(self.caller());
        snapshot
    }

    /// The calling program.
    pub(crate) fn caller(&self) -> Arc<Caller> {
        Arc::new(Caller {
            service: Some(ServiceId::parse("shop/cart").unwrap()),
            principal: self.id("shop", "cart"),
            namespace: Namespace::new("shop").unwrap(),
            label: "shop/cart".into(),
            trusted: true,
            labels: Arc::default(),
        })
    }

    /// Opens a connection to the service as its caller on `host`: what the program holds of it.
    pub(crate) async fn dial(&self, host: &Host) -> TcpStream {
        self.dial_as(host, self.caller()).await
    }

    /// The same as another caller.
    pub(crate) async fn dial_as(&self, host: &Host, caller: Arc<Caller>) -> TcpStream {
        let (program, captured) = pair().await;
        let origin = OutboundOrigin {
            caller,
            peer: program.local_addr().unwrap(),
            destination: Destination::Address(VIRTUAL.parse().unwrap()),
            internal: false,
        };
        let worker = Rc::clone(&host.worker);
        host.worker.spawn(outbound::serve(
            worker,
            Io::Tcp(captured),
            BytesMut::new(),
            origin,
        ));
        program
    }
}

/// An endpoint without a tunnel.
pub(crate) fn plain(key: u64, address: SocketAddr) -> BackendEndpoint {
    BackendEndpoint {
        key: EndpointKey(key),
        id: format!("endpoint-{key}").into(),
        address,
        tunnel: None,
        local: false,
        weight: 1,
        priority: 0,
        distance: 2,
        locality: None,
        preferred: true,
        host: Some(B),
        host_name: "b".into(),
        labels: Arc::default(),
    }
}

/// A limit of a host that lets `burst` through, and one more in two hours.
pub(crate) fn limit(key: u64, burst: u32) -> RateLimit {
    RateLimit {
        key: LimitKey(key),
        name: "shop/limit".into(),
        matches: Vec::new(),
        by: Arc::from([]),
        requests: 1,
        per: Duration::from_hours(2),
        burst,
        scope: LimitScope::Host,
        fields: LimitFields::None,
    }
}

/// Two ends of a TCP connection on loopback.
pub(crate) async fn pair() -> (TcpStream, TcpStream) {
    let listener = listener().await;
    let address = listener.local_addr().unwrap();
    let (one, other) = tokio::join!(TcpStream::connect(address), listener.accept());
    (one.unwrap(), other.unwrap().0)
}

/// A listener of a program.
pub(crate) async fn listener() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").await.unwrap()
}

/// An address where nobody listens.
pub(crate) async fn nowhere() -> SocketAddr {
    // Bound for as long as the tests run, and never listening: refused, and nobody else gets the port.
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    // A test may begin to listen there.
    socket.set_reuseaddr(true).unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = socket.local_addr().unwrap();
    std::mem::forget(socket);
    address
}

/// A config whose patience suits tests.
fn config() -> Config {
    let limits = Limits {
        silence: Duration::from_millis(30),
        ..Limits::default()
    };
    Config {
        workers: Some(1),
        limits,
        ..Config::default()
    }
}

impl Host {
    fn start(credentials: Credentials, snapshot: Snapshot) -> Self {
        Self::start_with(config(), credentials, snapshot)
    }

    fn start_with(config: Config, credentials: Credentials, snapshot: Snapshot) -> Self {
        Self::start_beside(config, credentials, snapshot, Arc::default())
    }

    fn start_beside(
        config: Config,
        credentials: Credentials,
        snapshot: Snapshot,
        shared: Arc<Shared>,
    ) -> Self {
        let (mut publisher, reader) = cell::cell();
        publisher.publish(snapshot);
        let (cells, drain) = (Arc::<Cells>::default(), Drain::default());
        let limits = Arc::<limits::Shared>::default();
        let any = SocketAddr::new(IpAddr::from([127, 0, 0, 1]), 0);
        let bound = listen::bind(Kind::Tunnel, any).unwrap();
        let tunnel = bound.socket.local_addr().unwrap();
        let worker = Worker::new(Parts {
            config: Arc::new(config),
            reader,
            credentials,
            drain: drain.clone(),
            shared: Arc::clone(&shared),
            limits: Arc::clone(&limits),
            units: Arc::new(Units::new(None)),
            cells: Arc::clone(&cells),
            lines: log::Writer::start(&AccessLog::default()).unwrap().lines(),
            own: Arc::from([tunnel]),
            started: Instant::now(),
        });
        let task = tokio::task::spawn_local(thread::run(Rc::clone(&worker), vec![bound]));
        let done = Rc::new(RefCell::new(Some(task)));
        let publisher = RefCell::new(publisher);
        Self {
            worker,
            cells,
            shared,
            drain,
            tunnel,
            done,
            publisher,
        }
    }

    /// Obeys another snapshot from now on.
    pub(crate) fn publish(&self, snapshot: Snapshot) {
        self.publisher.borrow_mut().publish(snapshot);
    }

    /// What failed here, by code and id.
    pub(crate) fn failures(&self) -> Vec<(String, String)> {
        let ring = self.cells.failures.lock().unwrap();
        ring.all().map(|record| (record.code, record.id)).collect()
    }
}
