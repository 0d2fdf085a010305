//! HTTP/1 from end to end.

use std::{rc::Rc, time::Duration};

use mesh_model::service::AppProtocol;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::{BOTH, Path, Stage, Talk, ok, soon};
use crate::trial::{eventually, run};

#[test]
fn keep_alive() {
    for path in BOTH {
        run(async move {
            let stage = Stage::new(path, AppProtocol::Http).await;
            let opened = stage.program(|heard| {
                assert!(
                    heard.field("mesh-target").is_none()
                        && heard.field("mesh-request-id").is_none()
                );
                assert_eq!(
                    heard.field("x-forwarded-for"),
                    Some("127.0.0.1"),
                    "{heard:?}"
                );
                assert_eq!(heard.field("host"), Some("web"));
                assert_eq!(heard.field("l5d-x"), Some("kept"));
                assert_eq!(
                    heard.field("traceparent"),
                    Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
                );
                ok(&heard.first)
            });
            let mut client = stage.dial().await;
            for index in 0..5 {
                let lines = "mesh-error: spoofed\r\nl5d-x: kept\r\nConnection: x-hop\r\nX-Hop: 1\r\n\
                    traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\r\n";
                let heard = client.get(&format!("/{index}?q"), lines).await;
                assert_eq!(heard.text(), format!("GET /{index}?q HTTP/1.1"), "{path:?}");
                assert_eq!((heard.status(), heard.field("connection")), (200, None));
            }
            assert_eq!(opened.get(), 1, "{path:?}");
            let counted = || {
                stage
                    .a
                    .cells
                    .series
                    .lock()
                    .unwrap()
                    .iter()
                    .map(|one| one.successes())
                    .sum::<u64>()
            };
            eventually("settled", || counted() == 5).await;
        });
    }
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    run(async {
        let stage = Stage::new(Path::Straight, AppProtocol::Http).await;
        stage.program(|heard| ok(&heard.first));
        let mut client = stage.dial().await;
        let all = (0..20).fold(String::new(), |all, index| {
            all + &format!("GET /{index} HTTP/1.1\r\nHost: web\r\n\r\n")
        });
        client.say(&all).await;
        for index in 0..20 {
            let heard = soon(client.answer()).await.unwrap();
            assert_eq!(heard.text(), format!("GET /{index} HTTP/1.1"));
        }
    });
}

#[test]
fn chunked_bodies_and_trailers_go_both_ways() {
    for path in BOTH {
        run(async move {
            let stage = Stage::new(path, AppProtocol::Http).await;
            stage.program(|heard| {
                assert_eq!(heard.body, b"hello there");
                assert_eq!(heard.trailers, [("x-sum".to_owned(), "7".to_owned())]);
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: x-end\r\n\r\n\
                 3;ext=1\r\nabc\r\n2\r\nde\r\n0\r\nX-End: yes\r\nmesh-error: spoofed\r\n\r\n"
                    .to_owned()
            });
            let mut client = stage.dial().await;
            for _ in 0..3 {
                let heard = client
                    .ask(
                        "POST / HTTP/1.1\r\nHost: web\r\nTransfer-Encoding: chunked\r\n\r\n\
                        5;a=b\r\nhello\r\n6\r\n there\r\n0\r\nX-Sum: 7\r\n\r\n",
                    )
                    .await;
                assert_eq!(heard.text(), "abcde", "{path:?}");
                assert_eq!(
                    heard.trailers,
                    [("x-end".to_owned(), "yes".to_owned())],
                    "{path:?}"
                );
            }
        });
    }
}

#[test]
fn head_204_304_and_http10() {
    for path in BOTH {
        run(async move {
            let stage = Stage::new(path, AppProtocol::Http).await;
            stage.program(|heard| match heard.first.split(' ').nth(1).unwrap() {
                "/204" => "HTTP/1.1 204 No Content\r\n\r\n".to_owned(),
                "/304" => {
                    "HTTP/1.1 304 Not Modified\r\nETag: x\r\nContent-Length: 9\r\n\r\n".to_owned()
                }
                "/chunked" => {
                    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n"
                        .to_owned()
                }
                _ if heard.first.starts_with("HEAD") => {
                    "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n".to_owned()
                }
                _ => ok("hello"),
            });
            let mut client = stage.dial().await;
            client.say("HEAD / HTTP/1.1\r\nHost: web\r\n\r\n").await;
            let heard = soon(client.head()).await.unwrap();
            assert_eq!(
                (heard.status(), heard.field("content-length")),
                (200, Some("5")),
                "{path:?}"
            );
            assert_eq!(client.get("/204", "").await.field("content-length"), None);
            assert_eq!(
                client.get("/304", "").await.field("content-length"),
                Some("9"),
                "{path:?}"
            );
            assert_eq!(client.get("/", "").await.text(), "hello");

            let mut old = stage.dial().await;
            let heard = old.ask("GET /chunked HTTP/1.0\r\n\r\n").await;
            assert_eq!(
                (heard.text(), heard.field("transfer-encoding")),
                ("hi", None),
                "{path:?}"
            );
            assert_eq!(heard.field("connection"), Some("close"));
            let mut old = stage.dial().await;
            for _ in 0..2 {
                let heard = old
                    .ask("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
                    .await;
                assert_eq!(
                    (heard.text(), heard.field("connection")),
                    ("hello", Some("keep-alive"))
                );
            }
        });
    }
}

#[test]
fn interim_answers_are_passed_on() {
    for path in BOTH {
        run(async move {
            let stage = Stage::new(path, AppProtocol::Http).await;
            let mut client = stage.dial().await;
            client
                .say("POST / HTTP/1.1\r\nHost: web\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n")
                .await;
            let mut program = soon(stage.accept()).await;
            let heard = soon(program.head()).await.unwrap();
            assert_eq!(heard.field("expect"), Some("100-continue"), "{path:?}");
            program
                .say("HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n")
                .await;
            let hint = soon(client.head()).await.unwrap();
            assert_eq!(
                (hint.status(), hint.field("link")),
                (103, Some("x")),
                "{path:?}"
            );
            assert_eq!(soon(client.head()).await.unwrap().status(), 100);
            client.say("hello").await;
            assert_eq!(soon(program.raw(5)).await, b"hello");
            program.say(&ok("done")).await;
            assert_eq!(soon(client.answer()).await.unwrap().text(), "done");
            // The connection is good for another request.
            client.say("GET / HTTP/1.1\r\nHost: web\r\n\r\n").await;
            soon(program.head()).await.unwrap();
            program.say(&ok("again")).await;
            assert_eq!(soon(client.answer()).await.unwrap().text(), "again");
        });
    }
}

#[test]
fn refused_expectations_close_the_connection() {
    run(async {
        let stage = Stage::new(Path::Straight, AppProtocol::Http).await;
        let mut client = stage.dial().await;
        client
            .say("PUT / HTTP/1.1\r\nHost: web\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n")
            .await;
        let mut program = soon(stage.accept()).await;
        soon(program.head()).await.unwrap();
        program
            .say("HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n")
            .await;
        let heard = soon(client.answer()).await.unwrap();
        assert_eq!(
            (heard.status(), heard.field("connection")),
            (413, Some("close"))
        );
        assert!(soon(client.ends()).await);
        assert!(
            soon(program.ends()).await,
            "an unfinished exchange is not kept"
        );
    });
}

#[test]
fn upgrades_become_plain_bytes() {
    for path in BOTH {
        run(async move {
            let stage = Stage::new(path, AppProtocol::Http).await;
            let mut client = stage.dial().await;
            client
                .say("GET /chat HTTP/1.1\r\nHost: web\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                    Sec-WebSocket-Key: k\r\n\r\nearly")
                .await;
            let mut program = soon(stage.accept()).await;
            let heard = soon(program.head()).await.unwrap();
            assert_eq!(heard.field("upgrade"), Some("websocket"), "{path:?}");
            assert_eq!(heard.field("sec-websocket-key"), Some("k"));
            assert_eq!(heard.field("transfer-encoding"), None);
            program
                .say("HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: WebSocket\r\n\
                    Sec-WebSocket-Accept: a\r\n\r\nwelcome")
                .await;
            let heard = soon(client.head()).await.unwrap();
            assert_eq!(
                (heard.status(), heard.field("sec-websocket-accept")),
                (101, Some("a")),
                "{path:?}"
            );
            assert_eq!(heard.field("mesh-upgrade"), None);
            assert_eq!(soon(client.raw(7)).await, b"welcome");
            assert_eq!(soon(program.raw(5)).await, b"early");
            for _ in 0..100 {
                client.say("ping").await;
                assert_eq!(soon(program.raw(4)).await, b"ping");
                program.say("pong!").await;
                assert_eq!(soon(client.raw(5)).await, b"pong!");
            }
            client.stream.shutdown().await.unwrap();
            assert!(soon(program.ends()).await, "{path:?}");
            program.say("bye").await;
            assert_eq!(soon(client.raw(3)).await, b"bye");
            drop(program);
            assert!(soon(client.ends()).await);
        });
    }
}

#[test]
fn refused_upgrades_are_answers() {
    for path in BOTH {
        run(async move {
            let stage = Stage::new(path, AppProtocol::Http).await;
            stage.program(|_| "HTTP/1.1 403 No\r\nContent-Length: 2\r\n\r\nno".to_owned());
            let mut client = stage.dial().await;
            let heard = client
                .get("/", "Connection: upgrade\r\nUpgrade: websocket\r\n")
                .await;
            assert_eq!((heard.status(), heard.text()), (403, "no"), "{path:?}");
            assert_eq!(client.get("/", "").await.status(), 403);
        });
    }
}

#[test]
fn unasked_upgrades_are_errors() {
    run(async {
        let stage = Stage::new(Path::Straight, AppProtocol::Http).await;
        stage.program(|_| {
            "HTTP/1.1 101 x\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n".to_owned()
        });
        let mut client = stage.dial().await;
        let heard = client.ask("POST / HTTP/1.1\r\nHost: web\r\n\r\n").await;
        assert_eq!(
            (heard.status(), heard.error().unwrap().0),
            (502, "bad-response")
        );
    });
}

/// 64 MiB each way, echoed while they come.
#[test]
fn large_bodies_are_streamed() {
    const SIZE: usize = 64 << 20;
    for path in BOTH {
        run(async move {
            let stage = Stage::new(path, AppProtocol::Http).await;
            let listener = Rc::clone(&stage.listener);
            tokio::task::spawn_local(async move {
                let (stream, _) = listener.accept().await.unwrap();
                let mut talk = Talk::new(stream);
                let heard = talk.head().await.unwrap();
                assert_eq!(heard.field("content-length"), Some("67108864"));
                talk.say(&format!(
                    "HTTP/1.1 200 OK\r\nContent-Length: {SIZE}\r\n\r\n"
                ))
                .await;
                let first = std::mem::take(&mut talk.buffer);
                let (mut read, mut write) = talk.stream.into_split();
                write.write_all(&first).await.unwrap();
                tokio::io::copy(&mut read, &mut write).await.unwrap();
            });
            let mut client = stage.dial().await;
            client
                .say(&format!(
                    "POST / HTTP/1.1\r\nHost: web\r\nContent-Length: {SIZE}\r\n\r\n"
                ))
                .await;
            let (mut read, mut write) = client.stream.into_split();
            let send = async move {
                let mut random = fastrand::Rng::with_seed(7);
                let mut block = vec![0u8; 1 << 16];
                for _ in 0..SIZE / block.len() {
                    random.fill(&mut block);
                    write.write_all(&block).await.unwrap();
                }
                write
            };
            let check = async move {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    head.push(read.read_u8().await.unwrap());
                }
                assert!(head.starts_with(b"HTTP/1.1 200 OK\r\n"));
                let mut random = fastrand::Rng::with_seed(7);
                let (mut block, mut wanted) = (vec![0u8; 1 << 16], vec![0u8; 1 << 16]);
                for _ in 0..SIZE / block.len() {
                    random.fill(&mut wanted);
                    read.read_exact(&mut block).await.unwrap();
                    assert!(block == wanted, "{path:?}");
                }
            };
            tokio::join!(send, check);
        });
    }
}

/// A program that does not read holds its caller up, instead of filling the daemons.
#[test]
fn memory_is_bounded_by_backpressure() {
    for path in BOTH {
        run(async move {
            let stage = Stage::new(path, AppProtocol::Http).await;
            let mut client = stage.dial().await;
            client
                .say("POST / HTTP/1.1\r\nHost: web\r\nContent-Length: 1073741824\r\n\r\n")
                .await;
            let mut program = soon(stage.accept()).await;
            soon(program.head()).await.unwrap();
            let block = vec![0u8; 1 << 16];
            let mut sent = 0;
            while let Ok(written) =
                tokio::time::timeout(Duration::from_millis(300), client.stream.write(&block)).await
            {
                sent += written.unwrap();
                assert!(sent < 64 << 20, "{path:?}: nothing holds the caller up");
            }
            // What was taken in lies in sockets and windows; reading frees the way.
            let mut got = program.buffer.len();
            let mut buffer = vec![0u8; 1 << 16];
            while got < sent {
                got += soon(program.stream.read(&mut buffer)).await.unwrap();
            }
            soon(client.stream.write(&block)).await.unwrap();
        });
    }
}

#[test]
fn cut_answers_are_seen_as_cut() {
    for path in BOTH {
        for answer in [
            "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\nzz\r\n",
        ] {
            run(async move {
                let stage = Stage::new(path, AppProtocol::Http).await;
                let mut client = stage.dial().await;
                client
                    .say("POST / HTTP/1.1\r\nHost: web\r\nContent-Length: 0\r\n\r\n")
                    .await;
                let mut program = soon(stage.accept()).await;
                soon(program.head()).await.unwrap();
                program.say(answer).await;
                drop(program);
                let heard = soon(client.answer()).await;
                // A cut that comes with the head may overtake it on the hop.
                let named = heard.as_ref().is_none_or(|heard| heard.status() == 502);
                assert!(named, "{path:?} {answer:?} {heard:?}");
                eventually("the failure is recorded", || {
                    stage
                        .a
                        .failures()
                        .iter()
                        .any(|(code, _)| code == "upstream-reset")
                })
                .await;
            });
        }
    }
}

#[test]
fn close_delimited_answers_end_well() {
    for path in BOTH {
        run(async move {
            let stage = Stage::new(path, AppProtocol::Http).await;
            let mut client = stage.dial().await;
            for _ in 0..2 {
                client.say("GET / HTTP/1.1\r\nHost: web\r\n\r\n").await;
                let mut program = soon(stage.accept()).await;
                soon(program.head()).await.unwrap();
                program.say("HTTP/1.1 200 OK\r\n\r\nall of it").await;
                drop(program);
                let heard = soon(client.answer()).await.unwrap();
                assert_eq!(
                    (heard.text(), heard.field("transfer-encoding")),
                    ("all of it", Some("chunked"))
                );
            }
        });
    }
}

/// The next user of a connection gets its own answer and nothing else.
#[test]
fn stray_bytes_reach_nobody() {
    run(async {
        let stage = Stage::new(Path::Straight, AppProtocol::Http).await;
        let mut client = stage.dial().await;
        client.say("GET /1 HTTP/1.1\r\nHost: web\r\n\r\n").await;
        let mut program = soon(stage.accept()).await;
        soon(program.head()).await.unwrap();
        program.say(&(ok("one") + &ok("stray"))).await;
        assert_eq!(soon(client.answer()).await.unwrap().text(), "one");
        client.say("GET /2 HTTP/1.1\r\nHost: web\r\n\r\n").await;
        let mut second = soon(stage.accept()).await;
        assert_eq!(soon(second.head()).await.unwrap().first, "GET /2 HTTP/1.1");
        second.say(&ok("two")).await;
        assert_eq!(soon(client.answer()).await.unwrap().text(), "two");
        // A body on HEAD is stray too.
        client.say("HEAD /3 HTTP/1.1\r\nHost: web\r\n\r\n").await;
        soon(second.head()).await.unwrap();
        second.say(&ok("body")).await;
        assert_eq!(soon(client.head()).await.unwrap().status(), 200);
        client.say("GET /4 HTTP/1.1\r\nHost: web\r\n\r\n").await;
        let mut third = soon(stage.accept()).await;
        soon(third.head()).await.unwrap();
        third.say(&ok("four")).await;
        assert_eq!(soon(client.answer()).await.unwrap().text(), "four");
    });
}

#[test]
fn malformed_requests_are_refused_and_nothing_behind_them_is_read() {
    run(async {
        let stage = Stage::new(Path::Straight, AppProtocol::Http).await;
        let opened = stage.program(|_| ok("reached"));
        for (request, status) in [
            (
                "GET / HTTP/1.1\r\nHost: web\r\nX : y\r\n\r\nGET / HTTP/1.1\r\nHost: web\r\n\r\n",
                400,
            ),
            (
                "POST / HTTP/1.1\r\nHost: web\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
                400,
            ),
            ("GET / HTTP/1.1\r\nHost: web\r\nX: y\n\r\n", 400),
            ("GET / HTTP/3.0\r\nHost: web\r\n\r\n", 505),
            ("CONNECT web:80 HTTP/1.1\r\nHost: web:80\r\n\r\n", 405),
        ] {
            let mut client = stage.dial().await;
            client.say(request).await;
            let heard = soon(client.answer()).await.unwrap();
            assert_eq!(
                (heard.status(), heard.error().unwrap().0),
                (status, "bad-request"),
                "{request:?}"
            );
            assert_eq!(heard.field("connection"), Some("close"));
            assert!(soon(client.ends()).await, "{request:?}");
        }
        assert_eq!(opened.get(), 0);
    });
}

/// A fault in a body never becomes a whole request.
#[test]
fn malformed_bodies_abort() {
    run(async {
        let stage = Stage::new(Path::Straight, AppProtocol::Http).await;
        let mut client = stage.dial().await;
        client
            .say("POST / HTTP/1.1\r\nHost: web\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n")
            .await;
        let mut program = soon(stage.accept()).await;
        soon(program.head()).await.unwrap();
        client.say("3\nabc\r\n").await;
        assert_eq!(soon(client.answer()).await.unwrap().status(), 400);
        assert_eq!(soon(program.raw(8)).await, b"3\r\nabc\r\n");
        let mut rest = Vec::new();
        drop(soon(program.stream.read_to_end(&mut rest)).await);
        assert_eq!(rest, b"", "no end of the body is sent");
    });
}

/// Inside a CONNECT the calling program speaks: what only a daemon says there is taken out and means nothing.
#[test]
fn programs_inside_a_connect_do_not_speak_for_their_daemon() {
    run(async {
        let stage = Stage::new(Path::Straight, AppProtocol::Http).await;
        stage.program(|heard| {
            let upgraded = heard.field("upgrade").is_some() || heard.field("mesh-target").is_some();
            assert!(!upgraded, "{heard:?}");
            ok(&heard.body.len().to_string())
        });
        let port = stage.world.port(stage.address, AppProtocol::Http);
        let host = stage.world.serving_host(port);
        let (program, own) = crate::trial::pair().await;
        let origin = crate::connection::Origin::Inbound(crate::connection::InboundOrigin {
            peer: program.local_addr().unwrap(),
            principal: Some(stage.world.id("shop", "cart")),
            server_name: Some("web.shop.m.internal".into()),
            address: Some(stage.address),
        });
        let io = crate::io::Io::Tcp(own);
        let worker = Rc::clone(&host.worker);
        let served = crate::http::serve_http1(worker, io, bytes::BytesMut::new(), origin);
        host.worker.spawn(served);
        let mut client = Talk::new(program);
        let asked = "POST / HTTP/1.1\r\nHost: web\r\nMesh-Target: 1\r\nMesh-Upgrade: x\r\n\
                     Content-Length: 3\r\n\r\nabc";
        client.say(asked).await;
        let answer = soon(client.answer()).await.unwrap();
        assert_eq!((answer.status(), answer.text()), (200, "3"));
    });
}

/// An idle connection is small: what a request needs is in a box of its own.
#[test]
fn connections_are_small() {
    run(async {
        let stage = Stage::new(Path::Straight, AppProtocol::Http).await;
        let (_peer, own) = crate::trial::pair().await;
        let origin = crate::connection::Origin::Inbound(crate::connection::InboundOrigin {
            peer: stage.address,
            principal: None,
            server_name: None,
            address: None,
        });
        let io = crate::io::Io::Tcp(own);
        let worker = Rc::clone(&stage.a.worker);
        let served = crate::http::serve_http1(worker, io, bytes::BytesMut::new(), origin);
        let size = size_of_val(&served);
        assert!(size <= 2560, "{size} bytes");
    });
}
