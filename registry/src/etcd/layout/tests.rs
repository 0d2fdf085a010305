//! Golden keys and values of each layout.

use mesh_model::endpoint::Health;

use super::*;

fn place(kind: EtcdLayout, prefix: &str, key: &str) -> Option<(String, String)> {
    let place = Layout::new(kind, prefix).place(key.as_bytes())?;
    let namespace = place.service.namespace.unwrap_or_default();
    let port = place.service.port_name.map(|name| format!(":{name}"));
    let service = format!(
        "{namespace}/{}{}",
        place.service.name,
        port.unwrap_or_default()
    );
    Some((service, place.id.into_string()))
}

fn at(kind: EtcdLayout, prefix: &str, key: &str) -> (String, String) {
    place(kind, prefix, key).unwrap()
}

fn both(service: &str, id: &str) -> (String, String) {
    (service.to_owned(), id.to_owned())
}

fn read(kind: EtcdLayout, value: &str) -> Result<ServiceSet, Fault> {
    Layout::new(kind, kind.prefix()).read("x1", value.as_bytes())
}

#[test]
fn keys_of_meshd() {
    let kind = EtcdLayout::Meshd;
    let found = at(
        kind,
        kind.prefix(),
        "/meshd/v1/services/default/web/h1-web-80",
    );
    assert_eq!(found, both("default/web", "h1-web-80"));
    for key in [
        "/meshd/v1/services/default/web",
        "/meshd/v1/services/default/web/",
        "/meshd/v1/services/default/web/a/b",
        "/meshd/v1/services/default/Web/a",
        "/meshd/v1/services2/default/web/a",
        "/other",
    ] {
        assert_eq!(place(kind, kind.prefix(), key), None, "{key}");
    }
}

#[test]
fn keys_of_the_others() {
    use EtcdLayout::{GoMicro, Grpc, Registrator, Skydns};
    assert_eq!(
        at(Registrator, "/services/", "/services/Web_api/h1:web.1:80"),
        both("default/web-api", "h1:web.1:80")
    );
    assert_eq!(
        at(Skydns, "/skydns", "/skydns/com/example/web/x1"),
        both("example/web", "com/example/web/x1")
    );
    assert_eq!(
        at(Skydns, "/skydns/com/example", "/skydns/com/example/web/x1"),
        both("default/web", "web/x1")
    );
    assert_eq!(
        at(Skydns, "/skydns/com", "/skydns/com/db"),
        both("default/db", "db")
    );
    assert_eq!(
        at(
            Skydns,
            "/skydns/local",
            "/skydns/local/shop/web/_tcp/_http/x1"
        ),
        both("shop/web:http", "shop/web/_tcp/_http/x1")
    );
    assert_eq!(
        at(Grpc, "", "foo/bar/my-service/e1"),
        both("default/my-service", "e1")
    );
    assert_eq!(
        at(Grpc, "foo", "foo/my-service/e1"),
        both("default/my-service", "e1")
    );
    assert_eq!(
        at(
            GoMicro,
            "/micro/registry",
            "/micro/registry/go.micro.srv.greeter/greeter-1"
        ),
        both("default/go-micro-srv-greeter", "greeter-1")
    );
    assert_eq!(place(Registrator, "/services", "/services/naïve/1"), None);
    assert_eq!(place(Registrator, "/services", "/services/web"), None);
    let written = |key: &str| Layout::new(Grpc, "").place(key.as_bytes()).unwrap().written;
    assert_ne!(
        written("a/web/1"),
        written("b/web/1"),
        "two targets are not one service"
    );
}

#[test]
fn values_of_meshd() {
    let set = read(
        EtcdLayout::Meshd,
        r#"{"address":"[fd00::1]:8080","weight":5,"priority":1,"health":"draining","zone":"a",
            "metadata":{"version":"2"},"protocol":"http","port":80,"later":true}"#,
    )
    .unwrap();
    let one = &set.endpoints[0];
    assert_eq!(
        (one.address.to_string().as_str(), one.weight, one.priority),
        ("[fd00::1]:8080", 5, 1)
    );
    assert_eq!(one.health, Health::Draining);
    assert_eq!(one.locality.as_ref().unwrap().zone.as_deref(), Some("a"));
    assert_eq!((one.metadata["version"].as_str(), set.port), ("2", 80));
    assert_eq!(set.protocol.as_str(), "http");
    let host = read(EtcdLayout::Meshd, r#"{"address":"web.example:80"}"#).unwrap();
    assert_eq!(host.endpoints[0].address.to_string(), "web.example:80");
}

#[test]
fn values_of_skydns() {
    let set = read(
        EtcdLayout::Skydns,
        r#"{"host":"10.0.0.1","port":8080,"priority":20,"weight":0,"ttl":60,"text":"blue","group":"g1"}"#,
    )
    .unwrap();
    let one = &set.endpoints[0];
    assert_eq!(
        (one.address.to_string().as_str(), one.weight, one.priority),
        ("10.0.0.1:8080", 1, 20)
    );
    assert_eq!(
        (
            one.metadata["text"].as_str(),
            one.metadata["group"].as_str()
        ),
        ("blue", "g1")
    );
    assert_eq!(
        read(EtcdLayout::Skydns, r#"{"text":"only text"}"#)
            .unwrap()
            .endpoints,
        []
    );
    assert_eq!(
        read(
            EtcdLayout::Skydns,
            r#"{"host":"mx.example","mail":true,"port":25}"#
        )
        .unwrap()
        .endpoints,
        []
    );
    assert!(read(EtcdLayout::Skydns, r#"{"host":"10.0.0.1"}"#).is_err());
    let dotted = read(EtcdLayout::Skydns, r#"{"host":"web.example.","port":1}"#).unwrap();
    assert_eq!(dotted.endpoints[0].address.to_string(), "web.example:1");
}

#[test]
fn values_of_registrator() {
    let at =
        |text| read(EtcdLayout::Registrator, text).map(|set| set.endpoints[0].address.to_string());
    assert_eq!(at("10.0.0.1:32768\n").unwrap(), "10.0.0.1:32768");
    assert_eq!(at("[::1]:80").unwrap(), "[::1]:80");
    for text in [
        "",
        "10.0.0.1",
        "::1:80",
        "10.0.0.1:0",
        "10.0.0.1:70000",
        "0.0.0.0:80",
        "{}",
    ] {
        assert!(at(text).is_err(), "{text}");
    }
}

#[test]
fn values_of_grpc_naming() {
    let set = read(
        EtcdLayout::Grpc,
        r#"{"Op":0,"Addr":"10.0.0.1:50051","Metadata":{"weight":3,"zone":"a","canary":true,"tags":["x"]}}"#,
    )
    .unwrap();
    let one = &set.endpoints[0];
    assert_eq!((one.weight, one.metadata["canary"].as_str()), (3, "true"));
    assert_eq!(one.locality.as_ref().unwrap().zone.as_deref(), Some("a"));
    assert!(!one.metadata.contains_key("tags"));
    let old = read(
        EtcdLayout::Grpc,
        r#"{"Addr":"10.0.0.1:1","Metadata":"..."}"#,
    )
    .unwrap();
    assert_eq!(old.endpoints[0].metadata["metadata"], "...");
    assert_eq!(
        read(
            EtcdLayout::Grpc,
            r#"{"Op":1,"Addr":"10.0.0.1:1","Metadata":null}"#
        )
        .unwrap()
        .endpoints,
        []
    );
    assert!(read(EtcdLayout::Grpc, r#"{"Op":7,"Addr":"10.0.0.1:1"}"#).is_err());
    assert!(read(EtcdLayout::Grpc, r#"{"Op":0}"#).is_err());
}

#[test]
fn values_of_go_micro() {
    let set = read(
        EtcdLayout::GoMicro,
        r#"{"name":"go.micro.srv.greeter","version":"latest","metadata":null,"endpoints":[{"name":"Say.Hello","request":null}],
            "nodes":[{"id":"greeter-1","address":"10.0.0.1:8080","metadata":{"protocol":"grpc","registry":"etcd"}},
                     {"id":"greeter-2","address":"10.0.0.2","port":8081}]}"#,
    )
    .unwrap();
    let ids: Vec<_> = set
        .endpoints
        .iter()
        .map(|one| (&*one.id, one.address.to_string()))
        .collect();
    assert_eq!(
        ids,
        [
            ("greeter-1", "10.0.0.1:8080".to_owned()),
            ("greeter-2", "10.0.0.2:8081".to_owned())
        ]
    );
    assert_eq!(set.endpoints[0].metadata["version"], "latest");
    assert_eq!(set.endpoints[0].metadata["protocol"], "grpc");
    assert_eq!(
        read(EtcdLayout::GoMicro, r#"{"name":"x","nodes":null}"#)
            .unwrap()
            .endpoints,
        []
    );
}

#[test]
fn nothing_that_is_cut_or_foreign_is_understood() {
    let good = r#"{"address":"10.0.0.1:80","metadata":{"a":"b"}}"#;
    for end in 0..good.len() {
        assert!(
            read(EtcdLayout::Meshd, good.get(..end).unwrap()).is_err(),
            "{end}"
        );
    }
    let large = format!(
        r#"{{"address":"10.0.0.1:80","metadata":{{"a":"{}"}}}}"#,
        "x".repeat(5_000)
    );
    assert!(
        read(EtcdLayout::Meshd, &large).is_err(),
        "metadata has a bound"
    );
    for (_, kind) in EtcdLayout::ALL {
        for text in ["", "\0", "null", "[]", "7", "{\"", "\u{fffd}"] {
            assert!(read(kind, text).is_err(), "{kind:?} {text:?}");
        }
        let deep = "[".repeat(60_000);
        assert!(read(kind, &deep).is_err(), "{kind:?}");
        let layout = Layout::new(kind, kind.prefix());
        assert!(layout.read("x", &[0xff, 0xfe]).is_err(), "{kind:?}");
        assert!(layout.read("x", &vec![b' '; 70_000]).is_err(), "{kind:?}");
        for key in [&b"\xff"[..], b"", b"/", b"//", kind.prefix().as_bytes()] {
            assert_eq!(layout.place(key), None, "{kind:?} {key:?}");
        }
    }
}
