//! What becomes of registered instances.

use mesh_model::{
    config::{Sources, read},
    fact::ViewEndpoint,
};

use super::*;

fn view(service: &str, address: &str) -> Arc<RegistryView> {
    Arc::new(RegistryView {
        source: "consul/dc1".to_owned(),
        namespace: "default".to_owned(),
        service: service.to_owned(),
        endpoints: vec![ViewEndpoint {
            id: format!("{service}-1"),
            address: address.to_owned(),
            ..ViewEndpoint::default()
        }],
        protocol: "http".to_owned(),
        port: 0,
    })
}

fn listener(address: &str, port: u16, uid: u32, unit: Option<&str>) -> Listener {
    Listener {
        address: address.parse().unwrap(),
        port,
        uid,
        unit: unit.map(str::to_owned),
    }
}

fn service_of(file: &AdoptedFile) -> Arc<LocalService> {
    let path = format!("/etc/meshd/services.d/{}", file.name);
    let sources = Sources {
        files: vec![(path, file.text.clone())],
        ..Sources::default()
    };
    let (_, live) = read(&sources).unwrap_or_else(|faults| panic!("{faults:?}\n{}", file.text));
    Arc::clone(&live.services[0])
}

fn known<'a>(addresses: &'a [IpAddr], services: &'a [Arc<LocalService>]) -> Known<'a> {
    Known {
        views: vec![
            view("web", "10.0.0.1:8080"),
            view("api", "10.0.0.1:8081"),
            view("root", "10.0.0.1:8082"),
            view("shared", "10.0.0.1:8083"),
            view("gone", "10.0.0.1:8084"),
            view("far", "10.0.0.2:8080"),
            view("consul", "10.0.0.1:8080"),
            view("web", "10.0.0.1:9090"),
        ],
        addresses,
        listeners: vec![
            listener("0.0.0.0", 8080, 4_000_001, Some("web.service")),
            listener("10.0.0.1", 8081, 4_000_002, None),
            listener("::", 8082, 0, None),
            listener("0.0.0.0", 8083, 4_000_002, None),
            listener("127.0.0.1", 8084, 4_000_003, None),
            listener("0.0.0.0", 9090, 4_000_001, Some("web.service")),
        ],
        services,
        dialled: BTreeMap::new(),
        trials: "/var/lib/meshd/trial",
    }
}

#[test]
fn each_becomes_what_it_is() {
    let own = ["10.0.0.1".parse().unwrap()];
    let known = known(&own, &[]);
    let all = proposals(&known);
    let told: Vec<(&str, &str)> = all
        .iter()
        .map(|one| (one.service.as_str(), one.state.as_str()))
        .collect();
    assert_eq!(
        told,
        [
            ("default/api", "ready"),
            ("default/gone", "missing"),
            ("default/root", "ready"),
            ("default/shared", "ready"),
            ("default/web", "ready"),
            ("default/web", "ready"),
        ]
    );
    let files: Vec<Option<&AdoptedFile>> = all.iter().map(|one| one.file.as_ref()).collect();
    let api = service_of(files[0].unwrap());
    assert_eq!(api.recognise.uids, [4_000_002]);
    assert_eq!(api.address, Some(own[0]));
    assert!(files[1].is_none());
    assert!(all[2].remark.contains("root"), "{}", all[2].remark);
    assert!(
        all[3].remark.contains("default/api already"),
        "{}",
        all[3].remark
    );
    let web = service_of(files[4].unwrap());
    assert_eq!(web.recognise.unit.as_deref(), Some("web.service"));
    assert_eq!((web.ports[0].port, web.ports[0].target), (8080, 8080));
    assert_eq!(web.address, None);
    let second = service_of(files[5].unwrap());
    assert_eq!(second.instance, "web-9090");
    assert!(files[4].unwrap().text.starts_with(MARK));
}

#[test]
fn all_of_them_together_are_a_good_configuration() {
    let own = ["10.0.0.1".parse().unwrap()];
    let known = known(&own, &[]);
    let files = proposals(&known).into_iter().filter_map(|one| one.file);
    let files = files.map(|file| (format!("/etc/meshd/services.d/{}", file.name), file.text));
    let sources = Sources {
        files: files.collect(),
        ..Sources::default()
    };
    let (_, live) = read(&sources).unwrap_or_else(|faults| panic!("{faults:?}"));
    assert_eq!(live.services.len(), 5);
    let again = proposals(&Known {
        services: &live.services,
        ..known
    });
    assert!(again.iter().all(|one| one.file.is_none()), "{again:#?}");
}
