//! Documents such as people paste them from what they know: each is read, and what is not carried out is told.

use super::*;
use crate::document::{
    destination_rule::{SimpleBalancer, TlsMode},
    limit::{LimitBySpec, LimitScopeSpec},
    span::{GrpcCode, Rate, Span},
    virtual_service::{TextCondition, shares},
};

fn one(text: &str) -> Document {
    let mut all = parse_documents(text, "f").unwrap_or_else(|faults| panic!("{faults:#?}\n{text}"));
    assert_eq!(all.len(), 1);
    let document = all.remove(0);
    let again = Document::from_json(&document.json).unwrap();
    assert_eq!(
        (&again.spec, &again.reports),
        (&document.spec, &document.reports)
    );
    document
}

fn virtual_service(version: &str, spec: &str) -> Document {
    one(&format!(
        "apiVersion: networking.istio.io/{version}\nkind: VirtualService\nmetadata:\n  name: v\n  namespace: shop\nspec:\n{spec}"
    ))
}

fn destination_rule(version: &str, spec: &str) -> Document {
    one(&format!(
        "apiVersion: networking.istio.io/{version}\nkind: DestinationRule\nmetadata:\n  name: d\n  namespace: shop\nspec:\n{spec}"
    ))
}

/// Paths of what is told.
fn told(document: &Document) -> Vec<&str> {
    document
        .reports
        .iter()
        .map(|report| report.path.as_str())
        .collect()
}

#[test]
fn canary_by_weight_and_cohort_by_header() {
    let document = virtual_service(
        "v1",
        r#"
  hosts:
  - reviews.shop.svc.cluster.local
  http:
  - name: "testers"
    match:
    - headers:
        end-user:
          exact: jason
        x-cohort: {}
      uri:
        prefix: "/api/v1"
      ignoreUriCase: true
    route:
    - destination:
        host: reviews
        subset: v2
  - route:
    - destination: {host: reviews, subset: v1, port: {number: 9080}}
      weight: 75
      headers:
        response:
          set: {x-version: v1}
    - destination:
        host: reviews
        subset: v3
      weight: 25
"#,
    );
    assert_eq!(told(&document), [""; 0]);
    let Spec::VirtualService(service) = &document.spec else {
        panic!("a VirtualService")
    };
    let matches = &service.http[0].matches[0];
    assert_eq!(
        matches.headers["end-user"].condition(),
        TextCondition::Exact("jason")
    );
    assert_eq!(
        matches.headers["x-cohort"].condition(),
        TextCondition::Present
    );
    assert!(matches.ignore_uri_case && matches.can_act());
    assert_eq!(shares(&[Some(75), Some(25)]), [75, 25]);
    assert_eq!(shares(&[None]), [1]);
    assert_eq!(shares(&[Some(0)]), [1]);
    assert_eq!(shares(&[None, Some(5)]), [0, 5]);
}

#[test]
fn time_outs_retries_and_faults() {
    let document = virtual_service(
        "v1alpha3",
        r#"
  hosts: [ratings]
  http:
  - fault:
      delay:
        percentage: {value: 0.1}
        fixedDelay: 1.5s
      abort:
        percent: 10
        grpcStatus: "UNAVAILABLE"
    route:
    - destination: {host: ratings, subset: v1}
    timeout: 10s
    retries:
      attempts: 3
      perTryTimeout: 2s
      retryOn: gateway-error,connect-failure, refused-stream,503,retriable-headers
      retryRemoteLocalities: true
      backoff: 25ms
"#,
    );
    assert_eq!(told(&document), ["spec.http[0].retries.retryOn"]);
    let Spec::VirtualService(service) = &document.spec else {
        panic!("a VirtualService")
    };
    let route = &service.http[0];
    let (delay, abort) = {
        let fault = route.fault.as_ref().unwrap();
        (fault.delay.as_ref().unwrap(), fault.abort.as_ref().unwrap())
    };
    let millis = |count| Some(Span(std::time::Duration::from_millis(count)));
    assert_eq!(delay.fixed_delay, millis(1500));
    assert_eq!(abort.grpc_status, Some(GrpcCode(14)));
    assert_eq!(route.retries.as_ref().unwrap().backoff, millis(25));
}

#[test]
fn mirrors_redirects_rewrites_and_answers() {
    let document = virtual_service(
        "v1beta1",
        r#"
  hosts: [httpbin, "httpbin.mesh.internal"]
  gateways: [mesh]
  exportTo: ["."]
  http:
  - match: [{uri: {exact: /old}}]
    redirect: {uri: /new, authority: "new.example:8443", redirectCode: 308}
  - match: [{uri: {prefix: /down}, method: {regex: "GET|HEAD"}}]
    directResponse:
      status: 503
      body: {string: "closed for the night"}
  - match: [{uri: {prefix: /bytes}}]
    directResponse: {status: 200, body: {bytes: aGVsbG8=}}
  - match: [{uri: {regex: "/item/([0-9]+)/?.*"}}]
    rewrite:
      uriRegexRewrite: {match: "^/item/([0-9]+)", rewrite: '/items?\1'}
    route: [{destination: {host: httpbin}}]
  - match:
    - uri: {prefix: /ratings}
      queryParams: {user: {regex: "[a-z]+"}}
      withoutHeaders: {x-internal: {}}
    rewrite: {uri: /v1/bookRatings, authority: ratings.internal}
    route: [{destination: {host: httpbin, subset: v1}}]
    mirror: {host: httpbin, subset: v2}
    mirrorPercentage: {value: 12.5}
  - route:
    - destination: {host: httpbin}
    mirrors:
    - {destination: {host: audit}, percentage: {value: 100}}
    - {destination: {host: audit, subset: v2}}
    corsPolicy:
      allowOrigins:
      - exact: https://example.com
      - regex: "https://.*\\.example\\.org"
      allowMethods: [POST, GET]
      allowCredentials: true
      allowHeaders: [X-Foo-Bar]
      exposeHeaders: [x-trace]
      maxAge: "24h"
    headers:
      request: {set: {x-env: prod, Host: httpbin.example}, remove: [x-debug]}
      response: {add: {x-served-by: mesh}}
"#,
    );
    assert_eq!(told(&document), [""; 0]);
    let Spec::VirtualService(service) = &document.spec else {
        panic!("a VirtualService")
    };
    let body = service.http[2]
        .direct_response
        .as_ref()
        .unwrap()
        .body
        .as_ref();
    assert_eq!(body.unwrap().bytes.as_ref().unwrap().0, b"hello");
}

#[test]
fn what_belongs_to_gateways_is_told() {
    let document = virtual_service(
        "v1",
        r#"
  hosts: ["*.example.com", bookinfo, 10.0.0.1]
  gateways: [bookinfo-gateway, mesh]
  http:
  - match: [{uri: {exact: /productpage}, gateways: [bookinfo-gateway], statPrefix: pp}]
    route: [{destination: {host: productpage, port: {number: 9080}}}]
  - delegate: {name: reviews, namespace: nsB}
  - match: [{scheme: {exact: https}}]
    redirect: {scheme: https, derivePort: FROM_REQUEST_PORT}
    timeout: 5s
  - route: [{destination: {host: productpage}, headers: {request: {set: {x-ip: "%DOWNSTREAM_REMOTE_ADDRESS%"}}}}]
    corsPolicy: {allowOrigin: [example.com], unmatchedPreflights: FORWARD}
    fault: {delay: {exponentialDelay: 5s}, abort: {http2Error: ENHANCE_YOUR_CALM}}
    retries: {attempts: 0, retryOn: 5xx, retryRemoteLocalities: false, retryIgnorePreviousHosts: false}
  - route: [{destination: {host: never}}]
"#,
    );
    assert_eq!(
        told(&document),
        [
            "spec.hosts[0]",
            "spec.hosts[2]",
            "spec.gateways[0]",
            "spec.http[0].match[0].statPrefix",
            "spec.http[0].match[0].gateways",
            "spec.http[1].delegate",
            "spec.http[2].match[0].scheme",
            "spec.http[2].timeout",
            "spec.http[3].route[0].headers.request.set.x-ip",
            "spec.http[3].retries.retryOn",
            "spec.http[3].retries.retryRemoteLocalities",
            "spec.http[3].retries.retryIgnorePreviousHosts",
            "spec.http[3].fault.delay.exponentialDelay",
            "spec.http[3].fault.abort.http2Error",
            "spec.http[3].corsPolicy.allowOrigin[0]",
            "spec.http[3].corsPolicy.unmatchedPreflights",
            "spec.http[4]",
        ]
    );
    let Spec::VirtualService(service) = &document.spec else {
        panic!("a VirtualService")
    };
    assert!(!service.http[0].matches[0].can_act() && !service.http[2].matches[0].can_act());
    let away = virtual_service(
        "v1",
        "  hosts: [a]\n  gateways: [public]\n  http: [{route: [{destination: {host: a}}]}]\n",
    );
    assert_eq!(told(&away), ["spec.gateways"]);
}

#[test]
fn sources_of_requests_and_connections() {
    let document = one(r#"
apiVersion: meshd.io/v1alpha1
kind: VirtualService
metadata: {name: by-source, namespace: shop}
spec:
  hosts: [mongo]
  http:
  - match:
    - sourceLabels: {app: canary-client, version: v2}
      sourceNamespace: far
      port: 80
    - sourceServices: [till, far/reports]
      sourceSubnets: [10.0.0.0/8, "fd00::/8", 192.0.2.7]
    route: [{destination: {host: mongo, subset: v2}}]
  - route: [{destination: {host: mongo, subset: v1}}]
  tls:
  - match: [{port: 443, sniHosts: [login.example.com, "*.shop.example"]}]
    route: [{destination: {host: login}}]
  tcp:
  - match: [{port: 27017, sourceSubnet: 172.16.0.0/12, destinationSubnets: [10.1.0.0/16]}]
    route:
    - {destination: {host: mongo, port: {number: 5555}}, weight: 90}
    - {destination: {host: mongo-backup}, weight: 10}
"#);
    assert_eq!(told(&document), ["spec.tcp[0].match[0].destinationSubnets"]);
}

#[test]
fn subsets_pools_and_outliers() {
    let document = destination_rule(
        "v1",
        r"
  host: reviews.shop.svc.cluster.local
  trafficPolicy:
    connectionPool:
      tcp: {maxConnections: 100, connectTimeout: 30ms, tcpKeepalive: {time: 7200s, interval: 75s}}
      http: {http1MaxPendingRequests: 1, http2MaxRequests: 1000, maxRequestsPerConnection: 10, maxRetries: 3, idleTimeout: 1h, h2UpgradePolicy: UPGRADE}
    outlierDetection: {consecutive5xxErrors: 7, interval: 5m, baseEjectionTime: 15m, maxEjectionPercent: 100, minHealthPercent: 30}
    tls: {mode: ISTIO_MUTUAL}
    retryBudget: {percent: 25.5, minRetryConcurrency: 5}
  subsets:
  - name: v1
    labels: {version: v1}
  - name: testversion
    labels: {version: v3}
    trafficPolicy:
      loadBalancer: {simple: LEAST_CONN}
  - {name: all}
",
    );
    assert_eq!(
        told(&document),
        [
            "spec.trafficPolicy.connectionPool.tcp.tcpKeepalive",
            "spec.trafficPolicy.retryBudget.minRetryConcurrency",
        ]
    );
    let Spec::DestinationRule(rule) = &document.spec else {
        panic!("a DestinationRule")
    };
    let balancer = rule.subsets[1].traffic_policy.as_ref().unwrap();
    let balancer = balancer.load_balancer.as_ref().unwrap();
    assert_eq!(balancer.simple, Some(SimpleBalancer::LeastConn));
    let tls = rule.traffic_policy.as_ref().unwrap().tls.as_ref().unwrap();
    assert_eq!(tls.mode, TlsMode::IstioMutual);
}

#[test]
fn balancing_by_port_hash_and_locality() {
    let document = destination_rule(
        "v1beta1",
        r#"
  host: ratings
  exportTo: ["*"]
  trafficPolicy:
    portLevelSettings:
    - port: {number: 80}
      loadBalancer: {simple: LEAST_REQUEST, choices: 3, warmupDurationSecs: 30s}
    - port: {number: 9080}
      loadBalancer: {simple: ROUND_ROBIN, warmup: {duration: 1m, minimumPercent: 5, aggression: 1.5}}
      outlierDetection: {successRate: {stdevFactor: 2}, latency: {factor: 3, floor: 20ms}, maxEjectionTime: 5m}
    loadBalancer:
      consistentHash:
        httpCookie: {name: user, ttl: 0s, path: /}
        ringHash: {minimumRingSize: 2048}
      localityLbSetting:
        enabled: true
        distribute:
        - from: us-west/zone1/*
          to:
            "us-west/zone1/*": 80
            "us-west/zone2/*": 20
    healthCheck: {http: {path: /healthz, statuses: [200, 204]}, interval: 5s, timeout: 1s}
    panicThreshold: 30
    retryBudget: {percent: 10, minRetriesPerSecond: 3}
  subsets:
  - name: hashed
    labels: {app: ratings}
    trafficPolicy: {loadBalancer: {consistentHash: {useSourceIp: true, maglev: {tableSize: 65537}}}}
  - name: near
    labels: {app: ratings}
    trafficPolicy: {loadBalancer: {simple: PEAK_EWMA, decay: 5s, localityLbSetting: {failover: [{from: us-east, to: eu-west}]}}}
"#,
    );
    assert_eq!(told(&document), [""; 0]);
}

#[test]
fn what_destination_rules_cannot_ask_is_told() {
    let document = destination_rule(
        "v1alpha3",
        r"
  host: mydb
  workloadSelector: {matchLabels: {app: ratings}}
  trafficPolicy:
    tls:
      mode: MUTUAL
      clientCertificate: /etc/certs/myclientcert.pem
      privateKey: /etc/certs/client_private_key.pem
      caCertificates: /etc/certs/rootcacerts.pem
      subjectAltNames: [db.example]
      sni: db.example
    tunnel: {protocol: CONNECT, targetHost: a, targetPort: 1}
    proxyProtocol: {version: V2}
    connectionPool: {tcp: {maxConnections: 0, maxConnectionDuration: 1h}, http: {useClientProtocol: true, maxConcurrentStreams: 10}}
    loadBalancer: {simple: PASSTHROUGH, localityLbSetting: {failoverPriority: [topology.istio.io/network]}}
    outlierDetection: {splitExternalLocalOriginErrors: false, consecutiveLocalOriginFailures: 2}
",
    );
    let tails: Vec<_> = told(&document)
        .iter()
        .map(|path| path.rsplit('.').next().unwrap().to_owned())
        .collect();
    assert_eq!(
        tails,
        [
            "workloadSelector",
            "simple",
            "failoverPriority",
            "maxConnections",
            "maxConnectionDuration",
            "useClientProtocol",
            "maxConcurrentStreams",
            "splitExternalLocalOriginErrors",
            "mode",
            "clientCertificate",
            "privateKey",
            "caCertificates",
            "subjectAltNames",
            "sni",
            "tunnel",
            "proxyProtocol",
        ]
    );
}

#[test]
fn limits_faults_and_answers_of_our_own() {
    let text = r#"
apiVersion: meshd.io/v1alpha1
kind: RateLimit
metadata: {name: searches}
spec:
  targetRefs: [{kind: Service, name: search}, {group: "", name: suggest, sectionName: http}]
  matches:
  - path: {value: /find}
    method: GET
    source: {services: [web, far/app], namespaces: [shop], labels: {tier: free}, addresses: [10.0.0.0/8]}
  limit: {requests: 100, per: 1m, burst: 20}
  by: [source, sourceNamespace, sourceAddress, method, path, {header: X-Api-Key}]
  scope: mesh
---
apiVersion: meshd.io/v1alpha1
kind: FaultInjection
metadata: {name: slow}
spec:
  targetRefs: [{name: search}]
  matches: [{headers: [{name: x-chaos, value: "1"}]}]
  delay: {percent: 0.5, time: 2s}
  abort: {percent: 10, grpc: 14}
  bandwidth: {rate: 64kbps}
---
apiVersion: meshd.io/v1alpha1
kind: DirectResponse
metadata: {name: closed}
spec: {status: 503, body: "come back later\n", headers: [{name: retry-after, value: "60"}]}
"#;
    let documents = parse_documents(text, "f").unwrap_or_else(|faults| panic!("{faults:#?}"));
    let Spec::RateLimit(limit) = &documents[0].spec else {
        panic!("a RateLimit")
    };
    assert_eq!(limit.scope, LimitScopeSpec::Mesh);
    assert_eq!(limit.by[1], LimitBySpec::SourceNamespace);
    assert_eq!(limit.by[5], LimitBySpec::Header("X-Api-Key".to_owned()));
    let Spec::FaultInjection(fault) = &documents[1].spec else {
        panic!("a FaultInjection")
    };
    assert_eq!(fault.abort.unwrap().grpc, Some(GrpcCode(14)));
    assert_eq!(fault.bandwidth.unwrap().rate, Rate(8000));
    assert!((fault.bandwidth.unwrap().percent - 100.0).abs() < f64::EPSILON);
}

#[test]
fn filters_and_sessions_of_routes() {
    let document = one(&route(
        r#"  - matches: [{path: {value: /closed}}]
    filters: [{type: ExtensionRef, extensionRef: {group: meshd.io, kind: DirectResponse, name: closed}}]
  - filters:
    - type: RequestMirror
      requestMirror: {backendRef: {name: audit, port: 80}, percent: 10}
    - type: RequestMirror
      requestMirror: {backendRef: {name: shadow, namespace: lab, port: 80}, fraction: {numerator: 1, denominator: 1000}}
    - type: CORS
      cors:
        allowOrigins: ["https://*.shop.example", "http://localhost:3000", "https://*:8443", "app://*"]
        allowCredentials: true
        allowMethods: [GET, PUT]
        allowHeaders: ["*"]
        exposeHeaders: [x-trace]
        maxAge: 600
    backendRefs: [{name: w, port: 80}]
    sessionPersistence:
      type: Cookie
      sessionName: cart
      absoluteTimeout: 1h
      idleTimeout: 5m
      cookieConfig: {lifetimeType: Permanent}
  - backendRefs: [{name: w, port: 80}]
    sessionPersistence: {type: Header, absoluteTimeout: 1h}
  useDefaultGateways: All"#,
    ));
    assert_eq!(
        told(&document),
        [
            "spec.useDefaultGateways",
            "spec.rules[1].sessionPersistence.idleTimeout",
            "spec.rules[2].sessionPersistence.absoluteTimeout",
        ]
    );
    let grpc = document_of(
        "GRPCRoute",
        "gateway.networking.k8s.io/v1",
        "{parentRefs: [{group: '', kind: Service, name: w}], rules: [{name: a, matches: [{method: {type: RegularExpression, service: 'a.*'}, headers: [{type: RegularExpression, name: x-a, value: 'b+'}]}], filters: [{type: RequestMirror, requestMirror: {backendRef: {name: b, port: 1}}}], backendRefs: [{name: w, port: 80}], sessionPersistence: {sessionName: s}}]}",
    );
    assert_eq!(told(&grpc), [""; 0]);
    let tcp = "{parentRefs: [{group: '', kind: Service, name: w}], rules: [{backendRefs: [{name: w, port: 80}]}]}";
    document_of("TCPRoute", "gateway.networking.k8s.io/v1", tcp);
}

fn document_of(kind: &str, version: &str, spec: &str) -> Document {
    one(&document(kind, version, spec))
}

/// The YAML of the pages about these kinds.
fn examples() -> Vec<&'static str> {
    let pages = [
        include_str!("../../../../../docs/routes.md"),
        include_str!("../../../../../docs/virtual-service.md"),
        include_str!("../../../../../docs/destination-rule.md"),
        include_str!("../../../../../docs/rate-limits.md"),
        include_str!("../../../../../docs/faults.md"),
    ];
    let blocks = pages
        .iter()
        .flat_map(|page| page.split("```yaml\n").skip(1));
    blocks
        .map(|block| block.split("```").next().unwrap())
        .collect()
}

#[test]
fn documents_of_the_pages() {
    let mut kinds = BTreeSet::new();
    for text in examples() {
        let found = parse_documents(text, "page").unwrap_or_else(|faults| panic!("{faults:#?}"));
        kinds.extend(found.into_iter().map(|document| document.kind));
    }
    assert_eq!(kinds.len(), 11, "{kinds:?}");
}

/// What a word of an example is replaced by.
const ODD: [&str; 18] = [
    "", "0", "-1", "70000", "1.5", ".nan", ".inf", "1e999", "~", "[]", "{}", "[x]", "{x: 1}",
    "true", "'*'", "x", "0s", "9999999h",
];

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(2000))]

    /// Whatever a person changes in a document: it is refused, or what is stored reads back the same.
    #[test]
    fn changed_examples_are_refused_or_read_back(
        example in proptest::prelude::any::<proptest::sample::Index>(),
        word in proptest::prelude::any::<proptest::sample::Index>(),
        odd in proptest::sample::select(&ODD[..]),
    ) {
        let text = *example.get(&examples());
        let words: Vec<&str> = text.split([' ', ',', '{', '}', '[', ']', '\n']).filter(|word| !word.is_empty()).collect();
        let word = *word.get(&words);
        let (before, rest) = text.split_at(word.as_ptr().addr() - text.as_ptr().addr());
        let changed = format!("{before}{odd}{}", rest.split_at(word.len()).1);
        let _imported = crate::document::import::import(&[("f".to_owned(), changed.clone())]);
        for document in parse_documents(&changed, "f").unwrap_or_default() {
            let again = Document::from_json(&document.json).unwrap_or_else(|faults| panic!("{faults:#?}\n{changed}"));
            assert_eq!((&again.spec, &again.reports), (&document.spec, &document.reports), "{changed}");
        }
    }
}
