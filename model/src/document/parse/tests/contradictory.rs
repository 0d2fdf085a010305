//! Documents of which a part contradicts another one, or can never act: refused where nothing could be meant, told
//! where other meshes read something into it.

use super::*;

const GATEWAY: &str = "gateway.networking.k8s.io/v1";
const ISTIO: &str = "networking.istio.io/v1";
const OWN: &str = "meshd.io/v1alpha1";

/// Kind, version, what stands before and behind a case.
type Frame = (&'static str, &'static str, &'static str, &'static str);

const HTTP_RULE: Frame = (
    "HTTPRoute",
    GATEWAY,
    "parentRefs: [{group: '', kind: Service, name: a}], rules: [{",
    "}]",
);
const HTTP_SENT: Frame = (
    "HTTPRoute",
    GATEWAY,
    "parentRefs: [{group: '', kind: Service, name: a}], rules: [{backendRefs: [{name: a, port: 80}], ",
    "}]",
);
const TCP: Frame = (
    "TCPRoute",
    GATEWAY,
    "parentRefs: [{group: '', kind: Service, name: a}], rules: [",
    "]",
);
const VIRTUAL: Frame = ("VirtualService", ISTIO, "hosts: [a], http: [{", "}]");
const POLICY: Frame = ("DestinationRule", OWN, "host: a, trafficPolicy: {", "}");
const FAULT: Frame = ("FaultInjection", OWN, "targetRefs: [{name: a}], ", "");
const LIMIT: Frame = (
    "RateLimit",
    OWN,
    "targetRefs: [{name: a}], limit: {requests: 1, per: 1s}, ",
    "",
);

fn text((kind, version, before, after): Frame, case: &str) -> String {
    document(kind, version, &format!("{{{before}{case}{after}}}"))
}

/// Each is refused once, at its path, with these words.
#[test]
fn contradictions_are_refused() {
    let edits = "filters: [{type: RequestHeaderModifier, requestHeaderModifier: ";
    let set_and_removed = format!("{edits}{{set: [{{name: x-a, value: b}}], remove: [X-A]}}}}]");
    let added_and_removed =
        format!("{edits}{{add: [{{name: x-a, value: b}}], remove: [x-b, x-a]}}}}]");
    let cases: [(Frame, &str, &str, &str); 20] = [
        (
            HTTP_SENT,
            &set_and_removed,
            "spec.rules[0].filters[0].requestHeaderModifier.remove[0]",
            "x-a is set or added here too; leave one",
        ),
        (
            HTTP_SENT,
            &added_and_removed,
            "spec.rules[0].filters[0].requestHeaderModifier.remove[1]",
            "x-a is set or added",
        ),
        (
            HTTP_RULE,
            "filters: [{type: RequestRedirect, requestRedirect: {statusCode: 301}}]",
            "spec.rules[0].filters[0].requestRedirect",
            "leads back",
        ),
        (
            HTTP_SENT,
            "filters: [{type: URLRewrite, urlRewrite: {}}]",
            "spec.rules[0].filters[0].urlRewrite",
            "changes nothing; write `hostname` or `path`",
        ),
        (
            HTTP_SENT,
            "name: b}, {name: b, backendRefs: [{name: a, port: 80}]",
            "spec.rules[1].name",
            "\"b\" names another rule already; write each name once",
        ),
        (
            HTTP_SENT,
            "timeouts: {request: 1s}, retry: {attempts: 2, backoff: 1s}",
            "spec.rules[0].retry.backoff",
            "leaves no time for a second try; make it shorter",
        ),
        (
            HTTP_SENT,
            "matches: [{path: {value: '/a b'}}]",
            "spec.rules[0].matches[0].path.value",
            "' ' never stands in a path",
        ),
        (
            HTTP_SENT,
            "matches: [{path: {type: Exact, value: '/a\\b'}}]",
            "spec.rules[0].matches[0].path.value",
            "never stands in a path",
        ),
        (
            HTTP_SENT,
            "matches: [{path: {type: Exact, value: /ä}}]",
            "spec.rules[0].matches[0].path.value",
            "write it as %, two digits",
        ),
        (
            HTTP_SENT,
            "matches: [{path: {type: Exact, value: /a%4}}]",
            "spec.rules[0].matches[0].path.value",
            "'%' never stands",
        ),
        (
            LIMIT,
            "matches: [{path: {value: '/a|b'}}]",
            "spec.matches[0].path.value",
            "'|' never stands",
        ),
        (
            TCP,
            "{}",
            "spec.rules[0].backendRefs",
            "are missing; write at least one backend",
        ),
        (
            VIRTUAL,
            "redirect: {redirectCode: 308}",
            "spec.http[0].redirect",
            "leads back",
        ),
        (
            VIRTUAL,
            "route: [{destination: {host: a}}], headers: {response: {set: {x-a: b}, remove: [x-a]}}",
            "spec.http[0].headers.response.remove[0]",
            "x-a is set or added",
        ),
        (
            VIRTUAL,
            "route: [{destination: {host: a}}], match: [{headers: {X-A: {exact: b}}, withoutHeaders: {x-a: {exact: b}}}]",
            "spec.http[0].match[0].withoutHeaders.x-a",
            "no request fits both; leave one of them",
        ),
        (
            VIRTUAL,
            "route: [{destination: {host: a}}], match: [{headers: {x-a: {prefix: b}}, withoutHeaders: {x-a: {}}}]",
            "spec.http[0].match[0].withoutHeaders.x-a",
            "no request fits both",
        ),
        (
            POLICY,
            "healthCheck: {tcp: {}, timeout: 30s}",
            "spec.trafficPolicy.healthCheck.timeout",
            "between two checks, which is 10s unless given; make it at most `interval`",
        ),
        (
            POLICY,
            "healthCheck: {tcp: {}, interval: 1s, timeout: 2s}",
            "spec.trafficPolicy.healthCheck.timeout",
            "between two checks; make",
        ),
        (
            POLICY,
            "outlierDetection: {maxEjectionTime: 5s}",
            "spec.trafficPolicy.outlierDetection.maxEjectionTime",
            "which is 30s unless given; make it at least `baseEjectionTime`",
        ),
        (
            POLICY,
            "outlierDetection: {baseEjectionTime: 1m, maxEjectionTime: 30s}",
            "spec.trafficPolicy.outlierDetection.maxEjectionTime",
            "than the first time out; make",
        ),
    ];
    for (frame, case, path, words) in cases {
        let found = refused(&text(frame, case));
        let start = format!("f:4: {}/default/x {path}: ", frame.0);
        assert!(
            found.len() == 1 && found[0].starts_with(&start) && found[0].contains(words),
            "{case}\nwanted {start}… {words}\nfound {found:#?}"
        );
    }
}

/// Each is read, and what never acts is told at these paths.
#[test]
fn what_never_acts_is_told() {
    let copies = |share: &str| {
        format!(
            "filters: [{{type: RequestMirror, requestMirror: {{backendRef: {{name: b, port: 80}}, {share}}}}}]"
        )
    };
    let (percent, fraction, some) = (
        copies("percent: 0"),
        copies("fraction: {numerator: 0}"),
        copies("percent: 1"),
    );
    let to = "route: [{destination: {host: a}}], ";
    let cases: [(Frame, String, &[&str]); 23] = [
        (HTTP_SENT, percent, &["spec.rules[0].filters[0].requestMirror.percent"]),
        (HTTP_SENT, fraction, &["spec.rules[0].filters[0].requestMirror.fraction.numerator"]),
        (HTTP_SENT, some, &[]),
        (HTTP_RULE, "filters: [{type: RequestRedirect, requestRedirect: {scheme: https}}]".into(), &[]),
        (HTTP_SENT, "retry: {attempts: 0, codes: [503], backoff: 1s}".into(), &["spec.rules[0].retry.codes", "spec.rules[0].retry.backoff"]),
        (HTTP_SENT, "timeouts: {request: 0s}, retry: {attempts: 1, backoff: 1s}".into(), &[]),
        (HTTP_SENT, "matches: [{headers: [{name: x-a, value: b}, {name: X-A, value: c}, {name: x-b, value: d}]}]".into(), &["spec.rules[0].matches[0].headers[1]"]),
        (HTTP_SENT, "matches: [{queryParams: [{name: a, value: b}, {name: A, value: c}, {name: a, value: c}]}]".into(), &["spec.rules[0].matches[0].queryParams[2]"]),
        (HTTP_SENT, "matches: [{path: {type: Exact, value: /%41/%2e}}]".into(), &["spec.rules[0].matches[0].path.value"]),
        (HTTP_SENT, "matches: [{path: {type: Exact, value: '/a;b=%20%C3%A4,@:!$&()*+='}}]".into(), &[]),
        (TCP, "{backendRefs: [{name: a, port: 1}]}, {backendRefs: [{name: b, port: 1}]}".into(), &["spec.rules[1]"]),
        (VIRTUAL, format!("{to}fault: {{abort: {{httpStatus: 500, percentage: {{value: 0}}}}, delay: {{fixedDelay: 1s, percent: 0}}}}"), &["spec.http[0].fault.delay.percent", "spec.http[0].fault.abort.percentage.value"]),
        (VIRTUAL, format!("{to}mirror: {{host: b}}, mirrorPercentage: {{value: 0}}"), &["spec.http[0].mirrorPercentage.value"]),
        (VIRTUAL, format!("{to}match: [{{ignoreUriCase: true}}]"), &["spec.http[0].match[0].ignoreUriCase"]),
        (VIRTUAL, format!("{to}match: [{{uri: {{exact: /a/..}}}}, {{uri: {{prefix: /a/../b}}}}, {{uri: {{prefix: /a/.}}}}, {{uri: {{exact: /%7E}}}}]"), &["spec.http[0].match[0].uri.exact", "spec.http[0].match[1].uri.prefix", "spec.http[0].match[3].uri.exact"]),
        (VIRTUAL, format!("{to}match: [{{headers: {{x-a: {{exact: b}}}}, withoutHeaders: {{x-a: {{exact: c}}, x-b: {{}}}}}}]"), &[]),
        (FAULT, "abort: {percent: 0, http: 503}".into(), &["spec.abort.percent"]),
        (FAULT, "abort: {percent: 0.1, http: 503}".into(), &[]),
        (POLICY, "hedgeAfter: 10ms, retryBudget: {percent: 0, minRetriesPerSecond: 0}".into(), &["spec.trafficPolicy.hedgeAfter"]),
        (POLICY, "hedgeAfter: 10ms, retryBudget: {percent: 0}".into(), &[]),
        (POLICY, "loadBalancer: {consistentHash: {useSourceIp: true}, warmup: {duration: 1s}}".into(), &["spec.trafficPolicy.loadBalancer.warmup"]),
        (POLICY, "healthCheck: {tcp: {}, interval: 200ms}".into(), &[]),
        (POLICY, "outlierDetection: {baseEjectionTime: 1h}".into(), &[]),
    ];
    for (frame, case, paths) in cases {
        let text = text(frame, &case);
        let found =
            parse_documents(&text, "f").unwrap_or_else(|faults| panic!("{case}: {faults:#?}"));
        let told: Vec<&str> = found[0]
            .reports
            .iter()
            .map(|one| one.path.as_str())
            .collect();
        assert_eq!(told, paths, "{case}: {:#?}", found[0].reports);
    }
}
