//! Three hosts over loopback: joined for real, with real sockets, keys and disks.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use mesh_identity::key::Ed25519Key;
use mesh_model::{
    admin::{CreateToken, Init, Join},
    catalog::{Liveness, ResourceKey},
    commit::{Change, Commit, CommitId, Op},
    fact::{HostInfo, RecordKind},
    grant::domain,
};
use prost::Message as _;
use tempfile::TempDir;

use super::*;
use crate::admission::{self, Probes, Reach, Site, Tokens};

/// A host that runs.
struct Host {
    cluster: Cluster,
    tokens: Arc<Tokens>,
    site: Site,
    stop: CancellationToken,
    tasks: TaskTracker,
    udp: bool,
}

fn site(directory: &TempDir, name: &str) -> Site {
    // An address of this test alone, with two ports that are free there.
    let ip = Ipv4Addr::new(
        127,
        fastrand::u8(1..255),
        fastrand::u8(..),
        fastrand::u8(1..255),
    );
    let free = || std::net::TcpListener::bind((ip, 0)).unwrap();
    let (cluster, tunnel) = (free(), free());
    Site {
        state_dir: directory.path().join(name),
        host_name: name.to_owned(),
        addresses: vec![IpAddr::V4(ip)],
        cluster: cluster.local_addr().unwrap(),
        tunnel: tunnel.local_addr().unwrap(),
        udp: true,
    }
}

impl Host {
    async fn open(site: Site, udp: bool) -> Self {
        let identity = Arc::new(Identity::load(&site.state_dir).unwrap());
        let tokens = Arc::new(Tokens::open(Arc::clone(&identity), &site).unwrap());
        let probes = Probes::default();
        let joins = JoinServer::new(
            Arc::clone(&identity),
            Arc::clone(&tokens),
            probes,
            site.clone(),
        );
        let credentials = Credentials::new();
        crate::certificates::load(&identity, &credentials, wall_ms());
        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        let cluster = Cluster::start(Start {
            listen: site.cluster,
            udp,
            mark: None,
            seeds: identity.seeds().to_vec(),
            identity: Arc::clone(&identity),
            credentials,
            disk: Arc::new(Disk::open(&site.state_dir).unwrap()),
            handler: Arc::new(|caller, kind, body| {
                Box::pin(async move {
                    match kind.as_str() {
                        "echo" => Ok([caller.short().as_bytes(), &body].concat().into()),
                        "slow" => std::future::pending().await,
                        other => Err(format!("unknown kind {other}")),
                    }
                })
            }),
            joins: joins.clone(),
            tasks: tasks.clone(),
            stop: stop.clone(),
        })
        .unwrap();
        joins.connect(reach(&cluster));
        let host = Self {
            cluster,
            tokens,
            site,
            stop,
            tasks,
            udp,
        };
        host.cluster.publish(vec![host.record()]).await;
        host
    }

    fn record(&self) -> Record {
        let info = HostInfo {
            name: self.site.host_name.clone(),
            addresses: self
                .site
                .addresses
                .iter()
                .map(ToString::to_string)
                .collect(),
            cluster_port: self.site.cluster.port().into(),
            tunnel_port: self.site.tunnel.port().into(),
            ..HostInfo::default()
        };
        Record {
            key: "host".to_owned(),
            kind: RecordKind::Host.into(),
            body: info.encode_to_vec(),
        }
    }

    /// Ends without a word, as if killed.
    async fn kill(self) -> (Site, bool) {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
        (self.site, self.udp)
    }

    fn id(&self) -> HostId {
        self.cluster.catalog().mesh.as_ref().unwrap().host
    }
}

fn reach(cluster: &Cluster) -> Reach {
    let (grants, publish, of, call) = (
        cluster.clone(),
        cluster.clone(),
        cluster.clone(),
        cluster.clone(),
    );
    Reach {
        grants: Arc::new(move || {
            let cluster = grants.clone();
            Box::pin(async move { cluster.grants().await })
        }),
        publish: Arc::new(move |grants| {
            let cluster = publish.clone();
            Box::pin(async move { cluster.add_grants(grants).await })
        }),
        grant_of: Arc::new(move |host| {
            of.catalog()
                .hosts
                .get(&host)
                .and_then(|facts| facts.grant.as_deref().cloned())
        }),
        call: Arc::new(move |host, kind, body| {
            let cluster = call.clone();
            Box::pin(async move {
                let answer = cluster.call(host, kind, body, Duration::from_secs(5)).await;
                answer.map_err(|error| error.to_string())
            })
        }),
    }
}

/// Waits until `holds`, at most half a minute: the machine may be busy.
async fn eventually(what: &str, holds: impl Fn() -> bool) -> Duration {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < Duration::from_secs(30), "never: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    start.elapsed()
}

fn all_alive(hosts: &[Host]) -> bool {
    hosts.iter().all(|host| {
        let catalog = host.cluster.catalog();
        let alive = catalog
            .hosts
            .values()
            .filter(|facts| facts.liveness == Liveness::Alive);
        alive.filter(|facts| facts.info.is_some()).count() == hosts.len()
    })
}

struct Mesh {
    hosts: Vec<Host>,
    operator: Ed25519Key,
    operator_grant: Signed,
    _directory: TempDir,
}

/// A mesh of `count` hosts, the further ones joined by token.
async fn mesh(count: usize, udp: bool) -> Mesh {
    let directory = tempfile::tempdir().unwrap();
    let operator = Ed25519Key::generate().unwrap();
    let first = site(&directory, "h0");
    std::fs::create_dir(&first.state_dir).unwrap();
    let init = Init {
        mesh_name: "test".to_owned(),
        trust_domain: "test.example".to_owned(),
        operator: "ada".to_owned(),
        operator_key: data_encoding::HEXLOWER.encode(&operator.public()),
        ..Init::default()
    };
    let made = admission::init(first.clone(), &init).unwrap();
    // The join asks whether the tunnel's port answers.
    let tunnel = std::net::TcpListener::bind(first.tunnel).unwrap();
    let mut hosts = vec![Host::open(first, udp).await];
    for number in 1..count {
        let wanted = CreateToken {
            uses: 1,
            ..CreateToken::default()
        };
        let token = hosts[0].tokens.create(&wanted).unwrap().token;
        let next = Site {
            udp,
            ..site(&directory, &format!("h{number}"))
        };
        std::fs::create_dir(&next.state_dir).unwrap();
        let (steps, mut heard) = mpsc::channel(64);
        let request = Join {
            token,
            fresh: false,
        };
        let joined = admission::join(next.clone(), &request, &steps).await;
        drop(steps);
        while let Some(step) = heard.recv().await {
            assert_ne!(step.state, "error", "{step:?}");
        }
        joined.unwrap();
        hosts.push(Host::open(next, udp).await);
    }
    drop(tunnel);
    eventually("all see all alive", || all_alive(&hosts)).await;
    Mesh {
        hosts,
        operator,
        operator_grant: made.operator_grant,
        _directory: directory,
    }
}

impl Mesh {
    fn commit(&self, name: &str, bases: &[CommitId], edit: u8) -> Signed {
        let document = format!(
            r#"{{"apiVersion":"meshd.io/v1alpha1","kind":"Service","metadata":{{"name":"{name}","namespace":"default"}},"spec":{{"ports":[{{"port":{}}}]}}}}"#,
            8000 + u16::from(edit)
        );
        let catalog = self.hosts[0].cluster.catalog();
        let commit = Commit {
            mesh_id: catalog.mesh.as_ref().unwrap().id.0.to_vec(),
            changes: vec![Change {
                kind: "Service".to_owned(),
                namespace: "default".to_owned(),
                name: name.to_owned(),
                bases: bases.iter().map(|base| base.0.to_vec()).collect(),
                op: Op::Put.into(),
                document: document.into_bytes(),
            }],
            author_grant: self.operator_grant.encode_to_vec(),
            hlc: wall_ms() << 16,
            edit_id: vec![edit; 16],
            ..Commit::default()
        };
        self.operator.sign(domain::COMMIT, commit.encode_to_vec())
    }
}

fn service(name: &str) -> ResourceKey {
    ResourceKey {
        kind: "Service".to_owned(),
        namespace: "default".to_owned(),
        name: name.to_owned(),
    }
}

#[tokio::test]
async fn three_hosts_share_edits_questions_and_deaths() {
    let mut mesh = mesh(3, true).await;
    // An edit is taken by any host and is everywhere soon; a stale one is refused with what is there.
    let accepted = mesh.hosts[2]
        .cluster
        .submit(mesh.commit("web", &[], 1))
        .await
        .unwrap();
    let has = |host: &Host| {
        host.cluster
            .catalog()
            .resources
            .contains_key(&service("web"))
    };
    assert!(
        has(&mesh.hosts[2]),
        "who was told that an edit stands finds it"
    );
    eventually("the edit is everywhere", || mesh.hosts.iter().all(has)).await;
    let stale = mesh.hosts[0]
        .cluster
        .submit(mesh.commit("web", &[], 2))
        .await
        .unwrap_err();
    assert!(matches!(stale, SubmitError::Stale(_)), "{stale:?}");
    let next = mesh.commit("web", &[accepted.id], 3);
    mesh.hosts[0].cluster.submit(next).await.unwrap();
    eventually("every host says that it has both", || {
        let catalog = mesh.hosts[1].cluster.catalog();
        catalog
            .hosts
            .values()
            .all(|facts| facts.commit_count == 2 && facts.commits == catalog.commits)
    })
    .await;
    assert_eq!(
        mesh.hosts[1]
            .cluster
            .history(HistoryFilter::default())
            .await
            .len(),
        2
    );

    // Datagrams pass both ways, on every pair.
    for host in &mesh.hosts {
        let start = Instant::now();
        loop {
            let links = host.cluster.ask(|node| node.links()).await.unwrap();
            if links.len() == 2 && links.iter().all(|link| link.tcp && link.udp == Some(true)) {
                break;
            }
            assert!(
                start.elapsed() < Duration::from_secs(30),
                "no datagrams: {links:?}"
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    // Questions go to any host; what is asked too slowly or wrongly is told.
    let (own, asked) = (mesh.hosts[1].id(), mesh.hosts[2].id());
    let call = |kind, body: Bytes, wait| {
        mesh.hosts[1]
            .cluster
            .call(asked, kind, body, Duration::from_millis(wait))
    };
    let answer = call("echo", Bytes::from_static(b"?"), 5000).await.unwrap();
    assert_eq!(answer, format!("{}?", own.short()).into_bytes());
    assert_eq!(call("slow", Bytes::new(), 100).await, Err(CallError::Late));
    assert!(matches!(
        call("none", Bytes::new(), 5000).await,
        Err(CallError::Refused(_))
    ));
    let long = Bytes::from(vec![0; frame::LIMIT]);
    assert!(matches!(
        call("echo", long, 5000).await,
        Err(CallError::Refused(_))
    ));

    // Killed: down everywhere soon. Started again: everything is there from its own disk, before any peer.
    let gone = mesh.hosts.pop().unwrap().kill().await;
    let down = |host: &Host| host.cluster.catalog().hosts[&asked].liveness == Liveness::Down;
    let took = eventually("the dead host is down", || mesh.hosts.iter().all(down)).await;
    assert!(took < Duration::from_secs(10), "took {took:?}");
    let (site, udp) = gone;
    let back = Host::open(site, udp).await;
    assert_eq!(back.cluster.catalog().commit_count, 2);
    assert_eq!(back.cluster.catalog().hosts.len(), 3);
    assert!(
        back.cluster
            .catalog()
            .resources
            .contains_key(&service("web"))
    );
    mesh.hosts.push(back);
    eventually("it is back", || all_alive(&mesh.hosts)).await;

    // A goodbye is told.
    let left = mesh.hosts.pop().unwrap();
    left.cluster.leave().await;
    let said = |host: &Host| host.cluster.catalog().hosts[&asked].leaving;
    eventually("the goodbye is known", || mesh.hosts.iter().all(said)).await;
    left.kill().await;
}

#[tokio::test]
async fn membership_goes_over_links_where_there_are_no_datagrams() {
    let mut mesh = mesh(2, false).await;
    let links = mesh.hosts[0].cluster.links().await;
    assert!(links.iter().all(|row| row.tcp && !row.udp), "{links:?}");
    let asked = mesh.hosts[1].id();
    mesh.hosts.pop().unwrap().kill().await;
    eventually("the dead host is down", || {
        mesh.hosts[0].cluster.catalog().hosts[&asked].liveness == Liveness::Down
    })
    .await;
}

#[tokio::test]
async fn garbage_on_the_ports_disturbs_nobody() {
    let mesh = mesh(2, true).await;
    let place: SocketAddr = mesh.hosts[0].site.cluster;
    let socket = tokio::net::UdpSocket::bind((place.ip(), 0)).await.unwrap();
    for length in 0..64 {
        socket
            .send_to(&vec![fastrand::u8(..); length * 30], place)
            .await
            .unwrap();
    }
    for _each in 0..8 {
        use tokio::io::AsyncWriteExt as _;
        let mut stream = tokio::net::TcpStream::connect(place).await.unwrap();
        // The far end may have closed already.
        drop(stream.write_all(&[0x16, 3, 1, 0xff, 0xff, 7, 7]).await);
    }
    let accepted = mesh.hosts[0]
        .cluster
        .submit(mesh.commit("web", &[], 1))
        .await
        .unwrap();
    eventually("the edit is there", || {
        let catalog = mesh.hosts[1].cluster.catalog();
        catalog
            .resources
            .get(&service("web"))
            .is_some_and(|web| web.revision == accepted.id)
    })
    .await;
    assert!(all_alive(&mesh.hosts));
}
