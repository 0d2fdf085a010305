//! Too much at once: refused in clear words, at once, and only what is too much.

use std::sync::Arc;

use mesh_model::{
    service::AppProtocol,
    snapshot::{Backend, Target, TrafficPolicy, traffic::CircuitLimits},
};

use super::{
    BOTH, Path, Stage, http2, ok,
    routes::{attach, rule},
    soon,
};
use crate::trial::run;

#[test]
fn no_more_requests_than_the_backend_bears() {
    run(async {
        let stage = Stage::new(Path::Straight, AppProtocol::Http).await;
        let snapshot = stage.calling(AppProtocol::Http, [stage.endpoint(1, stage.address)]);
        stage.a.publish(attach(snapshot, |backend| {
            let policy = TrafficPolicy {
                limits: CircuitLimits {
                    max_requests: 2,
                    ..CircuitLimits::default()
                },
                ..TrafficPolicy::default()
            };
            let backend = Backend {
                policy: Arc::new(policy),
                ..(**backend).clone()
            };
            vec![rule(Target::Backend(Arc::new(backend)))]
        }));
        let mut busy = Vec::new();
        for _ in 0..2 {
            let mut client = stage.dial().await;
            client.say("GET / HTTP/1.1\r\nHost: web\r\n\r\n").await;
            let mut program = soon(stage.accept()).await;
            soon(program.head()).await.unwrap();
            busy.push((client, program));
        }
        let mut third = stage.dial().await;
        let heard = soon(third.get("/", "")).await;
        assert_eq!(
            (heard.status(), heard.error().unwrap().0),
            (503, "overloaded")
        );
        assert_eq!(heard.field("retry-after"), Some("1"));
        assert_eq!(stage.a.cells.policies.shed.get(), 1);
        // A place that is given back is taken again.
        for (client, program) in &mut busy {
            program.say(&ok("done")).await;
            assert_eq!(soon(client.answer()).await.unwrap().text(), "done");
        }
        third.say("GET / HTTP/1.1\r\nHost: web\r\n\r\n").await;
        let (_, program) = &mut busy[1];
        soon(program.head()).await.unwrap();
        program.say(&ok("room")).await;
        assert_eq!(soon(third.answer()).await.unwrap().text(), "room");
    });
}

#[test]
fn no_more_requests_than_the_daemon_bears() {
    run(async {
        let stage = Stage::bounded(3).await;
        let mut busy = Vec::new();
        for _ in 0..3 {
            let mut client = stage.dial().await;
            client.say("GET / HTTP/1.1\r\nHost: web\r\n\r\n").await;
            let mut program = soon(stage.accept()).await;
            soon(program.head()).await.unwrap();
            busy.push((client, program));
        }
        let mut fourth = stage.dial().await;
        let heard = soon(fourth.get("/", "")).await;
        assert_eq!(
            (heard.status(), heard.error().unwrap().0),
            (503, "overloaded")
        );
        assert_eq!(heard.field("retry-after"), Some("1"));
        let (mut client, mut program) = busy.pop().unwrap();
        program.say(&ok("done")).await;
        assert_eq!(soon(client.answer()).await.unwrap().text(), "done");
        fourth.say("GET / HTTP/1.1\r\nHost: web\r\n\r\n").await;
        soon(program.head()).await.unwrap();
        program.say(&ok("room")).await;
        assert_eq!(soon(fourth.answer()).await.unwrap().text(), "room");
    });
}

/// While the daemon drains, what has begun is finished and nothing is begun: GOAWAY on HTTP/2,
/// `connection: close` on HTTP/1.
#[test]
fn draining_finishes_what_has_begun() {
    for path in BOTH {
        run(async move {
            let stage = Stage::new(path, AppProtocol::Http).await;
            let stream = stage.world.dial(&stage.a).await;
            let (mut send, connection) = h2::client::handshake::<_>(stream).await.unwrap();
            let ended = tokio::task::spawn_local(connection);
            let request = http::Request::get("http://web/h2").body(()).unwrap();
            let answer = send.send_request(request, true).unwrap().0;
            let mut first = soon(stage.accept()).await;
            soon(first.head()).await.unwrap();
            let mut talk = stage.dial().await;
            talk.say("GET /h1 HTTP/1.1\r\nHost: web\r\n\r\n").await;
            let mut second = soon(stage.accept()).await;
            soon(second.head()).await.unwrap();
            stage.a.drain.begin();
            first.say(&ok("one")).await;
            second.say(&ok("two")).await;
            let answer = soon(answer).await.unwrap();
            let (body, _) = soon(http2::whole(answer.into_body())).await.unwrap();
            assert_eq!(body, b"one", "{path:?}");
            let heard = soon(talk.answer()).await.unwrap();
            assert_eq!(
                (heard.text(), heard.field("connection")),
                ("two", Some("close")),
                "{path:?}"
            );
            assert!(soon(talk.ends()).await, "{path:?}");
            let again = http::Request::get("http://web/").body(()).unwrap();
            let refused = match send.send_request(again, true) {
                Ok((answer, _)) => soon(answer).await.is_err(),
                Err(_) => true,
            };
            assert!(refused, "{path:?}: nothing is begun any longer");
            drop(send);
            soon(ended).await.unwrap().unwrap();
        });
    }
}
