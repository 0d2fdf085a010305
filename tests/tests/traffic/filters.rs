//! What happens to requests and answers on their way: edits, rewrites, redirects, own answers, CORS, mirrors,
//! sessions.

use std::collections::BTreeSet;

use anyhow::{Context as _, ensure};

use crate::stage::{Group, Stage, by, share};

pub const GROUPS: &[Group] = &[
    Group {
        documents: FILTERS,
        rows: &[
            ("request header edits", request_headers),
            ("response header edits", response_headers),
            ("rewrite of a path prefix and of the host", rewrite_prefix),
            ("rewrite of the whole path", rewrite_full),
            ("redirect", redirect),
            ("direct response", direct_response),
            ("CORS preflight", preflight),
            ("CORS actual request", cross_origin),
            ("header edits of one backend", backend_edits),
        ],
    },
    Group {
        documents: MIRROR,
        rows: &[
            ("mirror of everything", mirror_all),
            ("mirror of a share", mirror_share),
        ],
    },
    Group {
        documents: COOKIE,
        rows: &[("session affinity by cookie", session_cookie)],
    },
    Group {
        documents: HEADER,
        rows: &[("session affinity by header", session_header)],
    },
];

const FILTERS: &str = r#"
apiVersion: meshd.io/v1alpha1
kind: DirectResponse
metadata: {name: closed}
spec:
  status: 503
  body: "closed for the night\n"
  headers: [{name: retry-after, value: "3600"}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: shop}
spec:
  parentRefs: [{group: "", kind: Service, name: shop}]
  rules:
  - matches: [{path: {type: PathPrefix, value: /request}}]
    filters:
    - type: RequestHeaderModifier
      requestHeaderModifier: {set: [{name: x-a, value: new}], add: [{name: x-b, value: more}], remove: [x-c]}
    backendRefs: [{name: shop-v1, port: 80}]
  - matches: [{path: {type: PathPrefix, value: /response}}]
    filters:
    - type: ResponseHeaderModifier
      responseHeaderModifier: {set: [{name: server, value: mesh}], add: [{name: x-add, value: "1"}], remove: [content-type]}
    backendRefs: [{name: shop-v1, port: 80}]
  - matches: [{path: {type: PathPrefix, value: /old}}]
    filters:
    - type: URLRewrite
      urlRewrite: {hostname: new.example.com, path: {type: ReplacePrefixMatch, replacePrefixMatch: /new}}
    backendRefs: [{name: shop-v1, port: 80}]
  - matches: [{path: {type: PathPrefix, value: /whole}}]
    filters:
    - type: URLRewrite
      urlRewrite: {path: {type: ReplaceFullPath, replaceFullPath: /other}}
    backendRefs: [{name: shop-v1, port: 80}]
  - matches: [{path: {type: PathPrefix, value: /moved}}]
    filters:
    - type: RequestRedirect
      requestRedirect: {scheme: https, hostname: shop.example.com, path: {type: ReplacePrefixMatch, replacePrefixMatch: /here}, statusCode: 301}
  - matches: [{path: {type: PathPrefix, value: /closed}}]
    filters: [{type: ExtensionRef, extensionRef: {group: meshd.io, kind: DirectResponse, name: closed}}]
  - matches: [{path: {type: PathPrefix, value: /cors}}]
    filters:
    - type: CORS
      cors: {allowOrigins: ["https://*.shop.example"], allowMethods: [GET, PUT], allowHeaders: [x-a], exposeHeaders: [x-add], allowCredentials: true, maxAge: 600}
    backendRefs: [{name: shop-v1, port: 80}]
  - matches: [{path: {type: PathPrefix, value: /each}}]
    backendRefs:
    - name: shop-v1
      port: 80
      filters: [{type: RequestHeaderModifier, requestHeaderModifier: {set: [{name: x-a, value: one}]}}]
    - name: shop-v2
      port: 80
      filters: [{type: RequestHeaderModifier, requestHeaderModifier: {set: [{name: x-a, value: two}]}}]
  - backendRefs: [{name: shop-v1, port: 80}]
"#;

fn request_headers(stage: &mut Stage) -> anyhow::Result<String> {
    let arguments = ["-H", "x-a: old", "-H", "x-b: first", "-H", "x-c: gone"];
    let answer = stage.call(&arguments, "http://shop/request")?;
    by(&answer, "shop-1")?;
    ensure!(
        answer.said("x-a") == "new" && answer.said("x-c").is_empty(),
        "{answer:?}"
    );
    // Added, as a line of its own or after a comma.
    let b = answer
        .body
        .lines()
        .filter_map(|line| line.strip_prefix("x-b: "));
    let b = b.collect::<Vec<_>>().join(",").replace(' ', "");
    ensure!(b == "first,more", "{answer:?}");
    Ok(format!("set, added ({b}), removed"))
}

fn response_headers(stage: &mut Stage) -> anyhow::Result<String> {
    let plain = stage.get("http://shop/")?;
    ensure!(plain.header("content-type").is_some(), "{plain:?}");
    let answer = stage.get("http://shop/response")?;
    ensure!(
        answer.header("server") == Some("mesh")
            && answer.header("x-add") == Some("1")
            && answer.header("content-type").is_none(),
        "{answer:?}"
    );
    Ok("set, added, removed".to_owned())
}

fn rewrite_prefix(stage: &mut Stage) -> anyhow::Result<String> {
    for (asked, got) in [
        ("/old/a?b=c", "/new/a?b=c"),
        ("/old", "/new"),
        ("/old/", "/new/"),
        ("/older", "/older"),
    ] {
        let answer = stage.get(&format!("http://shop{asked}"))?;
        ensure!(answer.said("uri") == got, "{asked}: {answer:?}");
        let host = if got == "/older" {
            "shop"
        } else {
            "new.example.com"
        };
        ensure!(answer.said("host") == host, "{asked}: {answer:?}");
    }
    Ok("4 paths, host new.example.com".to_owned())
}

fn rewrite_full(stage: &mut Stage) -> anyhow::Result<String> {
    let answer = stage.get("http://shop/whole/of/it?x=1")?;
    ensure!(answer.said("uri") == "/other?x=1", "{answer:?}");
    Ok(answer.said("uri").to_owned())
}

fn redirect(stage: &mut Stage) -> anyhow::Result<String> {
    let answer = stage.get("http://shop/moved/a?b=c")?;
    let location = answer.header("location").unwrap_or_default();
    ensure!(
        answer.status == 301 && location == "https://shop.example.com/here/a?b=c",
        "{answer:?}"
    );
    Ok(format!("301 {location}"))
}

fn direct_response(stage: &mut Stage) -> anyhow::Result<String> {
    let before = stage.logged("shop-1", "/closed").len();
    let answer = stage.get("http://shop/closed")?;
    ensure!(
        answer.status == 503
            && answer.body == "closed for the night\n"
            && answer.header("retry-after") == Some("3600"),
        "{answer:?}"
    );
    ensure!(
        stage.logged("shop-1", "/closed").len() == before,
        "a server was asked"
    );
    Ok("503 with its body, no server asked".to_owned())
}

fn preflight(stage: &mut Stage) -> anyhow::Result<String> {
    let asked = |origin: &str, method: &str| {
        stage.call(
            &[
                "-X",
                "OPTIONS",
                "-H",
                &format!("origin: {origin}"),
                "-H",
                &format!("access-control-request-method: {method}"),
            ],
            "http://shop/cors/preflight",
        )
    };
    let answer = asked("https://a.shop.example", "PUT")?;
    let header = |name: &str| answer.header(name).unwrap_or_default().replace(' ', "");
    ensure!(
        answer.status == 204
            && header("access-control-allow-origin") == "https://a.shop.example"
            && header("access-control-allow-methods") == "GET,PUT"
            && header("access-control-allow-credentials") == "true"
            && header("access-control-max-age") == "600",
        "{answer:?}"
    );
    let other = asked("https://evil.example", "PUT")?;
    ensure!(
        other.header("access-control-allow-origin").is_none(),
        "{other:?}"
    );
    ensure!(
        stage.logged("shop-1", "/cors/preflight").is_empty(),
        "a server was asked"
    );
    Ok("204 for one origin, nothing for another, no server asked".to_owned())
}

fn cross_origin(stage: &mut Stage) -> anyhow::Result<String> {
    let asked = |origin: &str| {
        let origin = format!("origin: {origin}");
        stage.call(&["-H", &origin], "http://shop/cors/actual")
    };
    let answer = asked("https://a.shop.example")?;
    by(&answer, "shop-1")?;
    ensure!(
        answer.header("access-control-allow-origin") == Some("https://a.shop.example")
            && answer.header("access-control-expose-headers") == Some("x-add")
            && answer
                .header("vary")
                .is_some_and(|vary| vary.eq_ignore_ascii_case("origin")),
        "{answer:?}"
    );
    let other = asked("https://shop.example.evil")?;
    ensure!(
        other.header("access-control-allow-origin").is_none(),
        "{other:?}"
    );
    Ok("marked for one origin, not for another".to_owned())
}

fn backend_edits(stage: &mut Stage) -> anyhow::Result<String> {
    let mut seen = BTreeSet::new();
    for _ in 0..40 {
        let answer = stage.get("http://shop/each")?;
        let expected = if answer.from() == "shop-1" {
            "one"
        } else {
            "two"
        };
        ensure!(answer.said("x-a") == expected, "{answer:?}");
        seen.insert(answer.from().to_owned());
    }
    ensure!(seen.len() == 2, "{seen:?}");
    Ok("40 requests, each with its backend's".to_owned())
}

const MIRROR: &str = r#"
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: shop}
spec:
  parentRefs: [{group: "", kind: Service, name: shop}]
  rules:
  - matches: [{path: {type: PathPrefix, value: /all}}]
    filters:
    - {type: RequestMirror, requestMirror: {backendRef: {name: shadow, port: 80}}}
    backendRefs: [{name: shop-v1, port: 80}]
  - matches: [{path: {type: PathPrefix, value: /share}}]
    filters:
    - {type: RequestMirror, requestMirror: {backendRef: {name: shadow, port: 80}, percent: 20}}
    backendRefs: [{name: shop-v1, port: 80}]
"#;

fn mirror_all(stage: &mut Stage) -> anyhow::Result<String> {
    let counts = stage.many(&["-d", "a body"], "http://shop/all/[1-50]")?;
    ensure!(counts.from("shop-1") == 50, "{}", counts.0);
    stage.wait_logged("shadow", "POST /all/", 50)?;
    Ok("50 of 50 copies at the mirror, with bodies".to_owned())
}

fn mirror_share(stage: &mut Stage) -> anyhow::Result<String> {
    let counts = stage.many(&[], "http://shop/share/[1-500]")?;
    ensure!(counts.from("shop-1") == 500, "{}", counts.status(200));
    // Copies run beside the requests: one that is always copied, and comes last, ends the count.
    ensure!(stage.get("http://shop/all/last")?.status == 200);
    stage.wait_logged("shadow", "/all/last", 1)?;
    share("copies", stage.logged("shadow", "/share/").len(), 500, 0.2)
}

const COOKIE: &str = r#"
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: pool}
spec:
  parentRefs: [{group: "", kind: Service, name: pool}]
  rules:
  - backendRefs: [{name: pool, port: 80}]
    sessionPersistence: {type: Cookie, sessionName: cart}
"#;

fn session_cookie(stage: &mut Stage) -> anyhow::Result<String> {
    let mut servers = BTreeSet::new();
    let jars = stage.file("jars");
    std::fs::create_dir_all(&jars)?;
    // curl makes a new file beside the old one.
    std::fs::set_permissions(&jars, std::os::unix::fs::PermissionsExt::from_mode(0o777))?;
    for session in 0..12 {
        let jar = jars.join(session.to_string()).display().to_string();
        let jar = ["-b", jar.as_str(), "-c", jar.as_str()];
        let first = stage.call(&jar, "http://pool/cart")?;
        let cookie = first.header("set-cookie").context("no cookie")?;
        ensure!(cookie.starts_with("cart="), "{first:?}");
        let later = stage.many(&jar, "http://pool/cart/[1-10]")?;
        ensure!(
            later.from(first.from()) == 10,
            "{} moved: {}",
            first.from(),
            later.0
        );
        servers.insert(first.from().to_owned());
    }
    ensure!(servers.len() > 1, "every session at {servers:?}");
    Ok(format!(
        "12 sessions of 11 requests at {} servers, none moved",
        servers.len()
    ))
}

const HEADER: &str = r#"
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: pool}
spec:
  parentRefs: [{group: "", kind: Service, name: pool}]
  rules:
  - backendRefs: [{name: pool, port: 80}]
    sessionPersistence: {type: Header, sessionName: x-session}
"#;

fn session_header(stage: &mut Stage) -> anyhow::Result<String> {
    let mut servers = BTreeSet::new();
    for _ in 0..12 {
        let first = stage.get("http://pool/session")?;
        let token = first.header("x-session").context("no token")?;
        let header = format!("x-session: {token}");
        let later = stage.many(&["-H", &header], "http://pool/session/[1-10]")?;
        ensure!(
            later.from(first.from()) == 10,
            "{} moved: {}",
            first.from(),
            later.0
        );
        servers.insert(first.from().to_owned());
    }
    ensure!(servers.len() > 1, "every session at {servers:?}");
    Ok(format!(
        "12 sessions of 11 requests at {} servers, none moved",
        servers.len()
    ))
}
