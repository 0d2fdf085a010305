//! Impossible and contradictory documents: each is refused with its path and a remedy.

use super::*;

const ISTIO: &str = "networking.istio.io/v1";

/// What is written where a case has its place, the path of the fault and words of its text.
type Case = (&'static str, &'static str, &'static str);

/// Each case alone is wrong once, at its path, with its words.
fn check(kind: &str, version: &str, before: &str, after: &str, cases: &[Case]) {
    for (text, path, words) in cases {
        let spec = format!("{{{before}{text}{after}}}");
        let found = refused(&document(kind, version, &spec));
        let start = format!("f:4: {kind}/default/x {path}: ");
        assert!(
            found.len() == 1 && found[0].starts_with(&start) && found[0].contains(words),
            "{text}\nwanted {start}… {words}\nfound {found:#?}"
        );
    }
}

/// Whole specs of a `VirtualService`.
#[test]
fn virtual_services() {
    let cases = [
        ("hosts: [a]", "spec", "write `http`, `tls` or `tcp`"),
        (
            "hosts: [A_b], http: [{route: [{destination: {host: a}}]}]",
            "spec.hosts[0]",
            "lower-case labels",
        ),
        (
            "hosts: [a, a], http: [{route: [{destination: {host: a}}]}]",
            "spec.hosts[1]",
            "written twice",
        ),
        (
            "host: [a], http: [{route: [{destination: {host: a}}]}]",
            "spec.host",
            "did you mean `hosts`?",
        ),
        (
            "hosts: a, http: [{route: [{destination: {host: a}}]}]",
            "spec.hosts",
            "write it in brackets",
        ),
        (
            "hosts: [a], exportTo: [., '*'], http: [{route: [{destination: {host: a}}]}]",
            "spec.exportTo[0]",
            "leave one of them",
        ),
        (
            "hosts: [a], exportTo: [~], http: [{route: [{destination: {host: a}}]}]",
            "spec.exportTo[0]",
            "write a text",
        ),
        (
            "hosts: [a], tls: [{route: [{destination: {host: a}}]}]",
            "spec.tls[0].match",
            "`sniHosts`",
        ),
        (
            "hosts: [a], tls: [{match: [{port: 443}], route: [{destination: {host: a}}]}]",
            "spec.tls[0].match[0].sniHosts",
            "at least one server name",
        ),
        (
            "hosts: [a], tls: [{match: [{sniHosts: ['a.*.b']}], route: [{destination: {host: a}}]}]",
            "spec.tls[0].match[0].sniHosts[0]",
            "no host name",
        ),
        (
            "hosts: [a], tcp: [{match: [{port: 1}]}]",
            "spec.tcp[0].route",
            "write where connections go",
        ),
        (
            "hosts: [a], tcp: [{match: [{port: 0}], route: [{destination: {host: a}}]}]",
            "spec.tcp[0].match[0].port",
            "write 1 to 65535",
        ),
        (
            "hosts: [a], tcp: [{match: [{sourceSubnet: 10.0.0.0/33}], route: [{destination: {host: a}}]}]",
            "spec.tcp[0].match[0].sourceSubnet",
            "write /0 to /32",
        ),
        (
            "hosts: [a], tcp: [{route: [{destination: {host: a}, weight: 0}, {destination: {host: b}}]}]",
            "spec.tcp[0].route",
            "add up to 0",
        ),
    ];
    check("VirtualService", ISTIO, "", "", &cases);
}

/// An HTTP route of a `VirtualService`.
#[test]
fn http_routes() {
    let cases = [
        (
            "name: a",
            "spec.http[0]",
            "write `route`, `redirect` or `directResponse`",
        ),
        (
            "route: [{destination: {host: a}}], redirect: {uri: /}",
            "spec.http[0].redirect",
            "`route` and `redirect` exclude each other; leave one",
        ),
        (
            "redirect: {uri: /}, directResponse: {status: 200}",
            "spec.http[0].directResponse",
            "exclude each other",
        ),
        (
            "redirect: {uri: /}, rewrite: {uri: /a}",
            "spec.http[0].rewrite",
            "remove it, or `redirect`",
        ),
        (
            "route: [{destination: {host: a}, weight: 0}, {destination: {host: b}, weight: 0}]",
            "spec.http[0].route",
            "the weights add up to 0",
        ),
        (
            "route: [{destination: {host: a}, weight: 2000000}]",
            "spec.http[0].route[0].weight",
            "write 0 to 1000000",
        ),
        (
            "route: [{destination: {host: a}, weight: -1}]",
            "spec.http[0].route[0].weight",
            "write 0 to 4294967295",
        ),
        (
            "route: [{destination: {subset: v1}}]",
            "spec.http[0].route[0].destination.host",
            "write `host`",
        ),
        (
            "route: [{destination: {host: '*.a'}}]",
            "spec.http[0].route[0].destination.host",
            "write a service's name",
        ),
        (
            "route: [{destination: {host: a, subset: 'v 1'}}]",
            "spec.http[0].route[0].destination.subset",
            "no name of a subset",
        ),
        (
            "route: [{destination: {host: a, port: {number: 0}}}]",
            "spec.http[0].route[0].destination.port.number",
            "write 1 to 65535",
        ),
        (
            "route: [{destination: {host: a, port: 80}}]",
            "spec.http[0].route[0].destination.port",
            "write a table",
        ),
        (
            "route: [{destination: {host: a}}], redirect: {}, match: []",
            "spec.http[0].redirect",
            "exclude each other",
        ),
        (
            "redirect: {redirectCode: 200}",
            "spec.http[0].redirect.redirectCode",
            "write 301, 302",
        ),
        (
            "redirect: {port: 80, derivePort: FROM_REQUEST_PORT}",
            "spec.http[0].redirect.derivePort",
            "exclude each other",
        ),
        (
            "redirect: {derivePort: FROM_REQUESTS_PORT}",
            "spec.http[0].redirect.derivePort",
            "did you mean `FROM_REQUEST_PORT`?",
        ),
        (
            "redirect: {scheme: htp}",
            "spec.http[0].redirect.scheme",
            "did you mean `http`?",
        ),
        (
            "redirect: {authority: 'a:0'}",
            "spec.http[0].redirect.authority",
            "write 1 to 65535",
        ),
        (
            "redirect: {uri: 'a?b'}",
            "spec.http[0].redirect.uri",
            "begin it with /",
        ),
        (
            "directResponse: {status: 99}",
            "spec.http[0].directResponse.status",
            "write 200 to 599",
        ),
        (
            "directResponse: {status: 204, body: {string: a}}",
            "spec.http[0].directResponse.body",
            "an answer with 204 has no body",
        ),
        (
            "directResponse: {status: 200, body: {}}",
            "spec.http[0].directResponse.body",
            "write one of `string`, `bytes`",
        ),
        (
            "directResponse: {status: 200, body: {bytes: 'a!'}}",
            "spec.http[0].directResponse.body.bytes",
            "base64 -w0",
        ),
    ];
    check(
        "VirtualService",
        ISTIO,
        "hosts: [a], http: [{",
        "}]",
        &cases,
    );
}

/// Beside a destination: what is done with requests on their way.
#[test]
fn what_http_routes_do() {
    let cases = [
        ("rewrite: {}", "spec.http[0].rewrite", "changes nothing"),
        (
            "rewrite: {uri: /a, uriRegexRewrite: {match: a, rewrite: b}}",
            "spec.http[0].rewrite.uriRegexRewrite",
            "exclude each other",
        ),
        (
            "rewrite: {uriRegexRewrite: {match: '(a', rewrite: b}}",
            "spec.http[0].rewrite.uriRegexRewrite.match",
            "unclosed group (character 1)",
        ),
        (
            "rewrite: {uriRegexRewrite: {match: '(a)', rewrite: '/\\2'}}",
            "spec.http[0].rewrite.uriRegexRewrite.rewrite",
            "put the part in parentheses",
        ),
        (
            "rewrite: {authority: 'a b'}",
            "spec.http[0].rewrite.authority",
            "no host name",
        ),
        ("timeout: 5", "spec.http[0].timeout", "write it in quotes"),
        (
            "timeout: 5 seconds",
            "spec.http[0].timeout",
            "no span of time; write it like 10s",
        ),
        (
            "timeout: 1s, retries: {attempts: 2, perTryTimeout: 2s}",
            "spec.http[0].retries.perTryTimeout",
            "make it at most `timeout`",
        ),
        (
            "retries: {attempts: 99}",
            "spec.http[0].retries.attempts",
            "write 0 to 20",
        ),
        (
            "retries: {attempts: 1, retryOn: 'gateway-eror,5xx'}",
            "spec.http[0].retries.retryOn",
            "did you mean `gateway-error`?",
        ),
        (
            "retries: {attempts: 1, retryOn: '200'}",
            "spec.http[0].retries.retryOn",
            "write 400 to 599",
        ),
        (
            "retries: {attempts: 1, perTryTimeout: 0s}",
            "spec.http[0].retries.perTryTimeout",
            "a span above 0",
        ),
        (
            "fault: {}",
            "spec.http[0].fault",
            "write `delay` or `abort`",
        ),
        (
            "fault: {delay: {percentage: {value: 5}}}",
            "spec.http[0].fault.delay",
            "write one of `fixedDelay`",
        ),
        (
            "fault: {delay: {fixedDelay: 0s}}",
            "spec.http[0].fault.delay.fixedDelay",
            "no time at all",
        ),
        (
            "fault: {delay: {fixedDelay: 2h}}",
            "spec.http[0].fault.delay.fixedDelay",
            "at most 1h",
        ),
        (
            "fault: {delay: {fixedDelay: 1s, percentage: {value: 101}}}",
            "spec.http[0].fault.delay.percentage.value",
            "101 is no percentage; write 0 to 100",
        ),
        (
            "fault: {delay: {fixedDelay: 1s, percentage: 5}}",
            "spec.http[0].fault.delay.percentage",
            "write a table",
        ),
        (
            "fault: {abort: {httpStatus: 700}}",
            "spec.http[0].fault.abort.httpStatus",
            "write 200 to 599",
        ),
        (
            "fault: {abort: {httpStatus: 500, grpcStatus: INTERNAL}}",
            "spec.http[0].fault.abort.grpcStatus",
            "exclude each other",
        ),
        (
            "fault: {abort: {grpcStatus: UNAVAILIBLE}}",
            "spec.http[0].fault.abort.grpcStatus",
            "did you mean `UNAVAILABLE`?",
        ),
        (
            "fault: {abort: {grpcStatus: OK}}",
            "spec.http[0].fault.abort.grpcStatus",
            "OK is no failure",
        ),
        (
            "fault: {abort: {httpStatus: 500, percent: 200}}",
            "spec.http[0].fault.abort.percent",
            "write 0 to 100",
        ),
        (
            "mirror: {host: a}",
            "spec.http[0].mirror",
            "mirror to another host, subset or port",
        ),
        (
            "mirror: {host: a.default}",
            "spec.http[0].mirror",
            "takes the request itself",
        ),
        (
            "mirror: {host: b}, mirrors: [{destination: {host: c}}]",
            "spec.http[0].mirrors",
            "exclude each other",
        ),
        (
            "mirrors: [{destination: {host: c}, percentage: {value: -1}}]",
            "spec.http[0].mirrors[0].percentage.value",
            "write 0 to 100",
        ),
        (
            "mirrorPercentage: {value: 5}",
            "spec.http[0].mirrorPercentage",
            "write `mirror`, or remove it",
        ),
        (
            "corsPolicy: {allowOrigins: [{exact: '*'}], allowCredentials: true}",
            "spec.http[0].corsPolicy.allowOrigins[0]",
            "name the origins, or remove `allowCredentials`",
        ),
        (
            "corsPolicy: {allowOrigins: [{}]}",
            "spec.http[0].corsPolicy.allowOrigins[0]",
            "write `exact`, `prefix` or `regex`",
        ),
        (
            "corsPolicy: {allowOrigins: [{regex: '['}]}",
            "spec.http[0].corsPolicy.allowOrigins[0].regex",
            "unclosed character class (character 1)",
        ),
        (
            "corsPolicy: {allowOrigins: [{exact: 'https://a/b'}]}",
            "spec.http[0].corsPolicy.allowOrigins[0].exact",
            "without a path",
        ),
        (
            "corsPolicy: {allowMethods: ['*', GET]}",
            "spec.http[0].corsPolicy.allowMethods[0]",
            "write it alone",
        ),
        (
            "corsPolicy: {unmatchedPreflights: IGNOR}",
            "spec.http[0].corsPolicy.unmatchedPreflights",
            "did you mean `IGNORE`?",
        ),
        (
            "headers: {response: {set: {Host: a}}}",
            "spec.http[0].headers.response.set.Host",
            "use `rewrite` with `authority`",
        ),
        (
            "headers: {response: {remove: [Transfer-Encoding]}}",
            "spec.http[0].headers.response.remove[0]",
            "cannot change transfer-encoding",
        ),
        (
            "headers: {request: {set: {x-a: \"a\\r\\nb\"}}}",
            "spec.http[0].headers.request.set.x-a",
            "leave out line ends",
        ),
        (
            "match: [{uri: {}}]",
            "spec.http[0].match[0].uri",
            "write `exact`, `prefix` or `regex`",
        ),
        (
            "match: [{uri: {exact: /a, prefix: /b}}]",
            "spec.http[0].match[0].uri.prefix",
            "exclude each other",
        ),
        (
            "match: [{uri: {exakt: /a}}]",
            "spec.http[0].match[0].uri.exakt",
            "did you mean `exact`?",
        ),
        (
            "match: [{uri: {prefix: a}}]",
            "spec.http[0].match[0].uri.prefix",
            "begin it with /",
        ),
        (
            "match: [{uri: {regex: '/a{2,1}'}}]",
            "spec.http[0].match[0].uri.regex",
            "RE2",
        ),
        (
            "match: [{headers: {'x y': {exact: a}}}]",
            "spec.http[0].match[0].headers.\"x y\"",
            "no header name",
        ),
        (
            "match: [{headers: {x-a: b}}]",
            "spec.http[0].match[0].headers.x-a",
            "write a table",
        ),
        (
            "match: [{sourceNamespace: A}]",
            "spec.http[0].match[0].sourceNamespace",
            "no namespace",
        ),
        (
            "match: [{sourceServices: [a/b/c]}]",
            "spec.http[0].match[0].sourceServices[0]",
            "write `name` or `namespace/name`",
        ),
        (
            "match: [{sourceSubnets: [ten]}]",
            "spec.http[0].match[0].sourceSubnets[0]",
            "write it like 10.0.0.0/8",
        ),
    ];
    let before = "hosts: [a], http: [{route: [{destination: {host: a}}], ";
    check("VirtualService", ISTIO, before, "}]", &cases);
}

/// Whole specs of a `DestinationRule`.
#[test]
fn destination_rules() {
    let cases = [
        ("subsets: []", "spec.host", "write `host`"),
        ("host: '*.local'", "spec.host", "write a service's name"),
        (
            "host: a, subsets: [{name: v1}, {name: v1}]",
            "spec.subsets[1].name",
            "write each name once",
        ),
        (
            "host: a, subsets: [{name: ''}]",
            "spec.subsets[0].name",
            "no name of a subset",
        ),
        (
            "host: a, trafficPolicies: {}",
            "spec.trafficPolicies",
            "did you mean `trafficPolicy`?",
        ),
        (
            "host: a, trafficPolicy: {portLevelSettings: [{port: {number: 80}}, {port: {number: 80}}]}",
            "spec.trafficPolicy.portLevelSettings[1].port.number",
            "80 has settings already; write each port once",
        ),
    ];
    check("DestinationRule", ISTIO, "", "", &cases);
}

/// A traffic policy of a `DestinationRule`.
#[test]
fn traffic_policies() {
    let cases = [
        (
            "loadBalancer: {simple: ROUND_ROBBIN}",
            "loadBalancer.simple",
            "did you mean `ROUND_ROBIN`?",
        ),
        (
            "loadBalancer: {simple: RANDOM, consistentHash: {useSourceIp: true}}",
            "loadBalancer.consistentHash",
            "exclude each other",
        ),
        (
            "loadBalancer: {simple: RANDOM, choices: 3}",
            "loadBalancer.choices",
            "belongs to LEAST_REQUEST",
        ),
        (
            "loadBalancer: {simple: LEAST_REQUEST, choices: 1}",
            "loadBalancer.choices",
            "write 2 to 32",
        ),
        (
            "loadBalancer: {simple: PEAK_EWMA, decay: 1ms}",
            "loadBalancer.decay",
            "write 100ms to 10m",
        ),
        (
            "loadBalancer: {consistentHash: {}}",
            "loadBalancer.consistentHash",
            "write one of `httpHeaderName`",
        ),
        (
            "loadBalancer: {consistentHash: {useSourceIp: false}}",
            "loadBalancer.consistentHash",
            "says nothing",
        ),
        (
            "loadBalancer: {consistentHash: {useSourceIp: true, httpHeaderName: x}}",
            "loadBalancer.consistentHash.useSourceIp",
            "exclude each other",
        ),
        (
            "loadBalancer: {consistentHash: {useSourceIp: true, ringHash: {minimumRingSize: 0}}}",
            "loadBalancer.consistentHash.ringHash.minimumRingSize",
            "write 1 to 8388608",
        ),
        (
            "loadBalancer: {consistentHash: {useSourceIp: true, ringHash: {minimumRingSize: 99999999}}}",
            "loadBalancer.consistentHash.ringHash.minimumRingSize",
            "no size of a ring",
        ),
        (
            "loadBalancer: {consistentHash: {useSourceIp: true, ringHash: {}, maglev: {}}}",
            "loadBalancer.consistentHash.maglev",
            "exclude each other",
        ),
        (
            "loadBalancer: {consistentHash: {useSourceIp: true, maglev: {tableSize: 65536}}}",
            "loadBalancer.consistentHash.maglev.tableSize",
            "65536 is no prime, and a Maglev table needs one; write 65537",
        ),
        (
            "loadBalancer: {consistentHash: {useSourceIp: true, maglev: {tableSize: 1}}}",
            "loadBalancer.consistentHash.maglev.tableSize",
            "such as 65537",
        ),
        (
            "loadBalancer: {consistentHash: {httpCookie: {name: 'a b', ttl: 0s}}}",
            "loadBalancer.consistentHash.httpCookie.name",
            "RFC 9110",
        ),
        (
            "loadBalancer: {localityLbSetting: {distribute: [{from: a, to: {a: 60, b: 30}}]}}",
            "loadBalancer.localityLbSetting.distribute[0].to",
            "the shares add up to 90; make them add up to 100",
        ),
        (
            "loadBalancer: {localityLbSetting: {distribute: [{from: 'a/*/b', to: {a: 100}}]}}",
            "loadBalancer.localityLbSetting.distribute[0].from",
            "no locality",
        ),
        (
            "loadBalancer: {localityLbSetting: {failover: [{from: a, to: a}]}}",
            "loadBalancer.localityLbSetting.failover[0].to",
            "write another region",
        ),
        (
            "loadBalancer: {localityLbSetting: {enabled: false, failover: [{from: a, to: b}]}}",
            "loadBalancer.localityLbSetting.enabled",
            "contradicts",
        ),
        (
            "loadBalancer: {localityLbSetting: {distribute: [{from: a, to: {a: 100}}], failover: [{from: a, to: b}]}}",
            "loadBalancer.localityLbSetting.failover",
            "exclude each other",
        ),
        (
            "loadBalancer: {warmup: {duration: 0s}}",
            "loadBalancer.warmup.duration",
            "no time at all",
        ),
        (
            "loadBalancer: {warmup: {duration: 1s, aggression: 0.5}}",
            "loadBalancer.warmup.aggression",
            "write 1 to 100",
        ),
        (
            "connectionPool: {tcp: {connectTimeout: 0s}}",
            "connectionPool.tcp.connectTimeout",
            "a span above 0",
        ),
        (
            "connectionPool: {http: {h2UpgradePolicy: UPGRADES}}",
            "connectionPool.http.h2UpgradePolicy",
            "did you mean `UPGRADE`?",
        ),
        (
            "outlierDetection: {maxEjectionPercent: 101}",
            "outlierDetection.maxEjectionPercent",
            "write 0 to 100",
        ),
        (
            "outlierDetection: {interval: 0s}",
            "outlierDetection.interval",
            "no time at all",
        ),
        (
            "outlierDetection: {baseEjectionTime: 1m, maxEjectionTime: 1s}",
            "outlierDetection.maxEjectionTime",
            "at least `baseEjectionTime`",
        ),
        (
            "outlierDetection: {consecutiveErrors: 5, consecutiveGatewayErrors: 5}",
            "outlierDetection.consecutiveGatewayErrors",
            "exclude each other",
        ),
        (
            "outlierDetection: {latency: {factor: 1}}",
            "outlierDetection.latency.factor",
            "write 1.1 to 100",
        ),
        (
            "outlierDetection: {minHealthPercent: 5}, panicThreshold: 5",
            "panicThreshold",
            "says the same",
        ),
        (
            "tls: {mode: ISTIO_MUTAL}",
            "tls.mode",
            "did you mean `ISTIO_MUTUAL`?",
        ),
        (
            "tls: {mode: ISTIO_MUTUAL, clientCertificate: /a}",
            "tls.clientCertificate",
            "does not belong to this mode",
        ),
        (
            "retryBudget: {percent: 120}",
            "retryBudget.percent",
            "write 0 to 100",
        ),
        (
            "retryBudget: {minRetryConcurrency: 1, minRetriesPerSecond: 1}",
            "retryBudget.minRetriesPerSecond",
            "exclude each other",
        ),
        (
            "healthCheck: {interval: 1s}",
            "healthCheck",
            "write one of `http`, `grpc`, `tcp`",
        ),
        (
            "healthCheck: {tcp: {}, interval: 1s, timeout: 2s}",
            "healthCheck.timeout",
            "at most `interval`",
        ),
        (
            "healthCheck: {http: {path: health}}",
            "healthCheck.http.path",
            "begin it with /",
        ),
        (
            "healthCheck: {tcp: {}, healthyThreshold: 0}",
            "healthCheck.healthyThreshold",
            "write 1 to 100",
        ),
        ("panicThreshold: 200", "panicThreshold", "write 0 to 100"),
        ("hedgeAfter: 0s", "hedgeAfter", "such as 50ms"),
    ];
    for (text, path, words) in cases {
        let whole = format!("spec.trafficPolicy.{path}");
        let subset = format!("spec.subsets[0].trafficPolicy.{path}");
        for (before, after, path) in [
            ("host: a, trafficPolicy: {", "}", whole),
            (
                "host: a, subsets: [{name: v, trafficPolicy: {",
                "}}]",
                subset,
            ),
        ] {
            let spec = format!("{{{before}{text}{after}}}");
            let found = refused(&document("DestinationRule", OWN, &spec));
            let start = format!("f:4: DestinationRule/default/x {path}: ");
            assert!(
                found.len() == 1 && found[0].starts_with(&start) && found[0].contains(words),
                "{text}\nwanted {start}… {words}\nfound {found:#?}"
            );
        }
    }
}

#[test]
fn rate_limits() {
    let cases = [
        (
            "limit: {requests: 1, per: 1s}",
            "spec.targetRefs",
            "write `targetRefs`",
        ),
        (
            "targetRefs: [], limit: {requests: 1, per: 1s}",
            "spec.targetRefs",
            "name at least one Service",
        ),
        ("targetRefs: [{name: a}]", "spec.limit", "write `limit`"),
        (
            "targetRefs: [{name: a}, {name: a}], limit: {requests: 1, per: 1s}",
            "spec.targetRefs[1]",
            "written twice",
        ),
        (
            "targetRefs: [{name: a, kind: Deployment}], limit: {requests: 1, per: 1s}",
            "spec.targetRefs[0].kind",
            "write one of Service",
        ),
        (
            "targetRefs: [{name: a, group: apps}], limit: {requests: 1, per: 1s}",
            "spec.targetRefs[0].group",
            "write `group: \"\"`",
        ),
        (
            "targetRefs: [{name: a, namespace: b}], limit: {requests: 1, per: 1s}",
            "spec.targetRefs[0].namespace",
            "no known key",
        ),
        (
            "targetRefs: [{name: a}], limit: {requests: 0, per: 1s}",
            "spec.limit.requests",
            "0 lets nothing through",
        ),
        (
            "targetRefs: [{name: a}], limit: {requests: 5, per: 0s}",
            "spec.limit.per",
            "5 requests in no time are no limit",
        ),
        (
            "targetRefs: [{name: a}], limit: {requests: 5, per: 48h}",
            "spec.limit.per",
            "write 1ms to 24h",
        ),
        (
            "targetRefs: [{name: a}], limit: {requests: 5, per: 1s, burst: 0}",
            "spec.limit.burst",
            "write at least 1",
        ),
        (
            "targetRefs: [{name: a}], limit: {requests: 5, per: 1s}, by: [sorce]",
            "spec.by[0]",
            "did you mean `source`?",
        ),
        (
            "targetRefs: [{name: a}], limit: {requests: 5, per: 1s}, by: [header]",
            "spec.by[0]",
            "write `header: NAME`",
        ),
        (
            "targetRefs: [{name: a}], limit: {requests: 5, per: 1s}, by: [{cookie: a}]",
            "spec.by[0]",
            "\"cookie\" is no known key",
        ),
        (
            "targetRefs: [{name: a}], limit: {requests: 5, per: 1s}, by: [source, source]",
            "spec.by[1]",
            "leave one of them",
        ),
        (
            "targetRefs: [{name: a}], limit: {requests: 5, per: 1s}, by: [{header: 'a b'}]",
            "spec.by[0].header",
            "no header name",
        ),
        (
            "targetRefs: [{name: a}], limit: {requests: 5, per: 1s}, scope: mesch",
            "spec.scope",
            "did you mean `mesh`?",
        ),
        (
            "targetRefs: [{name: a}], limit: {requests: 5, per: 1s}, matches: [{method: get}]",
            "spec.matches[0].method",
            "did you mean `GET`?",
        ),
        (
            "targetRefs: [{name: a}], limit: {requests: 5, per: 1s}, matches: [{source: {}}]",
            "spec.matches[0].source",
            "names nobody",
        ),
        (
            "targetRefs: [{name: a}], limit: {requests: 5, per: 1s}, matches: [{source: {addresses: ['::/129']}}]",
            "spec.matches[0].source.addresses[0]",
            "write /0 to /128",
        ),
    ];
    check("RateLimit", OWN, "", "", &cases);
}

#[test]
fn fault_injections_and_answers() {
    let cases = [
        ("", "spec", "write `delay`, `abort` or `bandwidth`"),
        ("delay: {percent: 5}", "spec.delay.time", "write `time`"),
        ("delay: {time: 0s}", "spec.delay.time", "no time at all"),
        (
            "delay: {percent: 150, time: 1s}",
            "spec.delay.percent",
            "150 is no percentage; write 0 to 100",
        ),
        (
            "abort: {percent: 5}",
            "spec.abort",
            "write one of `http`, `grpc`, `reset`",
        ),
        (
            "abort: {http: 503, reset: true}",
            "spec.abort.reset",
            "exclude each other",
        ),
        ("abort: {http: 42}", "spec.abort.http", "write 200 to 599"),
        (
            "abort: {grpc: 17}",
            "spec.abort.grpc",
            "a number from 0 to 16",
        ),
        ("abort: {grpc: 0}", "spec.abort.grpc", "OK is no failure"),
        (
            "bandwidth: {rate: 64 kb}",
            "spec.bandwidth.rate",
            "write it like 64kbps",
        ),
        (
            "bandwidth: {rate: 0B/s}",
            "spec.bandwidth.rate",
            "at least 1B/s",
        ),
    ];
    check(
        "FaultInjection",
        OWN,
        "targetRefs: [{name: a}], ",
        "",
        &cases,
    );
    let cases = [
        ("body: a", "spec.status", "write `status`"),
        ("status: 700", "spec.status", "write 200 to 599"),
        ("status: 304, body: a", "spec.body", "has no body"),
        (
            "status: 200, headers: [{name: content-length, value: '5'}]",
            "spec.headers[0].name",
            "cannot change content-length",
        ),
        (
            "status: 200, headers: [{name: a, value: b}, {name: A, value: c}]",
            "spec.headers[1].name",
            "stands here twice",
        ),
    ];
    check("DirectResponse", OWN, "", "", &cases);
}

#[test]
fn filters_and_sessions() {
    let cases = [
        (
            "filters: [{type: RequestMirror, requestMirror: {backendRef: {name: b}, percent: 101}}]",
            "spec.rules[0].filters[0].requestMirror.percent",
            "write 0 to 100",
        ),
        (
            "filters: [{type: RequestMirror, requestMirror: {backendRef: {name: b}, percent: 1, fraction: {numerator: 1}}}]",
            "spec.rules[0].filters[0].requestMirror.fraction",
            "exclude each other",
        ),
        (
            "filters: [{type: RequestMirror, requestMirror: {backendRef: {name: b}, fraction: {numerator: 2, denominator: 1}}}]",
            "spec.rules[0].filters[0].requestMirror.fraction.numerator",
            "at most `denominator`",
        ),
        (
            "filters: [{type: RequestMirror, requestMirror: {backendRef: {name: b}, fraction: {numerator: 0, denominator: 0}}}]",
            "spec.rules[0].filters[0].requestMirror.fraction.denominator",
            "at least 1",
        ),
        (
            "filters: [{type: RequestMirror, requestMirror: {backendRef: {name: w, port: 80}}}], backendRefs: [{name: w, port: 80}]",
            "spec.rules[0].filters[0].requestMirror.backendRef",
            "mirror to another backend",
        ),
        (
            "filters: [{type: RequestMirror, requestMirror: {}}]",
            "spec.rules[0].filters[0].requestMirror.backendRef",
            "write `backendRef`",
        ),
        (
            "filters: [{type: RequestMiror, requestMirror: {backendRef: {name: b}}}]",
            "spec.rules[0].filters[0].type",
            "did you mean `RequestMirror`?",
        ),
        (
            "filters: [{type: CORS, cors: {allowOrigins: ['*', 'https://a']}}]",
            "spec.rules[0].filters[0].cors.allowOrigins[0]",
            "write it alone",
        ),
        (
            "filters: [{type: CORS, cors: {allowOrigins: [a.example]}}]",
            "spec.rules[0].filters[0].cors.allowOrigins[0]",
            "the scheme is missing",
        ),
        (
            "filters: [{type: CORS, cors: {maxAge: 0}}]",
            "spec.rules[0].filters[0].cors.maxAge",
            "at least 1 second",
        ),
        (
            "filters: [{type: CORS}]",
            "spec.rules[0].filters[0].cors",
            "write `cors` for a CORS",
        ),
        (
            "filters: [{type: ExtensionRef, extensionRef: {group: a.io, kind: DirectResponse, name: b}}]",
            "spec.rules[0].filters[0].extensionRef.group",
            "write meshd.io",
        ),
        (
            "filters: [{type: ExtensionRef, extensionRef: {group: meshd.io, kind: DirectRespons, name: b}}]",
            "spec.rules[0].filters[0].extensionRef.kind",
            "did you mean `DirectResponse`?",
        ),
        (
            "filters: [{type: ExtensionRef, extensionRef: {group: meshd.io, kind: DirectResponse, name: b}}], backendRefs: [{name: w}]",
            "spec.rules[0].filters[0].extensionRef",
            "reaches no backend",
        ),
        (
            "sessionPersistence: {type: Cokie}",
            "spec.rules[0].sessionPersistence.type",
            "did you mean `Cookie`?",
        ),
        (
            "sessionPersistence: {sessionName: 'a b'}",
            "spec.rules[0].sessionPersistence.sessionName",
            "at most 128 letters",
        ),
        (
            "sessionPersistence: {type: Header, cookieConfig: {lifetimeType: Session}}",
            "spec.rules[0].sessionPersistence.cookieConfig",
            "does not belong to type Header",
        ),
        (
            "sessionPersistence: {cookieConfig: {lifetimeType: Permanent}}",
            "spec.rules[0].sessionPersistence.absoluteTimeout",
            "write `absoluteTimeout`",
        ),
        (
            "sessionPersistence: {absoluteTimeout: 1 hour}",
            "spec.rules[0].sessionPersistence.absoluteTimeout",
            "write it like 10s",
        ),
    ];
    let before = "parentRefs: [{group: '', kind: Service, name: w}], rules: [{";
    check(
        "HTTPRoute",
        "gateway.networking.k8s.io/v1",
        before,
        "}]",
        &cases,
    );
}
