//! DNS names as a source: SRV records, or A and AAAA with a port.
//!
//! In: the names of the settings. Out: the endpoints of every service, asked again before they expire.
//! Never: takes an error for an absence, nor a datagram for the whole truth unless told to.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    hash::{BuildHasher, Hash},
    net::SocketAddr,
    path::Path,
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use mesh_model::{cause::chain, config::DnsRecord, endpoint::ServiceKey, name::Namespace};
use tokio::{task::JoinSet, time::Instant};
use tokio_util::sync::CancellationToken;

use crate::{
    backoff::{AWAY, Backoff},
    demand::Demand,
    sink::{ServiceSet, Sink},
    source::{Capabilities, Reach, Source, SourceError},
    status::SourceStatus,
    version::Version,
};

/// One question to the servers in order.
mod exchange;
/// Answers to targets, addresses and endpoints.
pub mod parse;
/// The names of one service to its endpoints.
mod resolve;

use exchange::{Exchange, system};
use resolve::{Memory, ResolveError, Resolved, resolve};

/// Services that are asked for at a time.
const AT_ONCE: usize = 16;
/// The longest that the names of one service may take.
const DEADLINE: Duration = Duration::from_secs(30);
/// Waits after errors.
const FIRST_WAIT: Duration = Duration::from_millis(500);
const LONGEST_WAIT: Duration = Duration::from_secs(30);
/// Where the system names its servers.
const SYSTEM: &str = "/etc/resolv.conf";

/// DNS names.
#[derive(Debug)]
pub struct DnsSource {
    id: String,
    servers: Vec<SocketAddr>,
    records: BTreeMap<ServiceKey, Arc<[DnsRecord]>>,
    udp: bool,
}

impl DnsSource {
    /// `servers` in order, none: the system's. Records of one service are one set.
    pub fn new(id: &str, servers: &[SocketAddr], records: &[DnsRecord], udp: bool) -> Self {
        let mut by_service: BTreeMap<ServiceKey, Vec<DnsRecord>> = BTreeMap::new();
        for record in records {
            let key = ServiceKey {
                namespace: Some(Namespace::default()),
                name: record.service.clone(),
                port_name: None,
            };
            by_service.entry(key).or_default().push(record.clone());
        }
        Self {
            id: id.to_owned(),
            servers: servers.to_vec(),
            records: by_service
                .into_iter()
                .map(|(key, records)| (key, records.into()))
                .collect(),
            udp,
        }
    }
}

#[async_trait]
impl Source for DnsSource {
    fn id(&self) -> &str {
        &self.id
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            reach: Reach::All,
            pushes: false,
            health: false,
            weights: true,
            latency: Duration::from_secs(1),
        }
    }

    async fn run(
        &mut self,
        out: Sink,
        _demand: Demand,
        _stop: CancellationToken,
    ) -> Result<Infallible, SourceError> {
        // What was saved of names that the settings no longer have goes; the others wait for an answer.
        let mut sync = out.begin_sync();
        for key in self.records.keys() {
            sync.keep(key.clone());
        }
        sync.commit();
        let mut rounds = Rounds::new(self, out.clone()).await?;
        loop {
            rounds.start_due();
            let next = rounds.next();
            tokio::select! {
                Some(done) = rounds.running.join_next() => {
                    rounds.take(done.map_err(|_panicked| SourceError::Protocol {
                        subject: "an answer".into(),
                        what: "its reader panicked".into(),
                    })?);
                    if std::mem::take(&mut rounds.failed) && self.servers.is_empty() {
                        rounds.read_servers_again().await;
                    }
                }
                () = wake(next) => {}
                () = out.recheck() => rounds.all_now(),
            }
        }
    }
}

async fn wake(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

/// One service and when it is asked for next.
struct Watched {
    key: ServiceKey,
    records: Arc<[DnsRecord]>,
    memory: Arc<Memory>,
    waits: Backoff,
    next: Instant,
    running: bool,
    /// True once it was asked for, and once there was an answer; with the error of the last time.
    asked: bool,
    answered: bool,
    error: Option<String>,
}

type Done = (usize, Result<Resolved, ResolveError>);

/// All services, and what runs now.
struct Rounds {
    out: Sink,
    exchange: Arc<Exchange>,
    watched: Vec<Watched>,
    running: JoinSet<Done>,
    /// True when something failed since the system's servers were read.
    failed: bool,
}

impl Rounds {
    async fn new(source: &DnsSource, out: Sink) -> Result<Self, SourceError> {
        let servers = if source.servers.is_empty() {
            system_servers(Path::new(SYSTEM)).await?
        } else {
            source.servers.clone()
        };
        let now = Instant::now();
        let watched = source.records.iter().map(|(key, records)| Watched {
            key: key.clone(),
            records: Arc::clone(records),
            memory: Arc::default(),
            waits: Backoff::new(FIRST_WAIT, LONGEST_WAIT),
            next: now,
            running: false,
            asked: false,
            answered: false,
            error: None,
        });
        Ok(Self {
            out,
            exchange: Arc::new(Exchange {
                servers,
                udp: source.udp,
            }),
            watched: watched.collect(),
            running: JoinSet::new(),
            failed: false,
        })
    }

    /// The machine may have moved to other servers.
    async fn read_servers_again(&mut self) {
        if let Ok(servers) = system_servers(Path::new(SYSTEM)).await
            && servers != self.exchange.servers
        {
            let udp = self.exchange.udp;
            self.exchange = Arc::new(Exchange { servers, udp });
        }
    }

    /// Starts what is due, as far as there is room.
    fn start_due(&mut self) {
        let now = Instant::now();
        for (at, one) in self.watched.iter_mut().enumerate() {
            if self.running.len() >= AT_ONCE {
                return;
            }
            if one.running || one.next > now {
                continue;
            }
            one.running = true;
            let (exchange, records, memory) = (
                Arc::clone(&self.exchange),
                Arc::clone(&one.records),
                Arc::clone(&one.memory),
            );
            self.running.spawn(async move {
                let asked = resolve(&exchange, &records, &memory);
                let result = tokio::time::timeout(DEADLINE, asked).await;
                (at, result.unwrap_or(Err(ResolveError::Slow)))
            });
        }
    }

    /// When the next one is due; `None` when there is no room for it anyway.
    fn next(&self) -> Option<Instant> {
        if self.running.len() >= AT_ONCE {
            return None;
        }
        let idle = self.watched.iter().filter(|one| !one.running);
        idle.map(|one| one.next).min()
    }

    fn all_now(&mut self) {
        let now = Instant::now();
        for one in &mut self.watched {
            one.next = now;
        }
    }

    /// The name that is asked often while it cannot be read: it shows that the servers are back.
    fn probe(&self) -> usize {
        let answered = self.watched.iter().position(|one| one.answered);
        answered.unwrap_or_default()
    }

    /// What could not be read is asked now.
    fn failed_now(&mut self) {
        let now = Instant::now();
        let failed = |one: &&mut Watched| one.error.is_some() && !one.running;
        for one in self.watched.iter_mut().filter(failed) {
            one.next = one.next.min(now);
        }
    }

    fn take(&mut self, (at, result): Done) {
        let is_probe = at == self.probe();
        let Some(one) = self.watched.get_mut(at) else {
            return;
        };
        one.running = false;
        one.asked = true;
        let mut is_back = false;
        let wait = match result {
            Ok(resolved) => {
                one.answered = true;
                is_back = one.error.is_some() && is_probe;
                one.error = resolved.doubt;
                one.memory = Arc::new(resolved.memory);
                let version = Version::Hash(fingerprint(&resolved.endpoints));
                if resolved.endpoints.is_empty() {
                    self.out.absent(&one.key, version);
                } else {
                    let set = ServiceSet::from(resolved.endpoints);
                    self.out.replace(one.key.clone(), set, version);
                }
                one.waits.reset();
                parse::refresh(resolved.life, fastrand::f64())
            }
            Err(error) => {
                one.error = Some(chain(&error));
                self.failed = true;
                let wait = one.waits.next(fastrand::f64());
                if is_probe { wait.min(AWAY) } else { wait }
            }
        };
        one.next = Instant::now() + wait;
        self.out.trouble(&one.key, one.error.clone());
        if is_back {
            self.failed_now();
        }
        self.tell();
    }

    /// The status: nothing before each service was asked for, unless something is wrong already. One broken
    /// name is its own trouble; when nothing can be read, the source is in trouble.
    fn tell(&self) {
        let wrong = || {
            self.watched
                .iter()
                .filter_map(|one| Some((one, one.error.as_ref()?)))
        };
        let failing = wrong().count();
        let asked = self.watched.iter().filter(|one| one.asked).count();
        if let Some((one, error)) = wrong().next()
            && failing == asked
        {
            let error = match failing - 1 {
                0 => format!("{}: {error}", one.key.name),
                more => format!("{}: {error}; and {more} more", one.key.name),
            };
            self.out.status(SourceStatus::Degraded { error });
        } else if asked == self.watched.len() {
            self.out.status(SourceStatus::Synced);
        }
    }
}

async fn system_servers(path: &Path) -> Result<Vec<SocketAddr>, SourceError> {
    match tokio::fs::read_to_string(path).await {
        Ok(text) => Ok(system(&text)),
        Err(cause) => Err(SourceError::Transport {
            subject: path.display().to_string(),
            cause,
        }),
    }
}

fn fingerprint(content: &impl Hash) -> u64 {
    foldhash::fast::FixedState::with_seed(0).hash_one(content)
}

#[cfg(test)]
mod tests;
