//! Peers that are believed, and every way not to be.

use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    SanType,
};

use super::*;
use crate::testing::{HOST, NOW, World};

const OTHER: HostId = HostId([2; 16]);

fn at(ms: u64) -> UnixTime {
    UnixTime::since_unix_epoch(Duration::from_millis(ms))
}

fn judge(
    world: &World,
    chain: &[CertificateDer<'_>],
    rights: &[(HostId, &[&str])],
) -> Result<Peer, PeerError> {
    let snapshot = world.snapshot(HOST, rights);
    verify(
        chain,
        Usage::Client,
        &world.trust_domain(),
        &snapshot.trust,
        at(NOW),
    )
}

#[test]
fn a_granted_workload_and_a_host_are_believed() {
    let world = World::new();
    let chain = world
        .issue(&world.id("shop", "web"), OTHER, &["*"])
        .unwrap();
    let peer = judge(&world, &chain, &[(OTHER, &["shop/*"])]).unwrap();
    assert_eq!((peer.id, peer.host), (world.id("shop", "web"), Some(OTHER)));
    assert_eq!(peer.not_after_ms, NOW + 86_400_000);
    let chain = world.issue(&world.host_id(OTHER), OTHER, &[]).unwrap();
    assert!(judge(&world, &chain, &[(OTHER, &[])]).is_ok());
}

#[test]
fn a_valid_chain_without_a_grant_is_not_enough() {
    let world = World::new();
    let id = world.id("shop", "web");
    let chain = world.issue(&id, OTHER, &["*"]).unwrap();
    assert_eq!(judge(&world, &chain, &[]), Err(PeerError::NoGrant(OTHER)));
    assert_eq!(
        judge(&world, &chain, &[(HOST, &["*"])]),
        Err(PeerError::NoGrant(OTHER))
    );
    let refused = judge(&world, &chain, &[(OTHER, &["stock/*"])]);
    assert_eq!(
        refused,
        Err(PeerError::NotCovered {
            host: OTHER,
            id: Box::new(id)
        })
    );
    // A host that shows another host's id.
    let ttl = Duration::from_mins(5);
    let request = crate::leaf::LeafRequest::new(&world.host_id(HOST)).unwrap();
    let csr = request.csr();
    let chain = world
        .authority
        .issue_leaf(csr, &world.host_id(HOST), OTHER, ttl, NOW)
        .unwrap();
    let refused = judge(&world, &chain, &[(OTHER, &["*"]), (HOST, &["*"])]);
    assert!(matches!(refused, Err(PeerError::NotCovered { .. })));
}

#[test]
fn a_grant_that_has_ended_is_none() {
    let world = World::new();
    let chain = world
        .issue(&world.id("shop", "web"), OTHER, &["*"])
        .unwrap();
    let mut snapshot = world.snapshot(HOST, &[(OTHER, &["*"])]);
    let ended = HostRights {
        may_register: vec!["*".into()],
        not_after_ms: NOW,
    };
    snapshot.trust.grants.insert(OTHER, Arc::new(ended));
    let own = world.trust_domain();
    let refused = verify(&chain, Usage::Client, &own, &snapshot.trust, at(NOW));
    assert_eq!(refused, Err(PeerError::NoGrant(OTHER)));
}

#[test]
fn what_a_revoked_authority_signs_for_others_is_refused() {
    let world = World::new();
    let chain = world
        .issue(&world.id("shop", "web"), OTHER, &["*"])
        .unwrap();
    let mut snapshot = world.snapshot(HOST, &[(OTHER, &["*"])]);
    let own = world.trust_domain();
    let judged = |snapshot: &mesh_model::snapshot::Snapshot| {
        verify(&chain, Usage::Client, &own, &snapshot.trust, at(NOW)).map(drop)
    };
    assert_eq!(judged(&snapshot), Ok(()));
    snapshot.trust.grants.remove(&HOST);
    assert_eq!(judged(&snapshot), Err(PeerError::Issuer(HOST)));
}

#[test]
fn expired_early_and_unchained_leaves_are_refused() {
    let world = World::new();
    let chain = world
        .issue(&world.id("shop", "web"), OTHER, &["*"])
        .unwrap();
    let snapshot = world.snapshot(HOST, &[(OTHER, &["*"])]);
    let own = world.trust_domain();
    let judged = |chain: &[CertificateDer<'_>], now| {
        verify(chain, Usage::Client, &own, &snapshot.trust, at(now))
            .unwrap_err()
            .to_string()
    };
    assert!(judged(&chain, NOW + 86_402_000).contains("CertExpired"));
    assert!(judged(&chain, NOW - 200_000).contains("CertNotValidYet"));
    assert!(judged(&chain[..1], NOW).contains("UnknownIssuer"));
    assert_eq!(
        verify(&[], Usage::Client, &own, &snapshot.trust, at(NOW)),
        Err(PeerError::Absent)
    );
}

#[test]
fn only_the_roots_of_the_trust_domain_in_the_name_count() {
    let (world, foreign) = (World::new(), World::of("k.example", NOW));
    let chain = foreign
        .issue(&foreign.id("demo", "a"), OTHER, &["*"])
        .unwrap();
    assert!(matches!(
        judge(&world, &chain, &[]),
        Err(PeerError::TrustDomain(_))
    ));

    let mut snapshot = world.snapshot(HOST, &[]);
    let mut theirs = foreign.snapshot(HOST, &[]).trust.bundles;
    snapshot.trust.bundles.append(&mut theirs);
    let own = world.trust_domain();
    let peer = verify(&chain, Usage::Client, &own, &snapshot.trust, at(NOW)).unwrap();
    assert_eq!(
        peer.id,
        foreign.id("demo", "a"),
        "a foreign domain needs no grant of ours"
    );

    // Their root says something about our trust domain: the bundle as a pool would take it.
    let chain = impostor(&foreign, &world.id("shop", "web"));
    let snapshot_with_grant = {
        let mut with = world.snapshot(HOST, &[(OTHER, &["*"])]);
        with.trust
            .bundles
            .extend(foreign.snapshot(HOST, &[]).trust.bundles);
        with
    };
    let refused = verify(
        &chain,
        Usage::Client,
        &own,
        &snapshot_with_grant.trust,
        at(NOW),
    );
    assert!(
        matches!(refused, Err(PeerError::Chain { .. })),
        "{refused:?}"
    );
}

/// A leaf of `issuer`'s authority with an id of another trust domain.
fn impostor(issuer: &World, id: &SpiffeId) -> Vec<CertificateDer<'static>> {
    let request = crate::leaf::LeafRequest::new(id).unwrap();
    let ttl = Duration::from_mins(5);
    issuer
        .authority
        .issue_leaf(request.csr(), id, OTHER, ttl, NOW)
        .unwrap()
}

/// A CA of somebody else, and leaves of any form.
struct Foreign {
    issuer: Issuer<'static, KeyPair>,
    root: CertificateDer<'static>,
}

impl Foreign {
    fn new(algorithm: &'static rcgen::SignatureAlgorithm) -> Self {
        let key = KeyPair::generate_for(algorithm).unwrap();
        let mut params = CertificateParams::default();
        params
            .distinguished_name
            .push(DnType::CommonName, "somebody's CA");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        times(&mut params);
        let root = params.self_signed(&key).unwrap().der().clone();
        Self {
            issuer: Issuer::new(params, key),
            root,
        }
    }
    fn leaf(&self, change: impl FnOnce(&mut CertificateParams)) -> Vec<CertificateDer<'static>> {
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        times(&mut params);
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        vec![params.signed_by(&key, &self.issuer).unwrap().der().clone()]
    }
    fn judge(&self, chain: &[CertificateDer<'_>], usage: Usage) -> Result<Peer, PeerError> {
        let mut trust = Trust::default();
        let domain = TrustDomain::new("k.example").unwrap();
        trust
            .bundles
            .insert(domain, vec![Arc::from(self.root.as_ref())]);
        verify(
            chain,
            usage,
            &TrustDomain::new("m.internal").unwrap(),
            &trust,
            at(NOW),
        )
    }
}

fn times(params: &mut CertificateParams) {
    params.not_before = rcgen::date_time_ymd(2026, 1, 1);
    params.not_after = rcgen::date_time_ymd(2030, 1, 1);
}

fn uri(text: &str) -> SanType {
    SanType::URI(text.try_into().unwrap())
}

const THEIRS: &str = "spiffe://k.example/ns/demo/sa/a";

#[test]
fn what_others_issue_is_taken() {
    for algorithm in [
        &rcgen::PKCS_ECDSA_P256_SHA256,
        &rcgen::PKCS_ECDSA_P384_SHA384,
        &rcgen::PKCS_ED25519,
        &rcgen::PKCS_RSA_SHA256,
    ] {
        let foreign = Foreign::new(algorithm);
        // Empty subject, critical SAN, no extended key usage.
        let chain = foreign.leaf(|params| params.subject_alt_names = vec![uri(THEIRS)]);
        let (_, parsed) = x509_parser::parse_x509_certificate(&chain[0]).unwrap();
        assert!(parsed.subject_alternative_name().unwrap().unwrap().critical);
        let peer = foreign.judge(&chain, Usage::Server).unwrap();
        assert_eq!((peer.id.to_string().as_str(), peer.host), (THEIRS, None));
    }
}

#[test]
fn names_and_usages_that_are_refused() {
    let foreign = Foreign::new(&rcgen::PKCS_ECDSA_P256_SHA256);
    let judged = |usage, change: &dyn Fn(&mut CertificateParams)| {
        foreign.judge(&foreign.leaf(|params| change(params)), usage)
    };
    let two = judged(Usage::Client, &|p| {
        p.subject_alt_names = vec![uri(THEIRS), uri(THEIRS)];
    });
    assert_eq!(two, Err(PeerError::Names(2)));
    assert_eq!(judged(Usage::Client, &|_| ()), Err(PeerError::Names(0)));
    let dns = SanType::DnsName("k.example".try_into().unwrap());
    let only_dns = judged(Usage::Client, &|p| p.subject_alt_names = vec![dns.clone()]);
    assert_eq!(only_dns, Err(PeerError::Names(0)));
    let short = judged(Usage::Client, &|p| {
        p.subject_alt_names = vec![uri("spiffe://k.example/a")];
    });
    assert!(matches!(short, Err(PeerError::Id(_))));
    let server_only = |p: &mut CertificateParams| {
        p.subject_alt_names = vec![uri(THEIRS)];
        p.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    };
    assert!(judged(Usage::Server, &server_only).is_ok());
    assert!(matches!(
        judged(Usage::Client, &server_only),
        Err(PeerError::Chain { .. })
    ));
}

#[test]
fn bytes_from_outside_never_panic() {
    let world = World::new();
    let chain = world
        .issue(&world.id("shop", "web"), OTHER, &["*"])
        .unwrap();
    for at in 0..chain[0].len() {
        for value in [0, 0x7f, 0xff, chain[0][at] ^ 1] {
            let mut bytes = chain[0].to_vec();
            if bytes[at] == value {
                continue;
            }
            bytes[at] = value;
            let changed = [CertificateDer::from(bytes), chain[1].clone()];
            let judged = judge(&world, &changed, &[(OTHER, &["*"])]);
            assert!(judged.is_err(), "byte {at}: {judged:?}");
        }
    }
}
