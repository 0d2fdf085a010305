//! Which rule of which document acts: path, method, headers, query, who calls, weights.

use anyhow::ensure;

use crate::stage::{CLIENT, GUEST, Group, OTHER, Stage, by, share};

pub const GROUPS: &[Group] = &[
    Group {
        documents: MATCHES,
        rows: &[
            ("match path exact", path_exact),
            ("match path prefix", path_prefix),
            ("match path regex", path_regex),
            ("match method", method),
            ("match header exact", header_exact),
            ("match header regex", header_regex),
            ("match query", query),
            ("precedence among rules", precedence),
        ],
    },
    Group {
        documents: NOTHING_ELSE,
        rows: &[("no rule fits", no_rule)],
    },
    Group {
        documents: CONSUMER,
        rows: &[("consumer route", consumer)],
    },
    Group {
        documents: ZERO,
        rows: &[("weight of 0", zero)],
    },
    Group {
        documents: SPLIT,
        rows: &[("weighted split", split)],
    },
    Group {
        documents: BOTH,
        rows: &[("HTTPRoute before VirtualService", both)],
    },
    Group {
        documents: TABLE,
        rows: &[("delegation table", delegation)],
    },
];

const MATCHES: &str = r#"
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: shop}
spec:
  parentRefs: [{group: "", kind: Service, name: shop}]
  rules:
  - matches:
    - path: {type: Exact, value: /exact}
    - path: {type: PathPrefix, value: /pre}
    - path: {type: RegularExpression, value: "/r[0-9]+"}
    - method: DELETE
    - headers: [{name: x-a, value: "yes"}]
    - headers: [{name: x-b, type: RegularExpression, value: "ab+c"}]
    - queryParams: [{name: q, value: "1"}]
    - queryParams: [{name: r, type: RegularExpression, value: "[a-f]+"}]
    backendRefs: [{name: shop-v2, port: 80}]
  - matches: [{path: {type: Exact, value: /pre/exact}}]
    backendRefs: [{name: shop-v1, port: 80}]
  - backendRefs: [{name: shop-v1, port: 80}]
"#;

/// Each request is made, and judged by the server that answered.
fn each(stage: &Stage, cases: &[(&[&str], &str, &str)]) -> anyhow::Result<String> {
    for (arguments, path, server) in cases {
        let answer = stage.call(arguments, &format!("http://shop{path}"))?;
        by(&answer, server).map_err(|error| error.context(format!("{arguments:?} {path}")))?;
    }
    Ok(format!("{} requests", cases.len()))
}

fn path_exact(stage: &mut Stage) -> anyhow::Result<String> {
    each(
        stage,
        &[
            (&[], "/exact", "shop-2"),
            (&[], "/exact?x=y", "shop-2"),
            (&[], "/exact/", "shop-1"),
            (&[], "/exac", "shop-1"),
            (&[], "/Exact", "shop-1"),
        ],
    )
}

fn path_prefix(stage: &mut Stage) -> anyhow::Result<String> {
    each(
        stage,
        &[
            (&[], "/pre", "shop-2"),
            (&[], "/pre/", "shop-2"),
            (&[], "/pre/more", "shop-2"),
            (&[], "/prefix", "shop-1"),
        ],
    )
}

fn path_regex(stage: &mut Stage) -> anyhow::Result<String> {
    each(
        stage,
        &[
            (&[], "/r7", "shop-2"),
            (&[], "/r123", "shop-2"),
            (&[], "/r", "shop-1"),
            (&[], "/r7x", "shop-1"),
        ],
    )
}

fn method(stage: &mut Stage) -> anyhow::Result<String> {
    each(
        stage,
        &[
            (&["-X", "DELETE"], "/", "shop-2"),
            (&["-X", "PUT"], "/", "shop-1"),
        ],
    )
}

fn header_exact(stage: &mut Stage) -> anyhow::Result<String> {
    each(
        stage,
        &[
            (&["-H", "X-A: yes"], "/", "shop-2"),
            (&["-H", "x-a: yess"], "/", "shop-1"),
            (&["-H", "x-a: no"], "/", "shop-1"),
        ],
    )
}

fn header_regex(stage: &mut Stage) -> anyhow::Result<String> {
    each(
        stage,
        &[
            (&["-H", "x-b: abbbc"], "/", "shop-2"),
            (&["-H", "x-b: xabc"], "/", "shop-1"),
        ],
    )
}

fn query(stage: &mut Stage) -> anyhow::Result<String> {
    each(
        stage,
        &[
            (&[], "/?a=b&q=1", "shop-2"),
            (&[], "/?q=11", "shop-1"),
            (&[], "/?r=beef", "shop-2"),
            (&[], "/?r=beet", "shop-1"),
        ],
    )
}

fn precedence(stage: &mut Stage) -> anyhow::Result<String> {
    each(
        stage,
        &[
            (&[], "/pre/exact", "shop-1"),
            (&["-H", "x-a: yes"], "/pre/exact", "shop-1"),
            (&[], "/pre/exactly", "shop-2"),
        ],
    )
}

const NOTHING_ELSE: &str = r#"
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: shop}
spec:
  parentRefs: [{group: "", kind: Service, name: shop}]
  rules:
  - matches: [{path: {type: PathPrefix, value: /only}}]
    backendRefs: [{name: shop-v2, port: 80}]
"#;

fn no_rule(stage: &mut Stage) -> anyhow::Result<String> {
    by(&stage.get("http://shop/only/this")?, "shop-2")?;
    let answer = stage.get("http://shop/other")?;
    let error = answer.header("mesh-error").unwrap_or_default();
    ensure!(
        answer.status == 404 && error.starts_with("no-route;"),
        "{answer:?}"
    );
    Ok(format!("404 {error}"))
}

const CONSUMER: &str = r#"
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: shop, namespace: guests}
spec:
  parentRefs: [{group: "", kind: Service, name: shop, namespace: default}]
  rules:
  - backendRefs: [{name: shop-v2, namespace: default, port: 80}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: shop}
spec:
  parentRefs: [{group: "", kind: Service, name: shop}]
  rules:
  - backendRefs: [{name: shop-v1, port: 80}]
"#;

fn consumer(stage: &mut Stage) -> anyhow::Result<String> {
    for (uid, server) in [(CLIENT, "shop-1"), (OTHER, "shop-1"), (GUEST, "shop-2")] {
        let url = "http://shop.default.mesh.internal/";
        by(&stage.ask(uid, &[], url)?, server)
            .map_err(|error| error.context(format!("caller {uid}")))?;
    }
    Ok("guests by their own route".to_owned())
}

const ZERO: &str = r#"
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: shop}
spec:
  parentRefs: [{group: "", kind: Service, name: shop}]
  rules:
  - matches: [{path: {type: PathPrefix, value: /zero}}]
    backendRefs: [{name: shop-v1, port: 80, weight: 0}, {name: shop-v2, port: 80, weight: 1}]
  - backendRefs: [{name: shop-v1, port: 80}]
"#;

fn zero(stage: &mut Stage) -> anyhow::Result<String> {
    let counts = stage.many(&[], "http://shop/zero/[1-50]")?;
    ensure!(counts.from("shop-2") == 50, "{}", counts.0);
    Ok("0 of 50 requests".to_owned())
}

const SPLIT: &str = r#"
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: shop}
spec:
  parentRefs: [{group: "", kind: Service, name: shop}]
  rules:
  - backendRefs: [{name: shop-v1, port: 80, weight: 70}, {name: shop-v2, port: 80, weight: 30}]
"#;

fn split(stage: &mut Stage) -> anyhow::Result<String> {
    let counts = stage.many(&[], "http://shop/split/[1-1000]")?;
    ensure!(counts.status(200) == 1000, "{} of 1000", counts.status(200));
    share("v2", counts.from("shop-2"), 1000, 0.3)
}

const BOTH: &str = r#"
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: shop}
spec:
  hosts: [shop]
  http: [{route: [{destination: {host: shop-v1}}]}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: shop}
spec:
  parentRefs: [{group: "", kind: Service, name: shop}]
  rules: [{backendRefs: [{name: shop-v2, port: 80}]}]
"#;

fn both(stage: &mut Stage) -> anyhow::Result<String> {
    let counts = stage.many(&[], "http://shop/both/[1-20]")?;
    ensure!(counts.from("shop-2") == 20, "{}", counts.0);
    let service = stage
        .server()
        .ctl_json(&["get", "VirtualService", "shop"])?;
    let status = service["status"].to_string();
    ensure!(status.contains("Conflicted"), "{service}");
    Ok("and the other document says that it is Conflicted".to_owned())
}

const TABLE: &str = r"
apiVersion: meshd.io/v1alpha1
kind: DelegationTable
metadata: {name: shop}
spec:
  dtab: |
    /svc/shop => 1 * /svc/shop-v1 & 3 * /svc/shop-v2;
";

fn delegation(stage: &mut Stage) -> anyhow::Result<String> {
    let counts = stage.many(&[], "http://shop/table/[1-400]")?;
    ensure!(counts.status(200) == 400, "{} of 400", counts.status(200));
    share("v2", counts.from("shop-2"), 400, 0.75)
}
