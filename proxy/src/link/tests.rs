//! Both ends against each other, against another implementation, and against raw frames.

use std::{
    future::poll_fn,
    task::{Context, Poll, Waker},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use tokio::io::DuplexStream;

use super::{
    Asked, Broken, Driver, Fields, Link, Peer, Reason, Stream, Terms,
    frame::{self, END_HEADERS, END_STREAM},
    head,
    state::{FRAME, PREFACE, WINDOW},
};

mod bounds;
mod other;
mod program;
mod raw;

const CLIENT: Terms = Terms {
    client: true,
    streams: 100,
    window: 1 << 20,
    peer: Peer::Daemon,
};
const SERVER: Terms = Terms {
    client: false,
    streams: 10,
    window: 1 << 20,
    peer: Peer::Daemon,
};

fn run<F: Future>(test: F) -> F::Output {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build_local(tokio::runtime::LocalOptions::default());
    runtime.unwrap().block_on(async {
        let bounded = tokio::time::timeout(Duration::from_secs(30), test).await;
        bounded.expect("the test takes too long")
    })
}

/// Drives an end in a task of its own; what it ends with.
fn drive(link: &Link, io: DuplexStream) -> tokio::task::JoinHandle<String> {
    let mut driver = Driver::new(link.clone(), io);
    tokio::task::spawn_local(async move { poll_fn(|cx| driver.poll(cx)).await.to_string() })
}

/// Two ends with a small pipe between them.
fn pair() -> (Link, Link) {
    let (one, other) = tokio::io::duplex(10_000);
    let (client, server) = (Link::new(CLIENT), Link::new(SERVER));
    drive(&client, one);
    drive(&server, other);
    (client, server)
}

async fn accept(link: &Link) -> Asked {
    loop {
        if let Some(asked) = link.accept() {
            return asked;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

fn request(fields: &mut Fields<'_>) {
    fields.field(b":method", b"POST");
    fields.field(b":scheme", b"http");
    fields.field(b":path", b"/a");
    fields.once(b"x-id", b"1");
}

fn answer(fields: &mut Fields<'_>) {
    fields.field(b":status", b"200");
}

async fn send(stream: &Stream, mut body: &[u8], last: bool) -> Result<(), Broken> {
    loop {
        let room = poll_fn(|cx| stream.poll_room(cx, body.len().max(1))).await?;
        let (piece, rest) = body.split_at(room.min(body.len()));
        stream.send(Bytes::copy_from_slice(piece), last && rest.is_empty());
        body = rest;
        if body.is_empty() {
            return Ok(());
        }
    }
}

async fn read(stream: &Stream) -> Result<Vec<u8>, Broken> {
    let mut whole = Vec::new();
    while let Some(piece) = poll_fn(|cx| stream.poll_piece(cx)).await? {
        whole.extend_from_slice(&piece);
        stream.release(piece.len());
    }
    Ok(whole)
}

async fn status(stream: &Stream) -> Result<String, Broken> {
    let head = poll_fn(|cx| stream.poll_head(cx)).await?;
    let status = String::from_utf8(head.value(b":status").unwrap().to_vec()).unwrap();
    head::put(head);
    Ok(status)
}

fn noise(length: usize) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(length as u64);
    (0..length).map(|_| random.u8(..)).collect()
}

#[test]
fn exchanges() {
    run(async {
        let (client, server) = pair();
        for length in [0, 1, 100, 5_000, 70_000, 3_000_000] {
            let body = noise(length);
            let stream = client.open(length == 0, request).unwrap();
            let asked = async {
                let Asked {
                    head,
                    stream,
                    ended,
                    ..
                } = accept(&server).await;
                assert_eq!(
                    (head.value(b":path"), head.value(b"x-id")),
                    (Some(&b"/a"[..]), Some(&b"1"[..]))
                );
                head::put(head);
                assert_eq!(ended, length == 0);
                stream.send_head(false, |fields| fields.field(b":status", b"103"));
                let found = read(&stream).await.unwrap();
                stream.send_head(false, answer);
                send(&stream, &found, false).await.unwrap();
                stream.send_trailers(|fields| fields.field(b"x-sum", b"7"));
            };
            let asking = async {
                if length > 0 {
                    send(&stream, &body, true).await.unwrap();
                }
                assert_eq!(status(&stream).await.unwrap(), "103");
                assert_eq!(status(&stream).await.unwrap(), "200");
                assert!(read(&stream).await.unwrap() == body, "{length}");
                assert_eq!(
                    stream.take_trailers().unwrap().value(b"x-sum"),
                    Some(&b"7"[..])
                );
                assert!(stream.is_read());
            };
            tokio::join!(asked, asking);
            drop(stream);
            assert_eq!(client.active(), 0);
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
        assert_eq!(server.active(), 0);
    });
}

#[test]
fn many_at_once() {
    run(async {
        let (client, server) = pair();
        let serving = async {
            for _ in 0..200 {
                let Asked { head, stream, .. } = accept(&server).await;
                head::put(head);
                tokio::task::spawn_local(async move {
                    let body = read(&stream).await.unwrap();
                    stream.send_head(false, answer);
                    send(&stream, &body, true).await.unwrap();
                    poll_fn(|cx| stream.poll_gone(cx)).await;
                });
            }
        };
        let asking = async {
            let tasks: Vec<_> = (0..200usize)
                .map(|number| {
                    let client = client.clone();
                    tokio::task::spawn_local(async move {
                        let stream = loop {
                            // No more than the other end takes.
                            assert!(client.active() <= 100);
                            match client.open(false, request) {
                                Some(stream) => break stream,
                                None => tokio::time::sleep(Duration::from_millis(1)).await,
                            }
                        };
                        let body = noise(number * 1000);
                        let sent = send(&stream, &body, true).await;
                        if matches!(sent, Err(Broken::Reset(Reason::REFUSED_STREAM))) {
                            return false;
                        }
                        status(&stream).await.is_ok() && read(&stream).await.unwrap() == body
                    })
                })
                .collect();
            poll_fn(|cx| client.poll_settled(cx)).await;
            assert_eq!(client.most(), 10);
            let mut refused = 0;
            for task in tasks {
                refused += usize::from(!task.await.unwrap());
            }
            refused
        };
        // Those that were sent before the other end's settings came are refused, no others.
        let refused = tokio::select! {
            refused = asking => refused,
            () = async { serving.await; std::future::pending().await } => 0,
        };
        assert!(refused <= 90, "{refused}");
    });
}

/// A reader that does not read holds up nobody else, and holds little.
#[test]
fn slow_readers() {
    run(async {
        let (client, server) = pair();
        poll_fn(|cx| client.poll_settled(cx)).await;
        let mut slow = Vec::new();
        for _ in 0..9 {
            slow.push(client.open(true, request).unwrap());
            let asked = accept(&server).await;
            head::put(asked.head);
            tokio::task::spawn_local(async move {
                asked.stream.send_head(false, answer);
                // Ends with the link.
                drop(send(&asked.stream, &noise(2_000_000), true).await);
            });
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
        let held = client.0.borrow().held;
        assert!(
            held <= 9 * WINDOW as usize && held > 8 * WINDOW as usize,
            "{held}"
        );
        let quick = client.open(true, request).unwrap();
        let asked = accept(&server).await;
        let body = noise(5_000_000);
        let serving = async {
            asked.stream.send_head(false, answer);
            send(&asked.stream, &body, true).await.unwrap();
        };
        let (found, ()) = tokio::join!(read(&quick), serving);
        assert!(found.unwrap() == body);
        assert!(client.0.borrow().held <= 9 * WINDOW as usize);
        // One who begins to read gets everything.
        assert_eq!(read(&slow[0]).await.unwrap().len(), 2_000_000);
    });
}

#[test]
fn windows_grow_with_quick_readers() {
    run(async {
        let (client, server) = pair();
        let stream = client.open(true, request).unwrap();
        let asked = accept(&server).await;
        let serving = async {
            asked.stream.send_head(false, answer);
            send(&asked.stream, &noise(8_000_000), true).await.unwrap();
        };
        tokio::join!(async { read(&stream).await.unwrap() }, serving);
        let whole = client.0.borrow_mut().entry(0).unwrap().whole;
        assert_eq!(whole, CLIENT.window);
    });
}

#[test]
fn streams_are_given_up() {
    run(async {
        let (client, server) = pair();
        // By the caller.
        let stream = client.open(false, request).unwrap();
        let asked = accept(&server).await;
        drop(stream);
        poll_fn(|cx| asked.stream.poll_gone(cx)).await;
        assert_eq!(
            read(&asked.stream).await,
            Err(Broken::Reset(Reason::CANCEL))
        );
        assert_eq!(
            send(&asked.stream, b"x", false).await,
            Err(Broken::Reset(Reason::CANCEL))
        );
        drop(asked);
        // By the serving end, with a word.
        let stream = client.open(false, request).unwrap();
        let asked = accept(&server).await;
        asked.stream.reset(Reason(2));
        assert_eq!(status(&stream).await, Err(Broken::Reset(Reason(2))));
        drop((stream, asked));
        // A whole answer is one, even if the request was not read to its end.
        let stream = client.open(false, request).unwrap();
        let asked = accept(&server).await;
        asked.stream.send_head(false, answer);
        asked.stream.send_copy(b"early", true);
        drop(asked);
        assert_eq!(status(&stream).await.unwrap(), "200");
        assert_eq!(read(&stream).await.unwrap(), b"early");
        drop(stream);
        assert_eq!((client.active(), server.active()), (0, 0));
        // One that is taken back before anybody looked at it is not handed out.
        drop(client.open(true, request).unwrap());
        let stream = client.open(true, request).unwrap();
        tokio::time::sleep(Duration::from_millis(5)).await;
        assert!(server.accept().is_some() && server.accept().is_none());
        drop(stream);
    });
}

#[test]
fn leaving() {
    run(async {
        let (one, other) = tokio::io::duplex(10_000);
        let (client, server) = (Link::new(CLIENT), Link::new(SERVER));
        let (there, here) = (drive(&client, one), drive(&server, other));
        let stream = client.open(true, request).unwrap();
        let asked = accept(&server).await;
        server.leave();
        // What is on its way is served, what comes later is not.
        let late = client.open(true, request).unwrap();
        let taken = accept(&server).await;
        while !client.is_closed() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        assert!(client.open(true, request).is_none());
        for asked in [asked, taken] {
            asked.stream.send_head(true, answer);
        }
        for stream in [stream, late] {
            assert_eq!(status(&stream).await.unwrap(), "200");
            assert_eq!(read(&stream).await.unwrap(), b"");
        }
        assert_eq!(here.await.unwrap(), "it was left");
        there.await.unwrap();
    });
    // The calling end leaves when its last exchange has ended.
    run(async {
        let (one, other) = tokio::io::duplex(10_000);
        let (client, server) = (Link::new(CLIENT), Link::new(SERVER));
        let (there, here) = (drive(&client, one), drive(&server, other));
        let stream = client.open(true, request).unwrap();
        client.leave();
        assert!(client.open(true, request).is_none());
        accept(&server).await.stream.send_head(true, answer);
        assert_eq!(status(&stream).await.unwrap(), "200");
        drop(stream);
        assert_eq!(there.await.unwrap(), "it was left");
        assert_eq!(here.await.unwrap(), "the other end closed it");
    });
}

#[test]
fn a_link_that_breaks_tells_its_streams() {
    run(async {
        let (one, other) = tokio::io::duplex(10_000);
        let client = Link::new(CLIENT);
        let task = drive(&client, one);
        let stream = client.open(true, request).unwrap();
        drop(other);
        assert!(matches!(status(&stream).await, Err(Broken::Lost(_))));
        task.await.unwrap();
        assert!(client.open(true, request).is_none());
        // Also when nobody drives it any longer.
        let (one, _other) = tokio::io::duplex(10_000);
        let client = Link::new(CLIENT);
        let task = drive(&client, one);
        let stream = client.open(true, request).unwrap();
        task.abort();
        assert!(matches!(status(&stream).await, Err(Broken::Lost(_))));
    });
}

#[test]
fn questions_are_answered() {
    run(async {
        let (client, _server) = pair();
        client.ask().await.unwrap();
        let (one, other) = tokio::io::duplex(10_000);
        let lost = Link::new(CLIENT);
        drive(&lost, one);
        drop(other);
        assert!(lost.ask().await.is_err());
        // Ended by its own side.
        client.abort("enough");
        assert!(client.has_ended());
        assert_eq!(client.ask().await, Err(Broken::Lost("enough".into())));
    });
}

/// Bytes that come one by one say the same as bytes that come at once.
#[test]
fn fragments() {
    let client = Link::new(CLIENT);
    let stream = client.open(false, |fields| {
        request(fields);
        // Longer than one frame may be.
        fields.once(b"x-long", &vec![b'a'; 40_000]);
    });
    let stream = stream.unwrap();
    for last in [false, true] {
        stream.send_copy(&noise(3_000), last);
    }
    let mut bytes = BytesMut::new();
    take_out(&client, &mut bytes);
    for step in [1, 2, 9, 10_000, bytes.len()] {
        let server = Link::new(SERVER);
        let mut input = BytesMut::new();
        for piece in bytes.chunks(step) {
            input.extend_from_slice(piece);
            server.0.borrow_mut().receive(&mut input).unwrap();
        }
        assert!(input.is_empty());
        let asked = server.accept().unwrap();
        assert_eq!(asked.head.value(b"x-long").map(<[u8]>::len), Some(40_000));
        let cx = Context::from_waker(Waker::noop());
        let mut found = Vec::new();
        while let Poll::Ready(Ok(Some(piece))) = asked.stream.poll_piece(&cx) {
            found.extend_from_slice(&piece);
        }
        assert!(found == [noise(3_000), noise(3_000)].concat() && asked.stream.is_read());
    }
}

/// What an end has to send.
fn take_out(link: &Link, into: &mut BytesMut) {
    let mut state = link.0.borrow_mut();
    while !state.out.is_empty() {
        let front = state.out.front().to_vec();
        into.extend_from_slice(&front);
        state.out.advance(front.len());
    }
}

#[test]
fn crumbs_are_put_together() {
    let server = Link::new(SERVER);
    let mut bytes = BytesMut::from(PREFACE);
    frame::put(&mut bytes, frame::SETTINGS, 0, 0, &[]);
    frame::put(&mut bytes, frame::HEADERS, END_HEADERS, 1, &[0x83]);
    for _ in 0..60_000 {
        frame::put(&mut bytes, frame::DATA, 0, 1, b"x");
    }
    server.0.borrow_mut().receive(&mut bytes).unwrap();
    let asked = server.accept().unwrap();
    let mut state = server.0.borrow_mut();
    let entry = state.entry(0).unwrap();
    assert_eq!(entry.held(), 60_000);
    assert!(entry.inbox.len() < 300, "{}", entry.inbox.len());
    drop(state);
    drop(asked);
    assert_eq!(server.0.borrow().held, 0);
}
