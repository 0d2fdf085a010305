//! HTTP/2 and gRPC from end to end, and between the versions.

use std::{future::poll_fn, rc::Rc};

use bytes::Bytes;
use h2::{
    RecvStream,
    client::{self, SendRequest},
    server,
};
use http::{HeaderMap, HeaderValue, Request, Response};
use mesh_model::service::AppProtocol;
use tokio::io::AsyncWriteExt as _;

use super::{BOTH, Path, Stage, ok, soon};
use crate::trial::{eventually, nowhere, run};

pub(super) async fn client(stage: &Stage) -> SendRequest<Bytes> {
    let stream = stage.world.dial(&stage.a).await;
    let (send, connection) = client::handshake(stream).await.unwrap();
    tokio::task::spawn_local(async move {
        drop(connection.await);
    });
    send.ready().await.unwrap()
}

pub(super) fn get(path: &str) -> http::request::Builder {
    Request::get(format!("http://web{path}"))
}

pub(super) fn grpc() -> Request<()> {
    Request::post("http://web/words.Words/Say")
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(())
        .unwrap()
}

pub(super) async fn whole(mut body: RecvStream) -> Result<(Vec<u8>, Option<HeaderMap>), h2::Error> {
    let mut all = Vec::new();
    while let Some(piece) = body.data().await {
        let piece = piece?;
        drop(body.flow_control().release_capacity(piece.len()));
        all.extend_from_slice(&piece);
    }
    Ok((all, body.trailers().await?))
}

async fn send_all(stream: &mut h2::SendStream<Bytes>, mut body: Bytes, end: bool) {
    while !body.is_empty() {
        stream.reserve_capacity(body.len());
        let room = match stream.capacity() {
            0 => poll_fn(|cx| stream.poll_capacity(cx))
                .await
                .unwrap()
                .unwrap(),
            room => room,
        };
        let piece = body.split_to(room.min(body.len()));
        let last = end && body.is_empty();
        stream.send_data(piece, last).unwrap();
    }
}

/// A program that speaks HTTP/2 and echoes: body back, trailers back as trailers, its view of the head in headers.
fn echo(stage: &Stage) {
    let listener = Rc::clone(&stage.listener);
    tokio::task::spawn_local(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::task::spawn_local(async move {
                let mut connection = server::handshake(stream).await.unwrap();
                while let Some(Ok((request, respond))) = connection.accept().await {
                    tokio::task::spawn_local(answer(request, respond));
                }
            });
        }
    });
}

async fn answer(request: Request<RecvStream>, mut respond: server::SendResponse<Bytes>) {
    let (parts, mut body) = request.into_parts();
    for name in ["mesh-target", "mesh-http", "mesh-request-id"] {
        assert!(!parts.headers.contains_key(name));
    }
    let mut head = Response::builder().header("x-path", parts.uri.path());
    for value in parts.headers.get_all("cookie") {
        head = head.header("x-cookie", value);
    }
    if parts.uri.path() == "/refuse" {
        return respond.send_reset(h2::Reason::REFUSED_STREAM);
    }
    if let Some(kind) = parts.headers.get("content-type") {
        head = head.header("content-type", kind);
    }
    let mut stream = respond
        .send_response(head.body(()).unwrap(), false)
        .unwrap();
    while let Some(piece) = body.data().await {
        let Ok(piece) = piece else { return };
        let length = piece.len();
        send_all(&mut stream, piece, false).await;
        drop(body.flow_control().release_capacity(length));
    }
    let mut trailers = body.trailers().await.unwrap().unwrap_or_default();
    trailers.insert("grpc-status", HeaderValue::from_static("0"));
    stream.send_trailers(trailers).unwrap();
}

#[test]
fn both_ends_speak_http2() {
    for path in BOTH {
        for protocol in [AppProtocol::Http2, AppProtocol::Grpc, AppProtocol::Detect] {
            run(async move {
                let stage = Stage::new(path, protocol).await;
                echo(&stage);
                let mut send = client(&stage).await;
                let request = grpc();
                let (answer, mut body) = send.send_request(request, false).unwrap();
                body.send_data(Bytes::from_static(b"hello"), false).unwrap();
                let mut trailers = HeaderMap::new();
                trailers.insert("x-sum", HeaderValue::from_static("5"));
                body.send_trailers(trailers).unwrap();
                let answer = soon(answer).await.unwrap();
                assert_eq!(
                    answer.headers()["x-path"],
                    "/words.Words/Say",
                    "{path:?} {protocol}"
                );
                let (body, trailers) = soon(whole(answer.into_body())).await.unwrap();
                let trailers = trailers.unwrap();
                assert_eq!(body, b"hello");
                assert_eq!(trailers["grpc-status"], "0");
                assert_eq!(trailers["x-sum"], "5");
            });
        }
    }
}

/// A stream in both directions at once: each message is answered before the next is sent.
#[test]
fn streams_talk() {
    for path in BOTH {
        run(async move {
            let stage = Stage::new(path, AppProtocol::Grpc).await;
            echo(&stage);
            let mut send = client(&stage).await;
            let (answer, mut body) = send.send_request(grpc(), false).unwrap();
            body.send_data(Bytes::from_static(b"0"), false).unwrap();
            let answer = soon(answer).await.unwrap();
            let mut back = answer.into_body();
            for index in 1..50u8 {
                let piece = soon(back.data()).await.unwrap().unwrap();
                drop(back.flow_control().release_capacity(piece.len()));
                assert_eq!(piece.len(), 1, "{path:?}");
                body.send_data(Bytes::copy_from_slice(&[index]), index == 49)
                    .unwrap();
            }
            soon(whole(back)).await.unwrap();
        });
    }
}

#[test]
fn large_bodies() {
    const SIZE: usize = 16 << 20;
    for path in BOTH {
        run(async move {
            let stage = Stage::new(path, AppProtocol::Http2).await;
            echo(&stage);
            let mut send = client(&stage).await;
            let request = Request::post("http://web/").body(()).unwrap();
            let (answer, mut body) = send.send_request(request, false).unwrap();
            let data = Bytes::from(
                (0..SIZE)
                    .map(|at| u8::try_from(at % 251).unwrap())
                    .collect::<Vec<_>>(),
            );
            let copy = data.clone();
            let upload = async move { send_all(&mut body, copy, true).await };
            let download = async {
                let answer = answer.await.unwrap();
                whole(answer.into_body()).await.unwrap().0
            };
            let ((), got) = tokio::join!(upload, download);
            assert!(got == data, "{path:?}");
        });
    }
}

#[test]
fn http2_to_a_program_of_http1() {
    for path in BOTH {
        run(async move {
            let stage = Stage::new(path, AppProtocol::Http).await;
            stage.program(|heard| {
                assert_eq!(heard.field("cookie"), Some("a=1; b=2"));
                assert_eq!(heard.field("host"), Some("web"));
                if heard.first.starts_with("POST") {
                    assert_eq!(heard.body, b"hello");
                    return "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: x-hop\r\nX-Hop: 1\r\n\r\n\
                        2\r\nhi\r\n0\r\nx-end: 1\r\n\r\n".to_owned();
                }
                ok(&heard.first)
            });
            let mut send = client(&stage).await;
            let request = get("/a?b")
                .header("cookie", "a=1")
                .header("cookie", "b=2")
                .body(())
                .unwrap();
            let answer = soon(send.send_request(request, true).unwrap().0)
                .await
                .unwrap();
            assert_eq!(answer.headers()["content-length"], "17", "{path:?}");
            assert_eq!(
                soon(whole(answer.into_body())).await.unwrap().0,
                b"GET /a?b HTTP/1.1"
            );

            let request = Request::post("http://web/")
                .header("cookie", "a=1")
                .header("cookie", "b=2")
                .body(())
                .unwrap();
            let (answer, mut body) = send.send_request(request, false).unwrap();
            body.send_data(Bytes::from_static(b"hello"), true).unwrap();
            let answer = soon(answer).await.unwrap();
            assert!(
                !answer.headers().contains_key("x-hop")
                    && !answer.headers().contains_key("connection")
            );
            let (body, trailers) = soon(whole(answer.into_body())).await.unwrap();
            assert_eq!(body, b"hi");
            assert_eq!(trailers.unwrap()["x-end"], "1");
        });
    }
}

/// What began as HTTP/1 reaches a program of HTTP/2 as HTTP/2, when the service says so.
#[test]
fn http1_to_a_program_of_http2() {
    for path in BOTH {
        run(async move {
            let stage = Stage::new(path, AppProtocol::Http2).await;
            echo(&stage);
            let mut talk = stage.dial().await;
            let heard =
                soon(talk.ask("POST /x HTTP/1.1\r\nHost: web\r\nContent-Length: 5\r\n\r\nhello"))
                    .await;
            assert_eq!((heard.status(), heard.text()), (200, "hello"), "{path:?}");
            assert_eq!(heard.field("x-path"), Some("/x"));
            assert_eq!(heard.trailers, [("grpc-status".to_owned(), "0".to_owned())]);
        });
    }
}

/// With a detected protocol the program hears the version that its caller speaks, over the hop too.
#[test]
fn the_version_is_kept_when_it_is_not_configured() {
    for path in BOTH {
        run(async move {
            let stage = Stage::new(path, AppProtocol::Detect).await;
            stage.program(|heard| ok(&heard.first));
            let mut talk = stage.dial().await;
            assert_eq!(
                soon(talk.get("/old", "")).await.text(),
                "GET /old HTTP/1.1",
                "{path:?}"
            );
        });
    }
}

#[test]
fn errors_in_the_words_of_grpc() {
    run(async {
        let stage = Stage::new(Path::Straight, AppProtocol::Grpc).await;
        stage.a.publish(stage.calling(AppProtocol::Grpc, []));
        let mut send = client(&stage).await;
        let answer = soon(send.send_request(grpc(), true).unwrap().0)
            .await
            .unwrap();
        assert_eq!(answer.status(), 200);
        assert_eq!(answer.headers()["grpc-status"], "14");
        assert!(
            answer.headers()["mesh-error"]
                .to_str()
                .unwrap()
                .starts_with("no-endpoint; host=a; id=")
        );
        assert!(answer.body().is_end_stream());
        // A plain request gets a status.
        let answer = soon(
            send.send_request(get("/").body(()).unwrap(), true)
                .unwrap()
                .0,
        )
        .await
        .unwrap();
        assert_eq!(answer.status(), 503);

        stage
            .a
            .publish(stage.calling(AppProtocol::Grpc, [stage.endpoint(1, nowhere().await)]));
        let answer = soon(send.send_request(grpc(), true).unwrap().0)
            .await
            .unwrap();
        assert_eq!(answer.headers()["grpc-status"], "14");
        assert!(
            answer.headers()["mesh-error"]
                .to_str()
                .unwrap()
                .starts_with("connect-failed")
        );
    });
}

#[test]
fn deadlines_of_grpc_are_kept() {
    run(async {
        let stage = Stage::new(Path::Straight, AppProtocol::Grpc).await;
        let mut send = client(&stage).await;
        let mut request = grpc();
        request
            .headers_mut()
            .insert("grpc-timeout", HeaderValue::from_static("50m"));
        let answer = soon(send.send_request(request, true).unwrap().0)
            .await
            .unwrap();
        assert_eq!(answer.headers()["grpc-status"], "4");
    });
}

/// A refused stream was not processed: it is tried again, whatever the method.
#[test]
fn refused_streams_are_tried_again() {
    run(async {
        let stage = Stage::new(Path::Straight, AppProtocol::Http2).await;
        echo(&stage);
        let mut send = client(&stage).await;
        let request = Request::post("http://web/refuse").body(()).unwrap();
        let (answer, mut body) = send.send_request(request, false).unwrap();
        body.send_data(Bytes::from_static(b"x"), true).unwrap();
        let answer = soon(answer).await.unwrap();
        assert_eq!(answer.status(), 502);
        let retried = || stage.a.cells.transport.retries.get() == 2;
        eventually("two further tries", retried).await;
    });
}

/// A caller that takes its request back reaches the program as a reset.
#[test]
fn cancelled_streams_are_cancelled_everywhere() {
    for path in BOTH {
        run(async move {
            let stage = Stage::new(path, AppProtocol::Http2).await;
            let mut send = client(&stage).await;
            let (answer, mut body) = send.send_request(grpc(), false).unwrap();
            body.send_data(Bytes::from_static(b"x"), false).unwrap();
            let (stream, _) = soon(stage.listener.accept()).await.unwrap();
            let mut connection = server::handshake(stream).await.unwrap();
            let (request, respond) = soon(connection.accept()).await.unwrap().unwrap();
            tokio::task::spawn_local(async move { while connection.accept().await.is_some() {} });
            body.send_reset(h2::Reason::CANCEL);
            drop((answer, body));
            let mut body = request.into_body();
            let ended = soon(async {
                loop {
                    match body.data().await {
                        Some(Ok(_)) => {}
                        other => break other,
                    }
                }
            })
            .await;
            assert!(
                matches!(ended, Some(Err(_))),
                "{path:?}: a cut body is not a whole one"
            );
            drop(respond);
        });
    }
}

#[test]
fn malformed_http2_requests_are_refused() {
    run(async {
        let stage = Stage::new(Path::Straight, AppProtocol::Http2).await;
        echo(&stage);
        let mut send = client(&stage).await;
        let request = get("/").header("host", "other").body(()).unwrap();
        let answer = soon(send.send_request(request, true).unwrap().0)
            .await
            .unwrap();
        assert_eq!(answer.status(), 400);
        let request = get("/%00").body(()).unwrap();
        let answer = soon(send.send_request(request, true).unwrap().0)
            .await
            .unwrap();
        assert_eq!(answer.status(), 400);
    });
}

#[test]
fn draining_says_go_away() {
    run(async {
        let stage = Stage::new(Path::Straight, AppProtocol::Http2).await;
        echo(&stage);
        let stream = stage.world.dial(&stage.a).await;
        let (send, connection) = client::handshake::<_>(stream).await.unwrap();
        let mut send: SendRequest<Bytes> = send;
        let ended = tokio::task::spawn_local(connection);
        let answer = soon(
            send.send_request(get("/").body(()).unwrap(), true)
                .unwrap()
                .0,
        )
        .await
        .unwrap();
        soon(whole(answer.into_body())).await.unwrap();
        stage.a.drain.begin();
        drop(send);
        soon(ended).await.unwrap().unwrap();
    });
}

#[test]
fn far_errors_in_the_words_of_grpc() {
    run(async {
        let stage = Stage::with(Path::Tunnel, AppProtocol::Grpc, |port| {
            port.authorization.allow_only = true;
        })
        .await;
        let mut send = client(&stage).await;
        let answer = soon(send.send_request(grpc(), true).unwrap().0)
            .await
            .unwrap();
        assert_eq!(answer.headers()["grpc-status"], "7");
        let error = answer.headers()["mesh-error"].to_str().unwrap().to_owned();
        assert!(error.starts_with("denied; host=b; id="), "{error}");
        let id = error.split("id=").nth(1).unwrap().to_owned();
        let recorded =
            |failures: Vec<(String, String)>| failures.contains(&("denied".to_owned(), id.clone()));
        eventually("recorded on both hosts", || {
            recorded(stage.a.failures()) && recorded(stage.b.as_ref().unwrap().failures())
        })
        .await;
    });
}

/// Requests that are taken back in the same breath reach no program.
#[test]
fn rapid_resets_reach_nobody() {
    run(async {
        let stage = Stage::new(Path::Straight, AppProtocol::Http).await;
        let opened = stage.program(|_| ok("x"));
        let mut stream = stage.world.dial(&stage.a).await;
        let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0".to_vec();
        for id in (1u32..30).step_by(2) {
            // GET http://web/ by HPACK's static table, then RST_STREAM with CANCEL.
            bytes.extend(b"\0\0\x08\x01\x05");
            bytes.extend(id.to_be_bytes());
            bytes.extend(b"\x82\x86\x84\x41\x03web");
            bytes.extend(b"\0\0\x04\x03\0");
            bytes.extend(id.to_be_bytes());
            bytes.extend(8u32.to_be_bytes());
        }
        stream.write_all(&bytes).await.unwrap();
        let settled = || {
            let series = stage.a.cells.series.lock().unwrap();
            series.iter().map(|one| one.requests()).sum::<u64>() == 15
        };
        eventually("all are settled", settled).await;
        assert_eq!(opened.get(), 0);
        let mut talk = stage.dial().await;
        assert_eq!(soon(talk.get("/", "")).await.text(), "x");
    });
}
