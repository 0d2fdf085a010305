//! Starts the threads, and answers for all of them: metrics, failures, draining.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::Path,
    sync::{Arc, PoisonError},
    time::{Duration, Instant},
};

use mesh_identity::Credentials;
use mesh_model::{
    admin::{
        FailureRecord, StatRow,
        live::{EdgeSample, TapFilter},
    },
    config::AccessLog,
    snapshot::{EndpointKey, cell::Reader, limit::LimitKey},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    config::Config,
    drain::Drain,
    limits,
    listen::{self, Bound, Kind},
    observe::{cells::Cells, edges, log, page, tap::Tap},
    origin::units::Units,
    thread, turn,
    upstream::{self, Ejection},
    worker::{Parts, Worker},
};

/// Why the data plane cannot start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// A listener's address is taken or may not be used.
    #[error("cannot listen on {address} ({kind})")]
    Listen {
        /// Which listener.
        kind: &'static str,
        /// Where.
        address: SocketAddr,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Sockets may not be marked: `CAP_NET_ADMIN` is missing.
    #[error("sockets cannot be marked with {mark:#x}")]
    Mark {
        /// The mark.
        mark: u32,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The access log cannot be opened.
    #[error("the access log cannot be opened")]
    AccessLog(#[source] io::Error),
    /// A thread or its runtime cannot be made.
    #[error("a worker cannot be started")]
    Worker(#[source] io::Error),
}

/// The running data plane.
#[derive(Debug)]
pub struct Proxy {
    cells: Vec<Arc<Cells>>,
    drain: Drain,
    threads: TaskTracker,
    shared: Arc<upstream::Shared>,
    limits: Arc<limits::Shared>,
    units: Arc<Units>,
    log: log::Writer,
    reader: Reader,
    addresses: Vec<(Kind, SocketAddr)>,
}

/// What the names of the workers' threads begin with.
const THREAD: &str = "mesh-proxy-";
/// Time that forced workers get to go.
const FORCED: Duration = Duration::from_secs(2);

/// Starts the data plane; it runs until drained, or until `stop` ends it at once.
#[expect(
    clippy::needless_pass_by_value,
    reason = "the data plane's own token, not one to look at"
)]
pub fn start(
    config: Config,
    reader: Reader,
    credentials: Credentials,
    stop: CancellationToken,
) -> Result<Proxy, StartError> {
    check_mark(config.mark)?;
    let log = log::Writer::start(&config.access_log).map_err(StartError::AccessLog)?;
    let (mut sockets, addresses) = bind(&config)?;
    let proxy = Proxy {
        cells: cells(config.worker_count()),
        drain: Drain::below(&stop),
        threads: TaskTracker::new(),
        shared: Arc::default(),
        limits: Arc::default(),
        units: Arc::new(Units::new(config.cgroup_root.clone())),
        log,
        reader,
        addresses,
    };
    let beginning = Beginning {
        config: Arc::new(config),
        credentials,
        own: proxy
            .addresses
            .iter()
            .map(|(_, address)| *address)
            .collect(),
        started: Instant::now(),
    };
    for (index, cells) in proxy.cells.iter().enumerate() {
        let bound = sockets.pop().unwrap_or_default();
        proxy
            .thread(index, cells, bound, beginning.clone())
            .map_err(|source| {
                proxy.drain.force();
                StartError::Worker(source)
            })?;
    }
    proxy.threads.close();
    Ok(proxy)
}

/// Binds every listener of the configuration and lets go of it again: for who wants to know beforehand whether
/// [`start`] will find a port taken.
pub fn try_listeners(config: &Config) -> Result<(), StartError> {
    bind(config).map(drop)
}

/// Nothing counted; who looks at live requests is shared.
fn cells(workers: usize) -> Vec<Arc<Cells>> {
    let taps = Arc::default();
    let one = || Cells {
        taps: Arc::clone(&taps),
        ..Cells::default()
    };
    (0..workers).map(|_| Arc::new(one())).collect()
}

/// What all workers begin with.
#[derive(Clone)]
struct Beginning {
    config: Arc<Config>,
    credentials: Credentials,
    own: Arc<[SocketAddr]>,
    started: Instant,
}

impl Proxy {
    /// Appends the metrics of the data plane: Prometheus text.
    pub fn render_metrics(&self, out: &mut String) {
        page::render(&self.cells, self.shared.ejected().len(), out);
        self.shared.figures.render(out);
    }

    /// Counts by direction, source and destination since the start.
    pub fn edges(&self) -> Vec<EdgeSample> {
        edges::sample(&self.cells)
    }

    /// CPU time of the data plane's threads since the start, in microseconds.
    pub fn cpu_us(&self) -> u64 {
        thread::cpu_us(THREAD)
    }

    /// Looks at live requests until dropped.
    pub fn tap(&self, filter: TapFilter) -> Tap {
        let taps = self.cells.first().map(|cells| Arc::clone(&cells.taps));
        taps.unwrap_or_default().open(filter)
    }

    /// Rows of `meshctl stat`, ordered.
    pub fn stats(&self) -> Vec<StatRow> {
        page::stats(&self.cells)
    }

    /// What is still known of a failed request, in time order.
    pub fn failures(&self, id: &str) -> Vec<FailureRecord> {
        let host = self
            .reader
            .load()
            .mesh
            .as_ref()
            .map(|mesh| mesh.host_name.to_string());
        let mut found = Vec::new();
        for cells in &self.cells {
            let ring = cells
                .failures
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            found.extend(ring.of(id));
        }
        found.sort_by_key(|record| record.time_ms);
        for record in &mut found {
            record.host = host.clone().unwrap_or_default();
        }
        found
    }

    /// The daemon's own explicit listener on loopback: obeys `mesh-as`, answers debug headers.
    pub fn internal_address(&self) -> SocketAddr {
        self.address(Kind::Internal)
            .unwrap_or_else(|| SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))
    }

    /// Where mTLS tunnels arrive, with the port that was bound.
    pub fn tunnel_address(&self) -> Option<SocketAddr> {
        self.address(Kind::Tunnel)
    }

    /// The explicit listener, with the port that was bound.
    pub fn explicit_address(&self) -> Option<SocketAddr> {
        self.address(Kind::Explicit)
    }

    /// The listener for redirected calls (IPv4), with the port that was bound.
    pub fn outbound_address(&self) -> Option<SocketAddr> {
        self.address(Kind::Outbound)
    }

    /// Endpoints that are out now: dials or health checks failed, or what they answered put them out.
    pub fn ejected(&self) -> Vec<EndpointKey> {
        self.shared.ejected()
    }

    /// Endpoints that are out now, with the reason and the end of it, in order.
    pub fn ejections(&self) -> Vec<Ejection> {
        self.shared.ejections()
    }

    /// What was asked of each mesh-wide rate limit on this host since the start, let through or not, by key.
    pub fn quota_usage(&self) -> Vec<(LimitKey, u64)> {
        self.limits.usage()
    }

    /// Sets this host's share of a mesh-wide rate limit, 0 to 1; all of it until then.
    pub fn set_quota_share(&self, limit: LimitKey, share: f32) {
        self.limits.set_share(limit, share);
    }

    /// Forgets the share of a limit that is none of this host's any longer: only shares that act are kept.
    pub fn forget_quota_share(&self, limit: LimitKey) {
        self.limits.forget_share(limit);
    }

    /// Binds the cgroup of a unit (a path under the v2 root) to the unit's name, before its first process starts.
    pub fn enrol(&self, cgroup: &Path, unit: &str) -> io::Result<()> {
        self.units.enrol(cgroup, unit)
    }

    /// Writes the access log by these settings from now on; its file is opened anew, so that one that was rotated
    /// away is let go. After an error the log goes on as it was.
    pub fn log_to(&self, settings: &AccessLog) -> io::Result<()> {
        self.log.take(settings)
    }

    /// Stops accepting, lets what runs finish for at most `limit`, then ends it. Resolves when all threads ended.
    pub async fn drain(self, limit: Duration) {
        self.drain.begin();
        if tokio::time::timeout(limit, self.threads.wait())
            .await
            .is_ok()
        {
            return;
        }
        tracing::info!("connections that did not finish in time are closed");
        self.drain.force();
        if tokio::time::timeout(FORCED, self.threads.wait())
            .await
            .is_err()
        {
            tracing::warn!("a worker did not end");
        }
    }

    fn address(&self, kind: Kind) -> Option<SocketAddr> {
        self.addresses
            .iter()
            .find(|(other, _)| *other == kind)
            .map(|(_, address)| *address)
    }

    fn thread(
        &self,
        index: usize,
        cells: &Arc<Cells>,
        bound: Vec<Bound>,
        beginning: Beginning,
    ) -> io::Result<()> {
        let runtime = || {
            tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build_local(tokio::runtime::LocalOptions::default())
        };
        let running = self.threads.token();
        let parts = Parts {
            config: beginning.config,
            reader: self.reader.clone(),
            credentials: beginning.credentials,
            drain: self.drain.clone(),
            shared: Arc::clone(&self.shared),
            limits: Arc::clone(&self.limits),
            units: Arc::clone(&self.units),
            cells: Arc::clone(cells),
            lines: self.log.lines(),
            own: beginning.own,
            started: beginning.started,
        };
        let (tell, told) = std::sync::mpsc::sync_channel(1);
        std::thread::Builder::new()
            .name(format!("{THREAD}{index}"))
            .spawn(move || {
                let _running = running;
                if let Err(error) = turn::shorten() {
                    tracing::debug!(%error, "a worker has turns of the usual length");
                }
                let runtime = match runtime() {
                    Ok(runtime) => runtime,
                    // The starter waits for it.
                    Err(error) => return drop(tell.send(Err(error))),
                };
                drop(tell.send(Ok(())));
                runtime.block_on(async move { thread::run(Worker::new(parts), bound).await });
            })?;
        told.recv()
            .map_err(|_gone| io::Error::other("the thread ended at once"))?
    }
}

fn check_mark(mark: Option<u32>) -> Result<(), StartError> {
    let Some(mark) = mark else { return Ok(()) };
    let tried = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None)
        .and_then(|socket| socket.set_mark(mark));
    tried.map_err(|source| StartError::Mark { mark, source })
}

type Sockets = (Vec<Vec<Bound>>, Vec<(Kind, SocketAddr)>);

/// Binds every listener once per worker; the first binding of port 0 decides the port of the others.
fn bind(config: &Config) -> Result<Sockets, StartError> {
    let mut sockets: Vec<Vec<Bound>> = (0..config.worker_count()).map(|_| Vec::new()).collect();
    let mut addresses = Vec::new();
    for (kind, address, needed) in wanted(config) {
        let mut address = address;
        for (index, bound) in sockets.iter_mut().enumerate() {
            let made = listen::bind(kind, address).and_then(|made| {
                address = made.socket.local_addr()?;
                Ok(made)
            });
            match made {
                Ok(made) => bound.push(made),
                // A host without IPv6.
                Err(error) if !needed && index == 0 => {
                    tracing::info!(%error, %address, kind = kind.as_str(), "not listening there");
                    break;
                }
                Err(source) => {
                    return Err(StartError::Listen {
                        kind: kind.as_str(),
                        address,
                        source,
                    });
                }
            }
            if index == 0 {
                addresses.push((kind, address));
            }
        }
    }
    Ok((sockets, addresses))
}

/// Listeners with their addresses; false: they may be missing on a host without IPv6.
fn wanted(config: &Config) -> Vec<(Kind, SocketAddr, bool)> {
    let any = [
        IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    ];
    let loopback = [
        IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(Ipv6Addr::LOCALHOST),
    ];
    let mut wanted = Vec::new();
    let mut both = |kind, ips: [IpAddr; 2], port| {
        for ip in ips {
            wanted.push((kind, SocketAddr::new(ip, port), ip.is_ipv4()));
        }
    };
    if let Some(port) = config.outbound_port {
        both(Kind::Outbound, loopback, port);
    }
    if let Some(port) = config.inbound_port.filter(|_| config.transparent) {
        both(Kind::Inbound, any, port);
    }
    if let Some(address) = config.tunnel {
        // A port of 0 would differ between the families.
        if address.ip().is_unspecified() && address.port() != 0 {
            both(Kind::Tunnel, any, address.port());
        } else {
            wanted.push((Kind::Tunnel, address, true));
        }
    }
    if let Some(address) = config.explicit {
        wanted.push((Kind::Explicit, address, true));
    }
    wanted.push((
        Kind::Internal,
        SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
        true,
    ));
    wanted
}
