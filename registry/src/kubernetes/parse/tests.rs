//! Answers as the API server writes them, and those that it should not.

use std::sync::Arc;

use mesh_model::{endpoint::Health, service::AppProtocol};

use super::*;
use crate::kubernetes::object::{Content, Slice};

/// As kube-apiserver 1.34 answers, shortened.
const SLICES: &str = r#"{"kind":"EndpointSliceList","apiVersion":"discovery.k8s.io/v1",
"metadata":{"resourceVersion":"1283","continue":"eyJ2IjoibWV0YS5rOHMuaW8vdjEi","remainingItemCount":7},"items":[
{"metadata":{"name":"web-abc12","generateName":"web-","namespace":"shop","uid":"6d4f0a3e-2a90-4f0e-8f5b-3f2e0c7c0d3a","resourceVersion":"1201","generation":3,
"labels":{"endpointslice.kubernetes.io/managed-by":"endpointslice-controller.k8s.io","kubernetes.io/service-name":"web"},"managedFields":[{"manager":"x","fieldsV1":{"f:a":{}}}]},
"addressType":"IPv4","endpoints":[
{"addresses":["10.1.2.3"],"conditions":{"ready":true,"serving":true,"terminating":false},"nodeName":"n1","zone":"eu-1a","targetRef":{"kind":"Pod","namespace":"shop","name":"web-7d9f-x1","uid":"1"},"hints":{"forZones":[{"name":"eu-1a"},{"name":"eu-1b"}]}},
{"addresses":["10.1.2.4","10.9.9.9"],"conditions":{"ready":false,"serving":true,"terminating":true},"zone":"eu-1a"},
{"addresses":["10.1.2.5"],"conditions":{"ready":false,"serving":false,"terminating":true}},
{"addresses":["10.1.2.6"],"conditions":{}},
{"addresses":["10.1.2.7"]},
{"addresses":["10.1.2.8"],"conditions":{"ready":true,"serving":true,"terminating":true}},
{"addresses":[]}],
"ports":[{"name":"http","protocol":"TCP","port":8080,"appProtocol":"kubernetes.io/h2c"},{"name":"dns","protocol":"UDP","port":53},{"name":"","protocol":"TCP","port":null}]},
{"metadata":{"name":"empty","namespace":"shop","uid":"2","resourceVersion":"1202","labels":{"kubernetes.io/service-name":"web"}},"addressType":"IPv6","endpoints":null,"ports":null},
{"metadata":{"name":"stray","namespace":"shop","uid":"3","resourceVersion":"1203"},"addressType":"IPv4","endpoints":[],"ports":[]}]}"#;

const SERVICES: &str = r#"{"kind":"ServiceList","apiVersion":"v1","metadata":{"resourceVersion":"44"},"items":[
{"metadata":{"name":"kubernetes","namespace":"default","uid":"c0","resourceVersion":"6","labels":{"component":"apiserver"}},
"spec":{"ports":[{"name":"https","protocol":"TCP","port":443,"targetPort":6443}],"clusterIP":"10.96.0.1","type":"ClusterIP"},"status":{"loadBalancer":{}}},
{"metadata":{"name":"web","namespace":"shop","uid":"c1","resourceVersion":"7"},
"spec":{"ports":[{"name":"grpc-api","port":80,"targetPort":"api"},{"name":"odd","port":81,"appProtocol":"example.com/mine"},{"name":"tcp","port":82,"appProtocol":"http"},{"name":"dns","protocol":"UDP","port":53}]}},
{"metadata":{"name":"outside","namespace":"shop","uid":"c2","resourceVersion":"8"},"spec":{"type":"ExternalName","externalName":"db.example.com"}}]}"#;

fn slice_of(object: &Object) -> &Slice {
    let Content::Slice(slice) = &object.content else {
        panic!("{object:?} is no slice")
    };
    slice
}

#[test]
fn slices() {
    let page = page(Kind::Slices, SLICES.as_bytes()).unwrap();
    assert_eq!((page.version.as_str(), page.nameless), ("1283", 0));
    assert_eq!(page.next.as_deref(), Some("eyJ2IjoibWV0YS5rOHMuaW8vdjEi"));
    let first = &page.objects[0];
    assert_eq!(
        (first.key.namespace.as_str(), &*first.key.name),
        ("shop", "web-abc12")
    );
    assert_eq!(first.stamp.version, 1201);
    let slice = slice_of(first);
    assert_eq!((&*slice.service, slice.skipped), ("web", 1));
    let ports: Vec<_> = slice
        .ports
        .iter()
        .map(|port| (&*port.name, port.port, port.protocol))
        .collect();
    assert_eq!(
        ports,
        [
            ("http", Some(8080), Some(AppProtocol::Http2)),
            ("", None, None)
        ],
        "UDP is not meshed"
    );
    let members: Vec<_> = slice
        .members
        .iter()
        .map(|one| (&*one.host, one.health))
        .collect();
    assert_eq!(
        members,
        [
            ("10.1.2.3", Health::Healthy),
            ("10.1.2.4", Health::Draining),
            ("10.1.2.5", Health::Unhealthy),
            ("10.1.2.6", Health::Healthy),
            ("10.1.2.7", Health::Healthy),
            ("10.1.2.8", Health::Healthy),
        ]
    );
    let one = &slice.members[0];
    let said: Vec<_> = one
        .metadata
        .iter()
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    assert_eq!(
        said,
        ["for-zones=eu-1a,eu-1b", "node=n1", "pod=web-7d9f-x1"]
    );
    let zone = one.locality.as_ref().unwrap();
    assert_eq!(zone.zone.as_deref(), Some("eu-1a"));
    assert!(
        Arc::ptr_eq(zone, slice.members[1].locality.as_ref().unwrap()),
        "one value per zone"
    );
    assert!(slice_of(&page.objects[1]).members.is_empty());
    assert_eq!(
        page.objects[2].content,
        Content::Unreadable,
        "it belongs to no Service"
    );
}

#[test]
fn services() {
    let page = page(Kind::Services, SERVICES.as_bytes()).unwrap();
    assert_eq!(page.next, None);
    let ports: Vec<Vec<_>> = page
        .objects
        .iter()
        .map(|object| {
            let Content::Service(service) = &object.content else {
                panic!("{object:?}")
            };
            let ports = service.ports.iter();
            ports
                .map(|port| (&*port.name, port.port, port.target, port.protocol))
                .collect()
        })
        .collect();
    assert_eq!(
        ports[0],
        [("https", 443, Some(6443), Some(AppProtocol::Tcp))]
    );
    assert_eq!(
        ports[1],
        [
            ("grpc-api", 80, None, Some(AppProtocol::Grpc)),
            ("odd", 81, None, None),
            ("tcp", 82, None, Some(AppProtocol::Http)),
        ],
        "what it says goes before how it is named"
    );
    assert!(ports[2].is_empty());
}

#[test]
fn pods() {
    let text = r#"{"kind":"PartialObjectMetadataList","apiVersion":"meta.k8s.io/v1","metadata":{"resourceVersion":"51"},"items":[
        {"metadata":{"name":"web-a","namespace":"shop","uid":"p","resourceVersion":"50","labels":{"app":"web","version":"v1"},"annotations":{"a":"b"}}},
        {"metadata":{"name":"bare","namespace":"shop","uid":"q","resourceVersion":"51"}}]}"#;
    let page = page(Kind::Pods, text.as_bytes()).unwrap();
    let labels = |at: usize| match &page.objects[at].content {
        Content::Pod(labels) => format!("{labels:?}"),
        other => format!("{other:?}"),
    };
    assert_eq!(labels(0), r#"{"app": "web", "version": "v1"}"#);
    assert_eq!(labels(1), "{}");
}

#[test]
fn one_broken_object_spoils_no_other() {
    let text = SERVICES.replace(r#""port":443"#, r#""port":"many""#);
    let page = page(Kind::Services, text.as_bytes()).unwrap();
    assert_eq!(page.objects.len(), 3);
    assert_eq!(page.objects[0].content, Content::Unreadable);
    assert!(
        matches!(&page.objects[1].content, Content::Service(service) if service.ports.len() == 3)
    );
    let text = SERVICES.replace(r#""name":"kubernetes","#, "");
    assert_eq!(
        super::page(Kind::Services, text.as_bytes())
            .unwrap()
            .nameless,
        1
    );
}

#[test]
fn what_is_no_list_is_refused() {
    for text in [
        "",
        "{}",
        "<html>",
        r#"{"kind":"Status","code":403,"metadata":{}}"#,
        r#"{"kind":"PodList","metadata":{"resourceVersion":"1"},"items":[]}"#,
        r#"{"kind":"ServiceList","metadata":{"resourceVersion":""},"items":[]}"#,
        r#"{"kind":"ServiceList","metadata":{"resourceVersion":"1"},"items":[{"#,
    ] {
        assert!(page(Kind::Services, text.as_bytes()).is_err(), "{text}");
    }
    let none = r#"{"kind":"ServiceList","metadata":{"resourceVersion":"1"},"items":null}"#;
    assert!(
        page(Kind::Services, none.as_bytes())
            .unwrap()
            .objects
            .is_empty()
    );
}

#[test]
fn lines() {
    let line = |text: &str| event(Kind::Services, text.as_bytes());
    let web = r#"{"metadata":{"name":"web","namespace":"a","uid":"u","resourceVersion":"9"},"spec":{"ports":[{"port":80}]}}"#;
    let there = line(&format!(r#"{{"type":"ADDED","object":{web}}}"#)).unwrap();
    assert!(
        matches!(there, Event::There(object, version) if &*object.key.name == "web" && version == "9")
    );
    let gone = line(&format!(r#"{{"type":"DELETED","object":{web}}}"#)).unwrap();
    assert!(matches!(gone, Event::Gone(key, version) if &*key.name == "web" && version == "9"));
    let broken = web.replace("80", r#""x""#);
    let broken = line(&format!(r#"{{"type":"MODIFIED","object":{broken}}}"#)).unwrap();
    assert!(
        matches!(broken, Event::There(object, version) if object.content == Content::Unreadable && version == "9")
    );
    let mark = r#"{"type":"BOOKMARK","object":{"kind":"Service","apiVersion":"v1","metadata":{"resourceVersion":"12746","creationTimestamp":null}}}"#;
    assert!(matches!(line(mark).unwrap(), Event::Bookmark(version) if version == "12746"));
    let old = r#"{"type":"ERROR","object":{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure","message":"too old resource version: 1 (2)","reason":"Expired","code":410}}"#;
    assert!(matches!(line(old).unwrap(), Event::Expired));
    let ill = r#"{"type":"ERROR","object":{"kind":"Status","message":"etcd is\naway","code":500}}"#;
    assert!(matches!(line(ill).unwrap(), Event::Failed(what) if what == "500 etcd is away"));
    for text in [
        "",
        "{",
        r#"{"type":"ADDED"}"#,
        r#"{"type":"ADDED","object":{}}"#,
        r#"{"type":"NEWS","object":{}}"#,
        "<html>",
    ] {
        assert!(line(text).is_err(), "{text}");
    }
}

#[test]
fn a_refusal_has_a_sentence() {
    let text = r#"{"kind":"Status","status":"Failure","message":"services is forbidden: User \"x\" cannot list","reason":"Forbidden","code":403}"#;
    assert_eq!(
        message(text.as_bytes()),
        "services is forbidden: User \"x\" cannot list"
    );
    assert_eq!(message(b"<html>"), "");
}
