//! Rules of the first Istio, and the documents that they become.

use super::*;
use serde_json::json;

fn imported(text: &str) -> Imported {
    import(&[("f".to_owned(), text.to_owned())]).unwrap_or_else(|faults| panic!("{faults:#?}"))
}

fn json_of(imported: &Imported, kind: &str) -> Vec<serde_json::Value> {
    let all = imported.documents.iter();
    all.filter(|document| document.kind == kind)
        .map(|document| document.json.clone())
        .collect()
}

const CANARY: &str = r#"
apiVersion: config.istio.io/v1alpha2
kind: RouteRule
metadata:
  name: reviews-default
  namespace: shop
spec:
  destination:
    name: reviews
  precedence: 1
  route:
  - labels: {version: v1}
    weight: 90
  - labels: {version: v2}
    weight: 10
---
apiVersion: config.istio.io/v1alpha2
kind: RouteRule
metadata: {name: reviews-test, namespace: shop}
spec:
  destination: {name: reviews, namespace: shop}
  precedence: 2
  match:
    source: {name: productpage, labels: {version: v1}}
    request:
      headers:
        cookie: {regex: "^(.*?;)?(user=jason)(;.*)?$"}
        uri: {prefix: /api}
  route:
  - labels: {version: v2}
  httpReqTimeout: {simpleTimeout: {timeout: 10s}}
  httpReqRetries: {simpleRetry: {attempts: 3, perTryTimeout: 2s}}
  httpFault:
    delay: {percent: 12.5, fixedDelay: 5s}
    abort: {percent: 10, httpStatus: 400}
  mirror: {name: audit, labels: {version: v2}}
  corsPolicy: {allowOrigin: ["https://a.example"], allowMethods: [GET], maxAge: 1d}
  appendHeaders: {x-a: b}
"#;

#[test]
fn weights_and_labels_become_shares_and_subsets() {
    let imported = imported(&CANARY.replace("1d", "24h"));
    assert_eq!(imported.findings, []);
    assert_eq!(
        json_of(&imported, "DestinationRule"),
        [
            json!({"apiVersion": "networking.istio.io/v1", "kind": "DestinationRule",
                "metadata": {"name": "audit", "namespace": "shop"},
                "spec": {"host": "audit", "subsets": [{"name": "v2", "labels": {"version": "v2"}}]}}),
            json!({"apiVersion": "networking.istio.io/v1", "kind": "DestinationRule",
                "metadata": {"name": "reviews", "namespace": "shop"},
                "spec": {"host": "reviews", "subsets": [
                    {"name": "v2", "labels": {"version": "v2"}},
                    {"name": "v1", "labels": {"version": "v1"}}]}}),
        ]
    );
    let services = json_of(&imported, "VirtualService");
    assert_eq!(
        services,
        [
            json!({"apiVersion": "meshd.io/v1alpha1", "kind": "VirtualService",
            "metadata": {"name": "reviews", "namespace": "shop"},
            "spec": {"hosts": ["reviews"], "http": [
                {"name": "reviews-test",
                 "match": [{"sourceServices": ["productpage"], "sourceLabels": {"version": "v1"},
                    "uri": {"prefix": "/api"},
                    "headers": {"cookie": {"regex": "^(.*?;)?(user=jason)(;.*)?$"}}}],
                 "route": [{"destination": {"host": "reviews", "subset": "v2"}}],
                 "timeout": "10s",
                 "retries": {"attempts": 3, "perTryTimeout": "2s"},
                 "fault": {"delay": {"percentage": {"value": 12.5}, "fixedDelay": "5s"},
                    "abort": {"percentage": {"value": 10.0}, "httpStatus": 400}},
                 "mirror": {"host": "audit", "subset": "v2"},
                 "corsPolicy": {"allowOrigins": [{"exact": "https://a.example"}],
                    "allowMethods": ["GET"], "maxAge": "24h"},
                 "headers": {"request": {"add": {"x-a": "b"}}}},
                {"name": "reviews-default",
                 "route": [
                    {"destination": {"host": "reviews", "subset": "v1"}, "weight": 90},
                    {"destination": {"host": "reviews", "subset": "v2"}, "weight": 10}]}]}})
        ]
    );
}

#[test]
fn the_oldest_form_is_read_too() {
    let imported = imported(
        r"
type: route-rule
name: ratings-v2
spec:
  destination: ratings.default.svc.cluster.local
  precedence: 2
  match:
    source: reviews.other.svc.cluster.local
    sourceTags: {version: v2}
    httpHeaders: {uri: {exact: /old}}
  route: [{tags: {version: v2}, weight: 100}]
---
type: route-rule
name: ratings-moved
spec:
  destination: {name: ratings}
  precedence: 3
  match: {httpHeaders: {uri: {prefix: /moved}}}
  redirect: {uri: /new, authority: new.example}
",
    );
    let services = json_of(&imported, "VirtualService");
    assert_eq!(services.len(), 1, "{services:#?}");
    let http = &services[0]["spec"]["http"];
    assert_eq!(
        http[0]["redirect"],
        json!({"uri": "/new", "authority": "new.example"})
    );
    assert_eq!(
        http[1]["match"][0]["sourceServices"],
        json!(["other/reviews"])
    );
    assert_eq!(http[1]["match"][0]["uri"], json!({"exact": "/old"}));
    assert_eq!(
        http[1]["route"][0]["destination"],
        json!({"host": "ratings", "subset": "v2"})
    );
}

#[test]
fn what_cannot_be_carried_over_is_told() {
    let imported = imported(
        r"
apiVersion: config.istio.io/v1alpha2
kind: RouteRule
metadata: {name: db}
spec:
  destination: {name: db, namespace: store, domain: svc.cluster.local, labels: {a: b}}
  match: {tcp: {sourceSubnet: [10.0.0.0/8]}, udp: {}}
  l4Fault: {throttle: {}}
  route: [{labels: {version: v1, zone: a}}, {labels: {version: v1-a}, weight: 5}]
---
apiVersion: config.istio.io/v1alpha2
kind: RouteRule
metadata: {name: web}
spec:
  destination: {service: www.example.com}
  httpReqTimeout: {simpleTimeout: {timeout: 5s, overrideHeaderName: x-t}}
  httpReqRetries: {custom: {}}
  httpFault: {abort: {percent: 1, grpcStatus: UNAVAILABLE, overrideHeaderName: x-f}}
  websocketUpgrade: true
---
apiVersion: v1
kind: Service
metadata: {name: passes}
spec: {ports: [{port: 80}]}
",
    );
    let paths: Vec<_> = imported
        .findings
        .iter()
        .map(|finding| {
            (
                finding.subject.as_str(),
                finding.what.split(':').next().unwrap(),
            )
        })
        .collect();
    let (db, web) = ("RouteRule/default/db", "RouteRule/default/web");
    assert_eq!(
        paths,
        [
            (db, "spec.l4Fault"),
            (db, "spec.match.udp"),
            (db, "spec.destination.labels"),
            (db, "spec.destination.domain"),
            (web, "spec.httpReqTimeout.simpleTimeout.overrideHeaderName"),
            (web, "spec.httpReqRetries.custom"),
            (web, "spec.httpFault.abort.overrideHeaderName"),
        ]
    );
    assert_eq!(
        imported.documents[0].key().to_string(),
        "Service/default/passes"
    );
    let rules = json_of(&imported, "DestinationRule");
    assert_eq!(
        rules[0]["metadata"],
        json!({"name": "db", "namespace": "store"})
    );
    let names = [
        &rules[0]["spec"]["subsets"][0]["name"],
        &rules[0]["spec"]["subsets"][1]["name"],
    ];
    assert_eq!(
        names,
        [&json!("v1-a"), &json!("version-v1-a")],
        "names differ"
    );
    let services = json_of(&imported, "VirtualService");
    assert_eq!(services[0]["spec"]["hosts"], json!(["db.store"]));
    assert_eq!(
        services[0]["spec"]["tcp"][0]["match"],
        json!([{"sourceSubnets": ["10.0.0.0/8"]}])
    );
    assert_eq!(
        services[1]["spec"]["http"][0]["route"],
        json!([{"destination": {"host": "www.example.com"}}])
    );
}

#[test]
fn bad_rules_are_refused() {
    let rule = |spec: &str| {
        format!(
            "apiVersion: config.istio.io/v1alpha2\nkind: RouteRule\nmetadata: {{name: r}}\nspec: {spec}\n"
        )
    };
    for (text, words) in [
        (
            rule("{}"),
            "f:4: RouteRule/default/r spec.destination: is missing; write `destination`",
        ),
        (
            rule("{destination: {labels: {a: b}}}"),
            "spec.destination: names no service; write `name`",
        ),
        (
            rule("{destination: {name: a}, routes: []}"),
            "did you mean `route`?",
        ),
        (
            rule("{destination: {name: a}, route: [{wieght: 1}]}"),
            "did you mean `weight`?",
        ),
        (
            rule("{destination: {name: a}, httpReqTimeout: {simpleTimeout: {timeout: ten}}}"),
            "VirtualService/default/a spec.http[0].timeout",
        ),
        (
            rule("{destination: {name: a}, route: [{weight: 0}, {weight: 0}]}"),
            "the weights add up to 0",
        ),
        (
            rule("{destination: {name: a}}").replace("v1alpha2", "v1alpha9"),
            "write config.istio.io/v1alpha2",
        ),
        (
            rule("{destination: {name: a}}").replace("name: r", "nam: r"),
            "has no name",
        ),
    ] {
        let faults = import(&[("f".to_owned(), text.clone())]).expect_err(&text);
        let all: Vec<_> = faults.iter().map(ToString::to_string).collect();
        assert!(
            all.iter().any(|fault| fault.contains(words)),
            "{text}\nwanted {words}\n{all:#?}"
        );
    }
    let both = format!(
        "{}---\napiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: a}}\nspec: {{hosts: [a], http: [{{route: [{{destination: {{host: a}}}}]}}]}}\n",
        rule("{destination: {name: a}}")
    );
    let faults = import(&[("f".to_owned(), both)]).unwrap_err();
    assert!(
        faults[0].to_string().contains("join the two by hand"),
        "{faults:#?}"
    );
}
