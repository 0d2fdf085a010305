//! What an authority signs, what it refuses, and the form of what it makes.

use mesh_model::grant::covers;
use x509_parser::extensions::{GeneralName, ParsedExtension};

use super::*;
use crate::{
    leaf::LeafRequest,
    testing::{HOST, NOW, World, settings},
};

const OTHER: HostId = HostId([2; 16]);

#[test]
fn a_mesh_is_made_checked_and_reloaded() {
    let root = Root::create(&settings(), NOW).unwrap();
    let mesh = Mesh::open(&root.mesh().signed).unwrap();
    assert_eq!(&mesh, root.mesh());
    assert_eq!(mesh.genesis.leaf_ttl_secs, 86_400);
    let dir = tempfile::tempdir().unwrap();
    root.key().store(&dir.path().join("a")).unwrap();
    root.x509_key().store(&dir.path().join("b")).unwrap();
    let again = |a: &str, b: &str, mesh: Mesh| {
        let key = Ed25519Key::load(&dir.path().join(a)).unwrap();
        Root::from_parts(key, P256Key::load(&dir.path().join(b)).unwrap(), mesh)
    };
    assert!(again("a", "b", mesh).is_ok());
    let other = Root::create(&settings(), NOW).unwrap();
    assert_ne!(
        other.mesh().id,
        root.mesh().id,
        "two meshes of one name differ"
    );
    assert!(matches!(
        again("a", "b", other.mesh().clone()),
        Err(AuthorityError::Mismatch)
    ));
}

#[test]
fn impossible_meshes_are_refused() {
    let with = |change: fn(&mut MeshSettings)| {
        let mut settings = settings();
        change(&mut settings);
        Root::create(&settings, NOW).unwrap_err()
    };
    assert!(matches!(
        with(|s| s.trust_domain = "UPPER".into()),
        AuthorityError::TrustDomain(_)
    ));
    assert!(matches!(
        with(|s| s.domain = "a..b".into()),
        AuthorityError::Domain(_)
    ));
    assert!(matches!(
        with(|s| s.domain = String::new()),
        AuthorityError::Domain(_)
    ));
    assert!(matches!(
        with(|s| s.leaf_ttl_secs = 59),
        AuthorityError::LeafTtl(59)
    ));
}

#[test]
fn a_changed_genesis_or_one_signed_by_another_is_none() {
    let root = Root::create(&settings(), NOW).unwrap();
    let mut signed = root.mesh().signed.clone();
    signed.payload.push(0);
    assert_eq!(Mesh::open(&signed), Err(GrantError::Signature("genesis")));
    let other = Ed25519Key::generate().unwrap();
    let resigned = other.sign(domain::GENESIS, root.mesh().signed.payload.clone());
    assert_eq!(Mesh::open(&resigned), Err(GrantError::Signer("genesis")));
}

#[test]
fn grants_lead_up_to_the_root_and_keys_do_not_stand_for_each_other() {
    let world = World::new();
    let (mesh, authority) = (world.root.mesh(), &world.authority);
    let authorities = [mesh.authority(authority.signed()).unwrap()];
    let host = Ed25519Key::generate().unwrap();
    let request = HostRequest {
        ed25519: host.public(),
        x25519: [5; 32],
        name: "web1".into(),
        may_register: vec!["shop/*".into()],
    };
    let signed = authority.admit(&request, 1, NOW).unwrap();
    let grant = mesh.host(&signed, &authorities).unwrap();
    assert!(covers(&grant.may_register, "shop", "web"));
    assert!(in_force(
        grant.not_before_ms,
        grant.not_after_ms,
        NOW + 9 * 365 * DAY_MS
    ));

    // A host's key signs no grant: neither of hosts, nor of operators, nor its own.
    let forged = host.sign(domain::HOST, signed.payload.clone());
    assert_eq!(
        mesh.host(&forged, &authorities),
        Err(GrantError::Signer("host grant"))
    );
    let ttl = Duration::from_mins(1);
    let operator = authority
        .certify_operator("ada", [6; 32], &["*".into()], ttl, NOW)
        .unwrap();
    assert!(mesh.operator(&operator, &authorities).is_ok());
    let forged = host.sign(domain::OPERATOR, operator.payload.clone());
    assert_eq!(
        mesh.operator(&forged, &authorities),
        Err(GrantError::Signer("operator grant"))
    );
    // A grant of one kind is none of another.
    assert_eq!(
        mesh.operator(&signed, &authorities),
        Err(GrantError::Signature("operator grant"))
    );
    // An authority signs no authority.
    let keys = AuthorityKeys::generate().unwrap();
    let own = authority.signed().payload.clone();
    let forged = authority.keys().ed25519.sign(domain::AUTHORITY, own);
    assert_eq!(
        mesh.authority(&forged),
        Err(GrantError::Signer("authority grant"))
    );
    assert!(Authority::new(keys, mesh.clone(), authority.signed().clone()).is_err());
    // Nothing of another mesh counts, and nothing from after the authority's end.
    let other = World::new();
    assert!(other.root.mesh().host(&signed, &authorities).is_err());
    let late = NOW + AUTHORITY_LIFETIME_MS + 1;
    assert!(matches!(
        authority.admit(&request, 2, late),
        Err(AuthorityError::AuthorityExpired)
    ));
    let outdated = [AuthorityGrant {
        not_after_ms: 1,
        ..authorities[0].clone()
    }];
    assert!(mesh.host(&signed, &outdated).is_err());
}

#[test]
fn leaves_have_the_decided_form() {
    let world = World::new();
    let id = world.id("shop", "web");
    let chain = world.issue(&id, HOST, &["*"]).unwrap();
    assert_eq!(chain.len(), 2);
    let (_, leaf) = x509_parser::parse_x509_certificate(&chain[0]).unwrap();
    let uri = id.to_string();
    assert_eq!(
        leaf.subject_alternative_name()
            .unwrap()
            .unwrap()
            .value
            .general_names,
        [GeneralName::URI(&uri)]
    );
    let usage = leaf.key_usage().unwrap().unwrap();
    assert!(usage.critical && usage.value.digital_signature() && usage.value.flags == 1);
    let extended = leaf.extended_key_usage().unwrap().unwrap().value;
    assert!(extended.server_auth && extended.client_auth && !extended.any);
    assert!(!leaf.is_ca());
    let subject = leaf
        .subject()
        .iter_common_name()
        .next()
        .unwrap()
        .as_str()
        .unwrap();
    assert_eq!(subject, HOST.to_string());
    let seconds = i64::try_from(NOW / 1000).unwrap();
    assert_eq!(leaf.validity().not_before.timestamp(), seconds - 120);
    assert_eq!(leaf.validity().not_after.timestamp(), seconds + 86_400);
    assert_eq!(leaf.public_key().subject_public_key.data.len(), 65);
    let root = root_certificate(world.root.mesh());
    for certificate in chain.iter().chain([&root]) {
        let (_, parsed) = x509_parser::parse_x509_certificate(certificate).unwrap();
        let constrained = parsed
            .extensions()
            .iter()
            .any(|e| matches!(e.parsed_extension(), ParsedExtension::NameConstraints(_)));
        assert!(!constrained, "ztunnel refuses name constraints");
    }
    let (_, intermediate) = x509_parser::parse_x509_certificate(&chain[1]).unwrap();
    let basic = intermediate.basic_constraints().unwrap().unwrap();
    assert!(basic.critical && basic.value.ca && basic.value.path_len_constraint == Some(0));
}

#[test]
fn an_authority_refuses_what_the_grant_does_not_cover() {
    let world = World::new();
    let refused = |id: &SpiffeId, host, grant: &[&str]| world.issue(id, host, grant).unwrap_err();
    let (shop, host) = (
        world.id("shop", "web"),
        SpiffeId::host(world.trust_domain(), HOST),
    );
    assert!(world.issue(&shop, HOST, &["shop/*"]).is_ok());
    assert!(world.issue(&host, HOST, &[]).is_ok());
    assert!(matches!(
        refused(&shop, HOST, &["other/*"]),
        AuthorityError::NotCovered { .. }
    ));
    assert!(matches!(
        refused(&host, OTHER, &["*"]),
        AuthorityError::NotCovered { .. }
    ));
    let foreign: SpiffeId = "spiffe://elsewhere/ns/shop/sa/web".parse().unwrap();
    assert!(matches!(
        refused(&foreign, HOST, &["*"]),
        AuthorityError::NotCovered { .. }
    ));

    let csr = LeafRequest::new(&shop).unwrap().csr().to_vec();
    let grant = world.grant(HOST, &["*"]);
    let ended = HostGrant {
        not_after_ms: NOW,
        ..grant.clone()
    };
    let at = world.authority.issue(&csr, &shop, &ended, NOW);
    assert!(matches!(at, Err(AuthorityError::NoGrant(HOST))));
    let elsewhere = HostGrant {
        mesh_id: vec![0; 16],
        ..grant.clone()
    };
    let at = world.authority.issue(&csr, &shop, &elsewhere, NOW);
    assert!(matches!(at, Err(AuthorityError::NoGrant(HOST))));
    let at = world
        .authority
        .issue(&csr, &shop, &grant, NOW + AUTHORITY_LIFETIME_MS);
    assert!(matches!(at, Err(AuthorityError::AuthorityExpired)));
}

#[test]
fn a_request_proves_its_key_and_its_names_are_ignored() {
    let world = World::new();
    let (id, wished) = (world.id("shop", "web"), world.id("shop", "admin"));
    let request = LeafRequest::new(&wished).unwrap();
    let grant = world.grant(HOST, &["shop/web"]);
    let chain = world
        .authority
        .issue(request.csr(), &id, &grant, NOW)
        .unwrap();
    assert_eq!(crate::verify::peer_of(&chain).unwrap().id, id);
    // The asker notices that it got something else than it asked for.
    assert!(request.finish(chain, HOST).is_err());

    let good = LeafRequest::new(&id).unwrap();
    let mut bad = good.csr().to_vec();
    let last = bad.len() - 1;
    bad[last] ^= 1;
    for csr in [
        &bad[..],
        &good.csr()[..good.csr().len() - 1],
        b"",
        b"\x30\x00",
    ] {
        let refused = world.authority.issue(csr, &id, &grant, NOW).unwrap_err();
        assert!(matches!(refused, AuthorityError::Request), "{refused}");
    }
    let rsa_or_other = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
    let csr = rcgen::CertificateParams::default()
        .serialize_request(&rsa_or_other)
        .unwrap();
    let refused = world
        .authority
        .issue(csr.der(), &id, &grant, NOW)
        .unwrap_err();
    assert!(matches!(refused, AuthorityError::Request));
}

#[test]
fn a_leaf_never_outlives_its_authority() {
    let world = World::new();
    let (id, grant) = (world.id("a", "b"), world.grant(HOST, &["*"]));
    let csr = LeafRequest::new(&id).unwrap().csr().to_vec();
    let late = NOW + AUTHORITY_LIFETIME_MS - 3_600_000;
    let chain = world.authority.issue(&csr, &id, &grant, late).unwrap();
    let end = crate::verify::peer_of(&chain).unwrap().not_after_ms;
    assert_eq!(end / 1000, world.authority.not_after_ms() / 1000);
}

#[test]
fn names_inside_requests_cannot_panic_the_authority() {
    // A subject with an empty set: valid DER that some parsers choke on.
    let world = World::new();
    let (id, grant) = (world.id("a", "b"), world.grant(HOST, &["*"]));
    let good = LeafRequest::new(&id).unwrap().csr().to_vec();
    for at in 0..good.len() {
        for value in [0, 0x30, 0x31, 0xff] {
            let mut bad = good.clone();
            bad[at] = value;
            let _verdict = world.authority.issue(&bad, &id, &grant, NOW).is_ok();
        }
    }
}
