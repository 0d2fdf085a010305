//! Rules at work: matches, shares, filters, bounds on time, delegation tables.

use std::{sync::Arc, time::Duration};

use mesh_model::{
    name::ServiceId,
    service::AppProtocol,
    snapshot::{
        Backend, BackendKey, Filter, Frontend, Retry, RouteReference, Rule, RuleTable, Snapshot,
        Target, Timeouts, TrafficPolicy, WeightedTarget,
        rule::{
            HeaderEdits, PathEdit, PathMatch, Redirect, RequestMatch, Rewrite, ValueCondition,
            ValueMatch,
        },
    },
};

use super::{BOTH, Path, Stage, ok, serve, soon};
use crate::trial::{VIRTUAL, eventually, listener, run};

pub(super) fn rule(target: Target) -> Rule {
    Rule {
        route: Arc::new(RouteReference {
            kind: "HTTPRoute",
            name: "shop/web".into(),
            rule: 0,
            revision: None,
            author: "ann".into(),
        }),
        matches: RequestMatch::default(),
        filters: Arc::from([]),
        target,
        timeouts: Timeouts::default(),
        retry: Retry::default(),
        faults: Arc::from([]),
        persistence: None,
    }
}

/// The same backend with a second try beside a slow first one.
pub(super) fn hedged(backend: &Backend, after: Duration) -> Arc<Backend> {
    let policy = TrafficPolicy {
        hedge_after: Some(after),
        ..(*backend.policy).clone()
    };
    Arc::new(Backend {
        policy: Arc::new(policy),
        ..backend.clone()
    })
}

/// Attaches rules to the one service of a snapshot.
pub(super) fn attach(
    mut snapshot: Snapshot,
    rules: impl FnOnce(&Arc<Backend>) -> Vec<Rule>,
) -> Snapshot {
    let old = snapshot.outbound.frontends.remove(0);
    let rules = rules(&old.backend).into_iter().map(Arc::new).collect();
    let frontend = Arc::new(Frontend {
        rules: RuleTable::new(true, rules),
        ..(*old).clone()
    });
    snapshot
        .outbound
        .by_address
        .insert(VIRTUAL.parse().unwrap(), Arc::clone(&frontend));
    let ports = [(80, Arc::clone(&frontend))].into_iter().collect();
    snapshot.outbound.by_host.insert("web".into(), ports);
    snapshot.outbound.frontends.push(frontend);
    snapshot
}

pub(super) fn version(stage: &Stage, key: u64, address: std::net::SocketAddr) -> Arc<Backend> {
    Arc::new(Backend {
        key: BackendKey(key),
        service: ServiceId::parse(&format!("shop/web-v{key}")).unwrap(),
        port: 80,
        protocol: AppProtocol::Http,
        subset: "".into(),
        endpoints: vec![Arc::new(stage.endpoint(key, address))],
        policy: Arc::default(),
    })
}

/// Two versions behind one service.
pub(super) async fn versions(path: Path) -> (Stage, Arc<Backend>, Arc<Backend>) {
    let stage = Stage::new(path, AppProtocol::Http).await;
    stage.program(|heard| ok(&format!("v1 {}", heard.first)));
    let second = std::rc::Rc::new(listener().await);
    let address = second.local_addr().unwrap();
    serve(second, |heard| {
        ok(&format!("v2 {} {:?}", heard.first, heard.fields))
    });
    let (one, two) = (
        version(&stage, 1, stage.address),
        version(&stage, 2, address),
    );
    (stage, one, two)
}

#[test]
fn matches_and_nothing_that_fits() {
    run(async {
        let (stage, one, two) = versions(Path::Straight).await;
        let snapshot = attach(stage.calling(AppProtocol::Http, []), |_| {
            let stealth = Rule {
                matches: RequestMatch {
                    headers: vec![ValueMatch {
                        name: "x-stealth".into(),
                        value: ValueCondition::Exact("yes".into()),
                    }],
                    ..RequestMatch::default()
                },
                ..rule(Target::Backend(two))
            };
            let api = Rule {
                matches: RequestMatch {
                    path: PathMatch::Prefix("/api".into()),
                    method: Some("GET".into()),
                    query: vec![ValueMatch {
                        name: "q".into(),
                        value: ValueCondition::Exact("a b".into()),
                    }],
                    ..RequestMatch::default()
                },
                ..rule(Target::Backend(one))
            };
            vec![stealth, api]
        });
        stage.a.publish(snapshot);
        let mut client = stage.dial().await;
        assert!(
            client
                .get("/", "X-Stealth: yes\r\n")
                .await
                .text()
                .starts_with("v2")
        );
        assert!(
            client
                .get("/api/x?q=a%20b", "")
                .await
                .text()
                .starts_with("v1")
        );
        for (path, lines) in [
            ("/api/x", ""),
            ("/apix?q=a+b", ""),
            ("/", "X-Stealth: no\r\n"),
        ] {
            let heard = client.get(path, lines).await;
            assert_eq!(
                (heard.status(), heard.error().unwrap().0),
                (404, "no-route"),
                "{path}"
            );
        }
    });
}

#[test]
fn shares_are_kept() {
    run(async {
        let (stage, one, two) = versions(Path::Straight).await;
        let share = |weight, backend| WeightedTarget {
            weight,
            target: Target::Backend(backend),
            filters: Arc::from([Filter::ResponseHeaders(HeaderEdits {
                add: vec![("x-share".into(), weight.to_string().into())],
                ..HeaderEdits::default()
            })]),
        };
        let target = Target::Weighted(vec![share(90, one), share(10, two)]);
        stage
            .a
            .publish(attach(stage.calling(AppProtocol::Http, []), |_| {
                vec![rule(target)]
            }));
        let mut client = stage.dial().await;
        let mut second = 0u32;
        for _ in 0..2000 {
            let heard = client.get("/", "").await;
            let is_second = heard.text().starts_with("v2");
            assert_eq!(
                heard.field("x-share"),
                Some(if is_second { "10" } else { "90" })
            );
            second += u32::from(is_second);
        }
        // Five standard deviations of 2,000 draws at a tenth: 67.
        assert!((133..=267).contains(&second), "{second} of 2000");
        eventually("counted by route", || {
            stage
                .a
                .cells
                .series
                .lock()
                .unwrap()
                .iter()
                .any(|one| &*one.key.route == "shop/web")
        })
        .await;
    });
}

#[test]
fn filters_change_both_heads() {
    for path in BOTH {
        run(async move {
            let stage = Stage::new(path, AppProtocol::Http).await;
            stage.program(|heard| {
                assert_eq!(heard.first, "GET /new/x?q HTTP/1.1");
                assert_eq!(heard.field("host"), Some("other.example"));
                assert_eq!(
                    (heard.field("x-set"), heard.field("x-gone")),
                    (Some("1"), None)
                );
                "HTTP/1.1 200 OK\r\nServer: secret\r\nContent-Length: 0\r\n\r\n".to_owned()
            });
            let snapshot = stage.calling(AppProtocol::Http, [stage.endpoint(1, stage.address)]);
            stage.a.publish(attach(snapshot, |backend| {
                let filters = [
                    Filter::RequestHeaders(HeaderEdits {
                        set: vec![("x-set".into(), "1".into())],
                        remove: vec!["x-gone".into()],
                        ..HeaderEdits::default()
                    }),
                    Filter::ResponseHeaders(HeaderEdits {
                        set: vec![("server".into(), "mesh".into())],
                        ..HeaderEdits::default()
                    }),
                    Filter::Rewrite(Rewrite {
                        hostname: Some("other.example".into()),
                        path: Some(PathEdit::Prefix {
                            matched: "/old".into(),
                            replacement: "/new".into(),
                        }),
                    }),
                ];
                vec![Rule {
                    filters: Arc::from(filters),
                    ..rule(Target::Backend(Arc::clone(backend)))
                }]
            }));
            let mut client = stage.dial().await;
            let heard = client.get("/old/x?q", "X-Gone: 1\r\nX-Set: 0\r\n").await;
            assert_eq!(
                (heard.status(), heard.field("server")),
                (200, Some("mesh")),
                "{path:?}"
            );
        });
    }
}

#[test]
fn redirects_and_failing_targets() {
    run(async {
        let stage = Stage::new(Path::Straight, AppProtocol::Http).await;
        stage
            .a
            .publish(attach(stage.calling(AppProtocol::Http, []), |backend| {
                let redirect = Redirect {
                    scheme: None,
                    hostname: Some("w.example".into()),
                    port: None,
                    path: None,
                    status: 301,
                };
                let away = Rule {
                    matches: RequestMatch {
                        path: PathMatch::Exact("/away".into()),
                        ..RequestMatch::default()
                    },
                    filters: Arc::from([Filter::Redirect(redirect)]),
                    ..rule(Target::Backend(Arc::clone(backend)))
                };
                let fail = rule(Target::Fail {
                    status: 500,
                    code: "no-backend",
                    reason: "no such service".into(),
                });
                vec![away, fail]
            }));
        let mut client = stage.dial().await;
        let heard = client.get("/away", "").await;
        assert_eq!(
            (heard.status(), heard.field("location")),
            (301, Some("http://w.example/away"))
        );
        let heard = client.get("/", "").await;
        assert_eq!(
            (heard.status(), heard.error().unwrap().0),
            (500, "no-backend")
        );
    });
}

#[test]
fn bounds_on_time() {
    for path in BOTH {
        run(async move {
            let stage = Stage::new(path, AppProtocol::Http).await;
            let short = Some(Duration::from_millis(60));
            let snapshot = stage.calling(AppProtocol::Http, [stage.endpoint(1, stage.address)]);
            stage.a.publish(attach(snapshot, |backend| {
                let whole = Rule {
                    matches: RequestMatch {
                        path: PathMatch::Exact("/whole".into()),
                        ..RequestMatch::default()
                    },
                    timeouts: Timeouts {
                        request: short,
                        backend_request: None,
                        idle: None,
                    },
                    ..rule(Target::Backend(Arc::clone(backend)))
                };
                let each = Rule {
                    timeouts: Timeouts {
                        request: None,
                        backend_request: short,
                        idle: None,
                    },
                    retry: Retry {
                        attempts: 1,
                        ..Retry::default()
                    },
                    ..rule(Target::Backend(Arc::clone(backend)))
                };
                vec![whole, each]
            }));
            let mut client = stage.dial().await;
            let heard = soon(client.get("/whole", "")).await;
            assert_eq!(
                (heard.status(), heard.error().unwrap().0),
                (504, "request-timeout"),
                "{path:?}"
            );
            let mut first = soon(stage.accept()).await;
            assert!(soon(first.head()).await.is_some());
            assert!(
                soon(first.ends()).await,
                "{path:?}: what nobody waits for is ended"
            );

            // The second try answers in time.
            client.say("GET /each HTTP/1.1\r\nHost: web\r\n\r\n").await;
            let mut slow = soon(stage.accept()).await;
            soon(slow.head()).await.unwrap();
            let mut quick = soon(stage.accept()).await;
            soon(quick.head()).await.unwrap();
            quick.say(&ok("quick")).await;
            assert_eq!(
                soon(client.answer()).await.unwrap().text(),
                "quick",
                "{path:?}"
            );
            let heard = soon(client.ask("POST /each HTTP/1.1\r\nHost: web\r\n\r\n")).await;
            assert_eq!(
                (heard.status(), heard.error().unwrap().0),
                (504, "upstream-timeout"),
                "{path:?}"
            );
        });
    }
}

#[test]
fn delegation_by_header() {
    run(async {
        let (stage, one, two) = versions(Path::Straight).await;
        let mut snapshot = attach(stage.calling(AppProtocol::Http, []), |_| {
            vec![rule(Target::Backend(Arc::clone(&one)))]
        });
        for backend in [&one, &two] {
            snapshot
                .outbound
                .backends
                .insert((backend.service.clone(), 80), Arc::clone(backend));
        }
        stage.a.publish(snapshot);
        let mut client = stage.dial().await;
        assert!(client.get("/", "").await.text().starts_with("v1"));
        for _ in 0..2 {
            let heard = client
                .get("/", "l5d-dtab: /svc/web => /svc/web-v2\r\n")
                .await;
            assert!(heard.text().starts_with("v2"), "{heard:?}");
            assert!(
                heard.text().contains("l5d-dtab"),
                "passed on: {}",
                heard.text()
            );
        }
        let heard = client
            .get("/", "l5d-dtab: /svc/other => /svc/web-v2\r\n")
            .await;
        assert!(
            heard.text().starts_with("v1"),
            "a table that says nothing of the service changes nothing"
        );
        let heard = client.get("/", "l5d-dtab: nonsense\r\n").await;
        assert_eq!(
            (heard.status(), heard.error().unwrap().0),
            (400, "bad-request")
        );
    });
}
