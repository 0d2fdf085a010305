//! Another implementation (`h2`) at the other end.

use http::{HeaderMap, Request, Response};

use super::*;

async fn collect(mut body: h2::RecvStream) -> (Vec<u8>, Option<HeaderMap>) {
    let mut whole = Vec::new();
    while let Some(piece) = body.data().await {
        let piece = piece.unwrap();
        whole.extend_from_slice(&piece);
        body.flow_control().release_capacity(piece.len()).unwrap();
    }
    (whole, body.trailers().await.unwrap())
}

async fn give(send: &mut h2::SendStream<Bytes>, mut body: Bytes) {
    while !body.is_empty() {
        send.reserve_capacity(body.len());
        let room = poll_fn(|cx| send.poll_capacity(cx)).await.unwrap().unwrap();
        send.send_data(body.split_to(room.min(body.len())), false)
            .unwrap();
    }
}

#[test]
fn it_calls() {
    run(async {
        let (one, other) = tokio::io::duplex(5_000);
        let server = Link::new(SERVER);
        drive(&server, one);
        let (client, connection) = h2::client::handshake(other).await.unwrap();
        tokio::task::spawn_local(async move { connection.await.unwrap() });
        let mut client = client.ready().await.unwrap();
        for length in [0, 10, 100_000, 1_000_000] {
            let body = noise(length);
            let request = Request::post("http://web:80/path?x").header("x-name", "some value");
            let (answer, mut send) = client
                .send_request(request.body(()).unwrap(), false)
                .unwrap();
            let calling = async {
                give(&mut send, body.clone().into()).await;
                let mut trailers = HeaderMap::new();
                trailers.insert("x-end", "1".parse().unwrap());
                send.send_trailers(trailers).unwrap();
                let answer = answer.await.unwrap();
                assert_eq!(answer.status(), 201);
                assert_eq!(
                    answer.headers()["x-long"].as_bytes(),
                    "é".repeat(300).as_bytes()
                );
                collect(answer.into_body()).await
            };
            let serving = async {
                let Asked {
                    head,
                    stream,
                    ended,
                    ..
                } = accept(&server).await;
                assert!(!ended);
                assert_eq!(head.value(b":authority"), Some(&b"web:80"[..]));
                assert_eq!(
                    (head.value(b":path"), head.value(b"x-name")),
                    (Some(&b"/path?x"[..]), Some(&b"some value"[..]))
                );
                let found = read(&stream).await.unwrap();
                assert_eq!(
                    stream.take_trailers().unwrap().value(b"x-end"),
                    Some(&b"1"[..])
                );
                stream.send_head(false, |fields| {
                    fields.field(b":status", b"201");
                    fields.field(b"x-long", "é".repeat(300).as_bytes());
                });
                send_all(&stream, &found).await;
                stream.send_trailers(|fields| fields.once(b"x-back", b"2"));
            };
            let ((found, trailers), ()) = tokio::join!(calling, serving);
            assert!(found == body, "{length}");
            assert_eq!(trailers.unwrap()["x-back"], "2");
        }
        // A reset in each direction.
        let (answer, mut sending) = client.send_request(Request::new(()), false).unwrap();
        let asked = accept(&server).await;
        sending.send_reset(h2::Reason::CANCEL);
        poll_fn(|cx| asked.stream.poll_gone(cx)).await;
        drop((answer, asked));
        let (answer, _sending) = client.send_request(Request::new(()), false).unwrap();
        accept(&server).await.stream.reset(Reason::REFUSED_STREAM);
        assert_eq!(
            answer.await.unwrap_err().reason(),
            Some(h2::Reason::REFUSED_STREAM)
        );
        // Leaving.
        server.leave();
        while poll_fn(|cx| client.poll_ready(cx)).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    });
}

async fn send_all(stream: &Stream, body: &[u8]) {
    if !body.is_empty() {
        send(stream, body, false).await.unwrap();
    }
}

#[test]
fn it_serves() {
    run(async {
        let (one, other) = tokio::io::duplex(5_000);
        let client = Link::new(CLIENT);
        let ended = drive(&client, one);
        let serving = tokio::task::spawn_local(async move {
            let mut connection = h2::server::handshake(other).await.unwrap();
            let mut served = 0;
            while let Some(asked) = connection.accept().await {
                let (request, mut respond) = asked.unwrap();
                served += 1;
                if served == 5 {
                    connection.graceful_shutdown();
                }
                tokio::task::spawn_local(async move {
                    assert_eq!(request.uri().path(), "/a");
                    assert_eq!(request.headers()["x-id"], "1");
                    let (body, trailers) = collect(request.into_body()).await;
                    let interim = Response::builder().status(103).body(()).unwrap();
                    respond.send_informational(interim).unwrap();
                    let answer = Response::builder()
                        .header("x-sum", body.len())
                        .body(())
                        .unwrap();
                    let mut send = respond.send_response(answer, false).unwrap();
                    give(&mut send, body.into()).await;
                    send.send_trailers(trailers.unwrap_or_default()).unwrap();
                });
            }
            served
        });
        for length in [1, 10, 100_000, 1_000_000, 5] {
            let body = noise(length);
            let stream = client.open(false, request).unwrap();
            let sending = async {
                send(&stream, &body, false).await.unwrap();
                stream.send_trailers(|fields| fields.field(b"x-end", b"yes"));
            };
            let reading = async {
                assert_eq!(status(&stream).await.unwrap(), "103");
                let head = poll_fn(|cx| stream.poll_head(cx)).await.unwrap();
                assert_eq!(head.value(b"x-sum"), Some(length.to_string().as_bytes()));
                read(&stream).await.unwrap()
            };
            let ((), found) = tokio::join!(sending, reading);
            assert!(found == body, "{length}");
            assert_eq!(
                stream.take_trailers().unwrap().value(b"x-end"),
                Some(&b"yes"[..])
            );
        }
        assert_eq!(serving.await.unwrap(), 5);
        ended.await.unwrap();
    });
}
