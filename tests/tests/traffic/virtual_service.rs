//! Documents of Istio: who calls, texts of every kind, everything that a rule of a VirtualService can do, and the
//! RouteRules before them.

use std::time::Duration;

use anyhow::ensure;
use mesh_tests::process::finished;

use crate::stage::{CLIENT, GUEST, Group, OTHER, Stage, by, share};

pub const GROUPS: &[Group] = &[
    Group {
        documents: MATCHES,
        rows: &[
            ("match host exact", host_exact),
            ("match host wildcard", host_wildcard),
            ("match header absent", header_absent),
            ("match source workload", source_workload),
            ("match source namespace", source_namespace),
            ("match source labels", source_labels),
            ("match source address range", source_range),
            ("match path without case", path_without_case),
            ("first rule that matches", first_rule),
        ],
    },
    Group {
        documents: WHOLE,
        rows: &[
            ("VirtualService subsets and weights", subsets),
            ("VirtualService fault", fault),
            ("VirtualService retries", retries),
            ("VirtualService rewrite and headers", rewrite),
            ("VirtualService mirror", mirror),
            ("VirtualService timeout", timeout),
            ("VirtualService redirect", redirect),
            ("VirtualService direct response", direct_response),
            ("VirtualService CORS", cors),
        ],
    },
    Group {
        documents: "",
        rows: &[("RouteRule by meshctl import", route_rule)],
    },
];

const MATCHES: &str = r#"
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: shop}
spec:
  hosts: [shop]
  http:
  - match:
    - authority: {exact: exact.example.com}
    - authority: {regex: '[^.]+\.wild\.example\.com'}
    - uri: {prefix: /absent}
      withoutHeaders: {x-a: {}}
    - uri: {prefix: /not}
      withoutHeaders: {x-a: {exact: "no"}}
    - uri: {prefix: /workload}
      sourceServices: [other]
    - uri: {prefix: /namespace}
      sourceNamespace: guests
    - uri: {prefix: /labels}
      sourceLabels: {tier: back}
    - uri: {prefix: /near}
      sourceSubnets: [10.77.0.3/32, "fd77::3/128"]
    - uri: {prefix: /far}
      sourceSubnets: [10.78.0.0/16]
    - uri: {exact: /Case}
      ignoreUriCase: true
    - uri: {prefix: /let}
    route: [{destination: {host: shop-v2}}]
  - match: [{uri: {prefix: /letter}}]
    route: [{destination: {host: shop-v1}}]
  - route: [{destination: {host: shop-v1}}]
"#;

fn hosts(stage: &Stage, cases: &[(&str, &str)]) -> anyhow::Result<String> {
    for (host, server) in cases {
        let header = format!("host: {host}");
        let answer = stage.call(&["-H", &header], "http://shop/")?;
        by(&answer, server).map_err(|error| error.context(header))?;
    }
    Ok(format!("{} hosts", cases.len()))
}

fn host_exact(stage: &mut Stage) -> anyhow::Result<String> {
    hosts(
        stage,
        &[
            ("exact.example.com", "shop-2"),
            ("Exact.Example.COM", "shop-2"),
            ("exact.example.co", "shop-1"),
            ("shop", "shop-1"),
        ],
    )
}

fn host_wildcard(stage: &mut Stage) -> anyhow::Result<String> {
    hosts(
        stage,
        &[
            ("a.wild.example.com", "shop-2"),
            ("bc.wild.example.com", "shop-2"),
            ("wild.example.com", "shop-1"),
            ("a.b.wild.example.com", "shop-1"),
        ],
    )
}

fn header_absent(stage: &mut Stage) -> anyhow::Result<String> {
    by(&stage.get("http://shop/absent")?, "shop-2")?;
    by(
        &stage.call(&["-H", "x-a: any"], "http://shop/absent")?,
        "shop-1",
    )?;
    by(&stage.get("http://shop/not")?, "shop-2")?;
    by(
        &stage.call(&["-H", "x-a: yes"], "http://shop/not")?,
        "shop-2",
    )?;
    by(
        &stage.call(&["-H", "x-a: no"], "http://shop/not")?,
        "shop-1",
    )?;
    Ok("5 requests".to_owned())
}

fn callers(stage: &Stage, path: &str, cases: &[(u32, &str)]) -> anyhow::Result<String> {
    for (uid, server) in cases {
        let url = format!("http://shop.default.mesh.internal{path}");
        let answer = stage.ask(*uid, &[], &url)?;
        by(&answer, server).map_err(|error| error.context(format!("caller {uid}")))?;
    }
    Ok(format!("{} callers", cases.len()))
}

fn source_workload(stage: &mut Stage) -> anyhow::Result<String> {
    callers(
        stage,
        "/workload",
        &[(CLIENT, "shop-1"), (OTHER, "shop-2"), (GUEST, "shop-1")],
    )
}

fn source_namespace(stage: &mut Stage) -> anyhow::Result<String> {
    callers(
        stage,
        "/namespace",
        &[(CLIENT, "shop-1"), (OTHER, "shop-1"), (GUEST, "shop-2")],
    )
}

fn source_labels(stage: &mut Stage) -> anyhow::Result<String> {
    callers(
        stage,
        "/labels",
        &[(CLIENT, "shop-1"), (OTHER, "shop-2"), (GUEST, "shop-1")],
    )
}

fn source_range(stage: &mut Stage) -> anyhow::Result<String> {
    by(&stage.get("http://shop/near")?, "shop-2")?;
    by(&stage.get("http://shop/far")?, "shop-1")?;
    Ok("inside and outside".to_owned())
}

fn path_without_case(stage: &mut Stage) -> anyhow::Result<String> {
    by(&stage.get("http://shop/cASE")?, "shop-2")?;
    by(&stage.get("http://shop/cASEs")?, "shop-1")?;
    Ok("2 paths".to_owned())
}

fn first_rule(stage: &mut Stage) -> anyhow::Result<String> {
    by(&stage.get("http://shop/letter")?, "shop-2")?;
    Ok("the earlier, shorter prefix".to_owned())
}

const WHOLE: &str = r#"
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: shop}
spec:
  host: shop
  subsets:
  - {name: one, labels: {version: v1}}
  - {name: two, labels: {version: v2}}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: shop}
spec:
  hosts: [shop.default.svc.cluster.local]
  gateways: [mesh]
  http:
  - match: [{uri: {prefix: /fault}}]
    fault:
      delay: {fixedDelay: 0.3s, percentage: {value: 100}}
      abort: {httpStatus: 418, percentage: {value: 100}}
    route: [{destination: {host: shop, subset: one}}]
  - match: [{uri: {prefix: /old/}}]
    rewrite: {uri: /new/, authority: other.example.com}
    headers:
      request: {set: {x-a: set}, add: {x-b: added}, remove: [x-c]}
      response: {set: {x-add: answered}}
    route: [{destination: {host: shop, subset: one}, headers: {request: {set: {x-c: mine}}}}]
  - match: [{uri: {prefix: /copy}}]
    mirror: {host: shadow}
    mirrorPercentage: {value: 50}
    route: [{destination: {host: shop, subset: one}}]
  - match: [{uri: {prefix: /slow}}]
    timeout: 0.3s
    route: [{destination: {host: shop, subset: one}}]
  - match: [{uri: {prefix: /moved}}]
    redirect: {uri: /there, authority: there.example.com, redirectCode: 308}
  - match: [{uri: {prefix: /direct}}]
    directResponse: {status: 418, body: {string: "short and stout"}}
  - match: [{uri: {prefix: /cors}}]
    corsPolicy: {allowOrigins: [{exact: "https://a.example"}], allowMethods: [GET], maxAge: 1h}
    route: [{destination: {host: shop, subset: one}}]
  - match: [{uri: {prefix: /fails}}]
    retries: {attempts: 2, perTryTimeout: 1s, retryOn: "gateway-error,404"}
    route: [{destination: {host: shop, subset: one}}]
  - match: [{uri: {prefix: /missing}}]
    retries: {attempts: 1, retryOn: "404"}
    route: [{destination: {host: shop, subset: one}}]
  - route:
    - {destination: {host: shop, subset: one}, weight: 75}
    - {destination: {host: shop, subset: two}, weight: 25}
"#;

fn subsets(stage: &mut Stage) -> anyhow::Result<String> {
    let counts = stage.many(&[], "http://shop/subset/[1-400]")?;
    ensure!(counts.status(200) == 400, "{} of 400", counts.status(200));
    share("subset two", counts.from("shop-2"), 400, 0.25)
}

fn fault(stage: &mut Stage) -> anyhow::Result<String> {
    let answer = stage.get("http://shop/fault")?;
    let error = answer.header("mesh-error").unwrap_or_default();
    ensure!(
        answer.status == 418
            && error.starts_with("fault-injected;")
            && answer.took >= Duration::from_millis(300),
        "{answer:?}"
    );
    Ok(format!("418 after {:?}", answer.took))
}

fn retries(stage: &mut Stage) -> anyhow::Result<String> {
    let answer = stage.call(&["-X", "POST"], "http://shop/fails/retried")?;
    ensure!(answer.status == 503, "{answer:?}");
    stage.wait_logged("shop-1", "POST /fails/retried", 3)?;
    let answer = stage.get("http://shop/missing/retried")?;
    ensure!(answer.status == 404, "{answer:?}");
    stage.wait_logged("shop-1", "/missing/retried", 2)?;
    Ok("3 tries of a 503, 2 of a 404".to_owned())
}

fn rewrite(stage: &mut Stage) -> anyhow::Result<String> {
    let arguments = ["-H", "x-a: old", "-H", "x-c: old"];
    let answer = stage.call(&arguments, "http://shop/old/a/b?c=d")?;
    by(&answer, "shop-1")?;
    ensure!(
        answer.said("uri") == "/new/a/b?c=d"
            && answer.said("host") == "other.example.com"
            && answer.said("x-a") == "set"
            && answer.said("x-b") == "added"
            && answer.said("x-c") == "mine"
            && answer.header("x-add") == Some("answered"),
        "{answer:?}"
    );
    Ok("path, host, headers of rule and destination".to_owned())
}

fn mirror(stage: &mut Stage) -> anyhow::Result<String> {
    let counts = stage.many(&[], "http://shop/copy/[1-200]")?;
    ensure!(counts.from("shop-1") == 200, "{}", counts.0);
    // Copies run beside the requests: the count has ended when it fits.
    mesh_tests::wait::within(Duration::from_secs(30), || {
        share("copies", stage.logged("shadow", "/copy/").len(), 200, 0.5)
    })
}

fn timeout(stage: &mut Stage) -> anyhow::Result<String> {
    let answer = stage.get("http://shop/slow")?;
    ensure!(
        answer.status == 504 && answer.ran() < Duration::from_millis(900),
        "{answer:?}"
    );
    Ok(format!("504 after {:?}", answer.took))
}

fn redirect(stage: &mut Stage) -> anyhow::Result<String> {
    let answer = stage.get("http://shop/moved/away")?;
    ensure!(
        answer.status == 308 && answer.header("location") == Some("http://there.example.com/there"),
        "{answer:?}"
    );
    Ok("308".to_owned())
}

fn direct_response(stage: &mut Stage) -> anyhow::Result<String> {
    let answer = stage.get("http://shop/direct")?;
    ensure!(
        answer.status == 418 && answer.body == "short and stout",
        "{answer:?}"
    );
    Ok("418 with its body".to_owned())
}

fn cors(stage: &mut Stage) -> anyhow::Result<String> {
    let arguments = [
        "-X",
        "OPTIONS",
        "-H",
        "origin: https://a.example",
        "-H",
        "access-control-request-method: GET",
    ];
    let answer = stage.call(&arguments, "http://shop/cors")?;
    ensure!(
        answer.status == 204
            && answer.header("access-control-allow-origin") == Some("https://a.example")
            && answer.header("access-control-max-age") == Some("3600"),
        "{answer:?}"
    );
    Ok("preflight 204".to_owned())
}

const RULES: &str = r#"
apiVersion: config.istio.io/v1alpha2
kind: RouteRule
metadata: {name: shop-default}
spec:
  destination: {name: shop}
  precedence: 1
  route:
  - {labels: {version: v1}, weight: 100}
---
apiVersion: config.istio.io/v1alpha2
kind: RouteRule
metadata: {name: shop-testers}
spec:
  destination: {name: shop}
  precedence: 2
  match: {request: {headers: {x-a: {exact: "test"}}}}
  route:
  - labels: {version: v2}
"#;

fn route_rule(stage: &mut Stage) -> anyhow::Result<String> {
    let file = stage.file("rules.yaml");
    std::fs::write(&file, RULES)?;
    let output = stage.server().meshctl().arg("import").arg(&file).output()?;
    let made = finished("meshctl import", &output)?;
    ensure!(
        made.contains("VirtualService") && made.contains("DestinationRule"),
        "{made}"
    );
    stage.apply(&made)?;
    let asked = || -> anyhow::Result<()> {
        let counts = stage.many(&[], "http://shop/imported/[1-20]")?;
        ensure!(counts.from("shop-1") == 20, "{}", counts.0);
        by(
            &stage.call(&["-H", "x-a: test"], "http://shop/imported")?,
            "shop-2",
        )
    };
    let asked = asked();
    stage.take_back(&made)?;
    asked?;
    Ok("2 rules, by precedence and header".to_owned())
}
