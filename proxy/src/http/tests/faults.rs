//! Injected faults: delays, failures, resets, slow bodies; by share and by request.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use mesh_model::{
    service::AppProtocol,
    snapshot::{
        Fault, Frontend, RequestMatch, Retry, Rule, Snapshot, Target, Timeouts,
        limit::{Abort, Share},
        rule::PathMatch,
    },
};

use super::{
    BOTH, Path, Stage, http2, ok,
    routes::{attach, rule},
    soon,
};
use crate::trial::{VIRTUAL, run};

fn fault() -> Fault {
    Fault {
        name: "shop/chaos".into(),
        matches: Vec::new(),
        delay: None,
        abort: None,
        bandwidth: None,
    }
}

fn abort(abort: Abort) -> Fault {
    Fault {
        abort: Some((Share::ALL, abort)),
        ..fault()
    }
}

/// Faults of the service as a whole.
fn of_service(stage: &Stage, faults: impl IntoIterator<Item = Fault>) -> Snapshot {
    let endpoint = stage.endpoint(1, stage.address);
    let mut snapshot = stage.calling(AppProtocol::Http, [endpoint]);
    let address = VIRTUAL.parse().unwrap();
    let frontend = snapshot.outbound.by_address.get_mut(&address).unwrap();
    *frontend = Arc::new(Frontend {
        faults: faults.into_iter().collect(),
        ..(**frontend).clone()
    });
    snapshot
}

#[test]
fn failures_that_were_asked_for() {
    for path in BOTH {
        run(async move {
            let stage = Stage::new(path, AppProtocol::Http).await;
            let asked = stage.program(|_| ok("x"));
            for (kind, status) in [
                (Abort::Http(503), 503),
                (Abort::Http(404), 404),
                (Abort::Grpc(8), 429),
            ] {
                stage.a.publish(of_service(&stage, [abort(kind)]));
                let mut client = stage.dial().await;
                let heard = client.get("/", "").await;
                assert_eq!(
                    (heard.status(), heard.error().unwrap().0),
                    (status, "fault-injected"),
                    "{path:?} {kind:?}"
                );
                let id = heard.error().unwrap().1.to_owned();
                let told = ("fault-injected".to_owned(), id);
                assert_eq!(stage.a.failures().last(), Some(&told));
            }
            assert_eq!(asked.get(), 0, "nothing was sent, and nothing tried again");
            assert_eq!(stage.a.cells.policies.aborted.get(), 3);
            assert_eq!(stage.a.cells.transport.retries.get(), 0);
        });
    }
}

#[test]
fn failures_in_the_words_of_grpc() {
    run(async {
        let stage = Stage::new(Path::Straight, AppProtocol::Http).await;
        for (kind, status) in [
            (Abort::Grpc(8), "8"),
            (Abort::Grpc(1), "1"),
            (Abort::Http(403), "7"),
            (Abort::Http(418), "2"),
        ] {
            stage.a.publish(of_service(&stage, [abort(kind)]));
            let mut send = http2::client(&stage).await;
            let answer = send.send_request(http2::grpc(), true).unwrap().0;
            let answer = soon(answer).await.unwrap();
            assert_eq!(answer.status(), 200);
            assert_eq!(answer.headers()["grpc-status"], status, "{kind:?}");
        }
        stage.a.publish(of_service(&stage, [abort(Abort::Reset)]));
        let mut send = http2::client(&stage).await;
        let answer = send.send_request(http2::grpc(), true).unwrap().0;
        let error = soon(answer).await.unwrap_err();
        assert_eq!(error.reason(), Some(h2::Reason::INTERNAL_ERROR));
    });
}

#[test]
fn resets() {
    run(async {
        let stage = Stage::new(Path::Straight, AppProtocol::Http).await;
        stage.program(|_| ok("x"));
        stage.a.publish(of_service(&stage, [abort(Abort::Reset)]));
        let mut client = stage.dial().await;
        client.say("GET / HTTP/1.1\r\nHost: web\r\n\r\n").await;
        assert!(soon(client.head()).await.is_none(), "no answer at all");
        assert_eq!(stage.a.failures().last().unwrap().0, "fault-injected");
    });
}

#[test]
fn only_what_fits_and_is_drawn() {
    run(async {
        let stage = Stage::new(Path::Straight, AppProtocol::Http).await;
        stage.program(|_| ok("x"));
        let on_path = Fault {
            matches: vec![RequestMatch {
                path: PathMatch::Exact("/hit".into()),
                ..RequestMatch::default()
            }],
            ..abort(Abort::Http(500))
        };
        let quarter = Fault {
            matches: vec![RequestMatch {
                path: PathMatch::Exact("/often".into()),
                ..RequestMatch::default()
            }],
            abort: Some((Share(250_000), Abort::Http(500))),
            ..fault()
        };
        stage.a.publish(of_service(&stage, [on_path, quarter]));
        let mut client = stage.dial().await;
        assert_eq!(client.get("/hit", "").await.status(), 500);
        assert_eq!(client.get("/miss", "").await.status(), 200);
        let mut hit = 0u32;
        for _ in 0..1000 {
            hit += u32::from(client.get("/often", "").await.status() == 500);
        }
        // Five standard deviations of 1,000 draws at a quarter: 69.
        assert!((181..=319).contains(&hit), "{hit} of 1000");
    });
}

#[test]
fn delays_count_against_the_deadline() {
    run(async {
        let stage = Stage::new(Path::Straight, AppProtocol::Http).await;
        stage.program(|_| ok("x"));
        let delay = |ms| Fault {
            delay: Some((Share::ALL, Duration::from_millis(ms))),
            ..fault()
        };
        let snapshot = stage.calling(AppProtocol::Http, [stage.endpoint(1, stage.address)]);
        stage.a.publish(attach(snapshot, |backend| {
            let slow = Rule {
                matches: RequestMatch {
                    path: PathMatch::Exact("/late".into()),
                    ..RequestMatch::default()
                },
                timeouts: Timeouts {
                    request: Some(Duration::from_millis(40)),
                    ..Timeouts::default()
                },
                faults: Arc::from([delay(60_000)]),
                ..rule(Target::Backend(Arc::clone(backend)))
            };
            let late = Rule {
                faults: Arc::from([delay(80)]),
                ..rule(Target::Backend(Arc::clone(backend)))
            };
            vec![slow, late]
        }));
        let mut client = stage.dial().await;
        let begun = Instant::now();
        assert_eq!(client.get("/", "").await.text(), "x");
        assert!(begun.elapsed() >= Duration::from_millis(80));
        let heard = soon(client.get("/late", "")).await;
        assert_eq!(
            (heard.status(), heard.error().unwrap().0),
            (504, "request-timeout")
        );
        assert_eq!(stage.a.cells.policies.delayed.get(), 2);
        let ring = stage.a.cells.failures.lock().unwrap();
        let told = ring.all().next_back().unwrap().attempts;
        assert!(told[0].contains("fault shop/chaos: held back"), "{told:?}");
    });
}

/// Both bodies take their time, and arrive whole.
#[test]
fn slow_bodies() {
    for path in BOTH {
        run(async move {
            let stage = Stage::new(path, AppProtocol::Http).await;
            stage.program(|heard| ok(heard.text()));
            let slow = Fault {
                bandwidth: Some((Share::ALL, 100_000)),
                ..fault()
            };
            stage.a.publish(of_service(&stage, [slow]));
            let mut client = stage.dial().await;
            let body = "x".repeat(15_000);
            let begun = Instant::now();
            let heard = client
                .ask(&format!(
                    "POST / HTTP/1.1\r\nHost: web\r\nContent-Length: 15000\r\n\r\n{body}"
                ))
                .await;
            assert_eq!(heard.text(), body, "{path:?}");
            // Three pieces of 50 ms each way, of which the first of each waits for nothing.
            let took = begun.elapsed();
            assert!(took >= Duration::from_millis(200), "{path:?}: {took:?}");
            assert_eq!(stage.a.cells.policies.slowed.get(), 1);
        });
    }
}

/// What the mesh was told to break it does not repair.
#[test]
fn faults_are_never_tried_again() {
    run(async {
        let stage = Stage::new(Path::Straight, AppProtocol::Http).await;
        let asked = stage.program(|_| ok("x"));
        let snapshot = stage.calling(AppProtocol::Http, [stage.endpoint(1, stage.address)]);
        stage.a.publish(attach(snapshot, |backend| {
            vec![Rule {
                retry: Retry {
                    attempts: 5,
                    codes: vec![503],
                    ..Retry::default()
                },
                faults: Arc::from([abort(Abort::Http(503))]),
                ..rule(Target::Backend(Arc::clone(backend)))
            }]
        }));
        let heard = stage.dial().await.get("/", "").await;
        assert_eq!(heard.error().unwrap().0, "fault-injected");
        assert_eq!((asked.get(), stage.a.cells.transport.retries.get()), (0, 0));
    });
}
