//! Handshakes in memory: our own peers, foreign peers, wrong peers, links and joins.

use std::time::{SystemTime, UNIX_EPOCH};

use mesh_model::{
    endpoint::TunnelKind,
    name::HostId,
    principal::SpiffeId,
    snapshot::{Snapshot, cell::Publisher},
};
use rustls::{ClientConnection, HandshakeKind, ServerConnection};
use rustls_pki_types::ServerName;

use super::*;
use crate::{
    authority::root_certificate,
    credentials::Credentials,
    testing::{HOST, World, published},
    verify::PeerError,
};

const OTHER: HostId = HostId([2; 16]);
const SNI: &str = "web.shop.m.internal";

fn now() -> u64 {
    let elapsed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    u64::try_from(elapsed.as_millis()).unwrap()
}

/// Runs a handshake to its end; the first error of the client, then of the server.
fn handshake(
    client: &mut ClientConnection,
    server: &mut ServerConnection,
) -> Result<(), rustls::Error> {
    for _round in 0..10 {
        let mut bytes = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut bytes).unwrap();
        }
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            server.read_tls(&mut rest).unwrap();
            server.process_new_packets()?;
        }
        let mut bytes = Vec::new();
        while server.wants_write() {
            server.write_tls(&mut bytes).unwrap();
        }
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            client.read_tls(&mut rest).unwrap();
            client.process_new_packets()?;
        }
        if !client.is_handshaking() && !server.is_handshaking() && !client.wants_write() {
            return Ok(());
        }
    }
    panic!("the handshake does not end");
}

/// Two hosts: HOST calls as shop/cart, OTHER serves shop/web.
struct Two {
    world: World,
    client: Credentials,
    server: Credentials,
    reader: mesh_model::snapshot::cell::Reader,
    publisher: Publisher,
}

impl Two {
    fn new() -> Self {
        let world = World::of("m.internal", now());
        let (client, server) = (Credentials::new(), Credentials::new());
        world.hold(&client, &world.id("shop", "cart"), HOST);
        world.hold(&server, &world.id("shop", "web"), OTHER);
        world.hold(&server, &world.host_id(OTHER), OTHER);
        let (publisher, reader) = published(Self::trusting(&world));
        Self {
            world,
            client,
            server,
            reader,
            publisher,
        }
    }
    fn trusting(world: &World) -> Snapshot {
        let mut snapshot = world.snapshot(OTHER, &[(HOST, &["shop/*"]), (OTHER, &["shop/*"])]);
        snapshot
            .inbound
            .identities
            .insert(SNI.into(), world.id("shop", "web"));
        snapshot
    }
    fn server(&self) -> ServerConnection {
        let config = tunnel_server(self.reader.clone(), self.server.clone());
        ServerConnection::new(config).unwrap()
    }
    fn config(&self, expected: &[SpiffeId], kind: TunnelKind) -> Arc<ClientConfig> {
        let local = self.world.id("shop", "cart");
        let (reader, credentials) = (self.reader.clone(), self.client.clone());
        tunnel_client(reader, credentials, &local, expected.into(), kind).unwrap()
    }
    fn client(&self, expected: &SpiffeId, name: &str, kind: TunnelKind) -> ClientConnection {
        let config = self.config(std::slice::from_ref(expected), kind);
        ClientConnection::new(config, ServerName::try_from(name.to_owned()).unwrap()).unwrap()
    }
}

fn because(error: &rustls::Error) -> &PeerError {
    PeerError::in_handshake(error).unwrap_or_else(|| panic!("another error: {error}"))
}

#[test]
fn our_peers_meet_by_server_name() {
    let two = Two::new();
    let web = two.world.id("shop", "web");
    let (mut client, mut server) = (two.client(&web, SNI, TunnelKind::Mesh), two.server());
    handshake(&mut client, &mut server).unwrap();
    assert_eq!(
        peer_of(client.peer_certificates().unwrap()).unwrap().id,
        web
    );
    let caller = peer_of(server.peer_certificates().unwrap()).unwrap();
    assert_eq!(
        (caller.id, caller.host),
        (two.world.id("shop", "cart"), Some(HOST))
    );
    assert_eq!(client.alpn_protocol(), Some(ALPN_MESH));
    assert_eq!(
        client.protocol_version(),
        Some(rustls::ProtocolVersion::TLSv1_3)
    );
    let suite = client.negotiated_cipher_suite().unwrap().suite();
    assert!(format!("{suite:?}").contains("GCM"), "{suite:?}");
}

#[test]
fn nothing_is_ever_resumed() {
    let two = Two::new();
    let web = two.world.id("shop", "web");
    let config = two.config(&[web], TunnelKind::Mesh);
    let server = tunnel_server(two.reader.clone(), two.server.clone());
    for _time in 0..3 {
        let name = ServerName::try_from(SNI).unwrap();
        let mut client = ClientConnection::new(Arc::clone(&config), name).unwrap();
        let mut server = ServerConnection::new(Arc::clone(&server)).unwrap();
        handshake(&mut client, &mut server).unwrap();
        assert_eq!(client.handshake_kind(), Some(HandshakeKind::Full));
    }
}

#[test]
fn the_wrong_peer_is_refused_by_the_client() {
    let two = Two::new();
    let (wanted, web) = (two.world.id("shop", "pay"), two.world.id("shop", "web"));
    let mut client = two.client(&wanted, SNI, TunnelKind::Mesh);
    let error = handshake(&mut client, &mut two.server()).unwrap_err();
    let expected = PeerError::Unexpected {
        found: Box::new(web),
        expected: wanted.to_string(),
    };
    assert_eq!(because(&error), &expected);
}

#[test]
fn a_service_that_is_not_here_has_no_certificate_for_our_peers() {
    let two = Two::new();
    let web = two.world.id("shop", "web");
    let mut client = two.client(&web, "gone.shop.m.internal", TunnelKind::Mesh);
    assert!(handshake(&mut client, &mut two.server()).is_err());
    let (mut client, mut server) = (two.client(&web, SNI, TunnelKind::Mesh), two.server());
    two.server.remove(&web);
    assert!(handshake(&mut client, &mut server).is_err());
}

#[test]
fn a_foreign_peer_without_server_name_gets_the_host() {
    let two = Two::new();
    let host = two.world.host_id(OTHER);
    for name in ["10.0.0.2", "outbound.whatever.example"] {
        let (mut client, mut server) = (two.client(&host, name, TunnelKind::Hbone), two.server());
        handshake(&mut client, &mut server).unwrap();
        assert_eq!(client.alpn_protocol(), Some(ALPN_H2));
        assert_eq!(
            peer_of(client.peer_certificates().unwrap()).unwrap().id,
            host
        );
    }
}

#[test]
fn clients_must_show_a_certificate_that_is_granted() {
    let mut two = Two::new();
    let web = two.world.id("shop", "web");
    let open = Judge::new(|chain, _now| peer_of(chain));
    let name = || ServerName::try_from(SNI).unwrap();
    let mut client = ClientConnection::new(client(open, None, &[ALPN_MESH]), name()).unwrap();
    assert!(handshake(&mut client, &mut two.server()).is_err());

    // The grant goes while the configuration stays: the next handshake is refused.
    let mut snapshot = Two::trusting(&two.world);
    let mut rights = (*snapshot.trust.grants[&HOST]).clone();
    rights.may_register.clear();
    snapshot.trust.grants.insert(HOST, Arc::new(rights));
    two.publisher.publish(snapshot);
    let (mut client, mut server) = (two.client(&web, SNI, TunnelKind::Mesh), two.server());
    let error = handshake(&mut client, &mut server).unwrap_err();
    let id = Box::new(two.world.id("shop", "cart"));
    assert_eq!(because(&error), &PeerError::NotCovered { host: HOST, id });

    two.publisher.publish(Snapshot::default());
    let (mut client, mut server) = (two.client(&web, SNI, TunnelKind::Mesh), two.server());
    assert!(
        handshake(&mut client, &mut server).is_err(),
        "an idle daemon lets nobody in"
    );
}

#[test]
fn configurations_follow_rotation() {
    let two = Two::new();
    let web = two.world.id("shop", "web");
    let config = two.config(&[web], TunnelKind::Mesh);
    let server = tunnel_server(two.reader.clone(), two.server.clone());
    let shown = || {
        let name = ServerName::try_from(SNI).unwrap();
        let mut client = ClientConnection::new(Arc::clone(&config), name).unwrap();
        let mut server = ServerConnection::new(Arc::clone(&server)).unwrap();
        handshake(&mut client, &mut server).unwrap();
        let both = (
            client.peer_certificates().unwrap(),
            server.peer_certificates().unwrap(),
        );
        (both.0[0].to_vec(), both.1[0].to_vec())
    };
    let first = shown();
    two.world
        .hold(&two.server, &two.world.id("shop", "web"), OTHER);
    two.world
        .hold(&two.client, &two.world.id("shop", "cart"), HOST);
    let second = shown();
    assert!(first.0 != second.0 && first.1 != second.1);
}

#[test]
fn a_tunnel_needs_a_certificate_and_somebody_to_expect() {
    let two = Two::new();
    let local = two.world.id("shop", "none");
    let build = |local: &SpiffeId, expected: &[SpiffeId]| {
        let (reader, credentials) = (two.reader.clone(), two.client.clone());
        tunnel_client(
            reader,
            credentials,
            local,
            expected.into(),
            TunnelKind::Mesh,
        )
        .unwrap_err()
    };
    let web = two.world.id("shop", "web");
    assert_eq!(
        build(&local, &[web]),
        TunnelError::NoCredential(Box::new(local.clone()))
    );
    assert_eq!(
        build(&two.world.id("shop", "cart"), &[]),
        TunnelError::NobodyExpected
    );
}

/// Two hosts on a link; HOST dials OTHER.
fn trust(world: &World, refused: Option<HostId>) -> HostTrust {
    HostTrust {
        trust_domain: world.trust_domain(),
        roots: vec![root_certificate(world.root.mesh())],
        admits: Arc::new(move |host| Some(host) != refused),
    }
}

fn link(
    two: &Two,
    presented: &SpiffeId,
    expected: Option<HostId>,
    refused: Option<HostId>,
) -> Result<(), rustls::Error> {
    let (client, server) = (Credentials::new(), two.server.clone());
    two.world.hold(&client, presented, HOST);
    let config = cluster_client(client, presented, trust(&two.world, None), expected);
    let name = ServerName::try_from("10.0.0.2").unwrap();
    let mut client = ClientConnection::new(config, name).unwrap();
    let local = two.world.host_id(OTHER);
    let config = cluster_server(server, &local, trust(&two.world, refused));
    let mut server = ServerConnection::new(config).unwrap();
    handshake(&mut client, &mut server)?;
    assert_eq!(client.alpn_protocol(), Some(ALPN_CLUSTER));
    assert_eq!(
        peer_of(server.peer_certificates().unwrap()).unwrap().id,
        *presented
    );
    Ok(())
}

#[test]
fn links_are_between_hosts() {
    let two = Two::new();
    let (host, cart) = (two.world.host_id(HOST), two.world.id("shop", "cart"));
    link(&two, &host, None, None).unwrap();
    link(&two, &host, Some(OTHER), None).unwrap();
    let error = link(&two, &host, Some(HOST), None).unwrap_err();
    assert!(matches!(because(&error), PeerError::Unexpected { .. }));
    let error = link(&two, &cart, None, None).unwrap_err();
    assert_eq!(because(&error), &PeerError::NotAHost(Box::new(cart)));
    let error = link(&two, &host, None, Some(HOST)).unwrap_err();
    assert_eq!(because(&error), &PeerError::NoGrant(HOST));
    // Another host's certificate, made with the keys of a revoked authority.
    let two = Two::new();
    let credentials = Credentials::new();
    let other = two.world.host_id(OTHER);
    two.world.hold(&credentials, &other, OTHER);
    assert_eq!(credentials.get(&other).unwrap().issuer(), Some(HOST));
    let chain = credentials.get(&other).unwrap().chain.clone();
    let judged = |revoked| {
        let now = rustls_pki_types::UnixTime::now();
        trust(&two.world, revoked).judge(&chain, crate::verify::Usage::Client, now)
    };
    assert!(judged(None).is_ok());
    assert_eq!(judged(Some(HOST)), Err(PeerError::Issuer(HOST)));
    // An id of one host in a certificate that is bound to another.
    let error = link(&two, &two.world.host_id(HostId([3; 16])), None, None).unwrap_err();
    assert!(matches!(because(&error), PeerError::NotAHost(_)));
}

fn join(two: &Two, pin: [u8; 32]) -> Result<(ClientConnection, ServerConnection), rustls::Error> {
    let name = ServerName::try_from("10.0.0.2").unwrap();
    let mut client = ClientConnection::new(join_client(pin), name).unwrap();
    let local = two.world.host_id(OTHER);
    let config = cluster_server(two.server.clone(), &local, trust(&two.world, None));
    let mut server = ServerConnection::new(config).unwrap();
    handshake(&mut client, &mut server)?;
    Ok((client, server))
}

#[test]
fn a_join_is_authenticated_by_the_pin_and_bound_to_the_connection() {
    let two = Two::new();
    let pin = pin_of(&root_certificate(two.world.root.mesh())).unwrap();
    let (client, server) = join(&two, pin).unwrap();
    assert!(server.peer_certificates().is_none());
    let ours = client
        .export_keying_material([0; 32], JOIN_EXPORTER, None)
        .unwrap();
    let theirs = server
        .export_keying_material([0; 32], JOIN_EXPORTER, None)
        .unwrap();
    assert_eq!(ours, theirs);
    let chain = client.peer_certificates().unwrap();
    assert!(pinned(chain, pin, now()).is_ok());
    assert!(matches!(
        pinned(chain, pin, now() + 86_400_000),
        Err(PeerError::Chain { .. })
    ));

    let other = World::of("m.internal", now());
    let pin = pin_of(&root_certificate(other.root.mesh())).unwrap();
    assert_eq!(because(&join(&two, pin).err().unwrap()), &PeerError::Pin);
}

#[test]
fn a_pinned_root_is_not_enough_the_leaf_must_chain_to_it() {
    // A member of another mesh of the same name that sends our root along.
    let (two, other) = (Two::new(), World::of("m.internal", now()));
    let pin = pin_of(&root_certificate(two.world.root.mesh())).unwrap();
    let mut chain = other.issue(&other.host_id(OTHER), OTHER, &[]).unwrap();
    chain.push(root_certificate(two.world.root.mesh()));
    assert!(matches!(
        pinned(&chain, pin, now()),
        Err(PeerError::Chain { .. })
    ));
}

#[test]
fn credentials_survive_their_files() {
    use std::os::unix::fs::PermissionsExt;
    let two = Two::new();
    let dir = tempfile::tempdir().unwrap();
    let id = two.world.id("shop", "web");
    let credential = two.server.get(&id).unwrap();
    credential.store(dir.path()).unwrap();
    let path = dir.path().join(crate::Credential::file_name(&id));
    assert!(path.ends_with("shop.web.pem"));
    assert_eq!(
        std::fs::metadata(&path).unwrap().permissions().mode() & 0o777,
        0o600
    );
    let again = crate::Credential::load(&path).unwrap();
    assert_eq!(
        (again.id(), again.host(), &again.chain),
        (&id, Some(OTHER), &credential.chain)
    );
    let made = i64::try_from(again.made_ms()).unwrap() - i64::try_from(now()).unwrap();
    assert!(made.abs() < 60_000, "{made}");
    let soonest = two.server.expiries();
    assert_eq!(soonest.len(), 2);
    assert!(soonest[0].1 <= soonest[1].1);
    // A key and a certificate that do not belong together.
    let key = crate::key::P256Key::generate().unwrap();
    let refused = crate::Credential::new(key, again.chain.clone());
    assert!(matches!(
        refused,
        Err(crate::credentials::CredentialError::OtherKey)
    ));
}
