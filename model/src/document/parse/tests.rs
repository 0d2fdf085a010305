//! Good documents of every kind, and every fault with line and path.

use super::*;
use crate::document::{Spec, spec::PortOrName};

mod contradictory;
mod pasted;
mod refused;

const GOOD: &str = r#"
# Services
apiVersion: v1
kind: Service
metadata:
  name: words
spec:
  clusterIP: 10.0.0.1
  ipFamilies: [IPv4]
  ports:
  - {name: http, port: 80, targetPort: 8080, nodePort: 30000, appProtocol: kubernetes.io/h2c}
  - {name: raw, port: 81, targetPort: raw, protocol: TCP}
  selector: {app: words}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata:
  name: words.split
  namespace: shop
  resourceVersion: "7"
  creationTimestamp: "2026-01-01T00:00:00Z"
spec:
  parentRefs:
  - {group: "", kind: Service, name: words, port: 80}
  rules:
  - matches:
    - path: {type: PathPrefix, value: /v2/}
      headers: [{name: X-Version, value: "2"}]
      method: GET
      queryParams: [{type: RegularExpression, name: a, value: "b+"}]
    filters:
    - type: RequestHeaderModifier
      requestHeaderModifier: {set: [{name: X-A, value: b}], remove: [x-c]}
    - type: URLRewrite
      urlRewrite: {path: {type: ReplacePrefixMatch, replacePrefixMatch: /}}
    backendRefs:
    - {name: words-v1, port: 80, weight: 9}
    - {name: words-v2, port: 80, weight: 1, namespace: far}
    timeouts: {request: 10s, backendRequest: 2s}
    retry: {codes: [500, 503], attempts: 3, backoff: 10ms}
  - filters:
    - {type: RequestRedirect, requestRedirect: {scheme: https, statusCode: 301}}
status: {parents: []}
---
apiVersion: gateway.networking.k8s.io/v1
kind: GRPCRoute
metadata: {name: g}
spec:
  parentRefs: [{group: "", kind: Service, name: words}]
  rules:
  - matches: [{method: {service: pkg.Words, method: Get}}]
    backendRefs: [{name: words, port: 80}]
---
apiVersion: gateway.networking.k8s.io/v1alpha2
kind: TCPRoute
metadata: {name: t}
spec:
  parentRefs: [{group: "", kind: Service, name: words}]
  rules: [{backendRefs: [{name: words, port: 81}]}]
---
apiVersion: gateway.networking.k8s.io/v1alpha3
kind: TLSRoute
metadata: {name: s}
spec:
  parentRefs: [{group: "", kind: Service, name: words}]
  hostnames: ["*.example.com"]
  rules: [{backendRefs: [{name: words, port: 81}]}]
---
apiVersion: meshd.io/v1alpha1
kind: Dtab
metadata: {name: d}
spec:
  dtab: |
    # canary
    /svc/words => 9 * /svc/words-v1 & 1 * /svc/words-v2 ;
---
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: p, namespace: meshd-system}
spec: {mtls: {mode: STRICT}}
---
apiVersion: meshd.io/v1alpha1
kind: AuthorizationPolicy
metadata: {name: a}
spec:
  selector: {matchLabels: {app: words}}
  action: DENY
  rules:
  - from: [{source: {principals: ["m.internal/ns/*"], namespaces: [shop]}}]
    to: [{operation: {methods: [GET], paths: [/admin*], ports: ["8080"]}}]
---
apiVersion: meshd.io/v1alpha1
kind: Revocation
metadata: {name: lost-laptop}
spec: {operatorKey: 0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef}
"#;

#[test]
fn every_kind() {
    let documents =
        parse_documents(GOOD, "good.yaml").unwrap_or_else(|faults| panic!("{faults:#?}"));
    let keys: Vec<_> = documents
        .iter()
        .map(|document| document.key().to_string())
        .collect();
    assert_eq!(
        keys,
        [
            "Service/default/words",
            "HTTPRoute/shop/words.split",
            "GRPCRoute/default/g",
            "TCPRoute/default/t",
            "TLSRoute/default/s",
            "DelegationTable/default/d",
            "PeerAuthentication/meshd-system/p",
            "AuthorizationPolicy/default/a",
            "Revocation/lost-laptop",
        ]
    );
    let Spec::Service(service) = &documents[0].spec else {
        panic!("a service")
    };
    assert_eq!(service.ports[0].target_port, Some(PortOrName::Port(8080)));
    assert_eq!(
        service.ports[1].target_port,
        Some(PortOrName::Name("raw".to_owned()))
    );
    let route = &documents[1];
    assert_eq!(route.metadata.resource_version.as_deref(), Some("7"));
    assert_eq!(route.json.get("status"), None);
    assert_eq!(
        route.json["metadata"],
        serde_json::json!({"name": "words.split", "namespace": "shop"})
    );
    let order: Vec<_> = route.json.as_object().unwrap().keys().cloned().collect();
    assert_eq!(order, ["apiVersion", "kind", "metadata", "spec"]);
}

#[test]
fn stored_documents_read_back() {
    for document in parse_documents(GOOD, "good.yaml").unwrap() {
        let again = Document::from_json(&document.json).unwrap();
        assert_eq!(
            (again.spec, again.json),
            (document.spec, document.json.clone())
        );
        let text = serde_json::to_string_pretty(&document.json).unwrap();
        assert_eq!(
            parse_documents(&text, "x.json").unwrap()[0].json,
            document.json
        );
    }
}

/// A route with something in the place of its rules; the rules begin at line 7.
fn route(rules: &str) -> String {
    format!(
        "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {{name: r}}\nspec:\n  \
         parentRefs: [{{group: '', kind: Service, name: w}}]\n  rules:\n{rules}\n"
    )
}

fn document(kind: &str, version: &str, spec: &str) -> String {
    format!("apiVersion: {version}\nkind: {kind}\nmetadata: {{name: x}}\nspec: {spec}\n")
}

const OWN: &str = "meshd.io/v1alpha1";

fn refused(text: &str) -> Vec<String> {
    let faults = parse_documents(text, "f").expect_err(text);
    faults.iter().map(ToString::to_string).collect()
}

/// Rules of an HTTPRoute, and the faults: line, path, part of the text.
type Expected = &'static [(usize, &'static str, &'static str)];

const RULES: &[(&str, Expected)] = &[
    (
        "  - backendRefs: [{name: a, port: 80, wieght: 1}]",
        &[(
            7,
            "spec.rules[0].backendRefs[0].wieght",
            "did you mean `weight`?",
        )],
    ),
    (
        "  - backendRefs:\n    - {name: a, weight: 0}\n    - {name: b, weight: 0}",
        &[(7, "spec.rules[0].backendRefs", "add up to 0")],
    ),
    (
        "  - backendRefs:\n    - {name: A_b, port: 70000}",
        &[
            (8, "spec.rules[0].backendRefs[0].port", "0 to 65535"),
            (
                8,
                "spec.rules[0].backendRefs[0].name",
                "no name of a service",
            ),
        ],
    ),
    (
        "  - matches: [{path: {type: Prefix, value: /}}]",
        &[(
            7,
            "spec.rules[0].matches[0].path.type",
            "Exact, PathPrefix, RegularExpression",
        )],
    ),
    (
        "  - matches:\n    - path: {value: v2}",
        &[(8, "spec.rules[0].matches[0].path.value", "begin it with /")],
    ),
    (
        "  - matches:\n    - path: {value: /a//b}",
        &[(8, "spec.rules[0].matches[0].path.value", "never stands")],
    ),
    (
        "  - matches:\n    - path: {type: RegularExpression, value: '/a('}",
        &[(
            8,
            "spec.rules[0].matches[0].path.value",
            "no regular expression: unclosed group (character 3)",
        )],
    ),
    (
        "  - matches:\n    - headers: [{name: 'x y', value: '1'}]\n    - method: get",
        &[
            (
                8,
                "spec.rules[0].matches[0].headers[0].name",
                "no header name",
            ),
            (9, "spec.rules[0].matches[1].method", "GET"),
        ],
    ),
    (
        "  - matches:\n    - headers: [{name: x, value: 2}]",
        &[(8, "spec.rules[0].matches[0].headers[0].value", "in quotes")],
    ),
    (
        "  - timeouts: {request: 1.5s}",
        &[(7, "spec.rules[0].timeouts.request", "not a span of time")],
    ),
    (
        "  - timeouts: {request: 1s, backendRequest: 2s}",
        &[(
            7,
            "spec.rules[0].timeouts.backendRequest",
            "at most `request`",
        )],
    ),
    (
        "  - retry:\n      codes: [200, 503, 503]\n      attempts: 99",
        &[
            (8, "spec.rules[0].retry.codes[0]", "400 to 599"),
            (8, "spec.rules[0].retry.codes[2]", "twice"),
            (9, "spec.rules[0].retry.attempts", "0 to 20"),
        ],
    ),
    (
        "  - filters: [{type: ExternalAuth, externalAuth: {}}]",
        &[
            (
                7,
                "spec.rules[0].filters[0].externalAuth",
                "not carried out by this version",
            ),
            (
                7,
                "spec.rules[0].filters[0].type",
                "not carried out by this version",
            ),
        ],
    ),
    (
        "  - filters: [{type: URLRewrite, urlRewrit: {}}]",
        &[
            (
                7,
                "spec.rules[0].filters[0].urlRewrit",
                "did you mean `urlRewrite`?",
            ),
            (7, "spec.rules[0].filters[0].urlRewrite", "is missing"),
        ],
    ),
    (
        "  - filters: [{type: RequestHeaderModifier, requestHeaderModifier: {set: [{name: Host, value: x}], remove: [Content-Length]}}]",
        &[
            (
                7,
                "spec.rules[0].filters[0].requestHeaderModifier.set[0].name",
                "URLRewrite",
            ),
            (
                7,
                "spec.rules[0].filters[0].requestHeaderModifier.remove[0]",
                "cannot change content-length",
            ),
        ],
    ),
    (
        "  - matches: [{path: {type: Exact, value: /a}}]\n    filters: [{type: URLRewrite, urlRewrite: {path: {type: ReplacePrefixMatch, replacePrefixMatch: /}}}]",
        &[(
            8,
            "spec.rules[0].filters[0].urlRewrite.path",
            "use PathPrefix",
        )],
    ),
    (
        "  - filters: [{type: RequestRedirect, requestRedirect: {statusCode: 200}}]\n    backendRefs: [{name: a, port: 80}]",
        &[
            (
                7,
                "spec.rules[0].filters[0].requestRedirect.statusCode",
                "301",
            ),
            (
                7,
                "spec.rules[0].filters[0].requestRedirect",
                "reaches no backend",
            ),
        ],
    ),
    (
        "  - backendRefs: [{name: a, port: 80, filters: [{type: RequestRedirect, requestRedirect: {}}]}]",
        &[(
            7,
            "spec.rules[0].backendRefs[0].filters[0].type",
            "cannot stand here",
        )],
    ),
    (
        "  - 7\n  - {name: [a]}\n  - {backendRefs: [{port: 80}]}",
        &[
            (7, "spec.rules[0]", "not a table"),
            (8, "spec.rules[1].name", "not a text"),
            (9, "spec.rules[2].backendRefs[0].name", "is missing"),
        ],
    ),
];

#[test]
fn faults_of_rules() {
    for (rules, wanted) in RULES {
        let text = route(rules);
        let found = parse_documents(&text, "f").expect_err(rules);
        let told: Vec<_> = found
            .iter()
            .map(|fault| {
                (
                    fault.line,
                    fault
                        .subject
                        .strip_prefix("HTTPRoute/default/r ")
                        .unwrap_or("?"),
                )
            })
            .collect();
        let expected: Vec<_> = wanted
            .iter()
            .map(|(line, path, _)| (*line, *path))
            .collect();
        assert_eq!(told, expected, "{rules}\n{found:#?}");
        for (fault, (_, _, part)) in found.iter().zip(*wanted) {
            assert!(fault.to_string().contains(part), "{fault} lacks {part:?}");
        }
    }
}

#[test]
fn faults_of_documents() {
    for (text, part) in [
        ("kind: HTTPRoute\nmetadata: {name: x}\nspec: {}".to_owned(), "apiVersion: is missing"),
        (document("HTTPRout", "v1", "{}"), "f:2: HTTPRout/default/x kind: \"HTTPRout\" is no known kind; did you mean `HTTPRoute`?"),
        (document("ServiceEntry", "networking.istio.io/v1", "{}"), "not supported by this version"),
        (document("RouteRule", "config.istio.io/v1alpha2", "{}"), "`meshctl import FILE`"),
        (document("HTTPRoute", "gateway.networking.k8s.io/v2", "{}"), "f:1: HTTPRoute/default/x apiVersion: \"gateway.networking.k8s.io/v2\" is no version of HTTPRoute"),
        (document("Service", "v1", "{}"), "spec.ports: is missing"),
        (document("Service", "v1", "{ports: [{port: 80}, {port: 80, name: a}]}"), "80 is a port of this service already"),
        (document("Service", "v1", "{ports: [{port: 80, protocol: UDP}]}"), "only TCP"),
        (document("Service", "v1", "{ports: [{port: 80, targetPort: 99999}]}"), "a port from 1 to 65535"),
        (document("Service", "v1", "{type: ExternalName, ports: [{port: 80}]}"), "ExternalName"),
        (document("DelegationTable", OWN, "{dtab: \"/svc => \\n/x =\"}"), "line 2, column 4 of the table"),
        (document("Revocation", OWN, "{}"), "must name one thing"),
        (document("Revocation", OWN, "{host: xyz}"), "no host id"),
        (document("AuthorizationPolicy", OWN, "{rules: [{from: [{source: {principals: [\"spiffe://a/b\"]}}]}]}"), "without spiffe://"),
        (document("AuthorizationPolicy", OWN, "{rules: [{to: [{operation: {paths: [\"/a*b\"]}}]}]}"), "no pattern"),
        (document("AuthorizationPolicy", OWN, "{rules: [{when: []}]}"), "spec.rules[0].when: is no known key"),
        (document("AuthorizationPolicy", OWN, "{action: AUDIT}"), "ALLOW, DENY"),
        (document("PeerAuthentication", OWN, "{mtls: {mode: Strict}}"), "STRICT"),
        ("apiVersion: v1\nkind: Service\nmetadata: {name: A.b, namespace: X}\nspec: {ports: [{port: 1}]}".to_owned(), "is no name of a Service"),
        ("apiVersion: meshd.io/v1alpha1\nkind: Revocation\nmetadata: {name: a, namespace: b}\nspec: {host: 00000000000000000000000000000000}".to_owned(), "of the whole mesh"),
        (route("  - name: a").replace("group: '', ", ""), "write `group: \"\"`"),
        ("- a\n- b\n".to_owned(), "not a document"),
        ("a: [".to_owned(), "is no YAML here"),
    ] {
        let found = refused(&text);
        assert!(found.iter().any(|fault| fault.contains(part)), "{text}\n{found:#?}\nlacks {part:?}");
    }
}

#[test]
fn all_documents_are_looked_at() {
    let text = format!(
        "{}---\n{}---\n{}",
        document("Service", "v1", "{}"),
        document("Nope", "v1", "{}"),
        document("Service", "v1", "{ports: [{port: 1}]}")
    );
    let found = refused(&text);
    assert_eq!(found.len(), 2, "{found:#?}");
    let twice = document("Service", "v1", "{ports: [{port: 1}]}");
    assert!(refused(&format!("{twice}---\n{twice}"))[0].contains("written twice"));
}

#[test]
fn bounds() {
    assert!(refused(&" ".repeat((1 << 20) + 1))[0].contains("1 MiB"));
    let many = "---\na: 1\n".repeat(1100);
    assert!(!refused(&many).is_empty());
    assert_eq!(parse_documents("", "f"), Ok(Vec::new()));
    assert_eq!(
        parse_documents("# nothing\n---\n---\n", "f"),
        Ok(Vec::new())
    );
}

proptest::proptest! {
    #[test]
    fn any_text_is_read_or_refused(text in "[a-z:{}\\[\\], \n\"'&*!|>#?%@-]{0,80}") {
        let _result = parse_documents(&text, "f");
    }
}
