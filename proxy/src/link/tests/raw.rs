//! Frames that break a rule: which end they get, of the stream or of the link.

use super::*;

/// Kind, flags, stream, payload.
type Answer = (u8, u8, u32, Vec<u8>);

pub(super) const SETTINGS: &[u8] = &[0, 0, 0, 4, 0, 0, 0, 0, 0];

pub(super) fn frame_of(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut out = BytesMut::new();
    frame::put(&mut out, kind, flags, stream, payload);
    out.to_vec()
}

/// Gives a serving end the preface, settings and these frames; how it ends, and what it answers.
fn serve(frames: &[Vec<u8>]) -> (Result<(), Reason>, Link, Vec<Answer>) {
    let server = Link::new(SERVER);
    let mut input = BytesMut::from(&[PREFACE, SETTINGS, &frames.concat()].concat()[..]);
    let ended = server.0.borrow_mut().receive(&mut input);
    let mut out = BytesMut::new();
    take_out(&server, &mut out);
    let mut answers = Vec::new();
    while let Some(head) = frame::Head::read(&out) {
        drop(out.split_to(frame::HEAD));
        let payload = out.split_to(head.length).to_vec();
        answers.push((head.kind, head.flags, head.stream, payload));
    }
    (ended, server, answers)
}

/// `:method: POST` and nothing else; what it means is not looked at here.
pub(super) fn headers(flags: u8, stream: u32) -> Vec<u8> {
    frame_of(frame::HEADERS, flags, stream, &[0x83])
}

#[test]
fn faults_of_the_connection() {
    let open = || headers(END_HEADERS, 1);
    let window = |stream, more: u32| frame_of(frame::WINDOW_UPDATE, 0, stream, &more.to_be_bytes());
    let setting = |name: u16, value: u32| {
        let payload = [&name.to_be_bytes()[..], &value.to_be_bytes()].concat();
        frame_of(frame::SETTINGS, 0, 0, &payload)
    };
    let protocol = Reason::PROTOCOL_ERROR;
    let size = Reason::FRAME_SIZE_ERROR;
    let flow = Reason::FLOW_CONTROL_ERROR;
    let cases: Vec<(&str, Vec<Vec<u8>>, Reason)> = vec![
        (
            "a body on stream 0",
            vec![frame_of(frame::DATA, 0, 0, b"x")],
            protocol,
        ),
        (
            "a body of no stream",
            vec![frame_of(frame::DATA, 0, 1, b"x")],
            protocol,
        ),
        (
            "more padding than body",
            vec![open(), frame_of(frame::DATA, frame::PADDED, 1, &[5, 0])],
            protocol,
        ),
        (
            "padding of nothing",
            vec![open(), frame_of(frame::DATA, frame::PADDED, 1, &[])],
            protocol,
        ),
        (
            "a head on stream 0",
            vec![headers(END_HEADERS, 0)],
            protocol,
        ),
        (
            "a head with an even number",
            vec![headers(END_HEADERS, 2)],
            protocol,
        ),
        (
            "more padding than head",
            vec![frame_of(
                frame::HEADERS,
                END_HEADERS | frame::PADDED,
                1,
                &[9, 0x83],
            )],
            protocol,
        ),
        (
            "a cut priority",
            vec![frame_of(
                frame::HEADERS,
                END_HEADERS | frame::WITH_PRIORITY,
                1,
                &[0; 4],
            )],
            size,
        ),
        (
            "a head that cannot be read",
            vec![frame_of(frame::HEADERS, END_HEADERS, 1, &[0x80])],
            Reason::COMPRESSION_ERROR,
        ),
        (
            "something inside a head",
            vec![headers(0, 1), frame_of(frame::PING, 0, 0, &[0; 8])],
            protocol,
        ),
        (
            "another head inside a head",
            vec![headers(0, 1), headers(END_HEADERS, 3)],
            protocol,
        ),
        (
            "a part of another head",
            vec![
                headers(0, 1),
                frame_of(frame::CONTINUATION, END_HEADERS, 3, &[]),
            ],
            protocol,
        ),
        (
            "a part of no head",
            vec![frame_of(frame::CONTINUATION, END_HEADERS, 1, &[])],
            protocol,
        ),
        (
            "a head of many parts",
            {
                let part = frame_of(frame::CONTINUATION, 0, 1, &vec![0; 60_000]);
                vec![headers(0, 1), part.clone(), part.clone(), part]
            },
            Reason::ENHANCE_YOUR_CALM,
        ),
        (
            "a priority on stream 0",
            vec![frame_of(frame::PRIORITY, 0, 0, &[0; 5])],
            protocol,
        ),
        (
            "a priority of 4 bytes",
            vec![frame_of(frame::PRIORITY, 0, 1, &[0; 4])],
            size,
        ),
        (
            "a reset on stream 0",
            vec![frame_of(frame::RST_STREAM, 0, 0, &[0; 4])],
            protocol,
        ),
        (
            "a reset of no stream",
            vec![frame_of(frame::RST_STREAM, 0, 1, &[0; 4])],
            protocol,
        ),
        (
            "a reset of 3 bytes",
            vec![open(), frame_of(frame::RST_STREAM, 0, 1, &[0; 3])],
            size,
        ),
        (
            "settings of a stream",
            vec![frame_of(frame::SETTINGS, 0, 1, &[])],
            protocol,
        ),
        (
            "settings of 5 bytes",
            vec![frame_of(frame::SETTINGS, 0, 0, &[0; 5])],
            size,
        ),
        (
            "an acknowledgement with words",
            vec![frame_of(frame::SETTINGS, frame::ACK, 0, &[0; 6])],
            size,
        ),
        ("push 2", vec![setting(frame::ENABLE_PUSH, 2)], protocol),
        (
            "a window too large",
            vec![setting(frame::INITIAL_WINDOW_SIZE, 1 << 31)],
            flow,
        ),
        (
            "a window that overflows",
            vec![
                open(),
                window(1, 0x7fff_0000),
                setting(frame::INITIAL_WINDOW_SIZE, 0x7fff_ffff),
            ],
            flow,
        ),
        (
            "small frames",
            vec![setting(frame::MAX_FRAME_SIZE, 16_383)],
            protocol,
        ),
        (
            "huge frames",
            vec![setting(frame::MAX_FRAME_SIZE, 1 << 24)],
            protocol,
        ),
        (
            "a push",
            vec![frame_of(frame::PUSH_PROMISE, END_HEADERS, 1, &[0; 8])],
            protocol,
        ),
        (
            "a ping of a stream",
            vec![frame_of(frame::PING, 0, 1, &[0; 8])],
            protocol,
        ),
        (
            "a ping of 7 bytes",
            vec![frame_of(frame::PING, 0, 0, &[0; 7])],
            size,
        ),
        (
            "a goodbye of a stream",
            vec![frame_of(frame::GOAWAY, 0, 1, &[0; 8])],
            protocol,
        ),
        (
            "a cut goodbye",
            vec![frame_of(frame::GOAWAY, 0, 0, &[0; 7])],
            size,
        ),
        ("no window", vec![window(0, 0)], protocol),
        ("a window of no stream", vec![window(1, 1)], protocol),
        (
            "a window of 3 bytes",
            vec![frame_of(frame::WINDOW_UPDATE, 0, 0, &[0; 3])],
            size,
        ),
        ("too wide a window", vec![window(0, 0x7fff_ffff)], flow),
        (
            "a frame too long",
            vec![frame_of(frame::DATA, 0, 1, &vec![0; FRAME + 1])],
            size,
        ),
        (
            "pings without an end",
            vec![frame_of(frame::PING, 0, 0, &[0; 8]); 5000],
            Reason::ENHANCE_YOUR_CALM,
        ),
        (
            "settings without an end",
            vec![frame_of(frame::SETTINGS, 0, 0, &[]); 5000],
            Reason::ENHANCE_YOUR_CALM,
        ),
        (
            "priorities without an end",
            vec![frame_of(frame::PRIORITY, 0, 1, &[0; 5]); 5000],
            Reason::ENHANCE_YOUR_CALM,
        ),
        (
            "empty bodies without an end",
            [vec![open()], vec![frame_of(frame::DATA, 0, 1, &[]); 5000]].concat(),
            Reason::ENHANCE_YOUR_CALM,
        ),
        (
            "requests that are taken back",
            (0..2000u32)
                .flat_map(|number| {
                    let id = 2 * number + 1;
                    [
                        headers(END_HEADERS | END_STREAM, id),
                        frame_of(frame::RST_STREAM, 0, id, &[0, 0, 0, 8]),
                    ]
                })
                .collect(),
            Reason::ENHANCE_YOUR_CALM,
        ),
    ];
    for (what, frames, reason) in cases {
        assert_eq!(serve(&frames).0, Err(reason), "{what}");
    }
}

#[test]
fn faults_of_a_stream() {
    let open = || headers(END_HEADERS, 1);
    let window = |more: u32| frame_of(frame::WINDOW_UPDATE, 0, 1, &more.to_be_bytes());
    let full = frame_of(frame::DATA, 0, 1, &vec![0; 30_000]);
    let cases: Vec<(&str, Vec<Vec<u8>>, Reason)> = vec![
        (
            "a body behind the end",
            vec![
                headers(END_HEADERS | END_STREAM, 1),
                frame_of(frame::DATA, 0, 1, b"x"),
            ],
            Reason::STREAM_CLOSED,
        ),
        (
            "a head behind the end",
            vec![
                headers(END_HEADERS | END_STREAM, 1),
                headers(END_HEADERS | END_STREAM, 1),
            ],
            Reason::STREAM_CLOSED,
        ),
        (
            "trailers that end nothing",
            vec![open(), headers(END_HEADERS, 1)],
            Reason::PROTOCOL_ERROR,
        ),
        ("no window", vec![open(), window(0)], Reason::PROTOCOL_ERROR),
        (
            "too wide a window",
            vec![open(), window(0x7fff_ffff)],
            Reason::FLOW_CONTROL_ERROR,
        ),
        (
            "more than the window",
            vec![open(), full.clone(), full.clone(), full],
            Reason::FLOW_CONTROL_ERROR,
        ),
    ];
    for (what, frames, reason) in cases {
        let (ended, link, answers) = serve(&frames);
        assert_eq!(ended, Ok(()), "{what}");
        let reset = (frame::RST_STREAM, 0, 1, reason.0.to_be_bytes().to_vec());
        assert!(answers.contains(&reset), "{what}: {answers:?}");
        assert_eq!(link.active(), 0, "{what}");
    }
}

#[test]
fn more_streams_than_allowed_are_refused() {
    let frames: Vec<_> = (0..12)
        .map(|number| headers(END_HEADERS, 2 * number + 1))
        .collect();
    let (ended, link, answers) = serve(&frames);
    assert_eq!((ended, link.active()), (Ok(()), 10));
    let refused = |id| {
        (
            frame::RST_STREAM,
            0,
            id,
            Reason::REFUSED_STREAM.0.to_be_bytes().to_vec(),
        )
    };
    assert!(answers.contains(&refused(21)) && answers.contains(&refused(23)));
    // Bodies of those that were refused are on their way, and forgotten.
    let frames = [frames, vec![frame_of(frame::DATA, END_STREAM, 23, b"late")]].concat();
    assert_eq!(serve(&frames).0, Ok(()));
}

#[test]
fn what_may_come_and_means_nothing() {
    let frames = vec![
        frame_of(77, 0xff, 5, b"unknown"),
        frame_of(frame::SETTINGS, 0, 0, &[0, 99, 0, 0, 0, 1]),
        frame_of(frame::PRIORITY, 0, 7, &[0; 5]),
        frame_of(
            frame::HEADERS,
            END_HEADERS | frame::PADDED | frame::WITH_PRIORITY,
            1,
            &[2, 0, 0, 0, 0, 0, 0x83, 0, 0],
        ),
        frame_of(
            frame::DATA,
            frame::PADDED | END_STREAM,
            1,
            &[3, b'a', b'b', 0, 0, 0],
        ),
        frame_of(frame::PING, frame::ACK, 0, &[9; 8]),
    ];
    let (ended, link, answers) = serve(&frames);
    assert_eq!(ended, Ok(()));
    assert!(
        answers
            .iter()
            .filter(|(kind, ..)| *kind == frame::SETTINGS)
            .count()
            == 3
    );
    let asked = link.accept().unwrap();
    let cx = Context::from_waker(Waker::noop());
    assert_eq!(
        asked.stream.poll_piece(&cx),
        Poll::Ready(Ok(Some(Bytes::from_static(b"ab"))))
    );
    assert_eq!(asked.stream.poll_piece(&cx), Poll::Ready(Ok(None)));
}

#[test]
fn who_speaks_something_else_is_refused() {
    for bytes in [
        &b"GET / HTTP/1.1\r\n\r\n"[..],
        b"PRI * HTTP/2.0\r\n\r\nSX",
        &[PREFACE, &[0; 9]].concat(),
    ] {
        let server = Link::new(SERVER);
        let ended = server.0.borrow_mut().receive(&mut BytesMut::from(bytes));
        assert_eq!(ended, Err(Reason::PROTOCOL_ERROR));
    }
}

/// What a calling end does not take from a serving one.
#[test]
fn faults_of_the_serving_end() {
    let window = |stream, more: u32| frame_of(frame::WINDOW_UPDATE, 0, stream, &more.to_be_bytes());
    let protocol = Reason::PROTOCOL_ERROR;
    let cases: Vec<(&str, Vec<Vec<u8>>, Reason)> = vec![
        (
            "an answer to nothing",
            vec![headers(END_HEADERS, 3)],
            protocol,
        ),
        (
            "a stream of its own",
            vec![headers(END_HEADERS, 2)],
            protocol,
        ),
        (
            "a push",
            vec![frame_of(frame::PUSH_PROMISE, END_HEADERS, 1, &[0; 8])],
            protocol,
        ),
        ("a window of no stream", vec![window(5, 1)], protocol),
    ];
    for (what, frames, reason) in cases {
        let client = Link::new(CLIENT);
        let _stream = client.open(true, request).unwrap();
        let mut input = BytesMut::from(&[SETTINGS, &frames.concat()].concat()[..]);
        assert_eq!(
            client.0.borrow_mut().receive(&mut input),
            Err(reason),
            "{what}"
        );
    }
    let cases: Vec<(&str, Vec<Vec<u8>>, Reason)> = vec![
        (
            "a body before its head",
            vec![frame_of(frame::DATA, 0, 1, b"x")],
            protocol,
        ),
        (
            "an interim head that ends",
            vec![frame_of(
                frame::HEADERS,
                END_HEADERS | END_STREAM,
                1,
                &[0x08, 3, b'1', b'0', b'3'],
            )],
            protocol,
        ),
        (
            "interim heads without an end",
            vec![frame_of(frame::HEADERS, END_HEADERS, 1, &[0x08, 3, b'1', b'0', b'3']); 40],
            protocol,
        ),
    ];
    for (what, frames, reason) in cases {
        let client = Link::new(CLIENT);
        let stream = client.open(true, request).unwrap();
        let mut input = BytesMut::from(&[SETTINGS, &frames.concat()].concat()[..]);
        assert_eq!(client.0.borrow_mut().receive(&mut input), Ok(()), "{what}");
        let cx = Context::from_waker(Waker::noop());
        let broken = loop {
            match stream.poll_head(&cx) {
                Poll::Ready(Ok(head)) => head::put(head),
                Poll::Ready(Err(broken)) => break broken,
                Poll::Pending => panic!("{what}: not broken"),
            }
        };
        assert_eq!(broken, Broken::Refused(reason), "{what}");
    }
}

#[test]
fn streams_above_the_last_were_not_looked_at() {
    let client = Link::new(CLIENT);
    let streams = [
        client.open(true, request).unwrap(),
        client.open(true, request).unwrap(),
    ];
    let goaway = frame_of(frame::GOAWAY, 0, 0, &[0, 0, 0, 1, 0, 0, 0, 0]);
    let mut input = BytesMut::from(&[SETTINGS, &goaway].concat()[..]);
    client.0.borrow_mut().receive(&mut input).unwrap();
    let cx = Context::from_waker(Waker::noop());
    assert!(streams[0].poll_head(&cx).is_pending());
    let Poll::Ready(Err(broken)) = streams[1].poll_head(&cx) else {
        panic!("not told");
    };
    assert!(broken.is_unprocessed() && client.is_closed());
}

/// Noise never panics, and never makes more of itself.
#[test]
fn noise_is_survived() {
    for seed in 0..300 {
        let mut random = fastrand::Rng::with_seed(seed);
        let server = Link::new(SERVER);
        let mut input = BytesMut::from(&[PREFACE, SETTINGS].concat()[..]);
        let mut streams = Vec::new();
        for _ in 0..200 {
            let length = random.usize(..40);
            let payload: Vec<u8> = (0..length).map(|_| random.u8(..)).collect();
            let stream = random.u32(..8);
            input.extend_from_slice(&frame_of(random.u8(..11), random.u8(..), stream, &payload));
            if server.0.borrow_mut().receive(&mut input).is_err() {
                break;
            }
            while let Some(asked) = server.accept() {
                streams.push(asked);
            }
            if random.u8(..) < 10 {
                streams.clear();
            }
        }
    }
}
