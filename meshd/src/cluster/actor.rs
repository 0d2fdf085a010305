//! The task that owns the node: gives it what happens, does what it wants.

use std::{
    collections::{BTreeMap, HashMap},
    net::{IpAddr, SocketAddr},
    sync::{Arc, LazyLock, PoisonError},
    time::{Duration, Instant as Clock},
};

use bytes::Bytes;
use mesh_gossip::{Input, Node, Output, SubmitError, Time};
use mesh_identity::seal::{DatagramBox, Opened as Unsealed};
use mesh_model::{admin::CommitAccepted, catalog::Catalog, finding::Finding, name::HostId};
use tokio::{
    net::UdpSocket,
    sync::{Notify, mpsc, oneshot, watch},
    time::{Instant, sleep_until},
};

use super::{
    Command, Links, Revoked, Start,
    dial::{Dialler, Opened},
    link::{Event, Link},
    socket,
};

/// A link that is younger than this may be one of two that were dialled at the same time.
const TWINS: Duration = Duration::from_secs(5);
/// How often the seeds are tried while no link stands.
const LONELY: Duration = Duration::from_secs(5);
/// Changes that come within this time are told together.
const TOGETHER: Duration = Duration::from_millis(5);
const DATAGRAM: usize = 2048;

static STARTED: LazyLock<Clock> = LazyLock::new(Clock::now);

/// The time as the node is told it.
pub(super) fn now() -> Time {
    Time {
        elapsed: STARTED.elapsed(),
        wall_ms: super::wall_ms(),
    }
}

/// What the actor is made of.
pub(super) struct Parts {
    pub(super) node: Node,
    pub(super) sealed: DatagramBox,
    pub(super) udp: Option<UdpSocket>,
    pub(super) links: Links,
    pub(super) linked: Arc<Notify>,
    pub(super) catalog: watch::Sender<Arc<Catalog>>,
    pub(super) findings: watch::Sender<Arc<Vec<Finding>>>,
    pub(super) revoked: Revoked,
    pub(super) dialler: Dialler,
    pub(super) asked: mpsc::Receiver<Command>,
    pub(super) start: Start,
}

type Channel<T> = (mpsc::Sender<T>, mpsc::Receiver<T>);

/// Owns the node.
pub(super) struct Actor {
    parts: Parts,
    /// Where datagrams of a host came from last.
    heard_at: HashMap<HostId, SocketAddr>,
    events: Channel<Event>,
    opened: Channel<Opened>,
    stored: Channel<(u64, bool)>,
    answers: BTreeMap<u64, oneshot::Sender<Result<CommitAccepted, SubmitError>>>,
    next_ticket: u64,
    next_link: u64,
    timer: Option<(Instant, u64)>,
    lonely: Instant,
    /// When a change of the catalog is told.
    news: Option<Instant>,
}

impl Actor {
    pub(super) fn new(parts: Parts) -> Self {
        Self {
            parts,
            heard_at: HashMap::new(),
            events: mpsc::channel(1024),
            opened: mpsc::channel(64),
            stored: mpsc::channel(4096),
            answers: BTreeMap::new(),
            next_ticket: 1,
            next_link: 1,
            timer: None,
            lonely: Instant::now(),
            news: None,
        }
    }

    /// Starts the task; `first` is what the node wanted at its start.
    pub(super) fn spawn(mut self, first: Vec<Output>) {
        let (tasks, stop) = (
            self.parts.start.tasks.clone(),
            self.parts.start.stop.clone(),
        );
        self.parts.dialler.accept(&self.opened.0);
        tasks.spawn(async move {
            self.carry_out(first);
            self.handle(Input::Grants(self.parts.start.identity.grants()));
            Box::pin(self.run(stop)).await;
        });
    }

    async fn run(mut self, stop: tokio_util::sync::CancellationToken) {
        let mut buffer = vec![0; DATAGRAM];
        loop {
            let (timer, news) = (self.timer, self.news);
            tokio::select! {
                () = stop.cancelled() => return,
                command = self.parts.asked.recv() => match command {
                    Some(command) => self.command(command),
                    None => return,
                },
                Some(event) = self.events.1.recv() => self.event(event),
                Some(opened) = self.opened.1.recv() => self.opened(opened),
                Some((ticket, stored)) = self.stored.1.recv() => {
                    self.handle(if stored { Input::Stored(ticket) } else { Input::StoreFailed(ticket) });
                }
                Some((length, from)) = receive(self.parts.udp.as_ref(), &mut buffer) => {
                    let datagram = buffer.get(..length).unwrap_or_default().to_vec();
                    self.datagram(&datagram, from);
                }
                () = sleep_until(timer.map_or_else(far, |(at, _)| at)), if timer.is_some() => {
                    self.timer = None;
                    if let Some((_, token)) = timer {
                        self.handle(Input::Timer(token));
                    }
                }
                () = sleep_until(news.unwrap_or_else(far)), if news.is_some() => self.publish(),
                () = sleep_until(self.lonely) => self.seek_company(),
            }
        }
    }

    fn handle(&mut self, input: Input) {
        let outputs = self.parts.node.handle(input, now());
        self.carry_out(outputs);
    }

    fn command(&mut self, command: Command) {
        match command {
            Command::Publish(records) => self.handle(Input::Publish(records)),
            Command::Submit(commit, answer) => {
                let ticket = self.next_ticket;
                self.next_ticket += 1;
                self.answers.insert(ticket, answer);
                self.handle(Input::Submit { ticket, commit });
            }
            Command::Grants(grants, answer) => {
                self.handle(Input::Grants(grants));
                // Rows are written in order: when this is on disk, the grants are.
                let told: crate::disk::Told = Box::new(move |_good| _ = answer.send(()).is_ok());
                self.parts.start.disk.write(Vec::new(), true, Some(told));
            }
            Command::LocalViews(views) => self.handle(Input::LocalViews(views)),
            Command::Leave(answer) => {
                self.handle(Input::Leave);
                let tasks = self.parts.start.tasks.clone();
                tasks.spawn(async move {
                    // Long enough for a round trip to the neighbours.
                    tokio::time::sleep(Duration::from_millis(700)).await;
                    _ = answer.send(()).is_ok();
                });
            }
            Command::Connect(host) => self.handle(Input::Dial(host)),
            Command::Ask(question) => question(&mut self.parts.node),
        }
    }

    fn carry_out(&mut self, outputs: Vec<Output>) {
        let mut answers = Vec::new();
        for output in outputs {
            match output {
                Output::Datagram { to, bytes } => self.send_datagram(to, &bytes),
                Output::Frame { to, bytes } => self.send_frame(to, bytes),
                Output::Connect(host) => self.connect(host),
                Output::Disconnect(host) => {
                    if let Some(link) = self.lock_links().get(&host) {
                        link.close();
                    }
                }
                Output::Timer { after, token } => {
                    self.timer = Some((Instant::now() + after, token));
                }
                Output::Persist {
                    rows,
                    durable,
                    ticket,
                } => {
                    let stored = self.stored.0.clone();
                    let told = ticket.map(|ticket| -> crate::disk::Told {
                        Box::new(move |good| {
                            // The actor ends before the disk only when everything ends.
                            _ = stored.blocking_send((ticket, good)).is_ok();
                        })
                    });
                    self.parts.start.disk.write(rows, durable, told);
                }
                Output::Answer { ticket, result } => answers.push((ticket, result)),
                Output::CatalogChanged => {
                    self.news.get_or_insert_with(|| Instant::now() + TOGETHER);
                }
            }
        }
        self.answer(answers);
    }

    /// Tells the submitters. Who was told that a commit stands finds it in the catalog with its next question.
    fn answer(&mut self, answers: Vec<(u64, Result<CommitAccepted, SubmitError>)>) {
        if self.news.is_some() && answers.iter().any(|(_, result)| result.is_ok()) {
            self.publish();
        }
        for (ticket, result) in answers {
            if let Some(answer) = self.answers.remove(&ticket) {
                // Whoever asked may have gone.
                drop(answer.send(result));
            }
        }
    }

    fn publish(&mut self) {
        self.news = None;
        let catalog = self.parts.node.catalog();
        let revoked = catalog
            .hosts
            .keys()
            .copied()
            .filter(|host| self.parts.node.is_revoked(*host))
            .collect();
        *self
            .parts
            .revoked
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = revoked;
        let findings = self.parts.node.findings();
        self.parts.findings.send_if_modified(|known| {
            let changed = **known != findings;
            if changed {
                *known = Arc::new(findings);
            }
            changed
        });
        self.parts.catalog.send_replace(catalog);
    }

    fn lock_links(&self) -> std::sync::MutexGuard<'_, HashMap<HostId, Link>> {
        self.parts
            .links
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn send_frame(&mut self, to: HostId, bytes: Bytes) {
        let link = self.lock_links().get(&to).cloned();
        if let Some(link) = link {
            link.gossip(bytes);
        }
    }

    fn send_datagram(&mut self, to: HostId, bytes: &[u8]) {
        let Some(address) = self.datagram_address(to) else {
            return;
        };
        let Some(key) = self
            .parts
            .node
            .grant_of(to)
            .and_then(|grant| key_in(&grant.x25519))
        else {
            return;
        };
        let Some(udp) = &self.parts.udp else { return };
        match self.parts.sealed.seal(to, &key, bytes) {
            Ok(sealed) => socket::send(udp, &sealed, address),
            Err(error) => tracing::debug!(host = %to.short(), %error, "datagram"),
        }
    }

    fn datagram(&mut self, bytes: &[u8], from: SocketAddr) {
        let Some(udp) = &self.parts.udp else { return };
        if let Some(echo) = self.parts.start.joins.probes().echo(bytes) {
            socket::send(udp, echo, from);
            return;
        }
        let node = &self.parts.node;
        let key_of = |host| node.grant_of(host).and_then(|grant| key_in(&grant.x25519));
        match self.parts.sealed.open(bytes, key_of) {
            Ok(Unsealed::Datagram { from: host, bytes }) => {
                self.heard_at.insert(host, from);
                self.handle(Input::Datagram {
                    from: host,
                    bytes: Bytes::from(bytes),
                });
            }
            Ok(Unsealed::Notice { bytes, .. }) => socket::send(udp, &bytes, from),
            Ok(Unsealed::Learnt { from: host }) => {
                self.heard_at.insert(host, from);
            }
            Err(error) => tracing::trace!(%from, %error, "datagram"),
        }
    }

    fn datagram_address(&self, host: HostId) -> Option<SocketAddr> {
        let known = self.addresses(host);
        let heard = self.heard_at.get(&host).copied();
        // What the host says of itself wins over what was heard, unless it says nothing that fits.
        let own = self
            .parts
            .udp
            .as_ref()
            .and_then(|udp| udp.local_addr().ok());
        let both = own.is_some_and(|own| own.ip().is_unspecified() && own.is_ipv6());
        let fits = |address: &SocketAddr| {
            both || own.is_some_and(|own| own.is_ipv4() == address.is_ipv4())
        };
        let first = known.iter().copied().find(fits);
        heard
            .filter(|heard| known.is_empty() || known.iter().any(|one| one.ip() == heard.ip()))
            .or(first)
    }

    /// Where a host says that its control state listens.
    fn addresses(&self, host: HostId) -> Vec<SocketAddr> {
        let catalog = self.parts.catalog.borrow();
        let Some(info) = catalog
            .hosts
            .get(&host)
            .and_then(|facts| facts.info.clone())
        else {
            return Vec::new();
        };
        let Ok(port) = u16::try_from(info.cluster_port) else {
            return Vec::new();
        };
        info.addresses
            .iter()
            .filter_map(|address| address.parse::<IpAddr>().ok())
            .map(|ip| SocketAddr::new(ip, port))
            .collect()
    }

    fn connect(&self, host: HostId) {
        let (addresses, linked) = (self.addresses(host), !self.lock_links().is_empty());
        if addresses.is_empty() && linked {
            // Where it is will come over the links. A full queue loses nothing: the node asks again.
            drop(self.opened.0.try_send(Opened::Failed(host)));
            return;
        }
        let seeds = self.parts.start.seeds.clone();
        self.parts
            .dialler
            .dial(host, addresses, seeds, &self.opened.0);
    }

    /// Without any link the seeds are tried, for ever: nobody else would find this host.
    fn seek_company(&mut self) {
        self.lonely = Instant::now() + LONELY.mul_f64(0.75 + fastrand::f64() / 2.0);
        let alone = self.lock_links().is_empty();
        if alone && !self.parts.start.seeds.is_empty() {
            let seeds = self.parts.start.seeds.clone();
            let own = self.parts.start.identity.host();
            self.parts
                .dialler
                .dial(own, Vec::new(), seeds, &self.opened.0);
        }
    }

    fn opened(&mut self, opened: Opened) {
        match opened {
            Opened::Failed(host) => {
                let linked = self.lock_links().contains_key(&host);
                if !linked {
                    self.handle(Input::LinkDown(host));
                }
            }
            Opened::Link {
                host,
                stream,
                dialled,
            } => {
                let own = self.parts.start.identity.host();
                let existing = self.lock_links().get(&host).cloned();
                if let Some(existing) = existing {
                    // Two that were dialled at once: both ends keep the one that the lower id dialled.
                    let wanted = dialled == (own < host);
                    let twins = existing.since.elapsed() < TWINS
                        && existing.dialled != dialled
                        && !existing.closed();
                    if twins && !wanted {
                        return;
                    }
                    existing.close();
                    self.lock_links().remove(&host);
                    self.handle(Input::LinkDown(host));
                }
                let number = self.next_link;
                self.next_link += 1;
                let link = Link::start(
                    *stream,
                    (host, number, dialled),
                    Arc::clone(&self.parts.start.handler),
                    &self.events.0,
                    (&self.parts.start.tasks, &self.parts.start.stop),
                );
                self.lock_links().insert(host, link);
                self.parts.linked.notify_waiters();
                tracing::debug!(host = %host.short(), dialled, "link");
                self.handle(Input::LinkUp(host));
            }
        }
    }

    fn event(&mut self, event: Event) {
        match event {
            Event::Frame(from, bytes) => self.handle(Input::Frame { from, bytes }),
            Event::Sent(to, bytes) => self.handle(Input::Sent { to, bytes }),
            Event::Down(host, number) => {
                let current = self
                    .lock_links()
                    .get(&host)
                    .is_some_and(|link| link.number == number);
                if current {
                    self.lock_links().remove(&host);
                    tracing::debug!(host = %host.short(), "link down");
                    self.handle(Input::LinkDown(host));
                }
            }
        }
    }
}

fn key_in(bytes: &[u8]) -> Option<[u8; 32]> {
    bytes.try_into().ok()
}

fn far() -> Instant {
    Instant::now() + Duration::from_hours(1)
}

/// The next datagram; never, without a socket.
async fn receive(udp: Option<&UdpSocket>, buffer: &mut [u8]) -> Option<(usize, SocketAddr)> {
    match udp {
        None => std::future::pending().await,
        Some(udp) => match udp.recv_from(buffer).await {
            Ok((length, from)) => Some((
                length,
                SocketAddr::new(from.ip().to_canonical(), from.port()),
            )),
            // An ICMP refusal of an earlier datagram is told here; it says nothing that the probes do not.
            Err(_) => Some((0, SocketAddr::from(([0, 0, 0, 0], 0)))),
        },
    }
}
