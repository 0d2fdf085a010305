//! Hosts that make a mesh and join it over loopback, and every way in which that is refused.

use std::{net::Ipv4Addr, sync::Arc, time::Duration};

use mesh_gossip::Grant;
use mesh_identity::{
    Credentials,
    authority::root_certificate,
    key::Ed25519Key,
    tls::{HostTrust, cluster_server},
    token::Token,
};
use mesh_model::{
    admin::{AddOperator, CreateToken, Init, Join, JoinStep},
    cause,
    grant::HostGrant,
    name::HostId,
};
use prost::Message as _;
use tempfile::TempDir;
use tokio::{
    net::{TcpListener, UdpSocket},
    sync::mpsc,
};
use tokio_rustls::TlsAcceptor;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    create::InitError,
    join::{JoinError, Joined, Told},
    machine::Machine,
    recover::RecoverError,
    tokens::TokenFailure,
    *,
};
use crate::{certificates, clock};

/// An address and ports of this test alone.
struct Place {
    site: Site,
    _directory: TempDir,
}

impl Place {
    fn new(name: &str) -> Self {
        let ip = Ipv4Addr::new(
            127,
            fastrand::u8(1..255),
            fastrand::u8(..),
            fastrand::u8(1..255),
        );
        let free = || std::net::TcpListener::bind((ip, 0)).unwrap();
        let (cluster, tunnel) = (free(), free());
        let directory = tempfile::tempdir().unwrap();
        let site = Site {
            state_dir: directory.path().to_owned(),
            host_name: name.to_owned(),
            addresses: vec![ip.into()],
            cluster: cluster.local_addr().unwrap(),
            tunnel: tunnel.local_addr().unwrap(),
            udp: true,
        };
        Self {
            site,
            _directory: directory,
        }
    }
    fn identity(&self) -> Identity {
        Identity::open(&identity::directory(&self.site.state_dir), &machine()).unwrap()
    }
}

/// A port that is free at every address, and that nobody gets who asks for any (those are above 32767).
fn everywhere_free() -> u16 {
    let is_free = |port: &u16| {
        let place = (Ipv4Addr::UNSPECIFIED, *port);
        std::net::TcpListener::bind(place).is_ok() && std::net::UdpSocket::bind(place).is_ok()
    };
    std::iter::repeat_with(|| fastrand::u16(20_000..32_000))
        .take(1000)
        .find(is_free)
        .unwrap()
}

fn machine() -> Machine {
    Machine::of("the machine of the tests")
}

fn wish() -> Init {
    Init {
        mesh_name: "demo".into(),
        trust_domain: "demo.example".into(),
        operator: "ada".into(),
        operator_key: data_encoding::HEXLOWER.encode(&Ed25519Key::generate().unwrap().public()),
        ..Init::default()
    }
}

/// A host that is in a mesh and lets others in.
struct Running {
    place: Place,
    identity: Arc<Identity>,
    tokens: Arc<Tokens>,
    server: JoinServer,
    /// What was made known.
    grants: Arc<std::sync::Mutex<Vec<Grant>>>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

/// What a host's firewall lets in.
#[derive(Clone, Copy)]
struct Open {
    udp: bool,
    tunnel: bool,
}

const ALL: Open = Open {
    udp: true,
    tunnel: true,
};

impl Running {
    /// Makes a mesh.
    async fn first(open: Open) -> Self {
        let place = Place::new("h1");
        create::init_at(&place.site, &wish(), &machine(), clock::now_ms()).unwrap();
        Self::run(place, open).await
    }
    async fn run(place: Place, open: Open) -> Self {
        let identity = Arc::new(place.identity());
        let tokens = Arc::new(Tokens::open(Arc::clone(&identity), &place.site).unwrap());
        let probes = Probes::default();
        let server = JoinServer::new(
            Arc::clone(&identity),
            Arc::clone(&tokens),
            probes.clone(),
            place.site.clone(),
        );
        let grants = Arc::new(std::sync::Mutex::new(identity.grants()));
        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        let running = Self {
            place,
            identity,
            tokens,
            server,
            grants,
            tasks,
            stop,
        };
        running.listen(open, probes).await;
        running
    }
    /// Connects it to a host that it can pass requests on to.
    fn reach(&self, issuer: Option<&Self>) -> Reach {
        let (known, published) = (Arc::clone(&self.grants), Arc::clone(&self.grants));
        let of = Arc::clone(&self.grants);
        let issuer = issuer.map(|issuer| issuer.server.clone());
        Reach {
            grants: Arc::new(move || {
                let known = known.lock().unwrap().clone();
                Box::pin(std::future::ready(known))
            }),
            publish: Arc::new(move |grants| {
                published.lock().unwrap().extend(grants);
                Box::pin(std::future::ready(()))
            }),
            grant_of: Arc::new(move |host| {
                let of = of.lock().unwrap();
                let decoded = of.iter().filter_map(|grant| match grant {
                    Grant::Host(signed) => HostGrant::decode(&*signed.payload).ok(),
                    _ => None,
                });
                decoded.rev().find(|grant| grant.host() == Some(host))
            }),
            call: Arc::new(move |_host, kind, body| {
                assert_eq!(kind, RELAY_KIND);
                let issuer = issuer.clone();
                Box::pin(async move {
                    match issuer {
                        Some(issuer) => issuer.relayed(body).await,
                        None => Err("nobody is there".to_owned()),
                    }
                })
            }),
        }
    }
    async fn listen(&self, open: Open, probes: Probes) {
        let credentials = Credentials::new();
        certificates::load(&self.identity, &credentials, clock::now_ms());
        let mesh = self.identity.mesh();
        let trust = HostTrust {
            trust_domain: mesh.trust_domain.clone(),
            roots: vec![root_certificate(mesh)],
            admits: Arc::new(|_| true),
        };
        let config = cluster_server(credentials, &self.identity.spiffe_id(), trust);
        let listener = TcpListener::bind(self.place.site.cluster).await.unwrap();
        let (server, acceptor) = (self.server.clone(), TlsAcceptor::from(config));
        let stop = self.stop.clone();
        self.tasks.spawn(stop.run_until_cancelled_owned(async move {
            loop {
                let (stream, peer) = listener.accept().await.unwrap();
                if let Ok(stream) = acceptor.accept(stream).await {
                    assert!(stream.get_ref().1.peer_certificates().is_none());
                    server.serve(stream, peer).await;
                }
            }
        }));
        if open.udp {
            let socket = UdpSocket::bind(self.place.site.cluster).await.unwrap();
            let stop = self.stop.clone();
            self.tasks.spawn(stop.run_until_cancelled_owned(async move {
                let mut buffer = [0; 100];
                loop {
                    let (length, from) = socket.recv_from(&mut buffer).await.unwrap();
                    if let Some(echo) = probes.echo(&buffer[..length]) {
                        socket.send_to(echo, from).await.unwrap();
                    }
                }
            }));
        }
        if open.tunnel {
            let listener = TcpListener::bind(self.place.site.tunnel).await.unwrap();
            let stop = self.stop.clone();
            self.tasks.spawn(stop.run_until_cancelled_owned(async move {
                loop {
                    drop(listener.accept().await);
                }
            }));
        }
    }
    fn token(&self, change: impl FnOnce(&mut CreateToken)) -> String {
        let mut wish = CreateToken::default();
        change(&mut wish);
        self.tokens.create(&wish).unwrap().token
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

async fn join_as(
    place: &Place,
    machine: &Machine,
    token: &str,
    fresh: bool,
) -> (Result<Joined, JoinError>, Vec<JoinStep>) {
    let (sender, mut receiver) = mpsc::channel(100);
    let request = Join {
        token: token.to_owned(),
        fresh,
    };
    let joined = Box::pin(join::join_at(
        &place.site,
        &request,
        machine,
        &Told::to(sender),
    ))
    .await;
    let mut steps = Vec::new();
    while let Ok(step) = receiver.try_recv() {
        steps.push(step);
    }
    (joined, steps)
}

async fn join_with(place: &Place, token: &str) -> (Result<Joined, JoinError>, Vec<JoinStep>) {
    join_as(place, &machine(), token, false).await
}

/// The code of a refusal after which nothing is on disk.
async fn refused(place: &Place, token: &str) -> (String, String) {
    let error = join_with(place, token).await.0.unwrap_err();
    assert!(
        !exists(&place.site.state_dir),
        "something was written: {error}"
    );
    assert!(!error.remedy().is_empty());
    (error.code().to_owned(), cause::chain(&error))
}

fn warnings(steps: &[JoinStep]) -> Vec<&str> {
    assert!(
        steps
            .iter()
            .all(|step| step.state == "ok" || !step.remedy.is_empty()),
        "{steps:?}"
    );
    steps
        .iter()
        .filter(|step| step.state == "warning")
        .map(|step| step.what.as_str())
        .collect()
}

#[test]
fn a_mesh_is_made_once_and_every_file_is_private() {
    use std::os::unix::fs::PermissionsExt;
    let place = Place::new("h1");
    let made = init(place.site.clone(), &wish());
    let made = made.unwrap();
    let directory = identity::directory(&place.site.state_dir);
    for entry in std::fs::read_dir(&directory).unwrap() {
        let entry = entry.unwrap();
        assert_eq!(
            entry.metadata().unwrap().permissions().mode() & 0o777,
            0o600,
            "{entry:?}"
        );
    }
    assert!(matches!(
        init(place.site.clone(), &wish()),
        Err(InitError::Present)
    ));
    let identity = Identity::load(&place.site.state_dir).unwrap();
    assert_eq!(identity.host().to_string(), made.answer.host_id);
    assert_eq!(identity.mesh().id.to_string(), made.answer.mesh_id);
    assert_eq!(identity.mesh().genesis.domain, "mesh.internal");
    assert_eq!(identity.mesh().genesis.leaf_ttl_secs, 86_400);
    assert!(identity.is_authority() && identity.is_root());
    assert!(
        identity
            .grants()
            .contains(&Grant::Operator(made.operator_grant))
    );
    let credentials = Credentials::new();
    certificates::load(&identity, &credentials, clock::now_ms());
    assert!(
        credentials.get(&identity.spiffe_id()).is_some(),
        "it serves at once"
    );
}

#[test]
fn impossible_wishes_change_nothing() {
    let place = Place::new("h1");
    for change in [
        (|wish: &mut Init| wish.trust_domain = "No".into()) as fn(&mut Init),
        |wish| wish.operator_key = "xyz".into(),
        |wish| wish.operator = String::new(),
        |wish| wish.leaf_ttl_secs = 5,
        |wish| wish.domain = "a b".into(),
    ] {
        let mut wish = wish();
        change(&mut wish);
        assert!(init(place.site.clone(), &wish).is_err());
        assert!(!exists(&place.site.state_dir));
    }
}

#[test]
fn a_copied_directory_is_noticed() {
    let place = Place::new("h1");
    create::init_at(&place.site, &wish(), &machine(), clock::now_ms()).unwrap();
    let directory = identity::directory(&place.site.state_dir);
    assert!(Identity::open(&directory, &machine()).is_ok());
    let elsewhere = Identity::open(&directory, &Machine::of("another")).unwrap_err();
    assert!(elsewhere.to_string().contains("--fresh"), "{elsewhere}");
}

#[test]
fn damaged_and_mixed_files_are_refused() {
    let (place, other) = (Place::new("h1"), Place::new("h2"));
    for place in [&place, &other] {
        create::init_at(&place.site, &wish(), &machine(), clock::now_ms()).unwrap();
    }
    let directory = identity::directory(&place.site.state_dir);
    let foreign = identity::directory(&other.site.state_dir);
    for name in identity::BACKED_UP
        .iter()
        .filter(|name| **name != identity::TOKENS)
    {
        let path = directory.join(name);
        let good = std::fs::read(&path).unwrap();
        if *name != identity::SEEDS {
            std::fs::copy(foreign.join(name), &path).unwrap();
            assert!(
                Identity::open(&directory, &machine()).is_err(),
                "{name} of another mesh"
            );
            std::fs::write(&path, b"\xff\xff").unwrap();
            assert!(
                Identity::open(&directory, &machine()).is_err(),
                "{name} damaged"
            );
        }
        std::fs::write(&path, &good).unwrap();
    }
    Identity::open(&directory, &machine()).unwrap();
}

#[test]
fn an_authority_is_backed_up_and_restored() {
    let (place, elsewhere) = (Place::new("h1"), Place::new("h2"));
    init(place.site.clone(), &wish()).unwrap();
    let identity = Arc::new(Identity::load(&place.site.state_dir).unwrap());
    Tokens::open(Arc::clone(&identity), &place.site)
        .unwrap()
        .create(&CreateToken::default())
        .unwrap();
    let backup = identity.backup().unwrap();
    assert!(
        backup
            .files
            .iter()
            .all(|(name, _)| name != "machine" && !name.contains(".pem"))
    );

    restore(&elsewhere.site.state_dir, &backup).unwrap();
    let restored = Identity::load(&elsewhere.site.state_dir).unwrap();
    assert_eq!(restored.host(), identity.host());
    assert!(restored.is_authority() && restored.is_root());
    let again = restore(&elsewhere.site.state_dir, &backup);
    assert!(matches!(again, Err(RestoreError::Present(_))));

    // Parts that do not make an authority leave nothing behind.
    let empty = Place::new("h3");
    for missing in [
        identity::AUTHORITY_GRANT,
        identity::HOST_KEY,
        identity::GENESIS,
    ] {
        let mut partial = backup.clone();
        partial.files.retain(|(name, _)| name != missing);
        assert!(
            restore(&empty.site.state_dir, &partial).is_err(),
            "{missing}"
        );
        assert_eq!(
            std::fs::read_dir(&empty.site.state_dir).unwrap().count(),
            0,
            "{missing}"
        );
    }
    forget(&place.site.state_dir).unwrap();
    assert!(!exists(&place.site.state_dir));
}

#[test]
fn operators_are_certified_by_authorities() {
    let place = Place::new("h1");
    init(place.site.clone(), &wish()).unwrap();
    let identity = Identity::load(&place.site.state_dir).unwrap();
    let key = data_encoding::HEXLOWER.encode(&Ed25519Key::generate().unwrap().public());
    let request = AddOperator {
        name: "bob".into(),
        key,
        ..AddOperator::default()
    };
    let now_ms = clock::now_ms();
    let signed = identity.certify_operator(&request, now_ms).unwrap();
    let authorities = identity::authorities(identity.mesh(), &identity.grants());
    let grant = identity.mesh().operator(&signed, &authorities).unwrap();
    assert_eq!(
        (grant.name.as_str(), &grant.namespaces[..]),
        ("bob", &["*".to_owned()][..])
    );
    let year = 365 * 86_400_000;
    assert!((now_ms + year - 1000..=now_ms + year).contains(&grant.not_after_ms));
    let bad = AddOperator {
        key: "00".into(),
        ..request
    };
    assert!(identity.certify_operator(&bad, now_ms).is_err());
}

#[tokio::test]
async fn a_host_joins_and_needs_no_token_afterwards() {
    let first = Running::first(ALL).await;
    first.server.connect(first.reach(None));
    let place = Place::new("h2");
    let token = first.token(|wish| wish.services = vec!["shop/*".into()]);
    let (joined, steps) = join_with(&place, &token).await;
    let joined = joined.unwrap();
    assert!(warnings(&steps).is_empty(), "{steps:?}");
    for part in [
        "TCP",
        "UDP",
        "to h1",
        "from h1",
        "clocks agree",
        "admitted to mesh demo",
    ] {
        assert!(
            steps.iter().any(|step| step.what.contains(part)),
            "{part}: {steps:?}"
        );
    }
    let identity = place.identity();
    assert_eq!(
        (identity.host(), identity.mesh().id),
        (joined.host, first.identity.mesh().id)
    );
    assert!(!identity.is_authority() && !joined.replaced);
    assert_eq!(identity.grant().may_register, ["shop/*"]);
    assert_eq!(identity.seeds(), [first.place.site.cluster.to_string()]);
    let knows = |grant: &Grant| matches!(grant, Grant::Operator(_));
    assert!(
        identity.grants().iter().any(knows),
        "it comes with every grant"
    );
    let told = first.grants.lock().unwrap().clone();
    assert!(
        told.iter()
            .any(|grant| identity.grants().contains(grant) && matches!(grant, Grant::Host(_)))
    );
    let credentials = Credentials::new();
    certificates::load(&identity, &credentials, clock::now_ms());
    assert!(credentials.get(&identity.spiffe_id()).is_some());
    // A host that is in stays in.
    assert_eq!(
        join_with(&place, &token).await.0.unwrap_err().code(),
        "already-joined"
    );
    // The daemon's ports are free again.
    TcpListener::bind(place.site.cluster).await.unwrap();
    UdpSocket::bind(place.site.cluster).await.unwrap();
    TcpListener::bind(place.site.tunnel).await.unwrap();
}

#[tokio::test]
async fn an_authority_token_makes_an_authority_whose_tokens_work() {
    let first = Running::first(ALL).await;
    first.server.connect(first.reach(None));
    let second = Place::new("h2");
    let token = first.token(|wish| wish.authority = true);
    join_with(&second, &token).await.0.unwrap();
    let second = Running::run(second, ALL).await;
    second.server.connect(second.reach(None));
    assert!(second.identity.is_authority() && !second.identity.is_root());
    assert!(second.identity.backup().is_ok());

    let wish = CreateToken {
        authority: true,
        ..CreateToken::default()
    };
    let failure = second.tokens.create(&wish).unwrap_err();
    assert!(matches!(failure, TokenFailure::NoRoot) && !failure.remedy().is_empty());

    let third = Place::new("h3");
    let token = second.token(|_| ());
    join_with(&third, &token).await.0.unwrap();
    assert_eq!(third.identity().mesh().id, first.identity.mesh().id);
    let ordinary = Arc::new(third.identity());
    let tokens = Tokens::open(Arc::clone(&ordinary), &third.site).unwrap();
    assert!(matches!(
        tokens.create(&CreateToken::default()),
        Err(TokenFailure::NotHere)
    ));
    assert!(ordinary.backup().is_err());
}

#[tokio::test]
async fn wrong_used_and_expired_tokens_say_so_and_change_nothing() {
    let first = Running::first(ALL).await;
    first.server.connect(first.reach(None));
    let good = first.token(|_| ());
    let joiner = Place::new("h2");
    join_with(&joiner, &good).await.0.unwrap();
    let place = Place::new("h3");
    let (code, what) = refused(&place, &good).await;
    assert_eq!(code, "token-used");
    assert!(what.contains("used"), "{what}");

    let mut other = Token::parse(&first.token(|_| ())).unwrap();
    other.secret = mesh_identity::token::Secret::generate().unwrap();
    assert_eq!(refused(&place, &other.to_text()).await.0, "token-wrong");
    other.token_id = [0; 8];
    assert_eq!(refused(&place, &other.to_text()).await.0, "token-wrong");
    assert_eq!(refused(&place, "meshd1.AAAA").await.0, "token-wrong");
    assert_eq!(refused(&place, "hello").await.0, "token-wrong");

    let past = clock::now_ms() - 7_200_000;
    let old = first
        .tokens
        .create_at(&CreateToken::default(), past)
        .unwrap()
        .token;
    let (code, what) = refused(&place, &old).await;
    assert_eq!(code, "token-expired");
    assert!(what.contains("expired 3"), "{what}");
}

#[tokio::test]
async fn a_token_for_three_hosts_lets_three_in_also_after_a_restart() {
    let first = Running::first(ALL).await;
    first.server.connect(first.reach(None));
    let token = first.token(|wish| wish.uses = 3);
    let places = [
        Place::new("h2"),
        Place::new("h3"),
        Place::new("h4"),
        Place::new("h5"),
    ];
    join_with(&places[0], &token).await.0.unwrap();
    join_with(&places[1], &token).await.0.unwrap();
    assert_eq!(first.tokens.list(clock::now_ms())[0].uses, (2, 3));
    let reopened = Tokens::open(Arc::clone(&first.identity), &first.place.site).unwrap();
    assert_eq!(
        reopened.list(clock::now_ms())[0].uses,
        (2, 3),
        "uses are on disk"
    );
    join_with(&places[2], &token).await.0.unwrap();
    assert_eq!(refused(&places[3], &token).await.0, "token-used");
    assert!(
        first.tokens.list(clock::now_ms()).is_empty(),
        "a used token is not listed"
    );
}

#[test]
fn a_use_is_counted_once_for_a_host_that_tries_again() {
    let place = Place::new("h1");
    init(place.site.clone(), &wish()).unwrap();
    let identity = Arc::new(Identity::load(&place.site.state_dir).unwrap());
    let tokens = Tokens::open(identity, &place.site).unwrap();
    let token = Token::parse(&tokens.create(&CreateToken::default()).unwrap().token).unwrap();
    let now_ms = clock::now_ms();
    let spend = |host: u8| tokens.spend(&token.token_id, |_| true, HostId([host; 16]), now_ms);
    assert!(spend(1).is_ok());
    assert!(spend(1).is_ok());
    assert_eq!(spend(2), Err(tokens::Refused::Used(1)));
    let stored = std::fs::read_to_string(place.site.state_dir.join("identity/tokens")).unwrap();
    assert!(!stored.contains(token.to_text().as_str()));
}

#[test]
fn tokens_have_bounds() {
    let place = Place::new("h1");
    init(place.site.clone(), &wish()).unwrap();
    let identity = Arc::new(Identity::load(&place.site.state_dir).unwrap());
    let tokens = Tokens::open(Arc::clone(&identity), &place.site).unwrap();
    let refused = |change: fn(&mut CreateToken)| {
        let mut wish = CreateToken::default();
        change(&mut wish);
        tokens.create(&wish).unwrap_err()
    };
    assert!(matches!(
        refused(|wish| wish.ttl_secs = 700_000),
        TokenFailure::Ttl(_)
    ));
    assert!(matches!(
        refused(|wish| wish.uses = 5000),
        TokenFailure::Uses(_)
    ));
    let bad = refused(|wish| wish.services = vec!["a/b/c".into()]);
    assert!(matches!(bad, TokenFailure::Service(_)));
    let nowhere = Site {
        addresses: Vec::new(),
        cluster: "0.0.0.0:7947".parse().unwrap(),
        ..place.site.clone()
    };
    let tokens = Tokens::open(identity, &nowhere).unwrap();
    assert!(matches!(
        tokens.create(&CreateToken::default()),
        Err(TokenFailure::NoAddress)
    ));
}

#[tokio::test]
async fn a_token_of_another_authority_is_passed_on() {
    let first = Running::first(ALL).await;
    first.server.connect(first.reach(None));
    let second = Place::new("h2");
    join_with(&second, &first.token(|_| ())).await.0.unwrap();
    let second = Running::run(second, ALL).await;
    second.server.connect(second.reach(Some(&first)));
    let through = |text: &str| {
        let mut token = Token::parse(text).unwrap();
        token.seeds = vec![second.place.site.cluster.to_string()];
        token.to_text().to_string()
    };
    let token = first.token(|_| ());
    let third = Place::new("h3");
    let (joined, steps) = join_with(&third, &through(&token)).await;
    joined.unwrap();
    assert!(
        steps.iter().any(|step| step.what.contains("to h2")),
        "{steps:?}"
    );
    assert_eq!(
        first.tokens.list(clock::now_ms()).len(),
        0,
        "counted where it was made"
    );
    assert_eq!(
        refused(&Place::new("h4"), &through(&token)).await.0,
        "token-used"
    );
}

#[tokio::test]
async fn an_issuer_that_is_gone_is_named() {
    let first = Running::first(ALL).await;
    first.server.connect(first.reach(None));
    let second = Place::new("h2");
    join_with(&second, &first.token(|_| ())).await.0.unwrap();
    let second = Running::run(second, ALL).await;
    second.server.connect(second.reach(None));
    let mut token = Token::parse(&first.token(|_| ())).unwrap();
    token.seeds = vec![second.place.site.cluster.to_string()];
    let (code, what) = refused(&Place::new("h3"), &token.to_text()).await;
    assert_eq!(code, "issuer-unreachable");
    assert!(what.contains(&first.identity.host().short()), "{what}");
}

#[tokio::test]
async fn missing_ports_are_named_and_do_not_stop_a_join() {
    let first = Running::first(Open {
        udp: false,
        tunnel: false,
    })
    .await;
    first.server.connect(first.reach(None));
    let place = Place::new("h2");
    let (joined, steps) = join_with(&place, &first.token(|_| ())).await;
    joined.unwrap();
    let (site, missing) = (&first.place.site, warnings(&steps));
    let udp = format!("UDP {} to h1", site.cluster.port());
    let tunnel = format!("TCP {} to h1", site.tunnel.port());
    assert_eq!(missing.len(), 2, "{missing:?}");
    assert!(
        missing[0].starts_with(&udp) && missing[1].starts_with(&tunnel),
        "{missing:?}"
    );

    // The other direction: the joiner says that it is reached at an address where nobody listens.
    let mut place = Place::new("h3");
    let tunnel = place.site.tunnel.port();
    place.site.cluster = (Ipv4Addr::UNSPECIFIED, everywhere_free()).into();
    place.site.addresses = vec!["127.0.0.1".parse().unwrap()];
    place.site.tunnel = (Ipv4Addr::new(127, 99, 99, 99), tunnel).into();
    let (joined, steps) = join_with(&place, &first.token(|_| ())).await;
    joined.unwrap();
    let missing = warnings(&steps);
    let inward = format!("TCP {tunnel} from h1 to this host (127.0.0.1)");
    assert!(
        missing.iter().any(|what| what.starts_with(&inward)),
        "{missing:?}"
    );
}

#[tokio::test]
async fn a_port_that_is_taken_ends_the_join_before_the_token_is_used() {
    let first = Running::first(ALL).await;
    first.server.connect(first.reach(None));
    let (place, token) = (Place::new("h2"), first.token(|_| ()));
    let held = TcpListener::bind(place.site.tunnel).await.unwrap();
    let (code, what) = refused(&place, &token).await;
    assert_eq!(code, "port-in-use");
    assert!(what.contains(&place.site.tunnel.to_string()), "{what}");
    drop(held);
    join_with(&place, &token).await.0.unwrap();
}

#[tokio::test]
async fn nobody_there_and_somebody_else_there() {
    let (first, other) = (Running::first(ALL).await, Running::first(ALL).await);
    other.server.connect(other.reach(None));
    let mut token = Token::parse(&first.token(|_| ())).unwrap();
    token.seeds = vec![other.place.site.cluster.to_string()];
    assert_eq!(
        refused(&Place::new("h2"), &token.to_text()).await.0,
        "wrong-mesh"
    );
    let nobody = Place::new("nobody").site.cluster.to_string();
    token.seeds = vec![nobody.clone(), "no.such.host.invalid:1".into()];
    let (code, what) = refused(&Place::new("h2"), &token.to_text()).await;
    assert_eq!(code, "seeds-unreachable");
    assert!(
        what.contains(&nobody) && what.contains("no.such.host"),
        "{what}"
    );
    // A host that is still starting asks to come again.
    let (code, _) = refused(&Place::new("h2"), &first.token(|_| ())).await;
    assert_eq!(code, "starting");
}

#[tokio::test]
async fn a_copied_state_directory_joins_afresh_only_when_told_to() {
    let first = Running::first(ALL).await;
    first.server.connect(first.reach(None));
    let place = Place::new("h2");
    let before = join_with(&place, &first.token(|_| ())).await.0.unwrap();
    let elsewhere = Machine::of("another machine");
    let token = first.token(|_| ());
    let refused = join_as(&place, &elsewhere, &token, false)
        .await
        .0
        .unwrap_err();
    assert_eq!(refused.code(), "copied-state");
    // A fresh join that fails keeps what was there.
    assert!(
        join_as(&place, &elsewhere, "meshd1.AAAA", true)
            .await
            .0
            .is_err()
    );
    assert_eq!(place.identity().host(), before.host);
    let after = join_as(&place, &elsewhere, &token, true).await.0.unwrap();
    assert!(after.replaced && after.host != before.host);
    let directory = identity::directory(&place.site.state_dir);
    assert!(Identity::open(&directory, &elsewhere).is_ok());
    assert_eq!(std::fs::read_dir(&place.site.state_dir).unwrap().count(), 1);
}

#[tokio::test]
async fn a_host_whose_certificate_ended_recovers_by_its_key() {
    let first = Running::first(ALL).await;
    first.server.connect(first.reach(None));
    let place = Place::new("h2");
    join_with(&place, &first.token(|_| ())).await.0.unwrap();
    let identity = place.identity();
    let credential = recover(&identity, first.place.site.cluster).await.unwrap();
    assert_eq!(credential.id(), &identity.spiffe_id());
    // Somebody who was never let in does not get one.
    first.grants.lock().unwrap().retain(|grant| {
        let Grant::Host(signed) = grant else {
            return true;
        };
        let grant = HostGrant::decode(&*signed.payload).unwrap();
        grant.host() != Some(identity.host())
    });
    let refused = recover(&identity, first.place.site.cluster)
        .await
        .unwrap_err();
    assert!(matches!(refused, RecoverError::Refused(_)), "{refused}");
}

#[tokio::test]
async fn strangers_cannot_keep_a_host_busy() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let first = Running::first(ALL).await;
    first.server.connect(first.reach(None));
    let token = Token::parse(&first.token(|_| ())).unwrap();
    for bytes in [&[0xff_u8; 8][..], &[0, 0, 0, 3, 1, 2, 3], &[0, 0, 0, 0]] {
        let stream = tokio::net::TcpStream::connect(first.place.site.cluster)
            .await
            .unwrap();
        let connector =
            tokio_rustls::TlsConnector::from(mesh_identity::tls::join_client(token.root_sha256));
        let name = rustls_pki_types::ServerName::from(first.place.site.cluster.ip());
        let mut stream = connector.connect(name, stream).await.unwrap();
        stream.write_all(bytes).await.unwrap();
        stream.shutdown().await.unwrap();
        let mut answer = Vec::new();
        let ended = tokio::time::timeout(Duration::from_secs(5), stream.read_to_end(&mut answer));
        assert!(ended.await.is_ok(), "the server does not wait");
    }
    join_with(&Place::new("h2"), &token.to_text())
        .await
        .0
        .unwrap();
}
