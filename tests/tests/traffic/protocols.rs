//! Protocols beside HTTP/1.1, and how connections are routed: server names, weights, old and new HTTP, CONNECT,
//! gRPC, documents that are refused.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use mesh_tests::peers::{PYTHON, Python, folder};

use crate::stage::{CLIENT, GUEST, Group, Stage, by, share};

pub const GROUPS: &[Group] = &[
    Group {
        documents: "",
        rows: &[
            ("HTTP/1.0 caller", http_1_0),
            ("HTTP/2 caller", http_2),
            ("HTTP/2 program", modern),
            ("detected protocol", detected),
            ("opaque TCP", opaque),
            ("explicit listener by Host", explicit),
            ("CONNECT through the explicit listener", connect),
        ],
    },
    Group {
        documents: TLS,
        rows: &[
            ("TLSRoute by server name", by_name),
            ("TLSRoute refuses what fits none", no_name),
        ],
    },
    Group {
        documents: TCP,
        rows: &[("TCPRoute weights", tcp_weights)],
    },
    Group {
        documents: TCP_IDLE,
        rows: &[("idle time of opaque connections", tcp_idle)],
    },
    Group {
        documents: TCP_SOURCE,
        rows: &[("VirtualService of connections", tcp_source)],
    },
    Group {
        documents: TLS_ISTIO,
        rows: &[("VirtualService by server name", by_name)],
    },
    Group {
        documents: GRPC,
        rows: &[
            ("GRPCRoute by method and header", grpc),
            ("fault: gRPC status", grpc_fault),
        ],
    },
    Group {
        documents: GOOD,
        rows: &[("bad documents are refused, the last plan acts", refused)],
    },
];

fn http_1_0(stage: &mut Stage) -> anyhow::Result<String> {
    let answer = stage.call(&["--http1.0"], "http://shop/old")?;
    ensure!(answer.status == 200, "{answer:?}");
    ensure!(
        answer.header("transfer-encoding").is_none(),
        "chunks to HTTP/1.0: {answer:?}"
    );
    let big = stage.call(&["--http1.0"], "http://shop/big")?;
    ensure!(
        big.status == 200
            && big.body.matches('x').count() == 32768
            && big.header("transfer-encoding").is_none(),
        "{} {:?}",
        big.body.len(),
        big.headers
    );
    Ok("sized and unsized answers".to_owned())
}

fn http_2(stage: &mut Stage) -> anyhow::Result<String> {
    // One curl each: curl 7.88 cannot use a connection of prior knowledge twice, whoever serves. The program
    // reads the body first: that curl fails with 92 where an answer ends before it has sent its body.
    for number in 0..20 {
        let arguments = ["--http2-prior-knowledge", "-d", "a body"];
        let answer = stage.call(&arguments, &format!("http://shop/new/read/{number}"))?;
        ensure!(
            answer.status == 200
                && answer.version == "HTTP/2"
                && answer.said("method") == "POST"
                && answer.said("version") == "HTTP/1.1"
                && answer.body.ends_with("a body"),
            "{answer:?}"
        );
    }
    Ok("20 over HTTP/2 to a program of HTTP/1.1".to_owned())
}

fn modern(stage: &mut Stage) -> anyhow::Result<String> {
    for arguments in [&[][..], &["--http2-prior-knowledge"][..]] {
        let answer = stage.call(arguments, "http://modern/")?;
        by(&answer, "modern")?;
        ensure!(answer.said("version") == "HTTP/2.0", "{answer:?}");
    }
    Ok("from HTTP/1.1 and from HTTP/2".to_owned())
}

fn detected(stage: &mut Stage) -> anyhow::Result<String> {
    by(&stage.get("http://seen/")?, "seen")?;
    // Requests are seen one by one: the row of the counters has them.
    let rows = stage.caller().ctl_json(&["stat", "seen"])?;
    let rows = rows.as_array().context("no list")?;
    let http = rows
        .iter()
        .any(|row| row["requests"].as_u64() > Some(0) && row["route"].as_str() != Some("tcp"));
    ensure!(http, "{rows:?}");
    Ok("HTTP on a port without a protocol".to_owned())
}

fn opaque(stage: &mut Stage) -> anyhow::Result<String> {
    let answer = stage.get("http://db:5432/opaque")?;
    ensure!(
        answer.status == 200 && answer.from().starts_with("db-"),
        "{answer:?}"
    );
    // The bytes pass as they are: the program's own words, and nothing of the mesh.
    ensure!(
        answer.said("host") == "db:5432" && answer.header("mesh-request-id").is_none(),
        "{answer:?}"
    );
    Ok(answer.from().to_owned())
}

fn explicit(stage: &mut Stage) -> anyhow::Result<String> {
    let arguments = ["--noproxy", "", "--proxy", "http://127.0.0.1:4140"];
    let answer = stage.call(&arguments, "http://shop.default.mesh.internal/explicit")?;
    ensure!(
        answer.status == 200 && answer.from().starts_with("shop-"),
        "{answer:?}"
    );
    let unknown = stage.call(&arguments, "http://nosuch.mesh.internal/")?;
    ensure!(
        unknown.status == 404
            && unknown
                .header("mesh-error")
                .is_some_and(|error| error.starts_with("unknown-host;")),
        "{unknown:?}"
    );
    Ok("a service of the mesh, and 404 for none".to_owned())
}

fn connect(stage: &mut Stage) -> anyhow::Result<String> {
    let arguments = [
        "--noproxy",
        "",
        "--proxytunnel",
        "--suppress-connect-headers",
        "--proxy",
        "http://127.0.0.1:4140",
    ];
    let answer = stage.call(&arguments, "http://shop.default.mesh.internal/tunnel")?;
    ensure!(
        answer.status == 200 && answer.from().starts_with("shop-"),
        "{answer:?}"
    );
    let mut tls = arguments.to_vec();
    tls.push("-k");
    let answer = stage.call(&tls, "https://login.default.mesh.internal/tunnel")?;
    ensure!(
        answer.status == 200 && answer.from().starts_with("login-"),
        "{answer:?}"
    );
    Ok("HTTP and TLS inside".to_owned())
}

const TLS: &str = r#"
apiVersion: gateway.networking.k8s.io/v1
kind: TLSRoute
metadata: {name: login-a}
spec:
  parentRefs: [{group: "", kind: Service, name: login, port: 443}]
  hostnames: [a.login.example.com]
  rules: [{backendRefs: [{name: login-a, port: 443}]}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: TLSRoute
metadata: {name: login-b}
spec:
  parentRefs: [{group: "", kind: Service, name: login, port: 443}]
  hostnames: ["*.login.example.com"]
  rules: [{backendRefs: [{name: login-b, port: 443}]}]
"#;

/// A request over TLS with a server name, to the service `login`.
fn tls(stage: &Stage, name: &str) -> anyhow::Result<(Option<i32>, String)> {
    let mut command = stage.caller().command_as(CLIENT, "curl");
    let output = command
        .args([
            "-sS",
            "-k",
            "--max-time",
            "10",
            "--connect-to",
            "::login:443",
        ])
        .arg(format!("https://{name}/"))
        .output()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    Ok((output.status.code(), text))
}

fn by_name(stage: &mut Stage) -> anyhow::Result<String> {
    for (name, server) in [
        ("a.login.example.com", "from=login-a\n"),
        ("A.LOGIN.example.com", "from=login-a\n"),
        ("b.login.example.com", "from=login-b\n"),
        ("c.d.login.example.com", "from=login-b\n"),
    ] {
        let (code, text) = tls(stage, name)?;
        ensure!(
            code == Some(0) && text.starts_with(server),
            "{name}: {code:?} {text}"
        );
    }
    Ok("exact before wildcard, 4 names".to_owned())
}

fn no_name(stage: &mut Stage) -> anyhow::Result<String> {
    let logged = || stage.logged("login-a", "/").len() + stage.logged("login-b", "/").len();
    let before = logged();
    for name in ["other.example.com", "login.example.com"] {
        let (code, text) = tls(stage, name)?;
        // 35: the handshake failed.
        ensure!(
            code == Some(35) && text.is_empty(),
            "{name}: {code:?} {text}"
        );
    }
    // Plain HTTP is no TLS.
    let mut command = stage.caller().command_as(CLIENT, "curl");
    let output = command
        .args(["-sS", "--max-time", "10", "http://login:443/"])
        .output()?;
    ensure!(
        !output.status.success() && output.stdout.is_empty(),
        "{output:?}"
    );
    ensure!(logged() == before, "a server was asked");
    Ok("2 names and what is no TLS".to_owned())
}

const TLS_ISTIO: &str = r#"
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: login}
spec:
  hosts: [login]
  tls:
  - match: [{sniHosts: [a.login.example.com]}]
    route: [{destination: {host: login-a}}]
  - match: [{sniHosts: ["*.login.example.com"]}]
    route: [{destination: {host: login-b}}]
"#;

const TCP: &str = r#"
apiVersion: gateway.networking.k8s.io/v1
kind: TCPRoute
metadata: {name: db}
spec:
  parentRefs: [{group: "", kind: Service, name: db}]
  rules: [{backendRefs: [{name: db-a, port: 5432, weight: 3}, {name: db-b, port: 5432, weight: 1}]}]
"#;

fn tcp_weights(stage: &mut Stage) -> anyhow::Result<String> {
    // Every request asks for a connection of its own.
    let counts = stage.many(&["-H", "connection: close"], "http://db:5432/tcp/[1-200]")?;
    ensure!(counts.status(200) == 200, "{} of 200", counts.status(200));
    share("db-a", counts.from("db-a"), 200, 0.75)
}

const TCP_IDLE: &str = r"
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: db}
spec: {host: db, trafficPolicy: {connectionPool: {tcp: {idleTimeout: 1s}}}}
";

/// A caller that says nothing: the server itself would wait for a minute, and the mesh for an hour.
fn tcp_idle(stage: &mut Stage) -> anyhow::Result<String> {
    let clock = Instant::now();
    let script = "exec 3<>/dev/tcp/db/5432 && echo open && cat <&3";
    let mut command = stage.caller().command_as(CLIENT, "timeout");
    let output = command.args(["40", "bash", "-c", script]).output()?;
    let took = clock.elapsed();
    ensure!(
        output.status.code() != Some(124) && output.stdout == b"open\n",
        "{output:?}"
    );
    ensure!(took >= Duration::from_millis(990), "closed after {took:?}");
    Ok(format!("closed after {took:?}"))
}

const TCP_SOURCE: &str = r"
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: db}
spec:
  hosts: [db]
  tcp:
  - match: [{sourceNamespace: guests}]
    route: [{destination: {host: db-b}}]
  - route: [{destination: {host: db-a}}]
";

fn tcp_source(stage: &mut Stage) -> anyhow::Result<String> {
    for (uid, server) in [(CLIENT, "db-a"), (GUEST, "db-b")] {
        let url = "http://db.default.mesh.internal:5432/";
        for _ in 0..5 {
            by(&stage.ask(uid, &[], url)?, server)?;
        }
    }
    Ok("5 connections of each of two callers".to_owned())
}

const GRPC: &str = r#"
apiVersion: v1
kind: Service
metadata: {name: talk-v1}
spec: {selector: {app: talk, version: v1}, ports: [{port: 9000}]}
---
apiVersion: v1
kind: Service
metadata: {name: talk-v2}
spec: {selector: {app: talk, version: v2}, ports: [{port: 9000}]}
---
apiVersion: gateway.networking.k8s.io/v1
kind: GRPCRoute
metadata: {name: talk}
spec:
  parentRefs: [{group: "", kind: Service, name: talk}]
  rules:
  - matches:
    - method: {service: test.Test, method: Echo}
      headers: [{name: x-canary, value: "1"}]
    - method: {service: test.Other}
    backendRefs: [{name: talk-v2, port: 9000}]
  - matches: [{method: {service: test.Test}}]
    backendRefs: [{name: talk-v1, port: 9000}]
---
apiVersion: meshd.io/v1alpha1
kind: FaultInjection
metadata: {name: talk}
spec:
  targetRefs: [{kind: Service, name: talk}]
  matches: [{headers: [{name: x-fault, value: "1"}]}]
  abort: {grpc: ABORTED}
"#;

fn grpc(stage: &mut Stage) -> anyhow::Result<String> {
    if folder(PYTHON).is_none() {
        mesh_tests::need::skip(
            "traffic: GRPCRoute",
            "grpcio is not there: scripts/setup.sh test",
        );
        return Ok("left out".to_owned());
    }
    let python = Python::new(stage.mesh.directory.path())?;
    for port in ["9001", "9002"] {
        python.serve(stage.mesh.host(0), "grpc_who.py", &["serve", port])?;
    }
    said(
        stage,
        &python,
        "routes",
        &[
            ("Echo", "9001"),
            ("Echo canary", "9002"),
            ("Other", "9002"),
            ("None", "UNIMPLEMENTED"),
        ],
    )
}

/// Asks the servers in a mode of the client; every answer must be as expected.
fn said(
    stage: &Stage,
    python: &Python,
    mode: &str,
    expected: &[(&str, &str)],
) -> anyhow::Result<String> {
    let text = python.ask(stage.caller(), "grpc_who.py", &[mode, "talk:9000"])?;
    let said: BTreeMap<&str, &str> = text
        .lines()
        .filter_map(|line| line.split_once('='))
        .collect();
    ensure!(said == expected.iter().copied().collect(), "{said:?}");
    Ok(format!("{said:?}"))
}

fn grpc_fault(stage: &mut Stage) -> anyhow::Result<String> {
    if folder(PYTHON).is_none() {
        return Ok("left out".to_owned());
    }
    let python = Python::new(stage.mesh.directory.path())?;
    said(
        stage,
        &python,
        "faults",
        &[("Faulted", "ABORTED"), ("Echo", "9001")],
    )
}

const GOOD: &str = r#"
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: shop}
spec:
  parentRefs: [{group: "", kind: Service, name: shop}]
  rules:
  - backendRefs: [{name: shop-v2, port: 80}]
"#;

/// What is wrong, the document, and what the refusal must name beside kind and name.
const BAD: [(&str, &str, &[&str]); 12] = [
    (
        "unknown field",
        "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {name: shop}\nspec:\n  parentRefs: [{group: \"\", kind: Service, name: shop}]\n  rulez: []\n",
        &["rulez", "rules"],
    ),
    (
        "unknown backend",
        "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {name: shop}\nspec:\n  parentRefs: [{group: \"\", kind: Service, name: shop}]\n  rules: [{backendRefs: [{name: nosuch, port: 80}]}]\n",
        &["spec.rules[0].backendRefs[0]", "nosuch"],
    ),
    (
        "expression that is none",
        "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {name: shop}\nspec:\n  parentRefs: [{group: \"\", kind: Service, name: shop}]\n  rules: [{matches: [{path: {type: RegularExpression, value: \"/(\"}}], backendRefs: [{name: shop-v1, port: 80}]}]\n",
        &["spec.rules[0].matches[0].path.value"],
    ),
    (
        "redirect beside a rewrite",
        "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {name: shop}\nspec:\n  parentRefs: [{group: \"\", kind: Service, name: shop}]\n  rules: [{filters: [{type: RequestRedirect, requestRedirect: {hostname: a.b}}, {type: URLRewrite, urlRewrite: {hostname: c.d}}]}]\n",
        &["spec.rules[0].filters"],
    ),
    (
        "try longer than the request",
        "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {name: shop}\nspec:\n  parentRefs: [{group: \"\", kind: Service, name: shop}]\n  rules: [{timeouts: {request: 1s, backendRequest: 2s}, backendRefs: [{name: shop-v1, port: 80}]}]\n",
        &["spec.rules[0].timeouts.backendRequest"],
    ),
    (
        "weights of 0",
        "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: shop}\nspec:\n  hosts: [shop]\n  http: [{route: [{destination: {host: shop-v1}, weight: 0}, {destination: {host: shop-v2}, weight: 0}]}]\n",
        &["spec.http[0].route"],
    ),
    (
        "percentage above 100",
        "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: shop}\nspec:\n  hosts: [shop]\n  http: [{fault: {abort: {httpStatus: 500, percentage: {value: 101}}}, route: [{destination: {host: shop-v1}}]}]\n",
        &["spec.http[0].fault.abort.percentage"],
    ),
    (
        "table that is no prime",
        "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: shop}\nspec: {host: shop, trafficPolicy: {loadBalancer: {consistentHash: {useSourceIp: true, maglev: {tableSize: 1000}}}}}\n",
        &[
            "spec.trafficPolicy.loadBalancer.consistentHash.maglev.tableSize",
            "1009",
        ],
    ),
    (
        "two algorithms",
        "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: shop}\nspec: {host: shop, trafficPolicy: {loadBalancer: {simple: RANDOM, consistentHash: {useSourceIp: true}}}}\n",
        &["spec.trafficPolicy.loadBalancer"],
    ),
    (
        "limit of 0",
        "apiVersion: meshd.io/v1alpha1\nkind: RateLimit\nmetadata: {name: shop}\nspec: {targetRefs: [{kind: Service, name: shop}], limit: {requests: 0, per: 1s}}\n",
        &["spec.limit.requests"],
    ),
    (
        "fault without effect",
        "apiVersion: meshd.io/v1alpha1\nkind: FaultInjection\nmetadata: {name: shop}\nspec: {targetRefs: [{kind: Service, name: shop}]}\n",
        &["spec"],
    ),
    (
        "kind that nobody knows",
        "apiVersion: meshd.io/v1alpha1\nkind: RateLimits\nmetadata: {name: shop}\nspec: {}\n",
        &["RateLimits", "RateLimit"],
    ),
];

fn refused(stage: &mut Stage) -> anyhow::Result<String> {
    for (what, document, parts) in BAD {
        let error = match stage.apply(document) {
            Ok(()) => {
                stage.take_back(document)?;
                anyhow::bail!("{what}: accepted")
            }
            Err(error) => format!("{error:#}"),
        };
        let kind = document
            .lines()
            .find_map(|line| line.strip_prefix("kind: "));
        let kind = kind.context("no kind")?;
        let mut missing: Vec<&str> = parts.to_vec();
        missing.push(kind);
        missing.retain(|part| !error.contains(part));
        ensure!(
            missing.is_empty() && error.contains("shop") && error.contains(';'),
            "{what}: {missing:?} are not named: {error}"
        );
        let counts = stage.many(&[], "http://shop/good/[1-5]")?;
        ensure!(counts.from("shop-2") == 5, "{what}: {}", counts.0);
    }
    Ok(format!("{} documents", BAD.len()))
}
