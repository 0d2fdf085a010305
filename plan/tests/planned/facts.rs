//! The facts of Gateway API that hold for routes whose parent is a Service, one by one.
//!
//! A case names its fact (API v1.7.0, its conformance suite, GEP-1294), the documents, and what requests meet. Left
//! out are 13, 15, 19, 21 and 37, which speak of gateways; 29 to 31, whose bytes the data plane's tests show; and 38,
//! since hosts publish statuses of their own and write into nobody's.

use std::{borrow::Cow, fmt::Write as _};

use mesh_model::{
    name::ServiceId,
    snapshot::{
        Filter, Target,
        decide::{self, Connected, Matched, Opening, RequestView, Source},
    },
};
use mesh_plan::{Compiled, compile};

use crate::world::World;

struct Case {
    fact: u8,
    what: &'static str,
    documents: &'static [&'static str],
    /// Caller, method or TCP, host and path, and after blanks headers; then what it meets.
    asks: &'static [(&'static str, &'static str)],
}

const HOSTS: &str = "mesh m.internal mesh.internal
host h1 10.0.0.1 own
work h1 echo http:80>8080/http
work h1 echo-v1 http:80>8081/http
work h1 echo-v2 http:80>8082/http
work h1 ports http:80>8083/http other:8080>8084/http raw:90>8085/tcp
work h1 many first:80>8086 second:81>8087
work h1 calls rpc:80>8088/grpc
work h1 client user=1
work h1 far/client user=2
work h1 far/echo http:80>8089/http
work h1 empty http:80>8090/http health=unhealthy";

/// A route: kind and name, namespace, what stands behind `parentRefs:`, and the rules.
const PRODUCER: &str = "HTTPRoute a default [{group: '', kind: Service, name: echo}] [{backendRefs: [{name: echo-v1, port: 80}]}]";
const CONSUMER: &str = "HTTPRoute c far [{group: '', kind: Service, name: echo, namespace: default}] [{matches: [{path: {value: /c}}], backendRefs: [{name: echo-v2, namespace: default, port: 80}]}]";

const CASES: &[Case] = &[
    Case {
        fact: 1,
        what: "without a route calls pass",
        documents: &[],
        asks: &[("client GET echo/any", "own default/echo:80")],
    },
    Case {
        fact: 2,
        what: "an attached route replaces the default",
        documents: &[
            "HTTPRoute q default [{group: '', kind: Service, name: echo}] [{matches: [{queryParams: [{name: animal, value: whale}]}], backendRefs: [{name: echo-v1, port: 80}]}, {matches: [{queryParams: [{name: animal, value: dolphin}]}], backendRefs: [{name: echo-v2, port: 80}]}]",
        ],
        asks: &[
            ("client GET echo/?animal=whale", "default/echo-v1:80"),
            ("client GET echo/?animal=dolphin", "default/echo-v2:80"),
            (
                "client GET echo/?animal=dolphin&color=blue",
                "default/echo-v2:80",
            ),
            ("client GET echo/?ANIMAL=dolphin", "404"),
            ("client GET echo/?animal=whale2", "404"),
            ("client GET echo/", "404"),
        ],
    },
    Case {
        fact: 3,
        what: "calls to a workload's own address are not routed",
        documents: &[PRODUCER],
        asks: &[
            ("client GET 10.0.0.1:8080/", "no frontend"),
            ("client GET echo/", "default/echo-v1:80"),
        ],
    },
    Case {
        fact: 4,
        what: "the service called decides, not the Host field",
        documents: &[
            "HTTPRoute one default [{group: '', kind: Service, name: echo-v1}] [{matches: [{headers: [{name: x, value: '1'}]}], backendRefs: [{name: echo-v1, port: 80}]}]",
            "HTTPRoute two default [{group: '', kind: Service, name: echo-v2}] [{backendRefs: [{name: echo-v2, port: 80}]}]",
        ],
        asks: &[("client GET echo-v2/ host: echo-v1", "default/echo-v2:80")],
    },
    Case {
        fact: 6,
        what: "a parentRef with a port or a section acts there only, without on all ports",
        documents: &[
            "HTTPRoute p default [{group: '', kind: Service, name: ports, port: 80}] [{backendRefs: [{name: echo-v1, port: 80}]}]",
            "HTTPRoute m default [{group: '', kind: Service, name: many}] [{backendRefs: [{name: echo-v1, port: 80}]}]",
            "HTTPRoute s default [{group: '', kind: Service, name: echo-v2, sectionName: http}] [{backendRefs: [{name: echo-v1, port: 80}]}]",
            "HTTPRoute t default [{group: '', kind: Service, name: echo, sectionName: other}] [{backendRefs: [{name: echo-v1, port: 80}]}]",
        ],
        asks: &[
            ("client GET ports/", "default/echo-v1:80"),
            ("client GET ports:8080/", "own default/ports:8080"),
            ("client GET many:80/", "default/echo-v1:80"),
            ("client GET many:81/", "default/echo-v1:80"),
            ("client GET echo-v2/", "default/echo-v1:80"),
            ("client GET echo/", "own default/echo:80"),
        ],
    },
    Case {
        fact: 8,
        what: "a producer route acts for callers of every namespace",
        documents: &[PRODUCER],
        asks: &[
            ("client GET echo/", "default/echo-v1:80"),
            ("far/client GET echo/", "default/echo-v1:80"),
        ],
    },
    Case {
        fact: 9,
        what: "a consumer route acts for callers of its namespace only, by their identity",
        documents: &[CONSUMER],
        asks: &[
            ("far/client GET echo/c", "default/echo-v2:80"),
            ("client GET echo/c", "own default/echo:80"),
            ("client GET echo.far/c", "own far/echo:80"),
        ],
    },
    Case {
        fact: 10,
        what: "consumer routes replace the producer's and are never joined with them",
        documents: &[PRODUCER, CONSUMER],
        asks: &[
            ("far/client GET echo/c", "default/echo-v2:80"),
            ("far/client GET echo/", "404"),
            ("client GET echo/", "default/echo-v1:80"),
        ],
    },
    Case {
        fact: 11,
        what: "one level: the routes of a backend's service are not taken",
        documents: &[
            PRODUCER,
            "HTTPRoute b default [{group: '', kind: Service, name: echo-v1}] [{backendRefs: [{name: echo-v2, port: 80}]}]",
        ],
        asks: &[
            ("client GET echo/", "default/echo-v1:80"),
            ("client GET echo-v1/", "default/echo-v2:80"),
        ],
    },
    Case {
        fact: 12,
        what: "GRPCRoute before HTTPRoute before TLSRoute before TCPRoute",
        documents: &[
            "TCPRoute t default [{group: '', kind: Service, name: many}] [{backendRefs: [{name: echo, port: 80}]}]",
            "TLSRoute t default [{group: '', kind: Service, name: many}] [{backendRefs: [{name: echo, port: 80}]}]",
            "HTTPRoute t default [{group: '', kind: Service, name: many, port: 80}] [{backendRefs: [{name: echo-v1, port: 80}]}]",
            "GRPCRoute t default [{group: '', kind: Service, name: calls}] [{backendRefs: [{name: echo-v2, port: 80}]}]",
            "HTTPRoute u default [{group: '', kind: Service, name: calls}] [{backendRefs: [{name: echo-v1, port: 80}]}]",
        ],
        asks: &[
            ("client GET calls/p.S/M", "default/echo-v2:80"),
            ("client GET many:80/", "default/echo-v1:80"),
            ("client TCP many:80/", "own default/many:80"),
            ("client TLS many:81/any.example", "default/echo:80"),
            ("client TCP many:81/", "no-route"),
        ],
    },
    Case {
        fact: 14,
        what: "precedence over all routes: path, method, headers, parameters, age, name, rule",
        documents: &[
            "HTTPRoute z default [{group: '', kind: Service, name: echo}] [{matches: [{path: {value: /long/prefix}}], backendRefs: [{name: echo-v1, port: 80}]}, {matches: [{path: {type: Exact, value: /e}}], backendRefs: [{name: echo-v1, port: 80}]}]",
            "HTTPRoute y default [{group: '', kind: Service, name: echo}] [{matches: [{path: {value: /long}, method: GET, headers: [{name: a, value: a}]}, {path: {value: /e}, method: GET}, {path: {value: /long/prefix}}], backendRefs: [{name: echo-v2, port: 80}]}, {matches: [{path: {value: /m}, method: GET}], backendRefs: [{name: echo-v1, port: 80}]}, {matches: [{path: {value: /m}, headers: [{name: a, value: a}, {name: b, value: b}]}], backendRefs: [{name: echo-v2, port: 80}]}, {matches: [{path: {value: /m}, headers: [{name: a, value: a}], queryParams: [{name: q, value: q}, {name: r, value: r}]}], backendRefs: [{name: far, port: 80}]}]",
        ],
        asks: &[
            ("client GET echo/long/prefix/x a: a", "default/echo-v1:80"),
            ("client GET echo/long/x a: a", "default/echo-v2:80"),
            ("client GET echo/e", "default/echo-v1:80"),
            ("client GET echo/e/x", "default/echo-v2:80"),
            ("client GET echo/m?q=q&r=r a: a b: b", "default/echo-v1:80"),
            ("client POST echo/m?q=q&r=r a: a b: b", "default/echo-v2:80"),
            ("client POST echo/m?q=q&r=r a: a", "500"),
        ],
    },
    Case {
        fact: 16,
        what: "the rule is chosen first: a later valid one does not step in",
        documents: &[
            "HTTPRoute r default [{group: '', kind: Service, name: echo}] [{backendRefs: [{name: nobody, port: 80}]}, {backendRefs: [{name: echo-v1, port: 80}]}]",
        ],
        asks: &[("client GET echo/", "500")],
    },
    Case {
        fact: 17,
        what: "a prefix is whole segments",
        documents: &[
            "HTTPRoute r default [{group: '', kind: Service, name: echo}] [{matches: [{path: {type: PathPrefix, value: /v2}}], backendRefs: [{name: echo-v2, port: 80}]}]",
        ],
        asks: &[
            ("client GET echo/v2", "default/echo-v2:80"),
            ("client GET echo/v2/", "default/echo-v2:80"),
            ("client GET echo/v2/x", "default/echo-v2:80"),
            ("client GET echo/v2example", "404"),
        ],
    },
    Case {
        fact: 18,
        what: "header names in any case; of one name the first entry counts",
        documents: &[
            "HTTPRoute r default [{group: '', kind: Service, name: echo}] [{matches: [{headers: [{name: Version, value: one}, {name: VERSION, value: two}]}], backendRefs: [{name: echo-v1, port: 80}]}]",
        ],
        asks: &[
            ("client GET echo/ vErSiOn: one", "default/echo-v1:80"),
            ("client GET echo/ version: two", "404"),
        ],
    },
    Case {
        fact: 20,
        what: "backends of another namespace need no grant",
        documents: &[
            "HTTPRoute r default [{group: '', kind: Service, name: echo}] [{backendRefs: [{name: echo, namespace: far, port: 80}]}]",
        ],
        asks: &[("client GET echo/", "far/echo:80")],
    },
    Case {
        fact: 22,
        what: "what is broken takes its share as errors: 500, gRPC UNAVAILABLE, connections refused",
        documents: &[
            "HTTPRoute r default [{group: '', kind: Service, name: echo}] [{backendRefs: [{name: nobody, port: 80}, {name: echo-v1, port: 80, weight: 3}]}, {matches: [{path: {value: /kind}}], backendRefs: [{group: x.io, kind: Bucket, name: b, port: 80}]}, {matches: [{path: {value: /port}}], backendRefs: [{name: echo-v1, port: 99}]}]",
            "GRPCRoute g default [{group: '', kind: Service, name: calls}] [{backendRefs: [{name: nobody, port: 80}]}]",
            "TCPRoute t default [{group: '', kind: Service, name: ports, port: 90}] [{backendRefs: [{name: nobody, port: 80}, {name: echo, port: 80}]}]",
        ],
        asks: &[
            ("client GET echo/", "1*500 & 3*default/echo-v1:80"),
            ("client GET echo/kind", "500"),
            ("client GET echo/port", "500"),
            ("client GET calls/p.S/M", "503"),
            ("client TCP ports:90/", "1*500 & 1*default/echo:80"),
        ],
    },
    Case {
        fact: 23,
        what: "no backendRefs: 500; a known service without endpoints is a backend (503 when it is called)",
        documents: &[
            "HTTPRoute r default [{group: '', kind: Service, name: echo}] [{matches: [{path: {value: /none}}]}, {matches: [{path: {value: /list}}], backendRefs: []}, {matches: [{path: {value: /empty}}], backendRefs: [{name: empty, port: 80}]}]",
        ],
        asks: &[
            ("client GET echo/none", "500"),
            ("client GET echo/list", "500"),
            (
                "client GET echo/empty",
                "default/empty:80 without endpoints",
            ),
        ],
    },
    Case {
        fact: 24,
        what: "weight 0 gets nothing and is not looked for; a missing weight is 1",
        documents: &[
            "HTTPRoute r default [{group: '', kind: Service, name: echo}] [{backendRefs: [{name: nobody, port: 80, weight: 0}, {name: echo-v1, port: 80}, {name: echo-v2, port: 80, weight: 9}]}]",
        ],
        asks: &[(
            "client GET echo/",
            "1*default/echo-v1:80 & 9*default/echo-v2:80",
        )],
    },
    Case {
        fact: 25,
        what: "a backendRef's port is the service's, not the endpoint's",
        documents: &[
            "HTTPRoute r default [{group: '', kind: Service, name: echo}] [{backendRefs: [{name: ports, port: 8080}]}, {matches: [{path: {value: /x}}], backendRefs: [{name: ports, port: 8084}]}]",
        ],
        asks: &[
            ("client GET echo/", "default/ports:8080"),
            ("client GET echo/x", "500"),
        ],
    },
    Case {
        fact: 27,
        what: "a headless service is a valid backend and no valid parent",
        documents: &[
            "Service headless default - {clusterIP: None, selector: {app: echo}, ports: [{port: 80, targetPort: 8080}]}",
            "HTTPRoute r default [{group: '', kind: Service, name: echo}] [{backendRefs: [{name: headless, port: 80}]}]",
            "HTTPRoute h default [{group: '', kind: Service, name: headless}] [{backendRefs: [{name: echo-v1, port: 80}]}]",
        ],
        asks: &[
            ("client GET echo/", "default/headless:80"),
            ("client GET headless/", "own default/headless:80"),
        ],
    },
    Case {
        fact: 28,
        what: "nothing matches: 404, which is UNIMPLEMENTED for gRPC",
        documents: &[
            "GRPCRoute g default [{group: '', kind: Service, name: calls}] [{matches: [{method: {service: p.S}, headers: [{name: version, value: one}]}], backendRefs: [{name: echo-v1, port: 80}]}]",
        ],
        asks: &[
            ("client POST calls/p.S/M version: one", "default/echo-v1:80"),
            ("client POST calls/p.S/M", "404"),
        ],
    },
    Case {
        fact: 32,
        what: "a prefix rewrite keeps the rest; to an empty path it is the root",
        documents: &[
            "HTTPRoute r default [{group: '', kind: Service, name: echo}] [{matches: [{path: {value: /old/}}], filters: [{type: URLRewrite, urlRewrite: {path: {type: ReplacePrefixMatch, replacePrefixMatch: /}}}], backendRefs: [{name: echo-v1, port: 80}]}]",
        ],
        asks: &[(
            "client GET echo/old/x",
            "default/echo-v1:80 with Rewrite(Rewrite { hostname: None, path: Some(Prefix { matched: \"/old\", replacement: \"/\" }) })",
        )],
    },
    Case {
        fact: 33,
        what: "filters of a backendRef act only when it is chosen",
        documents: &[
            "HTTPRoute r default [{group: '', kind: Service, name: echo}] [{backendRefs: [{name: echo-v1, port: 80, filters: [{type: RequestHeaderModifier, requestHeaderModifier: {remove: [A]}}]}, {name: echo-v2, port: 80}]}]",
        ],
        asks: &[(
            "client GET echo/",
            "1*default/echo-v1:80 (RequestHeaders(HeaderEdits { set: [], add: [], remove: [\"a\"] })) & 1*default/echo-v2:80",
        )],
    },
    Case {
        fact: 34,
        what: "attempts count beside the first try, 0 is off, only listed codes; 0s is no time-out",
        documents: &[
            "HTTPRoute r default [{group: '', kind: Service, name: echo}] [{timeouts: {request: 0s, backendRequest: 0s}, retry: {attempts: 0}, backendRefs: [{name: echo-v1, port: 80}]}, {matches: [{path: {value: /t}}], timeouts: {request: 2s, backendRequest: 1s}, retry: {attempts: 3, codes: [503, 500]}, backendRefs: [{name: echo-v1, port: 80}]}]",
        ],
        asks: &[
            (
                "client GET echo/",
                "default/echo-v1:80 tries 0 on [] in None/None",
            ),
            (
                "client GET echo/t",
                "default/echo-v1:80 tries 3 on [500, 503] in Some(2s)/Some(1s)",
            ),
        ],
    },
    Case {
        fact: 5,
        what: "hostnames have no effect with a Service parent",
        documents: &[
            "HTTPRoute hosts=[other.example] default [{group: '', kind: Service, name: echo}] [{backendRefs: [{name: echo-v1, port: 80}]}]",
        ],
        asks: &[("client GET echo/ host: third.example", "default/echo-v1:80")],
    },
    Case {
        fact: 26,
        what: "appProtocol of the service's port decides what the backend is spoken to in",
        documents: &[
            "Service h2 default - {selector: {app: echo}, ports: [{port: 80, targetPort: 8080, appProtocol: kubernetes.io/h2c}]}",
            "Service ws default - {selector: {app: echo}, ports: [{port: 80, targetPort: 8080, appProtocol: kubernetes.io/ws}]}",
            "HTTPRoute r default [{group: '', kind: Service, name: echo}] [{backendRefs: [{name: h2, port: 80}]}, {matches: [{path: {value: /ws}}], backendRefs: [{name: ws, port: 80}]}]",
        ],
        asks: &[
            ("client GET echo/", "default/h2:80 in http2"),
            ("client GET echo/ws", "default/ws:80"),
        ],
    },
];

/// `KIND NAME NAMESPACE PARENTS RULES` as YAML.
fn document(text: &str) -> String {
    let words: Vec<&str> = text.splitn(4, ' ').collect();
    let [kind, name, namespace, rest] = words[..] else {
        panic!("{text}")
    };
    if kind == "Service" {
        let spec = rest.trim_start_matches("- ");
        return format!(
            "{{apiVersion: v1, kind: Service, metadata: {{name: {name}}}, spec: {spec}}}"
        );
    }
    let (name, hosts) = match name.split_once('=') {
        Some((name, hosts)) => (name, format!("hostnames: {hosts}, ")),
        None if kind == "TLSRoute" => (name, "hostnames: ['*.example'], ".to_owned()),
        None => (name, String::new()),
    };
    let version = if kind == "TCPRoute" { "v1alpha2" } else { "v1" };
    let (parents, rules) = rest.split_once("}] [").unwrap();
    format!(
        "{{apiVersion: gateway.networking.k8s.io/{version}, kind: {kind}, metadata: {{name: {name}, namespace: {namespace}}}, spec: {{{hosts}parentRefs: {parents}}}], rules: [{rules}}}}}"
    )
}

fn planned(documents: &[&str]) -> Compiled {
    let documents: Vec<String> = documents.iter().map(|text| document(text)).collect();
    let world = World::parse(&format!("{HOSTS}\n===\n{}", documents.join("\n---\n")));
    compile(&world.input()).unwrap()
}

struct Request {
    method: String,
    path: String,
    query: String,
    headers: Vec<(String, String)>,
}

impl RequestView for Request {
    fn method(&self) -> &str {
        &self.method
    }
    fn path(&self) -> &str {
        &self.path
    }
    fn query(&self) -> &str {
        &self.query
    }
    fn header(&self, name: &str) -> Option<Cow<'_, [u8]>> {
        let mut all = self.headers.iter();
        let found = all.find(|(key, _)| key.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_bytes().into())
    }
}

/// What a request meets.
fn met(compiled: &Compiled, ask: &str) -> String {
    let words: Vec<&str> = ask.split(' ').collect();
    let snapshot = &compiled.snapshot;
    let caller = &snapshot.callers.by_service[&ServiceId::parse(words[0]).unwrap()];
    let (authority, behind) = words[2].split_once('/').unwrap();
    let (path, query) = behind.split_once('?').unwrap_or((behind, ""));
    let headers = words[3..].chunks(2);
    let request = Request {
        method: words[1].to_owned(),
        path: format!("/{path}"),
        query: query.to_owned(),
        headers: headers
            .map(|pair| (pair[0].trim_end_matches(':').to_owned(), pair[1].to_owned()))
            .collect(),
    };
    let Some(frontend) = snapshot.outbound.named(authority, None) else {
        return "no frontend".to_owned();
    };
    let opening = match words[1] {
        "TCP" => Some(Opening::Other),
        "TLS" => Some(Opening::Tls(Some(path))),
        _ => None,
    };
    if let Some(opening) = opening {
        return match decide::connected(frontend, opening, &Source::local(caller, None)) {
            Connected::Rule { target, .. } => told(target),
            Connected::Default(backend) => format!("own {}:{}", backend.service, backend.port),
            Connected::NoRule => "no-route".to_owned(),
        };
    }
    match decide::matched(frontend, &caller.namespace, &request) {
        Matched::Default(backend) => format!("own {}:{}", backend.service, backend.port),
        Matched::NoRule => "404".to_owned(),
        Matched::Rule(rule) => {
            let mut text = told(&rule.target);
            if !rule.filters.is_empty() {
                write!(text, " with {}", filters(&rule.filters)).unwrap();
            }
            let (retry, timeouts) = (&rule.retry, &rule.timeouts);
            if *retry != mesh_model::snapshot::Retry::default() {
                let (request, each) = (timeouts.request, timeouts.backend_request);
                write!(
                    text,
                    " tries {} on {:?} in {request:?}/{each:?}",
                    retry.attempts, retry.codes
                )
                .unwrap();
            }
            text
        }
    }
}

fn filters(all: &[Filter]) -> String {
    let all: Vec<String> = all.iter().map(|one| format!("{one:?}")).collect();
    all.join(", ")
}

fn told(target: &Target) -> String {
    match target {
        Target::Backend(backend) => {
            let mut text = format!("{}:{}", backend.service, backend.port);
            if backend.endpoints.is_empty() {
                text.push_str(" without endpoints");
            }
            if backend.protocol == mesh_model::service::AppProtocol::Http2 {
                text.push_str(" in http2");
            }
            text
        }
        Target::Weighted(shares) => {
            let one = |share: &mesh_model::snapshot::WeightedTarget| {
                let edits = match filters(&share.filters) {
                    edits if edits.is_empty() => edits,
                    edits => format!(" ({edits})"),
                };
                format!("{}*{}{edits}", share.weight, told(&share.target))
            };
            let all: Vec<String> = shares.iter().map(one).collect();
            all.join(" & ")
        }
        Target::Failover(all) => all.iter().map(told).collect::<Vec<_>>().join(" | "),
        Target::Fail { status, .. } => status.to_string(),
    }
}

#[test]
fn each_fact_holds() {
    let mut wrong = String::new();
    for case in CASES {
        let compiled = planned(case.documents);
        for (ask, wanted) in case.asks {
            let found = met(&compiled, ask);
            if found != *wanted {
                writeln!(
                    wrong,
                    "fact {} ({}): {ask} meets {found}, not {wanted}",
                    case.fact, case.what
                )
                .unwrap();
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

#[test]
fn the_table_is_whole() {
    let gateways_and_bytes = [13, 15, 19, 21, 29, 30, 31, 37, 38];
    let elsewhere = [7, 35, 36];
    let mut shown: Vec<u8> = CASES.iter().map(|case| case.fact).collect();
    shown.extend(gateways_and_bytes);
    shown.extend(elsewhere);
    shown.sort_unstable();
    assert_eq!(shown, (1..=38).collect::<Vec<u8>>());
}

#[test]
fn fact_7_a_service_is_named_with_its_group() {
    let text = document(
        "HTTPRoute g default [{kind: Service, name: echo}] [{backendRefs: [{name: echo-v1, port: 80}]}]",
    );
    let faults = mesh_model::document::parse_documents(&text, "x").unwrap_err();
    assert!(faults[0].remedy.contains("group: \"\""), "{faults:?}");
}

/// Conditions of each parent, as `Accepted=True/Accepted ResolvedRefs=…`.
fn conditions(compiled: &Compiled, kind: &str, name: &str) -> Vec<String> {
    let mut all = compiled.statuses.iter();
    let status = all
        .find(|one| one.kind == kind && one.name == name)
        .unwrap();
    let json: serde_json::Value = serde_json::from_slice(&status.status).unwrap();
    let one = |parent: &serde_json::Value| {
        assert_eq!(parent["controllerName"], "meshd.io/meshd");
        let text = |one: &serde_json::Value| {
            let part = |key: &str| one[key].as_str().unwrap().to_owned();
            format!("{}={}/{}", part("type"), part("status"), part("reason"))
        };
        let all = parent["conditions"].as_array().unwrap();
        all.iter().map(text).collect::<Vec<_>>().join(" ")
    };
    json["parents"]
        .as_array()
        .unwrap()
        .iter()
        .map(one)
        .collect()
}

#[test]
fn facts_35_and_36_statuses() {
    let compiled = planned(&[
        "HTTPRoute bad default [{group: '', kind: Service, name: echo}, {group: '', kind: Service, name: nobody}] [{backendRefs: [{name: gone, port: 80}]}]",
        "HTTPRoute kind default [{group: '', kind: Service, name: echo-v1}] [{backendRefs: [{group: x.io, kind: Bucket, name: b, port: 80}]}]",
        "HTTPRoute all default [{group: '', kind: Service, name: ports}] [{backendRefs: [{name: echo, port: 80}]}]",
        "HTTPRoute raw default [{group: '', kind: Service, name: ports, port: 90}] [{backendRefs: [{name: echo, port: 80}]}]",
        "TCPRoute late default [{group: '', kind: Service, name: echo}] [{backendRefs: [{name: echo, port: 80}]}]",
    ]);
    let of = |kind, name| conditions(&compiled, kind, name);
    assert_eq!(
        of("HTTPRoute", "bad"),
        [
            "Accepted=True/Accepted ResolvedRefs=False/BackendNotFound",
            "Accepted=False/NoMatchingParent ResolvedRefs=False/BackendNotFound",
        ],
        "one entry for each parentRef; a broken backend leaves Accepted alone"
    );
    let good = "Accepted=True/Accepted ResolvedRefs=True/ResolvedRefs";
    assert_eq!(
        of("HTTPRoute", "kind"),
        ["Accepted=True/Accepted ResolvedRefs=False/InvalidKind"]
    );
    assert_eq!(
        of("HTTPRoute", "all"),
        [good],
        "it acts on the ports on which it can"
    );
    assert_eq!(
        of("HTTPRoute", "raw"),
        ["Accepted=False/UnsupportedProtocol ResolvedRefs=True/ResolvedRefs"]
    );
    assert_eq!(
        of("TCPRoute", "late"),
        ["Accepted=False/Conflicted ResolvedRefs=True/ResolvedRefs"]
    );
}
