//! What a peer may make this end hold or do, and what is never lost when an end leaves.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::{
    raw::{SETTINGS, frame_of, headers},
    *,
};

/// A serving end that has heard a greeting and these frames.
fn told(frames: &[Vec<u8>]) -> (Result<(), Reason>, Link) {
    let server = Link::new(SERVER);
    let mut input = BytesMut::from(&[PREFACE, SETTINGS, &frames.concat()].concat()[..]);
    let ended = server.0.borrow_mut().receive(&mut input);
    (ended, server)
}

#[test]
fn more_than_anybody_needs_ends_the_link() {
    let part = frame_of(frame::CONTINUATION, 0, 1, &[0x83]);
    let unset = [0, 9, 0, 0, 0, 1].repeat(65);
    let cases: Vec<(&str, Vec<Vec<u8>>)> = vec![
        (
            "a head of countless parts",
            [vec![headers(0, 1)], vec![part; 64]].concat(),
        ),
        (
            "countless settings",
            vec![frame_of(frame::SETTINGS, 0, 0, &unset)],
        ),
        (
            "heads of a stream that is over",
            [
                vec![
                    headers(END_HEADERS, 1),
                    frame_of(frame::RST_STREAM, 0, 1, &[0, 0, 0, 8]),
                ],
                vec![headers(END_HEADERS, 1); 3000],
            ]
            .concat(),
        ),
    ];
    for (what, frames) in cases {
        assert_eq!(told(&frames).0, Err(Reason::ENHANCE_YOUR_CALM), "{what}");
    }
}

/// Requests that are cancelled after they were looked at are no flood: their callers had enough of waiting.
#[test]
fn callers_may_lose_patience() {
    let (_, server) = told(&[]);
    for number in 0..5000 {
        let id = 2 * number + 1;
        let mut state = server.0.borrow_mut();
        let mut input = BytesMut::from(&headers(END_HEADERS | END_STREAM, id)[..]);
        state.receive(&mut input).unwrap();
        drop(state);
        let asked = server.accept().unwrap();
        let reset = frame_of(frame::RST_STREAM, 0, id, &[0, 0, 0, 8]);
        let mut input = BytesMut::from(&reset[..]);
        server.0.borrow_mut().receive(&mut input).unwrap();
        drop(asked);
    }
}

/// Streams that are opened after the last one was named are not looked at; the others go on.
#[test]
fn streams_that_come_too_late() {
    let (ended, server) = told(&[headers(END_HEADERS, 1)]);
    ended.unwrap();
    let asked = server.accept().unwrap();
    server.leave();
    let question = server.0.borrow().question.unwrap();
    let window = 1u32.to_be_bytes();
    let frames = [
        frame_of(frame::PING, frame::ACK, 0, &question),
        headers(END_HEADERS, 3),
        frame_of(frame::DATA, 0, 3, b"late"),
        frame_of(frame::WINDOW_UPDATE, 0, 3, &window),
        frame_of(frame::DATA, END_STREAM, 3, b"late"),
        frame_of(frame::RST_STREAM, 0, 3, &[0, 0, 0, 8]),
        frame_of(frame::DATA, END_STREAM, 1, b"in time"),
    ];
    let mut input = BytesMut::from(&frames.concat()[..]);
    server.0.borrow_mut().receive(&mut input).unwrap();
    assert!(server.accept().is_none());
    let cx = Context::from_waker(Waker::noop());
    let Poll::Ready(Ok(Some(piece))) = asked.stream.poll_piece(&cx) else {
        panic!("the stream in time is lost");
    };
    assert_eq!(piece, "in time");
}

/// Padding counts against the window, and nobody reads it.
#[test]
fn padding_is_given_back() {
    let padded = |_| {
        frame_of(
            frame::DATA,
            frame::PADDED,
            1,
            &[&[255][..], &[0; 255]].concat(),
        )
    };
    let (ended, server) = told(
        &[
            vec![headers(END_HEADERS, 1)],
            (0..200).map(padded).collect(),
        ]
        .concat(),
    );
    ended.unwrap();
    let mut out = BytesMut::new();
    take_out(&server, &mut out);
    let mut given = 0;
    while let Some(head) = frame::Head::read(&out) {
        drop(out.split_to(frame::HEAD));
        let payload = out.split_to(head.length);
        if (head.kind, head.stream) == (frame::WINDOW_UPDATE, 1) {
            given += u32::from_be_bytes(payload[..].try_into().unwrap());
        }
    }
    assert!(given >= WINDOW / 2, "{given}");
}

/// A caller that asks and asks and takes no answer is listened to no longer, and goes on once it takes some.
#[test]
fn who_takes_no_answers_is_not_asked_for_more() {
    run(async {
        let (mut client, io) = tokio::io::duplex(10_000);
        let server = Link::new(Terms {
            streams: 1 << 20,
            ..SERVER
        });
        drive(&server, io);
        let serving = server.clone();
        tokio::task::spawn_local(async move {
            let long = vec![b'a'; 2_000];
            loop {
                while let Some(asked) = serving.accept() {
                    asked.stream.send_head(true, |fields| {
                        answer(fields);
                        fields.once(b"x-long", &long);
                    });
                }
                tokio::task::yield_now().await;
            }
        });
        client
            .write_all(&[PREFACE, SETTINGS].concat())
            .await
            .unwrap();
        let mut asked = 0;
        loop {
            let next = headers(END_HEADERS | END_STREAM, 2 * asked + 1);
            let pause = Duration::from_millis(300);
            let sent = tokio::time::timeout(pause, client.write_all(&next));
            if sent.await.is_err() {
                break;
            }
            asked += 1;
            assert!(asked < 100_000, "it takes everything");
        }
        let waits = server.0.borrow().out.len();
        // One reading of the socket on top: a few hundred requests.
        assert!((1 << 20..3 << 20).contains(&waits), "{waits}");
        // The last one was cut somewhere: every one before it is answered.
        let mut answered = 0;
        let mut input = BytesMut::new();
        while answered < asked {
            assert!(client.read_buf(&mut input).await.unwrap() > 0);
            while let Some(head) = frame::Head::read(&input) {
                if input.len() < frame::HEAD + head.length {
                    break;
                }
                drop(input.split_to(frame::HEAD + head.length));
                answered += u32::from(head.kind == frame::HEADERS);
            }
        }
    });
}

/// An end that leaves waits for a slow reader, and for the other end's own end.
#[test]
fn what_was_answered_arrives() {
    run(async {
        let (io, there) = tokio::io::duplex(1_000);
        let server = Link::new(SERVER);
        let here = drive(&server, there);
        let (mut from, mut to) = tokio::io::split(io);
        to.write_all(&[PREFACE, SETTINGS, &headers(END_HEADERS | END_STREAM, 1)].concat())
            .await
            .unwrap();
        let more = (8u32 << 20).to_be_bytes();
        for stream in [0, 1] {
            to.write_all(&frame_of(frame::WINDOW_UPDATE, 0, stream, &more))
                .await
                .unwrap();
        }
        let asked = accept(&server).await;
        let body = noise(200_000);
        asked.stream.send_head(false, answer);
        send(&asked.stream, &body, true).await.unwrap();
        drop(asked);
        server.leave();
        server.0.borrow_mut().leave_for_good();
        // It has nothing more to say, and has not said it yet.
        for _ in 0..50 {
            tokio::task::yield_now().await;
        }
        assert!(server.active() == 0 && !server.has_ended());
        let (mut input, mut found) = (BytesMut::new(), Vec::new());
        while from.read_buf(&mut input).await.unwrap() > 0 {
            while let Some(head) = frame::Head::read(&input) {
                if input.len() < frame::HEAD + head.length {
                    break;
                }
                drop(input.split_to(frame::HEAD));
                let payload = input.split_to(head.length);
                if head.kind == frame::DATA {
                    found.extend_from_slice(&payload);
                }
            }
        }
        assert!(found == body, "{} bytes came", found.len());
        // What is said now is still taken, and means nothing.
        to.write_all(&[7; 5_000]).await.unwrap();
        drop((from, to));
        assert_eq!(here.await.unwrap(), "it was left");
    });
}

/// Numbers of streams end some day: then another connection is needed.
#[test]
fn numbers_are_used_up() {
    let client = Link::new(CLIENT);
    client.0.borrow_mut().next = 0x7fff_fffd;
    let last = client.open(true, request);
    assert!(last.is_some() && client.is_closed());
    assert!(client.open(true, request).is_none());
}
