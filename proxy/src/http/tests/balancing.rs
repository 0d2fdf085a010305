//! What a backend's policy does to whole requests: ejection, health checks, circuit breaking, connections.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeSet,
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Response};
use mesh_model::{
    service::AppProtocol,
    snapshot::{
        Backend, ConnectionTerms, EndpointKey, Frontend, InboundPort, Snapshot, TrafficPolicy,
        traffic::{
            Balance, CircuitLimits, HashKey, HealthCheck, OutlierDetection, Probe, SuccessRate,
        },
    },
};
use tokio::io::AsyncReadExt as _;

use super::{BOTH, Path, Stage, Talk, ok, serve, soon};
use crate::trial::{eventually, listener, nowhere, run};

/// The same with another policy.
fn with(mut snapshot: Snapshot, policy: TrafficPolicy) -> Snapshot {
    let policy = Arc::new(policy);
    let outbound = &mut snapshot.outbound;
    let frontend = outbound.frontends.pop().unwrap();
    let backend = Arc::new(Backend {
        policy,
        ..Backend::clone(&frontend.backend)
    });
    let frontend = Arc::new(Frontend {
        backend: Arc::clone(&backend),
        ..Frontend::clone(&frontend)
    });
    for known in outbound.backends.values_mut() {
        *known = Arc::clone(&backend);
    }
    for known in outbound.by_address.values_mut() {
        *known = Arc::clone(&frontend);
    }
    outbound.frontends.push(frontend);
    snapshot
}

fn limited(limits: CircuitLimits) -> TrafficPolicy {
    TrafficPolicy {
        limits,
        ..TrafficPolicy::default()
    }
}

fn reasons(stage: &Stage) -> Vec<(u64, &'static str)> {
    let ejections = stage.a.shared.ejections();
    ejections
        .iter()
        .map(|one| (one.endpoint.0, one.reason))
        .collect()
}

/// Answers that are errors put an endpoint out; callers see a few, then none.
#[test]
fn errors_eject() {
    for path in BOTH {
        run(async move {
            let stage = Stage::new(path, AppProtocol::Http).await;
            let failing = Rc::new(Cell::new(true));
            let fails = Rc::clone(&failing);
            stage.program(move |_| {
                if fails.get() {
                    "HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n".to_owned()
                } else {
                    ok("one")
                }
            });
            let good = Rc::new(listener().await);
            let mut other = stage.endpoint(2, good.local_addr().unwrap());
            other.tunnel = None;
            serve(good, |_| ok("two"));
            let endpoints = [stage.endpoint(1, stage.address), other];
            let policy = TrafficPolicy {
                balance: Balance::RoundRobin,
                outlier: OutlierDetection {
                    consecutive_errors: 3,
                    base_ejection: Duration::from_millis(400),
                    max_ejection: Duration::from_secs(1),
                    ..OutlierDetection::default()
                },
                ..TrafficPolicy::default()
            };
            stage
                .a
                .publish(with(stage.calling(AppProtocol::Http, endpoints), policy));
            let mut client = stage.dial().await;
            let mut errors = 0;
            for _ in 0..20 {
                errors += u32::from(client.get("/", "").await.status() == 500);
            }
            assert_eq!(errors, 3, "{path:?}");
            assert_eq!(reasons(&stage), [(1, "errors in a row")]);
            assert!(stage.a.shared.ejections()[0].until_ms.is_some());
            failing.set(false);
            eventually("back", || stage.a.shared.ejections().is_empty()).await;
            let mut seen = BTreeSet::new();
            for _ in 0..4 {
                seen.insert(client.get("/", "").await.text().to_owned());
            }
            assert_eq!(seen.len(), 2);
        });
    }
}

/// By default a program's own failures are its own business, and silence is not.
#[test]
fn what_ejects_by_default() {
    run(async {
        let stage = Stage::new(Path::Straight, AppProtocol::Http).await;
        let silent = Rc::new(Cell::new(false));
        let ends = Rc::clone(&silent);
        stage.program(move |_| {
            if ends.get() {
                String::new()
            } else {
                "HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n".to_owned()
            }
        });
        let mut client = stage.dial().await;
        let post = "POST / HTTP/1.1\r\nHost: web\r\nContent-Length: 0\r\n\r\n";
        for _ in 0..10 {
            assert_eq!(client.ask(post).await.status(), 500);
        }
        assert_eq!(reasons(&stage), []);
        silent.set(true);
        for _ in 0..5 {
            assert_eq!(client.ask(post).await.status(), 502);
        }
        assert_eq!(reasons(&stage), [(1, "no answer in a row")]);
        // The only one there is still is tried.
        assert_eq!(client.ask(post).await.status(), 502);
    });
}

/// A look at the whole backend finds who fails more than the others; not more than may be out are out.
#[test]
fn success_rates_eject() {
    run(async {
        let stage = Stage::new(Path::Straight, AppProtocol::Http).await;
        let mut endpoints = Vec::new();
        for key in 1..=5 {
            let program = Rc::new(listener().await);
            endpoints.push(stage.endpoint(key, program.local_addr().unwrap()));
            serve(program, move |_| {
                if key == 3 {
                    "HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n".to_owned()
                } else {
                    ok("fine")
                }
            });
        }
        let policy = TrafficPolicy {
            balance: Balance::RoundRobin,
            outlier: OutlierDetection {
                interval: Duration::from_millis(100),
                success_rate: Some(SuccessRate {
                    minimum_hosts: 5,
                    request_volume: 4,
                    stdev_factor: 1.5,
                }),
                ..OutlierDetection::default()
            },
            ..TrafficPolicy::default()
        };
        stage
            .a
            .publish(with(stage.calling(AppProtocol::Http, endpoints), policy));
        let mut client = stage.dial().await;
        let begun = std::time::Instant::now();
        while reasons(&stage).is_empty() && begun.elapsed() < Duration::from_secs(10) {
            client.get("/", "").await;
        }
        assert_eq!(reasons(&stage), [(3, "success rate")]);
        for _ in 0..10 {
            assert_eq!(client.get("/", "").await.status(), 200);
        }
    });
}

fn checked(probe: Probe) -> TrafficPolicy {
    TrafficPolicy {
        health_check: Some(HealthCheck {
            probe,
            interval: Duration::from_millis(40),
            timeout: Duration::from_millis(500),
            healthy_threshold: 2,
            unhealthy_threshold: 2,
        }),
        ..TrafficPolicy::default()
    }
}

/// Health checks go where requests go, put an endpoint out, and bring it back.
#[test]
fn health_checks_by_http() {
    for path in BOTH {
        run(async move {
            let stage = Stage::new(path, AppProtocol::Http).await;
            let ill = Rc::new(Cell::new(false));
            let (is_ill, heard_as) = (Rc::clone(&ill), Rc::new(RefCell::new(None)));
            let heard = Rc::clone(&heard_as);
            stage.program(move |request| {
                if !request.first.starts_with("GET /healthz?deep=1 ") {
                    return ok("a request");
                }
                heard.replace(request.field("host").map(str::to_owned));
                if is_ill.get() {
                    "HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n".to_owned()
                } else {
                    "HTTP/1.1 204 Fine\r\n\r\n".to_owned()
                }
            });
            let probe = Probe::Http {
                path: "/healthz?deep=1".into(),
                host: Some("checks.example".into()),
                statuses: Arc::from([204]),
            };
            let endpoints = [stage.endpoint(1, stage.address)];
            let calling = stage.calling(AppProtocol::Http, endpoints);
            stage.a.publish(with(calling, checked(probe)));
            eventually("asked", || heard_as.borrow().is_some()).await;
            assert_eq!(heard_as.borrow().as_deref(), Some("checks.example"));
            assert_eq!(reasons(&stage), [], "{path:?}");
            ill.set(true);
            let out = [(1, "failed health check")];
            eventually("out", || reasons(&stage) == out).await;
            ill.set(false);
            eventually("back", || reasons(&stage).is_empty()).await;
            // Nothing is checked any longer: what the checks said is forgotten.
            ill.set(true);
            eventually("out", || reasons(&stage) == out).await;
            let endpoints = [stage.endpoint(1, stage.address)];
            stage.a.publish(stage.calling(AppProtocol::Http, endpoints));
            eventually("forgotten", || reasons(&stage).is_empty()).await;
        });
    }
}

#[test]
fn health_checks_by_tcp() {
    run(async {
        let stage = Stage::new(Path::Straight, AppProtocol::Tcp).await;
        stage.program(|_| String::new());
        let endpoints = [
            stage.endpoint(1, stage.address),
            stage.endpoint(2, nowhere().await),
        ];
        let calling = stage.calling(AppProtocol::Tcp, endpoints);
        stage.a.publish(with(calling, checked(Probe::Tcp)));
        eventually("out", || reasons(&stage) == [(2, "failed health check")]).await;
    });
}

/// A server of `grpc.health.v1`, which says whether it serves.
fn health_server(stage: &Stage, serving: Rc<Cell<bool>>) {
    let listener = Rc::clone(&stage.listener);
    tokio::task::spawn_local(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let serving = Rc::clone(&serving);
            tokio::task::spawn_local(async move {
                let mut connection = h2::server::handshake(stream).await.unwrap();
                while let Some(Ok((request, mut respond))) = connection.accept().await {
                    assert_eq!(request.uri().path(), "/grpc.health.v1.Health/Check");
                    let head = Response::builder().header("content-type", "application/grpc");
                    let mut send = respond
                        .send_response(head.body(()).unwrap(), false)
                        .unwrap();
                    let status = if serving.get() { 1 } else { 2 };
                    let message = Bytes::from(vec![0, 0, 0, 0, 2, 8, status]);
                    send.send_data(message, false).unwrap();
                    let mut trailers = HeaderMap::new();
                    trailers.insert("grpc-status", HeaderValue::from_static("0"));
                    send.send_trailers(trailers).unwrap();
                }
            });
        }
    });
}

#[test]
fn health_checks_by_grpc() {
    for path in BOTH {
        run(async move {
            let stage = Stage::new(path, AppProtocol::Grpc).await;
            let serving = Rc::new(Cell::new(false));
            health_server(&stage, Rc::clone(&serving));
            let probe = Probe::Grpc {
                service: "words.Words".into(),
            };
            let endpoints = [stage.endpoint(1, stage.address)];
            let calling = stage.calling(AppProtocol::Grpc, endpoints);
            stage.a.publish(with(calling, checked(probe)));
            let out = [(1, "failed health check")];
            eventually("out", || reasons(&stage) == out).await;
            serving.set(true);
            eventually("back", || reasons(&stage).is_empty()).await;
        });
    }
}

/// One connection, one who waits, and the third is told at once; the one who waits gets the same connection. In a
/// tunnel, where connections are shared, each request of HTTP/1 counts as one.
#[test]
fn connections_are_limited() {
    for path in BOTH {
        run(async move {
            let stage = Stage::new(path, AppProtocol::Http).await;
            let endpoints = [stage.endpoint(1, stage.address)];
            let limits = CircuitLimits {
                max_connections: 1,
                max_pending: 1,
                ..CircuitLimits::default()
            };
            let calling = stage.calling(AppProtocol::Http, endpoints);
            stage.a.publish(with(calling, limited(limits)));
            let (mut first, mut second, mut third) =
                (stage.dial().await, stage.dial().await, stage.dial().await);
            first.say("GET /1 HTTP/1.1\r\nHost: web\r\n\r\n").await;
            let mut program = soon(stage.accept()).await;
            assert_eq!(soon(program.head()).await.unwrap().first, "GET /1 HTTP/1.1");
            second.say("GET /2 HTTP/1.1\r\nHost: web\r\n\r\n").await;
            // Until the second waits, the third would.
            let heard = loop {
                third.say("GET /3 HTTP/1.1\r\nHost: web\r\n\r\n").await;
                match tokio::time::timeout(Duration::from_millis(300), third.answer()).await {
                    Ok(heard) => break heard.unwrap(),
                    Err(_waits) => third = stage.dial().await,
                }
            };
            assert_eq!(
                (heard.status(), heard.error().unwrap().0),
                (503, "overloaded")
            );
            program.say(&ok("one")).await;
            assert_eq!(soon(first.answer()).await.unwrap().text(), "one");
            assert_eq!(soon(program.head()).await.unwrap().first, "GET /2 HTTP/1.1");
            program.say(&ok("two")).await;
            assert_eq!(soon(second.answer()).await.unwrap().text(), "two");
            // Who waits and leaves takes nobody's place.
            first.say("GET /4 HTTP/1.1\r\nHost: web\r\n\r\n").await;
            soon(program.head()).await.unwrap();
            drop(second);
            program.say(&ok("four")).await;
            assert_eq!(soon(first.answer()).await.unwrap().text(), "four");
            assert_eq!(reasons(&stage), [], "limits are no fault of the endpoint");
        });
    }
}

/// Who waits for a connection and goes away gives its place to others at once.
#[test]
fn who_goes_away_waits_no_longer() {
    run(async {
        let stage = Stage::new(Path::Straight, AppProtocol::Http).await;
        let endpoints = [stage.endpoint(1, stage.address)];
        let limits = CircuitLimits {
            max_connections: 1,
            max_requests: 2,
            ..CircuitLimits::default()
        };
        let calling = stage.calling(AppProtocol::Http, endpoints);
        stage.a.publish(with(calling, limited(limits)));
        let mut first = stage.dial().await;
        first.say("GET /1 HTTP/1.1\r\nHost: web\r\n\r\n").await;
        let mut program = soon(stage.accept()).await;
        soon(program.head()).await.unwrap();
        for _ in 0..5 {
            let mut waits = stage.dial().await;
            waits.say("GET /2 HTTP/1.1\r\nHost: web\r\n\r\n").await;
            eventually("it waits", || stage.a.worker.observe.running() == 2).await;
            socket2::SockRef::from(&waits.stream)
                .set_linger(Some(Duration::ZERO))
                .unwrap();
            drop(waits);
            eventually("it is gone", || stage.a.worker.observe.running() == 1).await;
        }
        program.say(&ok("one")).await;
        assert_eq!(soon(first.answer()).await.unwrap().text(), "one");
    });
}

/// An idle connection to one endpoint makes room for another endpoint's.
#[test]
fn idle_connections_make_room() {
    run(async {
        let stage = Stage::new(Path::Straight, AppProtocol::Http).await;
        stage.program(|_| ok("one"));
        let other = Rc::new(listener().await);
        let endpoints = [
            stage.endpoint(1, stage.address),
            stage.endpoint(2, other.local_addr().unwrap()),
        ];
        serve(other, |_| ok("two"));
        let policy = TrafficPolicy {
            balance: Balance::RoundRobin,
            ..limited(CircuitLimits {
                max_connections: 1,
                max_pending: 0,
                ..CircuitLimits::default()
            })
        };
        let calling = stage.calling(AppProtocol::Http, endpoints);
        stage.a.publish(with(calling, policy));
        let mut client = stage.dial().await;
        let mut seen = Vec::new();
        for _ in 0..6 {
            seen.push(client.get("/", "").await.text().to_owned());
        }
        seen.sort();
        assert_eq!(seen, ["one", "one", "one", "two", "two", "two"]);
    });
}

/// A connection that lies idle on one worker makes room for a request on another.
#[test]
fn workers_share_the_limits() {
    run(async {
        let stage = Stage::new(Path::Straight, AppProtocol::Http).await;
        stage.program(|_| ok("fine"));
        let limits = CircuitLimits {
            max_connections: 1,
            ..CircuitLimits::default()
        };
        let beside = stage.world.beside(&stage.a);
        for host in [&stage.a, &beside] {
            let endpoints = [stage.endpoint(1, stage.address)];
            let calling = stage.calling(AppProtocol::Http, endpoints);
            host.publish(with(calling, limited(limits.clone())));
        }
        let mut here = Talk::new(stage.world.dial(&stage.a).await);
        let mut there = Talk::new(stage.world.dial(&beside).await);
        for _ in 0..5 {
            assert_eq!(soon(here.get("/", "")).await.text(), "fine");
            assert_eq!(soon(there.get("/", "")).await.text(), "fine");
        }
    });
}

#[test]
fn requests_are_limited() {
    for path in BOTH {
        run(async move {
            let stage = Stage::new(path, AppProtocol::Http).await;
            let endpoints = [stage.endpoint(1, stage.address)];
            let limits = CircuitLimits {
                max_requests: 1,
                ..CircuitLimits::default()
            };
            let calling = stage.calling(AppProtocol::Http, endpoints);
            stage.a.publish(with(calling, limited(limits)));
            let (mut first, mut second) = (stage.dial().await, stage.dial().await);
            first.say("GET /1 HTTP/1.1\r\nHost: web\r\n\r\n").await;
            let mut program = soon(stage.accept()).await;
            soon(program.head()).await.unwrap();
            let heard = second.get("/2", "").await;
            assert_eq!(
                (heard.status(), heard.error().unwrap().0),
                (503, "overloaded"),
                "{path:?}"
            );
            program.say(&ok("one")).await;
            assert_eq!(soon(first.answer()).await.unwrap().text(), "one");
            second.say("GET /3 HTTP/1.1\r\nHost: web\r\n\r\n").await;
            soon(program.head()).await.unwrap();
            program.say(&ok("three")).await;
            assert_eq!(soon(second.answer()).await.unwrap().text(), "three");
        });
    }
}

/// An opaque connection beyond the limit is refused soon.
#[test]
fn opaque_connections_are_limited() {
    run(async {
        let stage = Stage::new(Path::Straight, AppProtocol::Tcp).await;
        let endpoints = [stage.endpoint(1, stage.address)];
        let policy = TrafficPolicy {
            connect_timeout: Some(Duration::from_millis(200)),
            ..limited(CircuitLimits {
                max_connections: 1,
                ..CircuitLimits::default()
            })
        };
        let calling = stage.calling(AppProtocol::Tcp, endpoints);
        stage.a.publish(with(calling, policy));
        let mut first = stage.dial().await;
        first.say("hello").await;
        let mut program = soon(stage.accept()).await;
        assert_eq!(program.raw(5).await, b"hello");
        let mut second = stage.dial().await;
        second.say("hello").await;
        let mut byte = [0];
        // A reset, or an end without a byte.
        assert!(!matches!(soon(second.stream.read(&mut byte)).await, Ok(1)));
        let codes = stage.a.failures();
        assert_eq!(codes.last().unwrap().0, "overloaded");
        // One that ends makes room, also for one that waits.
        let mut third = stage.dial().await;
        third.say("again").await;
        drop((first, program));
        let mut program = soon(stage.accept()).await;
        assert_eq!(program.raw(5).await, b"again");
    });
}

/// Connections end after so many requests, and when they lie idle for long.
#[test]
fn connections_end_by_policy() {
    run(async {
        let stage = Stage::new(Path::Straight, AppProtocol::Http).await;
        let opened = stage.program(|_| ok("fine"));
        let endpoints = || [stage.endpoint(1, stage.address)];
        let policy = TrafficPolicy {
            max_requests_per_connection: 2,
            ..TrafficPolicy::default()
        };
        let calling = stage.calling(AppProtocol::Http, endpoints());
        stage.a.publish(with(calling, policy));
        let mut client = stage.dial().await;
        for _ in 0..6 {
            assert_eq!(client.get("/", "").await.text(), "fine");
        }
        assert_eq!(opened.get(), 3);
        let policy = TrafficPolicy {
            idle_timeout: Some(Duration::from_nanos(1)),
            ..TrafficPolicy::default()
        };
        let calling = stage.calling(AppProtocol::Http, endpoints());
        stage.a.publish(with(calling, policy));
        assert_eq!(client.get("/", "").await.text(), "fine");
        assert_eq!(opened.get(), 4);
        assert_eq!(client.get("/", "").await.text(), "fine");
        assert_eq!(opened.get(), 5);
    });
}

/// The host of a program keeps to the same terms towards it, however its callers' daemons share connections.
#[test]
fn connections_to_programs_end_by_policy() {
    run(async {
        for (terms, wanted) in [
            (ConnectionTerms::default(), 1),
            (
                ConnectionTerms {
                    max_requests: 2,
                    ..ConnectionTerms::default()
                },
                3,
            ),
            (
                ConnectionTerms {
                    idle_timeout: Some(Duration::from_nanos(1)),
                    ..ConnectionTerms::default()
                },
                6,
            ),
        ] {
            let change = |port: &mut InboundPort| port.connections = terms;
            let stage = Stage::with(Path::Tunnel, AppProtocol::Http, change).await;
            let opened = stage.program(|_| ok("fine"));
            let mut client = stage.dial().await;
            for _ in 0..6 {
                assert_eq!(client.get("/", "").await.text(), "fine");
            }
            assert_eq!(opened.get(), wanted, "{terms:?}");
        }
    });
}

/// HTTP/1 requests go on as HTTP/2 where the policy says so.
#[test]
fn upgrade_to_http2() {
    run(async {
        let stage = Stage::new(Path::Straight, AppProtocol::Http).await;
        let listener = Rc::clone(&stage.listener);
        tokio::task::spawn_local(async move {
            let (stream, _) = listener.accept().await.unwrap();
            let mut connection = h2::server::handshake(stream).await.unwrap();
            while let Some(Ok((_, mut respond))) = connection.accept().await {
                let mut send = respond.send_response(Response::new(()), false).unwrap();
                send.send_data("two".into(), true).unwrap();
            }
        });
        let policy = TrafficPolicy {
            upgrade_to_http2: true,
            ..TrafficPolicy::default()
        };
        let endpoints = [stage.endpoint(1, stage.address)];
        let calling = stage.calling(AppProtocol::Http, endpoints);
        stage.a.publish(with(calling, policy));
        let mut client = stage.dial().await;
        assert_eq!(soon(client.get("/", "")).await.text(), "two");
    });
}

/// Requests with the same header go to the same endpoint, and only those of one that is gone move.
#[test]
fn hashed_by_a_header() {
    run(async {
        let stage = Stage::new(Path::Straight, AppProtocol::Http).await;
        let mut endpoints = Vec::new();
        for key in 1..=5 {
            let program = Rc::new(listener().await);
            endpoints.push(stage.endpoint(key, program.local_addr().unwrap()));
            serve(program, move |_| ok(&key.to_string()));
        }
        let policy = TrafficPolicy {
            balance: Balance::RingHash {
                keys: Arc::from([HashKey::Header("x-user".into())]),
                minimum_ring_size: 1024,
            },
            ..TrafficPolicy::default()
        };
        let publish = |endpoints: &[mesh_model::snapshot::BackendEndpoint]| {
            let calling = stage.calling(AppProtocol::Http, endpoints.iter().cloned());
            stage.a.publish(with(calling, policy.clone()));
        };
        publish(&endpoints);
        let mut client = stage.dial().await;
        let mut owners = Vec::new();
        for user in 0..40 {
            let line = format!("X-User: user-{user}\r\n");
            let owner = client.get("/", &line).await.text().to_owned();
            assert_eq!(client.get("/", &line).await.text(), owner);
            owners.push(owner);
        }
        assert_eq!(owners.iter().collect::<BTreeSet<_>>().len(), 5);
        endpoints.remove(2);
        publish(&endpoints);
        for (user, owner) in owners.iter().enumerate() {
            let line = format!("X-User: user-{user}\r\n");
            let now = client.get("/", &line).await.text().to_owned();
            assert!(now == *owner || owner == "3", "{now} {owner}");
        }
    });
}

/// An endpoint that takes no connections is out until it does.
#[test]
fn failed_dials_eject_until_it_is_back() {
    run(async {
        let stage = Stage::new(Path::Straight, AppProtocol::Http).await;
        stage.program(|_| ok("one"));
        let gone = tokio::net::TcpSocket::new_v4().unwrap();
        gone.set_reuseaddr(true).unwrap();
        gone.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = gone.local_addr().unwrap();
        let endpoints = [stage.endpoint(1, stage.address), stage.endpoint(2, address)];
        let policy = TrafficPolicy {
            balance: Balance::RoundRobin,
            ..TrafficPolicy::default()
        };
        let calling = stage.calling(AppProtocol::Http, endpoints);
        stage.a.publish(with(calling, policy));
        let mut client = stage.dial().await;
        for _ in 0..6 {
            assert_eq!(client.get("/", "").await.text(), "one");
        }
        assert_eq!(reasons(&stage), [(2, "failed dial")]);
        assert_eq!(stage.a.shared.ejected(), [EndpointKey(2)]);
        let back = gone.listen(16).unwrap();
        serve(Rc::new(back), |_| ok("two"));
        eventually("back", || reasons(&stage).is_empty()).await;
    });
}

/// An endpoint that is out and moves meanwhile is asked where it is now.
#[test]
fn what_has_moved_is_asked_at_its_new_place() {
    run(async {
        let stage = Stage::new(Path::Straight, AppProtocol::Http).await;
        let publish = |address| {
            let endpoints = [stage.endpoint(1, address)];
            stage.a.publish(stage.calling(AppProtocol::Http, endpoints));
        };
        publish(nowhere().await);
        let heard = soon(stage.dial().await.get("/", "")).await;
        assert_eq!(heard.status(), 503);
        assert_eq!(reasons(&stage), [(1, "failed dial")]);
        publish(stage.address);
        eventually("back", || reasons(&stage).is_empty()).await;
    });
}
