//! Instances are kept announced in a registry in memory that forgets, refuses and expires.

use std::{
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant,
};

use mesh_model::name::{Namespace, ServiceName};
use tokio_util::sync::CancellationToken;

use super::*;

pub(crate) fn registration(port: u16) -> Registration {
    let service = ServiceId::new(Namespace::default(), ServiceName::new("web").unwrap());
    Registration {
        id: Registration::id_of("h1.example", &service, port),
        service,
        address: SocketAddr::from(([192, 0, 2, 7], port)),
        protocol: AppProtocol::default(),
        weight: 1,
        locality: Locality::default(),
        labels: BTreeMap::new(),
    }
}

fn wanted(port: u16, health: Health) -> Announced {
    Announced {
        registration: registration(port),
        health,
        draining: false,
    }
}

/// The instance, its health, and whether it is out of use.
type Known = (Arc<Registration>, Health, bool);

#[derive(Default)]
struct Memory {
    known: Mutex<BTreeMap<String, Known>>,
    refuses: AtomicBool,
}

impl Memory {
    fn refused(&self) -> Result<(), SourceError> {
        if self.refuses.load(Ordering::SeqCst) {
            return Err(SourceError::Auth("memory".into()));
        }
        Ok(())
    }
    fn of(&self, port: u16) -> Option<(Health, bool)> {
        let known = self.known.lock().unwrap();
        let (_, health, drained) = known.get(&registration(port).id)?;
        Some((*health, *drained))
    }
}

#[async_trait]
impl Registrar for Memory {
    fn life(&self) -> Duration {
        Duration::from_millis(600)
    }
    async fn register(&self, of: &Arc<Registration>, health: Health) -> Result<Lease, SourceError> {
        self.refused()?;
        let mut known = self.known.lock().unwrap();
        known.insert(of.id.clone(), (Arc::clone(of), health, false));
        Ok(Lease {
            of: Arc::clone(of),
            mark: String::new(),
        })
    }
    async fn renew(&self, lease: &Lease, health: Health) -> Result<Renewal, SourceError> {
        self.refused()?;
        let mut known = self.known.lock().unwrap();
        match known.get_mut(&lease.of.id) {
            Some(one) => {
                one.1 = health;
                Ok(Renewal::Kept)
            }
            None => Ok(Renewal::Lost),
        }
    }
    async fn drain(&self, lease: &Lease) -> Result<(), SourceError> {
        self.refused()?;
        let mut known = self.known.lock().unwrap();
        if let Some(one) = known.get_mut(&lease.of.id) {
            one.2 = true;
        }
        Ok(())
    }
    async fn deregister(&self, lease: Lease) -> Result<(), SourceError> {
        self.refused()?;
        self.known.lock().unwrap().remove(&lease.of.id);
        Ok(())
    }
}

async fn until(law: &str, holds: impl Fn() -> bool) {
    let end = Instant::now() + Duration::from_secs(20);
    while !holds() {
        assert!(Instant::now() < end, "{law}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[test]
fn ids_are_plain_and_apart() {
    let service = |namespace: &str| {
        ServiceId::new(
            Namespace::new(namespace).unwrap(),
            ServiceName::new("web").unwrap(),
        )
    };
    assert_eq!(
        Registration::id_of("h1.example", &service("default"), 80),
        "h1-example-web-80"
    );
    assert_eq!(
        Registration::id_of("h1", &service("shop"), 80),
        "h1-shop-web-80"
    );
}

#[tokio::test]
async fn instances_are_kept_announced() {
    let memory = Arc::new(Memory::default());
    let stop = CancellationToken::new();
    let mut announcer = Announcer::new("memory/1", Arc::clone(&memory) as _, stop.clone());
    announcer.want(&[wanted(1, Health::Healthy), wanted(2, Health::Unhealthy)]);
    until("both are registered with their health", || {
        memory.of(1) == Some((Health::Healthy, false))
            && memory.of(2) == Some((Health::Unhealthy, false))
    })
    .await;
    announcer.want(&[wanted(1, Health::Healthy), wanted(2, Health::Healthy)]);
    until("health is passed on", || {
        memory.of(2) == Some((Health::Healthy, false))
    })
    .await;
    memory.known.lock().unwrap().clear();
    until("what was lost is registered again", || {
        memory.of(1).is_some() && memory.of(2).is_some()
    })
    .await;
    memory.refuses.store(true, Ordering::SeqCst);
    until("a refusal is told", || {
        announcer.rows().iter().all(|row| row.error.is_some())
    })
    .await;
    memory.known.lock().unwrap().clear();
    memory.refuses.store(false, Ordering::SeqCst);
    until("and tried again", || {
        let rows = announcer.rows();
        rows.len() == 2 && rows.iter().all(|row| row.registered) && memory.of(1).is_some()
    })
    .await;
    let mut other = wanted(1, Health::Healthy);
    other.registration.weight = 9;
    announcer.want(&[other.clone(), wanted(2, Health::Healthy)]);
    until("a changed instance replaces the old one", || {
        let known = memory.known.lock().unwrap();
        known[&other.registration.id].0.weight == 9
    })
    .await;
    announcer.want(&[other.clone()]);
    until("what is not wanted goes", || memory.of(2).is_none()).await;
    other.draining = true;
    announcer.want(&[other]);
    until("it is out of use", || {
        memory.of(1).is_some_and(|(_, drained)| drained)
    })
    .await;
    announcer.end(Duration::from_secs(5)).await;
    assert!(
        memory.known.lock().unwrap().is_empty(),
        "and then it is gone"
    );
}
