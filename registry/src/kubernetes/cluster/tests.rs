//! Services follow from slices, whatever order things come in.

use mesh_model::{
    address::Address,
    endpoint::{Health, Locality},
    service::AppProtocol,
};
use proptest::prelude::*;

use super::*;
use crate::kubernetes::object::{Member, SlicePort, Stamp};

fn key(name: &str) -> Key {
    Key {
        namespace: Namespace::default(),
        name: Arc::from(name),
    }
}

fn object(name: &str, version: u64, content: Content) -> Object {
    Object {
        key: key(name),
        stamp: Stamp {
            uid: "u".into(),
            version,
        },
        content,
    }
}

fn service(name: &str, ports: &[(&str, u16)]) -> Object {
    let ports = ports.iter().map(|(name, port)| ServicePort {
        name: Arc::from(*name),
        port: *port,
        target: None,
        protocol: None,
    });
    let service = Service {
        ports: ports.collect(),
    };
    object(name, 1, Content::Service(service))
}

fn slice(
    name: &str,
    version: u64,
    of: &str,
    ports: &[(&str, u16)],
    members: &[(&str, Health)],
) -> Object {
    let ports = ports.iter().map(|(name, port)| SlicePort {
        name: Arc::from(*name),
        port: Some(*port),
        protocol: (*name == "web").then_some(AppProtocol::Http),
    });
    let members = members.iter().map(|(host, health)| Member {
        host: Box::from(*host),
        health: *health,
        locality: Some(Arc::new(Locality {
            zone: Some("a".into()),
            ..Locality::default()
        })),
        metadata: Arc::default(),
    });
    let slice = Slice {
        service: Arc::from(of),
        ports: ports.collect(),
        members: members.collect(),
        skipped: 0,
    };
    object(name, version, Content::Slice(slice))
}

/// Each service and port as text: `name/port: dialled protocol address=health…`.
fn told(news: Vec<News>) -> Vec<String> {
    let mut lines: Vec<String> = news
        .into_iter()
        .map(|news| match news {
            News::Absent(key) => format!("{}/{} gone", key.name, key.port_name.unwrap_or_default()),
            News::Set(key, set) => {
                let mut all = BTreeMap::new();
                for one in &set.endpoints {
                    all.insert(one.id.clone(), format!(" {}={:?}", one.id, one.health));
                }
                let all: String = all.into_values().collect();
                let port = key.port_name.unwrap_or_default();
                format!("{}/{port}: {} {}{all}", key.name, set.port, set.protocol)
            }
        })
        .collect();
    lines.sort();
    lines
}

#[test]
fn a_service_is_the_union_of_its_slices() {
    let mut cluster = Cluster::default();
    let up = Health::Healthy;
    cluster.put(
        Kind::Slices,
        slice(
            "web-1",
            5,
            "web",
            &[("web", 8080), ("admin", 9)],
            &[("10.0.0.1", up)],
        ),
    );
    assert!(told(cluster.news(|_| true)).is_empty(), "no Service yet");
    cluster.put(
        Kind::Services,
        service("web", &[("web", 80), ("admin", 81), ("none", 82)]),
    );
    assert_eq!(
        told(cluster.news(|_| true)),
        [
            "web/admin: 81 detect 10.0.0.1:9=Healthy",
            "web/none: 82 detect",
            "web/web: 80 http 10.0.0.1:8080=Healthy"
        ]
    );
    // The same endpoint in two slices: the newer one counts, whichever came last.
    cluster.put(
        Kind::Slices,
        slice(
            "web-3",
            9,
            "web",
            &[("web", 8080)],
            &[("10.0.0.1", Health::Draining), ("fd00::1", up)],
        ),
    );
    cluster.put(
        Kind::Slices,
        slice("web-2", 7, "web", &[("web", 8080)], &[("10.0.0.1", up)]),
    );
    let now = told(cluster.news(|_| true));
    assert_eq!(
        now[2],
        "web/web: 80 http 10.0.0.1:8080=Draining [fd00::1]:8080=Healthy"
    );
    // Ports of the Service and whole slices go.
    cluster.put(Kind::Services, service("web", &[("web", 80)]));
    cluster.gone(Kind::Slices, &key("web-3"));
    assert_eq!(
        told(cluster.news(|_| true)),
        [
            "web/admin gone",
            "web/none gone",
            "web/web: 80 http 10.0.0.1:8080=Healthy"
        ]
    );
    cluster.gone(Kind::Services, &key("web"));
    assert_eq!(told(cluster.news(|_| true)), ["web/web gone"]);
    assert!(told(cluster.news(|_| true)).is_empty());
}

#[test]
fn a_port_that_no_slice_names_leads_to_the_target_or_itself() {
    let mut cluster = Cluster::default();
    let mut made = service("db", &[("", 5432)]);
    cluster.put(Kind::Services, made.clone());
    let mut of = slice(
        "db-1",
        1,
        "db",
        &[("", 1)],
        &[
            ("db.test", Health::Unhealthy),
            ("fe80::1%eth0", Health::Healthy),
        ],
    );
    if let Content::Slice(of) = &mut of.content {
        of.ports[0].port = None;
    }
    cluster.put(Kind::Slices, of);
    assert_eq!(
        told(cluster.news(|_| true)),
        ["db/: 5432 detect db.test:5432=Unhealthy"]
    );
    if let Content::Service(made) = &mut made.content {
        made.ports[0].target = Some(6000);
    }
    cluster.put(Kind::Services, made);
    assert_eq!(
        told(cluster.news(|_| true)),
        ["db/: 5432 detect db.test:6000=Unhealthy"]
    );
    let all = cluster.all();
    assert!(matches!(
        &all[0].1.endpoints[0].address,
        Address::Host { .. }
    ));
    assert_eq!(all[0].0.port_name, None);
}

#[test]
fn only_what_is_asked_for_and_complete_is_told() {
    let only = BTreeSet::from([ServiceName::new("web").unwrap()]);
    let mut cluster = Cluster::new(Some(Arc::new(only)), false);
    cluster.put(Kind::Services, service("web", &[("", 80)]));
    cluster.put(Kind::Services, service("api", &[("", 80)]));
    cluster.put(
        Kind::Slices,
        slice(
            "api-1",
            1,
            "api",
            &[("", 1)],
            &[("10.0.0.1", Health::Healthy)],
        ),
    );
    assert!(told(cluster.news(|_| false)).is_empty());
    assert_eq!(
        told(cluster.news(|_| true)),
        ["web/: 80 detect"],
        "later, when it is"
    );
    assert_eq!((cluster.slices.len(), cluster.size), (0, 0));
}

#[test]
fn an_object_that_cannot_be_read_keeps_what_is_known() {
    let mut cluster = Cluster::default();
    cluster.put(Kind::Services, service("web", &[("", 80)]));
    cluster.news(|_| true);
    assert!(!cluster.put(Kind::Services, object("web", 2, Content::Unreadable)));
    assert!(told(cluster.news(|_| true)).is_empty());
    cluster.sweep(Kind::Services, None, &BTreeSet::from([key("web")]));
    assert!(told(cluster.news(|_| true)).is_empty(), "it is there");
    cluster.sweep(
        Kind::Services,
        Some(&Namespace::new("other").unwrap()),
        &BTreeSet::new(),
    );
    assert!(
        told(cluster.news(|_| true)).is_empty(),
        "another namespace's list says nothing of it"
    );
    cluster.sweep(Kind::Services, None, &BTreeSet::new());
    assert_eq!(told(cluster.news(|_| true)), ["web/ gone"]);
}

#[test]
fn labels_of_pods_are_labels_of_endpoints() {
    let pod = |name: &str, version: &str| {
        let labels = BTreeMap::from([("version", version), ("pod", "mine")]);
        let labels = labels
            .into_iter()
            .map(|(name, value)| (name.to_owned(), value.to_owned()));
        object(name, 1, Content::Pod(Arc::new(labels.collect())))
    };
    let mut cluster = Cluster::new(None, true);
    let said = |cluster: &mut Cluster| {
        let mut news = cluster.news(|_| true);
        assert!(news.len() < 2, "{news:?}");
        news.pop().map(|news| match news {
            News::Set(_, set) => format!("{:?}", set.endpoints[0].metadata),
            News::Absent(_) => "gone".to_owned(),
        })
    };
    cluster.put(Kind::Pods, pod("web-a", "v1"));
    cluster.put(Kind::Services, service("web", &[("", 80)]));
    let mut of = slice(
        "web-1",
        1,
        "web",
        &[("", 1)],
        &[("10.0.0.1", Health::Healthy)],
    );
    if let Content::Slice(of) = &mut of.content {
        let own = BTreeMap::from([("pod".to_owned(), "web-a".to_owned())]);
        of.members[0].metadata = Arc::new(own);
    }
    cluster.put(Kind::Slices, of);
    let with = |version: &str| {
        Some(format!(
            "{{\"pod\": \"web-a\", \"version\": \"{version}\"}}"
        ))
    };
    assert_eq!(
        said(&mut cluster),
        with("v1"),
        "what the slice says goes before"
    );
    cluster.put(Kind::Pods, pod("web-a", "v2"));
    assert_eq!(said(&mut cluster), with("v2"));
    cluster.put(Kind::Pods, pod("web-b", "v2"));
    assert_eq!(said(&mut cluster), None, "nobody's");
    cluster.sweep(Kind::Pods, None, &BTreeSet::new());
    assert_eq!(said(&mut cluster), Some("{\"pod\": \"web-a\"}".to_owned()));
    cluster.gone(Kind::Slices, &key("web-1"));
    assert!(cluster.homes.is_some_and(|homes| homes.is_empty()));
}

/// One thing that happens: to which object, and how.
fn happening() -> impl Strategy<Value = (bool, usize, usize, u8)> {
    (any::<bool>(), 0..4_usize, 0..3_usize, 0..5_u8)
}

proptest! {
    /// After any history, what was told step by step is what a fresh look at the objects tells.
    #[test]
    fn any_history_ends_in_the_same(history in prop::collection::vec(happening(), 0..60)) {
        let mut cluster = Cluster::default();
        let mut told_so_far: BTreeMap<ServiceKey, ServiceSet> = BTreeMap::new();
        for (at, (is_service, which, of, how)) in history.into_iter().enumerate() {
            let (name, of) = (format!("n{which}"), format!("n{of}"));
            let version = u64::try_from(at).unwrap();
            let ports: &[(&str, u16)] = if how == 1 { &[("", 80)] } else { &[("web", 80), ("admin", 81)] };
            match (is_service, how) {
                (true, 0) => cluster.gone(Kind::Services, &key(&name)),
                (false, 0) => cluster.gone(Kind::Slices, &key(&name)),
                (true, _) => { cluster.put(Kind::Services, service(&name, ports)); }
                (false, _) => {
                    let host = format!("10.0.0.{how}");
                    cluster.put(Kind::Slices, slice(&name, version, &of, ports, &[(&host, Health::Healthy)]));
                }
            }
            for news in cluster.news(|_| true) {
                match news {
                    News::Set(key, set) => { told_so_far.insert(key, set); }
                    News::Absent(key) => { prop_assert!(told_so_far.remove(&key).is_some()); }
                }
            }
        }
        let size: usize = cluster.slices.values().map(|(_, slice)| slice.members.len()).sum();
        prop_assert_eq!(cluster.size, size);
        let fresh: BTreeMap<ServiceKey, ServiceSet> = cluster.all().into_iter().collect();
        prop_assert_eq!(told_so_far, fresh);
    }
}
