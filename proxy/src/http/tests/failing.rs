//! What callers see when something fails, what is tried again, and what is recorded.

use std::{cell::Cell, rc::Rc, time::Duration};

use mesh_model::{
    service::AppProtocol,
    snapshot::{AuthorizationRule, EndpointKey, Snapshot},
};

use super::{BOTH, Path, Stage, ok, serve, soon};
use crate::trial::{eventually, listener, nowhere, run};

#[test]
fn nobody_there() {
    run(async {
        let stage = Stage::new(Path::Straight, AppProtocol::Http).await;
        stage.a.publish(stage.calling(AppProtocol::Http, []));
        let mut client = stage.dial().await;
        let heard = client.get("/", "").await;
        assert_eq!(
            (heard.status(), heard.error().unwrap().0),
            (503, "no-endpoint")
        );
        assert!(heard.text().contains("no-endpoint"));
        let id = heard.error().unwrap().1.to_owned();
        assert_eq!(
            stage.a.failures().last().unwrap(),
            &("no-endpoint".to_owned(), id)
        );

        stage
            .a
            .publish(stage.calling(AppProtocol::Http, [stage.endpoint(1, nowhere().await)]));
        let heard = client
            .ask("POST / HTTP/1.1\r\nHost: web\r\nContent-Length: 2\r\n\r\nhi")
            .await;
        assert_eq!(
            (heard.status(), heard.error().unwrap().0),
            (503, "connect-failed")
        );

        // The address is not known any longer; then there is no mesh at all.
        let mut empty = stage.calling(AppProtocol::Http, []);
        empty.outbound.by_address.clear();
        stage.a.publish(empty);
        assert_eq!(client.get("/", "").await.error().unwrap().0, "no-route");
        stage.a.publish(Snapshot::default());
        assert_eq!(client.get("/", "").await.error().unwrap().0, "not-ready");
    });
}

/// Both hosts record a failure of the far one under the same id.
#[test]
fn the_far_host_names_itself() {
    run(async {
        let stage = Stage::with(Path::Tunnel, AppProtocol::Http, |port| {
            port.authorization.deny.push(AuthorizationRule {
                policy: "shop/no-admin".into(),
                paths: vec!["/admin".into()],
                ..AuthorizationRule::default()
            });
        })
        .await;
        stage.program(|_| ok("in"));
        let mut client = stage.dial().await;
        for path in [
            "/admin",
            "/%61dmin",
            "/x/../admin",
            "//admin",
            "/x/..%2fadmin",
            "/admin;a=b",
        ] {
            let heard = client.get(path, "").await;
            assert_eq!(
                (heard.status(), heard.error().unwrap().0),
                (403, "denied"),
                "{path}"
            );
            assert!(heard.field("mesh-error").unwrap().contains("host=b;"));
        }
        assert_eq!(client.get("/administrator", "").await.text(), "in");
        let heard = client.get("/admin", "").await;
        let id = heard.error().unwrap().1.to_owned();
        let wanted = ("denied".to_owned(), id);
        assert_eq!(stage.a.failures().last(), Some(&wanted));
        assert_eq!(stage.b.as_ref().unwrap().failures().last(), Some(&wanted));
    });
}

#[test]
fn a_dead_program_behind_a_tunnel() {
    run(async {
        let stage = Stage::new(Path::Tunnel, AppProtocol::Http).await;
        let gone = nowhere().await;
        stage.b.as_ref().unwrap().publish(
            stage
                .world
                .serving(stage.world.port(gone, AppProtocol::Http)),
        );
        stage
            .a
            .publish(stage.calling(AppProtocol::Http, [stage.endpoint(1, gone)]));
        let mut client = stage.dial().await;
        let heard = client.get("/", "").await;
        assert_eq!(
            (heard.status(), heard.error().unwrap().0),
            (503, "connect-failed")
        );
        // An endpoint of which the far host knows nothing.
        stage
            .a
            .publish(stage.calling(AppProtocol::Http, [stage.endpoint(2, nowhere().await)]));
        let heard = client.get("/", "").await;
        assert_eq!(
            (heard.status(), heard.error().unwrap().0),
            (503, "unknown-service")
        );
    });
}

/// v2 fails every other request: nobody notices.
#[test]
fn retries_hide_failures() {
    for path in BOTH {
        run(async move {
            let stage = Stage::new(path, AppProtocol::Http).await;
            let failed = Rc::new(Cell::new(0));
            let count = Rc::clone(&failed);
            let turn = Cell::new(0);
            stage.program(move |_| {
                turn.set(turn.get() + 1);
                if turn.get() % 2 == 0 {
                    return ok("fine");
                }
                count.set(count.get() + 1);
                "HTTP/1.1 503 No\r\nContent-Length: 3\r\n\r\nbad".to_owned()
            });
            let mut client = stage.dial().await;
            // The budget allows ten further tries a second beside a fifth of the requests.
            for _ in 0..8 {
                assert_eq!(client.get("/", "").await.text(), "fine", "{path:?}");
            }
            assert_eq!(failed.get(), 8);
            // What is not idempotent is not repeated.
            let heard = client
                .ask("POST / HTTP/1.1\r\nHost: web\r\nContent-Length: 2\r\n\r\nhi")
                .await;
            assert_eq!(
                (heard.status(), heard.text(), heard.error()),
                (503, "bad", None)
            );
        });
    }
}

#[test]
fn a_retry_goes_to_another_endpoint_with_the_whole_body() {
    run(async {
        let stage = Stage::new(Path::Straight, AppProtocol::Http).await;
        let good = Rc::new(listener().await);
        let good_address = good.local_addr().unwrap();
        serve(good, |heard| ok(heard.text()));
        stage.program(|_| "HTTP/1.1 502 No\r\nContent-Length: 0\r\n\r\n".to_owned());
        stage.a.publish(stage.calling(
            AppProtocol::Http,
            [
                stage.endpoint(1, stage.address),
                stage.endpoint(2, good_address),
            ],
        ));
        let mut client = stage.dial().await;
        for _ in 0..8 {
            let heard = client
                .ask("PUT / HTTP/1.1\r\nHost: web\r\nContent-Length: 5\r\n\r\nhello")
                .await;
            assert_eq!(heard.text(), "hello");
        }
        // A body that is too large to keep goes once.
        let body = "x".repeat(100_000);
        let mut seen = Vec::new();
        for _ in 0..12 {
            let heard = client
                .ask(&format!(
                    "PUT / HTTP/1.1\r\nHost: web\r\nContent-Length: 100000\r\n\r\n{body}"
                ))
                .await;
            seen.push(heard.status());
        }
        assert!(seen.contains(&502) && seen.contains(&200), "{seen:?}");
    });
}

/// Dials that fail are never seen while another endpoint is left, whatever the method.
#[test]
fn connect_failures_are_hidden() {
    for path in BOTH {
        run(async move {
            let stage = Stage::new(path, AppProtocol::Http).await;
            stage.program(|heard| ok(heard.text()));
            let mut dead = stage.endpoint(2, nowhere().await);
            dead.tunnel = None;
            stage.a.publish(
                stage.calling(AppProtocol::Http, [stage.endpoint(1, stage.address), dead]),
            );
            let mut client = stage.dial().await;
            for _ in 0..20 {
                let heard = client
                    .ask("POST / HTTP/1.1\r\nHost: web\r\nContent-Length: 5\r\n\r\nhello")
                    .await;
                assert_eq!((heard.status(), heard.text()), (200, "hello"), "{path:?}");
            }
            assert!(
                stage.a.shared.ejected().contains(&EndpointKey(2)),
                "{path:?}"
            );
        });
    }
}

/// A kept connection that the program closed is replaced in silence.
#[test]
fn dead_kept_connections_are_replaced() {
    for path in BOTH {
        run(async move {
            let stage = Stage::new(path, AppProtocol::Http).await;
            let mut client = stage.dial().await;
            client.say("GET /1 HTTP/1.1\r\nHost: web\r\n\r\n").await;
            let mut first = soon(stage.accept()).await;
            soon(first.head()).await.unwrap();
            first.say(&ok("one")).await;
            assert_eq!(soon(client.answer()).await.unwrap().text(), "one");
            // Closed exactly when the next request arrives.
            client.say("GET /2 HTTP/1.1\r\nHost: web\r\n\r\n").await;
            soon(first.head()).await.unwrap();
            drop(first);
            let mut second = soon(stage.accept()).await;
            soon(second.head()).await.unwrap();
            second.say(&ok("two")).await;
            let heard = soon(client.answer()).await.unwrap();
            assert_eq!((heard.status(), heard.text()), (200, "two"), "{path:?}");
        });
    }
}

#[test]
fn garbage_is_a_bad_answer() {
    for path in BOTH {
        for answer in [
            "garbage\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
            "HTTP/1.1 700 What\r\n\r\n",
            "HTTP/1.1 200 OK\nContent-Length: 0\n\n",
        ] {
            run(async move {
                let stage = Stage::new(path, AppProtocol::Http).await;
                stage.program(|_| answer.to_owned());
                let mut client = stage.dial().await;
                let heard = client.ask("POST / HTTP/1.1\r\nHost: web\r\n\r\n").await;
                assert_eq!(
                    (heard.status(), heard.error().unwrap().0),
                    (502, "bad-response"),
                    "{answer:?}"
                );
                // The connection to the caller is none the worse.
                assert_eq!(
                    client
                        .ask("POST / HTTP/1.1\r\nHost: web\r\n\r\n")
                        .await
                        .status(),
                    502
                );
            });
        }
    }
}

/// The caller goes away: what was begun for it is ended, and recorded.
#[test]
fn callers_that_leave() {
    for path in BOTH {
        run(async move {
            let stage = Stage::new(path, AppProtocol::Http).await;
            let mut client = stage.dial().await;
            client.say("GET / HTTP/1.1\r\nHost: web\r\n\r\n").await;
            let mut program = soon(stage.accept()).await;
            soon(program.head()).await.unwrap();
            // A reset, as of a killed program.
            socket2::SockRef::from(&client.stream)
                .set_linger(Some(Duration::ZERO))
                .unwrap();
            drop(client);
            assert!(soon(program.ends()).await, "{path:?}");
            let settled = || stage.a.cells.series.lock().unwrap().len() == 1;
            eventually("settled", settled).await;
        });
    }
}

/// A caller that has ended its direction still reads its answer.
#[test]
fn half_closed_callers_get_their_answer() {
    for path in BOTH {
        run(async move {
            use tokio::io::AsyncWriteExt as _;
            let stage = Stage::new(path, AppProtocol::Http).await;
            let mut client = stage.dial().await;
            client.say("GET / HTTP/1.1\r\nHost: web\r\n\r\n").await;
            client.stream.shutdown().await.unwrap();
            let mut program = soon(stage.accept()).await;
            soon(program.head()).await.unwrap();
            // Once this has arrived, the daemon has seen the end of the other direction.
            program.say("HTTP/1.1 103 Early Hints\r\n\r\n").await;
            assert_eq!(soon(client.head()).await.unwrap().status(), 103);
            program.say(&ok("late")).await;
            assert_eq!(
                soon(client.answer()).await.unwrap().text(),
                "late",
                "{path:?}"
            );
            assert!(soon(client.ends()).await);
        });
    }
}

#[test]
fn draining_closes_after_the_answer() {
    run(async {
        let stage = Stage::new(Path::Straight, AppProtocol::Http).await;
        stage.program(|_| ok("x"));
        let mut idle = stage.dial().await;
        assert_eq!(idle.get("/", "").await.field("connection"), None);
        let mut busy = stage.dial().await;
        // What is read with a request that is answered has been read once the answer is here.
        let whole = "GET / HTTP/1.1\r\nHost: web\r\n\r\n";
        let first = busy.ask(&format!("{whole}GET / HTTP/1.1\r\n")).await;
        assert_eq!(first.field("connection"), None);
        stage.a.drain.begin();
        assert!(
            soon(idle.ends()).await,
            "idle connections are closed at once"
        );
        busy.say("Host: web\r\n\r\n").await;
        let heard = soon(busy.answer()).await.unwrap();
        assert_eq!(
            (heard.status(), heard.field("connection")),
            (200, Some("close"))
        );
        assert!(soon(busy.ends()).await);
    });
}
