//! Certificates that come, are renewed, survive a restart, and come from whoever lives.

use std::sync::atomic::{AtomicUsize, Ordering};

use mesh_model::{
    admin::Init,
    catalog::{HostFacts, Liveness},
    name::{HostId, Namespace, ServiceAccount},
};

use super::*;
use crate::admission::{self, Site};

const OTHER: HostId = HostId([7; 16]);

fn host(directory: &std::path::Path, leaf_ttl_secs: u64) -> Arc<Identity> {
    let site = Site {
        state_dir: directory.to_owned(),
        host_name: "h1".into(),
        addresses: Vec::new(),
        cluster: ([127, 0, 0, 1], 7947).into(),
        tunnel: ([127, 0, 0, 1], 15008).into(),
        udp: true,
    };
    let wish = Init {
        trust_domain: "demo.example".into(),
        operator: "ada".into(),
        operator_key: "00".repeat(32),
        leaf_ttl_secs,
        ..Init::default()
    };
    admission::init(site, &wish).unwrap();
    Arc::new(Identity::load(directory).unwrap())
}

fn service(identity: &Identity, name: &str) -> SpiffeId {
    SpiffeId::workload(
        identity.mesh().trust_domain.clone(),
        Namespace::default_namespace(),
        ServiceAccount::new(name).unwrap(),
    )
}

struct Room {
    certificates: Certificates,
    wanted: watch::Sender<Wanted>,
    catalog: watch::Sender<Arc<Catalog>>,
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl Room {
    fn open(identity: &Arc<Identity>, ask: Ask) -> Self {
        let (wanted, wants) = watch::channel(Wanted::default());
        let (catalog, reads) = watch::channel(Arc::new(Catalog::default()));
        let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
        let settings = Settings {
            identity: Arc::clone(identity),
            credentials: Credentials::new(),
            wanted: wants,
            catalog: reads,
            ask,
            publish: Arc::new(|_grants| Box::pin(std::future::ready(()))),
            changed: Arc::new(|| ()),
        };
        let certificates = Certificates::start(settings, &tasks, stop.clone());
        Self {
            certificates,
            wanted,
            catalog,
            stop,
            tasks,
        }
    }
    async fn close(self) {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }
}

fn nobody() -> Ask {
    Arc::new(|_host, _kind, _body| Box::pin(std::future::ready(Err("nobody is there".to_owned()))))
}

async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
    while !holds() {
        assert!(
            tokio::time::Instant::now() < deadline,
            "{what} did not happen"
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn an_authority_serves_itself_and_a_restart_serves_at_once() {
    let directory = tempfile::tempdir().unwrap();
    let identity = host(directory.path(), 3600);
    let words = service(&identity, "words");
    let room = Room::open(&identity, nobody());
    assert!(
        room.certificates
            .credentials
            .get(&identity.spiffe_id())
            .is_some(),
        "from disk"
    );
    room.wanted.send_replace(Wanted::of([words.clone()]));
    let credentials = room.certificates.credentials.clone();
    eventually("a certificate", || credentials.get(&words).is_some()).await;
    eventually("nothing missing", || room.certificates.missing().is_empty()).await;
    let (what, end) = room.certificates.first_expiry().unwrap();
    assert!(what.contains("certificate of"), "{what}");
    assert!(end <= clock::now_ms() + 3_600_000);
    room.close().await;

    let room = Room::open(&identity, nobody());
    assert!(
        room.certificates.credentials.get(&words).is_some(),
        "a restart serves at once"
    );
    // Not wanted any more: gone from memory and disk, but only once it was known to be wanted.
    let path = identity.directory().join(Credential::file_name(&words));
    assert!(path.exists());
    room.wanted.send_replace(Wanted::of([words.clone()]));
    eventually("wanted again", || {
        room.certificates
            .shared
            .wanted
            .lock()
            .unwrap()
            .contains(&words)
    })
    .await;
    room.wanted.send_replace(Wanted::default());
    let credentials = room.certificates.credentials.clone();
    eventually("removed", || {
        credentials.get(&words).is_none() && !path.exists()
    })
    .await;
    room.close().await;
}

#[tokio::test]
async fn a_certificate_past_half_of_its_life_is_renewed_and_an_ended_one_is_not_loaded() {
    let directory = tempfile::tempdir().unwrap();
    let identity = host(directory.path(), 3600);
    let old = service(&identity, "old");
    let authority = identity.authority().unwrap();
    let made = |id: &SpiffeId, ago: u64| {
        let leaf = mesh_identity::leaf::LeafRequest::new(id).unwrap();
        let (ttl, then) = (Duration::from_mins(10), clock::now_ms() - ago);
        let chain = authority.issue_leaf(leaf.csr(), id, identity.host(), ttl, then);
        leaf.finish(chain.unwrap(), identity.host()).unwrap()
    };
    let before = made(&old, 60_000);
    let end = before.not_after_ms;
    identity.store_credential(&before).unwrap();
    let room = Room::open(&identity, nobody());
    let credentials = room.certificates.credentials.clone();
    assert_eq!(credentials.get(&old).unwrap().not_after_ms, end);
    room.close().await;
    let later = Credentials::new();
    load(&identity, &later, end + 1);
    assert!(later.get(&old).is_none());

    let plan = Plan {
        due_ms: due(&before),
        failures: 0,
    };
    let (half, made) = (
        before.not_after_ms / 2 + before.made_ms() / 2,
        before.made_ms(),
    );
    assert!(
        plan.due_ms.abs_diff(half) <= (end - made) / 20 + 2,
        "{plan:?} {half}"
    );

    // As if half of its life were over.
    let mut keeper = keeper(&identity, Wanted::of([old.clone()]));
    keeper.settings.credentials.insert(old.clone(), before);
    keeper.follow();
    assert!(!keeper.due(clock::now_ms()).contains(&old));
    let now_due = keeper.due(half + (end - made) / 10);
    assert!(now_due.contains(&old));
    keeper.obtain(vec![old.clone()]).await;
    assert!(keeper.settings.credentials.get(&old).unwrap().not_after_ms > end);
}

#[test]
fn a_certificate_of_a_revoked_authority_is_replaced_at_once() {
    let directory = tempfile::tempdir().unwrap();
    let identity = host(directory.path(), 86_400);
    let made = clock::now_ms() - 60_000;
    let keys = mesh_identity::authority::AuthorityKeys::generate().unwrap();
    let request = keys.request().unwrap();
    let root = identity.root().unwrap();
    let grant = root.certify(OTHER, &request, 1, made).unwrap();
    let other =
        mesh_identity::authority::Authority::new(keys, identity.mesh().clone(), grant).unwrap();
    let words = service(&identity, "words");
    let leaf = mesh_identity::leaf::LeafRequest::new(&words).unwrap();
    let day = Duration::from_hours(24);
    let chain = other.issue_leaf(leaf.csr(), &words, identity.host(), day, made);
    let credential = leaf.finish(chain.unwrap(), identity.host()).unwrap();

    let mut known = Catalog::default();
    for (granted, due) in [(true, false), (false, true)] {
        let facts = HostFacts {
            grant: granted.then(|| Arc::new(identity.grant().clone())),
            ..HostFacts::default()
        };
        known.hosts.insert(OTHER, Arc::new(facts));
        let mut keeper = keeper(&identity, Wanted::of([words.clone()]));
        keeper.settings.catalog = watch::channel(Arc::new(known.clone())).1;
        let pem = credential.to_pem();
        let same = Credential::from_pem(&pem, "test").unwrap();
        keeper.settings.credentials.insert(words.clone(), same);
        keeper.follow();
        assert_eq!(keeper.due(clock::now_ms()).contains(&words), due);
    }
}

fn keeper(identity: &Arc<Identity>, wanted: Wanted) -> Keeper {
    let (wants, catalog) = (watch::channel(wanted).1, watch::channel(Arc::default()).1);
    let settings = Settings {
        identity: Arc::clone(identity),
        credentials: Credentials::new(),
        wanted: wants,
        catalog,
        ask: nobody(),
        publish: Arc::new(|_grants| Box::pin(std::future::ready(()))),
        changed: Arc::new(|| ()),
    };
    Keeper::new(settings, Arc::new(Shared::default()))
}

/// An ordinary host: the first one's files without its authority.
fn ordinary(identity: &Identity, directory: &std::path::Path) -> Arc<Identity> {
    let place = directory.join("identity");
    std::fs::create_dir_all(&place).unwrap();
    for entry in std::fs::read_dir(identity.directory()).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().unwrap();
        let of_authority = name.starts_with("authority") || name.starts_with("root");
        if !of_authority {
            std::fs::copy(entry.path(), place.join(name)).unwrap();
        }
    }
    Arc::new(Identity::load(directory).unwrap())
}

/// What the issuing host knows, and what the asking one does.
fn knows(identity: &Identity, authorities: &[(HostId, Liveness)]) -> Catalog {
    let mut catalog = Catalog::default();
    let facts = HostFacts {
        grant: Some(Arc::new(identity.grant().clone())),
        ..HostFacts::default()
    };
    catalog.hosts.insert(identity.host(), Arc::new(facts));
    for (host, liveness) in authorities {
        let facts = HostFacts {
            liveness: *liveness,
            ..HostFacts::default()
        };
        catalog.hosts.insert(*host, Arc::new(facts));
        let grant = mesh_model::grant::AuthorityGrant {
            host_id: host.0.to_vec(),
            ..Default::default()
        };
        catalog.authorities.push(Arc::new(grant));
    }
    catalog
}

#[tokio::test]
async fn any_living_authority_will_do() {
    let (issuer_directory, directory) =
        (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let issuer = host(issuer_directory.path(), 60);
    let identity = ordinary(&issuer, directory.path());
    assert!(!identity.is_authority());
    let words = service(&identity, "words");
    let known = Arc::new(knows(&identity, &[]));
    let (dead, calls) = (HostId([8; 16]), Arc::new(AtomicUsize::new(0)));
    let counted = Arc::clone(&calls);
    let caller = identity.host();
    let ask: Ask = Arc::new(move |host, kind, body| {
        counted.fetch_add(1, Ordering::SeqCst);
        assert_eq!(kind, ISSUE_KIND);
        let answer = if host == OTHER {
            issue(&issuer, &known, caller, body)
        } else {
            Err("connection refused".to_owned())
        };
        Box::pin(std::future::ready(answer))
    });
    let room = Room::open(&identity, ask);
    room.wanted.send_replace(Wanted::of([words.clone()]));
    eventually("a named reason", || {
        room.certificates
            .failures()
            .iter()
            .any(|(id, why)| *id == words && why.contains("no authority"))
    })
    .await;
    assert_eq!(room.certificates.missing(), std::slice::from_ref(&words));

    let living = [(dead, Liveness::Down), (OTHER, Liveness::Alive)];
    room.catalog
        .send_replace(Arc::new(knows(&identity, &living)));
    let credentials = room.certificates.credentials.clone();
    eventually("a certificate", || credentials.get(&words).is_some()).await;
    assert!(
        room.certificates
            .failures()
            .iter()
            .all(|(id, _)| *id != words)
    );
    assert_eq!(
        calls.load(Ordering::SeqCst),
        1,
        "the one that is down is asked last"
    );
    room.close().await;
}

#[test]
fn an_authority_refuses_what_the_caller_has_no_right_to() {
    let directory = tempfile::tempdir().unwrap();
    let issuer = host(directory.path(), 3600);
    let leaf = mesh_identity::leaf::LeafRequest::new(&service(&issuer, "words")).unwrap();
    let ask = |id: &SpiffeId| -> bytes::Bytes {
        use prost::Message as _;
        let csr = leaf.csr().to_vec();
        issue::LeafAsk {
            id: id.to_string(),
            csr,
        }
        .encode_to_vec()
        .into()
    };
    let known = knows(&issuer, &[]);
    let own = service(&issuer, "words");
    assert!(issue(&issuer, &known, issuer.host(), ask(&own)).is_ok());
    let stranger = issue(&issuer, &known, OTHER, ask(&own)).unwrap_err();
    assert!(stranger.contains("no grant"), "{stranger}");
    let host = SpiffeId::host(own.trust_domain.clone(), OTHER);
    let another = issue(&issuer, &known, issuer.host(), ask(&host)).unwrap_err();
    assert!(another.contains("does not cover"), "{another}");
    assert!(
        issue(
            &issuer,
            &known,
            issuer.host(),
            bytes::Bytes::from_static(b"\xff")
        )
        .is_err()
    );
}

#[test]
fn an_authority_gets_another_year_from_the_root() {
    use prost::Message as _;
    let directory = tempfile::tempdir().unwrap();
    let root = host(directory.path(), 3600);
    let mut known = knows(&root, &[]);
    let authority = root.authority().unwrap();
    let grant = root.mesh().authority(authority.signed()).unwrap();
    known.authorities.push(Arc::new(grant));
    let csr = authority.keys().request().unwrap().csr;
    let body = bytes::Bytes::from(issue::AuthorityAsk { csr }.encode_to_vec());
    let renewed = renew_authority(&root, &known, root.host(), body.clone()).unwrap();
    let renewed = mesh_model::grant::Signed::decode(renewed).unwrap();
    root.renew_authority(renewed.clone()).unwrap();
    assert_eq!(root.authority().unwrap().signed(), &renewed);
    let reloaded = Identity::load(directory.path()).unwrap();
    assert_eq!(reloaded.authority().unwrap().signed(), &renewed);
    assert_eq!(root.mesh().authority(&renewed).unwrap().grant_seq, 2);
    assert!(
        renew_authority(&root, &known, OTHER, body).is_err(),
        "a stranger becomes no authority"
    );
    // A grant for other keys is not taken.
    let keys = mesh_identity::authority::AuthorityKeys::generate().unwrap();
    let foreign = root.root().unwrap();
    let foreign = foreign
        .certify(root.host(), &keys.request().unwrap(), 3, clock::now_ms())
        .unwrap();
    assert!(root.renew_authority(foreign).is_err());
    assert_eq!(root.authority().unwrap().signed(), &renewed);
}

#[test]
fn wanted_follows_the_snapshot() {
    use mesh_model::{
        name::ServiceId,
        snapshot::{Caller, MeshView, Snapshot},
    };
    let directory = tempfile::tempdir().unwrap();
    let identity = host(directory.path(), 3600);
    let (words, simon) = (service(&identity, "words"), service(&identity, "simon"));
    let mut snapshot = Snapshot::default();
    let mut wanted = Wanted::default();
    assert!(!wanted.take(&snapshot), "an idle snapshot says nothing");
    snapshot.mesh = Some(MeshView {
        trust_domain: words.trust_domain.clone(),
        domain: "mesh.internal".into(),
        host: identity.host(),
        host_name: "h1".into(),
    });
    snapshot
        .inbound
        .identities
        .insert("words.default.demo.example".into(), words.clone());
    snapshot
        .inbound
        .identities
        .insert("own".into(), identity.spiffe_id());
    let caller = |principal: &SpiffeId| {
        Arc::new(Caller {
            service: None,
            principal: principal.clone(),
            namespace: Namespace::default_namespace(),
            label: "x".into(),
            trusted: true,
            labels: Arc::default(),
        })
    };
    snapshot
        .callers
        .by_service
        .insert(ServiceId::parse("simon").unwrap(), caller(&simon));
    assert!(wanted.take(&snapshot));
    assert_eq!(wanted, Wanted::of([words, simon]));
    assert!(!wanted.take(&snapshot));
}
