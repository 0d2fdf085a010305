//! More services than connections: what is asked of the real agent, and how long a change takes.
//!
//! `MESHD_SERVICES=2000` (with `MESHD_WATCHES`) measures at that size, a minute of idleness too, and prints figures.

use std::{
    collections::BTreeSet,
    io::Write,
    path::Path,
    time::{Duration, Instant},
};

use mesh_model::{
    endpoint::ServiceKey,
    name::{Namespace, ServiceName},
};
use mesh_registry::{
    Reading, Registry, Settings,
    contract::{ID, Setup, World, server::told},
    start_with,
};
use tokio_util::sync::CancellationToken;

use crate::agent::Agent;

/// For the first reading, and for one change.
const PATIENCE: Duration = Duration::from_mins(1);

struct Many {
    agent: Agent,
    registry: Registry,
    stop: CancellationToken,
}

/// The times until changes were published, in order.
struct Times(Vec<Duration>);

impl Times {
    fn at(&self, part: usize) -> Duration {
        let place = (self.0.len() * part / 100).min(self.0.len() - 1);
        self.0[place]
    }
}

fn set_by(variable: &str, default: u16) -> u16 {
    let set = std::env::var(variable).ok();
    set.map_or(default, |text| text.parse().unwrap())
}

fn key(service: usize) -> ServiceKey {
    ServiceKey {
        namespace: Some(Namespace::default()),
        name: ServiceName::new(&format!("s{service}")).unwrap(),
        port_name: None,
    }
}

impl Many {
    fn start(root: &Path, setup: Setup, services: usize, max_watches: u16) -> Self {
        let mut agent = Agent::start(root, setup);
        agent.max_watches = max_watches;
        agent.fill(services * 10).unwrap();
        let stop = CancellationToken::new();
        let (registry, _) = start_with(&[], None, Settings::default(), stop.clone());
        registry.need((0..services).map(key));
        let open = agent.opener();
        registry.add_restored(ID, true, None, move || open());
        Self {
            agent,
            registry,
            stop,
        }
    }

    async fn has(&self, what: &str, is: impl Fn(&mesh_registry::Published) -> bool) {
        let mut views = self.registry.views();
        let found = views.wait_for(|now| is(now));
        let found = tokio::time::timeout(PATIENCE, found).await.is_ok();
        assert!(found, "{what}: {:?}", self.reading());
    }

    async fn read(&self, services: usize) {
        let synced = |now: &mesh_registry::Published| {
            now.sources.iter().all(|row| {
                row.services >= services
                    && row.endpoints + 1 >= services * 10
                    && row.status.as_str() == "synced"
            })
        };
        self.has("all are read", synced).await;
    }

    fn reading(&self) -> Reading {
        self.registry.reading(ID)
    }

    fn requests(&self) -> u64 {
        let mut text = String::new();
        self.registry.metrics(&mut text);
        let lines = text.lines();
        let counts = lines.filter(|line| line.starts_with("mesh_registry_requests_total{"));
        counts
            .map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap())
            .sum()
    }

    /// Writes an instance of the service; the time until it is published.
    async fn change(&self, service: usize, port: u16) -> Duration {
        let body = serde_json::json!({
            "Node": "far", "Address": "10.0.0.1",
            "Service": {"ID": format!("s{service}-{port}"), "Service": format!("s{service}"),
                "Address": "10.0.0.9", "Port": port},
        });
        let admin = self.agent.admin;
        let began = Instant::now();
        let written = tokio::task::spawn_blocking(move || {
            told(admin, "PUT", "/v1/catalog/register", &[], &body.to_string());
        });
        let (name, address) = (format!("s{service}"), format!("10.0.0.9:{port}"));
        let is_there = |now: &mesh_registry::Published| {
            let mut all = now.views.values().filter(|view| view.view.service == name);
            all.any(|view| view.view.endpoints.iter().any(|one| one.address == address))
        };
        self.has("a change is seen", is_there).await;
        let took = began.elapsed();
        written.await.unwrap();
        took
    }

    /// Changes of some services out of all, one after the other.
    async fn changes(&self, services: usize, number: usize, port: u16, pause: Duration) -> Times {
        let mut times = Vec::new();
        let chosen: BTreeSet<usize> = (0..number).map(|at| at * services / number).collect();
        for service in chosen {
            times.push(self.change(service, port).await);
            tokio::time::sleep(pause).await;
        }
        times.sort_unstable();
        Times(times)
    }

    async fn end(self) {
        self.stop.cancel();
        self.registry.ended().await;
    }
}

/// Follows many services; `most` connections may be open.
pub(crate) async fn follow(root: &Path, setup: Setup, watches: u16, most: usize) {
    let measured = std::env::var_os("MESHD_SERVICES").is_some();
    let services = usize::from(set_by("MESHD_SERVICES", 240));
    let watches = set_by("MESHD_WATCHES", watches);
    let began = Instant::now();
    let many = Many::start(root, setup, services, watches);
    many.read(services).await;
    let read = began.elapsed();
    let reading = many.reading();
    let followed = services.min(watches.into());
    assert_eq!(
        (reading.watched, reading.in_turn),
        (followed, services - followed)
    );
    assert!(measured || reading.connections <= most, "{reading:?}");
    if !measured {
        many.changes(services, 6, 9_001, Duration::ZERO).await;
        return many.end().await;
    }
    // The first question of each service waits ten seconds.
    tokio::time::sleep(Duration::from_secs(15)).await;
    let before = (many.requests(), Instant::now());
    tokio::time::sleep(Duration::from_mins(1)).await;
    let requests = u32::try_from(many.requests() - before.0).unwrap_or(u32::MAX);
    let idle = f64::from(requests) / before.1.elapsed().as_secs_f64();
    let first = many
        .changes(services, 10, 9_001, Duration::from_secs(12))
        .await;
    let again = many
        .changes(services, 10, 9_002, Duration::from_millis(100))
        .await;
    // Others, each called for the first time at the moment at which it changes for the first time.
    let mut called = Vec::new();
    for at in 0..10 {
        let service = at * services / 10 + services / 20;
        many.registry.calls([key(service)]);
        called.push(many.change(service, 9_003).await);
        tokio::time::sleep(Duration::from_secs(12)).await;
    }
    called.sort_unstable();
    let called = Times(called);
    let told = writeln!(
        std::io::stderr(),
        "{setup:?} {services} services, {watches} watches: {:?}, {read:.1?} to fill and read, idle {idle:.2}/s, \
         first change p50 {:.1?} p99 {:.1?}, second change p50 {:.1?} p99 {:.1?}, \
         first change of what is called then p50 {:.1?} p99 {:.1?}, {} requests in all",
        many.reading(),
        first.at(50),
        first.at(99),
        again.at(50),
        again.at(99),
        called.at(50),
        called.at(99),
        many.requests(),
    );
    told.unwrap();
    many.end().await;
}
