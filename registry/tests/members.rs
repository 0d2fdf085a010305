//! Registries of three members: whichever of them dies, what is read from it and announced to it goes on at another
//! one. And an etcd that asks its clients for certificates.

#[cfg(test)]
mod tests {
    use std::{
        collections::BTreeMap,
        fs,
        net::{Ipv4Addr, SocketAddr},
        path::Path,
        sync::Arc,
        time::{Duration, Instant},
    };

    use mesh_model::{
        config::{Access, EtcdLayout, RegistrationConfig, SourceConfig, SourceKind, SourceTls},
        endpoint::{Health, Locality},
        fact::WireHealth,
        name::{Namespace, ServiceId, ServiceName},
        service::AppProtocol,
    };
    use mesh_registry::{
        Published,
        contract::{
            Setup,
            server::{Started, etcd, needed, zookeeper},
        },
        registrar::{Registrar, Registration},
        start,
    };
    use tokio::sync::watch;
    use tokio_util::sync::CancellationToken;

    /// A new member leads after a second or two; the machine may be busy.
    const PATIENCE: Duration = Duration::from_mins(1);
    /// Longer than a member is away: what is announced must not go meanwhile.
    const LIFE: Duration = Duration::from_mins(1);

    fn config(kind: SourceKind) -> SourceConfig {
        SourceConfig {
            id: "members/x".into(),
            publish: true,
            services: None,
            kind,
        }
    }

    fn etcd_kind(access: Access) -> SourceKind {
        SourceKind::Etcd {
            access,
            layout: EtcdLayout::Meshd,
            prefix: EtcdLayout::Meshd.prefix().to_owned(),
        }
    }

    fn registrar(source: &SourceConfig) -> Arc<dyn Registrar> {
        let config = RegistrationConfig {
            source: source.clone(),
            services: None,
            ttl: LIFE,
            address: None,
            tags: Vec::new(),
        };
        mesh_registry::open::registrar(&config).unwrap()
    }

    /// Announces the instance with this port, and tries again while there is nobody to tell.
    async fn announce(registrar: &Arc<dyn Registrar>, port: u16) {
        let service = ServiceId::new(Namespace::default(), ServiceName::new("web").unwrap());
        let of = Arc::new(Registration {
            id: Registration::id_of("h1", &service, port),
            service,
            address: SocketAddr::from(([10, 0, 0, 1], port)),
            protocol: AppProtocol::Http,
            weight: 1,
            locality: Locality::default(),
            labels: BTreeMap::new(),
        });
        let end = Instant::now() + PATIENCE;
        while let Err(error) = registrar.register(&of, Health::Healthy).await {
            assert!(Instant::now() < end, "{error:?}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// The ports of `web` to which new requests go, in order.
    fn ports(now: &Published) -> Vec<u16> {
        let all = now.views.values().filter(|one| one.view.service == "web");
        let well = i32::from(WireHealth::Healthy);
        let mut ports: Vec<u16> = all
            .flat_map(|one| &one.view.endpoints)
            .filter(|one| one.health == well)
            .map(|one| one.address.rsplit_once(':').unwrap().1.parse().unwrap())
            .collect();
        ports.sort_unstable();
        ports
    }

    async fn until(
        views: &mut watch::Receiver<Arc<Published>>,
        what: &str,
        holds: impl Fn(&Published) -> bool,
    ) {
        let seen = tokio::time::timeout(PATIENCE, views.wait_for(|now| holds(now))).await;
        assert!(matches!(seen, Ok(Ok(_))), "it did not come to be: {what}");
    }

    fn is_synced(now: &Published) -> bool {
        now.sources
            .iter()
            .all(|row| row.status.as_str() == "synced")
    }

    /// Each member in turn is away for a while: one of them was the source's own.
    async fn every_member_may_die(mut members: [Started; 3], kind: SourceKind) {
        let config = config(kind);
        let registrar = registrar(&config);
        announce(&registrar, 80).await;
        let stop = CancellationToken::new();
        let registry = start(std::slice::from_ref(&config), stop.clone());
        let mut views = registry.views();
        until(&mut views, "it is read", |now| ports(now) == [80]).await;
        // From here on nothing may go, not even for a moment.
        let mut all = registry.views();
        let watching = tokio_util::task::TaskTracker::new().spawn(async move {
            let mut last = vec![80];
            while all.changed().await.is_ok() {
                let now = ports(&all.borrow_and_update());
                assert!(
                    last.iter().all(|port| now.contains(port)),
                    "{last:?} {now:?}"
                );
                last = now;
            }
        });
        let mut wanted = vec![80];
        for (member, port) in members.iter_mut().zip(81..) {
            member.server.kill();
            announce(&registrar, port).await;
            wanted.push(port);
            until(&mut views, "it goes on elsewhere", |now| {
                ports(now) == wanted && is_synced(now)
            })
            .await;
            member.server.start_again(true);
        }
        stop.cancel();
        registry.ended().await;
        drop((registry, views));
        watching.await.unwrap();
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn every_member_of_an_ensemble_may_die() {
        let Some(root) = needed("zookeeper", "zookeeper-members") else {
            return;
        };
        let members = zookeeper::three(&root);
        let access = Access {
            addresses: members.each_ref().map(|one| one.to.to_string()).to_vec(),
            ..Access::default()
        };
        let path = "/lab".into();
        every_member_may_die(members, SourceKind::Serverset { access, path }).await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn every_member_of_an_etcd_may_die() {
        let Some(root) = needed("etcd", "etcd-members") else {
            return;
        };
        let members = etcd::three(&root);
        let access = Access {
            addresses: members
                .each_ref()
                .map(|one| format!("http://{}", one.to))
                .to_vec(),
            ..Access::default()
        };
        every_member_may_die(members, etcd_kind(access)).await;
    }

    /// Writes `NAME.pem`, the roots of clients, and a client's certificate and key, `NAME.crt` and `NAME.key`.
    fn client_certificate(folder: &Path, name: &str) {
        let mut roots = rcgen::CertificateParams::new(Vec::new()).unwrap();
        roots.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        roots
            .distinguished_name
            .push(rcgen::DnType::CommonName, format!("clients of {name}"));
        let key = rcgen::KeyPair::generate().unwrap();
        let roots = rcgen::CertifiedIssuer::self_signed(roots, key).unwrap();
        let mut client = rcgen::CertificateParams::new(Vec::new()).unwrap();
        client
            .distinguished_name
            .push(rcgen::DnType::CommonName, "meshd");
        client
            .extended_key_usages
            .push(rcgen::ExtendedKeyUsagePurpose::ClientAuth);
        let key = rcgen::KeyPair::generate().unwrap();
        let client = client.signed_by(&key, &roots).unwrap();
        for (ending, text) in [
            ("pem", roots.pem()),
            ("crt", client.pem()),
            ("key", key.serialize_pem()),
        ] {
            fs::write(folder.join(format!("{name}.{ending}")), text).unwrap();
        }
    }

    /// An etcd whose clients must have a certificate.
    fn guarded(root: &Path) -> Started {
        let folder = tempfile::tempdir().unwrap();
        client_certificate(folder.path(), "ours");
        client_certificate(folder.path(), "foreign");
        let authority = folder.path().join("ours.pem");
        let member = etcd::Member::alone(Ipv4Addr::LOCALHOST.into(), Setup::Tls);
        member.asking(authority).start_in(root, folder)
    }

    /// With its own certificate it reads and announces; with none, or another authority's, it does neither, and
    /// what was read stays.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn an_etcd_may_ask_for_certificates() {
        let Some(root) = needed("etcd", "etcd-certificates") else {
            return;
        };
        let Started { server, to: at, .. } = guarded(&root);
        let file = |name: &str| server.folder().join(name);
        let with = |certificate: Option<&str>| {
            config(etcd_kind(Access {
                addresses: vec![format!("https://{at}")],
                tls: SourceTls {
                    ca: Some(file("ca.pem")),
                    certificate: certificate.map(|name| file(&format!("{name}.crt"))),
                    key: certificate.map(|name| file(&format!("{name}.key"))),
                    server_name: None,
                },
                ..Access::default()
            }))
        };
        let ours = with(Some("ours"));
        announce(&registrar(&ours), 80).await;
        let stop = CancellationToken::new();
        let registry = start(std::slice::from_ref(&ours), stop.clone());
        let mut views = registry.views();
        let read = |now: &Published| ports(now) == [80] && is_synced(now);
        until(&mut views, "it is read", read).await;
        for wrong in [with(None), with(Some("foreign"))] {
            registry.reload(std::slice::from_ref(&wrong));
            let refused = |now: &Published| {
                let words = ["degraded", "auth-failed"];
                ports(now) == [80] && words.contains(&now.sources[0].status.as_str())
            };
            until(&mut views, "it is refused", refused).await;
            registry.reload(std::slice::from_ref(&ours));
            until(&mut views, "it is read again", read).await;
        }
        stop.cancel();
        registry.ended().await;
    }
}
