//! Further tries: on what, when, where, and how often.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use h2::server;
use http::{HeaderMap, HeaderValue, Response};
use mesh_model::{
    service::AppProtocol,
    snapshot::{
        Backend, Retry, RetryOn, Rule, Target, Timeouts, TrafficPolicy,
        traffic::{Balance, CircuitLimits},
    },
};

use super::{
    Path, Stage, http2, ok,
    routes::{attach, rule},
    serve, soon,
};
use crate::trial::{listener, run};

/// A policy of a route: only what it says.
fn only() -> Retry {
    Retry {
        attempts: 3,
        codes: Vec::new(),
        idempotent_only: false,
        backoff: Duration::from_millis(1),
        ..Retry::default()
    }
}

fn with(stage: &Stage, protocol: AppProtocol, retry: Retry, timeouts: Timeouts) {
    let endpoint = stage.endpoint(1, stage.address);
    let snapshot = stage.calling(protocol, [endpoint]);
    stage.a.publish(attach(snapshot, |backend| {
        vec![Rule {
            retry,
            timeouts,
            ..rule(Target::Backend(Arc::clone(backend)))
        }]
    }));
}

/// Answers once with this, then well. How often it was asked.
fn once(stage: &Stage, first: &str) -> Rc<Cell<usize>> {
    let (asked, first) = (Rc::new(Cell::new(0)), first.to_owned());
    let count = Rc::clone(&asked);
    stage.program(move |_| {
        count.set(count.get() + 1);
        if count.get() == 1 {
            first.clone()
        } else {
            ok("fine")
        }
    });
    asked
}

const POST: &str = "POST / HTTP/1.1\r\nHost: web\r\nContent-Length: 2\r\n\r\nhi";

#[test]
fn conditions() {
    let on = |reset, conflict| Retry {
        on: RetryOn {
            reset,
            conflict,
            ..RetryOn::default()
        },
        ..only()
    };
    let codes = |codes: &[u16]| Retry {
        codes: codes.to_vec(),
        ..only()
    };
    let answer = |line: &str| format!("HTTP/1.1 {line}\r\nContent-Length: 0\r\n\r\n");
    let table = [
        (codes(&[500]), answer("500 No"), true),
        (codes(&[500]), answer("503 No"), false),
        (on(false, true), answer("409 Conflict"), true),
        (on(false, false), answer("409 Conflict"), false),
        // An empty answer closes the connection: a reset before the head.
        (on(true, false), String::new(), true),
        (on(false, false), String::new(), false),
        (
            Retry {
                attempts: 0,
                ..codes(&[500])
            },
            answer("500 No"),
            false,
        ),
    ];
    for (retry, first, again) in table {
        run(async move {
            let stage = Stage::new(Path::Straight, AppProtocol::Http).await;
            let asked = once(&stage, &first);
            let told = format!("{retry:?} {first:?}");
            with(&stage, AppProtocol::Http, retry, Timeouts::default());
            let heard = soon(stage.dial().await.ask(POST)).await;
            assert_eq!(heard.status() == 200, again, "{told}");
            assert_eq!(asked.get(), if again { 2 } else { 1 }, "{told}");
        });
    }
}

#[test]
fn slow_tries_are_given_up_for_every_method_where_the_route_says_so() {
    run(async {
        let stage = Stage::new(Path::Straight, AppProtocol::Http).await;
        let retry = Retry {
            on: RetryOn {
                timeout: true,
                ..RetryOn::default()
            },
            ..only()
        };
        let timeouts = Timeouts {
            backend_request: Some(Duration::from_millis(300)),
            ..Timeouts::default()
        };
        with(&stage, AppProtocol::Http, retry, timeouts);
        let mut client = stage.dial().await;
        client.say(POST).await;
        let mut slow = soon(stage.accept()).await;
        assert_eq!(soon(slow.request()).await.unwrap().text(), "hi");
        let mut quick = soon(stage.accept()).await;
        assert_eq!(soon(quick.request()).await.unwrap().text(), "hi");
        quick.say(&ok("quick")).await;
        assert_eq!(soon(client.answer()).await.unwrap().text(), "quick");
    });
}

/// A try whose time ends while its connection is opened sent nothing: it is made again elsewhere, whatever the
/// method, and counts against the endpoint.
#[test]
fn endpoints_that_do_not_take_a_connection_in_time() {
    run(async {
        let stage = Stage::new(Path::Tunnel, AppProtocol::Http).await;
        stage.program(|heard| ok(heard.text()));
        // It takes connections and never shakes hands.
        let silent = listener().await;
        let there = silent.local_addr().unwrap();
        let dead = |key| stage.world.meshed(key, stage.address, there);
        let publish = |endpoints: Vec<_>, attempts, bound| {
            let snapshot = stage.calling(AppProtocol::Http, endpoints);
            stage.a.publish(attach(snapshot, |backend| {
                let policy = TrafficPolicy {
                    balance: Balance::RoundRobin,
                    ..TrafficPolicy::default()
                };
                let backend = Backend {
                    policy: Arc::new(policy),
                    ..(**backend).clone()
                };
                vec![Rule {
                    retry: Retry {
                        attempts,
                        ..Retry::default()
                    },
                    timeouts: Timeouts {
                        backend_request: Some(Duration::from_millis(bound)),
                        ..Timeouts::default()
                    },
                    ..rule(Target::Backend(Arc::new(backend)))
                }]
            }));
        };
        let endpoint = stage.endpoint(1, stage.address);
        let mut client = stage.dial().await;
        assert_eq!(
            soon(client.ask(POST)).await.status(),
            200,
            "its tunnel is open"
        );
        let bound = 2000;
        publish(vec![endpoint, dead(2)], 1, bound);
        let mut retried = false;
        for _ in 0..4 {
            let begun = Instant::now();
            let heard = soon(client.ask(POST)).await;
            assert_eq!((heard.status(), heard.text()), (200, "hi"));
            retried |= begun.elapsed() >= Duration::from_millis(bound);
            if retried {
                break;
            }
        }
        assert!(retried, "the silent endpoint was never asked");
        publish(vec![dead(3), dead(4)], 0, 50);
        for _ in 0..9 {
            assert!(soon(client.ask(POST)).await.status() >= 500);
        }
        let ejected = stage.a.shared.ejected();
        assert!(!ejected.is_empty(), "nothing was held against them");
    });
}

/// What the program asks for is kept when it fits into the request's time; when it does not, its answer is
/// passed on as it is.
#[test]
fn retry_after() {
    let busy = |value: &str| {
        format!("HTTP/1.1 503 Busy\r\nRetry-After: {value}\r\nContent-Length: 0\r\n\r\n")
    };
    let table = [
        ("1", None, true),
        ("60", None, false),
        ("1", Some(500), false),
        ("1", Some(5000), true),
        ("Fri, 01 Jan 2100 00:00:00 GMT", Some(5000), false),
        ("Fri, 01 Jan 2010 00:00:00 GMT", Some(5000), true),
    ];
    for (value, bound, again) in table {
        run(async move {
            let stage = Stage::new(Path::Straight, AppProtocol::Http).await;
            let asked = once(&stage, &busy(value));
            let retry = Retry {
                codes: vec![503],
                ..only()
            };
            let timeouts = Timeouts {
                request: bound.map(Duration::from_millis),
                ..Timeouts::default()
            };
            with(&stage, AppProtocol::Http, retry, timeouts);
            let begun = Instant::now();
            let heard = soon(stage.dial().await.get("/", "")).await;
            let wanted = if again { 200 } else { 503 };
            assert_eq!(heard.status(), wanted, "{value} {bound:?}");
            assert_eq!(asked.get(), 1 + usize::from(again));
            if again && value == "1" {
                assert!(begun.elapsed() >= Duration::from_secs(1));
            } else {
                assert!(begun.elapsed() < Duration::from_secs(1));
            }
            if !again {
                assert_eq!(heard.field("retry-after"), Some(value));
            }
        });
    }
}

/// Each further try goes elsewhere while there is an elsewhere, and no try is made that is not asked for.
#[test]
fn elsewhere_first() {
    run(async {
        let stage = Stage::new(Path::Straight, AppProtocol::Http).await;
        let asked = Rc::new(RefCell::new(Vec::new()));
        let mut endpoints = Vec::new();
        for key in 1..=3 {
            let listener = Rc::new(listener().await);
            endpoints.push(stage.endpoint(key, listener.local_addr().unwrap()));
            let asked = Rc::clone(&asked);
            serve(listener, move |_| {
                asked.borrow_mut().push(key);
                "HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n".to_owned()
            });
        }
        let snapshot = stage.calling(AppProtocol::Http, endpoints);
        stage.a.publish(attach(snapshot, |backend| {
            vec![Rule {
                retry: Retry {
                    codes: vec![503],
                    ..only()
                },
                ..rule(Target::Backend(Arc::clone(backend)))
            }]
        }));
        let mut client = stage.dial().await;
        for _ in 0..5 {
            asked.borrow_mut().clear();
            assert_eq!(client.get("/", "").await.status(), 503);
            let mut seen = asked.borrow().clone();
            assert_eq!(seen.len(), 4);
            seen.truncate(3);
            seen.sort_unstable();
            assert_eq!(seen, [1, 2, 3]);
        }
    });
}

/// How a gRPC program answers its first call.
#[derive(Debug, Clone, Copy)]
enum Grpc {
    /// A head alone that says 14.
    HeadOnly,
    /// A head, and trailers right behind it that say 14.
    Trailers,
    /// As `HeadOnly`, with a pushback.
    Pushback(&'static str),
    /// A message, then trailers that say 14.
    Message,
}

/// Fails once, then answers well; what `grpc-previous-rpc-attempts` and `grpc-timeout` said.
fn words(stage: &Stage, first: Grpc) -> Rc<RefCell<Vec<[Option<String>; 2]>>> {
    let told = Rc::new(RefCell::new(Vec::new()));
    let (listener, kept) = (Rc::clone(&stage.listener), Rc::clone(&told));
    tokio::task::spawn_local(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let kept = Rc::clone(&kept);
            tokio::task::spawn_local(async move {
                let mut connection = server::handshake(stream).await.unwrap();
                while let Some(Ok((request, mut respond))) = connection.accept().await {
                    let field = |name| {
                        let value: Option<&HeaderValue> = request.headers().get(name);
                        value.map(|value| value.to_str().unwrap().to_owned())
                    };
                    let before = kept.borrow().len();
                    kept.borrow_mut()
                        .push([field("grpc-previous-rpc-attempts"), field("grpc-timeout")]);
                    let status = if before == 0 { "14" } else { "0" };
                    let head = Response::builder().header("content-type", "application/grpc");
                    let mut trailers = HeaderMap::new();
                    trailers.insert("grpc-status", HeaderValue::from_static(status));
                    match first {
                        Grpc::HeadOnly | Grpc::Pushback(_) if before == 0 => {
                            let mut head = head.header("grpc-status", status);
                            if let Grpc::Pushback(value) = first {
                                head = head.header("grpc-retry-pushback-ms", value);
                            }
                            respond.send_response(head.body(()).unwrap(), true).unwrap();
                        }
                        Grpc::Trailers if before == 0 => {
                            let head = head.body(()).unwrap();
                            let mut body = respond.send_response(head, false).unwrap();
                            body.send_trailers(trailers).unwrap();
                        }
                        _ => {
                            let head = head.body(()).unwrap();
                            let mut body = respond.send_response(head, false).unwrap();
                            body.send_data(Bytes::from_static(b"\0\0\0\0\0"), false)
                                .unwrap();
                            body.send_trailers(trailers).unwrap();
                        }
                    }
                }
            });
        }
    });
    told
}

#[test]
fn grpc_statuses() {
    for (first, again) in [
        (Grpc::HeadOnly, true),
        (Grpc::Trailers, true),
        (Grpc::Pushback("20"), true),
        (Grpc::Pushback("-1"), false),
        (Grpc::Pushback("3600000"), false),
        (Grpc::Message, false),
    ] {
        run(async move {
            let stage = Stage::new(Path::Straight, AppProtocol::Grpc).await;
            let told = words(&stage, first);
            let retry = Retry {
                grpc_codes: vec![14],
                ..only()
            };
            with(&stage, AppProtocol::Grpc, retry, Timeouts::default());
            let mut send = http2::client(&stage).await;
            let mut request = http2::grpc();
            let bound = HeaderValue::from_static("30S");
            request.headers_mut().insert("grpc-timeout", bound);
            let (answer, mut body) = send.send_request(request, false).unwrap();
            body.send_data(Bytes::from_static(b"\0\0\0\0\0"), true)
                .unwrap();
            let answer = soon(answer).await.unwrap();
            let in_head = answer.headers().get("grpc-status").cloned();
            let (_, trailers) = soon(http2::whole(answer.into_body())).await.unwrap();
            let status = in_head.or_else(|| trailers.unwrap().get("grpc-status").cloned());
            let wanted = if again { "0" } else { "14" };
            assert_eq!(status.unwrap(), wanted, "{first:?}");
            let told = told.borrow();
            assert_eq!(told.len(), 1 + usize::from(again), "{first:?}");
            assert_eq!(told[0][0], None);
            if again {
                assert_eq!(told[1][0].as_deref(), Some("1"));
            }
            // What is left of the caller's time goes on, less and less of it.
            let micros = |text: &Option<String>| -> u64 {
                let text = text.as_deref().unwrap();
                text.strip_suffix('u').unwrap().parse().unwrap()
            };
            let left: Vec<u64> = told.iter().map(|one| micros(&one[1])).collect();
            assert!(
                left.is_sorted_by(|a, b| a > b) && left[0] < 30_000_000,
                "{left:?}"
            );
        });
    }
}

/// Tries one after another take one place among the backend's retries, however many they are.
#[test]
fn one_request_takes_one_place_among_retries() {
    for answer in ["HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n", ""] {
        run(async move {
            let stage = Stage::new(Path::Straight, AppProtocol::Http).await;
            let asked = Rc::new(Cell::new(0));
            let count = Rc::clone(&asked);
            stage.program(move |_| {
                count.set(count.get() + 1);
                answer.to_owned()
            });
            let endpoint = stage.endpoint(1, stage.address);
            let snapshot = stage.calling(AppProtocol::Http, [endpoint]);
            stage.a.publish(attach(snapshot, |backend| {
                let limits = CircuitLimits {
                    max_retries: 1,
                    ..CircuitLimits::default()
                };
                let policy = TrafficPolicy {
                    limits,
                    ..TrafficPolicy::default()
                };
                let backend = Backend {
                    policy: Arc::new(policy),
                    ..(**backend).clone()
                };
                let retry = Retry {
                    codes: vec![503],
                    ..only()
                };
                vec![Rule {
                    retry,
                    ..rule(Target::Backend(Arc::new(backend)))
                }]
            }));
            let mut client = stage.dial().await;
            assert!(client.get("/", "").await.status() >= 500);
            assert_eq!(asked.get(), 4, "{answer:?}");
        });
    }
}
