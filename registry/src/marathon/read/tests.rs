//! Applications in each network and of each age.

use mesh_model::endpoint::Health;
use serde_json::json;

use super::*;

fn read_with(value: &Value, taste: &Taste) -> App {
    app(value, taste).unwrap()
}

fn read(value: &Value) -> App {
    read_with(value, &Taste::default())
}

fn set(app: &App) -> &ServiceSet {
    match &app.part {
        Part::Of { set, .. } => set,
        other => panic!("{other:?}"),
    }
}

fn seen(app: &App) -> Vec<(String, Health)> {
    let all = set(app).endpoints.iter();
    all.map(|one| (one.address.to_string(), one.health))
        .collect()
}

fn name(app: &App) -> String {
    match &app.part {
        Part::Of { key, .. } => {
            format!("{}/{}", key.namespace.as_ref().unwrap(), key.name)
        }
        other => format!("{other:?}"),
    }
}

/// An application of 1.5 and later on hosts, from the documentation, with its tasks.
fn on_hosts() -> Value {
    json!({"id": "/prod/shop/web", "version": "v2", "instances": 2, "labels": {"owner": "zeus"},
        "networks": [{"mode": "host"}],
        "portDefinitions": [{"port": 10001, "name": "http", "protocol": "tcp"},
            {"port": 10002, "name": "admin", "protocol": "tcp", "labels": {"VIP_0": "/admin:90"}},
            {"port": 10003, "name": "dns", "protocol": "udp"}],
        "tasks": [
            {"id": "web.1", "host": "10.0.0.1", "ports": [31776, 31777, 31778], "state": "TASK_RUNNING",
             "region": "eu", "zone": "eu-1", "version": "v2"},
            {"id": "web.2", "host": "srv2.example.com", "ports": [31001, 31002, 31003], "state": "TASK_RUNNING"},
            {"id": "web.3", "host": "10.0.0.3", "ports": [31001, 31002, 31003], "state": "TASK_STAGING"},
            {"id": "web.4", "host": "10.0.0.4", "ports": [31001, 31002, 31003], "state": "TASK_KILLING"},
            {"id": "web.5", "host": "10.0.0.5", "ports": [31001, 31002, 31003], "state": "TASK_UNREACHABLE"},
            {"id": "web.6", "host": "10.0.0.6", "ports": null, "state": "TASK_RUNNING"}]})
}

fn addresses(value: &Value) -> Vec<String> {
    let found = seen(&read(value)).into_iter();
    found.map(|(address, _)| address).collect()
}

#[test]
fn ports_of_hosts() {
    let found = read(&on_hosts());
    assert_eq!(name(&found), "default/prod-shop-web");
    assert_eq!(
        seen(&found),
        [
            ("10.0.0.1:31776".into(), Health::Unknown),
            ("srv2.example.com:31001".into(), Health::Unknown),
            ("10.0.0.4:31001".into(), Health::Draining),
            ("10.0.0.5:31001".into(), Health::Unhealthy),
        ]
    );
    assert_eq!(set(&found).port, 10_001, "the service port");
    let first = &set(&found).endpoints[0];
    assert_eq!(
        first.locality.as_ref().unwrap().zone.as_deref(),
        Some("eu-1")
    );
    assert_eq!(first.metadata["owner"], "zeus");
    assert_eq!(first.metadata["marathon-app"], "/prod/shop/web");
    let bare = json!({"id": "/a", "ports": [10000, 10001], "tasks": [{"id": "1", "host": "h", "ports": [1, 2], "startedAt": "x"}]});
    assert_eq!(addresses(&bare), ["h:1"], "before there were definitions");
}

#[test]
fn labels_say_what_is_wanted() {
    let with = |label: &str, value: &str| {
        let mut app = on_hosts();
        app["labels"][label] = value.into();
        read(&app)
    };
    assert_eq!(with("mesh.enable", "false").part, Part::None);
    assert_eq!(name(&with("mesh.name", "shop/front")), "shop/front");
    let admin = with("mesh.port_index", "1");
    assert_eq!(
        set(&admin).endpoints[0].address.to_string(),
        "10.0.0.1:31777"
    );
    assert_eq!(set(&admin).port, 90, "as DC/OS balances it");
    assert_eq!(set(&with("mesh.port_index", "admin")), set(&admin));
    assert_eq!(
        set(&with("mesh.protocol", "grpc")).protocol,
        AppProtocol::Grpc
    );
    for (label, value) in [
        ("mesh.name", "No Name"),
        ("mesh.port_index", "7"),
        ("mesh.port_index", "dns"),
        ("mesh.protocol", "smoke"),
    ] {
        assert!(
            matches!(with(label, value).part, Part::Odd(_)),
            "{label} {value}"
        );
    }
    let taste = |prefix: &str| Taste {
        prefix: prefix.into(),
        port_index: 1,
    };
    assert_eq!(
        name(&read_with(&on_hosts(), &taste("/prod"))),
        "default/shop-web"
    );
    assert_eq!(read_with(&on_hosts(), &taste("/pro")).part, Part::None);
    assert_eq!(set(&read_with(&on_hosts(), &taste("/prod"))).port, 90);
}

#[test]
fn ports_behind_bridges() {
    let new = json!({"id": "/a", "networks": [{"mode": "container/bridge"}],
        "container": {"portMappings": [{"containerPort": 80, "hostPort": 0, "servicePort": 10019, "name": "http"},
            {"containerPort": 81, "name": "admin"}]},
        "labels": {"mesh.port_index": "admin"},
        "tasks": [{"id": "1", "host": "10.0.0.1", "ports": [31001, 31002], "state": "TASK_RUNNING",
            "ipAddresses": [{"ipAddress": "172.17.0.2", "protocol": "IPv4"}]}]});
    assert_eq!(addresses(&new), ["10.0.0.1:31002"]);
    let old = json!({"id": "/a", "container": {"docker": {"network": "BRIDGE",
            "portMappings": [{"containerPort": 80, "hostPort": 0, "servicePort": 10019}]}},
        "tasks": [{"id": "1", "host": "10.0.0.1", "ports": [31001], "state": "TASK_RUNNING"}]});
    assert_eq!(addresses(&old), ["10.0.0.1:31001"]);
    assert_eq!(set(&read(&old)).port, 10_019);
}

#[test]
fn addresses_of_tasks() {
    let new = json!({"id": "/a", "networks": [{"mode": "container", "name": "dcos"}],
        "container": {"portMappings": [{"containerPort": 80}, {"containerPort": 81, "hostPort": 31001},
            {"containerPort": 0, "hostPort": 0, "name": "any"}]},
        "tasks": [{"id": "1", "host": "10.0.0.1", "ports": [31001, 31002], "state": "TASK_RUNNING",
            "ipAddresses": [{"ipAddress": "9.0.0.2", "protocol": "IPv4"}]},
            {"id": "2", "host": "10.0.0.1", "ports": [31001, 31002], "state": "TASK_RUNNING", "ipAddresses": []}]});
    assert_eq!(
        addresses(&new),
        ["9.0.0.2:80"],
        "the one without an address is left out"
    );
    let mut any = new.clone();
    any["labels"] = json!({"mesh.port_index": "any"});
    assert_eq!(addresses(&any), ["9.0.0.2:31002"]);
    let old = json!({"id": "/a", "ipAddress": {"discovery": {"ports": [{"number": 8080, "name": "rest", "protocol": "tcp"}]}},
        "tasks": [{"id": "1", "host": "10.0.0.1", "state": "TASK_RUNNING", "ipAddresses": [{"ipAddress": "fd00::2"}]}]});
    assert_eq!(addresses(&old), ["[fd00::2]:8080"]);
}

#[test]
fn every_check_must_have_said_that_a_task_is_alive() {
    let health = |results: Value| {
        let app = read(&json!({"id": "/a", "healthChecks": [{}, {}], "ports": [1],
            "tasks": [{"id": "1", "host": "h", "ports": [1], "state": "TASK_RUNNING", "healthCheckResults": results}]}));
        (seen(&app)[0].1, app.waits)
    };
    assert_eq!(
        health(json!([])),
        (Health::Unhealthy, true),
        "time to start"
    );
    assert_eq!(
        health(json!([null, {"alive": true}])),
        (Health::Unhealthy, true)
    );
    assert_eq!(
        health(json!([{"alive": true}, {"alive": false}])),
        (Health::Unhealthy, false)
    );
    assert_eq!(
        health(json!([{"alive": true}, {"alive": true}])),
        (Health::Healthy, false)
    );
}

#[test]
fn what_is_deployed_must_become_ready() {
    let health = |deployments: Value, results: Value, version: &str| {
        let app = read(
            &json!({"id": "/a", "version": "v2", "ports": [1], "readinessChecks": [{"name": "r"}],
            "deployments": deployments, "readinessCheckResults": results,
            "tasks": [{"id": "1", "host": "h", "ports": [1], "state": "TASK_RUNNING", "version": version}]}),
        );
        (seen(&app)[0].1, app.waits)
    };
    let now = || json!([{"id": "d"}]);
    assert_eq!(health(now(), json!([]), "v2"), (Health::Unhealthy, true));
    assert_eq!(
        health(now(), json!([]), "v1"),
        (Health::Unknown, false),
        "it was ready before"
    );
    let result =
        |ready: bool| json!([{"taskId": "1", "ready": ready}, {"taskId": "2", "ready": false}]);
    assert_eq!(
        health(now(), result(false), "v2"),
        (Health::Unhealthy, true)
    );
    assert_eq!(health(now(), result(true), "v2"), (Health::Unknown, false));
    assert_eq!(
        health(json!([]), result(false), "v2"),
        (Health::Unknown, false),
        "all done"
    );
}

#[test]
fn what_is_no_answer_is_refused() {
    let read_bytes = |text: &[u8]| {
        let mut document = serde_json::Deserializer::from_slice(text);
        let taste = Taste::default();
        let found = Reader(&taste).deserialize(&mut document);
        found
            .and_then(|found| document.end().map(|()| found))
            .map_err(|error| error.to_string())
    };
    let read = |text: &str| read_bytes(text.as_bytes());
    let whole =
        json!({"apps": [on_hosts(), {"id": "/batch", "ports": [], "tasks": []}]}).to_string();
    let found = read(&whole).unwrap();
    assert_eq!(found.len(), 2);
    assert_eq!(found[1].part, Part::None, "nothing to call");
    assert_eq!(read("{\"apps\":[]}").unwrap(), []);
    for end in 0..whole.len() {
        assert!(read_bytes(&whole.as_bytes()[..end]).is_err(), "{end}");
    }
    for wrong in [
        "{}",
        "[]",
        "null",
        "{\"apps\":null}",
        "{\"apps\":[7]}",
        "{\"apps\":[{}]}",
        "{\"apps\":[{\"id\":\"/a\"}]}",
        "{\"message\":\"no\"}",
    ] {
        assert!(read(wrong).is_err(), "{wrong}");
    }
}
