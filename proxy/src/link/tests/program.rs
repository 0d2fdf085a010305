//! What programs are held to, where a daemon is believed.

use super::{
    raw::{SETTINGS, frame_of, headers},
    *,
};

const PROGRAM: Terms = Terms {
    peer: Peer::Program,
    ..SERVER
};

/// A serving end that has heard a greeting and these frames of a program; how it ends.
fn told(frames: &[Vec<u8>]) -> (Result<(), Reason>, Link) {
    let server = Link::new(PROGRAM);
    let ended = hears(&server, &[PREFACE, SETTINGS, &frames.concat()].concat());
    (ended, server)
}

fn hears(server: &Link, bytes: &[u8]) -> Result<(), Reason> {
    let mut input = BytesMut::from(bytes);
    server.0.borrow_mut().receive(&mut input)
}

/// The streams that it has reset, and why.
fn resets(server: &Link) -> Vec<(u32, Reason)> {
    let mut out = BytesMut::new();
    take_out(server, &mut out);
    let mut found = Vec::new();
    while let Some(head) = frame::Head::read(&out) {
        drop(out.split_to(frame::HEAD));
        let payload = out.split_to(head.length);
        if head.kind == frame::RST_STREAM {
            let reason = u32::from_be_bytes(payload[..].try_into().unwrap());
            found.push((head.stream, Reason(reason)));
        }
    }
    found
}

/// `:method: POST` and `content-length: 5`.
fn five(flags: u8) -> Vec<u8> {
    let block = [&[0x83, 0x0f, 0x0d, 1][..], b"5"].concat();
    frame_of(frame::HEADERS, END_HEADERS | flags, 1, &block)
}

fn data(flags: u8, body: &[u8]) -> Vec<u8> {
    frame_of(frame::DATA, flags, 1, body)
}

#[test]
fn faults_of_the_connection() {
    let reset = |id| frame_of(frame::RST_STREAM, 0, id, &[0, 0, 0, 8]);
    let window = |id| frame_of(frame::WINDOW_UPDATE, 0, id, &[0; 4]);
    let ids = || (0..).map(|number| 2 * number + 1);
    let closed = Reason::STREAM_CLOSED;
    let calm = Reason::ENHANCE_YOUR_CALM;
    let cases: Vec<(&str, Vec<Vec<u8>>, Reason)> = vec![
        (
            "a body behind the end",
            vec![headers(END_HEADERS | END_STREAM, 1), data(0, b"x")],
            closed,
        ),
        (
            "a body behind its own reset",
            vec![headers(END_HEADERS, 1), reset(1), data(0, b"x")],
            closed,
        ),
        (
            "a head behind its own reset",
            vec![
                headers(END_HEADERS, 1),
                reset(1),
                headers(END_HEADERS | END_STREAM, 1),
            ],
            closed,
        ),
        (
            "a number that is past",
            vec![headers(END_HEADERS, 5), headers(END_HEADERS, 3)],
            closed,
        ),
        (
            "a priority under itself",
            vec![frame_of(frame::PRIORITY, 0, 3, &[0, 0, 0, 3, 0])],
            Reason::PROTOCOL_ERROR,
        ),
        (
            "a head under itself",
            vec![frame_of(
                frame::HEADERS,
                END_HEADERS | frame::WITH_PRIORITY,
                3,
                &[0x80, 0, 0, 3, 0, 0x83],
            )],
            Reason::PROTOCOL_ERROR,
        ),
        (
            "a frame too long",
            vec![headers(END_HEADERS, 1), data(0, &[0; (16 << 10) + 1])],
            Reason::FRAME_SIZE_ERROR,
        ),
        (
            "padding without an end",
            [
                vec![headers(END_HEADERS, 1)],
                vec![frame_of(frame::DATA, frame::PADDED, 1, &[1, 0]); 5000],
            ]
            .concat(),
            calm,
        ),
        (
            "requests that are taken back at once",
            ids()
                .take(21)
                .flat_map(|id| [headers(END_HEADERS | END_STREAM, id), reset(id)])
                .collect(),
            calm,
        ),
        (
            "one fault after another",
            ids()
                .take(102)
                .flat_map(|id| [headers(END_HEADERS, id), window(id)])
                .collect(),
            calm,
        ),
    ];
    for (what, frames, reason) in cases {
        assert_eq!(told(&frames).0, Err(reason), "{what}");
    }
}

/// RFC 9113 section 8.1.1: the length that was announced is the one that comes.
#[test]
fn lengths_are_kept() {
    let trailers = || frame_of(frame::HEADERS, END_HEADERS | END_STREAM, 1, &[]);
    for frames in [
        vec![five(0), data(END_STREAM, b"four")],
        vec![five(0), data(0, b"sixsix")],
        vec![five(0), data(0, b"thr"), data(0, b"ee!")],
        vec![five(0), data(0, b"four"), trailers()],
        vec![five(0), data(END_STREAM, b"")],
    ] {
        let (ended, server) = told(&frames);
        assert_eq!(ended, Ok(()));
        assert_eq!(resets(&server), [(1, Reason::PROTOCOL_ERROR)], "{frames:?}");
    }
    for frames in [
        vec![five(0), data(END_STREAM, b"five!")],
        vec![five(0), data(0, b"fi"), data(0, b"ve!"), trailers()],
        vec![five(0), data(0, b"five!"), data(END_STREAM, b"")],
    ] {
        let (ended, server) = told(&frames);
        assert_eq!(ended, Ok(()));
        assert_eq!(resets(&server), [], "{frames:?}");
    }
}

#[test]
fn trailers_have_no_pseudo_headers() {
    let status = [&[0x08, 3][..], b"200"].concat();
    let trailers = frame_of(frame::HEADERS, END_HEADERS | END_STREAM, 1, &status);
    let (ended, server) = told(&[headers(END_HEADERS, 1), trailers]);
    assert_eq!(ended, Ok(()));
    assert_eq!(resets(&server), [(1, Reason::PROTOCOL_ERROR)]);
}

/// What was on its way when this end gave a stream up breaks nothing.
#[test]
fn what_is_late_is_not_held_against_it() {
    let (ended, server) = told(&[headers(END_HEADERS, 1)]);
    ended.unwrap();
    drop(server.accept());
    assert_eq!(resets(&server), [(1, Reason::CANCEL)]);
    let trailers = frame_of(frame::HEADERS, END_HEADERS | END_STREAM, 1, &[]);
    let late = [data(0, b"late"), trailers].concat();
    assert_eq!(hears(&server, &late), Ok(()));
    assert_eq!((resets(&server), server.active()), (vec![], 0));
}

/// Whoever takes its request back is counted, even where nobody has looked at it yet.
#[test]
fn requests_that_were_taken_back_are_seen() {
    let reset = frame_of(frame::RST_STREAM, 0, 1, &[0, 0, 0, 8]);
    let (ended, server) = told(&[headers(END_HEADERS | END_STREAM, 1), reset]);
    ended.unwrap();
    let asked = server.accept().unwrap();
    let cx = Context::from_waker(Waker::noop());
    assert!(asked.stream.poll_gone(&cx).is_ready());
    assert_eq!(server.0.borrow().stillborn, 0);
}

/// Slow readers behind one connection hold no more than it was allowed.
#[test]
fn little_is_held_for_slow_readers() {
    let server = Link::new(Terms {
        streams: 250,
        ..PROGRAM
    });
    hears(&server, &[PREFACE, SETTINGS].concat()).unwrap();
    let mut streams = Vec::new();
    let piece = vec![b'x'; 16 << 10];
    let mut sent = 0;
    'all: for number in 0..250 {
        let id = 2 * number + 1;
        hears(&server, &headers(END_HEADERS, id)).unwrap();
        streams.extend(server.accept());
        for _ in 0..3 {
            let full = i64::try_from(piece.len()).unwrap();
            if server.0.borrow().window < full {
                break 'all;
            }
            hears(&server, &frame_of(frame::DATA, 0, id, &piece)).unwrap();
            sent += piece.len();
        }
    }
    assert!(sent <= 3 << 20, "{sent}");
}
