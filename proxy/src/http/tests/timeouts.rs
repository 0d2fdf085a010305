//! Silence in either direction, and deadlines that are told on.

use std::{sync::Arc, time::Duration};

use mesh_model::{
    service::AppProtocol,
    snapshot::{Retry, Rule, Target, Timeouts},
};

use tokio::io::AsyncReadExt as _;

use super::{
    BOTH, Path, Stage, Talk, ok,
    routes::{attach, rule},
    soon,
};
use crate::trial::run;

async fn idle(path: Path, ms: u64) -> (Stage, Talk, Talk) {
    let stage = Stage::new(path, AppProtocol::Http).await;
    let snapshot = stage.calling(AppProtocol::Http, [stage.endpoint(1, stage.address)]);
    stage.a.publish(attach(snapshot, |backend| {
        vec![Rule {
            timeouts: Timeouts {
                idle: Some(Duration::from_millis(ms)),
                ..Timeouts::default()
            },
            retry: Retry {
                attempts: 0,
                ..Retry::default()
            },
            ..rule(Target::Backend(Arc::clone(backend)))
        }]
    }));
    let mut client = stage.dial().await;
    client.say("GET / HTTP/1.1\r\nHost: web\r\n\r\n").await;
    let mut program = soon(stage.accept()).await;
    soon(program.head()).await.unwrap();
    (stage, client, program)
}

#[test]
fn silence_before_an_answer() {
    for path in BOTH {
        run(async move {
            let (_stage, mut client, mut program) = idle(path, 60).await;
            let heard = soon(client.answer()).await.unwrap();
            assert_eq!(
                (heard.status(), heard.error().unwrap().0),
                (504, "upstream-timeout"),
                "{path:?}"
            );
            assert!(soon(program.ends()).await, "{path:?}");
        });
    }
}

#[test]
fn silence_within_an_answer() {
    for path in BOTH {
        run(async move {
            let (stage, mut client, mut program) = idle(path, 600).await;
            program
                .say("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n")
                .await;
            // Bytes that come keep it alive beyond the bound.
            for _ in 0..8 {
                program.say("x").await;
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            assert_eq!(soon(client.head()).await.unwrap().status(), 200);
            assert_eq!(client.raw(8).await, b"xxxxxxxx");
            assert!(soon(client.ends()).await, "{path:?}: cut");
            assert!(soon(program.ends()).await, "{path:?}");
            assert_eq!(stage.a.failures().last().unwrap().0, "upstream-timeout");
        });
    }
}

#[test]
fn without_a_bound_silence_is_fine() {
    run(async {
        let stage = Stage::new(Path::Straight, AppProtocol::Http).await;
        let mut client = stage.dial().await;
        client.say("GET / HTTP/1.1\r\nHost: web\r\n\r\n").await;
        let mut program = soon(stage.accept()).await;
        soon(program.head()).await.unwrap();
        tokio::time::sleep(Duration::from_millis(150)).await;
        program.say(&ok("late")).await;
        assert_eq!(soon(client.answer()).await.unwrap().text(), "late");
    });
}

/// A changed protocol is bound by the route's silence too.
#[test]
fn silence_after_a_change_of_protocol() {
    run(async {
        let stage = Stage::new(Path::Straight, AppProtocol::Http).await;
        let snapshot = stage.calling(AppProtocol::Http, [stage.endpoint(1, stage.address)]);
        stage.a.publish(attach(snapshot, |backend| {
            vec![Rule {
                timeouts: Timeouts {
                    idle: Some(Duration::from_millis(300)),
                    ..Timeouts::default()
                },
                ..rule(Target::Backend(Arc::clone(backend)))
            }]
        }));
        let mut client = stage.dial().await;
        let upgrade = "Connection: upgrade\r\nUpgrade: echo\r\n";
        let ask = format!("GET / HTTP/1.1\r\nHost: web\r\n{upgrade}\r\n");
        client.say(&ask).await;
        let mut program = soon(stage.accept()).await;
        soon(program.head()).await.unwrap();
        let agreed = format!("HTTP/1.1 101 Yes\r\n{upgrade}\r\n");
        program.say(&agreed).await;
        assert_eq!(soon(client.head()).await.unwrap().status(), 101);
        client.say("hi").await;
        assert_eq!(program.raw(2).await, b"hi");
        let ended = soon(async {
            let mut rest = [0u8; 1];
            matches!(client.stream.read(&mut rest).await, Ok(0) | Err(_))
        })
        .await;
        assert!(ended);
    });
}
