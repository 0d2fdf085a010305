//! Copies of requests: whole, beside the original, and never in its way.

use std::{
    cell::RefCell,
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

use mesh_model::{
    service::AppProtocol,
    snapshot::{
        Backend, Filter, Rule, Target,
        limit::Share,
        rule::{HeaderEdits, Mirror},
    },
};

use super::{
    BOTH, Heard, Path, Stage, Talk, ok,
    routes::{attach, hedged, rule, version},
    serve, soon,
};
use crate::trial::{eventually, listener, nowhere, run};

fn mirror(backend: &Arc<Backend>, share: u32) -> Filter {
    Filter::Mirror(Mirror {
        backend: Arc::clone(backend),
        share: Share(share),
    })
}

/// A stage whose rule has these filters.
fn with(stage: &Stage, filters: impl IntoIterator<Item = Filter>) {
    let filters: Arc<[Filter]> = filters.into_iter().collect();
    let endpoint = stage.endpoint(1, stage.address);
    let snapshot = stage.calling(AppProtocol::Http, [endpoint]);
    stage.a.publish(attach(snapshot, |backend| {
        vec![Rule {
            filters,
            ..rule(Target::Backend(Arc::clone(backend)))
        }]
    }));
}

/// A program that keeps what it hears.
async fn shadow(stage: &Stage, key: u64) -> (Arc<Backend>, Rc<RefCell<Vec<Heard>>>) {
    let heard = Rc::new(RefCell::new(Vec::new()));
    let listener = Rc::new(listener().await);
    let mut backend = (*version(stage, key, listener.local_addr().unwrap())).clone();
    // Straight there: the serving host offers one program only.
    let mut endpoint = (*backend.endpoints[0]).clone();
    endpoint.tunnel = None;
    backend.endpoints = vec![Arc::new(endpoint)];
    let kept = Rc::clone(&heard);
    serve(listener, move |request| {
        kept.borrow_mut().push(request.clone());
        "HTTP/1.1 500 Nobody cares\r\nContent-Length: 3\r\n\r\nbad".to_owned()
    });
    (Arc::new(backend), heard)
}

#[test]
fn copies_are_whole() {
    for path in BOTH {
        run(async move {
            let stage = Stage::new(path, AppProtocol::Http).await;
            stage.program(|heard| ok(heard.text()));
            let (backend, heard) = shadow(&stage, 7).await;
            let edit = Filter::RequestHeaders(HeaderEdits {
                set: vec![("x-set".into(), "1".into())],
                ..HeaderEdits::default()
            });
            with(&stage, [edit, mirror(&backend, 1_000_000)]);
            let mut client = stage.dial().await;
            assert_eq!(client.get("/a?b", "").await.status(), 200);
            for body in [
                "Content-Length: 5\r\n\r\nhello",
                "Transfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n3\r\nllo\r\n0\r\nx-end: 1\r\n\r\n",
            ] {
                let ask = format!("POST /c HTTP/1.1\r\nHost: web\r\n{body}");
                assert_eq!(client.ask(&ask).await.text(), "hello", "{path:?}");
            }
            eventually("three copies", || heard.borrow().len() == 3).await;
            for copy in heard.borrow().iter() {
                assert_eq!(copy.field("x-set"), Some("1"));
                assert_eq!(copy.field("host"), Some("web"));
                let wanted: &[u8] = if copy.first.starts_with("GET /a?b ") {
                    b""
                } else {
                    b"hello"
                };
                assert_eq!(copy.body, wanted);
            }
            let counted = || stage.a.cells.policies.mirrored.get() == 3;
            eventually("three are counted", counted).await;
            // Requests are counted once, however many copies there are.
            let series = stage.a.cells.series.lock().unwrap();
            assert_eq!(series.iter().map(|one| one.requests()).sum::<u64>(), 3);
        });
    }
}

/// A mirror that is dead, silent or full is nobody's trouble.
#[test]
fn copies_disturb_nobody() {
    run(async {
        let stage = Stage::new(Path::Straight, AppProtocol::Http).await;
        stage.program(|_| ok("x"));
        let silent = Rc::new(listener().await);
        let dead = version(&stage, 8, nowhere().await);
        let quiet = version(&stage, 9, silent.local_addr().unwrap());
        with(
            &stage,
            [mirror(&dead, 1_000_000), mirror(&quiet, 1_000_000)],
        );
        let mut client = stage.dial().await;
        let begun = Instant::now();
        for _ in 0..50 {
            assert_eq!(soon(client.get("/", "")).await.text(), "x");
        }
        assert!(begun.elapsed() < Duration::from_secs(5));
        // Those of the dead one are given up; those of the silent one wait.
        eventually("given up", || stage.a.cells.policies.unmirrored.get() == 50).await;
        assert_eq!(stage.a.cells.policies.mirrored.get(), 0);
        assert!(stage.a.failures().is_empty());
    });
}

#[test]
fn shares_and_bodies_that_are_too_long() {
    run(async {
        let stage = Stage::new(Path::Straight, AppProtocol::Http).await;
        stage.program(|_| ok("x"));
        let (backend, heard) = shadow(&stage, 7).await;
        with(&stage, [mirror(&backend, 250_000)]);
        let mut client = stage.dial().await;
        for _ in 0..400 {
            client.get("/", "").await;
        }
        let sent = || stage.a.cells.policies.mirrored.get();
        eventually("all have arrived", || {
            sent() > 0 && sent() == heard.borrow().len() as u64
        })
        .await;
        // Five standard deviations of 400 draws at a quarter: 44.
        assert!((56..=144).contains(&sent()), "{} of 400", sent());

        with(&stage, [mirror(&backend, 1_000_000)]);
        let before = heard.borrow().len();
        let body = "x".repeat(70_000);
        let ask = format!("POST / HTTP/1.1\r\nHost: web\r\nContent-Length: 70000\r\n\r\n{body}");
        assert_eq!(client.ask(&ask).await.text(), "x");
        let counted = || stage.a.cells.policies.unmirrored.get() == 1;
        eventually("told that it was too long", counted).await;
        assert_eq!(heard.borrow().len(), before);
    });
}

/// A body that is gathered before it is sent is copied like any other.
#[test]
fn hedged_requests_are_copied_too() {
    run(async {
        let stage = Stage::new(Path::Straight, AppProtocol::Http).await;
        stage.program(|heard| ok(heard.text()));
        let (backend, heard) = shadow(&stage, 7).await;
        let endpoint = stage.endpoint(1, stage.address);
        let snapshot = stage.calling(AppProtocol::Http, [endpoint]);
        stage.a.publish(attach(snapshot, |main| {
            vec![Rule {
                filters: Arc::from([mirror(&backend, 1_000_000)]),
                ..rule(Target::Backend(hedged(main, Duration::from_secs(5))))
            }]
        }));
        let ask = "PUT / HTTP/1.1\r\nHost: web\r\nContent-Length: 5\r\n\r\nhello";
        assert_eq!(stage.dial().await.ask(ask).await.text(), "hello");
        eventually("a copy", || heard.borrow().len() == 1).await;
        assert_eq!(heard.borrow()[0].body, b"hello");
    });
}

/// A request that breaks off has no copies, and one that breaks off itself counts as none.
#[test]
fn copies_that_are_cut_short_are_counted() {
    run(async {
        let stage = Stage::new(Path::Straight, AppProtocol::Http).await;
        let (backend, heard) = shadow(&stage, 7).await;
        with(&stage, [mirror(&backend, 1_000_000)]);
        let mut client = stage.dial().await;
        client
            .say("POST / HTTP/1.1\r\nHost: web\r\nContent-Length: 9\r\n\r\nhalf")
            .await;
        let mut program = soon(stage.accept()).await;
        soon(program.head()).await.unwrap();
        drop(client);
        let policies = &stage.a.cells.policies;
        eventually("never sent", || policies.unmirrored.get() == 1).await;

        stage.program(|_| ok("x"));
        let cut = Rc::new(listener().await);
        let backend = version(&stage, 8, cut.local_addr().unwrap());
        let mut backend = (*backend).clone();
        let mut endpoint = (*backend.endpoints[0]).clone();
        endpoint.tunnel = None;
        backend.endpoints = vec![Arc::new(endpoint)];
        with(&stage, [mirror(&Arc::new(backend), 1_000_000)]);
        assert_eq!(stage.dial().await.get("/", "").await.text(), "x");
        let mut copy = Talk::new(soon(cut.accept()).await.unwrap().0);
        soon(copy.request()).await.unwrap();
        copy.say("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf")
            .await;
        drop(copy);
        eventually("cut", || policies.unmirrored.get() == 2).await;
        assert_eq!((policies.mirrored.get(), heard.borrow().len()), (0, 0));
    });
}
