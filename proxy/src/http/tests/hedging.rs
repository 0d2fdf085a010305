//! A second try beside a slow one.

use std::{
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

use mesh_model::{
    service::AppProtocol,
    snapshot::{
        BackendEndpoint, Retry, Rule, Target, Timeouts,
        limit::{Fault, Share},
    },
};

use bytes::{Bytes, BytesMut};
use http::Response;
use tokio::io::AsyncReadExt as _;

use super::{
    BOTH, Path, Stage, Talk, ok,
    routes::{attach, hedged, rule},
    soon,
};
use crate::trial::{listener, plain, run};

fn with(stage: &Stage, endpoints: impl IntoIterator<Item = BackendEndpoint>, after: u64) {
    speaking(AppProtocol::Http, stage, endpoints, after);
}

fn speaking(
    protocol: AppProtocol,
    stage: &Stage,
    endpoints: impl IntoIterator<Item = BackendEndpoint>,
    after: u64,
) {
    let snapshot = stage.calling(protocol, endpoints);
    stage.a.publish(attach(snapshot, |backend| {
        vec![Rule {
            retry: Retry {
                attempts: 1,
                ..Retry::default()
            },
            ..rule(Target::Backend(hedged(
                backend,
                Duration::from_millis(after),
            )))
        }]
    }));
}

/// The first that answers well wins, whichever it is, and the other is cancelled.
#[test]
fn the_first_good_answer_wins() {
    for (second_wins, body) in [(true, ""), (false, ""), (true, "hello")] {
        run(async move {
            let stage = Stage::new(Path::Straight, AppProtocol::Http).await;
            with(&stage, [stage.endpoint(1, stage.address)], 30);
            let mut client = stage.dial().await;
            let method = if body.is_empty() { "GET" } else { "PUT" };
            let length = body.len();
            let head = format!("{method} / HTTP/1.1\r\nHost: web\r\nContent-Length: {length}");
            client.say(&format!("{head}\r\n\r\n{body}")).await;
            let mut first = soon(stage.accept()).await;
            assert_eq!(soon(first.request()).await.unwrap().text(), body);
            let mut second = soon(stage.accept()).await;
            assert_eq!(soon(second.request()).await.unwrap().text(), body);
            let (winner, loser) = if second_wins {
                (&mut second, &mut first)
            } else {
                (&mut first, &mut second)
            };
            winner.say(&ok("won")).await;
            assert_eq!(soon(client.answer()).await.unwrap().text(), "won");
            assert!(soon(loser.ends()).await, "what nobody waits for is ended");
            let policies = &stage.a.cells.policies;
            assert_eq!(policies.hedged.get(), 1);
            assert_eq!(policies.hedges_won.get(), u64::from(second_wins));
            // The connection of the winner is kept, and the caller's too.
            client.say("GET /2 HTTP/1.1\r\nHost: web\r\n\r\n").await;
            let kept = if second_wins { &mut second } else { &mut first };
            soon(kept.request()).await.unwrap();
            kept.say(&ok("again")).await;
            assert_eq!(soon(client.answer()).await.unwrap().text(), "again");
        });
    }
}

#[test]
fn it_goes_to_another_endpoint_over_the_hop_too() {
    for path in BOTH {
        run(async move {
            let stage = Stage::new(path, AppProtocol::Http).await;
            let other = Rc::new(listener().await);
            let address = other.local_addr().unwrap();
            with(
                &stage,
                [stage.endpoint(1, stage.address), plain(2, address)],
                30,
            );
            let mut client = stage.dial().await;
            client.say("GET / HTTP/1.1\r\nHost: web\r\n\r\n").await;
            // Whichever is asked first, the other is asked second.
            let (one, two) = tokio::join!(soon(stage.accept()), soon(other.accept()));
            let (mut one, mut two) = (one, Talk::new(two.unwrap().0));
            soon(one.request()).await.unwrap();
            soon(two.request()).await.unwrap();
            two.say(&ok("two")).await;
            assert_eq!(
                soon(client.answer()).await.unwrap().text(),
                "two",
                "{path:?}"
            );
            assert!(soon(one.ends()).await, "{path:?}");
        });
    }
}

#[test]
fn bad_answers_wait_for_the_better_one() {
    run(async {
        let stage = Stage::new(Path::Straight, AppProtocol::Http).await;
        with(&stage, [stage.endpoint(1, stage.address)], 30);
        let mut client = stage.dial().await;
        client.say("GET / HTTP/1.1\r\nHost: web\r\n\r\n").await;
        let mut first = soon(stage.accept()).await;
        soon(first.request()).await.unwrap();
        let mut second = soon(stage.accept()).await;
        soon(second.request()).await.unwrap();
        second
            .say("HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n")
            .await;
        // Once a later request has come and gone, the worker has seen what came before it.
        let mut other = stage.dial().await;
        other.say("GET /other HTTP/1.1\r\nHost: web\r\n\r\n").await;
        let mut third = soon(stage.accept()).await;
        soon(third.request()).await.unwrap();
        third.say(&ok("meanwhile")).await;
        assert_eq!(soon(other.answer()).await.unwrap().text(), "meanwhile");
        first.say(&ok("slow and good")).await;
        let heard = soon(client.answer()).await.unwrap();
        assert_eq!((heard.status(), heard.text()), (200, "slow and good"));
    });
}

/// What is quick, or cannot be sent twice, goes once.
#[test]
fn nothing_is_sent_twice_without_need() {
    run(async {
        let stage = Stage::new(Path::Straight, AppProtocol::Http).await;
        let opened = stage.program(|heard| ok(&heard.body.len().to_string()));
        with(&stage, [stage.endpoint(1, stage.address)], 2_000);
        let mut client = stage.dial().await;
        for _ in 0..5 {
            assert_eq!(client.get("/", "").await.text(), "0");
        }
        let body = "x".repeat(100_000);
        let ask = format!("PUT / HTTP/1.1\r\nHost: web\r\nContent-Length: 100000\r\n\r\n{body}");
        assert_eq!(soon(client.ask(&ask)).await.text(), "100000");
        let ask =
            "PUT / HTTP/1.1\r\nHost: web\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\n";
        client.say(ask).await;
        assert_eq!(soon(client.head()).await.unwrap().status(), 100);
        client.say("x").await;
        assert_eq!(soon(client.answer()).await.unwrap().text(), "1");
        assert_eq!(opened.get(), 1);
        assert_eq!(stage.a.cells.policies.hedged.get(), 0);
    });
}

/// A caller that sends its body only after it has heard something is not held up.
#[test]
fn bodies_that_wait_for_an_answer_are_sent_as_they_come() {
    run(async {
        let stage = Stage::new(Path::Straight, AppProtocol::Http).await;
        with(&stage, [stage.endpoint(1, stage.address)], 30);
        let mut client = stage.dial().await;
        let head = "POST / HTTP/1.1\r\nHost: web\r\nTransfer-Encoding: chunked\r\n\r\n";
        client.say(&format!("{head}2\r\nab\r\n")).await;
        let mut program = soon(stage.accept()).await;
        soon(program.head()).await.unwrap();
        let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
        program.say(&format!("{chunked}2\r\nhi\r\n")).await;
        assert_eq!(soon(client.head()).await.unwrap().status(), 200);
        client.say("0\r\n\r\n").await;
        program.say("0\r\n\r\n").await;
        assert_eq!(stage.a.cells.policies.hedged.get(), 0);
    });
}

/// A program that answers before it has read the body gets the rest of it, not its beginning again.
#[test]
fn answers_before_the_end_of_the_body() {
    run(async {
        let stage = Stage::new(Path::Straight, AppProtocol::Http2).await;
        let endpoint = stage.endpoint(1, stage.address);
        speaking(AppProtocol::Http2, &stage, [endpoint], 10_000);
        let body: String = ('a'..='z').cycle().take(20_000).collect();
        let listener = Rc::clone(&stage.listener);
        let program = tokio::task::spawn_local(async move {
            let (stream, _) = listener.accept().await.unwrap();
            let mut builder = h2::server::Builder::new();
            builder.initial_window_size(1_000);
            let mut connection = builder.handshake::<_, Bytes>(stream).await.unwrap();
            // From its answer on the window is known.
            let (_first, mut respond) = connection.accept().await.unwrap().unwrap();
            respond.send_response(Response::new(()), true).unwrap();
            let (request, mut respond) = connection.accept().await.unwrap().unwrap();
            tokio::task::spawn_local(async move { while connection.accept().await.is_some() {} });
            let mut body = request.into_body();
            let mut heard = BytesMut::from(&body.data().await.unwrap().unwrap()[..]);
            let mut answer = respond.send_response(Response::new(()), false).unwrap();
            answer
                .send_data(Bytes::from_static(b"early"), false)
                .unwrap();
            let mut due = heard.len();
            loop {
                body.flow_control().release_capacity(due).unwrap();
                let Some(data) = body.data().await else { break };
                let data = data.unwrap();
                due = data.len();
                heard.extend_from_slice(&data);
            }
            answer.send_data(Bytes::new(), true).unwrap();
            heard
        });
        let mut client = stage.dial().await;
        assert_eq!(client.get("/", "").await.status(), 200);
        let head = "PUT / HTTP/1.1\r\nHost: web\r\nConnection: close";
        client
            .say(&format!(
                "{head}\r\nContent-Length: {}\r\n\r\n{body}",
                body.len()
            ))
            .await;
        let got = soon(program).await.unwrap();
        assert_eq!(got.len(), body.len());
        assert_eq!(std::str::from_utf8(&got).unwrap(), body);
        let mut answer = String::new();
        soon(client.stream.read_to_string(&mut answer))
            .await
            .unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    });
}

/// Both tries are bound by the route's time without a byte.
#[test]
fn silence_ends_both_tries() {
    run(async {
        let stage = Stage::new(Path::Straight, AppProtocol::Http).await;
        let endpoint = stage.endpoint(1, stage.address);
        let snapshot = stage.calling(AppProtocol::Http, [endpoint]);
        stage.a.publish(attach(snapshot, |backend| {
            vec![Rule {
                timeouts: Timeouts {
                    idle: Some(Duration::from_millis(100)),
                    ..Timeouts::default()
                },
                retry: Retry {
                    attempts: 1,
                    ..Retry::default()
                },
                ..rule(Target::Backend(hedged(backend, Duration::from_millis(30))))
            }]
        }));
        let mut client = stage.dial().await;
        client.say("GET / HTTP/1.1\r\nHost: web\r\n\r\n").await;
        let mut first = soon(stage.accept()).await;
        soon(first.request()).await.unwrap();
        let mut second = soon(stage.accept()).await;
        soon(second.request()).await.unwrap();
        let heard = soon(client.answer()).await.unwrap();
        assert_eq!(
            (heard.status(), heard.error().unwrap().0),
            (504, "upstream-timeout")
        );
        assert!(soon(first.ends()).await && soon(second.ends()).await);
    });
}

/// A fault that slows bodies slows those of hedged requests too.
#[test]
fn bodies_are_slowed_by_faults() {
    run(async {
        let stage = Stage::new(Path::Straight, AppProtocol::Http).await;
        stage.program(|heard| ok(&heard.body.len().to_string()));
        let endpoint = stage.endpoint(1, stage.address);
        let snapshot = stage.calling(AppProtocol::Http, [endpoint]);
        let slow = Fault {
            name: "shop/slow".into(),
            matches: Vec::new(),
            delay: None,
            abort: None,
            bandwidth: Some((Share::ALL, 100_000)),
        };
        stage.a.publish(attach(snapshot, |backend| {
            vec![Rule {
                faults: Arc::from([slow]),
                ..rule(Target::Backend(hedged(backend, Duration::from_secs(20))))
            }]
        }));
        let body = "x".repeat(20_000);
        let ask = format!("PUT / HTTP/1.1\r\nHost: web\r\nContent-Length: 20000\r\n\r\n{body}");
        let begun = Instant::now();
        let heard = soon(stage.dial().await.ask(&ask)).await;
        assert_eq!(heard.text(), "20000");
        // Four pieces of 50 ms, of which the first waits for nothing.
        let took = begun.elapsed();
        assert!(took >= Duration::from_millis(150), "{took:?}");
    });
}
