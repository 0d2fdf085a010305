//! What only HTTP/2 has: extended CONNECT, CONNECT streams, resets, and frames that nobody asked for.

use std::{rc::Rc, time::Duration};

use bytes::{Bytes, BytesMut};
use h2::{
    Reason,
    client::{self, SendRequest},
    ext::Protocol,
    server,
};
use http::{Method, Request, Response};
use mesh_model::service::AppProtocol;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use super::{BOTH, Path, Stage, ok, soon};
use crate::{
    connection::{Destination, OutboundOrigin},
    http as rooms,
    io::{Io, Stream},
    outbound,
    trial::{eventually, pair, run},
};

/// Speaks HTTP/2; the settings of the other end are known when it returns.
async fn client(stream: TcpStream) -> SendRequest<Bytes> {
    let (send, mut connection) = client::handshake(stream).await.unwrap();
    let mut ping = connection.ping_pong().unwrap();
    tokio::task::spawn_local(async move {
        drop(connection.await);
    });
    soon(ping.ping(h2::Ping::opaque())).await.unwrap();
    send
}

fn websocket(path: &str) -> Request<()> {
    Request::builder()
        .method(Method::CONNECT)
        .uri(format!("http://web{path}"))
        .header("sec-websocket-version", "13")
        .extension(Protocol::from_static("websocket"))
        .body(())
        .unwrap()
}

fn accept(key: &str) -> String {
    use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
    let salted = format!("{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11");
    data_encoding::BASE64.encode(digest(&SHA1_FOR_LEGACY_USE_ONLY, salted.as_bytes()).as_ref())
}

#[test]
fn extended_connect_becomes_an_upgrade() {
    for path in BOTH {
        run(async move {
            let stage = Stage::new(path, AppProtocol::Http).await;
            let mut send = client(stage.world.dial(&stage.a).await).await;
            assert!(send.is_extended_connect_protocol_enabled());
            let (answer, mut there) = send.send_request(websocket("/chat?a"), false).unwrap();
            // What is sent before the answer waits for it.
            there
                .send_data(Bytes::from_static(b"early "), false)
                .unwrap();
            let mut program = soon(stage.accept()).await;
            let heard = soon(program.head()).await.unwrap();
            assert_eq!(heard.first, "GET /chat?a HTTP/1.1", "{path:?}");
            assert_eq!(heard.field("upgrade"), Some("websocket"));
            assert_eq!(heard.field("connection"), Some("upgrade"));
            assert_eq!(heard.field("mesh-upgrade"), None);
            let key = heard.field("sec-websocket-key").unwrap();
            let answered = format!(
                "HTTP/1.1 101 x\r\nConnection: upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: {}\r\n\
                 Sec-WebSocket-Protocol: chat\r\n\r\n",
                accept(key)
            );
            program.say(&answered).await;
            let answer = soon(answer).await.unwrap();
            assert_eq!(answer.status(), 200);
            assert_eq!(answer.headers()["sec-websocket-protocol"], "chat");
            for gone in [
                "sec-websocket-accept",
                "mesh-upgrade",
                "upgrade",
                "connection",
            ] {
                assert!(!answer.headers().contains_key(gone), "{gone}");
            }
            there.send_data(Bytes::from_static(b"there"), true).unwrap();
            assert_eq!(soon(program.raw(11)).await, b"early there");
            assert!(soon(program.ends()).await);
            program.say("back").await;
            drop(program);
            let (mut back, mut heard) = (answer.into_body(), Vec::new());
            while let Some(piece) = soon(back.data()).await {
                heard.extend(piece.expect("a clean end"));
            }
            assert_eq!(heard, b"back");
        });
    }
}

#[test]
fn extended_connect_that_is_not_carried_out() {
    let cases = [
        ("HTTP/1.1 403 no\r\nContent-Length: 2\r\n\r\nno", 403),
        // Any 2xx would say that the protocol was changed.
        ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi", 501),
        ("HTTP/1.1 204 No\r\n\r\n", 501),
        // A 101 that does not fit the key that the mesh made.
        (
            "HTTP/1.1 101 x\r\nConnection: upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: x\r\n\r\n",
            502,
        ),
        (
            "HTTP/1.1 101 x\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n",
            502,
        ),
        (
            "HTTP/1.1 101 x\r\nConnection: upgrade\r\nUpgrade: other\r\n\r\n",
            502,
        ),
    ];
    for path in BOTH {
        for (text, status) in cases {
            run(async move {
                let stage = Stage::new(path, AppProtocol::Http).await;
                stage.program(move |_| text.to_owned());
                let mut send = client(stage.world.dial(&stage.a).await).await;
                let (answer, _there) = send.send_request(websocket("/"), false).unwrap();
                let answer = soon(answer).await.unwrap();
                assert_eq!(answer.status(), status, "{path:?} {text}");
            });
        }
    }
}

/// A program of HTTP/2 that takes extended CONNECT, or does not know it.
fn program(stage: &Stage, announces: bool) {
    let listener = Rc::clone(&stage.listener);
    tokio::task::spawn_local(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let mut builder = server::Builder::new();
            if announces {
                builder.enable_connect_protocol();
            }
            tokio::task::spawn_local(async move {
                let mut connection = builder.handshake::<_, Bytes>(stream).await.unwrap();
                while let Some(Ok((request, mut respond))) = connection.accept().await {
                    let protocol = request.extensions().get::<Protocol>();
                    let method = request.method().as_str().to_owned();
                    let asked = protocol.map_or(method, |protocol| protocol.as_str().to_owned());
                    assert!(
                        !(asked == "websocket"
                            && request.headers().contains_key("sec-websocket-key"))
                    );
                    let head = Response::builder()
                        .header("x-asked", asked)
                        .body(())
                        .unwrap();
                    let mut send = respond.send_response(head, false).unwrap();
                    let mut body = request.into_body();
                    tokio::task::spawn_local(async move {
                        while let Some(Ok(piece)) = body.data().await {
                            drop(body.flow_control().release_capacity(piece.len()));
                            send.send_data(piece, false).unwrap();
                        }
                        send.send_data(Bytes::new(), true).unwrap();
                    });
                }
            });
        }
    });
}

#[test]
fn programs_of_http2_are_asked_by_extended_connect() {
    for path in BOTH {
        run(async move {
            let stage = Stage::new(path, AppProtocol::Http2).await;
            program(&stage, true);
            let mut send = client(stage.world.dial(&stage.a).await).await;
            let (answer, mut there) = send.send_request(websocket("/chat"), false).unwrap();
            let answer = soon(answer).await.unwrap();
            assert_eq!(
                (
                    answer.status().as_u16(),
                    answer.headers()["x-asked"].as_bytes()
                ),
                (200, &b"websocket"[..])
            );
            there.send_data(Bytes::from_static(b"hi"), true).unwrap();
            let mut back = answer.into_body();
            assert_eq!(soon(back.data()).await.unwrap().unwrap(), "hi");

            // A caller of HTTP/1 gets the accept that its key wants.
            let mut talk = stage.dial().await;
            let asked = "Connection: upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
            talk.say(&format!("GET /chat HTTP/1.1\r\nHost: web\r\n{asked}\r\n"))
                .await;
            let heard = soon(talk.head()).await.unwrap();
            assert_eq!(heard.status(), 101, "{path:?} {heard:?}");
            assert_eq!(
                heard.field("sec-websocket-accept"),
                Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo=")
            );
            talk.say("words").await;
            assert_eq!(soon(talk.raw(5)).await, b"words");
        });
    }
}

#[test]
fn programs_that_do_not_know_extended_connect_are_not_asked() {
    for path in BOTH {
        run(async move {
            let stage = Stage::new(path, AppProtocol::Http2).await;
            program(&stage, false);
            let mut send = client(stage.world.dial(&stage.a).await).await;
            let (answer, _there) = send.send_request(websocket("/"), false).unwrap();
            assert_eq!(soon(answer).await.unwrap().status(), 501, "{path:?}");
            let mut talk = stage.dial().await;
            let heard = soon(talk.get("/", "Connection: upgrade\r\nUpgrade: websocket\r\n")).await;
            assert_eq!(
                (heard.status(), heard.field("x-asked")),
                (200, Some("GET")),
                "{path:?}"
            );
        });
    }
}

/// CONNECT as a stream of HTTP/2 on the explicit listener; on a captured connection it means nothing.
#[test]
fn connect_streams() {
    run(async {
        let stage = Stage::new(Path::Tunnel, AppProtocol::Tcp).await;
        let mut snapshot = stage.calling(AppProtocol::Tcp, [stage.endpoint(1, stage.address)]);
        let frontend = Rc::new(snapshot.outbound.frontends.first().unwrap().clone());
        let ports = [(80, (*frontend).clone())].into_iter().collect();
        snapshot.outbound.by_host.insert("web".into(), ports);
        stage.a.publish(snapshot);
        let (program, own) = pair().await;
        let origin = OutboundOrigin {
            caller: stage.world.caller(),
            peer: program.local_addr().unwrap(),
            destination: Destination::Explicit,
            internal: false,
        };
        let worker = Rc::clone(&stage.a.worker);
        let task = Rc::clone(&worker);
        worker.spawn(async move {
            let onward: rooms::Onward = |worker, connected| {
                let rooms::Connected { io, first, origin } = connected;
                let task = Rc::clone(worker);
                worker.spawn(async move { outbound::serve(task, io, first, origin).await });
            };
            rooms::serve_http2_explicit(task, Io::Tcp(own), BytesMut::new(), origin, onward).await;
        });
        let mut send = client(program).await;
        let connect = |place: &str| {
            Request::builder()
                .method(Method::CONNECT)
                .uri(place.to_owned())
                .body(())
                .unwrap()
        };
        for _ in 0..3 {
            let (answer, there) = send.send_request(connect("web:80"), false).unwrap();
            let answer = soon(answer).await.unwrap();
            assert_eq!(answer.status(), 200);
            let mut stream = Stream::new(there, answer.into_body());
            let (mut program, _) = soon(stage.listener.accept()).await.unwrap();
            stream.write_all(b"there").await.unwrap();
            let mut heard = [0; 5];
            soon(program.read_exact(&mut heard)).await.unwrap();
            program.write_all(b"back").await.unwrap();
            program.shutdown().await.unwrap();
            let mut heard = Vec::new();
            soon(stream.read_to_end(&mut heard)).await.unwrap();
            assert_eq!(heard, b"back");
            stream.shutdown().await.unwrap();
            assert_eq!(soon(program.read(&mut [0])).await.unwrap(), 0);
        }
        let (answer, _there) = send.send_request(connect("nosuch:80"), false).unwrap();
        assert!(soon(answer).await.unwrap().status().is_client_error());
        let mut captured = client(stage_of_requests(&stage).await).await;
        let (answer, _there) = captured.send_request(connect("web:80"), false).unwrap();
        assert_eq!(soon(answer).await.unwrap().status(), 405);
    });
}

/// A connection of the same caller to a service whose requests are seen.
async fn stage_of_requests(stage: &Stage) -> TcpStream {
    stage
        .a
        .publish(stage.calling(AppProtocol::Http2, [stage.endpoint(1, stage.address)]));
    stage.world.dial(&stage.a).await
}

/// The program's own reason for a reset reaches the caller.
#[test]
fn resets_keep_their_reason() {
    for path in BOTH {
        for reason in [Reason::CANCEL, Reason::ENHANCE_YOUR_CALM] {
            run(async move {
                let stage = Stage::new(path, AppProtocol::Http2).await;
                let listener = Rc::clone(&stage.listener);
                let read = Rc::new(tokio::sync::Notify::new());
                let was_read = Rc::clone(&read);
                tokio::task::spawn_local(async move {
                    let (stream, _) = listener.accept().await.unwrap();
                    let mut connection = server::handshake(stream).await.unwrap();
                    while let Some(Ok((_, mut respond))) = connection.accept().await {
                        let mut send = respond.send_response(Response::new(()), false).unwrap();
                        send.send_data(Bytes::from_static(b"some"), false).unwrap();
                        let was_read = Rc::clone(&was_read);
                        tokio::task::spawn_local(async move {
                            was_read.notified().await;
                            send.send_reset(reason);
                        });
                    }
                });
                let mut send = client(stage.world.dial(&stage.a).await).await;
                let request = Request::get("http://web/").body(()).unwrap();
                let answer = soon(send.send_request(request, true).unwrap().0)
                    .await
                    .unwrap();
                let mut body = answer.into_body();
                assert_eq!(soon(body.data()).await.unwrap().unwrap(), "some");
                read.notify_one();
                let error = soon(body.data()).await.unwrap().unwrap_err();
                assert_eq!(error.reason(), Some(reason), "{path:?}");
            });
        }
    }
}

/// Reads until these bytes were there.
async fn until(stream: &mut TcpStream, seen: &mut Vec<u8>, wanted: &[u8]) {
    while !seen.windows(wanted.len()).any(|window| window == wanted) {
        assert_ne!(soon(stream.read_buf(seen)).await.unwrap(), 0);
    }
}

/// GOAWAY with `NO_ERROR`.
fn leave(last: u32) -> Vec<u8> {
    frame(7, 0, 0, &[last.to_be_bytes(), [0; 4]].concat())
}

/// Answers each request on its further connections with its body.
async fn echoes(listener: &tokio::net::TcpListener) {
    loop {
        let (again, _) = listener.accept().await.unwrap();
        tokio::task::spawn_local(async move {
            let mut connection = server::handshake(again).await.unwrap();
            while let Some(Ok((request, mut respond))) = connection.accept().await {
                tokio::task::spawn_local(async move {
                    let mut body = request.into_body();
                    let piece = body.data().await.map(Result::unwrap).unwrap_or_default();
                    let mut send = respond.send_response(Response::new(()), false).unwrap();
                    send.send_data(piece, true).unwrap();
                });
            }
        });
    }
}

/// Streams above the last one of a GOAWAY were not processed: they are tried again, whatever the method, and
/// nobody is to blame.
#[test]
fn requests_that_a_goaway_leaves_out_are_tried_again() {
    const ASKED: usize = 6;
    for path in BOTH {
        run(async move {
            let stage = Stage::new(path, AppProtocol::Http2).await;
            let listener = Rc::clone(&stage.listener);
            tokio::task::spawn_local(async move {
                let (mut stream, _) = listener.accept().await.unwrap();
                // SETTINGS, and once the requests are there GOAWAY with last stream 0.
                stream.write_all(b"\0\0\0\x04\0\0\0\0\0").await.unwrap();
                let mut seen = Vec::new();
                for number in 0..ASKED {
                    until(&mut stream, &mut seen, format!("body{number}").as_bytes()).await;
                }
                stream.write_all(&leave(0)).await.unwrap();
                echoes(&listener).await;
            });
            let mut send = client(stage.world.dial(&stage.a).await).await;
            let mut answers = Vec::new();
            for number in 0..ASKED {
                let request = Request::post("http://web/").body(()).unwrap();
                let (answer, mut there) = send.send_request(request, false).unwrap();
                let body = Bytes::from(format!("body{number}"));
                there.send_data(body, true).unwrap();
                answers.push(answer);
            }
            for (number, answer) in answers.into_iter().enumerate() {
                let answer = soon(answer).await.unwrap();
                assert_eq!(answer.status(), 200, "{path:?} {number}");
                let body = soon(answer.into_body().data()).await.unwrap().unwrap();
                assert_eq!(body, format!("body{number}"), "{path:?}");
            }
            assert!(stage.a.shared.ejected().is_empty(), "{path:?}");
        });
    }
}

/// A connection that takes no more requests and lives on for one that runs is replaced for the others.
#[test]
fn a_goaway_beside_a_request_that_runs() {
    for path in BOTH {
        run(async move {
            let stage = Stage::new(path, AppProtocol::Http2).await;
            let listener = Rc::clone(&stage.listener);
            let (told, heard) = tokio::sync::oneshot::channel();
            tokio::task::spawn_local(async move {
                let (mut stream, _) = listener.accept().await.unwrap();
                stream.write_all(b"\0\0\0\x04\0\0\0\0\0").await.unwrap();
                let mut seen = Vec::new();
                until(&mut stream, &mut seen, b"held").await;
                // A question behind the GOAWAY: its answer shows that the GOAWAY was read.
                stream.write_all(&leave(1)).await.unwrap();
                stream
                    .write_all(&frame(6, 0, 0, b"question"))
                    .await
                    .unwrap();
                until(&mut stream, &mut seen, b"question").await;
                told.send(()).unwrap();
                tokio::task::spawn_local(async move {
                    // It goes on to be held, and read.
                    while let Ok(1..) = stream.read_buf(&mut seen).await {}
                });
                echoes(&listener).await;
            });
            let mut send = client(stage.world.dial(&stage.a).await).await;
            let request = Request::post("http://web/").body(()).unwrap();
            let (_held, mut there) = send.send_request(request, false).unwrap();
            there.send_data(Bytes::from_static(b"held"), false).unwrap();
            soon(heard).await.unwrap();
            for number in 0..3 {
                let request = Request::post("http://web/").body(()).unwrap();
                let (answer, mut there) = send.send_request(request, false).unwrap();
                there.send_data(Bytes::from_static(b"more"), true).unwrap();
                let answer = soon(answer).await.unwrap();
                assert_eq!(answer.status(), 200, "{path:?} {number}");
            }
            assert!(stage.a.shared.ejected().is_empty(), "{path:?}");
        });
    }
}

/// Nobody reads, so nobody may send on and on: what is under way is bounded by the windows.
#[test]
fn stalled_readers_stop_the_sender() {
    const MOST: usize = 16 << 20;
    for path in BOTH {
        run(async move {
            let stage = Stage::new(path, AppProtocol::Http2).await;
            let listener = Rc::clone(&stage.listener);
            tokio::task::spawn_local(async move {
                let (stream, _) = listener.accept().await.unwrap();
                let mut connection = server::handshake(stream).await.unwrap();
                let mut held = Vec::new();
                while let Some(Ok(stalled)) = connection.accept().await {
                    held.push(stalled);
                }
            });
            let mut send = client(stage.world.dial(&stage.a).await).await;
            let request = Request::post("http://web/").body(()).unwrap();
            let (_answer, mut there) = send.send_request(request, false).unwrap();
            let mut under_way = 0;
            loop {
                there.reserve_capacity(64 << 10);
                let room = std::future::poll_fn(|cx| there.poll_capacity(cx));
                let Ok(room) = tokio::time::timeout(Duration::from_millis(300), room).await else {
                    break;
                };
                let room = room.unwrap().unwrap();
                under_way += room;
                assert!(
                    under_way < MOST,
                    "{path:?}: {under_way} bytes are under way"
                );
                there.send_data(Bytes::from(vec![0; room]), false).unwrap();
            }
        });
    }
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let [_, a, b, c] = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut frame = vec![a, b, c, kind, flags];
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// A field as a literal that is not indexed; no Huffman code.
fn field(name: &[u8], value: &[u8]) -> Vec<u8> {
    let length = |text: &[u8]| u8::try_from(text.len()).unwrap();
    [&[0, length(name)], name, &[length(value)], value].concat()
}

/// `GET http://web/` by HPACK's static table.
const GET: &[u8] = b"\x82\x86\x84\x41\x03web";
const START: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

/// What the other end sends until it ends: each frame's type, stream and payload.
async fn frames(stream: &mut TcpStream) -> Vec<(u8, u32, Vec<u8>)> {
    let mut bytes = Vec::new();
    while let Ok(1..) = soon(stream.read_buf(&mut bytes)).await {}
    parse(&bytes)
}

/// The code of the GOAWAY that ends a connection.
fn goaway(frames: &[(u8, u32, Vec<u8>)]) -> Option<u32> {
    let (_, _, payload) = frames.iter().rfind(|(kind, _, _)| *kind == 7)?;
    Some(u32::from_be_bytes(payload.get(4..8)?.try_into().ok()?))
}

/// Frames without end are answered by an end, and the next connection is served at once.
#[test]
fn floods_are_cut_off() {
    const CALM: u32 = 11;
    let many = |bytes: Vec<u8>, count: usize| bytes.repeat(count);
    let open = frame(1, 4, 1, b"\x83\x86\x84\x41\x03web");
    let floods = [
        ("ping", many(frame(6, 0, 0, &[0; 8]), 20_000), CALM),
        ("settings", many(frame(4, 0, 0, &[]), 20_000), CALM),
        (
            "priority",
            many(frame(2, 0, 1, &[0, 0, 0, 5, 1]), 20_000),
            CALM,
        ),
        ("unknown", many(frame(99, 0, 0, &[]), 20_000), CALM),
        (
            "window updates",
            [open.clone(), many(frame(8, 0, 1, &[0, 0, 0, 1]), 20_000)].concat(),
            CALM,
        ),
        (
            "empty data",
            [open.clone(), many(frame(0, 0, 1, &[]), 20_000)].concat(),
            CALM,
        ),
        (
            "continuations",
            [
                frame(1, 0, 1, GET),
                many(frame(9, 0, 1, &field(b"x-a", &[b'v'; 100])), 2_000),
            ]
            .concat(),
            CALM,
        ),
        (
            "empty continuations",
            [frame(1, 0, 1, GET), many(frame(9, 0, 1, &[]), 20_000)].concat(),
            CALM,
        ),
    ];
    for (name, bytes, code) in floods {
        run(async move {
            let stage = Stage::new(Path::Straight, AppProtocol::Http).await;
            let opened = stage.program(|_| ok("x"));
            let (mut read, mut write) = stage.world.dial(&stage.a).await.into_split();
            let sender = tokio::task::spawn_local(async move {
                // Cut off while it writes.
                drop(write.write_all(&[START, &bytes].concat()).await);
                write
            });
            let mut seen = Vec::new();
            while let Ok(1..) = soon(read.read_buf(&mut seen)).await {}
            let mut talk = stage.dial().await;
            assert_eq!(soon(talk.get("/", "")).await.text(), "x", "{name}");
            assert!(opened.get() <= 2, "{name}");
            drop(sender);
            let frames = parse(&seen);
            // The last frames may be lost to the reset that unread bytes cause.
            let found = goaway(&frames);
            assert!(found.is_none_or(|found| found == code), "{name}: {found:?}");
        });
    }
}

/// A peer with a certificate may flood no more than a program.
#[test]
fn floods_in_tunnels_are_cut_off() {
    run(async {
        let stage = Stage::new(Path::Tunnel, AppProtocol::Http).await;
        stage.program(|_| ok("x"));
        let tunnel = stage.endpoint(1, stage.address).tunnel.unwrap();
        let stream = TcpStream::connect(tunnel.address).await.unwrap();
        let caller = stage.world.id("shop", "cart");
        let connect = stage.a.worker.tls.connect(stream, &caller, &tunnel);
        let (stream, _) = soon(connect).await.unwrap();
        let (mut read, mut write) = tokio::io::split(stream);
        let sender = tokio::task::spawn_local(async move {
            let pings = frame(6, 0, 0, &[0; 8]).repeat(20_000);
            // Cut off while it writes.
            drop(write.write_all(&[START, &pings].concat()).await);
            write
        });
        let mut seen = Vec::new();
        while let Ok(1..) = soon(read.read_buf(&mut seen)).await {}
        let found = goaway(&parse(&seen));
        assert!(found.is_none_or(|found| found == 11), "{found:?}");
        drop(sender);
        let mut talk = stage.dial().await;
        assert_eq!(soon(talk.get("/", "")).await.text(), "x");
    });
}

fn parse(bytes: &[u8]) -> Vec<(u8, u32, Vec<u8>)> {
    let mut all = Vec::new();
    let mut rest = bytes;
    while let [a, b, c, kind, _, s, t, u, v, more @ ..] = rest {
        let length = u32::from_be_bytes([0, *a, *b, *c]) as usize;
        let Some((payload, more)) = more.split_at_checked(length) else {
            break;
        };
        all.push((
            *kind,
            u32::from_be_bytes([*s, *t, *u, *v]),
            payload.to_vec(),
        ));
        rest = more;
    }
    all
}

/// Requests that break a rule of RFC 9113 section 8 reach no program.
#[test]
fn malformed_requests_go_nowhere() {
    let get = |more: &[u8]| [GET, more].concat();
    let request = |fields: &[(&[u8], &[u8])]| -> Vec<u8> {
        fields
            .iter()
            .flat_map(|(name, value)| field(name, value))
            .collect()
    };
    let whole: [(&[u8], &[u8]); 4] = [
        (b":method", b"GET"),
        (b":scheme", b"http"),
        (b":path", b"/"),
        (b":authority", b"web"),
    ];
    let without = |gone: usize| {
        let mut fields = whole.to_vec();
        fields.remove(gone);
        request(&fields)
    };
    let with = |at: usize, value: &'static [u8]| {
        let mut fields = whole.to_vec();
        fields[at].1 = value;
        request(&fields)
    };
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("upper case", get(&field(b"X-A", b"1"))),
        ("space in a name", get(&field(b"x a", b"1"))),
        ("colon in a name", get(&field(b"x:a", b"1"))),
        ("empty name", get(&field(b"", b"1"))),
        ("CR in a name", get(&field(b"x\ra", b"1"))),
        ("CR", get(&field(b"x-a", b"1\r2"))),
        ("LF", get(&field(b"x-a", b"1\n2"))),
        ("NUL", get(&field(b"x-a", b"1\x002"))),
        ("leading space", get(&field(b"x-a", b" 1"))),
        ("trailing tab", get(&field(b"x-a", b"1\t"))),
        ("second method", get(&field(b":method", b"GET"))),
        ("second path", get(&field(b":path", b"/"))),
        ("late pseudo-header", [&field(b"x-a", b"1"), GET].concat()),
        ("unknown pseudo-header", get(&field(b":what", b"1"))),
        ("status", get(&field(b":status", b"200"))),
        (
            "protocol without CONNECT",
            get(&field(b":protocol", b"websocket")),
        ),
        ("connection", get(&field(b"connection", b"close"))),
        ("keep-alive", get(&field(b"keep-alive", b"1"))),
        ("proxy-connection", get(&field(b"proxy-connection", b"1"))),
        ("upgrade", get(&field(b"upgrade", b"websocket"))),
        (
            "transfer-encoding",
            get(&field(b"transfer-encoding", b"chunked")),
        ),
        ("te", get(&field(b"te", b"gzip"))),
        ("no method", without(0)),
        ("no scheme", without(1)),
        ("no path", without(2)),
        ("no authority", without(3)),
        ("empty path", with(2, b"")),
        ("relative path", with(2, b"a")),
        ("asterisk", with(2, b"*")),
        ("space in the path", with(2, b"/a b")),
        ("control in the path", with(2, b"/a\x01b")),
        ("NUL escape", with(2, b"/a%00b")),
        ("space in the method", with(0, b"GE T")),
        ("line in the method", with(0, b"GET / HTTP/1.1\r\nx: ")),
        ("user information", with(3, b"u@web")),
        ("path in the authority", with(3, b"web/a")),
        ("space in the authority", with(3, b"we b")),
        ("empty authority", with(3, b"")),
        ("other scheme", with(1, b"ftp")),
        ("line in the scheme", with(1, b"http\r\n")),
        ("other host", get(&field(b"host", b"other"))),
        (
            "two hosts",
            get(&[field(b"host", b"web"), field(b"host", b"web")].concat()),
        ),
        (
            "length without a body",
            get(&field(b"content-length", b"5")),
        ),
        ("signed length", get(&field(b"content-length", b"+5"))),
        (
            "two lengths",
            get(&[
                field(b"content-length", b"0"),
                field(b"content-length", b"1"),
            ]
            .concat()),
        ),
        (
            "CONNECT with a path",
            request(&[
                (b":method", b"CONNECT"),
                (b":path", b"/"),
                (b":authority", b"web:80"),
            ]),
        ),
        (
            "extended CONNECT without a path",
            request(&[
                (b":method", b"CONNECT"),
                (b":protocol", b"websocket"),
                (b":scheme", b"http"),
                (b":authority", b"web"),
            ]),
        ),
    ];
    for (name, block) in cases {
        run(async move {
            let stage = Stage::new(Path::Straight, AppProtocol::Http).await;
            let opened = stage.program(|_| ok("x"));
            let mut stream = stage.world.dial(&stage.a).await;
            let bytes = [START, &frame(1, 5, 1, &block), &frame(6, 0, 0, b"the last")].concat();
            stream.write_all(&bytes).await.unwrap();
            // Refused as a request (400 and others), as a stream (RST_STREAM) or as a connection (GOAWAY).
            let mut seen = Vec::new();
            let refused = loop {
                let read =
                    tokio::time::timeout(Duration::from_secs(10), stream.read_buf(&mut seen)).await;
                let ended = matches!(read.unwrap(), Ok(0) | Err(_));
                let frames = parse(&seen);
                if let Some((kind, _, payload)) = frames
                    .iter()
                    .find(|(kind, stream, _)| *kind == 7 || (*stream == 1 && matches!(kind, 1 | 3)))
                {
                    break (*kind, payload.clone());
                }
                assert!(!ended, "{name}: it ended without a word");
            };
            if let (1, [status, ..]) = (refused.0, &refused.1[..]) {
                // Indexed 400 or 404, or a literal: never 200 (0x88).
                assert_ne!(*status, 0x88, "{name}");
            }
            assert_eq!(opened.get(), 0, "{name} reached the program");
        });
    }
}

/// A body that is longer or shorter than its length never becomes a whole request.
#[test]
fn bodies_that_do_not_fit_their_length_are_cut() {
    let post = [
        &b"\x83\x86\x84\x41\x03web"[..],
        &field(b"content-length", b"5"),
    ]
    .concat();
    for (name, data) in [
        ("long", vec![frame(0, 1, 1, b"abcdef")]),
        ("short", vec![frame(0, 1, 1, b"abc")]),
        (
            "long in pieces",
            vec![frame(0, 0, 1, b"abcde"), frame(0, 1, 1, b"f")],
        ),
        (
            "short with trailers",
            vec![
                frame(0, 0, 1, b"abc"),
                frame(1, 5, 1, &field(b"x-end", b"1")),
            ],
        ),
        (
            "reset",
            vec![frame(0, 0, 1, b"abc"), frame(3, 0, 1, &[0, 0, 0, 8])],
        ),
    ] {
        let bytes = [START, &frame(1, 4, 1, &post), &data.concat()].concat();
        for (path, protocol) in [
            (Path::Straight, AppProtocol::Http),
            (Path::Tunnel, AppProtocol::Http),
        ] {
            let bytes = bytes.clone();
            run(async move {
                let stage = Stage::new(path, protocol).await;
                let mut stream = stage.world.dial(&stage.a).await;
                stream.write_all(&bytes).await.unwrap();
                let settled = || {
                    let series = stage.a.cells.series.lock().unwrap();
                    series.iter().map(|one| one.requests()).sum::<u64>() == 1
                };
                let settles = eventually("it is settled", settled);
                // Whatever reached the program is no whole request.
                let program = async {
                    let mut program = stage.accept().await;
                    assert!(program.request().await.is_none(), "{name} {path:?}");
                };
                tokio::select! {
                    () = settles => {}
                    () = program => {}
                }
            });
        }
    }
}

/// Requests taken back one by one, each after it was read: after a while the peer is told to calm down.
#[test]
fn slow_rapid_resets_end_the_connection() {
    run(async {
        let stage = Stage::new(Path::Straight, AppProtocol::Http).await;
        let listener = Rc::clone(&stage.listener);
        tokio::task::spawn_local(async move {
            let mut held = Vec::new();
            while let Ok((stream, _)) = listener.accept().await {
                held.push(stream);
            }
        });
        let mut stream = stage.world.dial(&stage.a).await;
        stream.write_all(START).await.unwrap();
        let mut ended = false;
        for id in (1u32..4001).step_by(2) {
            let bytes = [frame(1, 5, id, GET), frame(3, 0, id, &[0, 0, 0, 8])].concat();
            if stream.write_all(&bytes).await.is_err() {
                ended = true;
                break;
            }
            tokio::task::yield_now().await;
        }
        let frames = frames(&mut stream).await;
        assert!(
            ended || goaway(&frames) == Some(11),
            "{:?}",
            goaway(&frames)
        );
    });
}
