//! Requests that stay with one endpoint: sessions by cookie and header, and consistent hashing.

use std::{cell::Cell, rc::Rc, sync::Arc, time::Duration};

use mesh_model::{
    service::AppProtocol,
    snapshot::{
        Backend, BackendEndpoint, BackendKey, EndpointKey, Rule, Snapshot, Target, TrafficPolicy,
        WeightedTarget,
        rule::Persistence,
        traffic::{Balance, HashKey},
    },
};

use super::{
    BOTH, Path, Stage, Talk, ok,
    routes::{attach, rule},
    serve,
};
use crate::{
    http::{fields::Fields, persistence},
    trial::{listener, nowhere, plain, run},
};

/// Programs that say who they are.
async fn programs(count: u64) -> Vec<BackendEndpoint> {
    let mut endpoints = Vec::new();
    for key in 1..=count {
        let listener = Rc::new(listener().await);
        endpoints.push(plain(key, listener.local_addr().unwrap()));
        serve(listener, move |_| ok(&key.to_string()));
    }
    endpoints
}

fn persistent(stage: &Stage, endpoints: Vec<BackendEndpoint>, session: Persistence) -> Snapshot {
    attach(stage.calling(AppProtocol::Http, endpoints), |backend| {
        vec![Rule {
            persistence: Some(Arc::new(session)),
            ..rule(Target::Backend(Arc::clone(backend)))
        }]
    })
}

fn by_cookie() -> Persistence {
    Persistence {
        name: "sid".into(),
        header: false,
        lifetime: Some(Duration::from_mins(1)),
    }
}

/// The pair of a `set-cookie` line, and the rest of it.
fn cookie(heard: &super::Heard) -> Option<(String, String)> {
    let line = heard.field("set-cookie")?;
    let (pair, rest) = line.split_once("; ").unwrap();
    Some((pair.to_owned(), rest.to_owned()))
}

#[test]
fn by_cookie_and_header() {
    for path in BOTH {
        for header in [false, true] {
            run(async move {
                let stage = Stage::new(path, AppProtocol::Http).await;
                let endpoints = programs(5).await;
                let session = Persistence {
                    header,
                    ..by_cookie()
                };
                stage.a.publish(persistent(&stage, endpoints, session));
                let mut client = stage.dial().await;
                let first = client.get("/", "").await;
                let line = if header {
                    format!("Sid: {}\r\n", first.field("sid").unwrap())
                } else {
                    let (pair, rest) = cookie(&first).unwrap();
                    assert_eq!(rest, "Path=/; HttpOnly; SameSite=Lax; Max-Age=60");
                    format!("Cookie: a=1; {pair}\r\n")
                };
                assert!(!line.contains("127.0.0.1"));
                for _ in 0..20 {
                    let heard = client.get("/", &line).await;
                    assert_eq!(heard.text(), first.text());
                    let told = (heard.field("set-cookie"), heard.field("sid"));
                    assert_eq!(told, (None, None), "known already");
                }
                // Made up: served anywhere, and told where.
                let heard = client.get("/", "Cookie: sid=1234\r\nSid: zz\r\n").await;
                let told = heard.field("set-cookie").or_else(|| heard.field("sid"));
                assert!(told.is_some());
            });
        }
    }
}

/// A session moves when its endpoint is gone or unreachable, and its token with it.
#[test]
fn sessions_move_when_they_must() {
    run(async {
        let stage = Stage::new(Path::Straight, AppProtocol::Http).await;
        let mut endpoints = programs(3).await;
        let publish = |endpoints| stage.a.publish(persistent(&stage, endpoints, by_cookie()));
        // Its endpoint takes no connections.
        endpoints[0].address = nowhere().await;
        publish(endpoints.clone());
        let mut told = Fields::default();
        persistence::issue(&by_cookie(), EndpointKey(1), &mut told);
        let line = std::str::from_utf8(told.named(b"set-cookie").next().unwrap()).unwrap();
        let pair = line.split(';').next().unwrap().to_owned();
        let line = format!("Cookie: {pair}\r\n");
        let mut client = stage.dial().await;
        let heard = client.get("/", &line).await;
        assert_eq!(heard.status(), 200);
        assert_eq!(
            stage.a.shared.ejected(),
            [EndpointKey(1)],
            "it was asked first"
        );
        let (moved, _) = cookie(&heard).expect("the new place is told");
        assert_ne!(moved, pair);
        let line = format!("Cookie: {moved}\r\n");
        assert_eq!(client.get("/", &line).await.text(), heard.text());
        let key: u64 = heard.text().parse().unwrap();
        // Gone from the snapshot.
        let left: Vec<_> = endpoints
            .into_iter()
            .filter(|endpoint| endpoint.key.0 != key)
            .collect();
        publish(left);
        let heard = client.get("/", &line).await;
        assert!(heard.status() == 200 && cookie(&heard).is_some());
    });
}

/// A session goes before the draw among shares, but a weight of 0 gets nothing.
#[test]
fn sessions_and_shares() {
    run(async {
        let stage = Stage::new(Path::Straight, AppProtocol::Http).await;
        let endpoints = programs(2).await;
        let backend = |at: usize| {
            Arc::new(Backend {
                key: BackendKey(at as u64 + 10),
                ..(*super::routes::version(&stage, 9, endpoints[at].address)).clone()
            })
        };
        let alone = |at: usize| {
            let mut backend = (*backend(at)).clone();
            backend.endpoints = vec![Arc::new(endpoints[at].clone())];
            Target::Backend(Arc::new(backend))
        };
        let publish = |weights: [u32; 2]| {
            let shares = (0..2).map(|at| WeightedTarget {
                weight: weights[at],
                target: alone(at),
                filters: Arc::from([]),
            });
            let target = Target::Weighted(shares.collect());
            let snapshot = attach(stage.calling(AppProtocol::Http, []), |_| {
                vec![Rule {
                    persistence: Some(Arc::new(by_cookie())),
                    ..rule(target)
                }]
            });
            stage.a.publish(snapshot);
        };
        publish([1, 1]);
        let mut client = stage.dial().await;
        let first = client.get("/", "").await;
        let (pair, _) = cookie(&first).unwrap();
        let line = format!("Cookie: {pair}\r\n");
        for _ in 0..20 {
            assert_eq!(client.get("/", &line).await.text(), first.text());
        }
        let held = usize::from(first.text() == "2");
        let mut weights = [1, 1];
        weights[held] = 0;
        publish(weights);
        assert_ne!(client.get("/", &line).await.text(), first.text());
    });
}

/// A session does not keep requests with a backend whose endpoints are all out while its rule names another.
#[test]
fn sessions_fail_over() {
    run(async {
        let stage = Stage::new(Path::Straight, AppProtocol::Http).await;
        let mut endpoints = programs(2).await;
        endpoints[0].address = nowhere().await;
        let alone = |at: usize| {
            let backend = super::routes::version(&stage, 9, endpoints[at].address);
            Target::Backend(Arc::new(Backend {
                key: BackendKey(at as u64 + 10),
                endpoints: vec![Arc::new(endpoints[at].clone())],
                ..(*backend).clone()
            }))
        };
        let target = Target::Failover(vec![alone(0), alone(1)]);
        let snapshot = attach(stage.calling(AppProtocol::Http, []), |_| {
            vec![Rule {
                persistence: Some(Arc::new(by_cookie())),
                ..rule(target)
            }]
        });
        stage.a.publish(snapshot);
        let mut told = Fields::default();
        persistence::issue(&by_cookie(), EndpointKey(1), &mut told);
        let line = std::str::from_utf8(told.named(b"set-cookie").next().unwrap()).unwrap();
        let line = format!("Cookie: {}\r\n", line.split(';').next().unwrap());
        let mut client = stage.dial().await;
        // The first request finds it out.
        assert_eq!(client.get("/", &line).await.status(), 503);
        let heard = client.get("/", &line).await;
        assert_eq!((heard.status(), heard.text()), (200, "2"));
        assert!(cookie(&heard).is_some(), "the new place is told");
    });
}

fn hashed(stage: &Stage, endpoints: &[BackendEndpoint], keys: &[HashKey]) -> Snapshot {
    let endpoints = endpoints.to_vec();
    attach(stage.calling(AppProtocol::Http, endpoints), |backend| {
        let policy = TrafficPolicy {
            balance: Balance::RingHash {
                keys: Arc::from(keys),
                minimum_ring_size: 1024,
            },
            ..TrafficPolicy::default()
        };
        let backend = Backend {
            policy: Arc::new(policy),
            ..(**backend).clone()
        };
        vec![rule(Target::Backend(Arc::new(backend)))]
    })
}

#[test]
fn equal_keys_go_to_the_same_endpoint() {
    run(async {
        let stage = Stage::new(Path::Straight, AppProtocol::Http).await;
        let endpoints = programs(5).await;
        let header = HashKey::Header("x-user".into());
        stage.a.publish(hashed(&stage, &endpoints, &[header]));
        let seen = Rc::new(Cell::new(0u32));
        for user in 0..20 {
            let mut client = stage.dial().await;
            let line = format!("X-User: user-{user}\r\n");
            let first = client.get("/", &line).await.text().to_owned();
            seen.set(seen.get() | 1 << first.parse::<u32>().unwrap());
            for _ in 0..5 {
                assert_eq!(client.get("/", &line).await.text(), first);
            }
        }
        assert!(seen.get().count_ones() >= 3, "{:b}", seen.get());
    });
}

#[test]
fn a_cookie_is_made_and_kept_to() {
    run(async {
        let stage = Stage::new(Path::Straight, AppProtocol::Http).await;
        let endpoints = programs(5).await;
        let made = HashKey::Cookie {
            name: "aff".into(),
            path: "/".into(),
            ttl: Some(Duration::from_mins(1)),
        };
        stage.a.publish(hashed(&stage, &endpoints, &[made]));
        let ask = async |client: &mut Talk, line: &str| client.get("/", line).await;
        let mut client = stage.dial().await;
        for _ in 0..5 {
            let first = ask(&mut client, "").await;
            let (pair, _) = cookie(&first).unwrap();
            for _ in 0..5 {
                let heard = ask(&mut client, &format!("Cookie: {pair}\r\n")).await;
                assert_eq!(heard.text(), first.text());
                assert_eq!(heard.field("set-cookie"), None);
            }
        }
    });
}
